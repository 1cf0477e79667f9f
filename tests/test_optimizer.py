"""The optimizer against optax's own AdamW, and what a compiled step depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jxstilts.train import optimizer

PARAMS = {"kernel": jnp.linspace(-1.0, 1.0, 12).reshape(3, 4), "bias": jnp.linspace(0.0, 1.0, 4)}


@pytest.mark.parametrize("warmup", [0.0, 0.3, 4])
def test_updates_are_those_of_optax_with_the_same_schedule(warmup):
    config = optimizer.Optimizer(learning_rate=0.1, warmup=warmup, weight_decay=0.05, clip=1.0)
    count = int(warmup if warmup >= 1 else warmup * 10)
    rise, fall = optax.linear_schedule(0.0, 0.1, max(count, 1)), optax.linear_schedule(0.1, 0.0, 10 - count)
    rate = optax.join_schedules([rise, fall], [count]) if count else fall
    adamw = optax.adamw(rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.05, mask=optimizer.decayed)
    sides = [[tx, PARAMS, tx.init(PARAMS)] for tx in (
        optimizer.make(config, 10), optax.chain(optax.clip_by_global_norm(1.0), adamw)
    )]  # fmt: skip
    for step in range(12):  # two beyond the end, where the rate stays 0
        gradients = jax.tree.map(lambda x: jnp.cos(3.0 * x + step), PARAMS)  # noqa: B023
        for side in sides:
            updates, side[2] = side[0].update(gradients, side[2], side[1])
            side[1] = optax.apply_updates(side[1], updates)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), sides[0][1], sides[1][1])


def test_phases_that_differ_in_rate_and_length_share_a_program():
    def text(rate, warmup, steps):
        tx = optimizer.make(optimizer.Optimizer(learning_rate=rate, warmup=warmup, weight_decay=0.01), steps)
        return jax.jit(tx.update).lower(PARAMS, tx.init(PARAMS), PARAMS).as_text()

    assert text(0.1, 0.1, 100) == text(0.003, 7, 2500)
