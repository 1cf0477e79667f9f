"""Masked language modelling: what is masked, how often, and that a model learns from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.train import objectives, optimizer, step
from jxstilts.train.objectives import mlm

CONTEXT = objectives.Context(vocab_size=500, mask_id=499, special_ids=(0, 1, 2, 3, 499))


def batch(rng, rows, length):
    tokens = rng.integers(4, 499, (rows, length)).astype(np.int32)
    lengths = rng.integers(3, length + 1, rows)
    inside = np.arange(length)[None] < lengths[:, None]
    tokens[:, 0], tokens[np.arange(rows), lengths - 1] = 0, 2
    return {
        "tokens": jnp.asarray(np.where(inside, tokens, 1)),
        "segments": jnp.asarray(inside.astype(np.int32)),
        "positions": jnp.asarray(np.where(inside, np.arange(length)[None], 0).astype(np.int32)),
        "weights": jnp.ones((rows, 1)),
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_only_ordinary_tokens_are_masked(seed):
    given_batch = batch(np.random.default_rng(seed), rows=6, length=32)
    made = mlm.mask(given_batch, jax.random.key(seed), CONTEXT)
    tokens, masked = np.asarray(given_batch["tokens"]), np.asarray(made["tokens"])
    positions, weights = np.asarray(made["mlm_positions"]), np.asarray(made["mlm_weights"])
    assert positions.shape == (6, 5)  # ceil(0.15 * 32)
    for row in range(6):
        chosen = positions[row][weights[row] > 0]
        ordinary = np.flatnonzero(~np.isin(tokens[row], CONTEXT.special_ids))
        assert len(set(chosen)) == len(chosen) and set(chosen) <= set(ordinary)
        assert len(chosen) == max(np.round(np.float32(0.15) * len(ordinary)), 1)
        np.testing.assert_array_equal(made["mlm_labels"][row][weights[row] > 0], tokens[row, chosen])
        rest = np.setdiff1d(np.arange(32), chosen)
        np.testing.assert_array_equal(masked[row, rest], tokens[row, rest])


def test_eighty_ten_ten_and_uniform_places():
    rng = np.random.default_rng(0)
    given_batch = batch(rng, rows=4000, length=40)
    made = mlm.mask(given_batch, jax.random.key(1), CONTEXT)
    weights = np.asarray(made["mlm_weights"]) > 0
    labels = np.asarray(made["mlm_labels"])[weights]
    new = np.take_along_axis(np.asarray(made["tokens"]), np.asarray(made["mlm_positions"]), 1)[weights]
    count = len(labels)
    kept, masked = (new == labels).mean(), (new == CONTEXT.mask_id).mean()
    error = 5 * (0.25 / count) ** 0.5  # five standard errors at most
    assert abs(masked - 0.8) < error and abs(kept - 0.1) < error
    full = np.asarray(given_batch["segments"]).all(1)
    places = np.asarray(made["mlm_positions"])[full][weights[full]]
    share = np.bincount(places, minlength=40)[1:39] / len(places)
    assert np.all(np.abs(share - 1 / 38) < 5 * (1 / 38 / len(places)) ** 0.5)


def test_masks_differ_from_step_to_step_and_repeat_with_the_key():
    given_batch = batch(np.random.default_rng(0), rows=8, length=32)
    one, again, other = (mlm.mask(given_batch, jax.random.key(k), CONTEXT)["tokens"] for k in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@pytest.mark.slow
def test_a_model_learns_by_mlm(one_device):
    """Rows of one repeated token: a masked token is given by its neighbours, through attention alone."""
    rng = np.random.default_rng(0)
    sizes = {"vocab_size": 500, "init_std": 0.18, "hidden_dropout": 0.0, "attention_dropout": 0.0}
    model = Model(make_config("xlmr", "tiny", **sizes), (HeadSpec("mlm", "mlm"),))
    optim = optimizer.make(optimizer.Optimizer(learning_rate=5e-3, warmup=0.1, weight_decay=0.01), 100)
    train = step.make_train_step(model, {"text": step.Loss("mlm", "mlm")}, optim, one_device, context=CONTEXT)
    state = jax.jit(lambda key: step.new_state(model.init(key), optim, 0))(jax.random.key(0))
    losses = []
    for _ in range(100):
        rows = batch(rng, rows=32, length=24)
        ordinary = ~np.isin(np.asarray(rows["tokens"]), CONTEXT.special_ids)
        rows["tokens"] = jnp.asarray(np.where(ordinary, rng.integers(4, 30, (32, 1)), rows["tokens"]), jnp.int32)
        state, metrics = train(state, {"text": rows})
        losses.append(float(metrics["loss"]))
    assert losses[0] > 5.0 and np.mean(losses[-10:]) < 0.5
