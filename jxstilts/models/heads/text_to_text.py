"""Text to text: a decoder that reads the encoder's states and says a target, token by token.

The decoder is the family's (`Layout.decoder`). It begins with the padding token, reads what it has said, and ends with
the end-of-text token; its words are the encoder's table, or, where the family's config says so, a table of its own.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxstilts.models import generation, words
from jxstilts.models.heads import MIX, HeadBase, HeadSpec
from jxstilts.models.initial import matrix
from jxstilts.runtime import InputError


@dataclasses.dataclass(frozen=True)
class TextSpec(HeadSpec):
    """A decoder, and how it is to say something.

    length: tokens at most, the end included; 0: not decided. beams: 1 = greedy. length_penalty: a finished text's log
    probability is divided by its length to this power (Wu et al. 2016 without their constant, as Hugging Face has it).
    """

    length: int = 0
    beams: int = 1
    length_penalty: float = 1.0

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> HeadSpec:
        """Returns the head that an entry of a bundle.json describes, unchecked."""
        known = {field.name for field in dataclasses.fields(HeadSpec)}
        return HeadSpec(**{key: value for key, value in given.items() if key in known})


class Words(nn.Module):
    """The table of words that a decoder's states are compared with, [V, D]."""

    vocab: int
    width: int
    std: float
    param_dtype: str

    @nn.compact
    def __call__(self):
        init = nn.with_logical_partitioning(matrix(self, self.std), ("vocab", "embed"))
        return self.param("words", init, (self.vocab, self.width), self.param_dtype)


@dataclasses.dataclass(frozen=True)
class Head(HeadBase):
    """z_loss: see `models.words.sums`; of the loss alone."""

    z_loss: float = 0.0
    whole_vocabulary = True
    decodes = True
    spec_class: ClassVar[type[HeadSpec]] = TextSpec

    def decoder(self, train: bool = False) -> nn.Module:
        """Returns the family's decoder. Raises InputError for a family without one."""
        if self.layout.decoder is None:
            raise InputError(f"this model's family has no decoder (head {self.spec.name!r})")
        return self.layout.decoder(self.compute, train)

    def init(self, key: jax.Array) -> dict:
        """Returns the decoder's parameters, and its table of words where it has one, boxed with logical axis names."""
        row, states = jnp.ones((1, 4), jnp.int32), jnp.zeros((1, 4, self.config.width), self.compute.dtype)
        first, second = jax.random.split(key)
        params = self.decoder().init(first, states, row, states, row)["params"]
        if self.config.tied:
            return params
        config = self.config
        return (
            params
            | Words(config.vocab_size, config.width, config.init_std, self.compute.param_dtype).init(second)["params"]
        )

    def table(self, params: dict) -> jax.Array:
        """Returns the words that the decoder's states are compared with, [V, D]."""
        own = params["heads"][self.spec.name]
        return (own["words"] if "words" in own else embedded(params)).astype(self.compute.dtype)

    def own(self, params: dict) -> dict:
        """Returns the decoder's parameters alone."""
        return {name: tree for name, tree in params["heads"][self.spec.name].items() if name not in ("words", MIX)}

    def states(self, params: dict, hidden: jax.Array, batch, rng=None) -> jax.Array:
        """hidden [B, T, D]; targets, targets_segments [B, U] (0 = padding) -> the decoder's states, [B, U, D].

        A state has read the targets before its own in its segment, not its own.
        """
        targets, segments = batch["targets"], batch["targets_segments"]
        first = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)), constant_values=True)
        before = jnp.where(first, self.config.pad_id, jnp.roll(targets, 1, axis=1))
        x = embedded(params)[before]
        rngs = {} if rng is None else {"dropout": rng}
        given = ({"params": self.own(params)}, x, segments, hidden, batch["segments"])
        return self.decoder(rng is not None).apply(*given, rngs=rngs)[0]

    def logits(self, params, hidden, batch, rng=None) -> jax.Array:
        """-> [B, U, V]"""
        return jnp.einsum("bud,vd->buv", self.states(params, hidden, batch, rng), self.table(params))

    def loss(self, params, hidden, batch, rng=None) -> dict:
        """Cross-entropy in nats per target token, and the share of those that are the likeliest."""
        weights = (batch["targets_segments"] > 0).astype(jnp.float32)
        x = self.states(params, hidden, batch, rng)
        loss, right = words.sums(x, self.table(params), None, batch["targets"], weights, self.z_loss)
        return {"loss": (loss, weights.sum()), "accuracy": (right, weights.sum())}

    def predict(self, params, hidden, batch) -> dict:
        """A batch of one input a row -> tokens [B, 1, length] int32 of what is said, its end included, then padding."""
        spec, config = self.spec, self.config
        if not getattr(spec, "length", 0):
            raise InputError(f"head {spec.name!r}: how many tokens may be said is not decided (TextSpec.length)")
        own, rows, beams = self.own(params), len(hidden), spec.beams
        table, words = self.table(params), embedded(params)
        kept = self.layout.keep(own, hidden.astype(self.compute.dtype), rows * beams, spec.length)
        segments = jnp.ones((rows * beams, 1), jnp.int32)

        def step(tokens, place, kept):
            x = words[tokens][:, None]
            given = ({"params": own}, x, segments, None, batch["segments"], kept, place)
            states, kept = self.decoder().apply(*given)
            return jnp.einsum("bd,vd->bv", states[:, 0], table).astype(jnp.float32), kept

        ends = config.pad_id, config.eos_id
        if beams == 1:
            said = generation.greedy(step, kept, rows, spec.length, ends)
        else:
            shape = rows, beams, spec.length
            said = generation.beam_search(step, kept, shape, ends, spec.length_penalty, self.layout.reorder)
        return {"tokens": said[:, None]}


def embedded(params: dict) -> jax.Array:
    """Returns the table by which words become vectors, [V, D]."""
    return params["encoder"]["embeddings"]["tokens"]
