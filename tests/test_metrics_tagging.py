"""Tagging metrics against seqeval, against its rules written a second time, and against counts by hand."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score

from jxstilts.eval import metrics
from jxstilts.runtime import InputError

UPOS = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split()
NER = "O B-LOC I-LOC B-ORG I-ORG B-PER I-PER".split()


def sentences(*pairs):
    """(gold, predicted) tags as strings or lists -> (predictions, examples)."""
    pairs = [(list(gold), list(found)) for gold, found in pairs]
    examples = [{"id": str(i), "words": ["w"] * len(gold), "tags": gold} for i, (gold, _) in enumerate(pairs)]
    return {str(i): found for i, (_, found) in enumerate(pairs)}, examples


def score(name, *pairs):
    metric = metrics.get(name)
    return metric.compute(metric.update(*sentences(*pairs)))


# --- accuracy of words -----------------------------------------------------------------------------------------------


def test_tag_accuracy_is_over_words_not_sentences():
    pairs = [("AB", "AB"), ("ABCABC", "ABCXXX")]
    assert score("tag_accuracy", *pairs) == {"accuracy": 100 * 5 / 8}
    metric = metrics.get("tag_accuracy")
    assert metric.update(*sentences(*pairs)) == {"right": {"0": 2.0, "1": 3.0}, "total": {"0": 2.0, "1": 6.0}}


@pytest.mark.parametrize("name", ["tag_accuracy", "seqeval"])
def test_cut_off_words_are_left_out_and_the_values_of_all_words_stand_beside(name):
    whole = score(name, (["B-LOC", "O"], ["B-LOC", "O"]), (["O"], ["B-PER"]))
    cut = score(name, (["B-LOC", "O", "B-PER"], ["B-LOC", "O", None]), (["O", "B-LOC"], ["B-PER", None]))
    assert {key: value for key, value in cut.items() if not key.endswith("_all")} == whole
    missed = score(name, (["B-LOC", "O", "B-PER"], ["B-LOC", "O", "O"]), (["O", "B-LOC"], ["B-PER", "O"]))
    assert {key + "_all": value for key, value in missed.items()}.items() <= cut.items()
    metric, parts = metrics.get(name), [(["B-LOC", "O", "B-PER"], ["B-LOC", "O", None]), (["O"], ["B-PER"])]
    found, examples = sentences(*parts)
    states = [metric.update({key: found[key]}, [each]) for key, each in zip(found, examples, strict=True)]
    assert metric.compute(metric.merge(*states)) == metric.compute(metric.update(found, examples))
    nothing = score(name, (["O", "B-PER"], [None, None]))
    assert set(nothing.values()) == {0.0}


@pytest.mark.parametrize("name", ["tag_accuracy", "seqeval"])
def test_a_sentence_without_prediction_is_wrong_in_every_word(name):
    metric = metrics.get(name)
    examples = [{"id": "a", "words": ["x", "y"], "tags": ["O", "B-PER"]}]
    assert set(metric.compute(metric.update({}, examples)).values()) == {0.0}


@pytest.mark.parametrize("name", ["tag_accuracy", "seqeval"])
def test_what_cannot_be_scored_is_refused(name):
    metric = metrics.get(name)
    with pytest.raises(InputError, match="sentence 'a' has no gold tags"):
        metric.update({"a": ["O"]}, [{"id": "a", "words": ["x"]}])
    with pytest.raises(InputError, match="sentence 'a' has 2 words, not 1 as predicted"):
        metric.update({"a": ["O"]}, [{"id": "a", "words": ["x", "y"], "tags": ["O", "O"]}])
    with pytest.raises(InputError, match="two examples have the id 'a'"):
        metric.update({}, [{"id": "a", "words": ["x"], "tags": ["O"]}] * 2)


# --- seqeval ---------------------------------------------------------------------------------------------------------


def live(pairs):
    """Values of the installed seqeval, whose rules for B-/I- tags are those of 0.0.12."""
    gold, found = [list(g) for g, _ in pairs], [list(f) for _, f in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "f1": 100 * f1_score(gold, found),
            "precision": 100 * precision_score(gold, found),
            "recall": 100 * recall_score(gold, found),
            "accuracy": 100 * accuracy_score(gold, found),
        }


ENDS = {"BB", "BS", "BO", "IB", "IS", "IO"}  # first letters of two neighbours between which a chunk ends
STARTS = {"EE", "EI", "SE", "SI", "OE", "OI"}  # and between which one starts


def entities(sentences):
    """seqeval 0.0.12's chunks of all sentences: (type, first word, last word), neighbour by neighbour."""
    words = [tag for tags in sentences for tag in [*tags, "O"]]
    chunks, begin = set(), 0
    for place, tag in enumerate([*words, "O"]):
        before = words[place - 1] if place else "O"
        type_before = before.split("-")[-1] if place else ""
        changed = type_before != tag.split("-")[-1]
        ends = before[0] + tag[0] in ENDS or before[0] in ("E", "S")
        if ends or (changed and before[0] not in ("O", ".")):
            chunks.add((type_before, begin, place - 1))
        starts = before[0] + tag[0] in STARTS or tag[0] in ("B", "S")
        if starts or (changed and tag[0] not in ("O", ".")):
            begin = place
    return chunks


def values_of(there, predicted):
    right = len(there & predicted)
    precision = right / len(predicted) if predicted else 0
    recall = right / len(there) if there else 0
    f1 = 2 * precision * recall / (precision + recall) if right else 0
    return {"f1": 100 * f1, "precision": 100 * precision, "recall": 100 * recall}


def tagged(tags):
    words = st.lists(st.tuples(tags, tags), min_size=1, max_size=8)
    return st.lists(words.map(lambda pairs: tuple(map(list, zip(*pairs, strict=True)))), min_size=1, max_size=8)


ODD = [*NER, "E-PER", "S-LOC", "B", "I", "X", ".", "-", "B-GPE-LOC", "I-GPE-LOC", "PER", "b-per", ".-PER", "名"]
NO_TYPE = ["I-", "B-", "X-", "X-O", "I-O", "O-", "O-O", "--"]  # of the types "" and "O"


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        tagged(st.sampled_from(NER)),
        tagged(st.sampled_from(UPOS)),
        tagged(st.sampled_from(["NOUN", "X", "SYM", "SCONJ", "CCONJ", "INTJ"])),
        tagged(st.sampled_from(ODD + NO_TYPE)),
        tagged(st.text("BIESO.-AX", min_size=1, max_size=5)),
    )
)
def test_seqeval_equals_its_rules(pairs):
    found = score("seqeval", *pairs)
    del found["accuracy"]
    assert found == values_of(entities(g for g, _ in pairs), entities(f for _, f in pairs))  # bit for bit


@settings(max_examples=200, deadline=None)
@given(st.one_of(tagged(st.sampled_from(NER)), tagged(st.sampled_from([*NER, "E-PER", "S-LOC", "B-MISC"]))))
def test_tags_with_prefixes_are_scored_as_any_seqeval_does(pairs):
    assert score("seqeval", *pairs) == live(pairs)  # bit for bit


def test_no_tag_at_all_is_like_o():
    """A reader or a submission may hold an empty text where a tag should stand."""
    assert score("seqeval", (["B-PER", "", "O"], ["B-PER", "O", ""]))["f1"] == 100


def test_as_many_tags_as_words_are_no_trouble():
    """Predictions may hold anything: a column of words, say."""
    words = [f"w{number}" for number in range(20_000)]
    assert score("seqeval", (["NOUN"] * len(words), words), (["B-LOC"], ["B-LOC"]))["recall"] == 50


def test_seqeval_by_hand():
    values = score(
        "seqeval",
        (["B-LOC", "I-LOC", "O", "B-PER"], ["I-LOC", "I-LOC", "O", "O"]),  # I- opens a chunk: LOC is right
        (["B-ORG", "I-ORG"], ["B-ORG", "B-ORG"]),  # one chunk against two others
    )
    assert values == pytest.approx({"f1": 100 / 3, "precision": 100 / 3, "recall": 100 / 3, "accuracy": 50.0})


def test_parts_of_speech_are_chunks():
    assert score("seqeval", (["NOUN", "NOUN"], ["NOUN", "VERB"]))["recall"] == 0  # equal neighbours are one chunk
    assert score("seqeval", (["SYM", "SYM"], ["SYM", "NOUN"]))["recall"] == 50  # what begins with S never joins
    assert score("seqeval", (["X", "X", "NOUN"], ["X", "X", "VERB"]))["recall"] == 50  # a letter is a type like others


@pytest.mark.parametrize("gold, found", [("SCONJ", "CCONJ"), ("X", "Y"), ("ADV", "DDV"), ("PRON", "NRON")])
def test_the_whole_tag_is_the_type(gold, found):
    """Tags that differ in their first letter only are two types."""
    assert set(score("seqeval", ([gold, "NOUN"], [found, "NOUN"])).values()) == {50.0}


def runs(tags):
    """Chunks of tags without prefix, written from the rule: (tag, first word, last word)."""
    chunks, begin = set(), 0
    for tag, equal in itertools.groupby(tags):
        length = len(list(equal))
        step = 1 if tag.startswith("S") else length
        chunks |= {(tag, first, first + step - 1) for first in range(begin, begin + length, step)}
        begin += length
    return chunks


def restated(tags):
    """Chunks of B-/I- tags, as conlleval counts them, written from the rule: (type, first word, last word)."""
    begins = []
    for place, tag in enumerate(tags):
        before = tags[place - 1] if place else "O"
        if tag != "O" and (tag[0] == "B" or before == "O" or before[2:] != tag[2:]):
            begins.append(place)
    chunks = set()
    for begin, limit in itertools.zip_longest(begins, begins[1:], fillvalue=len(tags)):
        inside = itertools.takewhile(lambda place: tags[place] != "O", range(begin, limit))
        chunks.add((tags[begin][2:], begin, list(inside)[-1]))
    return chunks


@pytest.mark.parametrize("tags, rule", [(NER, restated), (UPOS, runs)], ids=["NER", "UPOS"])
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_chunk_counts_per_sentence_equal_the_restatement(tags, rule, data):
    pairs = data.draw(tagged(st.sampled_from(tags)))
    predictions, examples = sentences(*pairs)
    state = metrics.get("seqeval").update(predictions, examples)
    for number, (gold, found) in enumerate(pairs):
        there, predicted = rule(gold), rule(found)
        counts = [state[name][str(number)] for name in ("correct", "predicted", "gold", "total")]
        assert counts == [len(there & predicted), len(predicted), len(there), len(gold)]


@settings(max_examples=100, deadline=None)
@given(tagged(st.sampled_from(UPOS + [tag for tag in ODD if tag != "-"])), st.data())
def test_scoring_in_parts_equals_scoring_at_once(pairs, data):
    """Of all tags but those of the types "" and "O"."""
    metric = metrics.get("seqeval")
    predictions, examples = sentences(*pairs)
    whole, merged = metric.update(predictions, examples), {}
    for number in data.draw(st.permutations(range(len(examples)))):
        merged = metric.merge(merged, metric.update(predictions, [examples[number]]))
    assert merged == whole and metric.compute(merged) == metric.compute(whole)


def test_interval_of_f1_holds_the_value():
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(150):
        gold = [str(tag) for tag in rng.choice(NER, 12)]
        pairs.append((gold, [tag if rng.random() < 0.8 else "O" for tag in gold]))
    metric = metrics.get("seqeval")
    state = metric.update(*sentences(*pairs))
    values, found = metric.compute(state), metric.interval(state)
    assert values.keys() == found.keys()
    assert all(found[name][0] < values[name] < found[name][1] for name in values)
