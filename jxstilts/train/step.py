"""The jitted training step: batch and state in, state and metrics out, sharded over a mesh, state donated.

state = {"params", "opt_state", "step" int32, "rng" uint32 key data}
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jxstilts.mesh import batch_sharding, param_shardings, replicated, spread
from jxstilts.models.model import Model
from jxstilts.runtime import InputError
from jxstilts.train import frozen, objectives

State = dict[str, Any]


def new_state(params: Any, optimizer: optax.GradientTransformation, seed: int, freeze: Sequence[str] = ()) -> State:
    """The state before the first step. Jittable in `params`. freeze: see `frozen`."""
    return {
        "params": params,
        "opt_state": optimizer.init(frozen.split(params, freeze)[0]),
        "step": jnp.zeros((), jnp.int32),
        "rng": jax.random.key_data(jax.random.key(seed)),
    }


def state_shardings(
    model: Model, optimizer: optax.GradientTransformation, mesh: Mesh, freeze: Sequence[str] = ()
) -> tuple[State, list[str]]:
    """Returns (shardings of the whole state, notes). The optimizer's moments lie as `mesh.spread` says."""
    shapes, axes = model.abstract()
    placed, notes = param_shardings(axes, shapes, mesh)
    whole = replicated(mesh)
    moments = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, frozen.split(shapes, freeze)[0]),
        gradient_shardings(model, mesh, freeze),
        transform_non_params=lambda _: whole,
    )
    return {"params": placed, "opt_state": moments, "step": whole, "rng": whole}, notes


def gradient_shardings(model: Model, mesh: Mesh, freeze: Sequence[str] = ()) -> Any:
    """Where the gradients lie, and so the moments and updates: each device has a part of what is trained."""
    shapes, axes = model.abstract()
    return frozen.split(spread(param_shardings(axes, shapes, mesh)[0], shapes, mesh), freeze)[0]


@dataclasses.dataclass(frozen=True)
class Loss:
    """What one stream of batches trains: a head of the model, by an objective; `weight` scales its mean loss."""

    head: str
    objective: str = "task"
    weight: float = 1.0


def make_train_step(
    model: Model,
    losses: Mapping[str, Loss],
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    context: objectives.Context,
    accumulation: int = 1,
    freeze: Sequence[str] = (),
    skip_nonfinite: bool = False,
):
    """Returns `train_step(state, batches) -> (state, metrics)`, jitted with explicit shardings.

    batches: stream name -> batch, for one stream or several of `losses`; what is minimised is the sum of their mean
    losses times their weights. A batch's rows are split into `accumulation` micro-batches; sums of losses, weights
    and gradients are added over them and over the devices and divided once, so the loss does not depend on how the
    batch is cut. metrics: loss, accuracy, gradient_norm, tokens (real), padded_tokens (with the padding), examples;
    where there is more than one stream in `losses`, STREAM/loss and STREAM/accuracy instead of accuracy. Device
    scalars, nothing is read back. What `freeze` names (see `frozen`) has no gradient and stays as it is, to the bit.
    skip_nonfinite: a step whose loss or gradient norm is not finite leaves parameters, moments and schedule as they
    were.
    """
    shardings, _ = state_shardings(model, optimizer, mesh, freeze)
    split = gradient_shardings(model, mesh, freeze)
    order = list(losses)
    prepare = {name: objectives.get(loss.objective).prepare for name, loss in losses.items()}

    def scale(name, sums):
        return losses[name].weight / jnp.maximum(jax.lax.stop_gradient(sums["loss"][1]), 1e-6)

    def micro(params, name, batch, key, mean=False):
        """-> (gradients of the sum of the losses, or of their weighted mean, sums)"""
        trained, kept = frozen.split(params, freeze)

        def total(trained):
            sums = model.loss(frozen.merge(trained, kept), losses[name].head, batch, key)
            return sums["loss"][0] * (scale(name, sums) if mean else 1.0), sums

        (_, sums), gradients = jax.value_and_grad(total, has_aux=True)(trained)
        return jax.lax.with_sharding_constraint(gradients, split), sums

    def of_stream(params, name, batch, key):
        """-> (gradients of the weighted mean loss, metrics, the prepared batch's tokens and examples)"""
        prepare_key, dropout_key = jax.random.split(key)
        batch = prepare[name](batch, prepare_key, context)
        if accumulation == 1:  # scaled before the backward pass, not after it in one more pass over all gradients
            gradients, sums = micro(params, name, batch, dropout_key, mean=True)
        else:
            gradients, sums = _accumulate(partial(micro, name=name), params, batch, dropout_key, accumulation)
            gradients = jax.tree.map(lambda g: g * scale(name, sums), gradients)
        values = {key: total / jnp.maximum(count, 1e-6) for key, (total, count) in sums.items()}
        counts = {
            "tokens": (batch["segments"] > 0).sum(),
            "padded_tokens": jnp.asarray(batch["segments"].size),
            "examples": (batch["weights"] > 0).sum(),
        }
        return gradients, values, counts

    def train_step(state, batches):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # which `mesh.constrain_rows` reads
            return one_step(state, batches)

    def one_step(state, batches):
        params = state["params"]
        key = jax.random.fold_in(jax.random.wrap_key_data(state["rng"]), state["step"])
        parts = [
            of_stream(params, name, batch, jax.random.fold_in(key, order.index(name)))
            for name, batch in batches.items()
        ]
        gradients = jax.tree.map(lambda *leaves: sum(leaves), *(part[0] for part in parts))
        trained, kept = frozen.split(params, freeze)
        updates, opt_state = optimizer.update(gradients, state["opt_state"], trained)
        metrics = {key: sum(part[2][key] for part in parts) for key in ("tokens", "padded_tokens", "examples")}
        metrics["gradient_norm"] = optax.tree_utils.tree_norm(gradients)
        metrics["loss"] = sum(losses[name].weight * part[1]["loss"] for name, part in zip(batches, parts, strict=True))
        for name, (_, values, _) in zip(batches, parts, strict=True):
            if len(losses) > 1:
                metrics |= {f"{name}/{key}": value for key, value in values.items()}
            else:
                metrics |= {key: value for key, value in values.items() if key != "loss"}
        # The tree of the argument again: donated buffers are matched to results in order, without copies.
        params = frozen.merge(optax.apply_updates(trained, updates), kept)
        if skip_nonfinite:
            finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
            before = state["params"], state["opt_state"]
            params, opt_state = jax.tree.map(partial(jnp.where, finite), (params, opt_state), before)
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
        found = micro(params, batch=part, key=jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, found), None

    shapes = jax.eval_shape(lambda p, b, k: micro(p, batch=b, key=k), params, jax.tree.map(lambda x: x[0], parts), key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(body, zeros, (jnp.arange(count), parts))[0]
