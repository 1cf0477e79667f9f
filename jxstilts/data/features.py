"""Tokenised inputs as flat arrays, and what the makers of features share."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jxstilts.data.ragged import offsets_of, spread
from jxstilts.runtime import InputError


@dataclasses.dataclass(frozen=True)
class Field:
    """One array of a batch beside tokens, segments and positions.

    name: in the batch. source: the features' field that it is made of. kind: "value", of each segment, [B, S];
    "index" of a token in its feature, which becomes one in the row, [B, S]; "group": features with the same source
    belong together, and get the number of their group in the row, from 0, [B, S]; "token", a value of each token,
    [B, T]; "target", a further text of each feature, [B, U], with its segments as NAME_segments. empty: where there is
    none. gold: only of labelled examples.
    """

    name: str
    source: str
    kind: str
    empty: int = 0
    gold: bool = False


@dataclasses.dataclass(frozen=True)
class Texts:
    """A further text of each of N features: that of feature i is tokens[offsets[i]:offsets[i+1]].

    tokens int32 [K], offsets int64 [N+1]. room: (tokens of these texts, tokens of a row): so many of these go beside a
    row of so many, and in the same proportion beside others.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    room: tuple[int, int]

    def beside(self, length: int) -> int:
        """Returns how many tokens of these texts go beside a row of so many tokens."""
        return -(-length * self.room[0] // self.room[1])

    def take(self, ids: np.ndarray) -> "Texts":
        """Returns the texts of these features, int [n]."""
        sizes = self.offsets[ids + 1] - self.offsets[ids]
        return Texts(self.tokens[spread(self.offsets[ids], sizes)], offsets_of(sizes), self.room)


@dataclasses.dataclass(frozen=True)
class Features:
    """N tokenised inputs of different lengths, M tokens in all; feature i has tokens[offsets[i]:offsets[i+1]].

    tokens int32 [M]; offsets int64 [N+1]; fields: name -> [N]; token_fields: name -> [M]; texts: name -> Texts. Which
    fields there are, the form says that made them; `example` is the index of a feature's example where one may have
    several.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    fields: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    token_fields: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    texts: Mapping[str, Texts] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int32 [N]"""
        return np.diff(self.offsets).astype(np.int32)

    @property
    def needed(self) -> np.ndarray:
        """int32 [N]: tokens of a row that each feature needs, for itself and so that its further texts go beside it."""
        needed = np.diff(self.offsets)
        for one in self.texts.values():
            needed = np.maximum(needed, -(-np.diff(one.offsets) * one.room[1] // one.room[0]))
        return needed.astype(np.int32)

    def take(self, ids: np.ndarray) -> "Features":
        """Returns the features with these ids, int [n], in this order."""
        sizes = self.offsets[ids + 1] - self.offsets[ids]
        cells = spread(self.offsets[ids], sizes)
        return Features(
            self.tokens[cells],
            offsets_of(sizes),
            {name: values[ids] for name, values in self.fields.items()},
            {name: values[cells] for name, values in self.token_fields.items()},
            {name: one.take(ids) for name, one in self.texts.items()},
        )


def labelled(examples: Sequence[Mapping], key: str) -> bool:
    """Whether all examples have the key; some with and some without is an error."""
    count = sum(key in example for example in examples)
    if count not in (0, len(examples)):
        missing = next(example["id"] for example in examples if key not in example)
        raise InputError(f"{count} of {len(examples)} examples have {key!r}, example {missing!r} has not: all or none")
    return count > 0


def constant(count: int, *ids: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same ids in each of `count` rows, as a part of `ragged.join`."""
    return np.array(ids, np.int32), np.zeros(count, np.int64), np.full(count, len(ids))


def concatenate(parts: Sequence[Features]) -> Features:
    """Returns the features of all parts, in order, with the fields that all parts have.

    `example` becomes the index into the examples of all parts, in order.
    """
    if not parts:
        raise InputError("there are no features to put together")
    fields = [name for name in parts[0].fields if all(name in part.fields for part in parts)]
    token_fields = [name for name in parts[0].token_fields if all(name in part.token_fields for part in parts)]
    joined = {name: np.concatenate([part.fields[name] for part in parts]) for name in fields}
    if "example" in joined:  # every example has a feature, so the last one tells how many there are
        examples = [part.fields["example"].max(initial=-1) + 1 for part in parts]
        joined["example"] = joined["example"] + np.repeat(
            np.cumsum(examples, dtype=np.int32) - np.array(examples, np.int32), [len(part) for part in parts]
        )
    return Features(
        tokens=np.concatenate([part.tokens for part in parts]),
        offsets=offsets_of(np.concatenate([np.diff(part.offsets) for part in parts])),
        fields=joined,
        token_fields={name: np.concatenate([part.token_fields[name] for part in parts]) for name in token_fields},
        texts={name: _joined([part.texts[name] for part in parts]) for name in parts[0].texts},
    )


def _joined(parts: Sequence[Texts]) -> Texts:
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    return Texts(np.concatenate([part.tokens for part in parts]), offsets_of(sizes), parts[0].room)
