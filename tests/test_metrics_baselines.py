"""Baselines: trivial rules, worked out by hand on small examples."""

import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts import forms
from jxstilts.eval import metrics
from jxstilts.forms import span as spans


def values(form, metric, examples, language="en"):
    task = types.SimpleNamespace(unanswerable=metric == "squad_v2")
    return forms.get(form).baseline(task, metrics.get(metric, language), examples)


def labelled(*labels):
    return [{"id": str(i), "label": label} for i, label in enumerate(labels)]


def test_most_frequent_label():
    assert values("classification", "accuracy", labelled(2, 0, 2, 1)) == {"accuracy": 50.0}
    assert values("choice", "accuracy", labelled(3, 3, 3, 0)) == {"accuracy": 75.0}
    assert values("classification", "paraphrase", labelled(0, 0, 1)) == {"accuracy": pytest.approx(200 / 3), "f1": 0}
    assert values("classification", "paraphrase", labelled(1, 1, 0)) == {
        "accuracy": pytest.approx(200 / 3), "f1": pytest.approx(80),
    }  # fmt: skip


def test_equally_frequent_labels_are_decided_by_their_order():
    assert values("classification", "paraphrase", labelled(1, 0)) == values(
        "classification", "paraphrase", labelled(0, 1)
    )


def test_most_frequent_tag():
    examples = [
        {"id": "a", "words": ["x", "y", "z"], "tags": ["O", "O", "B-PER"]},
        {"id": "b", "words": ["x"], "tags": ["B-LOC"]},
    ]
    assert values("tagging", "tag_accuracy", examples) == {"accuracy": 50.0}
    assert values("tagging", "seqeval", examples) == {"f1": 0, "precision": 0, "recall": 0, "accuracy": 50}
    assert values("tagging", "tag_accuracy", [{"id": "a", "words": [], "tags": []}]) == {"accuracy": 0}


def test_retrieval_is_the_chance_of_one_candidate():
    rows = [{"id": str(i), "text": "t"} for i in range(8)]
    assert values("retrieval", "retrieval", {"source": rows, "target": rows[:2], "gold": []}) == {"accuracy": 12.5}


def question(number, answer, context="one two three four five six seven"):
    gold = [{"text": answer, "start": 0}] if answer else []
    return {"id": str(number), "question": "?", "context": context, "answers": gold}


def test_span_baseline_scores_the_drawn_answers():
    examples = [question(i, "three") for i in range(200)]
    metric = metrics.get("squad")
    drawn = {e["id"]: spans.draw_span(e["id"], e["context"]) for e in examples}
    found = values("span", "squad", examples)
    assert found == metric.compute(metric.update(drawn, examples))
    assert 0 < found["exact_match"] < found["f1"] < 60
    assert len(set(drawn.values())) > 10


def test_squad_v2_says_never_or_draws_whichever_is_better():
    none = values("span", "squad_v2", [question(i, "three" if i < 4 else "") for i in range(10)])
    assert none["exact_match"] == 60 and none["no_answer_accuracy"] == 100
    short = [question(i, "three", "three") for i in range(10)]  # every draw is right
    assert values("span", "squad_v2", short)["exact_match"] == 100


def test_a_type_without_a_rule_has_none():
    assert values("text", "accuracy", []) is None
    rows = [{"id": str(i), "text": "t"} for i in range(8)]
    assert values("mining", "bucc", {"source": rows, "target": rows[:2], "gold": []}) is None


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=0, max_size=8), st.text("ab \n\u3000", max_size=80))
def test_a_drawn_span_is_whole_words_of_the_context_and_always_the_same(identifier, context):
    span = spans.draw_span(identifier, context)
    assert span == spans.draw_span(identifier, context) and span in context
    words = context.split()
    if words:
        assert span
        if sum(map(len, words)) <= spans.SPACED * len(words):
            found = span.split()
            assert 1 <= len(found) <= 5
            assert any(words[i : i + len(found)] == found for i in range(len(words)))
    else:
        assert span == ""


@pytest.mark.parametrize(
    "context",
    [
        "敏捷的棕色狐狸跳过了懒狗,国王从塔上看着。这座塔于1889年在巴黎完工。",
        "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ และพระราชาทรงมองดูจากหอคอย",
    ],
)
def test_text_without_spaces_gives_characters(context):
    drawn = [spans.draw_span(str(i), context) for i in range(300)]
    assert {len(span.replace(" ", "")) for span in drawn} == set(range(1, 11))
    assert all(span in context for span in drawn)
