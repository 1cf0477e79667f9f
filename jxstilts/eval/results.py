"""Evaluations of one model on many tasks and languages, kept in results.jsonl and predictions/ as they come.

predictions/EVALUATION is a submission folder in XTREME's layout (`submission`), which `jxstilts score` takes as it is.
items/EVALUATION holds what is known of each item (`items`); no row with a value lacks its items.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from jax.sharding import Mesh

import jxstilts
from jxstilts import config, lease, processes, runtime, tasks, tracking
from jxstilts.config import setting
from jxstilts.data import tokenizer as tokenizers
from jxstilts.eval import benchmarks, evaluator, items, metrics, result_rows, submission
from jxstilts.models import bundle
from jxstilts.runtime import InputError, suggest
from jxstilts.tasks import SOURCES
from jxstilts.tasks.digests import digests

# Options that there have not always been, and what was done without them: there they are not recorded, so that
# evaluations of before stay what they are.
ADDED = {
    "sentence": "", "prefix": None, "unknown_tags": "miss", "query_length": 0, "lower_case": False, "beams": 1,
    "question_noise": 0.0,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Request:
    """What to evaluate."""

    tasks: tuple[str, ...] = setting((), "names of `jxstilts tasks`")
    benchmark: str = setting(
        "",
        "a benchmark: its tasks (those among `tasks`, if there are any) in its languages",
        allowed=benchmarks.BENCHMARKS,
    )
    languages: tuple[str, ...] = setting((), "languages; () = every language of each task, or those of the benchmark")
    split: str = setting("", 'the split; "" = dev where a task has one, else test')
    source: str = setting(
        "auto", "files of data_dir, what TFDS has prepared, or files where they are there and else TFDS",
        allowed=SOURCES,
    )  # fmt: skip
    limit: int = setting(0, "rows per language, the first ones; 0 = all", least=0)
    head: str = setting("", "the name of the head; \"\" = the model's head of the task's type")
    all_layers: bool = setting(False, "retrieval: every hidden state is scored, as METRIC@LAYER")
    options: evaluator.Options = setting(evaluator.Options, "how examples become batches and answers")

    def names(self) -> tuple[str, ...]:
        """The tasks, in order."""
        if not self.benchmark:
            return self.tasks
        own = benchmarks.get(self.benchmark).tasks
        return tuple(task for task in own if task in (self.tasks or own))

    def split_of(self, task: str) -> str:
        """The split that is evaluated for a task."""
        return self.split or ("dev" if "dev" in tasks.get(task).splits else "test")

    def languages_of(self, task: str) -> tuple[str, ...]:
        """The languages in order, without those that the task, or the benchmark's dev set of it, does not have."""
        spec = tasks.get(task)
        known = spec.languages + spec.more_languages
        usual = spec.languages
        if self.benchmark:
            entry = benchmarks.get(self.benchmark).entry(task)
            known = usual = tuple(
                language
                for language in entry.languages
                if self.split_of(task) != "dev" or language not in entry.without_dev
            )
        return tuple(language for language in self.languages or usual if language in known)

    def pairs(self) -> list[tuple[str, str]]:
        """(task, language) in order."""
        return [(task, language) for task in self.names() for language in self.languages_of(task)]


def pairs_of(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the languages of tasks and their mixed pairs, "a-b". Raises InputError where no task has a pair."""
    specs = [tasks.get(name) for name in names]
    found = [code for spec in specs for code in spec.more_languages if "-" in code]
    if not found:
        raise InputError(f"--languages=pairs: none of the tasks {', '.join(names)} has two texts in two languages")
    return tuple(dict.fromkeys([*(code for spec in specs for code in spec.languages), *found]))


def check(request: Request, tasks_key: str, languages_key: str) -> None:
    """Raises InputError, naming the key, for an unknown task, split, or a language that none of the tasks has."""
    if request.benchmark and request.benchmark not in benchmarks.BENCHMARKS:
        raise InputError(f"{tasks_key}: {suggest('benchmark', request.benchmark, benchmarks.BENCHMARKS)}")
    if not request.names():
        raise InputError(f"{tasks_key} is empty; known: {', '.join(tasks.names())}")
    known: list[str] = []
    for name in request.names():
        try:
            spec = tasks.get(name)
        except InputError as error:
            raise InputError(f"{tasks_key}: {error}") from error
        if spec.metric is None or request.split_of(name) not in spec.splits:
            have = f"the splits {', '.join(spec.splits)}" if spec.metric else "no metric"
            raise InputError(f"{tasks_key}: task {name!r} has {have}; split {request.split_of(name)!r} was asked for")
        try:
            metrics.get(spec.metric)
        except InputError as error:
            raise InputError(f"{tasks_key}: task {name!r}: {error}") from error
        known += spec.loadable(request.split_of(name))
    for language in request.languages:
        if language not in known:
            raise InputError(f"{languages_key}: {suggest('language of these tasks', language, set(known))}")


def keep_strata(data_dir: str | pathlib.Path, folder: pathlib.Path) -> None:
    """Writes FOLDER/strata.json where the data is a miniature world: the classes of real languages are not its own."""
    record = pathlib.Path(data_dir) / "world.json"
    if not record.is_file():
        return
    world = json.loads(record.read_text())
    content: dict[str, Any] = {"world": f"miniworld {world['size']}, seed {world['seed']}, {world['sha256'][:12]}"}
    for stratum in ("high", "low"):
        content[stratum] = [entry["code"] for entry in world["languages"] if entry["resource"] == stratum]
    text = json.dumps(content, indent=1) + "\n"
    path = folder / "strata.json"
    if not path.exists() or path.read_text() != text:
        runtime.atomic_write(path, text)


def add(
    folder: pathlib.Path,
    name: str,
    request: Request,
    labels: Mapping[str, Any],
    load: Callable[[], bundle.Loaded],
    *,
    data_dir: str,
    cache_dir: pathlib.Path,
    digests_dir: pathlib.Path,
    mesh: Mesh | None = None,
    stop: Callable[[int], bool] = lambda number: False,
) -> None:
    """Evaluates what FOLDER/results.jsonl does not hold yet, task by task, and keeps each language as it is done.

    Args:
        name: of this evaluation; its rows are replaced when its request, data folder or model change, and those of one
            task and language when the content of their files does. (Rows of earlier versions do not say what it was.)
        digests_dir: folder that keeps the digests of data files.
        labels: the row's fields that say what the model is, `checkpoint_sha256` among them.
        load: gives the model; called only when something is missing.
    Raises runtime.Interrupted when `stop` says so; what is done is kept.
    """
    path = folder / "results.jsonl"
    identity = config.fingerprint({"request": _settings(request), "data_dir": str(data_dir)})
    mine = {"evaluation": name, "config_fingerprint": identity, "checkpoint_sha256": labels["checkpoint_sha256"]}
    content = functools.cache(partial(_content, request, data_dir, digests_dir))

    def missing() -> list[tuple[str, str]]:
        rows = [row for row in result_rows.read(path) if all(row[key] == value for key, value in mine.items())]
        rows = [row for row in rows if row.get("data") in (None, content(*_pair(row)))]
        have = set(map(_pair, rows)) - _without_items(folder, rows)
        return [pair for pair in request.pairs() if pair not in have]

    wanted = [(task, language) for task, language in processes.first_says(f"what {name} lacks", missing)]
    title = name if name == "evaluate" else f"evaluate {name}"  # that of the command is named so
    progress = tracking.Progress(title, len(wanted))
    if request.benchmark:
        there = lambda pair: tasks.available(pair[0], data_dir, request.split_of(pair[0]), pair[1], request.source)  # noqa: E731
        wanted = _keep(wanted, there, progress, "no data")
    if not wanted:
        return
    loaded = load()
    tokenizer = tokenizers.load(loaded.tokenizer_dir)
    own = evaluator.Evaluator(
        loaded.model, loaded.params, tokenizer, request.options, mesh, cache_dir, labels["checkpoint_sha256"]
    )
    if request.benchmark:
        wanted = _keep(wanted, lambda pair: _has_head(own, pair[0], request.head), progress, "no head")
    done = 0
    for task in dict.fromkeys(task for task, _ in wanted):
        languages = [language for other, language in wanted if other == task]
        progress = tracking.Progress(f"{title}, {task}", len(languages))
        run = partial(own.languages, tasks.get(task), head=request.head or None, all_layers=request.all_layers)
        recipe = {}
        if evaluator.reads_plain(loaded.model, tasks.get(task), request.head or None):
            options = own.options.resolve(tasks.get(task), loaded.model, True)
            progress.note(f"sentence vectors: {options.in_words(loaded.model)}")
            own_recipe = options.layer is None or tasks.get(task).form.has_head
            recipe = {"sentence": options.in_words(loaded.model)} if own_recipe else {}
        found = _of_task(request, task, languages, run, data_dir, stop)
        for number, (result, examples) in enumerate(found, start=1):
            if processes.first():
                _keep_one(folder, name, task, result, examples, mine)
                if said := in_words(result.notes, request.options.unknown_tags):
                    progress.note(f"{result.language}: {said}")
                more = {
                    **labels,
                    **mine,
                    **recipe,
                    **result.notes,
                    "limit": request.limit,
                    "data": content(task, result.language),
                }
                _store(path, _rows(result, more), mine)
                if not done:
                    items.prune(folder, name, mine)
            done += 1
            progress.show(number, {})
        progress.close()
        if stop(done) and done < len(wanted):
            raise runtime.Interrupted(f"evaluation {name}: stopped after {done} of {len(wanted)}; kept")


def in_words(notes: Mapping[str, Any], unknown_tags: str) -> str:
    """Says what stands beside the values of a result, or of several added up."""
    parts = []
    if notes.get("pool"):
        parts.append(f"ranked among {notes['pool']:,} candidates")
    if notes.get("cut_words"):
        parts.append(
            f"{notes['cut_words']:,} words are cut off over-long sentences and not scored; values that end in "
            "_all count them as wrong (long_sentences='split' reads them)"
        )
    if notes.get("unreadable"):
        parts.append(f"{notes['unreadable']:,} texts cannot be read as an answer, and count as wrong")
    if notes.get("unknown_tags"):
        tags = ", ".join(f"{tag} {count:,}" for tag, count in notes["unknown_tags"].items())
        what = "count as misses" if unknown_tags == "miss" else "are left out"
        parts.append(f"gold tags that the head cannot predict {what}: {tags}")
    return "; ".join(parts)


def _settings(request: Request) -> dict[str, Any]:
    """Returns a request without the options of ADDED that change nothing."""
    found = config.plain(request)
    kept = {key: value for key, value in found["options"].items() if key not in ADDED or value != ADDED[key]}
    kept["pooling"] = kept["pooling"] or "mean"  # what "" has always meant for a plain encoder
    return found | {"options": kept}


def _content(request: Request, data_dir: str, kept: pathlib.Path, task: str, language: str) -> str:
    """Returns a short name of what the files hold that decide a result."""
    split = request.split_of(task)
    splits = ("dev", split) if _tuned(task, split) else (split,)
    found = [digests(task, data_dir, each, language, request.source, kept) for each in splits]
    return config.fingerprint(found)[:16]


def _tuned(task: str, split: str) -> bool:
    """Whether a threshold is tuned on dev, and applied to the split (protocol 3.6)."""
    return metrics.get(tasks.get(task).metric).tuned and split != "dev"


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["task"], row["language"]


def _keep_one(folder, name, task, result, examples, mine) -> None:
    """Writes the items and the predictions of one task and language."""
    if result.metrics:
        kept = items.of(result, examples)
        items.write(items.path(folder, name, task, result.split, result.language), kept, mine)
    submission.write(
        folder / "predictions" / name, task, result.split, result.language, examples, result.predictions,
        threshold=result.metrics.get("threshold"),
    )  # fmt: skip


def _store(path: pathlib.Path, new: list[dict], mine: Mapping[str, str]) -> None:
    """Adds the rows of one task and language in place of older ones; those that other workers write stay."""
    pair = _pair(new[0])
    with lease.locked(path.with_name(f".{path.name}.lock")):
        kept = [
            row for row in result_rows.read(path)
            if row["evaluation"] != mine["evaluation"]
            or (all(row[key] == value for key, value in mine.items()) and _pair(row) != pair)
        ]  # fmt: skip
        runtime.atomic_write(path, "".join(json.dumps(row) + "\n" for row in kept + new))


def _without_items(folder: pathlib.Path, rows: list[dict]) -> set[tuple[str, str]]:
    """Returns the (task, language) whose items are not there, as in folders of earlier versions."""
    found = {_pair(row): row for row in rows if row["value"] is not None}
    return {
        pair for pair, row in found.items()
        if not items.belongs(items.path(folder, row["evaluation"], row["task"], row["split"], row["language"]), row)
    }  # fmt: skip


def _of_task(
    request: Request, task: str, languages: list[str], run: Callable, data_dir: str, stop: Callable[[int], bool]
) -> Iterator[tuple[evaluator.Result, Any]]:
    """Yields (result, examples) of each language; when `stop` says so, of those that were begun."""
    split = request.split_of(task)
    read = partial(tasks.load, task, data_dir, source=request.source, limit=request.limit or None)
    thresholds = {}
    if _tuned(task, split):
        thresholds = _thresholds(run, {language: read(split="dev", language=language) for language in languages})
    examples: dict[str, Any] = {}

    def given() -> Iterator[tuple[str, Any]]:
        for number, language in enumerate(languages):
            if stop(number):
                return
            examples[language] = read(split=split, language=language)
            yield language, examples[language]

    for result in run(given(), split=split, thresholds=thresholds):
        yield result, examples.pop(result.language)


def _keep(pairs: list, fits: Callable, progress: tracking.Progress, why: str) -> list[tuple[str, str]]:
    """Returns the (task, language) that fit; names the others."""
    kept = [pair for pair in pairs if fits(pair)]
    out: dict[str, list[str]] = {}
    for task, language in pairs:
        if (task, language) not in kept:
            out.setdefault(task, []).append(language)
    if out:
        listed = "; ".join(f"{task} {' '.join(languages)}" for task, languages in out.items())
        progress.note(f"left out, {why}: {listed}")
    return kept


def _has_head(own: evaluator.Evaluator, task: str, head: str) -> bool:
    spec = tasks.get(task)
    try:
        if evaluator.reads_plain(own.model, spec, head or None):
            return not spec.form.has_head or bool(own.options.resolve(spec, own.model, True))
        return bool(evaluator.pick_head(own.model, spec, head or None))
    except InputError:
        return False


def _thresholds(run: Callable, dev: Mapping[str, Any]) -> dict[str, float]:
    """Returns the threshold of each language, tuned on its dev set. Raises InputError for one without gold pairs."""
    bare = [language for language, examples in dev.items() if "gold" not in examples]
    if bare:
        raise InputError(f"the dev sets of {', '.join(bare)} have no gold pairs to tune the threshold of the test on")
    return {result.language: result.metrics["threshold"] for result in run(dev.items(), split="dev", all_layers=False)}


def _rows(result: evaluator.Result, labels: Mapping[str, Any]) -> list[dict]:
    """Rows of results.jsonl, of the curve VALUE@STATE. Without gold: one, whose metric is "" and whose value None."""
    common = {
        **labels, "task": result.task, "language": result.language, "split": result.split, "n": result.n,
        "major": result.major, "jxstilts_version": jxstilts.__version__,
    }  # fmt: skip
    rows = []
    for metric, value in (result.metrics or {"": None}).items():
        low, high = result.interval.get(metric, (None, None))
        baseline = (result.baseline or {}).get(metric)
        rows.append({**common, "metric": metric, "value": value, "low": low, "high": high, "baseline": baseline})
    for layer, values in result.curve.items():
        score = metrics.get(tasks.get(result.task).metric).headline
        rows += [
            {**common, "metric": f"{metric}@{layer}", "value": values[metric], "low": None, "high": None,
             "baseline": None}
            for metric in sorted(score)
        ]  # fmt: skip
    return rows
