"""The tables of a study as Markdown text: one headline table, and one table per task with every language.

Reads results.jsonl only. A row of the headline is an arm: a model and the intermediate task it went through.
"""

import pathlib
from collections.abc import Iterable

from jxstilts.runtime import InputError, atomic_write
from jxstilts.tracking import read_rows

METRICS = {"accuracy": "accuracy", "f1": "F1", "exact_match": "EM"}


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
    arms = _unique((row["model"], row["intermediate"]) for row in rows)
    tasks = _unique(row["task"] for row in rows)
    parts = [f"# {rows[0]['study']}: zero-shot results", "", *_headline(rows, arms, tasks), ""]
    for task in tasks:
        parts += [f"## {task}", "", *_languages([row for row in rows if row["task"] == task], arms), ""]
    return "\n".join(parts).rstrip()


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
    caps = sorted({row["limit"] for row in rows if row["limit"]})
    capped = f" (capped at {', '.join(map(str, caps))} by config)" if caps else ""
    baselines = [row["baseline"] for row in rows if row["baseline"] is not None]
    chance = f"; majority class {sum(baselines) / len(baselines):.1f}" if baselines else ""
    return f"- {task}: {rows[0]['split']} split, {shown} rows per language{capped}{chance}"


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
