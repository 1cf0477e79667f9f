"""What a phase takes over from the one before it: the encoder; heads only when they are asked for by name; and the
parameters of further objectives where they are a part of the model (`objectives`, KEPT) and both have them; and so the
adapters.
"""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh

from jxstilts.checkpoint import leaves
from jxstilts.mesh import param_shardings
from jxstilts.models.model import Model, Params
from jxstilts.runtime import InputError


@dataclasses.dataclass(frozen=True)
class Handover:
    """Three lists of parameter groups; printed and recorded with every phase."""

    loaded: tuple[str, ...]
    new: tuple[str, ...]
    dropped: tuple[str, ...]


def take_over(
    model: Model, start: Params | None, keep_heads: tuple[str, ...], seed: int, mesh: Mesh
) -> tuple[Params, Handover]:
    """Returns the phase's first parameters, on the mesh, and what came from where.

    Args:
        model: the phase's model; what does not come from `start` is initialised from `seed`.
        start: parameters of the phase before, or None for a random start. What is taken is not copied where it lies
            right already: a training step, which donates its state, uses it up.
        keep_heads: names of heads that must come from `start`.
    Raises InputError: a head to keep that `start` lacks, an encoder tensor that is missing, unexpected or of another
        shape (every one is named).
    """
    shapes, axes = model.abstract()
    shardings, _ = param_shardings(axes, shapes, mesh)
    key = jax.random.key(seed)
    if start is None:
        params = jax.jit(model.init, out_shardings=shardings)(key)
        return params, Handover((), tuple(_groups(params)), ())
    for head in keep_heads:
        if head not in start["heads"] or head not in shapes["heads"]:
            raise InputError(
                f"keep_heads: no head {head!r} to take over; the starting point has "
                f"{', '.join(sorted(start['heads'])) or 'none'}, this phase uses {', '.join(sorted(shapes['heads']))}"
            )
    places = {room: shardings[room] for room in shardings if room != "encoder"}
    params = {"encoder": _replace("encoder", shapes["encoder"], start["encoder"], shardings["encoder"])}
    params |= jax.jit(model.init_beside, out_shardings=places)(key)
    taken = [("heads", name) for name in sorted(keep_heads)]
    for room in ("extra", "adapters"):
        taken += [(room, name) for name in sorted(shapes.get(room, {})) if name in start.get(room, {})]
    for room, name in taken:
        own, given = shapes[room][name], start[room][name]
        params[room][name] = _replace(f"{room}/{name}", own, given, shardings[room][name])
    loaded = ["encoder", *map("/".join, taken)]
    lists = Handover(
        tuple(loaded),
        tuple(name for name in _groups(params) if name not in loaded),
        tuple(name for name in _groups(start) if name not in loaded),
    )
    return params, lists


def _groups(params: Params) -> list[str]:
    rooms = [room for room in ("heads", "extra", "adapters") if room in params]
    return ["encoder", *(f"{room}/{name}" for room in rooms for name in sorted(params[room]))]


def _replace(group: str, own: Any, given: Any, shardings: Any) -> Any:
    expected, found = leaves(own), leaves(given)
    wrong = [f"{group}/{path}: not in the starting point" for path in expected if path not in found]
    wrong += [f"{group}/{path}: not in this phase's model" for path in found if path not in expected]
    wrong += [
        f"{group}/{path}: expected {expected[path].shape}, found {found[path].shape}"
        for path in expected
        if path in found and expected[path].shape != found[path].shape
    ]
    if wrong:
        raise InputError("the starting point does not fit this phase's model: " + "; ".join(wrong))
    cast = jax.tree.map(lambda new, old: new.astype(old.dtype), given, own)
    return jax.device_put(cast, shardings)
