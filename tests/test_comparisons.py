"""The statistics of a study folder, wired: planted differences are found, null ones not, what is missing is named."""

import json

import folders
import numpy as np
import pytest
from folders import put, row

from jxstilts import tasks as known
from jxstilts.report import comparisons, contents, folder, resampling, transfer
from jxstilts.report import table as tables
from jxstilts.report.folder import Arm, Target
from jxstilts.report.overview import lines as summary
from jxstilts.runtime import InputError

XNLI = Target("xnli", "dev")
NONE, MNLI = Arm("small", "none"), Arm("small", "mnli")
FEW = {"xnli": ["en", "de", "sw"], "tatoeba": ["de", "fi"], "xquad": ["en", "de"], "udpos": ["en", "fi"]}


def made(path, gains, draws=2000, change=lambda rows: rows, **how):
    """The study folder with these gains, as the report reads it; `change` is made to its rows."""
    rows = folders.study(path, gains, **{"languages": FEW, **how})
    put(path, *change(rows))
    return contents.study(path, draws, lambda done, total: None)


def cells(table):
    """{row heading: {column: text}}; of a cell with marks "text|small|mark"."""
    show = lambda cell: cell if isinstance(cell, str) else f"{cell.text}|{cell.small}|{cell.mark}"  # noqa: E731
    return {show(cells[0]): dict(zip(table.header[1:], map(show, cells[1:]), strict=True)) for cells in table.body}


def notes(table):
    return "\n".join(table.notes)


# --- differences and intervals ---------------------------------------------------------------------------------------


def test_a_planted_difference_is_found_and_a_null_one_is_not(tmp_path):
    gains, tasks = {"none": 0, "mnli": 0.15, "hellaswag": 0}, ("xnli", "xquad", "tatoeba")
    it = made(tmp_path, gains, tasks=tasks, n=250, languages=folders.LANGUAGES)
    by_arm = {}
    for one in it.found:
        by_arm.setdefault(one.arm.intermediate, []).append(one)
    assert len(by_arm["mnli"]) == len(by_arm["hellaswag"]) == 4  # xquad has F1 and EM
    assert all(one.significant and one.estimate.low > 0 for one in by_arm["mnli"])
    assert not any(one.significant for one in by_arm["hellaswag"])
    assert {one.covers for one in it.found} == {("seeds", "languages", "items")}
    assert [(one.arm.intermediate, one.significant) for one in it.means] == [("mnli", True), ("hellaswag", False)]
    rows = contents.details(it).body
    assert [cells[0] for cells in rows if len(cells) == 1] == [
        "xnli accuracy", "xquad F1", "xquad EM", "tatoeba accuracy", "mean of tasks"
    ]  # fmt: skip
    assert [cells[0] for cells in rows if len(cells) > 1] == ["mnli", "hellaswag"] * 5
    mean = it.means[0]
    scores = [
        np.mean([one.value for one in by_arm["mnli"] if one.target.task == task])
        for task in ("xnli", "xquad", "tatoeba")
    ]
    assert mean.value == pytest.approx(np.mean(scores)) and mean.estimate.low < mean.value < mean.estimate.high


def test_differences_are_those_of_the_rows(tmp_path):
    it = made(tmp_path, {"none": 0, "mnli": 0.1}, tasks=("xnli", "udpos"), draws=50)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    for one in it.found:
        mean = {
            what: np.mean([r["value"] for r in rows if (r["intermediate"], r["task"], r["metric"]) == (what, *key)])
            for what, key in ((what, (one.target.task, one.metrics[0])) for what in ("none", "mnli"))
        }
        assert one.value == pytest.approx(mean["mnli"] - mean["none"]) == pytest.approx(one.estimate.value)


def test_p_values_are_corrected_over_the_whole_table(tmp_path):
    it = made(tmp_path, {"none": 0, "mnli": 0.1, "hellaswag": 0.03}, tasks=("xnli", "tatoeba"), draws=500)
    both = [*it.found, *it.means]
    p = sorted(one.test.p for one in both)
    smallest = min(both, key=lambda one: one.test.p)
    assert len(both) == 6 and smallest.adjusted == pytest.approx(min(1, 6 * p[0]))
    assert max(one.adjusted for one in both) >= p[-1]


def test_one_seed_gives_the_paired_bootstrap_over_items(tmp_path):
    it = made(tmp_path, {"none": 0, "mnli": 0.1}, seeds=1)
    (one,) = it.found
    assert one.covers == ("items",) and one.estimate is one.fixed and one.student is None
    runs = [it.folder.of(arm, XNLI)[0].items(["de", "en", "sw"]) for arm in (MNLI, NONE)]
    a, b = ([run[code].columns["accuracy"] for code in ("de", "en", "sw")] for run in runs)
    clusters = np.concatenate([run.ids for run in runs[0].values()])
    same = resampling.paired_bootstrap(
        100 * np.concatenate(a), 100 * np.concatenate(b),
        clusters=clusters, languages=np.repeat(["de", "en", "sw"], 120), draws=2000,
    )  # fmt: skip
    assert (one.estimate.low, one.estimate.high) == pytest.approx((same.low, same.high))
    assert one.estimate.clusters == 120  # a sentence is one cluster in its three languages
    assert "one run of each arm says nothing of other seeds" in notes(contents.headline(it))
    exchanged = resampling.randomisation(
        np.concatenate(a), np.concatenate(b), clusters=clusters, languages=np.repeat(["de", "en", "sw"], 120),
        draws=2000,
    )  # fmt: skip
    assert one.test == comparisons.Test("randomisation", exchanged.p, 120, exchanged.n)
    assert "xnli: p by approximate randomisation of n clusters" in notes(contents.headline(it))
    assert "(n = 120)" in notes(contents.headline(it))


def test_items_of_unrelated_files_are_clusters_of_their_own_but_not_in_a_world(tmp_path):
    it = made(tmp_path, {"none": 0, "mnli": 0.1}, tasks=("tatoeba",), draws=50)
    assert it.found[0].estimate.clusters == 240
    (tmp_path / "strata.json").write_text(json.dumps({"world": "w", "high": ["de"], "low": ["fi"]}))
    it = contents.study(tmp_path, 50, lambda done, total: None)
    assert it.found[0].estimate.clusters == 120


def test_intervals_are_kept_and_found_again(tmp_path, monkeypatch):
    first = made(tmp_path, {"none": 0, "mnli": 0.1}, draws=300)
    store = tmp_path / "report/estimates"
    assert len(list(store.iterdir())) == 2  # with and without other languages
    assert first.found[0].each
    monkeypatch.setattr(resampling, "_estimate", None)  # nothing is drawn again
    again = contents.study(tmp_path, 300, lambda done, total: None)
    assert again.found == first.found and again.found[0].adjusted == first.found[0].adjusted
    monkeypatch.undo()
    contents.study(tmp_path, 301, lambda done, total: None)
    assert len(list(store.iterdir())) == 2  # the others are of no use any more


# --- what is missing -------------------------------------------------------------------------------------------------


def test_a_missing_seed_is_named(tmp_path):
    it = made(
        tmp_path, {"none": 0, "mnli": 0.1}, draws=50,
        change=lambda rows: [r for r in rows if (r["intermediate"], r["seed"]) != ("mnli", 1)],
    )  # fmt: skip
    (one,) = it.found
    assert (one.seeds, one.others, one.student) == ((0, 2), (0, 1, 2), None)
    assert one.notes == ("mnli has no seed 1",)
    assert "Missing: small, mnli on xnli: mnli has no seed 1" in notes(contents.headline(it))


def test_a_run_that_is_not_whole_is_named_and_not_counted(tmp_path):
    it = made(
        tmp_path, {"none": 0, "mnli": 0.1}, draws=50,
        change=lambda rows: [
            r for r in rows if r["intermediate"] != "mnli" or r["seed"] != 2 or r["language"] == "en"
        ],
    )  # fmt: skip
    (one,) = it.found
    assert one.seeds == (0, 1) and one.languages == ("en", "de", "sw")
    assert one.notes == ("mnli, seed 2: 1 of 3 languages, not counted", "mnli has no seed 2")


def test_languages_that_only_one_arm_has_are_left_out(tmp_path):
    it = made(
        tmp_path, {"none": 0, "mnli": 0.1}, draws=50,
        change=lambda rows: [r for r in rows if (r["intermediate"], r["language"]) != ("mnli", "sw")],
    )  # fmt: skip
    (one,) = it.found
    assert one.languages == ("en", "de") and one.notes == ("on the 2 of 3 languages that both have",)


def test_a_baseline_that_is_one_model_is_taken_as_it_is(tmp_path):
    """Retrieval before any training: there is one model, whatever the seed."""
    it = made(
        tmp_path, {"none": 0, "mnli": 0.1}, tasks=("tatoeba",), draws=200,
        change=lambda rows: [r for r in rows if r["intermediate"] != "none" or r["seed"] == 0],
    )  # fmt: skip
    (one,) = it.found
    assert one.notes == () and one.covers == ("seeds", "languages", "items")
    assert one.estimate.value == pytest.approx(one.value)


def test_without_items_there_are_differences_and_no_intervals(tmp_path):
    rows = folders.study(tmp_path, {"none": 0, "mnli": 0.1}, languages=FEW)
    stale = [{**r, "checkpoint_sha256": "an0ther"} if r["intermediate"] == "mnli" else r for r in rows]
    it = contents.study(put(tmp_path, *stale), 50, lambda done, total: None)
    (one,) = it.found
    assert one.estimate is None and one.adjusted is None and one.value > 0
    assert one.notes == ("no interval: the items of some runs are not kept; run the study again",)
    wrong = [{**r, "value": r["value"] + (r["intermediate"] == "mnli")} for r in rows]
    it = contents.study(put(tmp_path, *wrong), 50, lambda done, total: None)
    assert it.found[0].notes == ("no interval: the kept items do not give the values of the rows; run the study again",)


def test_other_rows_in_two_arms_are_not_compared_item_by_item(tmp_path):
    a = folders.study(tmp_path, {"none": 0}, languages=FEW)
    b = folders.study(tmp_path, {"mnli": 0}, languages=FEW, n=100)
    it = contents.study(put(tmp_path, *a, *b), 50, lambda done, total: None)
    assert it.found[0].notes == ("no interval: the two were not evaluated on the same examples",)


def test_a_second_evaluation_of_one_run_is_named(tmp_path):
    rows = [row(), row(evaluation="again", value=90.0), row(language="de", evaluation="again", value=40.0)]
    found = folder.load(put(tmp_path, *rows))
    assert found.twice == ["again (xnli dev)"]
    assert found.of(NONE, XNLI)[0].scores(("accuracy",)) == {"en": 50.0, "de": 40.0}


# --- tables ----------------------------------------------------------------------------------------------------------


def three():
    """Two seeds of two arms in English, German (high), Turkish (high) and Swahili (low): exact numbers."""
    values = {("none", 0): (60, 50, 40, 30), ("none", 1): (62, 52, 42, 32),
              ("mnli", 0): (70, 55, 45, 31), ("mnli", 1): (72, 57, 47, 33)}  # fmt: skip
    return [
        row(intermediate=what, seed=seed, language=language, value=float(value), checkpoint_sha256=f"{what}{seed}",
            phase=f"{what}-{seed}")
        for (what, seed), own in values.items()
        for language, value in zip(("en", "de", "tr", "sw"), own, strict=True)
    ]  # fmt: skip


def test_headline_without_items(tmp_path):
    it = contents.study(put(tmp_path, *three()), 50, lambda done, total: None)
    assert cells(contents.headline(it)) == {
        "none": {"xnli accuracy": "46.0||"},
        "mnli": {"xnli accuracy": "+5.2|no interval|"},  # 51.25 - 46
        "trivial rule": {"xnli accuracy": "33.3"},
    }
    assert contents.headline(it).body[1][1].bold and not contents.headline(it).body[0][1].bold


def test_headline_marks_what_holds(tmp_path):
    it = made(tmp_path, {"none": 0, "mnli": 0.15, "hellaswag": -0.02}, n=250)
    table = contents.headline(it)
    found = cells(table)
    one = next(one for one in it.found if one.arm == MNLI)
    interval = f"{one.estimate.low:+.1f} to {one.estimate.high:+.1f}"
    assert found["mnli"]["xnli accuracy"] == f"{one.value:+.1f}|{interval}|*"
    assert found["hellaswag"]["xnli accuracy"].endswith("|")
    assert "corrected by Holm over the 2 comparisons of this table; 1 hold." in notes(table)


def test_seeds_and_transfer(tmp_path):
    it = contents.study(put(tmp_path, *three()), 50, lambda done, total: None)
    heading, none, mnli = contents.seeds(it).body
    half = 12.706 * np.sqrt(2) / np.sqrt(2)  # Student's t with one degree of freedom, sd sqrt(2), two runs
    interval = f"{46 - half:.2f} to {46 + half:.2f}"
    assert heading == ["xnli accuracy"] and none == ["none", "46.00", "1.41", "2", interval, "-", "0"]
    assert mnli[1:4] == ["51.25", "1.41", "2"] and mnli[5] == "+5.25 to +5.25"  # both seeds gain as much
    table = transfer.transfer(it)
    assert table.header[1:] == [
        "English", "others", "gap", "relative", "change of gap", "high (n)", "mid (n)", "low (n)"
    ]  # fmt: skip
    assert table.body[0] == ["xnli accuracy"]
    assert table.body[1] == ["none", "61.0", "41.0", "20.0", "33 %", "-", "46.0 (2)", "-", "31.0 (1)"]
    assert table.body[2] == ["mnli", "71.0", "44.7", "26.3", "37 %", "+6.3", "51.0 (2)", "-", "32.0 (1)"]
    distances = transfer.distance(it)
    assert [cells[:2] for cells in distances.body] == [["xnli accuracy"], ["none", "value"], ["mnli", "difference"]]
    far = [known.languages.get(code).distance for code in ("de", "tr", "sw")]
    assert distances.body[1][2] == f"{np.corrcoef(far, [51, 41, 31])[0, 1]:.2f}".replace("-", "−") == "−0.90"
    assert distances.body[1][4] == "−1.00"


def test_a_world_has_strata_of_its_own(tmp_path):
    put(tmp_path, *three())
    (tmp_path / "strata.json").write_text(json.dumps({"world": "miniworld small", "high": ["en", "sw"], "low": ["tr"]}))
    it = contents.study(tmp_path, 50, lambda done, total: None)
    table = transfer.transfer(it)
    assert table.header[-2:] == ["high (n)", "low (n)"] and table.body[1][-2:] == ["31.0 (1)", "41.0 (1)"]
    assert "Strata of the languages of miniworld small" in notes(table)
    assert transfer.distance(it) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"world": "w"}', '{"high": ["de"]}', '{"world": "w", "high": "de"}'])
def test_bad_strata(tmp_path, text):
    put(tmp_path, row())
    (tmp_path / "strata.json").write_text(text)
    with pytest.raises(InputError, match=r"strata\.json"):
        folder.load(tmp_path)


def test_collapsed_runs_are_flagged_and_counted(tmp_path):
    rows = [
        row(intermediate=what, seed=seed, language=language, value=value, checkpoint_sha256=f"{what}{seed}",
            evaluation=f"{what}{seed}", phase=f"{what}{seed}")
        for what, seed, value in (("none", 0, 60.0), ("none", 1, 61.0), ("mnli", 0, 36.0), ("mnli", 1, 70.0))
        for language in ("en", "de")
    ]  # fmt: skip
    said = tmp_path / "predictions/none1/xnli/dev-en.tsv"
    said.parent.mkdir(parents=True)
    said.write_text("neutral\n" * 5)
    it = contents.study(put(tmp_path, *rows), 50, lambda done, total: None)
    assert it.collapsed == {(MNLI, XNLI, 0): ("baseline",), (NONE, XNLI, 1): ("constant",)}
    table = contents.headline(it)
    assert cells(table)["none"]["xnli accuracy"] == "60.5||†"
    assert cells(table)["mnli"]["xnli accuracy"] == "−7.5|no interval|†"
    assert "† 2 collapsed runs are counted in" in notes(table)
    assert [cells[:3] for cells in contents.fallen(it).body] == [["none", "xnli", "1"], ["mnli", "xnli", "0"]]
    assert [cells[-1] for cells in contents.seeds(it).body] == ["xnli accuracy", "1", "1"]


@pytest.mark.parametrize(
    ("languages", "task", "baseline", "trained", "shown", "judges"),
    [
        (("de", "sw"), "xnli", 33.3, None, "collapsed", ("de", "sw")),
        (("de", "sw"), "tatoeba", 0.1, None, "", ("de", "sw")),
        (("de", "sw"), "bucc2018", None, None, "not judged", ("de", "sw")),
        (("en", "de"), "xnli", 33.3, ("de",), "collapsed", ("de",)),
        (("en", "de"), "xnli", None, None, "not judged", ("en", "de")),
    ],
)
def test_without_english_a_run_is_judged_by_what_there_is(tmp_path, languages, task, baseline, trained, shown, judges):
    metric = "f1" if task == "bucc2018" else "accuracy"
    put(tmp_path, *(row(task=task, language=code, value=34.0, baseline=baseline, metric=metric, phase="p", n=200)
                    for code in languages))  # fmt: skip
    if trained:
        folders.phase(tmp_path, "p", done=False)
        path = tmp_path / "phases/p/config.json"
        config = json.loads(path.read_text())
        config["phase"]["tasks"]["mnli"]["languages"] = list(trained)
        path.write_text(json.dumps(config))
        (tmp_path / "phases/p/DONE").write_text(json.dumps({"steps": 1, "best": None, "checkpoint_sha256": "c0ffee"}))
    it = contents.study(tmp_path, 50, lambda done, total: None)
    key = (NONE, Target(task, "dev"), 0)
    label = "collapsed" if key in it.collapsed else "not judged" if key in it.collapse.open else ""
    assert (label, it.collapse.languages[key]) == (shown, judges)
    mark = {"collapsed": "†", "not judged": "", "": ""}[shown]
    assert contents.headline(it).body[0][1].mark == mark
    assert contents.seeds(it).body[1][-1] == {"collapsed": "1", "not judged": "?", "": "0"}[shown]
    page, text = "\n".join(summary(it)), tables.text(it.folder)
    wanted = {"collapsed": f"no better than a trivial rule ({' '.join(judges)})", "": "",
              "not judged": "Whether a run collapsed could not be judged: "}[shown]  # fmt: skip
    assert wanted in text and (not shown or "ollapsed" in page) and (shown or "ollapsed" not in text + page)
    assert (contents.fallen(it) is None) == (not shown)
    assert {record["collapsed"] for record in contents.value_records(it)} == {
        {"collapsed": "baseline"}.get(shown, shown)
    }


@pytest.mark.parametrize(("said", "reasons"), [("neutral\n" * 5, ("constant",)), ("neutral\nentailment\n", None)])
def test_without_gold_predictions_are_all_there_is(tmp_path, said, reasons):
    bare = {"value": None, "metric": "", "low": None, "high": None, "baseline": None, "split": "test"}
    put(tmp_path, row(), row(language="de"), *(row(language=code, **bare) for code in ("en", "de")))
    for code in ("en", "de"):
        path = tmp_path / f"predictions/e/xnli/test-{code}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(said)
    it = contents.study(tmp_path, 50, lambda done, total: None)
    key = (NONE, Target("xnli", "test"), 0)
    assert it.collapsed.get(key) == reasons
    text = "\n".join([tables.text(it.folder), *summary(it), notes(contents.headline(it))])
    assert text.count("could not be judged: xnli test (no gold labels)") == (0 if reasons else 3)
    assert [cells[-1] for cells in contents.fallen(it).body] == [
        "one and the same prediction for every item" if reasons else "not judged: no gold labels"
    ]


def test_a_model_without_baseline_shows_values(tmp_path):
    rows = [{**r, "intermediate": r["intermediate"].replace("none", "qqp")} for r in three()]
    it = contents.study(put(tmp_path, *rows), 50, lambda done, total: None)
    assert it.found == [] and cells(contents.headline(it))["mnli"] == {"xnli accuracy": "51.2|absolute|"}
    assert "small has no arm 'none'" in notes(contents.headline(it))


def test_mean_over_tasks_is_that_of_their_scores(tmp_path):
    """Of questions the score is the mean of F1 and exact match."""
    rows = three() + [
        row(task="xquad", split="test", metric=metric, value=value, language=language, seed=seed, intermediate=what,
            baseline=None, phase="q")
        for what, seed in (("none", 0), ("none", 1), ("mnli", 0), ("mnli", 1))
        for language in ("en", "de")
        for metric, value in (("f1", 40.0), ("exact_match", 20.0 + 10 * (what == "mnli")))
    ]  # fmt: skip
    it = contents.study(put(tmp_path, *rows), 50, lambda done, total: None)
    found = cells(contents.headline(it))
    assert found["none"]["mean of tasks"] == "38.0||"  # (46 + 30) / 2
    assert found["mnli"]["mean of tasks"] == "+5.1|no interval|"  # (5.25 + 5) / 2
    assert found["mnli"]["xquad EM"] == "+10.0|no interval|" and found["mnli"]["xquad F1"] == "0.0|no interval|"


def test_records_hold_every_number(tmp_path):
    it = made(tmp_path, {"none": 0, "mnli": 0.1}, draws=100)
    values = contents.value_records(it)
    assert len(values) == 2 * 3 * 3 and {record["language"] for record in values} == {"en", "de", "sw"}
    (record,) = contents.comparison_records(it)
    one = it.found[0]
    assert (record["difference"], record["low"], record["p_holm"]) == (one.value, one.estimate.low, one.adjusted)
    assert (
        record["low_seeds"] == one.student.low and record["seeds"] == "0 1 2" and record["covers"].startswith("seeds")
    )


def test_metrics_of_a_target():
    metrics = {
        "xquad": ("f1", "exact_match"), "udpos": ("f1",), "xnli": ("accuracy",), "bucc2018": ("f1",),
        "qqp": ("accuracy", "f1"), "squad_v2": ("f1", "exact_match"), "ccg": ("accuracy",), "mnli": ("accuracy",),
    }  # fmt: skip
    assert {task: Target(task, "dev").metrics for task in metrics} == metrics


def test_no_baseline_no_comparison(tmp_path):
    assert comparisons.compare(folder.load(put(tmp_path, row(), row(language="de")))) == ([], [])
