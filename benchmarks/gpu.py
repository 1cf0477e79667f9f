"""Everything that is measured on a GPU, in one command, for a GPU that is there for minutes.

    python -m benchmarks.gpu --minutes=8 --out=F.json [--data_dir=D] [--encoder=FOLDER] [--rows=train large,attention]

The rows, the most telling first; each has its peer in the same process, and the peer's figures beside it:
    train large     the train step of XLM-R large in bfloat16, examples of XNLI's lengths, packed; PyTorch with sdpa in
                    bfloat16 by autocast, as it is and by torch.compile. Here the token embeddings that occur in MNLI
                    are trained, as in a phase; and, apart, all of them
    attention       the backends' forward and gradient, against each other, float32 and PyTorch's: error and time
    train base      as large
    retrieval       4 nearest neighbours of 100,000 x 100,000 in both directions, against PyTorch's products and topk
    evaluation      predictions of XLM-R large on examples of XNLI's lengths
    fine-tuning     `benchmarks.finetune` on MNLI with the real encoder (needs --encoder and --data_dir)
    train questions the train step of XLM-R large on windows of TyDiQA's lengths
F.json is written after each part of a row. A row starts if the time that is left is enough for it, as expected for an
H200 and corrected by the rows before it; one that does not is listed as not reached. A row, or a part of one, that
fails for lack of memory or of support is listed with its reason, and the next one follows. Without --data_dir the
tokens are random and the lengths drawn from distributions fitted to the real ones (`benchmarks.step`, SOURCES).
Memory: `torch_peak` is what PyTorch's allocator held at most in that part; `planned` what XLA's compiler plans for the
step, state included. JAX's own peak cannot be reset: `jax_peak` stands only where the part has raised it. JAX takes
memory as it needs it (XLA_PYTHON_CLIENT_PREALLOCATE=false) and does not give it back to the device.
Needs torch and NEEDED below. ml-collections, grain, tensorflow-datasets, orbax and tensorboardX are not imported.
"""

import argparse
import functools
import gc
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import command
from jxstilts import runtime
from jxstilts.runtime import InputError, suggest

NEEDED = ("jax", "flax", "optax", "numpy", "scipy", "safetensors", "tokenizers", "transformers", "torch")
# What a row or a part may fail of: memory, a kernel that is not there (both libraries: RuntimeError), a shape or a
# dtype that a backend refuses (ValueError; InputError is one), a compiler or package that is not there.
FAILURES = (RuntimeError, ValueError, MemoryError, OSError, ImportError)
EXPECTED = {  # seconds on an H200
    "train large": 210, "attention": 45, "train base": 120, "retrieval": 45, "evaluation": 60, "fine-tuning": 100,
    "train questions": 210,
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the rows, prints what they found and returns the exit code."""
    return command.main(_parser(), run, table, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="no row starts that would not end by then")
    parser.add_argument("--out", required=True, help="JSON file to write, after every part of a row")
    parser.add_argument("--rows", default="", help="comma-separated; default: all")
    parser.add_argument("--data_dir", default="", help="real examples and tokenizer; without: random tokens")
    parser.add_argument("--encoder", default="", help="folder of an encoder in Hugging Face's format")
    parser.add_argument("--batch_size", type=int, default=256, help="examples of a training step; questions: a quarter")
    parser.add_argument("--repetitions", type=int, default=3, help="turns of each part; the median counts")
    parser.add_argument(
        "--tiny", action="store_true", help="every row in a size that a CPU does in seconds: a rehearsal"
    )
    parser.add_argument("--device", default="gpu", choices=("cpu", "gpu"))
    parser.add_argument("--seed", type=int, default=0)
    return parser


def run(options: argparse.Namespace) -> dict:
    """Measures what there is time for, and returns what `--out` holds in the end.

    Raises InputError for a package or a device that is not there, and rows that are not known.
    """
    began = time.monotonic()
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise InputError(f"not installed, and needed: {', '.join(missing)}")
    wanted = [name.strip() for name in options.rows.split(",") if name.strip()] or list(EXPECTED)
    if unknown := [name for name in wanted if name not in EXPECTED]:
        raise InputError(f"--rows: {suggest('row', unknown[0], EXPECTED)}")
    from benchmarks import sides

    report = _Report(options, sides.ready(options), wanted)
    from benchmarks import gpu_rows

    context = gpu_rows.Context(options, sides.peak_flops())
    expected, spent = 0.0, 0.0
    for name in wanted:
        left, pace = began + 60 * options.minutes - time.monotonic(), spent / expected if expected else 1.0
        need = 0 if options.tiny else max(pace, 0.5) * EXPECTED[name]
        if name == "fine-tuning" and not (options.encoder and options.data_dir):
            report.row(name, status="left out: it needs --encoder and --data_dir")
            continue
        if need > left:
            report.row(name, status="not reached", left=left, needed=need)
            continue
        report.row(name, status="running")
        start = time.monotonic()
        reason = attempt(functools.partial(gpu_rows.ROWS[name], context, functools.partial(report.part, name)))
        took = time.monotonic() - start
        report.row(name, status="failed" if reason else "done", seconds=took, **({"reason": reason} if reason else {}))
        if not reason:
            expected, spent = expected + EXPECTED[name], spent + took
        gpu_rows.free()
    return report.result


def attempt(part: Callable[[], Any]) -> str:
    """Calls `part`; returns "" where it ends well, else why it does not, in one line."""
    try:
        part()
    except FAILURES as error:
        said = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {said:.400}"
    else:
        return ""
    gc.collect()  # what the traceback held
    return reason


class _Report:
    """What is known so far; written as a whole after each change."""

    def __init__(self, options: argparse.Namespace, device: str, wanted: Sequence[str]):
        torch = importlib.import_module("torch")
        self._path = options.out
        self.result: dict[str, Any] = {
            **{key: getattr(options, key) for key in ("minutes", "batch_size", "repetitions", "tiny", "data_dir")},
            "encoder": options.encoder,
            "device": device,
            "versions": runtime.versions() | {"torch": torch.__version__, "cuda": torch.version.cuda},
            "rows": {name: {"status": "not reached", "parts": {}} for name in wanted},
        }
        self._write()

    def row(self, name: str, **values: Any) -> None:
        """Adds to what is known of a row."""
        self.result["rows"][name] |= values
        self._write()
        if values["status"] != "running":
            print(_row(name, self.result["rows"][name]), file=sys.stderr, flush=True)

    def part(self, name: str, part: str, measure: Callable[[], dict]) -> dict | None:
        """Measures a part of a row and notes its figures, or why there are none; returns the figures."""
        found: dict[str, Any] = {}
        reason = attempt(lambda: found.update(measure()))
        self.result["rows"][name]["parts"][part] = {"failed": reason} if reason else found
        self._write()
        return None if reason else found

    def _write(self) -> None:
        runtime.atomic_write(self._path, json.dumps(self.result, indent=1) + "\n")


def _row(name: str, row: dict) -> str:
    took = f" in {row['seconds']:.0f} s" if "seconds" in row else ""
    lines = [f"{name}: {row['status']}{took}" + (f": {row['reason']}" if "reason" in row else "")]
    for part, figures in row["parts"].items():
        shown = (f"{key} {_shown(value)}" for key, value in figures.items() if not isinstance(value, dict | list))
        lines.append(f"  {part}: {', '.join(shown)}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(result: dict) -> str:
    """The result as text: a line for each part of each row."""
    versions = result["versions"]
    head = (
        f"{result['device']}; JAX {versions['jax']}, PyTorch {versions['torch']}, transformers "
        f"{versions['transformers']}; " + (result["data_dir"] or "random tokens of fitted lengths")
    )
    return "\n".join([head, *(_row(name, row) for name, row in result["rows"].items())])


if __name__ == "__main__":
    sys.exit(main())
