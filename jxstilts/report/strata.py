"""Means over strata of languages: resources, pre-training, labelled data, script, family, distance from English."""

from collections.abc import Callable, Iterator

from jxstilts.report import comparisons, phases, statistics
from jxstilts.report.contents import Study
from jxstilts.report.folder import SOURCE, Arm, Target
from jxstilts.report.sheet import Table
from jxstilts.tasks.languages import LANGUAGES

SEEN = {True: "seen", False: "unseen"}
FACTS: tuple[tuple[str, str, Callable], ...] = (
    ("class (Joshi et al.)", "joshi_class", str),
    ("pre-training of XLM-R", "in_xlmr", SEEN.get),
    ("pre-training of mT5", "in_mt5", SEEN.get),
    ("script", "script", str),
    ("family", "family", str),
    ("distance from English", "nearness", str),
)


def strata(it: Study) -> Table | None:
    """Each arm's mean in each stratum, for the first metric of each target; None in a world, and without languages."""
    if it.folder.strata.world:
        return None
    body: list[list[str]] = []
    for target, metric in it.columns:
        if metric == target.metrics[0]:
            rows = list(_rows(it, target, metric))
            body += [[it.title(target, metric)], *rows] if rows else []
    if not body:
        return None
    notes = [
        "Unweighted means over languages, without English. If an arm lacks some languages of a stratum, its mean is "
        "over those that it has; n counts the languages of all arms together.",
        "Labelled data: whether a phase of this study trains a task in the language. Distance: near below 0.2, far "
        "from 0.4 on (URIEL's syntax features). Sources: `jxstilts/tasks/languages.py`.",
    ]
    header = ["stratum", "", "n", *(it.who(arm) for arm in it.folder.arms)]
    return Table("strata", "Means by strata of languages", header, body, notes, left=2)


def _rows(it: Study, target: Target, metric: str) -> Iterator[list[str]]:
    values = {arm: _values(it, arm, target, metric) for arm in it.folder.arms}
    every = dict.fromkeys(code for own in values.values() for code in own)
    if not every:
        return
    for title, fact, name in FACTS:
        groups = statistics.means_by(dict.fromkeys(every, 0.0), fact)
        yield from _group(title, {name(key): group.languages for key, group in groups.items()}, values)
    trained = _trained(it)
    groups = {SEEN[seen]: tuple(code for code in every if (code in trained) == seen) for seen in (True, False)}
    yield from _group("labelled data", {key: own for key, own in groups.items() if own}, values)


def _group(title: str, groups: dict[str, tuple[str, ...]], values: dict[Arm, dict[str, float]]) -> Iterator[list[str]]:
    for key, languages in groups.items():
        cells = []
        for own in values.values():
            found = [own[code] for code in languages if code in own]
            cells.append(f"{sum(found) / len(found):.1f}" if found else "-")
        yield [title, key, str(len(languages)), *cells]


def _values(it: Study, arm: Arm, target: Target, metric: str) -> dict[str, float]:
    found = comparisons.by_language(it.folder, arm, target, (metric,))
    return {code: value for code, value in found.items() if code in LANGUAGES and code != SOURCE}


def _trained(it: Study) -> set[str]:
    """Returns the languages in which a phase of the study trains a task on its labels."""
    streams = (stream for phase in it.phases for stream in phase.config.get("tasks", {}).values())
    return {code for stream in streams if phases.trains_task(stream) for code in stream.get("languages", ())}
