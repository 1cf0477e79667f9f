"""Strict readers that all file formats share: what is wrong is said with file and line."""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from jxstilts.runtime import InputError

HALF = re.compile(r"\\u[dD][89a-fA-F]")  # an escape of half a surrogate pair; most stand beside their other half


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
