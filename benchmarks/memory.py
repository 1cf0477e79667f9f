"""Memory of a training step per device, as the compiler plans it: what remat, accumulation, splitting and the token
embeddings that occur save.

    python -m benchmarks.memory [--model=base] [--device_memory=24GiB] [--topology=v5e:2x4] [--out=F.json]

Compiled from shapes alone, for the devices of this process or for a TPU slice (libtpu); nothing is allocated. On a CPU
it is what XLA's CPU compiler plans, an estimate for a GPU. There is no peer, so there is no ratio.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import command
from benchmarks.tpu import classifier
from jxstilts import runtime
from jxstilts.check import chips, program
from jxstilts.mesh import make_mesh
from jxstilts.models.layers import Compute
from jxstilts.tracking import hardware

OCCUR = 14_848  # token embeddings of MNLI's first 9,000 rows, as a phase trains them
WAYS = {  # name: remat, accumulation, token embeddings that are trained (0 = all)
    "none": ("none", 1, 0),
    "embeddings that occur": ("none", 1, OCCUR),
    "accumulation 4": ("none", 4, 0),
    "remat dots": ("dots", 1, 0),
    "remat full": ("full", 1, 0),
    "remat full, accumulation 4": ("full", 4, 0),
    "all of these": ("full", 4, OCCUR),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its table and returns the exit code."""
    return command.main(_parser(), run, table, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="base", help="comma-separated presets of the xlmr family")
    parser.add_argument("--out", default="", help="JSON file to write")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"), help="of the computation")
    parser.add_argument("--axis", default="data", choices=("data", "fsdp", "tensor"), help="mesh axis of all devices")
    parser.add_argument("--device_memory", default="", help="such as 24GiB, or the name of a device")
    parser.add_argument("--topology", default="", help="a TPU slice in place of this process's devices")
    return parser


def run(options: argparse.Namespace) -> dict:
    """Compiles, and returns what `--out` writes. Raises InputError for a device or a slice that is not known."""
    limit = chips.memory(options.device_memory) if options.device_memory else None
    devices = None
    if options.topology:
        devices = chips.devices(options.topology)
        limit = limit or chips.chip_of(options.topology).memory
    mesh = make_mesh({options.axis: -1}, devices)
    rows = []
    for preset in filter(None, options.model.split(",")):
        for name, (remat, accumulation, embeddings) in WAYS.items():
            compute = Compute(dtype=options.dtype, remat=remat)
            made = classifier(
                preset, options.batch_size, options.length, compute=compute, accumulation=accumulation,
                embeddings=embeddings,
            )  # fmt: skip
            program.refuse_small(made.shapes, accumulation, mesh, "step")
            compiled = program.compile(made, mesh)
            row: dict[str, Any] = {"model": preset, "way": name, "parameters": compiled.parameters, "memory": None}
            if compiled.memory:
                row["memory"] = dataclasses.asdict(compiled.memory) | {"total": compiled.memory.total}
                row["flops"] = compiled.cost.flops
            small = compiled.memory is not None and (limit is None or compiled.memory.total <= limit)
            rows.append(row | {"fits": None if limit is None else small, "why": compiled.too_large})
    return {
        "rows": rows,
        "batch_size": options.batch_size,
        "length": options.length,
        "dtype": options.dtype,
        "mesh": dict(mesh.shape),
        "device": options.topology or hardware(mesh),
        "memory_limit": limit,
        "versions": runtime.versions(),
    }


def table(result: dict) -> str:
    """The result as text: a row per model and way."""
    limit = result["memory_limit"]
    lines = [
        f"Training step, batch {result['batch_size']} x {result['length']}, {result['dtype']} (float32 weights and "
        f"AdamW), {result['device']}, mesh {result['mesh']}; JAX {result['versions']['jax']}",
        "GiB a device, as planned by the compiler" + (f"; limit {limit / chips.GIB:.2f}" if limit else ""),
        "",
        f"{'model':7}{'way':28}{'weights':>9}{'optimizer':>11}{'temporaries':>13}{'in all':>9}{'GFLOP':>9}{'fits':>6}",
    ]
    for row in result["rows"]:
        fits = {None: "-", True: "yes", False: "NO"}[row["fits"]]
        if row["memory"] is None:
            lines.append(f"{row['model']:7}{row['way']:28}{row['why']}")
            continue
        sizes = {key: size / chips.GIB for key, size in row["memory"].items()}
        lines.append(
            f"{row['model']:7}{row['way']:28}{sizes['weights']:9.2f}{sizes['optimizer']:11.2f}"
            f"{sizes['temporaries']:13.2f}{sizes['total']:9.2f}{row['flops'] / 1e9:9,.0f}{fits:>6}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
