"""Batches and comparisons that the tests of models share. Numpy only."""

import pathlib

import numpy as np
from safetensors.numpy import load_file

HERE = pathlib.Path(__file__).parent
FOLDERS = sorted(path.parent.name for path in HERE.glob("*/config.json"))


def expected(folder: str) -> dict[str, np.ndarray]:
    """What transformers computed for a golden model: tokens, mask, hidden and its outputs."""
    return load_file(HERE / folder / "expected.safetensors")


def one_per_row(tokens: np.ndarray, mask: np.ndarray, types: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """tokens, mask [B, T] -> a batch with one segment in each row; a row without tokens is an empty one."""
    mask = np.asarray(mask).astype(np.int32)
    return {
        **({} if types is None else {"types": np.asarray(types).astype(np.int32)}),
        "tokens": np.asarray(tokens).astype(np.int32),
        "segments": mask,
        "positions": np.arange(mask.shape[1], dtype=np.int32) * mask,
        "first": np.zeros((len(mask), 1), np.int32),
        "weights": mask.max(1, keepdims=True).astype(np.float32),
    }


def packed(tokens: np.ndarray, mask: np.ndarray, length: int, types: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The same examples one after the other in a single row of `length` tokens."""
    lengths = np.asarray(mask).sum(1)
    rest = length - int(lengths.sum())
    join = lambda parts, fill: np.concatenate([*parts, np.full(rest, fill)])[None].astype(np.int32)  # noqa: E731

    def own(table, fill):
        return join([row[:n] for row, n in zip(np.asarray(table), lengths, strict=True)], fill)

    return {
        **({} if types is None else {"types": own(types, 0)}),
        "tokens": own(tokens, 1),
        "segments": join([np.full(n, i + 1) for i, n in enumerate(lengths)], 0),
        "positions": join([np.arange(n) for n in lengths], 0),
        "first": np.cumsum([0, *lengths[:-1]])[None].astype(np.int32),
        "weights": np.ones((1, len(lengths)), np.float32),
    }


def worst(found, wanted, mask=None) -> float:
    """Largest absolute difference, at real tokens only if a mask [B, T] is given; arrays [..., B, T, D]."""
    difference = np.abs(np.asarray(found, np.float32) - np.asarray(wanted, np.float32))
    return float(difference.max() if mask is None else difference[..., np.asarray(mask) == 1, :].max())
