"""Which rows of the token embeddings a phase trains: those that its inputs read.

A row that no input reads has no gradient, so its moments stay 0, and all that AdamW does to it is the decay: a factor
(1 - rate_t * weight_decay) in update t (Loshchilov and Hutter 2019, algorithm 2). So the state of a phase in training
holds a small table of the rows that its data reads, with the tokens numbered anew; the other rows are multiplied by the
product of those factors where the whole table is asked for: dev evaluation, checkpoints, the bundle.

Rows that train have the gradients, the clipping norm and the updates of full training, but for the order of sums in
float32. The others are within 2^-22 of their value of what exact arithmetic gives (the factor and the product are each
rounded once), however many steps there are; float32's own training rounds them in every step.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jxstilts.checkpoint import leaves
from jxstilts.models.model import Model, Params, head_class
from jxstilts.train import frozen, objectives
from jxstilts.train import optimizer as optimizers

State = dict[str, Any]
CHOICES = ("occurring", "whole")
UNIT = 128  # the number of rows is a multiple of it, so that the table divides over a mesh


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """The rows that are trained. ids: int32 [A], ascending; size: rows of the whole table."""

    ids: np.ndarray
    size: int

    @functools.cached_property
    def places(self) -> np.ndarray:
        """int32 [size]: the place of each token among the rows; -1 where it has none."""
        found = np.full(self.size, -1, np.int32)
        found[self.ids] = np.arange(len(self.ids), dtype=np.int32)
        return found

    def model(self, model: Model) -> Model:
        """Returns the model with the small table."""
        return with_rows(model, len(self.ids))

    def __str__(self) -> str:
        return f"{len(self.ids):,} of {self.size:,} token embeddings are trained, those that occur; the others decay"


def with_rows(model: Model, count: int) -> Model:
    """Returns the model with a table of so many token embeddings."""
    return dataclasses.replace(model, config=dataclasses.replace(model.config, vocab_size=count))


def why_whole(phase: Any, model: Model) -> str:
    """Says why a phase trains the whole table; "" where it may train the rows that occur.

    model: with the phase's heads and its objectives' parameters.
    """
    if phase.vocabulary == "whole":
        return "as configured"
    if phase.optimizer.name != "adamw":
        return f"{phase.optimizer.name} scales by the size of the whole table"
    readers = [spec.name for spec in model.head_specs if head_class(spec.type).whole_vocabulary]
    if readers:
        return f"the head {', '.join(readers)} has a logit for each"
    path = table(model)
    if path is None:
        return "its parameters have other arrays with a row for each token, or none"
    if path not in leaves(frozen.split(model.abstract()[0], phase.freeze)[0]):
        return "it is frozen"
    used = [stream.objective for stream in phase.tasks.values()]
    used += [entry.objective for entry in phase.objectives.values() if entry.weight]
    readers = sorted({name for name in used if objectives.get(name).WHOLE_VOCABULARY})
    return f"the objective {', '.join(readers)} may read any row" if readers else ""


def rows(tokens: Sequence[np.ndarray], always: Sequence[int], size: int) -> Rows | None:
    """Returns the rows that are in one of the arrays of token ids, or in `always`; None where these are nearly all.

    They are filled up to a multiple of UNIT with the first that do not occur: such a row has a gradient of 0.
    """
    read = np.zeros(size, bool)
    for ids in (*tokens, np.asarray(always, np.int64)):
        read[ids] = True
    wanted = -(-int(read.sum()) // UNIT) * UNIT
    if wanted >= size:
        return None
    read[np.flatnonzero(~read)[: wanted - int(read.sum())]] = True
    return Rows(np.flatnonzero(read).astype(np.int32), size)


def table(model: Model) -> str | None:
    """Returns the path of the token embeddings where no other array has a row for each token, else None."""
    shapes, axes = model.abstract()
    named = jax.tree_util.tree_flatten_with_path(axes, is_leaf=lambda node: isinstance(node, tuple))[0]
    tables = [jax.tree_util.keystr(path, simple=True, separator="/") for path, names in named if "vocab" in names]
    if len(tables) != 1 or not tables[0].startswith("encoder/"):
        return None
    return tables[0] if leaves(shapes)[tables[0]].shape[0] == model.config.vocab_size else None


class Table:
    """The token embeddings of a phase: the small table in its state, and the whole one wherever that is asked for.

    rows: None for a state that holds the whole table; then every method returns what it is given.
    start: the parameters that the phase starts from; the table among them is kept. small, whole: the state in shapes
    with their shardings, as it is in training and with the whole table.
    """

    def __init__(self, rows: Rows | None, model: Model, start: Params, small: State, whole: State):
        self.rows = rows
        if rows is not None:
            self._path, self._ids, self._small, self._whole = table(model), rows.ids, small, whole
            self._start, self._factors = leaves(start)[self._path], np.ones(1)

    def decays(self, config: optimizers.Optimizer, steps: int) -> None:
        """Takes the schedule by which rows decay that do not occur."""
        schedule = optimizers.schedule(config, steps)
        rates = jax.vmap(lambda count: schedule._replace(count=count).rate())(jnp.arange(steps))
        self._factors = np.cumprod(np.append(1.0, 1.0 - np.asarray(rates, np.float64) * config.weight_decay))

    def take(self, params: Params) -> Params:
        """Returns the parameters with the small table."""
        if self.rows is None:
            return params
        sharding = leaves(self._small["params"])[self._path].sharding
        return self._replaced(params, _picker(sharding)(self._start, self._ids))

    def params(self, state: State) -> Params:
        """Returns a state's parameters with the whole table."""
        if self.rows is None:
            return state["params"]
        factor = np.float32(self._factors[optimizers.updates(state["opt_state"])])
        small = leaves(state["params"])[self._path]
        table = _spreader(self._start.sharding)(self._start, factor, self._ids, small)
        return self._replaced(state["params"], table)

    def widen(self, state: State) -> State:
        """Returns the state that full training has, whose moments are 0 where nothing is read."""
        if self.rows is None:
            return state

        def filled(leaf, like):
            same = leaf.shape == like.shape
            return leaf if same else _filler(like.shape, like.sharding)(self._ids, leaf)

        rest = {key: jax.tree.map(filled, state[key], self._whole[key]) for key in state if key != "params"}
        return {"params": self.params(state), **rest}

    def narrow(self, state: State) -> State:
        """Returns the small state of what `widen` returned."""
        if self.rows is None:
            return state

        def picked(leaf, like):
            return leaf if leaf.shape == like.shape else _picker(like.sharding)(leaf, self._ids)

        return jax.tree.map(picked, state, self._small)

    def _replaced(self, params: Params, table: jax.Array) -> Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: table if jax.tree_util.keystr(path, simple=True, separator="/") == self._path else leaf,
            params,
        )


@functools.cache
def _picker(sharding):
    return jax.jit(lambda table, ids: table[ids], out_shardings=sharding)


@functools.cache
def _filler(shape, sharding):
    return jax.jit(lambda ids, rows: jnp.zeros(shape, rows.dtype).at[ids].set(rows), out_shardings=sharding)


@functools.cache
def _spreader(sharding):
    def spread(start, factor, ids, rows):
        return (start.astype(jnp.float32) * factor).astype(start.dtype).at[ids].set(rows)

    return jax.jit(spread, out_shardings=sharding)
