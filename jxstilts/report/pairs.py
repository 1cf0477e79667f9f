"""Heat maps of tasks whose two texts may be in two languages: MLQA's 49 pairs, XNLI's 225, PAWS-X's 49."""

import functools

import numpy as np

from jxstilts.report import comparisons
from jxstilts.report.contents import Study, columns_of
from jxstilts.report.figures import Figure
from jxstilts.report.folder import Target
from jxstilts.report.table import name
from jxstilts.tasks.pairs import sides


def heat_maps(it: Study) -> list[Figure]:
    """A figure for each target that was evaluated in mixed pairs, a panel for each arm: values in per cent.

    A row is the language of the first text (a context, a premise), a column that of the second; one language: the
    diagonal. What was not evaluated is left white.
    """
    found = []
    for target, metric in columns_of(it):
        values = {arm: comparisons.by_language(it.folder, arm, target, (metric,)) for arm in it.folder.arms}
        values = {arm: own for arm, own in values.items() if any(len(sides(code)) > 1 for code in own)}
        if not values:
            continue
        codes = sorted({side for own in values.values() for code in own for side in sides(code)})
        panels = [
            (it.who(arm), functools.partial(_map, values=own, codes=codes, metric=name(metric)))
            for arm, own in values.items()
        ]
        size = (1.6 + 0.3 * len(codes), 1.2 + 0.28 * len(codes))
        caption = f"{it.title(target, metric)}: language of the first text by that of the second"
        found.append(Figure(figure_name(target), caption, panels, size, 2))
    return found


def matrix(values: dict[str, float], codes: list[str]) -> np.ndarray:
    """Returns the values [first, second] of {"a-b" or "a": value}; NaN where there is none."""
    found = np.full((len(codes), len(codes)), np.nan)
    for code, value in values.items():
        own = sides(code)
        found[codes.index(own[0]), codes.index(own[-1])] = value
    return found


def figure_name(target: Target) -> str:
    """Returns the name of a target's figure."""
    return f"pairs-{target.task}-{target.split}"


def _map(axes, values: dict[str, float], codes: list[str], metric: str) -> None:
    found = matrix(values, codes)
    low, high = float(np.nanmin(found)), float(np.nanmax(found))
    picture = axes.imshow(np.ma.masked_invalid(found), aspect="auto", cmap="cividis", vmin=low, vmax=max(high, low + 1))
    for (i, j), value in np.ndenumerate(found):
        if np.isfinite(value):
            dark = value < (low + high) / 2
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", color="white" if dark else "black", fontsize=6)
    axes.set_xticks(range(len(codes)), codes)
    axes.set_yticks(range(len(codes)), codes)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("second text")
    axes.set_ylabel("first text")
    bar = axes.figure.colorbar(picture, ax=axes, shrink=0.9)
    bar.set_label(f"{metric}, %")
    bar.outline.set_visible(False)
