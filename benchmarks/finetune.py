"""The same fine-tuning in Hugging Face + PyTorch and here, to the end: zero-shot values by language, and the time.

    python -m benchmarks.finetune --model=FOLDER --data_dir=D [--task=udpos] [--freeze] [--out=F.json]

FOLDER is an XLM-R or BERT encoder in Hugging Face's format with its tokenizer. Both sides start from the same encoder
and the same new head, and take the same examples in the same batches and order, with the same rates, AdamW and
clipping: once without dropout, once with it (then each side draws its own). The batches are those of a training phase.
Here they are packed, and the token embeddings that occur are trained, as a phase does it; PyTorch gets one example a
row, padded to the batch's longest. Each side predicts the same inputs with its own forward pass; decoding and scoring
are this package's for both. The interval (95 %) is that of the difference by a paired bootstrap over examples; with
several seeds (of the head, the order and the dropout) over seeds and examples. With dropout and one seed it leaves out
what the draw of the dropout does. Without dropout the means have to be within 0.3 points, else the exit code is 1.
`train` is without compiling, which stands apart; `in all` holds compiling and evaluation. Needs torch:
`pip install jxstilts[parity]`.
"""

import argparse
import dataclasses
import importlib
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks import command, sides
from jxstilts import runtime, tasks
from jxstilts.forms import Given
from jxstilts.runtime import InputError

LIMIT = 0.3  # points between the means without dropout
BATCH = 32  # inputs that PyTorch predicts together
EMPTY = {"segments": 0, "tags": -1}  # what stands at padding; other arrays: the batch's own padding


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained on, and evaluated by default."""

    train: str
    split: str
    rate: float
    languages: tuple[str, ...]


SETTINGS = {
    "xnli": Setting("mnli", "dev", 7e-5, ("en", "ar", "de", "el", "es", "hi", "ru", "sw", "tr", "zh")),
    "udpos": Setting("udpos", "test", 2e-4, ("en", "ar", "es", "eu", "fi", "hi", "ta", "tr", "vi", "zh")),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its table and returns the exit code."""
    return command.main(arguments(), run, table, argv)


def arguments() -> argparse.ArgumentParser:
    """Returns the command's options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", required=True, help="folder of an encoder in Hugging Face's format")
    parser.add_argument("--data_dir", required=True, help="holds the task's files (XNLI: and MNLI's)")
    parser.add_argument("--task", default="udpos", choices=sorted(SETTINGS))
    parser.add_argument("--rows", type=int, default=1000, help="training rows; 0 = all")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--languages", default="", help="comma-separated; default: of ten, those that are there")
    parser.add_argument("--evaluated", type=int, default=60, help="rows of each language; 0 = all")
    parser.add_argument("--freeze", action="store_true", help="leave the embeddings as they are")
    parser.add_argument("--dropouts", default="0,0.1", help="comma-separated rates, each a training of both sides")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each rate")
    parser.add_argument("--learning_rate", type=float, default=0.0, help="0 = 7e-5 for xnli, 2e-4 for udpos")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_length", type=int, default=128, help="tokens")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the computation")
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--attention", default="xla", help="this package's attention backend")
    parser.add_argument("--compile", action="store_true", help="torch.compile the PyTorch side")
    parser.add_argument("--out", default="", help="JSON file to write")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.set_defaults(accumulation=1)  # which `sides` asks for
    return parser


def run(options: argparse.Namespace) -> dict:
    """Trains, evaluates and compares, and returns what `--out` writes.

    Raises InputError for what is not there, and where the two sides do not compute the same before the first step.
    """
    try:
        rates = [float(rate) for rate in options.dropouts.split(",")]
    except ValueError as error:
        raise InputError(f"--dropouts={options.dropouts}: rates, such as 0,0.1") from error
    if min(options.seeds, options.batch_size) < 1 or min(options.rows, options.evaluated) < 0 or options.epochs <= 0:
        raise InputError("--seeds and --batch_size are at least 1, --rows and --evaluated 0 or more, --epochs above 0")
    device, load = sides.ready(options), os.getloadavg()[0]
    from jxstilts.data import tokenizer
    from jxstilts.models import huggingface
    from jxstilts.models.layers import Compute

    compute = Compute(dtype=options.dtype, attention=options.attention)
    start = huggingface.load(options.model, compute=compute, heads=(), hash_files=False)
    if start.tokenizer_dir is None:
        raise InputError(f"--model={options.model} has no tokenizer beside its weights")
    examples = _examples(options)
    ready = _Ready(options, start, tokenizer.load(start.tokenizer_dir), examples)
    found = []
    for rate in rates:
        runs = [ready.train(rate, options.seed + number) for number in range(options.seeds)]
        found.append({"dropout": rate, **_summary(options, runs), "runs": [one["figures"] for one in runs]})
        print(_part(found[-1]), file=sys.stderr, flush=True)
    apart = [abs(one["mean"]["difference"]) for one in found if one["dropout"] == 0]
    worst = max(apart, default=0.0)
    kept = ("model", "task", "rows", "epochs", "evaluated", "freeze", "batch_size", "max_length", "dtype", "seeds")
    return {
        "found": found,
        **{key: getattr(options, key) for key in kept},
        "learning_rate": _rate(options),
        "device": device,
        "load_before": load,
        "versions": runtime.versions() | {"torch": importlib.import_module("torch").__version__},
        "failed": f"without dropout the means differ by {worst:.2f} points, allowed are {LIMIT}"
        if worst > LIMIT
        else "",
    }


def _rate(options: argparse.Namespace) -> float:
    return options.learning_rate or SETTINGS[options.task].rate


def _examples(options: argparse.Namespace) -> dict[str, list]:
    """Returns {language: rows}, the first of each."""
    setting, limit = SETTINGS[options.task], options.evaluated or None
    where = options.task, options.data_dir, setting.split
    codes = list(filter(None, options.languages.split(",")))
    codes = codes or [code for code in setting.languages if tasks.available(*where, code)]
    if not codes:
        raise InputError(f"--data_dir={options.data_dir} has no {setting.split} file of {options.task}")
    return {code: tasks.load(*where, code, limit=limit) for code in codes}


@dataclasses.dataclass(frozen=True)
class _Ready:
    """What every training starts from. start: the encoder, a `huggingface.Loaded`; examples: {language: rows}."""

    options: argparse.Namespace
    start: Any
    tokenizer: Any
    examples: dict[str, list]

    def train(self, dropout: float, seed: int) -> dict:
        """Trains and evaluates both sides. Returns {"kept": of each {language: Kept}, "values", "figures"}."""
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs, data = self._sides(dropout, seed, pathlib.Path(folder))
        model, (source,) = ours.model, data.source.sources.values()  # with tokens as the tokenizer numbers them
        alone = [apart(source[number], self.tokenizer.pad_token_id) for number in range(data.steps)]
        batches = [next(iter(data.source[number].values())) for number in range(data.steps)]
        limit = 1e-3 if self.options.dtype == "float32" and self.options.device == "cpu" else 0.1
        figures: dict[str, Any] = {"seed": seed, "steps": data.steps, "seconds": {}, "in_all": {}, "losses": {}}
        figures["logits_difference"] = sides.agreement(ours, theirs, alone[0], limit)
        figures["embeddings_trained"] = data.rows and len(data.rows.ids)
        ours = ours.training(data.rows) if data.rows else ours
        kept, values = {}, {}
        for name, side, own, predict in (
            ("torch", theirs, alone, self._theirs), ("jxstilts", ours, batches, partial(self._ours, model))
        ):  # fmt: skip
            began = time.perf_counter()
            figures["losses"][name] = side.train(own)
            figures["seconds"][name] = time.perf_counter() - began
            kept[name], values[name] = predict(side)
            figures["in_all"][name] = time.perf_counter() - began
        figures["compiling"] = ours.compiling
        figures["seconds"]["jxstilts"] -= ours.compiling
        figures["tokens"] = {
            name: sum(batch["tokens"].size for batch in own) for name, own in (("torch", alone), ("jxstilts", batches))
        }
        figures["real_tokens"] = int(sum((batch["segments"] > 0).sum() for batch in batches))
        return {"kept": kept, "values": values, "figures": figures}

    def _sides(self, dropout: float, seed: int, folder: pathlib.Path) -> tuple[sides.Ours, sides.Theirs, Any]:
        """Returns both sides at the start of a phase, and its data."""
        import jax

        from jxstilts.mesh import make_mesh
        from jxstilts.train import handover, inputs
        from jxstilts.train.mixture import Stream
        from jxstilts.train.optimizer import Optimizer
        from jxstilts.train.phase import Phase, Place

        options, mesh = self.options, make_mesh({}, jax.devices()[:1])
        recipe = Optimizer(learning_rate=_rate(options), warmup=0.1, weight_decay=0.01)
        train = SETTINGS[options.task].train
        stream = Stream(limit=options.rows, batch_size=options.batch_size, max_length=options.max_length)
        phase = Phase(tasks={train: stream}, dropout=dropout, epochs=options.epochs, optimizer=recipe, seed=seed,
                      freeze=("embeddings",) if options.freeze else ())  # fmt: skip
        phase = phase.resolve("benchmarks.finetune")
        model = inputs.heads(phase, self.start.model, (), options.data_dir)
        params, _ = handover.take_over(model, self.start.params, (), seed, mesh)
        place = Place(folder, options.data_dir, folder / "cache", mesh)
        data = inputs.make(phase, model, self.start.tokenizer_dir, place)
        training = sides.Training(phase.optimizer, data.steps, seed, options.freeze)
        return *sides.pair(options, model, params, training), data

    def _ours(self, model: Any, side: sides.Ours) -> tuple[dict, dict]:
        from jxstilts.eval.evaluator import Evaluator, Options

        spec, kept, values = tasks.get(self.options.task), {}, {}
        reading = Options(max_length=self.options.max_length)
        run = Evaluator(model, side.params, self.tokenizer, reading, side.mesh)
        for result in run.languages(spec, self.examples.items()):
            kept[result.language], values[result.language] = _kept(result.values), result.major
        return kept, values

    def _theirs(self, side: sides.Theirs) -> tuple[dict, dict]:
        from jxstilts.data import batching
        from jxstilts.eval import metrics
        from jxstilts.eval.evaluator import Options

        spec, kept, values = tasks.get(self.options.task), {}, {}
        model, labels = self.start.model, tasks.get(SETTINGS[self.options.task].train).labels  # the head's
        reading = Options(max_length=self.options.max_length).resolve(spec, model)
        for language, rows in self.examples.items():
            features = spec.form.tokenize(rows, self.tokenizer, model.template, reading, labels)
            collector = spec.form.collector(Given(spec, rows, features, labels, reading, (), None))
            lengths, more = features.lengths, {"max_segments": 1, "pad_id": self.tokenizer.pad_token_id}
            for begin in range(0, len(features), BATCH):
                ids = range(begin, min(begin + BATCH, len(features)))
                longest = int(lengths[begin : begin + BATCH].max())
                batch = batching.assemble(
                    features, [(i,) for i in ids], length=longest, num_rows=len(ids), fields=model.template.fields,
                    **more,
                )  # fmt: skip
                for i, scores in zip(ids, side.logits(batch), strict=True):
                    collector.add(i, scores.argmax(-1)[: lengths[i]] if spec.form.per_token else scores[0])
            metric = metrics.get(spec.metric, language)
            state = metric.update(collector.finish(), rows)
            kept[language], values[language] = _kept(state), metric.major(metric.compute(state))
        return kept, values


def apart(batch: dict[str, np.ndarray], pad_id: int) -> dict[str, np.ndarray]:
    """Returns a packed batch with one example a row, in the order of the rows, padded to the longest.

    batch: as `batching.assemble_plans` makes them. pad_id: the token of padding. Arrays [B, T] become [N, L], arrays
    [B, S] become [N, 1], for N examples of at most L tokens.
    """
    row, slot = np.nonzero(batch["index"] >= 0)
    first = batch["first"][row, slot][:, None]
    lengths = (batch["segments"][row] == slot[:, None] + 1).sum(1)[:, None]
    place = np.arange(lengths.max())[None]
    inside = place < lengths
    source = np.where(inside, first + place, 0)
    empty, found = EMPTY | {"tokens": pad_id}, {}
    for name, array in batch.items():
        if array.shape == batch["index"].shape:
            found[name] = array[row, slot][:, None]
        else:
            found[name] = np.where(inside, array[row[:, None], source], empty.get(name, 0))
    return found | {"segments": inside.astype(np.int32), "first": np.zeros_like(first)}


def _kept(state: dict) -> Any:
    """Returns the items of one language: sorted ids, and a metric's columns in their order."""
    from jxstilts.eval.items import Kept

    ids = sorted(next(iter(state.values())))
    return Kept(np.array(ids), {name: np.array([own[i] for i in ids], float) for name, own in state.items()})


def _summary(options: argparse.Namespace, runs: list[dict]) -> dict:
    """Returns {"languages": {code: row}, "mean": row, "times"}; a row: both values, the difference and its interval."""
    from jxstilts.eval import items, metrics
    from jxstilts.report import items as joined
    from jxstilts.report import resampling

    spec = tasks.get(options.task)
    systems = [[one["kept"][name] for one in runs] for name in ("jxstilts", "torch")]
    (ours, theirs), languages, clusters = joined.rows(systems, spec.parallel)
    given = {"clusters": clusters, "languages": languages, "score": items.score(spec.metric, _headline(spec, metrics))}
    if len(runs) > 1:
        found = resampling.hierarchical_interval(ours, theirs, levels=("seeds", "items"), same_seeds=True, **given)
    else:
        found = resampling.paired_bootstrap(ours, theirs, **given)
    codes = sorted(set(languages))
    each = dict(zip(codes, found.each or (found,), strict=True))
    values = {
        name: {code: float(np.mean([one["values"][name][code] for one in runs])) for code in codes}
        for name in ("jxstilts", "torch")
    }

    def row(estimate: Any, **own: float) -> dict:
        return {**own, "difference": estimate.value, "low": estimate.low, "high": estimate.high}

    rows = {code: row(each[code], **{name: values[name][code] for name in values}) for code in codes}
    mean = row(found, **{name: float(np.mean(list(values[name].values()))) for name in values})
    times = {
        key: {name: float(np.mean([one["figures"][key][name] for one in runs])) for name in values}
        for key in ("seconds", "in_all")
    }
    times["compiling"] = float(np.mean([one["figures"]["compiling"] for one in runs]))
    return {"languages": rows, "mean": mean, "times": times}


def _headline(spec: Any, metrics: Any) -> tuple[str, ...]:
    return metrics.get(spec.metric).headline


def _part(found: dict) -> str:
    """One rate's table."""
    times, steps = found["times"], found["runs"][0]["steps"]
    losses = [np.subtract(*(one["losses"][name] for name in ("jxstilts", "torch"))) for one in found["runs"]]
    lines = [
        f"dropout {found['dropout']:g}: {steps} steps; before the first the logits differ by up to "
        f"{max(one['logits_difference'] for one in found['runs']):.1e}, in training the losses by "
        f"{max(float(np.abs(own).max()) for own in losses):.1e}",
        f"{'':10}{'jxstilts':>10}{'PyTorch':>10}{'difference':>12}{'95 % interval':>20}",
    ]
    for name, row in (*found["languages"].items(), ("mean", found["mean"])):
        interval = f"{row['low']:+.2f} to {row['high']:+.2f}"
        lines.append(f"{name:10}{row['jxstilts']:10.2f}{row['torch']:10.2f}{row['difference']:+12.2f}{interval:>20}")
    for name, key in (("train, s", "seconds"), ("in all, s", "in_all")):
        own = times[key]
        ratio = f"ratio {own['torch'] / own['jxstilts']:.2f}"
        lines.append(f"{name:10}{own['jxstilts']:10.1f}{own['torch']:10.1f}{ratio:>14}")
    return "\n".join([*lines, f"compiling {times['compiling']:.1f} s"])


def table(result: dict) -> str:
    """The result as text: for each rate a row per language."""
    versions, frozen = result["versions"], ", embeddings frozen" if result["freeze"] else ""
    lines = [
        f"{pathlib.Path(result['model']).absolute()}; {SETTINGS[result['task']].train}, "
        f"{result['rows'] or 'all'} rows, {result['epochs']:g} epochs in batches of {result['batch_size']} at "
        f"{result['learning_rate']:g}{frozen}; {result['task']}, {result['evaluated'] or 'all'} rows a language",
        f"{result['dtype']}; {result['seeds']} seeds; {result['device']}; PyTorch {versions['torch']}, transformers "
        f"{versions['transformers']}; JAX {versions['jax']}",
    ]
    for found in result["found"]:
        lines += ["", _part(found)]
    if result["load_before"] > 0.25 * (os.cpu_count() or 1):
        lines += ["", f"Other processes were running (load {result['load_before']:.1f}): the times are noisy."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
