"""Pure jitted prediction: one compilation per kind of head and batch shape, shared by all tasks and languages."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jxstilts.data import batching, packing
from jxstilts.data.features import Features
from jxstilts.forms import Form
from jxstilts.mesh import batch_divisor, put_whole, replicated
from jxstilts.models.model import Batch, Model, Params
from jxstilts.runtime import InputError


def predict(model: Model, params: Params, head: str, batch: Batch, mesh: Mesh | None = None) -> dict[str, jax.Array]:
    """Returns a head's arrays for one batch (see the head's `predict`), jitted, without dropout.

    With a mesh, a host batch is put on it (rows over the batch axes) and the result is whole on every device. Heads of
    one type with the same labels share a compilation, whatever their names and those beside them.
    """
    own = model.head(head)
    spec, run = dataclasses.replace(own.spec, name=""), compiled(own.decodes)
    rooms = {room: params[room] for room in ("encoder", "adapters") if room in params}
    params = {**rooms, "heads": {"": params["heads"].get(head, {})}}
    model, head = model.with_heads(spec), ""
    if mesh is not None:
        return run(model, head, replicated(mesh), params, put_whole(batch, mesh))
    return run(model, head, None, params, dict(batch))


@functools.cache
def compiled(decodes: bool = False):
    """Returns `_predict`, jitted: at the first call, since which options suit it depends on the platform.

    decodes: token by token. Few rows times a table of words are a product that YNNPACK makes in half of Eigen's time.
    """
    return jax.jit(_predict, static_argnums=(0, 1, 2), compiler_options={} if decodes else compiler_options())


@functools.cache
def compiler_options() -> dict[str, str]:
    """Returns XLA's options for a forward pass: on a CPU Eigen's products, which take less time than YNNPACK's."""
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}  # leaves out those of products
    return options if jax.default_backend() == "cpu" and _knows(options) else {}


def _knows(options: dict[str, str]) -> bool:
    """Whether this XLA has these options: it comes with jaxlib, and what it lacks it need not be told to leave out."""
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return False
    return True


def _predict(model, head, out_sharding, params, batch):
    if out_sharding is None:
        return model.predict(params, head, batch)
    with jax.sharding.use_abstract_mesh(out_sharding.mesh.abstract_mesh):  # which `mesh.constrain_rows` reads
        return jax.lax.with_sharding_constraint(model.predict(params, head, batch), out_sharding)


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


def _check_finite(batch: Batch, array: np.ndarray) -> None:
    """Raises InputError where a head gives a real row something that is no number; a class is then -1."""
    fine = np.isfinite(array) if array.dtype.kind == "f" else array >= 0
    if fine.all():
        return
    rows = batch["index"][(~fine).reshape(len(fine), -1).any(1)]
    if (rows >= 0).any():
        raise InputError(
            f"the model's outputs are not finite (NaN or infinite), first in input {rows[rows >= 0].min()}: its "
            "weights, or its dtype (float16 overflows where bfloat16 does not), do not suit these inputs"
        )


def each(run: Any, head: str, features: Features, form: Form, limit: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (feature index, its array) of what a head says, each feature once, in no order.

    The array is [...] of the feature's segment, or [T, ...] of its own tokens (see `Form.per_token`). Several features
    share a row (see `packing.plan_evaluation`), so that one or two shapes serve all lengths, languages and tasks, and
    next to nothing is padding; of a form whose inputs stand alone, a batch holds those of like lengths.

    Args:
        run: an `evaluator.Evaluator` whose max_length and tokens_per_batch are decided.
        form: says which array of the head's is taken.
        limit: only the first features; 0 = all.
    """
    count = min(limit or len(features), len(features))
    lengths = features.lengths[:count]
    plan = packing.plan_alone if form.alone else packing.plan_evaluation
    plans, segments = plan(
        lengths,
        tokens_per_batch=run.options.tokens_per_batch,
        max_length=run.options.max_length,
        multiple_of=batch_divisor(run.mesh) if run.mesh else 1,
    )
    # without the form's own fields: there is no gold, and the choices of a question need not be together
    fields, pad_id = run.model.template.fields, run.tokenizer.pad_token_id or 0
    batches = batching.batches(features, plans, fields=fields, max_segments=segments, pad_id=pad_id)
    for batch, arrays in predict_all(run.model, run.params, head, batches, run.mesh):
        _check_finite(batch, arrays[form.output])
        for row, slot in np.argwhere(batch["index"] >= 0).tolist():
            index = int(batch["index"][row, slot])
            if form.per_token:
                first = batch["first"][row, slot]
                yield index, arrays[form.output][row, first : first + lengths[index]]
            else:
                yield index, arrays[form.output][row, slot]
