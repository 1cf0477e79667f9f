"""Tokenised inputs as flat arrays, and what the makers of features share."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jxstilts.data.ragged import offsets_of, spread
from jxstilts.runtime import InputError


@dataclasses.dataclass(frozen=True)
class Features:
    """N tokenised inputs of different lengths, M tokens in all; feature i has tokens[offsets[i]:offsets[i+1]].

    tokens int32 [M]; offsets int64 [N+1]; fields: name -> [N]; token_fields: name -> [M]. What is marked * is there
    only if the examples are labelled.
    classification: field label*.
    choice: a feature per choice, those of a question one after the other; fields example (index into the examples)
    and label* (1 = the right choice).
    span: field example; start* and end* (token index in the feature, both 0 = `<s>` when the answer is not in this
    window); token fields char_start and char_end (characters of the context; -1 for a token that no answer may begin
    or end with) and max_context (among the windows that show this token, this one shows most around it).
    tagging: field example; token fields word (index in the sentence of the word that begins with this token, else -1)
    and tag* (id in `labels` where a word begins, -1 elsewhere and for a tag that `labels` lacks).
    """

    tokens: np.ndarray
    offsets: np.ndarray
    fields: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    token_fields: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int32 [N]"""
        return np.diff(self.offsets).astype(np.int32)

    def take(self, ids: np.ndarray) -> "Features":
        """Returns the features with these ids, int [n], in this order."""
        sizes = self.offsets[ids + 1] - self.offsets[ids]
        cells = spread(self.offsets[ids], sizes)
        return Features(
            self.tokens[cells],
            offsets_of(sizes),
            {name: values[ids] for name, values in self.fields.items()},
            {name: values[cells] for name, values in self.token_fields.items()},
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
