"""What a task is (`TaskSpec`), and the strict line readers that all file formats share."""

import dataclasses
import itertools
import json
import pathlib
import re
import string
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jxstilts.runtime import InputError
from jxstilts.tasks.languages import LANGUAGES

TYPES = ("classification", "choice", "tagging", "span", "retrieval", "text")
HALF = re.compile(r"\\u[dD][89a-fA-F]")  # an escape of half a surrogate pair; most stand beside their other half


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a task is trained. The defaults of the optimizer are the study's for every task.

    batch_size: examples per update. max_length: tokens. epochs: passes over the training data. source: in words.
    warmup: share of the steps, or from 1 up their number.
    """

    batch_size: int
    max_length: int
    epochs: int
    source: str
    learning_rate: float = 1e-5
    warmup: float = 0.1
    weight_decay: float = 0.01


@dataclasses.dataclass(frozen=True)
class Tfds:
    """Where TensorFlow Datasets holds the same examples.

    names: data sets in order of preference, such as "xquad/{language}"; the first one that is prepared is read. With
      `union` all of them are, one after the other, and an id begins with its config: "r1/...".
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
    union: bool = False


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
    read: (path) -> the examples of one file; raises InputError. None for a task made of `parts`.
    multilingual: a file may hold several languages, so `read` is called with (path, language).
    fields: language -> values of each pattern field; a pattern is filled with each (with none: it is left out).
    parallel: an example's id means the same item in every language: a translation of it.
    labels: class names; the index is the class id. () for type "tagging": those of the training examples.
    metric: name in `jxstilts.eval.metrics`; None where nothing is scored.
    train_task: the English task that a target is trained on; its own name where it has training data.
    sizes: split -> rows of the official English release, where a source for the number is known.
    recipe: how the study trains on it; None where nothing is trained.
    parts: a task made of others: their examples in turns, ids as "mnli/17". All have the same labels.
    translated: split -> patterns of machine-translated copies of the English data, for any language of the table in
      `languages`; they hold {language} only. An original file of that language comes first.
    read_translated: parses one of those files; None: `read` does.
    """

    name: str
    type: str
    languages: tuple[str, ...]
    splits: Mapping[str, tuple[str, ...]]
    read: Callable[..., Any] | None
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
    multilingual: bool = False
    parallel: bool = False
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    recipe: Recipe | None = None
    parts: tuple[str, ...] = ()
    translated: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    read_translated: Callable[[pathlib.Path], Any] | None = None

    def __post_init__(self):
        if self.type not in TYPES:
            raise ValueError(f"task {self.name!r}: type {self.type!r} is none of {TYPES}")

    def loadable(self, split: str) -> tuple[str, ...]:
        """Returns the languages that `tasks.load` takes for a split: its own, and those it may be translated into."""
        codes = self.languages + self.more_languages + (tuple(LANGUAGES) if split in self.translated else ())
        return tuple(dict.fromkeys(codes))

    def patterns(self, split: str, language: str) -> list[str]:
        """Returns the paths, relative to `data_dir`, at which a split's original files in a language may lie."""
        if language not in self.languages + self.more_languages:
            return []
        return _fill(self.splits[split], self.fields(language))

    def translated_patterns(self, split: str, language: str) -> list[str]:
        """Returns the paths at which machine-translated copies of a split may lie; empty for English."""
        return [] if language == "en" else _fill(self.translated.get(split, ()), language_only(language))


def _fill(patterns, values):
    filled = []
    for pattern in patterns:
        keys = dict.fromkeys(key for _, key, _, _ in string.Formatter().parse(pattern) if key)
        for chosen in itertools.product(*(values[key] for key in keys)):
            filled.append(pattern.format(**dict(zip(keys, chosen, strict=True))))
    return filled


def beside(*paths: str) -> tuple[str, ...]:
    """Returns the patterns of translated copies that lie beside English files: train.tsv -> train.{language}.tsv."""
    return tuple("{}.{{language}}.{}".format(*path.rsplit(".", 1)) for path in paths)


def read_text(path: pathlib.Path) -> str:
    """Returns the text of a UTF-8 file that is not empty; line ends are left as they are."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
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


def parse_json(text: str, path: pathlib.Path, first_line: int = 1, halves: bool = False) -> Any:
    """Returns the value of a JSON text that starts on line `first_line` of a file.

    halves: let strings hold half a surrogate pair, which JSON can write and which is no character.
    """
    try:
        value = json.loads(text)
        if not halves and HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{first_line + error.lineno - 1}: not JSON ({error.msg}, column {error.colno})"
        ) from error
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise InputError(f"{path}:{first_line}: {half!r} in a string is half a character; write it whole") from error
    except RecursionError as error:
        raise InputError(f"{path}:{first_line}: JSON values nested too deep to be data") from error
    except ValueError as error:  # Python's limit on the digits of a whole number
        raise InputError(f"{path}:{first_line}: a number of thousands of digits is no data") from error
    return value


def read_json_lines(path: pathlib.Path, keys: tuple[str, ...]) -> Iterator[tuple[int, dict]]:
    """Yields (line number from 1, object) of a JSON-lines file; all `keys` must be there, with strings."""
    for number, line in enumerate(read_lines(path), start=1):
        row = parse_json(line, path, number)
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: expected a JSON object, got {row!r:.60}")
        wrong = [key for key in keys if not isinstance(row.get(key), str)]
        if wrong:
            raise InputError(f"{path}:{number}: expected a JSON object with strings {', '.join(keys)}; wrong: {wrong}")
        yield number, row


def class_id(label: Any, labels: tuple[str, ...], where: str) -> int:
    """Returns the class id of a label name; `where` is file:line for the message."""
    if label not in labels:
        raise InputError(f"{where}: unknown label {label!r:.60}; allowed: {', '.join(labels)}")
    return labels.index(label)


def rows_by_header(path: pathlib.Path, lines: list[str], keys: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number from 1, the cells of the columns `keys`) of tab-separated lines below a header line."""
    columns = lines[0].split("\t")
    missing = [key for key in keys if key not in columns]
    if missing:
        raise InputError(f"{path}:1: expected a header line with {', '.join(keys)}; missing {missing}")
    places = [columns.index(key) for key in keys]
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        if len(cells) != len(columns):
            raise InputError(f"{path}:{number}: {len(cells)} columns, the header has {len(columns)}")
        yield number, [cells[place] for place in places]


def rows_by_place(
    path: pathlib.Path, lines: list[str], allowed: tuple[int, ...], names: str
) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number from 1, cells) of tab-separated lines without header.

    allowed: how many columns there may be; every line must have as many as the first. names: what they are.
    """
    columns = lines[0].count("\t") + 1
    if columns not in allowed:
        raise InputError(f"{path}:1: {columns} columns, expected {names}")
    for number, line in enumerate(lines, start=1):
        cells = line.split("\t")
        if len(cells) != columns:
            raise InputError(f"{path}:{number}: {len(cells)} columns, line 1 has {columns}")
        yield number, cells


def checked(examples: list[dict], gold: str, path: pathlib.Path) -> list[dict]:
    """Returns the examples if there are any, their ids differ, and all or none hold the key `gold`."""
    if not examples:
        raise InputError(f"{path}: no example in the file")
    seen = set()
    for example in examples:
        if example["id"] in seen:
            raise InputError(f"{path}: id {example['id']!r:.60} is in the file twice")
        seen.add(example["id"])
    labelled = {gold in example: example["id"] for example in examples}
    if len(labelled) == 2:
        raise InputError(f"{path}: example {labelled[False]!r:.60} has no {gold}, but {labelled[True]!r:.60} has")
    return examples
