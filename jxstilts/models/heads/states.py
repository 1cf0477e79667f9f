"""What a model computes on the way: hidden states, or weights of attention, of every token. Nothing is learned."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp

from jxstilts.models.heads import HeadBase, HeadSpec
from jxstilts.runtime import InputError


@dataclasses.dataclass(frozen=True)
class StatesSpec(HeadSpec):
    """layers: hidden states, 0 = embeddings; or layers of attention, from 0. attention: those are meant."""

    layers: tuple[int, ...] = ()
    attention: bool = False

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> HeadSpec:
        raise InputError("a head of the type states is made to read a model with, and stands in no bundle")


@dataclasses.dataclass(frozen=True)
class Head(HeadBase):
    all_hidden = True
    spec_class: ClassVar[type[HeadSpec]] = StatesSpec

    @property
    def reads_attention(self) -> bool:
        return self.spec.attention

    def init(self, key):
        return {}

    def predict(self, params, hidden, batch) -> dict:
        """hidden [L + 1, B, T, D], or attention [L, B, N, T, T] -> states float32 [B, T, layers, D or N, T]."""
        chosen = hidden[jnp.array(self.spec.layers)].astype(jnp.float32)
        if self.spec.attention:
            return {"states": jnp.transpose(chosen, (1, 3, 0, 2, 4))}
        return {"states": jnp.transpose(chosen, (1, 2, 0, 3))}
