"""An encoder forward and a train step against Hugging Face + PyTorch, both in one process on one device.

    python -m benchmarks.step [--model=base] [--task=xnli] [--data_dir=D] [--out=F.json]

Both sides have the same weights, the same examples, the same recipe (AdamW, clipping, linear schedule, dropout). Two
comparisons, each for the encoder's forward and for the whole train step:
    same     both get the same batches in the same shapes: the speed of the computation alone
    as_run   PyTorch: examples in file order, each batch padded to its longest example; this package: the same examples
             in batches that its own `plan_epoch` makes of them
`ratio` is PyTorch's time divided by this package's for the train step, as_run. Needs torch (`pip install
jxstilts[parity]`). Host work (tokenising, assembling batches) is outside the clock on both sides, copying a batch to
the device inside; compilation and first calls are outside and reported apart.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jxstilts.runtime import EXIT_BAD_INPUT, InputError, atomic_write, suggest, versions

SORT_WINDOW = 50  # batches, the default of a training phase
CELLS = ("train_as_run", "train_same", "forward_as_run", "forward_same")
TITLES = {
    "train_as_run": "train step, as each would run it",
    "train_same": "train step, same batches and shapes",
    "forward_as_run": "encoder forward, as each would run it",
    "forward_same": "encoder forward, same batches and shapes",
}


@dataclasses.dataclass(frozen=True)
class Task:
    """Where a task's examples come from, and the lengths that stand in for them where there is no data_dir."""

    split: str
    max_length: int  # tokens
    log_mean: float  # of the real lengths under XLM-R's tokenizer; they are close to log-normal
    log_std: float


TASKS = {
    "xnli": Task("dev", 128, 3.68, 0.33),  # 2,490 pairs
    "tydiqa": Task("train", 384, 4.98, 0.53),  # 3,884 windows, stride 128
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its table and returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        result = run(options)
    except InputError as error:
        print(f"benchmarks.step: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    print(table(result))
    if options.out:
        atomic_write(options.out, json.dumps(result, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="base", help="preset of the xlmr family")
    parser.add_argument("--task", default="xnli", choices=TASKS)
    parser.add_argument("--data_dir", default="", help="real examples and tokenizer; without: random tokens")
    parser.add_argument("--out", default="", help="JSON file to write")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=4, help="batches of examples that are measured")
    parser.add_argument("--repetitions", type=int, default=3, help="times each side is measured, in turns; the median")
    parser.add_argument("--max_length", type=int, default=0, help="tokens; 0 = 128 for xnli, 384 for tydiqa")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the computation")
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--attention", default="xla", help="this package's backend")
    parser.add_argument("--compile", action="store_true", help="torch.compile the PyTorch model")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def run(options: argparse.Namespace) -> dict:
    """Measures and returns what `--out` writes. Raises InputError for a device or package that is not there."""
    device, cores = _devices(options)
    features, source = load(options)
    examples, spec_type = len(features), _type(options.task)
    ours, theirs = build(options, len(_labels(options.task)), _vocabulary(options, features), device)

    from jxstilts.data import batching

    together = {"type": spec_type, "max_segments": 1}
    lengths = features.lengths
    in_order = [
        batching.assemble(
            features, [(i,) for i in ids], length=int(lengths[ids].max()), num_rows=options.batch_size, **together
        )
        for ids in np.split(np.arange(examples), range(options.batch_size, examples, options.batch_size))
    ]
    plans = batching.plan_epoch(
        lengths, batch_size=options.batch_size, buckets=batching.length_buckets(_max_length(options)),
        seed=options.seed, epoch=0, sort_window=SORT_WINDOW,
    )  # fmt: skip
    bucketed = list(batching.batches(features, plans, **together))
    check = agreement(ours, theirs, in_order[0], 1e-3 if (options.dtype, options.device) == ("float32", "cpu") else 0.1)

    # The order of the first passes matters: both sides take the same first steps from the same weights.
    first: dict[str, float] = {}
    losses = {}
    parts: dict[str, Callable[[], Any]] = {
        "train/torch": lambda: theirs.train(in_order),
        "train/same": lambda: ours.train(in_order),
        "train/as_run": lambda: ours.train(bucketed),
        "forward/torch": lambda: theirs.forward(in_order),
        "forward/same": lambda: ours.forward(in_order),
        "forward/as_run": lambda: ours.forward(bucketed),
    }
    for name, part in parts.items():
        began = time.perf_counter()
        losses[name] = part()
        first[name] = time.perf_counter() - began
    measured: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(options.repetitions):
        for name, part in parts.items():
            began = time.perf_counter()
            part()
            measured[name].append(time.perf_counter() - began)
    median = {name: statistics.median(values) for name, values in measured.items()}

    padded = {"torch": in_order, "same": in_order, "as_run": bucketed}
    real = int(lengths.sum())
    peak = peak_flops(theirs)
    flops = ours.training_flops(lengths)
    rates = {
        name: {
            "seconds": seconds,
            "examples_per_second": examples / seconds,
            "real_tokens_per_second": real / seconds,
            "mfu": flops / (1 if name.startswith("train") else 3) / seconds / peak if peak else None,
            "first_pass_seconds": first[name],
            "all_seconds": measured[name],
        }
        for name, seconds in median.items()
    }
    kinds = {cell: cell.split("_", 1) for cell in CELLS}
    ratios = {cell: median[f"{kind}/torch"] / median[f"{kind}/{how}"] for cell, (kind, how) in kinds.items()}
    return {
        "ratio": ratios["train_as_run"],
        "ratios": ratios,
        "model": options.model,
        "task": options.task,
        "source": source,
        "dtype": options.dtype,
        "dropout": options.dropout,
        "attention": {"torch": "sdpa", "jax": options.attention},
        "torch_compile": options.compile,
        "batch_size": options.batch_size,
        "batches": options.batches,
        "repetitions": options.repetitions,
        "parameters": ours.parameters,
        "examples": {"torch": examples, "jax": int(sum((batch["weights"] > 0).sum() for batch in bucketed))},
        "real_tokens": {
            "torch": int(sum((batch["segments"] > 0).sum() for batch in in_order)),
            "jax": int(sum((batch["segments"] > 0).sum() for batch in bucketed)),
        },
        "padded_tokens": {name: int(sum(b["tokens"].size for b in batches)) for name, batches in padded.items()},
        "shapes": {name: sorted({b["tokens"].shape[1] for b in batches}) for name, batches in padded.items()},
        "measured": rates,
        "peak_flops": peak,
        "logits_difference": check,
        "first_losses": {"torch": losses["train/torch"], "jax": losses["train/same"]},
        "device": f"{theirs.device_name}, {cores} cores",
        "versions": versions() | {"torch": theirs.version},
    }


def _devices(options: argparse.Namespace) -> tuple[Any, int]:
    """Returns (the JAX device, cores of this process). Raises InputError if JAX or torch lacks the device."""
    if importlib.util.find_spec("torch") is None:
        raise InputError("PyTorch is not installed, there is nothing to compare with: pip install 'jxstilts[parity]'")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave torch its share of the GPU's memory
    import jax
    import torch

    jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[options.device])
    try:
        device = jax.devices()[0]
    except RuntimeError as error:
        raise InputError(f"--device={options.device}: JAX cannot use it here: {str(error).splitlines()[0]}") from error
    if device.platform != options.device:
        raise InputError(f"--device={options.device}: JAX already runs on {device.platform} in this process")
    if options.device == "gpu" and not torch.cuda.is_available():
        raise InputError(f"--device=gpu: this torch ({torch.__version__}) sees no CUDA device")
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    torch.set_float32_matmul_precision("high" if options.device == "gpu" else "highest")  # TF32 on GPU, as JAX does
    torch.manual_seed(options.seed)
    return device, cores


def _type(task: str) -> str:
    from jxstilts import tasks

    return tasks.get(task).type


def _labels(task: str) -> tuple[str, ...]:
    from jxstilts import tasks

    return tasks.get(task).labels


def _max_length(options: argparse.Namespace) -> int:
    return options.max_length or TASKS[options.task].max_length


def _vocabulary(options: argparse.Namespace, features: Any) -> int:
    """The preset's own vocabulary, or XLM-R's where a small preset reads real data."""
    from jxstilts.models.xlmr import PRESETS

    if options.model not in PRESETS:
        raise InputError(f"--model: {suggest('preset', options.model, PRESETS)}")
    own = PRESETS[options.model]["vocab_size"]
    return own if features.tokens.max() < own else PRESETS["base"]["vocab_size"]


def load(options: argparse.Namespace) -> tuple[Any, str]:
    """Returns (the features of `batches * batch_size` examples, where they come from)."""
    from jxstilts import tasks
    from jxstilts.data import tokenize, tokenizer
    from jxstilts.data.ragged import offsets_of
    from jxstilts.models.xlmr import PRESETS

    task, count = TASKS[options.task], options.batches * options.batch_size
    if min(options.batches, options.batch_size, options.repetitions) < 1:
        raise InputError("--batches, --batch_size and --repetitions are at least 1")
    if options.data_dir:
        rows = tasks.load(options.task, options.data_dir, task.split, "en", limit=count)
        tokenizer_ = tokenizer.load(pathlib.Path(options.data_dir) / "tokenizer")
        features = tokenize.tokenize(rows, _type(options.task), tokenizer_, max_length=_max_length(options))
        if len(features) < count:
            raise InputError(f"{options.task} has {len(features)} examples here, {count} are asked for: fewer --batches")
        return _head_of(features, count), f"{options.task} English {task.split}, the first {count} inputs"
    generator = np.random.default_rng(options.seed)
    lengths = np.exp(generator.normal(task.log_mean, task.log_std, count)).round().astype(np.int64)
    lengths = lengths.clip(16, _max_length(options))
    low, high = 10, PRESETS.get(options.model, PRESETS["tiny"])["vocab_size"]
    tokens = generator.integers(low, high, lengths.sum()).astype(np.int32)
    if _type(options.task) == "span":
        start = generator.integers(0, lengths - 1)
        fields = {"start": start, "end": generator.integers(start, lengths)}
    else:
        fields = {"label": generator.integers(0, len(_labels(options.task)), count)}
    source = (
        f"random tokens, no --data_dir; lengths exp(normal({task.log_mean}, {task.log_std})), "
        f"the distribution of {options.task} English {task.split}, seed {options.seed}"
    )
    fields = {name: values.astype(np.int32) for name, values in fields.items()}
    return tokenize.Features(tokens, offsets_of(lengths), fields, {}), source


def _head_of(features: Any, count: int) -> Any:
    """The first `count` features; token fields are not needed here."""
    fields = {name: values[:count] for name, values in features.fields.items()}
    offsets = features.offsets[: count + 1]
    return dataclasses.replace(
        features, tokens=features.tokens[: offsets[-1]], offsets=offsets, fields=fields, token_fields={}
    )


def build(options: argparse.Namespace, classes: int, vocabulary: int, device: Any) -> tuple["Ours", "Theirs"]:
    """Returns both sides with the same random weights, taken to PyTorch through a Hugging Face folder."""
    import jax

    from jxstilts.models import huggingface
    from jxstilts.models.layers import Compute
    from jxstilts.models.model import HeadSpec, Model, make_config
    from jxstilts.train.optimizer import Optimizer

    config = make_config(
        "xlmr", options.model, vocab_size=vocabulary, max_positions=512,
        hidden_dropout=options.dropout, attention_dropout=options.dropout,
    )  # fmt: skip
    kind = _type(options.task)
    spec = HeadSpec(options.task, kind, tuple(map(str, range(classes))))
    model = Model(config, (spec,), Compute(dtype=options.dtype, attention=options.attention))
    params = jax.jit(model.init)(jax.random.key(options.seed))
    steps = 2 * options.batches * (options.repetitions + 1)  # of this package's two ways together
    with tempfile.TemporaryDirectory() as folder:
        huggingface.export(huggingface.Loaded(model, params), pathlib.Path(folder) / "model")
        theirs = Theirs(pathlib.Path(folder) / "model", kind, Optimizer(), steps, options)
    return Ours(model, options.task, params, Optimizer(), steps, options.seed, device), theirs


class Ours:
    """This package's model and train step, as a training phase builds them, on a mesh of one device."""

    def __init__(self, model, head, params, recipe, steps, seed, device):
        import jax

        from jxstilts.mesh import make_mesh
        from jxstilts.train import objectives, optimizer, step

        self.model, self.head, self.mesh = model, head, make_mesh({}, [device])
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        optim = optimizer.make(recipe, steps)
        shardings, _ = step.state_shardings(model, optim, self.mesh)
        self.state = jax.jit(lambda p: step.new_state(p, optim, seed), out_shardings=shardings)(params)
        context = objectives.Context(model.config.vocab_size, model.config.vocab_size - 1, ())
        self._step = step.make_train_step(model, head, "task", optim, self.mesh, context=context)
        self._encode = jax.jit(model.encode)
        self._predict = jax.jit(lambda params, batch: model.predict(params, head, batch)["logits"])

    def train(self, batches: list[dict]) -> list[float]:
        import jax

        from jxstilts.mesh import put_batch

        losses = []
        for batch in batches:
            self.state, metrics = self._step(self.state, put_batch(batch, self.mesh))
            losses.append(metrics["loss"])
        jax.block_until_ready(self.state)
        return [float(loss) for loss in losses]

    def forward(self, batches: list[dict]) -> None:
        from jxstilts.mesh import put_batch

        for batch in batches:
            self._encode(self.state["params"], put_batch(batch, self.mesh)).block_until_ready()

    def logits(self, batch: dict) -> np.ndarray:
        from jxstilts.mesh import put_batch

        return np.asarray(self._predict(self.state["params"], put_batch(batch, self.mesh)))

    def training_flops(self, lengths: np.ndarray) -> float:
        """Floating-point operations of a training pass over examples of these lengths, without padding."""
        from jxstilts.models.model import family_module

        of_length = family_module(self.model.family).training_flops
        return float(sum(int(n) * of_length(self.model.config, int(n)) for n in lengths))


class Theirs:
    """Hugging Face's model and a PyTorch train step, as common practice has it: sdpa, fused AdamW, no padding to a cap."""

    def __init__(self, folder, kind, recipe, steps, options):
        import torch
        import transformers

        auto = {
            "classification": transformers.AutoModelForSequenceClassification,
            "span": transformers.AutoModelForQuestionAnswering,
        }[kind]
        self.kind, self.version, self.clip = kind, torch.__version__, recipe.clip
        self.device = torch.device("cuda" if options.device == "gpu" else "cpu")
        gpu = torch.cuda.get_device_name() if options.device == "gpu" else ""
        self.device_name = gpu or f"CPU {platform.machine()}"
        self.bfloat16 = options.dtype == "bfloat16"
        self.model = auto.from_pretrained(folder, attn_implementation="sdpa").to(self.device)
        spared = [p for name, p in self.model.named_parameters() if _no_decay(name)]
        decayed = [p for name, p in self.model.named_parameters() if not _no_decay(name)]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": spared, "weight_decay": 0.0}],
            lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps, fused=True,
        )  # fmt: skip
        self.schedule = transformers.get_linear_schedule_with_warmup(
            self.optimizer, int(recipe.warmup * steps), steps
        )
        self.compiled = torch.compile(self.model) if options.compile else self.model
        self.encoder = torch.compile(self.model.roberta) if options.compile else self.model.roberta

    def _inputs(self, batch: dict) -> dict:
        import torch

        tokens, real = torch.from_numpy(batch["tokens"]).long(), torch.from_numpy(batch["segments"] > 0).long()
        return {"input_ids": tokens.to(self.device), "attention_mask": real.to(self.device)}

    def _target(self, batch: dict, name: str):
        import torch

        return torch.from_numpy(batch[name][:, 0]).long().to(self.device)

    def _scores(self, model, inputs: dict) -> list:
        """Logits: [B, C], or the start's and the end's [B, T] without padding, so that the losses are the same."""
        import torch

        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            found = model(**inputs)
        if self.kind == "classification":
            return [found.logits.float()]
        padding, lowest = inputs["attention_mask"] == 0, torch.finfo(torch.float32).min
        return [x.float().masked_fill(padding, lowest) for x in (found.start_logits, found.end_logits)]

    def train(self, batches: list[dict]) -> list[float]:
        import torch

        self.model.train()
        names = ["labels"] if self.kind == "classification" else ["start", "end"]
        losses = []
        for batch in batches:
            scores = self._scores(self.compiled, self._inputs(batch))
            pairs = zip(scores, names, strict=True)
            each = [torch.nn.functional.cross_entropy(x, self._target(batch, name)) for x, name in pairs]
            loss = sum(each) / len(each)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            losses.append(loss.detach())
        self._wait()
        return [float(loss) for loss in losses]

    def forward(self, batches: list[dict]) -> None:
        import torch

        self.model.eval()
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            for batch in batches:
                self.encoder(**self._inputs(batch))
        self._wait()

    def logits(self, batch: dict) -> np.ndarray:
        """[B, 1, C], or [B, T, 2] (start, end)."""
        import torch

        self.model.eval()
        with torch.inference_mode():
            scores = self._scores(self.model, self._inputs(batch))
        found = scores[0][:, None] if self.kind == "classification" else torch.stack(scores, -1)
        return found.cpu().numpy()

    def matmul_flops(self, size: int = 1536) -> float:
        """FLOP/s of a float32 matrix product on the host."""
        import torch

        matrix, times = torch.ones(size, size), []
        for _ in range(4):
            began = time.perf_counter()
            torch.mm(matrix, matrix)
            times.append(time.perf_counter() - began)
        return 2 * size**3 / min(times)

    def _wait(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _no_decay(name: str) -> bool:
    return name.endswith("bias") or "LayerNorm" in name


def agreement(ours: Ours, theirs: Theirs, batch: dict, limit: float) -> float:
    """Returns the largest difference of the two sides' logits on a batch, without dropout.

    Raises InputError when it is above `limit`: then the two do not compute the same, and their times mean nothing.
    """
    real = batch["segments"] > 0 if theirs.kind == "span" else batch["weights"] > 0
    difference = float(np.abs(ours.logits(batch) - theirs.logits(batch))[real].max())
    if not difference <= limit:
        raise InputError(f"the logits of the two sides differ by {difference:.2e} (allowed: {limit}): nothing to compare")
    return difference


def peak_flops(theirs: Theirs) -> float | None:
    """FLOP/s of one device: the data sheet's, on CPU the better of the two libraries' matrix products."""
    import jax

    from jxstilts import tracking

    peak = tracking.peak_flops()
    if peak is None or jax.default_backend() != "cpu":
        return peak and peak / jax.device_count()
    return max(peak, theirs.matmul_flops())


def table(result: dict) -> str:
    """The result as text: a row for each comparison and side."""
    padded, measured = result["padded_tokens"], result["measured"]
    real = result["real_tokens"]["jax"]
    lines = [
        f"XLM-R {result['model']} ({result['parameters'] / 1e6:.0f} M parameters), {result['task']}: {result['source']}",
        f"{result['examples']['jax']} inputs, {real:,} real tokens, batches of {result['batch_size']}, "
        f"{result['dtype']}, dropout {result['dropout']}, {result['device']}",
        f"PyTorch {result['versions']['torch']} with transformers {result['versions']['transformers']} (sdpa, fused "
        f"AdamW{', torch.compile' if result['torch_compile'] else ''}), JAX {result['versions']['jax']}; "
        f"median of {result['repetitions']}",
        "",
        f"{'':42}{'seconds':>9}{'inputs/s':>10}{'real tok/s':>12}{'padded':>9}{'MFU':>7}{'ratio':>8}",
    ]
    for cell in CELLS:
        kind, how = cell.split("_", 1)
        lines.append(TITLES[cell])
        for name, place in (("PyTorch", "torch"), ("jxstilts", how)):
            row = measured[f"{kind}/{place}"]
            mfu = "" if row["mfu"] is None else f"{row['mfu']:.1%}"
            ratio = "" if place == "torch" else f"{result['ratios'][cell]:.2f}"
            lines.append(
                f"  {name:40}{row['seconds']:9.3f}{row['examples_per_second']:10.1f}"
                f"{row['real_tokens_per_second']:12,.0f}{padded[place]:9,}{mfu:>7}{ratio:>8}"
            )
    lines += ["", f"ratio {result['ratio']:.2f}: PyTorch's time / jxstilts' time, {TITLES['train_as_run']}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
