"""Tables of what carries over to other languages: the transfer gap, means by resources, correlation with distance."""

from jxstilts.report import comparisons, statistics
from jxstilts.report.contents import Study, signed
from jxstilts.report.folder import SOURCE
from jxstilts.report.sheet import Table
from jxstilts.tasks.languages import LANGUAGES


def transfer(it: Study) -> Table:
    """English, the others, the gap, its change, and the means by stratum."""
    strata = it.folder.strata
    names = list(strata.groups) if strata.world else ["high", "mid", "low"]
    header = [
        it.arm_heading, "English", "others", "gap", "relative", "change of gap", *(f"{key} (n)" for key in names)
    ]  # fmt: skip
    body: list[list[str]] = []
    for target, metric in it.columns:
        body.append([it.title(target, metric)])
        for arm in it.folder.arms:
            values = comparisons.by_language(it.folder, arm, target, (metric,))
            if not values:
                continue
            cells = ["-"] * 5
            if SOURCE in values and len(values) > 1:
                gap = statistics.transfer_gap(values)
                relative = "-" if gap.relative is None else f"{100 * gap.relative:.0f} %"
                change = _change(it, arm, target, metric)
                cells = [f"{gap.english:.1f}", f"{gap.others:.1f}", f"{gap.gap:.1f}", relative, change]
            groups = strata.means(values)
            means = [
                f"{groups[key].mean:.1f} ({len(groups[key].languages)})" if key in groups else "-" for key in names
            ]
            body.append([it.who(arm), *cells, *means])
    where = (
        f"Strata of the languages of {strata.world}"
        if strata.world
        else "Strata: classes 4-5, 3, 0-2 of Joshi et al. 2020"
    )
    notes = [
        "Gap: English less the mean of the others; it also shrinks when English falls.",
        f"{where}; unweighted means without English, of n languages.",
    ]
    return Table("transfer", "Transfer gap, and means by resources of the language", header, body, notes)


def _change(it, arm, target, metric) -> str:
    apart = comparisons.difference_by_language(it.folder, arm, target, (metric,))
    if arm.intermediate == it.folder.base or SOURCE not in apart or len(apart) < 2:
        return "-"
    return signed(statistics.transfer_gap(apart).gap)


def distance(it: Study) -> Table | None:
    """How values, and differences from the baseline, go along with the distance from English; None in a world."""
    if it.folder.strata.world:
        return None
    body: list[list[str]] = []
    for target, metric in it.columns:
        own: list[list[str]] = []
        for arm in it.folder.arms:
            read = comparisons.by_language if arm.intermediate == it.folder.base else comparisons.difference_by_language
            values = {
                code: value for code, value in read(it.folder, arm, target, (metric,)).items() if code in LANGUAGES
            }
            if len(values.keys() - {SOURCE}) < 3:
                continue
            found = statistics.distance_correlation(values)
            what = "value" if arm.intermediate == it.folder.base else "difference"
            cells = [
                cell
                for one in (found["pearson"], found["spearman"])
                for cell in (("-", "-") if one.value is None else (signed(one.value, 2), f"{one.p:.3f}"))
            ]
            own.append([it.who(arm), what, *cells, str(found["pearson"].n)])
        if own:
            body += [[it.title(target, metric)], *own]
    if not body:
        return None
    header = [it.arm_heading, "of the", "Pearson", "p", "Spearman", "p", "languages"]
    notes = [
        "Distance: 1 - cosine of URIEL's syntax features. Languages are taken for independent, which those of one "
        "family are not, so p is rather too small; it is not corrected for the number of rows."
    ]
    return Table("distance", "Correlation with the syntactic distance from English", header, body, notes, left=2)
