"""Where examples come from: the files under `data_dir`, or a data set that TFDS has prepared."""

import os
import pathlib
from typing import Any

import numpy as np

from jxstilts.runtime import InputError, suggest
from jxstilts.tasks.spec import TaskSpec


def find_files(spec: TaskSpec, data_dir: str | os.PathLike, split: str, language: str) -> list[pathlib.Path]:
    """Returns the files to read for a split and language; empty where there is none."""
    paths = [pathlib.Path(data_dir).expanduser() / pattern for pattern in spec.patterns(split, language)]
    there = [path for path in paths if path.is_file()]
    return there if spec.union else there[:1]


def read_files(spec: TaskSpec, paths: list[pathlib.Path]) -> Any:
    """Returns what `spec.read` makes of the files, one after the other."""
    if len(paths) == 1:
        return spec.read(paths[0])
    return [example for path in paths for example in spec.read(path)]


def missing_files(spec: TaskSpec, data_dir: str | os.PathLike, split: str, language: str) -> str:
    """Returns the message for a split and language without a file."""
    root = pathlib.Path(data_dir).expanduser()
    if not root.is_dir():
        return f"no folder {root}; set data_dir to a folder in XTREME's layout"
    expected = " or ".join(str(root / pattern) for pattern in spec.patterns(split, language))
    others = [code for code in spec.languages if code != language and find_files(spec, root, split, code)]
    splits = [other for other in spec.splits if other != split and find_files(spec, root, other, language)]
    return (
        f"task {spec.name!r} has no {split!r} file for {language!r} under data_dir; expected {expected}. "
        f"Languages with this split there: {', '.join(others) or 'none'}. "
        f"Other splits of {language!r} there: {', '.join(splits) or 'none'}"
    )


def tfds_folder() -> pathlib.Path:
    """Returns TFDS's own data folder: `TFDS_DATA_DIR`, else ~/tensorflow_datasets."""
    return pathlib.Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def in_tfds(spec: TaskSpec, split: str, language: str) -> bool:
    """Returns whether TFDS has a data set with this split and language, prepared or not."""
    return spec.tfds is not None and language in spec.tfds.languages and split in spec.tfds.splits


def find_tfds(spec: TaskSpec, split: str, language: str) -> pathlib.Path | None:
    """Returns the folder of the newest prepared version of the task's TFDS data set, or None."""
    if not in_tfds(spec, split, language):
        return None
    for name in spec.tfds.names:
        versions = list((tfds_folder() / name.format(language=language)).glob("*/dataset_info.json"))
        if versions:
            return max((path.parent for path in versions), key=_version)
    return None


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
    name = spec.tfds.names[0].format(language=language)
    return (
        f'TFDS has not prepared {name} in {tfds_folder()} (TFDS_DATA_DIR); prepare it with: python -c "import '
        f"tensorflow_datasets as tfds, {spec.tfds.module}; "
        f"tfds.builder('{name}').download_and_prepare(file_format='array_record')\""
    )


def read_tfds(spec: TaskSpec, folder: pathlib.Path, split: str, language: str) -> Any:
    """Reads a prepared TFDS data set (array_record only) without tensorflow.

    TFDS stores rows shuffled. Where the data set carries no id, an example's id is its place in TFDS's order, so the
    examples are those of the files but their order and ids may differ.
    """
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
    labels = {
        key: feature.names
        for key, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.ClassLabel)
    }
    rows = [_plain(row) for row in builder.as_data_source(split=name)]
    for row in rows:
        for key, names in labels.items():
            row[key] = names[row[key]] if row[key] >= 0 else None
    if not rows:
        raise InputError(f"{folder}: split {name!r} is empty")
    return spec.tfds.convert(rows, language)


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
