"""The training steps of a study: what each phase compiles, from its config alone."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from jxstilts import tasks
from jxstilts.check import examples
from jxstilts.check.program import BatchShape, Program
from jxstilts.models import bundle
from jxstilts.models.model import HeadSpec, Model, published
from jxstilts.study import starts
from jxstilts.study.config import Study
from jxstilts.train import adapting, frozen, inputs, selection, terms, vocabulary
from jxstilts.train.mixture import Stream

OPEN_LABELS = 512  # stands in for the size of an open label set (CCG) whose data is not at hand


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step and the phases that have it; `phase` is the first of them."""

    phase: str
    phases: tuple[str, ...]
    program: Program
    bound: str = ""  # why the rows are longer than real ones may be; "" where they are not
    note: str = ""  # what else is not known without data


def steps(study: Study) -> tuple[list[Step], list[str]]:
    """Returns (the different training steps of a study, phases whose model is not known without fetching it)."""
    found: dict[tuple, Step] = {}
    unknown, shapes, counted = [], {}, {}
    for name, phase in study.phases.items():
        if not phase.tasks:
            continue
        model = model_of(study, name)
        if model is None:
            unknown.append(name)
            continue
        phase = adapting.frozen(phase, model)
        if phase.freeze:
            frozen.check(model.abstract()[0], phase.freeze, f"config.phases.{name}.freeze")
        sizes, bounds = {}, {}
        for key, stream in phase.tasks.items():
            same = repr([stream, inputs.reads_language(phase, key)])
            if same not in shapes:
                shapes[same] = shape(study, name, key, model)
            sizes[key], bounds[key] = shapes[same]
        data = repr([phase.tasks, phase.vocabulary, phase.freeze, phase.objectives, model])
        if data not in counted:
            counted[data] = embeddings(study, name, phase, model)
        for program in programs(phase, model, sizes, counted[data][0]):
            first = found.get(program.key)
            if first is None:
                bound = " ".join(filter(None, (bounds[key] for key in program.shapes)))
                found[program.key] = Step(name, (name,), program, bound, counted[data][1])
            elif name not in first.phases:
                found[program.key] = dataclasses.replace(first, phases=(*first.phases, name))
    return list(found.values()), unknown


def programs(phase: Any, model: Model, shapes: Mapping[str, BatchShape], embeddings: int = 0) -> list[Program]:
    """Returns the steps that a phase compiles at its longest rows: one per stream, with the mixed ones beside it.

    embeddings: as in `Program`.
    """
    losses = terms.losses(phase)
    mixed = {key: shapes[key] for key, stream in phase.tasks.items() if stream.mode == "mixed"}
    made = [
        Program(
            model,
            losses,
            {key: shapes[key], **mixed},
            phase.optimizer,
            phase.accumulation,
            phase.freeze,
            phase.skip_nonfinite > 0,
            embeddings,
        )
        for key, stream in phase.tasks.items()
        if stream.mode != "mixed"
    ]
    return list({program.key: program for program in made}.values())


def shape(study: Study, name: str, key: str, model: Model) -> tuple[BatchShape, str]:
    """Returns the shape of a stream's batches with its longest rows, unpacked; and `Step.bound`.

    How long a question with its choices gets, only the data tells: without it, it is as long as it could be.
    """
    stream = study.phases[name].tasks[key]
    form = tasks.get(stream.task).form
    fields = form.batch_fields(model.template)
    if inputs.reads_language(study.phases[name], key):
        fields += (inputs.LANGUAGE,)
    if form.running_text:
        return BatchShape(fields, stream.batch_size, stream.max_length, inputs.MAX_SEGMENTS), ""
    if not form.grouped:
        return BatchShape(fields, stream.batch_size, stream.max_length, room=form.room(stream)), ""
    mean, choices = tasks.get(stream.task).typical
    length = choices * stream.max_length
    if missing(study, name, key):
        bound = f"{key}: rows of {choices} full choices; real ones have {mean} tokens on average, give config.data_dir."
        return BatchShape(fields, stream.batch_size, length, choices), bound
    seen = examples.longest(study.phases[name], key, model, tokenizer_of(study, name), study.data_dir)
    return BatchShape(fields, stream.batch_size, min(length, seen), choices), ""


def embeddings(study: Study, name: str, phase: Any, model: Model) -> tuple[int, str]:
    """Returns (the token embeddings that a phase trains, 0 = all; `Step.note`). Which occur, only its data tells."""
    if vocabulary.why_whole(phase, model):
        return 0, ""
    lacks = next(filter(None, (missing(study, name, key) for key in phase.tasks)), "")
    if lacks:
        return 0, f"all token embeddings are counted, a phase trains those that occur: {lacks}"
    return examples.embeddings(phase, model, tokenizer_of(study, name), study.data_dir), ""


def model_of(study: Study, name: str) -> Model | None:
    """Returns the model that a phase trains, with its heads; None where only fetching its start would tell."""
    phase = study.phases[name]
    if phase.init in study.phases:
        start = model_of(study, phase.init)
    else:
        start = _start(study, name)
    if start is None:
        return None
    own: tuple[HeadSpec, ...] = start.head_specs or starts.HUB_HEADS * bool(published(phase.init))
    kept = starts.kept(phase, start, own, study.data_dir).keep_heads or ()
    for stream in phase.tasks.values():
        head, task = inputs.head_name(stream), tasks.get(stream.task)
        is_open = task.form.labelled and selection.trains_task(stream) and not task.labels
        if is_open and head not in kept and not _at_hand(stream, study.data_dir):
            labels = tuple(map(str, range(OPEN_LABELS)))
            own, kept = (*own, HeadSpec(head, task.form.head_type, labels)), (*kept, head)
    model = inputs.heads(dataclasses.replace(phase, keep_heads=kept), start, own, study.data_dir)
    model = terms.with_extra(model, terms.losses(phase))
    return adapting.adapted(phase, model, start.adapters, f"config.phases.{name}")


def _start(study: Study, name: str) -> Model | None:
    init = study.phases[name].init
    if init != "random" and pathlib.Path(init).expanduser().is_dir():
        return bundle.model_of(init, study.compute)
    known = starts.architecture(study, name)
    return Model(known[1], (), study.compute, known[0]) if known else None


def _at_hand(stream: Stream, data_dir: str) -> bool:
    """Whether a stream's English training rows can be read here."""
    return bool(data_dir) and tasks.available(stream.task, data_dir, "train", "en", stream.source)


def tokenizer_of(study: Study, name: str) -> pathlib.Path | None:
    """Returns the folder of a phase's tokenizer where it is at hand; nothing is trained or fetched."""
    init = study.phases[name].init
    while init in study.phases:
        init = study.phases[init].init
    if init == "random":
        return pathlib.Path(study.tokenizer.path) if study.tokenizer.path else None
    folder = pathlib.Path(init).expanduser()
    if bundle.is_bundle(folder):
        return folder / "tokenizer"
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        repository, _, revision = init.partition("@")
        try:
            folder = pathlib.Path(snapshot_download(repository, revision=revision or None, local_files_only=True))
        except (OSError, ValueError):  # not in the cache
            return None
    found = any(any(folder.glob(pattern)) for pattern in ("tokenizer.json", "*.bpe.model", "vocab.txt"))
    return folder if found else None


def missing(study: Study, name: str, key: str) -> str:
    """Says what is missing for a real batch of a phase's stream; "" where nothing is."""
    if not study.data_dir:
        return "no config.data_dir"
    stream = study.phases[name].tasks[key]
    if not all(tasks.available(stream.task, study.data_dir, "train", each, stream.source) for each in stream.languages):
        return f"no training rows of {stream.task} in {study.data_dir}"
    if tokenizer_of(study, name) is None:
        return f"the tokenizer of {study.phases[name].init} is not here"
    return ""
