"""Masked language modelling: dense, GELU, LayerNorm, decoder tied to the word embeddings.

Logits are computed at the masked positions only; their number is static ([B, K], with weights), so a 250k vocabulary
costs K / T of a full decoder. Where they would still take much memory, training makes them in tiles (`models.words`).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxstilts.models import words
from jxstilts.models.heads import HeadBase
from jxstilts.models.layers import Dense, LayerNorm, couple, gelu


class Layers(nn.Module):
    """[..., D] -> (what the words are compared with [..., D], the words' bias [V]).

    biased: have the dense layer and the norm a bias?
    """

    vocab: int
    std: float
    eps: float
    dtype: str
    param_dtype: str
    biased: bool = True

    @nn.compact
    def __call__(self, x, rng=None):
        kinds = {"biased": self.biased, "dtype": self.dtype, "param_dtype": self.param_dtype}
        x = gelu(Dense(x.shape[-1], ("embed", None), self.std, name="dense", **kinds)(x))
        x = LayerNorm(self.eps, name="norm", **kinds)(x)
        bias_init = nn.with_logical_partitioning(nn.initializers.zeros, ("vocab",))
        return x, self.param("bias", bias_init, (self.vocab,), self.param_dtype)


@dataclasses.dataclass(frozen=True)
class Head(HeadBase):
    @property
    def outputs(self) -> int:
        return self.config.vocab_size

    def _inputs(self, params, hidden, batch):
        """hidden [B, T, D], mlm_positions [B, K] -> [B, K, D], and the words [V, D] and their bias [V]."""
        picked = jnp.take_along_axis(hidden, batch["mlm_positions"][:, :, None], axis=1)
        x, bias = self.apply(params, picked)
        for name in reversed(self.invertible):
            x = couple(params["adapters"][name]["embeddings"]["coupling"], x, back=True)
        return x, params["encoder"]["embeddings"]["tokens"].astype(x.dtype), bias.astype(x.dtype)

    def logits(self, params, hidden, batch, rng=None) -> jax.Array:
        """hidden [B, T, D], mlm_positions [B, K] -> [B, K, V]."""
        x, table, bias = self._inputs(params, hidden, batch)
        return jnp.einsum("bkd,vd->bkv", x, table) + bias

    def loss(self, params, hidden, batch, rng=None) -> dict:
        """batch: mlm_positions, mlm_labels [B, K] int, mlm_weights [B, K]. Cross-entropy in nats per masked token."""
        weights = batch["mlm_weights"]
        loss, right = words.sums(*self._inputs(params, hidden, batch), batch["mlm_labels"], weights)
        return {"loss": (loss, weights.sum()), "accuracy": (right, weights.sum())}

    def predict(self, params, hidden, batch) -> dict:
        """-> logits [B, K, V] float32."""
        return {"logits": self.logits(params, hidden, batch).astype(jnp.float32)}
