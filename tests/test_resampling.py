"""Resampling against closed forms, scipy, enumeration of every outcome, and simulated data whose truth is known."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jxstilts.eval import metrics
from jxstilts.report.resampling import Significance, combine, hierarchical_interval, paired_bootstrap, randomisation
from jxstilts.runtime import InputError


def score_of(metric, value):
    return lambda sums, n: metrics.get(metric).score(sums, n)[value]


def everything(found):
    return found.value, found.low, found.high, found.p, found.samples.tolist()


# --- paired bootstrap ------------------------------------------------------------------------------------------------


def test_bootstrap_of_a_mean_is_the_normal_interval():
    rng = np.random.default_rng(0)
    a, b = rng.random(400) + 0.05, rng.random(400)
    found = paired_bootstrap(a, b, draws=4000)
    middle, half = (a - b).mean(), 1.96 * (a - b).std() / 20
    assert found.value == pytest.approx(middle)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), abs=0.1 * half)
    assert found.p == pytest.approx(2 * stats.norm.sf(middle / (half / 1.96)), abs=0.02)
    assert (found.rows, found.clusters, len(found.samples)) == (400, 400, 4000)
    theirs = stats.bootstrap((a - b,), np.mean, method="percentile", n_resamples=4000, rng=rng).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(theirs), abs=0.15 * half)


@pytest.mark.parametrize("values", [[0.0, 1.0, 5.0], [0.0, 1.0] * 20])
def test_draws_have_the_frequencies_of_all_resamples(values):
    """27 resamples of three items; of two kinds, drawn as counts, the binomial distribution."""
    found = paired_bootstrap(values, [0.0] * len(values), draws=20_000)
    if len(values) == 3:
        outcomes = [sum(draw) / 3 for draw in itertools.product(values, repeat=3)]
        expected = {round(value, 9): outcomes.count(value) / 27 for value in outcomes}
    else:
        expected = {round(k / 40, 9): stats.binom.pmf(k, 40, 0.5) for k in range(41)}
    seen, counts = np.unique(found.samples.round(9), return_counts=True)
    assert set(seen) <= set(expected)
    for value, share in expected.items():
        assert counts[seen == value].sum() / 20_000 == pytest.approx(share, abs=0.012)


def test_bootstrap_of_a_function_of_sums():
    """seqeval's F1 against a plain loop over drawn items."""
    rng = np.random.default_rng(1)
    gold = rng.integers(0, 4, 80)
    both = []
    for right in (0.8, 0.6):
        predicted = np.maximum(0, gold + rng.integers(-1, 2, 80))
        correct = rng.binomial(np.minimum(gold, predicted), right)
        both.append({"correct": correct, "predicted": predicted, "gold": gold, "right": gold, "total": gold})
    found = paired_bootstrap(*both, score=score_of("seqeval", "f1"), draws=3000)

    def f1(system, at):
        return 200 * system["correct"][at].sum() / (system["predicted"][at].sum() + system["gold"][at].sum())

    loop = [f1(both[0], at) - f1(both[1], at) for at in rng.integers(0, 80, (3000, 80))]
    assert found.value == pytest.approx(f1(both[0], slice(None)) - f1(both[1], slice(None)))
    width = np.ptp(np.percentile(loop, [2.5, 97.5]))
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(loop, [2.5, 97.5])), abs=0.08 * width)


def test_value_is_the_mean_over_languages_and_seeds():
    a, b = np.random.default_rng(2).random((2, 3, 60))
    languages = np.repeat(["de", "en", "th"], [10, 20, 30])
    found = paired_bootstrap(a, b[:2], languages=languages, draws=10)
    expected = [
        np.mean([values[:, languages == language].mean() for language in ("de", "en", "th")]) for values in (a, b[:2])
    ]
    assert found.value == pytest.approx(expected[0] - expected[1])
    scored = paired_bootstrap(
        {"accuracy": a}, {"accuracy": b}, languages=languages, score=score_of("accuracy", "accuracy"), draws=10
    )  # fmt: skip
    plain = paired_bootstrap(a, b, languages=languages, draws=10)
    assert scored.samples == pytest.approx(100 * plain.samples)
    ratio = {"x": a, "y": b + 1}
    found = paired_bootstrap(ratio, {"x": 0 * a, "y": b + 1}, score=lambda sums, n: sums["x"] / sums["y"], draws=10)
    assert found.value == pytest.approx(np.mean(a.sum(1) / (b + 1).sum(1)))


def test_parallel_items_are_drawn_together():
    """The same items in 9 languages say no more than in one; unrelated ones a third of its width."""
    a = np.tile(np.random.default_rng(3).normal(size=200), 9)
    languages, ids = np.repeat([f"l{i}" for i in range(9)], 200), np.tile(np.arange(200), 9)
    one = paired_bootstrap(a[:200], np.zeros(200), draws=2000)
    clustered = paired_bootstrap(a, 0 * a, clusters=ids, languages=languages, draws=2000)
    apart = paired_bootstrap(a, 0 * a, languages=languages, draws=2000)
    assert clustered.samples.std() == pytest.approx(one.samples.std(), rel=1e-9)
    assert apart.samples.std() == pytest.approx(one.samples.std() / 3, rel=0.07)
    assert (clustered.clusters, apart.clusters, apart.rows) == (200, 1800, 1800)


def test_a_paragraph_is_drawn_with_all_its_questions():
    rng = np.random.default_rng(4)
    paragraph = np.repeat(np.arange(50), 4)
    a = rng.normal(size=50)[paragraph] + 0.1 * rng.normal(size=200)
    wide = paired_bootstrap(a, 0 * a, clusters=[f"p{i}" for i in paragraph], draws=2000)
    narrow = paired_bootstrap(a, 0 * a, draws=2000)
    assert 1.7 < wide.samples.std() / narrow.samples.std() < 2.3


def test_languages_that_share_items_only_in_part():
    """A draw in which a language has no item takes no part; one that shares nothing keeps its number of items."""
    values, languages = [1.0, 0, 0, 1, 1, 0, 0.5], ["ar", "ar", "ar", "de", "sw", "sw", "sw"]
    found = paired_bootstrap(
        values, [0.0] * 7, clusters=["1", "2", "3", "3", "4", "5", "6"], languages=languages, draws=500
    )
    assert found.value == pytest.approx((1 / 3 + 1 + 1 / 2) / 3)
    assert found.clusters == 6
    assert len(found.samples) == pytest.approx(500 * (1 - (2 / 3) ** 3), abs=40)


def simulate(rng, languages=3, items=40, shared=1.0):
    """Differences without an effect: what an item does is the same in all its languages but for some noise."""
    d = shared * rng.normal(size=items) + 0.3 * rng.normal(size=(languages, items))
    names = np.repeat(np.arange(languages), items)
    return d.ravel(), names, np.tile(np.arange(items), languages)


def test_level_and_coverage_on_data_without_an_effect():
    """Clustered, p < 0.05 comes in about 5 % of 300 data sets; as if languages were independent, much more often."""
    rng = np.random.default_rng(5)
    covered, false, naive, flips = [], [], [], []
    for number in range(300):
        d, languages, ids = simulate(rng)
        found = paired_bootstrap(d, 0 * d, clusters=ids, languages=languages, draws=400, seed=number)
        covered.append(found.low <= 0 <= found.high)
        false.append(found.p < 0.05)
        flips.append(randomisation(d, 0 * d, clusters=ids, languages=languages, draws=400, seed=number).p < 0.05)
        naive.append(paired_bootstrap(d, 0 * d, languages=languages, draws=100, seed=number).p < 0.05)
    assert 0.91 <= np.mean(covered) <= 0.98
    assert 0.02 <= np.mean(false) <= 0.09
    assert 0.02 <= np.mean(flips) <= 0.09
    assert np.mean(naive) > 0.15


def test_p_goes_with_the_interval():
    rng = np.random.default_rng(6)
    for shift in (0.0, 0.1, 0.2, 0.3, 0.5):
        found = paired_bootstrap(rng.normal(shift, size=100), np.zeros(100), draws=2000)
        if abs(found.p - 0.05) > 0.005:
            assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


def test_equal_systems_and_a_single_item():
    a = np.random.default_rng(7).random((3, 50))
    found = paired_bootstrap(a, a, draws=200)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert randomisation(a, a).p == 1
    one = paired_bootstrap([1.0], [0.25], draws=99)
    assert (one.value, one.low, one.high) == (0.75, 0.75, 0.75)
    assert one.p == 2 / 100
    assert randomisation([1.0], [0.25]) == Significance(0.75, 1.0, 1, True)


def test_memory_is_bounded():
    a, b = np.random.default_rng(8).random((2, 100_000))
    tracemalloc.start()
    paired_bootstrap(a, b, draws=100)  # five chunks; more of them take no more
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(2, 12), st.integers(0, 5))
def test_order_of_items_and_columns_changes_nothing(random, n, seed):
    rng = np.random.default_rng(random.randrange(2**32))
    names = ["x", "y"]
    a, b = ({name: rng.random((2, n)) for name in names} for _ in range(2))
    languages, clusters = rng.integers(0, 2, n), rng.integers(0, max(2, n // 2), n)
    languages[:2] = 0, 1
    order = rng.permutation(n)
    moved = [{name: system[name][:, order] for name in reversed(names)} for system in (a, b)]
    fixed = {"score": lambda sums, n: (sums["x"] + 0.1) / (sums["y"] + 0.1 * n), "draws": 50, "seed": seed}
    for call in (paired_bootstrap, hierarchical_interval, randomisation):
        first = call(a, b, languages=languages, clusters=clusters, **fixed)
        second = call(*moved, languages=languages[order], clusters=clusters[order], **fixed)
        assert first == second
        if call is not randomisation:
            assert first.samples.tolist() == second.samples.tolist()
        if call is not hierarchical_interval:
            assert call(a, b, **fixed) == call(*moved, **fixed)


def test_the_seed_decides_the_draws():
    a, b = np.random.default_rng(9).random((2, 30))
    first, again, other = (paired_bootstrap(a, b, draws=50, seed=seed) for seed in (1, 1, 2))
    assert everything(first) == everything(again)
    assert first.samples.tolist() != other.samples.tolist()


@pytest.mark.parametrize(
    ("a", "b", "more", "message"),
    [
        ([], [], {}, "no item"),
        ([[]], [[]], {}, "no item"),
        ({}, {}, {}, "no column"),
        ([1, 2], [1], {}, "2 and 1 items"),
        ([1, math.nan], [1, 2], {}, "not finite"),
        ({"f": [1]}, {"g": [1]}, {}, "the same items and columns"),
        ({"f": [1], "g": [1]}, {"f": [1], "g": [1]}, {}, "need a score"),
        ({"f": [1], "g": [1, 2]}, {"f": [1], "g": [1]}, {}, "shapes"),
        ([[[1]]], [[[1]]], {}, "shapes"),
        ([1, 2], [1, 2], {"clusters": [1]}, "clusters have the shape"),
        ([1, 2], [1, 2], {"languages": ["en"]}, "languages have the shape"),
        ([1, 2], [1, 2], {"draws": 0}, "0 draws"),
        ([1, 2], [1, 2], {"score": lambda sums, n: 1.0}, "score gave the shape"),
        ([0, 0], [1, 2], {"score": lambda sums, n: n / sums[""]}, "not defined"),
    ],
)
def test_what_cannot_be_resampled(a, b, more, message):
    for call in (paired_bootstrap, randomisation):
        with pytest.raises(InputError, match=message):
            call(a, b, **more)


# --- hierarchical intervals ------------------------------------------------------------------------------------------


def effects(rng, seeds, languages, items, of_seeds=1.0, of_languages=1.0, of_items=1.0, noise=0.1):
    """Values [seeds, languages x items] that are sums of effects, and whose they are."""
    values = (
        of_seeds * rng.normal(size=(seeds, 1, 1))
        + of_languages * rng.normal(size=(1, languages, 1))
        + of_items * rng.normal(size=(1, 1, items))
        + noise * rng.normal(size=(seeds, languages, items))
    )
    names = np.repeat(np.arange(languages), items)
    return values.reshape(seeds, -1), {"languages": names, "clusters": np.tile(np.arange(items), languages)}


def test_each_level_adds_the_variance_of_its_effect():
    values, where = effects(np.random.default_rng(10), 4, 6, 50, noise=0)
    cube = values.reshape(4, 6, 50)
    parts = {
        "seeds": cube.mean((1, 2)).var(ddof=1) / 4,
        "languages": cube.mean((0, 2)).var(ddof=1) / 6,
        "items": cube.mean((0, 1)).var() / 50,
    }
    for level, variance in parts.items():
        found = hierarchical_interval(values, **where, levels=(level,), draws=4000)
        assert found.samples.var() == pytest.approx(variance, rel=0.1)
        assert found.value == pytest.approx(values.mean())
        assert found.p is None
    assert hierarchical_interval(values, **where, draws=4000).samples.var() == pytest.approx(
        sum(parts.values()), rel=0.1
    )


def test_interval_covers_the_truth_where_that_over_items_does_not():
    rng = np.random.default_rng(11)
    whole, items = [], []
    for number in range(300):
        values, where = effects(rng, 6, 10, 25, of_seeds=0.5, of_languages=0.5)
        for covered, levels in ((whole, ("seeds", "languages", "items")), (items, ("items",))):
            found = hierarchical_interval(values, **where, levels=levels, draws=200, seed=number)
            covered.append(found.low <= 0 <= found.high)
    assert 0.88 <= np.mean(whole) <= 0.98
    assert np.mean(items) < 0.85


def test_seeds_are_drawn_together_only_when_they_are_the_same():
    rng = np.random.default_rng(12)
    seeds = rng.normal(size=(8, 1))
    a, b = seeds + 0.1 * rng.normal(size=(8, 40)), seeds + 0.1 * rng.normal(size=(8, 40)) - 0.1
    same, apart = (
        hierarchical_interval(a, b, levels=("seeds", "items"), same_seeds=value, draws=1000) for value in (True, False)
    )
    assert same.value == apart.value
    assert same.p < 0.05 < apart.p
    assert np.ptp([same.low, same.high]) < 0.2 * np.ptp([apart.low, apart.high])


def test_levels_that_cannot_be_drawn():
    a = np.random.default_rng(13).random((2, 6))
    where = {"languages": ["de", "de", "de", "th", "th", "th"]}
    with pytest.raises(InputError, match="1 of the level 'seeds'"):
        hierarchical_interval(a[0], **where)
    with pytest.raises(InputError, match="1 of the level 'languages'"):
        hierarchical_interval(a)
    with pytest.raises(InputError, match=r"unknown level of resampling 'seed'; did you mean 'seeds'\?"):
        hierarchical_interval(a, levels=("seed",))
    with pytest.raises(InputError, match="unknown level"):
        hierarchical_interval(a, levels=())
    with pytest.raises(InputError, match="same_seeds"):
        hierarchical_interval(a, a[:1], levels=("items",), same_seeds=True)
    with pytest.raises(InputError, match="level is 95"):
        hierarchical_interval(a, levels=("items",), level=95)


def test_mean_of_tasks():
    rng = np.random.default_rng(14)
    tasks = [paired_bootstrap(rng.normal(0.2, size=100), np.zeros(100), draws=2000) for _ in range(4)]
    found = combine(tasks)
    assert found.value == pytest.approx(np.mean([task.value for task in tasks]))
    assert found.samples.var() == pytest.approx(sum(task.samples.var() for task in tasks) / 16, rel=0.1)
    assert found.p < min(task.p for task in tasks) + 1e-3
    assert (found.rows, found.clusters) == (400, 400)
    # twice the same one: as two tasks that happen to look alike, not as one
    assert combine(tasks[:1] * 2).samples.var() == pytest.approx(tasks[0].samples.var() / 2, rel=0.15)
    with pytest.raises(InputError, match="no estimate"):
        combine([])


# --- approximate randomisation ---------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8))
def test_randomisation_is_the_share_of_all_sign_flips(d):
    found = randomisation(d, [0] * len(d))
    flips = [sum(s * x for s, x in zip(signs, d, strict=True)) for signs in itertools.product((1, -1), repeat=len(d))]
    assert found.p == pytest.approx(np.mean([abs(value) >= abs(sum(d)) for value in flips]))
    assert (found.exact, found.n) == (True, sum(x != 0 for x in d))


def test_randomisation_against_scipy():
    rng = np.random.default_rng(15)
    a, b = rng.normal(0.15, size=60), rng.normal(size=60)
    found = randomisation(a, b, draws=5000)
    theirs = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=5000, rng=rng,
    )  # fmt: skip
    assert not found.exact
    assert found.value == pytest.approx(theirs.statistic)
    assert found.p == pytest.approx(theirs.pvalue, abs=0.03)


@pytest.mark.parametrize(("only_a", "only_b"), [(3, 12), (40, 60), (7, 7), (0, 5), (0, 0), (1, 0), (700, 900)])
def test_randomisation_of_right_or_wrong_is_the_exact_mcnemar_test(only_a, only_b):
    a = np.array([1] * only_a + [0] * only_b + [1, 0] * 50)
    b = np.array([0] * only_a + [1] * only_b + [1, 0] * 50)
    found, n = randomisation(a, b), only_a + only_b
    assert (found.exact, found.n, found.value) == (True, n, pytest.approx((only_a - only_b) / (n + 100)))
    assert found.p == pytest.approx(stats.binomtest(only_a, n).pvalue if n else 1)
    assert randomisation(b, a).p == pytest.approx(found.p)


def test_each_language_is_also_tested_alone():
    a, b = np.random.default_rng(17).random((2, 90)) + np.array([[0.1], [0.0]])
    languages, clusters = np.repeat(["en", "de", "sw"], 30), np.tile(np.arange(30) // 2, 3)
    tested = randomisation(a, b, languages=languages, clusters=clusters, draws=500)
    drawn = paired_bootstrap(a, b, languages=languages, clusters=clusters, draws=4000)
    for language, test, estimate in zip(["de", "en", "sw"], tested.each, drawn.each, strict=True):
        own = languages == language
        assert test == randomisation(a[own], b[own], clusters=clusters[own], draws=500)
        alone = paired_bootstrap(a[own], b[own], clusters=clusters[own], draws=4000)
        assert estimate.value == pytest.approx(alone.value) and (estimate.rows, estimate.clusters) == (30, 15)
        assert (estimate.low, estimate.high) == pytest.approx((alone.low, alone.high), abs=0.02)
        assert estimate.p == pytest.approx(alone.p, abs=0.08)
    assert np.mean([one.value for one in drawn.each]) == pytest.approx(drawn.value)
    assert randomisation(a, b).each == paired_bootstrap(a, b, draws=9).each == ()


def test_randomisation_of_clusters_and_of_a_function_of_sums():
    """All 2^6 exchanges of whole clusters by hand, of a ratio of sums and in two languages."""
    rng = np.random.default_rng(16)
    a, b = ({"x": rng.random((2, 12)), "y": 1 + rng.random((2, 12))} for _ in range(2))
    a["x"] += 0.5
    languages, clusters = np.repeat(["en", "sw"], 6), np.tile(np.arange(6), 2)

    def value(one, two):
        parts = [
            [system["x"][s, languages == of].sum() / system["y"][s, languages == of].sum() for system in (one, two)]
            for s in range(2) for of in ("en", "sw")
        ]  # fmt: skip
        return np.mean([first - second for first, second in parts])

    outcomes = []
    for signs in itertools.product((True, False), repeat=6):
        kept = np.array(signs)[clusters]
        one, two = ({name: np.where(own, a[name], b[name]) for name in a} for own in (kept, ~kept))
        outcomes.append(value(one, two))
    score = lambda sums, n: sums["x"] / sums["y"]  # noqa: E731
    found = randomisation(a, b, clusters=clusters, languages=languages, score=score)
    assert found.value == pytest.approx(value(a, b))
    assert found.p == pytest.approx(np.mean(np.abs(outcomes) >= abs(found.value) - 1e-12))
    drawn = randomisation(a, b, clusters=clusters, languages=languages, score=score, draws=63)
    assert not drawn.exact
    assert drawn.p == pytest.approx(found.p, abs=0.1)
    with pytest.raises(InputError, match="cannot be exchanged"):
        randomisation(a["x"], b["x"][:1])
