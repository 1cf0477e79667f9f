"""The tables of a study as text: one headline table, and one table per task with every language.

Tasks that were evaluated in a single language (the English dev sets of intermediate tasks) stand in one table, with
intervals and baselines. A row of the headline is an arm: a model and the intermediate task it went through.
"""

import pathlib
from collections.abc import Sequence

from jxstilts.report import collapse, phases
from jxstilts.report.folder import SOURCE, Arm, Folder, Target, load, unique
from jxstilts.report.sheet import Table, markdown
from jxstilts.runtime import atomic_write, counted
from jxstilts.tasks.languages import LANGUAGES

METRICS = {
    "f1": "F1", "exact_match": "EM", "best_f1": "best F1", "best_exact_match": "best EM",
    "f1_all": "F1 of all words", "accuracy_all": "accuracy of all words",
    "precision_all": "precision of all words", "recall_all": "recall of all words",
    "has_answer_f1": "F1 if answerable", "no_answer_accuracy": "accuracy if not answerable",
}  # fmt: skip


def write(workdir: str | pathlib.Path) -> pathlib.Path:
    """Writes WORKDIR/report/tables.md and returns its path."""
    path = pathlib.Path(workdir) / "report" / "tables.md"
    atomic_write(path, text(load(workdir)) + "\n")
    return path


def text(folder: Folder) -> str:
    """Returns the tables of a study folder."""
    parts = []
    if folder.rows:
        parts = [f"# {folder.study}: results", ""]
        if folder.targets:
            parts = [f"# {folder.study}: zero-shot results", "", *_lines(_headline(folder))]
        for table in singles(folder):
            parts += [f"## {table.caption}", "", *_lines(table)]
        for target in folder.targets:
            if len(folder.languages(target)) > 1:
                parts += [f"## {folder.label(target)}", "", *_lines(languages(folder, target))]
    if folder.curves:
        parts += ["## By hidden state", "", *_lines(layers(folder))]
    if folder.unscored:
        parts += ["", f"Predicted, but there are no gold labels to score: {unscored(folder)}"]
    judged = collapse.sentences(folder, collapse.find(folder, phases.load(folder.path)))
    parts += [line for why in [*left_out(folder), *judged] for line in ("", why)]
    return "\n".join(parts).strip()


def unscored(folder: Folder) -> str:
    """Returns what was predicted without gold labels, in words."""
    return ", ".join(" ".join(one) for one in folder.unscored)


def left_out(folder: Folder) -> list[str]:
    """Returns why results of some phases are not shown, in words."""
    return [f"Left out, since the phase {why}: {', '.join(names)}." for why, names in folder.outdated.items()]


def layers(folder: Folder) -> Table:
    """A row for each hidden state (0 = embeddings): the mean over languages, per task and arm."""
    rows = folder.curves
    columns = unique((row["task"], row["model"], row["intermediate"], row["metric"].split("@")[0]) for row in rows)
    values: dict[tuple, list[float]] = {}
    for row in rows:
        metric, layer = row["metric"].split("@")
        values.setdefault((int(layer), row["task"], row["model"], row["intermediate"], metric), []).append(row["value"])
    header = ["hidden state"] + [" ".join(filter(None, (a, b, c, name(d)))) for a, b, c, d in columns]
    body = []
    for layer in sorted({key[0] for key in values}):
        cells = [values.get((layer, *column)) for column in columns]
        body.append([str(layer), *(f"{sum(cell) / len(cell):.1f}" if cell else "-" for cell in cells)])
    note = "Mean over languages; 0 = the embeddings."
    return Table("layers", "Retrieval by hidden state", header, body, [note])


def singles(folder: Folder) -> list[Table]:
    """One table per language and split of the tasks with a single language: a row for each phase, task and metric."""
    alone = [target for _, target in folder.runs if len(folder.languages(target)) == 1]
    rows = [row for row in folder.rows if (row["task"], row["split"]) in alone]
    return [
        _single(language, split, [row for row in rows if (row["language"], row["split"]) == (language, split)])
        for language, split in unique((row["language"], row["split"]) for row in rows)
    ]


def _single(language: str, split: str, rows: list[dict]) -> Table:
    header = ["task", "model", "phase", "metric", "n", "value", "95 % interval", "baseline", "above it"]
    body = []
    tasks = unique(row["task"] for row in rows)
    for row in sorted(rows, key=lambda row: tasks.index(row["task"])):
        low, high, baseline = (row.get(key) for key in ("low", "high", "baseline"))
        above = "-" if low is None or baseline is None else "yes" if low > baseline else "no"
        body.append([
            row["task"], row["model"], row["phase"], name(row["metric"]),
            str(row["n"]), f"{row['value']:.1f}", "-" if low is None else f"{low:.1f} to {high:.1f}",
            "-" if baseline is None else f"{baseline:.1f}", above,
        ])  # fmt: skip
    notes = ["Baseline: what a trivial rule scores on the same rows. Above it: the whole interval lies above it."]
    for task in tasks:
        caps = _caps([row for row in rows if row["task"] == task])
        if caps:
            notes.append(f"{task}: {caps}")
    known = LANGUAGES[language].name if language in LANGUAGES else language
    return Table(f"{language}-{split}", f"{known} {split}", header, body, notes, left=4)


def _headline(folder: Folder) -> Table:
    header = ["model", "intermediate"]
    notes = ["Mean over languages (their number in brackets), English included where the task has it."]
    body = [[*arm] for arm in folder.arms]
    for target in folder.targets:
        mine = _rows(folder, target)
        metrics = unique(row["metric"] for row in mine)
        shown = "/".join(map(name, metrics))
        header.append(f"{folder.label(target)} ({len(folder.languages(target))}) {shown}")
        for cells, arm in zip(body, folder.arms, strict=True):
            cells.append(" / ".join(_mean(mine, arm, metric) for metric in metrics))
        notes.append(about(folder, target))
    return Table("means", "Means over languages", header, body, notes, left=2)


def about(folder: Folder, target: Target) -> str:
    """Returns a line on the rows of a target: split, number, cap, what a trivial rule scores."""
    rows = [row for row in _rows(folder, target) if row["metric"] in target.metrics]
    counts = sorted({row["n"] for row in rows})
    shown = counted(counts[0], "row") if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,} rows"
    caps = _caps(rows)
    capped = f" ({caps})" if caps else ""
    baselines = []
    for metric in unique(row["metric"] for row in rows):
        values = [row["baseline"] for row in rows if row["metric"] == metric and row["baseline"] is not None]
        if values:
            baselines.append(f"{name(metric)} {sum(values) / len(values):.1f}")
    trivial = f"; a trivial rule scores {', '.join(baselines)}" if baselines else ""
    return f"{target.task}: {target.split} split, {shown} per language{capped}{trivial}{_beside(rows)}"


def _beside(rows: list[dict]) -> str:
    """Says what has to stand beside the values of a target: over all languages, of the run that has most of it."""
    cut: dict[tuple, dict[str, int]] = {}
    tags: dict[str, dict[tuple, int]] = {}
    for row in rows:
        run = row["model"], row["intermediate"], row["seed"]
        cut.setdefault(run, {})[row["language"]] = row.get("cut_words", 0)
        for tag, count in row.get("unknown_tags", {}).items():
            tags.setdefault(tag, {})[(*run, row["language"])] = count
    words = max((sum(own.values()) for own in cut.values()), default=0)
    parts = [f"{words:,} words are cut off over-long sentences and not scored"] if words else []
    if tags:
        found = ", ".join(f"{tag} {max(counts.values()):,}" for tag, counts in sorted(tags.items()))
        parts.append(f"gold tags that a head cannot predict: {found} (words in the language with the most)")
    parts += [
        f"sentence vectors by {recipe}" for recipe in unique(row["sentence"] for row in rows if "sentence" in row)
    ]
    return "".join(f"; {part}" for part in parts)


def _caps(rows: list[dict]) -> str:
    caps = sorted({row["limit"] for row in rows if row["limit"]})
    return f"capped at {', '.join(map(str, caps))} by config" if caps else ""


def languages(folder: Folder, target: Target) -> Table:
    """A row for each language, a column for each arm that was evaluated; the mean over seeds.

    Means over languages follow: without English, and by resources (their number in brackets). Of the values of a task
    there are those that count in its score.
    """
    rows = [row for row in _rows(folder, target) if row["metric"] in target.metrics]
    arms = evaluated(folder, target)
    metrics = unique(row["metric"] for row in rows)
    header = ["language", "n", *(arm.title for arm in arms)]
    body = []
    for language in folder.languages(target):
        mine = [row for row in rows if row["language"] == language]
        cells = [" / ".join(_mean(mine, arm, metric) for metric in metrics) for arm in arms]
        body.append([folder.strata.title(language), str(mine[0]["n"]), *cells])
    others = [language for language in folder.languages(target) if language != SOURCE]
    groups = {f"mean without {SOURCE}": others} if len(others) < len(body) else {}
    strata = folder.strata.means(dict.fromkeys(others, 0.0))
    if len(strata) > 1:
        groups |= {
            f"mean, {stratum} resource ({len(group.languages)})": group.languages for stratum, group in strata.items()
        }
    for label, group in groups.items():
        mine = [row for row in rows if row["language"] in group]
        cells = [" / ".join(_mean(mine, arm, metric) for metric in metrics) for arm in arms]
        body.append([label, "", *cells])
    caption = f"{folder.label(target)}: every language"
    return Table(f"{target.task}-{target.split}", caption, header, body, [" / ".join(map(name, metrics))])


def evaluated(folder: Folder, target: Target) -> list[Arm]:
    """Returns the arms of the columns of `languages`."""
    return [arm for arm in folder.arms if folder.of(arm, target)]


def name(metric: str) -> str:
    """Returns a metric's name as it is written."""
    return METRICS.get(metric, metric)


def _rows(folder: Folder, target: Target) -> list[dict]:
    return [row for row in folder.rows if (row["task"], row["split"]) == target]


def _mean(rows: Sequence[dict], arm: Arm, metric: str) -> str:
    values = [row["value"] for row in rows if (row["model"], row["intermediate"]) == arm and row["metric"] == metric]
    return f"{sum(values) / len(values):.1f}" if values else "-"


def _lines(table: Table) -> list[str]:
    first, *notes = table.notes
    return [first, "", *markdown(table), "", *(f"- {note}" for note in notes), *([""] if notes else [])]
