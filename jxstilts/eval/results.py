"""Evaluations of one model on many tasks and languages, kept in results.jsonl and predictions/ as they come."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from jax.sharding import Mesh

import jxstilts
from jxstilts import config, runtime, tasks, tracking
from jxstilts.data import tokenizer as tokenizers
from jxstilts.eval import evaluator
from jxstilts.models import bundle
from jxstilts.runtime import InputError, suggest


@dataclasses.dataclass(frozen=True)
class Request:
    """What to evaluate. languages=() means every language of each task."""

    tasks: tuple[str, ...]
    languages: tuple[str, ...] = ()
    split: str = ""  # "" = dev where a task has one, else test
    source: str = "auto"
    limit: int = 0  # rows per language; 0 = all
    head: str = ""  # "" = the model's head of the task's type
    options: evaluator.Options = dataclasses.field(default_factory=evaluator.Options)

    def split_of(self, task: str) -> str:
        """The split that is evaluated for a task."""
        return self.split or ("dev" if "dev" in tasks.get(task).splits else "test")

    def pairs(self) -> list[tuple[str, str]]:
        """(task, language) in order. A language that a task does not have is left out of that task."""
        found = []
        for task in self.tasks:
            spec = tasks.get(task)
            known = spec.languages + spec.more_languages
            found += [(task, language) for language in self.languages or spec.languages if language in known]
        return found


def check(request: Request, tasks_key: str, languages_key: str) -> None:
    """Raises InputError, naming the key, for an unknown task, split, or a language that none of the tasks has."""
    if not request.tasks:
        raise InputError(f"{tasks_key} is empty; known: {', '.join(tasks.names())}")
    known: list[str] = []
    for name in request.tasks:
        try:
            spec = tasks.get(name)
        except InputError as error:
            raise InputError(f"{tasks_key}: {error}") from error
        if spec.metric is None or request.split_of(name) not in spec.splits:
            have = f"the splits {', '.join(spec.splits)}" if spec.metric else "no metric"
            raise InputError(f"{tasks_key}: task {name!r} has {have}; split {request.split_of(name)!r} was asked for")
        known += spec.languages + spec.more_languages
    for language in request.languages:
        if language not in known:
            raise InputError(f"{languages_key}: {suggest('language of these tasks', language, set(known))}")


def add(
    folder: pathlib.Path,
    name: str,
    request: Request,
    labels: Mapping[str, Any],
    load: Callable[[], bundle.Loaded],
    *,
    data_dir: str,
    cache_dir: pathlib.Path,
    mesh: Mesh | None = None,
    stop: Callable[[int], bool] = lambda number: False,
) -> None:
    """Evaluates what FOLDER/results.jsonl does not hold yet, one task and language at a time.

    Args:
        name: of this evaluation; its rows are replaced when its request, data folder or model change.
        labels: the row's fields that say what the model is, `checkpoint_sha256` among them.
        load: gives the model; called only when something is missing.
    Raises runtime.Interrupted when `stop` says so; what is done is kept.
    """
    path = folder / "results.jsonl"
    identity = config.fingerprint({"request": request, "data_dir": str(data_dir)})
    mine = {"evaluation": name, "config_fingerprint": identity, "checkpoint_sha256": labels["checkpoint_sha256"]}
    rows = [
        row for row in tracking.read_rows(path)
        if row["evaluation"] != name or all(row[key] == value for key, value in mine.items())
    ]  # fmt: skip
    have = {(row["task"], row["language"]) for row in rows if row["evaluation"] == name}
    wanted = [pair for pair in request.pairs() if pair not in have]
    if not wanted:
        return
    loaded = load()
    tokenizer = tokenizers.load(loaded.tokenizer_dir)
    progress = tracking.Progress(f"evaluate {name}", len(wanted))
    for number, (task, language) in enumerate(wanted, start=1):
        if stop(number):
            raise runtime.Interrupted(f"evaluation {name}: stopped after {number - 1} of {len(wanted)}; kept")
        split = request.split_of(task)
        examples = tasks.load(task, data_dir, split, language, request.source, request.limit or None)
        result = evaluator.evaluate(
            loaded.model, loaded.params, tasks.get(task), examples,
            tokenizer=tokenizer, head=request.head or None, language=language, split=split,
            options=request.options, mesh=mesh, cache_dir=cache_dir,
        )  # fmt: skip
        rows += [
            {
                **labels, **mine, "task": task, "language": language, "split": split, "metric": metric,
                "value": value, "low": result.interval[metric][0], "high": result.interval[metric][1],
                "baseline": (result.baseline or {}).get(metric), "major": result.major, "n": result.n,
                "limit": request.limit, "jxstilts_version": jxstilts.__version__,
            }
            for metric, value in result.metrics.items()
        ]  # fmt: skip
        predictions = folder / "predictions" / name / task / f"{split}-{language}.json"
        runtime.atomic_write(predictions, json.dumps(result.predictions, ensure_ascii=False, indent=0))
        runtime.atomic_write(path, "".join(json.dumps(row) + "\n" for row in rows))
        progress.show(number, {})
