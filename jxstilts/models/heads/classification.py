"""Sequence classification on each segment's first token: dropout, dense, tanh, dropout, linear.

The layout of Hugging Face's RoBERTa classification head. With `pooler` the input is first passed through the encoder's
own pooler (dense, tanh), as the study's code does (protocol: pooler output, then this head).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxstilts.models.attention import drop
from jxstilts.models.heads import HeadBase, cross_entropy, first_tokens
from jxstilts.models.layers import Dense
from jxstilts.runtime import InputError


class _Layers(nn.Module):
    width: int
    classes: int
    std: float
    rate: float
    dtype: str
    param_dtype: str

    @nn.compact
    def __call__(self, x, keys=(None, None)):
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = drop(x, self.rate, keys[0])
        x = jnp.tanh(Dense(self.width, ("embed", None), self.std, name="dense", **kinds)(x))
        x = drop(x, self.rate, keys[1])
        return Dense(self.classes, ("embed", "classes"), self.std, name="out", **kinds)(x)


@dataclasses.dataclass(frozen=True)
class Head(HeadBase):
    architecture = "ForSequenceClassification"
    huggingface_keys = {  # noqa: RUF012
        "dense/kernel": "classifier.dense.weight",
        "dense/bias": "classifier.dense.bias",
        "out/kernel": "classifier.out_proj.weight",
        "out/bias": "classifier.out_proj.bias",
    }

    @property
    def outputs(self) -> int:
        if not self.spec.labels:
            raise InputError(f"the classification head {self.spec.name!r} needs labels")
        return len(self.spec.labels)

    @property
    def _layers(self) -> _Layers:
        config = self.config
        return _Layers(config.width, self.outputs, config.init_std, config.hidden_dropout, **self.compute.kinds)

    def init(self, key: jax.Array):
        return self._layers.init(key, jnp.zeros((1, self.config.width)))["params"]

    def logits(self, params, hidden, batch, rng=None) -> jax.Array:
        """hidden [B, T, D] -> [B, S, C]."""
        first = first_tokens(hidden, batch)
        if self.spec.pooler:
            if "pooler" not in params["encoder"]:
                raise InputError("the head reads the pooler, but the encoder has none; set config.model.pooler=True")
            pooler = params["encoder"]["pooler"]
            first = jnp.tanh(first @ pooler["kernel"].astype(first.dtype) + pooler["bias"].astype(first.dtype))
        keys = (None, None) if rng is None else tuple(jax.random.split(rng))
        return self._layers.apply({"params": self.own(params)}, first, keys)

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
