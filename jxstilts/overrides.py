"""Overrides: what a text from the command line stands for: a number, a truth value, a list, keys."""

import ast
import re
from typing import Any

from jxstilts.runtime import InputError, shown

UNREADABLE = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)  # what `ast.literal_eval` raises
WHOLE = re.compile(r"[+-]?[0-9]+")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class Given(str):
    """Text from the command line: what it means depends on the type of the key that it is for."""


def read(hint: Any, text: str) -> Any:
    """Returns the value that a text stands for as a bool, int, float or Any; the text where it stands for none."""
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), str(text))
    if hint is int and WHOLE.fullmatch(text) and len(text) < 100:
        return int(text)
    if hint is float and NUMBER.fullmatch(text) and len(text) < 1000:
        return float(text)
    if hint is Any:
        return literal(text, str(text))
    return str(text)


def literal(text: str, other: Any = None) -> Any:
    """Returns the Python value that a text is, `other` where it is none."""
    try:
        return ast.literal_eval(text.strip())
    except UNREADABLE:
        return other


def mapping(text: str, where: str) -> dict[str, Any]:
    found = literal(text)
    if not isinstance(found, dict):
        raise InputError(f"{where}={shown(repr(str(text))):.200}: expected keys, written {{'KEY': VALUE}}")
    return found


def items(text: str, item: Any, where: str) -> list[Any]:
    """Reads a list: (1,2), [1,2] or 1,2; also words without quotes, and one word alone.

    A number alone is refused: some mean so many by it (as `:seeds=3` does), and others the number itself.
    """
    found = literal(text)
    if isinstance(found, (list, tuple)):
        return list(found)
    inside = text.strip()
    bracketed = inside[:1] + inside[-1:] in ("()", "[]")
    parts = [part.strip() for part in (inside[1:-1] if bracketed else inside).removesuffix(",").split(",")]
    alone = len(parts) == 1 and not bracketed and not inside.endswith(",")
    if alone and item is not str and read(item, parts[0]) != parts[0]:
        one = parts[0]
        raise InputError(f"{where}={one}: a list is expected: ({one},) is {one} alone, (0,1,2) are three numbers")
    if isinstance(found, str):  # a word with quotes
        return [found]
    no_list = alone and parts[0] in ("None", "True", "False")
    if no_list or not all(parts) or any(set(part) & set("()[]{}'\"") for part in parts):
        raise InputError(f"{where}={shown(repr(str(text))):.200}: expected a list, as (a,b), an empty one as ()")
    return [Given(part) for part in parts]
