"""What a run says about itself: metrics.jsonl, TensorBoard, a progress line, throughput and MFU."""

import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Mapping
from typing import Any

from jxstilts import processes
from jxstilts.runtime import atomic_write

# Dense bf16 peaks in FLOP/s by `device_kind`, from the vendors' data sheets (see performance figures in docs).
PEAK_FLOPS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
}


def hardware(mesh: Any) -> str:
    """Returns the devices of a `jax.sharding.Mesh` in words."""
    kind = mesh.devices.flat[0].device_kind
    machine = f" ({platform.machine()}, {os.cpu_count()} cores)" if kind == "cpu" else ""
    return f"{mesh.size} x {kind}{machine}"


def peak_flops() -> float | None:
    """FLOP/s of all devices together: from PEAK_FLOPS, or on CPU the measured rate of a float32 matrix product.

    Returns None for an accelerator that the table does not know; MFU is then not shown.
    """
    import jax
    import jax.numpy as jnp

    device = jax.devices()[0]
    for kind, peak in PEAK_FLOPS.items():
        if device.device_kind.startswith(kind):
            return peak * jax.device_count()
    if device.platform != "cpu":
        return None
    size = 1536
    matrix = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    product(matrix).block_until_ready()
    times = []
    for _ in range(3):
        began = time.perf_counter()
        product(matrix).block_until_ready()
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times)  # simulated devices share the same cores, so this is not multiplied


class Writer:
    """Appends rows to FOLDER/metrics.jsonl and to TensorBoard files in FOLDER/tensorboard.

    Opened at step k it drops the rows after k: those steps will run again.
    """

    def __init__(self, folder: str | pathlib.Path, step: int = 0, tensorboard: bool = True):
        self.path = pathlib.Path(folder) / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_rows(self.path) if row["step"] <= step]
        atomic_write(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = open(self.path, "a", encoding="utf-8")
        self._board = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, step: int, values: Mapping[str, float], prefix: str = "train") -> None:
        self._file.write(json.dumps({"step": step, "kind": prefix, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{prefix}/{name}", value, step)

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_rows(path: str | pathlib.Path) -> list[dict]:
    """Reads a .jsonl file; a last line that a crash cut short is left out."""
    path = pathlib.Path(path)
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]  # the part after the last newline was never completed


class Throughput:
    """Rates since the last reading, and the time left. `flops_per_token` is for training, per real token."""

    def __init__(self, steps: int, step: int, flops_per_token: float, peak: float | None):
        self.steps, self.first, self.peak, self.flops_per_token = steps, step, peak, flops_per_token
        self.began = self.last = None
        self.last_step = step
        self.paused = 0.0  # evaluation and saving do not count as training time

    def read(self, step: int, examples: float, tokens: float) -> dict[str, float]:
        """examples, tokens: done since the last reading. The first interval holds the compilation: no rates."""
        now = time.perf_counter()
        if self.last is None:
            self.began = self.last = now
            self.first = self.last_step = step
            return {}
        seconds = max(now - self.last - self.paused, 1e-9)
        rates = {"examples_per_second": examples / seconds, "tokens_per_second": tokens / seconds}
        if self.peak:
            rates["mfu"] = tokens / seconds * self.flops_per_token / self.peak
        rates["eta_seconds"] = (now - self.began) / max(step - self.first, 1) * (self.steps - step)
        self.last, self.last_step, self.paused = now, step, 0.0
        return rates

    def pause(self, seconds: float) -> None:
        self.paused += seconds


class Progress:
    """One line that is rewritten on a terminal, and printed now and then where output goes to a file."""

    def __init__(self, name: str, steps: int, quiet: bool = False, every_seconds: float = 15.0):
        self.name, self.steps, self.quiet = name, steps, quiet or not processes.first()  # one speaks for all
        self.live = sys.stderr.isatty()
        self.every = every_seconds
        self.last = 0.0

    def show(self, step: int, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        if self.quiet or (not self.live and now - self.last < self.every and step < self.steps):
            return
        self.last = now
        names = {
            "loss": "loss {:.4f}", "learning_rate": "lr {:.2e}", "examples_per_second": "{:.1f} ex/s",
            "tokens_per_second": "{:.0f} tok/s", "mfu": "MFU {:.1%}",
        }  # fmt: skip
        parts = [text.format(values[name]) for name, text in names.items() if name in values]
        if "eta_seconds" in values:
            parts.append(f"ETA {clock(values['eta_seconds'])}")
        line = f"{self.name} {step}/{self.steps}  " + "  ".join(parts)
        print(f"\r{line:<110}" if self.live else line, end="" if self.live else "\n", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Prints a line of its own."""
        if not self.quiet:
            print(("\n" if self.live else "") + f"{self.name}: {text}", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """3723 -> "1:02:03"; 63 -> "1:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
