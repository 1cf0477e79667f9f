"""How a training step's work and traffic grow with the number of devices, read from the compiled program.

    python -m benchmarks.scaling [--model=base] [--devices=1,2,4,8,16,64,256] [--axis=data] [--out=F.json]

weak: rows_per_device rows on each device; strong: batch_size rows on all together. Per device: the FLOPs of the matrix
products, and the bytes that it sends in collectives (rings). Devices are simulated on the CPU, or those of TPU slices
(--topology=v5e:2x4,v5e:4x8), compiled by libtpu. `formula`: see there; a TPU scatters gradients in the computation's
dtype, and so sends less. There is no peer, so there is no ratio.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from jax.sharding import Mesh

from benchmarks import command
from benchmarks.tpu import classifier
from jxstilts import runtime
from jxstilts.check import chips, program
from jxstilts.check.program import Program
from jxstilts.checkpoint import leaves
from jxstilts.mesh import make_mesh, param_shardings, spread
from jxstilts.models.layers import Compute
from jxstilts.runtime import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its table and returns the exit code."""
    return command.main(_parser(), run, table, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="base", help="preset of the xlmr family")
    parser.add_argument("--out", default="", help="JSON file to write")
    parser.add_argument("--devices", default="1,2,4,8,16,64,256", help="numbers of simulated devices")
    parser.add_argument("--topology", default="", help="comma-separated TPU slices in place of simulated devices")
    parser.add_argument("--axis", default="data", choices=("data", "fsdp", "tensor"), help="mesh axis of all devices")
    parser.add_argument("--mode", default="weak,strong", help="weak, strong or both")
    parser.add_argument("--rows_per_device", type=int, default=8, help="weak")
    parser.add_argument("--batch_size", type=int, default=256, help="strong: rows of all devices together")
    parser.add_argument("--length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the computation")
    return parser


def run(options: argparse.Namespace) -> dict:
    """Compiles, and returns what `--out` writes. Raises InputError where devices cannot be simulated or split over."""
    modes = options.mode.split(",")
    if not set(modes) <= {"weak", "strong"}:
        raise InputError(f"--mode={options.mode}: weak, strong or weak,strong")
    rows = []
    for name, devices in _devices(options):
        for mode in modes:
            size = options.rows_per_device * len(devices) if mode == "weak" else options.batch_size
            rows.append({"mode": mode, "devices": len(devices), "name": name} | _one(options, size, devices))
    kept = ("model", "axis", "rows_per_device", "batch_size", "length", "dtype")
    return {"rows": rows, **{key: getattr(options, key) for key in kept}, "versions": runtime.versions()}


def _devices(options: argparse.Namespace) -> Iterator[tuple[str, list]]:
    if options.topology:
        for topology in options.topology.split(","):
            yield topology, chips.devices(topology)
        return
    import jax

    counts = [int(count) for count in options.devices.split(",") if count.isdecimal()]
    if not counts or min(counts) < 1:
        raise InputError(f"--devices={options.devices}: numbers, such as 1,2,4,8")
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", max(counts))
    except RuntimeError:  # the backend is there already; it may have enough
        pass
    if len(jax.devices()) < max(counts):
        raise InputError(f"--devices={options.devices}: this process already runs JAX on {len(jax.devices())} devices")
    for count in counts:
        yield "simulated", jax.devices()[:count]


def _one(options: argparse.Namespace, size: int, devices: list) -> dict[str, Any]:
    made = classifier(options.model, size, options.length, compute=Compute(dtype=options.dtype))
    mesh = make_mesh({options.axis: -1}, devices)
    row: dict[str, Any] = {"rows": size, "why": ""}
    try:
        program.refuse_small(made.shapes, 1, mesh, "step")
    except InputError as error:
        return row | {"why": str(error)}
    compiled = program.compile(made, mesh)
    if compiled.cost is None:
        return row | {"why": compiled.too_large}
    return row | {
        "flops": compiled.cost.flops,
        "sent": compiled.cost.sent,
        "formula": formula(made, mesh) if options.axis == "data" else None,
        "collectives": compiled.cost.by_kind(),
        "memory": compiled.memory.total,
        "compile_seconds": compiled.seconds,
    }


def formula(made: Program, mesh: Mesh) -> float:
    """Returns the bytes that a device has to send in a step of data parallelism in float32 on n devices.

    (n - 1) / n times: twice the gradients (reduced to all), and once the new values of the parameters whose moments are
    split. If the words' moments are, then their gradient is added up where its columns lie, and in its place go the
    tokens of the batch and the device's own part of the activations' gradient.
    """
    shapes, axes = made.model.abstract()
    placed, _ = param_shardings(axes, shapes, mesh)
    apart, total = leaves(spread(placed, shapes, mesh)), 0.0
    for path, leaf in leaves(shapes).items():
        split = apart[path].shard_shape(leaf.shape) != leaf.shape
        if split and path == "encoder/embeddings/tokens":
            total += 4 * made.tokens * (1 + leaf.shape[1] / mesh.size)
        else:
            total += 2 * 4 * leaf.size
        total += 4 * leaf.size * split
    return total * (mesh.size - 1) / mesh.size


def table(result: dict) -> str:
    """The result as text: a row per mode and number of devices."""
    lines = [
        f"XLM-R {result['model']}, rows of {result['length']} tokens, {result['dtype']}, mesh axis {result['axis']}; "
        f"JAX {result['versions']['jax']}; per device and step",
        f"weak: {result['rows_per_device']} rows a device; strong: {result['batch_size']} rows in all",
        "",
        f"{'mode':8}{'devices':>8}{'rows':>7}{'GFLOP':>10}{'sent MiB':>10}{'formula':>10}{'GiB':>8}  collectives",
    ]
    for mode in dict.fromkeys(row["mode"] for row in result["rows"]):
        for row in (row for row in result["rows"] if row["mode"] == mode):
            start = f"{mode:8}{row['devices']:8}{row['rows']:7}"
            if row["why"]:
                lines.append(f"{start}  {row['why']}")
                continue
            formula = "-" if row["formula"] is None else f"{row['formula'] / 2**20:,.2f}"
            kinds = ", ".join(f"{kind} {found['count']} x" for kind, found in row["collectives"].items())
            lines.append(
                f"{start}{row['flops'] / 1e9:10,.2f}{row['sent'] / 2**20:10,.2f}{formula:>10}"
                f"{row['memory'] / 2**30:8.2f}  {kinds or '-'}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
