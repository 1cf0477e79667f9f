"""What a run says about itself: metrics.jsonl, TensorBoard, a progress line, throughput and MFU."""

import contextlib
import functools
import json
import math
import os
import pathlib
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jxstilts import processes
from jxstilts.runtime import InputError, atomic_write, writing

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

BOARD_SECONDS = 30.0  # between two times that TensorBoard's file is brought to the disk


def hardware(mesh: Any) -> str:
    """Returns the devices of a `jax.sharding.Mesh` in words."""
    kind = mesh.devices.flat[0].device_kind
    machine = f" ({platform.machine()}, {os.cpu_count()} cores)" if kind == "cpu" else ""
    return f"{mesh.size} x {kind}{machine}"


@functools.cache
def peak_flops() -> float | None:
    """FLOP/s of all devices together: from PEAK_FLOPS, or on CPU the measured rate of a float32 matrix product.

    Returns None for an accelerator that the table does not know; MFU is then not shown.
    """
    import jax
    import numpy as np

    device = jax.devices()[0]
    for kind, peak in PEAK_FLOPS.items():
        if device.device_kind.startswith(kind):
            return peak * jax.device_count()
    if device.platform != "cpu":
        return None
    size = 1024
    matrix = jax.device_put(np.ones((size, size), np.float32))
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

    Opened at step k it drops the rows after k: those steps will run again. Raises OSError, with the file's name, when a
    row cannot be written.
    """

    def __init__(self, folder: str | pathlib.Path, step: int = 0, tensorboard: bool = True):
        self.path = pathlib.Path(folder) / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        keep_rows(self.path, step)
        self._file = open(self.path, "a", encoding="utf-8")
        self._board = _Board(self.path.parent / "tensorboard", step) if tensorboard else None

    def write(self, step: int, values: Mapping[str, float], prefix: str = "train") -> None:
        with writing(self.path):
            self._file.write(json.dumps({"step": step, "kind": prefix, **values}) + "\n")
            self._file.flush()
        if self._board is not None:
            self._board.write(step, {f"{prefix}/{name}": value for name, value in values.items()})

    def close(self) -> None:
        for file in filter(None, (self._file, self._board)):
            with contextlib.suppress(OSError):  # a row of metrics.jsonl that could not be written was raised by `write`
                file.close()


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Inside it torch cannot be imported: tensorboardX would, where torch is installed, and take a second for it."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]


class _Board:
    """A TensorBoard event file, written by this thread.

    tensorboardX's own writer hands over to a thread: when that has died of a full disk, handing over waits for ever.
    """

    def __init__(self, folder: pathlib.Path, step: int):
        with _without_torch():
            from tensorboardX import event_file_writer, proto, summary

        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._summary, self._event = folder, summary, proto.event_pb2.Event
        with writing(folder):
            self._events = event_file_writer.EventsWriter(str(folder / "events"))
            if step:  # what an earlier process wrote from here on does not count
                start = proto.event_pb2.SessionLog(status=proto.event_pb2.SessionLog.START)
                self._events.write_event(self._event(wall_time=time.time(), step=step + 1, session_log=start))
        self._flushed = -math.inf

    def write(self, step: int, values: Mapping[str, float]) -> None:
        with writing(self._folder):
            for name, value in values.items():
                scalar = self._summary.scalar(name, value)
                self._events.write_event(self._event(wall_time=time.time(), step=step, summary=scalar))
            if time.monotonic() - self._flushed > BOARD_SECONDS:  # it waits for the disk
                self._events.flush()
                self._flushed = time.monotonic()

    def close(self) -> None:
        self._events.close()


def keep_rows(path: pathlib.Path, step: int) -> None:
    """Drops the rows after a step from a .jsonl file; makes it where it is not there."""
    rows = [row for row in read_rows(path) if row["step"] <= step]
    atomic_write(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path: str | pathlib.Path) -> list[dict]:
    """Reads a .jsonl file; a last line that a crash cut short is left out. Raises InputError for what is no JSON."""
    path = pathlib.Path(path)
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1] if line]  # the part after the last newline was never completed
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not rows of JSON: {error}") from error


def keep_command(folder: str | pathlib.Path, argv: Sequence[str]) -> None:
    """Adds the command line to FOLDER/commands.jsonl, with the time, unless it is the last one there."""
    path = pathlib.Path(folder) / "commands.jsonl"
    rows, line = read_rows(path), shlex.join(["jxstilts", *argv])
    if not rows or rows[-1]["command"] != line:
        rows.append({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "command": line})
        atomic_write(path, "".join(json.dumps(row) + "\n" for row in rows))


class Throughput:
    """Rates since the last reading, and the time left. `flops_per_token` is for training, per real token."""

    def __init__(self, steps: int, step: int, flops_per_token: float, peak: float | None):
        self.steps, self.first, self.peak, self.flops_per_token = steps, step, peak, flops_per_token
        self.began = self.last = None
        self.last_step = step
        self.paused = 0.0  # evaluation and saving do not count as training time

    def read(self, step: int, examples: float, tokens: float, padded: float) -> dict[str, float]:
        """examples, tokens (real), padded (all tokens): done since the last reading.

        The first interval holds the compilation: no rates.
        """
        now = time.perf_counter()
        if self.last is None:
            self.began = self.last = now
            self.first = self.last_step = step
            return {}
        seconds = max(now - self.last - self.paused, 1e-9)
        rates = {"examples_per_second": examples / seconds, "tokens_per_second": tokens / seconds}
        rates["padded_tokens_per_second"] = padded / seconds
        if self.peak:
            rates["mfu"] = tokens / seconds * self.flops_per_token / self.peak
        rates["eta_seconds"] = (now - self.began) / max(step - self.first, 1) * (self.steps - step)
        self.last, self.last_step, self.paused = now, step, 0.0
        return rates

    def pause(self, seconds: float) -> None:
        self.paused += seconds


class Progress:
    """One line that is rewritten on a terminal, and printed now and then where output goes to a file.

    later: tokens that are to be trained on after this; with the speed of this they say when all is done. None: unknown.
    """

    def __init__(
        self, name: str, steps: int, quiet: bool = False, every_seconds: float = 15.0, later: float | None = None
    ):
        self.name, self.steps, self.quiet = name, steps, quiet or not processes.first()  # one speaks for all
        self.live = sys.stderr.isatty()
        self.every, self.later = every_seconds, later
        self.last = 0.0
        self.began = time.monotonic()
        self.open = False  # does a line stand on the terminal that has no end yet?

    def show(self, step: int, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        if self.quiet or (not self.live and now - self.last < self.every and step < self.steps):
            return
        self.last = now
        names = {
            "loss": "loss {:.4f}", "learning_rate": "lr {:.2e}", "examples_per_second": "{:.1f} ex/s",
            "tokens_per_second": "{:.0f} real tok/s", "packing_efficiency": "{:.0%} full", "mfu": "MFU {:.1%}",
        }  # fmt: skip
        parts = [f"{self.name} {step}/{self.steps}", *self._left(step, values)]
        parts += [text.format(values[name]) for name, text in names.items() if name in values]
        line = "  ".join(parts)
        if not self.live:
            print(line, file=sys.stderr, flush=True)
            return
        self._rewrite(line)
        if step >= self.steps:
            self.close()

    def _left(self, step: int, values: Mapping[str, float]) -> list[str]:
        """Says how long this takes, and all that comes after it too."""
        seconds, speed = values.get("eta_seconds"), values.get("tokens_per_second")
        if seconds is None and not values and 0 < step < self.steps:  # no training, which compiles at first
            seconds = (time.monotonic() - self.began) / step * (self.steps - step)
        if seconds is None:
            return []
        whole = f", all phases {clock(seconds + self.later / speed)}" if self.later and speed else ""
        return [f"ETA {clock(seconds)}{whole}"]

    def _rewrite(self, line: str) -> None:
        width = shutil.get_terminal_size().columns - 1  # a line that wraps cannot be rewritten
        print(f"\r{line[:width]:<{width}}", end="", file=sys.stderr, flush=True)
        self.open = True

    def note(self, text: str) -> None:
        """Prints a line of its own."""
        if self.quiet:
            return
        if self.open:
            self._rewrite("")
            print("\r", end="", file=sys.stderr)
            self.open = False
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the line that stands on the terminal, so that others can print."""
        if self.open:
            print(file=sys.stderr, flush=True)
            self.open = False


def clock(seconds: float) -> str:
    """3723 -> "1:02:03"; 63 -> "1:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
