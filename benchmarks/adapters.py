"""LoRA's train step against full training on the same batches, in this package and, with peft, in PyTorch.

    python -m benchmarks.adapters [--model=base] [--task=xnli] [--data_dir=D] [--out=F.json]

The rows: `full` trains all weights but the token embeddings that no batch reads; `lora` the adapter and the head, as
two thin products; `merged` the same adapter with W + A B formed in each step, which is what the thin products save;
`peft` is PyTorch's model with peft's LoRA of the same matrices, `torch` its full training. Both LoRAs begin with the
same weights. planned: bytes of the compiled step, as XLA plans them, with its state. Without peft and torch those two
rows are left out.
"""

import argparse
import dataclasses
import importlib.util
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import command, sides, step

MODULES = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its table and returns the exit code."""
    return command.main(arguments(), run, table, argv)


def arguments() -> argparse.ArgumentParser:
    """Returns the command's options: those of `benchmarks.step`, and the adapter's."""
    parser = step.arguments()
    parser.prog = "python -m benchmarks.adapters"
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--attention_only", action="store_true", help="LoRA on queries and values alone")
    parser.set_defaults(cells="")
    return parser


def run(options: argparse.Namespace) -> dict:
    """Measures, and returns what `--out` writes. Raises InputError for a device or a package that is not there."""
    import jax

    from jxstilts.models.adapters import Adapter
    from jxstilts.models.layers import Compute
    from jxstilts.models.model import Model
    from jxstilts.train.optimizer import Optimizer

    device = sides.ready(options)
    features, source = step.inputs(options)
    steps = options.batches * (options.repetitions + 1)
    config, spec = step.config_of(options, features), step.head_of(options.task)
    matrices = ("layers/query", "layers/value") if options.attention_only else ("layers/*/kernel",)
    adapter = Adapter(matrices=matrices, rank=options.rank, alpha=2.0 * options.rank)
    plain = Model(config, (spec,), Compute(dtype=options.dtype, attention=options.attention))
    recipe = sides.Training(Optimizer(learning_rate=1e-4, warmup=0.1, weight_decay=0.01), steps, options.seed)
    params = jax.jit(plain.init)(jax.random.key(options.seed))
    full, torch = sides.pair(options, plain, params, recipe)
    in_order, _ = step.both_ways(options, features, full.model)
    rows = step.rows_of(options, features, config.vocab_size)
    own = {"full": (full.training(rows) if rows else full, rows)}
    model = dataclasses.replace(plain, adapters=(("own", adapter),))
    for name, kind in (("lora", Model), ("merged", _merged())):
        made = kind(**{field.name: getattr(model, field.name) for field in dataclasses.fields(model)})
        start = {**jax.tree.map(jax.numpy.copy, params), **jax.jit(made.init_beside)(jax.random.key(1))}
        own[name] = (sides.Ours(made, start, recipe), None)
    others = {"torch": torch}
    if importlib.util.find_spec("peft"):
        lora = dataclasses.replace(recipe, lora=(options.rank, MODULES[0:3:2] if options.attention_only else MODULES))
        others["peft"] = sides.pair(options, plain, params, lora)[1]
    parts = {
        name: (side, [step.by_place(batch, numbered) for batch in in_order] if numbered else in_order)
        for name, (side, numbered) in own.items()
    } | {name: (side, in_order) for name, side in others.items()}
    for side, batches in parts.values():
        side.train(batches)
    turns: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(options.repetitions):
        for name, (side, batches) in parts.items():
            turns[name].append(step.timed(lambda side=side, batches=batches: side.train(batches))[0])
    trained = sum(leaf.size for leaf in jax.tree.leaves(own["lora"][0].state["params"]["adapters"]))
    heads = sum(leaf.size for leaf in jax.tree.leaves(params["heads"]))
    return {
        "model": options.model, "source": source, "device": device, "rank": options.rank, "matrices": matrices,
        "batch_size": options.batch_size, "batches": options.batches, "repetitions": options.repetitions,
        "shapes": [batch["tokens"].shape for batch in in_order],
        "parameters": full.parameters, "trained": trained + heads,
        "seconds": {name: statistics.median(values) / options.batches for name, values in turns.items()},
        "turns_seconds": turns,
        "planned": {name: side.planned for name, (side, _) in own.items()},
    }  # fmt: skip


def _merged() -> type:
    from jxstilts.models import adapters
    from jxstilts.models.model import Model

    class Merged(Model):
        """The model whose LoRA is added to the weights in every step."""

        def body(self, params: Any) -> Any:
            return adapters.merge(self, params, [name for name, _ in self.adapters])[1]["encoder"]

    return Merged


def table(result: dict) -> str:
    """The result as text."""
    share = result["trained"] / result["parameters"]
    lines = [
        f"XLM-R {result['model']}, {result['parameters'] / 1e6:.1f} M parameters; LoRA of rank {result['rank']} on "
        f"{', '.join(result['matrices'])}: {result['trained']:,} trained, {share:.2%}; {result['source']}",
        f"batches of {result['batch_size']}, in the same shapes; {result['device']}",
        "",
        f"{'':10}{'seconds a step':>16}{'of full':>10}{'planned MB':>13}",
    ]
    for name, seconds in result["seconds"].items():
        whole = result["seconds"]["torch" if name in ("torch", "peft") else "full"]
        planned = result["planned"].get(name)
        memory = f"{planned / 2**20:13,.0f}" if planned else f"{'-':>13}"
        lines.append(f"{name:10}{seconds:16.3f}{seconds / whole:10.2f}{memory}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
