"""Tasks: what each data set is, and its examples as plain dicts.

What an example is, its form says (`jxstilts.forms`, one class a form); gold is absent, not None, where the data is
unlabelled.
A task is a module-level `TaskSpec` in any file of this folder, or in a file of the user's own that the environment
variable JXSTILTS_TASKS names (several as in PATH); nothing else lists it.
"""

import contextlib
import dataclasses
import functools
import importlib
import itertools
import logging
import os
import pathlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from jxstilts import rooms
from jxstilts.runtime import InputError, suggest
from jxstilts.tasks import pairs, sources
from jxstilts.tasks.spec import Recipe, TaskSpec, Tfds

__all__ = ["INTERMEDIATE", "Recipe", "TaskSpec", "Tfds", "available", "get", "given", "load", "names"]

logger = logging.getLogger(__name__)

# the study's English intermediate tasks
INTERMEDIATE = (
    "anli_plus", "mnli", "qqp", "squad_v2", "squad_v1", "hellaswag", "ccg", "cosmosqa", "commonsenseqa",
)  # fmt: skip

SOURCES = ("auto", "files", "tfds")


AS_TEXT = "_text"
OUTSIDE = "JXSTILTS_TASKS"  # of the environment, so that commands that read no config know the tasks too


def _found() -> dict[str, TaskSpec]:
    return _read_specs(os.environ.get(OUTSIDE, ""))


@functools.cache
def _text_specs(outside: str) -> dict[str, TaskSpec]:
    """The tasks as text: NAME_text, and where a task is trained on another of another text form, OTHER_as_NAME_text."""
    specs, made = _read_specs(outside), {}
    for name, spec in specs.items():
        if spec.text is None:
            continue
        train = specs.get(spec.train_task or "")
        if train is None or train.text == spec.text:
            train_task = train and f"{train.name}{AS_TEXT}"
        else:
            train_task = f"{train.name}_as_{name}{AS_TEXT}"
            made[train_task] = _as_text(dataclasses.replace(train, text=spec.text), train_task, train_task)
        made[f"{name}{AS_TEXT}"] = _as_text(spec, f"{name}{AS_TEXT}", train_task)
    return made


def _as_text(spec: TaskSpec, name: str, train_task: str | None) -> TaskSpec:
    """Returns the text form of a task; it is trained as mT5 was, for as many epochs as the task itself."""
    recipe = spec.recipe and dataclasses.replace(
        spec.recipe, source=f"mT5's rate; else {spec.recipe.source}", learning_rate=1e-3, warmup=0.0, weight_decay=0.0
    )
    description = f"{spec.description}; as text ({spec.text.source})"
    return dataclasses.replace(
        spec, name=name, type="text_to_text", labels=(), choices=0, train_task=train_task, recipe=recipe,
        description=description, origin=spec,
    )  # fmt: skip


@functools.cache
def _read_specs(outside: str) -> dict[str, TaskSpec]:
    specs: dict[str, TaskSpec] = {}
    modules = {f"{each.name}.py": f"{__name__}.{each.name}" for each in pkgutil.iter_modules(__path__)}
    loaded = {file: importlib.import_module(name) for file, name in modules.items()}
    loaded |= {path: _outside(path) for path in outside.split(os.pathsep) if path}
    for file, module in loaded.items():
        for value in vars(module).values():
            if isinstance(value, TaskSpec) and specs.setdefault(value.name, value) is not value:
                raise InputError(f"two tasks are named {value.name!r}; the second is in {file}: rename it")
    return specs


def _outside(path: str) -> ModuleType:
    """Runs a task file from elsewhere. Raises InputError with the line of the file that is wrong."""
    module = rooms.run_file(path, OUTSIDE)
    specs = [value for value in vars(module).values() if isinstance(value, TaskSpec)]
    for spec in specs:
        try:
            _check_tuples(spec)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    if not specs:
        raise InputError(f"{OUTSIDE}: {path} has no TaskSpec at its top level")
    return module


def _check_tuples(spec: TaskSpec) -> None:
    """Refuses a text where texts are wanted: ("en") for ("en",) would be two languages, e and n."""
    fields = {name: getattr(spec, name) for name in ("languages", "more_languages", "labels", "parts")}
    for name in ("splits", "translated"):
        fields |= {f"{name}[{split!r}]": patterns for split, patterns in getattr(spec, name).items()}
    for name, value in fields.items():
        if isinstance(value, str):
            raise InputError(f"task {spec.name!r}: {name}={value!r} is one text, not a tuple; write ({value!r},)")


_given: dict[str, TaskSpec] = {}


@contextlib.contextmanager
def given(spec: TaskSpec) -> Iterator[None]:
    """Inside it `get` knows a task that stands in no file: one whose rows a program has made.

    Raises InputError inside another of the same name.
    """
    if _given.setdefault(spec.name, spec) is not spec:
        raise InputError(f"the task {spec.name!r} is in use in this process: one after the other")
    try:
        yield
    finally:
        del _given[spec.name]


def names() -> list[str]:
    """Returns the names of all tasks, sorted, without those that are the text form of one (see `get`)."""
    return sorted(_found())


def get(name: str) -> TaskSpec:
    """Returns a task by name; NAME_text is its text form. Raises InputError with the known and the nearest name."""
    if name in _given:
        return _given[name]
    if name.endswith(AS_TEXT) and name in (texts := _text_specs(os.environ.get(OUTSIDE, ""))):
        return texts[name]
    if name not in _found():
        raise InputError(f"{suggest('task', name, names())}; files of your own are named in {OUTSIDE}")
    return _found()[name]


def load(
    name: str,
    data_dir: str | os.PathLike,
    split: str,
    language: str = "en",
    source: str = "auto",
    limit: int | None = None,
) -> Any:
    """Returns the examples of one split in one language, in the form of the task's type (see the module).

    language: where the split can be had machine-translated (`TaskSpec.translated`), any of `languages.LANGUAGES`; a
      file of original data in the language is taken before a translated one.
    source: "files" reads under `data_dir`; "tfds" reads what TFDS has prepared in its own folder; "auto" takes the
      files where they are there, else TFDS.
    limit: keep only the first examples (see `TaskSpec.first`).
    Raises InputError for an unknown name, split, language or source, and for missing or malformed data. Logs a
    warning, once, where a split read in full has not as many rows as the official release; of a miniature world, which
    says what it is in its world.json, there is no release.
    """
    spec = get(name)
    if split not in spec.splits:
        raise InputError(suggest(f"split of task {name!r}", split, spec.splits))
    if language not in spec.loadable(split):
        mixed = {code for code in spec.loadable(split) if spec.paired and len(pairs.sides(code)) > 1}
        known = [code for code in spec.loadable(split) if "-" in language or code not in mixed]
        raise InputError(suggest(f"language of task {name!r}", language, known))
    if source not in SOURCES:
        raise InputError(suggest("source", source, SOURCES))
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; give at least 1, or None for all examples")
    examples = _read(spec, data_dir, split, language, source)
    if limit is None:
        official = spec.sizes.get(split, len(examples)) if language == "en" else len(examples)
        if len(examples) != official and not (pathlib.Path(data_dir) / "world.json").is_file():
            _warn_of_size(name, split, len(examples), official)
        return examples
    return spec.first(examples, limit) if spec.first else examples[:limit]


def available(name: str, data_dir: str | os.PathLike, split: str, language: str, source: str = "auto") -> bool:
    """Returns whether `load` would find data; it does not look into the files."""
    spec = get(name)
    if spec.paired and len(pairs.sides(language)) > 1:
        return all(available(name, data_dir, split, side, source) for side in pairs.sides(language))
    if spec.parts:
        return all(available(part, data_dir, split, language, source) for part in spec.parts)
    files = source != "tfds" and (
        sources.find_files(spec, data_dir, split, language) or sources.find_translated(spec, data_dir, split, language)
    )
    if files and spec.companions:
        return bool(spec.companions(files[0]))
    return bool(files or (source != "files" and sources.find_tfds(spec, split, language)))


_warned: set[tuple[str, str]] = set()


def _warn_of_size(name, split, count, official):
    if (name, split) not in _warned:
        _warned.add((name, split))
        logger.warning("%s %s: %s rows; the official release has %s", name, split, f"{count:,}", f"{official:,}")


def _read(spec, data_dir, split, language, source):
    if spec.paired and len(pairs.sides(language)) > 1:
        both = (_read(spec, data_dir, split, side, source) for side in pairs.sides(language))
        return pairs.joined(spec.name, language, *both)
    if spec.parts:
        # in turns, so that the first examples are of every part; each part warns of its own size
        parts = [
            [example | {"id": f"{part}/{example['id']}"} for example in load(part, data_dir, split, language, source)]
            for part in spec.parts
        ]
        return [example for turn in itertools.zip_longest(*parts) for example in turn if example is not None]
    if source != "tfds":
        paths = sources.find_files(spec, data_dir, split, language)
        if paths:
            return sources.read_files(spec, paths, language)
        paths = sources.find_translated(spec, data_dir, split, language)
        if paths:
            logger.info("%s %s %s: machine-translated, %s", spec.name, split, language, ", ".join(map(str, paths)))
            return sources.read_files(spec, paths, language, translated=True)
    message = sources.missing_files(spec, data_dir, split, language)
    if source == "files" or (source == "auto" and not sources.in_tfds(spec, split, language)):
        raise InputError(message)
    folders = sources.find_tfds(spec, split, language)
    if folders:
        return sources.read_tfds(spec, folders, split, language)
    missing = sources.missing_tfds(spec, split, language)
    raise InputError(missing if source == "tfds" else f"{message}. {missing}")
