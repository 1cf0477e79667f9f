"""The jitted training step: batch and state in, state and metrics out, sharded over a mesh, state donated.

state = {"params", "opt_state", "step" int32, "rng" uint32 key data}
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jxstilts.mesh import batch_sharding, param_shardings, replicated
from jxstilts.models.model import Model
from jxstilts.runtime import InputError
from jxstilts.train import objectives

State = dict[str, Any]


def new_state(params: Any, optimizer: optax.GradientTransformation, seed: int) -> State:
    """The state before the first step. Jittable in `params`."""
    return {
        "params": params,
        "opt_state": optimizer.init(params),
        "step": jnp.zeros((), jnp.int32),
        "rng": jax.random.key_data(jax.random.key(seed)),
    }


def state_shardings(model: Model, optimizer: optax.GradientTransformation, mesh: Mesh) -> tuple[State, list[str]]:
    """Returns (shardings of the whole state, notes): the optimizer's moments lie where their parameters lie."""
    shapes, axes = model.abstract()
    placed, notes = param_shardings(axes, shapes, mesh)
    whole = replicated(mesh)
    moments = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, shapes),
        placed,
        transform_non_params=lambda _: whole,
    )
    return {"params": placed, "opt_state": moments, "step": whole, "rng": whole}, notes


def make_train_step(
    model: Model,
    head: str,
    objective: str,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    context: objectives.Context,
    accumulation: int = 1,
):
    """Returns `train_step(state, batch) -> (state, metrics)`, jitted with explicit shardings.

    The batch's rows are split into `accumulation` micro-batches; sums of losses, weights and gradients are added over
    them and over the devices and divided once, so the loss does not depend on how the batch is cut. metrics: loss,
    accuracy, gradient_norm, tokens (real), examples; device scalars, nothing is read back.
    """
    shardings, _ = state_shardings(model, optimizer, mesh)
    prepare = objectives.get(objective).prepare

    def micro(params, batch, key):
        def total(params):
            sums = model.loss(params, head, batch, key)
            return sums["loss"][0], sums

        (_, sums), gradients = jax.value_and_grad(total, has_aux=True)(params)
        return gradients, sums

    def train_step(state, batch):
        params = state["params"]
        key = jax.random.fold_in(jax.random.wrap_key_data(state["rng"]), state["step"])
        prepare_key, dropout_key = jax.random.split(key)
        batch = prepare(batch, prepare_key, context)
        if accumulation == 1:
            gradients, sums = micro(params, batch, dropout_key)
        else:
            gradients, sums = _accumulate(micro, params, batch, dropout_key, accumulation)
        weight = jnp.maximum(sums["loss"][1], 1e-6)
        gradients = jax.tree.map(lambda g: g / weight, gradients)
        updates, opt_state = optimizer.update(gradients, state["opt_state"], params)
        metrics = {name: total / jnp.maximum(count, 1e-6) for name, (total, count) in sums.items()}
        metrics |= {
            "gradient_norm": optax.tree_utils.tree_norm(gradients),
            "tokens": (batch["segments"] > 0).sum(),
            "examples": (batch["weights"] > 0).sum(),
        }
        # The tree of the argument again: donated buffers are matched to results in order, without copies.
        params = optax.apply_updates(params, updates)
        return {"params": params, "opt_state": opt_state, "step": state["step"] + 1, "rng": state["rng"]}, metrics

    return jax.jit(
        train_step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


def _accumulate(micro, params, batch, key, count):
    """Scans over `count` micro-batches and adds gradients and (sum, weight) pairs."""
    rows = batch["tokens"].shape[0]
    if rows % count:
        raise InputError(f"batch_size={rows} is not a multiple of accumulation={count}")
    # Row i goes to micro-batch i % count: each device keeps its own rows, nothing moves between devices.
    parts = jax.tree.map(lambda x: x.reshape(rows // count, count, *x.shape[1:]).swapaxes(0, 1), batch)

    def body(total, part):
        index, part = part
        found = micro(params, part, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, found), None

    shapes = jax.eval_shape(micro, params, jax.tree.map(lambda x: x[0], parts), key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(body, zeros, (jnp.arange(count), parts))[0]
