"""Tagging: a class for every token (POS, NER, CCG); a word's tag is that of its first sub-word."""

import dataclasses

import jax
import jax.numpy as jnp

from jxstilts.models.heads import HeadBase, HeadSpec, cross_entropy


@dataclasses.dataclass(frozen=True)
class LogitsSpec(HeadSpec):
    """Asks a head for its logits. No bundle has one."""


@dataclasses.dataclass(frozen=True)
class Head(HeadBase):
    labelled = True
    asking = LogitsSpec

    def logits(self, params, hidden, batch=None, rng=None) -> jax.Array:
        """hidden [B, T, D] -> [B, T, C]."""
        return self.apply(params, hidden, rng)

    def loss(self, params, hidden, batch, rng=None) -> dict:
        """batch: tags [B, T] int, -1 = none. Cross-entropy in nats per tagged token, and accuracy."""
        logits = self.logits(params, hidden, batch, rng)
        tags = batch["tags"]
        weights = (tags >= 0).astype(jnp.float32)
        losses = cross_entropy(logits, jnp.maximum(tags, 0)) * weights
        right = (logits.argmax(-1) == tags) * weights
        return {"loss": (losses.sum(), weights.sum()), "accuracy": (right.sum(), weights.sum())}

    def predict(self, params, hidden, batch) -> dict:
        """-> classes [B, T] int32, -1 where a logit is not finite; of a LogitsSpec logits [B, T, C] float32.

        Not the logits otherwise: with a thousand labels they are too much to bring to the host in every evaluation.
        """
        logits = self.logits(params, hidden)
        if isinstance(self.spec, LogitsSpec):
            return {"logits": logits.astype(jnp.float32)}
        return {"classes": jnp.where(jnp.isfinite(logits).all(-1), logits.argmax(-1), -1).astype(jnp.int32)}
