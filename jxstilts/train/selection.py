"""Which of a phase's weights are kept: those that it ends with, and others beside them to compare with."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jxstilts import tasks
from jxstilts.config import setting
from jxstilts.runtime import InputError, suggest
from jxstilts.train import objectives
from jxstilts.train.mixture import Stream

BEST = "best"  # the phase's own end: what a next phase starts from
ALSO = {  # bundles beside it -> how a report calls them
    "last": "last step",
    "average": "average of the last",
    "oracle": "oracle, chosen on target dev",
}


@dataclasses.dataclass(frozen=True)
class Select:
    """How a phase ends: with its best weights on English dev rows (protocol 3.3), or metric="", those of its last step.

    Another language than English chooses only where the config says so, or where nothing is trained in English.
    """

    metric: str | None = setting(
        None,
        "by which checkpoints are compared: major is the mean over the tasks of each task's major metric; or a "
        'metric\'s name (several tasks: TASK/NAME); "" = the last step is kept; None = major where every task has dev '
        'rows, else ""',
    )
    rows: int = setting(500, "the first rows (questions: windows) of each task's dev split", least=1)
    every: int = setting(1000, "steps between two evaluations on them", least=1)
    languages: tuple[str, ...] = setting(
        (), "languages of the dev rows; () = English, or where a task is not trained in it, its languages"
    )
    patience: int = setting(30, "evaluations without improvement before the phase stops early", least=1)
    also: tuple[str, ...] = setting(
        (),
        "bundles beside the one that it ends with: last, of the last step; average, of the last evaluations; oracle, "
        "the best on dev rows of the target languages, by which no zero-shot study may choose",
        allowed=ALSO,
    )
    average: int = setting(5, "also=average: the mean of the weights at so many evaluations, the last ones", least=1)
    oracle_task: str = setting("", 'also=oracle: the task whose dev rows it reads; "" = the phase\'s own tasks')
    oracle_languages: tuple[str, ...] = setting((), "also=oracle: the languages of its dev rows")

    def __post_init__(self):
        if min(self.rows, self.every, self.patience, self.average) < 1:
            raise InputError("select: rows, every, patience and average are at least 1")
        for name in self.also:
            if name not in ALSO:
                raise InputError(f"select.also: {suggest('bundle', name, ALSO)}")
        if "oracle" in self.also and not self.oracle_languages:
            raise InputError("select: also=('oracle',) needs oracle_languages, those of its dev rows")

    def resolve(self, streams: Mapping[str, Stream]) -> "Select":
        """Returns the rule with its metric decided, for a phase of these (resolved) streams."""
        judged = [stream for stream in streams.values() if trains_task(stream)]
        known = bool(judged) and all(each.holdout or "dev" in tasks.get(each.task).splits for each in judged)
        metric = "major" if known else ""
        return self if self.metric is not None else dataclasses.replace(self, metric=metric)


def trains_task(stream: Stream) -> bool:
    """Does a stream train the head of its task, on which dev rows can judge?"""
    return objectives.get(stream.objective).HEAD == objectives.OWN


def oracle(phase: Any) -> Any:
    """Returns the phase as its oracle judges it: by dev rows of the target task in the target languages."""
    select = phase.select
    streams = {
        key: dataclasses.replace(stream, task=select.oracle_task or stream.task, head=stream.head or stream.task,
                                 holdout=0)
        for key, stream in phase.tasks.items() if trains_task(stream)
    }  # fmt: skip
    rule = dataclasses.replace(select, metric="major", languages=select.oracle_languages)
    return dataclasses.replace(phase, tasks=streams, select=rule)


def check_oracle(phase: Any, where: str) -> None:
    """Raises InputError for dev rows of the oracle that there are not. where: the phase's config path."""
    if "oracle" not in phase.select.also:
        return
    streams = oracle(phase).tasks.values()
    if not streams or (phase.select.oracle_task and len(streams) > 1):
        raise InputError(f"{where}.select.oracle_task: a phase that trains one task has an oracle on another one")
    for stream in streams:
        try:
            spec = tasks.get(stream.task)
        except InputError as error:
            raise InputError(f"{where}.select.oracle_task: {error}") from error
        known = spec.loadable("dev") if "dev" in spec.splits else ()
        for language in phase.select.oracle_languages:
            if language not in known:
                what = suggest(f"language of the dev rows of task {stream.task!r}", language, known)
                raise InputError(f"{where}.select.oracle_languages: {what}")
