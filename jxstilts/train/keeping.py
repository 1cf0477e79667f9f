"""Which heads a phase takes over where its config does not say."""

import dataclasses
from typing import Any

from jxstilts.models.model import HeadSpec, Model
from jxstilts.train import inputs


def keep(phase: Any, model: Model, start_heads: tuple[HeadSpec, ...], data_dir: str) -> Any:
    """Returns the phase with the names of the heads that it takes over from its starting point in `keep_heads`.

    Where the config does not name them (None), these are the heads that the phase trains and its start has, of the same
    name, type and labels: what is trained further goes on, and anything else begins anew. The recipe of an embedding
    model is always taken over.
    Raises InputError where the labels of a task are those of its training rows, and these cannot be read.
    """
    recipes = [spec.name for spec in start_heads if getattr(spec, "recipe", None)]
    if phase.keep_heads is not None and not recipes:
        return phase
    if phase.keep_heads is not None:
        return dataclasses.replace(phase, keep_heads=tuple(dict.fromkeys((*phase.keep_heads, *recipes))))
    start = {spec.name: _content(spec) for spec in start_heads}
    kept: list[str] = []
    if start.keys() & set(map(inputs.head_name, phase.tasks.values())):
        trained = inputs.heads(dataclasses.replace(phase, keep_heads=()), model, (), data_dir).head_specs
        kept = [spec.name for spec in trained if start.get(spec.name) == _content(spec)]
    return dataclasses.replace(phase, keep_heads=(*kept, *recipes))


def _content(spec: HeadSpec) -> tuple:
    return spec.type, sorted(map(str.casefold, spec.labels)), spec.pooling, spec.aggregation
