"""Contrastive lexical injection: a word and its translation are drawn together in one hidden state.

InfoNCE (van den Oord et al. 2018, equation 4) on cosines of mean token states, in both directions, as a mean of the
two. With LoRA on early layers it is the method of 2506.15415 (Targeted Lexical Injection).
"""

import dataclasses

import jax.numpy as jnp

from jxstilts.config import setting
from jxstilts.models.heads import segment_members
from jxstilts.models.heads.dual import contrast
from jxstilts.runtime import InputError
from jxstilts.train.objectives import base


@dataclasses.dataclass(frozen=True)
class Objective(base.Objective):
    """See its options. The `negatives` are spaced over the batch as those of `models.heads.dual`.

    So the loss does not depend on how the batch is cut.
    """

    WHOLE_VOCABULARY = False
    layer: int = setting(-1, "hidden state that is read, 0 = embeddings, -1 = last")
    temperature: float = setting(0.05, "cosines are divided by it before the softmax", least=0)
    negatives: int = setting(0, "translations in a word's softmax, its own among them; 0 = a micro-batch's", least=0)

    def __post_init__(self):
        if not self.temperature > 0 or self.negatives < 0:
            raise InputError(f"temperature={self.temperature}, negatives={self.negatives}: above 0, and 0 or more")

    def reads_all(self, model):
        """Where it reads another hidden state than the last."""
        return self.layer != -1

    def prepare(self, batch, rng, context):
        """Adds `inner` [B, T] bool: the tokens that are no special ones."""
        return {**batch, "inner": ~jnp.isin(batch["tokens"], jnp.asarray(context.special_ids))}

    def loss(self, model, params, batches, rng, progress):
        """A pair a row, its first segment and its second; logs: accuracy, and the mean cosine of the pairs."""
        (forward,) = batches.values()
        batch, layers = forward.batch, model.config.layers
        if not -layers - 1 <= self.layer <= layers:
            raise InputError(f"{self.name}: layer={self.layer}: the model has hidden states 0 to {layers}")
        if batch["weights"].shape[1] != 2:
            raise InputError(f"{self.name}: the objective 'contrastive' is for pairs, such as the task word_pairs")
        members = (segment_members(batch) & batch["inner"][:, None, :]).astype(jnp.float32)
        sums = jnp.einsum("bst,btd->bsd", members, forward.state(self.layer).astype(jnp.float32))
        found = sums / jnp.sqrt(jnp.maximum(jnp.square(sums).sum(-1, keepdims=True), 1e-24))
        real = batch["weights"][:, 1] * (members.sum(-1) > 0).all(-1)
        count = self.negatives or len(real)
        if len(real) % count:
            raise InputError(f"{self.name}: negatives={count} does not divide the {len(real)} rows of a micro-batch")
        pairs = [contrast(*sides, real, count, 1 / self.temperature) for sides in self._both(found)]
        weight, cosines = real.sum(), (found[:, 0] * found[:, 1]).sum(-1)
        loss, hits = (sum(each) / 2 for each in zip(*pairs, strict=True))
        return loss, weight, {"accuracy": (hits, weight), "cosine": ((cosines * real).sum(), weight)}

    @staticmethod
    def _both(found):
        return (found[:, 0], found[:, 1]), (found[:, 1], found[:, 0])
