"""Accuracy of a classification."""

from collections.abc import Sequence

from jxstilts.eval.metrics.base import ExampleMean, State
from jxstilts.runtime import InputError


class Accuracy(ExampleMean):
    """Share of examples whose predicted class id is the gold one. Value: "accuracy"."""

    name = "accuracy"

    def update(self, predictions: Sequence[int], examples: Sequence[dict]) -> State:
        """Scores class ids [N] against N classification examples. Raises InputError for an example without a label."""
        if len(predictions) != len(examples):
            raise InputError(f"metric 'accuracy': {len(predictions)} predictions for {len(examples)} examples")
        scores = []
        for prediction, example in zip(predictions, examples, strict=True):
            if "label" not in example:
                raise InputError(f"metric 'accuracy': example {example['id']!r} has no gold label, so nothing to score")
            scores.append((example["id"], {"accuracy": int(prediction) == example["label"]}))
        return self._state(scores)
