"""F1 of mined sentence pairs, at a threshold of their scores (BUCC)."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jxstilts.eval.metrics.base import Metric, State, ratio
from jxstilts.eval.metrics.bootstrap import intervals
from jxstilts.runtime import InputError


class Bucc(Metric):
    """Precision, recall and F1 of the mined pairs whose score reaches a threshold, as sets of (source id, target id).

    Without a threshold `compute` tunes it on the state's own gold pairs, as the study does for dev: the midpoint
    between the neighbours at the cut with the best F1. Values: "f1", "precision", "recall" (0-100) and "threshold".
    For test, `at` gives the metric with the dev threshold: the same values at it, and "oracle_f1", what tuning on
    these very gold pairs would give.

    The state is {"gold": {pair: 1}, "score": {pair: score}}, the gold and the mined pairs, as "source id TAB target
    id".
    """

    name = "bucc"
    headline = ("f1",)
    tuned = True

    def __init__(self, language: str = "en", threshold: float | None = None):
        super().__init__(language)
        self.threshold = threshold

    def at(self, threshold: float) -> "Bucc":
        """Returns this metric with a threshold that was tuned elsewhere: `compute(dev state)["threshold"]`."""
        return Bucc(self.language, threshold)

    def update(self, predictions: Sequence[tuple[str, str, float]], examples: Mapping[str, list]) -> State:
        """Keeps the mined pairs (source id, target id, score) and the gold pairs of {"source", "target", "gold"}.

        Raises InputError for examples without gold pairs, a pair mined twice, a score that is not a finite number.
        """
        if not examples.get("gold"):
            raise InputError("metric 'bucc': the examples have no gold pairs, so nothing to score")
        scores: dict[str, float] = {}
        for source, target, score in predictions:
            key = _key(source, target)
            if key in scores:
                raise InputError(f"metric 'bucc': the pair {source!r}, {target!r} was mined twice")
            if not math.isfinite(score):
                raise InputError(f"metric 'bucc': the score of the pair {source!r}, {target!r} is {score}")
            scores[key] = float(score)
        return {"gold": {_key(source, target): 1.0 for source, target in examples["gold"]}, "score": scores}

    def compute(self, state: State) -> dict[str, float]:
        """Returns the values of a state; 0 where nothing is found."""
        table = _Table(state)
        tuned, threshold = table.tune()
        if self.threshold is None:
            return table.values(threshold) | {"threshold": threshold}
        return table.values(self.threshold) | {"threshold": self.threshold, "oracle_f1": tuned}

    def interval(self, state: State, level: float = 0.95, draws: int = 1000) -> dict[str, tuple[float, float]]:
        """Returns the percentile bootstrap over source sentences of every value of `compute`.

        A source sentence brings its gold and its mined pairs along; those without either change no value. Every draw
        tunes its own threshold; a given one stays. A draw without any gold pair takes no part.
        """
        table = _Table(state)
        draw = lambda weights: table.draw(weights[weights @ table.gold > 0], self.threshold)  # noqa: E731
        return intervals(
            self.compute(state), np.ones(table.units), draw, max(table.units, len(table.scores)), level, draws
        )

    def major(self, values: Mapping[str, float]) -> float:
        """Returns F1."""
        return values["f1"]


def _key(source: str, target: str) -> str:
    if "\t" in source:
        raise InputError(f"metric 'bucc': the source id {source!r} holds a tab")
    return f"{source}\t{target}"


class _Table:
    """A state as arrays: the P mined pairs sorted by score, the best first, and the U source sentences with pairs.

    scores, right [P]: score, and 1 for a gold pair; unit [P]: its source sentence; gold [U]: gold pairs of each.
    cuts [C]: how many pairs each possible threshold keeps, ascending; pairs of equal score go together.
    """

    def __init__(self, state: State):
        gold, mined = state.get("gold", {}), state.get("score", {})
        if not gold:
            raise InputError("metric 'bucc': there is no gold pair to score against")
        pairs = sorted(mined, key=lambda pair: (-mined[pair], pair))
        sources = {key.partition("\t")[0] for key in itertools.chain(gold, mined)}
        numbers = {source: number for number, source in enumerate(sorted(sources))}
        number_of = lambda keys: np.array([numbers[key.partition("\t")[0]] for key in keys], np.int64)  # noqa: E731
        self.scores = np.array([mined[pair] for pair in pairs], np.float64)
        self.right = np.array([pair in gold for pair in pairs], np.float64)
        self.unit = number_of(pairs)
        self.units = len(numbers)
        self.gold = np.bincount(number_of(gold), minlength=self.units).astype(np.float64)
        self.cuts = np.flatnonzero(np.diff(self.scores, append=-np.inf)) + 1

    def tune(self) -> tuple[float, float]:
        """Returns (best F1, the highest threshold that gives it)."""
        drawn = self.draw(np.ones((1, self.units)), None)
        return float(drawn["f1"][0]), float(drawn["threshold"][0])

    def values(self, threshold: float) -> dict[str, float]:
        """Returns F1, precision and recall of the pairs with score >= threshold."""
        drawn = self.draw(np.ones((1, self.units)), threshold)
        return {name: float(drawn[name][0]) for name in ("f1", "precision", "recall")}

    def draw(self, weights: np.ndarray, threshold: float | None) -> dict[str, np.ndarray]:
        """Returns each value [draws] of weighted source sentences, weights [draws, U]."""
        of_pairs = weights[:, self.unit]
        kept = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(of_pairs, axis=1)], axis=1)
        right = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(of_pairs * self.right, axis=1)], axis=1)
        gold = weights @ self.gold
        cuts = np.append(0, self.cuts)  # keeping nothing is the cut with F1 0
        scores = 100 * ratio(2 * right[:, cuts], kept[:, cuts] + gold[:, None])
        best = scores.argmax(axis=1)  # the first one, so the highest threshold
        rows = np.arange(len(weights))
        if threshold is None:
            at, thresholds = cuts[best], self._thresholds()[best]
        else:
            at = np.full(len(weights), np.count_nonzero(self.scores >= threshold))
            thresholds = np.full(len(weights), threshold)
        return {
            "f1": 100 * ratio(2 * right[rows, at], kept[rows, at] + gold),
            "precision": 100 * ratio(right[rows, at], kept[rows, at]),
            "recall": 100 * right[rows, at] / gold,
            "threshold": thresholds,
            "oracle_f1": scores[rows, best],
        }

    def _thresholds(self) -> np.ndarray:
        """Returns the threshold of each cut, [1 + C]: halfway between the last score kept and the first that is not.

        Of the last cut, the last score. Of the cut that keeps nothing, 0, what the mining itself asks for: nothing
        was learned.
        """
        if not len(self.scores):
            return np.zeros(1)
        last, following = self.scores[self.cuts - 1], np.append(self.scores[self.cuts[:-1]], np.nan)
        halfway = following + (last - following) / 2
        # of neighbouring floats the middle may round to the lower one, which is not kept
        return np.append(0.0, np.where(halfway > following, halfway, last))
