"""The command: options -> a mesh and a limit -> the report, and one line of error where something does not fit."""

import json
from collections.abc import Sequence

from jxstilts import config, runtime, study
from jxstilts import mesh as meshes
from jxstilts.check import chips, report
from jxstilts.runtime import InputError


def run(
    argv: Sequence[str], topology: str = "", device_memory: str = "", only: str = "", as_json: bool = False
) -> None:
    """Checks a study.

    argv: --config=... and overrides. topology: a TPU slice to compile for, such as v5e:4x8; "" = the devices here.
    device_memory: see `chips.memory`; "" = that of the slice's chips, or of the GPU here, else no limit.
    Raises InputError where something does not fit, cannot be split over the devices, or is malformed.
    """
    found = study.only(study.from_config(config.load(argv), to_run=False), only)
    limit = chips.memory(device_memory) if device_memory else None
    runtime.start(found.compile_cache or None)
    chip = devices = None
    if topology:
        chip, devices = chips.chip_of(topology), chips.devices(topology)
        limit = chip.memory if limit is None else limit
    mesh = meshes.make_mesh(found.mesh, devices)
    if limit is None and not topology:
        limit = (mesh.devices.flat[0].memory_stats() or {}).get("bytes_limit")
    silent = (lambda text: None) if as_json else (lambda text: print(text, flush=True))
    where = topology or f"{mesh.size} x {mesh.devices.flat[0].device_kind}"
    silent(f"{found.study} on {where}, mesh {' x '.join(f'{axis} {n}' for axis, n in mesh.shape.items())}\n")
    result = report.check(found, mesh, limit=limit, chip=chip, say=silent)
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        _notes(result, topology, limit)
    if result["problems"]:
        more = f"; {len(result['problems']) - 1} more steps have problems" if len(result["problems"]) > 1 else ""
        helps = f"; {result['helps']}" if result["helps"] else ""
        raise InputError(f"{result['problems'][0]}{helps}{more}")


def _notes(result: dict, topology: str, limit: int | None) -> None:
    """Prints what the figures are, and are not."""
    print()
    if result["unknown"]:
        print(f"Not checked, since only fetching the model would tell its size: {', '.join(result['unknown'])}")
    if not topology and result["device_kind"] == "cpu":
        print("Memory is as XLA's CPU compiler plans it, which computes bfloat16 in float32: an estimate for a GPU.")
    totals = [row["memory"]["total"] for row in result["steps"] if "memory" in row]
    if limit and not topology and totals and max(totals) > 0.75 * limit:
        print("JAX takes 75 % of a GPU's memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise: set it to .95.")
