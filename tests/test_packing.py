"""Packed training batches: the same examples in each step, the same loss and gradients for every head."""

import dataclasses
import functools
import pathlib
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts import forms, miniworld, runtime, tracking
from jxstilts.data import batching, packing
from jxstilts.data.features import Features
from jxstilts.data.ragged import offsets_of
from jxstilts.mesh import make_mesh, put_batch
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError
from jxstilts.train import inputs, mixture, objectives, optimizer, step
from jxstilts.train import phase as phases
from jxstilts.train.objectives import mlm

LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=150).map(lambda sizes: np.array(sizes, np.int64))
STREAM = st.lists(st.integers(1, 64), max_size=120).map(lambda sizes: np.array(sizes, np.int64))
FLAT = {"cost": lambda length: 1.0}  # tokens alone count


def apart(lengths, batch_size, seed=0, epoch=0):
    longest = 16 * -(-int(lengths.max()) // 16)
    return batching.plan_epoch(lengths, batch_size=batch_size, buckets=(longest,), seed=seed, epoch=epoch)


def assert_each_once(plans, count):
    assert sorted(feature for plan in plans for feature in examples(plan)) == list(range(count))


def examples(plan):
    return sorted(feature for row in plan.rows for feature in row)


# Whole streams.


@settings(max_examples=60, deadline=None)
@given(STREAM, st.integers(1, 5), st.integers(1, 6), st.integers(0, 3))
def test_plan_packed(lengths, num_rows, max_segments, seed):
    options = {"num_rows": num_rows, "length": 64, "max_segments": max_segments, "seed": seed}
    plans = packing.plan_packed(lengths, epoch=0, **options)
    assert_each_once(plans, len(lengths))
    for plan in plans:
        assert plan.length == 64 and plan.num_rows == num_rows and 1 <= len(plan.rows) <= num_rows
        assert all(1 <= len(row) <= max_segments and lengths[list(row)].sum() <= 64 for row in plan.rows)
    assert all(len(plan.rows) == num_rows for plan in plans[:-1])
    assert plans == packing.plan_packed(lengths, epoch=0, **options)


def test_packing_fills_rows():
    lengths = np.random.default_rng(0).integers(5, 60, 5000)
    options = {"num_rows": 8, "length": 128, "seed": 0, "epoch": 0}
    assert batching.efficiency(packing.plan_packed(lengths, max_segments=16, **options), lengths) > 0.98
    one = packing.plan_packed(lengths, max_segments=1, **options)
    assert all(len(row) == 1 for plan in one for row in plan.rows)


@settings(max_examples=60, deadline=None)
@given(STREAM, st.integers(1, 1000), st.sampled_from([1, 2, 8]))
def test_plan_evaluation(lengths, tokens_per_batch, multiple_of):
    plans, segments = packing.plan_evaluation(
        lengths, tokens_per_batch=tokens_per_batch, max_length=64, multiple_of=multiple_of
    )
    assert_each_once(plans, len(lengths))
    assert len({plan.num_rows for plan in plans}) <= 1
    for plan in plans:
        assert plan.length == 64
        assert plan.num_rows % multiple_of == 0
        assert plan.num_rows * plan.length <= max(tokens_per_batch, multiple_of * plan.length)
        assert all(sum(lengths[i] for i in row) <= plan.length and len(row) <= segments for row in plan.rows)
    assert all(len(plan.rows) == plan.num_rows for plan in plans[:-1])


@pytest.mark.parametrize(
    "longest, max_length, length",
    [(9, 100, 100), (100, 512, 128), (128, 384, 128), (129, 512, 256), (257, 512, 512), (257, 384, 384)],
)
def test_an_evaluations_rows_are_no_longer_than_they_must_be(longest, max_length, length):
    options = {"tokens_per_batch": 1024, "max_length": max_length}
    plans, _ = packing.plan_evaluation(np.array([5, longest, 7]), **options)
    assert {(plan.num_rows, plan.length) for plan in plans} == {(1024 // length, length)}


def test_evaluation_has_little_padding():
    """Lengths as XNLI's (mean 42) and as Tatoeba's (mean 10)."""
    for high in (80, 16):
        lengths = np.random.default_rng(0).integers(4, high, 5000)
        plans, _ = packing.plan_evaluation(lengths, tokens_per_batch=1024, max_length=128)
        assert 1 - batching.efficiency(plans, lengths) < 0.02


# The batches of training.


@mock.patch.object(packing, "SAMPLE", 256)
@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 20), st.integers(1, 4), st.sampled_from([1, 2, 8]), st.integers(0, 3))
def test_the_same_examples_in_each_step(lengths, batch_size, count, divisor, epoch):
    shapes = packing.choose(lengths, batch_size=batch_size, count=count, multiple_of=divisor, **FLAT)
    assert 1 <= len(shapes.sizes) <= count and all(rows % divisor == length % 8 == 0 for rows, length in shapes.sizes)
    assert shapes.last_resort[0] >= batch_size and shapes.last_resort[1] >= lengths.max()
    before = apart(lengths, batch_size, epoch=epoch)
    plans = packing.pack(before, lengths, shapes)
    assert [examples(plan) for plan in plans] == [examples(plan) for plan in before]
    assert_each_once(plans, len(lengths))
    for plan in plans:
        assert (plan.num_rows, plan.length) in (*shapes.sizes, shapes.last_resort)
        assert 1 <= len(plan.rows) <= plan.num_rows and plan.num_rows % divisor == 0
        assert all(
            row and len(row) <= shapes.max_units and lengths[list(row)].sum() <= plan.length for row in plan.rows
        )
    assert plans == packing.pack(before, lengths, shapes)
    assert shapes == packing.choose(lengths, batch_size=batch_size, count=count, multiple_of=divisor, **FLAT)


def best_fit(ids, lengths, max_units, num_rows, length):
    """One after the other, the longest first: what each row holds, None where one finds no room."""
    room, found = [length] * num_rows, [[] for _ in range(num_rows)]
    for feature in sorted(ids, key=lambda i: -lengths[i]):
        open_rows = [r for r in range(num_rows) if room[r] >= lengths[feature] and len(found[r]) < max_units]
        if not open_rows:
            return None
        best = min(open_rows, key=room.__getitem__)
        room[best] -= lengths[feature]
        found[best].append(feature)
    return tuple(tuple(row) for row in found if row)


SIZES = st.lists(st.tuples(st.integers(1, 12), st.integers(20, 200)), max_size=4)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 12), st.integers(1, 3), SIZES)
def test_any_shapes_hold_what_they_can(lengths, batch_size, max_units, sizes):
    """The first shape that best fit finds enough; a batch that none of them holds gets a row for each example."""
    shapes = packing.Shapes(tuple(sizes), (batch_size, 96), max_units)
    before = apart(lengths, batch_size)
    for plan, packed in zip(before, packing.pack(before, lengths, shapes), strict=True):
        ids = [feature for row in plan.rows for feature in row]
        held = ((rows, shape) for shape in sizes if (rows := best_fit(ids, lengths, max_units, *shape)))
        assert (packed.rows, (packed.num_rows, packed.length)) == next(held, (plan.rows, (batch_size, 96)))


def drawn(mean, std, low, high, count=8000):
    """Lengths as a tokenizer makes them."""
    sizes = np.exp(np.random.default_rng(0).normal(mean, std, count)).round().astype(np.int64)
    return sizes.clip(low, high)


@pytest.mark.parametrize(
    "lengths",
    [drawn(3.68, 0.33, 10, 96), drawn(3.0, 0.7, 4, 128), drawn(2.2, 0.35, 4, 40)],
    ids=["xnli", "udpos", "tatoeba"],
)
def test_little_padding_in_few_shapes(lengths):
    shapes = packing.choose(lengths, batch_size=32, count=6, **FLAT)
    packed = packing.pack(apart(lengths, 32), lengths, shapes)
    assert len({(plan.num_rows, plan.length) for plan in packed}) <= 7
    assert batching.efficiency(packed, lengths) > 0.92
    one = packing.pack(apart(lengths, 32), lengths, packing.choose(lengths, batch_size=32, count=1, **FLAT))
    assert 0.55 < batching.efficiency(one, lengths) < batching.efficiency(packed, lengths)
    assert sum((plan.num_rows, plan.length) == shapes.last_resort for plan in packed) <= len(packed) / 100


def test_long_rows_cost_more():
    """Where attention is dear, rows are short; a unit that is not in the sample fits the last resort."""
    lengths = drawn(3.68, 0.33, 10, 96)
    free, dear = (
        packing.choose(lengths, batch_size=32, count=3, longest=120, cost=cost)
        for cost in (lambda length: 1.0, lambda length: 1.0 + length)
    )
    assert max(length for _, length in dear.sizes) < max(length for _, length in free.sizes)
    assert free.last_resort == dear.last_resort == (32, 120)
    wide = packing.choose(lengths, batch_size=32, count=3, multiple=128, **FLAT)
    assert all(length % 128 == 0 for _, length in (*wide.sizes, wide.last_resort))
    with pytest.raises(InputError, match="cannot be packed: set packed=False"):
        packing.choose(np.array([20_000]), batch_size=1, count=1, **FLAT)


# Loss and gradients, through the jitted step.

ADAMW = optimizer.Optimizer(learning_rate=1e-3, warmup=0.1, weight_decay=0.01)
CONTEXT = objectives.Context(vocab_size=1000, mask_id=999, special_ids=(0, 1, 2, 3, 999))
HEADS = {
    "classification": HeadSpec("nli", "classification", ("a", "b", "c")),
    "choice": HeadSpec("pick", "choice"),
    "span": HeadSpec("qa", "span"),
    "tagging": HeadSpec("tags", "tagging", ("a", "b", "c")),
}
COUNT = 14  # units in a batch of 16: two rows are empty


def features(type):
    """COUNT units of random tokens; a unit is two or three choices where there are choices."""
    rng = np.random.default_rng(0)
    choices = rng.integers(2, 4, COUNT) if type == "choice" else np.ones(COUNT, int)
    lengths = rng.integers(4, 12 if type == "choice" else 30, choices.sum())
    tokens = rng.integers(4, 990, lengths.sum()).astype(np.int32)
    example = np.repeat(np.arange(COUNT), choices).astype(np.int32)
    fields = {"example": example, "label": rng.integers(0, 3, len(lengths)).astype(np.int32)}
    if type == "choice":
        fields["label"] = (np.diff(example, prepend=-1) > 0).astype(np.int32)
    fields["start"] = rng.integers(0, lengths).astype(np.int32)
    fields["end"] = rng.integers(fields["start"], lengths).astype(np.int32)
    tags = np.where(tokens % 3 == 0, -1, tokens % 3).astype(np.int32)
    return Features(tokens, offsets_of(lengths), fields, {"tag": tags})


def batch_pair(type, divisor=1):
    """Returns the batch of all units with a row for each, and packed."""
    source = features(type)
    groups = batching.groups(source, forms.get(type).fields)
    lengths = np.diff(source.offsets[groups])
    (plan,) = apart(lengths, 16)
    shapes = packing.choose(lengths, batch_size=16, count=2, multiple_of=divisor, **FLAT)
    packed = packing.pack([plan], lengths, shapes)
    assert packed[0].num_rows * packed[0].length < plan.num_rows * plan.length and max(map(len, packed[0].rows)) > 1
    options = {**samples.as_batch(type), "max_segments": 3 * shapes.max_units}
    return [batching.assemble_plan(source, one, **options) for one in batching.expand([plan, *packed], groups)]


MODELS = {
    type: Model(make_config("xlmr", "tiny", hidden_dropout=0.0, attention_dropout=0.0), (spec,))
    for type, spec in HEADS.items()
}
DESCENT = optax.sgd(1.0)


@functools.cache
def start(type):
    return jax.device_get(
        jax.jit(lambda key: step.new_state(MODELS[type].init(key), DESCENT, seed=0))(jax.random.key(0))
    )


def gradient_step(type, batch, mesh, accumulation=1):
    """Returns (metrics, gradients) of a training step: plain descent at a rate of 1 takes them off the parameters."""
    model, losses = MODELS[type], {"it": step.Loss(HEADS[type].name)}
    state = jax.device_put(start(type), step.state_shardings(model, DESCENT, mesh)[0])
    train = step.make_train_step(model, losses, DESCENT, mesh, context=CONTEXT, accumulation=accumulation)
    state, metrics = train(state, {"it": put_batch(batch, mesh)})
    return jax.device_get(metrics), jax.tree.map(np.subtract, start(type)["params"], jax.device_get(state["params"]))


@functools.cache
def unpacked(type):
    return gradient_step(type, batch_pair(type)[0], make_mesh({}, jax.devices()[:1]))


def assert_same(found, expected):
    for key in ("loss", "accuracy", "gradient_norm", "tokens", "examples"):
        np.testing.assert_allclose(found[0][key], expected[0][key], rtol=0, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), found[1], expected[1])
    assert expected[0]["gradient_norm"] > 0.1


@pytest.mark.parametrize("type", HEADS)
def test_packed_is_as_unpacked(type, one_device):
    assert_same(gradient_step(type, batch_pair(type)[1], one_device), unpacked(type))


@pytest.mark.parametrize("type", ["choice", "tagging"])
def test_micro_batches_of_different_counts_on_eight_devices(type):
    """A micro-batch and a device have some rows, of any number of examples: nothing is averaged before the end."""
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    batch = batch_pair(type, divisor=8)[1]
    counts = batch["weights"].sum(1)
    assert len(counts) % 8 == 0 and len({counts[i::2].sum() for i in range(2)}) == 2  # micro-batch i: rows i, i + 2 ..
    assert_same(gradient_step(type, batch, mesh, accumulation=2), unpacked(type))


def test_masked_language_modelling_of_packed_examples():
    """With the same tokens masked; the masks of a run are drawn for the rows as they are."""
    alone, packed = batch_pair("classification")
    prepared = jax.device_get(mlm.mask(jax.tree.map(jnp.asarray, packed), jax.random.key(0), CONTEXT))
    where = {}  # feature and position -> place in the unpacked batch
    for row, feature in enumerate(alone["index"][:, 0]):
        where |= {(feature, t): (row, t) for t in range(int((alone["segments"][row] > 0).sum()))}
    tokens, masked = alone["tokens"].copy(), [[] for _ in alone["tokens"]]
    for row, column in zip(*np.nonzero(packed["segments"]), strict=True):
        feature = packed["index"][row, packed["segments"][row, column] - 1]
        tokens[where[feature, packed["positions"][row, column]]] = prepared["tokens"][row, column]
    for row, k in zip(*np.nonzero(prepared["mlm_weights"]), strict=True):
        column = prepared["mlm_positions"][row, k]
        feature = packed["index"][row, packed["segments"][row, column] - 1]
        place = where[feature, packed["positions"][row, column]]
        masked[place[0]].append((place[1], prepared["mlm_labels"][row, k]))
    assert sum(map(len, masked)) == prepared["mlm_weights"].sum() > 20
    fields = np.zeros((3, len(tokens), max(map(len, masked))), np.int32)
    for row, found in enumerate(masked):
        for k, (column, label) in enumerate(found):
            fields[:, row, k] = column, label, 1
    other = {**alone, "tokens": tokens, "mlm_positions": fields[0], "mlm_labels": fields[1], "mlm_weights": fields[2]}
    model = Model(make_config("xlmr", "tiny"), (HeadSpec("mlm", "mlm"),))
    params = jax.jit(model.init)(jax.random.key(0))

    def loss(params, batch):
        total, weight = model.loss(params, "mlm", batch)["loss"]
        return total / weight

    run = jax.jit(jax.value_and_grad(loss))
    (a, gradient), (b, other_gradient) = run(params, prepared), run(params, other)
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5), gradient, other_gradient)


# Phases.

TOKENIZER = pathlib.Path(miniworld.__file__).parent / "micro" / "tokenizer"
STREAMS = {
    "mnli": {"batch_size": 16, "max_length": 48, "limit": 100},
    "commonsenseqa": {"batch_size": 8, "max_length": 16},
    "ccg": {"batch_size": 16, "max_length": 32},
    "tydiqa": {"batch_size": 8, "max_length": 64, "doc_stride": 24, "max_query_length": 12, "limit": 40},
    "qqp": {"batch_size": 8, "max_length": 48, "limit": 30, "objective": "mlm"},
}


def phase_of(task, *, steps=20, **changes):
    stream = mixture.Stream(task=task, **{**STREAMS[task], "buckets": 2, **changes})
    phase = phases.Phase(tasks={"it": stream}, steps=steps, save_every=100, log_every=1, optimizer=ADAMW, seed=3)
    model = Model(make_config("xlmr", "tiny", vocab_size=2400))
    return phase.resolve("phases.one"), model


def data(task, world, tmp_path, mesh, **changes):
    phase, model = phase_of(task, **changes)
    place = phases.Place(tmp_path, str(world), tmp_path / "cache", mesh, quiet=True)
    return inputs.make(phase, inputs.heads(phase, model, (), str(world)), TOKENIZER, place)


@pytest.mark.parametrize("task", STREAMS)
def test_a_phase_packs_the_examples_of_its_steps(task, world, tmp_path, one_device):
    packed = data(task, world, tmp_path, one_device, packed=True)
    alone = data(task, world, tmp_path, one_device, packed=False, sort_window=1)
    eight = data(task, world, tmp_path, make_mesh({"data": 4, "fsdp": 2}), packed=True)
    assert packed.steps == alone.steps == eight.steps == len(packed.source) == 20
    sizes, padded = set(), []
    for number in range(20):
        batches = [source.source[number]["it"] for source in (packed, alone, eight)]
        found = [np.sort(batch["index"][batch["index"] >= 0]).tolist() for batch in batches]
        assert found[0] == found[1] == found[2] and found[0]
        real = [int((batch["segments"] > 0).sum()) for batch in batches]
        assert real[0] == real[1] == real[2] and len(batches[2]["tokens"]) % 8 == 0
        padded += [batch["tokens"].size for batch in batches[:2]]
        sizes.add(batches[0]["tokens"].shape)
    assert len(sizes) <= 3 and sum(padded[::2]) <= (0.6 if task == "ccg" else 1.0) * sum(padded[1::2])
    assert "packed into" in packed.notes[1] and "packed" not in alone.notes[1]


@pytest.mark.parametrize("task", STREAMS)
def test_epochs_that_are_packed_at_once_are_those_packed_alone(task, world, tmp_path, one_device):
    def plans(at_once):
        with mock.patch.object(inputs, "BATCHES", at_once):
            source = data(task, world, tmp_path, one_device, packed=True, steps=60).source.sources["it"]
            ahead = [source.planner(epoch) for epoch in (7, 2)]  # in any order
            return [source.plan(number) for number in range(60)], ahead

    with mock.patch.object(packing, "pack", wraps=packing.pack) as pack:
        alone = plans(1)
        calls = pack.call_count
        at_once = plans(256)
    assert at_once == alone and pack.call_count - calls < calls


def test_packed_where_that_is_less_to_compute(world, tmp_path, one_device):
    assert "packed into" in data("ccg", world, tmp_path, one_device).notes[1]
    with mock.patch.object(inputs, "SCORES", 1e9):  # attention alone counts, and one shape is to hold every batch
        assert "packed into" not in data("tydiqa", world, tmp_path, one_device, buckets=1).notes[1]
    assert phase_of("ccg")[0].tasks["it"].packed is None  # open: it depends on the data


@pytest.mark.slow
def test_a_stopped_packed_run_equals_the_unbroken_one(world, tmp_path, one_device):
    """And its losses are those of the unpacked run; examples and tokens too."""
    phase, model = phase_of("ccg", steps=6, packed=True, buckets=1)

    def run(folder, phase, stop=lambda step: False):
        place = phases.Place(tmp_path / folder, str(world), tmp_path / "cache", one_device, quiet=True)
        record = phases.run("one", phase, model, None, TOKENIZER, place, {}, None, stop)
        rows = tracking.read_rows(tmp_path / folder / "metrics.jsonl")
        return record, [[row[key] for row in rows] for key in ("loss", "tokens", "examples")]

    phase = dataclasses.replace(phase, dropout=0.0)
    whole = run("whole", phase)
    with pytest.raises(runtime.Interrupted):
        run("broken", phase, lambda step: step == 3)
    assert run("broken", phase) == whole
    plain = dataclasses.replace(phase.tasks["it"], packed=False, sort_window=1, buckets=1)
    _, values = run("apart", dataclasses.replace(phase, tasks={"it": plain}))
    assert values[1:] == whole[1][1:] and sum(values[2]) == 90  # an epoch
    np.testing.assert_allclose(values[0], whole[1][0], rtol=0, atol=1e-4)
