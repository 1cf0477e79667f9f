"""Checks of examples, and rows of a program's own: plain Python values that become examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jxstilts.runtime import InputError, shown_list, suggest


def keyed(row: Any, *keys: str) -> Mapping[str, Any]:
    """Returns a row as a mapping; a tuple or a list has the values of `keys` in order. Raises InputError."""
    if isinstance(row, Mapping):
        return row
    if not isinstance(row, tuple | list) or len(row) != len(keys):
        raise InputError(f"it is {row!r:.60}")
    return dict(zip(keys, row, strict=True))


def got(row: Mapping[str, Any], key: str, kind: type, what: str = "") -> Any:
    """Returns a row's value. Raises InputError where it is not there, or of another kind; what: the kind in words."""
    if key not in row:
        raise InputError(f"it has no {key!r}, only {shown_list(map(str, row))}" if row else f"it has no {key!r}")
    if not isinstance(row[key], kind):
        raise InputError(f"{key!r} is {row[key]!r:.60}; expected {what or f'a {kind.__name__}'}")
    return row[key]


def texts(row: Mapping[str, Any], key: str, what: str) -> list[str]:
    """Returns a row's list of texts, one at least. Raises InputError."""
    found = row.get(key)
    if not isinstance(found, tuple | list):
        got(row, key, list, what)
    if not found or not all(isinstance(each, str) for each in found):
        raise InputError(f"{key!r} is {found!r:.60}; expected {what}")
    return list(found)


def chances(logits: np.ndarray) -> np.ndarray:
    """[..., C] logits -> [..., C] probabilities, float64."""
    from scipy.special import softmax  # takes long to import, and only predictions with scores need it

    return softmax(logits.astype(np.float64), axis=-1)


def whole(value: Any) -> bool:
    """Whether a value is a whole number; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def place(label: Any, labels: Sequence[str]) -> int:
    """Returns the place among the labels of one that is given by its name or its place.

    Upper and lower case count only where no label is written as it is given. Raises InputError for another label.
    """
    if whole(label):
        if not 0 <= label < len(labels):
            raise InputError(f"the label {label} is no place among {len(labels)} labels, {shown_list(labels)}")
        return int(label)
    if not isinstance(label, str):
        raise InputError(f"the label is {label!r:.60}; expected the name of one, or its place")
    if label in labels:
        return labels.index(label)
    alike = [i for i, each in enumerate(labels) if each.casefold() == label.casefold()]
    if len(alike) != 1:
        raise InputError(suggest("label", label, labels))
    return alike[0]


def check_example(example: Any, keys: Mapping[str, tuple[type, ...]], seen: set[str], where: str) -> None:
    """Raises InputError unless an example has an id that is not in `seen`, where it goes, and `keys` of these types."""
    if not isinstance(example, Mapping):
        raise InputError(f"{where}: expected a dict with {', '.join(('id', *keys))}, got {example!r:.60}")
    identifier = example.get("id")
    if not isinstance(identifier, str):
        raise InputError(f"{where}: expected a text as 'id', got {identifier!r:.60}")
    if identifier in seen:
        raise InputError(f"{where}: the id {identifier!r:.60} is there twice")
    seen.add(identifier)
    for key, kinds in keys.items():
        if not isinstance(example.get(key, seen), kinds):  # `seen` is of no kind that is asked for
            names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
            given = repr(example[key])[:60] if key in example else "nothing"
            raise InputError(f"{where} ({identifier!r:.60}): expected {key!r} to be a {names}, got {given}")


def check_place(label: Any, count: int, what: str, where: str) -> None:
    """Raises InputError unless a label is a whole number from 0 to below `count`."""
    if isinstance(label, bool) or not isinstance(label, int | np.integer) or not 0 <= label < count:
        raise InputError(f"{where}: the label is {label!r:.60}; expected {what}, a number from 0 to {count - 1}")
