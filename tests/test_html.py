"""The page and the files of a report: whole, without anything from elsewhere, sensible for folders that are not."""

import csv
import html.parser
import io
import json
import re
import types

import folders
import pytest
from folders import put, row

from jxstilts import cli
from jxstilts.report import figures, page, phases, sheet
from jxstilts.report.sheet import Cell, Table

VOID = {"meta", "br", "img", "hr", "input", "link"}


class Page(html.parser.HTMLParser):
    """What a page holds; closing tags must fit."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.texts, self.tags, self.links = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        given = dict(attributes)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[key] for key in ("href", "src") if key in given]
        self.links += re.findall(r"url\(([^)]*)\)", given.get("style", "") + given.get("clip-path", ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study with everything, and its page."""
    folder = tmp_path_factory.mktemp("whole")
    tasks = ("xnli", "xquad", "tatoeba", "mnli")
    rows = folders.study(folder, {"none": 0, "mnli": 0.12}, tasks, seeds=2, n=60, layers=4)
    for name, task in (("mnli", "mnli"), ("none-xnli-s0", "mnli"), ("hellaswag", "hellaswag")):
        folders.phase(folder, name, task, done=name != "hellaswag")
    with (folder / "phases/mnli/metrics.jsonl").open("a") as file:
        for step in (20, 40):
            values = {f"{name}/{state}": step + state for state in (2, 10) for name in ("language", "cka", "tatoeba")}
            file.write(json.dumps({"step": step, "kind": "probe", **values}) + "\n")
    done = folder / "phases/none-xnli-s0/DONE"
    done.write_text(done.read_text().replace("a" * 64, "none0" + "0" * 40))  # the checkpoint of its rows
    put(folder, *rows)
    command = {"time": "2026-01-02T03:04:05Z", "command": "jxstilts run --workdir=w <"}
    (folder / "commands.jsonl").write_text(json.dumps(command) + "\n")
    path = page.write(folder, draws=100)
    return folder / "report", Page(path.read_text(encoding="utf-8"))


def test_the_page_needs_nothing_else(whole):
    root, found = whole
    text = (root / "index.html").read_text(encoding="utf-8")
    assert "http" not in text and "<script" not in text and "@import" not in text
    assert len(found.ids) == len(set(found.ids))
    inner = {link.removeprefix("#") for link in found.links if link.startswith("#")}
    assert inner <= set(found.ids) and len(inner) > 9
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in found.links)
    assert "prefers-color-scheme: dark" in text and "@media print" in text and "currentColor" in text
    assert figures.INK not in text


def test_every_table_has_a_caption_and_every_figure_a_name(whole):
    _, found = whole
    assert found.tags.count("caption") == found.tags.count("table") >= 12
    assert found.tags.count("figcaption") == found.tags.count("figure") == 8
    assert (
        found.tags.count("svg") == 1 + 3 * 2 + 1 + 4 + 3
    )  # heat map; languages of 3 tasks by 2 arms; layers; curves; probes
    headings = (
        "Results, Comparisons with the baseline, Transfer, Languages, Tasks in one language, How models were selected"
    )
    for heading in (*headings.split(", "), "Retrieval by hidden state", "Learning curves", "What was run"):
        assert heading in found.texts
    assert any("Not finished yet" in text and "hellaswag" in text for text in found.texts)


def test_what_was_run_is_told(whole):
    root, _ = whole
    text = (root / "report.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("| none-xnli-s0") and "none0000" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    # 6 x 36,000 tokens at 1,000 a second
    assert cells == ["none-xnli-s0", "mnli", "random", "0", "32", "0.001", "60", "216,000", "0.06", "done",
                     "none000000", "b" * 10]  # fmt: skip
    unfinished = [line for line in text.splitlines() if line.startswith("| hellaswag") and "216,000" in line]
    assert len(unfinished) == 1 and "not finished" in unfinished[0]
    assert "Versions: jax 0.10.2" in text and "The hardware was not recorded." in text
    assert "best mean major metric on the first 300 English dev rows of its tasks, every 20 steps" in text


def test_the_page_begins_with_what_was_found(whole):
    """Date, command and two sentences stand before the first note; notes open on a click; languages have names."""
    root, _ = whole
    text = (root / "index.html").read_text(encoding="utf-8")
    made = "Made by <code>jxstilts run --workdir=w &lt;</code> on 2 January 2026."
    order = ["Results of ", made, " comparisons with ", "largest", 'class="notes"']
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert text.count("<details") == text.count("more note") > 5 and "<td>" in text
    assert '<th scope="row" class="w">de German</th>' in text


def test_wide_tables_say_that_they_scroll():
    def reach(columns, rows=2):
        table = Table("t", "c", ["who", *["value"] * columns], [["none", *["12.3"] * columns]] * rows)
        return re.match(r'<div class="([^"]*)"', sheet.html(table))[1]

    assert [reach(columns) for columns in (2, 8, 40)] == ["table", "table phone", "table page phone"]
    assert "scrolls sideways" in sheet.html(Table("t", "c", ["who"], [["none"]]))


def test_probes_of_the_last_hidden_state(whole, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "_lines", lambda axes, lines, x, y: drawn.append((lines, y)))
    found = figures.probes(types.SimpleNamespace(phases=phases.load(whole[0].parent)))
    for _, draw in found.panels:
        draw(None)
    names = ["accuracy of a fresh probe, %", "CKA of translations", "tatoeba, accuracy, %"]
    assert drawn == [({"mnli": ([20, 40], [30, 50])}, name) for name in names]


def test_files_beside_the_page(whole):
    root, _ = whole
    for name in ("heatmap", "languages-xnli-dev", "layers", "learning-loss", "learning-dev", "learning-probes"):
        assert (root / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (root / f"figures/{name}.svg").read_text()
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (root / "report.md").read_text(encoding="utf-8"))
    assert len(pictures) == 8 and all((root / picture).is_file() for picture in pictures)
    rows = list(csv.DictReader(io.StringIO((root / "tables/comparisons.csv").read_text(encoding="utf-8"))))
    assert {row["task"] for row in rows} == {"xnli", "xquad", "tatoeba", "mean"}
    assert all(float(row["low"]) <= float(row["difference"]) <= float(row["high"]) for row in rows)
    headline = (root / "tables/headline.tex").read_text(encoding="utf-8")
    assert r"\toprule" in headline and headline.count(r"\\") == 4 and "squad_v1" not in headline


@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        ([row()], ["No task was evaluated in a language other than English", "This folder holds no phases"]),
        ([row(), row(language="de")], ["1 arm on 1 target task, 1 seed (0).", "no pair of an intermediate task"]),
        ([row(value=None, metric="")], ["Predicted, but there are no gold labels to score: xnli dev en"]),
        ([row(intermediate="", language="xx", task="tatoeba", split="test", baseline=None)], ["xx test"]),
        ([row(task="bucc2018", language="de", metric="f1@3", low=None, high=None)], ["There is no learning curve"]),
        ([row(), row(language="de"), row(intermediate="mnli")], ["mnli on xnli: on the 1 of 2 languages that both"]),
    ],
)  # fmt: skip
def test_partial_folders(tmp_path, rows, texts):
    found = Page(page.write(put(tmp_path, *rows), draws=20).read_text(encoding="utf-8"))
    for text in (*texts, "How the statistics are made"):
        assert any(text in one for one in found.texts), text


def test_a_failed_phase_is_told_with_its_cause(tmp_path):
    put(tmp_path, row(), row(language="de"))
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed/phase-mnli.json").write_text(json.dumps({"cause": "the loss is <nan>"}))
    found = Page(page.write(tmp_path, draws=20).read_text(encoding="utf-8"))
    assert "Failed: phase-mnli: the loss is <nan>. Its results here are from before" in found.texts


def test_words_are_escaped(tmp_path):
    rows = [row(study="a <b> & c", intermediate=what, language=language, model=model)
            for what in ("none", "50% & <more>") for language in ("en", "de") for model in ("m_1|x", "m2")
    ]  # fmt: skip
    path = page.write(put(tmp_path, *rows), draws=20)
    found = Page(path.read_text(encoding="utf-8"))
    assert "a <b> & c" in found.texts and "50% & <more>" in found.texts and "b" not in found.tags
    assert r"50\% \& <more>" in (tmp_path / "report/tables/headline.tex").read_text()
    assert r"m_1\|x" in (tmp_path / "report/report.md").read_text()


def test_a_table_in_each_form():
    table = Table(
        "t", "A & B", ["who", "x"], [["none", "1.0"], ["of_x"], ["a_b", Cell("−2.0", "−3.0 to −1.0", True, "*")]], ["n"]
    )
    assert sheet.markdown(table) == [
        "| who      | x                         |",
        "|----------|---------------------------|",
        "| none     | 1.0                       |",
        "| **of_x** |                           |",
        r"| a_b      | **−2.0**\* (−3.0 to −1.0) |",
    ]
    assert r"\multicolumn{2}{l}{\textbf{of\_x}} \\" in sheet.latex(table)
    assert '<th scope="rowgroup" class="w" colspan="2"><span>of_x</span></th>' in sheet.html(table)
    assert r"a\_b & \textbf{$-$2.0}$^{*}$ {\tiny $-$3.0 to $-$1.0} \\" in sheet.latex(table)
    assert r"\caption{A \& B}" in sheet.latex(table) and r"\begin{tabular}{lr}" in sheet.latex(table)
    assert "<strong>−2.0</strong><sup>*</sup><small>−3.0 to −1.0</small>" in sheet.html(table)
    assert sheet.csv([{"a": 1, "b": None}, {"a": "x,y", "b": 2.5}]) == 'a,b\n1,\n"x,y",2.5\n' and sheet.csv([]) == "\n"


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    put(tmp_path, *folders.study(tmp_path, {"none": 0, "mnli": 0.1}, seeds=1, n=20))
    page.write(tmp_path, draws=50)
    before = {path: path.read_bytes() for path in (tmp_path / "report").rglob("*") if path.is_file()}
    page.write(tmp_path, draws=50)
    assert {path: path.read_bytes() for path in before} == before and len(before) > 10


def test_where_a_phase_starts_and_how_it_was_chosen(tmp_path):
    """By the content of its start; a phase without a choice is counted, not listed."""
    for name in ("base", "mnli", "away"):
        folders.phase(tmp_path, name)
    for name, start, sha in (("base", None, "b" * 64), ("mnli", "b" * 64, "c" * 64), ("away", "d" * 64, "e" * 64)):
        where = tmp_path / "phases" / name
        config, done = (json.loads((where / file).read_text()) for file in ("config.json", "DONE"))
        config["start"], done["checkpoint_sha256"] = start, sha
        if name != "mnli":
            config["phase"]["select"]["metric"] = ""
        for file, content in (("config.json", config), ("DONE", done)):
            (where / file).write_text(json.dumps(content))
    found = phases.load(tmp_path)
    starts = {cells[0]: cells[2] for cells in phases.run_table(found).body}
    assert starts == {"base": "random", "mnli": "base (bbbbbbbbbb)", "away": "elsewhere (dddddddddd)"}
    table = phases.selection_table(found)
    assert [cells[:2] for cells in table.body] == [["mnli", "A"]]
    assert "Not shown, 2 phases: the last step." in table.notes
    others = [phase for phase in found if phase.name != "mnli"]
    assert phases.selection_table(others) == "No checkpoint was chosen by its value. 2 phases: the last step."


def test_many_lines_are_drawn_alike(tmp_path):
    put(tmp_path, row())
    for number in range(figures.LINES + 1):
        folders.phase(tmp_path, f"p{number}", seed=number)
    found = Page(page.write(tmp_path, draws=20).read_text(encoding="utf-8"))
    assert sum(f"trained on mnli ({figures.LINES + 1} phases)" in text for text in found.texts) == 2
    assert found.tags.count("svg") == 2


def test_the_command_prints_the_tables_and_writes_the_page(tmp_path, capsys):
    put(tmp_path, *folders.study(tmp_path, {"none": 0, "mnli": 0.1}, seeds=1, n=20))
    assert cli.main(["report", str(tmp_path), "--draws=50"]) == 0
    out = capsys.readouterr().out
    assert "zero-shot results" in out and f"the whole report: {tmp_path}/report/index.html" in out
    assert (tmp_path / "report/tables.md").is_file() and "50 resamples" in (tmp_path / "report/index.html").read_text()
    assert cli.main(["report", str(tmp_path), "--draws=0"]) == 2
    assert "0 draws; give at least 1" in capsys.readouterr().err
    assert cli.main(["report", str(tmp_path / "nothing")]) == 2
    assert "no results yet" in capsys.readouterr().err
