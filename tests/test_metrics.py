"""Metrics: values worked out by hand, properties of the state, and an independent restatement of the span rules."""

import itertools
import json
import math
import os
import random
import re
import string
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts import tasks
from jxstilts.eval import metrics
from jxstilts.runtime import InputError

needs_corpus = pytest.mark.skipif(
    not os.environ.get("JXSTILTS_DATA"), reason="JXSTILTS_DATA does not name the unpacked test corpus"
)


def question(identifier, *answers):
    return {"id": identifier, "question": "?", "context": "", "answers": [{"text": a, "start": 0} for a in answers]}


def one(name, language, prediction, *golds):
    metric = metrics.get(name, language)
    values = metric.compute(metric.update({"q": prediction}, [question("q", *golds)]))
    return values["f1"], values["exact_match"]


# --- finding and contract --------------------------------------------------------------------------------------------


def test_metrics_are_found_by_name():
    names = "accuracy answer_faults bucc lareqa map20 mewslix mlqa multichecklist paraphrase retrieval seqeval squad"
    assert metrics.names() == [*names.split(), "squad_v2", "tag_accuracy"]
    for name in tasks.names():
        metric = tasks.get(name).metric
        assert metric is None or metrics.get(metric).name == metric
    with pytest.raises(InputError, match=r"metric 'acuracy'; did you mean 'accuracy'\?"):
        metrics.get("acuracy")
    with pytest.raises(InputError, match=r"language of metric 'mlqa' 'sw'.*Known: ar, de, en, es, hi, vi, zh"):
        metrics.get("mlqa", "sw")


def test_every_task_language_has_a_metric():
    for name in tasks.names():
        spec = tasks.get(name)
        for language in spec.languages + spec.more_languages:
            assert spec.metric is None or metrics.get(spec.metric, language)


# --- accuracy --------------------------------------------------------------------------------------------------------


def test_accuracy_by_hand():
    metric = metrics.get("accuracy")
    examples = [{"id": str(i), "label": label} for i, label in enumerate([0, 1, 2, 2])]
    state = metric.update(np.array([0, 1, 1, 2], np.int32), examples)
    assert state == {"accuracy": {"0": 1.0, "1": 1.0, "2": 0.0, "3": 1.0}}
    assert metric.compute(state) == {"accuracy": 75.0}


def test_accuracy_refuses_what_cannot_be_scored():
    metric = metrics.get("accuracy")
    with pytest.raises(InputError, match="example '7' has no gold label"):
        metric.update([0], [{"id": "7", "text_a": "a", "text_b": None}])
    with pytest.raises(InputError, match="2 predictions for 1 examples"):
        metric.update([0, 1], [{"id": "7", "label": 0}])
    with pytest.raises(InputError, match="two examples have the id '7'"):
        metric.update([0, 1], [{"id": "7", "label": 0}] * 2)
    with pytest.raises(InputError, match="no example to score"):
        metric.compute(metric.update([], []))


# --- retrieval -------------------------------------------------------------------------------------------------------


def test_retrieval_by_hand():
    metric = metrics.get("retrieval")
    gold = [("s0", "t0"), ("s1", "t1"), ("s2", "t2"), ("s3", "t2"), ("s4", "t3")]
    examples = {"source": [], "target": [], "gold": gold}
    state = metric.update({"t0": "s0", "t1": "s0", "t2": "s3", "unknown": "s9"}, examples)  # t3 has no prediction
    assert state == {"accuracy": {"t0": 1.0, "t1": 0.0, "t2": 1.0, "t3": 0.0}}
    assert metric.compute(state) == {"accuracy": 50.0}
    with pytest.raises(InputError, match="no gold pairs"):
        metric.update({}, {"source": [], "target": []})


# --- spans by hand ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prediction, golds, f1, exact",
    [
        ("The Cat!", ["cat"], 100, 100),  # case, punctuation, article
        ("a an the", ["the"], 0, 100),  # nothing is left on both sides: exact, but F1 0 as in the official script
        ("black cat", ["cat"], 200 / 3, 0),  # precision 1/2, recall 1
        ("black cat", ["dog", "the black cat sat"], 80, 0),  # best gold: precision 1, recall 2/3
        ("cat cat", ["cat"], 200 / 3, 0),  # a word counts as often as it is there
        ("U.S.", ["US"], 100, 100),
        ("theory an", ["theory"], 100, 100),  # articles are whole words
        ("«Paris»", ["Paris"], 0, 0),  # only ASCII punctuation goes
        ("el gato", ["gato"], 200 / 3, 0),  # only English articles go
        ("", ["cat"], 0, 0),
        ("new\u00a0york", ["New York"], 100, 100),
    ],
)
def test_squad_by_hand(prediction, golds, f1, exact):
    for language in ("en", "zh"):  # one rule for every language
        assert one("squad", language, prediction, *golds) == (pytest.approx(f1), exact)


@pytest.mark.parametrize(
    "language, prediction, golds, f1, exact",
    [
        ("en", "«The» Paris", ["paris"], 100, 100),  # Unicode punctuation goes
        ("es", "¡El gato, una casa!", ["gato casa"], 100, 100),
        ("es", "the casa", ["casa"], 200 / 3, 0),
        ("de", "Der Hund des Mannes", ["hund mannes"], 100, 100),
        ("vi", "những con mèo của tôi", ["con mèo tôi"], 100, 100),
        ("hi", "यह है।", ["यह है"], 100, 100),  # the danda is punctuation
        ("hi", "the घर", ["घर"], 200 / 3, 0),
        ("ar", "القط", ["قط"], 100, 100),
        ("ar", "قالت", ["ق ت"], 100, 100),  # the letters go inside a word too, as in the official script
        ("zh", "北京市", ["北京"], 80, 0),  # characters: precision 2/3, recall 1
        ("zh", "《北京》 2008年", ["北京2008年"], 100, 100),
        ("zh", "NBA 联赛", ["nba联赛"], 100, 100),  # what is not Han stays whole
        ("zh", "\u9fa6\u9fa7", ["\u9fa6"], 0, 0),  # the script's range of characters ends at U+9FA5
        ("en-de", "the cat", ["cat"], 100, 100),  # the context's language, in which the answer is
        ("de-en", "the cat", ["cat"], 200 / 3, 0),
    ],
)
def test_mlqa_by_hand(language, prediction, golds, f1, exact):
    assert one("mlqa", language, prediction, *golds) == (pytest.approx(f1), exact)


def test_missing_prediction_scores_zero_and_the_mean_is_over_all_questions():
    metric = metrics.get("squad")
    examples = [question("a", "cat"), question("b", "dog"), question("c", "big dog"), question("d", "cow")]
    state = metric.update({"a": "cat", "c": "dog", "elsewhere": "x"}, examples)
    assert state["exact_match"] == {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}
    assert metric.compute(state) == {"f1": pytest.approx(100 * (1 + 2 / 3) / 4), "exact_match": 25.0}


@pytest.mark.parametrize("name", ["squad", "mlqa"])
def test_span_metric_refuses_what_cannot_be_scored(name):
    metric = metrics.get(name)
    with pytest.raises(InputError, match="question 'a' has no gold answer"):
        metric.update({"a": "x"}, [{"id": "a", "question": "?", "context": "c"}])
    with pytest.raises(InputError, match="question 'a' has no gold answer"):
        metric.update({"a": "x"}, [question("a")])
    with pytest.raises(InputError, match=r"prediction for 'a' is \['x'\], expected a text"):
        metric.update({"a": ["x"]}, [question("a", "x")])
    with pytest.raises(InputError, match="two examples have the id 'a'"):
        metric.update({}, [question("a", "x"), question("a", "y")])


# --- an independent restatement of the span rules ---------------------------------------------------------------------

UNICODE_PUNCTUATION = {
    chr(i)
    for i in range(sys.maxunicode + 1)
    if unicodedata.category(chr(i)) in {"Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po"}
}
ARTICLES = {
    "squad": "a an the",
    "en": "a an the",
    "es": "un una unos unas el la los las",
    "vi": "của là cái chiếc những",
    "de": "ein eine einen einem eines einer der die das den dem des",
    "hi": "",
    "zh": "",
    "ar": "",
}


def oracle_words(text, rule):
    kept = []
    for character in text.lower():
        if character in string.punctuation or (rule != "squad" and character in UNICODE_PUNCTUATION):
            continue
        kept.append(character)
    text = "".join(kept)
    if rule == "ar":
        text = " ".join(text.split("ال"))
    # cut at the borders of runs of word characters, so that an article is dropped only as a whole run
    runs = ["".join(run) for _, run in itertools.groupby(text, key=lambda c: re.match(r"\w", c) is not None)]
    text = "".join(" " if run in ARTICLES[rule].split() else run for run in runs)
    if rule == "zh":
        text = "".join(f" {c} " if "\u4e00" <= c <= "\u9fa5" else c for c in text)
    return text.split()


def oracle(prediction, golds, rule):
    exact = f1 = 0.0
    for gold in golds:
        found, wanted = oracle_words(prediction, rule), oracle_words(gold, rule)
        exact = max(exact, float(" ".join(found) == " ".join(wanted)))
        left, same = list(wanted), 0
        for word in found:
            if word in left:
                left.remove(word)
                same += 1
        if same:
            precision, recall = same / len(found), same / len(wanted)
            f1 = max(f1, 2 * precision * recall / (precision + recall))
    return 100 * f1, 100 * exact


pieces = st.sampled_from(
    ["the", "a ", "an", "el", "die", "của", "là", "ال", "القط", "北京", "京", "é", "Straße", "İ", "2008", "NBA", "xyz"]
)
pieces |= st.sampled_from(["घर", "\u0301", "\U00020000", "$", ".", "،", "।", "«", "-", "_"])
pieces |= st.sampled_from([" ", "\u00a0", "\x1d", "\u3000"])
answer = st.lists(pieces, max_size=6).map("".join)


@settings(max_examples=400, deadline=None)
@given(answer, st.lists(answer, min_size=1, max_size=3), st.sampled_from(["squad", *ARTICLES]))
def test_span_metrics_agree_with_the_restatement(prediction, golds, rule):
    name, language = ("squad", "en") if rule == "squad" else ("mlqa", rule)
    f1, exact = one(name, language, prediction, *golds)
    expected_f1, expected_exact = oracle(prediction, golds, rule)
    assert f1 == pytest.approx(expected_f1, abs=1e-9) and exact == expected_exact


@settings(max_examples=100, deadline=None)
@given(answer, st.sampled_from(["squad", *ARTICLES]))
def test_an_answer_matches_itself(text, rule):
    name, language = ("squad", "en") if rule == "squad" else ("mlqa", rule)
    f1, exact = one(name, language, text, text)
    assert exact == 100 and f1 == (100 if metrics.get(name, language).words(text) else 0)


@needs_corpus
@pytest.mark.parametrize("language", ["en", "de", "es", "ar", "hi", "vi", "zh", "zh-en"])
def test_mlqa_corpus_answers_agree_with_the_restatement(language):
    examples = tasks.load("mlqa", os.environ["JXSTILTS_DATA"], "dev", language)
    metric, rule = metrics.get("mlqa", language), language[:2]
    gold = {e["id"]: e["answers"][0]["text"] for e in examples}
    perfect = metric.compute(metric.update(gold, examples))
    without_words = sum(not oracle_words(text, rule) for text in gold.values())
    assert without_words == (language == "es")  # one Spanish answer is an article only: its F1 is 0, as officially
    assert perfect == {"f1": pytest.approx(100 * (1 - without_words / len(examples))), "exact_match": 100.0}
    generator = random.Random(0)
    guess = {}
    for example in examples:  # a window around the answer, as a model would give
        start = example["answers"][0]["start"]
        cut = max(0, start - generator.randrange(8))
        guess[example["id"]] = example["context"][cut : start + generator.randrange(1, 30)]
    state = metric.update(guess, examples)
    for example in examples[:200]:
        f1, exact = oracle(guess[example["id"]], [example["answers"][0]["text"]], rule)
        assert 100 * state["f1"][example["id"]] == pytest.approx(f1, abs=1e-9)
        assert 100 * state["exact_match"][example["id"]] == exact


# --- the state -------------------------------------------------------------------------------------------------------

values = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.floats(0, 1), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(values, st.data())
def test_merging_is_associative_and_order_does_not_matter(scored, data):
    metric = metrics.get("accuracy")
    groups = [{}, {}, {}]
    for identifier, value in scored.items():
        groups[data.draw(st.integers(0, 2))].setdefault("accuracy", {})[identifier] = value
    a, b, c = groups
    left, right = metric.merge(metric.merge(a, b), c), metric.merge(a, metric.merge(b, c))
    assert left == right == metric.merge(c, metric.merge(b, a)) == {"accuracy": scored}
    assert metric.merge(left, {}) == metric.merge({}, left) == left
    whole = metric.compute({"accuracy": scored})
    assert metric.compute(metric.merge(metric.merge(c, a), b)) == whole  # bit for bit
    assert whole["accuracy"] == 100 * math.fsum(scored.values()) / len(scored)
    assert 0 <= whole["accuracy"] <= 100


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40), st.integers(0, 40))
def test_scoring_in_parts_equals_scoring_at_once(pairs, cut):
    metric = metrics.get("accuracy")
    predictions = [p for p, _ in pairs]
    examples = [{"id": str(i), "label": label} for i, (_, label) in enumerate(pairs)]
    parts = metric.merge(
        metric.update(predictions[:cut], examples[:cut]), metric.update(predictions[cut:], examples[cut:])
    )
    assert parts == metric.update(predictions, examples)
    assert metric.compute(parts)["accuracy"] == pytest.approx(100 * np.mean([p == g for p, g in pairs]))


def test_an_example_scored_twice_is_refused_and_merge_leaves_its_arguments_alone():
    metric = metrics.get("accuracy")
    a, b = {"accuracy": {"x": 1.0}}, {"accuracy": {"y": 0.0}}
    metric.merge(a, b)
    assert (a, b) == ({"accuracy": {"x": 1.0}}, {"accuracy": {"y": 0.0}})
    with pytest.raises(InputError, match="'x' was scored twice"):
        metric.merge(a, a)


def test_the_state_can_be_written_as_json():
    metric = metrics.get("squad")
    state = metric.update({"a": "cat"}, [question("a", "cat")])
    assert metric.compute(json.loads(json.dumps(state))) == {"f1": 100.0, "exact_match": 100.0}
