"""Objectives: what a phase minimises, one module each, found by its name.

A module defines `Objective`, a frozen dataclass that inherits `base.Objective`; its fields are its options. Of these a
subclass defines what it needs:

    HEAD        the type of the head it trains ("mlm"); base.OWN: the head of the stream's task; None: no head. With a
                head, a field `head` holds the head's name.
    reads_all(model) -> True: it reads all hidden states, not the last alone
    READS_LANGUAGE  True: its streams' batches hold `language` [B, S], of each example its language's place in
                `tasks.languages.LANGUAGES`
    KEPT        True: its parameters are a part of the model: bundles keep them, and a later phase with an objective of
                the same name takes them over. False: the phase's bundle is without them.
    WHOLE_VOCABULARY  False: it reads no token embedding but those of the batches' own tokens. Then the phase may train
                the rows that occur alone (see `train.vocabulary`): `batches` and `context` number tokens by these rows.
    init(model, key) -> parameters of its own, params["extra"][NAME], which `self.own(params)` finds; {} for none
    optimizer(config, steps) -> the optimizer of those parameters: a group of its own, with its own clipping, so that
                they do not change what the others do
    prepare(batch, rng, context) -> batch: once, on a stream's whole batch, before it is cut into micro-batches
    loss(model, params, batches, rng, progress) -> (sum, weight, logs)
    kept(model, batches) -> arrays [B, ...], for an optimizer that updates the objective's parameters several times in a
                step: its `update` is handed kept={NAME: those of the whole batch}, without a way back to the encoder

`loss` sees one micro-batch. `batches` holds a `base.Forward` of each of the objective's streams that the step takes
(one at least): `.batch` are its arrays, `.hidden` and `.all_hidden` the encoder's states, which all objectives of the
stream share: same pass, same dropout. `params` is the whole tree {"encoder", "heads", "extra"}. `progress` is the
share of the phase's steps that are done, a traced float32 in [0, 1): a schedule on it compiles nothing anew. Sums and
weights are added over micro-batches, devices and hosts and divided once, so a loss is a sum over examples or tokens,
and its weight their number; `logs` {name: (sum, weight)} are added and divided alike. Rows may be packed: what belongs
to an example is found by its segment (`models.heads.first_tokens`, `segment_members`), and its weight is
batch["weights"] [B, S], 0 where there is none.

Every stream has one objective of its own (`task`, `mlm`; `none`: it only feeds others). Further ones, on one stream or
several, are the phase's `objectives` (see `train.terms`). A file outside the package is named in JXSTILTS_OBJECTIVES.
"""

import dataclasses
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from jxstilts import config
from jxstilts.rooms import Room
from jxstilts.runtime import InputError, suggest
from jxstilts.train.objectives.base import OWN, Context, Forward, Objective

__all__ = ["OWN", "Context", "Forward", "Objective", "get", "make", "names"]

ROOM = Room(__name__, "objective", "JXSTILTS_OBJECTIVES")
names = ROOM.names


def get(name: str, where: str = "config.phases.*.objective") -> type[Objective]:
    """Returns an objective's class. where: the config path that begins an error."""
    module: ModuleType = ROOM.get(name, where)
    kind = getattr(module, "Objective", None)
    if not (isinstance(kind, type) and issubclass(kind, Objective) and kind is not Objective):
        raise InputError(f"{where}: {module.__file__} has no class Objective that inherits objectives.Objective")
    return kind


def make(name: str, options: Mapping[str, Any], entry: str, where: str = "config.phases.*.objectives.*") -> Objective:
    """Returns an objective with these options. Raises InputError for an unknown name or option, or a wrong type.

    entry: the name of its entry in the phase.
    """
    kind = get(name, f"{where}.objective")
    known = [field.name for field in dataclasses.fields(kind) if field.name != "name"]
    for option in options:
        if option not in known:
            raise InputError(f"{where}.options: {suggest('option', option, known)}")
    return config.build(kind, {**options, "name": entry}, f"{where}.options")
