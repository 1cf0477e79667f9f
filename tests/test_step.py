"""The train step: the same numbers on any mesh, with any accumulation; the optimizer as the protocol says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jxstilts import mesh as meshes
from jxstilts.checkpoint import Checkpoints
from jxstilts.mesh import make_mesh, put_batch
from jxstilts.models import heads
from jxstilts.models.layers import Compute
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError
from jxstilts.train import objectives, optimizer, step

CONTEXT = objectives.Context(vocab_size=1000, mask_id=999, special_ids=(0, 1, 2, 3, 999))
ADAMW = optimizer.Optimizer(learning_rate=1e-3, warmup=0.1, weight_decay=0.01)
HEADS = {
    "classification": HeadSpec("nli", "classification", ("a", "b", "c")),
    "choice": HeadSpec("pick", "choice"),
    "tagging": HeadSpec("tags", "tagging", ("a", "b", "c")),
    "span": HeadSpec("qa", "span"),
    "mlm": HeadSpec("mlm", "mlm"),
}


def make_batch(head: str) -> dict[str, np.ndarray]:
    """Two packed segments per row and some padding, with the fields of every head."""
    rng, rows, length = np.random.default_rng(0), 16, 32
    tokens = rng.integers(4, 990, (rows, length)).astype(np.int32)
    cut, end = rng.integers(8, 16, rows), rng.integers(20, length + 1, rows)
    place = np.arange(length)[None]
    segments = np.where(place < cut[:, None], 1, 2) * (place < end[:, None])
    positions = np.where(segments == 2, place - cut[:, None], place) * (segments > 0)
    first = np.stack([np.zeros(rows), cut], 1)
    tokens[np.arange(rows), 0] = tokens[np.arange(rows), cut] = 0
    weights = np.ones((rows, 2), np.float32)
    weights[0, 1] = 0.0
    labels = rng.integers(0, 3, (rows, 2))
    tags = np.where((segments > 0) & (tokens % 2 == 0), tokens % 3, -1)
    if head == "choice":  # the row's segments are the choices of one question; wrong ones begin with a token of theirs
        labels = np.eye(2)[rng.integers(0, 2, rows)]
        np.put_along_axis(tokens, first.astype(int), np.where(labels == 1, 0, 5).astype(np.int32), 1)
    return {
        "tokens": np.where(segments > 0, tokens, 1).astype(np.int32),
        "segments": segments.astype(np.int32),
        "positions": positions.astype(np.int32),
        "first": first.astype(np.int32),
        "weights": weights,
        "labels": labels.astype(np.int32),
        "group": np.zeros((rows, 2), np.int32),
        "tags": tags.astype(np.int32),
        "start": np.stack([rng.integers(0, 4, rows), cut + 1], 1).astype(np.int32),
        "end": np.stack([rng.integers(4, 8, rows), cut + 3], 1).astype(np.int32),
    }


def run_steps(mesh, head="classification", steps=5, accumulation=1, dropout=0.1, compute=None, start=None):
    spec = HEADS[head]
    config = make_config("xlmr", "tiny", hidden_dropout=dropout, attention_dropout=dropout)
    model = Model(config, (spec,), compute or Compute())
    optim = optimizer.make(ADAMW, 20)
    shardings, _ = step.state_shardings(model, optim, mesh)
    init = jax.jit(lambda key: step.new_state(model.init(key), optim, seed=3), out_shardings=shardings)
    state = init(jax.random.key(0)) if start is None else start
    objective = "mlm" if head == "mlm" else "task"
    losses = {head: step.Loss(spec.name, objective)}
    train = step.make_train_step(model, losses, optim, mesh, context=CONTEXT, accumulation=accumulation)
    found = []
    for _ in range(steps):
        state, metrics = train(state, {head: put_batch(make_batch(head), mesh)})
        found.append(float(metrics["loss"]))
    return np.array(found), state


@functools.cache
def on_one_device(head):
    return run_steps(make_mesh({}, jax.devices()[:1]), head)


@pytest.mark.parametrize(
    ("head", "shape"),
    [
        ("classification", (8, 1, 1)), ("classification", (2, 2, 2)), ("classification", (1, 4, 2)),
        ("choice", (4, 1, 2)), ("mlm", (1, 4, 2)),
        pytest.param("tagging", (1, 2, 4), marks=pytest.mark.slow),
        pytest.param("span", (2, 2, 2), marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_one_device_equals_eight(head, shape, monkeypatch):
    if shape == (2, 2, 2):
        monkeypatch.setattr(meshes, "SPREAD_FROM", 0)  # the state of this small model is split, too
    expected, one = on_one_device(head)
    found, eight = run_steps(make_mesh(dict(zip(("data", "fsdp", "tensor"), shape, strict=True))), head)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert expected[-1] < expected[0]
    moments = [optax.tree_utils.tree_get(state["opt_state"], "mu") for state in (one, eight)]
    for a, b in zip(*map(jax.tree.leaves, jax.device_get(moments)), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-4 * np.abs(a).max() + 1e-8)
    # A bias that is added to all scores has no gradient but rounding, which Adam divides by its own size.
    squares = jax.device_get(optax.tree_utils.tree_get(one["opt_state"], "nu"))
    rounding = jax.tree.map(lambda square: (square > 0) & (square < 1e-18), squares)
    assert sum(map(np.sum, jax.tree.leaves(rounding))) < 0.01 * sum(map(np.size, jax.tree.leaves(rounding)))
    for a, b, left_out in zip(
        *map(jax.tree.leaves, jax.device_get((one["params"], eight["params"], rounding))), strict=True
    ):
        np.testing.assert_allclose(np.where(left_out, a, b), a, rtol=0, atol=1e-3 * ADAMW.learning_rate)


def test_the_heads_here_are_all_that_are_trained():
    trained = {name for name in heads.types() if name not in ("embedding", "text_to_text", "dual", "states")}
    assert {spec.type for spec in HEADS.values()} == trained
    assert not hasattr(heads.kind("embedding"), "loss")


@pytest.mark.parametrize("head", ["classification", "span"])
def test_accumulation_changes_no_loss(one_device, head):
    expected, _ = run_steps(one_device, head, dropout=0.0)
    found, _ = run_steps(one_device, head, dropout=0.0, accumulation=4)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_save_on_eight_devices_restore_on_one(tmp_path, one_device, monkeypatch):
    monkeypatch.setattr(meshes, "SPREAD_FROM", 0)
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    _, state = run_steps(mesh, steps=2)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, state, {"best": None})
    checkpoints.wait()
    config = make_config("xlmr", "tiny")
    model = Model(config, (HEADS["classification"],))
    optim = optimizer.make(ADAMW, 20)
    shardings, _ = step.state_shardings(model, optim, one_device)
    target = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)
    restored, meta = checkpoints.restore(2, target)
    assert meta == {"best": None}
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), jax.device_get(restored))
    on_eight, _ = run_steps(mesh, steps=3, start=state)
    on_one, _ = run_steps(one_device, steps=3, start=restored)
    np.testing.assert_allclose(on_one, on_eight, rtol=0, atol=1e-5)
    checkpoints.close()


def test_older_checkpoints_go_once_the_next_is_committed(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    state = {"x": jnp.arange(3)}
    for number, keep in ((1, 1), (2, 2), (3, 2), (4, 2)):
        checkpoints.save(number, state, {}, {keep})
        checkpoints.wait()
        steps = {int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()}
        assert {number, keep} <= steps
    assert 1 not in steps
    checkpoints.close()


def test_schedule_is_linear_warmup_and_decay():
    for warmup in (0.1, 10):  # a share of the steps, or their number
        rate = optimizer.schedule(optimizer.Optimizer(learning_rate=1.0, warmup=warmup), 100)
        rates = [float(rate._replace(count=n).rate()) for n in (0, 5, 10, 55, 100, 101)]
        assert rates == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0, 0.0])


def test_weight_decay_spares_biases_and_norms():
    params = Model(make_config("xlmr", "tiny"), (HEADS["classification"],)).abstract()[0]
    decayed = optimizer.decayed(params)
    assert decayed["encoder"]["layers"]["query"] == {"kernel": True, "bias": False}
    assert decayed["encoder"]["layers"]["mlp_norm"] == {"scale": False, "bias": False}
    assert decayed["encoder"]["embeddings"]["tokens"] is True


def moments_of(state):
    return [optax.tree_utils.tree_get(state["opt_state"], name) for name in ("mu", "nu")]


def test_small_moments_lie_with_their_parameters():
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    model = Model(make_config("xlmr", "tiny"), (HEADS["classification"],))
    shardings, notes = step.state_shardings(model, optimizer.make(ADAMW, 10), mesh)
    assert moments_of(shardings) == [shardings["params"]] * 2
    assert not notes


@pytest.mark.parametrize(
    ("sizes", "words", "kernel"),
    [
        ({"data": 8}, (4096, 32), (2, 32, 8)),  # the largest dimension
        ({"data": 2, "fsdp": 2, "tensor": 2}, (8192, 16), (2, 16, 16)),  # of what fsdp and tensor leave
        ({"fsdp": 8}, (32768, 4), (2, 4, 64)),  # no data axis: as the parameters
    ],
)
def test_moments_are_split_over_data(sizes, words, kernel, monkeypatch):
    model = Model(make_config("xlmr", "tiny", vocab_size=32768), (HEADS["classification"],))
    mesh = make_mesh(sizes)

    def parts(tree):
        encoder, shapes = tree["encoder"], model.abstract()[0]["encoder"]
        split = encoder["embeddings"]["tokens"], encoder["layers"]["mlp_in"]["kernel"]
        whole = shapes["embeddings"]["tokens"], shapes["layers"]["mlp_in"]["kernel"]
        return tuple(one.shard_shape(leaf.shape) for one, leaf in zip(split, whole, strict=True))

    shardings, _ = step.state_shardings(model, optimizer.make(ADAMW, 10), mesh)
    for moment in moments_of(shardings):
        assert parts(moment)[0] == words  # 4 MiB
        assert parts(moment)[1] == parts(shardings["params"])[1]  # 16 KiB
    monkeypatch.setattr(meshes, "SPREAD_FROM", 0)
    shardings, _ = step.state_shardings(model, optimizer.make(ADAMW, 10), mesh)
    assert [parts(moment) for moment in moments_of(shardings)] == [(words, kernel)] * 2


def test_a_split_state_gives_the_same_numbers(monkeypatch):
    found = []
    for limit in (0, 2**60):
        monkeypatch.setattr(meshes, "SPREAD_FROM", limit)
        found.append(run_steps(make_mesh({"data": 8}), "mlm", steps=3, accumulation=2))
    (losses, state), (expected, other) = found
    assert max(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(moments_of(state))) == 1000 * 32 // 8
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(moments_of(state)), jax.tree.leaves(moments_of(other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max() + 1e-12)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [({"date": 8}, "did you mean 'data'"), ({"data": 3}, "needs 3 devices"), ({"data": -1, "fsdp": -1}, "at most one")],
)
def test_bad_mesh(sizes, text):
    with pytest.raises(InputError, match=text):
        make_mesh(sizes)


def test_rule_that_cannot_apply_is_named():
    mesh = make_mesh({"tensor": 8})
    model = Model(make_config("xlmr", "tiny", vocab_size=1001))
    _, notes = step.state_shardings(model, optimizer.make(ADAMW, 10), mesh)
    assert len(notes) == 1 and "vocab=1001" in notes[0] and "tensor=8" in notes[0]
