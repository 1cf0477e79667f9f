"""Heads: the output layer and loss of each task type, one module per type, found by its name.

A module defines `Head`, a subclass of `HeadBase` with
    init(key) -> its parameters (boxed with logical axis names)
    loss(params, hidden, batch, rng) -> {name: (sum, weight)}
    predict(params, hidden, batch) -> {name: array}
    huggingface: the `AutoModelFor...` architecture that has this head, and the names of its tensors
`params` is the whole tree {"encoder", "heads"}, because some heads share parameters with the encoder.
"""

import dataclasses
import functools
import importlib
import pkgutil
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jxstilts.models.layers import Compute
from jxstilts.runtime import InputError, suggest


@functools.cache  # it lists a folder, and every batch that is predicted asks
def types() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def make(spec: Any, config: Any, compute: Compute) -> "HeadBase":
    """Returns the head of a HeadSpec for an encoder config."""
    if spec.type not in types():
        raise InputError(suggest("head type", spec.type, types()))
    return importlib.import_module(f"{__name__}.{spec.type}").Head(spec, config, compute)


@dataclasses.dataclass(frozen=True)
class HeadBase:
    """What the heads share. `own` is the head's part of the parameters."""

    spec: Any
    config: Any
    compute: Compute
    all_hidden: ClassVar[bool] = False  # does `predict` read every hidden state?
    architecture: ClassVar[str] = ""  # Hugging Face class suffix, e.g. "ForQuestionAnswering"
    huggingface_keys: ClassVar[dict[str, str]] = {}  # own path -> Hugging Face name

    def own(self, params: dict) -> dict:
        return params["heads"][self.spec.name]


def first_tokens(hidden: jax.Array, batch) -> jax.Array:
    """hidden [B, T, D], first [B, S] -> the state of each segment's first token, [B, S, D]."""
    return jnp.take_along_axis(hidden, batch["first"][:, :, None], axis=1)


def segment_members(batch) -> jax.Array:
    """-> [B, S, T] bool: does token t belong to the row's segment s (counted from 0)?"""
    number = jnp.arange(1, batch["first"].shape[1] + 1)
    return batch["segments"][:, None, :] == number[None, :, None]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """[..., C] logits, [...] int labels -> [...] negative log-likelihood in nats, in float32."""
    logits = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked
