"""Scores of a submission folder by the benchmark's official rules; no model takes part."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from jxstilts import tasks
from jxstilts.eval import benchmarks, metrics, submission
from jxstilts.runtime import InputError, suggest

SPLITS = ("test", "dev")
Values = dict[str, dict[str, dict[str, float]]]


@dataclasses.dataclass(frozen=True)
class Scored:
    """What `score` found.

    values: {task: {language: {metric: 0-100}}}. scores: their means (`benchmarks.Scores`). overall: the benchmark's
    one number, None unless every one of its tasks is scored in every one of its languages that has the split.
    left_out: {task: why it is not scored}.
    """

    benchmark: benchmarks.Benchmark
    split: str
    values: Values
    scores: benchmarks.Scores
    overall: float | None
    left_out: dict[str, str]


def score(
    predictions: str | pathlib.Path,
    labels: str | pathlib.Path,
    *,
    benchmark: str = "xtreme",
    task_names: Sequence[str] = (),
    languages: Sequence[str] = (),
    split: str = "test",
) -> Scored:
    """Scores the files TASK/SPLIT-LANGUAGE.tsv or .json of one folder against those of the same names in another.

    Args:
        task_names: only these; () = every task of the benchmark that has a folder in both.
        languages: only these, of each task that has them; () = those of the benchmark, and none may be missing.
        split: "test", or "dev" for the dev sets, where a task without one is still scored on its test set.
    A label file for questions is a SQuAD-format file, or an object id -> answer. As by the official rules a question
    without an answer scores 0 and only the set of mined pairs counts.
    Raises InputError for unknown names, and with file and line for what the official scripts stop at or overlook:
    missing files, other numbers of lines or tags, unknown labels, ids that the labels do not have.
    """
    whole = benchmarks.get(benchmark)
    if split not in SPLITS:
        raise InputError(suggest("split", split, SPLITS))
    folders = {"--predictions": pathlib.Path(predictions), "--labels": pathlib.Path(labels)}
    for option, folder in folders.items():
        if not folder.is_dir():
            raise InputError(f"{option}: no folder {folder}")
    entries, left_out = _entries(whole, folders, task_names)
    full = {entry.task: _of_split(entry, split) for entry in whole.entries}
    chosen = _chosen(entries, languages) if languages else {entry.task: full[entry.task] for entry in entries}
    values = {
        task: {
            language: {name: found[name] for name in whole.entry(task).metrics}
            for language, files in _files(task, codes, split, folders, whole).items()
            for found in [score_file(task, language, *files)]
        }
        for task, codes in chosen.items()
    }
    used = tuple(dataclasses.replace(entry, languages=chosen.get(entry.task, ())) for entry in whole.entries)
    scores = benchmarks.score(values, dataclasses.replace(whole, entries=used))
    complete = {task: set(codes) for task, codes in chosen.items()} == {
        task: set(codes) for task, codes in full.items()
    }
    return Scored(whole, split, values, scores, scores.overall if complete else None, left_out)


def _entries(whole, folders, task_names):
    """Returns the entries to score, in the benchmark's order, and {task: why not} of the others."""
    for task in task_names:
        whole.entry(task)
    entries, left_out = [], {}
    for entry in whole.entries:
        if task_names and entry.task not in task_names:
            continue
        missing = [folder / entry.task for folder in folders.values() if not (folder / entry.task).is_dir()]
        if not missing:
            entries.append(entry)
        elif task_names:
            raise InputError(f"task {entry.task!r} was asked for, but there is no folder {missing[0]}")
        else:
            left_out[entry.task] = f"no folder {missing[0]}"
    if not entries:
        both = " and ".join(f"{option}={folder}" for option, folder in folders.items())
        raise InputError(f"{both} have no task's folder in common; expected {', '.join(whole.tasks)}")
    return entries, left_out


def _of_split(entry, split):
    """Returns the languages that have a split: a few have a test set only."""
    dev = split == "dev" and benchmarks.dev_split(entry)
    return tuple(code for code in entry.languages if not dev or code not in entry.without_dev)


def _chosen(entries, languages):
    """Returns {task: those of the languages that it has}, without the tasks that have none of them."""
    have = {entry.task: (*entry.languages, *tasks.get(entry.task).loadable(entry.split)) for entry in entries}
    for language in languages:
        if not any(language in codes for codes in have.values()):
            known = {code for entry in entries for code in entry.languages}
            raise InputError(suggest("language of these tasks", language, known))
    chosen = {task: tuple(dict.fromkeys(code for code in languages if code in codes)) for task, codes in have.items()}
    return {task: codes for task, codes in chosen.items() if codes}


def _files(task, languages, split, folders, whole):
    """Returns {language: [file of predictions, file of labels]}. Raises InputError if one is not there."""
    has_dev = benchmarks.dev_split(whole.entry(task)) is not None
    own = split if has_dev else "test"
    found = {code: [submission.path(folder, task, own, code) for folder in folders.values()] for code in languages}
    for side, option in enumerate(folders):
        missing = [files[side] for files in found.values() if not files[side].is_file()]
        if missing:
            more = f", and {len(missing) - 1} more of this task are missing" if missing[1:] else ""
            other = next(value for value in SPLITS if value != own)
            hint = "--tasks and --languages say what to score"
            if has_dev and missing[0].with_name(missing[0].name.replace(own, other, 1)).is_file():
                hint = f"there is a {other} file: --split={other}"
            raise InputError(f"{option}: no file {missing[0]}{more}; {hint}")
    return found


def score_file(task: str, language: str, predictions: pathlib.Path, labels: pathlib.Path) -> dict[str, float]:
    """Returns the metric's values of one file of predictions against one file of labels. Raises InputError."""
    spec = tasks.get(task)
    found, examples = spec.form.compare(spec, predictions, labels)
    metric = metrics.get(spec.metric, language)
    if metric.tuned:
        metric = metric.at(0.0)
    return metric.compute(metric.update(found, examples))


def as_json(scored: Scored) -> dict[str, Any]:
    """Returns {"overall": x, "tasks": {TASK: {"avg": {METRIC: x}, "languages": {XX: {METRIC: x}}}}}, 0-100."""
    found = {
        task: {"avg": dict(scored.scores.tasks[task]), "languages": languages}
        for task, languages in scored.values.items()
    }
    return {"overall": scored.overall, "tasks": found}


def as_text(scored: Scored) -> str:
    """Returns aligned tables: every task's languages, then tasks, groups and the overall value."""
    names = list(dict.fromkeys(name for values in scored.scores.tasks.values() for name in values))
    rows = [["task", "language", *names]]
    for task, languages in scored.values.items():
        lines = {**languages, f"mean of {len(languages)}": scored.scores.tasks[task]}
        rows += [
            [task, language, *(f"{values[name]:.2f}" if name in values else "-" for name in names)]
            for language, values in lines.items()
        ]
    parts = [f"{scored.benchmark.name}, {scored.split}", "", *_aligned(rows, texts=2)]
    rows = [["group", "task", "score"]]
    for group in scored.benchmark.groups:
        mine = [task for task in scored.values if group in scored.benchmark.entry(task).groups]
        rows += [[group, task, f"{scored.scores.task_scores[task]:.2f}"] for task in mine]
        if group in scored.scores.groups:
            rows.append([group, f"mean of {len(mine)}", f"{scored.scores.groups[group]:.2f}"])
    rows.append([scored.benchmark.overall, "", "-" if scored.overall is None else f"{scored.overall:.2f}"])
    parts += ["", *_aligned(rows, texts=2)]
    notes = [f"{task} is not scored: {why}" for task, why in scored.left_out.items()]
    if scored.benchmark.rule:
        notes.append(scored.benchmark.rule)
    if scored.overall is None:
        missing = f"no {scored.benchmark.overall}" + " value" * (scored.benchmark.overall == "overall")
        notes.append(f"{missing}: it needs all {len(scored.benchmark.entries)} tasks in all their languages")
    return "\n".join([*parts, *([""] if notes else []), *notes])


def _aligned(rows, texts):
    """Returns the lines of a table; the first `texts` columns are words, the others numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < texts else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
