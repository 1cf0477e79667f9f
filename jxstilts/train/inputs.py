"""What a phase reads: its heads, its examples, and the batches of every step."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from jxstilts import tasks
from jxstilts.data import batching, packing, pipeline, prepare, synonyms
from jxstilts.data import tokenizer as tokenizers
from jxstilts.data.features import Features, Field, concatenate
from jxstilts.data.ragged import offsets_of
from jxstilts.forms.labels import match
from jxstilts.mesh import batch_divisor
from jxstilts.models import attention
from jxstilts.models.checks import check_vocabulary
from jxstilts.models.model import HeadSpec, Model, family_module
from jxstilts.runtime import InputError, counted, suggest
from jxstilts.tasks.languages import LANGUAGES
from jxstilts.train import mixture, objectives, vocabulary
from jxstilts.train.mixture import Stream

MAX_SEGMENTS = 16  # of a packed row of text
BATCHES = 256  # are packed at once where an epoch has fewer: a call of numpy costs as much for few
LANGUAGE = Field("language", "language", "value")  # of each example: its language's place in `LANGUAGES`
SCORES = 2.5  # an attention score costs so many times its multiplications: softmax and masks (small encoders, CPU)


@dataclasses.dataclass(frozen=True)
class Data:
    """Batches for every step, and what the step and the log have to know about them."""

    source: mixture.MixtureSource
    steps: int
    context: objectives.Context
    flops_per_token: float  # forward and backward, of the encoder
    notes: tuple[str, ...]
    origins: Mapping[str, Callable[[np.ndarray], list[dict]]]  # stream -> (feature ids -> what `examples` says)
    rows: vocabulary.Rows | None  # the token embeddings that are trained, by which tokens are numbered; None: all

    def examples(self, step: int) -> dict[str, list[dict]]:
        """Returns {stream: [{task, language, row}]} of a step's batch, counted from 0: steps and training rows.

        Rows are those of the language's training file, as `tasks.load` gives them; where lines are joined, its blocks.
        """
        indices = {name: batch["index"].ravel() for name, batch in self.source[step].items()}
        return {name: self.origins[name](np.unique(ids[ids >= 0])) for name, ids in indices.items()}


def head_name(stream: Stream) -> str:
    """Returns the name of the head that a stream trains."""
    kind = objectives.get(stream.objective).HEAD
    if kind in (None, objectives.OWN):
        return stream.head or tasks.get(stream.task).form.shared_head or stream.task
    return stream.head or kind


def heads(phase: Any, model: Model, start_heads: tuple[HeadSpec, ...], data_dir: str) -> Model:
    """Returns the model with the phase's heads and dropout.

    start_heads: the starting point's; the phase's `keep_heads` are taken from them, with their labels. A task with an
    open label set (CCG) gets the labels of its training examples; the bundle keeps them.
    Raises InputError for a head that two tasks cannot share, and a task that nothing can train.
    """
    if phase.dropout is not None:
        config = dataclasses.replace(model.config, hidden_dropout=phase.dropout, attention_dropout=phase.dropout)
        model = dataclasses.replace(model, config=config)
    check_kept(phase, start_heads)
    specs = {spec.name: spec for spec in start_heads if spec.name in (phase.keep_heads or ())}
    for key, stream in phase.tasks.items():
        task, name = tasks.get(stream.task), head_name(stream)
        kind = objectives.get(stream.objective).HEAD
        if kind is None:
            continue
        fixed = None if kind == objectives.OWN else kind
        if fixed is None and not task.form.has_head:
            raise InputError(f"tasks.{key}: {task.name!r} is of type {task.type!r}: it needs another objective, as mlm")
        if name in specs and name in (phase.keep_heads or ()):
            specs[name] = specs[name] if fixed else task.form.kept_head(specs[name], stream)
            continue
        labels = () if fixed else task.labels
        if not fixed and task.form.labelled and not labels:  # an open set: those of the training examples
            labels = task.form.labels(task, training_rows(stream, data_dir))
        if fixed:
            own = HeadSpec(name, fixed, aggregation=stream.aggregation)
        else:
            own = task.form.head_spec(name, labels, stream)
        if specs.setdefault(name, own) != own:
            raise InputError(f"tasks.{key}: the head {name!r} is shared by tasks of other types or labels")
    for name, entry in phase.objectives.items():
        signal = objectives.make(entry.objective, entry.options, name)
        if entry.weight and signal.HEAD is not None:
            specs.setdefault(signal.head, HeadSpec(signal.head, signal.HEAD))
    return model.with_heads(*specs.values())


def check_kept(phase: Any, start_heads: tuple[HeadSpec, ...], where: str = "") -> None:
    """Raises InputError for a head to keep that is trained on, and has other labels than its task.

    where: config path of the phase, for the message.
    """
    kept = {spec.name: spec for spec in start_heads if spec.name in (phase.keep_heads or ())}
    for key, stream in phase.tasks.items():
        task, spec = tasks.get(stream.task), kept.get(head_name(stream))
        if spec and spec.type == task.form.head_type and task.labels:
            at = f"{where}{'.' if where else ''}tasks.{key}"
            match(spec.labels, task.labels, f"{at}: keep_heads: head {spec.name!r}, task {task.name!r}")


def training_rows(stream: Stream, data_dir: str, language: str = "en") -> list[dict]:
    """Returns the training examples in one language, without those that are held out; `limit` counts what is left.

    With `synonyms`, each is followed by its copies.
    """
    rows = tasks.load(stream.task, data_dir, "train", language, stream.source)
    if stream.holdout and language in stream.own_languages:
        rows = rows[: -_held_out(stream, rows)]
    rows = rows[: stream.limit] if stream.limit else rows
    if not stream.synonyms:
        return rows
    return synonyms.with_copies(rows, tasks.get(stream.task).form.replaceable, stream.synonyms, stream.copies)


def dev_rows(stream: Stream, select: Any, data_dir: str) -> dict[str, list[dict]]:
    """Returns {language: the dev examples that select the best checkpoint}: the first ones of the dev split.

    With `holdout`, the last training examples, which a data set without a labelled dev split needs.
    """
    found = {}
    for language in select.languages or stream.own_languages:
        if stream.holdout:
            rows = tasks.load(stream.task, data_dir, "train", language, stream.source)
            found[language] = rows[-_held_out(stream, rows) :]
        else:
            found[language] = tasks.load(stream.task, data_dir, "dev", language, stream.source, limit=select.rows)
    return found


def _held_out(stream, rows):
    if stream.holdout >= len(rows):
        raise InputError(f"holdout={stream.holdout}, but task {stream.task!r} has {len(rows)} training rows")
    return stream.holdout


def make(phase: Any, model: Model, tokenizer_dir: Any, place: Any) -> Data:
    """Loads, tokenises (through the cache) and plans the batches of a phase.

    Raises InputError for rows longer than the model's positions and for batches that do not divide over the mesh.
    """
    tokenizer = tokenizers.load(tokenizer_dir)
    check_vocabulary(model.config, tokenizer)
    for key, stream in phase.tasks.items():
        objectives.get(stream.objective).check(tokenizer, f"tasks.{key}.objective={stream.objective!r}")
    for key, entry in phase.objectives.items():
        objectives.get(entry.objective).check(tokenizer, f"objectives.{key}")
    made, notes = {}, []
    for key, stream in sorted(phase.tasks.items(), key=lambda item: bool(item[1].lengths_of)):  # which need others
        _check(key, stream, phase.accumulation, model, place.mesh)
        if tasks.get(stream.task).form.running_text:
            like = made[stream.lengths_of].features.needed if stream.lengths_of else None
            made[key] = _text(phase, stream, tokenizer, model, place, like)
        else:
            made[key] = _task(phase, stream, tokenizer, model, place)
        if reads_language(phase, key):
            made[key] = _with_language(made[key], stream, f"tasks.{key}")
    made = {key: made[key] for key in phase.tasks}
    for key in made:
        notes += [f"{key}: {note}" if len(phase.tasks) > 1 else note for note in made[key].notes]
    sizes = {key: one.size for key, one in made.items()}
    epochs = {key: one.steps for key, one in made.items()}
    steps = phase.steps or mixture.count_steps(phase.tasks, phase.sampling, epochs, phase.epochs)
    order = mixture.draw(phase.tasks, phase.sampling, sizes, steps, phase.seed)
    names = list(made)
    mixed = [key for key in names if phase.tasks[key].mode == "mixed"]
    counts = {key: steps if key in mixed else int((order == i).sum()) for i, key in enumerate(names)}
    sources = {
        key: pipeline.BatchSource(one.features, one.planner, counts[key], pad_id=tokenizer.pad_token_id, **one.options)
        for key, one in made.items()
    }
    if len(names) > 1:
        shares = ", ".join(f"{key} {counts[key] / steps:.1%}" for key in names)
        notes.append(f"of {steps:,} steps: {shares}")
    special = sorted(tokenizer.all_special_ids)
    rows, why = None, vocabulary.why_whole(phase, model)
    if not why:
        rows = vocabulary.rows([one.features.tokens for one in made.values()], special, model.config.vocab_size)
    notes.append(f"vocabulary: {rows or 'all token embeddings are trained or frozen: ' + (why or 'nearly all occur')}")
    if rows is None:
        context = objectives.Context(len(tokenizer), tokenizer.mask_token_id, tuple(special))
    else:
        mask = tokenizer.mask_token_id
        mask = None if mask is None else int(rows.places[mask])
        context = objectives.Context(len(rows.ids), mask, tuple(rows.places[special].tolist()))
    flops = [
        family_module(model.family).training_flops(model.config, stream.max_length) for stream in phase.tasks.values()
    ]
    per_token = float(np.average(flops, weights=[counts[key] for key in names]))
    origins = {
        key: partial(_origin, phase.tasks[key], one.counts, one.features.fields.get("example"))
        for key, one in made.items()
    }
    source = mixture.MixtureSource(order, sources, mixed, None if rows is None else rows.places)
    return Data(source, steps, context, per_token, tuple(notes), origins, rows)


def _check(key, stream, accumulation, model, mesh):
    if stream.max_length > model.config.max_length:
        raise InputError(
            f"tasks.{key}.max_length={stream.max_length}, but the model has positions for "
            f"{model.config.max_length} tokens"
        )
    unit = batch_divisor(mesh) * accumulation
    if stream.batch_size % unit:
        raise InputError(
            f"tasks.{key}.batch_size={stream.batch_size} does not divide over {unit // accumulation} devices of the "
            f"data and fsdp axes times accumulation={accumulation}; make it a multiple of {unit}"
        )


@dataclasses.dataclass(frozen=True)
class _Made:
    """One stream: its features, the plans of an epoch, how batches are assembled, its inputs and steps per epoch.

    counts: the examples of each language.
    """

    features: Features
    planner: Any
    options: Mapping[str, Any]
    size: int
    steps: int
    notes: tuple[str, ...]
    counts: Sequence[int]


def reads_language(phase: Any, stream: str) -> bool:
    """Returns whether an objective of a phase reads the languages of a stream's examples: the field LANGUAGE."""
    entries = [entry for entry in phase.objectives.values() if entry.weight and stream in entry.streams]
    return any(
        objectives.get(name).READS_LANGUAGE for name in (phase.tasks[stream].objective, *(e.objective for e in entries))
    )


def _with_language(made: _Made, stream: Stream, where: str) -> _Made:
    """Returns a stream whose batches have the field LANGUAGE. Raises InputError for a language without a place."""
    for code in stream.languages:
        if code not in LANGUAGES:
            raise InputError(f"{where}.languages: {suggest('language that an objective can read', code, LANGUAGES)}")
    features = made.features
    places = np.array([list(LANGUAGES).index(code) for code in stream.languages], np.int32)
    example = features.fields.get("example", np.arange(len(features)))
    own = places[np.searchsorted(np.cumsum(made.counts), example, side="right")]
    features = dataclasses.replace(features, fields={**features.fields, "language": own})
    options = {**made.options, "fields": (*made.options["fields"], LANGUAGE)}
    return dataclasses.replace(made, features=features, options=options)


def _task(phase, stream, tokenizer, model, place) -> _Made:
    spec = tasks.get(stream.task)
    rows = [training_rows(stream, place.data_dir, language) for language in stream.languages]
    labels = {head.name: head.labels for head in model.head_specs}.get(head_name(stream), ())
    more = {"labels": labels} if labels else {}
    if labels and labels != spec.labels:
        rows = [spec.form.in_terms_of(labels, spec, part) for part in rows]
    features = prepare.features(
        spec.form, [row for part in rows for row in part], tokenizer, model.template, stream, place.cache_dir, **more
    )
    groups = batching.groups(features, spec.form.fields)
    before = offsets_of(features.needed)
    lengths = before[groups[1:]] - before[groups[:-1]]  # of what belongs in one row
    choices = int(np.diff(groups).max(initial=1))
    if not len(lengths):
        raise InputError(f"task {stream.task!r} has no training rows in {', '.join(stream.languages)}")
    draw = _languages(stream, rows, features, groups, lengths)
    plan, units, shapes = _planner(phase, stream, model, place.mesh, lengths, choices, draw)

    def planner(epoch: int) -> list[batching.Plan]:
        return batching.expand(plan(epoch), groups)

    first = planner(0)
    notes = (
        f"{sum(map(len, rows)):,} training rows"
        + (f" in {', '.join(stream.languages)}" if stream.languages != ("en",) else ""),
        f"{counted(len(lengths), 'input')}, {counted(len(first), 'step')} an epoch, "
        f"{batching.efficiency(first, features.lengths):.1%} of the tokens are real; {shapes}",
    )
    made = {"fields": spec.form.batch_fields(model.template), "max_segments": units * choices}
    return _Made(features, planner, made, len(lengths), len(first), notes, [len(part) for part in rows])


def _origin(stream: Stream, counts: Sequence[int], example: np.ndarray | None, ids: np.ndarray) -> list[dict]:
    """Says where features come from. counts: each language's examples; example: that of each feature, None: itself."""
    found = np.unique(ids if example is None else example[ids])
    ends = np.cumsum(counts)
    languages = np.searchsorted(ends, found, side="right").tolist()
    unit = "block" if tasks.get(stream.task).form.running_text and stream.packed else "row"
    return [
        {
            "task": stream.task,
            "language": stream.languages[i],
            unit: int(row - ends[i] + counts[i]) // (1 + stream.copies),
        }
        for i, row in zip(languages, found, strict=True)
    ]


def epochs_at_once(batch_size: int, units: int) -> int:
    """Returns how many epochs of so many units are packed at once."""
    return max(1, BATCHES * batch_size // units)


def token_cost(model: Model, length: int) -> float:
    """Returns what a token of a row of this length costs to train on, in FLOPs of the matrix products."""
    flops = partial(family_module(model.family).training_flops, model.config)
    return flops(0) + SCORES * (flops(length) - flops(0))


def _planner(phase, stream, model, mesh, lengths, choices, draw):
    """Returns (epoch -> the plans of its units, units of a row at most, the shapes in words).

    Whether they are packed is a function of the config and the data alone, the same for any mesh and any seed: where
    the config leaves it open, an epoch is planned both ways for one device, and the cheaper way is taken.
    """
    longest = stream.max_length if choices == 1 else min(16 * -(-int(lengths.max()) // 16), choices * stream.max_length)
    config, compute = model.config, model.compute
    backend, _ = attention.choose(
        compute.attention, config.attention_dropout, compute.dtype, windowed=config.windowed, biased=config.biased
    )
    fine, coarse = 8, 16  # what row lengths are multiples of, packed and not
    if backend == "splash":
        fine = coarse = 128
        longest = coarse * -(-longest // coarse)
    buckets = batching.length_buckets(longest, multiple=coarse, count=stream.buckets)
    cost = partial(token_cost, model)

    in_batch = tasks.get(stream.task).form.in_batch
    if in_batch and stream.packed:
        raise InputError(f"packed=True: task {stream.task!r} compares the examples of a batch, one a row")

    def apart(epoch, seed=phase.seed, sort_window=1 if in_batch else stream.sort_window):
        ids = draw(epoch, seed)
        plans = batching.plan_epoch(
            lengths[ids], batch_size=stream.batch_size, buckets=buckets, seed=seed, epoch=epoch, sort_window=sort_window
        )
        return batching.select(plans, ids)

    def together(epochs, shapes, seed=phase.seed):
        plans = [apart(epoch, seed, sort_window=1) for epoch in epochs]
        packed = iter(packing.pack([plan for part in plans for plan in part], lengths, shapes))
        return [list(itertools.islice(packed, len(part))) for part in plans]

    choose = partial(
        packing.choose, lengths[draw(0, 0)], longest=int(lengths.max()), batch_size=stream.batch_size,
        count=stream.buckets, cost=cost, multiple=fine,
    )  # fmt: skip
    packed = False if in_batch else stream.packed
    if packed is None:
        packed = packing.price(together([0], choose(), 0)[0], cost) < packing.price(apart(0, 0), cost)
    if not packed:
        return apart, 1, f"rows of {', '.join(map(str, buckets))} tokens"
    shapes = choose(multiple_of=batch_divisor(mesh) * phase.accumulation)
    count = epochs_at_once(stream.batch_size, len(draw(0, phase.seed)))

    @functools.lru_cache(maxsize=2)  # and the one before it, from which a block of batches may begin
    def several(number):
        return together(range(number * count, (number + 1) * count), shapes)

    sizes = ", ".join(f"{rows} x {length}" for rows, length in dict.fromkeys((*shapes.sizes, shapes.last_resort)))
    in_words = f"{stream.batch_size} packed into {sizes}"
    return lambda epoch: several(epoch // count)[epoch % count], shapes.max_units, in_words


def _languages(stream, rows, features, groups, lengths):
    """Returns (epoch, seed) -> its units: all of them, or a mixture of languages by `sampling_exponent`."""
    everything = np.arange(len(lengths))
    if len(rows) == 1 or stream.sampling_exponent == 1:
        return lambda epoch, seed: everything
    # the unit's language, by the example that it is made of
    example = features.fields["example"][groups[:-1]] if "example" in features.fields else everything
    language = np.searchsorted(np.cumsum([len(part) for part in rows]), example, side="right")
    members = {name: everything[language == i] for i, name in enumerate(stream.languages)}
    shares = pipeline.language_probabilities(
        {name: int(lengths[ids].sum()) for name, ids in members.items()}, stream.sampling_exponent
    )
    return lambda epoch, seed: pipeline.mixture_ids(members, lengths, shares, seed=seed, epoch=epoch)


def _text(phase, stream, tokenizer, model, place, like) -> _Made:
    """like: int [M], lengths that the features of each language are to have; None: as they are."""
    parts, form = {}, tasks.get(stream.task).form
    how = {"joined": stream.packed} | ({"paired": True} if stream.paired else {})
    for language in stream.languages:
        lines = tasks.load(stream.task, place.data_dir, "train", language, stream.source, limit=stream.limit or None)
        parts[language] = prepare.features(form, lines, tokenizer, model.template, stream, place.cache_dir, **how)
    features = concatenate(list(parts.values()))
    sizes = {language: len(part.tokens) for language, part in parts.items()}
    shares = pipeline.language_probabilities(sizes, stream.sampling_exponent)
    begins = np.cumsum([0, *(len(part) for part in parts.values())])
    groups = {language: np.arange(begins[i], begins[i + 1]) for i, language in enumerate(parts)}
    if like is not None:
        groups, shares = pipeline.like_lengths(groups, features.lengths, shares, like)
    packing = {"num_rows": stream.batch_size, "length": stream.max_length, "max_segments": MAX_SEGMENTS}

    def planner(epoch: int) -> list[batching.Plan]:
        return pipeline.plan_mixture(groups, features.lengths, shares, seed=phase.seed, epoch=epoch, **packing)

    first = planner(0)
    notes = (
        f"{len(features.tokens):,} tokens of text in {counted(len(parts), 'language')}, drawn with p ~ tokens^"
        f"{stream.sampling_exponent}{f', as long as {stream.lengths_of}' * bool(stream.lengths_of)}; "
        f"{counted(len(first), 'step')} an epoch, "
        f"{batching.efficiency(first, features.lengths):.1%} of the tokens are real",
    )
    made = {"fields": form.batch_fields(model.template), "max_segments": MAX_SEGMENTS}
    return _Made(features, planner, made, len(features), len(first), notes, [len(part) for part in parts.values()])
