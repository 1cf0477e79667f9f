"""Accuracy of sentence retrieval."""

from collections.abc import Mapping

from jxstilts.eval.metrics.base import State, SumMetric
from jxstilts.runtime import InputError


class RetrievalAccuracy(SumMetric):
    """Share of queries (English sentences) whose nearest source sentence is a gold one. Value: "accuracy"."""

    name = "retrieval"

    def update(self, predictions: Mapping[str, str], examples: Mapping[str, list]) -> State:
        """Scores {target id: source id}; a gold target without a prediction counts as wrong.

        examples: {"source", "target", "gold": [(source id, target id), ...]} of a retrieval task; a target may have
        several gold sources, and one without any is not scored.
        """
        if "gold" not in examples:
            raise InputError("metric 'retrieval': the examples have no gold pairs, so nothing to score")
        gold: dict[str, set[str]] = {}
        for source, target in examples["gold"]:
            gold.setdefault(target, set()).add(source)
        return self._state([(target, {"accuracy": predictions.get(target) in found}) for target, found in gold.items()])
