"""What a phase reads: its head, its examples, and the batches of every step."""

import dataclasses
from typing import Any

import numpy as np

from jxstilts import tasks
from jxstilts.data import batching, pipeline, prepare, tokenize
from jxstilts.data import tokenizer as tokenizers
from jxstilts.mesh import batch_divisor
from jxstilts.models.model import HeadSpec, Model, family_module
from jxstilts.runtime import InputError
from jxstilts.train import objectives

MAX_SEGMENTS = 16  # of a packed row


@dataclasses.dataclass(frozen=True)
class Data:
    """Batches for every step, and what the step and the log have to know about them."""

    source: pipeline.BatchSource
    steps: int
    context: objectives.Context
    flops_per_token: float  # forward and backward, of the encoder
    notes: tuple[str, ...]


def heads(phase: Any, model: Model, start_heads: tuple[HeadSpec, ...]) -> tuple[str, Model]:
    """Returns (name of the head that is trained, the model with the phase's heads and dropout).

    start_heads: the starting point's; the phase's `keep_heads` are taken from them.
    """
    if phase.dropout is not None:
        config = dataclasses.replace(model.config, hidden_dropout=phase.dropout, attention_dropout=phase.dropout)
        model = dataclasses.replace(model, config=config)
    kept = [spec for spec in start_heads if spec.name in phase.keep_heads]
    if not phase.task:
        return "", model.with_heads(*kept)
    spec = tasks.get(phase.task)
    fixed = objectives.get(phase.objective).HEAD
    if fixed is None and spec.type not in ("classification", "span"):
        raise InputError(f"task {spec.name!r} is of type {spec.type!r}: train it with another config objective, as mlm")
    name = phase.head or fixed or spec.name
    if name not in phase.keep_heads:
        own = HeadSpec(name, fixed or spec.type, () if fixed else spec.labels, phase.pooler and not fixed)
        kept.append(own)
    return name, model.with_heads(*kept)


def examples(phase: Any, data_dir: str) -> tuple[list[dict], list[dict] | None]:
    """Returns (English training examples, dev examples of `phase.select`, None when nothing is selected).

    With `select.holdout` the last examples of the training set are held out and serve as dev, which a data set without
    a labelled dev split needs. `limit` counts what is left for training.
    """
    select = phase.select
    rows = tasks.load(phase.task, data_dir, "train", phase.languages[0], phase.source)
    dev = None
    if select.metric and select.holdout:
        if select.holdout >= len(rows):
            raise InputError(f"select.holdout={select.holdout}, but task {phase.task!r} has {len(rows)} training rows")
        rows, dev = rows[: -select.holdout], rows[-select.holdout :]
    elif select.metric:
        dev = tasks.load(phase.task, data_dir, "dev", "en", phase.source, limit=select.rows)
    return (rows[: phase.limit] if phase.limit else rows), dev


def make(phase: Any, model: Model, tokenizer_dir: Any, place: Any) -> Data:
    """Loads, tokenises (through the cache) and plans the batches of a phase.

    Raises InputError for rows longer than the model's positions and for batches that do not divide over the mesh.
    """
    if phase.max_length > model.config.max_length:
        raise InputError(
            f"max_length={phase.max_length}, but the model has positions for {model.config.max_length} tokens"
        )
    unit = batch_divisor(place.mesh) * phase.accumulation
    if phase.batch_size % unit:
        raise InputError(
            f"batch_size={phase.batch_size} does not divide over {unit // phase.accumulation} devices of the data and "
            f"fsdp axes times accumulation={phase.accumulation}; make it a multiple of {unit}"
        )
    tokenizer = tokenizers.load(tokenizer_dir)
    spec = tasks.get(phase.task)
    build = _text if spec.type == "text" else _task
    features, planner, options, notes = build(phase, spec, tokenizer, place)
    first = planner(0)
    steps = phase.steps or max(round(phase.epochs * len(first)), 1)
    source = pipeline.BatchSource(features, planner, steps, pad_id=model.config.pad_id, **options)
    real = batching.efficiency(first, features.lengths)
    notes = (*notes, f"{len(features):,} inputs, {len(first)} steps an epoch, {real:.1%} of the tokens are real")
    context = objectives.Context(len(tokenizer), tokenizer.mask_token_id, tuple(sorted(tokenizer.all_special_ids)))
    flops = family_module(model.family).training_flops(model.config, phase.max_length)
    return Data(source, steps, context, flops, notes)


def _task(phase, spec, tokenizer, place):
    rows, _ = examples(phase, place.data_dir)
    options = {"max_length": phase.max_length}
    if spec.type == "span":
        options |= {"doc_stride": phase.doc_stride, "max_query_length": phase.max_query_length}
    features = prepare.features(rows, spec.type, tokenizer, place.cache_dir, **options)
    lengths, buckets = features.lengths, batching.length_buckets(phase.max_length)

    def planner(epoch: int) -> list[batching.Plan]:
        return batching.plan_epoch(
            lengths, batch_size=phase.batch_size, buckets=buckets,
            seed=phase.seed, epoch=epoch, sort_window=phase.sort_window,
        )  # fmt: skip

    return features, planner, {"type": spec.type, "max_segments": 1}, (f"{len(rows):,} training rows",)


def _text(phase, spec, tokenizer, place):
    parts = {}
    for language in phase.languages:
        lines = tasks.load(spec.name, place.data_dir, "train", language, phase.source, limit=phase.limit or None)
        parts[language] = prepare.features(
            lines, "text", tokenizer, place.cache_dir, max_length=phase.max_length, join_lines=phase.packed
        )
    features = tokenize.concatenate(list(parts.values()))
    sizes = {language: len(part.tokens) for language, part in parts.items()}
    shares = pipeline.language_probabilities(sizes, phase.sampling_exponent)
    begins = np.cumsum([0, *(len(part) for part in parts.values())])
    groups = {language: np.arange(begins[i], begins[i + 1]) for i, language in enumerate(parts)}
    packing = {"num_rows": phase.batch_size, "length": phase.max_length, "max_segments": MAX_SEGMENTS}

    def planner(epoch: int) -> list[batching.Plan]:
        return pipeline.plan_mixture(groups, features.lengths, shares, seed=phase.seed, epoch=epoch, **packing)

    note = (
        f"{len(features.tokens):,} tokens of text in {len(parts)} languages, "
        f"drawn with p ~ tokens^{phase.sampling_exponent}"
    )
    return features, planner, {"type": "text", "max_segments": MAX_SEGMENTS}, (note,)
