"""Masked language modelling with dynamic masking (Devlin et al. 2019; Liu et al. 2019): 15 %, 80/10/10."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jxstilts.config import setting
from jxstilts.runtime import InputError
from jxstilts.train.objectives import task

RATE = 0.15


@dataclasses.dataclass(frozen=True)
class Objective(task.Objective):
    """Trains a head of type mlm."""

    HEAD = "mlm"
    WHOLE_VOCABULARY = True  # random tokens in the input, and a logit for each
    head: str = setting("mlm", "the name of its head")

    @classmethod
    def check(cls, tokenizer, where):
        if tokenizer.mask_token_id is None:
            raise InputError(
                f"{where}: masked language modelling needs a mask token, and this tokenizer has none; name it in its "
                "tokenizer_config.json (mask_token), or leave the objective out"
            )

    def prepare(self, batch, rng, context):
        """See `mask`."""
        return mask(batch, rng, context)


def mask(batch, rng, context):
    """Masks a batch: tokens [B, T] -> masked tokens and mlm_positions, mlm_labels, mlm_weights [B, K].

    K = ceil(0.15 T) is static. A row with m maskable tokens gets round(0.15 m) of them, at least one if m > 0; special
    tokens and padding are never masked. Of the chosen, 80 % become <mask>, 10 % a random token, 10 % stay.
    """
    tokens = batch["tokens"]
    rows, length = tokens.shape
    count = math.ceil(RATE * length)
    choose_key, kind_key, random_key = jax.random.split(rng, 3)
    special = jnp.isin(tokens, jnp.asarray(context.special_ids))
    maskable = (batch["segments"] > 0) & ~special
    score = jnp.where(maskable, jax.random.uniform(choose_key, tokens.shape), -1.0)
    _, positions = jax.lax.top_k(score, count)  # [B, K], best first
    available = maskable.sum(-1)
    wanted = jnp.where(available > 0, jnp.maximum(jnp.round(RATE * available), 1), 0)
    weights = (jnp.arange(count)[None] < wanted[:, None]).astype(jnp.float32)
    labels = jnp.take_along_axis(tokens, positions, axis=1)
    kind = jax.random.uniform(kind_key, positions.shape)
    random = jax.random.randint(random_key, positions.shape, 0, context.vocab_size)
    new = jnp.where(kind < 0.8, context.mask_id, jnp.where(kind < 0.9, random, labels))
    new = jnp.where(weights > 0, new, labels)
    masked = tokens.at[jnp.arange(rows)[:, None], positions].set(new)
    return {**batch, "tokens": masked, "mlm_positions": positions, "mlm_labels": labels, "mlm_weights": weights}
