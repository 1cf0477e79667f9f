"""What was trained: the phases of a study folder, finished or not, with their curves, tokens, hours and versions."""

import dataclasses
import json
import math
import pathlib
from typing import Any

from jxstilts.report.sheet import Table
from jxstilts.runtime import InputError
from jxstilts.tracking import read_rows

SHORT = 10  # characters of a hash


@dataclasses.dataclass(frozen=True)
class Phase:
    """One phase folder.

    config: its phase's config. record: DONE, None while it is not. train, dev: rows of metrics.jsonl. made_with: the
    versions, and the hardware where it was recorded.
    """

    name: str
    config: dict[str, Any]
    start: str | None
    record: dict[str, Any] | None
    train: list[dict]
    dev: list[dict]
    versions: dict[str, str]
    hardware: str

    @property
    def tasks(self) -> str:
        """What it trains on, such as "mnli + text (mlm)"."""
        parts = []
        for key, stream in self.config.get("tasks", {}).items():
            objective = stream.get("objective", "task")
            parts.append(
                stream.get("task") or key if objective == "task" else f"{stream.get('task') or key} ({objective})"
            )
        return " + ".join(parts)

    @property
    def steps(self) -> int:
        """Steps made so far."""
        return self.record["steps"] if self.record else max((row["step"] for row in self.train), default=0)

    @property
    def tokens(self) -> float:
        """Tokens seen so far, padding not counted."""
        return math.fsum(row.get("tokens", 0.0) for row in self.train)

    @property
    def hours(self) -> float | None:
        """Training time, without compilation, evaluation and saving; None where no rate was recorded."""
        rated = [row for row in self.train if row.get("tokens_per_second")]
        if not rated:
            return None
        seconds = math.fsum(row["tokens"] / row["tokens_per_second"] for row in rated)
        # the first interval holds the compilation and has no rate: taken at the mean of the others
        return seconds * self.tokens / math.fsum(row["tokens"] for row in rated) / 3600

    @property
    def chosen(self) -> str:
        """The rule by which its checkpoint was chosen."""
        select = self.config.get("select", {})
        if not self.config.get("tasks"):
            return "not trained"
        if not select.get("metric"):
            return "the last step"
        value = "mean major metric" if select["metric"] == "major" else select["metric"]
        return (
            f"best {value} on the first {select['rows']} English dev rows of its tasks, every {select['every']} steps; "
            f"stops after {select['patience']} evaluations without improvement"
        )


def load(workdir: pathlib.Path) -> list[Phase]:
    """Reads WORKDIR/phases, sorted by name. Raises InputError for a file that is not JSON."""
    root = workdir / "phases"
    found = []
    for path in sorted(root.rglob("config.json")):
        name = path.parent.relative_to(root)
        if any(part.startswith(".") for part in name.parts) or "best" in name.parts:
            continue
        config = _json(path)
        record = _json(path.parent / "DONE")
        rows = read_rows(path.parent / "metrics.jsonl")
        bundle = (_json(path.parent / "best" / "bundle.json") or {}).get("provenance", {})
        hardware = bundle.get("hardware", "")
        found.append(
            Phase(
                str(name),
                config.get("phase", {}),
                config.get("start"),
                record,
                [row for row in rows if row["kind"] == "train"],
                [row for row in rows if row["kind"] == "dev"],
                bundle.get("versions", {}),
                hardware,
            )
        )
    return found


def failed(workdir: pathlib.Path) -> dict[str, str]:
    """Returns {phase or evaluation that failed: cause}."""
    return {path.stem: _json(path)["cause"] for path in sorted((workdir / "failed").glob("*.json"))}


def _json(path: pathlib.Path) -> Any:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); remove it to run it again") from error


def run_table(phases: list[Phase]) -> Table:
    """What was run."""
    header = [
        "phase", "trains on", "starts from", "seed", "batch", "learning rate", "steps", "tokens", "hours", "state",
        "checkpoint", "fingerprint",
    ]  # fmt: skip
    body = []
    for phase in phases:
        streams = phase.config.get("tasks", {}).values()
        rate = phase.config.get("optimizer", {}).get("learning_rate")
        record = phase.record or {}
        body.append([
            phase.name, phase.tasks or "nothing", _start(phase), str(phase.config.get("seed", "-")),
            ", ".join(dict.fromkeys(str(stream.get("batch_size", "-")) for stream in streams)) or "-",
            "-" if rate is None or not streams else f"{rate:g}", f"{phase.steps:,}", f"{phase.tokens:,.0f}",
            "-" if phase.hours is None else f"{phase.hours:.2f}", "done" if phase.record else "not finished",
            (record.get("checkpoint_sha256") or "-")[:SHORT], (record.get("fingerprint") or "-")[:SHORT],
        ])  # fmt: skip
    hours = [phase.hours for phase in phases if phase.hours is not None]
    versions = {json.dumps(phase.versions, sort_keys=True): phase.versions for phase in phases if phase.versions}
    hardware = list(dict.fromkeys(phase.hardware for phase in phases if phase.hardware))
    notes = [
        f"Together {sum(phase.tokens for phase in phases):,.0f} tokens and {sum(hours):.2f} hours of training; hours "
        "are without compilation, evaluation and saving. Tokens do not count padding.",
        "Hashes: the first characters of the SHA-256 of the checkpoint, and of config, start and tokenizer together.",
        *("Versions: " + ", ".join(f"{name} {number}" for name, number in one.items()) for one in versions.values()),
        f"Hardware: {', '.join(hardware)}." if hardware else "The hardware was not recorded.",
    ]
    return Table("runs", "What was run: every phase of the study", header, body, notes, left=3)


def _start(phase: Phase) -> str:
    path = pathlib.PurePath(phase.config.get("init", "-"))
    name = str(path)
    if path.is_absolute():  # a bundle elsewhere; that of another study's phase is PHASE/best
        name = path.parent.name if path.name == "best" else path.name
    return f"{name} ({phase.start[:SHORT]})" if phase.start else name


def selection_table(phases: list[Phase]) -> Table:
    """How the checkpoint of each phase was chosen."""
    rules = list(dict.fromkeys(phase.chosen for phase in phases))
    letters = {rule: chr(ord("A") + number % 26) * (1 + number // 26) for number, rule in enumerate(rules)}
    body = []
    for phase in phases:
        best = (phase.record or {}).get("best") or {}
        value = best.get("value")
        body.append([
            phase.name, letters[phase.chosen], str(best.get("step", "-")), "-" if value is None else f"{value:.2f}",
            str(len(phase.dev)),
        ])  # fmt: skip
    notes = [f"{letter}: {rule}." for rule, letter in letters.items()]
    notes.append("No choice has seen a language other than English.")
    header = ["phase", "rule", "best step", "its English dev value", "evaluations"]
    return Table("selection", "How models were selected: on English dev rows only", header, body, notes)
