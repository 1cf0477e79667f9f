"""Ranking a pool: mean average precision, the search slab by slab, a stored pool that is stopped and goes on."""

import json

import jax
import numpy as np
import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts import forms
from jxstilts.data.candidates import Candidates
from jxstilts.eval import metrics, pool, ranking, retrieval
from jxstilts.eval.evaluator import Evaluator, Options
from jxstilts.models.heads.dual import DualSpec
from jxstilts.models.model import Model, make_config
from jxstilts.runtime import InputError


def restated(targets: set[int], ranked: list[int], k: int) -> float:
    """Average precision as XTREME-R's text has it: precision at each hit of the first k, over min(right ones, k)."""
    relevant = np.isin(ranked[:k], sorted(targets))
    precision = np.cumsum(relevant) / np.arange(1, len(relevant) + 1)
    return float((precision * relevant).sum() / min(len(targets), k))


def test_map_of_ten_thousand_random_rankings():
    rng = np.random.default_rng(0)
    ranked, gold = {}, {}
    for query in range(10_000):
        ranked[str(query)] = [f"en_{i}_0" for i in rng.permutation(60)[: rng.integers(0, 40)]]
        gold[str(query)] = {f"en_{i}_0" for i in rng.choice(60, rng.integers(1, 31), replace=False)}
    metric = metrics.get("map20")
    pairs = [(query, name) for query, names in gold.items() for name in names]
    state = metric.update(ranked, {"gold": pairs})
    for query, names in ranked.items():
        assert state["map20"][query] == pytest.approx(restated(gold[query], names, 20), abs=1e-12)
    mean = np.mean([restated(gold[query], names, 20) for query, names in ranked.items()])
    assert metric.compute(state)["map20"] == pytest.approx(100 * mean)


def test_mewslix_is_the_mean_reciprocal_rank_of_the_first_twenty():
    """The release's rule: cut at 20, the reciprocal of the place, 0 for a mention without a ranking."""
    gold = [("a", "Q1"), ("b", "Q2"), ("c", "Q3"), ("d", "Q4")]
    wrong = [f"Q{i}" for i in range(100, 130)]
    ranked = {"a": ["Q1", *wrong], "b": [*wrong[:3], "Q2"], "c": [*wrong[:20], "Q3"]}
    metric = metrics.get("mewslix", "de")
    assert metric.compute(metric.update(ranked, {"gold": gold}))["map20"] == pytest.approx(100 * (1 + 0.25) / 4)


def test_lareqa_without_the_answers_of_the_questions_language():
    gold = [("q", "de_1_0"), ("q", "en_1_0"), ("q", "tr_1_0")]
    ranked = {"q": ["en_1_0", "en_9_9", "de_1_0", "tr_1_0"]}
    metric = metrics.get("lareqa", "en")
    found = metric.compute(metric.update(ranked, {"gold": gold}))
    assert found["map20"] == pytest.approx(100 * (1 + 2 / 3 + 3 / 4) / 3)
    assert found["map20_cross"] == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    alone = metric.update(ranked, {"gold": gold[1:2]})
    assert set(metric.compute(alone)) == {"map20"}


def vectors(seed, count, width=8):
    """Few different values, so that many scores are equal."""
    return np.random.default_rng(seed).integers(-1, 2, (count, width)).astype(np.float32)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 90), st.integers(1, 40), st.integers(1, 8))
def test_slabs_change_nothing_and_the_lower_row_wins_ties(count, slab, k):
    queries, candidates = vectors(1, 5), vectors(2, count)
    scores, rows = ranking.ranked(queries, candidates.astype(np.float16), k, slab=slab, tile=64)
    products = queries @ candidates.T
    expected = np.argsort(-products, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(scores, np.take_along_axis(products, expected, 1))


def test_a_search_that_was_stopped_goes_on(tmp_path, monkeypatch):
    queries, candidates, record = vectors(1, 6), vectors(2, 100), tmp_path / "search.npz"
    whole = ranking.ranked(queries, candidates, 4, slab=16)
    searched, real = [], retrieval.nearest

    def nearest(queries, slab, *rest, **more):
        if len(searched) == 3:
            raise KeyboardInterrupt
        searched.append(slab)
        return real(queries, slab, *rest, **more)

    monkeypatch.setattr(retrieval, "nearest", nearest)
    with pytest.raises(KeyboardInterrupt):
        ranking.ranked(queries, candidates, 4, slab=16, record=record)
    monkeypatch.setattr(retrieval, "nearest", real)
    seen = []
    monkeypatch.setattr(
        retrieval, "nearest", lambda a, b, *rest, **more: (seen.append(len(b)), real(a, b, *rest, **more))[1]
    )
    again = ranking.ranked(queries, candidates, 4, slab=16, record=record)
    assert sum(seen) == 100 - 3 * 16  # what was searched before is not searched again
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="the record of another search"):
        ranking.ranked(queries[:3], candidates, 4, record=record)
    record.write_bytes(b"PK torn")
    with pytest.raises(InputError, match="not the record of a search"):
        ranking.ranked(queries, candidates, 4, record=record)


@pytest.fixture(scope="module")
def run():
    words = samples.word_tokenizer()
    model = Model(make_config("xlmr", "tiny", vocab_size=len(words)), (DualSpec("d", "dual", negatives=2),))
    params = jax.jit(model.init)(jax.random.key(0))
    options = Options(max_length=16).fit(forms.get("embedding"), model)
    return Evaluator(model, params, words, options)


def test_a_stored_pool_that_was_stopped_goes_on(run, tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    rows = [{"id": str(i), "text": " ".join(rng.choice(samples.WORDS, 4))} for i in range(50)]
    candidates, form, head = Candidates(rows), forms.get("embedding"), run.model.head_specs[0]
    whole = pool.vectors(run, head, form, candidates)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-5)
    place, real, made = pool.Place(tmp_path, "sha"), pool.predict.each, []

    def each(run, head, features, form):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(len(features))
        yield from real(run, head, features, form)

    monkeypatch.setattr(pool.predict, "each", each)
    with pytest.raises(KeyboardInterrupt):
        pool.vectors(run, head, form, candidates, place, block=16)
    [record] = tmp_path.glob("*.json")
    assert json.loads(record.read_text()) == {"rows": 32}
    made.clear()
    stored = pool.vectors(run, head, form, candidates, place, block=16)
    assert made == [16, 2] and stored.dtype == np.float16 and isinstance(stored, np.memmap)
    np.testing.assert_allclose(stored, whole, atol=1e-3)
    made.clear()
    np.testing.assert_array_equal(pool.vectors(run, head, form, candidates, place, block=16), stored)
    assert not made
    # other parameters, or another pool, have a place of their own
    pool.vectors(run, head, form, Candidates(rows[:9]), place)
    assert len(list(tmp_path.glob("*.npy"))) == 2
