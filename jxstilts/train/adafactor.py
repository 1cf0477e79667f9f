"""Adafactor (Shazeer and Stern 2018) with the settings of t5x, without momentum.

The numbers of `optax.adafactor`, but for stacked layers: there each layer is a parameter of its own, as in t5x; optax
would take the size of all of them together for that of each.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

FACTORED = 128  # a matrix whose smaller side is less has a second moment of its own for each element
DECAY = 0.8
LEAST, LEAST_SIZE = 1e-30, 1e-3  # of a squared gradient, and of a parameter's size


class Moments(NamedTuple):
    """Second moments: of rows and columns, or where those do not stand for them, of each element; [1] where unused."""

    count: jax.Array
    rows: Any
    columns: Any
    whole: Any


def scale_by_adafactor() -> optax.GradientTransformation:
    """Returns gradients over their size, clipped at 1, times the size of their parameter; a rate is still to come."""

    def init(params):
        made = jax.tree_util.tree_map_with_path(lambda path, leaf: _zeros(_sides(path, leaf.shape), leaf), params)
        return Moments(jnp.zeros((), jnp.int32), *(_part(made, place) for place in range(3)))

    def update(gradients, state, params):
        decay = 1.0 - (state.count + 1.0) ** -DECAY
        made = jax.tree_util.tree_map_with_path(
            lambda path, *leaves: _updated(path, decay, *leaves), gradients, *state[1:], params
        )
        updates, *moments = (_part(made, place) for place in range(4))
        return updates, Moments(state.count + 1, *moments)

    return optax.GradientTransformation(init, update)


class _Made(tuple):
    """What is made of one leaf; no part of the tree."""

    __slots__ = ()


def _part(made: Any, place: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[place], made, is_leaf=lambda node: isinstance(node, _Made))


def _sides(path: Any, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The two largest dimensions, the largest last, of a matrix that is factored; None: it is not."""
    first = _stacked(path)
    if len(shape) - first < 2:
        return None
    order = first + np.argsort(shape[first:])
    return None if shape[order[-2]] < FACTORED else (int(order[-2]), int(order[-1]))


def _stacked(path: Any) -> int:
    """1 where the first dimension counts layers."""
    return int(any(getattr(part, "key", None) == "layers" for part in path))


def _zeros(sides, leaf):
    if sides is None:
        return _Made((jnp.zeros(1), jnp.zeros(1), jnp.zeros(leaf.shape)))
    rows, columns = (tuple(np.delete(leaf.shape, side).tolist()) for side in (sides[1], sides[0]))
    return _Made((jnp.zeros(rows), jnp.zeros(columns), jnp.zeros(1)))


def _updated(path, decay, gradient, rows, columns, whole, param):
    own = tuple(range(_stacked(path), gradient.ndim))  # the dimensions of one parameter
    sides, dtype = _sides(path, gradient.shape), gradient.dtype
    gradient = gradient.astype(jnp.float32)
    square = jnp.square(gradient) + LEAST
    if sides is None:
        whole = decay * whole + (1 - decay) * square
        update = gradient * jax.lax.rsqrt(whole)
    else:
        small, large = sides
        rows = decay * rows + (1 - decay) * square.mean(large)
        columns = decay * columns + (1 - decay) * square.mean(small)
        mean = rows.mean(small - (large < small), keepdims=True)
        update = gradient * jnp.expand_dims(jax.lax.rsqrt(rows / mean), large)
        update = update * jnp.expand_dims(jax.lax.rsqrt(columns), small)

    def size(x):
        return jnp.sqrt(jnp.square(x).mean(own, keepdims=True))

    update = update / jnp.maximum(1.0, size(update)) * jnp.maximum(size(param.astype(jnp.float32)), LEAST_SIZE)
    return _Made((update.astype(dtype), rows, columns, whole))
