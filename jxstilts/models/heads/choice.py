"""Multiple choice: the classification head with one output, a score per choice; softmax over a question's choices.

Protocol: each choice is a separate input (prompt, choice). Here it is a segment, and the choices of a question are in
one row, so that packing and sharding change nothing.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jxstilts.models.heads import classification


@dataclasses.dataclass(frozen=True)
class Head(classification.Head):
    labelled = False
    outputs = 1

    def logits(self, params, hidden, batch, rng=None) -> jax.Array:
        """hidden [B, T, D] -> [B, S]."""
        return super().logits(params, hidden, batch, rng)[..., 0]

    def loss(self, params, hidden, batch, rng=None) -> dict:
        """batch: first, labels (1 = the right choice), group (question of the row) [B, S] int, weights [B, S].

        Cross-entropy over the choices of each question, in nats per question, and accuracy; a question without a
        right choice (padding) has no weight.
        """
        logits = self.logits(params, hidden, batch, rng).astype(jnp.float32)
        group, weights = batch["group"], batch["weights"]
        rivals = (group[:, :, None] == group[:, None, :]) & (weights[:, None, :] > 0)  # [B, S, S]
        scores = jnp.where(rivals, logits[:, None, :], jnp.finfo(jnp.float32).min)
        losses = jax.nn.logsumexp(scores, axis=-1) - logits  # [B, S], if this choice were the right one
        right = (batch["labels"] == 1) * weights
        losses = jnp.where(right > 0, losses, 0.0) * right
        best = (scores.argmax(-1) == jnp.arange(scores.shape[-1])) * right
        return {"loss": (losses.sum(), right.sum()), "accuracy": (best.sum(), right.sum())}

    def predict(self, params, hidden, batch) -> dict:
        """-> logits [B, S] float32."""
        return {"logits": self.logits(params, hidden, batch).astype(jnp.float32)}
