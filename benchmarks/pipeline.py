"""The host alone: tokenising, the cache, planning and the batches that training reads, against the device's need.

    python -m benchmarks.pipeline --data_dir=D [--task=xnli] [--model=base] [--out=F.json]

The rows are a task's English training rows, the batches those of `train.inputs.make` and its iterator, as a phase reads
them. Peers, on the same rows and in the same process: transformers' tokenizer called as its documentation does, and
PyTorch's DataLoader (shuffled, no workers) with transformers' DataCollatorWithPadding, where torch is installed.
What a device needs is computed: training at half of its peak, on the real tokens of these rows alone or in full rows;
`times_need` is how often the batches come in that time. `ratio` is the DataLoader's time divided by this package's.
"""

import argparse
import contextlib
import importlib.util
import os
import pathlib
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks import command
from jxstilts import runtime, tasks
from jxstilts.data import pipeline, prepare, tokenizer
from jxstilts.forms import Reading
from jxstilts.models.model import family_module
from jxstilts.runtime import InputError
from jxstilts.tracking import PEAK_FLOPS

MFU = 0.5  # of a device's peak, on real tokens
BAR = 5.0  # the iterator is to deliver so many times what the device needs
SHARE = 0.02  # planning is to cost less of a step than this
DEVICES = {"H100": PEAK_FLOPS["NVIDIA H100"], "TPU v5e": PEAK_FLOPS["TPU v5e"]}
HOSTS = (1, 8)  # devices that one host feeds; each has a batch of `batch_size`
CHUNK = 1000  # rows of one call of the peer's tokenizer, as `datasets.map` has them


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its table and returns the exit code."""
    return command.main(_parser(), run, table, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data_dir", required=True, help="training rows, and tokenizer/ (docs/data.md)")
    parser.add_argument("--tokenizer", default="", help="folder of another tokenizer")
    parser.add_argument("--task", default="xnli", help="classification or span; its training task is read")
    parser.add_argument("--model", default="base", help="preset of the xlmr family")
    parser.add_argument("--batch_size", type=int, default=32, help="examples of a step, for each device")
    parser.add_argument("--max_length", type=int, default=0, help="tokens; 0 = 128, questions 384")
    parser.add_argument("--rows", type=int, default=0, help="the first so many; 0 = all")
    parser.add_argument("--steps", type=int, default=300, help="batches to read; their number for --batch_size")
    parser.add_argument("--repetitions", type=int, default=3, help="turns of each measurement; the median counts")
    parser.add_argument("--out", default="", help="JSON file to write")
    return parser


def run(options: argparse.Namespace) -> dict:
    """Measures, and returns what `--out` writes. Raises InputError for a task or a data folder that will not do."""
    if min(options.batch_size, options.steps, options.repetitions) < 1 or min(options.rows, options.max_length) < 0:
        raise InputError("--batch_size, --steps and --repetitions are at least 1, --rows and --max_length at least 0")
    spec = tasks.get(options.task)
    spec = tasks.get(spec.train_task or spec.name)
    if spec.type not in ("classification", "span"):
        raise InputError(f"--task={options.task}: a task of type classification or span, not {spec.type}")
    load = os.getloadavg()[0]
    length = options.max_length or (384 if spec.type == "span" else 128)
    rows = tasks.load(spec.name, options.data_dir, "train", "en", limit=options.rows or None)
    folder = pathlib.Path(options.tokenizer or pathlib.Path(options.data_dir) / "tokenizer")
    words, again = tokenizer.load(folder), options.repetitions
    template, reading = family_module("xlmr").TEMPLATE, Reading(max_length=length)

    tokenising, features = {}, None
    for name, parallel in (("one thread", "false"), ("all cores", "true")):
        with _environment("TOKENIZERS_PARALLELISM", parallel):
            seconds, features = _median(
                lambda: prepare.features(spec.form, rows, words, template, reading, None), again
            )
            peer, tokenised = _median(lambda: _transformers(rows, spec.type, words, length), again)
        found = {"jxstilts": (seconds, len(features.tokens)), "transformers": (peer, sum(map(len, tokenised)))}
        tokenising[name] = {
            side: {"seconds": s, "rows_per_second": len(rows) / s, "tokens_per_second": n / s, "tokens": n}
            for side, (s, n) in found.items()
        }

    read: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as cache:
        write, _ = _timed(lambda: prepare.features(spec.form, rows, words, template, reading, cache))
        opening, _ = _median(lambda: prepare.features(spec.form, rows, words, template, reading, cache), again)
        for devices in HOSTS:
            for name, packed in (("packed", True), ("sorted by length", False)):
                made = _training(options, spec.name, length, options.batch_size * devices, packed, folder, cache)
                steps = max(options.steps // devices, 10)
                found = _read(made, options.batch_size * devices, len(features), steps, again)
                read[f"{name}, {devices}"] = found | {"devices": devices, "way": name}
    if importlib.util.find_spec("torch") is not None:
        for devices in HOSTS:
            steps = max(options.steps // devices, 10)
            found = _loader(features, words, options.batch_size * devices, steps, again)
            read[f"DataLoader, {devices}"] = found | {"devices": devices, "way": "DataLoader"}

    need = _need(options.model, features.lengths, length)
    for row in read.values():
        for device, rates in need.items():
            wanted = {kind: rate * row["devices"] for kind, rate in rates.items()}
            row[device] = {kind: row["examples_per_second"] / rate for kind, rate in wanted.items()}
            if row["planning_seconds"] is not None:  # of the time in which the device takes a step
                row[device]["planning_share"] = row["planning_seconds"] / (row["examples"] / wanted["real"])
    peer, ours = read.get("DataLoader, 1"), read["packed, 1"]
    return {
        "ratio": ours["examples_per_second"] / peer["examples_per_second"] if peer else None,
        "model": options.model,
        "task": spec.name,
        "rows": len(rows),
        "inputs": len(features),
        "tokens": len(features.tokens),
        "max_length": length,
        "batch_size": options.batch_size,
        "repetitions": again,
        "tokenising": tokenising,
        "cache": {"tokenise_and_write_seconds": write, "open_seconds": opening},
        "read": read,
        "need": need,
        "mfu": MFU,
        "load_before": load,
        "hardware": f"{platform.machine()} CPU, {len(os.sched_getaffinity(0))} cores",
        "versions": runtime.versions() | _versions("torch"),
    }


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def _median(work: Callable[[], Any], times: int) -> tuple[float, Any]:
    turns = [_timed(work) for _ in range(times)]
    return statistics.median(seconds for seconds, _ in turns), turns[-1][1]


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _versions(package: str) -> dict[str, str]:
    return {package: importlib.import_module(package).__version__} if importlib.util.find_spec(package) else {}


def _transformers(rows: list[dict], kind: str, words: Any, length: int) -> list[list[int]]:
    """Returns the token ids of every input, the plain way: batches of rows, padding left to the collator."""
    found: list[list[int]] = []
    for begin in range(0, len(rows), CHUNK):
        part = rows[begin : begin + CHUNK]
        if kind == "span":  # windows that overlap by a third; character offsets, which answers are found by
            texts = [row["question"] for row in part], [row["context"] for row in part]
            more = {"stride": length // 3, "return_overflowing_tokens": True, "return_offsets_mapping": True}
            found += words(*texts, truncation="only_second", max_length=length, **more)["input_ids"]
        else:
            first, second = ([row[key] for row in part] for key in ("text_a", "text_b"))
            texts = (first,) if None in second else (first, second)
            found += words(*texts, truncation=True, max_length=length)["input_ids"]
    return found


def _training(options: Any, task: str, length: int, batch: int, packed: bool, folder: pathlib.Path, cache: str) -> Any:
    """Returns `train.inputs.Data` as a phase on this task makes it."""
    import jax

    from jxstilts.data import tokenizer
    from jxstilts.mesh import make_mesh
    from jxstilts.models.model import Model, make_config
    from jxstilts.train import inputs, phase
    from jxstilts.train.mixture import Stream

    stream = Stream(batch_size=batch, max_length=length, packed=packed, limit=options.rows)
    made = phase.Phase(tasks={task: stream}, steps=10**6).resolve("phase")
    vocabulary = len(tokenizer.load(folder))
    config = make_config("xlmr", options.model, max_positions=max(length, 512), vocab_size=vocabulary)
    place = phase.Place(pathlib.Path(cache), options.data_dir, pathlib.Path(cache), make_mesh({}, jax.devices()[:1]))
    return inputs.make(made, inputs.heads(made, Model(config), (), options.data_dir), folder, place)


def _read(made: Any, batch_size: int, inputs: int, steps: int, again: int) -> dict:
    """Plans epochs, and reads `steps` batches through the iterator of training, several times.

    Training plans an epoch in a thread beside the one before it; here it is timed alone. Of short epochs, several are
    packed when the first of them is asked for: their mean counts.
    """
    from jxstilts.train.inputs import epochs_at_once

    (source,) = made.source.sources.values()
    epoch, count = -(-inputs // batch_size), epochs_at_once(batch_size, inputs)  # steps, epochs
    groups = [range(turn * count, (turn + 1) * count) for turn in range(1, again + 1)]
    planning = statistics.median(_timed(partial(list, map(source.planner, group)))[0] for group in groups) / count

    def read() -> list[int]:
        iterator, counts = pipeline.Batches(made.source), np.zeros(3, np.int64)
        for _ in range(steps):
            (batch,) = next(iterator).values()
            counts += (batch["weights"] > 0).sum(), (batch["segments"] > 0).sum(), batch["tokens"].size
        return counts.tolist()

    read()  # starts the threads, plans the epoch again
    return _rates(*_median(read, again), steps) | {"planning_seconds": planning / epoch}


def _rates(seconds: float, counts: Sequence[int], steps: int) -> dict:
    examples, real, padded = counts
    return {
        "steps": steps,
        "seconds": seconds,
        "examples": examples / steps,
        "batches_per_second": steps / seconds,
        "examples_per_second": examples / seconds,
        "real_tokens_per_second": real / seconds,
        "efficiency": real / padded,
    }


def _loader(features: Any, words: Any, batch_size: int, steps: int, again: int) -> dict:
    """PyTorch's DataLoader on the same inputs: lists of token ids and labels, as a mapped data set gives them."""
    import torch
    import transformers

    tokens, ends = features.tokens.tolist(), features.offsets.tolist()
    golds = ("label",) if "label" in features.fields else ("start", "end")
    columns = [features.fields[gold].tolist() for gold in golds]
    items = [
        {"input_ids": tokens[begin:end], "attention_mask": [1] * (end - begin)} | dict(zip(golds, gold, strict=True))
        for begin, end, *gold in zip(ends, ends[1:], *columns, strict=False)
    ]
    collate = transformers.DataCollatorWithPadding(words)

    def read() -> list[int]:
        counts, done = np.zeros(3, np.int64), 0
        while done < steps:
            for batch in torch.utils.data.DataLoader(items, batch_size, shuffle=True, collate_fn=collate):
                mask = batch["attention_mask"]
                counts += len(mask), int(mask.sum()), mask.numel()
                done += 1
                if done == steps:
                    break
        return counts.tolist()

    return _rates(*_median(read, again), steps) | {"planning_seconds": None}


def _need(preset: str, lengths: np.ndarray, length: int) -> dict[str, dict[str, float]]:
    """Returns {device: examples/s of training at MFU of its peak}: "real" these lengths alone, "full" full rows."""
    from jxstilts.models.families.xlmr import training_flops
    from jxstilts.models.model import make_config

    config = make_config("xlmr", preset)
    sizes, counts = np.unique(lengths, return_counts=True)
    real = float(np.average([n * training_flops(config, n) for n in sizes.tolist()], weights=counts))
    full = length * training_flops(config, length)
    return {name: {"real": MFU * peak / real, "full": MFU * peak / full} for name, peak in DEVICES.items()}


def table(result: dict) -> str:
    """The result as text."""
    versions, again = result["versions"], result["repetitions"]
    lines = [
        f"{result['task']}: {result['rows']:,} training rows, {result['inputs']:,} inputs of at most "
        f"{result['max_length']} tokens, {result['tokens'] / result['inputs']:.1f} on average; {result['hardware']}",
        f"transformers {versions['transformers']}, tokenizers {versions['tokenizers']}, torch "
        f"{versions.get('torch', '-')}, numpy {versions['numpy']}; median of {again}",
        "",
        f"{'tokenising':28}{'rows/s':>10}{'tokens/s':>12}{'ratio':>8}",
    ]
    for threads, sides in result["tokenising"].items():
        for side, row in sides.items():
            ratio = f"{sides['transformers']['seconds'] / row['seconds']:8.2f}" if side == "jxstilts" else ""
            lines.append(
                f"{threads + ', ' + side:28}{row['rows_per_second']:10,.0f}{row['tokens_per_second']:12,.0f}{ratio}"
            )
    cache = result["cache"]
    lines += [
        f"into the cache {cache['tokenise_and_write_seconds']:.2f} s, from it {cache['open_seconds'] * 1e3:.0f} ms "
        "(the rows are hashed each time)",
        "",
        f"{'batches read':28}{'batch':>7}{'batches/s':>11}{'inputs/s':>10}{'real tok/s':>12}{'real':>7}{'plan us':>9}",
    ]
    for row in result["read"].values():
        plan = "" if row["planning_seconds"] is None else f"{row['planning_seconds'] * 1e6:9.1f}"
        lines.append(
            f"{row['way']:28}{row['examples']:7.0f}{row['batches_per_second']:11,.0f}{row['examples_per_second']:10,.0f}"
            f"{row['real_tokens_per_second']:12,.0f}{row['efficiency']:7.1%}{plan}"
        )
    lines += [
        "",
        f"times what the device needs, XLM-R {result['model']} trained at {result['mfu']:.0%} of its peak, computed",
        f"{'device':12}{'per host':>9}{'needs: inputs/s':>17}{'delivered, times':>18}{'needs, full rows':>18}"
        f"{'times':>7}{'planning':>10}",
    ]
    for device, rates in result["need"].items():
        for devices in HOSTS:
            found = result["read"][f"packed, {devices}"][device]
            lines.append(
                f"{device:12}{devices:9}{rates['real'] * devices:17,.0f}{_held(found['real']):>18}"
                f"{rates['full'] * devices:18,.0f}{found['full']:7.1f}{found['planning_share']:10.2%}"
            )
    if result["ratio"]:
        lines += ["", f"ratio {result['ratio']:.1f} = DataLoader's time / jxstilts' time, packed, one device"]
    return "\n".join(lines)


def _held(times: float) -> str:
    return f"{times:.1f}" + ("" if times >= BAR else f" (under {BAR:g})")


if __name__ == "__main__":
    sys.exit(main())
