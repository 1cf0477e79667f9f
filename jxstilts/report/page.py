"""The report of a study folder: index.html, which needs nothing else, report.md, every table and figure as a file."""

import html
import pathlib
import re
from collections.abc import Callable
from typing import Any

from jxstilts.report import contents, figures, languages, overview, pairs, robustness, sheet, strata, table, transfer
from jxstilts.report.comparisons import DRAWS
from jxstilts.report.contents import Study
from jxstilts.report.figures import Figure
from jxstilts.report.folder import BASELINE
from jxstilts.report.phases import run_table, selection_table
from jxstilts.report.sheet import Table
from jxstilts.runtime import atomic_write

CSS = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --faint: #595959; --line: #c8c8c8; --band: #f3f4f6;
  --shade: rgb(0 0 0 / .3); }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #16181c; --faint: #a8a8a8; --line: #44474d; --band: #1f2228;
    --shade: rgb(255 255 255 / .35); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, "DejaVu Sans", Verdana, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; }
p, li { max-width: 46rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: 0; list-style: none; }
a { color: inherit; }
.table { margin: 1rem 0 1.6rem; }
.wide { overflow-x: auto; background:
  linear-gradient(90deg, var(--paper) 40%, transparent) 0 0/3rem 100% no-repeat local,
  linear-gradient(270deg, var(--paper) 40%, transparent) 100% 0/3rem 100% no-repeat local,
  linear-gradient(90deg, var(--shade), transparent) 0 0/1rem 100% no-repeat scroll,
  linear-gradient(270deg, var(--shade), transparent) 100% 0/1rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; position: sticky; left: 0;
  max-width: calc(100vw - 4rem); }
sup { line-height: 0; }
th, td { padding: .25rem .6rem; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; white-space: normal; }
.w { text-align: left; } td.w { white-space: normal; max-width: 24rem; } tbody th { font-weight: 400; }
tbody th:first-child, thead th:first-child { position: sticky; left: 0; background: var(--paper); }
tbody tr:hover > * { background: var(--band); }
.group th { font-weight: 600; padding-top: .9rem; } .group span { position: sticky; left: .6rem; }
td small { display: block; color: var(--faint); }
.made, .made code { font-size: .85rem; color: var(--faint); overflow-wrap: anywhere; }
.finding { font-size: 1.1rem; }
.notes { font-size: .85rem; color: var(--faint); margin: .4rem 0; }
.notes ul { padding-left: 1.1rem; margin: .3rem 0; } .notes summary { cursor: pointer; }
.hint { display: none; font-weight: 400; color: var(--faint); } .page .hint { display: inline; }
figure { margin: 1rem 0 1.6rem; }
figcaption { font-weight: 600; font-size: .9rem; margin-bottom: .4rem; }
.panels { display: flex; flex-wrap: wrap; gap: .8rem; align-items: flex-start; }
.panel { max-width: 100%; overflow-x: auto; }
.panel svg { display: block; width: 100%; height: auto; }
td.w:last-child { min-width: 14rem; }
@media (max-width: 40rem) { .phone .hint { display: inline; } }
@media (max-width: 40rem) { tbody th:first-child { white-space: normal; min-width: 6rem; max-width: 8.5rem; } }
@media print {
  html { font-size: 8.5pt; } body { max-width: none; padding: 0; } nav { display: none; }
  .wide, .panel { overflow: visible; background: none; } .table .hint { display: none; }
  .notes::details-content { content-visibility: visible; block-size: auto; } .notes summary { display: none; }
  table { font-size: 7pt; } th, td { padding: .1rem .25rem; }
  tbody th:first-child, thead th:first-child { position: static; }
  tr, .panel, figcaption { break-inside: avoid; } thead { display: table-header-group; }
  h2, figcaption, caption, thead, .group { break-after: avoid; } tbody tr:first-child { break-before: avoid; }
  .panels { display: block; } .panel { display: inline-block; vertical-align: top; margin: 0 .4rem .4rem 0; }
}
"""


def write(
    workdir: str | pathlib.Path, draws: int = DRAWS, say: Callable[[int, int], None] = lambda done, total: None
) -> pathlib.Path:
    """Writes WORKDIR/report: index.html, report.md, tables/*.csv and *.tex, figures/*; returns the path of index.html.

    draws: of the resampling. say: is told how far the comparisons are. Raises InputError as `folder.load`.
    """
    return write_study(contents.study(workdir, draws, say), draws)


def write_study(it: Study, draws: int) -> pathlib.Path:
    """As `write`, of a study that is compared already."""
    root = it.folder.path / "report"
    made = {figure.name: figure for figure in [*figures.figures(it), *pairs.heat_maps(it)]}
    drawn = {figure.name: figures.write(figure, root / "figures") for figure in made.values()}
    parts = sections(it, made, draws) if it.folder.base == BASELINE else _against(it, made, draws)
    for _, _, blocks in parts:
        for block in blocks:
            if isinstance(block, Table):
                atomic_write(root / "tables" / f"{block.name}.tex", sheet.latex(block))
    for name, records in (
        ("values", contents.value_records(it)), ("comparisons", contents.comparison_records(it)),
        ("languages", languages.records(it)),
    ):  # fmt: skip
        atomic_write(root / "tables" / f"{name}.csv", sheet.csv(records))
    atomic_write(root / "report.md", _markdown(it, parts))
    atomic_write(root / "index.html", _html(it, parts, drawn))
    return root / "index.html"


def sections(it: Study, drawn: dict[str, Figure], draws: int) -> list[tuple[str, str, list[Any]]]:
    """Returns (id, heading, [text, Table or Figure, ...]) of each section; what is missing is said in words."""
    folder = it.folder
    parts: list[tuple[str, str, list[Any]]] = []

    def add(identifier: str, heading: str, *blocks: Any) -> None:
        parts.append((identifier, heading, [block for block in blocks if block is not None]))

    if folder.targets:
        add("results", "Results", contents.headline(it), drawn.get("heatmap"))
        compared = (
            contents.details(it) if it.found else "There is no pair of an intermediate task and a baseline to compare."
        )
        add("comparisons", "Comparisons with the baseline", compared, contents.seeds(it))
        add("transfer", "Transfer", transfer.transfer(it), transfer.distance(it) or _no_distance(it))
        add("strata", "Strata of languages", strata.strata(it) or "There are no strata of these languages to show.")
        if even := robustness.robustness(it):
            add("robustness", "Robustness over languages", even)
        by_language = [
            block
            for target in folder.targets
            for block in (
                drawn.get(f"languages-{target.task}-{target.split}"),
                drawn.get(pairs.figure_name(target)),
                languages.languages(it, target),
            )
        ]
        add("languages", "Languages", *by_language)
    else:
        add(
            "results",
            "Results",
            "No task was evaluated in a language other than English: there is no transfer to show.",
        )
    english = [single for single in table.singles(folder)]
    if english:
        add("single", "Tasks in one language", *english)
    if it.collapsed or it.collapse.open:
        add("collapsed", "Collapsed runs", contents.fallen(it))
    missing = "No retrieval task was scored by hidden state (layer=all)."
    add("layers", "Retrieval by hidden state", drawn.get("layers"), table.layers(folder) if folder.curves else missing)
    learned = [drawn.get(name) for name in ("learning-loss", "learning-dev", "learning-probes")]
    add("learning", "Learning curves", *(learned if any(learned) else ["There is no learning curve in this folder."]))
    if it.phases:
        add("selection", "How models were selected", selection_table(it.phases))
        add("runs", "What was run", run_table(it.phases))
    else:
        add("runs", "What was run", "This folder holds no phases: only evaluations of models from elsewhere.")
    add("methods", "How the statistics are made", *_methods(draws))
    return parts


def _against(it: Study, drawn: dict[str, Figure], draws: int) -> list[tuple[str, str, list[Any]]]:
    """The sections of two studies that are compared; what is of one alone stands in its own report."""
    by_language = [
        block
        for target in it.folder.targets
        for block in (drawn.get(f"languages-{target.task}-{target.split}"), languages.languages(it, target))
        if block
    ]
    fallen = [("collapsed", "Collapsed runs", [runs])] if (runs := contents.fallen(it)) else []
    return [
        ("results", "Results", [contents.headline(it), *filter(None, [drawn.get("heatmap")])]),
        ("comparisons", f"Comparisons with {it.folder.base}", [contents.details(it), contents.seeds(it)]),
        ("languages", "Languages", by_language),
        *fallen,
        ("methods", "How the statistics are made", _methods(draws)),
    ]


def _no_distance(it: Study) -> str:
    if it.folder.strata.world:
        return (
            f"The languages are those of {it.folder.strata.world}: facts about real languages (classes of resources, "
            "syntactic distance) do not apply and are not shown."
        )
    return "No correlation with the syntactic distance: it needs 3 languages beside English."


def _methods(draws: int) -> list[str]:
    return [
        "A value is the metric in each language, averaged over languages, then over seeds. A difference is taken from "
        "the arm of the same model without an intermediate task.",
        f"Intervals are 95 % percentile intervals from {draws:,} resamples. With one run of each arm, items are drawn "
        "with replacement, the same for both arms (paired bootstrap). With several, seeds, languages and items are "
        "drawn, crossed. Items that are the same in several languages, and the questions about one paragraph, are "
        "drawn together. With few seeds such intervals are somewhat too short, so the tables also give Student's "
        "interval over seeds. Where one side is a single model (retrieval before any training), it is taken as it is.",
        "p values are two-sided. With several runs of an arm, p inverts the interval. With one run of each, the two "
        "are exchanged at random in each cluster of items (approximate randomisation), in all ways where there are not "
        "too many; for single items that are right or wrong this is McNemar's exact test. For the mean of tasks, p "
        "inverts the interval. In one language, interval and p leave out the chance of other languages.",
        "A mined pair counts at the threshold that the evaluation used; the chance in tuning it is not covered. The "
        "mean of tasks takes the tasks' items and seeds as independent.",
        "p values are corrected by Holm over all comparisons of the first table, and by Benjamini-Hochberg over all "
        "languages, arms and values of one task in the table of its languages: with so many comparisons, a small share "
        "of false ones is accepted. A run counts as collapsed if none of its values in the languages that it was "
        "trained in (mostly English) lies above the 95 % interval of a trivial rule, or if its predictions there are "
        "all the same. A run that was evaluated in none of these languages is judged by all its "
        "languages, at 95 % for all of them together; a run without gold labels or a trivial rule, only by its "
        "predictions.",
    ]


def _markdown(it: Study, parts) -> str:
    lines = [f"# {it.folder.study}", "", *(f"{line}  " for line in overview.lines(it)), ""]
    for _, heading, blocks in parts:
        lines += [f"## {heading}", ""]
        for block in blocks:
            if isinstance(block, Table):
                lines += [
                    f"**{block.caption}**",
                    "",
                    *sheet.markdown(block),
                    "",
                    *(f"- {note}" for note in block.notes),
                    "",
                ]
            elif isinstance(block, Figure):
                lines += [f"![{block.caption}](figures/{block.name}.png)", ""]
            else:
                lines += [block, ""]
    return "\n".join(lines)


def _html(it: Study, parts, drawn: dict[str, list[str]]) -> str:
    links = "".join(f'<li><a href="#{identifier}">{html.escape(heading)}</a></li>' for identifier, heading, _ in parts)
    body = "".join(
        f'<section aria-labelledby="{identifier}"><h2 id="{identifier}">{html.escape(heading)}</h2>\n'
        + "".join(_block(block, drawn) for block in blocks)
        + "</section>\n"
        for identifier, heading, blocks in parts
    )
    title = html.escape(it.folder.study)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        + "".join(f'<p class="made">{_code(line)}</p>\n' for line in overview.made(it.folder.path))
        + f'<p class="finding">{html.escape(" ".join(overview.finding(it)))}</p>\n'
        + "".join(f"<p>{html.escape(line)}</p>\n" for line in overview.caveats(it))
        + f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n<main>\n{body}</main>\n</body>\n</html>\n'
    )


def _code(line: str) -> str:
    """Escapes a line; what stands between backticks is code."""
    return re.sub("`(.*)`", r"<code>\1</code>", html.escape(line))


def _block(block: Any, drawn: dict[str, list[str]]) -> str:
    if isinstance(block, Table):
        return sheet.html(block)
    if isinstance(block, Figure):
        panels = "".join(drawn[block.name])
        caption = f"<figcaption>{html.escape(block.caption)}</figcaption>"
        return f'<figure>{caption}<div class="panels">{panels}</div></figure>\n'
    return f"<p>{html.escape(block)}</p>\n"
