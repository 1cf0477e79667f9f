"""The loop of one phase: steps, dev values and checkpoints, from its own newest checkpoint to its end or a stop."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import optax

from jxstilts import processes, runtime, tracking
from jxstilts.checkpoint import Checkpoints
from jxstilts.data import pipeline
from jxstilts.mesh import process_rows, put_batch
from jxstilts.models import averaging
from jxstilts.models.model import Model, Params
from jxstilts.runtime import InputError
from jxstilts.train import optimizer as optimizers
from jxstilts.train import step, vocabulary
from jxstilts.train.inputs import Data
from jxstilts.train.log import Log
from jxstilts.train.step import State
from jxstilts.train.terms import Loss

ORACLE = "oracle"  # the name of the oracle's value among those of an evaluation
Evaluator = Callable[[Model, Params], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Training:
    """What a phase trains with. model: the whole one, with its heads and the objectives' parameters.

    place: a `phase.Place`.
    """

    name: str
    phase: Any
    model: Model
    losses: dict[str, Loss]
    optimizer: optax.GradientTransformation
    data: Data
    place: Any

    @property
    def small(self) -> Model:
        """The model as the step knows it: with the token embeddings that are trained."""
        return self.model if self.data.rows is None else self.data.rows.model(self.model)

    def states(self) -> tuple[State, State, list[str]]:
        """Returns (the state in shapes with shardings, the same with all token embeddings, notes)."""
        shapes = partial(step.abstract_state, optimizer=self.optimizer, mesh=self.place.mesh, freeze=self.phase.freeze)
        small, notes = shapes(self.small)
        return small, small if self.data.rows is None else shapes(self.model)[0], notes

    def step(self) -> Callable[[State, Any], tuple[State, dict[str, jax.Array]]]:
        """Returns the jitted training step."""
        phase = self.phase
        return step.make_train_step(
            self.small, self.losses, self.optimizer, self.place.mesh, context=self.data.context,
            accumulation=phase.accumulation, freeze=phase.freeze, skip_nonfinite=phase.skip_nonfinite > 0,
        )  # fmt: skip


class Loop:
    """Where a phase stands: its state, the step it has come to, and its record so far (in `meta`).

    params: whole, that the phase starts from; the steps use them up.
    """

    def __init__(self, training: Training, params: Params, progress: tracking.Progress):
        self.training, self.progress = training, progress
        phase, data = training.phase, training.data
        small, self.whole, notes = training.states()
        for note in notes:
            progress.note(note)
        self.table = vocabulary.Table(data.rows, training.model, params, small, self.whole)
        if data.rows is not None:
            self.table.decays(phase.optimizer, data.steps)
        params = self.table.take(params)
        rest = {key: jax.tree.map(lambda x: x.sharding, tree) for key, tree in small.items() if key != "params"}
        first = partial(step.new_state, optimizer=training.optimizer, seed=phase.seed, freeze=phase.freeze)
        beside = jax.jit(
            lambda p: {key: first(p)[key] for key in rest}, out_shardings=rest
        )  # parameters are not copied
        self.state: State = {"params": params, **beside(params)}
        self.meta: dict = {
            "best": None, "bad": 0, "evaluated": 0, "probed": 0, "iterator": None, "skipped": 0, "oracle": None,
            "marks": [],
        }  # fmt: skip
        self.begun: int | None = None  # the step of the checkpoint that it goes on from
        self.checkpoints = Checkpoints(training.place.folder / "checkpoints")
        if found := self.checkpoints.resume(self.whole, progress.note):
            self.begun, self.state, self.meta = found[0], self.table.narrow(found[1]), self.meta | found[2]
            progress.note(f"going on from step {self.begun}")
        self.now = self.begun or 0

    def run(self, evaluate: Evaluator | None, stop: Callable[[int], bool], probe: Evaluator | None = None) -> Params:
        """Goes on to the end and returns the best parameters, whole; those of the last step where nothing chooses.

        Its order matters: evaluate(step), probe(step), save(state, iterator), next(batch), step. Saving after `next`
        would lose a batch, and a stop is honoured before the evaluation and the probe, which a resumed run then makes
        up for.
        Raises `runtime.Interrupted` when `stop` asked for it, InputError for a loss that is not finite and a save that
        fails.
        """
        training, phase, steps = self.training, self.training.phase, self.training.data.steps
        part, parts = process_rows(training.place.mesh)
        iterator = pipeline.Batches(training.data.source, self.now, process_index=part, process_count=parts)
        if self.meta["iterator"] is not None:
            iterator.set_state(self.meta["iterator"])
        schedule = optimizers.schedule(phase.optimizer, steps)
        log = Log(
            training.name, phase, training.data, schedule, training.place.folder, self.now, self.progress,
            self.checkpoints, self.meta["skipped"],
        )  # fmt: skip
        train_step = training.step()
        try:
            while True:
                self.checkpoints.check()
                stopping = self.now < steps and stop(self.now)
                at_mark = self.now > 0 and (self.now % phase.select.every == 0 or self.now == steps)
                improved = False
                if at_mark and self.meta["evaluated"] != self.now and not stopping:
                    improved = self._mark(evaluate, log)
                finished = self.now == steps or self.meta["bad"] >= phase.select.patience
                if phase.probe.due(self.now, finished) and self.meta["probed"] != self.now and not stopping:
                    self._probe(probe, log)
                due = self.now > 0 and self.now % phase.save_every == 0
                if self.now != self.begun and (stopping or finished or improved or due):
                    self._save(iterator, log)
                if stopping:
                    self.checkpoints.wait()
                    raise runtime.Interrupted(f"{training.name}: stopped at step {self.now} of {steps}; saved")
                if finished:
                    break
                self.state, metrics = train_step(self.state, put_batch(next(iterator), training.place.mesh))
                self.now += 1
                log.step(self.now, metrics)
            self.checkpoints.wait()
            return self._best()
        finally:
            log.close()

    def _mark(self, evaluate: Evaluator | None, log: Log) -> bool:
        """Evaluates and notes what is to be kept of this step; returns whether that is anything."""
        select, meta = self.training.phase.select, self.meta
        meta["evaluated"] = self.now
        kept = False if evaluate is None else self._evaluate(evaluate, log)
        if "average" in select.also:
            meta["marks"] = [*meta["marks"], self.now][-select.average :]
            kept = True
        return kept

    def _evaluate(self, evaluate: Evaluator, log: Log) -> bool:
        """Updates the records of the best and of the oracle; returns whether this evaluation is the best so far."""
        select, meta = self.training.phase.select, self.meta
        log.flush()
        found = log.paused(evaluate, self.training.model, self.table.params(self.state))
        values = processes.meet("a dev value", found)[0]
        ahead = ORACLE in values and (meta["oracle"] is None or values[ORACLE] > meta["oracle"]["value"])
        if ahead:
            meta["oracle"] = {"step": self.now, "metric": ORACLE, "value": values[ORACLE]}
        if not select.metric:
            log.evaluation(self.now, values, None)
            return ahead
        if select.metric not in values:
            raise InputError(f"select.metric: {runtime.suggest('metric', select.metric, values)}")
        value = values[select.metric]
        improved = meta["best"] is None or value > meta["best"]["value"]
        meta["bad"] = 0 if improved else meta["bad"] + 1
        if improved:
            meta["best"] = {"step": self.now, "metric": select.metric, "value": value}
        log.evaluation(self.now, values, meta["best"])
        return improved or ahead

    def _probe(self, probe: Evaluator, log: Log) -> None:
        self.meta["probed"] = self.now
        log.flush()
        found = log.paused(probe, self.training.model, self.table.params(self.state))
        log.probe(self.now, processes.meet("a probe", found)[0])

    def _save(self, iterator: pipeline.Batches, log: Log) -> None:
        log.flush()
        keep = {self.meta[which]["step"] for which in ("best", "oracle") if self.meta[which]} | {*self.meta["marks"]}
        record = self.meta | {"iterator": iterator.get_state(), "skipped": log.skipped}
        log.paused(self.checkpoints.save, self.now, self.table.widen(self.state), record, keep)

    def _best(self) -> Params:
        return self._at(self.meta["best"]["step"] if self.meta["best"] else self.now)

    def _at(self, step: int) -> Params:
        """Returns the parameters of a step that is kept."""
        if step != self.now:
            return self.checkpoints.restore_params(step, self.whole["params"])
        return self.table.params(self.state)

    def also(self) -> Iterator[tuple[str, Params, dict]]:
        """Yields (name, parameters, their step or steps) of what is kept beside the best, one after the other."""
        for kind in self.training.phase.select.also:
            if kind == "average":
                steps = self.meta["marks"]
                yield kind, averaging.mean(map(self._at, steps)), {"average_of": steps}
            elif kind == "oracle":
                yield kind, self._at(self.meta["oracle"]["step"]), {"oracle": self.meta["oracle"]}
            else:
                yield kind, self._at(self.now), {"step": self.now}
