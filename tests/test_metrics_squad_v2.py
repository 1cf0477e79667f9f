"""SQuAD v2's metric against a restatement of the official script and a search over every threshold."""

import collections
import math
import re
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts.eval import metrics
from jxstilts.runtime import InputError


def build(rows):
    """(gold answers, text, no_answer) -> (predictions, examples)"""
    examples = [
        {"id": f"q{i}", "question": "?", "context": "", "answers": [{"text": text, "start": 0} for text in golds]}
        for i, (golds, _, _) in enumerate(rows)
    ]
    return {f"q{i}": {"text": text, "no_answer": score} for i, (_, text, score) in enumerate(rows)}, examples


def score(rows):
    metric = metrics.get("squad_v2")
    return metric.compute(metric.update(*build(rows)))


# --- the official script, restated from its rules --------------------------------------------------------------------


def normal(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def raw(golds, text):
    """Exact match and F1 of a text, against "" where there is no gold answer."""
    golds = [gold for gold in golds if normal(gold)] or [""]
    exact = max(float(normal(gold) == normal(text)) for gold in golds)
    f1 = 0.0
    for gold in golds:
        a, b = normal(gold).split(), normal(text).split()
        same = sum((collections.Counter(a) & collections.Counter(b)).values())
        if not a or not b:
            f1 = max(f1, float(a == b))
        elif same:
            f1 = max(f1, 2 * same / (len(a) + len(b)))
    return exact, f1


def at_threshold(rows, threshold):
    """(exact match, F1) of each row when no answer is given above a threshold."""
    return [(float(not golds),) * 2 if no_answer > threshold else raw(golds, text) for golds, text, no_answer in rows]


def mean(values):
    return 100 * math.fsum(values) / len(values)


texts = st.sampled_from(["", "red dog", "the red dog", "dog", "cat", "red red", "A cat!", "Paris"])
golds = st.one_of(st.just([]), st.lists(texts.filter(bool), min_size=1, max_size=3))
numbers = st.one_of(st.floats(-10, 10), st.integers(-2, 2).map(float))
some_rows = st.lists(st.tuples(golds, texts, numbers), min_size=1, max_size=25)


@settings(max_examples=300, deadline=None)
@given(some_rows)
def test_values_equal_the_restated_script_and_every_threshold(rows):
    found = score(rows)
    per_row = at_threshold(rows, 0)
    assert found["exact_match"] == pytest.approx(mean([exact for exact, _ in per_row]))
    assert found["f1"] == pytest.approx(mean([f1 for _, f1 in per_row]))
    thresholds = [-math.inf, *(no_answer for _, _, no_answer in rows)]
    tables = [at_threshold(rows, threshold) for threshold in thresholds]
    assert found["best_exact_match"] == pytest.approx(max(mean([exact for exact, _ in table]) for table in tables))
    assert found["best_f1"] == pytest.approx(max(mean([f1 for _, f1 in table]) for table in tables))
    assert found["best_f1"] >= found["f1"] - 1e-9
    kinds = [bool(golds) for golds, _, _ in rows]
    both = any(kinds) and not all(kinds)
    assert ("has_answer_f1" in found) == ("no_answer_accuracy" in found) == both
    if both:
        assert found["has_answer_f1"] == pytest.approx(
            mean([f1 for (_, f1), kind in zip(per_row, kinds, strict=True) if kind])
        )
        assert found["no_answer_accuracy"] == pytest.approx(
            mean([exact for (exact, _), kind in zip(per_row, kinds, strict=True) if not kind])
        )


@settings(max_examples=200, deadline=None)
@given(some_rows)
def test_best_equals_the_scripts_greedy_walk(rows):
    """With different scores the official walk in the order of the scores visits every threshold."""
    rows = [(golds, text, score + i / 1000) for i, (golds, text, score) in enumerate(rows)]
    if len({score for _, _, score in rows}) < len(rows):
        return
    found = score(rows)
    for place, name in enumerate(("best_exact_match", "best_f1")):
        current = best = sum(not golds for golds, _, _ in rows)
        for golds, text, _ in sorted(rows, key=lambda row: row[2]):
            current += raw(golds, text)[place] if golds else -bool(text)
            best = max(best, current)
        assert found[name] == pytest.approx(100 * best / len(rows))


def test_an_article_for_a_question_without_answer():
    """The script's own inconsistency: right at a fixed threshold, wrong to the search."""
    found = score([([], "the", -1.0), (["cat"], "cat", 0.0)])
    assert found["exact_match"] == 100 and found["best_exact_match"] == 50


def test_by_hand():
    rows = [
        (["red dog"], "the red dog", -3.0),  # right
        (["red dog"], "dog", 1.0),  # not given at 0; F1 2/3 if given
        ([], "cat", 2.0),  # not given: right
        ([], "cat", -4.0),  # given: wrong
    ]
    assert score(rows) == {
        "exact_match": 50.0, "f1": 50.0,
        "has_answer_f1": 50.0, "no_answer_accuracy": 50.0,
        "best_exact_match": 50.0, "best_f1": pytest.approx(100 * (1 + 2 / 3 + 1) / 4),
    }  # fmt: skip


def test_missing_predictions_score_zero_whatever_the_threshold():
    metric = metrics.get("squad_v2")
    _, examples = build([([], "", 0.0), (["cat"], "", 0.0)])
    values = metric.compute(metric.update({}, examples))
    assert set(values.values()) == {0.0}


def test_what_cannot_be_scored_is_refused():
    metric = metrics.get("squad_v2")
    predictions, examples = build([([], "x", 0.0)])
    with pytest.raises(InputError, match="question 'q0' has no gold"):
        metric.update(predictions, [{"id": "q0", "question": "?", "context": ""}])
    with pytest.raises(InputError, match="prediction for 'q0' is 'x', expected"):
        metric.update({"q0": "x"}, examples)
    with pytest.raises(InputError, match="no_answer of 'q0' is nan"):
        metric.update({"q0": {"text": "x", "no_answer": math.nan}}, examples)


@settings(max_examples=100, deadline=None)
@given(some_rows, st.data())
def test_every_order_of_merging_gives_the_same_bits(rows, data):
    metric = metrics.get("squad_v2")
    predictions, examples = build(rows)
    whole, merged = metric.update(predictions, examples), {}
    for number in data.draw(st.permutations(range(len(examples)))):
        merged = metric.merge(merged, metric.update(predictions, [examples[number]]))
    assert merged == whole
    assert metric.compute(merged) == metric.compute(whole)
    assert metric.interval(merged, draws=20) == metric.interval(whole, draws=20)


@settings(max_examples=60, deadline=None)
@given(some_rows, st.integers(0, 100))
def test_a_draw_scores_what_the_drawn_examples_score(rows, seed):
    """Each draw searches its own threshold: its values are those of a set with the examples repeated."""
    metric = metrics.get("squad_v2")
    state = metric.update(*build(rows))
    counts = np.random.default_rng(seed).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), 3)
    columns = {name: np.array([column[f"q{i}"] for i in range(len(rows))]) for name, column in state.items()}
    drawn = metric.draw(columns, counts.astype(float), len(rows))
    for number, weights in enumerate(counts):
        expected = score([row for row, count in zip(rows, weights, strict=True) for _ in range(count)])
        for name, value in expected.items():
            assert drawn[name][number] == pytest.approx(value)


def test_interval_covers_the_values_and_only_them():
    rng = np.random.default_rng(0)
    rows = [
        (["red dog"] if rng.random() < 0.5 else [], str(rng.choice(["red dog", "dog"])), float(rng.normal()))
        for _ in range(200)
    ]
    metric = metrics.get("squad_v2")
    state = metric.update(*build(rows))
    values, found = metric.compute(state), metric.interval(state)
    assert values.keys() == found.keys()
    assert all(low <= values[name] <= high for name, (low, high) in found.items())
    one_kind = metric.update(*build([row for row in rows if row[0]]))
    assert set(metric.interval(one_kind)) == {"exact_match", "f1", "best_exact_match", "best_f1"}
