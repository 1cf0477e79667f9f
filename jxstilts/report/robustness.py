"""How even each arm's answers are over languages that have the same items: XNLI, PAWS-X, XQuAD, MLQA's 49 pairs."""

import numpy as np

from jxstilts import tasks
from jxstilts.eval import items
from jxstilts.eval.robustness import measures
from jxstilts.report import statistics
from jxstilts.report.contents import Study
from jxstilts.report.folder import SOURCE, Run
from jxstilts.report.sheet import Cell, Table

HEADINGS = {
    "diagonal": "mean", "gap": "gap from English", "worst": "worst language", "off_diagonal": "mixed pairs",
    "penalty": "penalty of mixing", "consistency": "right everywhere",
}  # fmt: skip
FAULTS = {"not_in_context": "not in the context", "other_script": "other script", "empty": "no answer"}


def robustness(it: Study, draws: int = 1000) -> Table | None:
    """Each arm's measures on each target of parallel items, by its first metric; None where there is no such target."""
    header = [it.arm_heading, *HEADINGS.values(), *FAULTS.values()]
    body: list[list[str | Cell]] = []
    for target, metric in it.columns:
        if metric != target.metrics[0] or not it.folder.parallel(target):
            continue
        rows: list[list[str | Cell]] = []
        for arm in it.folder.arms:
            found = [one for run in it.folder.of(arm, target) if (one := _measures(run, metric, draws))]
            if found:
                faults = [_faults(run) for run in it.folder.of(arm, target)]
                cells = [_cell([one[key] for one in found if key in one]) for key in HEADINGS]
                rows.append(
                    [it.who(arm), *cells, *(_mean([own[key] for own in faults if key in own]) for key in FAULTS)]
                )
        body += [[it.title(target, metric)], *rows] if rows else []
    if not body:
        return None
    used = [
        place for place in range(len(header)) if not place or any(len(row) > 1 and row[place] != "-" for row in body)
    ]
    notes = [
        "Mean: over languages, both texts in the same one. Gap: English less the mean of the others. Mixed pairs: the "
        "context, or the premise, is in another language than the question or the hypothesis. Penalty: the mean less "
        "that of mixed pairs. Right everywhere: of the items that are right in English, the share that is right in "
        "every language that has them; an arm with always the same answer has 100.",
        "Small print: the 95 % interval over items, which are drawn in all languages at once; with several seeds, "
        "their standard deviation.",
    ]
    if any(place > len(HEADINGS) for place in used):
        notes.append(
            "Generated answers, in per cent of the questions: those not in the context, those in a script that the "
            "context lacks, and those that are empty."
        )
    trimmed = [row if len(row) == 1 else [row[place] for place in used] for row in body]
    return Table("robustness", "How even answers are over languages", [header[place] for place in used], trimmed, notes)


def _measures(run: Run, metric: str, draws: int) -> dict[str, tuple[float, tuple[float, float]]] | None:
    """Returns the measures of a run; None without English, another language, or the items of one."""
    languages = [language for language, rows in run.rows.items() if metric in rows]
    alone = [language for language in languages if "-" not in language]
    kept = run.items(languages) if SOURCE in alone and len(alone) > 1 else None
    if kept is None:
        return None
    score = items.score(tasks.get(run.target.task).metric, (metric,))
    values = {}
    for language, own in kept.items():
        each = np.asarray(score(own.columns, np.ones(len(own.ids)))) / 100  # of each item alone
        values[language] = dict(zip(own.ids.tolist(), each.tolist(), strict=True))
    return measures(values, draws=draws)


def _faults(run: Run) -> dict[str, float]:
    """Returns the means over languages of what is wrong with generated answers; {} for other models."""
    told = [notes for rows in run.rows.values() if (notes := next(iter(rows.values())).get("faults"))]
    return {
        key: float(np.mean([one[key] for one in told])) for key in FAULTS if told and all(key in one for one in told)
    }


def _cell(found: list[tuple[float, tuple[float, float]]]) -> Cell | str:
    if not found:
        return "-"
    over = statistics.over_seeds([value for value, _ in found])
    low, high = found[0][1]
    return Cell(_number(over.mean), f"{_number(low)} to {_number(high)}" if over.sd is None else f"sd {over.sd:.1f}")


def _number(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}".replace("-", "−")


def _mean(values: list[float]) -> str:
    return f"{np.mean(values):.1f}" if values else "-"
