"""How even answers are over languages, and what is wrong with them: by hand."""

import numpy as np
import pytest

from jxstilts.eval import metrics, robustness
from jxstilts.runtime import InputError


def test_measures_by_hand():
    values = {
        "en": {"1": 1.0, "2": 1.0, "3": 0.0, "4": 1.0},
        "de": {"1": 1.0, "2": 0.5, "3": 0.0},  # not all items are in all languages
        "hi": {"1": 1.0, "3": 0.5, "4": 0.0},
        "en-de": {"1": 1.0, "2": 0.0},
        "de-en": {"1": 0.0, "2": 0.0, "3": 0.0},
    }
    found = robustness.measures(values)
    own = {"en": 75.0, "de": 50.0, "hi": 50.0}
    assert {name: value for name, (value, _) in found.items()} == pytest.approx({
        "diagonal": np.mean(list(own.values())), "gap": 25.0, "worst": 50.0, "off_diagonal": 25.0,
        "penalty": np.mean(list(own.values())) - 25.0,
        "consistency": 100 / 3,  # of 1, 2 and 4, right in English, only 1 is right wherever it is asked
    })  # fmt: skip
    assert all(low <= value <= high for value, (low, high) in found.values())
    assert robustness.measures(values) == found
    with pytest.raises(InputError, match="robustness needs 'en' and another language"):
        robustness.measures({"en": values["en"], "en-de": values["en-de"]})


def test_intervals_narrow_with_more_items():
    rng = np.random.default_rng(0)
    wide, narrow = (
        robustness.measures(
            {code: {str(i): float(rng.random() < 0.6) for i in range(n)} for code in ("en", "de", "hi")}
        )
        for n in (40, 1600)
    )
    for name in ("diagonal", "gap", "consistency"):
        (_, (a, b)), (_, (c, d)) = wide[name], narrow[name]
        assert 3 < (b - a) / (d - c) < 13, name


def test_what_is_wrong_with_answers():
    metric = metrics.get("answer_faults")
    hindi = {
        "context": "\u0930\u093e\u092e \u092a\u0947\u0930\u093f\u0938 1889",
        "answers": [{"text": "1889", "start": 9}],
    }
    examples = [
        {"id": "1", **hindi}, {"id": "2", **hindi}, {"id": "3", **hindi}, {"id": "4", **hindi, "answers": []},
        {"id": "5", **hindi, "answers": []},
    ]  # fmt: skip
    said = {"1": "\u0930\u093e\u092e\u092a\u0947\u0930\u093f\u0938", "2": "Paris", "3": "", "4": "1889", "5": ""}
    state = metric.update(said, examples)
    assert metric.compute(state) == pytest.approx(
        {"not_in_context": 20.0, "other_script": 20.0, "empty": 100 / 3, "false_answers": 50.0}
    )
    low, high = metric.interval(state)["not_in_context"]
    assert 0 <= low <= 20 <= high <= 100
    unsure = {key: {"text": text, "no_answer": -1.0 if text else 1.0} for key, text in said.items()}
    assert metric.update(unsure, examples) == state


def test_noise_is_a_function_of_the_id_and_grows_with_the_rate():
    rows = [
        {"id": str(i), "question": "Who finished the tower in Paris?", "context": "c", "answers": []}
        for i in range(300)
    ]
    assert robustness.noisy("xquad", rows, 0.0) == rows
    few, many = robustness.noisy("xquad", rows, 0.05), robustness.noisy("xquad", rows, 0.3)
    assert robustness.noisy("xquad", rows[:3], 0.05) == few[:3] and robustness.noisy("xquad", rows, 0.05, seed=1) != few
    changed = [np.mean([a["question"] != b["question"] for a, b in zip(rows, own, strict=True)]) for own in (few, many)]
    assert 0.5 < changed[0] < changed[1] <= 1
    assert {row["context"] for row in many} == {"c"} and all("?" in row["question"] for row in many)
