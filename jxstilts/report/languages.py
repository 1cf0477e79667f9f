"""Each intermediate task against the baseline in each language: tables for the page, records for a file."""

import dataclasses

from jxstilts.report import comparisons, table
from jxstilts.report.comparisons import InLanguage
from jxstilts.report.contents import Study, how_tested, signed
from jxstilts.report.folder import Arm, Target
from jxstilts.report.sheet import Cell, Table


def languages(it: Study, target: Target) -> Table:
    """The values of `table.languages` with the differences from the baseline, and what holds of these."""
    plain = table.languages(it.folder, target)
    held = _by_place(it, target)
    arms = table.evaluated(it.folder, target)
    codes = [*it.folder.languages(target), *[""] * len(plain.body)]  # means follow the languages
    body = [
        [*row[:2], *(_cell(text, held.get((arm, code), [])) for text, arm in zip(row[2:], arms, strict=True))]
        for row, code in zip(plain.body, codes, strict=False)
    ]
    every = [one for own in held.values() for one in own]
    notes = list(plain.notes)
    if every:
        metrics = f" x {len(target.metrics)} values" if len(target.metrics) > 1 else ""
        shape = f"{len({code for _, code in held})} languages x {len({arm for arm, _ in held})} arms{metrics}"
        notes += [
            f"Small print: the difference from {it.folder.base}. * p < {comparisons.LEVEL:g}, corrected by "
            f"Benjamini-Hochberg over the {len(every)} comparisons of this table ({shape}); "
            f"{sum(one.significant for one in every)} hold; of such, at most one in 20 is expected to be false.",
            *how_tested([(it.folder.label(target), one.test) for one in every]),
        ]
    return dataclasses.replace(plain, body=body, notes=notes, shown=2 if every else 1)


def _by_place(it: Study, target: Target) -> dict[tuple[Arm, str], list[InLanguage]]:
    """Returns {(arm, language): the comparisons of each metric of the target}."""
    found: dict[tuple[Arm, str], list[InLanguage]] = {}
    for one in it.found:
        if one.target == target:
            for each in one.each:
                found.setdefault((one.arm, each.language), []).append(each)
    return found


def _cell(text: str | Cell, own: list[InLanguage]) -> str | Cell:
    if not own or isinstance(text, Cell):
        return text
    return Cell(text, " / ".join(signed(one.value) + "*" * one.significant for one in own))


def records(it: Study) -> list[dict]:
    """A record for every comparison in one language, numbers in full."""
    return [
        {
            "model": one.arm.model, "intermediate": one.arm.intermediate, "task": one.target.task,
            "split": one.target.split, "language": each.language, "metric": " ".join(one.metrics),
            "difference": each.value, "low": each.low, "high": each.high, "p": each.test.p,
            "p_benjamini_hochberg": each.adjusted, "test": each.test.kind, "n": each.test.n,
            "differ": each.test.differ,
        }
        for one in it.found
        for each in one.each
    ]  # fmt: skip
