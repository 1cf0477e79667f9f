"""The terms of what a phase minimises: each stream's own objective, and further ones on one stream or several."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import optax

from jxstilts.config import setting
from jxstilts.models.model import Model
from jxstilts.runtime import InputError, suggest
from jxstilts.train import inputs, objectives
from jxstilts.train import optimizer as optimizers
from jxstilts.train.mixture import Stream
from jxstilts.train.optimizer import Optimizer


@dataclasses.dataclass(frozen=True)
class Further:
    """An objective beside those of the streams: an entry of a phase's `objectives`."""

    streams: tuple[str, ...] = setting(
        (), "streams of the phase, one at least; the objective takes part in every step that takes one of them"
    )
    objective: str = setting("", 'the name of the objective; "" = the entry\'s own name')
    weight: float = setting(1.0, "weight of its mean loss; 0 = as if the entry were not there", least=0)
    options: dict[str, Any] = setting(dict, "keys of the objective")
    optimizer: Optimizer = setting(
        Optimizer,
        "how the parameters learn that the objective adds; rate, warm-up and weight decay that are None: the phase's",
    )

    def __post_init__(self):
        if not 0 <= self.weight < math.inf:
            raise InputError(f"weight={self.weight}: the weight of a further objective is 0 or more")
        if not self.streams or len(set(self.streams)) < len(self.streams):
            raise InputError(f"streams={self.streams}: name one of the phase's tasks or several, each once")


@dataclasses.dataclass(frozen=True)
class Loss:
    """One term: an objective on streams of batches; `weight` scales its mean loss.

    head: the name of the head that it trains, where it trains one. streams: () = the stream of the term's own name.
    optimizer: of the parameters that the objective adds; None: as for the others.
    """

    head: str = ""
    objective: str = "task"
    weight: float = 1.0
    streams: tuple[str, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: Optimizer | None = None

    def signal(self, name: str) -> objectives.Objective:
        """Returns the objective of a term of this name."""
        has_head = objectives.get(self.objective).HEAD is not None
        head = {"head": self.head} if has_head and self.head else {}
        return objectives.make(self.objective, {**self.options, **head}, name)


def resolve(
    entries: Mapping[str, Further], streams: Mapping[str, Stream], optimizer: Optimizer, where: str
) -> dict[str, Further]:
    """Returns a phase's further objectives with every default filled in, and checks the streams' own ones.

    where: the phase's config path, with which an InputError begins.
    """
    filled = {}
    for name, stream in streams.items():
        own = objectives.get(stream.objective, f"{where}.tasks.{name}.objective")
        objectives.make(stream.objective, stream.options, name, f"{where}.tasks.{name}")
        used = any(name in entry.streams for entry in entries.values())
        if own.HEAD is None and stream.objective == "none" and not used:
            raise InputError(f"{where}.tasks.{name}: objective='none', and none of {where}.objectives names the stream")
    for name, entry in entries.items():
        key = f"{where}.objectives.{name}"
        if name in streams or "/" in name or not name.isprintable():
            raise InputError(f"{key}: a further objective's name is not a stream's, and without slashes: rename it")
        for stream in entry.streams:
            if stream not in streams:
                raise InputError(f"{key}.streams: {suggest('stream', stream, streams)}")
        signal = objectives.make(entry.objective or name, entry.options, name, key)
        signal.check_languages([code for stream in entry.streams for code in streams[stream].languages], key)
        if signal.HEAD == objectives.OWN or (signal.HEAD is not None and len(entry.streams) > 1):
            raise InputError(
                f"{key}: {entry.objective or name!r} trains a head, so it is the objective of a stream "
                f"({where}.tasks.*.objective)" + ("" if signal.HEAD == objectives.OWN else ", or further on one stream")
            )
        rates = ("learning_rate", "warmup", "weight_decay")
        given = {rate: getattr(optimizer, rate) for rate in rates if getattr(entry.optimizer, rate) is None}
        own_optimizer = dataclasses.replace(entry.optimizer, **given)
        filled[name] = dataclasses.replace(entry, objective=entry.objective or name, optimizer=own_optimizer)
    return filled


def losses(phase: Any) -> dict[str, Loss]:
    """Returns the terms of a phase by name: its streams' first."""
    own = {
        key: Loss(
            inputs.head_name(stream),
            stream.objective,
            stream.amount if stream.mode == "mixed" else 1.0,
            options=stream.options,
        )
        for key, stream in phase.tasks.items()
    }
    further = {
        name: Loss("", entry.objective, entry.weight, entry.streams, entry.options, entry.optimizer)
        for name, entry in phase.objectives.items()
        if entry.weight
    }
    return own | further


def with_extra(model: Model, losses: Mapping[str, Loss]) -> Model:
    """Returns the model with the parameters that its objectives add."""
    signals = {name: loss.signal(name) for name, loss in losses.items()}
    adding = {name: one for name, one in signals.items() if type(one).init is not objectives.Objective.init}
    return dataclasses.replace(model, extra=tuple(adding.items()))


def optimizer(config: Optimizer, losses: Mapping[str, Loss], steps: int, model: Model) -> optax.GradientTransformation:
    """Returns the optimizer of a whole phase: `config`'s, and a group for each branch of params["extra"]."""
    whole = optimizers.make(config, steps)
    groups = {
        name: losses[name].signal(name).optimizer(losses[name].optimizer or config, steps)
        for name in model.abstract()[0].get("extra", {})
    }
    return optimizers.grouped(whole, groups) if groups else whole
