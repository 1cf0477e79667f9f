"""One phase: a starting point, a task and hyper-parameters -> the best checkpoint, as a bundle.

A phase folder holds config.json (see `identity`), metrics.jsonl, nonfinite.jsonl (steps whose loss was not finite, if
any), checkpoints/ (while it runs), best/ (a bundle), others beside it (`selection`) and DONE. Running the same phase
again continues it.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
from collections.abc import Callable
from functools import partial

from jax.sharding import Mesh

from jxstilts import processes, runtime, tasks, tracking
from jxstilts.config import fingerprint, plain, setting
from jxstilts.models import attention, bundle
from jxstilts.models.model import Model
from jxstilts.runtime import InputError
from jxstilts.tasks import protocols
from jxstilts.train import adapting, frozen, handover, inputs, keeping, mixture, probing, terms, vocabulary
from jxstilts.train.loop import Evaluator, Loop, Training
from jxstilts.train.mixture import Sampling, Stream
from jxstilts.train.optimizer import Optimizer
from jxstilts.train.selection import BEST, Select


@dataclasses.dataclass(frozen=True)
class Phase:
    """A phase's config. epochs and steps both 0: as the recipe of its only task says; no tasks: the start itself."""

    init: str = setting("random", "where it starts: random, another phase's name, or a path or hub id of a model")
    tasks: dict[str, Stream] = setting(dict, "what it trains on: streams by name, each a task; {} = the start as it is")
    protocol: str = setting("authors", "whose recipes are the defaults of its tasks", allowed=protocols.PROTOCOLS)
    sampling: Sampling = setting(Sampling, "which of several tasks a step takes")
    keep_heads: tuple[str, ...] | None = setting(
        None, "heads of the start that go on; None = those that it trains on: same name, type and labels"
    )
    objectives: dict[str, terms.Further] = setting(dict, "further objectives by name, beside the streams' own ones")
    vocabulary: str = setting(
        "occurring",
        "token embeddings that are trained: those that occur in its data, or all",
        allowed=vocabulary.CHOICES,
    )
    freeze: tuple[str, ...] = setting(
        (), "parameters that stay as they are, by path or its beginning: embeddings, layers/*/bias, heads/NAME"
    )
    adapters: dict[str, adapting.Entry] = setting(dict, "adapters by name; where there are any its encoder is frozen")
    dropout: float | None = setting(None, "dropout in place of the model's hidden and attention dropout", least=0)
    epochs: float = setting(
        0.0, "passes over the sampled tasks; 0 = as `steps`, or the recipe of the only task says", least=0
    )
    steps: int = setting(0, "optimizer steps, in place of `epochs`; 0 = as `epochs` says", least=0)
    accumulation: int = setting(
        1, "parts of a batch that are computed one after the other; same numbers, less memory", least=1
    )
    optimizer: Optimizer = setting(Optimizer, "how it learns")
    select: Select = setting(Select, "which of its checkpoints is its best")
    probe: probing.Probe = setting(probing.Probe, "what it tells of its hidden states while it trains")
    save_every: int = setting(500, "steps between two checkpoints, from which it goes on when interrupted", least=1)
    log_every: int = setting(20, "steps between two rows of metrics.jsonl", least=1)
    skip_nonfinite: int = setting(
        0,
        "so many steps in all, whose loss or gradient is not finite, change nothing (weights, moments, schedule) and "
        "are logged; one more stops the phase",
        least=0,
    )
    seed: int = setting(0, "seed of new parameters, data order, dropout and masks", least=0)

    def __post_init__(self):
        if self.vocabulary not in vocabulary.CHOICES:
            raise InputError(f"vocabulary: {runtime.suggest('choice', self.vocabulary, vocabulary.CHOICES)}")
        if self.skip_nonfinite < 0:
            raise InputError(f"skip_nonfinite={self.skip_nonfinite}: 0 (stop at once) or a number of steps")
        if self.epochs > 0 and self.steps > 0:
            raise InputError(f"a phase has epochs or steps, not both: epochs={self.epochs}, steps={self.steps}")
        if (self.epochs > 0 or self.steps > 0) and not self.tasks:
            raise InputError("a phase that trains needs tasks")
        if self.select.also and not self.tasks:
            raise InputError(f"select.also={', '.join(self.select.also)}: a phase that trains has them; it needs tasks")
        if self.objectives and not self.tasks:
            raise InputError(f"objectives={', '.join(self.objectives)}: a phase with objectives needs tasks")
        for name, stream in self.tasks.items():
            if self.accumulation < 1 or stream.batch_size % self.accumulation:
                raise InputError(
                    f"tasks.{name}.batch_size={stream.batch_size} must be a multiple of "
                    f"accumulation={self.accumulation}, which is at least 1"
                )

    def resolve(self, where: str) -> "Phase":
        """Returns the phase with every default filled in; `where` is its config path for messages."""
        if not self.tasks:
            probing.check(self.probe, False, f"{where}.probe")
            return dataclasses.replace(self, select=self.select.resolve({}))
        streams = mixture.resolve(self.tasks, self.protocol, f"{where}.tasks")
        recipes = [
            protocols.recipe(self.protocol, tasks.get(stream.task))
            for stream in streams.values()
            if stream.mode == "sampled"
        ]
        epochs = self.epochs
        if not epochs and not self.steps:
            if len(recipes) > 1 or recipes[0] is None:
                raise InputError(f"{where}: give epochs or steps; only a single task with a recipe has a default")
            epochs = recipes[0].epochs
        rates = {}
        for field in ("learning_rate", "warmup", "weight_decay"):
            if getattr(self.optimizer, field) is None:
                values = {getattr(recipe, field) for recipe in recipes if recipe is not None}
                if not values and field != "learning_rate":  # raw text: no recipe
                    values = {getattr(tasks.Recipe, field)}
                if len(values) != 1:
                    why = "the tasks' recipes differ" if values else "no task here has a recipe"
                    raise InputError(f"{where}.optimizer.{field}: give it; {why} in the protocol {self.protocol!r}")
                rates[field] = values.pop()
        optimizer = dataclasses.replace(self.optimizer, **rates)
        probing.check(self.probe, True, f"{where}.probe")
        further, select = terms.resolve(self.objectives, streams, optimizer, where), self.select.resolve(streams)
        return dataclasses.replace(
            self, tasks=streams, epochs=float(epochs), optimizer=optimizer, objectives=further, select=select
        )


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a phase runs: its folder, the data, the caches and the devices.

    later: tokens that the study trains on after it; None: not known.
    """

    folder: pathlib.Path
    data_dir: str
    cache_dir: pathlib.Path
    mesh: Mesh
    quiet: bool = False
    later: float | None = None


def _explained(train: Callable) -> Callable:
    """Makes of a full disk or a lack of memory an InputError that names the phase, and the keys to change."""

    @functools.wraps(train)
    def explained(name: str, phase: Phase, *args, **options):
        where = f"config.phases.{name}"
        sizes = [f"{where}.tasks.{key}.batch_size={stream.batch_size}" for key, stream in phase.tasks.items()]
        memory = (
            f"lower {' or '.join(sizes)} or raise {where}.accumulation={phase.accumulation}, or set "
            "config.compute.remat='full', config.compute.dtype='bfloat16' or config.mesh.fsdp; "
            "`jxstilts check` says what fits; the same command goes on from the last checkpoint"
        )
        with runtime.explained(f"phase {name}", memory):
            return train(name, phase, *args, **options)

    return explained


@_explained
def run(
    name: str,
    phase: Phase,
    model: Model,
    start: bundle.Loaded | None,
    tokenizer_dir: pathlib.Path,
    place: Place,
    own: dict,
    evaluate: Evaluator | None = None,
    stop: Callable[[int], bool] = lambda step: False,
    probe: Evaluator | None = None,
) -> dict:
    """Trains one phase to its end and returns its DONE record (best step and value, steps, checkpoint_sha256).

    Args:
        model: encoder config and compute (the starting point's, if there is one); it gets the phase's heads.
        start: the loaded starting point, None for a random one.
        own: the phase's `identity`, to which the folder belongs.
        evaluate: (model, params) -> {metric: value}; needed when phase.select.metric is set.
        stop: asked before every step; True saves and raises `runtime.Interrupted`.
        probe: as `evaluate`, of hidden states; needed when phase.probe.every is set.
    Raises InputError for bad input, a loss that is not finite, a save that fails, and where disk or memory run out.
    """
    # 1. What this phase is, and what it starts from.
    if phase.tasks:
        tracking.peak_flops()  # measured once in a process, before the devices are given work
    phase = keeping.keep(phase, model, start.model.head_specs if start else (), place.data_dir)
    model = inputs.heads(phase, model, start.model.head_specs if start else (), place.data_dir)
    losses = terms.losses(phase)
    model = adapting.adapted(
        phase, terms.with_extra(model, losses), start.model.adapters if start else (), f"config.phases.{name}"
    )
    probing.check_adapters(phase.probe, model.language, f"config.phases.{name}.probe")
    phase, first = adapting.frozen(phase, model), start and adapting.merged(phase, start.model, start.params)
    params, taken = handover.take_over(model, first, phase.keep_heads, phase.seed, place.mesh)
    progress = tracking.Progress(name, phase.steps, place.quiet, later=place.later)
    for text in (f"{key}: {', '.join(value) or '-'}" for key, value in plain(taken).items()):
        progress.note(text)
    provenance = {"phase": name, "identity": own, "handover": plain(taken), "hardware": tracking.hardware(place.mesh)}
    if start:
        provenance["start"] = _origin(start.meta)
    base = bundle.base(start) if start and model.adapters and first is start.params else None
    write = partial(_write, place.folder, model, tokenizer_dir, provenance, base)
    finish = partial(_finish, place.folder, write, own)
    if not phase.tasks:
        return finish(params, {"steps": 0, "best": None})

    # 2. The data and the steps.
    data = inputs.make(phase, model, tokenizer_dir, place)
    progress.steps = data.steps
    optim = terms.optimizer(phase.optimizer, losses, data.steps, model)
    frozen.check(params, phase.freeze, f"config.phases.{name}.freeze")
    config, compute = model.config, model.compute
    backend, why = attention.choose(
        compute.attention, config.attention_dropout, compute.dtype, windowed=config.windowed, biased=config.biased
    )  # fmt: skip
    for text in (f"attention: {backend}, {why}", *data.notes):
        progress.note(text)
    loop = Loop(Training(name, phase, model, losses, optim, data, place), params, progress)
    del params  # the steps use them up

    # 3. The best checkpoint becomes the bundle that the next phase starts from.
    try:
        best = loop.run(evaluate, stop, probe)
        record = {"steps": loop.now, "best": loop.meta["best"]}
        also = {kind: {**which, "checkpoint_sha256": write(params, kind, which)} for kind, params, which in loop.also()}
        record = finish(best, {**record, "also": also} if also else record)
    finally:
        progress.close()
        loop.checkpoints.close()
    processes.meet("the end of a phase")
    if processes.first():
        # several times the model's size, and of no use once the phase is done
        shutil.rmtree(place.folder / "checkpoints")
    return record


def _origin(meta: dict) -> dict:
    """What a bundle records of its starting point, and of what that started from: hub ids with their commits."""
    kept = ("phase", "source", "revision", "files", "start")
    return {"sha256": meta["sha256"]} | {key: meta["provenance"][key] for key in kept if key in meta["provenance"]}


def _write(folder, model, tokenizer_dir, provenance, base, params, kind, record) -> str:
    """Writes one bundle of the phase and returns its SHA-256.

    Of the objectives' parameters it has those that are a part of the model. base: of adapters, whose
    encoder the bundle is without.
    """
    kept = tuple((name, signal) for name, signal in model.extra if signal.KEPT)
    model, extra = dataclasses.replace(model, extra=kept), params.get("extra", {})
    left_out = sorted(set(extra) - set(dict(kept)))
    if extra:
        rest = {name: branch for name, branch in extra.items() if name not in left_out}
        params = {room: tree for room, tree in params.items() if room != "extra"} | ({"extra": rest} if rest else {})
        provenance = {**provenance, "left_out": [f"extra/{name}" for name in left_out]}
    if kind != BEST:
        provenance = {**provenance, "selection": kind}
    provenance = {**provenance, **record}
    return bundle.save(folder / kind, model, params, tokenizer_files=tokenizer_dir, provenance=provenance, base=base)


def _finish(folder, write, own, params, record) -> dict:
    """Writes best/ and then DONE."""
    sha = write(params, BEST, record)
    record = {**record, "checkpoint_sha256": sha, "fingerprint": fingerprint(own)}
    if processes.first():
        runtime.atomic_write(folder / "DONE", json.dumps(record, indent=1))
    return record
