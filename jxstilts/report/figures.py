"""The figures of the report, drawn with matplotlib: each is a set of panels, drawn together for files, apart for HTML.

Apart, so that the page can put panels side by side or below each other, as wide as the screen is. In HTML the black of
lines and words is the page's own colour of text, light or dark.
"""

import dataclasses
import functools
import html
import io
import math
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jxstilts.report import comparisons
from jxstilts.report.contents import Study, columns_of, signed
from jxstilts.report.folder import SOURCE, Arm, Target
from jxstilts.report.table import name
from jxstilts.runtime import atomic_write, counted

# Okabe and Ito's colours, which the colour-blind tell apart; without yellow, too light for lines on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (6, 1, 1, 1)))
MARKERS = "osD^vX"
INK = "#010203"  # becomes the page's colour of text
GREY = "#8a8a8a"  # is legible on white and on black
PALE = "#8a8a8a66"  # behind what is drawn on it
LINES = 12  # more lines in one panel are not told apart: they are drawn alike
SMALLEST = 0.75
WIDE = 42  # characters of a title
ROW = 0.155  # inches of a line of text
STYLE = {
    "font.size": 8, "font.family": "DejaVu Sans", "svg.fonttype": "none", "svg.hashsalt": "jxstilts",
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 8.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "legend.frameon": False, "legend.fontsize": 7, "axes.linewidth": 0.7,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.titlecolor": INK, "figure.constrained_layout.use": True, "savefig.facecolor": "none", "figure.dpi": 100,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Figure:
    """panels: (title, draw on axes); size: of one panel, in inches; columns: of panels in the files."""

    name: str
    caption: str
    panels: Sequence[tuple[str, Callable[[Any], None]]]
    size: tuple[float, float]
    columns: int = 3


def write(figure: Figure, folder: pathlib.Path) -> list[str]:
    """Writes FOLDER/NAME.png and NAME.svg, all panels together; returns each panel as an element of HTML."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        columns = min(figure.columns, len(figure.panels))
        rows = math.ceil(len(figure.panels) / columns)
        whole = _drawn(figure.panels, (rows, columns), figure.size)
        for kind in ("png", "svg"):
            atomic_write(folder / f"{figure.name}.{kind}", _saved(whole, kind, facecolor="white", dpi=160))
        singles = [_drawn([panel], (1, 1), figure.size) for panel in figure.panels]
        return [
            _inline(_saved(single, "svg").decode(), f"{figure.name}-{number}", f"{figure.caption}: {title}")
            for number, (single, (title, _)) in enumerate(zip(singles, figure.panels, strict=True))
        ]


def _drawn(panels, shape, size):
    from matplotlib.figure import Figure as Canvas  # without pyplot there is no global state, and no window

    canvas = Canvas(figsize=(size[0] * shape[1], size[1] * shape[0]))
    grid = canvas.subplots(*shape, squeeze=False).ravel()
    for axes, (title, draw) in zip(grid, panels, strict=False):
        axes.set_title(title)
        draw(axes)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    return canvas


def _saved(canvas, kind, **how) -> bytes:
    buffer = io.BytesIO()
    canvas.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None, **how)
    return buffer.getvalue()


def _inline(svg: str, prefix: str, label: str) -> str:
    """Returns an SVG document as an element of HTML: ids of its own, no addresses, the page's colour of text."""
    svg = svg[svg.index("<svg") :]
    wide = round(float(re.search(r'width="([\d.]+)pt"', svg).group(1)) * 4 / 3)  # in CSS pixels
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg).replace("url(#", f"url(#{prefix}-")
    svg = svg.replace(INK, "currentColor").replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    # on a narrow screen it shrinks so far, then it scrolls
    least = f'style="min-width:{round(SMALLEST * wide)}px"'
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" {least} ', 1)
    return f'<div class="panel" style="width:{wide}px">{svg}</div>'


def figures(it: Study) -> list[Figure]:
    """Returns the figures that the results allow, in the order of the page."""
    found = [heat_map(it), *(languages(it, *column) for column in columns_of(it)), layers(it), *curves(it), probes(it)]
    return [figure for figure in found if figure and figure.panels]


def heat_map(it: Study) -> Figure | None:
    """Intermediate tasks by targets: differences from the baseline, or values where a model has none."""
    folder = it.folder
    if not folder.targets:
        return None
    panels = []
    for model in dict.fromkeys(arm.model for arm in folder.arms):
        arms = [arm for arm in folder.arms if arm.model == model]
        against = Arm(model, folder.base) in arms and len(arms) > 1
        shown = [arm for arm in arms if arm != folder.baseline(arm)] if against else arms
        panels.append((model, lambda axes, shown=shown, against=against: _heat(axes, it, shown, against)))
    rows = max(sum(arm.model == model for arm in folder.arms) for model in {arm.model for arm in folder.arms})
    size = (2.4 + 0.62 * len(folder.targets), 1.5 + 0.3 * rows)
    rows_of = "Study" if it.compared else "Intermediate task"
    return Figure("heatmap", f"{rows_of} by target task; * as in the first table", panels, size, 1)


def _heat(axes, it: Study, arms: list[Arm], against: bool) -> None:
    targets = it.folder.targets
    values = np.full((len(arms), len(targets)), np.nan)
    for i, arm in enumerate(arms):
        for j, target in enumerate(targets):
            read = comparisons.difference_by_language if against else comparisons.by_language
            found = list(read(it.folder, arm, target, target.metrics).values())
            if found:
                values[i, j] = sum(found) / len(found)
    known = values[np.isfinite(values)]
    most = max(float(np.abs(known).max()) if known.size else 0.0, 1.0)
    kind = {"cmap": "PuOr_r", "vmin": -most, "vmax": most} if against else {"cmap": "cividis", "vmin": 0, "vmax": 100}
    picture = axes.imshow(np.ma.masked_invalid(values), aspect="auto", **kind)
    for i, arm in enumerate(arms):
        for j, target in enumerate(targets):
            value = values[i, j]
            if not np.isfinite(value):
                axes.text(j, i, "-", ha="center", va="center")
                continue
            star = "*" * any(one.significant for one in it.found if (one.arm, one.target) == (arm, target) and against)
            dark = abs(value) > 0.6 * most if against else value < 50
            text = signed(value) if against else f"{value:.1f}"
            axes.text(j, i, text + star, ha="center", va="center", color="white" if dark else "black", fontsize=7)
    axes.set_xticks(range(len(targets)), [it.folder.label(target) for target in targets], rotation=40, ha="right")
    axes.set_yticks(range(len(arms)), [arm.intermediate for arm in arms])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("target task")
    axes.set_ylabel("study" if it.compared else "intermediate task")
    bar = axes.figure.colorbar(picture, ax=axes, shrink=0.9)
    bar.set_label("difference, points" if against else "score, %")
    bar.outline.set_visible(False)


def languages(it: Study, target: Target, metric: str) -> Figure | None:
    """A panel for each arm, by language: the baseline's values, and the others' beside them, with intervals."""
    folder = it.folder
    arms = [arm for arm in folder.arms if folder.of(arm, target)]
    order = folder.languages(target)
    if len(order) < 2:
        return None
    for base in arms:
        held = comparisons.by_language(folder, base, target, (metric,))
        if held:  # the best of the first arm stand on top, in all panels alike
            order = sorted(order, key=lambda code: held.get(code, -1))
            break
    several = len({arm.model for arm in arms}) > 1
    whole = {arm: comparisons.by_language(folder, arm, target, (metric,)) for arm in arms}
    intervals = {arm: _intervals(it, arm, target, metric) for arm in arms}
    ends = [value for values in whole.values() for value in values.values()]
    for arm, own in intervals.items():
        base = whole.get(folder.baseline(arm), {})
        ends += [base[code] + high for code, (_, high) in own.items() if code in base]
    end = min(100.0, 1.05 * max(ends, default=1.0) or 1.0)
    panels = []
    for arm in arms:
        title = arm.title if several else arm.intermediate
        base = whole.get(folder.baseline(arm), {}) if arm != folder.baseline(arm) else {}
        drawn = {"base": base, "intervals": intervals[arm], "order": order}
        panels.append((title, functools.partial(_bars, values=whole[arm], metric=name(metric), end=end, **drawn)))
    size = (2.5, 0.85 + ROW * max(len(order), 4))
    caption = (
        f"{it.title(target, metric)} by language. Bars: the baseline (in its own panel, or a model without one: the "
        "arm). Dots: the arm, with the 95 % interval of its difference from the baseline"
    )
    return Figure(f"languages-{target.task}-{target.split}", caption, panels, size, 4)


def _intervals(it: Study, arm: Arm, target: Target, metric: str) -> dict[str, tuple[float, float]]:
    """Returns {language: (low, high)} of an arm's difference from its baseline."""
    own = [one for one in it.found if (one.arm, one.target, one.metrics) == (arm, target, (metric,))]
    return {each.language: (each.low, each.high) for one in own for each in one.each}


def _bars(
    axes, values: dict[str, float], metric: str, end: float, base: dict[str, float],
    intervals: dict[str, tuple[float, float]], order: list[str],
) -> None:  # fmt: skip
    """Bars by language; where there is a baseline they are its own, and the values are dots with whiskers."""
    lengths = [(base or values).get(code, 0.0) for code in order]
    axes.barh(range(len(order)), lengths, height=0.7, color=PALE if base else GREY, linewidth=0)
    for place, code in enumerate(order):
        if not base or code not in values:
            continue
        better = values[code] >= base.get(code, 0.0)
        if code in base and code in intervals:
            low, high = (max(base[code] + apart, 0.0) for apart in intervals[code])
            axes.plot((low, high), (place, place), color=COLOURS[not better], linewidth=0.9)
        axes.plot(values[code], place, MARKERS[not better], color=COLOURS[not better], markersize=3)
    axes.set_yticks(range(len(order)), [f"{code} (source)" if code == SOURCE else code for code in order], fontsize=7)
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.axvline(0, color=INK, linewidth=0.7)
    axes.set_xlim(0.0, end)
    axes.grid(axis="x", color=GREY, linewidth=0.3)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"{metric}, %")
    axes.set_ylabel("language")


def layers(it: Study) -> Figure | None:
    """Retrieval accuracy, or F1, by hidden state: the mean over languages and seeds."""
    rows = it.folder.curves
    panels = []
    for task, split in dict.fromkeys((row["task"], row["split"]) for row in rows):
        metric = Target(task, split).metrics[0]
        lines: dict[str, dict[int, list[float]]] = {}
        several = len({row["model"] for row in rows}) > 1
        for row in rows:
            value, state = row["metric"].split("@")
            if (row["task"], row["split"], value) == (task, split, metric):
                label = ", ".join(filter(None, (row["model"], row["intermediate"]))) if several else row["intermediate"]
                lines.setdefault(label, {}).setdefault(int(state), []).append(row["value"])
        means = {
            label: ([*sorted(points)], [sum(points[state]) / len(points[state]) for state in sorted(points)])
            for label, points in lines.items()
        }
        labels = "hidden state (0 = embeddings)", f"{name(metric)}, %"
        panels.append(
            (it.folder.label(Target(task, split)), lambda axes, m=means, names=labels: _lines(axes, m, *names))
        )
    return Figure("layers", "Retrieval by hidden state, mean over languages", panels, (3.6, 3.1), 2) if panels else None


def curves(it: Study) -> list[Figure]:
    """Learning curves, a panel for each set of training tasks: the loss, and the English dev value that chooses."""
    found = []
    for title, kind, field, label in (
        ("learning-loss", "train", "loss", "training loss, nats"),
        ("learning-dev", "dev", "major", "English dev, major metric, %"),
    ):
        groups: dict[str, dict[str, tuple[list, list]]] = {}
        for phase in it.phases:
            rows = [row for row in getattr(phase, kind) if field in row]
            if rows:
                points = [row["step"] for row in rows], [row[field] for row in rows]
                groups.setdefault(phase.tasks, {})[phase.name] = points
        panels = [
            (
                _short(f"trained on {group or 'tasks that are not recorded'}" if len(lines) > 1 else next(iter(lines))),
                lambda axes, m=lines, label=label: _lines(axes, m, "step", label),
            )
            for group, lines in groups.items()
        ]
        what = "training loss" if kind == "train" else "English dev value by which checkpoints are chosen"
        found.append(Figure(title, f"Learning curves: {what}", panels, (3.6, 3.1), 3))
    return found


def probes(it: Study) -> Figure:
    """What phases' probes tell of the last hidden state, a panel for each value and set of training tasks."""
    labels = {"language": "accuracy of a fresh probe, %", "cka": "CKA of translations"}
    groups: dict[tuple[str, str], dict[str, tuple[list, list]]] = {}
    for phase in it.phases:
        steps, keys = [row["step"] for row in phase.probes], phase.probes[-1] if phase.probes else {}
        places = [key.rpartition("/") for key in keys if "/" in key]
        last = max((int(state) for _, _, state in places), default=None)
        for value, _, state in places:
            if int(state) == last:
                points = steps, [row[f"{value}/{state}"] for row in phase.probes]
                groups.setdefault((phase.tasks, value), {})[phase.name] = points
    panels = []
    for (tasks, value), lines in groups.items():
        names = "step", labels.get(value, f"{value}, accuracy, %")
        title = _short(f"trained on {tasks}" if len(lines) > 1 else next(iter(lines)))
        panels.append((title, lambda axes, m=lines, names=names: _lines(axes, m, *names)))
    return Figure("learning-probes", "What the last hidden state tells of languages", panels, (3.6, 3.1), 3)


def _short(title: str) -> str:
    return title if len(title) <= WIDE else title[: WIDE - 1] + "…"


def _lines(axes, lines: dict[str, tuple[list, list]], x: str, y: str) -> None:
    """Lines with a legend below; more than LINES of them are drawn alike, and their number is said."""
    many = len(lines) > LINES
    for number, (label, points) in enumerate(lines.items()):
        style = {
            "color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
            "label": label, "linewidth": 1.3,
        }  # fmt: skip
        if many:
            style = {"color": COLOURS[0], "alpha": 0.5, "linewidth": 0.8}
        elif len(points[0]) <= 30:
            style |= {"marker": MARKERS[number % len(MARKERS)], "markersize": 3}
        axes.plot(*points, clip_on=False, **style)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))  # losses and percentages are not negative
    axes.grid(color=GREY, linewidth=0.3)
    axes.locator_params(axis="x", integer=True, nbins=6)
    if many:
        axes.set_title(f"{axes.get_title(loc='left')} ({counted(len(lines), 'phase')})", loc="left")
    elif len(lines) > 1:
        width = max(map(len, lines))
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.22), ncols=1 if width > 22 else 2, handlelength=2.6)
