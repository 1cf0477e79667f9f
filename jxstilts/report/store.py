"""Intervals and tests that an earlier report computed: resampling takes long, and a running study is reported often."""

import dataclasses
import hashlib
import io
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jxstilts import __version__
from jxstilts.report.resampling import Estimate, Significance
from jxstilts.runtime import atomic_write

# the numbers of each; `samples`, where there are any, stand apart
FIELDS: dict[type, dict[str, type]] = {
    Estimate: {"value": float, "low": float, "high": float, "p": float, "rows": int, "clusters": int},
    Significance: {"value": float, "p": float, "n": int, "exact": bool},
}


class Store:
    """A folder of estimates and tests by the content of all that went into them.

    `prune` removes what was not asked for.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.used: set[pathlib.Path] = set()

    def get(
        self,
        compute: Callable[..., Any],
        score: Callable,
        a: Mapping[str, np.ndarray],
        b: Mapping[str, np.ndarray],
        languages: np.ndarray,
        clusters: np.ndarray,
        **how: Any,
    ) -> Any:
        """Returns compute(a, b, score=, languages=, clusters=, **how), from the folder if it is there.

        how: must hold all that `score` depends on as `metrics`, which is not handed on.
        """
        key = hashlib.sha256(repr((__version__, list(FIELDS.values()), compute.__name__, sorted(how.items()))).encode())
        for array in (*(side[name] for side in (a, b) for name in sorted(side)), languages, clusters):
            key.update(f"{array.dtype.str} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        path = self.folder / f"{key.hexdigest()}.npz"
        self.used.add(path)
        if path.exists():
            return _read(path)
        del how["metrics"]
        found = compute(a, b, score=score, languages=languages, clusters=clusters, **how)
        _write(path, found)
        return found

    def prune(self) -> None:
        """Removes the estimates of results that are no more."""
        for path in self.folder.glob("*.npz"):
            if path not in self.used:
                path.unlink()


def _write(path: pathlib.Path, found: Any) -> None:
    numbers = [[float(getattr(one, name)) for name in FIELDS[type(found)]] for one in (found, *found.each)]
    samples = {"samples": found.samples} if isinstance(found, Estimate) else {}
    buffer = io.BytesIO()
    np.savez(buffer, numbers=np.array(numbers), **samples)
    atomic_write(path, buffer.getvalue())


def _read(path: pathlib.Path) -> Any:
    with np.load(path, allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files}
    kind = Estimate if "samples" in arrays else Significance
    more = {"samples": np.empty(0)} if kind is Estimate else {}
    found, *each = [
        kind(**{name: type_(number) for (name, type_), number in zip(FIELDS[kind].items(), row, strict=True)}, **more)
        for row in arrays["numbers"].tolist()
    ]
    if kind is Estimate:
        more = {"samples": arrays["samples"]}
    return dataclasses.replace(found, each=tuple(each), **more)
