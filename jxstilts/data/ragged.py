"""Rows of different lengths stored one after the other in a flat array: the index arithmetic, without loops."""

from collections.abc import Sequence

import numpy as np


def spread(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns [starts[0], starts[0]+1, .. (lengths[0] of them), starts[1], ..] as int64 [sum of lengths]."""
    starts, lengths = np.asarray(starts, np.int64), np.asarray(lengths, np.int64)
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Returns where each row begins, and the total last, as int64 [N+1]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def join(parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Puts parts together row by row; a part is (flat array, starts int [N], lengths int [N]).

    Returns flat int32 [M], offsets int64 [N+1], and for each part where it begins in each row, int64 [N].
    """
    lengths = [np.asarray(part[2], np.int64) for part in parts]
    offsets = offsets_of(sum(lengths))
    flat = np.empty(offsets[-1], np.int32)
    begins, used = [], np.zeros(len(offsets) - 1, np.int64)
    for (source, starts, _), size in zip(parts, lengths, strict=True):
        flat[spread(offsets[:-1] + used, size)] = source[spread(starts, size)]
        begins.append(used)
        used = used + size
    return flat, offsets, begins
