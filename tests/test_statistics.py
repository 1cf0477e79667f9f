"""Statistics against closed forms, scipy and the definitions that they shorten."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jxstilts.report import statistics
from jxstilts.runtime import InputError
from jxstilts.tasks.languages import LANGUAGES

# --- seeds, many comparisons -----------------------------------------------------------------------------------------


def test_over_seeds_is_students_interval():
    values = [81.2, 79.9, 80.7]
    found, theirs = statistics.over_seeds(values), stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.mean, found.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    assert statistics.over_seeds([70.0]) == statistics.Seeds(70.0, 1, None, None, None)
    assert statistics.over_seeds([0.1] * 3).sd == 0
    for wrong in ([], [1.0, math.nan], [[1.0]]):
        with pytest.raises(InputError, match="values of seeds"):
            statistics.over_seeds(wrong)


P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@settings(deadline=None)
@given(P_VALUES)
def test_holm_is_closed_testing_with_bonferroni(p):
    """A hypothesis falls when every set that holds it does: the largest of size x least p."""
    sets = [s for size in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), size)]
    expected = [max(min(1, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(len(p))]
    assert statistics.holm(p) == pytest.approx(expected)


@settings(deadline=None)
@given(P_VALUES)
def test_benjamini_hochberg_is_the_step_up_rule(p):
    expected = [min(1, *(len(p) * q / sum(r <= q for r in p) for q in p if q >= own)) for own in p]
    assert statistics.benjamini_hochberg(p) == pytest.approx(expected)
    assert (statistics.benjamini_hochberg(p) <= statistics.holm(p) + 1e-12).all()


@pytest.mark.parametrize("call", [statistics.holm, statistics.benjamini_hochberg])
@pytest.mark.parametrize("wrong", [[], [0.1, 1.2], [-0.1], [math.nan]])
def test_p_values_are_between_0_and_1(call, wrong):
    with pytest.raises(InputError, match="p values"):
        call(wrong)


# --- languages -------------------------------------------------------------------------------------------------------


def test_transfer_gap():
    found = statistics.transfer_gap({"en": 80.0, "de": 70.0, "sw": 50.0})
    assert found == statistics.Gap(80, 60, 20, 0.25, 2)
    assert statistics.transfer_gap({"en": 0.0, "de": 1.0}).relative is None
    for wrong in ({}, {"en": 1.0}, {"de": 1.0, "sw": 2.0}, {"en": 1.0, "de": math.nan}):
        with pytest.raises(InputError):
            statistics.transfer_gap(wrong)


def test_means_by_resource_class():
    values = {"en": 90.0, "de": 80.0, "zh": 60.0, "hi": 55.0, "th": 50.0, "sw": 40.0, "yo": 10.0}
    assert statistics.means_by(values) == {
        2: statistics.Group(25, ("sw", "yo")), 3: statistics.Group(50, ("th",)),
        4: statistics.Group(55, ("hi",)), 5: statistics.Group(70, ("de", "zh")),
    }  # fmt: skip
    assert {k: group.mean for k, group in statistics.means_by(values, "resource").items()} == {
        "high": 65, "mid": 50, "low": 25,
    }  # fmt: skip
    assert statistics.means_by(values, "in_xlmr")[False].languages == ("yo",)
    with pytest.raises(InputError, match="unknown fact"):
        statistics.means_by(values, "name")
    with pytest.raises(InputError, match="unknown language"):
        statistics.means_by({"xx": 1.0})
    with pytest.raises(InputError, match="beside 'en'"):
        statistics.means_by({"en": 1.0})


@pytest.mark.parametrize("count", [3, 8, 9, 40])
def test_correlation_with_distance(count):
    rng = np.random.default_rng(count)
    names = [name for name in LANGUAGES if name != "en"][:count]
    distances = [LANGUAGES[name].distance for name in names]
    values = dict(zip(names, 70 - 20 * np.array(distances) + rng.normal(size=count), strict=True))
    found = statistics.distance_correlation({"en": 90.0, **values})
    pearson, spearman = (test(distances, list(values.values())) for test in (stats.pearsonr, stats.spearmanr))
    assert (found["pearson"].value, found["pearson"].p) == pytest.approx((pearson.statistic, pearson.pvalue))
    assert found["spearman"].value == pytest.approx(spearman.statistic)
    assert {one.n for one in found.values()} == {count}
    if count > 8:
        assert found["spearman"].p == pytest.approx(spearman.pvalue)


def test_spearman_of_few_languages_counts_orders():
    """Perfect order of six: 2 of 720 orders, where a t distribution says 0."""
    names = sorted((name for name in ("de", "es", "fr", "ja", "ko", "zh")), key=lambda name: LANGUAGES[name].distance)
    found = statistics.distance_correlation({name: float(i) ** 2 for i, name in enumerate(names)})
    assert found["spearman"].value == pytest.approx(1)
    assert found["spearman"].p == pytest.approx(2 / math.factorial(6))
    few = statistics.distance_correlation({"de": 2.0, "th": 2.0, "sw": 2.0})
    assert few["pearson"] == few["spearman"] == statistics.Correlation(None, None, 3)
    with pytest.raises(InputError, match="3 languages"):
        statistics.distance_correlation({"en": 3.0, "de": 2.0, "th": 1.0})


# --- collapsed runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "n"), [(0, 10), (0, 1000), (10, 10), (167, 500), (1670, 5010), (1, 1)])
def test_baseline_interval_is_wilsons(right, n):
    theirs = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    found = statistics.baseline_interval(100 * right / n, n)
    assert found == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=1e-9)
    assert found[0] <= 100 * right / n <= found[1]
    for baseline, number in ((-1, 5), (101, 5), (50, 0)):
        with pytest.raises(InputError, match="baseline"):
            statistics.baseline_interval(baseline, number)


def row(phase, language, value, baseline=33.3, metric="accuracy", n=500):
    return {
        "phase": phase, "checkpoint_sha256": phase, "task": "xnli", "split": "test", "language": language,
        "metric": metric, "value": value, "baseline": baseline, "n": n,
    }  # fmt: skip


def test_collapsed_runs_are_flagged_and_kept():
    """The interval of 33.3 on 500 items ends at 37.5."""
    table = [
        row("good", "en", 37.7), row("good", "sw", 33.0),
        row("bad", "en", 37.4), row("bad", "sw", 60.0), row("worse", "en", 20.0),
        row("mixed", "en", 37.4), row("mixed", "en", 50.0, metric="f1"),
        row("unknown", "en", 1.0, None), row("unknown", "en", None),
    ]  # fmt: skip
    table.append(row("abroad", "sw", 37.7))
    flags = statistics.collapsed(table)
    assert len(flags) == len(table)
    assert [r["phase"] for r, reasons in zip(table, flags, strict=True) if reasons] == ["bad", "bad", "worse"]
    assert set(flags) == {(), ("baseline",)}
    made = {
        statistics.run_of(table[0]): ["entailment"] * 500, statistics.run_of(table[2]): ["neutral"] * 500,
        statistics.run_of(table[4]): ["neutral"], statistics.run_of(table[5]): ["neutral", "entailment"],
    }  # fmt: skip
    assert statistics.collapsed(table, made) == [
        ("constant",), ("constant",), ("baseline", "constant"), ("baseline", "constant"), ("baseline",),
        (), (), (), (), (),
    ]  # fmt: skip
    assert statistics.collapsed([]) == []


@pytest.mark.parametrize(
    ("rows", "trained", "judges", "reasons"),
    [
        # one language: above 37.5, the end of the 95 % interval of 33.3 on 500 items
        ([("sw", 37.4)], None, ("sw",), ("baseline",)),
        ([("sw", 37.7)], None, ("sw",), ()),
        # two: above 38.0, the end at 97.5 %, in one of them
        ([("sw", 37.7), ("de", 33.0)], None, ("sw", "de"), ("baseline",)),
        ([("sw", 38.2), ("de", 33.0)], None, ("sw", "de"), ()),
        # English is there: the others do not count, for it or against it
        ([("en", 37.4), ("de", 90.0)], None, ("en",), ("baseline",)),
        ([("en", 37.7), ("de", 10.0)], None, ("en",), ()),
        # but not where it was not trained in
        ([("en", 20.0), ("de", 90.0)], {"p": ("de",)}, ("de",), ()),
        ([("en", 90.0), ("de", 20.0)], {"p": ("de",)}, ("de",), ("baseline",)),
        ([("en", 37.7), ("de", 20.0), ("sw", 90.0)], {"p": ("en", "de")}, ("en", "de"), ("baseline",)),
        ([("en", 90.0)], {"p": ("de",)}, ("en",), ()),
        ([("en", 20.0)], {"p": ("de",)}, ("en",), ("baseline",)),
        # English without gold or without a baseline: what is left
        ([("en", None), ("de", 37.4)], None, ("de",), ("baseline",)),
        ([("en", 20.0, None), ("de", 60.0)], None, ("de",), ()),
        # nothing to judge by
        ([("en", 20.0, None), ("de", None)], None, (), ()),
    ],
)
def test_a_run_is_judged_by_what_there_is(rows, trained, judges, reasons):
    table = [row("p", *cells) for cells in rows]
    assert statistics.judged_by(table, trained) == {statistics.run_of(table[0]): judges}
    assert set(statistics.collapsed(table, trained=trained)) == {reasons}


@given(st.lists(st.sampled_from(["en", "de", "sw", "ru", "th"]), min_size=1, unique=True), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_a_constant_guess_is_a_collapse_in_any_languages(languages, seed):
    """Right by chance alone, in any number of languages: flagged; the same run with real skill in one: not."""
    rng = np.random.default_rng(seed)
    chance = [row("p", code, 100 * rng.binomial(500, 0.333) / 500 - 2) for code in languages]
    assert set(statistics.collapsed(chance)) == {("baseline",)} or max(r["value"] for r in chance) > 37
    judge = languages.index("en") if "en" in languages else 0
    chance[judge]["value"] = 60.0
    assert set(statistics.collapsed(chance)) == {()}
