"""What was trained: the phases of a study folder, finished or not, with their curves, tokens, hours and versions."""

import dataclasses
import itertools
import json
import math
import pathlib
from collections.abc import Iterable
from typing import Any

from jxstilts.report.sheet import Table
from jxstilts.runtime import InputError
from jxstilts.tasks.languages import names
from jxstilts.tracking import read_rows

SHORT = 10  # characters of a hash


@dataclasses.dataclass(frozen=True)
class Phase:
    """One phase folder.

    config: its phase's config. record: DONE, None while it is not. train, dev, probes: rows of metrics.jsonl.
    made_with: the versions, and the hardware where it was recorded.
    """

    name: str
    config: dict[str, Any]
    start: str | None
    record: dict[str, Any] | None
    train: list[dict]
    dev: list[dict]
    probes: list[dict]
    versions: dict[str, str]
    hardware: str

    @property
    def tasks(self) -> str:
        """What it trains on, such as "mnli + text (mlm)", and by which further objectives."""
        parts = []
        for key, stream in self.config.get("tasks", {}).items():
            objective = stream.get("objective", "task")
            parts.append(
                stream.get("task") or key if objective == "task" else f"{stream.get('task') or key} ({objective})"
            )
        further = [name for name, entry in self.config.get("objectives", {}).items() if entry["weight"]]
        return " + ".join(parts) + (f"; {', '.join(further)}" if further else "")

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that it trains tasks in; () for none, or running text alone."""
        streams = [each for each in self.config.get("tasks", {}).values() if trains_task(each)]
        return tuple(dict.fromkeys(code for stream in streams for code in stream.get("languages", ())))

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
    def chosen_in(self) -> list[str]:
        """The languages of the rows by which its checkpoint was chosen."""
        given = self.config.get("select", {}).get("languages") or []
        own = [
            ["en"] if "en" in stream.get("languages", ["en"]) else stream["languages"]
            for stream in self.config.get("tasks", {}).values()
            if trains_task(stream)
        ]
        return list(dict.fromkeys(given or itertools.chain.from_iterable(own)))

    @property
    def chosen(self) -> str:
        """The rule by which its checkpoint was chosen."""
        select = self.config.get("select", {})
        if not self.config.get("tasks"):
            return "not trained"
        if not select.get("metric"):
            return "the last step" + self._beside(select)
        value = "mean major metric" if select["metric"] == "major" else select["metric"]
        return (
            f"best {value} on the first {select['rows']} {names(self.chosen_in)} dev rows of its tasks, every "
            f"{select['every']} steps; "
            f"stops after {select['patience']} evaluations without improvement" + self._beside(select)
        )

    def _beside(self, select: dict) -> str:
        """What else was kept, to compare with."""
        said = {
            "last": "the last step",
            "average": f"the mean of the weights at the last {select.get('average')} evaluations",
            "oracle": f"an oracle, best on {names(select.get('oracle_languages', []))} dev rows of "
                      f"{select.get('oracle_task') or 'its tasks'}, by which no zero-shot study may choose",
        }  # fmt: skip
        kept = [said[kind] for kind in select.get("also", [])]
        return f"; kept beside it to compare with: {'; '.join(kept)}" if kept else ""


def load(workdir: pathlib.Path) -> list[Phase]:
    """Reads WORKDIR/phases, sorted by name. Raises InputError for a file that is not JSON."""
    root = workdir / "phases"
    found = []
    for path in sorted(root.rglob("config.json")):
        name = path.parent.relative_to(root)
        if any(part.startswith(".") for part in name.parts) or _in_bundle(path, root):
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
                *([row for row in rows if row["kind"] == kind] for kind in ("train", "dev", "probe")),
                bundle.get("versions", {}),
                hardware,
            )
        )
    return found


def outdated(workdir: pathlib.Path, made: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Returns {(phase, checkpoint): why it is no longer the study's}; made: what rows say that they are of.

    A phase that changed was moved aside, so its folder now has another checkpoint, or none yet. What starts from a
    checkpoint that is nowhere but aside is outdated as well. Phases without a folder here are not judged.
    """
    root = workdir / "phases"
    starts, ends, beside, aside = {}, {}, {}, set()
    for path in root.rglob("config.json"):
        parts = path.parent.relative_to(root).parts
        if _in_bundle(path, root):
            continue
        done = _json(path.parent / "DONE") or {}
        end = done.get("checkpoint_sha256")
        if any(part.startswith(".") for part in parts):
            aside.add(end)
        else:
            name = "/".join(parts)
            starts[name], ends[name] = _json(path).get("start"), end
            beside[name] = {each["checkpoint_sha256"] for each in done.get("also", {}).values()}
    gone = aside - {None, *ends.values()}
    below: set[str] = set()
    while more := {name for name, start in starts.items() if start in gone} - below:
        below |= more
        gone |= {ends[name] for name in more} - {None}
    found = {}
    for name, sha in made:
        if name in ends and ends[name] is None:
            found[name, sha] = "has changed and is not finished again"
        elif name in ends and sha not in (ends[name], *beside[name]):
            found[name, sha] = "has changed, and its new model is not evaluated yet"
        elif name in below:
            found[name, sha] = "starts from a model that has changed"
    return found


def trains_task(stream: dict) -> bool:
    """Does a stream, as a phase's config records it, train the head of its task?"""
    name = stream.get("objective", "task")
    if name == "task":
        return True
    from jxstilts.train import objectives  # JAX, which most reports do without

    return name in objectives.names() and objectives.get(name).HEAD == objectives.OWN


def _in_bundle(path: pathlib.Path, root: pathlib.Path) -> bool:
    """Is a file one of a bundle's, as its tokenizer's config.json?"""
    inside = path.relative_to(root).parents
    return any((root / folder / "bundle.json").exists() for folder in inside)


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
    names = {phase.record["checkpoint_sha256"]: phase.name for phase in phases if phase.record}
    body = []
    for phase in phases:
        streams = phase.config.get("tasks", {}).values()
        rate = phase.config.get("optimizer", {}).get("learning_rate")
        record = phase.record or {}
        body.append([
            phase.name, phase.tasks or "nothing", _start(phase, names), str(phase.config.get("seed", "-")),
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


def _start(phase: Phase, names: dict[str, str]) -> str:
    """Returns the phase that a phase starts from; one from elsewhere is known by its content alone."""
    if phase.start is None:
        return "random"
    return f"{names.get(phase.start, 'elsewhere')} ({phase.start[:SHORT]})"


def selection_table(phases: list[Phase]) -> Table | str:
    """How the checkpoint of each phase was chosen; in words where no phase has had a choice."""
    rules: dict[str, list[Phase]] = {}
    for phase in phases:
        rules.setdefault(phase.chosen, []).append(phase)
    fixed = [
        f"{len(own)} phase{'s' * (len(own) > 1)}: {rule}." for rule, own in rules.items() if not any(map(_chose, own))
    ]
    chosen = {rule: own for rule, own in rules.items() if any(map(_chose, own))}
    if not chosen:
        return f"No checkpoint was chosen by its value. {' '.join(fixed)}"
    letters = {rule: chr(ord("A") + number % 26) * (1 + number // 26) for number, rule in enumerate(chosen)}
    body = []
    for rule, own in chosen.items():
        for phase in own:
            best = (phase.record or {}).get("best") or {}
            value = best.get("value")
            body.append([
                phase.name, letters[rule], str(best.get("step", "-")), "-" if value is None else f"{value:.2f}",
                str(len(phase.dev)),
            ])  # fmt: skip
    notes = [f"{letter}: {rule}." for rule, letter in letters.items()]
    notes += [f"Not shown, {line}" for line in fixed]
    seen = list(dict.fromkeys(code for own in chosen.values() for phase in own for code in phase.chosen_in))
    if seen == ["en"]:
        notes.append("No choice has seen a language other than English.")
    else:
        notes.append(f"The choices have seen rows in {names(seen)}: values there are not zero-shot.")
    header = ["phase", "rule", "best step", f"its {names(seen)} dev value", "evaluations"]
    return Table("selection", f"How models were selected: on {names(seen)} dev rows only", header, body, notes)


def _chose(phase: Phase) -> bool:
    """Returns whether the checkpoint of a phase is one of several."""
    return bool(phase.config.get("tasks") and phase.config.get("select", {}).get("metric"))
