"""Strata of languages and pairs of languages in the report."""

import numpy as np
from test_comparisons import made

from jxstilts.report import figures, pairs, robustness, strata
from jxstilts.tasks import languages


def test_the_facts_of_fifty_languages():
    families = {language.code: language.family for language in languages.TABLE}
    assert len(families) == 50 and len(set(families.values())) == 16  # 14 families and two isolates
    assert families["hi"] == "Indo-European" and families["eu"] == "Basque (isolate)"
    assert sum(len(codes.split()) for codes in languages.FAMILIES.values()) == 50
    near = {language.code for language in languages.TABLE if language.nearness == "near"}
    assert {"nl", "de"} < near and len(near) == 11


def test_means_by_stratum(tmp_path):
    it = made(tmp_path, {"none": 0, "mnli": 0.2}, seeds=1, tasks=("xnli",))
    table = strata.strata(it)
    rows = {(row[0], row[1]): row[2:] for row in table.body if len(row) > 1}
    own = strata._values(it, it.folder.arms[0], *it.columns[0])
    assert set(own) == {"de", "sw"}  # without English
    assert rows["script", "Latn"] == ["2", f"{np.mean(list(own.values())):.1f}", *rows["script", "Latn"][2:]]
    assert rows["family", "Niger-Congo"][1] == f"{own['sw']:.1f}" == rows["class (Joshi et al.)", "2"][1]
    assert rows["distance from English", "near"][1] == f"{own['de']:.1f}"
    assert rows["labelled data", "unseen"][0] == "2" and ("labelled data", "seen") not in rows
    (tmp_path / "strata.json").write_text('{"world": "w", "high": ["de"], "low": ["sw"]}')
    assert strata.strata(made(tmp_path, {"none": 0}, seeds=1, tasks=("xnli",))) is None


def test_a_matrix_of_pairs():
    found = pairs.matrix({"de": 80.0, "de-en": 70.0, "en-de": 60.0}, ["de", "en"])
    assert found[0].tolist() == [80, 70] and found[1, 0] == 60 and np.isnan(found[1, 1])


def test_heat_maps_of_pairs(tmp_path):
    mixed = {"xnli": ["en", "de", "en-de", "de-en"]}
    it = made(tmp_path, {"none": 0, "mnli": 0.1}, seeds=1, tasks=("xnli",), languages=mixed)
    [figure] = pairs.heat_maps(it)
    assert figure.name == "pairs-xnli-dev" and len(figure.panels) == 2
    drawn = figures.write(figure, tmp_path)
    assert (tmp_path / "pairs-xnli-dev.png").stat().st_size > 1000 and "first text" in drawn[0]
    assert not pairs.heat_maps(made(tmp_path / "plain", {"none": 0}, seeds=1, tasks=("xnli",)))


def test_how_even_answers_are(tmp_path):
    mixed = {"xnli": ["en", "de", "sw", "en-de", "de-en"]}
    it = made(tmp_path, {"none": 0, "mnli": 0.1}, seeds=1, tasks=("xnli",), languages=mixed)
    table = robustness.robustness(it, draws=50)
    assert table.header[1:] == [*robustness.HEADINGS.values()] and table.body[0] == ["xnli accuracy"]
    _, first, second = table.body
    (arm, target), *_ = it.folder.runs
    values = {code: rows["accuracy"]["value"] for code, rows in it.folder.of(arm, target)[0].rows.items()}
    own, others = [values[code] for code in ("en", "de", "sw")], [values[code] for code in ("en-de", "de-en")]
    mean, pairs_mean = np.mean(own), np.mean(others)
    expected = [mean, values["en"] - np.mean(own[1:]), min(own), pairs_mean, mean - pairs_mean]
    assert [cell.text for cell in first[1:6]] == [f"{value:.1f}".replace("-", "−") for value in expected]
    assert " to " in first[1].small and first != second
    it = made(tmp_path / "s", {"none": 0}, seeds=2, tasks=("xnli",), languages=mixed)
    several = robustness.robustness(it, draws=50)
    assert several.body[1][1].small.startswith("sd ")
    assert robustness.robustness(made(tmp_path / "p", {"none": 0}, seeds=1, tasks=("tatoeba",))) is None
