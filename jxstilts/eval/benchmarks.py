"""Benchmarks as data: which tasks and languages count, on which split, and how their values become one number.

A further benchmark is a further entry of `BENCHMARKS`; nothing here knows how many tasks one has.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from jxstilts import tasks
from jxstilts.runtime import InputError, suggest

ROUNDING = 1e-6  # how far above 100 a sum of floats may end


@dataclasses.dataclass(frozen=True)
class Entry:
    """One task of a benchmark.

    languages: those whose mean is the task's value. split: the one that the benchmark calls its test.
    metrics: the names of the values whose mean is the task's score (answers: F1 and exact match).
    without_dev: languages that have this split only, where others have a dev split.
    also: further groups whose mean it counts in.
    """

    task: str
    group: str
    languages: tuple[str, ...]
    split: str
    metrics: tuple[str, ...]
    without_dev: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups whose mean the task counts in."""
        return (self.group, *self.also)


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Tasks in the order in which they are reported. source: where its languages and rules were read.

    overall: what its one number, the mean of all tasks, is called. rule: what has to be said of it.
    """

    name: str
    entries: tuple[Entry, ...]
    source: str
    overall: str = "overall"
    rule: str = ""

    def __post_init__(self):
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"benchmark {self.name!r} has a task twice: {', '.join(self.tasks)}")

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(entry.task for entry in self.entries)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(itertools.chain.from_iterable(entry.groups for entry in self.entries)))

    def entry(self, task: str) -> Entry:
        """Returns the entry of a task. Raises InputError with the known and the nearest task."""
        for entry in self.entries:
            if entry.task == task:
                return entry
        raise InputError(suggest(f"task of benchmark {self.name!r}", task, self.tasks))


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a benchmark says of one model; its scores go from 0 to 100.

    tasks: {task: {metric: mean over its languages}}, every metric that all of its languages have.
    task_scores: {task: mean of its entry's metrics}. groups: {group: mean of its tasks}, groups with all tasks there.
    overall: the mean of all tasks of the benchmark; None where one is missing.
    """

    tasks: dict[str, dict[str, float]]
    task_scores: dict[str, float]
    groups: dict[str, float]
    overall: float | None


def get(name: str) -> Benchmark:
    """Returns a benchmark by name. Raises InputError with the known and the nearest name."""
    if name not in BENCHMARKS:
        raise InputError(suggest("benchmark", name, BENCHMARKS))
    return BENCHMARKS[name]


def dev_split(entry: Entry) -> str | None:
    """Returns the split on which choices for this task are made, or None where all labelled data is its test.

    The languages of `without_dev` do not have it.
    """
    return "dev" if entry.split != "dev" and "dev" in tasks.get(entry.task).splits else None


def score(values: Mapping[str, Mapping[str, Mapping[str, float]]], benchmark: Benchmark) -> Scores:
    """Averages {task: {language: {metric: 0 to 100}}} by the benchmark's rules.

    Tasks may be missing: then there is no overall value, and none for their groups. A task that is given must have
    all languages of its entry, and these all metrics of its score; languages beyond them are left out. (For fewer
    languages give a benchmark whose entries have fewer.) The order of `values` changes nothing.
    Raises InputError for an unknown task, a missing language or metric, and a value that is not from 0 to 100.
    """
    for task in values:
        benchmark.entry(task)
    means, scores = {}, {}
    for entry in benchmark.entries:
        if entry.task in values:
            means[entry.task] = _over_languages(entry, values[entry.task])
            scores[entry.task] = _mean([means[entry.task][metric] for metric in entry.metrics])
    groups = {}
    for group in benchmark.groups:
        members = [entry.task for entry in benchmark.entries if group in entry.groups]
        if all(task in scores for task in members):
            groups[group] = _mean([scores[task] for task in members])
    complete = len(scores) == len(benchmark.entries)
    return Scores(means, scores, groups, _mean(list(scores.values())) if complete else None)


def _over_languages(entry, found):
    """{language: {metric: value}} -> {metric: mean}, the entry's metrics first."""
    if not entry.languages:
        raise InputError(f"task {entry.task!r} has no language to score")
    missing = [language for language in entry.languages if language not in found]
    if missing:
        raise InputError(
            f"task {entry.task!r}: {len(missing)} of {len(entry.languages)} languages are missing: {', '.join(missing)}"
        )
    rows = {language: found[language] for language in entry.languages}
    for language, row in rows.items():
        where = f"task {entry.task!r}, language {language!r}"
        for metric in entry.metrics:
            if metric not in row:
                raise InputError(f"{where}: no value {metric!r}; there: {', '.join(sorted(row)) or 'none'}")
            if not -ROUNDING <= row[metric] <= 100 + ROUNDING:  # which NaN is not either
                raise InputError(f"{where}: {metric} is {row[metric]}; expected a value from 0 to 100")
    shared = set.intersection(*(set(row) for row in rows.values()))
    names = (*entry.metrics, *sorted(shared - set(entry.metrics)))
    return {metric: _mean([row[metric] for row in rows.values()]) for metric in names}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)  # exact sum: the same in any order


PAIR, STRUCTURED, QA, RETRIEVAL = "sentence pair", "structured", "question answering", "retrieval"
SPAN = ("f1", "exact_match")


def _codes(text: str) -> tuple[str, ...]:
    return tuple(text.split())


XTREME = Benchmark(
    name="xtreme",
    source="evaluate.py of github.com/google-research/xtreme at 838c13b",
    entries=(
        Entry("xnli", PAIR, _codes("ar bg de el en es fr hi ru sw th tr ur vi zh"), "test", ("accuracy",)),
        Entry("pawsx", PAIR, _codes("de en es fr ja ko zh"), "test", ("accuracy",)),
        Entry(
            "udpos",
            STRUCTURED,
            _codes(
                """af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur vi yo
                zh"""
            ),
            "test",
            ("f1",),
            without_dev=("kk", "th", "tl", "yo"),
        ),
        Entry(
            "panx",
            STRUCTURED,
            _codes(
                """af ar bg bn de el en es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr ms my nl pt ru sw ta te
                th tl tr ur vi yo zh"""
            ),
            "test",
            ("f1",),
        ),
        # without Romanian, which came to XQuAD later
        Entry("xquad", QA, _codes("ar de el en es hi ru th tr vi zh"), "test", SPAN),
        # context and question in the same language
        Entry("mlqa", QA, _codes("ar de en es hi vi zh"), "test", SPAN),
        Entry("tydiqa", QA, _codes("ar bn en fi id ko ru sw te"), "dev", SPAN),
        Entry("bucc2018", RETRIEVAL, _codes("de fr ru zh"), "test", ("f1",)),
        Entry(
            "tatoeba",
            RETRIEVAL,
            _codes(
                """af ar bg bn de el es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr nl pt ru sw ta te th tl tr
                ur vi zh"""
            ),
            "test",
            ("accuracy",),
        ),
    ),
)

CLASSIFICATION, TAGGING, ANSWERS, CHOICE = "classification", "tagging", "answer retrieval", "multi_choice"


def _more(task: str, languages: str) -> tuple[str, ...]:
    """Returns XTREME's languages of a task and those that XTREME-R adds."""
    return XTREME.entry(task).languages + _codes(languages)


# The groups are those of the release, where XCOPA is in two and LAReQA in none; it stands in a group of its own.
XTREME_R = Benchmark(
    name="xtreme-r",
    source="evaluate.py of github.com/google-research/xtreme at 838c13b; Ruder et al. 2021 for the mean of ten",
    overall="mean of ten",
    rule="the mean of ten tasks is the paper's rule; the released evaluator has no number for LAReQA and prints none",
    entries=(
        Entry("xnli", CLASSIFICATION, _more("xnli", ""), "test", ("accuracy",)),
        Entry(
            "xcopa", CLASSIFICATION, _codes("et ht id it qu sw ta th tr vi zh"), "test", ("accuracy",), also=(CHOICE,)
        ),
        Entry(
            "udpos", TAGGING, _more("udpos", "lt pl uk wo ro"), "test", ("f1",), without_dev=("kk", "th", "tl", "yo")
        ),
        Entry("panx", TAGGING, _more("panx", "qu pl uk az lt pa gu ro"), "test", ("f1",)),
        Entry("xquad", QA, _more("xquad", "ro"), "test", SPAN),
        Entry("mlqa", QA, _more("mlqa", ""), "test", SPAN),
        Entry("tydiqa", QA, _more("tydiqa", ""), "dev", SPAN),
        Entry("tatoeba", RETRIEVAL, _more("tatoeba", "az lt pl uk ro"), "test", ("accuracy",)),
        Entry("mewslix", RETRIEVAL, _codes("ar de en es fa ja pl ro ta tr uk"), "test", ("map20",)),
        # the mean over the languages of the questions, of which each has as many, is the mean over all questions
        Entry("lareqa", ANSWERS, _codes("ar de el en es hi ru th tr vi zh"), "test", ("map20",)),
    ),
)

BENCHMARKS = {benchmark.name: benchmark for benchmark in (XTREME, XTREME_R)}
