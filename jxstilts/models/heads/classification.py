"""Sequence classification: a class for each segment, from one vector of it.

Which vector, and through which layers, is the family's layout; a head's own `pooling` goes before it. With "pooler" the
vector is the output of the encoder's own pooler (dense, tanh), as in the study (protocol: pooler output, then this
head).
"""

import dataclasses

import jax
import jax.numpy as jnp

from jxstilts.models.heads import HeadBase, cross_entropy


@dataclasses.dataclass(frozen=True)
class Head(HeadBase):
    labelled = True

    def logits(self, params, hidden, batch, rng=None) -> jax.Array:
        """hidden [B, T, D] -> [B, S, C]."""
        return self.apply(params, self.pooled(params, hidden, batch), rng)

    def loss(self, params, hidden, batch, rng=None) -> dict:
        """batch: first, labels [B, S] int, weights [B, S]. Cross-entropy in nats per example, and accuracy."""
        logits = self.logits(params, hidden, batch, rng)
        weights = batch["weights"]
        right = (logits.argmax(-1) == batch["labels"]) * weights
        losses = cross_entropy(logits, batch["labels"]) * weights
        return {"loss": (losses.sum(), weights.sum()), "accuracy": (right.sum(), weights.sum())}

    def predict(self, params, hidden, batch) -> dict:
        """-> logits [B, S, C] float32."""
        return {"logits": self.logits(params, hidden, batch).astype(jnp.float32)}
