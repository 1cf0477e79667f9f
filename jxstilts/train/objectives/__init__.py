"""Objectives: what a phase minimises, one module each, found by name.

A module defines `prepare(batch, rng, context) -> batch`, which runs inside the jitted step on the whole batch before it
is split into micro-batches, and `HEAD`, the type of the head whose loss is taken (None: the task's own head).
"""

import dataclasses
import importlib
import pkgutil

from jxstilts.runtime import InputError, suggest


@dataclasses.dataclass(frozen=True)
class Context:
    """What objectives may need to know of the vocabulary."""

    vocab_size: int
    mask_id: int
    special_ids: tuple[int, ...]


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str):
    """Returns the objective's module."""
    if name not in names():
        raise InputError(f"config.phases.*.objective: {suggest('objective', name, names())}")
    return importlib.import_module(f"{__name__}.{name}")
