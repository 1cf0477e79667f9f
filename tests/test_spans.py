"""From window scores to answers: brute force over all spans and windows, and SQuAD v2's no-answer score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts.eval import metrics
from jxstilts.forms import answers as decoding


def test_no_valid_span_gives_an_empty_answer():
    fields = {"char_start": np.full(4, -1), "char_end": np.full(4, -1), "max_context": np.ones(4, bool)}
    windows = {0: (0, np.full((4, 2), 3.0), fields)}
    examples = [{"id": "a", "context": "text"}, {"id": "b", "context": "t"}]
    assert decoding.decode(examples, windows) == {"a": "", "b": ""}
    assert decoding.decode(examples, windows, null_scores=True) == {
        "a": {"text": "", "no_answer": 6.0},
        "b": {"text": "", "no_answer": 0.0},
    }


def world(seed, questions=3):
    """Random windows of random contexts: token 0 is <s>, some tokens may not begin or end an answer."""
    rng = np.random.default_rng(seed)
    examples, windows = [], {}
    for number in range(questions):
        examples.append({"id": f"q{number}", "context": "".join(rng.choice(list("abcdefgh "), 40))})
        for _ in range(rng.integers(1, 4)):
            length = int(rng.integers(2, 12))
            start = np.where(rng.random(length) < 0.8, np.sort(rng.integers(0, 40, length)), -1)
            start[0] = -1
            fields = {
                "char_start": start,
                "char_end": np.where(start >= 0, start + 1, -1),
                "max_context": rng.random(length) < 0.7,
            }
            logits = rng.normal(size=(length, 2)).astype(np.float32)
            windows[len(windows)] = (number, logits, fields)
    return examples, windows


def brute_force(examples, windows, longest):
    """Every span of every window by loops: {id: (score, text) or None}, {id: null score}."""
    best, null = {}, {}
    for number, logits, fields in windows.values():
        example = examples[number]
        scores = [float(a) + float(b) for a, b in logits[:1]]
        null[example["id"]] = min([null[example["id"]], *scores] if example["id"] in null else scores)
        for i in range(len(logits)):
            for j in range(i, min(i + longest, len(logits))):
                if fields["char_start"][i] < 0 or fields["char_start"][j] < 0 or not fields["max_context"][i]:
                    continue
                score = float(logits[i, 0] + logits[j, 1])
                text = example["context"][fields["char_start"][i] : fields["char_end"][j]].strip()
                if example["id"] not in best or score > best[example["id"]][0]:
                    best[example["id"]] = (score, text)
    return best, null


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8))
def test_answers_and_no_answer_scores_equal_brute_force(seed, longest):
    examples, windows = world(seed)
    texts = decoding.decode(examples, windows, n_best=100, max_answer_length=longest)
    answers = decoding.decode(examples, windows, n_best=100, max_answer_length=longest, null_scores=True)
    best, null = brute_force(examples, windows, longest)
    assert {name: answer["text"] for name, answer in answers.items()} == texts
    for example in examples:
        score, text = best.get(example["id"], (0.0, ""))
        assert texts[example["id"]] == text
        assert answers[example["id"]]["no_answer"] == pytest.approx(null[example["id"]] - score, abs=1e-6)


def test_the_predictions_are_what_the_metric_takes():
    examples, windows = world(3)
    gold = [{**example, "answers": []} for example in examples]
    metric = metrics.get("squad_v2")
    values = metric.compute(metric.update(decoding.decode(examples, windows, null_scores=True), gold))
    assert values["best_f1"] == 100  # with the threshold below every score nothing is answered
