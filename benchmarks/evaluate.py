"""Evaluation of a whole benchmark against Hugging Face + PyTorch, on the same inputs, in one process on one CPU.

    python -m benchmarks.evaluate --data_dir=D [--model=base] [--share=0.02] [--languages=en,sw] [--out=F.json]
    python -m benchmarks.evaluate --data_dir=D --padding=limit      # PyTorch as XTREME's scripts run it
    python -m benchmarks.evaluate --data_dir=D --padding=sorted     # PyTorch as sentence-transformers encodes

XTREME's tasks in every language that the data folder has, or in some of them: the same share of the rows of each, from
all over its file, so that the tasks have the weight, and the inputs the lengths, that they have in the whole. Both
sides have the same weights and the same tokenised inputs, cut at XTREME's limits. PyTorch: batches of 32 in file order,
padded to the longest of them or to the task's limit (retrieval: to the longest in any case, as XTREME's script does),
or all inputs of a language sorted by length (as `encode` of sentence-transformers does, and few scripts for tasks); the
head's output, or the mean of the tokens, brought to the host; nothing is decoded or scored. This package:
`Evaluator.languages` as it is: it reads its tokenised cache, packs, predicts, decodes and scores with
intervals. `ratio` is PyTorch's time divided by this package's, each the best of its turns. A first pass of this
package, which compiles and tokenises, and a first batch of PyTorch are outside the clock. `padding`: this package's
share of tokens that are none; `compiled`: its shapes.
Needs torch: `pip install jxstilts[parity]`.
"""

import argparse
import contextlib
import importlib.util
import math
import os
import pathlib
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import command
from jxstilts import runtime, tasks
from jxstilts.runtime import InputError, suggest

BATCH = 32
PADDING = {"longest": "the longest, in file order", "limit": "the limit", "sorted": "the longest, sorted by length"}
SPLITS = {"xnli": "dev", "pawsx": "dev", "udpos": "test", "panx": "dev", "mlqa": "dev", "bucc2018": "dev"}  # labelled


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its table and returns the exit code."""
    return command.main(_parser(), run, lambda result: _line(result["all"]), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data_dir", required=True, help="XTREME's files and a tokenizer")
    parser.add_argument("--model", default="base", help="preset of the xlmr family")
    parser.add_argument("--share", type=float, default=0.02, help="of the rows of each task and language")
    parser.add_argument("--languages", default="", help="comma-separated; default: all that the data folder has")
    parser.add_argument("--tasks", default="", help="comma-separated; default: all nine")
    parser.add_argument("--padding", default="longest", choices=PADDING, help="PyTorch's")
    parser.add_argument("--repetitions", type=int, default=2, help="turns of each side")
    parser.add_argument("--out", default="", help="JSON file to write")
    return parser


def run(options: argparse.Namespace) -> dict:
    """Measures, prints a line for each task as it is done, and returns what `--out` writes. Raises InputError."""
    if importlib.util.find_spec("torch") is None:
        raise InputError("PyTorch is not installed, so there is nothing to compare with: pip install jxstilts[parity]")
    if not 0 < options.share <= 1 or options.repetitions < 1:
        raise InputError("--share is above 0 and at most 1, --repetitions at least 1")
    runtime.start()
    import jax
    import torch

    from jxstilts.data import tokenizer as tokenizers
    from jxstilts.eval import benchmarks

    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    names = tuple(filter(None, options.tasks.split(","))) or benchmarks.get("xtreme").tasks
    tokenizer = tokenizers.load(pathlib.Path(options.data_dir) / "tokenizer")
    model, params = _model(options.model, len(tokenizer), names)
    of = f" of {options.languages}" if options.languages else ""
    print(f"XLM-R {options.model}; {options.share:.2%} of the rows of each task and language{of}; float32; "
          f"PyTorch pads to {PADDING[options.padding]}; "
          f"{platform.machine()} CPU, {cores} cores, load {load:.1f} before; torch {torch.__version__}, "
          f"jax {jax.__version__}\n\n"
          f"{'':10}{'languages':>10}{'inputs':>9}{'tokens':>11}{'PyTorch s':>11}{'jxstilts s':>12}"
          f"{'inputs/s':>20}{'tokens/s':>24}{'ratio':>7}{'padding':>9}{'compiled':>9}", flush=True)  # fmt: skip
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            data = _data(name, options)
            if not data:
                print(f"{name:10} no files", flush=True)
                continue
            rows.append(_measure(name, data, model, params, tokenizer, pathlib.Path(folder), options))
            print(_line(rows[-1]), flush=True)
    if not rows:
        raise InputError(f"--data_dir={options.data_dir} has no file of these tasks and languages")
    total = {key: sum(row[key] for row in rows) for key in ("languages", "inputs", "tokens", "torch", "ours")}
    total |= {"task": "all", "ratio": total["torch"] / total["ours"]}
    total["padding"] = 1 - total["tokens"] / sum(row["tokens"] / (1 - row["padding"]) for row in rows)
    total["compilations"] = sum(row["compilations"] for row in rows)
    return {
        "ratio": total["ratio"], "model": options.model, "padding": options.padding, "share": options.share,
        "languages": options.languages,
        "load_before": load, "tasks": rows, "all": total, "versions": runtime.versions() | {"torch": torch.__version__},
    }  # fmt: skip


def _line(row: dict) -> str:
    per = lambda key: f"{row[key] / row['torch']:,.1f} / {row[key] / row['ours']:,.1f}"  # noqa: E731
    return (
        f"{row['task']:10}{row['languages']:10}{row['inputs']:9,}{row['tokens']:11,}{row['torch']:11.2f}"
        f"{row['ours']:12.2f}{per('inputs'):>20}{per('tokens'):>24}{row['ratio']:7.2f}"
        f"{row['padding']:9.1%}{row['compilations']:9}"
    )


def _model(preset: str, vocabulary: int, names: tuple[str, ...]) -> tuple[Any, Any]:
    """Returns a random model with a head for every task, and its parameters."""
    import jax

    from jxstilts.models.families.xlmr import PRESETS
    from jxstilts.models.model import HeadSpec, Model, make_config

    if preset not in PRESETS:
        raise InputError(f"--model: {suggest('preset', preset, PRESETS)}")
    specs = [tasks.get(name) for name in names]
    heads = [HeadSpec(spec.name, spec.type, spec.labels) for spec in specs if spec.form.has_head]
    config = make_config("xlmr", preset, vocab_size=vocabulary, max_positions=512)
    model = Model(config, tuple(heads))
    return model, jax.jit(model.init)(jax.random.key(0))


def _data(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Returns {language: its share of the labelled examples} of what the data folder has."""
    from jxstilts.eval import benchmarks

    entry = benchmarks.get("xtreme").entry(name)
    split = SPLITS.get(name, entry.split)
    found = {}
    wanted = tuple(filter(None, options.languages.split(","))) or entry.languages
    for number, language in enumerate(entry.languages):
        if language in wanted and tasks.available(name, options.data_dir, split, language):
            rows = tasks.load(name, options.data_dir, split, language)
            if not tasks.get(name).form.has_head:  # with the pairs among them
                limit = math.ceil(options.share * len(rows["target"]))
                found[language] = tasks.load(name, options.data_dir, split, language, limit=limit)
            else:
                found[language] = _share(rows, options.share, number / len(entry.languages))
    return found


def _share(rows: list, share: float, place: float) -> list:
    """Returns a share of the rows, in runs of at most BATCH neighbours from all over the file.

    Neighbours, since file order is what the peer's padding lives on; from all over, since the first rows of question
    answering are one long article, in every language. place: where a run begins in its part of the file, 0 to 1.
    """
    count = math.ceil(share * len(rows))
    runs = math.ceil(count / BATCH)
    found = []
    for run in range(runs):
        begin, end = (len(rows) * number // runs for number in (run, run + 1))
        size = count * (run + 1) // runs - count * run // runs
        begin += int(place * max(end - begin - size, 0))
        found += rows[begin : begin + size]
    return found


def _measure(name, data, model, params, tokenizer, folder, given) -> dict:
    from jxstilts.eval.evaluator import Evaluator, Options

    spec = tasks.get(name)
    options = Options(protocol="xtreme", layer=-1).resolve(spec, model)
    ready = Evaluator(model, params, tokenizer, options, cache_dir=folder / "cache")

    def ours() -> None:
        for _ in ready.languages(spec, data.items(), head=name if spec.form.has_head else None):
            pass

    work = _Work()
    with work.counted():
        ours()
    batches = _peer_batches(spec, data, tokenizer, options, given.padding)
    theirs = _theirs(spec, model, params, folder / name)
    theirs(batches[:1])
    turns: dict[str, list[float]] = {"torch": [], "ours": []}
    for _ in range(given.repetitions):
        for side, part in (("torch", lambda: theirs(batches)), ("ours", ours)):
            began = time.perf_counter()
            part()
            turns[side].append(time.perf_counter() - began)
    times = {side: min(found) for side, found in turns.items()}
    tokens = int(sum(mask.sum() for _, mask in batches))
    inputs = sum(len(ids) for ids, _ in batches)
    return {
        "task": name, "languages": len(data), "inputs": inputs, "tokens": tokens, **times,
        "ratio": times["torch"] / times["ours"], "padding": work.padding, "compilations": len(work.shapes),
    }  # fmt: skip


class _Work:
    """What goes through the model: tokens, how many of them are padding, and the shapes, each compiled once."""

    def __init__(self):
        self.real, self.all, self.shapes = 0, 0, set()

    @property
    def padding(self) -> float:
        return 1 - self.real / self.all

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        from jxstilts.eval import predict

        original = predict.predict

        def counting(model, params, head, batch, mesh=None):
            self.real += int((batch["segments"] > 0).sum())
            self.all += batch["segments"].size
            self.shapes.add((head, *(array.shape for array in batch.values())))
            return original(model, params, head, batch, mesh)

        predict.predict = counting
        try:
            yield
        finally:
            predict.predict = original


def _peer_batches(spec, data, tokenizer, options, padding: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the inputs of all languages as PyTorch gets them: [(token ids, attention mask) [32, tokens], ...]."""
    from jxstilts.models.model import family_module

    form, template = spec.form, family_module("xlmr").TEMPLATE
    length = options.max_length if padding == "limit" and form.has_head else 0
    found = []
    for examples in data.values():
        sides = [examples] if form.has_head else [examples["source"], examples["target"]]
        for rows in sides:
            features = form.tokenize(rows, tokenizer, template, options, spec.labels)
            lengths = features.lengths
            order = np.argsort(-lengths, kind="stable") if padding == "sorted" else np.arange(len(features))
            for batch in (order[begin : begin + BATCH] for begin in range(0, len(order), BATCH)):
                ids = np.ones((len(batch), length or lengths[batch].max()), np.int64)
                mask = np.arange(ids.shape[1])[None] < lengths[batch][:, None]
                ids[mask] = np.concatenate(
                    [features.tokens[features.offsets[i] : features.offsets[i + 1]] for i in batch.tolist()]
                )
                found.append((ids, mask))
    return found


def _theirs(spec, model, params, folder):
    """Returns a function that runs transformers' model over batches and brings its output to the host."""
    import torch
    import transformers

    from jxstilts.models import export, huggingface

    auto = {
        "classification": transformers.AutoModelForSequenceClassification,
        "tagging": transformers.AutoModelForTokenClassification,
        "span": transformers.AutoModelForQuestionAnswering,
    }.get(spec.type, transformers.AutoModel)
    head = spec.name if spec.form.has_head else None
    export.to_huggingface(huggingface.Loaded(model, params), folder, head=head, encoder_only=head is None)
    more = {"add_pooling_layer": False} if head is None else {}
    net = auto.from_pretrained(folder, attn_implementation="sdpa", **more).eval()

    def forward(batches) -> None:
        with torch.inference_mode():
            for ids, mask in batches:
                mask = torch.from_numpy(mask).long()
                out = net(input_ids=torch.from_numpy(ids), attention_mask=mask)
                if head is None:
                    weights = mask[:, :, None].float()
                    ((out.last_hidden_state * weights).sum(1) / weights.sum(1)).numpy()
                elif spec.type == "span":
                    out.start_logits.numpy(), out.end_logits.numpy()
                else:
                    out.logits.argmax(-1).numpy()

    return forward


if __name__ == "__main__":
    sys.exit(main())
