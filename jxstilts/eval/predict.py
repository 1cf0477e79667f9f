"""Pure jitted prediction: one compilation per model, head and batch shape, shared by all tasks and languages."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jxstilts.mesh import put_batch, replicated
from jxstilts.models.model import Batch, Model, Params


def predict(model: Model, params: Params, head: str, batch: Batch, mesh: Mesh | None = None) -> dict[str, jax.Array]:
    """Returns a head's arrays for one batch (see the head's `predict`), jitted, without dropout.

    With a mesh, a host batch is put on it (rows over the batch axes) and the result is whole on every device.
    """
    if mesh is not None:
        return _predict(model, head, replicated(mesh), params, put_batch(batch, mesh))
    return _predict(model, head, None, params, dict(batch))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _predict(model, head, out_sharding, params, batch):
    result = model.predict(params, head, batch)
    if out_sharding is not None:
        result = jax.lax.with_sharding_constraint(result, out_sharding)
    return result


def predict_all(
    model: Model, params: Params, head: str, batches: Iterable[Batch], mesh: Mesh | None = None, ahead: int = 2
) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
    """Yields (batch, host arrays) in order, keeping `ahead` batches on the device while the host reads one."""
    waiting: list[tuple[Any, dict[str, jax.Array]]] = []
    for batch in batches:
        waiting.append((batch, predict(model, params, head, batch, mesh)))
        if len(waiting) > ahead:
            done, arrays = waiting.pop(0)
            yield done, jax.device_get(arrays)
    for done, arrays in waiting:
        yield done, jax.device_get(arrays)
