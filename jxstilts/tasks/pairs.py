"""Two texts of an example in two languages: the first of one, the second of the other (as MLQA has them, of all tasks).

A language such as "de-en" is a German premise with an English hypothesis. It needs nothing but the data of both.
"""

from collections.abc import Sequence

from jxstilts.runtime import InputError


def codes(languages: Sequence[str]) -> tuple[str, ...]:
    """Returns the mixed pairs of languages, "a-b"."""
    return tuple(f"{a}-{b}" for a in languages for b in languages if a != b)


def sides(language: str) -> tuple[str, ...]:
    """Returns the languages of a pair, or the one language."""
    return tuple(language.split("-"))


def joined(name: str, language: str, first: list[dict], second: list[dict]) -> list[dict]:
    """Returns the examples with the first text of `first` and the second of `second`.

    Raises InputError unless both are the same items, with the same gold.
    """
    examples = []
    if len(first) != len(second):
        raise InputError(f"task {name!r}, {language}: {len(first)} and {len(second)} rows; both must be the same items")
    for row, other in zip(first, second, strict=True):
        if any(row.get(key) != other.get(key) for key in ("id", "label")):
            raise InputError(
                f"task {name!r}, {language}: row {row['id']!r:.60} is not the same item in both languages (id, label)"
            )
        examples.append(row | {"text_b": other["text_b"]})
    return examples
