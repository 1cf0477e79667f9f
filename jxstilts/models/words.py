"""The loss over a vocabulary: cross-entropies of hidden states against a table of words, in tiles where they are large.

A vocabulary of 250,112 words makes a gibibyte of float32 logits of 1,073 tokens; so many are never held at once.
"""

from functools import partial

import jax
import jax.numpy as jnp

from jxstilts.mesh import constrain_rows, row_groups

LARGE = 2**30  # bytes of float32 logits of a device; below, their tiles save less than their sum costs
TILE = 2**29  # bytes of a tile


def sums(
    x: jax.Array, words: jax.Array, bias: jax.Array | None, labels: jax.Array, weights: jax.Array, z_loss: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Returns the weighted sums of the cross-entropies in nats, and of the right words, in float32.

    Args:
        x: [B, K, D]. words: [V, D] in the same dtype, bias: [V], None: zeros. labels: [B, K] int; weights: [B, K].
        z_loss: times the square of each log-sum-exp, which keeps the logits near zero (Chowdhery et al. 2022, 5).
    """
    rows, count = labels.shape
    groups = row_groups(rows)
    weights = jax.lax.stop_gradient(weights)
    if 4 * rows // groups * count * words.shape[0] > LARGE:
        bias = jnp.zeros(words.shape[0], x.dtype) if bias is None else bias

        def each(array):  # a copy for each group, which adds up what its own rows come to; the groups' come last
            return constrain_rows(jnp.broadcast_to(array, (groups, *array.shape)), whole=False)

        flat = [array.reshape(groups, -1) for array in (labels, weights)]
        found = _sums(z_loss, x.reshape(groups, -1, x.shape[2]), each(words), each(bias), *flat)
        return found[0].sum(), found[1].sum()
    logits = jnp.einsum("bkd,vd->bkv", x, words)
    logits = (logits if bias is None else logits + bias).astype(jnp.float32)
    norm = jax.nn.logsumexp(logits, axis=-1)
    loss = norm - jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    loss = loss + z_loss * jnp.square(norm) if z_loss else loss
    return (loss * weights).sum(), ((logits.argmax(-1) == labels) * weights).sum()


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(z_loss, x, words, bias, labels, weights):
    """Weighted sums of the cross-entropies in nats and of the right words, for each group of rows.

    x [G, N, D], words [G, V, D], bias [G, V], labels and weights [G, N] -> two of [G], float32. One tile of logits is
    held at a time. Where a gradient is wanted, a tile's is made with the tile, since all but its scale is known then:
    so nothing is computed twice.
    """
    tiles = _tiles(x, words.shape[1], labels, weights)

    def body(total, tile):
        return jax.tree.map(jnp.add, total, _tile(z_loss, words, bias, *tile)[0]), None

    zero = jnp.zeros(x.shape[0], jnp.float32)
    return jax.lax.scan(body, (zero, zero), tiles)[0]


def _sums_forward(z_loss, x, words, bias, labels, weights):
    tiles = _tiles(x, words.shape[1], labels, weights)
    add = partial(jax.tree.map, lambda a, b: constrain_rows(a + b, whole=False))

    def body(total, tile):
        (x, labels, weights), (sums, (logits, norm)) = tile, _tile(z_loss, words, bias, *tile)
        chosen = jnp.arange(words.shape[1]) == labels[..., None]
        likely = jnp.exp(logits - norm[..., None])
        likely = likely * (1 + 2 * z_loss * norm[..., None]) if z_loss else likely
        slope = ((likely - chosen) * weights[..., None]).astype(x.dtype)
        to_words = jnp.einsum("gnv,gnd->gvd", slope, x, preferred_element_type=jnp.float32)
        found = (sums, to_words, slope.astype(jnp.float32).sum(1))
        return add(total, found), jnp.einsum("gnv,gvd->gnd", slope, words)

    zero = jnp.zeros(x.shape[0], jnp.float32)
    zeros = ((zero, zero), jnp.zeros(words.shape, jnp.float32), jnp.zeros(bias.shape, jnp.float32))
    (sums, to_words, to_bias), to_x = jax.lax.scan(body, zeros, tiles)
    to_x = jnp.moveaxis(to_x, 0, 1).reshape(x.shape[0], -1, x.shape[2])[:, : x.shape[1]]
    return sums, (to_x, to_words.astype(words.dtype), to_bias.astype(bias.dtype))


def _sums_backward(z_loss, slopes, scales):
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


def _tile(z_loss, words, bias, x, labels, weights):
    """-> the sums [G] of losses and right words; logits [G, n, V] and their log-sum-exp [G, n], float32."""
    logits = (jnp.einsum("gnd,gvd->gnv", x, words) + bias[:, None]).astype(jnp.float32)
    norm = jax.nn.logsumexp(logits, axis=-1)
    losses = norm - jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    losses = losses + z_loss * jnp.square(norm) if z_loss else losses
    right = logits.argmax(-1) == labels
    return ((losses * weights).sum(1), (right * weights).sum(1)), (logits, norm)
