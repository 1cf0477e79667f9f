"""Intervals that were computed before: resampling a whole study takes a while, and a running one is reported often."""

import hashlib
import io
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jxstilts import __version__
from jxstilts.report.resampling import Estimate
from jxstilts.runtime import atomic_write

FIELDS = ("value", "low", "high", "p")


class Store:
    """A folder of estimates by the content of all that went into them; `prune` removes what was not asked for."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.used: set[pathlib.Path] = set()

    def get(
        self,
        compute: Callable[..., Estimate],
        score: Callable,
        a: Mapping[str, np.ndarray],
        b: Mapping[str, np.ndarray],
        languages: np.ndarray,
        clusters: np.ndarray,
        **how: Any,
    ) -> Estimate:
        """Returns compute(a, b, score=, languages=, clusters=, **how), from the folder if it is there.

        how: must hold all that `score` depends on as `metrics`, which is not handed on.
        """
        key = hashlib.sha256(repr((__version__, compute.__name__, sorted(how.items()))).encode())
        for array in (*(side[name] for side in (a, b) for name in sorted(side)), languages, clusters):
            key.update(f"{array.dtype.str} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        path = self.folder / f"{key.hexdigest()}.npz"
        self.used.add(path)
        if path.exists():
            with np.load(path, allow_pickle=False) as held:
                numbers = dict(zip(FIELDS, held["numbers"].tolist(), strict=True))
                return Estimate(**numbers, rows=len(languages), clusters=int(held["clusters"]), samples=held["samples"])
        del how["metrics"]
        found = compute(a, b, score=score, languages=languages, clusters=clusters, **how)
        buffer = io.BytesIO()
        numbers = np.array([getattr(found, name) for name in FIELDS])
        np.savez(buffer, numbers=numbers, clusters=found.clusters, samples=found.samples)
        atomic_write(path, buffer.getvalue())
        return found

    def prune(self) -> None:
        """Removes the estimates of results that are no more."""
        for path in self.folder.glob("*.npz"):
            if path not in self.used:
                path.unlink()
