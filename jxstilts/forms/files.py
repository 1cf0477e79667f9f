"""Files of predictions and gold: JSON objects, example id -> value, and lines; what is wrong is said with file:line."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jxstilts.readers import parse_json, read_lines, read_text
from jxstilts.runtime import InputError


def check_there(file: pathlib.Path) -> None:
    """Raises InputError where there is no such file."""
    if not file.is_file():
        raise InputError(f"no file {file}")


def lines_of(file: pathlib.Path) -> list[str]:
    """Returns the lines of a file that may be empty, without white space at their ends, as official scorers read it."""
    check_there(file)
    data = file.read_bytes()
    if not data.strip():  # no pair above the threshold, or no word in any sentence; `read_lines` refuses it
        return [""] * data.count(b"\n")
    return [line.strip() for line in read_lines(file)]


def read_object(file: pathlib.Path) -> dict[str, Any]:
    """Returns a JSON object. Raises InputError, with file:line, for anything else, and for a key that comes again."""
    check_there(file)
    found = parse_json(read_text(file), file, halves=True)  # `json_bytes` writes half pairs as escapes
    if not isinstance(found, dict):
        raise InputError(f"{file}:1: expected a JSON object, id -> prediction; got {found!r:.40}")
    return _unrepeated(file, found)


def _unrepeated(file, found):
    """Returns the object; the plain parser would keep the last value of a key that comes again."""
    pairs = json.loads(read_text(file), object_pairs_hook=lambda items: items)
    if len(pairs) != len(found):
        seen: set[str] = set()
        again = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise InputError(f"{line_of(file, again, last=True)}: the id {again!r:.80} is in the file twice")
    return found


def line_of(file: pathlib.Path, key: str, last: bool = False) -> str:
    """Returns "file:line" of the first (or last) place where a JSON file holds a string."""
    text = read_text(file)
    for ascii_only in (False, True):
        literal = json.dumps(key, ensure_ascii=ascii_only)
        place = text.rfind(literal) if last else text.find(literal)
        if place >= 0:
            return f"{file}:{text.count(chr(10), 0, place) + 1}"
    return f"{file}:1"


def json_bytes(value: Any) -> bytes:
    """Returns the content of a JSON file."""
    # half a surrogate pair is no UTF-8 but may come out of a JSON file; this writes it as JSON's own escape
    return (json.dumps(value, ensure_ascii=False, indent=0) + "\n").encode("utf-8", "backslashreplace")


def check_length(file: pathlib.Path, rows: Sequence, expected: int, what: str) -> None:
    """Raises InputError, at the first line too many or the last there is, unless there are as many rows as expected."""
    if len(rows) != expected:
        line = min(len(rows), expected + 1)
        raise InputError(f"{file}:{max(line, 1)}: {len(rows)} lines for {expected} {what}")


def predicted(examples: Sequence[Mapping], predictions: Mapping, file: pathlib.Path) -> Sequence[Mapping]:
    """Returns the examples that predictions are for: all, or the first ones. Raises InputError for any others."""
    first = examples[: len(predictions)]
    missing = [example["id"] for example in first if example["id"] not in predictions]
    if missing or len(first) < len(predictions):
        why = f"{missing[0]!r} has no prediction" if missing else f"there are {len(examples)} examples"
        raise InputError(f"{file}: {len(predictions)} predictions are not those of the first examples: {why}")
    return first
