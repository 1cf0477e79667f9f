"""The first lines of a report: when and by what it was made, what was found, and what to keep in mind of it."""

import os
import pathlib
import time
from collections.abc import Iterator

from jxstilts import tracking
from jxstilts.report import collapse, table
from jxstilts.report.comparisons import Comparison
from jxstilts.report.contents import Study, interval, signed
from jxstilts.runtime import counted


def lines(it: Study) -> list[str]:
    """Returns all of them."""
    return [*made(it.folder.path), *finding(it), *caveats(it)]


def made(folder: pathlib.Path) -> Iterator[str]:
    """Yields when results were written last, and the last command that asked for any (in backticks)."""
    if (results := folder / "results.jsonl").exists():
        yield f"Results of {_day(time.gmtime(os.path.getmtime(results)))}."
    rows = tracking.read_rows(folder / "commands.jsonl")
    if rows:
        first = _day(time.strptime(rows[0]["time"], "%Y-%m-%dT%H:%M:%SZ"))
        yield f"Made by `{rows[-1]['command']}`" + (f", begun on {first}." if len(rows) > 1 else f" on {first}.")


def _day(day: time.struct_time) -> str:
    return f"{day.tm_mday} {time.strftime('%B %Y', day)}"


def finding(it: Study) -> list[str]:
    """Returns two sentences: how many comparisons hold, and the largest; without comparisons the best value."""
    found = [*it.found, *it.means]
    tested = [one for one in found if one.estimate]
    if tested:
        held = [one for one in tested if one.significant]
        up = sum(one.value > 0 for one in held)
        first = (
            f"Of {counted(len(tested), 'comparison')} with {it.base}, {len(held)} hold after correction: "
            f"{up} up, {len(held) - up} down."
        )
        gains, losses = (sorted(held, key=lambda one: sign * one.value) for sign in (-1, 1))
        if not held:
            most = max(tested, key=lambda one: abs(one.value))
            return [first, f"The largest difference, {_what(it, most)}, may be chance."]
        parts = [f"the largest gain is {_what(it, gains[0])}"] if up else ["no gain holds"]
        parts += [f"the largest loss is {_what(it, losses[0])}"] if up < len(held) else ["no loss holds"]
        second = "; ".join(parts)
        return [first, f"{second[0].upper()}{second[1:]}."]
    if found:
        return ["There are differences but no intervals: the items of these evaluations were not kept.", *_best(it)]
    return _best(it)


def _what(it: Study, one: Comparison) -> str:
    where = "the mean of tasks" if one.target is None else it.title(one.target, one.metrics[0])
    points = f"{signed(one.value)} points on {where} {'of' if it.compared else 'after'} {it.who(one.arm)}"
    return f"{points} (95 % interval {interval(one.estimate)})"


def _best(it: Study) -> list[str]:
    """Returns a sentence on the best arm of the first target."""
    for target, metric in it.columns[:1]:
        values = {arm: own for arm in it.folder.arms if (own := it.value(arm, target, metric)) is not None}
        best = max(values, key=values.get)
        whole = counted(len(it.folder.languages(target)), "language")
        return [f"On {it.title(target, metric)}, in {whole}, the best arm is {it.who(best)} with {values[best]:.1f}."]
    return []


def caveats(it: Study) -> list[str]:
    """Returns what there is, what is missing and what has failed."""
    folder, parts = it.folder, []
    seeds = sorted({run.seed for runs in folder.runs.values() for run in runs})
    shown = ", ".join(map(str, seeds))
    what = f"{counted(len(folder.english), 'task')} in English"
    if folder.targets:
        what = f"{counted(len(folder.arms), 'arm')} on {counted(len(folder.targets), 'target task')}"
    parts.append(f"{what}, {counted(len(seeds), 'seed')} ({shown}).")
    if len(seeds) == 1:
        parts.append("With one seed nothing can be said of what another seed would give.")
    open_ = [phase.name for phase in it.phases if phase.record is None]
    if open_:
        parts.append(f"Not finished yet, so results may be missing: {', '.join(open_)}.")
    parts += [*folder.notes, *table.left_out(folder)]
    known = {f"{kind}-{row[kind]}" for row in folder.rows for kind in ("phase", "evaluation")}
    parts += [
        f"Failed: {name}: {cause}{'. Its results here are from before' * (name in known)}"
        for name, cause in it.failed.items()
    ]
    if it.collapsed:
        parts.append(
            f"{counted(len(it.collapsed), 'run')} collapsed (no better than a trivial rule, or one and the same "
            "prediction everywhere); counted in."
        )
    if text := collapse.not_judged(folder, it.collapse):
        parts.append(f"Whether a run collapsed could not be judged: {text}.")
    if folder.unscored:
        parts.append(f"Predicted, but there are no gold labels to score: {table.unscored(folder)}.")
    return parts
