"""Exact nearest neighbours on the devices, margin scores, and the mining of parallel sentences.

The products run in tiles with a running top-k; the similarity matrix [N, M] never exists. On a mesh the N rows are
split over the batch axes and the M rows are whole on every device. Legend: N and M rows of the two sides, D width,
K neighbours.
"""

from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jxstilts.mesh import batch_divisor, batch_sharding, put_array, replicated
from jxstilts.runtime import InputError, suggest

TILE = 2048
GROUP = 32  # scores whose maximum stands for them in a first search: most of the cost of top_k is the scores it reads
DTYPES = ("float32", "bfloat16")

Neighbours = tuple[np.ndarray, np.ndarray]  # scores float32 [N, K] and rows of the other side int32 [N, K], best first


def normalise(x: np.ndarray) -> np.ndarray:
    """[N, D] -> rows of Euclidean length 1 (a zero row stays zero)."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def nearest(
    queries: np.ndarray,
    index: np.ndarray,
    k: int = 1,
    *,
    tile: int = TILE,
    mesh: Mesh | None = None,
    dtype: str = "float32",
) -> Neighbours:
    """Returns the min(k, M) rows of `index` most similar to each query by inner product: scores, rows [N, K].

    Args:
        queries: [N, D], index: [M, D]; normalise both for cosine similarity.
        k: best first; of equal scores the lower row comes first, whatever the tile.
        dtype: of the products' inputs; "bfloat16" is faster where the device has units for it, and no longer exact.
    Raises InputError for k < 1, widths that differ and values that are not finite.
    """
    return _search(queries, index, k, False, tile, mesh, dtype)[0]


def nearest_both_ways(
    a: np.ndarray, b: np.ndarray, k: int = 1, *, tile: int = TILE, mesh: Mesh | None = None, dtype: str = "float32"
) -> tuple[Neighbours, Neighbours]:
    """Returns (nearest(a, b), nearest(b, a)) from one pass over the products, which serve both directions."""
    return _search(a, b, k, True, tile, mesh, dtype)


def mine(
    a: np.ndarray,
    b: np.ndarray,
    k: int = 4,
    *,
    tile: int = TILE,
    mesh: Mesh | None = None,
    dtype: str = "float32",
) -> list[tuple[int, int, float]]:
    """Returns pairs (row of a, row of b, ratio margin) that are likely translations, the best first (protocol 3.6).

    a [N, D] and b [M, D] need not be normalised. The margin of a pair is its cosine over the mean of two means: those
    of the k nearest neighbours of either row. Each row proposes the best of its neighbours by margin; of all
    proposals the best is taken, then the best that shares no row with those taken, and so on while margins are > 0.
    """
    return extract(*proposals(*nearest_both_ways(normalise(a), normalise(b), k, tile=tile, mesh=mesh, dtype=dtype)))


def proposals(forward: Neighbours, backward: Neighbours) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (rows of a [P], rows of b [P], ratio margins float64 [P]): what each row of either side proposes.

    forward: cosines and neighbours in b of the rows of a; backward: in a, of the rows of b. Of neighbours with equal
    margins the nearer one counts. A pair that both of its rows propose is there twice. P = 0 where a side is empty.
    """
    sides = []
    if not forward[0].size or not backward[0].size:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    means = [side[0].mean(axis=1, dtype=np.float64) for side in (forward, backward)]
    for (cosines, rows), own, other in ((forward, *means), (backward, *means[::-1])):
        margins = ratio_margin(cosines, own[:, None], other[rows])
        best = margins.argmax(axis=1)[:, None]
        sides.append([np.take_along_axis(x, best, axis=1)[:, 0] for x in (rows, margins)])
    (to_b, forward_margins), (to_a, backward_margins) = sides
    return (
        np.concatenate([np.arange(len(to_b)), to_a]),
        np.concatenate([to_b, np.arange(len(to_a))]),
        np.concatenate([forward_margins, backward_margins]),
    )


def ratio_margin(cosine: np.ndarray, mean_a: np.ndarray, mean_b: np.ndarray) -> np.ndarray:
    """Returns cosine / ((mean_a + mean_b) / 2), float64; 0 where that is a division by 0."""
    halves = (np.asarray(mean_a, np.float64) + mean_b) / 2
    cosine = np.asarray(cosine, np.float64)
    return np.divide(cosine, halves, out=np.zeros(np.broadcast_shapes(cosine.shape, halves.shape)), where=halves != 0)


def extract(a: Iterable[int], b: Iterable[int], scores: np.ndarray) -> list[tuple[int, int, float]]:
    """Returns the greedy one-to-one pairs (a, b, score) with score > 0, the best first.

    Of equal scores the pair with the lower a, then the lower b, comes first.
    """
    taken_a, taken_b, pairs = set(), set(), []
    for score, row_a, row_b in sorted(zip((-np.asarray(scores)).tolist(), map(int, a), map(int, b), strict=True)):
        if score < 0 and row_a not in taken_a and row_b not in taken_b:
            taken_a.add(row_a)
            taken_b.add(row_b)
            pairs.append((row_a, row_b, -score))
    return pairs


def _search(a, b, k, both, tile, mesh, dtype):
    """Returns the neighbours of a's rows in b and, with `both`, of b's rows in a (else without any column)."""
    a, b = _checked(a), _checked(b)
    if a.shape[1] != b.shape[1]:
        raise InputError(f"nearest neighbours: vectors of width {a.shape[1]} and of width {b.shape[1]}")
    if k < 1 or tile < 1:
        raise InputError(f"nearest neighbours: k={k} and tile={tile} must be at least 1")
    if dtype not in DTYPES:
        raise InputError(suggest("dtype of nearest neighbours", dtype, DTYPES))
    counts = min(k, len(b)), min(k, len(a)) if both else 0
    if not len(a) or not len(b):
        return _empty(len(a)), _empty(len(b))

    parts = batch_divisor(mesh) if mesh else 1
    blocks, rows = grid(-(-len(a) // parts), tile)  # of each device, whose rows lie one after the other in a
    tiles, columns = grid(len(b), tile)
    whole, split = (replicated(mesh), batch_sharding(mesh)) if mesh else (None, None)
    vectors = put_array(_padded(b, tiles * columns).reshape(tiles, columns, -1), whole)
    queries = _padded(a, parts * blocks * rows).reshape(parts, blocks, rows, -1)
    sizes = put_array(np.array([len(a), len(b)], np.int32), whole)
    shape = (parts, tiles, columns, counts[1])
    theirs = put_array(np.full(shape, -np.inf, np.float32), split), put_array(np.zeros(shape, np.int32), split)
    found, waiting = [], None
    for block in range(blocks):
        begins = ((np.arange(parts) * blocks + block) * rows).astype(np.int32)
        step = put_array(begins, split), put_array(queries[:, block], split), vectors, theirs, sizes
        mine, theirs = _step(counts[0], split, dtype, *step)
        found += [] if waiting is None else [jax.device_get(waiting)]  # one block behind the device
        waiting = mine
    found.append(jax.device_get(waiting))

    forward = tuple(np.stack(x, axis=1).reshape(-1, counts[0])[: len(a)] for x in zip(*found, strict=True))
    if not both:
        return forward, _empty(len(b))
    scores, ids = (
        x.transpose(1, 2, 0, 3).reshape(tiles * columns, -1)[: len(b)] for x in jax.device_get(_gather(whole, theirs))
    )
    # the devices hold a's rows in order, so that the earlier of equals is the lower row here too
    place = np.argsort(-scores, axis=1, kind="stable")[:, : counts[1]]
    return forward, (np.take_along_axis(scores, place, axis=1), np.take_along_axis(ids, place, axis=1))


def _checked(x):
    x = np.asarray(x, np.float32)
    if x.ndim != 2:
        raise InputError(f"nearest neighbours: vectors have the shape [N, D], not {list(x.shape)}")
    wrong = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(wrong):
        raise InputError(f"nearest neighbours: {len(wrong)} vectors are not finite, the first is row {wrong[0]}")
    return x


def _empty(count):
    return np.empty((count, 0), np.float32), np.empty((count, 0), np.int32)


def grid(count: int, tile: int = TILE) -> tuple[int, int]:
    """Returns (number of tiles, rows of each) of so many rows: few different sizes, for each is compiled."""
    number = -(-count // tile)
    size = -(-count // number)
    step = max(GROUP, 1 << max(size.bit_length() - 3, 0))
    return number, min(-(-size // step) * step, tile)


def _padded(x, count):
    if len(x) == count:
        return x
    return np.concatenate([x, np.zeros((count - len(x), x.shape[1]), x.dtype)])


@partial(jax.jit, static_argnums=0)
def _gather(sharding, arrays):
    return arrays if sharding is None else jax.lax.with_sharding_constraint(arrays, sharding)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _step(k, split, dtype, begins, block, vectors, theirs, sizes):
    """One block of queries on each of P devices against all tiles.

    begins [P] first row, block [P, rows, D], vectors [tiles, columns, D]; theirs: the best so far of each vector,
    [P, tiles, columns, K] scores and rows of a. Returns the best of each query [P, rows, k], and `theirs` brought on.
    """
    local = partial(_scan, k, dtype)
    if split is None:
        return local(begins, block, vectors, theirs, sizes)
    whole = replicated(split.mesh)
    mapped = jax.shard_map(
        local, mesh=split.mesh, check_vma=False,
        in_specs=(split.spec, split.spec, whole.spec, split.spec, whole.spec), out_specs=(split.spec, split.spec),
    )  # fmt: skip
    mine, theirs = mapped(begins, block, vectors, theirs, sizes)
    return jax.lax.with_sharding_constraint(mine, whole), theirs


def _scan(k, dtype, begins, block, vectors, theirs, sizes):
    rows, columns = block.shape[1], vectors.shape[1]
    of_a = begins[0] + jnp.arange(rows)
    block = block[0].astype(dtype)

    def body(mine, tile):
        begin, vectors, theirs = tile
        scores = jnp.einsum(
            "qd,id->qi", block, vectors.astype(dtype),
            precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32,
        )  # fmt: skip
        scores = jnp.where(scores == 0, 0.0, scores)  # top_k may hold -0.0 for less than 0.0
        real = (of_a < sizes[0])[:, None] & (begin + jnp.arange(columns) < sizes[1])
        scores = jnp.where(real, scores, -jnp.inf)
        if theirs[0].shape[-1]:
            theirs = _merge(theirs, _top(scores, theirs[0].shape[-1], 0), begins[0])
        return _merge(mine, _top(scores, k, 1), begin), theirs

    mine = jnp.full((rows, k), -jnp.inf), jnp.zeros((rows, k), jnp.int32)
    begin = columns * jnp.arange(vectors.shape[0], dtype=jnp.int32)
    mine, theirs = jax.lax.scan(body, mine, (begin, vectors, jax.tree.map(lambda x: x[0], theirs)))
    return jax.tree.map(lambda x: x[None], (mine, theirs))


def _merge(best, found, begin):
    """Best so far [Q, K] and the best of a later tile [Q, <= K], whose places count from `begin` -> the best of both.

    The best so far comes first, and top_k keeps the earlier of equals: the lower row wins ties.
    """
    scores = jnp.concatenate([best[0], found[0]], axis=1)
    ids = jnp.concatenate([best[1], found[1] + begin], axis=1)
    scores, place = jax.lax.top_k(scores, best[0].shape[1])
    return scores, jnp.take_along_axis(ids, place, axis=1)


def _top(scores, k, axis):
    """Returns the min(k, N) best along an axis of [Q, N] (axis 1) or [N, Q] (axis 0): scores, places [Q, K].

    Where N is large, only those in the groups with the K best maxima are looked at, since no other group holds one of
    the best; the groups are of consecutive places, so that the lower place still wins ties.
    """
    n = scores.shape[axis]
    k, groups = min(k, n), n // GROUP
    if n % GROUP or groups <= k:
        return jax.lax.top_k(scores if axis else scores.T, k)
    if axis:
        grouped = scores.reshape(-1, groups, GROUP)
        chosen = jnp.sort(jax.lax.top_k(grouped.max(axis=2), k)[1], axis=1)  # [Q, K]
        few = jnp.take_along_axis(grouped, chosen[:, :, None], axis=1)
    else:
        grouped = scores.reshape(groups, GROUP, -1)
        chosen = jnp.sort(jax.lax.top_k(grouped.max(axis=1).T, k)[1], axis=1)
        few = grouped[chosen[:, :, None], jnp.arange(GROUP), jnp.arange(len(chosen))[:, None, None]]
    scores, place = jax.lax.top_k(few.reshape(-1, k * GROUP), k)
    return scores, jnp.take_along_axis(chosen, place // GROUP, axis=1) * GROUP + place % GROUP
