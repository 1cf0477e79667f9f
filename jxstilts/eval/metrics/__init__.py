"""Metrics, found by name: every class in this folder that has a `name`."""

import functools
import importlib
import pkgutil

from jxstilts.eval.metrics.base import Metric, SumMetric
from jxstilts.runtime import InputError, suggest

__all__ = ["Metric", "SumMetric", "get", "names"]


@functools.cache
def _found() -> dict[str, type[Metric]]:
    metrics: dict[str, type[Metric]] = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            named = isinstance(value, type) and issubclass(value, Metric) and hasattr(value, "name")
            if named and metrics.setdefault(value.name, value) is not value:
                raise ValueError(f"two metrics are named {value.name!r}; the second is in {module.name}.py")
    return metrics


def names() -> list[str]:
    """Returns the names of all metrics, sorted."""
    return sorted(_found())


def get(name: str | Metric, language: str = "en") -> Metric:
    """Returns a metric with a language's rules, or one that is given as it is.

    Raises InputError for an unknown name or language.
    """
    if isinstance(name, Metric):
        return name
    if name not in _found():
        raise InputError(suggest("metric", name, names()))
    return _found()[name](language)
