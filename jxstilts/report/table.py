"""The tables of a study as Markdown text: one headline table, and one table per task with every language.

Tasks that were evaluated in a single language (the English dev sets of intermediate tasks) stand in one table, with
intervals and baselines. Reads results.jsonl only. A row of the headline is an arm: a model and the intermediate task
it went through.
"""

import pathlib
from collections.abc import Iterable

from jxstilts.runtime import InputError, atomic_write
from jxstilts.tasks.languages import LANGUAGES
from jxstilts.tracking import read_rows

METRICS = {
    "f1": "F1", "exact_match": "EM", "best_f1": "best F1", "best_exact_match": "best EM",
    "has_answer_f1": "F1 if answerable", "no_answer_accuracy": "accuracy if not answerable",
}  # fmt: skip


def write(workdir: str | pathlib.Path) -> pathlib.Path:
    """Writes WORKDIR/report/tables.md and returns its path."""
    path = pathlib.Path(workdir) / "report" / "tables.md"
    atomic_write(path, text(workdir) + "\n")
    return path


def text(workdir: str | pathlib.Path) -> str:
    """Returns the tables of a study folder. Raises InputError when it has no results."""
    path = pathlib.Path(workdir) / "results.jsonl"
    rows = read_rows(path)
    if not rows:
        raise InputError(f"{path}: no results yet; run the study first")
    curves = [row for row in rows if "@" in row["metric"]]
    bare = _unique((row["task"], row["language"], row["split"]) for row in rows if row["value"] is None)
    rows = [row for row in rows if "@" not in row["metric"] and row["value"] is not None]
    parts, unscored = [], [f"{task} {split} {language}" for task, language, split in bare]
    if unscored:
        parts = ["", f"Predicted, but there are no gold labels to score: {', '.join(unscored)}"]
    return "\n".join([*(_tables(rows, curves) if rows else ()), *parts]).strip()


def _tables(rows: list[dict], curves: list[dict]) -> list[str]:
    tasks = _unique(row["task"] for row in rows)
    by_task = {task: [row for row in rows if row["task"] == task] for task in tasks}
    alone = {task: _unique(row["language"] for row in by_task[task]) for task in tasks}
    alone = {task: languages[0] for task, languages in alone.items() if len(languages) == 1}
    parts = [f"# {rows[0]['study']}: results", ""]
    transfer = [row for row in rows if alone.get(row["task"]) != "en"]
    arms = _unique((row["model"], row["intermediate"]) for row in transfer)
    if transfer:
        parts[0] = f"# {rows[0]['study']}: zero-shot results"
        parts += [*_headline(transfer, arms, _unique(row["task"] for row in transfer)), ""]
    single = [row for row in rows if row["task"] in alone]
    for language, split in _unique((row["language"], row["split"]) for row in single):
        mine = [row for row in single if (row["language"], row["split"]) == (language, split)]
        name = LANGUAGES[language].name if language in LANGUAGES else language
        parts += [f"## {name} {split}", "", *_single(mine), ""]
    for task in tasks:
        if task not in alone:
            parts += [f"## {task}", "", *_languages(by_task[task], arms), ""]
    if curves:
        parts += ["## By hidden state", "", *_curves(curves), ""]
    return parts


def _curves(rows: list[dict]) -> list[str]:
    """A row for each hidden state (0 = embeddings): the mean over languages, per task and arm."""
    columns = _unique((row["task"], row["model"], row["intermediate"], row["metric"].split("@")[0]) for row in rows)
    values: dict[tuple, list[float]] = {}
    for row in rows:
        metric, layer = row["metric"].split("@")
        values.setdefault((int(layer), row["task"], row["model"], row["intermediate"], metric), []).append(row["value"])
    header = ["hidden state"] + [" ".join(filter(None, (a, b, c, METRICS.get(d, d)))) for a, b, c, d in columns]
    body = []
    for layer in sorted({key[0] for key in values}):
        cells = [values.get((layer, *column)) for column in columns]
        body.append([str(layer), *(f"{sum(cell) / len(cell):.1f}" if cell else "-" for cell in cells)])
    return ["Mean over languages; 0 = the embeddings.", "", *_markdown(header, body)]


def _single(rows: list[dict]) -> list[str]:
    """A row for each phase, task and metric, with what says whether the value means something."""
    header = ["task", "model", "phase", "metric", "n", "value", "95 % interval", "baseline", "above it"]
    body = []
    tasks = _unique(row["task"] for row in rows)
    for row in sorted(rows, key=lambda row: tasks.index(row["task"])):
        low, high, baseline = (row.get(key) for key in ("low", "high", "baseline"))
        above = "-" if low is None or baseline is None else "yes" if low > baseline else "no"
        body.append([
            row["task"], row["model"], row["phase"], METRICS.get(row["metric"], row["metric"]),
            str(row["n"]), f"{row['value']:.1f}", "-" if low is None else f"{low:.1f} to {high:.1f}",
            "-" if baseline is None else f"{baseline:.1f}", above,
        ])  # fmt: skip
    notes = ["Baseline: what a trivial rule scores on the same rows. Above it: the whole interval lies above it."]
    for task in _unique(row["task"] for row in rows):
        caps = _caps([row for row in rows if row["task"] == task])
        if caps:
            notes.append(f"- {task}: {caps}")
    return [*_markdown(header, body), "", *notes]


def _headline(rows: list[dict], arms: list[tuple], tasks: list[str]) -> list[str]:
    header = ["model", "intermediate"]
    notes, values = [], {arm: [] for arm in arms}
    for task in tasks:
        mine = [row for row in rows if row["task"] == task]
        metrics = _unique(row["metric"] for row in mine)
        languages = _unique(row["language"] for row in mine)
        header.append(f"{task} ({len(languages)}) {'/'.join(METRICS.get(m, m) for m in metrics)}")
        for arm in arms:
            values[arm].append(" / ".join(_mean(mine, arm, metric) for metric in metrics))
        notes.append(_note(task, mine))
    body = [[arm[0], arm[1], *values[arm]] for arm in arms]
    head = "Mean over languages (their number in brackets), English included where the task has it."
    return [head, "", *_markdown(header, body), "", *notes]


def _note(task: str, rows: list[dict]) -> str:
    counts = sorted({row["n"] for row in rows})
    shown = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    caps = _caps(rows)
    capped = f" ({caps})" if caps else ""
    baselines = []
    for metric in _unique(row["metric"] for row in rows):
        values = [row["baseline"] for row in rows if row["metric"] == metric and row["baseline"] is not None]
        if values:
            baselines.append(f"{METRICS.get(metric, metric)} {sum(values) / len(values):.1f}")
    trivial = f"; a trivial rule scores {', '.join(baselines)}" if baselines else ""
    return f"- {task}: {rows[0]['split']} split, {shown} rows per language{capped}{trivial}"


def _caps(rows: list[dict]) -> str:
    caps = sorted({row["limit"] for row in rows if row["limit"]})
    return f"capped at {', '.join(map(str, caps))} by config" if caps else ""


def _languages(rows: list[dict], arms: list[tuple]) -> list[str]:
    metrics = _unique(row["metric"] for row in rows)
    languages = _unique(row["language"] for row in rows)
    header = ["language", "n", *(f"{model}, {intermediate}" for model, intermediate in arms)]
    body = []
    for language in languages:
        mine = [row for row in rows if row["language"] == language]
        cells = [" / ".join(_mean(mine, arm, metric) for metric in metrics) for arm in arms]
        body.append([language, str(mine[0]["n"]), *cells])
    others = [row for row in rows if row["language"] != "en"]
    if len(others) < len(rows):
        cells = [" / ".join(_mean(others, arm, metric) for metric in metrics) for arm in arms]
        body.append(["mean without en", "", *cells])
    return [f"{' / '.join(METRICS.get(m, m) for m in metrics)}", "", *_markdown(header, body)]


def _mean(rows: list[dict], arm: tuple, metric: str) -> str:
    values = [row["value"] for row in rows if (row["model"], row["intermediate"]) == arm and row["metric"] == metric]
    return f"{sum(values) / len(values):.1f}" if values else "-"


def _markdown(header: list[str], body: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in (header, *body)) for i in range(len(header))]
    line = lambda row: "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"  # noqa: E731
    return [line(header), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, body)]


def _unique(values: Iterable) -> list:
    return list(dict.fromkeys(values))
