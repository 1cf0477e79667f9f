"""A training step with a language discriminator against a plain one of the same tokens, on one device.

    python -m benchmarks.adversarial [--model=small] [--batch_size=16] [--length=64] [--out=F.json]

Two streams of as many tokens each. Plain: both train a classifier. Adversarial: one trains it, the other one feeds a
discriminator of both (`train/objectives/adversarial.py`). Random tokens; sides take turns, and the median counts. On a
CPU the seconds are those of all threads of the process, which other programs do not lengthen. There is no peer: the
ratio is that of the two sides.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from benchmarks import command
from jxstilts import hlo, runtime
from jxstilts.mesh import make_mesh, put_batch
from jxstilts.models.families.xlmr import PRESETS
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError, suggest
from jxstilts.tasks.languages import LANGUAGES
from jxstilts.tracking import hardware
from jxstilts.train import objectives, optimizer, step, terms

VOCABULARY = 14_848  # token embeddings that MNLI's first 9,000 rows train
STREAMS = ("nli", "text")
ADAMW = optimizer.Optimizer(learning_rate=1e-5, warmup=0.1, weight_decay=0.01)
FORMS = {  # name: words, options
    "reversal": ("reversal", {}),
    "layer": ("reversal, a middle state", {"layer": 1}),
    "critic": ("critic, 5 updates, clipped", {"form": "wasserstein", "updates": 5, "clip": 0.01}),
    "penalty": ("critic, 5 updates, penalty", {"form": "wasserstein", "updates": 5, "penalty": 10.0}),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its table and returns the exit code."""
    return command.main(_parser(), run, table, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.adversarial", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--model", default="small", help="preset of the xlmr family")
    parser.add_argument("--batch_size", type=int, default=16, help="rows of each stream")
    parser.add_argument("--length", type=int, default=64, help="tokens of a row")
    parser.add_argument("--turns", type=int, default=3, help="of each side")
    parser.add_argument("--forms", default="reversal,layer,critic,penalty", help=f"some of {', '.join(FORMS)}")
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--out", default="", help="JSON file to write")
    return parser


def run(options: argparse.Namespace) -> dict:
    """Measures, and returns what `--out` writes. Raises InputError for a device or a preset that is not there."""
    if options.model not in PRESETS:
        raise InputError(f"--model: {suggest('preset', options.model, PRESETS)}")
    if unknown := [name for name in options.forms.split(",") if name not in FORMS]:
        raise InputError(f"--forms: {suggest('form', unknown[0], FORMS)}")
    if min(options.batch_size, options.length, options.turns) < 1:
        raise InputError("--batch_size, --length and --turns are at least 1")
    mesh = make_mesh({}, [command.device(options.device)])
    task = {name: step.Loss("nli") for name in STREAMS}
    beside = {"nli": step.Loss("nli"), "text": step.Loss("", "none")}
    sides = {"plain": _Side(options, task, mesh)}
    for name in options.forms.split(","):
        words, form = FORMS[name]
        domain = step.Loss("", "adversarial", 1.0, STREAMS, {"start": 0.0, **form}, ADAMW)
        sides[words] = _Side(options, {**beside, "domain": domain}, mesh)
    turns: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(options.turns + 1):
        for name, side in sides.items():
            seconds = side.step(time.process_time if options.device == "cpu" else time.perf_counter)
            if turn:  # the first warms up
                turns[name].append(seconds)
    seconds = {name: statistics.median(values) for name, values in turns.items()}
    return {
        "model": options.model, "batch_size": options.batch_size, "length": options.length, "device": hardware(mesh),
        "seconds": seconds, "turns_seconds": turns, "flops": {name: side.flops for name, side in sides.items()},
        "ratios": {name: value / seconds["plain"] for name, value in seconds.items()},
        "versions": runtime.versions(),
    }  # fmt: skip


class _Side:
    """A compiled step with its state."""

    def __init__(self, options, losses, mesh):
        config = make_config("xlmr", options.model, vocab_size=VOCABULARY)
        head = HeadSpec("nli", "classification", ("a", "b", "c"))
        model = terms.with_extra(Model(config, (head,)), losses)
        optim = terms.optimizer(ADAMW, losses, 1000, model)
        shardings, _ = step.state_shardings(model, optim, mesh)
        self._state = jax.jit(lambda key: step.new_state(model.init(key), optim, 0), out_shardings=shardings)(
            jax.random.key(0)
        )
        self._batches = {name: put_batch(_batch(options, place), mesh) for place, name in enumerate(STREAMS)}
        context = objectives.Context(VOCABULARY, VOCABULARY - 1, (0, 1, 2, 3))
        lowered = step.make_train_step(model, losses, optim, mesh, context=context).lower(self._state, self._batches)
        self._train = lowered.compile()
        self.flops = hlo.cost(hlo.read(self._train.as_text())).flops

    def step(self, clock: Callable[[], float]) -> float:
        """Returns the seconds of one step."""
        began = clock()
        self._state, metrics = self._train(self._state, self._batches)
        jax.block_until_ready((self._state, metrics))
        return clock() - began


def _batch(options, place):
    rng, shape = np.random.default_rng(place), (options.batch_size, options.length)
    ones = np.ones((options.batch_size, 1), np.int32)
    language = list(LANGUAGES).index(("en", "de")[place])
    return {
        "tokens": rng.integers(4, VOCABULARY, shape).astype(np.int32), "segments": np.ones(shape, np.int32),
        "positions": np.tile(np.arange(options.length, dtype=np.int32), (options.batch_size, 1)), "first": 0 * ones,
        "weights": ones.astype(np.float32), "labels": rng.integers(0, 3, ones.shape).astype(np.int32),
        "index": np.arange(options.batch_size, dtype=np.int32)[:, None], "language": language * ones,
    }  # fmt: skip


def table(result: dict) -> str:
    """The result as text: a row per side."""
    lines = [
        f"XLM-R {result['model']}, two streams of {result['batch_size']} x {result['length']} tokens, "
        f"{result['device']}; JAX {result['versions']['jax']}",
        "",
        f"{'step':30}{'GFLOP':>9}{'seconds':>10}{'ratio':>8}",
    ]
    lines += [
        f"{name:30}{result['flops'][name] / 1e9:9,.1f}{value:10.3f}{result['ratios'][name]:8.2f}"
        for name, value in result["seconds"].items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
