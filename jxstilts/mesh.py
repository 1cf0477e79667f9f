"""The device mesh and the rules that place arrays on it.

Axes: `data` splits the batch, `fsdp` splits the batch and the parameters, `tensor` splits heads, MLP and vocabulary.
Parameters carry logical axis names; RULES maps each name to a mesh axis. Nothing else in the package names mesh axes.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jxstilts.runtime import InputError, suggest

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
SPREAD_FROM = 4 * 2**20  # bytes; below, the collectives' latency costs more than the memory is worth
RULES: dict[str, str | None] = {
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",  # the joined [heads * head width] dimension
    "mlp": "tensor",
    "positions": None,
    "layers": None,
    "classes": None,
    "norm": None,
}


def make_mesh(sizes: Mapping[str, int] | None = None, devices: list | None = None) -> Mesh:
    """Returns a mesh over `devices` (default: all). `sizes` gives each axis' size; one may be -1 (what is left).

    Raises InputError for an unknown axis or when the sizes do not multiply to the number of devices.
    """
    devices = all_devices() if devices is None else devices
    sizes = {"data": -1} if sizes is None else dict(sizes)
    for axis in sizes:
        if axis not in AXES:
            raise InputError(f"config.mesh: {suggest('mesh axis', axis, AXES)}")
    shape = [sizes.get(axis, 1) for axis in AXES]
    if shape.count(-1) > 1 or any(n < 1 and n != -1 for n in shape):
        raise InputError(f"config.mesh={sizes}: sizes are positive, and at most one of them -1")
    if -1 in shape:
        fixed = -int(np.prod(shape))
        shape[shape.index(-1)] = max(len(devices) // fixed, 1)
    if int(np.prod(shape)) != len(devices):
        raise InputError(
            f"config.mesh={sizes} needs {int(np.prod(shape))} devices, but there are {len(devices)}; "
            "change config.mesh (one axis may be -1)"
        )
    return Mesh(np.asarray(devices).reshape(shape), AXES)


def all_devices() -> list:
    """Returns the devices that JAX finds. Raises InputError where there are none of the kind that it has to take."""
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # jaxlib without the platform: a bare assertion
        asked = os.environ.get("JAX_PLATFORMS", "")
        said = " ".join(str(error).split()).partition(" (set JAX_PLATFORMS")[0]
        said = said or "there is no such device here, or jaxlib cannot use it"
        hint = "JAX_PLATFORMS=cpu takes the CPU; unset, JAX takes what is here"
        raise InputError(f"JAX_PLATFORMS={asked}: {said}; {hint}") from error


def batch_divisor(mesh: Mesh) -> int:
    """Returns the number that a batch's rows must be a multiple of."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of every batch array: rows over `data` and `fsdp`, the rest whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def row_groups(rows: int) -> int:
    """Returns how many groups of devices hold different rows of a batch, where `use_abstract_mesh` says a mesh; or 1.

    1 also for fewer rows than devices (initialisation, a single example): those are left to the compiler.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(BATCH_AXES) <= set(mesh.axis_names):
        return 1
    count = mesh.shape["data"] * mesh.shape["fsdp"]
    return 1 if rows % count else count


def on_one_cpu() -> bool:
    """Whether what is traced now is for a CPU as one device: as `use_abstract_mesh` says, else the process' own."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return jax.default_backend() == "cpu"
    device = mesh.abstract_device
    return mesh.size == 1 and device is not None and device.device_kind == "cpu"


def constrain_rows(x: jax.Array, *, whole: bool = True) -> jax.Array:
    """Keeps the leading (row) dimension of an activation on the batch axes, where `use_abstract_mesh` says a mesh.

    whole: the other dimensions are not split; False: as the compiler likes.
    """
    if row_groups(x.shape[0]) == 1:
        return x
    others = () if whole else (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH_AXES, *others))


def param_shardings(axes: Any, shapes: Any, mesh: Mesh) -> tuple[Any, list[str]]:
    """Places parameters by their logical axes.

    Args:
        axes: tree of tuples of logical names, one per dimension, e.g. ("layers", "embed", "mlp").
        shapes: the same tree of arrays or ShapeDtypeStructs.
    Returns:
        (tree of NamedSharding, notes): a note for each rule that could not apply because the dimension does not
        divide; that dimension stays whole.
    """
    notes: list[str] = []

    def place(path, names, leaf):
        spec = []
        for name, size in zip(names, leaf.shape, strict=True):
            axis = RULES[name] if name is not None else None
            if axis is not None and size % mesh.shape[axis]:
                notes.append(
                    f"{jax.tree_util.keystr(path, simple=True, separator='/')}: dimension {name}={size} "
                    f"does not divide over {axis}={mesh.shape[axis]}; kept whole"
                )
                axis = None
            spec.append(axis)
        return NamedSharding(mesh, PartitionSpec(*spec))

    placed = jax.tree_util.tree_map_with_path(place, axes, shapes, is_leaf=lambda x: isinstance(x, tuple))
    return placed, notes


def spread(placed: Any, shapes: Any, mesh: Mesh) -> Any:
    """Places what only the optimizer reads: as the parameters are `placed`, and split over `data` too.

    So Rajbhandari et al. 2020 (ZeRO, stage 1). Split is the dimension that is largest on a device and divides; arrays
    below SPREAD_FROM, and those without such a dimension, stay as they are.
    """
    count = mesh.shape["data"]

    def place(leaf, sharding):
        sizes = [size if size % count == 0 else 0 for size in sharding.shard_shape(leaf.shape)]
        if count == 1 or leaf.size * leaf.dtype.itemsize < SPREAD_FROM or not max(sizes):
            return sharding
        split = sizes.index(max(sizes))
        spec = [(axis, "data") if place == split and axis else axis for place, axis in enumerate(sharding.spec)]
        spec[split] = spec[split] or "data"
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(place, shapes, placed)


def process_rows(mesh: Mesh) -> tuple[int, int]:
    """Returns (i, n): the rows that this process's devices hold are part i of n equal parts of every batch.

    Processes that the tensor axis joins hold the same rows. Raises InputError where a process's rows lie apart.
    """
    rows = batch_divisor(mesh)
    held = batch_sharding(mesh).addressable_devices_indices_map((rows,)).values()
    mine = sorted({row for (place,) in held for row in range(*place.indices(rows))})
    if len(mine) != mine[-1] + 1 - mine[0] or rows % len(mine) or mine[0] % len(mine):
        raise InputError(
            f"config.mesh={dict(mesh.shape)}: the rows of a batch that process {jax.process_index()} would hold, "
            f"{mine} of {rows}, are not one of equal parts; let the data axis take the processes (data=-1)"
        )
    return mine[0] // len(mine), rows // len(mine)


def put_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
    """Puts this process's rows of a batch (see `process_rows`) on its devices: [B/n, ...] -> global arrays [B, ...].

    Of a dict of batches: of each.
    """
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), dict(batch))


def put_whole(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
    """Puts a batch that every process holds whole on the devices, each its own rows: [B, ...] -> global arrays."""
    sharding = batch_sharding(mesh)
    return {name: put_array(array, sharding) for name, array in batch.items()}


def put_array(array: np.ndarray, sharding: NamedSharding | None) -> jax.Array:
    """Puts an array that every process holds whole on the devices; None: on this process's first."""
    if sharding is None:
        return jax.numpy.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
