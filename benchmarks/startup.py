"""How long a command takes to begin: wall time in fresh processes.

    python -m benchmarks.startup [--model=base] [--out=F.json]

commands    `jxstilts --help` and others that need no model, and importing the command line: process start to exit
first step  `jxstilts run` on the miniature world, from a random start: from process start until the result of the
            first training step is there, with an empty and with a full cache (compiled programs, tokenised rows). The
            model has its whole size; the batch is one input of 32 tokens, so that the step's own work is that of its
            weights alone: gradients, norm and AdamW. Parts as `benchmarks.first_step` notes them; what the devices do
            meanwhile shows up where their result is waited for. On one CPU device.
There is no ratio: other libraries do not do the same between start and first step.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks import command
from jxstilts import miniworld, runtime
from jxstilts.runtime import InputError

ROOT = pathlib.Path(__file__).parent.parent
COMMANDS = {
    "jxstilts --help": ["-m", "jxstilts", "--help"],
    "jxstilts tasks": ["-m", "jxstilts", "tasks"],
    "jxstilts languages": ["-m", "jxstilts", "languages"],
    "jxstilts models": ["-m", "jxstilts", "models"],
    "jxstilts plan --config=configs/paper.py": ["-m", "jxstilts", "plan", "--config=configs/paper.py"],
    "import jxstilts.cli": ["-c", "import jxstilts.cli"],
}
COMMAND_BAR, STEP_BAR = 1.5, 5.0  # seconds
CONFIG = """
from jxstilts import miniworld
from jxstilts.config import complete
from jxstilts.study import Study


def get_config(arg):
    stream = {"batch_size": 1, "max_length": 32, "buckets": 1, "packed": False, "limit": 64}
    phase = {"tasks": {"mnli": stream}, "steps": 2, "optimizer": {"learning_rate": 1e-5, "warmup": 0.1}}
    model = {"family": "xlmr", "preset": arg, "vocab_size": %d}
    return complete(Study, {
        "study": "first_step", "data_dir": "", "model": model, "phases": {"first": phase}, "evaluations": {},
        "tokenizer": {"path": miniworld.__path__[0] + "/micro/tokenizer"},
    })
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its table and returns the exit code."""
    return command.main(_parser(), run, table, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="base", help="preset of the xlmr family")
    parser.add_argument("--repetitions", type=int, default=5, help="processes of each kind; the median counts")
    parser.add_argument("--parts", default="commands,first step", help="what to measure, comma-separated")
    parser.add_argument("--out", default="", help="JSON file to write")
    return parser


def run(options: argparse.Namespace) -> dict:
    """Measures, and returns what `--out` writes. Raises InputError where a command fails."""
    if options.repetitions < 1:
        raise InputError("--repetitions is at least 1")
    parts, load = options.parts.split(","), os.getloadavg()[0]
    commands, steps = {}, {}
    for text, arguments in COMMANDS.items() if "commands" in parts else ():
        turns = [_seconds(arguments) for _ in range(options.repetitions)]
        commands[text] = {"seconds": statistics.median(turns), "turns_seconds": turns}
    if "first step" in parts:
        with tempfile.TemporaryDirectory() as folder:
            steps = _first_steps(pathlib.Path(folder), options.model, options.repetitions)
    return {
        "ratio": None,
        "model": options.model,
        "commands": commands,
        "first_step": steps,
        "repetitions": options.repetitions,
        "load_before": load,
        "hardware": f"{platform.machine()} CPU, {len(os.sched_getaffinity(0))} cores",
        "versions": runtime.versions(),
    }


def _run(arguments: list[str]) -> None:
    left_out = ("XLA_FLAGS", "PYTHONDONTWRITEBYTECODE")  # an installed package has its bytecode
    env = {key: value for key, value in os.environ.items() if key not in left_out} | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing printed"])[-1]
        raise InputError(f"{' '.join(arguments)}: exit code {done.returncode}: {last}")


def _seconds(arguments: list[str]) -> float:
    began = time.perf_counter()
    _run(arguments)
    return time.perf_counter() - began


def _first_steps(folder: pathlib.Path, preset: str, times: int) -> dict[str, dict]:
    """Returns {"empty cache", "full cache": what the process noted}, the median of `times` by its seconds."""
    from jxstilts.data import tokenizer
    from jxstilts.models.model import make_config

    miniworld.write(folder / "world")
    config = folder / "config.py"
    words = len(tokenizer.load(pathlib.Path(miniworld.__path__[0]) / "micro/tokenizer"))
    config.write_text(CONFIG % max(make_config("xlmr", preset).vocab_size, words))

    def once(turn: int, cache: pathlib.Path) -> dict:
        record = folder / "record.json"
        arguments = [f"--config={config}:{preset}", f"--config.data_dir={folder / 'world'}"]
        arguments += [f"--workdir={folder / f'work-{cache.name}-{turn}'}", f"--config.cache_dir={cache}"]
        _run(["-m", "benchmarks.first_step", str(record), str(time.time()), "run", *arguments])
        return json.loads(record.read_text())

    empty = [once(turn, folder / f"empty-{turn}") for turn in range(times)]
    full = [once(turn, folder / "empty-0") for turn in range(times)]
    return {
        name: sorted(found, key=lambda one: one["seconds"])[len(found) // 2] | {"turns": [o["seconds"] for o in found]}
        for name, found in (("empty cache", empty), ("full cache", full))
    }


def table(result: dict) -> str:
    """The result as text."""
    versions = result["versions"]
    lines = [
        f"{result['hardware']}; Python {versions['python']}, jax {versions['jax']}, flax {versions['flax']}; "
        f"median of {result['repetitions']} processes"
    ]
    if result["commands"]:
        lines += ["", f"{'command':44}{'seconds':>9}   at most {COMMAND_BAR}"]
    for text, row in result["commands"].items():
        lines.append(f"{text:44}{row['seconds']:9.2f}{_over(row['seconds'], COMMAND_BAR)}")
    if result["first_step"]:
        cold, warm = (result["first_step"][name] for name in ("empty cache", "full cache"))
        lines += [
            "",
            f"{'first training step, XLM-R ' + result['model']:44}{'empty cache':>13}{'full cache':>13}",
            *(f"  {part:42}{cold['parts'][part]:13.2f}{warm['parts'][part]:13.2f}" for part in cold["parts"]),
            f"{'in all, s':44}{cold['seconds']:13.2f}{warm['seconds']:13.2f}{_over(warm['seconds'], STEP_BAR)}",
            f"{'programs made before the step, and for it':44}"
            + "".join(
                f"{one['jax']['before']['programs']:9} + {one['jax']['step']['programs']}" for one in (cold, warm)
            ),
        ]
        for kind in ("trace", "lower", "compile or load"):
            both = [sum(part.get(kind, 0.0) for part in one["jax"].values()) for one in (cold, warm)]
            lines.append(f"{f'of it JAX: {kind}':44}{both[0]:13.2f}{both[1]:13.2f}")
    return "\n".join(lines)


def _programs(one: dict) -> int:
    return sum(part["programs"] for part in one["jax"].values())


def _over(seconds: float, bar: float) -> str:
    return "" if seconds <= bar else f"   over {bar:g}"


if __name__ == "__main__":
    sys.exit(main())
