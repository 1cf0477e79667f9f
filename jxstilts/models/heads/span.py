"""Extractive question answering: a start and an end score for every token (SQuAD)."""

import dataclasses

import jax
import jax.numpy as jnp

from jxstilts.models.heads import HeadBase, segment_members


@dataclasses.dataclass(frozen=True)
class Head(HeadBase):
    outputs = 2

    def logits(self, params, hidden, batch=None, rng=None) -> jax.Array:
        """hidden [B, T, D] -> [B, T, 2] (start, end), float32."""
        return self.apply(params, hidden, rng).astype(jnp.float32)

    def loss(self, params, hidden, batch, rng=None) -> dict:
        """batch: start, end [B, S] int (token index in the row), weights [B, S], segments, first.

        Mean of the start's and the end's cross-entropy, in nats per example. Each softmax runs over the tokens of the
        example's own segment, so padding and neighbours take no part in it.
        """
        logits = self.logits(params, hidden, batch, rng)  # [B, T, 2]
        scores = jnp.moveaxis(logits, -1, 1)[:, None]  # [B, 1, 2, T]
        scores = jnp.where(segment_members(batch)[:, :, None, :], scores, jnp.finfo(jnp.float32).min)  # [B, S, 2, T]
        gold = jnp.stack([batch["start"], batch["end"]], axis=-1)  # [B, S, 2]
        picked = jnp.take_along_axis(scores, gold[..., None], axis=-1)[..., 0]
        losses = (jax.nn.logsumexp(scores, axis=-1) - picked).mean(-1)  # [B, S]
        weights = batch["weights"]
        right = (scores.argmax(-1) == gold).all(-1) * weights
        losses = jnp.where(weights > 0, losses, 0.0) * weights
        return {"loss": (losses.sum(), weights.sum()), "accuracy": (right.sum(), weights.sum())}

    def predict(self, params, hidden, batch) -> dict:
        """-> logits [B, T, 2] float32 (start, end)."""
        return {"logits": self.logits(params, hidden)}
