"""Two study folders are compared: the same arms on the same items, the first study in the place of the baseline."""

import csv

import folders
import pytest
from folders import put, row

from jxstilts import cli
from jxstilts.report import against, folder
from jxstilts.report.folder import Arm
from jxstilts.runtime import InputError


def test_a_better_study_is_better(tmp_path, capsys):
    """The second has 20 points more in every language, on the same items."""
    for name, gains, tasks in (
        ("old", {"none": 0, "mnli": 0.05}, ("xnli",)),
        ("new", {"none": 0.2}, ("xnli", "tatoeba")),
    ):
        rows = folders.study(tmp_path / name, gains, tasks, seeds=1, n=60)
        put(tmp_path / name, *[one | {"study": name} for one in rows])
    assert cli.main(["report", str(tmp_path / "old"), str(tmp_path / "new"), "--draws=200"]) == 0
    out = capsys.readouterr().out
    root = tmp_path / "new/against/old/report"
    assert out.startswith("# new against old\n") and f"the whole report: {root}/index.html" in out
    assert "Only in old, so not shown: " in out and "mnli on xnli" in out and "Only in new" in out
    (found,) = csv.DictReader((root / "tables/comparisons.csv").open())
    assert found["intermediate"] == "new" and float(found["difference"]) > 10
    assert float(found["low"]) > 0 and float(found["p_holm"]) < 0.05 and found["task"] == "xnli"
    text = (root / "index.html").read_text(encoding="utf-8")
    assert "Comparisons with old" in text and "The largest gain is +" in text and "the baseline in per cent" not in text


def test_what_cannot_be_compared(tmp_path):
    put(tmp_path / "a", row(), row(language="de"))
    put(tmp_path / "b", row(task="pawsx"), row(task="pawsx", language="de"))
    put(tmp_path / "c", row(), row(language="de"))
    (tmp_path / "c/strata.json").write_text('{"world": "mini", "high": ["de"]}')
    for other, text in (("a", "are the same folder"), ("b", "have no arm on a task and split"), ("c", "other worlds")):
        with pytest.raises(InputError, match=text):
            against.write(tmp_path / "a", tmp_path / other)


def test_studies_of_one_name_are_called_by_their_folders(tmp_path):
    for name in ("a", "b"):
        put(tmp_path / name, row(value=None, metric=""), row(), row(language="de"))
    both = against.join(*(folder.load(tmp_path / name) for name in ("a", "b")), tmp_path / "out")
    assert both.study == "b against a" and both.base == "a"
    assert {arm.intermediate for arm in both.arms} == {"a", "b"}
    assert both.baseline(Arm(both.arms[0].model, "b")) == both.arms[0]
