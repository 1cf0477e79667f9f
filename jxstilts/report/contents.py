"""The tables of the report: the headline with differences and intervals, and the tables with its details."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from jxstilts.report import collapse, comparisons, phases
from jxstilts.report.comparisons import INTERVAL, MCNEMAR, RANDOMISATION, Comparison, Test
from jxstilts.report.folder import BASELINE, SOURCE, Arm, Folder, Target, load
from jxstilts.report.sheet import Cell, Table
from jxstilts.report.table import about, name

TESTS = {
    INTERVAL: "p from the draws of the interval, of n clusters of items",
    RANDOMISATION: "p by approximate randomisation of n clusters of items between two runs; nothing is said of other "
    "seeds",
    MCNEMAR: "p by McNemar's exact test of two runs on n items; nothing is said of other seeds",
}


@dataclasses.dataclass(frozen=True)
class Study:
    """A study folder with everything that was computed from it. failed: {phase or evaluation: cause}."""

    folder: Folder
    phases: list[phases.Phase]
    found: list[Comparison]
    means: list[Comparison]
    collapse: collapse.Collapse
    failed: dict[str, str]

    @property
    def collapsed(self) -> dict[collapse.Key, tuple[str, ...]]:
        """{(arm, target, seed): reasons} of the runs that collapsed."""
        return self.collapse.reasons

    @functools.cached_property
    def by_cell(self) -> dict[tuple, Comparison]:
        """{(arm, target or None, metrics): comparison}."""
        return {(one.arm, one.target, one.metrics): one for one in [*self.found, *self.means]}

    @functools.cached_property
    def columns(self) -> list[tuple[Target, str]]:
        """The (target, metric) of the headline."""
        every = [(target, metric) for target in self.folder.targets for metric in target.metrics]
        return [
            (target, metric) for target, metric in every
            if any(comparisons.seeds_of(self.folder, arm, target, (metric,)) for arm in self.folder.arms)
        ]  # fmt: skip

    def title(self, target: Target, metric: str) -> str:
        """Returns a column's heading."""
        return f"{self.folder.label(target)} {name(metric)}"

    @functools.cached_property
    def several(self) -> bool:
        """Whether there are several models, so that an arm is not named by its intermediate task alone."""
        return len({arm.model for arm in self.folder.arms}) > 1

    @property
    def arm_heading(self) -> str:
        """The heading of the names of arms."""
        if self.compared:
            return "arm, study" if self.several else "study"
        return "model, intermediate" if self.several else "intermediate"

    @property
    def compared(self) -> bool:
        """Whether two studies are compared."""
        return self.folder.base != BASELINE

    @property
    def base(self) -> str:
        """What the others are compared with."""
        return self.folder.base if self.compared else "the baseline"

    @property
    def others(self) -> str:
        """What is compared with it."""
        return "the other study" if self.compared else "intermediate tasks"

    def value(self, arm: Arm, target: Target, metric: str) -> float | None:
        """Returns an arm's mean over languages and seeds; None where it has none."""
        own = comparisons.seeds_of(self.folder, arm, target, (metric,))
        return own.mean if own else None

    def who(self, arm: Arm) -> str:
        """Returns the name of an arm."""
        return arm.title if self.several else arm.intermediate or "-"


def study(workdir: Any, draws: int, say: Callable[[int, int], None]) -> Study:
    """Reads a study folder and computes what its report says. Raises InputError as `folder.load`."""
    folder = load(workdir)
    found, means = comparisons.compare(folder, draws, say)
    trained = phases.load(folder.path)
    return Study(folder, trained, found, means, collapse.find(folder, trained), phases.failed(folder.path))


def headline(it: Study) -> Table:
    """Rows: intermediate tasks, the baseline first and absolute, the others as differences from it."""
    folder = it.folder
    models = list(dict.fromkeys(arm.model for arm in folder.arms))
    averages = {arm: _average(it, arm) for arm in folder.arms}
    averaged = len(folder.targets) > 1 and any(value is not None for value in averages.values())
    header = [it.arm_heading, *(it.title(*column) for column in it.columns)]
    header += ["mean of tasks"] if averaged else []
    body = []
    for model in models:
        arms = [arm for arm in folder.arms if arm.model == model]
        values = {
            (arm, column): comparisons.seeds_of(folder, arm, column[0], (column[1],))
            for arm in arms for column in it.columns
        }  # fmt: skip
        for arm in arms:
            cells: list[str | Cell] = [it.who(arm)]
            for column in it.columns:
                own = values[arm, column]
                best = _best([one.mean for other in arms if (one := values[other, column])])
                down = sum(key[:2] == (arm, column[0]) for key in it.collapsed)
                cells.append(_cell(it, arm, column[0], (column[1],), own and own.mean, best, down))
            if averaged:
                best = _best([averages[other] for other in arms if averages[other] is not None])
                cells.append(_cell(it, arm, None, (), averages[arm], best, 0))
            body.append(cells)
    body.append(["trivial rule", *(_trivial(it, *column) for column in it.columns), *([""] * averaged)])
    shown = 1 + 2 * any(one.estimate for one in [*it.found, *it.means]) + bool(it.collapsed)  # what its marks mean
    return Table(
        "headline", f"Zero-shot transfer: {it.base} in per cent, {it.others} as differences from it in points",
        header, body, _headline_notes(it), shown=shown,
    )  # fmt: skip


def _best(values: list[float]) -> float | None:
    return max(values) if len(values) > 1 else None  # one value alone is not marked as the best


def _cell(it, arm, target, metrics, value, best, down) -> Cell | str:
    if value is None:
        return "-"
    one = it.by_cell.get((arm, target, metrics))
    bold, mark = value == best, "†" * bool(down)
    if arm == it.folder.baseline(arm) or not _has_baseline(it.folder, arm, target):
        return Cell(f"{value:.1f}", "" if arm == it.folder.baseline(arm) else "absolute", bold, mark)
    if one is None:
        return Cell(f"{value:.1f}", "absolute", bold, mark)
    if one.estimate is None:
        return Cell(signed(one.value), "no interval", bold, mark)
    return Cell(signed(one.value), interval(one.estimate), bold, "*" * one.significant + mark)


def _has_baseline(folder: Folder, arm: Arm, target: Target | None) -> bool:
    base = folder.baseline(arm)
    return base in folder.arms if target is None else bool(folder.of(base, target))


def _average(it: Study, arm: Arm) -> float | None:
    """Returns the mean over all targets that any arm of the model has; None where the arm lacks one."""
    folder = it.folder
    needed = [
        t for t in folder.targets if any(folder.of(other, t) for other in folder.arms if other.model == arm.model)
    ]
    found = [comparisons.seeds_of(folder, arm, target, target.metrics) for target in needed]
    return sum(one.mean for one in found) / len(found) if found and None not in found else None


def _trivial(it: Study, target: Target, metric: str) -> str:
    values = []
    for (_, other), runs in it.folder.runs.items():
        if other == target:
            values += [value for run in runs for value in run.scores((metric,), "baseline").values()]
    return f"{sum(values) / len(values):.1f}" if values else "-"


def _headline_notes(it: Study) -> list[str]:
    """What the marks mean, what the intervals cover, what is missing."""
    folder = it.folder
    both = [*it.found, *it.means]
    tested = [one for one in both if one.estimate is not None]
    notes = [
        "Means over languages, English included where the task has it, and over seeds; bold: the best of a column."
    ]
    if tested:
        covers = sorted({one.covers for one in tested})
        notes.append(
            "Small print: the 95 % interval of the difference. It covers the chance of "
            + "; or of ".join(" and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) for names in covers)
            + (
                " (one run of each arm says nothing of other seeds)."
                if ("items",) in covers else "."
            )
        )  # fmt: skip
        notes.append(
            f"* p < {comparisons.LEVEL:g}, corrected by Holm over the {len(tested)} comparisons of this table; "
            f"{sum(one.significant for one in tested)} hold."
        )
    if it.collapsed:
        runs = len(it.collapsed)
        notes.append(f"† {runs} collapsed run{'s are' if runs > 1 else ' is'} counted in (see Collapsed runs).")
    notes += how_tested([
        ("mean of tasks" if one.target is None else folder.label(one.target), one.test) for one in tested
    ])  # fmt: skip
    if text := collapse.not_judged(folder, it.collapse):
        notes.append(f"Whether a run collapsed could not be judged: {text}.")
    bare = [
        model for model in dict.fromkeys(a.model for a in folder.arms) if Arm(model, folder.base) not in folder.arms
    ]
    for model in bare:
        notes.append(f"{model} has no arm {folder.base!r}: its values are absolute, and nothing can be said of a gain.")
    notes += [about(folder, target) for target in folder.targets]
    notes += _chosen_on(it)
    lacks: dict[tuple[Arm, str], dict[str, None]] = {}
    for one in it.found:
        for note in one.notes:
            lacks.setdefault((one.arm, note), {})[folder.label(one.target)] = None
    notes += [f"Missing: {arm.title} on {', '.join(labels)}: {note}" for (arm, note), labels in lacks.items()]
    for arm in folder.arms:
        absent = [folder.label(target) for target in folder.targets if not folder.of(arm, target)]
        if absent:
            notes.append(f"Missing: {arm.title} has no result on {', '.join(absent)}.")
    if folder.twice:
        notes.append(f"Evaluated twice for one arm and seed, the first counts; left out: {', '.join(folder.twice)}.")
    return notes


def how_tested(tests: Sequence[tuple[str, Test]]) -> list[str]:
    """Returns a line on each kind of test: what it is, of what, with how many items; tests: (of what, test)."""
    notes = []
    for kind, text in TESTS.items():
        own = [(label, test) for label, test in tests if test.kind == kind]
        if own:
            labels = ", ".join(dict.fromkeys(label for label, _ in own))
            notes.append(f"{labels}: {text} (n = {span([test.n for _, test in own])}).")
    return notes


def span(numbers: Sequence[int]) -> str:
    """Returns "300", or "100 to 300"."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _chosen_on(it: Study) -> list[str]:
    """Names the targets whose English rows also chose the checkpoint."""
    rows = {
        (row["task"], row["phase"]) for row in it.folder.rows if row["split"] == "dev" and row["language"] == SOURCE
    }
    found = set()
    for phase in it.phases:
        if phase.config.get("select", {}).get("metric"):
            for key, stream in phase.config.get("tasks", {}).items():
                task = stream.get("task") or key
                if (task, phase.name) in rows and not stream.get("holdout"):
                    found.add(task)
    targets = [target.task for target in it.folder.targets if target.task in found and target.split == "dev"]
    return [f"{task}: some English rows of this split have also chosen the checkpoint." for task in targets]


def details(it: Study) -> Table:
    """Every comparison in full."""
    header = [
        it.arm_heading, "difference", "95 % interval", "these languages only", "p", "p (Holm)", "test", "seeds",
        "languages", "items", "drawn as one", "differ",
    ]  # fmt: skip
    groups: dict[str, list[list[str | Cell]]] = {}
    for one in [*it.found, *it.means]:
        label = "mean of tasks" if one.target is None else it.title(one.target, one.metrics[0])
        cells, sizes, differ = ["-"] * 5, ["-"] * 2, "-"
        if one.estimate and one.test:
            p = f"{one.test.p:.4f}" if one.test.p >= 0.0001 else "< 0.0001"
            cells = [interval(one.estimate), interval(one.fixed), p, f"{one.adjusted:.4f}", one.test.kind]
            sizes = [f"{one.estimate.rows:,}", f"{one.estimate.clusters:,}"]
            differ = "-" if one.test.differ is None else f"{one.test.differ:,}"
        groups.setdefault(label, []).append([
            it.who(one.arm), Cell(signed(one.value), mark="*" * one.significant), *cells,
            f"{len(one.seeds)} / {len(one.others)}", str(len(one.languages) or "-"), *sizes, differ,
        ])  # fmt: skip
    notes = [
        "Seeds: of the arm / of the baseline. Drawn as one: the number of clusters of items that are resampled "
        "together, such as a sentence in all its languages, or the questions about one paragraph. Differ: the number "
        "of clusters in which the two runs differ; the test of one seed uses these alone.",
        "These languages only: the interval leaves out the chance of having chosen other languages.",
    ]
    body = [row for label, rows in groups.items() for row in ([label], *rows)]
    return Table("comparisons", f"Every comparison with {it.base}", header, body, notes)


def seeds(it: Study) -> Table:
    """Mean, spread and number of the runs of every arm, and the collapsed ones."""
    header = [it.arm_heading, "mean", "sd", "runs", "Student's 95 % interval", "difference", "collapsed"]
    body: list[list[str]] = []
    for target, metric in it.columns:
        body.append([it.title(target, metric)])
        for arm in it.folder.arms:
            own = comparisons.seeds_of(it.folder, arm, target, (metric,))
            if own is None:
                continue
            one = it.by_cell.get((arm, target, (metric,)))
            student = one.student if one else None
            body.append([
                it.who(arm), f"{own.mean:.2f}", "-" if own.sd is None else f"{own.sd:.2f}",
                str(own.n),
                "-" if own.low is None else f"{own.low:.2f} to {own.high:.2f}".replace("-", "−"),
                "-" if student is None else interval(student, 2), it.collapse.count(arm, target),
            ])  # fmt: skip
    notes = [
        "Over seeds alone, with these items and languages. Difference: from the baseline, over paired seeds. "
        "Collapsed: the number of runs; ?: it cannot be judged.",
    ]
    return Table("seeds", "Seeds: mean and standard deviation over runs", header, body, notes)


def fallen(it: Study) -> Table | None:
    """The collapsed runs and why they count as such, and what could not be judged; None where there is neither."""
    if not it.collapsed and not it.collapse.open:
        return None
    body = [
        [it.who(arm), it.folder.label(target), str(seed), " ".join(it.collapse.languages[arm, target, seed]),
         "; ".join(collapse.REASONS[reason] for reason in reasons)]
        for (arm, target, seed), reasons in it.collapsed.items()
    ]  # fmt: skip
    body += [
        [it.who(arm), it.folder.label(target), str(seed), " ".join(it.collapse.languages[arm, target, seed]),
         f"not judged: {why}"]
        for (arm, target, seed), why in it.collapse.open.items()
    ]  # fmt: skip
    notes = ["The rule was fixed beforehand (see How the statistics are made); collapsed runs are never dropped."]
    header = [it.arm_heading, "target", "seed", "judged by", "why"]
    return Table("collapsed", f"Collapsed runs: {len(it.collapsed)}", header, body, notes, left=5)


def value_records(it: Study) -> list[dict]:
    """A record for every value of every run, with what the statistics say of its run."""
    return [
        {
            "model": arm.model, "intermediate": arm.intermediate, "task": target.task, "split": target.split,
            "seed": run.seed, "language": language, "metric": metric, "value": row["value"], "low": row.get("low"),
            "high": row.get("high"), "baseline": row["baseline"], "n": row["n"],
            "collapsed": "not judged" if (arm, target, run.seed) in it.collapse.open
            else " ".join(it.collapsed.get((arm, target, run.seed), ())),
            "checkpoint_sha256": row.get("checkpoint_sha256"),
        }
        for (arm, target), runs in it.folder.runs.items()
        for run in runs
        for language, rows in run.rows.items()
        for metric, row in rows.items()
    ]  # fmt: skip


def comparison_records(it: Study) -> list[dict]:
    """A record for every comparison, numbers in full."""
    records = []
    for one in [*it.found, *it.means]:
        ends = [
            getattr(found, key, None) for found in (one.estimate, one.fixed, one.student) for key in ("low", "high")
        ]
        names = ("low", "high", "low_these_languages", "high_these_languages", "low_seeds", "high_seeds")
        task, split = one.target or ("mean", "")
        records.append({
            "model": one.arm.model, "intermediate": one.arm.intermediate, "task": task, "split": split,
            "metric": " ".join(one.metrics), "difference": one.value,
            **dict(zip(names, ends, strict=True)), "p": one.test and one.test.p, "p_holm": one.adjusted,
            "test": one.test and one.test.kind, "differ": one.test and one.test.differ,
            "covers": " ".join(one.covers), "seeds": " ".join(map(str, one.seeds)),
            "baseline_seeds": " ".join(map(str, one.others)), "languages": " ".join(one.languages),
            "items": one.estimate and one.estimate.rows, "clusters": one.estimate and one.estimate.clusters,
            "notes": "; ".join(one.notes),
        })  # fmt: skip
    return records


def signed(value: float, digits: int = 1) -> str:
    """+1.2, −1.2; a value that rounds to zero has no sign."""
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "−")


def interval(found: Any, digits: int = 1) -> str:
    """Returns "−0.4 to +1.2"."""
    return f"{signed(found.low, digits)} to {signed(found.high, digits)}"


def columns_of(it: Study) -> Sequence[tuple[Target, str]]:
    """The (target, metric) that have figures of their own: the first metric of each target."""
    return [(target, metric) for target, metric in it.columns if metric == target.metrics[0]]
