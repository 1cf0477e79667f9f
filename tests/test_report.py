"""The tables of a study from its results, cell by cell."""

import json

import pytest
from folders import put, row

from jxstilts.report import table
from jxstilts.report.folder import load
from jxstilts.runtime import InputError
from jxstilts.tasks import languages


def report(tmp_path, *rows):
    return table.text(load(put(tmp_path, *rows)))


def cells(text, heading):
    """The rows of the table under a heading, header first."""
    part = text.split(f"{heading}\n", 1)[1].split("\n#")[0]
    lines = [line for line in part.split("\n") if line.startswith("|") and not line.startswith("|-")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_no_results_yet(tmp_path):
    with pytest.raises(InputError, match="no results yet"):
        load(tmp_path)


def test_headline_and_languages(tmp_path):
    text = report(
        tmp_path,
        row(),
        row(language="de", value=40.0, baseline=33.5),
        row(intermediate="mnli", value=60.0),
        row(intermediate="mnli", language="de", value=44.0, baseline=33.5, n=90, limit=90),
    )
    assert text.startswith("# toy: zero-shot results")
    assert cells(text, "zero-shot results") == [
        ["model", "intermediate", "xnli (2) accuracy"], ["small", "none", "45.0"], ["small", "mnli", "52.0"],
    ]  # fmt: skip
    assert "- xnli: dev split, 90 to 100 rows per language (capped at 90 by config)" in text
    assert "; a trivial rule scores accuracy 33.4\n" in text
    assert cells(text, "## xnli") == [
        ["language", "n", "small, none", "small, mnli"], ["en English", "100", "50.0", "60.0"],
        ["de German", "100", "40.0", "44.0"],
        ["mean without en", "", "40.0", "44.0"],
    ]  # fmt: skip


def test_languages_are_also_averaged_by_their_resources(tmp_path):
    values = {"en": 90.0, "de": 60.0, "tr": 40.0, "sw": 20.0}
    rows = [row(language=language, value=value) for language, value in values.items()]
    means = {line[0]: line[2] for line in cells(report(tmp_path, *rows), "## xnli")[1:] if line[0].startswith("mean")}
    known = {
        stratum: [values[code] for code in ("de", "tr", "sw") if languages.get(code).resource == stratum]
        for stratum in ("high", "mid", "low")
    }
    assert means == {"mean without en": "40.0"} | {
        f"mean, {stratum} resource ({len(found)})": f"{sum(found) / len(found):.1f}"
        for stratum, found in known.items()
        if found
    }
    strata = {"world": "a world", "high": ["en", "de", "tr"], "low": ["sw"]}
    (tmp_path / "strata.json").write_text(json.dumps(strata))  # its own go before those of the real languages
    found = cells(table.text(load(tmp_path)), "## xnli")
    assert found[-2:] == [["mean, high resource (2)", "", "50.0"], ["mean, low resource (1)", "", "20.0"]]


def test_english_dev_sets_stand_in_one_table(tmp_path):
    text = report(
        tmp_path,
        row(task="mnli"),
        row(task="hellaswag", phase="hs", value=26.0, low=20.0, high=32.0, baseline=25.6, limit=200),
        row(task="squad_v2", phase="sq", metric="best_f1", value=52.0, low=50.5, high=53.0, baseline=50.1),
    )
    assert text.startswith("# toy: results\n\n## English dev\n") and "zero-shot" not in text and "## mnli" not in text
    assert cells(text, "## English dev") == [
        ["task", "model", "phase", "metric", "n", "value", "95 % interval", "baseline", "above it"],
        ["mnli", "small", "mnli", "accuracy", "100", "50.0", "45.0 to 55.0", "33.3", "yes"],
        ["hellaswag", "small", "hs", "accuracy", "100", "26.0", "20.0 to 32.0", "25.6", "no"],
        ["squad_v2", "small", "sq", "best F1", "100", "52.0", "50.5 to 53.0", "50.1", "yes"],
    ]
    assert "- hellaswag: capped at 200 by config" in text


def test_both_kinds_together(tmp_path):
    text = report(
        tmp_path, row(task="mnli"), row(), row(language="de"), row(task="tatoeba", language="de", split="test")
    )
    assert cells(text, "zero-shot results")[0] == [
        "model", "intermediate", "xnli (2) accuracy", "tatoeba (1) accuracy",
    ]  # fmt: skip
    headings = [line for line in text.split("\n") if line.startswith("##")]
    assert headings == [
        "## English dev",
        "## German test",
        "## xnli",
    ]


def test_rows_of_earlier_versions_have_no_interval(tmp_path):
    old = {key: value for key, value in row(baseline=None).items() if key not in ("low", "high", "major")}
    assert cells(report(tmp_path, old), "## English dev")[1][-3:] == ["-", "-", "-"]


# --- results that no longer hold -------------------------------------------------------------------------------------


def phase(root, name, sha=None, start=None, aside=False):
    """A phase folder: with DONE if it has a checkpoint; under .superseded if it was moved aside."""
    where = root / "phases" / (f".superseded/{name}-0123456789ab" if aside else name)
    where.mkdir(parents=True)
    (where / "config.json").write_text(json.dumps({"phase": {}, "start": start}))
    if sha:
        (where / "DONE").write_text(json.dumps({"checkpoint_sha256": sha, "steps": 1}))


def of(phase, sha, **changes):
    return row(phase=phase, checkpoint_sha256=sha, evaluation=phase, intermediate=phase, language="de", **changes)


@pytest.mark.parametrize(
    ("now", "shown", "why"),
    [
        (None, {"kept"}, "has changed and is not finished again"),
        ("new", {"kept"}, "has changed, and its new model is not evaluated yet"),
        ("old", {"kept", "mnli", "xnli", "pawsx"}, ""),  # changed there and back, or to no effect
    ],
)
def test_rows_of_a_phase_that_changed_are_left_out(tmp_path, now, shown, why):
    """mnli changed; xnli was trained from it, and pawsx from xnli."""
    phase(tmp_path, "start", "s")
    phase(tmp_path, "kept", "k", "s")
    phase(tmp_path, "mnli", "old", "s", aside=True)
    phase(tmp_path, "mnli", now, "s")
    phase(tmp_path, "xnli", "x", "old")
    phase(tmp_path, "pawsx", "p", "x")
    rows = [of("kept", "k"), of("mnli", "old"), of("mnli", "old", task="tatoeba", split="test", metric="accuracy@1"),
            of("xnli", "x"), of("pawsx", "p"), of("kept", "k", value=None, metric=""),
            of("mnli", "old", value=None, metric="")]  # fmt: skip
    found = load(put(tmp_path, *rows))
    assert {one["phase"] for one in found.rows} == {arm.intermediate for arm in found.arms} == shown
    assert len(found.curves) == ("mnli" in shown) and len(found.unscored) == 1
    assert found.outdated == ({why: ["mnli"], "starts from a model that has changed": ["xnli", "pawsx"]} if why else {})
    text = table.text(found)
    assert (f"Left out, since the phase {why}: mnli." in text) == bool(why)
    assert ("Left out, since the phase starts from a model that has changed: xnli, pawsx." in text) == bool(why)


def test_a_phase_that_ran_again_shows_its_new_rows_alone(tmp_path):
    phase(tmp_path, "mnli", "old", aside=True)
    phase(tmp_path, "mnli", "new")
    found = load(put(tmp_path, of("mnli", "old", value=40.0), of("mnli", "new", value=60.0, seed=1)))
    assert [one["value"] for one in found.rows] == [60.0]


def test_models_from_elsewhere_are_not_judged(tmp_path):
    phase(tmp_path, "mnli", "new", "a bundle of another study")
    found = load(put(tmp_path, of("", "a"), of("gone", "b"), of("mnli", "new")))
    assert len(found.rows) == 3 and found.outdated == {}


def test_nothing_that_still_holds_is_no_result(tmp_path):
    phase(tmp_path, "mnli")
    with pytest.raises(InputError, match="no results that still hold: mnli has changed and is not finished again; run"):
        load(put(tmp_path, of("mnli", "old")))


def test_write_leaves_a_file(tmp_path):
    text = report(tmp_path, row())
    assert table.write(tmp_path).read_text() == text + "\n"
