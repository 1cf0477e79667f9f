"""How texts become the input of a model: which special tokens stand before, between and after them."""

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np

from jxstilts.data.features import Field, constant
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
    def fields(self) -> tuple[Field, ...]:
        """What every batch of this model has beside tokens, segments and positions."""
        return (Field("types", "types", "token"),) if self.types else ()

    def specials(self, pair: bool) -> int:
        """Returns how many special tokens an input of one text has, or of two."""
        return sum(part not in TEXTS for part in (self.pair if pair else self.single))

    def fill(self, tokenizer, a: Part, b: Part | None = None, is_pair: np.ndarray | None = None) -> Filled:
        """Returns the inputs of N texts, or pairs of texts. Raises InputError where the tokenizer lacks a role.

        is_pair bool [N]: which of the inputs have a second text; None: all of them, if there are second texts.
        """
        if b is not None and is_pair is not None and not is_pair.all():
            if is_pair.any():
                return self._either(tokenizer, a, b, is_pair)
            b = None
        layout, texts = self.single if b is None else self.pair, {"A": a, "B": b}
        return self._joined(layout, [texts.get(name) or self._special(tokenizer, name, len(a[1])) for name in layout])

    def _either(self, tokenizer, a: Part, b: Part, is_pair: np.ndarray) -> Filled:
        """Both layouts around the same first text, the parts of the other one without length."""
        texts, count = {"B": b}, len(is_pair)

        def part(name: str, where: np.ndarray) -> Part:
            flat, starts, lengths = texts.get(name) or self._special(tokenizer, name, count)
            return flat, starts, np.where(where, lengths, 0)

        at = [layout.index("A") for layout in (self.single, self.pair)]
        cut = [(self.single[: at[0]], ~is_pair), (self.pair[: at[1]], is_pair)]
        rest = [(self.single[at[0] + 1 :], ~is_pair), (self.pair[at[1] + 1 :], is_pair)]
        layout = tuple(itertools.chain(*(names for names, _ in cut), "A", *(names for names, _ in rest)))
        before, after = ([part(name, where) for names, where in side for name in names] for side in (cut, rest))
        return self._joined(layout, [*before, a, *after])

    def _joined(self, layout: tuple[str, ...], parts: list[Part]) -> Filled:
        tokens, offsets, begins = join(parts)
        found = {name: begins[layout.index(name)] for name in TEXTS if name in layout}
        more = {}
        if self.types:
            more["types"] = np.zeros(len(tokens), np.int32)
            if "B" in found:  # of an input without a second text, "B" begins at its end
                second = offsets[:-1] + found["B"]
                more["types"][spread(second, offsets[1:] - second)] = 1
        return Filled(tokens, offsets, found, more)

    def _special(self, tokenizer, role: str, count: int) -> Part:
        number = getattr(tokenizer, f"{role}_token_id")
        if number is None:
            raise InputError(
                f"this tokenizer has no {role}_token, which the model's inputs ({' '.join(self.pair)}) need; name it "
                "in its tokenizer_config.json"
            )
        return constant(count, number)
