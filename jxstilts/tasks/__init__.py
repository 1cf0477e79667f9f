"""Tasks: what each data set is, and its examples as plain dicts.

Examples by type; gold fields are absent, not None, where the data is unlabelled:
  classification  {"id": str, "text_a": str, "text_b": str | None, "label": int}
  span            {"id": str, "question": str, "context": str, "answers": [{"text": str, "start": int}, ...]}
  retrieval       {"source": [{"id", "text"}, ...], "target": [{"id", "text"}, ...] (English, the queries),
                   "gold": [(source id, target id), ...]}
  text            {"id": str, "text": str}
A task is a module-level `TaskSpec` in any file of this folder; nothing else lists it.
"""

import functools
import importlib
import os
import pkgutil
from typing import Any

from jxstilts.runtime import InputError, suggest
from jxstilts.tasks import sources
from jxstilts.tasks.spec import TaskSpec, Tfds

__all__ = ["TaskSpec", "Tfds", "get", "load", "names"]

SOURCES = ("auto", "files", "tfds")


@functools.cache
def _found() -> dict[str, TaskSpec]:
    specs: dict[str, TaskSpec] = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, TaskSpec) and specs.setdefault(value.name, value) is not value:
                raise ValueError(f"two tasks are named {value.name!r}; the second is in {module.name}.py")
    return specs


def names() -> list[str]:
    """Returns the names of all tasks, sorted."""
    return sorted(_found())


def get(name: str) -> TaskSpec:
    """Returns a task by name. Raises InputError with the known and the nearest name."""
    if name not in _found():
        raise InputError(suggest("task", name, names()))
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

    source: "files" reads under `data_dir`; "tfds" reads what TFDS has prepared in its own folder; "auto" takes the
      files where they are there, else TFDS.
    limit: keep only the first examples (retrieval: the first pairs).
    Raises InputError for an unknown name, split, language or source, and for missing or malformed data.
    """
    spec = get(name)
    if split not in spec.splits:
        raise InputError(suggest(f"split of task {name!r}", split, spec.splits))
    if language not in spec.languages + spec.more_languages:
        raise InputError(suggest(f"language of task {name!r}", language, spec.languages + spec.more_languages))
    if source not in SOURCES:
        raise InputError(suggest("source", source, SOURCES))
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; give at least 1, or None for all examples")
    examples = _read(spec, data_dir, split, language, source)
    if limit is None:
        return examples
    if spec.type == "retrieval":
        return {side: rows[:limit] for side, rows in examples.items()}
    return examples[:limit]


def _read(spec, data_dir, split, language, source):
    paths = sources.find_files(spec, data_dir, split, language) if source != "tfds" else []
    if paths:
        return sources.read_files(spec, paths)
    message = sources.missing_files(spec, data_dir, split, language)
    if source == "files" or (source == "auto" and not sources.in_tfds(spec, split, language)):
        raise InputError(message)
    folder = sources.find_tfds(spec, split, language)
    if folder:
        return sources.read_tfds(spec, folder, split, language)
    missing = sources.missing_tfds(spec, split, language)
    raise InputError(missing if source == "tfds" else f"{message}. {missing}")
