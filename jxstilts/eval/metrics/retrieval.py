"""Accuracy of sentence retrieval, and the mean average precision of ranked answers."""

import math
from collections.abc import Collection, Mapping, Sequence

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


class MeanAveragePrecision(SumMetric):
    """Mean over queries of the average precision among the first 20 candidates. Value: "map20"."""

    name = "map20"
    headline = ("map20",)

    def update(self, predictions: Mapping[str, Sequence[str]], examples: Mapping[str, list]) -> State:
        """Scores {query id: candidate ids, the best first}; a query without a ranking scores 0.

        examples: {"gold": [(query id, candidate id), ...]}, the right candidates of each query.
        """
        return self._state((query, {"map20": value}) for query, value in self._values(predictions, _right(examples)))

    def _values(self, predictions, right):
        return mean_average_precision(predictions, right, CUT)[1].items()

    def major(self, values: Mapping[str, float]) -> float:
        """Returns map20."""
        return values["map20"]


class Lareqa(MeanAveragePrecision):
    """LAReQA: "map20" as XTREME-R's release has it, and of our own "map20_cross": without the right answers that are in
    the question's language, which are taken out of the ranking (the next one moves up) and of what is right.

    A candidate's id begins with its language, "de_1_0"; the metric's language is that of the questions.
    """

    name = "lareqa"

    def update(self, predictions: Mapping[str, Sequence[str]], examples: Mapping[str, list]) -> State:
        """See `MeanAveragePrecision.update`; "map20_cross" is not there where no language but the question's is."""
        right = _right(examples)
        state = super().update(predictions, examples)
        own = {
            query: {name for name in names if name.startswith(f"{self.language}_")} for query, names in right.items()
        }
        other = {query: names - own[query] for query, names in right.items()}
        if all(other.values()):
            ranked = {query: [name for name in predictions.get(query, ()) if name not in own[query]] for query in right}
            state["map20_cross"] = dict(self._values(ranked, other))
        return state


class Mewslix(MeanAveragePrecision):
    """Mewsli-X: with one right entity each, the average precision is 1 / its place, 0 beyond the 20th."""

    name = "mewslix"


CUT = 20


def _right(examples: Mapping[str, list]) -> dict[str, set[str]]:
    if "gold" not in examples:
        raise InputError("mean average precision: the examples have no right candidates, so nothing to score")
    right: dict[str, set[str]] = {}
    for query, candidate in examples["gold"]:
        right.setdefault(query, set()).add(candidate)
    return right


def mean_average_precision(
    ranked: Mapping[str, Sequence[str]], gold: Mapping[str, Collection[str]], k: int
) -> tuple[float, dict[str, float]]:
    """Returns (mAP@k from 0 to 100, {query id: its average precision from 0 to 1}).

    Args:
        ranked: the candidates found for each query, the best first, at least k of them where there are as many.
        gold: the right candidates of each query; a query without a ranking scores 0.
    The average precision is the sum of the precisions at each right one among the first k, over the smaller of k and
    the number of right ones (XTREME-R). Raises InputError for k < 1, no query, a query without a right candidate, a
    candidate ranked twice.
    """
    if k < 1 or not gold:
        raise InputError(f"mean average precision: k={k} and the number of queries, {len(gold)}, must be at least 1")
    values = {
        query: _average_precision(query, ranked.get(query, ())[:k], set(right), k) for query, right in gold.items()
    }
    return 100 * math.fsum(values.values()) / len(values), values


def _average_precision(query, first, right, k):
    if not right:
        raise InputError(f"mean average precision: query {query!r} has no right candidate")
    if len(set(first)) != len(first):
        raise InputError(f"mean average precision: query {query!r} has a candidate twice among its first {k}")
    hits = [place for place, candidate in enumerate(first, start=1) if candidate in right]
    return math.fsum(number / place for number, place in enumerate(hits, start=1)) / min(len(right), k)
