"""A study: phases that start from one another, and evaluations of what they produced.

    config.phases[name]       a `train.phase.Phase`; `init` may name another phase
    config.evaluations[name]  an `Evaluation`: tasks and languages on one phase's best checkpoint
A study folder holds phases/<name>/, results.jsonl, predictions/ and report/. Running the same command again continues.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

from jxstilts import config as configs
from jxstilts import mesh as meshes
from jxstilts import runtime, tasks, tracking
from jxstilts.data import tokenizer as tokenizers
from jxstilts.eval import evaluator, results
from jxstilts.models import bundle
from jxstilts.models.layers import Compute
from jxstilts.models.model import Model, make_config
from jxstilts.runtime import InputError, suggest
from jxstilts.train import inputs
from jxstilts.train import phase as phases


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


@dataclasses.dataclass(frozen=True)
class Study:
    """The whole config, checked."""

    study: str
    data_dir: str
    model: dict[str, Any]
    phases: dict[str, phases.Phase]
    evaluations: dict[str, Evaluation]
    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    compute: Compute = dataclasses.field(default_factory=Compute)
    mesh: dict[str, int] = dataclasses.field(default_factory=lambda: {"data": -1})
    cache_dir: str = ""  # "" = WORKDIR/cache
    compile_cache: str = ""  # "" = CACHE_DIR/compile
    seed: int = 0


def from_config(config: Any) -> Study:
    """Checks a ConfigDict whole, before anything runs. Raises InputError that names the key."""
    study = configs.build(Study, dict(config.items()), "config")
    if not study.data_dir:
        raise InputError("config.data_dir is empty; give --config.data_dir=FOLDER (see docs/data.md for its layout)")
    if not pathlib.Path(study.data_dir).is_dir():
        raise InputError(f"config.data_dir={study.data_dir!r}: no such folder")
    resolved = {name: phase.resolve(f"config.phases.{name}") for name, phase in study.phases.items()}
    study = dataclasses.replace(study, phases=resolved)
    for name, phase in study.phases.items():
        known = ("random", *study.phases)
        if phase.init not in known and "/" not in phase.init and not pathlib.Path(phase.init).exists():
            hint = "or give a folder or a hub id (owner/name)"
            raise InputError(f"config.phases.{name}.init: {suggest('phase', phase.init, known)}; {hint}")
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


def order(study: Study) -> list[str]:
    """Phase names, each after the one it starts from. Raises InputError for a circle."""
    done: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise InputError(f"config.phases: {' -> '.join((*path, name))} start from one another in a circle")
        if name not in done:
            init = study.phases[name].init
            if init in study.phases:
                visit(init, (*path, name))
            done.append(name)

    for name in study.phases:
        visit(name, ())
    return done


def run(
    study: Study,
    workdir: str | pathlib.Path,
    stop: Callable[[int], bool] = lambda step: False,
    devices: list | None = None,
) -> None:
    """Runs what is missing of a study, on `devices` (default: all).

    Raises InputError for bad input, runtime.Interrupted when `stop` asked to leave (the state is saved).
    """
    began = time.monotonic()
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    cache_dir = pathlib.Path(study.cache_dir or workdir / "cache")
    runtime.start(study.compile_cache or str(cache_dir / "compile"))
    cache_dir = cache_dir / "features"
    mesh = meshes.make_mesh(study.mesh, devices)
    model = tokenizer_dir = None  # of a random start; any other has its own
    if any(phase.init == "random" for phase in study.phases.values()):
        tokenizer_dir = _tokenizer(study, workdir)
        model = _model(study, tokenizer_dir)
    names = order(study)
    for number, name in enumerate(names, start=1):
        folder = workdir / "phases" / name
        if phases.done(folder) is None:
            _say(f"phase {number}/{len(names)}: {name}")
        _run_phase(study, name, model, tokenizer_dir, workdir, cache_dir, mesh, stop)
        for key, evaluation in study.evaluations.items():
            if evaluation.phase == name:
                _evaluate(study, key, evaluation, folder, workdir, cache_dir, mesh, stop)
    _say(f"results: {workdir / 'results.jsonl'}  ({tracking.clock(time.monotonic() - began)})")


def _run_phase(study, name, model, tokenizer_dir, workdir, cache_dir, mesh, stop) -> None:
    phase = study.phases[name]
    folder = workdir / "phases" / name
    start = None
    if phase.init != "random":
        path = workdir / "phases" / phase.init / "best" if phase.init in study.phases else phase.init
        if bundle.is_bundle(path):  # a finished phase is recognised without reading its starting point's arrays
            meta = bundle.read_meta(path)
            config = make_config(meta["family"], **meta["config"])
            if phases.claim(folder, phases.identity(phase, config, meta["sha256"], pathlib.Path(path) / "tokenizer")):
                return
        start = bundle.load(path, compute=study.compute, mesh=mesh)
        model, tokenizer_dir = start.model, start.tokenizer_dir
    sha = start.meta["sha256"] if start else None
    if phases.claim(folder, phases.identity(phase, model.config, sha, tokenizer_dir)):
        return
    place = phases.Place(folder, study.data_dir, cache_dir, mesh)
    check = _dev_evaluator(study, phase, tokenizer_dir, cache_dir, mesh) if phase.select.metric else None
    phases.run(name, phase, model, start, tokenizer_dir, place, check, stop)


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


def _evaluate(study, key, evaluation, folder, workdir, cache_dir, mesh, stop) -> None:
    record = phases.done(folder)
    labels = {
        "study": study.study, "phase": evaluation.phase, "model": evaluation.model,
        "intermediate": evaluation.intermediate, "target": evaluation.target,
        "seed": study.phases[evaluation.phase].seed, "checkpoint_sha256": record["checkpoint_sha256"],
    }  # fmt: skip
    results.add(
        workdir, key, evaluation.what, labels,
        lambda: bundle.load(folder / "best", compute=study.compute, mesh=mesh),
        data_dir=study.data_dir, cache_dir=cache_dir, mesh=mesh, stop=stop,
    )  # fmt: skip


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
    tokenizers.save(tokenizers.train(sample, config.vocab_size, model=config.model), folder)
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
