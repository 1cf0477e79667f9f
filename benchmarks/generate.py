"""Generation by mT5 against transformers' `generate`: the same random weights and inputs, the same tokens, tokens/s.

    python -m benchmarks.generate [--model=small] [--batch_size=32] [--beams=1,4] [--out=F.json]

Inputs have mixed lengths; transformers takes batches as they come, padded to the longest, and this package those of
like lengths together, as each evaluates. Both say exactly `--length` tokens (the end is made impossible), so that they
do the same work. The sides take turns in one process with the same number of threads; compilation is not counted.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks import command
from jxstilts import runtime
from jxstilts.data import batching, packing
from jxstilts.data.features import Features
from jxstilts.data.ragged import offsets_of
from jxstilts.eval.predict import predict
from jxstilts.models import export
from jxstilts.models.heads.text_to_text import TextSpec
from jxstilts.models.huggingface import Loaded
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError

HEAD = "text_to_text"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its table and returns the exit code."""
    return command.main(_parser(), run, table, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="small", help="preset of the mt5 family")
    parser.add_argument("--out", default="", help="JSON file to write")
    parser.add_argument("--inputs", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--longest", type=int, default=256, help="tokens of the longest input; the shortest has 16")
    parser.add_argument("--length", type=int, default=16, help="tokens that are said of each")
    parser.add_argument("--beams", default="1,4", help="comma-separated; 1 = greedy")
    parser.add_argument("--repetitions", type=int, default=2, help="turns of each side; the median counts")
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--seed", type=int, default=0)
    return parser


def run(options: argparse.Namespace) -> dict:
    """Measures, and returns what `--out` writes. Raises InputError where torch is not there, or tokens differ."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise InputError("the peer needs torch and transformers: pip install torch transformers") from error
    loaded = _random(options)
    oracle = _theirs(loaded, transformers).eval().to("cuda" if options.device == "gpu" else "cpu")
    inputs, rows = _inputs(options), []
    for beams in map(int, options.beams.split(",")):
        sides = {"jxstilts": lambda b=beams: _ours(loaded, inputs, options, b)}
        sides["transformers"] = lambda b=beams: _peer(oracle, inputs, options, b, torch)
        said, times = {}, {name: [] for name in sides}
        for turn in range(options.repetitions + 1):
            for name, side in sides.items():
                begun = time.perf_counter()
                said[name] = side()
                if turn:  # the first compiles
                    times[name].append(time.perf_counter() - begun)
        same = float((said["jxstilts"] == said["transformers"]).all(1).mean())
        if same < 0.95:  # equal scores may be told apart by rounding
            raise InputError(f"{beams} beams: only {same:.0%} of the texts are the same")
        seconds = {name: float(np.median(own)) for name, own in times.items()}
        tokens = options.inputs * options.length
        rate = {name: tokens / each for name, each in seconds.items()}
        rows.append(
            {"beams": beams, "tokens_per_second": rate, "ratio": rate["jxstilts"] / rate["transformers"], "same": same}
        )
    given = {key: getattr(options, key) for key in ("model", "inputs", "batch_size", "longest", "length", "device")}
    return {
        **given, "rows": rows, "load": os.getloadavg()[0], "threads": torch.get_num_threads(),
        "versions": runtime.versions() | {"torch": torch.__version__, "transformers": transformers.__version__},
    }  # fmt: skip


def _random(options) -> Loaded:
    config = make_config("mt5", options.model)
    model = Model(config, (HeadSpec(HEAD, HEAD),), family="mt5")
    params = jax.device_get(jax.jit(model.init)(jax.random.key(options.seed)))
    words = params["heads"][HEAD]["words"] * config.width**-0.5
    words[config.eos_id] = 0.0  # never the likeliest of so many
    params["heads"][HEAD]["words"] = words
    return Loaded(model, params)


def _theirs(loaded: Loaded, transformers):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        export.to_huggingface(loaded, f"{folder}/model")
        return transformers.MT5ForConditionalGeneration.from_pretrained(f"{folder}/model")


def _inputs(options) -> Features:
    rng = np.random.default_rng(options.seed)
    lengths = rng.integers(16, options.longest + 1, options.inputs)
    tokens = rng.integers(100, 20_000, lengths.sum()).astype(np.int32)
    offsets = offsets_of(lengths)
    tokens[offsets[1:] - 1] = 1
    return Features(tokens, offsets)


def _ours(loaded: Loaded, inputs: Features, options, beams: int) -> np.ndarray:
    """Batches as an evaluation makes them, of as many tokens as the peer's largest."""
    model = loaded.model.with_heads(TextSpec(HEAD, HEAD, length=options.length, beams=beams))
    tokens = options.batch_size * options.longest
    plans, _ = packing.plan_alone(inputs.lengths, tokens_per_batch=tokens, max_length=options.longest)
    said = np.zeros((len(inputs), options.length), np.int32)
    waiting = []
    for plan in plans:
        batch = batching.assemble_plan(inputs, plan, fields=(), max_segments=1, pad_id=0)
        waiting.append((batch["index"][:, 0], predict(model, loaded.params, HEAD, batch)["tokens"][:, 0]))
    for index, tokens in waiting:
        said[index[index >= 0]] = np.asarray(tokens)[index >= 0]
    return said


def _peer(oracle, inputs: Features, options, beams: int, torch) -> np.ndarray:
    said = []
    for begin in range(0, len(inputs), options.batch_size):
        own = [inputs.tokens[a:b] for a, b in zip(inputs.offsets[begin:], inputs.offsets[begin + 1 :], strict=False)]
        own = own[: options.batch_size]
        tokens = np.zeros((len(own), max(map(len, own))), np.int64)
        for row, text in zip(tokens, own, strict=True):
            row[: len(text)] = text
        ids = torch.tensor(tokens, device=oracle.device)
        with torch.inference_mode():
            found = oracle.generate(
                input_ids=ids, attention_mask=(ids > 0).long(), max_new_tokens=options.length, num_beams=beams,
                do_sample=False,
            )  # fmt: skip
        said.append(found[:, 1:].cpu().numpy())
    return np.concatenate(said)


def table(result: dict) -> str:
    """The result as text: a row for each number of beams."""
    lines = [
        f"mT5 {result['model']}, {result['inputs']} inputs of 16 to {result['longest']} tokens in batches of "
        f"{result['batch_size']}, {result['length']} tokens said of each, float32, {result['device']}, "
        f"{result['threads']} threads; JAX {result['versions']['jax']}, torch {result['versions']['torch']}, "
        f"transformers {result['versions']['transformers']}; load {result['load']:.1f}",
        "",
        f"{'beams':>5}{'jxstilts':>12}{'transformers':>14}{'ratio':>7}{'same':>6}   tokens/s",
    ]
    for row in result["rows"]:
        rate = row["tokens_per_second"]
        lines.append(
            f"{row['beams']:5}{rate['jxstilts']:12.1f}{rate['transformers']:14.1f}{row['ratio']:7.2f}{row['same']:6.0%}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
