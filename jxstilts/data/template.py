"""How texts become the input of a model: which special tokens stand before, between and after them."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from jxstilts.data.features import constant
from jxstilts.data.ragged import join, spread
from jxstilts.runtime import InputError

TEXTS = ("A", "B")
Part = tuple[np.ndarray, np.ndarray, np.ndarray]  # flat array, starts and lengths [N], as `ragged.join` takes it


@dataclasses.dataclass(frozen=True)
class Filled:
    """N inputs of M tokens in all: tokens int32 [M], offsets int64 [N+1], and where each text begins in its input.

    begins: {"A": int64 [N], "B": int64 [N]}, without "B" where there is one text. token_fields: what else the model
    reads of each token, {name: [M]}.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    begins: Mapping[str, np.ndarray]
    token_fields: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Template:
    """A family's inputs. single, pair: roles of the tokenizer ("cls", "sep", "eos", ...) around the texts "A" and "B".

    types: the model reads token types, field "types": 0, and 1 from the second text on (Devlin et al. 2019).
    """

    single: tuple[str, ...] = ("cls", "A", "sep")
    pair: tuple[str, ...] = ("cls", "A", "sep", "B", "sep")
    types: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        """Token fields that every batch of this model has; a padding token has 0."""
        return ("types",) if self.types else ()

    def specials(self, pair: bool) -> int:
        """Returns how many special tokens an input of one text has, or of two."""
        return sum(part not in TEXTS for part in (self.pair if pair else self.single))

    def fill(self, tokenizer, a: Part, b: Part | None = None) -> Filled:
        """Returns the inputs of N texts, or pairs of texts. Raises InputError where the tokenizer lacks a role."""
        layout = self.single if b is None else self.pair
        texts = {"A": a, "B": b}
        parts = [texts[name] if name in TEXTS else constant(len(a[1]), self._id(tokenizer, name)) for name in layout]
        tokens, offsets, begins = join(parts)
        found = {name: begins[layout.index(name)] for name in TEXTS if name in layout}
        more = {}
        if self.types:
            more["types"] = np.zeros(len(tokens), np.int32)
            if b is not None:
                second = offsets[:-1] + found["B"]
                more["types"][spread(second, offsets[1:] - second)] = 1
        return Filled(tokens, offsets, found, more)

    def _id(self, tokenizer, role: str) -> int:
        number = getattr(tokenizer, f"{role}_token_id")
        if number is None:
            raise InputError(
                f"this tokenizer has no {role} token, which the model's inputs ({' '.join(self.pair)}) need; name it "
                f"in tokenizer_config.json ({role}_token)"
            )
        return number
