"""Nearest neighbours and mining on the devices, against the full matrix, faiss and the rules in plain Python."""

import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts.eval import retrieval
from jxstilts.mesh import make_mesh
from jxstilts.runtime import InputError

ROOT = pathlib.Path(__file__).parent.parent


def brute_force(a, b, k):
    scores = a.astype(np.float64) @ b.T.astype(np.float64)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), order


def unit(rng, rows, width):
    return retrieval.normalise(rng.normal(size=(rows, width)).astype(np.float32))


def whole(seed, rows, width=4):
    """Small whole numbers: products are exact, and many of them equal."""
    return np.random.default_rng(seed).integers(-3, 4, (rows, width)).astype(np.float32)


def check(found, expected, exact=True):
    np.testing.assert_array_equal(found[1], expected[1])
    if exact:
        np.testing.assert_array_equal(found[0], expected[0])
    else:
        np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    assert found[0].dtype == np.float32 and found[1].dtype == np.int32


# --- neighbours ------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 50), st.integers(1, 60), st.sampled_from([1, 5, 16, 64])
)
def test_any_size_tile_and_k(seed, rows, others, k, tile):
    """With one sentence on a side, more neighbours than there are, tiles that divide nothing."""
    a, b = whole(seed, rows), whole(seed + 1, others)
    forward, backward = retrieval.nearest_both_ways(a, b, k, tile=tile)
    check(forward, brute_force(a, b, k))
    check(backward, brute_force(b, a, k))
    check(retrieval.nearest(a, b, k, tile=tile), brute_force(a, b, k))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([96, 128, 256, 512]))
def test_the_search_by_groups_keeps_ties_in_order(seed, k, tile):
    """Tiles of more than k groups, where most scores are equal."""
    a, b = whole(seed, 300, 2), whole(seed + 1, 500, 2)
    forward, backward = retrieval.nearest_both_ways(a, b, k, tile=tile)
    check(forward, brute_force(a, b, k))
    check(backward, brute_force(b, a, k))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([7, 32, 100, 512]), st.integers(1, 5))
def test_equal_vectors_come_in_order(seed, tile, distinct):
    """Rounded products of equal vectors are equal wherever in a tile they stand, so the lower row comes first."""
    rng = np.random.default_rng(seed)
    b = unit(rng, distinct, 33)
    kind = rng.integers(0, distinct, 200)
    queries = unit(rng, 9, 33)
    scores, ids = retrieval.nearest(queries, b[kind], 200, tile=tile)
    for query, row, mine in zip(queries, ids, scores, strict=True):
        ranks = np.argsort(-(b @ query), kind="stable")
        expected = np.concatenate([np.flatnonzero(kind == rank) for rank in ranks])
        np.testing.assert_array_equal(row, expected)
        assert len(set(mine.tolist())) == len(set(kind.tolist()))


@pytest.mark.parametrize("sizes", [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}])
@pytest.mark.parametrize(("rows", "others"), [(3, 70), (1000, 300)])
def test_eight_devices_find_what_one_finds(sizes, rows, others):
    a, b = whole(0, rows), whole(1, others)
    mesh = make_mesh(sizes)
    for mine, one, expected in zip(
        retrieval.nearest_both_ways(a, b, 4, tile=64, mesh=mesh),
        retrieval.nearest_both_ways(a, b, 4, tile=64),
        (brute_force(a, b, 4), brute_force(b, a, 4)),
        strict=True,
    ):
        check(one, expected)
        check(mine, expected)
    check(retrieval.nearest(a, b, 1, mesh=mesh), brute_force(a, b, 1))


def test_real_vectors_against_numpy_and_faiss():
    rng = np.random.default_rng(0)
    a, b = unit(rng, 700, 64), unit(rng, 900, 64)
    forward, backward = retrieval.nearest_both_ways(a, b, 4, tile=256)
    check(forward, brute_force(a, b, 4), exact=False)
    check(backward, brute_force(b, a, 4), exact=False)
    faiss = pytest.importorskip("faiss")
    for queries, index, found in ((a, b, forward), (b, a, backward)):
        other = faiss.IndexFlatIP(64)
        other.add(index)
        check(found, other.search(queries, 4), exact=False)


def test_bfloat16_products_are_near():
    rng = np.random.default_rng(0)
    a, b = unit(rng, 50, 64), unit(rng, 60, 64)
    scores, ids = retrieval.nearest(a, b, 1, dtype="bfloat16")
    np.testing.assert_allclose(scores, brute_force(a, b, 1)[0], atol=0.02)
    assert scores.dtype == np.float32 and not np.array_equal(scores, retrieval.nearest(a, b, 1)[0])
    assert (ids == brute_force(a, b, 1)[1]).mean() > 0.8


def test_an_empty_side_has_no_neighbours():
    for rows, others in ((0, 5), (5, 0), (0, 0)):
        (scores, ids), backward = retrieval.nearest_both_ways(whole(0, rows), whole(1, others), 2)
        assert scores.shape == ids.shape == (rows, 0) and backward[0].shape == (others, 0)
        assert retrieval.mine(whole(0, rows), whole(1, others)) == []


def test_the_similarity_matrix_never_exists():
    counts, tile = (4, 4), 128
    arguments = np.zeros(1, np.int32), np.zeros((1, tile, 8)), np.zeros((20, tile, 8))
    best = np.zeros((1, 20, tile, 4), np.float32), np.zeros((1, 20, tile, 4), np.int32)
    text = str(jax.make_jaxpr(retrieval._step, static_argnums=(0, 1, 2))(
        counts[0], None, "float32", *arguments, best, np.zeros(2, np.int32)
    ))  # fmt: skip
    assert f"{tile},{tile}]" in text and f"{tile},{20 * tile}]" not in text and f"{20},{tile},{tile}]" not in text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"k": 0}, "k=0 and tile=2048 must be at least 1"),
        ({"dtype": "bfloat"}, "did you mean 'bfloat16'"),
        ({"index": np.zeros((3, 5))}, "of width 4 and of width 5"),
        ({"index": np.zeros(4)}, r"shape \[N, D\], not \[4\]"),
        ({"index": np.full((3, 4), [[0], [np.nan], [np.inf]])}, "2 vectors are not finite, the first is row 1"),
    ],
)
def test_what_cannot_be_searched(change, text):
    with pytest.raises(InputError, match=text):
        retrieval.nearest(**{"queries": np.zeros((2, 4)), "index": np.zeros((3, 4)), "k": 1, **change})


# --- mining ----------------------------------------------------------------------------------------------------------


def mined_by_hand(a, b, k):
    """The rules of protocol 3.6, sentence by sentence."""
    a, b = (x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    cosine = [[float(x @ y) for y in b] for x in a]
    near_a = [sorted(range(len(b)), key=lambda j: (-cosine[i][j], j))[:k] for i in range(len(a))]
    near_b = [sorted(range(len(a)), key=lambda i: (-cosine[i][j], i))[:k] for j in range(len(b))]
    mean_a = [sum(cosine[i][j] for j in near) / len(near) for i, near in enumerate(near_a)]
    mean_b = [sum(cosine[i][j] for i in near) / len(near) for j, near in enumerate(near_b)]
    margin = lambda i, j: cosine[i][j] / ((mean_a[i] + mean_b[j]) / 2)  # noqa: E731
    found = {(i, max(near, key=lambda j: margin(i, j))) for i, near in enumerate(near_a)}
    found |= {(max(near, key=lambda i: margin(i, j)), j) for j, near in enumerate(near_b)}
    pairs = []
    for score, i, j in sorted((-margin(i, j), i, j) for i, j in found):
        if score < 0 and all(i != x and j != y for x, y, _ in pairs):
            pairs.append((i, j, -score))
    return pairs


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30), st.integers(1, 5))
def test_mining_equals_the_rules(seed, rows, others, k):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(rows, 12)), rng.normal(size=(others, 12))
    b[: min(rows, others) // 2] = a[: min(rows, others) // 2] + 0.3 * rng.normal(size=(min(rows, others) // 2, 12))
    a, b = (x.astype(np.float32) + 0.5 for x in (a, b))
    found, expected = retrieval.mine(a, b, k, tile=16), mined_by_hand(a, b, k)
    assert len({i for i, _, _ in found}) == len({j for _, j, _ in found}) == len(found)
    # of margins that are equal but for rounding either may come first
    assert sorted(pair[:2] for pair in found) == sorted(pair[:2] for pair in expected)
    np.testing.assert_allclose([pair[2] for pair in found], [pair[2] for pair in expected], rtol=1e-3)


def test_translations_are_mined_from_noise():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 32)), rng.normal(size=(300, 32))
    b[100:150] = a[:50] + 0.2 * rng.normal(size=(50, 32))
    assert [(i, j) for i, j, _ in sorted(retrieval.mine(a, b)[:50])] == [(i, 100 + i) for i in range(50)]


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ([], []),
        ([(0, 0, 0.0), (1, 1, -1.0)], []),  # only scores above 0
        ([(0, 0, 1.0), (0, 1, 2.0), (1, 1, 1.5), (1, 0, 0.5)], [(0, 1, 2.0), (1, 0, 0.5)]),
        ([(1, 0, 1.0), (0, 1, 1.0), (0, 0, 1.0), (0, 0, 1.0)], [(0, 0, 1.0)]),  # equal scores: lowest rows first
        ([(0, 0, 1.0), (0, 0, 1.0), (1, 1, 2.0)], [(1, 1, 2.0), (0, 0, 1.0)]),  # proposed from both sides
    ],
)
def test_greedy_extraction(candidates, expected):
    columns = list(zip(*candidates, strict=True)) or [[], [], []]
    assert retrieval.extract(columns[0], columns[1], np.array(columns[2])) == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(-1, 4))))
def test_greedy_extraction_takes_the_best_that_is_left(candidates):
    left = sorted({(-score, a, b) for a, b, score in candidates if score > 0})
    expected = []
    while left:
        score, a, b = left[0]
        expected.append((a, b, -score))
        left = [item for item in left if item[1] != a and item[2] != b]
    a, b, scores = zip(*candidates, strict=True) if candidates else ((), (), ())
    assert retrieval.extract(a, b, np.array(scores, np.float64)) == expected


def test_vectors_of_zeros_propose_nothing():
    a = np.zeros((3, 4), np.float32)
    assert retrieval.mine(a, a) == []
    np.testing.assert_array_equal(retrieval.ratio_margin(np.ones(2), np.array([1.0, 0.0]), np.zeros(2)), [2, 0])


# --- the benchmark against faiss -------------------------------------------------------------------------------------


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    platforms = jax.config.jax_platforms
    jax.devices()
    from benchmarks import retrieval as benchmark

    yield benchmark
    jax.config.update("jax_platforms", platforms)


def test_the_benchmark_compares_like_with_like(benchmark, tmp_path, capsys):
    pytest.importorskip("faiss")
    texts = {"zh": ["狐狸跑了", "国王看着塔", "国王看着塔"], "en": ["a king sees the tower", "nobody", "a fox runs"]}
    for language, lines in texts.items():
        path = tmp_path / f"xtreme/bucc2018/zh-en.dev.{language}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{language}-{i}\t{line}\n" for i, line in enumerate(lines)))
    (tmp_path / "xtreme/bucc2018/zh-en.dev.gold").write_text("zh-0\ten-2\nzh-1\ten-0\n")
    out = tmp_path / "result.json"
    assert benchmark.main(["--n=300", "--dim=64", f"--data_dir={tmp_path}", f"--out={out}", "--repetitions=2"]) == 0
    result = json.loads(out.read_text())
    assert set(result["ratio"]) == {"bucc", "synthetic"} and "faiss" in result["versions"]
    for name, shape in (("bucc", [2, 3, 64]), ("synthetic", [300, 300, 64])):
        problem = result["problems"][name]
        assert problem["shape"] == shape
        assert problem["same_neighbours"] == {"forward": 1, "backward": 1} and problem["same_pairs"] == 1
        assert problem["score_difference"] < 1e-5 and problem["pairs"]["faiss"] > 0
        assert result["ratio"][name] == problem["seconds"]["faiss"] / problem["seconds"]["jxstilts"] > 0
    assert result["problems"]["bucc"]["f1"]["faiss"] == result["problems"]["bucc"]["f1"]["jxstilts"]
    printed = capsys.readouterr().out
    assert "BUCC zh-en dev, 2 x 3 different texts" in printed and "100.0000% of the pairs" in printed


def test_what_the_benchmark_cannot_do_is_said(benchmark, monkeypatch, capsys):
    assert benchmark.main(["--n=0"]) == 2
    assert "give --data_dir for BUCC, or --n" in capsys.readouterr().err
    assert benchmark.main(["--k=0"]) == 2
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert benchmark.main(["--n=10"]) == 2
    assert "pip install faiss-cpu" in capsys.readouterr().err
