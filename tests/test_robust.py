"""Robust training: what moves where, against numpy and finite differences; nothing that speed changes changes it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_step

from jxstilts.checkpoint import digests, leaves
from jxstilts.mesh import make_mesh, put_batch
from jxstilts.models import model as models
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError
from jxstilts.train import objectives, optimizer, step
from jxstilts.train.objectives import robust
from jxstilts.train.objectives.base import Forward

SPEC = HeadSpec("nli", "classification", ("a", "b", "c"))
SMALL = {"width": 16, "heads": 2, "mlp": 32, "layers": 1, "vocab_size": 1000, "init_std": 0.3}


def make_batch():
    return {**test_step.make_batch("classification"), "index": np.arange(32, dtype=np.int32).reshape(16, 2)}


def run(mesh, objective="robust", steps=3, accumulation=1, dropout=0.0, spec=SPEC, batch=None, **options):
    model = Model(make_config("xlmr", "tiny", **SMALL, hidden_dropout=dropout, attention_dropout=dropout), (spec,))
    optim = optimizer.make(test_step.ADAMW, 20)
    shardings, _ = step.state_shardings(model, optim, mesh)
    state = jax.jit(lambda key: step.new_state(model.init(key), optim, 3), out_shardings=shardings)(jax.random.key(0))
    losses = {"x": step.Loss("nli", objective, options=options)}
    train = step.make_train_step(model, losses, optim, mesh, context=test_step.CONTEXT, accumulation=accumulation)
    found = []
    for _ in range(steps):
        state, metrics = train(state, {"x": put_batch(make_batch() if batch is None else batch, mesh)})
        found.append(float(metrics["loss"]))
    return np.array(found), state


@pytest.mark.parametrize("name", models.families())
def test_every_family_moves_its_words(name):
    """The states at moved words are those of a table whose rows are moved."""
    made = Model(make_config(name, "tiny", layers=1), (), family=name)
    params = jax.jit(made.init)(jax.random.key(0))
    tokens = np.arange(4, 12, dtype=np.int32).reshape(2, 4)
    batch = {"tokens": tokens, "segments": np.ones_like(tokens), "positions": np.arange(4, dtype=np.int32) + 0 * tokens}
    table = params["encoder"]["embeddings"]["tokens"]
    moved = np.random.default_rng(0).normal(size=(*tokens.shape, table.shape[1])).astype(np.float32)
    other = {"encoder": {**params["encoder"], "embeddings": {**params["encoder"]["embeddings"],
                         "tokens": table.at[tokens].add(moved)}}}  # fmt: skip
    encode = jax.jit(made.encode)
    found = encode(params, {**batch, "perturbation": moved})
    np.testing.assert_allclose(found, encode(other, batch), atol=1e-5)
    assert np.abs(found - encode(params, batch)).max() > 1e-2


class Spy(Forward):
    """Notes where an objective looks."""

    def moved(self, perturbation, params, every=False):
        self.seen = perturbation
        return super().moved(perturbation, params, every)


def ascent(steps, mode="adversarial", **options):
    """-> (model, params, batch, where the objective looks, the gradient of its loss, its loss)"""
    model = Model(make_config("xlmr", "tiny", **SMALL), (SPEC,))
    params = jax.jit(model.init)(jax.random.key(0))
    own = robust.Objective(name="x", head="nli", mode=mode, steps=steps, **options)
    batch = own.prepare({name: jnp.asarray(leaf) for name, leaf in make_batch().items()}, jax.random.key(5), None)

    @jax.jit
    def looked(params):
        def loss(params):
            forward = Spy(model, params, batch, None)
            return own.loss(model, params, {"x": forward}, None, None)[0], forward.seen

        return jax.value_and_grad(loss, has_aux=True)(params)

    (found, moved), gradient = looked(params)
    return model, params, batch, moved, gradient, found


@pytest.mark.parametrize(("mode", "steps", "length"), [("adversarial", 3, 0.5), ("noise", 1, 1.0)])
def test_nothing_leaves_its_ball(mode, steps, length):
    _, params, batch, moved, *_ = ascent(steps, mode, radius=0.2, step=length)
    words = np.linalg.norm(params["encoder"]["embeddings"]["tokens"][batch["tokens"]], axis=-1)
    inside, size = np.asarray(batch["segments"]) > 0, np.linalg.norm(moved, axis=-1)
    assert not size[~inside].any() and (size[inside] <= 0.2 * words[inside] * (1 + 1e-5)).all()
    if mode == "noise":
        np.testing.assert_allclose(size[inside], 0.2 * words[inside], rtol=1e-5)
        directions = np.asarray(moved)[inside] / size[inside][:, None]
        assert (
            np.abs(directions.mean(0)).max() < 0.1 and np.unique(directions.round(6), axis=0).shape == directions.shape
        )
    else:
        assert (size[inside] > 0.1 * words[inside]).mean() > 0.9  # not of an example without weight


def test_it_goes_up_the_slope_and_trains_where_it_arrives():
    """The first step's direction is that of central differences; the loss there is higher than on the way back.

    The place is held fast: the training gradient does not go through its choice.
    """
    model, params, batch, moved, gradient, found = ascent(1, radius=0.05)

    @jax.jit
    def loss(moved, params):
        return model.loss(params, "nli", {**batch, "perturbation": moved})["loss"][0]

    row, token = 3, 2
    slope = []
    for dimension in range(SMALL["width"]):
        moves = (jnp.zeros_like(moved).at[row, token, dimension].set(size) for size in (0.03, -0.03))
        slope.append((float(loss(next(moves), params)) - float(loss(next(moves), params))) / 0.06)
    own = np.asarray(moved[row, token])
    np.testing.assert_allclose(own / np.linalg.norm(own), slope / np.linalg.norm(slope), atol=0.05)
    heights = [float(loss(share * moved, params)) for share in (1, 0.5, 0, -1)]
    np.testing.assert_allclose(found, heights[0], rtol=1e-5)
    assert heights == sorted(heights, reverse=True)
    there = leaves(jax.jit(jax.grad(loss, argnums=1))(moved, params))
    for path, leaf in leaves(gradient).items():
        np.testing.assert_allclose(leaf, there[path], atol=1e-4 * max(1, np.abs(leaf).max()), err_msg=path)


def test_radius_0_is_plain_training_to_the_bit(one_device):
    plain, one = run(one_device, "task", dropout=0.1)
    same, other = run(one_device, "robust", dropout=0.1, radius=0.0, mode="noise")
    assert plain.tolist() == same.tolist() and digests(one["params"]) == digests(other["params"])


@pytest.mark.parametrize(
    ("mode", "aggregation"), [pytest.param("adversarial", "attention", marks=pytest.mark.slow), ("noise", "")]
)
def test_speed_changes_no_number(mode, aggregation, one_device):
    spec = dataclasses.replace(SPEC, aggregation=aggregation)
    given = {"mode": mode, "radius": 0.3, "spec": spec}
    plain, _ = run(one_device, **given)
    cut, _ = run(make_mesh({"data": 2, "fsdp": 2, "tensor": 2}), accumulation=2, **given)
    np.testing.assert_allclose(cut, plain, atol=2e-5)


def test_noise_is_the_examples_own():
    """Packed into one row or each in its own, an example meets the same noise."""
    own, key = robust.Objective(name="x", mode="noise", radius=0.1), jax.random.key(1)
    packed = {"segments": [[1, 1, 2, 2, 2, 0]], "positions": [[0, 1, 0, 1, 2, 0]], "index": [[7, 9]]}
    apart = {"segments": [[1, 1, 1], [1, 1, 0]], "positions": [[0, 1, 2], [0, 1, 0]], "index": [[9], [7]]}
    one, two = (
        own.prepare({name: jnp.asarray(rows) for name, rows in batch.items()}, key, None)["noise_keys"]
        for batch in (packed, apart)
    )
    np.testing.assert_array_equal(one[0, :2], two[1, :2])
    np.testing.assert_array_equal(one[0, 2:5], two[0])
    assert len({tuple(map(int, each)) for each in np.asarray(one[0, :5])}) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mode": "adversary"}, "did you mean 'adversarial'"), ({"radius": -1.0}, "radius=-1.0 is 0 or more"),
     ({"steps": 0}, "steps=0 at least 1"), ({"radios": 1.0}, "unknown option 'radios'; did you mean 'radius'")],
)  # fmt: skip
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        objectives.make("robust", options, "x")
