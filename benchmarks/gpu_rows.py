"""The rows of `benchmarks.gpu`: each measures a part after the other, and notes each as soon as it is measured."""

import argparse
import dataclasses
import gc
import statistics
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import finetune, sides, step
from benchmarks import retrieval as synthetic

AGREES = 0.02  # of the largest value: bfloat16 has 8 bits
Note = Callable[[str, Callable[[], dict]], dict | None]  # `_Report.part` of one row


@dataclasses.dataclass(frozen=True)
class Context:
    """What every row reads. peak: FLOP/s of the device, None where they are not known."""

    options: argparse.Namespace
    peak: float | None

    def step(self, model: str, task: str) -> argparse.Namespace:
        """Returns the options of `benchmarks.step` for a model and a task, in the size that is asked for."""
        own = self.options
        size = own.batch_size if task == "xnli" else max(own.batch_size // 4, 1)
        given = [f"--model={model}", f"--batch_size={size}", "--batches=8", "--buckets=2"]
        if own.tiny:
            length = 24 if task == "xnli" else 96
            given = ["--model=tiny", "--batch_size=4", "--batches=2", "--buckets=1", f"--max_length={length}"]
        given += [f"--task={task}", f"--data_dir={own.data_dir}", f"--device={own.device}", f"--seed={own.seed}"]
        return step.arguments().parse_args([*given, "--dtype=bfloat16", f"--repetitions={own.repetitions}"])


def free() -> None:
    """Gives back what a row held."""
    import torch

    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()  # what it compiled
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class _Memory:
    """Peaks of a part, in bytes; those of the CPU are not known."""

    def __init__(self):
        import torch

        self._cuda = torch.cuda.is_available()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        self._before = self._jax()

    @staticmethod
    def _jax() -> int:
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)

    def torch(self) -> dict:
        import torch

        return {"torch_peak": torch.cuda.max_memory_allocated()} if self._cuda else {}

    def jax(self) -> dict:
        """JAX's peak, where this part has raised it: it cannot be reset."""
        return {"jax_peak": self._jax()} if self._jax() > self._before else {}


def _turns(part: Callable[[], Any], repetitions: int) -> dict:
    """Returns the seconds of the first time, which compiles, and the median of more."""
    seconds = []
    for _ in range(repetitions + 1):
        began = time.perf_counter()
        part()
        seconds.append(time.perf_counter() - began)
    return {"seconds": statistics.median(seconds[1:]), "first_seconds": seconds[0], "turns": seconds[1:]}


@dataclasses.dataclass(frozen=True)
class _Work:
    """What a pass over the batches computes: examples, real tokens, FLOPs without padding. peak: of the device."""

    examples: int
    real_tokens: int
    flops: float
    peak: float | None
    repetitions: int

    def rates(self, part: Callable[[], Any]) -> dict:
        """Times a pass."""
        found = _turns(part, self.repetitions)
        seconds = found["seconds"]
        found |= {"examples_per_second": self.examples / seconds, "real_tokens_per_second": self.real_tokens / seconds}
        return found | ({"mfu": self.flops / seconds / self.peak} if self.peak else {})

    def ours(self, side: sides.Ours, batches: list[dict]) -> dict:
        memory = _Memory()
        return self.rates(lambda: side.train(batches)) | {"planned": side.planned} | memory.jax()

    def theirs(self, side: sides.Theirs, batches: list[dict], **compiled: Any) -> dict:
        memory = _Memory()
        if compiled:
            side.compile(**compiled)
        return self.rates(lambda: side.train(batches)) | memory.torch()


def train(context: Context, note: Note, *, model: str, task: str) -> None:
    """The train step, packed here, in file order and padded to each batch's longest in PyTorch."""
    own = context.step(model, task)
    features, words = step.inputs(own)
    config, steps = step.config_of(own, features), 4 * own.batches * (own.repetitions + 1)
    ours, theirs = sides.build(own, config, step.head_of(task), steps)
    in_order, packed = step.both_ways(own, features, ours.model)
    size = {"examples": len(features), "real_tokens": len(features.tokens)}
    work = _Work(*size.values(), ours.training_flops(features.lengths), context.peak, own.repetitions)
    about = {"inputs": words, "model": own.model, "parameters": ours.parameters, "batch_size": own.batch_size, **size}
    shapes = {"shapes": in_order, "packed_shapes": packed}
    about |= {name: [list(batch["tokens"].shape) for batch in batches] for name, batches in shapes.items()}
    if not note("what", partial(_agreeing, ours, theirs, in_order[0], about)):
        return  # they do not compute the same
    rows = step.rows_of(own, features, config.vocab_size)

    def occurring() -> dict:
        if rows is None:
            raise ValueError("nearly all token embeddings occur")
        batches = [step.by_place(batch, rows) for batch in packed]
        return {"embeddings_trained": len(rows.ids)} | work.ours(ours.training(rows), batches)

    found = {"jxstilts": note("jxstilts", occurring), "torch": note("torch", partial(work.theirs, theirs, in_order))}
    gc.collect()
    found["whole"] = note("jxstilts, all token embeddings trained", partial(work.ours, ours, packed))
    ours = None
    gc.collect()
    several = len({batch["tokens"].shape for batch in in_order}) > 1
    backend = {"backend": "eager"} if context.options.tiny else {}  # a rehearsal has no time for its compiler
    compiled = partial(work.theirs, theirs, in_order, dynamic=several, **backend)
    found["compiled"] = note("torch, compiled", compiled)
    seconds = {name: one["seconds"] for name, one in found.items() if one}
    peers = [seconds[name] for name in ("torch", "compiled") if name in seconds]
    if peers:
        own_ones = [name for name in ("jxstilts", "whole") if name in seconds]
        note("ratio", lambda: {name: min(peers) / seconds[name] for name in own_ones})


def _agreeing(ours: sides.Ours, theirs: sides.Theirs, batch: dict, about: dict) -> dict:
    return {**about, "logits_difference": sides.agreement(ours, theirs, batch, 0.1)}


def attention(context: Context, note: Note) -> None:
    """Attention in bfloat16 with the segments of a packed batch: error against float32, and time, of each backend."""
    for task in ("xnli", "tydiqa"):
        own = context.step("large", task)
        features, _ = step.inputs(own)
        config = step.config_of(own, features)
        _attention(own, note, task, (config.heads, config.width // config.heads), _segments(own, features, config))


def _segments(own: argparse.Namespace, features: Any, config: Any) -> np.ndarray:
    from jxstilts.models.model import Model

    _, packed = step.both_ways(own, features, Model(config, (step.head_of(own.task),)))
    return packed[0]["segments"]


def _attention(own: argparse.Namespace, note: Note, task: str, heads: tuple[int, int], segments: np.ndarray) -> None:
    import jax
    import jax.numpy as jnp

    from jxstilts.models.attention import attend

    keys = jax.random.split(jax.random.key(own.seed), 4)
    arrays = [jax.random.normal(key, (*segments.shape, *heads)).astype(jnp.bfloat16) for key in keys]
    places = jnp.asarray(segments)

    def run(backend: str, query, key, value, into):
        out, back = jax.vjp(lambda *given: attend(*given, places, backend=backend), query, key, value)
        return out, *back(into)

    with jax.default_matmul_precision("highest"):
        exact = jax.jit(partial(run, "plain"))(*(array.astype(jnp.float32) for array in arrays))
    exact = [np.asarray(array) for array in exact]

    def errors(found: list) -> dict:
        apart = [
            float(np.abs(np.asarray(one, np.float32) - other).max() / np.abs(other).max())
            for one, other in zip(found, exact, strict=True)
        ]
        return dict(zip(("out", "query", "key", "value"), apart, strict=True)) | {"agrees": max(apart) < AGREES}

    def ours(backend: str) -> dict:
        step = jax.jit(partial(run, backend))
        found = [np.asarray(array.astype(jnp.float32)) for array in step(*arrays)]
        times = _turns(lambda: jax.block_until_ready([step(*arrays) for _ in range(10)]), own.repetitions)
        return errors(found) | {"seconds": times["seconds"] / 10, "shape": list(arrays[0].shape)}

    for backend in ("xla", "cudnn") if own.device == "gpu" else ("xla", "plain", "cudnn"):
        note(f"{task}, {backend}", partial(ours, backend))
    host = [np.asarray(array.astype(jnp.float32)) for array in arrays]
    note(f"{task}, torch sdpa", partial(_sdpa, own, host, segments, errors))


def _sdpa(own: argparse.Namespace, arrays: list, segments: np.ndarray, errors: Callable) -> dict:
    """PyTorch's, with the same mask."""
    import torch

    device = torch.device("cuda" if own.device == "gpu" else "cpu")
    ids = torch.from_numpy(segments).to(device)
    mask = (ids[:, None, :, None] == ids[:, None, None, :]).contiguous()
    moved = [torch.tensor(array).to(device, torch.bfloat16).transpose(1, 2).contiguous() for array in arrays]
    given, into = [array.requires_grad_() for array in moved[:3]], moved[3]

    def once() -> list:
        out = torch.nn.functional.scaled_dot_product_attention(*given, attn_mask=mask)
        return [out, *torch.autograd.grad(out, given, into)]

    def several() -> None:
        for _ in range(10):
            once()
        if device.type == "cuda":
            torch.cuda.synchronize()

    found = [array.detach().transpose(1, 2).float().cpu().numpy() for array in once()]
    return errors(found) | {"seconds": _turns(several, own.repetitions)["seconds"] / 10}


def retrieval(context: Context, note: Note) -> None:
    """Exact nearest neighbours in both directions, copies included: one pass here, a search each way in PyTorch."""
    import torch

    from jxstilts.eval import retrieval as own

    options = context.options
    n, dim, k = (300, 32, 4) if options.tiny else (100_000, 1024, 4)
    a, b = map(own.normalise, synthetic.vectors(n, dim, options.seed))
    found: dict[str, Any] = {}

    def measure(name: str, search: Callable[[], tuple]) -> dict:
        def part() -> None:
            found[name] = search()

        times = _turns(part, options.repetitions)
        first = found.get("torch float32", found[name])
        same = [float(np.mean(mine[1] == theirs[1])) for mine, theirs in zip(found[name], first, strict=True)]
        return times | {"same_neighbours": same, "shape": [n, dim, k]}

    torch.set_float32_matmul_precision("highest")
    for dtype in ("float32", "bfloat16"):
        both = lambda dtype=dtype: (_topk(a, b, k, dtype, options), _topk(b, a, k, dtype, options))  # noqa: E731
        peer = note(f"torch {dtype}", partial(measure, f"torch {dtype}", both))
        ours = partial(own.nearest_both_ways, a, b, k, dtype=dtype)
        mine = note(f"jxstilts {dtype}", partial(measure, f"jxstilts {dtype}", ours))
        if peer and mine:
            note(f"ratio {dtype}", partial(dict, ratio=peer["seconds"] / mine["seconds"]))
    torch.set_float32_matmul_precision("high" if options.device == "gpu" else "highest")


def _topk(queries: np.ndarray, index: np.ndarray, k: int, dtype: str, options: argparse.Namespace) -> tuple:
    import torch

    device = torch.device("cuda" if options.device == "gpu" else "cpu")
    kind = getattr(torch, dtype)
    queries, index = (torch.from_numpy(array).to(device).to(kind) for array in (queries, index))
    found = [torch.topk(part @ index.T, k) for part in queries.split(4096)]
    return tuple(torch.cat(parts).float().cpu().numpy() for parts in zip(*found, strict=True))


def evaluation(context: Context, note: Note) -> None:
    """Predictions on the host: packed as evaluation packs them here; sorted by length, batches of 128, in PyTorch."""
    from jxstilts import tasks
    from jxstilts.data import batching
    from jxstilts.eval import predict
    from jxstilts.eval.evaluator import Evaluator, Options

    own = context.step("large", "xnli")
    features, words = step.inputs(own)
    ours, theirs = sides.build(own, step.config_of(own, features), step.head_of("xnli"), 1)
    form, lengths = tasks.get("xnli").form, features.lengths
    reading = Options(max_length=own.max_length or 128).resolve(tasks.get("xnli"), ours.model)
    tokenizer = types.SimpleNamespace(pad_token_id=1)
    run = Evaluator(ours.model, ours.state["params"], tokenizer, reading, ours.mesh)
    order, size = np.argsort(-lengths, kind="stable"), 128
    plans = [
        batching.Plan.of([(i,) for i in part], int(lengths[part].max()), len(part))
        for part in np.split(order, range(size, len(order), size))
    ]
    template = ours.model.template
    batches = list(batching.batches(features, plans, fields=template.fields, max_segments=1, pad_id=1))
    found: dict[str, np.ndarray] = {}

    def mine() -> None:
        found["jxstilts"] = np.zeros((len(features), 3), np.float32)
        for index, logits in predict.each(run, "xnli", features, form):
            found["jxstilts"][index] = logits

    def others() -> None:
        found["torch"] = np.zeros((len(features), 3), np.float32)
        found["torch"][order] = np.concatenate([theirs.logits(batch)[:, 0] for batch in batches])

    def rates(part: Callable[[], None]) -> dict:
        times = _turns(part, own.repetitions)
        flops = ours.training_flops(lengths) / 3
        mfu = {"mfu": flops / times["seconds"] / context.peak} if context.peak else {}
        return times | {"inputs_per_second": len(features) / times["seconds"]} | mfu

    note("what", lambda: {"inputs": words, "examples": len(features), "real_tokens": len(features.tokens)})
    times = [note("jxstilts", partial(rates, mine)), note("torch", partial(rates, others))]
    if all(times):
        apart = float(np.abs(found["jxstilts"] - found["torch"]).max())
        ratio = times[1]["seconds"] / times[0]["seconds"]
        note("ratio", partial(dict, ratio=ratio, logits_difference=apart))


def fine_tuning(context: Context, note: Note) -> None:
    """The real encoder on MNLI, to XNLI's values by language."""
    options = context.options
    given = [f"--model={options.encoder}", f"--data_dir={options.data_dir}", "--task=xnli", "--dropouts=0"]
    given += [f"--device={options.device}", f"--seed={options.seed}", "--dtype=bfloat16"]
    given += ["--rows=16", "--evaluated=8", "--batch_size=8"] if options.tiny else ["--rows=0", "--evaluated=400"]

    def measure() -> dict:
        result = finetune.run(finetune.arguments().parse_args(given))
        (found,) = result["found"]
        times = found["times"]
        return {
            "ratio": times["seconds"]["torch"] / times["seconds"]["jxstilts"], **found["mean"], "times": times,
            "languages": found["languages"], "steps": found["runs"][0]["steps"], "apart": result["failed"],
        }  # fmt: skip

    note("MNLI to XNLI", measure)


ROWS: dict[str, Callable[[Context, Note], None]] = {
    "train large": partial(train, model="large", task="xnli"),
    "attention": attention,
    "train base": partial(train, model="base", task="xnli"),
    "retrieval": retrieval,
    "evaluation": evaluation,
    "fine-tuning": fine_tuning,
    "train questions": partial(train, model="large", task="tydiqa"),
}
