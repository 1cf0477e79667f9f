"""Statistics of a study: seeds, many comparisons, languages, collapsed runs.

What needs resampling, and tests of two systems, are in `resampling`. Values are those of results.jsonl, 0 to 100,
unless said otherwise; nothing here leaves out a run.
"""

import dataclasses
import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from jxstilts.runtime import InputError, suggest
from jxstilts.tasks import languages

SOURCE = "en"  # what all models are trained on
EXACT_LANGUAGES = 8  # so few, and all orders of them are gone through: 40,320


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Mean of n runs, standard deviation (n - 1) and Student interval; the last three are None for one run."""

    mean: float
    n: int
    sd: float | None
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class Gap:
    """English, the mean of the n others, English less that mean, and this as a share of English (None if that is 0)."""

    english: float
    others: float
    gap: float
    relative: float | None
    n: int


@dataclasses.dataclass(frozen=True)
class Group:
    """The mean over languages, unweighted, and which they are."""

    mean: float
    languages: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Correlation:
    """A correlation over n languages and its two-sided p value; both None where one side is constant."""

    value: float | None
    p: float | None
    n: int


def over_seeds(values: Sequence[float], *, level: float = 0.95) -> Seeds:
    """Returns the mean over seeds [n] and its Student interval (Student 1908).

    Assumes that runs of other seeds are independent and about normal; it covers seeds only, with the items and the
    languages as they are. A collapsed run makes it wide: flag it, and leave it in.
    Raises InputError for no value, or values that are not finite.
    """
    values = _numbers("values of seeds", values)
    _check_level(level)
    mean, n = math.fsum(values) / len(values), len(values)
    if n == 1:
        return Seeds(mean, n, None, None, None)
    sd = float(np.std(values, ddof=1)) if np.ptp(values) else 0.0
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / math.sqrt(n)
    return Seeds(mean, n, sd, mean - half, mean + half)


def holm(p: Sequence[float]) -> np.ndarray:
    """Returns p values [m] adjusted so that the chance of any false one is kept, in the order given (Holm 1979).

    Holds whatever their dependence. Raises InputError for no p value, or one outside 0 to 1.
    """
    p = _p_values(p)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(np.minimum(1, p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def benjamini_hochberg(p: Sequence[float]) -> np.ndarray:
    """Returns p values [m] adjusted so that the expected share of false ones is kept (Benjamini and Hochberg 1995).

    Assumes that they are independent or positively dependent. In the order given. Raises InputError as `holm`.
    """
    return stats.false_discovery_control(_p_values(p), method="bh")


def transfer_gap(values: Mapping[str, float]) -> Gap:
    """Returns English less the mean of the other languages, from {language: value}.

    A gap also shrinks when English falls: show both. For differences of two systems it is the change of the gap, and
    `relative` means nothing. Raises InputError without English, or without another language.
    """
    _numbers("values of languages", list(values.values()))
    others = [value for language, value in sorted(values.items()) if language != SOURCE]
    if SOURCE not in values or not others:
        raise InputError(
            f"statistics: a transfer gap needs {SOURCE!r} and other languages; there are: {_listed(values)}"
        )
    english, mean = float(values[SOURCE]), math.fsum(others) / len(others)
    return Gap(english, mean, english - mean, (english - mean) / english if english else None, len(others))


def means_by(values: Mapping[str, float], fact: str = "joshi_class") -> dict[Any, Group]:
    """Returns {group: its mean} of {language: value}, sorted by group, without English, which is no transfer.

    fact: what groups languages: "joshi_class" (0 to 5, Joshi et al. 2020), "resource" (high, mid, low: strata of
    these), "in_xlmr", "in_mt5" (seen in pre-training), "script", "family" or "nearness" (strata of the syntactic
    distance). Only groups that hold a language are there.
    Raises InputError for another fact, an unknown language, or no language but English.
    """
    known = ("joshi_class", "resource", "in_xlmr", "in_mt5", "script", "family", "nearness")
    if fact not in known:
        raise InputError(suggest("fact about languages", fact, known))
    found: dict[Any, list[str]] = {}
    for language in _transfer(values):
        found.setdefault(getattr(languages.get(language), fact), []).append(language)
    return {
        group: Group(math.fsum(values[language] for language in own) / len(own), tuple(own))
        for group, own in sorted(found.items())
    }


def distance_correlation(values: Mapping[str, float]) -> dict[str, Correlation]:
    """Returns {"pearson", "spearman"} of {language: value} with the syntactic distance from English, English left out.

    The distance: `tasks.languages` (URIEL's syntax features). Pearson's p assumes normal values; Spearman's is of all
    orders up to 8 languages, then of a t distribution. Both assume independent languages, which those of one family
    are not, so they are rather too small.
    Raises InputError for fewer than 3 languages beside English, or an unknown one.
    """
    names = _transfer(values)
    if len(names) < 3:
        raise InputError(f"statistics: a correlation needs 3 languages beside {SOURCE!r}; there are: {_listed(values)}")
    y = np.array([values[name] for name in names], float)
    x = np.array([languages.get(name).distance for name in names])
    n = len(names)
    if not (np.ptp(x) and np.ptp(y)):
        return {kind: Correlation(None, None, n) for kind in ("pearson", "spearman")}
    pearson, spearman = stats.pearsonr(x, y), stats.spearmanr(x, y)
    p = _order_p(stats.rankdata(x), stats.rankdata(y)) if n <= EXACT_LANGUAGES else spearman.pvalue
    return {
        "pearson": Correlation(float(pearson.statistic), float(pearson.pvalue), n),
        "spearman": Correlation(float(spearman.statistic), float(p), n),
    }


def _order_p(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the share of the orders of ranks y [n] that correlate with x at least as much as the one there is."""
    x, y = x - x.mean(), y - y.mean()
    every = np.array(list(itertools.permutations(y))) @ x
    return float(np.mean(np.abs(every) >= abs(x @ y) - 1e-9))


def baseline_interval(baseline: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Returns Wilson's interval (0 to 100) of a trivial rule's value on n items (Wilson 1927).

    Assumes a mean of items between 0 and 1, of which right or wrong vary most, so it is no shorter than it should be.
    """
    _check_level(level)
    if n < 1 or not 0 <= baseline <= 100:
        raise InputError(f"statistics: a baseline of {baseline} on {n} items; give 0 to 100 on at least 1")
    share, z2 = baseline / 100, float(stats.norm.ppf((1 + level) / 2)) ** 2
    middle, half = share + z2 / (2 * n), math.sqrt(z2 * share * (1 - share) / n + z2**2 / (4 * n**2))
    # at 0 and 100 the ends are the baseline itself, but for the last bits
    low, high = (100 * (middle + side * half) / (1 + z2 / n) for side in (-1, 1))
    return min(max(0.0, low), baseline), max(min(100.0, high), baseline)


def run_of(row: Mapping[str, Any]) -> tuple:
    """Returns what the rows of results.jsonl of one run on one task and split have in common."""
    return row["phase"], row["checkpoint_sha256"], row["task"], row["split"]


def judged_by(
    rows: Sequence[Mapping[str, Any]], trained: Mapping[str, Sequence[str]] | None = None
) -> dict[tuple, tuple[str, ...]]:
    """Returns {run_of(row): the languages that tell whether the run collapsed}, () where none does.

    These are the languages that its task was trained in, as far as they have a value and a trivial rule's; without such
    a one, all languages that have both (in the order of the rows). trained: {phase: languages}; default: English.
    """
    found: dict[tuple, dict[str, None]] = {}
    for row in rows:
        own = found.setdefault(run_of(row), {})
        if row["value"] is not None and row["baseline"] is not None:
            own[row["language"]] = None
    home = {run: [code for code in own if code in (trained or {}).get(run[0], (SOURCE,))] for run, own in found.items()}
    return {run: tuple(home[run] or own) for run, own in found.items()}


def collapsed(
    rows: Sequence[Mapping[str, Any]],
    predictions: Mapping[tuple, Sequence[Hashable]] | None = None,
    trained: Mapping[str, Sequence[str]] | None = None,
) -> list[tuple[str, ...]]:
    """Returns for each row of results.jsonl why its run counts as collapsed: () if it does not. Drops nothing.

    Args:
        rows: as in the file; a row needs the fields of `run_of`, and language, value, baseline, n.
        predictions: {run_of(row): what it predicted in those languages: labels, tags, answers}; runs may be missing.
        trained: as for `judged_by`.
    The rule. A run is all rows of one checkpoint on one task and split; all get the same reasons:
        "baseline": none of its values in the languages of `judged_by` lies above the interval of its trivial rule
            (majority label or tag, answer at random: `baseline_interval`), at 95 % for all these languages together
            (Bonferroni). Where the run is evaluated in the languages that it was trained in, others are not looked at:
            to fail there is poor transfer, not a failed training.
        "constant": its predictions there, at least two, are all the same.
    """
    judges = judged_by(rows, trained)
    above: dict[tuple, bool] = {}
    for row in rows:
        languages = judges[run_of(row)]
        if row["language"] in languages and row["value"] is not None and row["baseline"] is not None:
            high = baseline_interval(row["baseline"], row["n"], level=1 - 0.05 / len(languages))[1]
            above[run_of(row)] = above.get(run_of(row), False) or row["value"] > high
    constant = {run for run, made in (predictions or {}).items() if len(made) > 1 and len(set(made)) == 1}
    found = []
    for row in rows:
        reasons = {"baseline": not above.get(run_of(row), True), "constant": run_of(row) in constant}
        found.append(tuple(reason for reason, holds in reasons.items() if holds))
    return found


def _transfer(values: Mapping[str, float]) -> list[str]:
    """Returns the languages but English, sorted; raises InputError for none or values that are not finite."""
    names = sorted(language for language in values if language != SOURCE)
    _numbers(f"values of languages beside {SOURCE!r}", [values[name] for name in names])
    return names


def _numbers(what: str, values: Sequence[float]) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise InputError(f"statistics: {what} have the shape {values.shape}; give at least one, all finite, in a row")
    return values


def _p_values(values: Sequence[float]) -> np.ndarray:
    values = _numbers("p values", values)
    if values.min() < 0 or values.max() > 1:
        raise InputError(f"statistics: p values from {values.min()} to {values.max()}; they lie between 0 and 1")
    return values


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"statistics: level is {level}; give a number between 0 and 1, such as 0.95")


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(sorted(values)) or "none"
