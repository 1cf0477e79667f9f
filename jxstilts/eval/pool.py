"""The vectors of a pool of candidates: made once for all languages, and where the pool is large, kept on disk.

A stored pool is FOLDER/KEY.npy, half precision [M, D], and KEY.json, which says how many rows are made. It is written
in blocks; whatever stops it, the next call goes on with the row after the last whole block.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jxstilts import processes, runtime
from jxstilts.config import fingerprint
from jxstilts.data.candidates import Candidates
from jxstilts.data.tokenizer import fingerprint as of_tokenizer
from jxstilts.eval import predict
from jxstilts.eval.retrieval import normalise

STORED = 2**16  # candidates from which on a pool is stored: below, making it again takes less than a few minutes
BLOCK = 2**14  # rows that are written at once
STORED_DTYPE = np.float16


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a pool is stored. folder: all processes see it. model: digest of the parameters that make the vectors."""

    folder: pathlib.Path
    model: str


def vectors(
    run: Any, head: Any, form: Any, candidates: Candidates, place: Place | None = None, *, block: int = BLOCK
) -> np.ndarray:
    """Returns the vectors of candidates, of length 1, [M, D]: float32 in memory, or float16 mapped from disk.

    Args:
        run: an `evaluator.Evaluator` whose model has the head `head` and whose options are decided.
        form: says how a candidate becomes an input (`Form.candidates`).
        place: where the vectors are stored; None: in memory.
        block: rows that are made and written at once.
    """
    if place is None:
        return np.concatenate([rows for _, rows in _blocks(run, head, form, candidates, 0, block)])
    path = place.folder / f"{_key(run, head, form, candidates, place)}.npy"
    record = path.with_suffix(".json")
    done = processes.first_says(f"how much of {path.name} is made", lambda: _done(path, record, len(candidates)))
    stored = None
    for begin, rows in _blocks(run, head, form, candidates, done, block):
        if processes.first():
            stored = _open(path, (len(candidates), rows.shape[1])) if stored is None else stored
            stored[begin : begin + len(rows)] = rows
            stored.flush()
            runtime.atomic_write(record, json.dumps({"rows": begin + len(rows)}))
    processes.first_says(f"{path.name} is whole", lambda: True)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _blocks(run, head, form, candidates, done: int, block: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first row, vectors float32 [n, D]) of the rows from `done` on."""
    for begin in range(done, len(candidates), block):
        rows = candidates[begin : begin + block]
        features = form.candidates(rows, run.tokenizer, run.model.template, run.options)
        found = None
        for index, array in predict.each(run, head.name, features, form):
            found = np.zeros((len(rows), array.shape[-1]), np.float32) if found is None else found
            found[index] = array[-1]
        yield begin, normalise(found)


def _key(run, head, form, candidates, place: Place) -> str:
    """Returns a name of all that decides the vectors."""
    what = {
        "candidates": candidates.key, "model": place.model, "tokenizer": of_tokenizer(run.tokenizer),
        "head": dataclasses.asdict(head), "reading": form.options(run.options), "compute": str(run.model.compute),
        "template": dataclasses.asdict(run.model.template), "dtype": np.dtype(STORED_DTYPE).name,
    }  # fmt: skip
    return hashlib.sha256(fingerprint(what).encode()).hexdigest()[:32]


def _done(path: pathlib.Path, record: pathlib.Path, count: int) -> int:
    """Returns how many rows of a stored pool are made; 0 where its array is not there, or not whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not record.exists() or not path.exists():
        return 0
    try:
        made = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):  # cut short
        return 0
    return min(json.loads(record.read_text())["rows"], count) if len(made) == count else 0


def _open(path: pathlib.Path, shape: tuple[int, int]) -> np.memmap:
    """Opens the array to write on, or makes it: a file of its full size, of zeros."""
    if path.exists():
        made = np.lib.format.open_memmap(path, mode="r+")
        if made.shape == shape and made.dtype == STORED_DTYPE:
            return made
    return np.lib.format.open_memmap(path, mode="w+", dtype=STORED_DTYPE, shape=shape)
