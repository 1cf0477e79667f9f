"""Which runs of a study folder collapsed: trained, and no better than a trivial rule (`statistics.collapsed`)."""

import dataclasses
from collections.abc import Sequence

from jxstilts.report import statistics
from jxstilts.report.folder import Arm, Folder, Run, Target, unique
from jxstilts.report.phases import Phase

REASONS = {"baseline": "no better than a trivial rule", "constant": "one and the same prediction for every item"}
NO_GOLD, NO_RULE = "no gold labels", "no trivial rule to compare with"
Key = tuple[Arm, Target, int]  # arm, target and seed of a run


@dataclasses.dataclass(frozen=True)
class Collapse:
    """What was found of each run: reasons, of those that collapsed; languages that it was judged by; or why not."""

    reasons: dict[Key, tuple[str, ...]]
    languages: dict[Key, tuple[str, ...]]
    open: dict[Key, str]

    def count(self, arm: Arm, target: Target) -> str:
        """Returns how many runs of an arm collapsed; "?" where none could be judged."""
        own = [key for key in self.languages if key[:2] == (arm, target)]
        return "?" if own and all(key in self.open for key in own) else str(sum(key in self.reasons for key in own))


def find(folder: Folder, phases: Sequence[Phase] = ()) -> Collapse:
    """Judges every run, each by the languages that its phase trained its tasks in, or whatever it has.

    Without gold labels or a trivial rule only predictions that are all the same tell of a collapse.
    """
    trained = {phase.name: phase.languages for phase in phases if phase.languages}
    found = Collapse({}, {}, {})
    for run in [*(run for runs in folder.runs.values() for run in runs), *folder.bare]:
        key = (run.arm, run.target, run.seed)
        if key in found.languages:
            continue  # without gold in some languages only
        rows = [row for values in run.rows.values() for row in values.values()]
        rows = [row for row in rows if row["metric"] in run.target.metrics] or rows
        judges = statistics.judged_by(rows, trained)[statistics.run_of(rows[0])]
        told = [made for language in judges or _those(run, trained, rows) for made in run.predictions(language)]
        reasons = statistics.collapsed(rows, {statistics.run_of(rows[0]): told}, trained)[0]
        found.languages[key] = judges or tuple(run.rows)
        if reasons:
            found.reasons[key] = reasons
        elif not judges:
            found.open[key] = NO_GOLD if all(row["value"] is None for row in rows) else NO_RULE
    return found


def _those(run: Run, trained: dict[str, Sequence[str]], rows: list[dict]) -> list[str]:
    """Returns the languages of a run that its phase was trained in; without one, all."""
    home = trained.get(rows[0]["phase"], (statistics.SOURCE,))
    return [language for language in run.rows if language in home] or list(run.rows)


def not_judged(folder: Folder, found: Collapse) -> str:
    """Returns which targets' runs could not be judged, and why, in words; "" where all were."""
    whole = unique((target, why) for (_, target, _), why in found.open.items())
    return ", ".join(f"{target.task} {target.split} ({why})" for target, why in whole)


def sentences(folder: Folder, found: Collapse) -> list[str]:
    """Returns a line on each run that collapsed, and one on those that could not be judged."""
    lines = [
        f"Collapsed: {arm.title} on {folder.label(target)}, seed {seed}: "
        f"{'; '.join(REASONS[reason] for reason in reasons)} ({' '.join(found.languages[arm, target, seed])})."
        for (arm, target, seed), reasons in found.reasons.items()
    ]
    if text := not_judged(folder, found):
        lines.append(f"Whether a run collapsed could not be judged: {text}.")
    return lines
