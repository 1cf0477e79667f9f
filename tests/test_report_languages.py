"""Comparisons in single languages: which test they are of, how they are corrected, how often they err."""

import numpy as np
import pytest
from scipy import stats
from test_comparisons import FEW, MNLI, NONE, XNLI, cells, made, notes

from jxstilts.eval import items
from jxstilts.report import contents, languages, resampling, statistics


def test_right_or_wrong_of_one_run_in_one_language_is_mcnemars_test(tmp_path):
    it = made(tmp_path, {"none": 0, "mnli": 0.1}, seeds=1, tasks=("xnli", "udpos"))
    xnli, udpos = it.found
    assert [each.test.kind for each in xnli.each] == ["McNemar"] * 3
    assert [each.test.kind for each in udpos.each] == ["randomisation"] * 2
    runs = [it.folder.of(arm, XNLI)[0].items(["de", "en", "sw"]) for arm in (MNLI, NONE)]
    for each in xnli.each:
        a, b = (run[each.language].columns["accuracy"] for run in runs)
        only = int((a > b).sum()), int((b > a).sum())
        assert each.test.p == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue)
        assert (each.test.n, each.test.differ) == (120, sum(only)) and each.low < each.value < each.high
        assert each.value == pytest.approx(100 * (a.mean() - b.mean()))
    assert "xnli: p by McNemar's exact test of two runs on n items" in notes(languages.languages(it, XNLI))


def test_many_languages_are_corrected_by_benjamini_hochberg(tmp_path):
    gains = {"none": 0, "mnli": 0.2, "hellaswag": 0}
    it = made(tmp_path, gains, tasks=("xnli", "tatoeba"), draws=500)
    for target in it.folder.targets:
        every = [each for one in it.found if one.target == target for each in one.each]
        assert len(every) == 2 * len(FEW[target.task])
        expected = stats.false_discovery_control([each.test.p for each in every])
        assert [each.adjusted for each in every] == pytest.approx(expected)
        assert {each.test.kind for each in every} == {"interval"}  # with several seeds
    table = languages.languages(it, XNLI)
    shown = cells(table)
    for one in it.found:
        for each in one.each if one.target == XNLI else ():
            text = shown[it.folder.strata.title(each.language)][f"small, {one.arm.intermediate}"].split("|")
            assert text[1] == contents.signed(each.value) + "*" * each.significant
    marked = sum("*" in cell for row in shown.values() for cell in row.values())
    assert marked == sum(each.significant for one in it.found if one.target == XNLI for each in one.each) > 0
    assert f"over the 6 comparisons of this table (3 languages x 2 arms); {marked} hold" in notes(table)
    records = languages.records(it)
    assert len(records) == 10 and records[0]["p_benjamini_hochberg"] == it.found[0].each[0].adjusted


def test_level_in_single_languages_on_data_without_an_effect():
    """Right or wrong items of equal systems: no test of one language errs more often than it may, nor does the
    correction over 8 languages and 2 arms.
    """
    rng = np.random.default_rng(0)
    single, seeds, any_single, any_seeds = [], [], [], []
    names, score = np.repeat(np.arange(8), 60), items.score("accuracy", ("accuracy",))
    where = {"languages": names, "clusters": np.tile(np.arange(60), 8), "score": score, "draws": 400}
    for _ in range(40):
        chance = np.tile(rng.uniform(0.1, 0.9, 60), 8)
        shifts = rng.normal(0, 0.04, (3, 3, 1))  # [systems, seeds]: a run is lucky in all languages
        base, *arms = ({"accuracy": (rng.random((3, 480)) < np.clip(chance + shift, 0, 1)) * 1.0} for shift in shifts)
        p = [
            [one.p for arm in arms for one in resampling.hierarchical_interval(
                arm, base, levels=("seeds", "items"), same_seeds=True, **where).each]
        ]  # fmt: skip
        alike = [{"accuracy": (rng.random((1, 480)) < chance) * 1.0} for _ in range(3)]
        p.append([one.p for arm in alike[1:] for one in resampling.randomisation(arm, alike[0], **where).each])
        for found, all_, any_ in zip(p, (seeds, single), (any_seeds, any_single), strict=True):
            all_ += [value < 0.05 for value in found]
            any_.append((statistics.benjamini_hochberg(found) < 0.05).any())
    assert 0.01 < np.mean(single) <= 0.055 and np.mean(seeds) <= 0.055
    assert np.mean(any_single) <= 0.1 and np.mean(any_seeds) <= 0.1
