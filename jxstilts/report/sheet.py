"""A table, and how it is written: Markdown, HTML, LaTeX; records as CSV."""

import csv as csv_format
import dataclasses
import html as html_format
import io
from collections.abc import Mapping, Sequence
from typing import Any

from jxstilts.runtime import counted

LETTER, PADDING = 7.6, 19  # pixels of a letter of a cell, and beside the cell, as page.CSS has them
PAGE, PHONE = 1184, 358  # pixels of a line of the page, and on a phone of 390
LATEX = str.maketrans({
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "−": "$-$",
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell with more than a text: small stands beside it, mark behind it."""

    text: str
    small: str = ""
    bold: bool = False
    mark: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; name is that of its files, the first `left` columns hold words, the others numbers.

    shown: so many of the notes always stand on the page, the others behind a click.
    A row of a single cell is the heading of the rows that follow.
    """

    name: str
    caption: str
    header: Sequence[str]
    body: Sequence[Sequence[str | Cell]]
    notes: Sequence[str] = ()
    left: int = 1
    shown: int = 1


def markdown(table: Table) -> list[str]:
    """Returns the lines of the table alone, columns padded to one width."""
    rows = [list(table.header), *([_markdown(cell) for cell in row] for row in table.body)]
    rows = [[f"**{row[0]}**", *[""] * (len(table.header) - 1)] if len(row) == 1 else row for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def _markdown(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return cell.replace("|", r"\|")
    text = f"**{cell.text}**" if cell.bold else cell.text
    small = cell.small.replace("*", r"\*")
    return " ".join(filter(None, (text + cell.mark.replace("*", r"\*"), small and f"({small})")))


def latex(table: Table) -> str:
    """Returns a table environment; it needs the package booktabs."""
    row = lambda cells: " & ".join(cells) + r" \\"  # noqa: E731
    return "\n".join([
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{table.caption.translate(LATEX)}}}",
        rf"\begin{{tabular}}{{{'l' * table.left + 'r' * (len(table.header) - table.left)}}}",
        r"\toprule",
        row(cell.translate(LATEX) for cell in table.header),
        r"\midrule",
        *(
            rf"\multicolumn{{{len(table.header)}}}{{l}}{{\textbf{{{_latex(cells[0])}}}}} \\"
            if len(cells) == 1
            else row(map(_latex, cells))
            for cells in table.body
        ),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par {note.translate(LATEX)}" for note in table.notes),
        r"\end{table}",
        "",
    ])  # fmt: skip


def _latex(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return cell.translate(LATEX)
    text = cell.text.translate(LATEX)
    text = rf"\textbf{{{text}}}" if cell.bold else text
    mark = f"$^{{{cell.mark}}}$" if cell.mark else ""
    return text + mark + (rf" {{\tiny {cell.small.translate(LATEX)}}}" if cell.small else "")


def html(table: Table) -> str:
    """Returns a figure with the table, which scrolls sideways where it is too wide, its caption and notes."""
    escape = html_format.escape
    side = lambda i: ' class="w"' if i < table.left else ""  # noqa: E731
    head = "".join(f'<th scope="col"{side(i)}>{escape(cell)}</th>' for i, cell in enumerate(table.header))
    wide = f' colspan="{len(table.header)}"'
    body = "".join(
        f'<tr class="group"><th scope="rowgroup" class="w"{wide}><span>{_html(row[0])}</span></th></tr>\n'
        if len(row) == 1
        else "<tr>"
        + "".join(
            f'<th scope="row" class="w">{_html(cell)}</th>' if i == 0 else f"<td{side(i)}>{_html(cell)}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>\n"
        for row in table.body
    )
    hint = '<span class="hint"> \u21c6 scrolls sideways</span>'
    return (
        f'<div class="table{_reach(table)}" id="table-{escape(table.name)}"><div class="wide" tabindex="0">'
        f"<table><caption>{escape(table.caption)}{hint}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>{_notes(table)}</div>\n"
    )


def _notes(table: Table) -> str:
    """The notes of a table: the first ones as they are, the others behind a click."""
    notes = [html_format.escape(note) for note in table.notes]
    first, rest = notes[: table.shown], notes[table.shown :]
    text = "".join(f'<p class="notes">{note}</p>' for note in first)
    if rest:
        items = "".join(f"<li>{note}</li>" for note in rest)
        more = counted(len(rest), "more note")
        text += f'<details class="notes"><summary>{more}</summary><ul>{items}</ul></details>'
    return text


def _reach(table: Table) -> str:
    """The class of a table that is too wide for the page, or for a phone: by the letters of its columns."""
    width = 0
    for place, title in enumerate(table.header):
        cells = [row[place] for row in table.body if len(row) > 1]
        longest = max((len(cell if isinstance(cell, str) else cell.text + cell.mark) for cell in cells), default=0)
        small = max((len(cell.small) for cell in cells if isinstance(cell, Cell)), default=0)
        width += PADDING + LETTER * max(longest, 0.83 * small, *map(len, title.split() or [""]))
    return " page phone" if width > PAGE else " phone" if width > PHONE else ""


def _html(cell: str | Cell) -> str:
    escape = html_format.escape
    if isinstance(cell, str):
        return escape(cell)
    text = f"<strong>{escape(cell.text)}</strong>" if cell.bold else escape(cell.text)
    mark = f"<sup>{escape(cell.mark)}</sup>" if cell.mark else ""
    return text + mark + (f"<small>{escape(cell.small)}</small>" if cell.small else "")


def csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns records as CSV with a header; numbers in full, empty where there is none."""
    buffer = io.StringIO()
    writer = csv_format.DictWriter(buffer, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return buffer.getvalue()
