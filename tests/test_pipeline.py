import functools
import json
import sys
import threading

import numpy as np
import pytest
import samples

from jxstilts.data import batching, packing, pipeline
from jxstilts.data.features import Features
from jxstilts.runtime import InputError

LENGTHS = np.random.default_rng(0).integers(3, 33, 61)
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
FEATURES = Features(
    np.random.default_rng(1).integers(4, 90, OFFSETS[-1], dtype=np.int32),
    OFFSETS,
    {"label": np.arange(61, dtype=np.int32) % 3},
)
EPOCH = functools.partial(batching.plan_epoch, LENGTHS, batch_size=8, buckets=(16, 32), sort_window=2)
PACKED = functools.partial(packing.plan_packed, LENGTHS, num_rows=4, length=48, max_segments=5)


def source(packed=False, steps=25, seed=3):
    plan = PACKED if packed else EPOCH
    planner = lambda epoch: plan(seed=seed, epoch=epoch)  # noqa: E731
    return pipeline.BatchSource(
        FEATURES, planner, steps, **samples.as_batch("classification"), max_segments=5 if packed else 1
    )


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


@pytest.fixture(scope="module", params=[False, True], ids=["rows", "packed"])
def packed(request):
    return request.param


@pytest.fixture(scope="module")
def whole(packed):
    return list(pipeline.Batches(source(packed)))


def test_every_epoch_holds_each_feature_once(packed, whole):
    assert len(whole) == 25
    step = 0
    for epoch in (0, 1):
        plans = (PACKED if packed else EPOCH)(seed=3, epoch=epoch)
        seen = [batch["index"] for batch in whole[step : step + len(plans)]]
        step += len(plans)
        flat = np.concatenate([index.ravel() for index in seen])
        assert sorted(flat[flat >= 0]) == list(range(61))
    np.testing.assert_array_equal(
        whole[0]["labels"][whole[0]["index"] >= 0], whole[0]["index"][whole[0]["index"] >= 0] % 3
    )


@pytest.mark.parametrize("start", [0, 1, 7, 8, 9, 20, 24, 25])
def test_resuming_at_a_step_gives_the_same_batches(packed, whole, start):
    resumed = list(pipeline.Batches(source(packed), start_step=start))
    assert len(resumed) == 25 - start
    for batch, expected in zip(resumed, whole[start:], strict=True):
        assert_same(batch, expected)


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_state_round_trip(packed, whole, prefetch):
    iterator = pipeline.Batches(source(packed), start_step=2, prefetch=prefetch)
    for _ in range(9):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    assert_same(next(iterator), whole[11])
    assert_same(next(iterator), whole[12])
    iterator.set_state(state)
    assert_same(next(iterator), whole[11])
    other = pipeline.Batches(source(packed))
    other.set_state(state)
    for expected in whole[11:]:
        assert_same(next(other), expected)
    with pytest.raises(StopIteration):
        next(other)


def test_the_first_batch_does_not_wait_for_grain(packed, whole, monkeypatch):
    iterator = pipeline.Batches(source(packed), start_step=3)
    monkeypatch.setitem(sys.modules, "grain", None)  # not to be imported
    assert_same(next(iterator), whole[3])
    with pytest.raises(ImportError):
        next(iterator)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_share_the_global_batch(packed, whole, count):
    parts = [
        list(pipeline.Batches(source(packed), start_step=5, process_index=i, process_count=count)) for i in range(count)
    ]
    for step, expected in enumerate(whole[5:]):
        own = [part[step] for part in parts]
        assert_same({name: np.concatenate([batch[name] for batch in own]) for name in own[0]}, expected)


def test_steps_in_any_order(packed, whole):
    random_access = source(packed)
    for step in (24, 0, 9, 8, 17, 3):
        assert_same(random_access[step], whole[step])
    for step in (-1, 25):
        with pytest.raises(IndexError):
            random_access[step]


def test_the_seed_decides(packed, whole):
    other = source(packed, seed=4)[0]
    assert not np.array_equal(other["index"], whole[0]["index"])


class Planner:
    """Plans epochs, and says which and in which thread."""

    def __init__(self, bad=-1):
        self.bad, self.epochs, self.threads = bad, [], []

    def __call__(self, epoch):
        self.epochs.append(epoch)
        self.threads.append(threading.current_thread())
        if epoch == self.bad:
            raise InputError(f"epoch {epoch} is bad")
        return EPOCH(seed=3, epoch=epoch)


def test_the_next_epoch_is_planned_ahead():
    """Each once, in a thread of its own that ends with it, and none that the run does not reach."""
    planner = Planner()
    read = list(pipeline.Batches(pipeline.BatchSource(FEATURES, planner, 20, **samples.as_batch("text"))))
    steps = len(EPOCH(seed=3, epoch=0))
    assert (steps, len(read), planner.epochs) == (8, 20, [0, 1, 2])
    assert len(set(planner.threads)) == 3 and all(
        thread.name.startswith("plan-epoch") for thread in planner.threads[1:]
    )
    for thread in planner.threads[1:]:
        thread.join(10)
        assert not thread.is_alive()
    whole = Planner()
    pipeline.BatchSource(FEATURES, whole, 8, **samples.as_batch("text"))[7]
    assert whole.epochs == [0]
    late = Planner()
    assert pipeline.BatchSource(FEATURES, late, 48, **samples.as_batch("text"))[47]
    assert late.epochs == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]


def test_an_error_of_planning_ahead_comes_when_its_epoch_is_read():
    planner = Planner(bad=1)
    batches = pipeline.BatchSource(FEATURES, planner, 20, **samples.as_batch("text"))
    assert sorted(np.concatenate([batches[step]["index"].ravel() for step in range(8)]))[-61:] == list(range(61))
    for _ in range(2):
        with pytest.raises(InputError, match="epoch 1 is bad"):
            batches[8]
    assert planner.epochs[:2] == [0, 1]
    assert (batches[7]["index"] >= 0).any()


@pytest.mark.parametrize("limit", [1, 8 * 32 * 3, 10**6])
def test_any_number_of_batches_is_assembled_at_once(packed, whole, limit, monkeypatch):
    monkeypatch.setattr(pipeline, "BLOCK_TOKENS", limit)
    for batch, expected in zip(pipeline.Batches(source(packed)), whole, strict=True):
        assert_same(batch, expected)
        with pytest.raises(ValueError, match="read-only"):
            batch["tokens"][0] = 0


def test_refusals():
    with pytest.raises(InputError, match="8 rows cannot be shared by 3 processes"):
        list(pipeline.Batches(source(), process_count=3))
    with pytest.raises(InputError, match="start_step 26"):
        pipeline.Batches(source(), start_step=26)
    empty = pipeline.BatchSource(FEATURES, lambda epoch: [], 5, **samples.as_batch("text"))
    with pytest.raises(InputError, match="no features to train on"):
        list(pipeline.Batches(empty))
    assert list(pipeline.Batches(source(steps=0))) == []


# Mixtures of languages.

GROUPS = {"en": np.arange(0, 1000), "sw": np.arange(1000, 1100), "th": np.arange(1100, 1110)}
MIXED = np.concatenate([np.full(1000, 20), np.full(100, 10), np.full(10, 40)])


def test_language_probabilities():
    shares = pipeline.language_probabilities({"en": 10**9, "sw": 10**5, "xx": 0}, 0.3)
    assert shares["en"] / shares["sw"] == pytest.approx(10**1.2) and shares["xx"] == 0
    assert sum(shares.values()) == pytest.approx(1)
    assert pipeline.language_probabilities({"a": 3, "b": 1}, 1) == pytest.approx({"a": 0.75, "b": 0.25})
    assert pipeline.language_probabilities({"a": 3, "b": 1}, 0) == pytest.approx({"a": 0.5, "b": 0.5})
    with pytest.raises(InputError, match="no text"):
        pipeline.language_probabilities({"a": 0}, 0.3)


def test_mixture_gives_languages_their_share_of_the_tokens():
    shares = pipeline.language_probabilities({name: MIXED[group].sum() for name, group in GROUPS.items()}, 0.3)
    ids = pipeline.mixture_ids(GROUPS, MIXED, shares, seed=1, epoch=0)
    assert abs(len(ids) - 1110) <= 2
    tokens = {name: MIXED[ids[np.isin(ids, group)]].sum() for name, group in GROUPS.items()}
    for name, share in shares.items():
        assert tokens[name] / sum(tokens.values()) == pytest.approx(share, abs=0.02)


def test_mixture_passes_over_a_language_without_replacement():
    shares = {"en": 0.5, "sw": 0.3, "th": 0.2}
    draw = functools.partial(pipeline.mixture_ids, GROUPS, MIXED, shares, seed=1, count=700)
    epochs = [draw(epoch=epoch) for epoch in range(6)]
    for group in GROUPS.values():
        stream = np.concatenate([ids[np.isin(ids, group)] for ids in epochs])
        passes = len(stream) // len(group)
        assert passes >= 1
        for turn in range(passes):
            assert sorted(stream[turn * len(group) : (turn + 1) * len(group)]) == group.tolist()
        if passes > 1:
            assert not np.array_equal(stream[: len(group)], stream[len(group) : 2 * len(group)])
    for epoch in (5, 0, 3):
        np.testing.assert_array_equal(draw(epoch=epoch), epochs[epoch])


def test_mixture_without_text():
    with pytest.raises(InputError, match="no text to sample from in: xx"):
        pipeline.mixture_ids({"xx": np.arange(0)}, MIXED, {"xx": 1.0}, seed=0, epoch=0)
    with pytest.raises(InputError, match="any language"):
        pipeline.mixture_ids({"en": np.arange(3)}, MIXED, {"en": 0.0}, seed=0, epoch=0)
    ids = pipeline.mixture_ids({"en": np.arange(3), "xx": np.arange(0)}, MIXED, {"en": 1.0, "xx": 0.0}, seed=0, epoch=0)
    assert sorted(ids) == [0, 1, 2]


def test_plan_mixture_packs_the_drawn_features():
    shares = {"en": 0.4, "sw": 0.3, "th": 0.3}
    options = {"num_rows": 4, "length": 80, "max_segments": 8, "seed": 2, "epoch": 1, "count": 300}
    plans = pipeline.plan_mixture(GROUPS, MIXED, shares, **options)
    drawn = sorted(feature for plan in plans for row in plan.rows for feature in row)
    assert drawn == sorted(pipeline.mixture_ids(GROUPS, MIXED, shares, seed=2, epoch=1, count=300).tolist())
    assert all(MIXED[list(row)].sum() <= 80 for plan in plans for row in plan.rows)
    assert plans == pipeline.plan_mixture(GROUPS, MIXED, shares, **options)
