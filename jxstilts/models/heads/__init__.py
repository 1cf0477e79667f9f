"""Heads: the output layer and loss of each task type, one module per type, found by its name.

A module defines `Head`, a subclass of `HeadBase` with
    loss(params, hidden, batch, rng) -> {name: (sum, weight)}
    predict(params, hidden, batch) -> {name: array}
where `hidden` is what `aggregated` makes of the encoder's states: of all of them where `all_hidden`, else of the last.
`params` is the whole tree {"encoder", "heads"}, because some heads share parameters with the encoder. Which layers a
head has is its family's matter: a `Layout`.
"""

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxstilts.models.layers import Aggregation, Compute
from jxstilts.runtime import InputError, suggest

# What stands for a segment: the state of its first token, the encoder's pooler over that, the mean of its tokens.
POOLINGS = ("first", "pooler", "mean")
# What a head reads: "" the last hidden states, or all of them, weighted by a softmax (`layers.Aggregation`).
AGGREGATIONS = ("", "softmax", "attention")
MIX = "mix"  # the aggregation's own among a head's parameters


@dataclasses.dataclass(frozen=True)
class HeadSpec:
    """What a bundle stores of a head: its name, its type (a module of this package) and the labels it predicts."""

    name: str
    type: str
    labels: tuple[str, ...] = ()
    pooling: str = ""  # classification and choice: the vector that they read, one of POOLINGS; "" = as the family does
    aggregation: str = dataclasses.field(default="", kw_only=True)  # one of AGGREGATIONS

    def __post_init__(self):
        if self.aggregation not in AGGREGATIONS:
            raise InputError(suggest("aggregation", self.aggregation, AGGREGATIONS))
        if self.pooling and self.pooling not in POOLINGS:
            raise InputError(suggest("pooling", self.pooling, POOLINGS))

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> "HeadSpec":
        """Returns the head that an entry of a bundle.json describes, unchecked.

        Older bundles have `pooler` (bool) in the place of `pooling`.
        """
        kept = {key: value for key, value in given.items() if key != "pooler"}
        return cls(**kept, **({"pooling": "pooler"} if given.get("pooler") else {}))


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a family lays out the head of one type; the default is a head without parameters.

    layers: (outputs, dtypes as in `Compute.kinds`) -> a Flax module, called with [..., D] and a dropout key or None.
    pooling: what stands for a segment where the head reads one vector of it, of POOLINGS; HeadSpec's goes before it.
    architecture: Hugging Face's class suffix, e.g. "ForQuestionAnswering"; "" = no class has these layers.
    names: own path -> Hugging Face's name beside the encoder, or inside it where it begins with "{body}".
    tied: a second name of a tensor -> its first; names as above.
    decoder: (compute, train) -> the decoder, a Flax module, of a family that has one (`models.relative.Decoder`).
    keep: (its parameters, memory [M, S, D], rows, length) -> what it keeps before the first token of so many rows.
    reorder: (what is kept, rows int [R]) -> what is kept of those.
    """

    layers: Callable[[int, Mapping[str, str]], nn.Module] | None = None
    pooling: str = "first"
    architecture: str = ""
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tied: Mapping[str, str] = dataclasses.field(default_factory=dict)
    decoder: Callable[[Compute, bool], nn.Module] | None = None
    keep: Callable[[Any, jax.Array, int, int], Any] | None = None
    reorder: Callable[[Any, jax.Array], Any] | None = None


@functools.cache  # it lists a folder, and every batch that is predicted asks
def types() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def kind(type: str) -> type["HeadBase"]:
    """Returns the class of the heads of a type. Raises InputError for an unknown one."""
    if type not in types():
        raise InputError(suggest("head type", type, types()))
    return importlib.import_module(f"{__name__}.{type}").Head


@dataclasses.dataclass(frozen=True)
class HeadBase:
    """What the heads share. config: of the encoder. invertible: names of the adapters that change its embeddings."""

    spec: HeadSpec
    config: Any
    compute: Compute
    layout: Layout
    invertible: tuple[str, ...] = ()
    spec_class: ClassVar[type[HeadSpec]] = HeadSpec
    decodes: ClassVar[bool] = False  # does `predict` say a text token by token?
    reads_attention: ClassVar[bool] = False  # does `predict` read the weights of attention, not the hidden states?
    labelled: ClassVar[bool] = False  # has it an output for each label?
    whole_vocabulary: ClassVar[bool] = False  # does its loss read the token embeddings of words that do not occur?

    @property
    def all_hidden(self) -> bool:
        """Does the head read every hidden state?"""
        return bool(self.spec.aggregation)

    @property
    def _aggregation(self) -> Aggregation:
        return Aggregation(self.spec.aggregation == "attention", self.compute.param_dtype)

    def aggregated(self, params: dict, hidden: jax.Array) -> jax.Array:
        """Returns what `loss` and `predict` read: [L + 1, B, T, D] -> [B, T, D], or `hidden` as it is."""
        if not self.spec.aggregation:
            return hidden
        return self._aggregation.apply({"params": params["heads"][self.spec.name][MIX]}, hidden)

    def new(self, key: jax.Array) -> dict:
        """Returns all of the head's parameters, those of its aggregation included."""
        made = self.init(key)
        if not self.spec.aggregation:
            return made
        states = jnp.zeros((self.config.layers + 1, 1, 1, self.config.width))
        return {**made, MIX: self._aggregation.init(key, states)["params"]}

    @property
    def pooling(self) -> str:
        return self.spec.pooling or self.layout.pooling

    @property
    def outputs(self) -> int:
        if not self.spec.labels:
            raise InputError(f"the {self.spec.type} head {self.spec.name!r} needs labels")
        return len(self.spec.labels)

    @property
    def layers(self) -> nn.Module:
        if self.layout.layers is None:
            raise InputError(f"this model's family has no {self.spec.type} head (head {self.spec.name!r})")
        return self.layout.layers(self.outputs, self.compute.kinds)

    def init(self, key: jax.Array) -> dict:
        """Returns the head's own parameters, boxed with logical axis names."""
        return self.layers.init(key, jnp.zeros((1, self.config.width)))["params"]

    def apply(self, params: dict, x: jax.Array, rng: jax.Array | None = None):
        """x [..., D] -> what the head's layers give; with `rng`: with dropout."""
        return self.layers.apply({"params": params["heads"][self.spec.name]}, x, rng)

    def pooled(self, params: dict, hidden: jax.Array, batch) -> jax.Array:
        """hidden [B, T, D] -> a vector for each segment, [B, S, D]."""
        if self.pooling == "mean":
            return segment_means(hidden, batch).astype(hidden.dtype)
        first = first_tokens(hidden, batch)
        if self.pooling == "first":
            return first
        if "pooler" not in params["encoder"]:
            raise InputError("the head reads the pooler, but the encoder has none; set config.model.pooler=True")
        pooler = params["encoder"]["pooler"]
        return jnp.tanh(first @ pooler["kernel"].astype(first.dtype) + pooler["bias"].astype(first.dtype))


def first_tokens(hidden: jax.Array, batch) -> jax.Array:
    """hidden [B, T, D], first [B, S] -> the state of each segment's first token, [B, S, D]."""
    return jnp.take_along_axis(hidden, batch["first"][:, :, None], axis=1)


def segment_members(batch) -> jax.Array:
    """-> [B, S, T] bool: does token t belong to the row's segment s (counted from 0)?"""
    number = jnp.arange(1, batch["first"].shape[1] + 1)
    return batch["segments"][:, None, :] == number[None, :, None]


def segment_means(hidden: jax.Array, batch) -> jax.Array:
    """hidden [B, T, D] -> the mean of each segment's tokens, [B, S, D] float32; 0 where there is no segment."""
    members = segment_members(batch).astype(jnp.float32)
    sums = jnp.einsum("bst,btd->bsd", members, hidden.astype(jnp.float32))
    return sums / jnp.maximum(members.sum(-1), 1.0)[..., None]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """[..., C] logits, [...] int labels -> [...] negative log-likelihood in nats, in float32."""
    logits = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked
