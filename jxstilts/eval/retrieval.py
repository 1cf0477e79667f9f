"""Exact nearest neighbours on device: tiled matrix products with a running top-k.

The full [queries, index] similarity matrix never exists: at most one tile of [tile, tile] scores at a time.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

TILE = 4096


def normalise(x: np.ndarray) -> np.ndarray:
    """[N, D] -> rows of Euclidean length 1 (a zero row stays zero)."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def nearest(queries: np.ndarray, index: np.ndarray, k: int = 1, tile: int = TILE) -> tuple[np.ndarray, np.ndarray]:
    """Returns (scores [N, k], ids [N, k]): the k rows of `index` most similar to each query by inner product.

    Args:
        queries: [N, D] float32, index: [M, D] float32; normalise both for cosine similarity.
        k: at most M. Best first; of equal scores the lower id comes first.
    """
    count, total = len(queries), len(index)
    if k > total:
        raise ValueError(f"k={k} neighbours asked of {total} rows")
    rows, columns = min(tile, count), max(min(tile, total), k)
    index_tiles = -(-total // columns)
    padded = np.zeros((index_tiles * columns, index.shape[1]), np.float32)
    padded[:total] = index
    padded = jnp.asarray(padded).reshape(index_tiles, columns, -1)
    scores, ids = [], []
    for begin in range(0, count, rows):
        block = np.zeros((rows, queries.shape[1]), np.float32)
        part = queries[begin : begin + rows]
        block[: len(part)] = part
        found = _search(jnp.asarray(block), padded, total, k)
        scores.append(found[0][: len(part)])
        ids.append(found[1][: len(part)])
    scores, ids = jax.device_get((scores, ids))
    return np.concatenate(scores), np.concatenate(ids)


@partial(jax.jit, static_argnums=(2, 3))
def _search(block, tiles, total, k):
    columns = tiles.shape[1]

    def body(best, tile):
        number, rows = tile
        scores = jnp.einsum("qd,id->qi", block, rows, preferred_element_type=jnp.float32)
        ids = number * columns + jnp.arange(columns)
        scores = jnp.where(ids < total, scores, -jnp.inf)
        # The running best comes first, and top_k keeps the earlier of equals: lower ids win ties.
        scores = jnp.concatenate([best[0], scores], axis=1)
        ids = jnp.concatenate([best[1], jnp.broadcast_to(ids, (block.shape[0], columns))], axis=1)
        top, place = jax.lax.top_k(scores, k)
        return (top, jnp.take_along_axis(ids, place, axis=1)), None

    start = (jnp.full((block.shape[0], k), -jnp.inf), jnp.zeros((block.shape[0], k), jnp.int32))
    numbers = jnp.arange(tiles.shape[0])
    return jax.lax.scan(body, start, (numbers, tiles))[0]
