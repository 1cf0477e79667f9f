"""The contract of a metric, and the common case: a mean over examples."""

import abc
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from jxstilts.runtime import InputError

State = dict[str, dict[str, float]]


class Metric(abc.ABC):
    """A stateless object: `update` gives the state of some examples, `merge` joins two states, `compute` scores one.

    name: how `get` finds it. language: whose rules apply, as the task names it (MLQA: "en" or "en-de").
    """

    name: ClassVar[str]

    def __init__(self, language: str = "en"):
        self.language = language

    @abc.abstractmethod
    def update(self, predictions: Any, examples: Any) -> Any:
        """Returns the state of these examples alone."""

    @abc.abstractmethod
    def merge(self, a: Any, b: Any) -> Any:
        """Returns the state of both sets of examples together."""

    @abc.abstractmethod
    def compute(self, state: Any) -> dict[str, float]:
        """Returns {name: value from 0 to 100}."""


class ExampleMean(Metric):
    """A metric whose every value is a mean over examples; `{}` is the empty state.

    The state is {value name: {example id: number from 0 to 1}}, so that paired statistics can be drawn from it later.
    """

    def merge(self, a: State, b: State) -> State:
        """Returns the union of two states. Raises InputError where both hold the same example."""
        merged = {name: dict(values) for name, values in a.items()}
        for name, values in b.items():
            mine = merged.setdefault(name, {})
            again = mine.keys() & values.keys()
            if again:
                raise InputError(f"metric {self.name!r}: example {min(again)!r} was scored twice")
            mine.update(values)
        return merged

    def compute(self, state: State) -> dict[str, float]:
        """Returns 100 times the mean of each value; the order of merging cannot change it."""
        if not state or not all(state.values()):
            raise InputError(f"metric {self.name!r}: there is no example to score")
        return {name: 100 * math.fsum(values.values()) / len(values) for name, values in state.items()}

    def _state(self, scores: list[tuple[str, Mapping[str, float]]]) -> State:
        """Returns the state of (example id, {value name: number}) pairs."""
        state: State = {}
        for identifier, values in scores:
            for name, value in values.items():
                column = state.setdefault(name, {})
                if identifier in column:
                    raise InputError(f"metric {self.name!r}: two examples have the id {identifier!r}")
                column[identifier] = float(value)
        return state
