"""Adafactor gives optax's numbers, of stacked layers those of each layer for itself; and a constant rate stays."""

import jax
import numpy as np
import optax

from jxstilts.mesh import make_mesh
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.train import optimizer, step
from jxstilts.train.adafactor import scale_by_adafactor

SHAPES = {"big": (130, 200), "small": (20, 300), "scale": (40,), "cube": (3, 140, 160)}


def numbers(seed, shapes, layers=()):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(*layers, *shape)).astype(np.float32) for name, shape in shapes.items()}


def run(tx, params, gradients):
    state, update = tx.init(params), jax.jit(tx.update)
    for each in gradients:
        updates, state = update(each, state, params)
        params = optax.apply_updates(params, jax.tree.map(lambda u: -0.01 * u, updates))
    return params


def test_the_numbers_are_optaxs():
    params, gradients = numbers(0, SHAPES), [numbers(seed, SHAPES) for seed in (1, 2, 3)]
    theirs = optax.chain(optax.adafactor(1.0, weight_decay_rate=None), optax.scale(-1.0))
    wanted, found = run(theirs, params, gradients), run(scale_by_adafactor(), params, gradients)
    for name in SHAPES:
        np.testing.assert_allclose(found[name], wanted[name], rtol=2e-5, atol=1e-6)
        assert np.abs(found[name] - params[name]).max() > 1e-3


def test_a_stack_is_its_layers():
    shapes = {name: SHAPES[name] for name in ("big", "small", "scale")}
    params, gradients = numbers(0, shapes, (2,)), [numbers(seed, shapes, (2,)) for seed in (1, 2)]
    params["big"][1] *= 50  # the size of one layer says nothing of the other's
    whole = run(scale_by_adafactor(), {"layers": params}, [{"layers": each} for each in gradients])["layers"]
    for layer in range(2):
        pick = lambda tree, layer=layer: {name: leaf[layer] for name, leaf in tree.items()}  # noqa: E731
        alone = run(scale_by_adafactor(), pick(params), [pick(each) for each in gradients])
        for name in shapes:
            np.testing.assert_allclose(whole[name][layer], alone[name], rtol=1e-5)


def test_its_moments_have_places_on_a_mesh_and_the_rate_is_constant():
    model = Model(
        make_config("mt5", "tiny", width=256, mlp=512), (HeadSpec("text_to_text", "text_to_text"),), family="mt5"
    )
    config = optimizer.Optimizer(
        name="adafactor", schedule="constant", learning_rate=1e-3, warmup=0.0, weight_decay=0.0
    )
    tx = optimizer.make(config, 10)
    shardings, _ = step.state_shardings(model, tx, make_mesh({"data": 2, "fsdp": 2, "tensor": 2}))
    shapes = jax.eval_shape(tx.init, model.abstract()[0])
    for leaf, place in zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings["opt_state"]), strict=True):
        place.shard_shape(leaf.shape)  # raises for a place of another rank
    rate = optimizer.schedule(config, 10)
    assert [float(rate._replace(count=np.int32(count)).rate()) for count in (0, 5, 9)] == [np.float32(1e-3)] * 3
    assert float(optimizer.progress(jax.eval_shape(tx.init, {}) and tx.init({}), np.int32(5))) == 0.5
