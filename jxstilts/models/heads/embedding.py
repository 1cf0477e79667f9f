"""Sentence embeddings: a segment's tokens pooled into one vector, in any of the hidden states.

A layer is counted in the list of hidden states in which 0 is the embedding output (protocol 3.6). There is nothing to
train; the layer is chosen from the result, so one pass serves every layer.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jxstilts.models.heads import HeadBase, HeadSpec, first_tokens, segment_members
from jxstilts.runtime import InputError, suggest

POOLINGS = ("mean", "mean_without_specials", "first")


@dataclasses.dataclass(frozen=True)
class EmbeddingSpec(HeadSpec):
    """An embedding head that does not give the mean of every hidden state.

    pooling: "mean" over all tokens, the special ones included, as in the study; "mean_without_specials", without the
    first and the last token of the segment; or the "first" token.
    layers: hidden states, 0 to L; () = all.
    """

    pooling: str = "mean"
    layers: tuple[int, ...] = ()

    def __post_init__(self):
        if self.pooling not in POOLINGS:
            raise InputError(suggest("pooling", self.pooling, POOLINGS))


@dataclasses.dataclass(frozen=True)
class Head(HeadBase):
    all_hidden = True

    def init(self, key: jax.Array):
        return {}

    def predict(self, params, hidden, batch) -> dict:
        """hidden [L + 1, B, T, D] -> embeddings [B, S, layers, D] float32.

        Zero where there is no segment, or no token in it to take the mean of.
        """
        spec = self.spec
        if not isinstance(spec, EmbeddingSpec):
            spec = EmbeddingSpec(spec.name, spec.type)
        if spec.layers:
            hidden = hidden[jnp.array(spec.layers)]
        members = segment_members(batch)  # [B, S, T]
        if spec.pooling == "first":
            firsts = jax.vmap(first_tokens, in_axes=(0, None), out_axes=2)(hidden, batch)  # [B, S, layers, D]
            return {"embeddings": jnp.where(members.any(-1)[:, :, None, None], firsts, 0).astype(jnp.float32)}
        if spec.pooling == "mean_without_specials":
            members &= _inside(batch["segments"])[:, None, :]
        members = members.astype(jnp.float32)
        sums = jnp.einsum("bst,lbtd->bsld", members, hidden.astype(jnp.float32))
        return {"embeddings": sums / jnp.maximum(members.sum(-1), 1.0)[:, :, None, None]}


def _inside(segments: jax.Array) -> jax.Array:
    """segments [B, T] -> [B, T] bool: is the token neither the first nor the last of its segment?"""
    same = segments[:, 1:] == segments[:, :-1]
    return jnp.pad(same, ((0, 0), (1, 0))) & jnp.pad(same, ((0, 0), (0, 1)))
