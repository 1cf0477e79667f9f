import dataclasses

import numpy as np
import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts import forms
from jxstilts.data import batching, packing
from jxstilts.data.batching import Plan
from jxstilts.data.features import Features, Texts
from jxstilts.runtime import InputError

LENGTHS = st.lists(st.integers(1, 64), max_size=120).map(lambda sizes: np.array(sizes, np.int32))
BUCKETS = (16, 32, 64)


def features(lengths, **fields):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Features(np.arange(100, 100 + offsets[-1], dtype=np.int32), offsets, fields)


def ids(plans):
    return [feature for plan in plans for row in plan.rows for feature in row]


# Plans.


def test_permutation_is_for_ever():
    """The order of data must not change with numpy or jxstilts: a change makes resumed runs differ."""
    assert batching.permutation(8, 0, 0).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert batching.permutation(8, 7, 3, 1).tolist() == [6, 5, 2, 4, 3, 0, 7, 1]
    assert sorted(batching.permutation(1000, 5, 1)) == list(range(1000))
    orders = {tuple(batching.permutation(20, *key)) for key in [(0, 0), (0, 1), (1, 0), (0, 0, 1), (0, 0, 0, 1)]}
    assert len(orders) == 5
    for key in ((-1, 0), (0, 0, 0, 0, 0)):
        with pytest.raises(InputError):
            batching.permutation(3, *key)


@given(st.integers(1, 600), st.integers(1, 64), st.integers(1, 8))
def test_length_buckets(max_length, multiple, count):
    buckets = batching.length_buckets(max_length, multiple=multiple, count=count)
    assert buckets[-1] == max_length and 1 <= len(buckets) <= count
    assert list(buckets) == sorted(set(buckets)) and all(bucket % multiple == 0 for bucket in buckets[:-1])


def test_usual_length_buckets():
    assert batching.length_buckets(128) == (32, 48, 64, 80, 96, 128)
    assert batching.length_buckets(384) == (32, 48, 80, 144, 240, 384)
    with pytest.raises(InputError):
        batching.length_buckets(0)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 6), st.integers(0, 3), st.integers(0, 3))
def test_plan_epoch(lengths, batch_size, sort_window, seed, epoch):
    options = {"batch_size": batch_size, "buckets": BUCKETS, "seed": seed, "sort_window": sort_window}
    plans = batching.plan_epoch(lengths, epoch=epoch, **options)
    assert sorted(ids(plans)) == list(range(len(lengths)))
    assert len(plans) == -(-len(lengths) // batch_size)
    assert all(len(row) == 1 for plan in plans for row in plan.rows)
    assert sum(len(plan.rows) < batch_size for plan in plans) <= 1
    for plan in plans:
        longest = max(lengths[row[0]] for row in plan.rows)
        assert plan.num_rows == batch_size and plan.length == min(b for b in BUCKETS if b >= longest)
    assert plans == batching.plan_epoch(lengths, epoch=epoch, **options)


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 6))
def test_windows_are_sorted_cut_and_shuffled(lengths, batch_size, window):
    options = {"batch_size": batch_size, "buckets": BUCKETS, "seed": 2, "epoch": 1, "sort_window": window}
    order, expected = batching.permutation(len(lengths), 2, 1).tolist(), []
    for begin in range(0, len(order), batch_size * window):
        part = sorted(order[begin : begin + batch_size * window], key=lambda i: lengths[i])
        expected += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    found = [ids([plan]) for plan in batching.plan_epoch(lengths, **options)]
    assert found == [expected[i] for i in batching.permutation(len(expected), 2, 1, 1)]


def test_seed_and_epoch_decide_the_order():
    lengths = np.random.default_rng(0).integers(1, 65, 200)
    for plan, options in (
        (batching.plan_epoch, {"batch_size": 10, "buckets": BUCKETS, "sort_window": 5}),
        (packing.plan_packed, {"num_rows": 4, "length": 128, "max_segments": 8}),
    ):
        orders = {tuple(ids(plan(lengths, seed=seed, epoch=epoch, **options))) for seed in (0, 1) for epoch in (0, 1)}
        assert len(orders) == 4


def test_sorting_inside_windows_saves_padding_and_keeps_batches_random():
    lengths = np.random.default_rng(0).integers(1, 65, 3000)
    plan = lambda window: batching.plan_epoch(  # noqa: E731
        lengths, batch_size=10, buckets=BUCKETS, seed=0, epoch=0, sort_window=window
    )
    assert batching.efficiency(plan(1), lengths) < 0.6 < 0.7 < batching.efficiency(plan(50), lengths)
    means = np.array([lengths[ids([batch])].mean() for batch in plan(50)])
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.15  # short and long batches alternate


def test_features_that_do_not_fit_are_named():
    lengths = np.array([10, 65])
    with pytest.raises(InputError, match="65 tokens, the longest row 64"):
        batching.plan_epoch(lengths, batch_size=2, buckets=BUCKETS, seed=0, epoch=0)
    with pytest.raises(InputError, match="65 tokens, a packed row 64"):
        packing.plan_evaluation(lengths, tokens_per_batch=99, max_length=64)
    with pytest.raises(InputError, match="65 tokens, a packed row 64"):
        packing.plan_packed(lengths, num_rows=2, length=64, max_segments=2, seed=0, epoch=0)


@pytest.mark.parametrize(
    "plan, options",
    [
        (batching.plan_epoch, {"batch_size": 0, "buckets": BUCKETS, "seed": 0, "epoch": 0}),
        (batching.plan_epoch, {"batch_size": 1, "buckets": BUCKETS, "seed": 0, "epoch": 0, "sort_window": 0}),
        (batching.plan_epoch, {"batch_size": 1, "buckets": BUCKETS, "seed": -1, "epoch": 0}),
        (packing.plan_packed, {"num_rows": 1, "length": 8, "max_segments": 0, "seed": 0, "epoch": 0}),
        (packing.plan_evaluation, {"tokens_per_batch": 0, "max_length": 8}),
    ],
)
def test_plans_refuse(plan, options):
    with pytest.raises(InputError):
        plan(np.array([3]), **options)


def test_select():
    plans = [Plan.of(((0, 2), (1,)), 8, 2)]
    assert batching.select(plans, np.array([7, 5, 7])) == [Plan.of(((7, 7), (5,)), 8, 2)]


def test_plans_are_equal_by_what_they_hold():
    plan = Plan.of(((0, 2), (), (1,)), 8, 4)
    assert (plan.ids.tolist(), plan.counts.tolist()) == ([0, 2, 1], [2, 0, 1]) and plan.rows == ((0, 2), (), (1,))
    assert plan == Plan.of([[0, 2], [], [1]], 8, 4)
    others = [(((0, 2), (1,)), 8, 4), (((0,), (2,), (1,)), 8, 4), (plan.rows, 9, 4), (plan.rows, 8, 3)]
    assert all(plan != Plan.of(*other) for other in others) and plan != plan.rows


# Units: what belongs in one row.


def choice_features(choices):
    lengths = np.random.default_rng(len(choices)).integers(1, 9, sum(choices))
    example = np.repeat(np.arange(len(choices)), choices).astype(np.int32)
    label = np.concatenate([[0] * (count - 1) + [1] for count in choices] or [[]]).astype(np.int32)
    return features(lengths, example=example, label=label)


@pytest.mark.parametrize("type", ["classification", "span", "tagging", "text"])
def test_a_unit_is_a_feature(type):
    source = features(np.array([3, 4, 5]), example=np.array([0, 0, 1], np.int32))
    groups = batching.groups(source, forms.get(type).fields)
    assert groups.dtype == np.int64 and groups.tolist() == [0, 1, 2, 3]
    plans = [Plan.of(((0, 2), (1,)), 8, 2)]
    assert batching.expand(plans, groups) == plans


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 5), max_size=30), st.integers(1, 4), st.booleans(), st.integers(0, 3))
def test_choices_of_a_question_stay_in_one_row(choices, num_rows, packed, seed):
    source = choice_features(choices)
    groups = batching.groups(source, forms.get("choice").fields)
    assert groups.dtype == np.int64 and groups.tolist() == [0, *np.cumsum(choices).tolist()]
    units = np.diff(source.offsets[groups])
    if packed:
        options = {"num_rows": num_rows, "length": 64, "max_segments": 3, "seed": seed, "epoch": 1}
        plans, segments = packing.plan_packed(units, **options), 3
    else:
        options = {"batch_size": num_rows, "buckets": BUCKETS, "seed": seed, "epoch": 1}
        plans, segments = batching.plan_epoch(units, **options), 1
    planned = [unit for plan in plans for row in plan.rows for unit in row]
    expanded = batching.expand(plans, groups)
    assert sorted(ids(expanded)) == list(range(len(source))) and sorted(planned) == list(range(len(choices)))
    for plan, before in zip(expanded, plans, strict=True):
        assert (plan.length, plan.num_rows, len(plan.rows)) == (before.length, before.num_rows, len(before.rows))
        batch = batching.assemble_plan(source, plan, **samples.as_batch("choice"), max_segments=5 * segments)
        assert batch["group"].dtype == batch["labels"].dtype == np.int32
        assert ((batch["group"] >= 0) == (batch["weights"] > 0)).all()
        for r, row in enumerate(before.rows):
            place = 0
            for number, unit in enumerate(row):
                for feature in range(groups[unit], groups[unit + 1]):
                    assert batch["index"][r, place] == feature and batch["group"][r, place] == number
                    assert batch["labels"][r, place] == source.fields["label"][feature]
                    place += 1
            assert (batch["group"][r, place:] == -1).all() and batch["labels"][r].sum() == len(row)


def test_a_question_twice_in_a_row_is_two_questions():
    source = choice_features((2, 1))
    shape = {**samples.as_batch("choice"), "length": 64, "num_rows": 2, "max_segments": 6}
    batch = batching.assemble(source, [[0, 1, 0, 1, 2, 2], [2, 0, 1]], **shape)
    assert batch["group"].tolist() == [[0, 0, 1, 1, 2, 3], [0, 1, 1, -1, -1, -1]]


@pytest.mark.parametrize("rows", [[[0]], [[1]], [[0, 1, 2], [1, 0]], [[2, 0], [1]], [[0, 1], [3]], [[4]]])
def test_a_row_with_some_of_a_questions_choices_is_refused(rows):
    source = choice_features((2, 1, 2))
    with pytest.raises(InputError, match=r"only some of the choices of question \d: plan questions"):
        batching.assemble(source, rows, **samples.as_batch("choice"), length=64, num_rows=2, max_segments=6)


def test_choices_need_no_labels():
    source = features(np.array([3, 4]), example=np.array([0, 0], np.int32))
    shape = {"length": 64, "num_rows": 1, "max_segments": 2}
    batch = batching.assemble(source, [[0, 1]], **samples.as_batch("choice", labelled=False), **shape)
    assert batch["group"].tolist() == [[0, 0]] and "labels" not in batch
    with pytest.raises(InputError, match="no gold labels"):
        batching.assemble(source, [[0, 1]], **samples.as_batch("choice"), **shape)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), max_size=4), max_size=5), st.integers(0, 2), st.data())
def test_tags_travel_with_their_tokens(sizes, more_rows, data):
    lengths = np.array([size for row in sizes for size in row], np.int64)
    plain = features(lengths, example=np.arange(len(lengths), dtype=np.int32))
    tag = np.arange(len(plain.tokens), dtype=np.int32) - 1
    source = dataclasses.replace(plain, token_fields={"tag": tag})
    order = iter(data.draw(st.permutations(range(len(lengths)))))
    rows = [[next(order) for _ in row] for row in sizes]
    shape = {**samples.as_batch("tagging"), "length": 40, "num_rows": len(sizes) + more_rows, "max_segments": 4}
    batch = batching.assemble(source, rows, **shape)
    assert batch["tags"].dtype == np.int32 and batch["tags"].shape == batch["tokens"].shape
    real = batch["segments"] > 0
    assert (batch["tags"][~real] == -1).all()
    assert (batch["tags"][real] == batch["tokens"][real] - 101).all()  # both count the source's tokens
    assert sorted(batch["tags"][real].tolist()) == tag.tolist()
    with pytest.raises(InputError, match="no field 'tag'"):
        batching.assemble(plain, rows, **shape)


# Arrays.


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), max_size=4), max_size=6), st.integers(0, 3), st.integers(0, 2), st.data())
def test_assemble_holds_each_feature_once(sizes, more_rows, more_segments, data):
    lengths = np.array([size for row in sizes for size in row], np.int64)
    label = np.arange(len(lengths), dtype=np.int32) + 1
    start = lengths // 2
    source = features(lengths, label=label, start=start.astype(np.int32), end=(lengths - 1).astype(np.int32))
    order = iter(data.draw(st.permutations(range(len(lengths)))))
    rows = [[next(order) for _ in row] for row in sizes]
    shape = {"length": 36, "num_rows": len(sizes) + more_rows, "max_segments": 4 + more_segments}
    if any(lengths[row].sum() > 36 for row in rows if row):
        with pytest.raises(InputError, match="does not fit the row length 36"):
            batching.assemble(source, rows, **samples.as_batch("text"), **shape)
        return
    batch = batching.assemble(source, rows, **samples.as_batch("classification"), **shape)
    spans = batching.assemble(source, rows, **samples.as_batch("span"), **shape)
    text = batching.assemble(source, rows, **samples.as_batch("text"), **shape)
    assert set(text) == {"tokens", "segments", "positions", "first", "weights", "index"}
    for name, array in batch.items():
        assert array.dtype == (np.float32 if name == "weights" else np.int32)
        inner = 36 if name in ("tokens", "segments", "positions") else 4 + more_segments
        assert array.shape == (shape["num_rows"], inner)

    filled = np.zeros(batch["tokens"].shape, bool)
    for r, row in enumerate(rows):
        at = 0
        for s, feature in enumerate(row):
            cells = slice(at, at + lengths[feature])
            own = source.tokens[source.offsets[feature] : source.offsets[feature + 1]]
            np.testing.assert_array_equal(batch["tokens"][r, cells], own)
            assert (batch["segments"][r, cells] == s + 1).all()
            np.testing.assert_array_equal(batch["positions"][r, cells], np.arange(lengths[feature]))
            assert (batch["first"][r, s], batch["index"][r, s], batch["weights"][r, s]) == (at, feature, 1)
            assert batch["labels"][r, s] == label[feature]
            assert spans["tokens"][r, spans["start"][r, s]] == own[start[feature]]
            assert spans["tokens"][r, spans["end"][r, s]] == own[-1]
            filled[r, cells] = True
            at += lengths[feature]
    assert (batch["tokens"][~filled] == 1).all()
    assert not batch["segments"][~filled].any() and not batch["positions"][~filled].any()
    empty = batch["weights"] == 0
    assert (~empty).sum() == len(lengths)
    assert (batch["index"][empty] == -1).all()
    assert not batch["first"][empty].any() and not batch["labels"][empty].any() and not spans["end"][empty].any()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.lists(st.integers(0, 19), max_size=4), max_size=5), max_size=5),
    st.sampled_from(forms.names()),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_batches_assembled_together_are_as_those_assembled_alone(batches, type, more_segments, random):
    """Of any shapes, some rows and batches empty, features in several batches; and nobody shares a cell."""
    lengths = np.random.default_rng(0).integers(1, 9, 20)
    numbers = np.arange(20, dtype=np.int32)
    source = features(lengths, example=numbers, label=numbers % 3, start=numbers * 0, end=lengths.astype(np.int32) - 1)
    texts = {"targets": Texts(source.tokens, source.offsets, (1, 1))}
    source = dataclasses.replace(source, token_fields={"tag": source.tokens % 7}, texts=texts)
    plans = [Plan.of(rows, random.randint(32, 40), len(rows) + random.randint(0, 2) or 1) for rows in batches]
    options = {**samples.as_batch(type), "max_segments": 4 + more_segments, "pad_id": 3}
    together = batching.assemble_plans(source, plans, **options)
    assert len(together) == len(plans)
    for plan, batch in zip(plans, together, strict=True):
        alone = batching.assemble_plan(source, plan, **options)
        assert list(batch) == list(alone)
        for name in batch:
            assert batch[name].dtype == alone[name].dtype
            np.testing.assert_array_equal(batch[name], alone[name])
    arrays = [array for batch in together for array in batch.values()]
    for array in arrays:
        array += 1
    expected = [array + 1 for plan in plans for array in batching.assemble_plan(source, plan, **options).values()]
    for array, other in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array, other)
    if plans:
        bad = Plan.of([[i] for i in range(6)], 40, 5)
        with pytest.raises(InputError, match="6 rows of up to 1 features do not fit a batch of 5 rows"):
            batching.assemble_plans(source, [*plans, bad], **options)
        with pytest.raises(InputError, match=f"a row of {lengths[0]} tokens does not fit the row length 0"):
            batching.assemble_plans(source, [*plans, Plan.of([[0]], 0, 1)], **options)


def test_assemble_without_labels_and_with_bad_arguments():
    source = features(np.array([3, 4]))
    shape = {"length": 8, "num_rows": 2, "max_segments": 1}
    batch = batching.assemble(source, [[0], [1]], **samples.as_batch("classification", labelled=False), **shape)
    assert "labels" not in batch
    with pytest.raises(InputError, match="no gold labels"):
        batching.assemble(source, [[0]], **samples.as_batch("classification"), **shape)
    for rows in ([[0, 1]], [[0], [1], [0]]):
        with pytest.raises(InputError, match="do not fit a batch of 2 rows of 1 segments"):
            batching.assemble(source, rows, **samples.as_batch("text"), **shape)


def test_batches_go_from_features_to_arrays():
    lengths = np.array([5, 20, 3, 40, 7])
    source = features(lengths)
    plans, segments = packing.plan_evaluation(lengths, tokens_per_batch=128, max_length=64)
    seen = {}
    for plan, batch in zip(
        plans, batching.batches(source, plans, **samples.as_batch("text"), max_segments=segments), strict=True
    ):
        assert batch["tokens"].shape == (plan.num_rows, plan.length)
        for row, slot in np.argwhere(batch["index"] >= 0):
            seen[batch["index"][row, slot]] = batch["tokens"][row][batch["segments"][row] == slot + 1]
    assert sorted(seen) == list(range(5))
    np.testing.assert_array_equal(np.concatenate([seen[i] for i in range(5)]), source.tokens)
