"""Where examples come from: the files under `data_dir`, or a data set that TFDS has prepared."""

import functools
import itertools
import os
import pathlib
from typing import Any

import numpy as np

from jxstilts.runtime import InputError, suggest
from jxstilts.tasks.languages import LANGUAGES
from jxstilts.tasks.spec import TaskSpec


def find_files(spec: TaskSpec, data_dir: str | os.PathLike, split: str, language: str) -> list[pathlib.Path]:
    """Returns the original files to read for a split and language; empty where there is none."""
    return _there(spec, data_dir, spec.patterns(split, language))


def find_translated(spec: TaskSpec, data_dir: str | os.PathLike, split: str, language: str) -> list[pathlib.Path]:
    """Returns the machine-translated files to read for a split and language; empty where there is none."""
    return _there(spec, data_dir, spec.translated_patterns(split, language))


def _there(spec, data_dir, patterns):
    root = pathlib.Path(data_dir).expanduser()
    found = [_matches(root, pattern) for pattern in patterns]
    there = [paths for paths in found if paths]
    return list(itertools.chain(*(there if spec.union else there[:1])))


def _matches(root, pattern):
    """Returns the files at a pattern: one, or where it has a "*" all of them in the order of their names."""
    if "*" in pattern:
        return sorted((path for path in root.glob(pattern) if path.is_file()), key=lambda path: path.name)
    return [root / pattern] if (root / pattern).is_file() else []


def read_files(spec: TaskSpec, paths: list[pathlib.Path], language: str, translated: bool = False) -> Any:
    """Returns what the spec's reader makes of the files, one after the other."""
    if translated and spec.read_translated:
        read = spec.read_translated
    else:
        read = functools.partial(spec.read, language=language) if spec.multilingual else spec.read
    if len(paths) == 1:
        return read(paths[0])
    return [example for path in paths for example in read(path)]


def missing_files(spec: TaskSpec, data_dir: str | os.PathLike, split: str, language: str) -> str:
    """Returns the message for a split and language without a file."""
    root = pathlib.Path(data_dir).expanduser()
    if not root.is_dir():
        return f"no folder {root}; set data_dir to a folder in XTREME's layout"
    originals, copies = spec.patterns(split, language), spec.translated_patterns(split, language)
    expected = " or ".join(str(root / pattern) for pattern in originals + copies)
    kind = "" if originals else "machine-translated "

    def there(split, code):
        return find_files(spec, root, split, code) or find_translated(spec, root, split, code)

    others = [code for code in dict.fromkeys((*spec.languages, *LANGUAGES)) if code != language and there(split, code)]
    splits = [other for other in spec.splits if other != split and there(other, language)]
    return (
        f"task {spec.name!r} has no {kind}{split!r} file for {language!r} under data_dir; expected {expected}. "
        f"Languages with this split there: {', '.join(others) or 'none'}. "
        f"Other splits of {language!r} there: {', '.join(splits) or 'none'}"
    )


def tfds_folder() -> pathlib.Path:
    """Returns TFDS's own data folder: `TFDS_DATA_DIR`, else ~/tensorflow_datasets."""
    return pathlib.Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def in_tfds(spec: TaskSpec, split: str, language: str) -> bool:
    """Returns whether TFDS has a data set with this split and language, prepared or not."""
    return spec.tfds is not None and language in spec.tfds.languages and split in spec.tfds.splits


def find_tfds(spec: TaskSpec, split: str, language: str) -> list[pathlib.Path]:
    """Returns the folders to read: the newest prepared version of the task's first TFDS data set that is there.

    With `Tfds.union` it is one folder per data set. Empty where nothing, or not all of them, is prepared.
    """
    if not in_tfds(spec, split, language):
        return []
    folders = [_newest(name.format(language=language)) for name in spec.tfds.names]
    found = [folder for folder in folders if folder]
    if spec.tfds.union:
        return found if len(found) == len(folders) else []
    return found[:1]


def _newest(name):
    versions = list((tfds_folder() / name).glob("*/dataset_info.json"))
    return max((path.parent for path in versions), key=_version, default=None)


def _version(folder):
    return [int(part) if part.isdecimal() else -1 for part in folder.name.split(".")]


def missing_tfds(spec: TaskSpec, split: str, language: str) -> str:
    """Returns the message for a task, split or language that TFDS lacks or has not prepared."""
    if spec.tfds is None:
        return f"task {spec.name!r} has no TFDS data set; use source='files'"
    if language not in spec.tfds.languages:
        return f"TFDS's {spec.tfds.names[0]} has no {language!r}; it has {', '.join(spec.tfds.languages)}"
    if split not in spec.tfds.splits:
        return f"TFDS's {spec.tfds.names[0]} has no {split!r}; it has {', '.join(spec.tfds.splits)}"
    names = [name.format(language=language) for name in spec.tfds.names]
    name = next((name for name in names if not _newest(name)), names[0]) if spec.tfds.union else names[0]
    return (
        f'TFDS has not prepared {name} in {tfds_folder()} (TFDS_DATA_DIR); prepare it with: python -c "import '
        f"tensorflow_datasets as tfds, {spec.tfds.module}; "
        f"tfds.builder('{name}').download_and_prepare(file_format='array_record')\""
    )


def read_tfds(spec: TaskSpec, folders: list[pathlib.Path], split: str, language: str) -> Any:
    """Reads prepared TFDS data sets (array_record only) without tensorflow.

    TFDS stores rows shuffled. Where the data set carries no id, an example's id is its place in TFDS's order, so the
    examples are those of the files but their order and ids may differ.
    """
    if not spec.tfds.union:
        return spec.tfds.convert(_rows(spec, folders[0], split, language), language)
    examples = []
    for folder in folders:
        for example in spec.tfds.convert(_rows(spec, folder, split, language), language):
            examples.append(example | {"id": f"{folder.parent.name}/{example['id']}"})
    return examples


def _rows(spec, folder, split, language):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    stored = builder.info.file_format
    if stored is None or stored.value != "array_record":
        raise InputError(
            f"{folder} is stored as {stored and stored.value}, which cannot be read without tensorflow; prepare it "
            "again with download_and_prepare(file_format='array_record')"
        )
    name = spec.tfds.splits[split].format(language=language)
    if name not in builder.info.splits:
        raise InputError(suggest(f"split of {folder}", name, builder.info.splits))
    labels = {}
    for key, feature in builder.info.features.items():
        inner = feature.feature if isinstance(feature, tfds.features.Sequence) else feature
        if isinstance(inner, tfds.features.ClassLabel):
            labels[key] = inner.names
    rows = [_plain(row) for row in builder.as_data_source(split=name)]
    for row in rows:
        for key, names in labels.items():
            row[key] = _named(row[key], names)
    if not rows:
        raise InputError(f"{folder}: split {name!r} is empty")
    return rows


def _named(value, names):
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return names[value] if value >= 0 else None


def _plain(value):
    """Turns bytes and numpy values, which TFDS gives or not by version and feature, into str, int and list."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return value
