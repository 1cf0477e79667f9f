"""Queries against a large pool of candidates in half precision on disk, against faiss-cpu's flat index, in one run.

    python -m benchmarks.pool --folder=F                                       # Mewsli-X's size: 14,624 x 1,003,893
    python -m benchmarks.pool --folder=F --queries=500 --candidates=20000      # small
    python -m benchmarks.pool --folder=F --without_faiss --stop_after=3        # stop after 3 slabs; again: goes on

The vectors are random and of length 1. FOLDER/pool.npy holds the candidates, float16 [M, D], and is made once;
FOLDER/search.npz is the record of a search that was stopped. Both sides search in float32: this package converts a
slab at a time, faiss holds all. Compiling, on one slab, is outside the clock. `ratio` is faiss's time, its index made
within it, divided by this package's. Needs faiss: `pip install faiss-cpu`.
"""

import argparse
import importlib.util
import os
import pathlib
import resource
import sys
import time
from collections.abc import Sequence

import numpy as np

from benchmarks import command
from jxstilts import runtime
from jxstilts.runtime import InputError

BLOCK = 1 << 14  # candidates that are made at once
GIB = 2**30


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its table and returns the exit code."""
    return command.main(_parser(), run, table, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pool", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", required=True, help="for the pool and the record of a search")
    parser.add_argument("--queries", type=int, default=14_624)
    parser.add_argument("--candidates", type=int, default=1_003_893)
    parser.add_argument("--dim", type=int, default=1024, help="width of the vectors")
    parser.add_argument("--k", type=int, default=20, help="neighbours")
    parser.add_argument("--slab", type=int, default=1 << 16, help="candidates on the device at once")
    parser.add_argument("--stop_after", type=int, default=0, help="stop after so many slabs, as if killed; 0 = never")
    parser.add_argument("--without_faiss", action="store_true")
    parser.add_argument("--out", default="", help="JSON file to write")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def run(options: argparse.Namespace) -> dict:
    """Measures, and returns what `--out` writes. Raises InputError for numbers that cannot be, and without faiss."""
    if min(options.queries, options.candidates, options.dim, options.k, options.slab) < 1 or options.stop_after < 0:
        raise InputError("--queries, --candidates, --dim, --k and --slab are at least 1, --stop_after at least 0")
    if not options.without_faiss and importlib.util.find_spec("faiss") is None:
        raise InputError("faiss is not installed: pip install faiss-cpu, or give --without_faiss")
    runtime.start()
    from jxstilts.eval import ranking

    folder = runtime.make_folder(options.folder, "--folder")
    pool = _pool(folder / "pool.npy", options)
    queries = _unit(np.random.default_rng((options.seed, 1)), options.queries, options.dim)
    record, slabs = folder / "search.npz", -(-options.candidates // options.slab)
    begun = record.exists()
    part = pool[: options.stop_after * options.slab] if 0 < options.stop_after < slabs else None
    ranking.ranked(queries, pool[: options.slab], options.k, slab=options.slab)  # compiles, outside the clock
    began = time.perf_counter()
    if part is not None:  # what a killed search leaves: the best of the slabs before
        found = ranking.ranked(queries, part, options.k, slab=options.slab)
        ranking.keep(record, found, queries, pool, options.k, len(part))
        return {"stopped_after": options.stop_after, "seconds": time.perf_counter() - began} | _about(options)
    found = ranking.ranked(queries, pool, options.k, slab=options.slab, record=record)
    seconds = {"jxstilts": time.perf_counter() - began}
    record.unlink()
    result = {"seconds": seconds, "went_on": begun, "memory_gib": _memory()} | _about(options)
    if not options.without_faiss:
        began = time.perf_counter()
        scores, rows = _faiss(queries, pool, options.k)
        seconds["faiss"] = time.perf_counter() - began
        result |= {
            "ratio": None if begun else seconds["faiss"] / seconds["jxstilts"],
            "same_neighbours": float(np.mean(rows == found[1])),
            "score_difference": float(np.abs(scores - found[0]).max()),
        }
    return result


def _about(options) -> dict:
    import jax

    shape = [options.queries, options.candidates, options.dim]
    return {"shape": shape, "k": options.k, "load": os.getloadavg()[0], "jax": jax.__version__}


def _memory() -> float:
    """Returns the most memory that this process has held, in GiB; a mapped file counts as far as it was read."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def _unit(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    found = rng.standard_normal((rows, dim), np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _pool(path: pathlib.Path, options) -> np.ndarray:
    """Returns the candidates, mapped; makes them where they are not there, or were not all made."""
    shape, whole = (options.candidates, options.dim), path.with_suffix(".whole")
    if not whole.exists() or np.load(path, mmap_mode="r").shape != shape:
        rng = np.random.default_rng((options.seed, 2))
        made = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        for begin in range(0, len(made), BLOCK):
            made[begin : begin + BLOCK] = _unit(rng, min(BLOCK, len(made) - begin), options.dim)
        made.flush()
        whole.touch()
    return np.load(path, mmap_mode="r")


def _faiss(queries: np.ndarray, pool: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    import faiss

    index = faiss.IndexFlatIP(pool.shape[1])
    for begin in range(0, len(pool), BLOCK):
        index.add(np.asarray(pool[begin : begin + BLOCK], np.float32))
    return index.search(queries, min(k, len(pool)))


def table(result: dict) -> str:
    """The result as text."""
    queries, candidates, dim = result["shape"]
    lines = [f"{queries:,} queries, {candidates:,} candidates of width {dim}, {result['k']} neighbours"]
    if "stopped_after" in result:
        return f"{lines[0]}: stopped after {result['stopped_after']} slabs, {result['seconds']:.1f} s"
    for name, seconds in result["seconds"].items():
        lines.append(f"  {name:10}{seconds:10.2f} s{2e-9 * queries * candidates * dim / seconds:10.1f} Gflop/s")
    lines.append(f"  the most memory before faiss: {result['memory_gib']:.1f} GiB")
    if result["went_on"]:
        lines.append("  this search went on where another was stopped: its time is that of the rest")
    if "same_neighbours" in result:
        ratio = "" if result["ratio"] is None else f"ratio {result['ratio']:.2f}; "
        lines.append(
            f"  {ratio}the same: {result['same_neighbours']:.4%} of the neighbours; scores differ by up to "
            f"{result['score_difference']:.1e}"
        )
    if result["load"] > 0.25 * (os.cpu_count() or 1):
        lines.append(f"  other processes were running (load {result['load']:.1f}): the figures are noisy")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
