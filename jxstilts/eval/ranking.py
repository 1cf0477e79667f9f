"""The best candidates of a large pool for each query, slab by slab; a search that is stopped goes on where it was.

The pool [M, D] may be mapped from disk and in half precision: a slab of its rows at a time goes to the devices, where
`retrieval.nearest` searches it in tiles. What is kept is the best so far, [N, K].
"""

import dataclasses
import io
import pathlib
import zipfile

import numpy as np
from jax.sharding import Mesh

from jxstilts import processes
from jxstilts.eval import retrieval
from jxstilts.runtime import InputError, atomic_write

SLAB = 2**16  # rows of the pool at a time: 256 MB of float32 at width 1,024


@dataclasses.dataclass(frozen=True)
class Search:
    """Exact search among vectors on the devices of a mesh (None: the first device)."""

    mesh: Mesh | None = None

    def nearest(self, queries: np.ndarray, index: np.ndarray) -> np.ndarray:
        """queries [N, D], index [M, D] -> int [N], the place of the nearest by cosine."""
        queries, index = retrieval.normalise(queries), retrieval.normalise(index)
        return retrieval.nearest(queries, index, mesh=self.mesh)[1][:, 0]

    def mine(self, source: np.ndarray, target: np.ndarray) -> list[tuple[int, int, float]]:
        """See `retrieval.mine`."""
        return retrieval.mine(source, target, mesh=self.mesh)

    def ranked(self, queries: np.ndarray, pool: np.ndarray, k: int) -> retrieval.Neighbours:
        """queries [N, D], pool [M, D] of length 1 -> the best by cosine: scores, places in the pool [N, min(k, M)]."""
        return ranked(retrieval.normalise(queries), pool, k, mesh=self.mesh)


def ranked(
    queries: np.ndarray,
    pool: np.ndarray,
    k: int,
    *,
    slab: int = SLAB,
    tile: int = retrieval.TILE,
    mesh: Mesh | None = None,
    dtype: str = "float32",
    record: pathlib.Path | None = None,
) -> retrieval.Neighbours:
    """Returns the min(k, M) candidates with the largest inner product for each query: scores, rows [N, K].

    queries [N, D], pool [M, D]; normalise both for cosine similarity. Of equal scores the lower row comes first,
    whatever the slab, the tile and the mesh.
    record: a file that keeps the best so far after each slab, and where the next begins; a search of the same numbers
    of queries and candidates goes on from it. It is left there, whole, at the end. Raises InputError for a record of
    another search, and what `retrieval.nearest` does.
    """
    if slab < 1:
        raise InputError(f"ranking: slab={slab} must be at least 1")
    count = min(k, len(pool))
    about = _about(queries, pool, k)
    best, done = _begin(record, about)
    for begin in range(done, len(pool), slab):
        scores, rows = retrieval.nearest(queries, pool[begin : begin + slab], count, tile=tile, mesh=mesh, dtype=dtype)
        best = _merged(best, (scores, rows + begin), count)
        if record is not None and processes.first():
            _write(record, best, about, min(begin + slab, len(pool)))
    return best


def keep(
    record: pathlib.Path, best: retrieval.Neighbours, queries: np.ndarray, pool: np.ndarray, k: int, done: int
) -> None:
    """Writes the record of a search of which the first `done` candidates are searched; see `ranked`."""
    _write(record, best, _about(queries, pool, k), done)


def _about(queries: np.ndarray, pool: np.ndarray, k: int) -> np.ndarray:
    return np.array([len(queries), len(pool), min(k, len(pool)), queries.shape[1]])


def _merged(best: retrieval.Neighbours, found: retrieval.Neighbours, count: int) -> retrieval.Neighbours:
    """The best of two; those of earlier rows come first, and a stable sort keeps the earlier of equals."""
    scores = np.concatenate([best[0], found[0]], axis=1)
    rows = np.concatenate([best[1], found[1].astype(np.int32)], axis=1)
    place = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(scores, place, axis=1), np.take_along_axis(rows, place, axis=1)


def _begin(record: pathlib.Path | None, about: np.ndarray) -> tuple[retrieval.Neighbours, int]:
    empty = np.empty((about[0], 0), np.float32), np.empty((about[0], 0), np.int32)
    if record is None or not record.exists():
        return empty, 0
    try:
        with np.load(record, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{record}: not the record of a search ({error}); remove it") from error
    if not np.array_equal(found.get("about"), about):
        raise InputError(f"{record}: the record of another search, {found.get('about')}, not {about}; remove it")
    return (found["scores"], found["rows"]), int(found["next"])


def _write(record: pathlib.Path, best: retrieval.Neighbours, about: np.ndarray, following: int) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, scores=best[0], rows=best[1], about=about, next=np.array(following))
    atomic_write(record, buffer.getvalue())
