"""What a study folder holds, as the report needs it: the runs of each arm on each target, phases, strata of languages.

An arm is a model and the intermediate task that it went through; a target is a task and a split; a run is one arm,
target and seed, in some languages. Only files are read, and a study that is still running is read as far as it is.
"""

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jxstilts import tasks
from jxstilts.eval import items, metrics, result_rows, submission
from jxstilts.eval.benchmarks import BENCHMARKS
from jxstilts.report import phases, statistics
from jxstilts.runtime import InputError
from jxstilts.tasks.languages import LANGUAGES

BASELINE = "none"  # the intermediate task of the arm that the others are compared with
SOURCE = statistics.SOURCE


class Arm(NamedTuple):
    """A model and its intermediate task."""

    model: str
    intermediate: str

    @property
    def title(self) -> str:
        """The name of the arm; an evaluation from elsewhere has no intermediate task."""
        return ", ".join(filter(None, self))


class Target(NamedTuple):
    """A task and the split that was evaluated."""

    task: str
    split: str

    @property
    def metrics(self) -> tuple[str, ...]:
        """The values whose mean is the task's score, as its benchmark has them."""
        for benchmark in BENCHMARKS.values():
            if self.task in benchmark.tasks:
                return benchmark.entry(self.task).metrics
        return metrics.get(tasks.get(self.task).metric).headline


@dataclasses.dataclass(frozen=True)
class Run:
    """One arm on one target with one seed; rows: {language: {value name: its row of results.jsonl}}."""

    folder: pathlib.Path
    arm: Arm
    target: Target
    seed: int
    rows: dict[str, dict[str, dict]]

    def scores(self, metrics: Sequence[str], field: str = "value") -> dict[str, float]:
        """Returns {language: mean over some metrics} of a field, where all of them have it."""
        found = {}
        for language, rows in self.rows.items():
            values = [rows[metric].get(field) if metric in rows else None for metric in metrics]
            if None not in values:
                found[language] = sum(values) / len(values)
        return found

    def items(self, languages: Iterable[str]) -> dict[str, items.Kept] | None:
        """Returns the items of some languages; None where those of one are not there, or are not of these rows."""
        found = {}
        for language in languages:
            row = next(iter(self.rows[language].values()))
            path = items.path(self.folder, row["evaluation"], row["task"], row["split"], language)
            if not items.belongs(path, row):
                return None
            found[language] = items.read(path)
        return found

    def predictions(self, language: str = SOURCE) -> list[Hashable]:
        """Returns what was predicted in a language: labels, tags of words, answers; [] where no file is there."""
        if language not in self.rows:
            return []
        row = next(iter(self.rows[language].values()))
        folder = self.folder / "predictions" / row["evaluation"]
        path = submission.path(folder, self.target.task, self.target.split, language)
        if not path.exists():
            return []
        found = submission.values(path, self.target.task)
        if found and isinstance(found[0], list):
            return [tag for tags in found for tag in tags]
        return found


@dataclasses.dataclass(frozen=True)
class Strata:
    """The strata of a world's languages; of the real ones (`jxstilts languages`) only where no file says otherwise."""

    world: str
    groups: Mapping[str, tuple[str, ...]]

    def title(self, code: str) -> str:
        """Returns a language's code with its English name; the languages of a world have none."""
        parts = code.split("-")
        if self.world or any(part not in LANGUAGES for part in parts):
            return code
        return f"{code} {', '.join(dict.fromkeys(LANGUAGES[part].name for part in parts))}"

    def means(self, values: Mapping[str, float]) -> dict[str, statistics.Group]:
        """Returns {stratum: its mean}, without English, of the languages that are in one."""
        if self.world:
            own = {
                name: {code: values[code] for code in codes if code in values and code != SOURCE}
                for name, codes in self.groups.items()
            }
            return {
                name: statistics.Group(sum(found.values()) / len(found), tuple(found))
                for name, found in own.items()
                if found
            }
        known = {code: value for code, value in values.items() if code in LANGUAGES and code != SOURCE}
        return statistics.means_by(known, "resource") if known else {}


@dataclasses.dataclass(frozen=True)
class Folder:
    """A study folder. runs: {(arm, target): runs by seed}. bare: those without gold, in such languages. curves: rows
    METRIC@STATE. twice, outdated: what was left out, the latter as {why: phases}. base: the intermediate task of the
    arms that the others are compared with; of two studies that are compared (`against`), the first one's name. notes:
    what else is to be said.
    """

    path: pathlib.Path
    study: str
    runs: dict[tuple[Arm, Target], list[Run]]
    bare: list[Run]
    curves: list[dict]
    unscored: list[tuple[str, str, str]]
    strata: Strata
    twice: list[str]
    outdated: dict[str, list[str]]
    rows: list[dict]
    base: str = BASELINE
    notes: tuple[str, ...] = ()

    def baseline(self, arm: Arm) -> Arm:
        """Returns the arm that one is compared with."""
        return arm._replace(intermediate=self.base)

    @functools.cached_property
    def targets(self) -> list[Target]:
        """Those that say something of transfer: evaluated in some language but English."""
        order = [task for benchmark in BENCHMARKS.values() for task in benchmark.tasks]
        place = lambda target: order.index(target.task) if target.task in order else len(order)  # noqa: E731
        found = sorted(unique(target for _, target in self.runs), key=place)
        return [target for target in found if self.languages(target) != [SOURCE]]

    @functools.cached_property
    def english(self) -> list[Target]:
        """Those that were evaluated in English alone."""
        return [target for target in unique(target for _, target in self.runs) if target not in self.targets]

    @functools.cached_property
    def arms(self) -> list[Arm]:
        """The arms of `targets`, by model, the baseline first."""
        found = unique(arm for arm, target in self.runs if target in self.targets)
        models, order = unique(arm.model for arm in found), (self.base, *tasks.INTERMEDIATE)
        place = lambda arm: order.index(arm.intermediate) if arm.intermediate in order else len(order)  # noqa: E731
        return sorted(found, key=lambda arm: (models.index(arm.model), place(arm)))

    def of(self, arm: Arm, target: Target) -> list[Run]:
        """Returns the runs of an arm on a target."""
        return self.runs.get((arm, target), [])

    def languages(self, target: Target) -> list[str]:
        """Returns the languages in which some run was evaluated, in the order of the task."""
        spec = tasks.get(target.task)
        found = unique(
            code for (_, other), runs in self.runs.items() if other == target for run in runs for code in run.rows
        )
        order = spec.languages + spec.more_languages
        return sorted(found, key=lambda code: order.index(code) if code in order else len(order))

    def parallel(self, target: Target) -> bool:
        """Whether an example id is the same item in every language; in a miniature world it always is."""
        return tasks.get(target.task).parallel or bool(self.strata.world)

    def label(self, target: Target) -> str:
        """Returns the task's name, and its split where there are several."""
        several = {other.split for _, other in self.runs if other.task == target.task}
        return f"{target.task} {target.split}" if len(several) > 1 else target.task


def load(workdir: str | pathlib.Path) -> Folder:
    """Reads a study folder; rows of models that are no longer those of their phases are left out.

    Raises InputError when it has no results, or a file in it is not what it should be.
    """
    workdir = pathlib.Path(workdir)
    rows = result_rows.read(workdir / "results.jsonl")
    if not rows:
        raise InputError(f"{workdir / 'results.jsonl'}: no results yet; run the study first")
    for key in ("task", "language", "split"):  # the report names files after them
        for name in unique(row[key] for row in rows):
            if not re.fullmatch(r"[\w-]+", str(name)):
                raise InputError(f"{workdir / 'results.jsonl'}: {key} {name!r} is not a name")
    left_out = phases.outdated(workdir, unique((row["phase"], row["checkpoint_sha256"]) for row in rows))
    rows = [row for row in rows if (row["phase"], row["checkpoint_sha256"]) not in left_out]
    outdated: dict[str, list[str]] = {}
    for (phase, _), why in left_out.items():
        if phase not in outdated.setdefault(why, []):
            outdated[why].append(phase)
    if not rows:
        reasons = "; ".join(f"{', '.join(names)} {why}" for why, names in outdated.items())
        raise InputError(f"{workdir / 'results.jsonl'}: no results that still hold: {reasons}; run the study again")
    scored = [row for row in rows if row["value"] is not None]
    bare: dict[tuple, Run] = {}
    for row in rows:
        if row["value"] is None:
            own = Arm(row["model"], row["intermediate"]), Target(row["task"], row["split"]), row["seed"]
            bare.setdefault(own, Run(workdir, *own, {})).rows.setdefault(row["language"], {})[row["metric"]] = row
    found: dict[tuple, Run] = {}
    twice: dict[str, None] = {}
    for row in scored:
        if "@" in row["metric"]:
            continue
        arm, target = Arm(row["model"], row["intermediate"]), Target(row["task"], row["split"])
        run = found.setdefault((arm, target, row["seed"]), Run(workdir, arm, target, row["seed"], {}))
        mine = run.rows.setdefault(row["language"], {})
        if mine and next(iter(mine.values()))["evaluation"] != row["evaluation"]:
            twice[f"{row['evaluation']} ({row['task']} {row['split']})"] = None
            continue
        mine[row["metric"]] = row
    runs: dict[tuple[Arm, Target], list[Run]] = {}
    for (arm, target, _), run in sorted(found.items(), key=lambda pair: pair[0][2]):
        runs.setdefault((arm, target), []).append(run)
    order = unique((Arm(row["model"], row["intermediate"]), Target(row["task"], row["split"])) for row in scored)
    return Folder(
        path=workdir,
        study=rows[0]["study"],
        runs={key: runs[key] for key in order if key in runs},
        bare=list(bare.values()),
        curves=[row for row in scored if "@" in row["metric"]],
        unscored=unique((row["task"], row["split"], row["language"]) for row in rows if row["value"] is None),
        strata=_strata(workdir / "strata.json"),
        twice=list(twice),
        outdated=outdated,
        rows=[row for row in scored if "@" not in row["metric"]],
    )


def _strata(path: pathlib.Path) -> Strata:
    if not path.exists():
        return Strata("", {})
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    groups = {key: value for key, value in found.items() if key != "world"} if isinstance(found, dict) else {}
    lists = all(isinstance(codes, list) and all(isinstance(code, str) for code in codes) for codes in groups.values())
    if not groups or not lists or not isinstance(found.get("world"), str) or not found["world"]:
        raise InputError(
            f'{path}: expected {{"world": NAME, STRATUM: [language codes], ...}}, such as "high" and "low"'
        )
    return Strata(found["world"], {key: tuple(codes) for key, codes in groups.items()})


def unique(values: Iterable) -> list[Any]:
    """Returns each value once, in the order of their first."""
    return list(dict.fromkeys(values))
