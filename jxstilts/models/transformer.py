"""The transformer encoder of BERT (Devlin et al. 2019) and XLM-R in Flax Linen.

Post-LN, or pre-LN as in XLM-R XL (`config.prenorm`); learned positions, counted inside each segment; token types; exact
(erf) GELU. Layers are stacked: every layer parameter has a leading L.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jxstilts.mesh import constrain_rows
from jxstilts.models.attention import SHOWN, attend, drop, show
from jxstilts.models.initial import matrix
from jxstilts.models.layers import REMAT, Bottleneck, Compute, Coupling, Dense, LayerNorm, gelu, perturbed


class Block(nn.Module):
    """One transformer layer on [B, T, D]."""

    config: Any
    compute: Compute
    train: bool
    all_hidden: bool

    @nn.compact
    def __call__(self, x, segments):
        config, kinds = self.config, self.compute.kinds
        rows, tokens, width = x.shape
        dense = partial(Dense, std=config.init_std, **kinds)
        norm = partial(LayerNorm, eps=config.norm_eps, **kinds)
        attention_norm, mlp_norm = norm(name="attention_norm"), norm(name="mlp_norm")

        def key():
            return self.make_rng("dropout") if self.train else None

        def split(y):  # [B, T, N*H] -> [B, T, N, H]
            return y.reshape(rows, tokens, config.heads, -1)

        inner = attention_norm(x) if config.prenorm else x
        query = split(dense(width, ("embed", "heads"), name="query")(inner))
        keys = split(dense(width, ("embed", "heads"), name="key")(inner))
        value = split(dense(width, ("embed", "heads"), name="value")(inner))
        show(self, query, keys, segments)
        y = attend(
            query, keys, value, segments,
            backend=self.compute.attention, dropout=config.attention_dropout, dropout_key=key(),
        )  # fmt: skip
        y = dense(width, ("heads", "embed"), name="output")(y.reshape(x.shape))
        y = Bottleneck(name="attention_adapter", **kinds)(drop(y, config.hidden_dropout, key()))
        x = x + y if config.prenorm else attention_norm(x + y)

        inner = mlp_norm(x) if config.prenorm else x
        y = gelu(dense(config.mlp, ("embed", "mlp"), name="mlp_in")(inner))
        y = drop(dense(width, ("mlp", "embed"), name="mlp_out")(y), config.hidden_dropout, key())
        y = Bottleneck(name="mlp_adapter", **kinds)(y)
        y = Bottleneck(name="normed_adapter", **kinds)(y, lambda y: y if config.prenorm else mlp_norm(x + y))
        x = constrain_rows(x + y if config.prenorm else mlp_norm(x + y))
        return x, (x if self.all_hidden else None)


class Embeddings(nn.Module):
    """Word + position + type embeddings of a batch, [B, T, D]. A batch without types is all of type 0."""

    config: Any
    compute: Compute
    train: bool

    @nn.compact
    def __call__(self, batch):
        config, kinds = self.config, self.compute.kinds

        def table(name, rows, axis):
            init = nn.with_logical_partitioning(matrix(self, config.init_std), (axis, "embed"))
            return self.param(name, init, (rows, config.width), self.compute.param_dtype)

        offset = config.first_position
        words = perturbed(table("tokens", config.vocab_size, "vocab")[batch["tokens"]], batch)
        places = table("positions", config.max_positions + offset, "positions")[batch["positions"] + offset]
        types = table("types", config.types, None)
        x = words + places + types[batch["types"] if config.types > 1 and "types" in batch else 0]
        if not config.prenorm:
            x = LayerNorm(config.norm_eps, name="norm", **kinds)(x)
        key = self.make_rng("dropout") if self.train else None
        x = drop(x.astype(self.compute.dtype), config.hidden_dropout, key)
        return constrain_rows(Coupling(name="coupling")(x))


class Encoder(nn.Module):
    """As `families.base.Family` has it. config: of a family that computes this."""

    config: Any
    compute: Compute
    train: bool = False
    all_hidden: bool = False

    @nn.compact
    def __call__(self, batch):
        config, compute = self.config, self.compute
        x = Embeddings(config, compute, self.train, name="embeddings")(batch)
        block = Block
        if compute.remat != "none":
            block = nn.remat(Block, policy=REMAT[compute.remat], prevent_cse=False)
        stack = nn.scan(
            block,
            variable_axes={"params": 0, SHOWN: 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=config.layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        last, each = stack(config, compute, self.train, self.all_hidden, name="layers")(x, batch["segments"])
        if config.prenorm:
            last = LayerNorm(config.norm_eps, name="final_norm", **compute.kinds)(last)
            if self.all_hidden:
                each = each.at[-1].set(last)
        if config.pooler:
            dense = Dense(config.width, ("embed", None), config.init_std, name="pooler", **compute.kinds)
            if self.is_initializing():
                dense(last[:, 0])  # its parameters live with the encoder; heads that pool apply them
        return jnp.concatenate([x[None], each]) if self.all_hidden else last


def training_flops(config: Any, length: int) -> float:
    """6 per matrix parameter of the layers, 12 L D T for the attention products."""
    matrices = config.layers * (4 * config.width**2 + 2 * config.width * config.mlp)
    return 6.0 * matrices + 12.0 * config.layers * config.width * length
