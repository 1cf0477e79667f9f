"""The transformer of T5 v1.1 (Raffel et al. 2020; Shazeer 2020) and mT5 (Xue et al. 2021): an encoder, a decoder.

Pre-LN with RMSNorm and no biases; unscaled attention, to whose scores a learned number is added for the distance of two
tokens, one table for all layers of a stack, and none between the two stacks; gated feed-forward layers with tanh GELU.
Layers are stacked. A decoder reads whole targets, or one token after the other with what it has kept of those before.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jxstilts.mesh import constrain_rows
from jxstilts.models.attention import SHOWN, attend, drop, show
from jxstilts.models.initial import matrix
from jxstilts.models.layers import REMAT, Compute, Dense, RMSNorm, perturbed


class Given(NamedTuple):
    """What every layer of a stack reads.

    segments [B, T]; bias [1, N, T, S] float32. Of a decoder: memory, the encoder's last states [M, S, D], and
    memory_segments [M, S]. Where one token is read at a time: `place` of that token, and no memory, but its keys and
    values by layer.
    """

    segments: jax.Array
    bias: jax.Array
    memory: jax.Array | None = None
    memory_segments: jax.Array | None = None
    place: jax.Array | None = None


class Kept(NamedTuple):
    """What a decoder keeps: keys and values of the targets [L, B, U, N, H], and of the memory [L, M, S, N, H]."""

    key: jax.Array
    value: jax.Array
    memory_key: jax.Array
    memory_value: jax.Array


class Block(nn.Module):
    """One layer on [B, T, D]; decodes: it also attends to the encoder's states."""

    config: Any
    compute: Compute
    train: bool
    all_hidden: bool
    decodes: bool

    @nn.compact
    def __call__(self, carry, layer, given):
        """carry: x, and what is kept of the targets; layer: number of the layer, and what is kept of the memory."""
        (x, kept), (number, memory) = carry, layer
        config = self.config
        norm = partial(RMSNorm, config.norm_eps, **self.compute.kinds)
        y, kept = self._own(norm(name="attention_norm")(x), kept, number, given)
        x = x + drop(y, config.hidden_dropout, self._key())
        if self.decodes:
            y = self._other(norm(name="cross_norm")(x), memory, given)
            x = x + drop(y, config.hidden_dropout, self._key())
        inner = norm(name="mlp_norm")(x)
        gate = self._dense("mlp_gate", config.mlp, ("embed", "mlp"), config.width**-0.5)(inner)
        y = jax.nn.gelu(gate) * self._dense("mlp_in", config.mlp, ("embed", "mlp"), config.width**-0.5)(inner)
        y = drop(y, config.hidden_dropout, self._key())
        y = self._dense("mlp_out", config.width, ("mlp", "embed"), config.mlp**-0.5)(y)
        x = constrain_rows(x + drop(y, config.hidden_dropout, self._key()))
        return (x, kept), (x if self.all_hidden else None)

    def _key(self):
        return self.make_rng("dropout") if self.train else None

    def _dense(self, name, features, axes, std):
        return Dense(features, axes, std * self.config.init_std, biased=False, name=name, **self.compute.kinds)

    def _heads(self, name, x):
        """[..., T, D] -> [..., T, N, H]"""
        config = self.config
        std = config.width**-0.5 * (config.head_width**-0.5 if name.endswith("query") else 1.0)
        y = self._dense(name, config.heads * config.head_width, ("embed", "heads"), std)(x)
        return y.reshape(*x.shape[:-1], config.heads, config.head_width)

    def _attended(self, name, query, key, value, **sight):
        config = self.config
        y = attend(
            query, key, value, backend=self.compute.attention, dropout=config.attention_dropout,
            dropout_key=self._key(), scale=1.0, **sight,
        )  # fmt: skip
        inner = config.heads * config.head_width
        return self._dense(name, config.width, ("heads", "embed"), inner**-0.5)(y.reshape(*y.shape[:-2], inner))

    def _own(self, x, kept, number, given):
        """Attention to the same text. -> (output, what is kept)"""
        query, *new = (self._heads(name, x) for name in ("query", "key", "value"))
        if kept is None:
            sight = {"segments": given.segments, "causal": self.decodes, "bias": given.bias}
            show(self, query, new[0], scale=1.0, **sight)
            return self._attended("output", query, *new, **sight), None
        at = (number, 0, given.place, 0, 0)  # in place: of a loop's arrays nothing else is written
        kept = tuple(jax.lax.dynamic_update_slice(old, each[None], at) for old, each in zip(kept, new, strict=True))
        key, value = (jax.lax.dynamic_index_in_dim(each, number, keepdims=False) for each in kept)
        seen = (jnp.arange(key.shape[1]) <= given.place).astype(jnp.int32)[None]  # later ones are another segment
        sight = {"segments": given.segments, "key_segments": jnp.broadcast_to(seen, key.shape[:2]), "bias": given.bias}
        return self._attended("output", query, key, value, **sight), kept

    def _other(self, x, memory, given):
        """Attention to the encoder's states. Rows of one source (beams) are its queries, so that it is there once."""
        if memory is None:
            query, key, value = (
                self._heads(f"cross_{part}", y)
                for part, y in (("query", x), ("key", given.memory), ("value", given.memory))
            )
            sight = {"segments": given.segments, "key_segments": given.memory_segments}
            return self._attended("cross_output", query, key, value, **sight)
        key, value = memory
        query = self._heads("cross_query", x.reshape(len(key), -1, x.shape[-1]))
        sight = {"segments": jnp.ones(query.shape[:2], jnp.int32), "key_segments": given.memory_segments}
        return self._attended("cross_output", query, key, value, **sight).reshape(x.shape)


def _stack(module: nn.Module, layers: int, x, kept: Kept | None, given: Given, decodes: bool):
    """Runs a stack and its last norm. -> (last, all hidden states or None, what is kept)"""
    config, compute = module.config, module.compute
    all_hidden = getattr(module, "all_hidden", False)
    block = Block
    if compute.remat != "none":
        block = nn.remat(Block, policy=REMAT[compute.remat], prevent_cse=False)
    stack = nn.scan(
        block,
        variable_axes={"params": 0, SHOWN: 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(0, nn.broadcast),
        length=layers,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    key = module.make_rng("dropout") if module.train else None
    x = constrain_rows(drop(x.astype(compute.dtype), config.hidden_dropout, key))
    own, memory = (None, None) if kept is None else (kept[:2], kept[2:])
    run = stack(config, compute, module.train, all_hidden, decodes, name="layers")
    (last, own), each = run((x, own), (jnp.arange(layers), memory), given)
    kept = None if kept is None else Kept(*own, *kept[2:])
    last = RMSNorm(config.norm_eps, name="final_norm", **compute.kinds)(last)
    last = drop(last, config.hidden_dropout, module.make_rng("dropout") if module.train else None)
    return last, (jnp.concatenate([x[None], each]).at[-1].set(last) if all_hidden else None), kept


def _biases(module: nn.Module, queries: int, keys: int, both_ways: bool) -> jax.Array:
    """The numbers that are added to the scores, float32 [1, N, queries, keys]; both begin at the same token."""
    config = module.config
    init = nn.with_logical_partitioning(matrix(module, config.init_std * config.width**-0.5), (None, None))
    table = module.param("relative", init, (config.relative_buckets, config.heads), module.compute.param_dtype)
    distance = np.arange(keys) - np.arange(queries)[:, None]
    rows = buckets(distance, both_ways, config.relative_buckets, config.relative_distance)
    one = jax.nn.one_hot(rows, config.relative_buckets)
    # A product, whose backward pass is one, too; in full precision it takes numbers out of the table as they are.
    found = jnp.einsum("tsb,bn->nts", one, table.astype(jnp.float32), precision="highest")
    return found[None]


def buckets(distance: np.ndarray, both_ways: bool, count: int, farthest: int) -> np.ndarray:
    """Returns the row of the table for each distance, key minus query (Raffel et al. 2020, 2.1).

    Half of the rows are for one distance each, half for logarithmic ranges up to `farthest`; both_ways: half of all are
    for keys that come later, which a decoder does not see.
    """
    row = np.zeros(distance.shape, np.int32)
    if both_ways:
        count //= 2
        row += np.where(distance > 0, count, 0).astype(np.int32)
        away = np.abs(distance)
    else:
        away = np.maximum(-distance, 0)
    exact = count // 2
    with np.errstate(divide="ignore"):
        share = np.log(away.astype(np.float32) / np.float32(exact)) / np.float32(math.log(farthest / exact))
    far = np.where(away < exact, 0, exact + np.where(away > 0, share, 0) * np.float32(count - exact)).astype(np.int32)
    return row + np.where(away < exact, away, np.minimum(far, count - 1)).astype(np.int32)


class Embeddings(nn.Module):
    """A batch's tokens [B, T] -> [B, T, D]."""

    config: Any
    compute: Compute

    @nn.compact
    def __call__(self, batch):
        init = nn.with_logical_partitioning(matrix(self, self.config.init_std), ("vocab", "embed"))
        table = self.param("tokens", init, (self.config.vocab_size, self.config.width), self.compute.param_dtype)
        return perturbed(table[batch["tokens"]], batch)


class Encoder(nn.Module):
    """As `families.base.Family` has it."""

    config: Any
    compute: Compute
    train: bool = False
    all_hidden: bool = False

    @nn.compact
    def __call__(self, batch):
        x = Embeddings(self.config, self.compute, name="embeddings")(batch)
        bias = _biases(self, x.shape[1], x.shape[1], both_ways=True)
        last, every, _ = _stack(self, self.config.layers, x, None, Given(batch["segments"], bias), decodes=False)
        return every if self.all_hidden else last


class Decoder(nn.Module):
    """Embedded targets -> their states.

    x: [B, U, D], segments: [B, U]; memory, memory_segments: the encoder's. -> hidden [B, U, D], None. A token sees
    those before it in its segment, and the encoder's tokens of the same segment.
    With `kept` and `place`: x [B, 1, D] is the token at that place of each row -> hidden [B, 1, D], kept.
    """

    config: Any
    compute: Compute
    train: bool = False

    @nn.compact
    def __call__(self, x, segments, memory, memory_segments, kept=None, place=None):
        count = x.shape[1] if kept is None else kept.key.shape[2]
        bias = _biases(self, count, count, both_ways=False)
        if place is not None:
            bias = jax.lax.dynamic_slice_in_dim(bias, place, 1, axis=2)
        given = Given(segments, bias, memory, memory_segments, place)
        hidden, _, kept = _stack(self, self.config.decoder_layers, x, kept, given, decodes=True)
        return hidden, kept


def keep(config: Any, params: Any, memory: jax.Array, rows: int, length: int) -> Kept:
    """Returns what a decoder has before its first token. params: the decoder's; memory [M, S, D]."""
    layers = params["layers"]

    def projected(name):
        kernel = layers[name]["kernel"].astype(memory.dtype)
        found = jnp.einsum("msd,ldh->lmsh", memory, kernel)
        return found.reshape(*found.shape[:-1], config.heads, config.head_width)

    empty = jnp.zeros((config.decoder_layers, rows, length, config.heads, config.head_width), memory.dtype)
    return Kept(empty, empty, projected("cross_key"), projected("cross_value"))


def reorder(kept: Kept, rows: jax.Array) -> Kept:
    """Returns what is kept of these rows, int [R]; the memory is shared."""
    return kept._replace(key=kept.key[:, rows], value=kept.value[:, rows])
