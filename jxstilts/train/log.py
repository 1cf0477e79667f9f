"""What a phase says of its steps while it trains: metrics, dev values, and steps whose numbers are not finite."""

import json
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax

from jxstilts import processes, tracking
from jxstilts.checkpoint import Checkpoints
from jxstilts.runtime import InputError, writing
from jxstilts.tasks.languages import names
from jxstilts.train.inputs import Data
from jxstilts.train.optimizer import Schedule

NONFINITE = "nonfinite.jsonl"
TOTALS = (
    "tokens",
    "padded_tokens",
    "examples",
)  # counts: added over the steps of a row, others averaged


class Log:
    """Metrics of past steps. They stay on the device until a later step has been started, so logging costs no wait.

    skipped: how many of the steps so far have changed nothing, since their loss or gradient was not finite.
    """

    def __init__(
        self, name: str, phase: Any, data: Data, schedule: Schedule, folder: pathlib.Path, now: int,
        progress: tracking.Progress, checkpoints: Checkpoints, skipped: int,
    ):  # fmt: skip
        self.name, self.phase, self.data, self.schedule, self.progress = name, phase, data, schedule, progress
        self.checkpoints, self.skipped = checkpoints, skipped
        self.strange = folder / NONFINITE
        self.writer = tracking.Writer(folder, now) if processes.first() else None
        if processes.first() and self.strange.exists():
            tracking.keep_rows(self.strange, now)
        peak = tracking.peak_flops() if now < data.steps else None
        self.meter = tracking.Throughput(data.steps, now, data.flops_per_token, peak)
        self.waiting: list[tuple[int, dict]] = []

    def step(self, now: int, metrics: dict) -> None:
        """Takes the metrics of a step that has just been dispatched; logs the ones before it when it is time."""
        if self.waiting and self.waiting[-1][0] % self.phase.log_every == 0:
            self.flush()
        self.waiting.append((now, metrics))

    def flush(self) -> None:
        """Reads, checks and writes everything that waits. Raises InputError for a step too many that is not finite."""
        if not self.waiting:
            return
        last = self.waiting[-1][0]
        values = jax.device_get([metrics for _, metrics in self.waiting])
        numbers = [number for number, _ in self.waiting]
        self.waiting = []
        finite = []
        for number, value in zip(numbers, values, strict=True):
            norms = [entry for key, entry in value.items() if key.rpartition("/")[2] == "gradient_norm"]
            if all(map(math.isfinite, (value["loss"], *norms))):
                finite.append(value)
            else:
                self._not_finite(number, {key: float(entry) for key, entry in value.items()})
        row = {key: sum(float(value[key]) for value in values) for key in TOTALS}
        row["packing_efficiency"] = row["tokens"] / row["padded_tokens"]
        for key in dict.fromkeys(key for value in finite for key in value if key not in TOTALS):
            found = [float(value[key]) for value in finite if key in value]  # a step has those of the tasks it took
            row[key] = sum(found) / len(found)
        rates = self.meter.read(last, row["examples"], row["tokens"], row["padded_tokens"])
        row |= {"learning_rate": float(self.schedule._replace(count=max(last - 1 - self.skipped, 0)).rate()), **rates}
        if self.phase.skip_nonfinite:
            row["skipped"] = self.skipped
        if self.writer:
            self.writer.write(last, row)
        self.progress.show(last, row)

    def _not_finite(self, number: int, value: dict[str, float]) -> None:
        """Keeps a step's metrics and examples. Raises InputError unless the phase may skip one more."""
        self.skipped += 1
        if processes.first():
            metrics = {key: entry if math.isfinite(entry) else str(entry) for key, entry in value.items()}
            row = {"step": number, "metrics": metrics, "examples": self.data.examples(number - 1)}
            with writing(self.strange), open(self.strange, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        allowed, where = self.phase.skip_nonfinite, f"config.phases.{self.name}"
        what = f"the loss of step {number} is {value['loss']}, its gradient's norm {value['gradient_norm']}"
        if self.skipped <= allowed:
            self.progress.note(f"{what}: skipped, {self.skipped} of at most {allowed}; its examples: {self.strange}")
            return
        saved = self.checkpoints.steps(wait=True)
        good = f"the last good checkpoint is step {saved[0]}" if saved else "there is no checkpoint before it"
        again = f"; {self.skipped} such steps, {where}.skip_nonfinite={allowed}" if allowed else ""
        raise InputError(
            f"{self.name}: {what}{again}; its examples and metrics are in {self.strange}; {good}; lower "
            f"{where}.optimizer.learning_rate, or let such steps be skipped with a higher {where}.skip_nonfinite"
        )

    def evaluation(self, now: int, values: dict[str, float], best: dict) -> None:
        """Takes the dev values after a step. best: the record of the best so far."""
        if self.writer:
            self.writer.write(now, values, prefix="dev")
        text = "  ".join(f"{key} {value:.2f}" for key, value in values.items())
        streams = self.phase.tasks.values()
        codes = dict.fromkeys(code for each in streams for code in self.phase.select.languages or each.own_languages)
        self.progress.note(f"step {now}: {names(codes)} dev {text}  (best {best['value']:.2f} at step {best['step']})")

    def probe(self, now: int, values: dict[str, float]) -> None:
        """Takes the probes after a step, {"NAME/STATE": value}; of the last hidden state it says them."""
        if self.writer:
            self.writer.write(now, values, prefix="probe")
        last = max(int(key.rpartition("/")[2]) for key in values)
        shown = [f"{key} {value:.2f}" for key, value in values.items() if key.endswith(f"/{last}")]
        self.progress.note(f"step {now}: probe {'  '.join(shown)}")

    def paused(self, work: Callable[..., Any], *args: Any) -> Any:
        """Does something whose time does not count as training."""
        began = time.perf_counter()
        result = work(*args)
        self.meter.pause(time.perf_counter() - began)
        return result

    def close(self) -> None:
        if self.writer:
            self.writer.close()
