"""Two study folders side by side: each arm of one against the same arm of the other, on what both have evaluated.

The first study takes the place of the baseline, so that differences, intervals, corrections, tables and figures are
those of any report: an arm's name becomes the model, the study's name the intermediate task.
"""

import dataclasses
import pathlib
from collections.abc import Callable

from jxstilts.report import collapse, comparisons, contents, page, phases
from jxstilts.report.folder import Arm, Folder, Run, Target, load
from jxstilts.runtime import InputError


def write(
    first: str | pathlib.Path,
    second: str | pathlib.Path,
    draws: int = comparisons.DRAWS,
    say: Callable[[int, int], None] = lambda done, total: None,
) -> pathlib.Path:
    """Writes SECOND/against/FIRST/report, as `page.write` does, and returns the path of its index.html.

    Raises InputError as `folder.load`, and where the two have no arm on a target in common.
    """
    first, second = pathlib.Path(first), pathlib.Path(second)
    folder = join(one := load(first), other := load(second), place(first, second))
    found, means = comparisons.compare(folder, draws, say)
    return page.write_study(contents.Study(folder, [], found, means, _collapsed(folder, one, other), {}), draws)


def _collapsed(both: Folder, first: Folder, second: Folder) -> collapse.Collapse:
    """Returns which runs collapsed, each judged as in the report of its own study."""
    found = collapse.Collapse({}, {}, {})
    for folder, name in zip((first, second), _names(first, second), strict=True):
        own = collapse.find(folder, phases.load(folder.path))
        for field in dataclasses.fields(own):
            for (arm, target, seed), value in getattr(own, field.name).items():
                if both.of(Arm(arm.title, name), target):
                    getattr(found, field.name)[Arm(arm.title, name), target, seed] = value
    return found


def place(first: pathlib.Path, second: pathlib.Path) -> pathlib.Path:
    """Returns the folder of what compares the two."""
    return second / "against" / (first.resolve().name or "first")


def join(first: Folder, second: Folder, path: pathlib.Path) -> Folder:
    """Returns one folder, which lies at `path`, of what both have."""
    if first.path.resolve() == second.path.resolve():
        raise InputError(f"{first.path} and {second.path} are the same folder; give two")
    if first.strata != second.strata:
        raise InputError(
            f"{first.path} and {second.path} are of other worlds ({first.strata.world or 'real languages'}, "
            f"{second.strata.world or 'real languages'}): their numbers say nothing of each other"
        )
    names = _names(first, second)
    both = [key for key in first.runs if key in second.runs]
    if not both:
        raise InputError(f"{first.path} and {second.path} have no arm on a task and split in common")
    runs: dict[tuple[Arm, Target], list[Run]] = {}
    rows = []
    for folder, name in zip((first, second), names, strict=True):
        for arm, target in both:
            own = Arm(arm.title, name)
            runs[own, target] = [dataclasses.replace(run, arm=own) for run in folder.runs[arm, target]]
        rows += [
            {**row, "model": Arm(row["model"], row["intermediate"]).title, "intermediate": name}
            for row in folder.rows
            if (Arm(row["model"], row["intermediate"]), Target(row["task"], row["split"])) in both
        ]
    notes = [f"{name}: the folder {folder.path}." for folder, name in zip((first, second), names, strict=True)]
    for folder, name in zip((first, second), names, strict=True):
        alone = [f"{arm.title} on {folder.label(target)}" for arm, target in folder.runs if (arm, target) not in both]
        notes += [f"Only in {name}, so not shown: {'; '.join(alone)}."] if alone else []
    return Folder(
        path, f"{names[1]} against {names[0]}", runs, [], [], [], first.strata, [], {}, rows, names[0], tuple(notes)
    )


def _names(first: Folder, second: Folder) -> tuple[str, str]:
    """Returns how the two are called: as their studies, their folders, or by their whole paths, where these differ."""
    choices = ((folder.study, folder.path.resolve().name, str(folder.path.resolve())) for folder in (first, second))
    return next(pair for pair in zip(*choices, strict=True) if pair[0] != pair[1])
