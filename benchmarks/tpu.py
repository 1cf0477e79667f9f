"""The real TPU compiler on slices that are not here: does a training step fit, and how fast can it be at the most?

    python -m benchmarks.tpu [--model=base,large,xl] [--topology=v5e:2x4,v5e:4x8,...] [--out=F.json]
    python -m benchmarks.tpu --family=mt5 --model=small,base,large,xl,xxl --axis=fsdp

Each step is lowered from shapes alone and compiled by libtpu (`pip install jxstilts[tpu]`); no TPU is needed. The time
is predicted by a roofline over the compiled program: every operation takes the longer of its FLOPs at the chip's peak
and of its bytes at the memory's, loops count as often as they run, and the collectives' bytes go over the chip's links
one after the other. A real step is slower: the prediction is a lower bound of the work, without overlap. There is no
peer, so there is no ratio.
"""

import argparse
import dataclasses
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import command
from jxstilts import forms, runtime, tasks
from jxstilts.check import chips, program
from jxstilts.check.program import BatchShape, Program
from jxstilts.mesh import make_mesh
from jxstilts.models.layers import Compute
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError
from jxstilts.train import step
from jxstilts.train.optimizer import Optimizer

TOPOLOGIES = "v5e:2x4,v5e:4x8,v5e:16x16,v5p:2x2x2,v5p:2x4x4,v5p:4x8x8,v6e:2x4,v6e:4x8,v6e:16x16"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its table and returns the exit code."""
    return command.main(_parser(), run, table, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="base,large,xl", help="comma-separated presets of the family")
    parser.add_argument("--family", default="xlmr", choices=("xlmr", "mt5"), help="mt5 says the answers of SQuAD")
    parser.add_argument("--topology", default=TOPOLOGIES, help="comma-separated slices")
    parser.add_argument("--out", default="", help="JSON file to write")
    parser.add_argument("--batch_size", type=int, default=0, help="rows of the whole slice; 0 = rows_per_chip each")
    parser.add_argument("--rows_per_chip", type=int, default=32)
    parser.add_argument("--length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--axis", default="data", choices=("data", "fsdp", "tensor"), help="mesh axis of all chips")
    parser.add_argument("--remat", default="none", choices=("none", "full", "dots"))
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--embeddings", type=int, default=0, help="token embeddings that are trained, 0 = all")
    return parser


def classifier(
    preset: str, rows: int, length: int, *, compute: Compute, dropout: float = 0.1, accumulation: int = 1,
    embeddings: int = 0,
) -> Program:  # fmt: skip
    """Returns the fine-tuning step of a preset with a head of three classes. embeddings: see `Program`."""
    config = make_config("xlmr", preset, hidden_dropout=dropout, attention_dropout=dropout)
    model = Model(config, (HeadSpec("nli", "classification", ("a", "b", "c")),), compute)
    recipe = Optimizer(learning_rate=1e-5, warmup=0.1, weight_decay=0.01)
    shapes = {"nli": BatchShape(forms.get("classification").batch_fields(model.template), rows, length)}
    return Program(model, {"nli": step.Loss("nli")}, shapes, recipe, accumulation, embeddings=embeddings)


def teller(preset: str, rows: int, length: int, *, compute: Compute, dropout: float, accumulation: int) -> Program:
    """Returns the step of an mT5 that learns to say answers: SQuAD as text, Adafactor at a constant rate."""
    config = make_config("mt5", preset, hidden_dropout=dropout, attention_dropout=dropout)
    model = Model(config, (HeadSpec("text_to_text", "text_to_text"),), compute, "mt5")
    recipe = Optimizer("adafactor", "constant", learning_rate=1e-3, warmup=0.0, weight_decay=0.0)
    form = tasks.get("squad_v1_text").form
    shape = BatchShape(form.batch_fields(model.template), rows, length, room=form.room(forms.Reading(length)))
    return Program(model, {"squad": step.Loss("text_to_text")}, {"squad": shape}, recipe, accumulation)


def run(options: argparse.Namespace) -> dict:
    """Compiles, and returns what `--out` writes. Raises InputError where there is no TPU compiler or no such slice."""
    rows = []
    for preset in filter(None, options.model.split(",")):
        for topology in filter(None, options.topology.split(",")):
            print(f"compiling {preset} for {topology} ...", file=sys.stderr, flush=True)
            rows.append(_one(options, preset, topology))
    settings = ("family", "length", "axis", "remat", "accumulation", "dropout", "embeddings")
    return {
        "rows": rows,
        **{key: getattr(options, key) for key in settings},
        "dtype": "bfloat16",
        "versions": runtime.versions() | {"libtpu": importlib.metadata.version("libtpu")},
    }


def _one(options: argparse.Namespace, preset: str, topology: str) -> dict[str, Any]:
    chip, devices = chips.chip_of(topology), chips.devices(topology)
    size = options.batch_size or options.rows_per_chip * len(devices)
    given = {
        "compute": Compute(dtype="bfloat16", remat=options.remat), "dropout": options.dropout,
        "accumulation": options.accumulation,
    }  # fmt: skip
    if options.family == "mt5":
        made = teller(preset, size, options.length, **given)
    else:
        made = classifier(preset, size, options.length, embeddings=options.embeddings, **given)
    mesh = make_mesh({options.axis: -1}, devices)
    row: dict[str, Any] = {"model": preset, "topology": topology, "chips": len(devices), "batch_size": size}
    try:
        program.refuse_small(made.shapes, made.accumulation, mesh, "step")
    except InputError as error:
        return row | {"fits": False, "why": str(error)}
    compiled = program.compile(made, mesh)
    row |= {"parameters": compiled.parameters, "compile_seconds": compiled.seconds, "device": devices[0].device_kind}
    if compiled.memory is None:
        return row | {"fits": False, "why": compiled.too_large}
    predicted = program.predict(made, compiled, chip)
    return row | {
        "fits": compiled.memory.total <= chip.memory,
        "why": "",
        "memory": dataclasses.asdict(compiled.memory) | {"total": compiled.memory.total, "limit": chip.memory},
        "flops": compiled.cost.flops,
        "bytes": compiled.cost.bytes,
        "sent": compiled.cost.sent,
        "collectives": compiled.cost.by_kind(),
        "custom_calls": dict(compiled.cost.custom_calls),
        "unknown_loops": list(compiled.cost.unknown_loops),
        "prediction": dataclasses.asdict(predicted) | {"seconds": predicted.seconds, "share": predicted.share},
        "tokens_per_second": made.tokens / predicted.seconds,
    }


def table(result: dict) -> str:
    """The result as text: a row per model and slice."""
    versions = result["versions"]
    lines = [
        f"Training step in bfloat16 (float32 weights and {'Adafactor' if result['family'] == 'mt5' else 'AdamW'}), "
        f"rows of {result['length']} tokens, mesh axis "
        f"{result['axis']}, remat {result['remat']}, accumulation {result['accumulation']}, dropout "
        f"{result['dropout']}, token embeddings trained: {result['embeddings'] or 'all'}",
        f"compiled by libtpu {versions['libtpu']} without a TPU; JAX {versions['jax']}; times are predictions "
        "(a roofline), not measurements",
        "",
        f"{'model':7}{'slice':12}{'chips':>6}{'batch':>7}{'GiB/chip':>10}{'of':>7}{'fits':>6}{'GFLOP':>9}"
        f"{'sent MiB':>10}{'ms':>9}{'MFU':>7}{'links':>7}{'k tok/s':>10}",
    ]
    for row in result["rows"]:
        start = f"{row['model']:7}{row['topology']:12}{row['chips']:6}{row['batch_size']:7}"
        if "memory" not in row:
            lines.append(f"{start}  does not fit: {row['why']}")
            continue
        memory, predicted = row["memory"], row["prediction"]
        lines.append(
            f"{start}{memory['total'] / chips.GIB:10.2f}{memory['limit'] / chips.GIB:7.2f}"
            f"{'yes' if row['fits'] else 'NO':>6}{row['flops'] / 1e9:9,.0f}{row['sent'] / 2**20:10,.0f}"
            f"{1e3 * predicted['seconds']:9.1f}{predicted['mfu']:7.1%}{predicted['share']:7.1%}"
            f"{row['tokens_per_second'] / 1e3:10,.0f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
