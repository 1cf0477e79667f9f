"""Adapters in a phase: those that are trained, and what becomes of those that its starting point has.

A phase whose model has adapters trains them, its heads and its objectives' parameters; its encoder is frozen. Adapters
of languages that a phase does not name are kept for later and are off.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jxstilts.config import setting
from jxstilts.models import adapters
from jxstilts.models.adapters import Adapter
from jxstilts.models.model import Model, Params
from jxstilts.runtime import InputError, suggest

USES = ("train", "keep", "merge", "drop")
Named = tuple[tuple[str, Adapter], ...]


@dataclasses.dataclass(frozen=True)
class Entry(Adapter):
    """An entry of a phase's `adapters`: a new one, or one of the starting point's by its name.

    use: "train" it; of one that the starting point has also "keep" (it is on, and stays as it is), "merge" (LoRA is
    added to the weights before the phase begins, and is gone), "drop". The last three have no other key.
    """

    use: str = setting("train", "what becomes of it; all but train are for the starting point's", allowed=USES)

    def __post_init__(self):
        super().__post_init__()
        if self.use not in USES:
            raise InputError(f"use: {suggest('use of an adapter', self.use, USES)}")
        if self.use != "train" and self.adapter != Adapter():
            raise InputError(f"use={self.use!r} takes the starting point's adapter as it is: leave the other keys out")

    @property
    def adapter(self) -> Adapter:
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(Adapter)}
        return Adapter(**own)


def settle(entries: Mapping[str, Entry], start: Named, trains: bool, where: str) -> tuple[Named, str]:
    """Returns (a phase's adapters, the language whose adapter is on in it; "" = none).

    start: those of its starting point. trains: has the phase steps? where: config path of `entries`, for messages.
    Raises InputError for a name that the starting point lacks or has as another adapter, one of the starting point's
    that is not named, and adapters of several languages at once.
    """
    own = dict(start)
    for name, entry in entries.items():
        if "/" in name or not name.isprintable() or not name:
            raise InputError(f"{where}: {name!r:.60}: an adapter's name has no slash")
        if entry.use != "train" and name not in own:
            known = suggest("adapter of the starting point", name, own)
            raise InputError(f"{where}: {known}; use={entry.use!r} needs one")
        if entry.use == "train" and own.get(name, entry.adapter) != entry.adapter:
            raise InputError(
                f"{where}.{name}: the starting point has another adapter of this name, {own[name]}; give the same keys "
                "to train it further, or take another name"
            )
    for name, spec in own.items():
        if name not in entries and not spec.language:
            raise InputError(
                f"{where}: the starting point has the adapter {name!r}: say what becomes of it, "
                f"{where}.{name}.use='keep', 'merge' or 'drop', or give its keys to train it further"
            )
    gone = {name for name, entry in entries.items() if entry.use in ("merge", "drop")}
    found = {name: spec for name, spec in own.items() if name not in gone}
    found |= {name: entry.adapter for name, entry in entries.items() if entry.use == "train"}
    languages = sorted({found[name].language for name in found if name in entries} - {""})
    others = sorted({spec.language for spec in found.values()} - {""})
    if len(languages) > 1 or (others and trains and not languages):
        raise InputError(
            f"{where}: one language's adapters are on in a phase, here {', '.join(languages) or 'none'} of "
            f"{', '.join(others)}: name the one of the language that is trained in (use='keep'), or drop them all"
        )
    return tuple(found.items()), next(iter(languages), "")


def adapted(phase: Any, model: Model, start: Named, where: str) -> Model:
    """Returns the model with a phase's adapters. See `settle`; where: config path of the phase."""
    named, language = settle(phase.adapters, start, bool(phase.tasks), f"{where}.adapters")
    return dataclasses.replace(model, adapters=named, language=language)


def frozen(phase: Any, model: Model) -> Any:
    """Returns the phase with all in `freeze` that it leaves as it is because of its model's adapters."""
    if not model.adapters:
        return phase
    trained = {name for name, entry in phase.adapters.items() if entry.use == "train"}
    still = tuple(f"adapters/{name}" for name, _ in model.adapters if name not in trained)
    return dataclasses.replace(phase, freeze=tuple(dict.fromkeys(("encoder", *still, *phase.freeze))))


def merged(phase: Any, model: Model, params: Params) -> Params:
    """Returns the starting point's parameters with the LoRA that the phase merges in the encoder's weights.

    model: the starting point's. Raises InputError for an adapter of another kind.
    """
    names = [name for name, entry in phase.adapters.items() if entry.use == "merge"]
    return adapters.merge(model, params, names)[1] if names else params
