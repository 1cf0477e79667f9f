"""The config of a study, checked whole before anything runs."""

import dataclasses
import fnmatch
import pathlib
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from jxstilts import config as configs
from jxstilts import tasks
from jxstilts.eval import results
from jxstilts.mesh import AXES
from jxstilts.models.checks import check_values
from jxstilts.models.layers import Compute
from jxstilts.models.model import family_module
from jxstilts.runtime import InputError, suggest
from jxstilts.study import grid as grids
from jxstilts.study.paths import model_path
from jxstilts.train import phase as phases

OPTIONS = {  # the least that an evaluation's numbers can be
    "max_length": 0, "doc_stride": 1, "max_query_length": 1, "max_answer_length": 1, "n_best": 1, "tokens_per_batch": 0,
    "max_features": 0, "query_length": 0, "beams": 1, "question_noise": 0,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Zero-shot evaluation of one phase. model and intermediate are its row in the tables."""

    phase: str
    model: str
    intermediate: str
    what: results.Request
    target: str = ""  # the target task of the phase; "" = none (retrieval)


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """`path`: a folder or SentencePiece model to load; otherwise a vocabulary is trained on text of `languages`."""

    path: str = ""
    model: str = "unigram"
    vocab_size: int = 16000
    languages: tuple[str, ...] = ()
    characters: int = 12_000_000  # of text to train on, all languages together
    sampling_exponent: float = 0.3
    coverage: float = 0.9995  # share of the characters that get a piece of their own
    sentinels: int = 0  # tokens for span corruption (T5: 100); vocab_size counts them


def _model_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {key: type} of a model: family, preset and the fields of the family's Config; None = as the preset."""
    kind = family_module(values.get("family") or "xlmr").Config
    hints = typing.get_type_hints(kind)
    own = {field.name: hints[field.name] | None for field in dataclasses.fields(kind)}
    return {"family": str | None, "preset": str | None, **own}


@dataclasses.dataclass(frozen=True)
class Study:
    """The whole config, checked. After `from_config` the grid's phases and evaluations stand beside the others."""

    study: str
    data_dir: str
    model: Annotated[dict[str, Any], configs.Keys(_model_keys)]
    phases: dict[str, phases.Phase]
    evaluations: dict[str, Evaluation]
    grid: grids.Grid = dataclasses.field(default_factory=grids.Grid)
    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    compute: Compute = dataclasses.field(default_factory=Compute)
    mesh: dict[str, int] = dataclasses.field(default_factory=lambda: {"data": -1, "fsdp": 1, "tensor": 1})
    cache_dir: str = ""  # "" = WORKDIR/cache
    compile_cache: str = ""  # "" = CACHE_DIR/compile
    seed: int = 0


def from_config(config: Any, to_run: bool = True) -> Study:
    """Checks a ConfigDict whole, before anything runs. Raises InputError that names the key.

    to_run: the data folder has to be there.
    """
    _check_new(config)
    study = configs.build(Study, config, "config")
    if to_run and not study.data_dir:
        raise InputError("config.data_dir is empty; give --config.data_dir=FOLDER (see docs/data.md for its layout)")
    if study.data_dir and not _there(study.data_dir, pathlib.Path.is_dir):
        raise InputError(f"config.data_dir={study.data_dir!r:.200}: no such folder")
    family = study.model.get("family") or "xlmr"
    given = {key: value for key, value in study.model.items() if value is not None}
    check_values(family, given, "config.model.")
    for key in ("phases", "evaluations"):
        odd = [name for name in getattr(study, key) if not name.isprintable()]
        if odd:
            raise InputError(f"config.{key}: {odd[0]!r:.60} is not a name")
    study = _with_grid(study)
    resolved = {name: phase.resolve(f"config.phases.{name}") for name, phase in study.phases.items()}
    study = dataclasses.replace(study, phases=resolved)
    _check_numbers(study)
    for name, phase in study.phases.items():
        known = ("random", *study.phases)
        if phase.init not in known and "/" not in phase.init and not _there(phase.init, pathlib.Path.exists):
            hint = "or give a folder or a hub id (owner/name)"
            raise InputError(f"config.phases.{name}.init: {suggest('phase', phase.init, known)}; {hint}")
        for stream in phase.tasks.values():
            for language in phase.select.languages:
                known = tasks.get(stream.task).loadable("train" if stream.holdout else "dev")
                if stream.objective == "task" and language not in known:
                    where = f"config.phases.{name}.select.languages"
                    raise InputError(f"{where}: {suggest(f'language of task {stream.task!r}', language, known)}")
        if phase.init not in known:
            start = model_path(phase.init, f"config.phases.{name}.init")
            study.phases[name] = dataclasses.replace(phase, init=start)
        for key, stream in phase.tasks.items():
            known = tasks.get(stream.task).loadable("train")
            for language in stream.languages:
                if language not in known:
                    where = f"config.phases.{name}.tasks.{key}.languages"
                    raise InputError(f"{where}: {suggest(f'language of task {stream.task!r}', language, known)}")
    for name, evaluation in study.evaluations.items():
        where = f"config.evaluations.{name}"
        if evaluation.phase not in study.phases:
            raise InputError(f"{where}.phase: {suggest('phase', evaluation.phase, study.phases)}")
        results.check(evaluation.what, f"{where}.what.tasks", f"{where}.what.languages")
    order(study)
    return study


def _check_new(config: Mapping[str, Any]) -> None:
    """Raises InputError for a phase or evaluation that the command line only seems to add: a name that is mistyped."""
    for key, needed in (("phases", "init"), ("evaluations", "phase")):
        entries = config.get(key)
        for name, entry in entries.items() if hasattr(entries, "items") else ():
            if isinstance(entry, configs.New) and needed not in entry:
                known = [other for other in entries if other != name]
                what = f"{suggest(key[:-1], name, known)}; a new one needs --config.{key}.{name}.{needed}"
                raise InputError(f"config.{key}: {what}")


def _check_numbers(study: Study) -> None:
    """Raises InputError for a number below the least that its key can be."""
    configs.at_least("config.", study, seed=0)
    configs.at_least("config.tokenizer.", study.tokenizer, vocab_size=1, characters=1, sampling_exponent=0, coverage=0)
    for axis in study.mesh:
        if axis not in AXES:
            raise InputError(f"config.mesh: {suggest('mesh axis', axis, AXES)}")
    for name, phase in study.phases.items():
        where = f"config.phases.{name}."
        configs.at_least(where, phase, epochs=0, steps=0, save_every=1, log_every=1, seed=0, dropout=0)
        configs.at_least(f"{where}optimizer.", phase.optimizer, clip=0, beta1=0, beta2=0, eps=0)
        for key, stream in phase.tasks.items():
            configs.at_least(f"{where}tasks.{key}.", stream, doc_stride=1, max_query_length=1, sampling_exponent=0)
    for name, evaluation in study.evaluations.items():
        where = f"config.evaluations.{name}.what."
        configs.at_least(where, evaluation.what, limit=0)
        configs.at_least(f"{where}options.", evaluation.what.options, **OPTIONS)


def _there(path: str, test: Callable[[pathlib.Path], bool]) -> bool:
    try:
        return test(pathlib.Path(path))
    except OSError:  # too long for a name, or behind a folder that may not be entered
        return False


def _with_grid(study: Study) -> Study:
    if not study.grid.models:
        return study
    try:
        made = grids.expand(study.grid, tuple(study.phases))
    except InputError as error:
        raise InputError(str(error) if str(error).startswith("config.") else f"config.grid: {error}") from error
    both = {}
    for key, kind, new in zip(("phases", "evaluations"), (phases.Phase, Evaluation), made, strict=True):
        given = getattr(study, key)
        for name in new:
            if name in given:
                raise InputError(f"config.{key}: the grid makes {name!r} too; rename yours")
        both[key] = given | {name: configs.build(kind, values, f"config.grid: {name}") for name, values in new.items()}
    return dataclasses.replace(study, **both)


def order(study: Study) -> list[str]:
    """Phase names, each after the one it starts from. Raises InputError for a circle."""
    done: dict[str, None] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise InputError(f"config.phases: {' -> '.join((*path, name))} start from one another in a circle")
        if name not in done:
            init = study.phases[name].init
            if init in study.phases:
                visit(init, (*path, name))
            done[name] = None

    for name in study.phases:
        visit(name, ())
    return list(done)


def only(study: Study, patterns: str) -> Study:
    """Returns the phases and evaluations whose name matches one of the comma-separated globs, and what they need.

    "": everything. Raises InputError for a glob that nothing matches.
    """
    if not patterns:
        return study
    wanted: set[str] = set()
    for pattern in filter(None, patterns.split(",")):
        found = [name for name in (*study.phases, *study.evaluations) if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            some = ", ".join(list(study.phases | study.evaluations)[:5])
            raise InputError(f"--only={pattern}: matches no phase or evaluation; there are {some}, ... (jxstilts plan)")
        wanted.update(found)
    evaluations = {name: each for name, each in study.evaluations.items() if name in wanted}
    needed = [name for name in study.phases if name in wanted] + [each.phase for each in evaluations.values()]
    kept: set[str] = set()
    while needed:
        name = needed.pop()
        if name in study.phases and name not in kept:
            kept.add(name)
            needed.append(study.phases[name].init)
    kept_phases = {name: phase for name, phase in study.phases.items() if name in kept}
    return dataclasses.replace(study, phases=kept_phases, evaluations=evaluations)
