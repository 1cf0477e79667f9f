"""Each intermediate task against the baseline arm of the same model: differences, intervals, corrected p values."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from jxstilts import tasks
from jxstilts.eval import items
from jxstilts.report import resampling, statistics
from jxstilts.report.folder import Arm, Folder, Run, Target
from jxstilts.report.items import rows as rows_of
from jxstilts.report.resampling import Estimate, Significance
from jxstilts.report.statistics import Seeds
from jxstilts.report.store import Store
from jxstilts.runtime import InputError

DRAWS = 10_000  # fewer, and no p value could outlast the correction for a table of 100 comparisons
LEVEL = 0.05
SLACK = 1e-6  # what sums of items may differ from the value of a row


# what a p value is of
INTERVAL, RANDOMISATION, MCNEMAR = "interval", "randomisation", "McNemar"


@dataclasses.dataclass(frozen=True)
class Test:
    """A two-sided p value of "there is no difference". kind: INTERVAL (of the seeds, too), or for one seed of each arm
    RANDOMISATION or, for single items that are right or wrong, MCNEMAR. n: what is resampled or exchanged. differ: in
    how many of these the two differ; None for an interval.
    """

    kind: str
    p: float
    n: int
    differ: int | None = None


@dataclasses.dataclass(frozen=True)
class InLanguage:
    """An arm less its baseline on one target in one language, in points; the interval is for this very language.

    adjusted: p by Benjamini-Hochberg over all arms and languages of the target.
    """

    language: str
    value: float
    low: float
    high: float
    test: Test
    adjusted: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the corrected p value is below LEVEL."""
        return self.adjusted is not None and self.adjusted < LEVEL


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An arm less its baseline, on one target (None: the mean over targets), in points.

    metrics: the value, or those whose mean it is. languages: those that both have. seeds, others: the runs of the arm
    and of the baseline that have them all. estimate: the interval of the table, whose chance is that of `covers`;
    fixed: the same for these very languages. test: the p value of the table. student: over seeds alone, where both
    have the same ones. each: the languages one by one. adjusted: p by Holm over the table. notes: what is missing.
    Without items there is only the value.
    """

    arm: Arm
    target: Target | None
    metrics: tuple[str, ...]
    languages: tuple[str, ...]
    seeds: tuple[int, ...]
    others: tuple[int, ...]
    value: float
    estimate: Estimate | None = None
    covers: tuple[str, ...] = ()
    fixed: Estimate | None = None
    test: Test | None = None
    student: Seeds | None = None
    each: tuple[InLanguage, ...] = ()
    adjusted: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def significant(self) -> bool:
        """Whether the corrected p value is below LEVEL."""
        return self.adjusted is not None and self.adjusted < LEVEL


def whole(runs: Sequence[Run], metrics: Sequence[str]) -> tuple[list[Run], tuple[str, ...], list[str]]:
    """Returns (the runs that have all languages, these languages, what the other runs lack in words)."""
    held = [run.scores(metrics) for run in runs]
    most = max(held, key=len, default={})
    kept = [run for run, have in zip(runs, held, strict=True) if have and most.keys() <= have.keys()]
    notes = [
        f"seed {run.seed}: {len(have)} of {len(most)} languages, not counted"
        for run, have in zip(runs, held, strict=True)
        if run not in kept
    ]
    return kept, tuple(most), notes


def mean(runs: Sequence[Run], metrics: Sequence[str], languages: Sequence[str]) -> list[float]:
    """Returns the mean over languages of each run."""
    found = []
    for run in runs:
        scores = run.scores(metrics)
        found.append(math.fsum(scores[language] for language in languages) / len(languages))
    return found


def compare(
    folder: Folder, draws: int = DRAWS, say: Callable[[int, int], None] = lambda done, total: None
) -> tuple[list[Comparison], list[Comparison]]:
    """Returns (comparisons on each target, comparisons of the means over targets), p corrected over both (Holm), and
    over the languages and arms of each target (Benjamini-Hochberg).

    say: is told how many arms and targets are done, of how many.
    """
    found: list[Comparison] = []
    means: list[Comparison] = []
    store = Store(folder.path / "report" / "estimates")
    pairs = [
        (arm, target)
        for target in folder.targets
        for arm in folder.arms
        if arm.intermediate != folder.base and folder.of(arm, target) and folder.of(folder.baseline(arm), target)
    ]
    scores: dict[tuple[Arm, Target], Comparison] = {}
    for number, (arm, target) in enumerate(pairs):
        say(number, len(pairs))
        each = [_one(folder, store, arm, target, (metric,), draws) for metric in target.metrics]
        each = [comparison for comparison in each if comparison]
        found += each
        score = (
            each[0] if len(target.metrics) == 1 and each else _one(folder, store, arm, target, target.metrics, draws)
        )
        if score:
            scores[arm, target] = score
    say(len(pairs), len(pairs))
    store.prune()
    for arm in folder.arms:
        base = folder.baseline(arm)
        own = [scores.get((arm, target)) for target in folder.targets if folder.of(base, target)]
        if arm.intermediate != folder.base and len(own) > 1 and None not in own:
            means.append(_mean(arm, own))
    return _corrected(found, means)


def seeds_of(folder: Folder, arm: Arm, target: Target, metrics: Sequence[str]) -> Seeds | None:
    """Returns mean, standard deviation and Student's interval over the whole runs of an arm; None without one."""
    runs, languages, _ = whole(folder.of(arm, target), metrics)
    return statistics.over_seeds(mean(runs, metrics, languages)) if runs else None


def by_language(folder: Folder, arm: Arm, target: Target, metrics: Sequence[str]) -> dict[str, float]:
    """Returns {language: mean over seeds} of the whole runs of an arm."""
    runs, languages, _ = whole(folder.of(arm, target), metrics)
    held = [run.scores(metrics) for run in runs]
    return {language: math.fsum(have[language] for have in held) / len(held) for language in languages if held}


def difference_by_language(folder: Folder, arm: Arm, target: Target, metrics: Sequence[str]) -> dict[str, float]:
    """Returns {language: arm less its baseline}, of the languages that both have."""
    mine = by_language(folder, arm, target, metrics)
    base = by_language(folder, folder.baseline(arm), target, metrics)
    return {language: value - base[language] for language, value in mine.items() if language in base}


def _one(
    folder: Folder, store: Store, arm: Arm, target: Target, metrics: tuple[str, ...], draws: int
) -> Comparison | None:
    """Compares one arm on one target; None where the two share no language or a value is not there."""
    base = folder.baseline(arm)
    sides, languages, notes = [], None, []
    for side in (arm, base):
        runs, own, lack = whole(folder.of(side, target), metrics)
        notes += [f"{side.intermediate}, {note}" for note in lack]
        languages = own if languages is None else tuple(code for code in languages if code in own)
        sides.append(runs)
    if not languages:
        return None
    most = len(folder.languages(target))
    if len(languages) < most:
        notes.append(f"on the {len(languages)} of {most} languages that both have")
    seeds = [tuple(run.seed for run in runs) for runs in sides]
    for name, mine, other in ((arm.intermediate, *seeds), (base.intermediate, *seeds[::-1])):
        absent = sorted(set(other) - set(mine))
        if absent and (len(mine) > 1 or _trained(target)):
            notes.append(f"{name} has no seed {', '.join(map(str, absent))}")
    values = [mean(runs, metrics, languages) for runs in sides]
    value = math.fsum(values[0]) / len(values[0]) - math.fsum(values[1]) / len(values[1])
    student = None
    if seeds[0] == seeds[1] and len(seeds[0]) > 1:
        student = statistics.over_seeds([a - b for a, b in zip(*values, strict=True)])
    comparison = Comparison(arm, target, metrics, languages, *seeds, value, student=student, notes=tuple(notes))
    held = [[run.items(languages) for run in runs] for runs in sides]
    if any(run is None for side in held for run in side):
        return _noted(comparison, "no interval: the items of some runs are not kept; run the study again")
    try:
        (a, b), of, clusters = rows_of(held, folder.parallel(target))
    except InputError:
        return _noted(comparison, "no interval: the two were not evaluated on the same examples")
    return _estimated(comparison, store, a, b, of, clusters, draws)


def _trained(target: Target) -> bool:
    """Returns whether a model is trained for a target, so that each seed is a model of its own (retrieval: none)."""
    return tasks.get(target.task).form.has_head


def _estimated(comparison: Comparison, store: Store, a, b, languages, clusters, draws) -> Comparison:
    """Adds the intervals from items; a, b: {column: [seeds, items]}."""
    metric = tasks.get(comparison.target.task).metric
    same = comparison.seeds == comparison.others
    if len(comparison.seeds) != len(comparison.others) == 1:  # one model is taken as it is, beside each of the others
        b, same = {name: column.repeat(len(comparison.seeds), axis=0) for name, column in b.items()}, True
    elif len(comparison.others) != len(comparison.seeds) == 1:
        a, same = {name: column.repeat(len(comparison.others), axis=0) for name, column in a.items()}, True
    get = functools.partial(
        store.get, score=items.score(metric, comparison.metrics), a=a, b=b, languages=languages, clusters=clusters,
        metrics=(metric, comparison.metrics), draws=draws,
    )  # fmt: skip
    covers: tuple[str, ...] = ("items",)
    if max(len(comparison.seeds), len(comparison.others)) > 1:
        covers = ("seeds", "languages", "items") if len(comparison.languages) > 1 else ("seeds", "items")
        estimate = get(resampling.hierarchical_interval, levels=covers, same_seeds=same)
        fixed = get(resampling.hierarchical_interval, levels=("seeds", "items"), same_seeds=same)
    else:
        estimate = fixed = get(resampling.paired_bootstrap)
    if abs(estimate.value - comparison.value) > SLACK:
        return _noted(comparison, "no interval: the kept items do not give the values of the rows; run the study again")
    alone = fixed.each or (fixed,)
    if covers == ("items",):
        found = get(resampling.randomisation)
        right = _right_or_wrong(a, b)
        test = _exchanged(found, estimate, right)
        tests = [_exchanged(*pair, right) for pair in zip(found.each or (found,), alone, strict=True)]
    else:
        test = Test(INTERVAL, estimate.p, estimate.clusters)
        tests = [Test(INTERVAL, one.p, one.clusters) for one in alone]
    each = tuple(
        InLanguage(language, one.value, one.low, one.high, own)
        for language, one, own in zip(sorted(comparison.languages), alone, tests, strict=True)
    )
    return dataclasses.replace(comparison, estimate=estimate, covers=covers, fixed=fixed, test=test, each=each)


def _right_or_wrong(a, b) -> bool:
    """Returns whether all that is known of an item is whether it is right (1) or wrong (0)."""
    return len(a) == 1 and all(np.isin(column, (0, 1)).all() for side in (a, b) for column in side.values())


def _exchanged(found: Significance, estimate: Estimate, right: bool) -> Test:
    """Names a test of exchanged items: of right or wrong ones, each alone, the exact one is McNemar's."""
    single = right and found.exact and estimate.rows == estimate.clusters
    return Test(MCNEMAR if single and not found.each else RANDOMISATION, found.p, estimate.clusters, found.n)


def _mean(arm: Arm, own: list[Comparison]) -> Comparison:
    """Compares the means over targets; each target's score is the mean of its metrics."""
    value = math.fsum(one.value for one in own) / len(own)
    notes = tuple(dict.fromkeys(f"{one.target.task}: {note}" for one in own for note in one.notes))
    found = Comparison(arm, None, (), (), own[0].seeds, own[0].others, value, notes=notes)
    if any(one.estimate is None for one in own):
        return found
    covers = tuple(name for name in resampling.LEVELS if any(name in one.covers for one in own))
    both = [resampling.combine([getattr(one, field) for one in own]) for field in ("estimate", "fixed")]
    test = Test(INTERVAL, both[0].p, both[0].clusters)
    return dataclasses.replace(found, estimate=both[0], fixed=both[1], covers=covers, test=test)


def _corrected(found: list[Comparison], means: list[Comparison]) -> tuple[list[Comparison], list[Comparison]]:
    """Fills in corrected p values: by Holm over all comparisons that have one, of each target's languages by
    Benjamini-Hochberg.
    """
    both = [*found, *means]
    tested = [one.test.p for one in both if one.test]
    if tested:
        values = iter(statistics.holm(tested).tolist())
        both = [dataclasses.replace(one, adjusted=next(values)) if one.test else one for one in both]
    for target in dict.fromkeys(one.target for one in found):
        own = [one.test.p for comparison in found if comparison.target == target for one in comparison.each]
        values = iter(statistics.benjamini_hochberg(own).tolist() if own else ())
        both = [
            dataclasses.replace(
                comparison, each=tuple(dataclasses.replace(one, adjusted=next(values)) for one in comparison.each)
            )
            if comparison.target == target
            else comparison
            for comparison in both
        ]
    return both[: len(found)], both[len(found) :]


def _noted(comparison: Comparison, note: str) -> Comparison:
    return dataclasses.replace(comparison, notes=(*comparison.notes, note))
