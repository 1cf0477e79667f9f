"""The rows of results.jsonl as they are read back: by an evaluation that goes on, and by the report."""

import math
import pathlib
from typing import Any

from jxstilts.readers import parse_json, read_text
from jxstilts.runtime import InputError

TEXTS = (
    "study", "evaluation", "phase", "model", "intermediate", "checkpoint_sha256", "config_fingerprint", "task",
    "language", "split", "metric",
)  # fmt: skip
NUMBERS = ("value", "low", "high", "baseline", "n", "limit")  # or null


def read(path: str | pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows; [] where there is no file. A last line that a crash cut short is left out.

    Raises InputError, with file:line, for a line that is no row: the report compares and prints what stands there.
    """
    path = pathlib.Path(path)
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        return []
    rows = []
    for number, line in enumerate(read_text(path).split("\n")[:-1], start=1):
        if line.strip():
            row = parse_json(line, path, number)
            wrong = _wrong(row) if isinstance(row, dict) else "an object"
            if wrong:
                hint = "remove the line, and run the study again"
                raise InputError(f"{path}:{number}: not a row of results: expected {wrong}; {hint}")
            rows.append(row)
    return rows


def _wrong(row: dict) -> str:
    """Returns what a row should have and has not; "" where nothing is wrong."""
    for key in TEXTS:
        if not isinstance(row.get(key), str) or not row[key].isprintable():
            return f"a text {key!r}, got {row.get(key)!r:.60}"
    if type(row.get("seed")) is not int:
        return f"a whole number 'seed', got {row.get('seed')!r:.60}"
    if "value" not in row:
        return "a 'value'"
    for key in NUMBERS:
        value = row.get(key)
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            return f"a number {key!r}, got {value!r:.60}"
    return ""
