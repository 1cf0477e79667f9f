"""Masked language modelling: dense, GELU, LayerNorm, decoder tied to the word embeddings.

Logits are computed at the masked positions only; their number is static ([B, K], with weights), so a 250k vocabulary
costs K / T of a full decoder.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxstilts.models.heads import HeadBase, cross_entropy
from jxstilts.models.layers import Dense, LayerNorm, gelu


class _Layers(nn.Module):
    """[..., D] -> [..., V]; `words` [V, D] is the encoder's embedding table."""

    vocab: int
    std: float
    eps: float
    dtype: str
    param_dtype: str

    @nn.compact
    def __call__(self, x, words):
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = gelu(Dense(x.shape[-1], ("embed", None), self.std, name="dense", **kinds)(x))
        x = LayerNorm(self.eps, name="norm", **kinds)(x)
        bias_init = nn.with_logical_partitioning(nn.initializers.zeros, ("vocab",))
        bias = self.param("bias", bias_init, (self.vocab,), self.param_dtype)
        return jnp.einsum("...d,vd->...v", x, words.astype(x.dtype)) + bias.astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Head(HeadBase):
    architecture = "ForMaskedLM"
    huggingface_keys = {  # noqa: RUF012
        "dense/kernel": "lm_head.dense.weight",
        "dense/bias": "lm_head.dense.bias",
        "norm/scale": "lm_head.layer_norm.weight",
        "norm/bias": "lm_head.layer_norm.bias",
        "bias": "lm_head.bias",
    }

    @property
    def _layers(self) -> _Layers:
        config = self.config
        return _Layers(config.vocab_size, config.init_std, config.norm_eps, **self.compute.kinds)

    def init(self, key: jax.Array):
        width = self.config.width
        return self._layers.init(key, jnp.zeros((1, width)), jnp.zeros((self.config.vocab_size, width)))["params"]

    def logits(self, params, hidden, batch, rng=None) -> jax.Array:
        """hidden [B, T, D], mlm_positions [B, K] -> [B, K, V]."""
        picked = jnp.take_along_axis(hidden, batch["mlm_positions"][:, :, None], axis=1)
        words = params["encoder"]["embeddings"]["tokens"]
        return self._layers.apply({"params": self.own(params)}, picked, words)

    def loss(self, params, hidden, batch, rng=None) -> dict:
        """batch: mlm_positions, mlm_labels [B, K] int, mlm_weights [B, K]. Cross-entropy in nats per masked token."""
        logits = self.logits(params, hidden, batch)
        weights = batch["mlm_weights"]
        right = (logits.argmax(-1) == batch["mlm_labels"]) * weights
        losses = cross_entropy(logits, batch["mlm_labels"]) * weights
        return {"loss": (losses.sum(), weights.sum()), "accuracy": (right.sum(), weights.sum())}

    def predict(self, params, hidden, batch) -> dict:
        """-> logits [B, K, V] float32."""
        return {"logits": self.logits(params, hidden, batch).astype(jnp.float32)}
