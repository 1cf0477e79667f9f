"""The contract of a metric, and the common case: a function of sums over examples."""

import abc
import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from jxstilts.eval.metrics.bootstrap import intervals
from jxstilts.runtime import InputError

State = dict[str, dict[str, float]]


class Metric(abc.ABC):
    """A stateless object: `update` gives the state of some examples, `merge` joins two states, `compute` scores one.

    name: how `get` finds it. language: whose rules apply, as the task names it (MLQA: "en" or "en-de"). headline: the
    values whose mean is a task's score where no benchmark says otherwise. tuned: `at` gives the metric with a threshold
    that was tuned elsewhere.
    """

    name: ClassVar[str]
    headline: ClassVar[tuple[str, ...]] = ("accuracy",)
    tuned: ClassVar[bool] = False

    def __init__(self, language: str = "en"):
        self.language = language

    @abc.abstractmethod
    def update(self, predictions: Any, examples: Any) -> Any:
        """Returns the state of these examples alone."""

    def merge(self, a: State, b: State) -> State:
        """Returns the union of two states; `{}` is the empty one. Raises InputError where both hold the same id."""
        merged = {name: dict(values) for name, values in a.items()}
        for name, values in b.items():
            mine = merged.setdefault(name, {})
            again = mine.keys() & values.keys()
            if again:
                raise InputError(f"metric {self.name!r}: {min(again)!r} was scored twice")
            mine.update(values)
        return merged

    @abc.abstractmethod
    def compute(self, state: Any) -> dict[str, float]:
        """Returns {name: value from 0 to 100}."""

    @abc.abstractmethod
    def interval(self, state: Any) -> dict[str, tuple[float, float]]:
        """Returns {name: (low, high)}, the 95 % interval of each value of `compute` over other draws of examples."""

    def major(self, values: Mapping[str, float]) -> float:
        """Returns the one number by which models are chosen (protocol 3.3)."""
        return values["accuracy"]


class SumMetric(Metric):
    """A metric whose values are functions of sums over examples; `{}` is the empty state.

    The state is {column: {example id: number}}, the same ids in every column, so that paired statistics can be drawn
    from it later. A subclass decides the columns in `update` and what their sums say in `score`; by default each
    column holds numbers from 0 to 1 and is a value, its mean.
    """

    def score(self, sums: Mapping[str, Any], n: int) -> dict[str, Any]:
        """Returns {value name: 0 to 100} of n examples from {column: sum}; sums may be arrays, one entry per draw."""
        return {name: 100 * total / n for name, total in sums.items()}

    def compute(self, state: State) -> dict[str, float]:
        """Returns the values of a state; the order of merging cannot change them."""
        n = self._count(state)
        values = self.score({name: math.fsum(column.values()) for name, column in state.items()}, n)
        return {name: float(value) for name, value in values.items()}

    def interval(self, state: State, level: float = 0.95, draws: int = 1000) -> dict[str, tuple[float, float]]:
        """Returns the percentile bootstrap over examples of every value of `compute`; the same for the same state.

        A draw in which a value is not defined takes no part in it.
        """
        n, names = self._count(state), sorted(state)
        rows = np.array([[state[name][i] for name in names] for i in sorted(next(iter(state.values())))], np.float64)
        distinct, counts = np.unique(rows, axis=0, return_counts=True)
        columns = dict(zip(names, distinct.T, strict=True))
        draw = lambda weights: self.draw(columns, weights, n)  # noqa: E731
        return intervals(self.compute(state), counts, draw, len(distinct), level, draws)

    def draw(self, columns: Mapping[str, np.ndarray], weights: np.ndarray, n: int) -> dict[str, np.ndarray]:
        """Returns each value [draws] of weighted examples; columns [distinct examples], weights [draws, distinct]."""
        return self.score({name: weights @ column for name, column in columns.items()}, n)

    def _count(self, state: State) -> int:
        """Returns the number of examples. Raises InputError for none, or for columns that hold different ones."""
        if not state or not all(state.values()):
            raise InputError(f"metric {self.name!r}: there is no example to score")
        first, *others = state.values()
        if any(other.keys() != first.keys() for other in others):
            raise InputError(f"metric {self.name!r}: the columns of this state hold different examples")
        return len(first)

    def _state(self, scores: Iterable[tuple[str, Mapping[str, float]]]) -> State:
        """Returns the state of (example id, {column: number}) pairs."""
        state: State = {}
        for identifier, values in scores:
            for name, value in values.items():
                column = state.setdefault(name, {})
                if identifier in column:
                    raise InputError(f"metric {self.name!r}: two examples have the id {identifier!r}")
                column[identifier] = float(value)
        return state


def ratio(part: Any, whole: Any) -> Any:
    """Returns part / whole, and 0 where whole is 0; floats or arrays."""
    return np.where(whole > 0, part, 0.0) / np.where(whole > 0, whole, 1.0)
