"""Metrics as functions of sums: bootstrap intervals against closed forms, order invariance, paraphrases."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from jxstilts.eval import metrics
from jxstilts.eval.metrics.base import ratio
from jxstilts.runtime import InputError


def column(values):
    return {str(i): float(value) for i, value in enumerate(values)}


# --- intervals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "share"), [(200, 0.5), (1000, 0.9), (5000, 0.35)])
def test_interval_of_right_or_wrong_answers_is_the_binomial_one(n, share):
    right = round(n * share)
    state = {"accuracy": column([1] * right + [0] * (n - right))}
    low, high = metrics.get("accuracy").interval(state, draws=4000)["accuracy"]
    half = 100 * 1.96 * math.sqrt(share * (1 - share) / n)
    assert low == pytest.approx(100 * share - half, abs=0.15 * half)
    assert high == pytest.approx(100 * share + half, abs=0.15 * half)


def test_interval_of_real_numbers_is_the_normal_one_and_narrows_with_the_level():
    rng = np.random.default_rng(0)
    scores = rng.random(800)
    metric = metrics.get("squad")
    state = {"f1": column(scores), "exact_match": column(scores > 0.5)}
    found = metric.interval(state, draws=4000)
    half = 100 * 1.96 * scores.std() / math.sqrt(800)
    assert found["f1"] == pytest.approx((100 * scores.mean() - half, 100 * scores.mean() + half), abs=0.15 * half)
    inner = metric.interval(state, level=0.5, draws=4000)
    for name in found:
        assert found[name][0] < inner[name][0] < inner[name][1] < found[name][1]


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3, 1 / 3])
def test_interval_of_constant_data_is_the_value(value):
    metric = metrics.get("accuracy")
    state = {"accuracy": column([value] * 70)}
    assert metric.interval(state)["accuracy"] == (metric.compute(state)["accuracy"],) * 2


def test_interval_equals_a_bootstrap_by_hand():
    """Draws whole sentences, with all their columns, and divides sums: not a mean of sentence scores."""
    rng = np.random.default_rng(1)
    total = rng.integers(1, 40, 300)
    right = rng.binomial(total, 0.7)
    low, high = metrics.get("tag_accuracy").interval({"right": column(right), "total": column(total)}, draws=3000)[
        "accuracy"
    ]
    picks = rng.integers(300, size=(3000, 300))
    values = 100 * right[picks].sum(1) / total[picks].sum(1)
    width = np.ptp(np.percentile(values, [2.5, 97.5]))
    np.testing.assert_allclose((low, high), np.percentile(values, [2.5, 97.5]), atol=0.1 * width)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_interval_does_not_depend_on_the_order_of_examples(values, random):
    metric = metrics.get("squad")
    state = {"f1": column(values), "exact_match": column(value > 0.5 for value in values)}
    again = {}
    for name in ("exact_match", "f1"):
        items = list(state[name].items())
        random.shuffle(items)
        again[name] = dict(items)
    found = metric.interval(state, draws=50)
    assert found == metric.interval(again, draws=50) == metric.interval(json.loads(json.dumps(state)), draws=50)
    for name, value in metric.compute(state).items():
        assert 0 <= found[name][0] <= found[name][1] <= 100
        assert min(state[name].values()) * 100 - 1e-9 <= value <= max(state[name].values()) * 100 + 1e-9


def test_draws_in_chunks_are_bounded_in_memory(monkeypatch):
    """The same number of draws whatever the chunk; the matrix of a chunk stays small."""
    metric, shapes = metrics.get("squad"), []
    state = {name: column(np.random.default_rng(0).random(500)) for name in ("f1", "exact_match")}
    draw = type(metric).draw

    def watch(self, columns, weights, n):
        shapes.append(weights.shape)
        assert (weights.sum(1) == n).all()
        return draw(self, columns, weights, n)

    monkeypatch.setattr(type(metric), "draw", watch)
    monkeypatch.setattr("jxstilts.eval.metrics.bootstrap.CELLS", 100_000)
    metric.interval(state)
    assert sum(rows for rows, _ in shapes) == 1000 and max(rows * n for rows, n in shapes) <= 100_000


def test_states_that_cannot_be_scored():
    metric = metrics.get("squad")
    with pytest.raises(InputError, match="no example to score"):
        metric.interval({})
    with pytest.raises(InputError, match="hold different examples"):
        metric.compute({"f1": {"a": 1.0}, "exact_match": {"b": 1.0}})


def test_ratio_takes_numbers_and_arrays():
    assert ratio(1.0, 4) == 0.25 and ratio(0, 0) == 0
    np.testing.assert_array_equal(ratio(np.array([1.0, 3.0]), np.array([2, 0])), [0.5, 0])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=40), st.data())
def test_every_order_of_merging_gives_the_same_bits(pairs, data):
    metric = metrics.get("paraphrase")
    examples = [{"id": str(i), "label": label} for i, (_, label) in enumerate(pairs)]
    whole = metric.update([guess for guess, _ in pairs], examples)
    states = [metric.update([guess], [example]) for (guess, _), example in zip(pairs, examples, strict=True)]
    merged = {}
    for number in data.draw(st.permutations(range(len(states)))):
        merged = metric.merge(merged, states[number])
    assert merged == whole and metric.compute(merged) == metric.compute(whole)


# --- the major value -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "major"),
    [
        ("accuracy", {"accuracy": 70.0}, 70),
        ("retrieval", {"accuracy": 70.0}, 70),
        ("tag_accuracy", {"accuracy": 70.0}, 70),
        ("seqeval", {"f1": 60.0, "precision": 50.0, "recall": 75.0, "accuracy": 90.0}, 60),
        ("paraphrase", {"accuracy": 90.0, "f1": 80.0}, 85),
        ("squad", {"f1": 80.0, "exact_match": 70.0}, 75),
        ("mlqa", {"f1": 80.0, "exact_match": 70.0}, 75),
        ("squad_v2", {"f1": 1.0, "exact_match": 1.0, "best_f1": 80.0, "best_exact_match": 76.0}, 78),
    ],
)
def test_major(name, values, major):
    assert metrics.get(name).major(values) == major


# --- paraphrases -----------------------------------------------------------------------------------------------------


def test_paraphrase_by_hand():
    metric = metrics.get("paraphrase")
    examples = [{"id": str(i), "label": label} for i, label in enumerate([1, 1, 1, 0, 0])]
    state = metric.update([1, 1, 0, 1, 0], examples)  # 2 found, 3 predicted, 3 gold
    assert metric.compute(state) == {"accuracy": 60.0, "f1": pytest.approx(200 / 3)}
    negative = metric.update([0], [{"id": "a", "label": 0}])
    assert metric.compute(negative) == {"accuracy": 100.0, "f1": 0.0}
    with pytest.raises(InputError, match="'paraphrase': example '7' has no gold label"):
        metric.update([0], [{"id": "7"}])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=50))
def test_paraphrase_equals_scikit_learn(pairs):
    metric = metrics.get("paraphrase")
    found, gold = map(list, zip(*pairs, strict=True))
    values = metric.compute(metric.update(found, [{"id": str(i), "label": g} for i, g in enumerate(gold)]))
    assert values["accuracy"] == pytest.approx(100 * accuracy_score(gold, found))
    assert values["f1"] == pytest.approx(100 * f1_score(gold, found, zero_division=0))
