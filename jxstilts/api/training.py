"""Fine-tuning on rows of a program's own: one phase, as the command line runs it."""

import contextlib
import dataclasses
import json
import math
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax

from jxstilts import config as configs
from jxstilts import forms, runtime, tasks, tracking
from jxstilts.api import own
from jxstilts.api.ready import Ready, whole_sentences
from jxstilts.models import bundle
from jxstilts.runtime import InputError, suggest
from jxstilts.study.running import dev_evaluator
from jxstilts.tasks import Recipe, TaskSpec, protocols
from jxstilts.train import identity, keeping, phase
from jxstilts.train.mixture import Stream
from jxstilts.train.optimizer import Optimizer

NAME = "finetune"  # of the phase
STREAM = ("tasks", own.TASK)
# What a setting is a key of; the first that has it.
KINDS = ((phase.Phase, ()), (Stream, STREAM), (Optimizer, ("optimizer",)), (phase.Select, ("select",)))
FIXED = (
    "init", "tasks", "protocol", "sampling", "optimizer", "select", "task", "objective", "languages", "source",
    "holdout", "mode", "amount", "name", "metric", "rows", "head", "probe",
)  # fmt: skip
ALL_ROWS = 10**9
PREFIXES = (
    f"config.phases.{NAME}.tasks.{own.TASK}.", f"config.phases.{NAME}.optimizer.", f"config.phases.{NAME}.select.",
    f"config.phases.{NAME}.", f"tasks.{own.TASK}.", f"phase {NAME}: ",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Data:
    """Examples by language, and the names of their labels."""

    form: forms.Form
    train: dict[str, list[dict]]
    dev: dict[str, list[dict]]
    labels: tuple[str, ...]

    @property
    def every(self) -> list[dict]:
        return [example for part in (self.train, self.dev) for rows in part.values() for example in rows]


def finetune(
    model: Ready, train: Any, dev: Any = None, *, form: str = "classification", labels: Iterable[str] | None = None,
    columns: Mapping[str, str] | None = None, head: str = "", metric: Any = None,
    folder: str | pathlib.Path | None = None, progress: bool = True, **settings: Any,
) -> Ready:  # fmt: skip
    """Trains a model on rows and returns the best one; `model` stays as it is.

    Args:
        train: a list of rows, or anything else that can be iterated over; or {language: rows}.
        dev: likewise; after every pass over `train` (`every`: so many steps) the model is scored on all of it, and the
            best one is returned. None: the model of the last step.
        form: classification, choice, tagging or span; what a row is, `forms.Form.rows` says: {"text", "label"},
            {"text_a", "text_b", "label"}, {"prompt", "choices", "label"}, {"words", "tags"},
            {"question", "context", "answers": [{"text", "start"}, ...]}.
        labels: names in the order that they are to have; None = those of the rows, sorted. Needed where rows have
            numbers.
        columns: {the form's key: the rows' own name for it}.
        head: its name; "" = the form's. A head of the same name, type and labels is trained further.
        metric: what the best model is chosen by, as `evaluate` takes it.
        folder: holds the phase, its checkpoints and its rows. The same call goes on from there, or returns at once;
            other rows or settings begin anew. None: a temporary one.
        progress: say on stderr how it goes.
        settings: keys of a phase, its task, its optimizer and its selection (docs/config.md): epochs=3, steps,
            batch_size=32, max_length, learning_rate=2e-5, warmup, seed, dropout, freeze, patience, every, ...
    Raises InputError that names the row or the setting; runtime.Interrupted where a first Ctrl-C asked to stop, and the
        folder holds what was done.
    """
    spec = forms.get(form)
    if not spec.takes_rows:
        able = [name for name in forms.names() if forms.get(name).takes_rows]
        raise InputError(f"form={form!r}: rows are taken of {', '.join(able)}")
    data = _data(spec, train, dev, labels, columns)
    with contextlib.ExitStack() as stack, own.plainly(*PREFIXES):
        if folder is None:
            place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jxstilts-")))
        else:
            place = runtime.make_folder(folder, "folder")
        task = _task(model, data, metric)
        _write(data, task, place / "data")
        stack.enter_context(tasks.given(task))
        _check_settings(settings)
        whole = _phase(settings, task, data, head)
        stop = stack.enter_context(_stopping(folder is not None))
        best = _run(model, whole, place, stop, progress)
        loaded = bundle.load(best, compute=model.model.compute, mesh=model.mesh)
    return Ready(dataclasses.replace(loaded, tokenizer_dir=model.loaded.tokenizer_dir), model.mesh)


def _data(form: forms.Form, train: Any, dev: Any, labels: Iterable[str] | None, columns: Any) -> _Data:
    """Reads the rows. Raises InputError that names one."""
    found = {}
    for name, rows in (("train", train), ("dev", {} if dev is None else dev)):
        by_language = rows if isinstance(rows, Mapping) else {"en": rows}
        found[name] = {
            language: own.examples(form, part, _called(name, language, by_language), columns=columns, gold=True)
            for language, part in by_language.items()
        }
    if dev is not None and not any(found["dev"].values()):
        raise InputError("dev: there are no rows; leave it out (None) to take the model of the last step")
    for language, part in found["train"].items():
        if not part:
            raise InputError(f"{_called('train', language, found['train'])}: there are no rows to train on")
    if labels is None:
        parts = found["train"].items()
        named = {label for code, part in parts for label in own.labels_of(form, part, _called("train", code, parts))}
        labels = sorted(named)
    names = tuple(labels)
    if isinstance(labels, str) or len(set(names)) < len(names) or not all(isinstance(each, str) for each in names):
        raise InputError(f"labels={labels!r:.200}: expected different names")
    if form.labelled and len(names) < 2:
        raise InputError(f"labels: {', '.join(names) or 'none'}; there are two at least")
    made = {
        name: {code: own.with_gold(form, part, names, _called(name, code, parts)) for code, part in parts.items()}
        for name, parts in found.items()
    }
    return _Data(form, made["train"], made["dev"], names)


def _called(name: str, language: str, parts: Any) -> str:
    return f"{name}[{language!r}]" if len(parts) > 1 else name


def _task(model: Ready, data: _Data, metric: Any) -> TaskSpec:
    """Returns the task of the rows, whose files `_write` writes."""
    form = data.form
    reach = min(protocols.get("authors").lengths[form.name], model.model.config.max_length)
    splits = {"train": ("train-{language}.jsonl",)} | ({"dev": ("dev-{language}.jsonl",)} if data.dev else {})
    spec = own.task(
        form, data.labels, data.every, metric,
        languages=tuple(dict.fromkeys((*data.train, *data.dev))), splits=splits, read=_read, train_task=own.TASK,
        companions=lambda path: [path.with_name("rows.json")],
        recipe=Recipe(batch_size=32, max_length=reach, epochs=3, source="jxstilts.api", learning_rate=2e-5),
    )  # fmt: skip
    for part in (data.train, data.dev):
        for rows in part.values():
            form.check(spec, rows)
    return spec


def _write(data: _Data, task: TaskSpec, folder: pathlib.Path) -> None:
    """Writes the rows where the task reads them, and beside them what else the result depends on."""
    for name, parts in (("train", data.train), ("dev", data.dev)):
        for language, rows in parts.items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            runtime.atomic_write(folder / f"{name}-{language}.jsonl", text)
    metric = task.metric if isinstance(task.metric, str) else getattr(task.metric, "title", task.metric.name)
    record = {"form": task.type, "labels": task.labels, "metric": metric, "unanswerable": task.unanswerable}
    runtime.atomic_write(folder / "rows.json", json.dumps(record, indent=1) + "\n")


def _read(path: pathlib.Path) -> list[dict]:
    """Reads what `_write` wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _check_settings(settings: Mapping[str, Any]) -> None:
    known = {field.name for kind, _ in KINDS for field in dataclasses.fields(kind)} - set(FIXED)
    for name in settings:
        if name not in known:
            raise InputError(suggest("setting", name, known))


def _phase(settings: Mapping[str, Any], task: TaskSpec, data: _Data, head: str) -> phase.Phase:
    """Returns the phase, every default filled in. Raises InputError for a setting of a wrong type or value."""
    values: dict[str, Any] = {"tasks": {own.TASK: {}}, "optimizer": {}, "select": {}}
    stream = values["tasks"][own.TASK]
    for name, value in settings.items():
        path = next(path for kind, path in KINDS if name in {field.name for field in dataclasses.fields(kind)})
        place = stream if path == STREAM else values[path[0]] if path else values
        place[name] = value
    stream |= whole_sentences(stream)
    stream |= {"languages": tuple(data.train), "head": head or task.type}
    values["select"] |= {"rows": ALL_ROWS, "languages": tuple(data.dev)} if data.dev else {"metric": ""}
    where = f"config.phases.{NAME}"
    made = configs.build(phase.Phase, values, where)
    configs.at_least(where, made)
    if "every" not in settings:
        batch = made.tasks[own.TASK].batch_size or task.recipe.batch_size
        every = math.ceil(sum(map(len, data.train.values())) / batch)
        made = dataclasses.replace(made, select=dataclasses.replace(made.select, every=every))
    return made.resolve(where)


@contextlib.contextmanager
def _stopping(kept: bool) -> Iterator[Any]:
    """Yields what says whether to stop: where the folder is kept, a first Ctrl-C saves before it stops."""
    if not kept:
        yield lambda step: False
        return
    with runtime.stop_requested() as signals:
        yield lambda step: bool(signals)


def _run(model: Ready, whole: phase.Phase, folder: pathlib.Path, stop: Any, progress: bool) -> pathlib.Path:
    """Runs the phase where its folder does not hold its result, and returns the folder of the best model."""
    place = phase.Place(folder / NAME, str(folder / "data"), folder / "cache", model.mesh, quiet=not progress)
    model.tokenizer  # noqa: B018  raises where there is none
    tokenizer_dir, heads = model.loaded.tokenizer_dir, model.model.head_specs
    whole = keeping.keep(whole, model.model, heads, place.data_dir)
    files = identity.data(whole, place.data_dir, folder / "digests")
    owner = identity.identity(whole, model.model.config, model.loaded.meta["sha256"], tokenizer_dir, files)
    done, message = identity.claim(place.folder, owner)
    if message:
        tracking.Progress(NAME, 0, not progress).note(message)
    if done is None:
        check = None
        if whole.select.metric:
            check = dev_evaluator(whole, place.data_dir, tokenizer_dir, place.cache_dir, model.mesh)
        start = dataclasses.replace(model.loaded, params=jax.tree.map(lambda x: x.copy(), model.params))
        phase.run(NAME, whole, model.model, start, tokenizer_dir, place, owner, check, stop)
    return place.folder / "best"
