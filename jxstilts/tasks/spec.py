"""What a task is (`TaskSpec`), and the strict line readers that all file formats share."""

import dataclasses
import itertools
import json
import pathlib
import string
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jxstilts.runtime import InputError

TYPES = ("classification", "span", "retrieval", "text")


@dataclasses.dataclass(frozen=True)
class Tfds:
    """Where TensorFlow Datasets holds the same examples.

    names: data sets in order of preference, such as "xquad/{language}"; the first one that is prepared is read.
    splits: our split -> its split; both may hold {language}.
    convert: (rows, language) -> what `TaskSpec.read` returns; a row holds str, int, list and dict only, and class
      labels by their names (None where there is no label).
    languages: the languages it has.
    module: what has to be imported before TFDS knows a data set of the older kind by its name (to prepare it only).
    """

    names: tuple[str, ...]
    splits: Mapping[str, str]
    convert: Callable[[list[dict], str], Any]
    languages: tuple[str, ...]
    module: str = "tensorflow_datasets"


def language_only(language: str) -> dict[str, tuple[str, ...]]:
    """Returns the pattern field that most tasks need: the language itself."""
    return {"language": (language,)}


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """One data set with one metric.

    type: one of `TYPES`; it decides the form of the examples (see `jxstilts.tasks`) and the head.
    languages: codes as XTREME writes them, "en" first where it is there.
    more_languages: further ones that can be read when asked for by name (MLQA's mixed pairs, Tatoeba's other pairs).
    splits: split -> file patterns relative to `data_dir`. The first file that is there is read; with `union` all are.
    read: parses one file; raises InputError.
    fields: language -> values of each pattern field; a pattern is filled with each (with none: it is left out).
    labels: class names; the index is the class id.
    metric: name in `jxstilts.eval.metrics`; None where nothing is scored.
    train_task: the English task that a target is trained on; its own name where it has training data.
    """

    name: str
    type: str
    languages: tuple[str, ...]
    splits: Mapping[str, tuple[str, ...]]
    read: Callable[[pathlib.Path], Any]
    description: str
    url: str
    licence: str
    labels: tuple[str, ...] = ()
    metric: str | None = None
    train_task: str | None = None
    tfds: Tfds | None = None
    more_languages: tuple[str, ...] = ()
    fields: Callable[[str], dict[str, tuple[str, ...]]] = language_only
    union: bool = False

    def __post_init__(self):
        if self.type not in TYPES:
            raise ValueError(f"task {self.name!r}: type {self.type!r} is none of {TYPES}")

    def patterns(self, split: str, language: str) -> list[str]:
        """Returns the paths, relative to `data_dir`, at which the files of a split and language may lie."""
        values = self.fields(language)
        filled = []
        for pattern in self.splits[split]:
            keys = dict.fromkeys(key for _, key, _, _ in string.Formatter().parse(pattern) if key)
            for chosen in itertools.product(*(values[key] for key in keys)):
                filled.append(pattern.format(**dict(zip(keys, chosen, strict=True))))
        return filled


def read_text(path: pathlib.Path) -> str:
    """Returns the text of a UTF-8 file that is not empty; line ends are left as they are."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8 ({error.reason}); convert the file to UTF-8") from error
    if not text.strip():
        raise InputError(f"{path}: the file is empty")
    return text


def read_lines(path: pathlib.Path) -> list[str]:
    """Returns the lines of a UTF-8 file without their ends (LF or CRLF).

    XNLI's Greek test set holds U+001D inside sentences, which `str.splitlines` would take for a line end.
    """
    lines = read_text(path).split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def parse_json(text: str, path: pathlib.Path, first_line: int = 1) -> Any:
    """Returns the value of a JSON text that starts on line `first_line` of a file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{first_line + error.lineno - 1}: not JSON ({error.msg}, column {error.colno})"
        ) from error


def read_json_lines(path: pathlib.Path, keys: tuple[str, ...]) -> Iterator[tuple[int, dict]]:
    """Yields (line number from 1, object) of a JSON-lines file; all `keys` must be there, with strings."""
    for number, line in enumerate(read_lines(path), start=1):
        row = parse_json(line, path, number)
        wrong = [key for key in keys if not isinstance(row, dict) or not isinstance(row.get(key), str)]
        if wrong:
            raise InputError(f"{path}:{number}: expected a JSON object with strings {', '.join(keys)}; wrong: {wrong}")
        yield number, row


def class_id(label: Any, labels: tuple[str, ...], where: str) -> int:
    """Returns the class id of a label name; `where` is file:line for the message."""
    if label not in labels:
        raise InputError(f"{where}: unknown label {label!r}; allowed: {', '.join(labels)}")
    return labels.index(label)
