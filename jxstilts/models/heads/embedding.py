"""Sentence embeddings: a segment's tokens pooled into one vector, in any of the hidden states, or by a model's recipe.

A layer is counted in the list of hidden states in which 0 is the embedding output (protocol 3.6); it is chosen from the
result, so one pass serves every layer. A recipe is how a model was trained to give vectors (Reimers and Gurevych 2019).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jxstilts.models.heads import HeadBase, HeadSpec, first_tokens, segment_members
from jxstilts.models.layers import Dense
from jxstilts.runtime import InputError, suggest

POOLINGS = ("mean", "mean_without_specials", "first")
ACTIVATIONS = {"identity": lambda x: x, "tanh": jnp.tanh}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How an embedding model makes a sentence's vector.

    prefix: text before each sentence. pooling: see `EmbeddingSpec`. state: the hidden state that is pooled, -1 = last.
    dense: outputs of a dense layer after it, 0 = none, with its activation. normalise: to length 1. max_length: tokens
    of a sentence, 0 = as many as the model reaches.
    """

    prefix: str = ""
    pooling: str = "mean"
    state: int = -1
    dense: int = 0
    activation: str = "identity"
    normalise: bool = False
    max_length: int = 0

    def __post_init__(self):
        for what, value, known in (("pooling", self.pooling, POOLINGS), ("activation", self.activation, ACTIVATIONS)):
            if value not in known:
                raise InputError(suggest(what, value, known))
        counts = (self.dense, self.max_length)
        if any(type(count) is not int or count < 0 for count in counts) or type(self.state) is not int:
            raise InputError(f"a recipe's dense, max_length and state are whole numbers, not {(*counts, self.state)}")
        if not isinstance(self.prefix, str) or type(self.normalise) is not bool:
            raise InputError(f"a recipe's prefix is a text, and normalise true or false, not {self.prefix!r:.60}")

    def __str__(self) -> str:
        state = "the last hidden state" if self.state == -1 else f"hidden state {self.state}"
        pooled = "first token" if self.pooling == "first" else self.pooling.replace("_", " ")
        more = f", dense layer of {self.dense} ({self.activation})" if self.dense else ""
        return f"prefix {self.prefix!r}, {pooled} of {state}{more}{', normalised' if self.normalise else ''}"


@dataclasses.dataclass(frozen=True)
class EmbeddingSpec(HeadSpec):
    """An embedding head that does not give the mean of every hidden state.

    pooling: "mean" over all tokens, the special ones included, as in the study; "mean_without_specials", without the
    first and the last token of the segment; or the "first" token.
    layers: hidden states, 0 to L; () = all. recipe: the vector by the model's own recipe comes after them.
    """

    pooling: str = "mean"
    layers: tuple[int, ...] = ()
    recipe: Recipe | None = None

    def __post_init__(self):
        if self.pooling not in POOLINGS:
            raise InputError(suggest("pooling", self.pooling, POOLINGS))

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> HeadSpec:
        """Returns the head that an entry of a bundle.json describes, unchecked."""
        if not given.get("pooling") and not {"layers", "recipe"} & given.keys():
            return HeadSpec.read(given)
        recipe, layers = given.get("recipe"), given.get("layers", ())
        own = {key: value for key, value in given.items() if key != "pooler"}  # of older bundles
        return cls(**{**own, "layers": tuple(layers), "recipe": None if recipe is None else Recipe(**recipe)})


@dataclasses.dataclass(frozen=True)
class Head(HeadBase):
    spec_class: ClassVar[type[HeadSpec]] = EmbeddingSpec

    @property
    def all_hidden(self) -> bool:
        return True

    @property
    def _recipe(self) -> Recipe | None:
        return getattr(self.spec, "recipe", None)

    @property
    def layers(self) -> Dense:
        return Dense(self._recipe.dense, ("embed", None), self.config.init_std, name="dense", **self.compute.kinds)

    def init(self, key: jax.Array):
        recipe = self._recipe
        if recipe is None or not recipe.dense:
            return {}
        return {"dense": self.layers.init(key, jnp.zeros((1, self.config.width)))["params"]}

    def predict(self, params, hidden, batch) -> dict:
        """hidden [L + 1, B, T, D] -> embeddings [B, S, layers, D] float32.

        With a recipe one more vector at the end; where it is wider or narrower than D, all are filled up with zeros.
        Zero where there is no segment, or no token in it to take the mean of.
        """
        spec, recipe = self.spec, self._recipe
        if not isinstance(spec, EmbeddingSpec):
            spec = EmbeddingSpec(spec.name, spec.type)
        found = _pooled(hidden[jnp.array(spec.layers)] if spec.layers else hidden, spec.pooling, batch)
        if recipe is None:
            return {"embeddings": found}
        own = _pooled(hidden[recipe.state][None], recipe.pooling, batch)[:, :, 0]
        if recipe.dense:
            dense = self.layers.apply({"params": params["heads"][spec.name]["dense"]}, own)
            own = ACTIVATIONS[recipe.activation](dense.astype(jnp.float32))
        if recipe.normalise:
            own = own / jnp.maximum(jnp.linalg.norm(own, axis=-1, keepdims=True), 1e-12)
        width = max(own.shape[-1], found.shape[-1])
        parts = (jnp.pad(x, ((0, 0),) * 3 + ((0, width - x.shape[-1]),)) for x in (found, own[:, :, None]))
        return {"embeddings": jnp.concatenate(list(parts), axis=2)}


def _pooled(hidden: jax.Array, pooling: str, batch) -> jax.Array:
    """hidden [N, B, T, D] -> [B, S, N, D] float32."""
    members = segment_members(batch)  # [B, S, T]
    if pooling == "first":
        firsts = jax.vmap(first_tokens, in_axes=(0, None), out_axes=2)(hidden, batch)  # [B, S, N, D]
        return jnp.where(members.any(-1)[:, :, None, None], firsts, 0).astype(jnp.float32)
    if pooling == "mean_without_specials":
        members &= _inside(batch["segments"])[:, None, :]
    members = members.astype(jnp.float32)
    sums = jnp.einsum("bst,lbtd->bsld", members, hidden.astype(jnp.float32))
    return sums / jnp.maximum(members.sum(-1), 1.0)[:, :, None, None]


def _inside(segments: jax.Array) -> jax.Array:
    """segments [B, T] -> [B, T] bool: is the token neither the first nor the last of its segment?"""
    same = segments[:, 1:] == segments[:, :-1]
    return jnp.pad(same, ((0, 0), (1, 0))) & jnp.pad(same, ((0, 0), (0, 1)))
