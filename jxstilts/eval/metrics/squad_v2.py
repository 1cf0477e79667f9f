"""SQuAD v2: answers that may be absent, at a fixed threshold and at the best one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jxstilts.eval.metrics.base import State
from jxstilts.eval.metrics.span import Squad, token_f1
from jxstilts.runtime import InputError

BEST = {"best_exact_match": "exact_gain", "best_f1": "f1_gain"}


class SquadV2(Squad):
    """F1 and exact match by SQuAD's words, where `[]` as gold answers means that the question has none.

    Values: "exact_match" and "f1" at the threshold 0 (no answer is given when its score is above that of the best
    span); "best_exact_match" and "best_f1" at the threshold that is best on these very examples, as in the official
    script; and, where there are both kinds of question, "has_answer_f1" and "no_answer_accuracy".
    The study's code gives its search no scores at all, so that its best values depend on the order of the question
    ids; here they are the official ones, and of equal scores all or none get their span.
    Columns: exact_match and f1; answerable, answerable_f1, unanswerable_right; and for the search null (1 where no
    answer is right), exact_gain and f1_gain (what the span adds to it) and no_answer (null score - span score).
    """

    name = "squad_v2"

    def update(self, predictions: Mapping[str, Mapping], examples: Sequence[dict]) -> State:
        """Scores {example id: {"text": best span, "no_answer": null score - its score}}; without one it is 0.

        Raises InputError for an example without "answers" (an empty list is a gold answer here).
        """
        return self._state((example["id"], self._columns(predictions, example)) for example in examples)

    def _columns(self, predictions, example):
        if "answers" not in example:
            raise InputError(f"metric {self.name!r}: question {example['id']!r} has no gold, so nothing to score")
        # the official script takes only gold answers of which some word is left, and "" where there is none
        golds = [answer["text"] for answer in example["answers"] if self.words(answer["text"])] or [""]
        answerable = bool(example["answers"])
        prediction = predictions.get(example["id"])
        null = exact = f1 = no_answer = 0.0
        gains = (0.0, 0.0)
        if prediction is not None:
            text, no_answer = self._parts(prediction, example)
            null = float(not answerable)
            exact, f1 = self._against(text, golds)
            # of a question without an answer any text is wrong to the search, even one that has no words left
            gains = (exact, f1) if answerable else (-float(text != ""),) * 2
            if no_answer > 0:
                exact = f1 = null
        return {
            "exact_match": exact, "f1": f1, "answerable": answerable,
            "answerable_f1": f1 * answerable, "unanswerable_right": exact * (not answerable),
            "null": null, "exact_gain": gains[0], "f1_gain": gains[1], "no_answer": no_answer,
        }  # fmt: skip

    def _parts(self, prediction, example):
        if not isinstance(prediction, Mapping) or not {"text", "no_answer"} <= prediction.keys():
            raise InputError(
                f"metric {self.name!r}: the prediction for {example['id']!r} is {prediction!r}, expected "
                '{"text": best span, "no_answer": null score - span score}'
            )
        if not math.isfinite(prediction["no_answer"]):
            raise InputError(f"metric {self.name!r}: no_answer of {example['id']!r} is {prediction['no_answer']}")
        return prediction["text"], prediction["no_answer"]

    def _against(self, text, golds):
        found = self.words(text)
        pairs = [(found, self.words(gold)) for gold in golds]
        # unlike v1's script, two answers without any word agree here
        scores = [token_f1(a, b) if a and b else float(a == b) for a, b in pairs]
        return float(any(a == b for a, b in pairs)), max(scores)

    def score(self, sums: Mapping[str, Any], n: int) -> dict[str, Any]:
        """Returns the values at the threshold 0."""
        values = {"exact_match": 100 * sums["exact_match"] / n, "f1": 100 * sums["f1"] / n}
        there = np.asarray(sums["answerable"])
        if np.any((there > 0) & (there < n)):  # a draw may lack one kind: it says nothing of that kind's value
            for name, part, whole in (
                ("has_answer_f1", "answerable_f1", there),
                ("no_answer_accuracy", "unanswerable_right", n - there),
            ):
                values[name] = 100 * sums[part] / np.where(whole > 0, whole, np.nan)
        return values

    def compute(self, state: State) -> dict[str, float]:
        """Returns all values; the order of merging cannot change them."""
        values = super().compute(state)
        n = self._count(state)
        ids = sorted(state["no_answer"], key=lambda i: (state["no_answer"][i], i))
        scores = np.array([state["no_answer"][i] for i in ids])
        last = _last_of_equals(scores)
        for name, column in BEST.items():
            gains = [state[column][i] for i in ids]
            totals = np.cumsum(gains)[last]
            given = last[totals.argmax()] + 1 if totals.max() > 0 else 0  # so many questions get their span
            values[name] = 100 * math.fsum([*state["null"].values(), *gains[:given]]) / n
        return values

    def draw(self, columns: Mapping[str, np.ndarray], weights: np.ndarray, n: int) -> dict[str, np.ndarray]:
        """Returns each value [draws]; every draw searches its own best threshold."""
        values = super().draw(columns, weights, n)
        order = np.argsort(columns["no_answer"], kind="stable")
        last = _last_of_equals(columns["no_answer"][order])
        for name, column in BEST.items():
            totals = np.cumsum(weights[:, order] * columns[column][order], axis=1)[:, last]
            values[name] = 100 * (weights @ columns["null"] + np.maximum(totals.max(axis=1), 0)) / n
        return values

    def major(self, values: Mapping[str, float]) -> float:
        """Returns the mean of F1 and exact match at the best threshold."""
        return (values["best_f1"] + values["best_exact_match"]) / 2


def _last_of_equals(scores: np.ndarray) -> np.ndarray:
    """Sorted scores [N] -> the places at which a threshold can lie: each last one of equal scores."""
    return np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
