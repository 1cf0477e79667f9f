"""F1 of mined pairs at a threshold, against a search over all cuts; mean average precision against its definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts.eval import metrics
from jxstilts.eval.metrics.retrieval import mean_average_precision
from jxstilts.runtime import InputError

GOLD = [("z1", "e1"), ("z2", "e2"), ("z3", "e3"), ("z4", "e4")]
MINED = [("z1", "e1", 1.4), ("z2", "e2", 1.3), ("z9", "e9", 1.2), ("z3", "e3", 1.1), ("z8", "e8", 1.0)]


def state_of(mined, gold=GOLD):
    return metrics.get("bucc").update(mined, {"source": [], "target": [], "gold": gold})


def plain(mined, gold, threshold):
    """F1, precision, recall of the kept pairs as sets."""
    kept, gold = {(a, b) for a, b, score in mined if score >= threshold}, set(gold)
    both = len(kept & gold)
    precision, recall = both / len(kept) if kept else 0, both / len(gold)
    return 100 * (2 * precision * recall / (precision + recall) if both else 0), 100 * precision, 100 * recall


def values_of(found):
    return found["f1"], found["precision"], found["recall"]


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_tuned_by_hand():
    """Cuts keep 1 to 5 pairs: F1 2/5, 4/6, 4/7, 6/8, 6/9; the best keeps 4, the neighbours are 1.1 and 1.0."""
    assert metrics.get("bucc").compute(state_of(MINED)) == {
        "f1": pytest.approx(75), "precision": pytest.approx(75), "recall": pytest.approx(75),
        "threshold": pytest.approx(1.05),
    }  # fmt: skip


def test_a_given_threshold_and_the_oracle_by_hand():
    metric = metrics.get("bucc").at(1.25)
    assert metric.compute(state_of(MINED)) == {
        "f1": pytest.approx(200 / 3), "precision": 100, "recall": 50, "threshold": 1.25, "oracle_f1": pytest.approx(75)
    }  # fmt: skip
    assert metrics.get("bucc").at(1.3).compute(state_of(MINED))["recall"] == 50  # at the threshold is kept
    assert metrics.get("bucc").at(9).compute(state_of(MINED))["f1"] == 0
    assert metric.major({"f1": 3.0, "oracle_f1": 9.0}) == 3.0


@pytest.mark.parametrize(
    ("mined", "f1", "threshold"),
    [
        ([], 0, 0),  # nothing was learned: keep what the mining keeps
        ([("z9", "e9", 1.5)], 0, 0),
        ([("z1", "e2", 1.5)], 0, 0),  # both sentences are of gold pairs, the pair is not
        ([("z1", "e1", 1.5)], 40, 1.5),  # no neighbour below
        ([("z9", "e9", 1.0), ("z1", "e1", 1.0)], 100 / 3, 1.0),  # no cut between equal scores
        ([("z1", "e1", 1.0), ("z2", "e2", np.nextafter(1.0, 0)), ("z9", "e9", 0.5)], 200 / 3, 0.75),
        ([("z1", "e1", np.nextafter(1.0, 2)), ("z9", "e9", 1.0)], 40, np.nextafter(1.0, 2)),  # no float between them
    ],
)
def test_edges(mined, f1, threshold):
    found = metrics.get("bucc").compute(state_of(mined))
    assert found["f1"] == pytest.approx(f1) and found["threshold"] == pytest.approx(threshold, rel=1e-15)
    assert values_of(found) == pytest.approx(plain(mined, GOLD, found["threshold"]))


@pytest.mark.parametrize(
    ("mined", "gold", "text"),
    [
        ([], [], "no gold pairs"),
        ([("a", "b", 1.0), ("a", "b", 0.5)], GOLD, "'a', 'b' was mined twice"),
        ([("a", "b", math.nan)], GOLD, "score of the pair 'a', 'b' is nan"),
        ([("a\t", "b", 1.0)], GOLD, "holds a tab"),
    ],
)
def test_what_cannot_be_scored(mined, gold, text):
    with pytest.raises(InputError, match=text):
        state_of(mined, gold)


def test_states_without_gold():
    metric = metrics.get("bucc")
    with pytest.raises(InputError, match="no gold pairs"):
        metric.update([], {"source": [], "target": []})
    for state in ({}, {"gold": {}, "score": {"a\tb": 1.0}}):
        with pytest.raises(InputError, match="no gold pair"):
            metric.compute(state)


def test_merging():
    metric = metrics.get("bucc")
    whole, parts = state_of(MINED), [state_of(MINED[:2], GOLD[:1]), state_of(MINED[2:], GOLD[1:])]
    assert metric.merge(*parts) == metric.merge(metric.merge({}, parts[0]), parts[1]) == whole
    assert list(whole) == ["gold", "score"] and len(whole["gold"]) == 4
    with pytest.raises(InputError, match="was scored twice"):
        metric.merge(whole, parts[0])


# --- against all cuts ------------------------------------------------------------------------------------------------


PAIRS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 8)), unique_by=lambda x: x[:2], max_size=30
)
GOLDS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), unique=True, min_size=1, max_size=12)


def named(rows):
    return [(f"z{a}", f"e{b}", *rest) for a, b, *rest in rows]


@settings(max_examples=300, deadline=None)
@given(PAIRS, GOLDS, st.floats(0, 3))
def test_the_threshold_is_the_best_of_all_cuts(mined, gold, given_threshold):
    mined, gold = [(a, b, score / 4) for a, b, score in named(mined)], named(gold)
    metric, state = metrics.get("bucc"), state_of(mined, gold)
    found = metric.compute(state)
    assert values_of(found) == pytest.approx(plain(mined, gold, found["threshold"]))
    levels = sorted({score for _, _, score in mined}, reverse=True)
    best = max((plain(mined, gold, level)[0] for level in levels), default=0)
    assert found["f1"] == pytest.approx(best)
    if best:  # the first best cut, halfway to the score below it
        place = next(i for i, level in enumerate(levels) if plain(mined, gold, level)[0] == pytest.approx(best))
        below = levels[place + 1] if place + 1 < len(levels) else levels[place]
        assert found["threshold"] == (levels[place] + below) / 2
    else:
        assert found["threshold"] == 0
    fixed = metric.at(given_threshold).compute(state)
    assert values_of(fixed) == pytest.approx(plain(mined, gold, given_threshold))
    assert fixed["oracle_f1"] == found["f1"] >= fixed["f1"] - 1e-9


# --- intervals -------------------------------------------------------------------------------------------------------


def test_intervals_hold_the_value_and_repeat():
    rng = np.random.default_rng(0)
    gold = [(f"z{i}", f"e{i}") for i in range(300)]
    mined = [(f"z{i}", f"e{i + (rng.random() < 0.3)}", float(rng.normal(1.2, 0.1))) for i in range(0, 400, 2)]
    state = state_of(mined, gold)
    for metric in (metrics.get("bucc"), metrics.get("bucc").at(1.1)):
        found, values = metric.interval(state), metric.compute(state)
        assert found.keys() == values.keys() and found == metric.interval(state)
        for name, (low, high) in found.items():
            assert low <= values[name] <= high
        assert found["f1"][1] - found["f1"][0] > 2
    assert found["threshold"] == (1.1, 1.1)


def test_each_draw_of_the_interval_is_a_state_of_its_own():
    """Sources drawn by hand and given new names score what the weights say."""
    mined, gold = named([(i, i % 5, 1 + i / 10) for i in range(7)]), named([(i, i) for i in range(1, 6)])
    table = metrics.bitext._Table(state_of(mined, gold))
    rng = np.random.default_rng(0)
    for _ in range(50):
        weights = rng.multinomial(table.units, np.full(table.units, 1 / table.units))
        if not weights @ table.gold:
            continue
        sources = sorted({source for source, *_ in [*mined, *gold]})
        copies = [(source, f"{source}-{n}") for source, w in zip(sources, weights, strict=True) for n in range(w)]
        more = [[(new, *rest) for old, new in copies for s, *rest in rows if s == old] for rows in (mined, gold)]
        expected = metrics.get("bucc").at(1.25).compute(state_of(*more))
        drawn = table.draw(weights[None].astype(float), 1.25)
        assert {name: pytest.approx(float(drawn[name][0])) for name in expected} == expected


# --- mean average precision ------------------------------------------------------------------------------------------


def average_precision(ranked, right, k):
    """The definition: precision at each hit among the first k, over min(right answers, k)."""
    total = 0.0
    for place in range(1, min(k, len(ranked)) + 1):
        if ranked[place - 1] in right:
            total += sum(candidate in right for candidate in ranked[:place]) / place
    return total / min(len(right), k)


def test_mean_average_precision_by_hand():
    ranked = {"a": ["x", "y", "z"], "b": ["x", "y", "z"], "c": ["x"]}
    gold = {"a": {"x"}, "b": {"y", "z"}, "c": ["y"], "none": {"x"}}
    mean, values = mean_average_precision(ranked, gold, 20)
    assert values == pytest.approx({"a": 1, "b": (1 / 2 + 2 / 3) / 2, "c": 0, "none": 0})
    assert mean == pytest.approx(25 * (1 + 7 / 12))
    assert mean_average_precision(ranked, {"b": {"y", "z"}}, 2)[1] == {"b": 0.25}
    assert mean_average_precision(ranked, {"b": {"x", "y", "z"}}, 2)[1] == {"b": 1.0}


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.permutations(range(7)), st.sets(st.integers(0, 9), min_size=1)), min_size=1),
)
def test_mean_average_precision_equals_its_definition(k, rows):
    ranked = {str(i): [str(x) for x in row] for i, (row, _) in enumerate(rows)}
    gold = {str(i): {str(x) for x in right} for i, (_, right) in enumerate(rows)}
    mean, values = mean_average_precision(ranked, gold, k)
    assert values == pytest.approx({i: average_precision(ranked[i], gold[i], k) for i in gold})
    assert mean == pytest.approx(100 * sum(values.values()) / len(values))


@pytest.mark.parametrize(
    ("ranked", "gold", "k", "text"),
    [
        ({}, {}, 5, "number of queries, 0"),
        ({}, {"a": {"x"}}, 0, "k=0"),
        ({"a": ["x"]}, {"a": set()}, 5, "'a' has no right candidate"),
        ({"a": ["x", "x"]}, {"a": {"x"}}, 5, "has a candidate twice"),
    ],
)
def test_rankings_that_have_no_average_precision(ranked, gold, k, text):
    with pytest.raises(InputError, match=text):
        mean_average_precision(ranked, gold, k)
