"""The config of a study, checked whole before anything runs."""

import dataclasses
import fnmatch
import pathlib
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from jxstilts import config as configs
from jxstilts import tasks
from jxstilts.config import setting
from jxstilts.data import synonyms
from jxstilts.eval import results
from jxstilts.mesh import AXES
from jxstilts.models.checks import check_values
from jxstilts.models.layers import Compute
from jxstilts.models.model import family_module
from jxstilts.runtime import InputError, suggest
from jxstilts.study import grid as grids
from jxstilts.study.paths import model_path
from jxstilts.train import selection
from jxstilts.train.phase import Phase


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Zero-shot evaluation of one phase. model and intermediate are its row in the tables."""

    phase: str = setting(..., "the phase whose best checkpoint is evaluated")
    model: str = setting(..., "the model's name in the tables")
    intermediate: str = setting(..., "the intermediate task's name in the tables; none: there was none")
    what: results.Request = setting(..., "what it is evaluated on")
    target: str = setting("", 'the target task of the phase; "" = none (retrieval)')
    selection: str = setting(
        selection.BEST,
        "which of the phase's bundles; another than best is one of its select.also",
        allowed=(selection.BEST, *selection.ALSO),
    )


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """The tokenizer of a random start; any other start has its own."""

    path: str = setting(
        "",
        'a tokenizer\'s folder, or a SentencePiece model, to load; "" = a vocabulary is trained on text of `languages`',
    )
    model: str = setting("unigram", "the kind of vocabulary that is trained", allowed=("unigram", "bpe"))
    vocab_size: int = setting(16000, "tokens of the vocabulary that is trained, special ones included", least=1)
    languages: tuple[str, ...] = setting(
        (), "languages whose running text (the task `text`) the vocabulary is trained on"
    )
    characters: int = setting(12_000_000, "characters of text to train it on, all languages together", least=1)
    sampling_exponent: float = setting(
        0.3, "a language gives characters with p ~ its size ** this; 1 = as there are, 0 = all alike", least=0
    )
    coverage: float = setting(
        0.9995, "share of the characters of the text that get a piece of their own; above 0, at most 1", least=0
    )
    sentinels: int = setting(
        0, "tokens that stand for what span corruption cuts out (T5: 100); vocab_size counts them", least=0
    )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The model of a random start; any other start has its own. Beside these, the keys of the family's Config."""

    family: str | None = setting(None, "the architecture, of `jxstilts models`; None = xlmr")
    preset: str | None = setting(
        None, "a named size of the family, of `jxstilts models`; the family's keys go before what it says"
    )


def _model_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {key: type} of a model: its own and the fields of the family's Config; None = as the preset."""
    kind = family_module(values.get("family") or "xlmr").Config
    hints = typing.get_type_hints(kind)
    own = {field.name: hints[field.name] | None for field in dataclasses.fields(kind)}
    return configs.hints(ModelConfig) | own


@dataclasses.dataclass(frozen=True)
class Study:
    """The whole config, checked. After `from_config` the grid's phases and evaluations stand beside the others."""

    study: str = setting(..., "the study's name, which its tables have as their title")
    data_dir: str = setting(..., "folder of the data sets in their public layouts (docs/data.md)")
    model: Annotated[dict[str, Any], configs.Keys(_model_keys)] = setting(..., "the model of a random start")
    phases: dict[str, Phase] = setting(..., "training runs by name")
    evaluations: dict[str, Evaluation] = setting(..., "zero-shot evaluations of phases by name")
    grid: grids.Grid = setting(grids.Grid, "models x intermediate tasks x targets x seeds, made into further ones")
    tokenizer: TokenizerConfig = setting(TokenizerConfig, "the tokenizer of a random start")
    compute: Compute = setting(Compute, "how every model is computed: precision, attention, memory")
    mesh: dict[str, int] = setting(
        lambda: {"data": -1, "fsdp": 1, "tensor": 1},
        "devices along each axis: data splits the batch, fsdp the batch and the parameters, tensor heads, feed-forward "
        "layers and vocabulary; one of them may be -1: what is left",
        allowed=AXES,
    )
    cache_dir: str = setting("", 'folder of tokenised data, which studies may share; "" = WORKDIR/cache')
    compile_cache: str = setting(
        "", 'folder of compiled steps; "" = CACHE_DIR/compile. Who can write there can run code'
    )


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
    configs.at_least("config", study)
    for axis in study.mesh:
        if axis not in AXES:
            raise InputError(f"config.mesh: {suggest('mesh axis', axis, AXES)}")
    for name, phase in study.phases.items():
        known = ("random", *study.phases)
        if phase.init not in known and "/" not in phase.init and not _there(phase.init, pathlib.Path.exists):
            hint = "or give a folder or a hub id (owner/name)"
            raise InputError(f"config.phases.{name}.init: {suggest('phase', phase.init, known)}; {hint}")
        for stream in phase.tasks.values():
            for language in phase.select.languages:
                known = tasks.get(stream.task).loadable("train" if stream.holdout else "dev")
                if selection.trains_task(stream) and language not in known:
                    where = f"config.phases.{name}.select.languages"
                    raise InputError(f"{where}: {suggest(f'language of task {stream.task!r}', language, known)}")
        selection.check_oracle(phase, f"config.phases.{name}")
        if phase.init not in known:
            start = model_path(phase.init, f"config.phases.{name}.init")
            study.phases[name] = dataclasses.replace(phase, init=start)
        for key, stream in phase.tasks.items():
            if to_run and stream.synonyms:
                synonyms.read(stream.synonyms)
            known = tasks.get(stream.task).loadable("train")
            for language in stream.languages:
                if language not in known:
                    where = f"config.phases.{name}.tasks.{key}.languages"
                    raise InputError(f"{where}: {suggest(f'language of task {stream.task!r}', language, known)}")
    for name, evaluation in study.evaluations.items():
        where = f"config.evaluations.{name}"
        if evaluation.phase not in study.phases:
            raise InputError(f"{where}.phase: {suggest('phase', evaluation.phase, study.phases)}")
        kept = (selection.BEST, *study.phases[evaluation.phase].select.also)
        if evaluation.selection not in kept:
            raise InputError(
                f"{where}.selection: {suggest('bundle', evaluation.selection, kept)}; "
                f"config.phases.{evaluation.phase}.select.also names what is kept"
            )
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
    for key, kind, new in zip(("phases", "evaluations"), (Phase, Evaluation), made, strict=True):
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
