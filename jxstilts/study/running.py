"""Runs the phases and evaluations of a study, each once, alone or as one of several workers on a shared folder.

WORKDIR/leases/ says who works on what (see `lease`), WORKDIR/failed/ what failed and why.
"""

import contextlib
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax

from jxstilts import config as configs
from jxstilts import lease, runtime, tasks, tracking
from jxstilts import mesh as meshes
from jxstilts.data import tokenizer as tokenizers
from jxstilts.eval import evaluator, results
from jxstilts.models import bundle
from jxstilts.models.model import Model, make_config
from jxstilts.runtime import InputError
from jxstilts.study import plan
from jxstilts.study.config import Evaluation, Study, order
from jxstilts.train import identity as identities
from jxstilts.train import inputs
from jxstilts.train import phase as phases

LEASES = "leases"
ALONE = "alone"
POLL = 1.0  # seconds between two looks at what other workers have done


def run(
    study: Study,
    workdir: str | pathlib.Path,
    stop: Callable[[int], bool] = lambda step: False,
    devices: list | None = None,
    shard: tuple[int, int] | None = None,
) -> None:
    """Runs what is missing of a study, on `devices` (default: all).

    shard: (i, n): one of n workers that share the folder, i from 1. It takes its share of the phases first, then any
    that is free, and those of a worker that has died. None: the folder is this process's alone.
    Raises InputError for bad input, also of phases that failed while the others went on, and where others work in the
    folder; runtime.Interrupted when `stop` asked to leave (the state is saved).
    """
    began = time.monotonic()
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    with _seat(workdir, shard) as seat:
        cache_dir = pathlib.Path(study.cache_dir or workdir / "cache")
        runtime.start(study.compile_cache or str(cache_dir / "compile"))
        _strata(study.data_dir, workdir)
        worker = _Worker(
            study, workdir, cache_dir / "features", meshes.make_mesh(study.mesh, devices), stop, shard, seat
        )
        if any(phase.init == "random" for phase in study.phases.values()):  # any other start has its own
            worker.make_model()
        worker.work()
    worker.say(f"results: {workdir / 'results.jsonl'}  ({tracking.clock(time.monotonic() - began)})")
    worker.fail()


class _Taken(Exception):
    """Another worker has taken over what this one was working on."""


class _Worker:
    """Works through the phases of a study, each with its evaluations."""

    def __init__(self, study, workdir, cache_dir, mesh, stop, shard, seat):
        self.study, self.workdir, self.cache_dir, self.mesh, self.stop = study, workdir, cache_dir, mesh, stop
        self.shard, self.seat, self.began = shard, seat, seat.path.stat().st_mtime
        self.names = order(study)
        self.model = self.tokenizer_dir = None
        self.failed: dict[tuple[str, str], str] = {}  # (phase or evaluation, name): cause
        self.skipped: dict[str, str] = {}  # phase: the one that it needs

    def make_model(self) -> None:
        """Makes the tokenizer and the model of a random start."""
        with self._holding("tokenizer", wait=True):
            self.tokenizer_dir = _tokenizer(self.study, self.workdir)
        self.model = _model(self.study, self.tokenizer_dir)

    def work(self) -> None:
        """Works until every phase is done, by whomever, has failed, or needs one that has."""
        pending, finished = list(self.names), set()
        if self.shard:
            number, workers = self.shard
            pending.sort(key=lambda name: self.names.index(name) % workers != number - 1)
        while pending:
            for name in pending:
                init = self.study.phases[name].init
                if init in self.skipped or ("phase", init) in self.failed:
                    self.skipped[name] = init
                elif init in self.study.phases and init not in finished:
                    continue
                elif not self._try(name):
                    continue
                elif ("phase", name) not in self.failed:
                    finished.add(name)
                pending.remove(name)
                break
            else:  # others are at work on all that could be done now
                if self.stop(0):
                    raise runtime.Interrupted("stopped while waiting for other workers")
                time.sleep(POLL)

    def _try(self, name: str) -> bool:
        """Runs a phase and its evaluations; returns whether it is over, False where another worker is at it."""
        with self._holding(f"phase-{name}") as held:
            if held is None:
                return False
            stop = partial(_ask, self.stop, held)
            try:
                if self._do("phase", name, partial(self._phase, name, stop)):
                    for key, evaluation in self.study.evaluations.items():
                        if evaluation.phase == name:
                            self._do("evaluation", key, partial(self._evaluate, key, evaluation, stop))
            except _Taken as error:
                text = f"{name}: another process has taken it over, since this one was not heard of for a while"
                if self.shard is None:
                    raise InputError(text) from error
                self.say(text)
                return False
        return True

    def _do(self, kind: str, name: str, work: Callable[[], None]) -> bool:
        """Does a part of the study; a failure is kept with its cause, for all workers. Returns whether it went well."""
        record = self.workdir / "failed" / f"{kind}-{name}.json"
        if record.exists() and record.stat().st_mtime > self.began:  # another worker's, of this run
            self.failed[kind, name] = json.loads(record.read_text())["cause"]
            return False
        try:
            work()
        except (InputError, jax.errors.JaxRuntimeError) as error:  # the latter: out of memory, say
            cause = str(error).strip().partition("\n")[0]
            self.failed[kind, name] = cause
            self.say(f"{kind} {name} failed: {cause}")
            content = {"kind": kind, "name": name, "cause": cause, "host": platform.node(), "pid": os.getpid()}
            runtime.atomic_write(record, json.dumps(content, indent=1))
            return False
        record.unlink(missing_ok=True)
        return True

    def fail(self) -> None:
        """Raises InputError where something failed."""
        if self.failed:
            parts = [f"{kind} {name} failed: {cause}" for (kind, name), cause in self.failed.items()]
            if self.skipped:
                parts.append(f"not run, because of it: {', '.join(self.skipped)}")
            raise InputError("; ".join(parts))

    @contextlib.contextmanager
    def _holding(self, what: str, wait: bool = False) -> Iterator[lease.Lease | None]:
        """Holds the lease of a part of the study while it is worked on; gives None where another worker does."""
        if self.shard is None:  # this process has the whole folder
            yield self.seat
            return
        path = self.workdir / LEASES / what
        while (held := lease.acquire(path)) is None and wait:
            time.sleep(POLL)
        try:
            yield held
        finally:
            if held is not None:
                held.release()

    def _phase(self, name: str, stop: Callable[[int], bool]) -> None:
        study, phase = self.study, self.study.phases[name]
        model, tokenizer_dir, start = self.model, self.tokenizer_dir, None
        if phase.init != "random":
            path = self.workdir / "phases" / phase.init / "best" if phase.init in study.phases else phase.init
            if bundle.is_bundle(path):  # a finished phase is recognised without reading its starting point's arrays
                meta = bundle.read_meta(path)
                config = make_config(meta["family"], **meta["config"])
                if self._claim(name, config, meta["sha256"], pathlib.Path(path) / "tokenizer")[1]:
                    return
            start = bundle.load(path, compute=study.compute, mesh=self.mesh)
            model, tokenizer_dir = start.model, start.tokenizer_dir
        own, done = self._claim(name, model.config, start.meta["sha256"] if start else None, tokenizer_dir)
        if done:
            return
        self.say(f"phase {self.names.index(name) + 1}/{len(self.names)}: {name}{self._left()}")
        place = phases.Place(self.workdir / "phases" / name, study.data_dir, self.cache_dir, self.mesh)
        check = None
        if phase.select.metric:
            check = _dev_evaluator(study, phase, tokenizer_dir, self.cache_dir, self.mesh)
        phases.run(name, phase, model, start, tokenizer_dir, place, own, check, stop)

    def _claim(self, name: str, config: Any, sha: str | None, tokenizer_dir: pathlib.Path) -> tuple[dict, bool]:
        """Returns a phase's identity, after making its folder its own, and whether it is done."""
        phase = self.study.phases[name]
        data = identities.data(phase, self.study.data_dir, self.cache_dir.with_name("digests"))
        own = identities.identity(phase, config, sha, tokenizer_dir, data)
        record, message = identities.claim(self.workdir / "phases" / name, own)
        if message:
            self.say(f"{name}: {message}")
        return own, record is not None

    def _left(self) -> str:
        """What is left to train, where finished phases tell how fast it goes."""
        try:
            seconds = plan.seconds_left(plan.rows(self.study, self.workdir))
        except InputError:  # data that cannot be read: the phase that needs it says so
            seconds = None
        return "" if seconds is None else f"  (all phases: about {tracking.clock(seconds)} of training left)"

    def _evaluate(self, key: str, evaluation: Evaluation, stop: Callable[[int], bool]) -> None:
        study, folder = self.study, self.workdir / "phases" / evaluation.phase
        record = identities.done(folder)
        labels = {
            "study": study.study, "phase": evaluation.phase, "model": evaluation.model,
            "intermediate": evaluation.intermediate, "target": evaluation.target,
            "seed": study.phases[evaluation.phase].seed, "checkpoint_sha256": record["checkpoint_sha256"],
        }  # fmt: skip
        results.add(
            self.workdir, key, evaluation.what, labels,
            lambda: bundle.load(folder / "best", compute=study.compute, mesh=self.mesh),
            data_dir=study.data_dir, cache_dir=self.cache_dir, mesh=self.mesh, stop=stop,
        )  # fmt: skip

    def say(self, text: str) -> None:
        print(text, flush=True)


def _ask(stop: Callable[[int], bool], held: lease.Lease, step: int) -> bool:
    """Whether to stop. Raises _Taken, so that nothing more is written, where the lease is lost."""
    if held.lost:
        raise _Taken
    return stop(step)


@contextlib.contextmanager
def _seat(workdir: pathlib.Path, shard: tuple[int, int] | None) -> Iterator[lease.Lease]:
    """Holds the folder, or one worker's place in it. Raises InputError that names whoever is there already."""
    folder = workdir / LEASES
    name = ALONE if shard is None else f"worker-{shard[0]}-of-{shard[1]}"
    while (seat := lease.acquire(folder / name)) is None:
        if holder := lease.living(folder / name):
            _refuse(workdir, holder, shard)
    try:
        # The own lease is there before others' are looked for: of two that come at once, one at least sees the other.
        for other in folder.glob("worker-*" if shard is None else ALONE):
            if holder := lease.living(other):
                _refuse(workdir, holder, shard)
        yield seat
    finally:
        seat.release()


def _refuse(workdir: pathlib.Path, holder: dict, shard: tuple[int, int] | None) -> None:
    who = f"process {holder['pid']} on {holder['host']}"
    what = "works there" if shard is None else f"works there alone, or as worker {shard[0]} of {shard[1]}"
    raise InputError(
        f"{workdir}: {who} {what}; wait for it, or give each of several workers a --shard=i/n of its own, or take "
        "another --workdir"
    )


def _strata(data_dir: str, workdir: pathlib.Path) -> None:
    """Writes WORKDIR/strata.json where the data is a miniature world: the classes of real languages are not its own."""
    record = pathlib.Path(data_dir) / "world.json"
    if not record.is_file():
        return
    world = json.loads(record.read_text())
    content: dict[str, Any] = {"world": f"miniworld {world['size']}, seed {world['seed']}, {world['sha256'][:12]}"}
    for stratum in ("high", "low"):
        content[stratum] = [entry["code"] for entry in world["languages"] if entry["resource"] == stratum]
    text = json.dumps(content, indent=1) + "\n"
    path = workdir / "strata.json"
    if not path.exists() or path.read_text() != text:
        runtime.atomic_write(path, text)


def _dev_evaluator(study, phase, tokenizer_dir, cache_dir, mesh) -> phases.Evaluator:
    """The selection rule: the first English dev rows of every task that the phase trains.

    Gives each task's metrics (of several tasks as TASK/METRIC) and "major", the mean of the tasks' major metrics.
    """
    tokenizer = tokenizers.load(tokenizer_dir)
    rows = {
        key: inputs.dev_rows(stream, phase.select.rows, study.data_dir)
        for key, stream in phase.tasks.items()
        if stream.objective == "task"
    }

    def check(model: Model, params: Any) -> dict[str, float]:
        values, majors = {}, []
        for key, examples in rows.items():
            stream = phase.tasks[key]
            options = evaluator.Options(
                max_length=stream.max_length, doc_stride=stream.doc_stride, max_query_length=stream.max_query_length,
                long_sentences=stream.long_sentences, max_features=phase.select.rows,
            )  # fmt: skip
            result = evaluator.evaluate(
                model, params, tasks.get(stream.task), examples,
                tokenizer=tokenizer, head=inputs.head_name(stream), options=options, mesh=mesh, cache_dir=cache_dir,
            )  # fmt: skip
            if result.major is None:
                raise InputError(
                    f"tasks.{key}: the dev rows of {stream.task!r} have no gold labels to choose a checkpoint by; take "
                    'dev rows from the training data (holdout), or choose none (select.metric="")'
                )
            values |= {f"{key}/{name}" if len(rows) > 1 else name: value for name, value in result.metrics.items()}
            majors.append(result.major)
        return values | {"major": sum(majors) / len(majors)}

    return check


def _tokenizer(study: Study, workdir: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the study's tokenizer; trains it once, on a language-balanced sample of the text.

    Raises InputError when the folder's tokenizer was trained with another config.
    """
    config, folder = study.tokenizer, workdir / "tokenizer"
    if config.path:
        return pathlib.Path(config.path)
    record = folder / "trained_with.json"  # written last: a tokenizer without it is not whole
    if record.exists():
        changed = configs.differences(json.loads(record.read_text()), configs.plain(config), "config.tokenizer")
        if changed:
            raise InputError(f"{folder} was trained with another config: {'; '.join(changed)}; use another --workdir")
        return folder
    from jxstilts.data import pipeline

    texts = {
        language: [row["text"] for row in tasks.load("text", study.data_dir, "train", language)]
        for language in config.languages
    }
    sizes = {language: sum(map(len, lines)) for language, lines in texts.items()}
    shares = pipeline.language_probabilities(sizes, config.sampling_exponent)
    sample: list[str] = []
    for language, lines in texts.items():
        budget = int(shares[language] * config.characters)
        for line in lines:
            if budget <= 0:
                break
            sample.append(line)
            budget -= len(line)
    _say(f"training a {config.model} vocabulary of {config.vocab_size} on {sum(map(len, sample)):,} characters")
    tokenizers.save(tokenizers.train(sample, config.vocab_size, model=config.model, coverage=config.coverage), folder)
    runtime.atomic_write(record, json.dumps(configs.plain(config), indent=1))
    return folder


def _model(study: Study, tokenizer_dir: pathlib.Path) -> Model:
    fields = {key: value for key, value in study.model.items() if value is not None}
    family, preset = fields.pop("family", "xlmr"), fields.pop("preset", None)
    vocabulary = len(tokenizers.load(tokenizer_dir))
    config = make_config(family, preset, **{**fields, "vocab_size": fields.get("vocab_size", vocabulary)})
    if config.vocab_size < vocabulary:
        raise InputError(f"config.model.vocab_size={config.vocab_size}, but the tokenizer has {vocabulary} pieces")
    return Model(config, (), study.compute, family)


def _say(text: str) -> None:
    print(text, flush=True)
