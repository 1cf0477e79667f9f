"""An encoder forward and a train step against Hugging Face + PyTorch, in one process and on one device.

    python -m benchmarks.step [--model=base] [--task=xnli] [--data_dir=D] [--out=F.json]

Both sides have the same weights, examples and recipe (AdamW, clipping, linear schedule, dropout), and take turns.
The comparisons, each for the encoder's forward and for the whole train step:
    same     both get the same batches in the same shapes: the speed of the computation alone
    as_run   PyTorch: the examples in file order, every batch padded to its longest example. This package: the same
             examples, drawn at random into batches and packed into a few static shapes, as a training phase does;
             it trains the token embeddings that occur in the whole training set, which gives the same weights
    whole    as_run, but every token embedding is trained
`ratio` is PyTorch's time divided by this package's, for the first comparison: the train step as_run. Tokenising and
assembling batches are outside the clock on both sides, copying a batch to the device is inside. The first pass of
everything, which compiles, is outside and reported apart.
Unpacked batches need the most memory. Where it is short, `--cells` takes some of the four comparisons, and
`--accumulation` has PyTorch compute each batch in parts. Needs torch: `pip install jxstilts[parity]`.
"""

import argparse
import dataclasses
import importlib
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks import command, sides
from jxstilts import runtime, tasks
from jxstilts.data import batching, packing, tokenizer
from jxstilts.data.features import Features
from jxstilts.data.ragged import offsets_of
from jxstilts.forms import Reading
from jxstilts.runtime import InputError, suggest
from jxstilts.train import inputs as training
from jxstilts.train import mixture

CELLS = {  # MEASUREMENT_BATCHES: title
    "train_as_run": "train step, as each would run it",
    "train_whole": "train step, as each would run it, all token embeddings trained",
    "train_same": "train step, same batches and shapes",
    "forward_as_run": "encoder forward, as each would run it",
    "forward_same": "encoder forward, same batches and shapes",
}


USUAL = "train_as_run,train_same,forward_as_run,forward_same"


@dataclasses.dataclass(frozen=True)
class Source:
    """Which examples of a task are measured, and the lengths that stand in for theirs where there is no data_dir.

    Under XLM-R's tokenizer the lengths in tokens are close to exp(normal(log_mean, log_std)). pieces: those of its
    vocabulary that occur in the task's English training set (MNLI: 8,999 rows).
    """

    split: str
    max_length: int
    log_mean: float
    log_std: float
    pieces: int


SOURCES = {"xnli": Source("dev", 128, 3.68, 0.33, 14_778), "tydiqa": Source("train", 384, 4.98, 0.53, 22_422)}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its table and returns the exit code."""
    return command.main(arguments(), run, table, argv)


def arguments() -> argparse.ArgumentParser:
    """Returns the command's options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="base", help="preset of the xlmr family")
    parser.add_argument("--task", default="xnli", choices=sorted(SOURCES))
    parser.add_argument("--data_dir", default="", help="real examples and tokenizer; without: random tokens")
    parser.add_argument("--out", default="", help="JSON file to write")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=4, help="batches of examples to measure")
    parser.add_argument("--repetitions", type=int, default=2, help="turns of each side; the median counts")
    parser.add_argument("--max_length", type=int, default=0, help="tokens; 0 = 128 for xnli, 384 for tydiqa")
    parser.add_argument("--buckets", type=int, default=mixture.Stream.buckets, help="this package's shapes, at most")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the computation")
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--attention", default="xla", help="this package's attention backend")
    parser.add_argument("--compile", action="store_true", help="torch.compile the PyTorch side")
    parser.add_argument(
        "--accumulation", type=int, default=1, help="parts in which PyTorch computes a batch, each padded by itself"
    )
    parser.add_argument("--cells", default=USUAL, help=f"what to measure, comma-separated: {', '.join(CELLS)}")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def run(options: argparse.Namespace) -> dict:
    """Measures, and returns what `--out` writes.

    Raises InputError for a device or a package that is not there, and when the two sides do not compute the same.
    """
    if min(options.batches, options.batch_size, options.repetitions) < 1:
        raise InputError("--batches, --batch_size and --repetitions are at least 1")
    cells = options.cells.split(",")
    if unknown := [cell for cell in cells if cell not in CELLS]:
        raise InputError(f"--cells: {suggest('comparison', unknown[0], CELLS)}")
    if options.accumulation < 1 or options.batch_size % options.accumulation:
        raise InputError("--accumulation: a divisor of --batch_size")
    if options.accumulation > 1 and "train_same" in cells:
        raise InputError("--accumulation: parts are no batches of this package; leave train_same out of --cells")
    device, load = sides.ready(options), os.getloadavg()[0]
    features, source = inputs(options)
    steps = 3 * options.batches * (options.repetitions + 1)  # this package trains in up to three ways
    ours, theirs = sides.build(options, config_of(options, features), head_of(options.task), steps)
    in_order, packed = both_ways(options, features, ours.model)
    rows = rows_of(options, features, ours.model.config.vocab_size)
    numbered = [by_place(batch, rows) for batch in packed] if rows else packed
    trained = ours.training(rows) if rows and "train_as_run" in cells else ours
    exact = (options.dtype, options.device) == ("float32", "cpu")
    difference = sides.agreement(ours, theirs, in_order[0], 1e-3 if exact else 0.1)

    every: dict[str, Callable[[], Any]] = {
        "train/torch": lambda: theirs.train(in_order),
        "train/whole": lambda: ours.train(packed),
        "train/same": lambda: ours.train(in_order),
        "train/as_run": lambda: trained.train(numbered),
        "forward/torch": lambda: theirs.forward(in_order),
        "forward/same": lambda: ours.forward(in_order),
        "forward/as_run": lambda: ours.forward(packed),
    }
    needed = {f"{kind}/{side}" for kind, how in (cell.split("_", 1) for cell in cells) for side in ("torch", how)}
    parts = {name: part for name, part in every.items() if name in needed}
    first = {name: timed(part) for name, part in parts.items()}
    turns: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(options.repetitions):
        for name, part in parts.items():
            turns[name].append(timed(part)[0])

    seconds = {name: statistics.median(values) for name, values in turns.items()}
    batches = {"torch": in_order, "same": in_order, "as_run": packed, "whole": packed}
    examples, real = (_count(packed, key) for key in ("weights", "segments"))
    flops, peak = ours.training_flops(features.lengths), sides.peak_flops()
    measured = {
        name: {
            "seconds": value,
            "examples_per_second": examples / value,
            "real_tokens_per_second": real / value,
            "mfu": flops / (1 if name.startswith("train") else 3) / value / peak if peak else None,
            "turns_seconds": turns[name],
            "first_pass_seconds": first[name][0],
        }
        for name, value in seconds.items()
    }
    ratios = {}
    for cell in cells:
        kind, how = cell.split("_", 1)
        ratios[cell] = seconds[f"{kind}/torch"] / seconds[f"{kind}/{how}"]
    return {
        "ratio": ratios[cells[0]],
        "ratios": ratios,
        "model": options.model,
        "parameters": ours.parameters,
        "embeddings_trained": len(rows.ids) if rows else None,
        "task": options.task,
        "source": source,
        "device": device,
        "load_before": load,
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "dtype": options.dtype,
        "dropout": options.dropout,
        "attention": {"torch": "sdpa", "jax": options.attention},
        "torch_compile": options.compile,
        "torch_accumulation": options.accumulation,
        "batch_size": options.batch_size,
        "batches": options.batches,
        "repetitions": options.repetitions,
        "examples": {"torch": _count(in_order, "weights"), "jax": examples},
        "real_tokens": {"torch": _count(in_order, "segments"), "jax": real},
        "padded_tokens": {name: sum(batch["tokens"].size for batch in found) for name, found in batches.items()},
        "row_lengths": {name: [batch["tokens"].shape[1] for batch in found] for name, found in batches.items()},
        "measured": measured,
        "peak_flops": peak,
        "logits_difference": difference,
        "first_losses": {
            side: first[name][1] for side, name in (("torch", "train/torch"), ("jax", "train/same")) if name in first
        },
        "versions": runtime.versions() | {"torch": importlib.import_module("torch").__version__},
    }


def timed(part: Callable[[], Any]) -> tuple[float, Any]:
    """Returns (seconds, what a part returned)."""
    began = time.perf_counter()
    found = part()
    return time.perf_counter() - began, found


def _count(batches: list[dict], key: str) -> int:
    return int(sum((batch[key] > 0).sum() for batch in batches))


def inputs(options: argparse.Namespace) -> tuple[Features, str]:
    """Returns (the features of `batches * batch_size` examples, where they come from in words)."""
    source, spec = SOURCES[options.task], tasks.get(options.task)
    count, max_length = options.batches * options.batch_size, options.max_length or source.max_length
    if options.data_dir:
        rows = tasks.load(spec.name, options.data_dir, source.split, "en", limit=count)
        tokens = tokenizer.load(pathlib.Path(options.data_dir) / "tokenizer")
        features = spec.form.tokenize(rows, tokens, _template(), Reading(max_length=max_length))
        if len(features) < count:
            raise InputError(f"{spec.name} has {len(features)} inputs, {count} are asked for; lower --batches")
        offsets = features.offsets[: count + 1]
        fields = {name: values[:count] for name, values in features.fields.items()}
        words = f"{spec.name} English {source.split}, the first {count} inputs"
        return Features(features.tokens[: offsets[-1]], offsets, fields), words

    generator = np.random.default_rng(options.seed)
    lengths = np.exp(generator.normal(source.log_mean, source.log_std, count)).round().astype(np.int64)
    lengths = lengths.clip(min(16, max_length), max_length)
    size = _preset(options.model)["vocab_size"]
    tokens = generator.integers(10, min(size, source.pieces), lengths.sum()).astype(np.int32)
    if spec.type == "span":
        start = generator.integers(0, lengths)
        fields = {"start": start, "end": generator.integers(start, lengths)}
    else:
        fields = {"label": generator.integers(0, len(spec.labels), count)}
    words = (
        f"random tokens (no --data_dir), lengths exp(normal({source.log_mean}, {source.log_std})) up to {max_length}, "
        f"like {spec.name} English {source.split}"
    )
    fields = {name: values.astype(np.int32) for name, values in fields.items()}
    return Features(tokens, offsets_of(lengths), fields), words


def both_ways(options: argparse.Namespace, features: Features, model: Any) -> tuple[list[dict], list[dict]]:
    """Returns the examples in file order, batches (or their parts) padded to the longest, and packed as in training."""
    size, lengths = options.batch_size, features.lengths
    part = size // options.accumulation
    in_order = [
        batching.Plan.of(
            tuple((i,) for i in range(begin, begin + part)), int(lengths[begin : begin + part].max()), part
        )
        for begin in range(0, len(lengths), part)
    ]
    shapes = packing.choose(
        lengths, batch_size=size, count=options.buckets, cost=partial(training.token_cost, model), multiple=8
    )
    drawn = batching.plan_epoch(
        lengths, batch_size=size, buckets=(int(lengths.max()),), seed=options.seed, epoch=0
    )  # fmt: skip
    own = packing.pack(drawn, lengths, shapes)
    more = {"fields": tasks.get(options.task).form.batch_fields(_template()), "pad_id": 1}
    return (
        list(batching.batches(features, in_order, max_segments=1, **more)),
        list(batching.batches(features, own, max_segments=shapes.max_units, **more)),
    )


def rows_of(options: argparse.Namespace, features: Features, size: int) -> Any:
    """Returns the token embeddings that a phase of the task trains; None where those are nearly all."""
    from jxstilts.train import vocabulary

    spec = tasks.get(options.task)
    if not options.data_dir:
        return vocabulary.rows([np.arange(min(size, SOURCES[options.task].pieces))], (), size)
    train = tasks.get(spec.train_task or spec.name)
    examples = tasks.load(train.name, options.data_dir, "train", "en")
    tokens = tokenizer.load(pathlib.Path(options.data_dir) / "tokenizer")
    reading = Reading(max_length=options.max_length or SOURCES[options.task].max_length)
    found = train.form.tokenize(examples, tokens, _template(), reading)
    return vocabulary.rows([found.tokens, features.tokens], tokens.all_special_ids, size)


def by_place(batch: dict, rows: Any) -> dict:
    """Returns a batch with its tokens numbered by their places among the `train.vocabulary.Rows`."""
    return {**batch, "tokens": rows.places[batch["tokens"]]}


def _template() -> Any:
    from jxstilts.models.model import family_module

    return family_module("xlmr").TEMPLATE


def _preset(name: str) -> dict:
    from jxstilts.models.families.xlmr import PRESETS

    if name not in PRESETS:
        raise InputError(f"--model: {suggest('preset', name, PRESETS)}")
    return PRESETS[name]


def config_of(options: argparse.Namespace, features: Features) -> Any:
    """Returns the encoder's Config."""
    from jxstilts.models.model import make_config

    vocabulary = _preset(options.model)["vocab_size"]
    if features.tokens.max() >= vocabulary:  # a small preset on real data gets XLM-R's vocabulary
        vocabulary = _preset("base")["vocab_size"]
    rates = {"hidden_dropout": options.dropout, "attention_dropout": options.dropout}
    return make_config("xlmr", options.model, vocab_size=vocabulary, max_positions=512, **rates)


def head_of(task: str) -> Any:
    """Returns the HeadSpec of a task."""
    from jxstilts.models.model import HeadSpec

    spec = tasks.get(task)
    return HeadSpec(task, spec.type, spec.labels)


def table(result: dict) -> str:
    """The result as text: two rows, one per side, for each comparison."""
    versions, measured, padded = result["versions"], result["measured"], result["padded_tokens"]
    theirs = ["sdpa", "fused AdamW"]
    theirs += ["torch.compile"] if result["torch_compile"] else []
    theirs += [f"batches in {result['torch_accumulation']} parts"] if result["torch_accumulation"] > 1 else []
    lines = [
        f"XLM-R {result['model']}, {result['parameters'] / 1e6:.1f} M parameters; {result['source']}",
        f"as run, {result['embeddings_trained'] or 'all'} of the token embeddings are trained",
        f"{result['examples']['jax']:,} inputs, {result['real_tokens']['jax']:,} real tokens in batches of "
        f"{result['batch_size']}; {result['dtype']}, dropout {result['dropout']}; {result['device']}",
        f"PyTorch {versions['torch']}, transformers {versions['transformers']} ({', '.join(theirs)}); "
        f"JAX {versions['jax']}; median of {result['repetitions']}",
        "",
        f"{'':34}{'seconds':>9}{'inputs/s':>10}{'real tok/s':>12}{'padded tok':>12}{'MFU':>8}{'ratio':>8}",
    ]
    for cell in result["ratios"]:
        kind, how = cell.split("_", 1)
        lines.append(CELLS[cell])
        for name, side in (("PyTorch", "torch"), ("jxstilts", how)):
            row = measured[f"{kind}/{side}"]
            mfu = "-" if row["mfu"] is None else f"{row['mfu']:.1%}"
            ratio = "" if side == "torch" else f"{result['ratios'][cell]:8.2f}"
            lines.append(
                f"  {name:32}{row['seconds']:9.3f}{row['examples_per_second']:10.1f}"
                f"{row['real_tokens_per_second']:12,.0f}{padded[side]:12,}{mfu:>8}{ratio}"
            )
    lines += [
        "",
        f"ratio {result['ratio']:.2f} = PyTorch's time / jxstilts' time: {CELLS[next(iter(result['ratios']))]}",
    ]
    cores = os.cpu_count() or 1
    if result["load_before"] > 0.25 * cores:
        lines.append(f"Other processes were running (load {result['load_before']:.1f}): the figures are noisy.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
