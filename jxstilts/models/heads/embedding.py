"""Sentence embeddings: the mean over a segment's tokens, special tokens included, of every hidden state.

Protocol: pooling mean, layer counted in the list of hidden states in which 0 is the embedding output. There is nothing
to train; the layer is chosen from the result, so one pass serves every layer.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jxstilts.models.heads import HeadBase, segment_members


@dataclasses.dataclass(frozen=True)
class Head(HeadBase):
    all_hidden = True

    def init(self, key: jax.Array):
        return {}

    def predict(self, params, hidden, batch) -> dict:
        """hidden [L + 1, B, T, D] -> embeddings [B, S, L + 1, D] float32 (zero where there is no segment)."""
        members = segment_members(batch).astype(jnp.float32)  # [B, S, T]
        sums = jnp.einsum("bst,lbtd->bsld", members, hidden.astype(jnp.float32))
        return {"embeddings": sums / jnp.maximum(members.sum(-1), 1.0)[:, :, None, None]}
