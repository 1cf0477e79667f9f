"""Benchmarks as data, and their averages against hand computation and exact fractions."""

import dataclasses
import fractions
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts import tasks
from jxstilts.eval import benchmarks, metrics
from jxstilts.eval.benchmarks import Benchmark, Entry
from jxstilts.runtime import InputError
from jxstilts.tasks import languages, qa

XTREME = benchmarks.get("xtreme")
SMALL = Benchmark(
    name="small",
    source="this file",
    entries=(
        Entry("pawsx", "sentence pair", ("de", "en"), "test", ("accuracy",)),
        Entry("xquad", "question answering", ("de",), "test", ("f1", "exact_match")),
        Entry("tydiqa", "question answering", ("fi", "ko"), "dev", ("f1", "exact_match")),
    ),
)
VALUES = {
    "pawsx": {"de": {"accuracy": 80.0}, "en": {"accuracy": 91.0}},
    "xquad": {"de": {"f1": 70.0, "exact_match": 50.0}},
    "tydiqa": {"fi": {"f1": 60.0, "exact_match": 40.0}, "ko": {"f1": 20.0, "exact_match": 10.0}},
}


# --- the data --------------------------------------------------------------------------------------------------------


def test_xtreme_is_nine_tasks_in_four_groups():
    assert list(benchmarks.BENCHMARKS) == ["xtreme", "xtreme-r"] and benchmarks.BENCHMARKS["xtreme"] is XTREME
    assert {entry.task: (entry.group, len(entry.languages), entry.split) for entry in XTREME.entries} == {
        "xnli": ("sentence pair", 15, "test"),
        "pawsx": ("sentence pair", 7, "test"),
        "udpos": ("structured", 33, "test"),
        "panx": ("structured", 40, "test"),
        "xquad": ("question answering", 11, "test"),
        "mlqa": ("question answering", 7, "test"),
        "tydiqa": ("question answering", 9, "dev"),
        "bucc2018": ("retrieval", 4, "test"),
        "tatoeba": ("retrieval", 36, "test"),
    }
    assert XTREME.groups == ("sentence pair", "structured", "question answering", "retrieval")
    assert {code for entry in XTREME.entries for code in entry.languages} == set(languages.XTREME)


@pytest.mark.parametrize("entry", XTREME.entries, ids=lambda entry: entry.task)
def test_entries_agree_with_their_tasks(entry):
    spec = tasks.get(entry.task)
    assert len(set(entry.languages)) == len(entry.languages)
    assert set(entry.languages) == set(spec.languages) - ({"ro"} if entry.task == "xquad" else set())
    assert entry.split in spec.splits and set(entry.without_dev) < set(entry.languages)
    assert (spec.train_task is None) == (entry.group == "retrieval")  # those are evaluated without training
    assert spec.train_task == {"xnli": "mnli", "xquad": "squad_v1", "mlqa": "squad_v1", "tatoeba": None}.get(
        entry.task, None if entry.task == "bucc2018" else entry.task
    )
    assert set(qa.XQUAD_LANGUAGES) == set(XTREME.entry("xquad").languages)


ONE = {
    "classification": ([0], [{"id": "a", "text_a": "", "text_b": "", "label": 0}]),
    "tagging": ({"a": ["NOUN"]}, [{"id": "a", "words": ["w"], "tags": ["NOUN"]}]),
    "span": ({"a": "w"}, [{"id": "a", "question": "", "context": "w", "answers": [{"text": "w", "start": 0}]}]),
    "mining": ([("0", "0", 1.5)], {"source": [{"id": "0"}], "target": [{"id": "0"}], "gold": [("0", "0")]}),
    "retrieval": ({"0": "0"}, {"source": [{"id": "0"}], "target": [{"id": "0"}], "gold": [("0", "0")]}),
}


@pytest.mark.parametrize("entry", XTREME.entries, ids=lambda entry: entry.task)
def test_metric_names_are_those_that_the_metrics_give(entry):
    spec = tasks.get(entry.task)
    metric = metrics.get(spec.metric, entry.languages[0])
    found = metric.compute(metric.update(*ONE[spec.type]))
    assert set(entry.metrics) <= set(found) and all(found[name] == 100 for name in entry.metrics)


def test_dev_split_is_apart_from_the_test():
    assert {entry.task: benchmarks.dev_split(entry) for entry in XTREME.entries} == {
        "xnli": "dev", "pawsx": "dev", "udpos": "dev", "panx": "dev", "mlqa": "dev", "bucc2018": "dev",
        "xquad": None, "tydiqa": None, "tatoeba": None,
    }  # fmt: skip
    assert {entry.task: entry.without_dev for entry in XTREME.entries if entry.without_dev} == {
        "udpos": ("kk", "th", "tl", "yo")
    }


def test_unknown_names_give_the_nearest():
    with pytest.raises(InputError, match=r"unknown benchmark 'xtrem'; did you mean 'xtreme'\? Known: xtreme, xtreme-r"):
        benchmarks.get("xtrem")
    with pytest.raises(InputError, match=r"task of benchmark 'xtreme' 'tatoba'; did you mean 'tatoeba'"):
        XTREME.entry("tatoba")
    assert XTREME.entry("mlqa").metrics == ("f1", "exact_match")
    with pytest.raises(ValueError, match="benchmark 'small' has a task twice"):
        dataclasses.replace(SMALL, entries=SMALL.entries * 2)


def test_importing_benchmarks_needs_no_device():
    code = "import sys, jxstilts.eval.benchmarks; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- scores by hand --------------------------------------------------------------------------------------------------


def test_scores_by_hand():
    found = benchmarks.score(VALUES, SMALL)
    assert found.tasks == {
        "pawsx": {"accuracy": 85.5},
        "xquad": {"f1": 70.0, "exact_match": 50.0},
        "tydiqa": {"f1": 40.0, "exact_match": 25.0},
    }
    assert found.task_scores == {"pawsx": 85.5, "xquad": 60.0, "tydiqa": 32.5}
    assert found.groups == {"sentence pair": 85.5, "question answering": 46.25}
    assert found.overall == pytest.approx((85.5 + 60 + 32.5) / 3)  # of the tasks, not of the groups


def test_xtreme_by_hand():
    values = {
        entry.task: {language: dict.fromkeys(entry.metrics, 50.0) for language in entry.languages}
        for entry in XTREME.entries
    }
    values["xnli"]["sw"]["accuracy"] = 80.0  # 30 / 15 languages
    values["tydiqa"]["te"]["f1"] = 86.0  # 36 / 9 languages / 2 metrics
    found = benchmarks.score(values, XTREME)
    assert found.task_scores["xnli"] == 52 and found.task_scores["tydiqa"] == 52
    assert found.groups == pytest.approx(
        {"sentence pair": 51, "structured": 50, "question answering": 50 + 2 / 3, "retrieval": 50}
    )
    assert found.overall == pytest.approx(50 + 4 / 9)
    del values["bucc2018"]
    found = benchmarks.score(values, XTREME)
    assert found.overall is None and "retrieval" not in found.groups and found.task_scores["tatoeba"] == 50


def test_no_overall_and_no_group_without_all_of_their_tasks():
    found = benchmarks.score({task: VALUES[task] for task in ("pawsx", "xquad")}, SMALL)
    assert found.overall is None and found.groups == {"sentence pair": 85.5}
    assert found.task_scores == {"pawsx": 85.5, "xquad": 60.0}
    assert benchmarks.score({}, SMALL) == benchmarks.Scores({}, {}, {}, None)


def test_what_a_benchmark_does_not_count_is_left_out():
    more = VALUES | {
        "xquad": VALUES["xquad"] | {"ro": {"f1": 0.0, "exact_match": 0.0}},
        "pawsx": {
            "de": {"accuracy": 80.0, "f1": 10.0, "n": 3},
            "en": {"accuracy": 91.0, "f1": 20.0},
            "de-en": {},
        },
    }
    found, plain = benchmarks.score(more, SMALL), benchmarks.score(VALUES, SMALL)
    assert found.tasks["pawsx"] == {"accuracy": 85.5, "f1": 15.0}  # beside the score, where all languages have it
    assert (found.task_scores, found.groups, found.overall) == (plain.task_scores, plain.groups, plain.overall)


def test_what_is_missing_or_wrong_is_said():
    with pytest.raises(InputError, match=r"task 'tydiqa': 1 of 2 languages are missing: ko"):
        benchmarks.score(VALUES | {"tydiqa": {"fi": VALUES["tydiqa"]["fi"]}}, SMALL)
    with pytest.raises(InputError, match=r"task 'pawsx': 2 of 2 languages are missing: de, en"):
        benchmarks.score({"pawsx": {}}, SMALL)
    with pytest.raises(InputError, match=r"task 'xquad', language 'de': no value 'exact_match'; there: accuracy, f1"):
        benchmarks.score({"xquad": {"de": {"f1": 1.0, "accuracy": 2.0}}}, SMALL)
    with pytest.raises(InputError, match=r"task of benchmark 'small' 'xquat'; did you mean 'xquad'"):
        benchmarks.score({"xquat": VALUES["xquad"]}, SMALL)
    for wrong in (float("nan"), -1.0, 100.1, float("inf")):
        with pytest.raises(InputError, match=rf"'pawsx', language 'en': accuracy is {wrong}; .* from 0 to 100"):
            benchmarks.score({"pawsx": {"de": {"accuracy": 0.0}, "en": {"accuracy": wrong}}}, SMALL)
    assert benchmarks.score({"xquad": {"de": {"f1": 100 + 1e-12, "exact_match": 0}}}, SMALL).task_scores


def over(benchmark, *codes):
    """The benchmark over these languages only; a task without any of them stays a task of it."""
    entries = [
        dataclasses.replace(entry, languages=tuple(code for code in entry.languages if code in codes))
        for entry in benchmark.entries
    ]
    return dataclasses.replace(benchmark, entries=tuple(entries))


def test_a_benchmark_over_fewer_languages():
    part = over(SMALL, "de", "ko")
    found = benchmarks.score(VALUES, part)
    assert found.task_scores == {"pawsx": 80.0, "xquad": 60.0, "tydiqa": 15.0} and found.overall == 155 / 3
    part = over(SMALL, "de")
    found = benchmarks.score({task: VALUES[task] for task in ("pawsx", "xquad")}, part)
    assert found.task_scores == {"pawsx": 80.0, "xquad": 60.0} and found.overall is None
    assert found.groups == {"sentence pair": 80.0}
    with pytest.raises(InputError, match="task 'tydiqa' has no language to score"):
        benchmarks.score(VALUES, part)


# --- for any values --------------------------------------------------------------------------------------------------

percent = st.floats(0, 100)


@st.composite
def scored(draw):
    """A benchmark of any shape, and values for all of it."""
    entries, values = [], {}
    names = draw(st.lists(st.sampled_from(tasks.names()), min_size=1, max_size=5, unique=True))
    for name in names:
        codes = draw(st.lists(st.sampled_from(sorted(languages.LANGUAGES)), min_size=1, max_size=4, unique=True))
        measured = ("f1", "exact_match") if draw(st.booleans()) else ("accuracy",)
        entries.append(Entry(name, draw(st.sampled_from("abc")), tuple(codes), "test", measured))
        values[name] = {code: {metric: draw(percent) for metric in measured} for code in codes}
    return Benchmark("any", tuple(entries), ""), values


def mean(numbers):
    numbers = [fractions.Fraction(number) for number in numbers]
    return sum(numbers) / len(numbers)


@settings(max_examples=150, deadline=None)
@given(scored(), st.randoms(use_true_random=False))
def test_means_of_means_in_any_order(case, rng):
    benchmark, values = case
    found = benchmarks.score(values, benchmark)
    exact = {
        entry.task: mean([mean([row[m] for row in values[entry.task].values()]) for m in entry.metrics])
        for entry in benchmark.entries
    }
    assert found.task_scores == pytest.approx({task: float(value) for task, value in exact.items()})
    assert found.overall == pytest.approx(float(mean(exact.values())))
    for group in benchmark.groups:
        members = [exact[entry.task] for entry in benchmark.entries if entry.group == group]
        assert found.groups[group] == pytest.approx(float(mean(members)))

    def shuffled(mapping):
        items = [(key, shuffled(value) if isinstance(value, dict) else value) for key, value in mapping.items()]
        rng.shuffle(items)
        return dict(items)

    assert benchmarks.score(shuffled(values), benchmark) == found  # to the last digit


@settings(max_examples=100, deadline=None)
@given(scored(), st.data())
def test_a_missing_language_or_metric_never_passes(case, data):
    benchmark, values = case
    entry = data.draw(st.sampled_from(benchmark.entries))
    language = data.draw(st.sampled_from(entry.languages))
    without = values | {entry.task: {code: row for code, row in values[entry.task].items() if code != language}}
    with pytest.raises(InputError, match=rf"task '{entry.task}': 1 of {len(entry.languages)} .* missing: {language}$"):
        benchmarks.score(without, benchmark)
    metric = data.draw(st.sampled_from(entry.metrics))
    row = {name: value for name, value in values[entry.task][language].items() if name != metric}
    with pytest.raises(InputError, match=rf"task '{entry.task}', language '{language}': no value '{metric}'"):
        benchmarks.score(values | {entry.task: values[entry.task] | {language: row}}, benchmark)


@settings(max_examples=100, deadline=None)
@given(scored(), st.data())
def test_one_language_is_its_own_mean(case, data):
    benchmark, values = case
    entry = data.draw(st.sampled_from(benchmark.entries))
    language = data.draw(st.sampled_from(entry.languages))
    part = over(benchmark, language)
    found = benchmarks.score({entry.task: values[entry.task]}, part)
    assert found.tasks == {entry.task: values[entry.task][language]}
    assert found.task_scores[entry.task] == pytest.approx(float(mean(values[entry.task][language].values())))
    assert (found.overall is None) == (len(benchmark.entries) > 1)
