"""Runs the phases and evaluations of a study, each once, alone or as one of several workers on a shared folder.

WORKDIR/leases/ says who works on what (see `lease`), WORKDIR/failed/ what failed and why.
"""

import contextlib
import json
import os
import pathlib
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax

from jxstilts import config as configs
from jxstilts import lease, processes, runtime, tasks, tracking
from jxstilts import mesh as meshes
from jxstilts.data import cache
from jxstilts.data import tokenizer as tokenizers
from jxstilts.eval import evaluator, results
from jxstilts.models import bundle
from jxstilts.models.model import Model
from jxstilts.runtime import InputError
from jxstilts.study import fresh, plan, starts
from jxstilts.study.config import Evaluation, Study, order
from jxstilts.train import identity as identities
from jxstilts.train import inputs, keeping, selection
from jxstilts.train import phase as phases
from jxstilts.train.loop import ORACLE

LEASES = "leases"
ALONE = "alone"
POLL = 1.0  # seconds between two looks at what other workers have done
LEFTOVER = 3600.0  # seconds after which a temporary file is taken for that of a killed process


def run(
    study: Study,
    workdir: str | pathlib.Path,
    stop: Callable[[int], bool] = lambda step: False,
    devices: list | None = None,
    shard: tuple[int, int] | None = None,
    command: Sequence[str] = (),
) -> None:
    """Runs what is missing of a study, on `devices` (default: all).

    shard: (i, n): one of n workers that share the folder, i from 1. It takes its share of the phases first, then any
    that is free, and those of a worker that has died. None: the folder is this process's alone.
    command: the command line that asks for it, which the folder keeps for its report.
    Where several processes run it together (see `processes`), they share the folder, and process 0 writes.
    Raises InputError for bad input and where others work in the folder; Failed where something failed while the others
    went on; runtime.Interrupted when `stop` asked to leave (the state is saved).
    """
    began = time.monotonic()
    for name in (*study.phases, *study.evaluations):
        if pathlib.PurePath(name).name != name or name.startswith("."):
            raise InputError(f"config: {name!r} cannot be the name of a phase or an evaluation: it names a folder")
    starts.check_adapters(study)
    workdir = runtime.make_folder(workdir, "--workdir")
    processes.same("the config", configs.fingerprint(study))
    with _seat(workdir, shard) as seat:
        cache_dir = pathlib.Path(study.cache_dir or workdir / "cache")
        processes.first_says("what was left", lambda: _clear(seat, workdir, cache_dir))
        if command:
            processes.first_says("the command", partial(tracking.keep_command, workdir, command))
        runtime.start(study.compile_cache or str(cache_dir / "compile"))
        processes.first_says("the strata", lambda: results.keep_strata(study.data_dir, workdir))
        worker = _Worker(
            study, workdir, cache_dir / "features", meshes.make_mesh(study.mesh, devices), stop, shard, seat
        )
        worker.say(f"devices: {tracking.hardware(worker.mesh)}")
        if any(phase.init == "random" for phase in study.phases.values()):  # any other start has its own
            worker.make_model()
        worker.work()
    worker.say(f"results: {workdir / 'results.jsonl'}  ({tracking.clock(time.monotonic() - began)})")
    worker.fail()


class Failed(InputError):
    """Phases or evaluations failed; what does not need them is done."""


class _Taken(Exception):
    """Another worker has taken over what this one was working on."""


class _Worker:
    """Works through the phases of a study, each with its evaluations."""

    def __init__(self, study, workdir, cache_dir, mesh, stop, shard, seat):
        self.study, self.workdir, self.cache_dir, self.mesh, self.stop = study, workdir, cache_dir, mesh, stop
        self.shard, self.seat = shard, seat
        self.began = seat.path.stat().st_mtime if processes.first() else 0.0
        self.names = order(study)
        self.model = self.tokenizer_dir = None
        self.failed: dict[tuple[str, str], str] = {}  # (phase or evaluation, name): cause
        self.skipped: dict[str, str] = {}  # phase: the one that it needs

    def make_model(self) -> None:
        """Makes the tokenizer and the model of a random start."""
        with self._holding("tokenizer", wait=True):
            made = processes.first_says("the tokenizer", lambda: str(fresh.tokenizer(self.study, self.workdir)))
            self.tokenizer_dir = pathlib.Path(made)
        self.model = fresh.model(self.study, self.tokenizer_dir)

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
                if self.shard is None or processes.count() > 1:
                    raise InputError(text) from error
                self.say(text)
                return False
        return True

    def _do(self, kind: str, name: str, work: Callable[[], None]) -> bool:
        """Does a part of the study; a failure is kept with its cause, for all workers. Returns whether it went well."""
        record = self.workdir / "failed" / f"{kind}-{name}.json"

        def others() -> str:
            """What another worker has found in this run."""
            found = record.exists() and record.stat().st_mtime > self.began
            return json.loads(record.read_text())["cause"] if found else ""

        cause = processes.first_says(f"{kind} {name}", others)
        if cause:
            self.failed[kind, name] = cause
            return False
        try:
            with runtime.explained(f"{kind} {name}"):
                work()
        except (InputError, jax.errors.JaxRuntimeError) as error:
            cause = str(error).strip().partition("\n")[0]
        cause = next(filter(None, processes.meet(f"the end of {kind} {name}", cause, failure=cause)), "")
        cause = cause.removeprefix(f"{kind} {name}: ")
        if cause:  # in full at the end
            self.failed[kind, name] = cause
            self.say(f"{kind} {name} failed; why: {record}")
        if processes.first():
            content = {"kind": kind, "name": name, "cause": cause, "host": platform.node(), "pid": os.getpid()}
            if cause:
                runtime.atomic_write(record, json.dumps(content, indent=1))
            else:
                record.unlink(missing_ok=True)
        return not cause

    def fail(self) -> None:
        """Raises Failed where something failed."""
        if self.failed:
            parts = [f"{kind} {name} failed: {cause}" for (kind, name), cause in self.failed.items()]
            if self.skipped:
                parts.append(f"not run, because of it: {', '.join(self.skipped)}")
            raise Failed("; ".join(parts))

    @contextlib.contextmanager
    def _holding(self, what: str, wait: bool = False) -> Iterator[Any]:
        """Holds the lease of a part of the study while it is worked on; gives None where another worker does."""
        if self.shard is None:  # this process has the whole folder
            yield self.seat
            return
        held: list[lease.Lease] = []

        def take() -> bool:
            found = lease.acquire(self.workdir / LEASES / what)
            held.extend([found] if found else [])
            return found is not None

        while not (taken := processes.first_says(f"the lease of {what}", take)) and wait:
            time.sleep(POLL)
        try:
            yield (held[0] if held else _Followed()) if taken else None
        finally:
            for own in held:
                own.release()

    def _phase(self, name: str, stop: Callable[[int], bool]) -> None:
        study, phase = self.study, self.study.phases[name]
        keep = partial(keeping.keep, phase, data_dir=study.data_dir)
        model, tokenizer_dir, start = self.model, self.tokenizer_dir, None
        if phase.init != "random":
            path = self.workdir / "phases" / phase.init / "best" if phase.init in study.phases else phase.init
            if bundle.is_bundle(path):  # a finished phase is recognised without reading its starting point's arrays
                meta, known = bundle.read_meta(path), bundle.model_of(path, study.compute)
                phase = keep(known.with_heads(), known.head_specs)
                if self._claim(name, phase, known.config, meta["sha256"], pathlib.Path(path) / "tokenizer")[1]:
                    return
            start = bundle.load(path, compute=study.compute, mesh=self.mesh)
            model, tokenizer_dir = start.model, start.tokenizer_dir
        phase = keep(model, start.model.head_specs if start else ())
        own, done = self._claim(name, phase, model.config, start.meta["sha256"] if start else None, tokenizer_dir)
        if done:
            return
        left, later = self._left(name) if processes.first() else ("", None)
        self.say(f"phase {self.names.index(name) + 1}/{len(self.names)}: {name}{left}")
        folder = self.workdir / "phases" / name
        place = phases.Place(folder, study.data_dir, self.cache_dir, self.mesh, later=later)
        check = None
        if phase.select.metric:
            check = dev_evaluator(phase, study.data_dir, tokenizer_dir, self.cache_dir, self.mesh)
        if "oracle" in phase.select.also:
            oracle = selection.oracle(phase)
            target = dev_evaluator(oracle, study.data_dir, tokenizer_dir, self.cache_dir, self.mesh)
            check = partial(_with_oracle, check, target)
        probe = None
        if phase.probe.every:
            from jxstilts.eval import probes  # SciPy's optimizer, which a study without probes does not wait for

            probe = probes.during(phase.probe, study.data_dir, tokenizer_dir, self.cache_dir, self.mesh)
        phases.run(name, phase, model, start, tokenizer_dir, place, own, check, stop, probe)

    def _claim(self, name: str, phase: Any, config: Any, sha: str | None, tokenizer_dir: pathlib.Path):
        """Returns (a phase's identity, after making its folder its own; whether it is done)."""
        folder = self.workdir / "phases" / name
        data = identities.data(phase, self.study.data_dir, self.cache_dir.with_name("digests"))
        own = identities.identity(phase, config, sha, tokenizer_dir, data)

        def claim() -> bool:
            record, message = identities.claim(folder, own)
            if message:
                self.say(f"{name}: {message}")
            if record is not None:  # a process that was killed just after DONE has left them
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            return record is not None

        return own, processes.first_says(f"the folder of {name}", claim)

    def _left(self, name: str) -> tuple[str, float | None]:
        """Returns (what is left to train, where finished phases tell how fast it goes; the tokens after this phase).

        The latter are None where they are not known, or where other workers train them too.
        """
        try:
            rows = plan.rows(self.study, self.workdir)
        except InputError:  # data that cannot be read: the phase that needs it says so
            return "", None
        seconds = plan.seconds_left(rows)
        text = "" if seconds is None else f"  (all phases: about {tracking.clock(seconds)} of training left)"
        tokens = [row.tokens for row in rows if row.state != "done" and row.name != name]
        return text, None if self.shard or None in tokens else sum(tokens)

    def _evaluate(self, key: str, evaluation: Evaluation, stop: Callable[[int], bool]) -> None:
        study, folder = self.study, self.workdir / "phases" / evaluation.phase
        record = processes.first_says(f"DONE of {evaluation.phase}", lambda: identities.done(folder))
        labels = {
            "study": study.study, "phase": evaluation.phase, "model": evaluation.model,
            "intermediate": evaluation.intermediate, "target": evaluation.target,
            "seed": study.phases[evaluation.phase].seed, "checkpoint_sha256": record["checkpoint_sha256"],
        }  # fmt: skip
        which = evaluation.selection
        if which != selection.BEST:
            labels |= {
                "selection": which, "model": f"{evaluation.model} [{selection.ALSO[which]}]",
                "checkpoint_sha256": record["also"][which]["checkpoint_sha256"],
            }  # fmt: skip
        results.add(
            self.workdir, key, evaluation.what, labels,
            lambda: bundle.load(folder / which, compute=study.compute, mesh=self.mesh),
            data_dir=study.data_dir, cache_dir=self.cache_dir, digests_dir=self.cache_dir.with_name("digests"),
            mesh=self.mesh, stop=stop,
        )  # fmt: skip

    def say(self, text: str) -> None:
        if processes.first():
            print(text, flush=True)


class _Followed:
    """A lease that process 0 holds for this one."""

    lost = False


def _ask(stop: Callable[[int], bool], held: lease.Lease | _Followed, step: int) -> bool:
    """Whether to stop. Raises _Taken, so that nothing more is written, where the lease is lost."""
    if held.lost:
        raise _Taken
    return stop(step)


@contextlib.contextmanager
def _seat(workdir: pathlib.Path, shard: tuple[int, int] | None) -> Iterator[lease.Lease | _Followed]:
    """Holds the folder, or one worker's place in it. Raises InputError that names whoever is there already."""
    name = ALONE if shard is None else f"worker-{shard[0]}-of-{shard[1]}"
    own: list[lease.Lease] = []
    with contextlib.ExitStack() as held:
        processes.first_says("the folder", lambda: own.append(held.enter_context(_own_seat(workdir, shard, name))))
        seen = processes.meet("the folder's lease", (workdir / LEASES / name).exists())
        if not all(seen):
            blind = ", ".join(str(index) for index, sees in enumerate(seen) if not sees)
            raise InputError(f"--workdir={workdir}: process {blind} sees another folder than process 0 does")
        yield own[0] if own else _Followed()


@contextlib.contextmanager
def _own_seat(workdir: pathlib.Path, shard: tuple[int, int] | None, name: str) -> Iterator[lease.Lease]:
    folder = workdir / LEASES
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


def _clear(seat: lease.Lease, workdir: pathlib.Path, cache_dir: pathlib.Path) -> None:
    """Removes what killed processes left: leases, and what they were about to put in place (`atomic_write`, cache)."""
    seat.clear(workdir / LEASES)
    seat.clear(workdir, ".*.lock")
    places = ("", "tokenizer/", "failed/", "phases/*/", "items/*/", "predictions/*/*/", "report/", "report/*/")
    _remove_old(path for at in places for path in workdir.glob(f"{at}.*.tmp"))
    with contextlib.suppress(OSError):  # a shared cache may be read-only
        seat.clear(cache_dir / "features", ".*.lock")
        cache.remove_leftovers(cache_dir / "features")  # a new entry does so too, but there may be none to come
        _remove_old(cache_dir.glob("digests/.*.tmp"))


def _remove_old(paths: Iterable[pathlib.Path]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > LEFTOVER:
                path.unlink()


def _with_oracle(check: phases.Evaluator | None, target: phases.Evaluator, model: Model, params: Any) -> dict:
    """The values of the selection rule, where there is one, and the oracle's."""
    return {**(check(model, params) if check else {}), ORACLE: target(model, params)["major"]}


def dev_evaluator(
    phase: phases.Phase, data_dir: str, tokenizer_dir: pathlib.Path, cache_dir: pathlib.Path, mesh: Any
) -> phases.Evaluator:
    """The selection rule: the first dev rows of every task that the phase trains, in English unless it says otherwise.

    Gives each task's metrics (of several tasks as TASK/METRIC), means over languages, and "major", the mean of the
    tasks' major metrics.
    """
    tokenizer = tokenizers.load(tokenizer_dir)
    rows = {
        key: inputs.dev_rows(stream, phase.select, data_dir)
        for key, stream in phase.tasks.items()
        if selection.trains_task(stream)
    }

    def check(model: Model, params: Any) -> dict[str, float]:
        values, majors = {}, []
        for key, by_language in rows.items():
            stream = phase.tasks[key]
            options = evaluator.Options(**stream.reading, max_features=phase.select.rows)
            own, task = evaluator.Evaluator(model, params, tokenizer, options, mesh, cache_dir), tasks.get(stream.task)
            head = inputs.head_name(stream)
            found = [own.evaluate(task, each, head=head, language=code) for code, each in by_language.items()]
            if any(result.major is None for result in found):
                raise InputError(
                    f"tasks.{key}: the dev rows of {stream.task!r} have no gold labels to choose a checkpoint by; take "
                    'dev rows from the training data (holdout), or choose none (select.metric="")'
                )
            for name in found[0].metrics:
                mean = sum(result.metrics[name] for result in found) / len(found)
                values[f"{key}/{name}" if len(rows) > 1 else name] = mean
            majors.append(sum(result.major for result in found) / len(found))
        return values | {"major": sum(majors) / len(majors)}

    return check
