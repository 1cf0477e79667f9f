"""Hidden-state mixing of two streams (HAL; Maji and Bhattacharya 2026, arXiv 2602.05599).

One stream is a task in English, the other the same task in a language with few labelled examples. Their examples are
paired; h = a h_H + (1 - a) h_L is read by the head, and has both labels, by the same shares. Training on labels of the
target language is few-shot: keep its results apart from zero-shot ones.
"""

import dataclasses

import jax.numpy as jnp

from jxstilts.config import setting
from jxstilts.models.heads import classification, cross_entropy
from jxstilts.runtime import InputError
from jxstilts.train.objectives import base


@dataclasses.dataclass(frozen=True)
class Objective(base.Objective):
    """Trains a classification head on states between those of two streams' examples.

    Both streams are in the same steps (mode="mixed") and have one batch size, an example a row (packed=False): row i of
    one is paired with row i of the other.
    """

    WHOLE_VOCABULARY = False
    head: str = setting("", "the name of the head, which both streams train")
    high: str = setting("", "the stream whose states have the `share`")
    share: float = setting(0.5, "a of h = a h_H + (1 - a) h_L, and of the labels", least=0)

    def __post_init__(self):
        if not self.head or not self.high:
            raise InputError("mixing: options.head names the head of both streams, options.high one of the streams")
        if not 0 <= self.share <= 1:
            raise InputError(f"mixing: share={self.share} is between 0 and 1")

    def reads_all(self, model):
        """Where its head does."""
        return model.head(self.head).all_hidden

    def loss(self, model, params, batches, rng, progress):
        """Cross-entropy in nats per pair of examples; of no weight in a step that takes one of the streams alone."""
        if len(batches) == 1:
            return jnp.zeros(()), jnp.zeros(()), {}
        head = model.head(self.head)
        if not isinstance(head, classification.Head) or self.high not in batches or len(batches) != 2:
            raise InputError(
                f"mixing: head {self.head!r} is of type {head.spec.type}, the streams are "
                f"{', '.join(sorted(batches))}, high={self.high!r}: it mixes two streams, one of them `high`, for a "
                "classification head"
            )
        high = batches[self.high]
        (low,) = (forward for name, forward in batches.items() if name != self.high)
        shapes = [forward.batch["weights"].shape for forward in (high, low)]
        if shapes[0] != shapes[1] or shapes[0][1] != 1:
            raise InputError(
                f"mixing: the batches have {shapes[0]} and {shapes[1]} examples by row; give both streams one "
                "batch_size, and packed=False"
            )
        pooled = []
        for forward in (high, low):
            states = forward.all_hidden if head.all_hidden else forward.hidden
            pooled.append(head.pooled(params, head.aggregated(params, states), forward.batch))
        logits = head.apply(params, self.share * pooled[0] + (1 - self.share) * pooled[1], rng)
        labels = [forward.batch["labels"] for forward in (high, low)]
        losses = self.share * cross_entropy(logits, labels[0]) + (1 - self.share) * cross_entropy(logits, labels[1])
        weights = high.batch["weights"] * low.batch["weights"]
        return (losses * weights).sum(), weights.sum(), {}
