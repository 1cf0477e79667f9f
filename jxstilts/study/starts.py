"""What is known of the models of a study before anything runs: architectures, and the heads that phases take over."""

import dataclasses
import pathlib
from typing import Any

from jxstilts.models import bundle
from jxstilts.models.layers import Compute
from jxstilts.models.model import HeadSpec, Model, make_config, published
from jxstilts.runtime import InputError
from jxstilts.study.config import Study, order
from jxstilts.train import adapting, inputs, keeping

HUB_HEADS = (HeadSpec("mlm", "mlm"),)


def architecture(study: Study, name: str) -> tuple[str, Any] | None:
    """Returns (family, Config) of the model that a phase trains, None where that is not known without the network."""
    init = study.phases[name].init
    while init in study.phases:
        init = study.phases[init].init
    if init == "random":
        fields = {key: value for key, value in study.model.items() if value is not None}
        family, preset = fields.pop("family", "xlmr"), fields.pop("preset", None)
        return family, make_config(family, preset, **{"vocab_size": study.tokenizer.vocab_size, **fields})
    if bundle.is_bundle(init):
        meta = bundle.read_meta(init)
        return meta["family"], make_config(meta["family"], **meta["config"])
    if pathlib.Path(init).expanduser().is_dir():
        model = bundle.model_of(init, study.compute)
        return model.family, model.config
    known = published(init)
    return (known[0], make_config(*known)) if known else None


def with_kept_heads(study: Study) -> Study:
    """Returns the study with the heads named that each phase takes over; None where its start is not known."""
    check_adapters(study)
    resolved: dict[str, Any] = {}
    heads: dict[str, tuple[HeadSpec, ...] | None] = {}  # of each phase's end
    for name in order(study):
        phase = study.phases[name]
        known = architecture(study, name)
        start = heads[phase.init] if phase.init in heads else _start_heads(phase.init)
        model = Model(known[1], (), study.compute, known[0]) if known else None
        inputs.check_kept(phase, start or (), f"config.phases.{name}")
        _check_reach(study, name, known)
        resolved[name], heads[name] = phase, None
        if model is not None and start is not None:
            resolved[name] = phase = kept(phase, model, start, study.data_dir)
            heads[name] = _heads_after(phase, model, start, study.data_dir)
    return dataclasses.replace(study, phases={name: resolved[name] for name in study.phases})


def _check_reach(study: Study, name: str, known: tuple[str, Any] | None) -> None:
    """Raises InputError for inputs of a phase, or of its evaluations, that are longer than its model reaches."""
    if known is None:
        return
    lengths = {
        f"phases.{name}.tasks.{key}.max_length": stream.max_length for key, stream in study.phases[name].tasks.items()
    } | {
        f"evaluations.{key}.what.options.max_length": each.what.options.max_length
        for key, each in study.evaluations.items()
        if each.phase == name
    }
    for key, length in lengths.items():
        if length > known[1].max_length:
            raise InputError(
                f"config.{key}={length}, but the model of {name} has positions for {known[1].max_length} tokens"
            )


def _start_heads(init: str) -> tuple[HeadSpec, ...] | None:
    """Returns the heads of a start that is no phase, None where only fetching it would tell."""
    if init == "random":
        return ()
    if pathlib.Path(init).expanduser().is_dir():
        return bundle.model_of(init, Compute()).head_specs
    return HUB_HEADS if published(init) else None


def check_adapters(study: Study) -> None:
    """Raises InputError for adapters that do not fit a phase's starting point, or its model where that is known."""
    ends: dict[str, adapting.Named] = {}
    for name in order(study):
        phase, where = study.phases[name], f"config.phases.{name}.adapters"
        start = ends.get(phase.init, ())
        if phase.init not in study.phases and bundle.is_bundle(phase.init):
            start = bundle.model_of(phase.init, study.compute).adapters
        ends[name], _ = adapting.settle(phase.adapters, start, bool(phase.tasks), where)
        known = architecture(study, name) if phase.adapters else None
        if known:  # in shapes alone: is there a place for each?
            try:
                Model(known[1], (), study.compute, known[0], (), ends[name]).abstract()
            except InputError as error:
                raise InputError(f"{where}: {error}") from error


def kept(phase: Any, model: Model, start: tuple[HeadSpec, ...], data_dir: str) -> Any:
    """As `keeping.keep`; the phase as it is where the labels of a task are those of training rows that are not here."""
    try:
        return keeping.keep(phase, model, start, data_dir)
    except InputError:
        return phase


def _heads_after(phase: Any, model: Model, start: tuple[HeadSpec, ...], data_dir: str) -> tuple[HeadSpec, ...] | None:
    try:
        return None if phase.keep_heads is None else inputs.heads(phase, model, start, data_dir).head_specs
    except InputError:
        return None
