"""Accuracy of a classification or a choice, and F1 of the positive class of a yes-or-no one."""

from collections.abc import Mapping, Sequence
from typing import Any

from jxstilts.eval.metrics.base import State, SumMetric, ratio
from jxstilts.runtime import InputError


class Accuracy(SumMetric):
    """Share of examples whose predicted class id, or place among the choices, is the gold one. Value: "accuracy"."""

    name = "accuracy"

    def update(self, predictions: Sequence[int], examples: Sequence[dict]) -> State:
        """Scores ids [N] against N examples with a "label". Raises InputError for an example without one."""
        if len(predictions) != len(examples):
            raise InputError(f"metric {self.name!r}: {len(predictions)} predictions for {len(examples)} examples")
        scores = []
        for prediction, example in zip(predictions, examples, strict=True):
            if "label" not in example:
                raise InputError(
                    f"metric {self.name!r}: example {example['id']!r} has no gold label, so nothing to score"
                )
            scores.append((example["id"], self._columns(int(prediction), example["label"])))
        return self._state(scores)

    def _columns(self, prediction: int, label: int) -> dict[str, float]:
        return {"accuracy": prediction == label}


class Paraphrase(Accuracy):
    """GLUE's rule for QQP: accuracy, and F1 of label 1. Values: "accuracy" and "f1"; the major one is their mean."""

    name = "paraphrase"
    headline = ("accuracy", "f1")

    def _columns(self, prediction, label):
        return {
            "right": prediction == label,
            "found": prediction == label == 1,
            "predicted": prediction == 1,
            "gold": label == 1,
        }

    def score(self, sums: Mapping[str, Any], n: int) -> dict[str, Any]:
        """Returns both values; without any label 1, gold or predicted, F1 is 0."""
        return {
            "accuracy": 100 * sums["right"] / n,
            "f1": 100 * ratio(2 * sums["found"], sums["predicted"] + sums["gold"]),
        }

    def major(self, values: Mapping[str, float]) -> float:
        """Returns the mean of accuracy and F1."""
        return (values["accuracy"] + values["f1"]) / 2
