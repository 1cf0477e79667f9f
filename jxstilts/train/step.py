"""The jitted training step: batch and state in, state and metrics out, sharded over a mesh, state donated.

state = {"params", "opt_state", "step" int32, "rng" uint32 key data}
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
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
from jxstilts.train import optimizer as optimizers
from jxstilts.train.terms import Loss

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
        partial(_moment, whole),
        jax.eval_shape(optimizer.init, frozen.split(shapes, freeze)[0]),
        gradient_shardings(model, mesh, freeze),
        frozen.split(shapes, freeze)[0],
        transform_non_params=lambda _: whole,
        is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode),
    )
    return {"params": placed, "opt_state": moments, "step": whole, "rng": whole}, notes


def abstract_state(
    model: Model, optimizer: optax.GradientTransformation, mesh: Mesh, freeze: Sequence[str] = ()
) -> tuple[State, list[str]]:
    """Returns (ShapeDtypeStructs of the whole state with their shardings, notes)."""
    shardings, notes = state_shardings(model, optimizer, mesh, freeze)
    shapes = jax.eval_shape(lambda params: new_state(params, optimizer, 0, freeze), model.abstract()[0])
    placed = jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, shardings)
    return placed, notes


def _moment(whole: Any, leaf: Any, sharding: Any, param: Any) -> Any:
    """Where a moment lies: as its parameter; those of a factored one, which are small, on every device."""
    if isinstance(leaf, optax.MaskedNode):  # those of another group
        return leaf
    return sharding if leaf.shape == param.shape else whole


def gradient_shardings(model: Model, mesh: Mesh, freeze: Sequence[str] = ()) -> Any:
    """Where the gradients lie, and so the moments and updates: each device has a part of what is trained."""
    shapes, axes = model.abstract()
    return frozen.split(spread(param_shardings(axes, shapes, mesh)[0], shapes, mesh), freeze)[0]


def make_train_step(
    model: Model, losses: Mapping[str, Loss], optimizer: optax.GradientTransformation, mesh: Mesh, **options: Any
) -> Callable[[State, Mapping[str, Any]], tuple[State, dict[str, jax.Array]]]:
    """Returns `train_step(state, batches) -> (state, metrics)`, jitted with explicit shardings.

    batches: stream name -> batch, for one stream or several of `losses`; what is minimised is the sum of their mean
    losses times their weights, and of those of the further objectives (terms that name their streams) on them. A
    batch's rows are split into `accumulation` micro-batches; sums of losses, weights and gradients are added over them
    and over the devices and divided once, so the loss does not depend on how the batch is cut. metrics: loss, accuracy,
    gradient_norm, tokens (real), padded_tokens (with the padding), examples; where there is more than one term in
    `losses`, NAME/loss and NAME/accuracy instead of accuracy; NAME/gradient_norm of the parameters that NAME adds,
    which are not in gradient_norm. Device scalars, nothing is read back.
    options: those of `_Step`.
    """
    shardings, _ = state_shardings(model, optimizer, mesh, options.get("freeze", ()))
    made = _Step(model, dict(losses), optimizer, mesh, **options)
    return jax.jit(
        made.train_step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


@dataclasses.dataclass(frozen=True)
class _Step:
    """The training step, in parts.

    accumulation: micro-batches of a batch. What `freeze` names (see `frozen`) has no gradient and stays as it is, to
    the bit. skip_nonfinite: a step whose loss or gradient norm is not finite leaves parameters, moments and schedule
    as they were.
    """

    model: Model
    losses: Mapping[str, Loss]
    optimizer: optax.GradientTransformation
    mesh: Mesh
    _: dataclasses.KW_ONLY
    context: objectives.Context
    accumulation: int = 1
    freeze: Sequence[str] = ()
    skip_nonfinite: bool = False

    @functools.cached_property
    def _signals(self):
        return {name: loss.signal(name) for name, loss in self.losses.items()}

    @functools.cached_property
    def _placed(self):
        return gradient_shardings(self.model, self.mesh, self.freeze)

    def train_step(self, state, batches):
        with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):  # which `mesh.constrain_rows` reads
            return self._step(state, batches)

    def _step(self, state, batches):
        params = state["params"]
        key = jax.random.fold_in(jax.random.wrap_key_data(state["rng"]), state["step"])
        progress = optimizers.progress(state["opt_state"], state["step"])
        parts = [self._joint(params, progress, group, key) for group in self._groups(batches)]
        gradients = jax.tree.map(lambda *leaves: sum(leaves), *(part[0] for part in parts))
        trained, kept = frozen.split(params, self.freeze)
        handed = {name: arrays for part in parts for name, arrays in part[3].items()}
        more = {"kept": handed} if handed else {}
        updates, opt_state = self.optimizer.update(gradients, state["opt_state"], trained, **more)
        metrics = {name: sum(part[2][name] for part in parts) for name in parts[0][2]}
        norms = _norms(gradients)
        metrics |= norms | self._values({name: sums for part in parts for name, sums in part[1].items()})
        # The tree of the argument again: donated buffers are matched to results in order, without copies.
        params = frozen.merge(optax.apply_updates(trained, updates), kept)
        if self.skip_nonfinite:
            finite = functools.reduce(operator.and_, map(jnp.isfinite, (metrics["loss"], *norms.values())))
            before = state["params"], state["opt_state"]
            params, opt_state = jax.tree.map(partial(jnp.where, finite), (params, opt_state), before)
        return {"params": params, "opt_state": opt_state, "step": state["step"] + 1, "rng": state["rng"]}, metrics

    def _groups(self, batches):
        """Parts a step's batches into those that no objective joins: one group's memory is free before the next."""
        groups = [{name} for name in batches]
        for read in self._terms(batches).values():
            joined = [group for group in groups if group & set(read)]
            groups = [group for group in groups if group not in joined] + [set().union(*joined)]
        return [{name: batches[name] for name in sorted(group)} for group in sorted(groups, key=min)]

    def _terms(self, batches):
        """-> {term: which of its streams are here}, of the terms with one at least"""
        read = {term: set(loss.streams or (term,)) & set(batches) for term, loss in self.losses.items()}
        return {term: sorted(names) for term, names in read.items() if names}

    def _joint(self, params, progress, batches, key):
        """-> (gradients of the sum of the weighted mean losses, {term: {name: (sum, weight)}}, counts, what is kept)"""
        place = {name: i for i, name in enumerate(self.losses)}
        terms, batches = self._terms(batches), dict(batches)
        keys = {}
        for term, read in terms.items():
            first, keys[term] = jax.random.split(jax.random.fold_in(key, place[term]))
            for name in read:
                own = first if name == term else jax.random.fold_in(first, place[name])
                batches[name] = self._signals[term].prepare(batches[name], own, self.context)
        micro = partial(self._micro, params, progress)
        if self.accumulation == 1:  # scaled before the backward pass, not after it in one more pass over all gradients
            (gradients, sums), kept = micro(batches, keys, self._scales)
        else:  # by the first's scale after the scan; the others' are shares of it, so their weights come before
            first = next((term for term in terms if self._signals[term].HEAD is not None), min(terms))
            shares = {first: 1.0}
            if len(terms) > 1:
                scales = self._scales(self._accumulate(partial(self._weights, params, progress), batches, keys)[0])
                shares = {term: scale / scales[first] for term, scale in scales.items()} | shares
            (gradients, sums), kept = self._accumulate(partial(micro, scales=lambda _: shares), batches, keys)
            gradients = jax.tree.map(partial(operator.mul, self._scales(sums)[first]), gradients)
        counts = {
            "tokens": sum((batch["segments"] > 0).sum() for batch in batches.values()),
            "padded_tokens": sum(jnp.asarray(batch["segments"].size) for batch in batches.values()),
            "examples": sum((batch["weights"] > 0).sum() for batch in batches.values()),
        }
        return gradients, sums, counts, kept

    def _micro(self, params, progress, batches, keys, scales):
        """-> (gradients of the sum of the losses, each times its scale; sums), kept. scales: sums -> {term: scale}"""
        trained, kept = frozen.split(params, self.freeze)

        def total(trained):
            sums, arrays = self._sums(frozen.merge(trained, kept), progress, batches, keys)
            factors = scales(sums)
            whole = functools.reduce(operator.add, (sums[term]["loss"][0] * factors[term] for term in sums))
            return whole, (sums, arrays)

        (_, (sums, arrays)), gradients = jax.value_and_grad(total, has_aux=True)(trained)
        return (jax.lax.with_sharding_constraint(gradients, self._placed), sums), arrays

    def _sums(self, params, progress, batches, keys):
        """-> {term: {"loss": (sum, weight), and its logs}}, {term: arrays that its optimizer is handed}

        Of a micro-batch of each stream, each encoded once.
        """
        terms, signals = self._terms(batches), self._signals
        every = {name for term, read in terms.items() if signals[term].reads_all(self.model) for name in read}
        passes = {
            name: objectives.Forward(self.model, params, batch, keys[name], name in every)
            for name, batch in batches.items()
        }
        found, kept = {}, {}
        for term, read in terms.items():
            here = {name: passes[name] for name in read}
            rng = passes[term].rng if term in passes else keys[term]
            total, weight, logs = signals[term].loss(self.model, params, here, rng, progress)
            found[term] = {**logs, "loss": (total, weight)}
            if (arrays := signals[term].kept(self.model, here)) is not None:
                kept[term] = arrays
        return found, kept

    def _weights(self, params, progress, batches, keys):
        """`_sums` with the losses' weights alone. Those come from the batch, so the compiler drops the passes."""
        sums, _ = self._sums(params, progress, batches, keys)
        return {term: {"loss": (jnp.zeros(()), found["loss"][1])} for term, found in sums.items()}, {}

    def _scales(self, sums):
        return {
            term: self.losses[term].weight / jnp.maximum(jax.lax.stop_gradient(found["loss"][1]), 1e-6)
            for term, found in sums.items()
        }

    def _values(self, sums):
        """-> metrics: the weighted sum of the terms' mean losses, and each term's own means"""
        values = {
            term: {name: total / jnp.maximum(weight, 1e-6) for name, (total, weight) in found.items()}
            for term, found in sums.items()
        }
        metrics = {"loss": sum(self.losses[term].weight * found["loss"] for term, found in values.items())}
        for term, found in values.items():
            if len(self.losses) > 1:
                metrics |= {f"{term}/{name}": value for name, value in found.items()}
            else:
                metrics |= {name: value for name, value in found.items() if name != "loss"}
        return metrics

    def _accumulate(self, function, batches, keys):
        """Scans over micro-batches; function(batches=, keys=) gives what is added over them, and arrays of rows."""
        count = self.accumulation
        for name, batch in batches.items():
            if len(batch["tokens"]) % count:
                raise InputError(f"{name}: batch_size={len(batch['tokens'])} is not a multiple of accumulation={count}")
        # Row i goes to micro-batch i % count: each device keeps its own rows, nothing moves between devices.
        parts = jax.tree.map(lambda x: x.reshape(len(x) // count, count, *x.shape[1:]).swapaxes(0, 1), batches)

        def one(index, part):
            return function(batches=part, keys=jax.tree.map(lambda key: jax.random.fold_in(key, index), keys))

        def body(total, part):
            found, rows = one(*part)
            return jax.tree.map(jnp.add, total, found), rows

        shapes, _ = jax.eval_shape(one, 0, jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        total, rows = jax.lax.scan(body, zeros, (jnp.arange(count), parts))
        return total, jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), rows)


def _norms(gradients):
    """-> gradient_norm, and NAME/gradient_norm of each branch of "extra", whose optimizer is apart"""
    extra = {f"{name}/gradient_norm": branch for name, branch in gradients.get("extra", {}).items()}
    parts = {"gradient_norm": {room: tree for room, tree in gradients.items() if room != "extra"}, **extra}
    return {name: optax.tree_utils.tree_norm(part) for name, part in parts.items()}
