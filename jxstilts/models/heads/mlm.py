"""Masked language modelling: dense, GELU, LayerNorm, decoder tied to the word embeddings.

Logits are computed at the masked positions only; their number is static ([B, K], with weights), so a 250k vocabulary
costs K / T of a full decoder. Where they would still take more than LARGE, training makes them in tiles (see `_sums`).
"""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxstilts.mesh import constrain_rows, row_groups
from jxstilts.models.heads import HeadBase, cross_entropy
from jxstilts.models.layers import Dense, LayerNorm, gelu

LARGE = 2**30  # bytes of float32 logits of a device; below, their tiles save less than their sum costs
TILE = 2**29  # bytes of a tile


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
        return x, params["encoder"]["embeddings"]["tokens"].astype(x.dtype), bias.astype(x.dtype)

    def logits(self, params, hidden, batch, rng=None) -> jax.Array:
        """hidden [B, T, D], mlm_positions [B, K] -> [B, K, V]."""
        x, words, bias = self._inputs(params, hidden, batch)
        return jnp.einsum("bkd,vd->bkv", x, words) + bias

    def loss(self, params, hidden, batch, rng=None) -> dict:
        """batch: mlm_positions, mlm_labels [B, K] int, mlm_weights [B, K]. Cross-entropy in nats per masked token."""
        labels, weights = batch["mlm_labels"], batch["mlm_weights"]
        rows, count = labels.shape
        groups = row_groups(rows)
        if 4 * rows // groups * count * self.config.vocab_size > LARGE:
            x, words, bias = self._inputs(params, hidden, batch)

            def each(array):  # a copy for each group, which adds up what its own rows come to; the groups' come last
                return constrain_rows(jnp.broadcast_to(array, (groups, *array.shape)), whole=False)

            flat = [array.reshape(groups, -1) for array in (labels, jax.lax.stop_gradient(weights))]
            loss, right = map(jnp.sum, _sums(x.reshape(groups, -1, x.shape[2]), each(words), each(bias), *flat))
        else:
            logits = self.logits(params, hidden, batch)
            loss = (cross_entropy(logits, labels) * weights).sum()
            right = ((logits.argmax(-1) == labels) * weights).sum()
        return {"loss": (loss, weights.sum()), "accuracy": (right, weights.sum())}

    def predict(self, params, hidden, batch) -> dict:
        """-> logits [B, K, V] float32."""
        return {"logits": self.logits(params, hidden, batch).astype(jnp.float32)}


@jax.custom_vjp
def _sums(x, words, bias, labels, weights):
    """Weighted sums of the cross-entropies in nats and of the right words, for each group of rows.

    x [G, N, D], words [G, V, D], bias [G, V], labels and weights [G, N] -> two of [G], float32. One tile of logits is
    held at a time. Where a gradient is wanted, a tile's is made with the tile, since all but its scale is known then:
    so nothing is computed twice.
    """
    tiles = _tiles(x, words.shape[1], labels, weights)

    def body(total, tile):
        return jax.tree.map(jnp.add, total, _tile(words, bias, *tile)[0]), None

    zero = jnp.zeros(x.shape[0], jnp.float32)
    return jax.lax.scan(body, (zero, zero), tiles)[0]


def _sums_forward(x, words, bias, labels, weights):
    tiles = _tiles(x, words.shape[1], labels, weights)
    add = partial(jax.tree.map, lambda a, b: constrain_rows(a + b, whole=False))

    def body(total, tile):
        (x, labels, weights), (sums, (logits, norm)) = tile, _tile(words, bias, *tile)
        chosen = jnp.arange(words.shape[1]) == labels[..., None]
        slope = ((jnp.exp(logits - norm[..., None]) - chosen) * weights[..., None]).astype(x.dtype)
        to_words = jnp.einsum("gnv,gnd->gvd", slope, x, preferred_element_type=jnp.float32)
        found = (sums, to_words, slope.astype(jnp.float32).sum(1))
        return add(total, found), jnp.einsum("gnv,gvd->gnd", slope, words)

    zero = jnp.zeros(x.shape[0], jnp.float32)
    zeros = ((zero, zero), jnp.zeros(words.shape, jnp.float32), jnp.zeros(bias.shape, jnp.float32))
    (sums, to_words, to_bias), to_x = jax.lax.scan(body, zeros, tiles)
    to_x = jnp.moveaxis(to_x, 0, 1).reshape(x.shape[0], -1, x.shape[2])[:, : x.shape[1]]
    return sums, (to_x, to_words.astype(words.dtype), to_bias.astype(bias.dtype))


def _sums_backward(slopes, scales):
    scale, _ = scales  # of the losses [G]; the number of right words has no slope
    scaled = (slope * scale.reshape(-1, *[1] * (slope.ndim - 1)).astype(slope.dtype) for slope in slopes)
    return *scaled, None, None


_sums.defvjp(_sums_forward, _sums_backward)


def _tiles(x, vocab, *others):
    """[G, N, ...] each -> [tiles, G, n, ...], filled up with zeros (of no weight)."""
    count = x.shape[1]
    tiles = max(-(-4 * vocab * count // TILE), 1)
    size = -(-count // tiles)

    def cut(array):
        filled = jnp.pad(array, ((0, 0), (0, tiles * size - count), *[(0, 0)] * (array.ndim - 2)))
        return jnp.moveaxis(filled.reshape(array.shape[0], tiles, size, *array.shape[2:]), 1, 0)

    return tuple(map(cut, (x, *others)))


def _tile(words, bias, x, labels, weights):
    """-> the sums [G] of losses and right words; logits [G, n, V] and their log-sum-exp [G, n], float32."""
    logits = (jnp.einsum("gnd,gvd->gnv", x, words) + bias[:, None]).astype(jnp.float32)
    norm = jax.nn.logsumexp(logits, axis=-1)
    losses = norm - jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    right = logits.argmax(-1) == labels
    return ((losses * weights).sum(1), (right * weights).sum(1)), (logits, norm)
