"""Exact nearest neighbours and mining, against faiss-cpu on the same vectors, in one run.

    python -m benchmarks.retrieval --data_dir=D --model=BUNDLE --layer=14     # BUCC zh-en dev in a model's embeddings
    python -m benchmarks.retrieval --n=2000                                   # the synthetic problem alone, small
    python -m benchmarks.retrieval --data_dir=D --n=0                         # BUCC alone, without a model

Two problems: BUCC zh-en dev (with --data_dir), every Chinese against every English sentence; and n vectors against n
others of width --dim. Without a model a sentence's vector is a random projection of its character n-grams: the same
work, but the languages have next to nothing in common. Both sides find the k nearest neighbours in both directions,
this package in one pass (`nearest_both_ways`), faiss with an IndexFlatIP for each direction; from there on the margins
and pairs are computed by the same code. `ratio` is faiss's time for the neighbours divided by this package's. Copies
to the device and into faiss's indexes are inside the clock; compiling, on one block of queries, is outside and
reported apart. Needs faiss: `pip install faiss-cpu`.
"""

import argparse
import importlib
import importlib.util
import os
import platform
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import command
from jxstilts import runtime, tasks
from jxstilts.runtime import InputError

BUCKETS = 1 << 14  # n-grams are told apart by a hash into so many
NGRAMS = (1, 2, 3)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its table and returns the exit code."""
    return command.main(_parser(), run, table, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data_dir", default="", help="holds BUCC; without: the synthetic problem only")
    parser.add_argument("--model", default="", help="bundle; without: random projections")
    parser.add_argument("--layer", type=int, default=-1, help="the model's hidden state, 0 = embeddings, -1 = last")
    parser.add_argument("--limit", type=int, default=0, help="source sentences of BUCC; 0 = all")
    parser.add_argument(
        "--n", type=int, default=100_000, help="vectors of each side of the synthetic problem; 0 = none"
    )
    parser.add_argument("--dim", type=int, default=1024, help="width of the vectors (with --model: the model's)")
    parser.add_argument("--k", type=int, default=4, help="neighbours")
    parser.add_argument("--repetitions", type=int, default=1, help="turns of each side; the median counts")
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="of this package's products"
    )
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "gpu"), help="this package's; faiss-cpu is on the CPU"
    )
    parser.add_argument("--out", default="", help="JSON file to write")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def run(options: argparse.Namespace) -> dict:
    """Measures, and returns what `--out` writes.

    Raises InputError for a package, a device or data that are not there, and when there is nothing to measure.
    """
    if min(options.k, options.dim, options.repetitions) < 1 or min(options.n, options.limit) < 0:
        raise InputError("--k, --dim and --repetitions are at least 1, --n and --limit at least 0")
    if not options.n and not options.data_dir:
        raise InputError("nothing to measure: give --data_dir for BUCC, or --n for the synthetic problem")
    device, load = _start(options), os.getloadavg()[0]
    problems = {}
    if options.data_dir:
        examples, source, target, words = _bucc(options)
        problems["bucc"] = _measure(options, source, target, words, examples)
    if options.n:
        words = f"synthetic, {options.n:,} x {options.n:,}, every other vector a noisy copy of one of the other side"
        problems["synthetic"] = _measure(options, *vectors(options.n, options.dim, options.seed), words)
    return {
        "ratio": {name: problem["ratio"] for name, problem in problems.items()},
        "problems": problems,
        "k": options.k,
        "dtype": options.dtype,
        "device": device,
        "load_before": load,
        "repetitions": options.repetitions,
        "versions": runtime.versions() | {"faiss": importlib.import_module("faiss").__version__},
    }


def _start(options: argparse.Namespace) -> str:
    """Readies both libraries and returns the device in words. Raises InputError if one of them is not there."""
    if importlib.util.find_spec("faiss") is None:
        raise InputError("faiss is not installed, so there is nothing to compare with: pip install faiss-cpu")
    runtime.start()
    import faiss

    device = command.device(options.device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    faiss.omp_set_num_threads(cores)
    words = f"{platform.machine()} CPU, {cores} cores"
    return words if options.device == "cpu" else f"{device.device_kind} (faiss: {words})"


def _bucc(options: argparse.Namespace) -> tuple[dict, np.ndarray, np.ndarray, str]:
    """Returns (examples, vectors of the Chinese texts [N, D], of the English ones [M, D], in words)."""
    from jxstilts.forms import mining

    examples = tasks.load("bucc2018", options.data_dir, "dev", "zh", limit=options.limit or None)
    texts = {side: list(mining.collapse(examples[side])) for side in ("source", "target")}
    if options.model:
        vectors, kind = _embedded(options, texts), f"hidden state {options.layer} of {options.model}"
    else:
        vectors = {side: project(texts[side], options.dim, options.seed) for side in texts}
        kind = "random projections of character n-grams"
    words = f"BUCC zh-en dev, {len(texts['source']):,} x {len(texts['target']):,} different texts, {kind}"
    return examples, vectors["source"], vectors["target"], words


def _embedded(options: argparse.Namespace, texts: dict) -> dict:
    from jxstilts.data import tokenizer
    from jxstilts.eval.evaluator import Evaluator
    from jxstilts.models import bundle

    loaded = bundle.load(options.model)
    ready = Evaluator(loaded.model, loaded.params, tokenizer.load(loaded.tokenizer_dir))
    return {
        side: ready.embed([{"id": "", "text": text} for text in rows], layers=[options.layer])[0]
        for side, rows in texts.items()
    }


def project(texts: Sequence[str], dim: int, seed: int) -> np.ndarray:
    """Returns a random projection of each text's character n-gram counts, [N, dim] float32."""
    directions = np.random.default_rng(seed).standard_normal((BUCKETS, dim), np.float32)
    found = np.zeros((len(texts), dim), np.float32)
    for row, text in zip(found, texts, strict=True):
        grams = [text[i : i + size] for size in NGRAMS for i in range(len(text) - size + 1)]
        if grams:
            places, counts = np.unique([zlib.crc32(gram.encode()) % BUCKETS for gram in grams], return_counts=True)
            row += counts.astype(np.float32) @ directions[places]
    return found


def vectors(n: int, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns two sides of n vectors, [n, dim] float32; every other one of the second is near one of the first."""
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal((n, dim), np.float32) for _ in range(2))
    b[::2] += a[rng.permutation(n)[: len(b[::2])]]
    return a, b


def _measure(options: argparse.Namespace, a: np.ndarray, b: np.ndarray, words: str, examples: Any = None) -> dict:
    """Returns one problem's figures; with labelled `examples` of a retrieval task also the F1 of what is mined."""
    from jxstilts.eval import retrieval

    a, b = retrieval.normalise(a), retrieval.normalise(b)
    ours = lambda rows: retrieval.nearest_both_ways(rows, b, options.k, dtype=options.dtype)  # noqa: E731
    compile_seconds, _ = _timed(lambda: ours(a[: retrieval.grid(len(a))[1]]))
    sides: dict[str, Callable[[], Any]] = {
        "jxstilts": lambda: ours(a),
        "faiss": lambda: (_faiss(a, b, options.k), _faiss(b, a, options.k)),
    }
    turns: dict[str, list[float]] = {name: [] for name in sides}
    found: dict[str, Any] = {}
    for _ in range(options.repetitions):
        for name, side in sides.items():
            seconds, found[name] = _timed(side)
            turns[name].append(seconds)
    seconds = {name: statistics.median(values) for name, values in turns.items()}
    mined, mining = {}, {}
    for name, neighbours in found.items():
        mining[name], mined[name] = _timed(lambda found=neighbours: retrieval.extract(*retrieval.proposals(*found)))
    pairs = {name: {pair[:2] for pair in rows} for name, rows in mined.items()}
    flops = {"jxstilts": 2 * len(a) * len(b) * a.shape[1], "faiss": 4 * len(a) * len(b) * a.shape[1]}
    return {
        "words": words,
        "shape": [len(a), len(b), a.shape[1]],
        "seconds": seconds,
        "ratio": seconds["faiss"] / seconds["jxstilts"],
        "turns_seconds": turns,
        "compile_seconds": compile_seconds,
        "mining_seconds": mining,
        "flops_per_second": {name: flops[name] / value for name, value in seconds.items()},
        "same_neighbours": {
            way: float(np.mean(mine[1] == theirs[1]))
            for way, mine, theirs in zip(("forward", "backward"), found["jxstilts"], found["faiss"], strict=True)
        },
        "score_difference": max(
            float(np.abs(mine[0] - theirs[0]).max())
            for mine, theirs in zip(found["jxstilts"], found["faiss"], strict=True)
        ),
        "pairs": {name: len(rows) for name, rows in pairs.items()},
        "same_pairs": len(pairs["jxstilts"] & pairs["faiss"]) / max(1, len(pairs["jxstilts"] | pairs["faiss"])),
        "f1": {name: _f1(rows, examples) for name, rows in mined.items()} if examples and "gold" in examples else None,
    }


def _faiss(queries: np.ndarray, index: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    import faiss

    searched = faiss.IndexFlatIP(index.shape[1])
    searched.add(index)
    return searched.search(queries, min(k, len(index)))


def _f1(mined: list, examples: dict) -> float:
    from jxstilts.eval import metrics
    from jxstilts.forms import mining

    metric = metrics.get("bucc")
    return metric.compute(metric.update(mining.expand(mined, examples), examples))["f1"]


def _timed(part: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = part()
    return time.perf_counter() - began, found


def table(result: dict) -> str:
    """The result as text: two rows, one per side, for each problem."""
    versions = result["versions"]
    lines = [
        f"{result['k']} nearest neighbours in both directions, products in {result['dtype']}; {result['device']}",
        f"faiss {versions['faiss']} (IndexFlatIP); JAX {versions['jax']}; median of {result['repetitions']}",
    ]
    for problem in result["problems"].values():
        same = problem["same_neighbours"]
        lines += ["", f"{problem['words']}; width {problem['shape'][2]}"]
        lines.append(f"{'':14}{'seconds':>10}{'Gflop/s':>10}{'mining s':>10}{'pairs':>10}{'dev F1':>8}{'ratio':>8}")
        for name in ("faiss", "jxstilts"):
            f1 = "-" if problem["f1"] is None else f"{problem['f1'][name]:.2f}"
            lines.append(
                f"  {name:12}{problem['seconds'][name]:10.3f}{problem['flops_per_second'][name] / 1e9:10.1f}"
                f"{problem['mining_seconds'][name]:10.3f}{problem['pairs'][name]:10,}{f1:>8}"
                + ("" if name == "faiss" else f"{problem['ratio']:8.2f}")
            )
        lines.append(
            f"  the same: {same['forward']:.4%} of the neighbours forward, {same['backward']:.4%} backward, "
            f"{problem['same_pairs']:.4%} of the pairs; scores differ by up to {problem['score_difference']:.1e}; "
            f"compiling {problem['compile_seconds']:.1f} s"
        )
    cores = os.cpu_count() or 1
    if result["load_before"] > 0.25 * cores:
        lines += ["", f"Other processes were running (load {result['load_before']:.1f}): the figures are noisy."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
