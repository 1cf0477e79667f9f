"""A grid of runs as one entry of a config, and the phases and evaluations that it stands for.

Each model goes, once per seed, through each intermediate task; each result is trained on the target tasks and evaluated
there zero-shot. Nothing is trained twice. Targets with the same training data share a phase. So do an intermediate
task and a target that no intermediate task precedes, where both train the same. Retrieval is evaluated without a
target phase.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jxstilts import tasks
from jxstilts.config import fingerprint, plain, setting, some_of
from jxstilts.eval import benchmarks, results
from jxstilts.runtime import InputError, suggest
from jxstilts.tasks import protocols
from jxstilts.train import mixture
from jxstilts.train import phase as phases
from jxstilts.train.selection import ALSO, BEST

NONE = "none"
ALL = "all9"
EXTRAS = ("mlm", "translated")


@dataclasses.dataclass(frozen=True)
class Grid:
    """models x intermediates x targets x seeds. No models: no grid.

    What is more special goes before what is more general: `training` before `phase`, `targets` before `what`.
    """

    models: dict[str, str] = setting(
        dict, "name in the tables -> where it starts: a phase of the config, random, a bundle, a folder or a hub id"
    )
    intermediates: tuple[str, ...] = setting(
        (NONE,),
        "none, a task, all9 (the study's nine together), or any key of `training`; +mlm adds `replay` to it, "
        "+translated its translations, as in mnli+mlm",
    )
    targets: dict[str, some_of(results.Request)] = setting(
        dict, "task -> keys of its evaluations; {} = dev where there is one, in the benchmark's languages"
    )
    seeds: tuple[int, ...] = setting((0,), "the numbers themselves, not how many: a run of every phase for each")
    protocol: str = setting("authors", "protocol of every phase and evaluation", allowed=protocols.PROTOCOLS)
    benchmark: str = setting(
        "xtreme",
        'the benchmark in whose languages a target is evaluated; "" = all that the task has',
        allowed=benchmarks.BENCHMARKS,
    )
    phase: some_of(phases.Phase) = setting(
        dict, "keys of every phase; heads are new ones, as in the study, unless keep_heads says otherwise"
    )
    training: dict[str, some_of(phases.Phase)] = setting(
        dict,
        "training task, or a name of your own -> keys of the phases that train it; without `tasks`: that task alone",
    )
    replay: some_of(mixture.Stream) = setting(dict, "keys of the text stream that +mlm adds")
    translated: tuple[str, ...] = setting((), "the languages that +translated adds, beside English")
    what: some_of(results.Request) = setting(dict, "keys of every evaluation")
    selections: tuple[str, ...] = setting(
        (BEST,),
        "bundles of the phases that are evaluated: best, and of `select.also`, which the phases then keep; each is a "
        "model of its own in the tables; the oracle where `training` gives its select.oracle_languages",
        allowed=(BEST, *ALSO),
    )


def expand(grid: Grid, given: tuple[str, ...] = ()) -> tuple[dict[str, dict], dict[str, dict]]:
    """Returns ({name: keys of a phase}, {name: keys of an evaluation}).

    given: names of the config's own phases, from which a model may start. Names are MODEL (where it starts),
    MODEL-INTERMEDIATE-sSEED, MODEL-INTERMEDIATE-TRAINING-sSEED; evaluations MODEL-INTERMEDIATE-TARGET-sSEED.
    Raises InputError that names the key.
    """
    _check(grid, given)
    made = _Phases(grid, {}, {})
    evaluations = {}
    for model, start in grid.models.items():
        roots = {seed: start if start in given else made.root(model, start, seed) for seed in grid.seeds}
        arms = {}
        for what in grid.intermediates:
            if what != NONE:
                # a kept model has no heads, so that it is the same with and without replay, which needs its MLM head
                inits = dict.fromkeys(roots, start) if "mlm" in _additions(what) else roots
                arms[what] = {seed: made.train(what, f"{model}-{what}", init, seed) for seed, init in inits.items()}
        for intermediate in grid.intermediates:
            trained = arms.get(intermediate, roots)
            for target, what in grid.targets.items():
                training, seen = tasks.get(target).train_task, set()
                for seed, phase in trained.items():
                    if training:
                        phase = made.train(training, f"{model}-{intermediate}-{training}", phase, seed)
                    if phase in seen:
                        continue  # nothing has been trained: one seed says it all
                    seen.add(phase)
                    name = f"{model}-{intermediate}-{target}-s{seed}"
                    kept = made.phases.get(phase, {}).get("select", {}).get("also", ())
                    for which in grid.selections:
                        if which not in (BEST, *kept):
                            continue
                        evaluations[name if which == BEST else f"{name}-{which}"] = {
                            "phase": phase,
                            "model": model,
                            "intermediate": intermediate,
                            "target": target if training else "",
                            "what": _what(grid, target, what),
                            **({} if which == BEST else {"selection": which}),
                        }
    return made.phases, evaluations


@dataclasses.dataclass(frozen=True)
class _Phases:
    """Phases by name, and the names by content."""

    grid: Grid
    phases: dict[str, dict]
    names: dict[str, str]

    def root(self, model: str, start: str, seed: int) -> str:
        """Adds the phase that holds a model as it is, without heads; a random one per seed."""
        if start == "random":
            model = f"{model}-s{seed}"
        self.phases.setdefault(model, {"init": start, "seed": seed})
        return model

    def train(self, what: str, name: str, init: str, seed: int) -> str:
        """Returns the name of the phase that trains `what` (as in `Grid.intermediates`) from `init`; adds it once."""
        base, *extras = what.split("+")
        own = plain(self.grid.training.get(base, {}))
        streams = own.get("tasks") or {
            task: self._stream(task) for task in (tasks.INTERMEDIATE if base == ALL else (base,))
        }
        if "translated" in extras:
            streams = {key: {**stream, "languages": ["en", *self.grid.translated]} for key, stream in streams.items()}
        keep = []
        if "mlm" in extras:
            text = {"task": "text", "objective": "mlm", "packed": True, "mode": "alternate"}
            streams, keep = {**streams, "mlm": {**text, **plain(self.grid.replay)}}, ["mlm"]
        usual = {"protocol": self.grid.protocol, "keep_heads": []}
        phase = _merge(_merge(usual, plain(self.grid.phase)), own)
        phase |= {"init": init, "tasks": streams, "seed": seed}
        select = phase.get("select", {})
        also = [which for which in self.grid.selections if which in ALSO]
        also = [which for which in also if which != "oracle" or select.get("oracle_languages")]
        if also:
            phase["select"] = {**select, "also": also}
        if keep:
            phase["keep_heads"] = keep
        name = self.names.setdefault(fingerprint(phase), f"{name}-s{seed}")
        self.phases[name] = phase
        return name

    def _stream(self, task: str) -> dict:
        """The task's stream as it is when it is trained alone."""
        return plain(self.grid.training.get(task, {})).get("tasks", {}).get(task, {})


def _additions(what: str) -> list[str]:
    return what.split("+")[1:]


def _what(grid: Grid, target: str, what: Mapping[str, Any]) -> dict:
    """Returns the keys of an evaluation's request."""
    inside = target in benchmarks.get(grid.benchmark).tasks if grid.benchmark else False
    usual = {"tasks": [target], "benchmark": grid.benchmark if inside else "", "options": {"protocol": grid.protocol}}
    return _merge(_merge(usual, plain(grid.what)), plain(what))


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict:
    """Returns both, the second going before the first, level by level."""
    both = dict(low)
    for key, value in high.items():
        both[key] = _merge(low[key], value) if isinstance(value, dict) and isinstance(low.get(key), dict) else value
    return both


def _check(grid: Grid, given: tuple[str, ...]) -> None:
    where = "config.grid"
    for key in ("intermediates", "seeds", "selections"):
        values = getattr(grid, key)
        if not values or len(set(values)) != len(values):
            raise InputError(f"{where}.{key}={values}: at least one, and none of them twice")
    if min(grid.seeds) < 0:
        raise InputError(f"{where}.seeds={grid.seeds}: 0 or more")
    for which in grid.selections:
        if which not in (BEST, *ALSO):
            raise InputError(f"{where}.selections: {suggest('bundle', which, (BEST, *ALSO))}")
    for name, start in grid.models.items():
        if not name or set("/*?[]") & set(name):
            raise InputError(f"{where}.models: {name!r} is part of folders' names: no slash, no bracket, no * or ?")
        if name in given and start != name and start not in given:
            raise InputError(f"{where}.models.{name}: config.phases has a phase of this name; rename one of them")
    known = {NONE, ALL, *tasks.names(), *grid.training}
    for name in grid.intermediates:
        base, *extras = name.split("+")
        if base not in known:
            raise InputError(f"{where}.intermediates: {suggest('intermediate', base, known)}")
        for extra in extras:
            if extra not in EXTRAS:
                raise InputError(f"{where}.intermediates: {name!r}: {suggest('addition', extra, EXTRAS)}")
        if base == NONE and extras:
            raise InputError(f"{where}.intermediates: {name!r}: nothing is trained there; leave +{extras[0]} out")
        if "mlm" in extras and "random" in grid.models.values():
            raise InputError(f"{where}.intermediates: {name!r}: a random start has no MLM head to train further")
        for extra, key in (("mlm", "replay"), ("translated", "translated")):
            if extra in extras and not getattr(grid, key):
                raise InputError(f"{where}.intermediates: {name!r} needs {where}.{key}")
    bases = {name.split("+")[0] for name in grid.intermediates}
    for name in grid.training:
        if name not in (known := {ALL, *tasks.names(), *bases} - {NONE}):
            what = "intermediate or training task"
            raise InputError(f"{where}.training: {suggest(what, name, known)}")
    for target in grid.targets:
        spec = tasks.get(target)
        if spec.train_task is None and (spec.form.has_head or not spec.form.scored):
            raise InputError(f"{where}.targets: nothing trains {target!r}")
