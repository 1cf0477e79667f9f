"""What a study is going to do: its phases with steps, tokens, time and memory, and which of them are done.

Rows are counted where the data folder has them; elsewhere they are those of the official releases. Tokens are an
estimate (`TaskSpec.tokens`) where no finished phase with the same settings tells them, and `at_most` is what full rows
would be. Time comes from the speed that finished phases had, by floating-point operations, and is of training alone.
"""

import dataclasses
import functools
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jxstilts import tasks, tracking
from jxstilts.checkpoint import leaves
from jxstilts.config import differences, fingerprint, plain
from jxstilts.models import bundle
from jxstilts.models.layers import Compute
from jxstilts.models.model import Model, family_module, make_config
from jxstilts.runtime import InputError, counted
from jxstilts.study import starts
from jxstilts.study.config import Study, order
from jxstilts.train import identity, mixture, selection, vocabulary
from jxstilts.train.mixture import Stream

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FLOPS_LENGTH = 128  # tokens of the row whose FLOPs stand for a model: attention is a few per cent of them


@dataclasses.dataclass(frozen=True)
class Row:
    """One phase. None: not known. measured: tokens are those of a finished phase. state: "" where nothing is there.

    keeps: the heads that it takes over from its start. ends: which weights it ends with.
    """

    name: str
    init: str
    trains: str
    seed: int
    steps: int | None
    tokens: int | None
    at_most: int | None
    measured: bool
    seconds: float | None  # left
    state: str
    keeps: tuple[str, ...] | None
    ends: str


def rows(study: Study, workdir: str | pathlib.Path | None = None, *, tokens_per_second: float = 0.0) -> list[Row]:
    """Returns the phases in the order in which they run.

    workdir: the study's folder, if it has one. tokens_per_second: real tokens in training, for all models; 0 = as
    finished phases had it. Raises InputError for malformed training data.
    """
    workdir = pathlib.Path(workdir) if workdir else None
    study = starts.with_kept_heads(study)
    past = _past(study, workdir)
    speed = statistics.median(past.speeds) if past.speeds else None
    found: dict[str, Row] = {}
    for name in order(study):
        phase = study.phases[name]
        steps, tokens, at_most = _work(phase, study.data_dir)
        key, measured = _alike(phase), False
        if key in past.tokens_per_step and steps is not None:
            tokens, measured = round(past.tokens_per_step[key] * steps), True
        state = _state(study, workdir, name, found) if workdir else ""
        if name in past.done and state == "done":
            steps, tokens, measured = *past.done[name], True
        seconds = None
        if state == "done" or steps == 0:
            seconds = 0.0
        elif tokens is not None and tokens_per_second:
            seconds = tokens / tokens_per_second
        elif tokens is not None and speed and (model := starts.architecture(study, name)):
            seconds = tokens * _flops(*model) / speed
        trains = " + ".join(
            key if stream.mode == "sampled" else f"{key} ({stream.mode} {stream.amount:g})"
            for key, stream in phase.tasks.items()
        )
        found[name] = Row(
            name, phase.init, trains or "-", phase.seed, steps, tokens, at_most, measured, seconds, state,
            phase.keep_heads, _ends(phase, steps),
        )  # fmt: skip
    return list(found.values())


def _ends(phase: Any, steps: int | None) -> str:
    """Says which weights a phase ends with."""
    if not phase.tasks:
        return "-"
    if not phase.select.metric:
        return "last step"
    count = "" if steps is None else f" of {-(-steps // phase.select.every):,}"
    rows = ", ".join(dict.fromkeys(
        f"last {stream.holdout:,} training" if stream.holdout else f"first {phase.select.rows:,} dev"
        for stream in phase.tasks.values() if selection.trains_task(stream)
    ))  # fmt: skip
    return f"best{count} by {phase.select.metric}, {rows} rows"


def seconds_left(rows: Sequence[Row]) -> float | None:
    """Returns the training time left, without phases of unknown size; None where the speed is not known."""
    known = [row.seconds for row in rows if row.steps is not None]
    return None if None in known else sum(known)


def unknown_sizes(study: Study) -> list[str]:
    """Returns the training tasks that are left out of all numbers: no data is there, and no official size known."""
    streams = {stream.task: stream for phase in study.phases.values() for stream in phase.tasks.values()}
    sampled = [stream for stream in streams.values() if not tasks.get(stream.task).form.running_text]
    return sorted(stream.task for stream in sampled if _size(stream, study.data_dir) is None)


def memory(family: str, config: Any, compute: Compute) -> dict[str, float]:
    """Returns {parameters, and the bytes of weights, optimizer and gradients}, without heads and activations.

    embeddings: the share of the bytes that all token embeddings have; a phase may train those alone that occur.
    """
    model = Model(config, (), compute, family)
    sizes = {path: math.prod(leaf.shape) for path, leaf in leaves(model.abstract()[0]).items()}
    parameters = sum(sizes.values())
    size = parameters * BYTES[compute.param_dtype]
    found = {"parameters": parameters, "weights": size, "optimizer": 2 * size, "gradients": size}
    return found | {"embeddings": sizes.get(vocabulary.table(model), 0) / parameters}


def _work(phase: Any, data_dir: str) -> tuple[int | None, int | None, int | None]:
    """Returns (steps, tokens, tokens at most) of a phase."""
    if not phase.tasks:
        return 0, 0, 0
    sizes = {key: _size(stream, data_dir) for key, stream in phase.tasks.items() if stream.mode == "sampled"}
    known = {key: size for key, size in sizes.items() if size is not None}
    if not known and not phase.steps:
        return None, None, None
    known = known or dict.fromkeys(sizes, 1)
    used = {key: stream for key, stream in phase.tasks.items() if key in known or stream.mode != "sampled"}
    whole = {key: -(-size // phase.tasks[key].batch_size) for key, size in known.items()}
    steps = phase.steps or mixture.count_steps(used, phase.sampling, whole, phase.epochs)
    chances = dict(zip(known, phase.sampling.probabilities(list(known.values())).tolist(), strict=True))
    rest = 1 - sum(stream.amount for stream in used.values() if stream.mode == "alternate")
    tokens = at_most = 0.0
    for key, stream in used.items():
        share = {"sampled": chances.get(key, 0.0) * rest, "alternate": stream.amount, "mixed": 1.0}[stream.mode]
        mean, choices = _length(stream)
        inputs = steps * share * stream.batch_size
        tokens += inputs * min(mean, choices * stream.max_length)
        at_most += inputs * choices * stream.max_length
    return steps, round(tokens), round(at_most)


def _size(stream: Stream, data_dir: str) -> int | None:
    """Returns the training rows of a stream, a question taken for one window; None where that is not known."""
    if stream.packed and tasks.get(stream.task).form.running_text:  # only tokenising tells how many lines share a row
        return None
    total = 0
    for language in stream.languages:
        official = tasks.get(stream.task).sizes.get("train")  # a translation has as many
        size = _counted(stream.task, data_dir, language, stream.source) if data_dir else None
        size = official if size is None else size
        if size is None:
            return None
        size = max(size - stream.holdout, 1) if language == "en" else size
        total += (min(size, stream.limit) if stream.limit else size) * (1 + stream.copies)
    return total


@functools.lru_cache(maxsize=256)
def _counted(task: str, data_dir: str, language: str, source: str) -> int | None:
    if not tasks.available(task, data_dir, "train", language, source):
        return None
    return len(tasks.load(task, data_dir, "train", language, source))


def _length(stream: Stream) -> tuple[float, int]:
    """Returns (mean tokens of an input, its choices)."""
    spec = tasks.get(stream.task)
    if spec.form.running_text:
        return stream.max_length, 1
    if spec.parts and not spec.tokens:
        parts = {part: tasks.get(part).sizes["train"] for part in spec.parts}
        return sum(tasks.get(part).typical[0] * size for part, size in parts.items()) / sum(parts.values()), 1
    return spec.typical


@dataclasses.dataclass(frozen=True)
class _Past:
    """What finished phases tell. done: {name: (steps, tokens)}. speeds: FLOP/s."""

    done: Mapping[str, tuple[int, int]]
    tokens_per_step: Mapping[str, float]
    speeds: Sequence[float]


def _past(study: Study, workdir: pathlib.Path | None) -> _Past:
    done, rates, speeds = {}, {}, []
    for name, phase in study.phases.items() if workdir else ():
        folder = workdir / "phases" / name
        record = identity.done(folder)
        if record is None or not record["steps"]:
            continue
        log = [row for row in tracking.read_rows(folder / "metrics.jsonl") if row["kind"] == "train"]
        tokens = round(sum(row["tokens"] for row in log))
        done[name] = record["steps"], tokens
        rates.setdefault(_alike(phase), tokens / record["steps"])
        measured = [row["tokens_per_second"] for row in log if "tokens_per_second" in row]
        if measured:
            meta = bundle.read_meta(folder / "best")
            config = make_config(meta["family"], **meta["config"])
            speeds.append(statistics.median(measured) * _flops(meta["family"], config))
    return _Past(done, rates, speeds)


def _alike(phase: Any) -> str:
    """Equal for phases that differ in seed and starting point only."""
    return fingerprint({key: value for key, value in identity.settings(phase).items() if key != "seed"})


def _flops(family: str, config: Any) -> float:
    return family_module(family).training_flops(config, FLOPS_LENGTH)


def _state(study: Study, workdir: pathlib.Path, name: str, before: Mapping[str, Row]) -> str:
    """Returns "done", "" or what else is there to say of a phase's folder."""
    phase, folder = study.phases[name], workdir / "phases" / name
    old = identity.recorded(folder)
    failed = workdir / "failed" / f"phase-{name}.json"
    if old is None:
        return "failed" if failed.exists() else ""
    new = {"phase": identity.settings(phase)}
    if phase.keep_heads is None:  # as whatever it starts from has them
        new["phase"]["keep_heads"] = old["phase"].get("keep_heads")
    if study.data_dir:
        cache = pathlib.Path(study.cache_dir or workdir / "cache")
        new["data"] = identity.data(phase, study.data_dir, cache / "digests")
    if phase.init in study.phases:
        if before[phase.init].state != "done":
            return f"waits for {phase.init}"
        new["start"] = identity.done(workdir / "phases" / phase.init)["checkpoint_sha256"]
    changed = differences({key: old.get(key) for key in new}, plain(new))
    if changed:
        return f"runs again: {changed[0]}" + (f" and {len(changed) - 1} more" if len(changed) > 1 else "")
    if identity.done(folder):
        return "done"
    log = tracking.read_rows(folder / "metrics.jsonl")
    return "failed" if failed.exists() else f"begun, step {log[-1]['step']}" if log else "begun"


def summary(
    study: Study, workdir: str | pathlib.Path | None = None, *, tokens_per_second: float = 0.0
) -> dict[str, Any]:
    """Returns the whole plan as JSON values: phases, evaluations, models, totals and what is not known."""
    if tokens_per_second < 0:
        raise InputError(f"--tokens_per_second={tokens_per_second}: a number above 0")
    listed = rows(study, workdir, tokens_per_second=tokens_per_second)
    models = {}
    for name, phase in study.phases.items():
        if phase.init not in study.phases:
            known = starts.architecture(study, name)
            models[name] = {"init": phase.init} | (memory(*known, study.compute) if known else {})
    evaluations = [
        {"name": name, "phase": each.phase, "tasks": list(each.what.names()), "pairs": len(each.what.pairs())}
        for name, each in study.evaluations.items()
    ]
    return {
        "study": study.study,
        "phases": [dataclasses.asdict(row) for row in listed],
        "evaluations": evaluations,
        "models": models,
        "totals": {
            "phases": len(listed),
            "done": sum(row.state == "done" for row in listed),
            "evaluations": len(evaluations),
            "pairs": sum(each["pairs"] for each in evaluations),
            **{
                key: sum(getattr(row, key) or 0 for row in listed) for key in ("steps", "tokens", "at_most")
            },
            "seconds_left": seconds_left(listed),
        },
        "unknown_sizes": unknown_sizes(study),
    }  # fmt: skip


def text(found: Mapping[str, Any]) -> str:
    """Returns a `summary` for people."""
    header = ["phase", "starts from", "keeps", "trains", "steps", "tokens", "at most", "time", "ends with", "state"]
    body = [
        [
            row["name"], row["init"], "?" if row["keeps"] is None else " ".join(row["keeps"]) or "-",
            row["trains"] if len(row["trains"]) <= 40 else f"{row['trains'][:37]}...",
            *(_count(row[key]) for key in ("steps", "tokens", "at_most")), _time(row["seconds"]), row["ends"],
            row["state"] or "-",
        ]
        for row in found["phases"]
    ]  # fmt: skip
    widths = [max(len(line[i]) for line in (header, *body)) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
             for line in (header, ["-" * width for width in widths], *body)]  # fmt: skip
    total = found["totals"]
    lines += [
        "",
        f"{counted(total['phases'], 'phase')} ({total['done']:,} done): {counted(total['steps'], 'step')}, "
        f"{_count(total['tokens'])} tokens (at most {_count(total['at_most'])}), "
        f"{_time(total['seconds_left'])} of training left",
        f"{counted(total['evaluations'], 'evaluation')} of {counted(total['pairs'], 'pair')} of task and language",
    ]
    some = False
    for name, model in found["models"].items():
        if "parameters" in model:
            sizes = ", ".join(f"{model[key] / 2**30:.2f} GiB {key}" for key in ("weights", "optimizer", "gradients"))
            lines.append(f"{name}: {model['parameters'] / 1e6:.1f} M parameters: {sizes}; plus activations and heads")
            some |= model["embeddings"] > 0
            lines[-1] += f" ({model['embeddings']:.0%} are token embeddings)" if model["embeddings"] else ""
        else:
            lines.append(f"{name}: the size of {model['init']} is not known without fetching it")
    lines.append(
        "Steps and tokens are estimates: from the rows counted in data_dir, or those of the official release, and from "
        "the mean tokens of an input in a finished phase, or in public English data. At most: tokens if every row were "
        "full. A question counts as one window."
    )
    lines.append(
        "Keeps: the heads that the phase takes over from its start, besides the encoder; the others are new. Ends "
        "with: the best of that many evaluations on rows of each task (in English, or select.languages), or the last "
        "step (select.metric)."
    )
    if found["unknown_sizes"]:
        lines.append(
            f"Not counted, since neither data nor an official size is known: {', '.join(found['unknown_sizes'])}"
        )
    if some:
        lines.append(
            "Token embeddings: a phase that may leave out those that do not occur in its data (phases.*.vocabulary) "
            "has optimizer and gradients only of those that do; `jxstilts check` counts them."
        )
    if total["seconds_left"] is None:
        lines.append("No time: give --tokens_per_second=N, or a --workdir in which phases have finished.")
    return "\n".join(lines)


def _count(number: int | None) -> str:
    if number is None:
        return "?"
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if number >= size:
            return f"{number / size:,.2f} {unit}"
    return f"{number:,}"


def _time(seconds: float | None) -> str:
    return "?" if seconds is None else tracking.clock(seconds)
