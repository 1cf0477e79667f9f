"""Evaluation of a model on a task: a pure function of its arguments.

The inputs of several languages share one stream of batches and their rows, so that next to nothing is padding and a
shape or two serve all languages and tasks of a head. Threads tokenise what comes next and score what is done while the
device computes.
"""

import bisect
import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jxstilts.data import batching, prepare, tokenize
from jxstilts.data.features import Features
from jxstilts.eval import baselines, bitext, metrics, predict, spans
from jxstilts.eval.bitext import embed
from jxstilts.eval.options import Options
from jxstilts.models.model import HeadSpec, Model, Params
from jxstilts.runtime import InputError
from jxstilts.tasks import TaskSpec

__all__ = ["Options", "Result", "embed", "evaluate", "evaluate_languages", "pick_head"]

STREAM = 64  # batches: languages are put together until they fill as many; an interrupt loses no more than that
GOLD = {"classification": "label", "choice": "label", "tagging": "tags", "span": "answers"}


@dataclasses.dataclass(frozen=True)
class Result:
    """One task in one language.

    metrics, interval, baseline: {value name: 0-100}; the 95 % interval over examples is (low, high), the baseline is
    that of a trivial rule (see `baselines`). major: the one number for model choice. n: what is averaged over; values:
    the metric's state, {column: {example id: number}}. Of examples without gold there are predictions only: metrics,
    values and interval are empty, major and baseline None. predictions: by example id; of mined pairs a list. curve:
    {hidden state: metrics}, where asked for.
    """

    task: str
    language: str
    split: str
    metrics: dict[str, float]
    n: int
    values: Mapping[str, Mapping[str, float]]
    predictions: Any
    interval: dict[str, tuple[float, float]]
    major: float | None
    baseline: dict[str, float] | None
    curve: Mapping[int, Mapping[str, float]] = dataclasses.field(default_factory=dict)


def evaluate(
    model: Model,
    params: Params,
    task: TaskSpec,
    examples: Any,
    *,
    tokenizer: Any,
    head: str | None = None,
    language: str = "en",
    split: str = "dev",
    options: Options | None = None,
    threshold: float | None = None,
    mesh: Mesh | None = None,
    cache_dir: str | pathlib.Path | None = None,
) -> Result:
    """Predicts and scores one task in one language.

    Args:
        params: on the host, or on `mesh` when one is given.
        examples: what `tasks.load` returns.
        head: name of the head to use; by default the model's only head of the task's type. Retrieval needs none.
        threshold: of mined pairs (BUCC), tuned on dev; None tunes it on these examples.
    Raises InputError: no such head, a head with other labels than the task, some examples with gold and some without.
    """
    thresholds = {} if threshold is None else {language: threshold}
    (result,) = evaluate_languages(
        model, params, task, [(language, examples)], tokenizer=tokenizer, head=head, split=split, options=options,
        thresholds=thresholds, mesh=mesh, cache_dir=cache_dir,
    )  # fmt: skip
    return result


def evaluate_languages(
    model: Model,
    params: Params,
    task: TaskSpec,
    languages: Iterable[tuple[str, Any]],
    *,
    tokenizer: Any,
    head: str | None = None,
    split: str = "dev",
    options: Options | None = None,
    thresholds: Mapping[str, float] | None = None,
    all_layers: bool = False,
    mesh: Mesh | None = None,
    cache_dir: str | pathlib.Path | None = None,
) -> Iterator[Result]:
    """Yields the Result of each (language, examples), in order; the arguments are those of `evaluate`.

    all_layers: of retrieval, score every hidden state beside the one that counts (`Result.curve`), from the same pass.

    `languages` is read in another thread, a little ahead. Results come in groups, when all rows of some languages have
    gone through the model; what comes to about STREAM batches is one group.
    """
    if task.type not in {*GOLD, "retrieval"}:
        raise InputError(f"task {task.name!r} is of type {task.type!r}, which has no evaluation")
    options = (options or Options()).resolve(task, model)
    run = _Run(model, params, task, tokenizer, options, mesh, cache_dir)
    spec = None if task.type == "retrieval" else pick_head(model, task, head)
    thresholds = thresholds or {}

    def scored(language: str, predicted: Callable[[], tuple]) -> Result:
        return _score(task, language, split, *predicted(), thresholds.get(language))

    items = iter(languages)
    with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(1) as behind:
        coming = ahead.submit(_group, run, spec, items)
        waiting: list[Future] = []
        while group := coming.result():
            coming = ahead.submit(_group, run, spec, items)
            found = _retrieve(run, group, all_layers) if spec is None else _stream(run, spec, group)
            futures = [behind.submit(scored, *item) for item in found]
            yield from (future.result() for future in waiting)  # of the group before: scored meanwhile
            waiting = futures
        yield from (future.result() for future in waiting)


@dataclasses.dataclass(frozen=True)
class _Run:
    model: Model
    params: Params
    task: TaskSpec
    tokenizer: Any
    options: Options
    mesh: Mesh | None
    cache_dir: Any

    def features(self, examples, head: HeadSpec | None) -> Features:
        options, more = self.options, {}
        if head is None:
            return bitext.features(self.task, examples, self.tokenizer, options, self.cache_dir)
        if self.task.type == "span":
            more = {"doc_stride": options.doc_stride, "max_query_length": options.max_query_length}
        if self.task.type == "tagging":
            more = {"labels": head.labels, "long_sentences": options.long_sentences}
        return prepare.features(
            examples, self.task.type, self.tokenizer, self.cache_dir, max_length=options.max_length, **more
        )


def pick_head(model: Model, task: TaskSpec, head: str | None) -> HeadSpec:
    """Returns the head to use for a task. Raises InputError when it is missing, ambiguous or has other labels."""
    of_type = [spec for spec in model.head_specs if spec.type == task.type]
    have = ", ".join(f"{spec.name} ({spec.type})" for spec in model.head_specs) or "no heads"
    if head is not None:
        chosen = [spec for spec in of_type if spec.name == head]
    else:
        chosen = (
            [spec for spec in of_type if spec.name == task.name]
            or [spec for spec in of_type if spec.name == task.train_task]
            or [spec for spec in of_type if spec.labels == task.labels]
            or of_type
        )
    if len(chosen) != 1:
        wanted = f"the {task.type} head {head!r}" if head else f"one {task.type} head"
        raise InputError(f"task {task.name!r} needs {wanted}; the model has {have}")
    if task.labels and chosen[0].labels != task.labels:
        raise InputError(
            f"head {chosen[0].name!r} predicts {', '.join(chosen[0].labels)}; task {task.name!r} has the labels "
            f"{', '.join(task.labels)}"
        )
    return chosen[0]


def _group(run: _Run, head: HeadSpec | None, items: Iterator) -> list[tuple[str, Any, Features]]:
    """Reads and tokenises languages until they make a group: [(language, examples, features), ...]."""
    group, tokens = [], 0
    for language, examples in items:
        if run.task.type in GOLD and run.task.type != "span":  # of questions the windows count, see `_stream`
            examples = examples[: run.options.max_features or None]
        features = run.features(examples, head)
        group.append((language, examples, features))
        tokens += len(features.tokens)
        if tokens >= STREAM * run.options.tokens_per_batch:
            break
    return group


def _retrieve(run: _Run, group: list, all_layers: bool) -> list[tuple[str, Callable[[], tuple]]]:
    """Embeds the sentences of all languages of a group and searches; returns what `_stream` does."""
    layers = range(run.model.config.layers + 1) if all_layers else None
    found = bitext.retrieve_layers(
        run.model, run.params, run.task, [(examples, features) for _, examples, features in group],
        options=run.options, layers=layers, mesh=run.mesh,
    )  # fmt: skip
    kept = [(by_layer[run.options.layer], by_layer if all_layers else {}) for by_layer in found]
    return [
        (language, lambda examples=examples, own=own: (own[0], examples, own[1]))
        for (language, examples, _), own in zip(group, kept, strict=True)
    ]


def _stream(run: _Run, head: HeadSpec, group: list) -> list[tuple[str, Callable[[], tuple]]]:
    """Runs the rows of all languages of a group; returns [(language, () -> (predictions, examples, by layer)), ...]."""
    kinds = {"classification": _Classes, "choice": _Choices, "tagging": _Tags, "span": _Spans}
    collectors = [kinds[run.task.type](run, head, examples, features) for _, examples, features in group]
    ends = list(itertools.accumulate(len(features) for _, _, features in group))
    features = group[0][2] if len(group) == 1 else tokenize.concatenate([features for _, _, features in group])
    limit = run.options.max_features if run.task.type == "span" else 0
    if limit and len(group) > 1:
        raise InputError("max_features of a span task is for one language at a time")
    for index, array in predict.each(
        run.model, run.params, head.name, features, run.task.type, run.options, mesh=run.mesh, limit=limit
    ):
        place = bisect.bisect_right(ends, index)
        collectors[place].add(index - (ends[place - 1] if place else 0), array)
    return [
        (language, lambda one=one: (*one.finish(), {})) for (language, _, _), one in zip(group, collectors, strict=True)
    ]


@dataclasses.dataclass
class _Collector:
    """Takes the arrays of one language's features, one by one, and makes predictions of them."""

    run: _Run
    head: HeadSpec
    examples: list
    features: Features

    def __post_init__(self) -> None:
        """Makes room for what is to come."""


class _Classes(_Collector):
    def __post_init__(self):
        self.found = np.zeros(len(self.features), np.int64)

    def add(self, index: int, logits: np.ndarray) -> None:
        self.found[index] = logits.argmax()

    def finish(self):
        return self.found.tolist(), self.examples


class _Choices(_Collector):
    def __post_init__(self):
        self.scores = np.empty(len(self.features), np.float32)

    def add(self, index: int, logit: np.ndarray) -> None:
        self.scores[index] = logit.item()

    def finish(self):
        groups = batching.groups(self.features, "choice").tolist()
        return [int(self.scores[a:b].argmax()) for a, b in itertools.pairwise(groups)], self.examples


class _Tags(_Collector):
    def __post_init__(self):
        self.tags = [[None] * len(example["words"]) for example in self.examples]

    def add(self, index: int, classes: np.ndarray) -> None:
        words = self.features.token_fields["word"][self.features.offsets[index] : self.features.offsets[index + 1]]
        mine = self.tags[self.features.fields["example"][index]]
        for place in np.flatnonzero(words >= 0).tolist():
            mine[words[place]] = self.head.labels[classes[place]]

    def finish(self):
        return {example["id"]: tags for example, tags in zip(self.examples, self.tags, strict=True)}, self.examples


class _Spans(_Collector):
    def __post_init__(self):
        self.windows = {}

    def add(self, index: int, logits: np.ndarray) -> None:
        begin, end = self.features.offsets[index], self.features.offsets[index + 1]
        fields = {name: values[begin:end] for name, values in self.features.token_fields.items()}
        self.windows[index] = (int(self.features.fields["example"][index]), logits, fields)

    def finish(self):
        options, examples = self.run.options, self.examples
        if options.max_features:  # only the questions that the first windows belong to
            examples = examples[: 1 + max(example for example, _, _ in self.windows.values())]
        answers = spans.decode(
            examples, self.windows, n_best=options.n_best, max_answer_length=options.max_answer_length,
            null_scores=self.run.task.metric == "squad_v2",
        )  # fmt: skip
        return answers, examples


def _score(task, language, split, predictions, examples, by_layer, threshold) -> Result:
    """Scores the predictions of one language; without gold there is nothing to score."""
    by_id = predictions
    if isinstance(predictions, list) and task.type != "retrieval":
        by_id = dict(zip((example["id"] for example in examples), predictions, strict=True))
    if not _has_gold(task, examples):
        count = len(examples["target"] if task.type == "retrieval" else examples)
        return Result(task.name, language, split, {}, count, {}, by_id, {}, None, None)
    metric = metrics.get(task.metric, language)
    curve = {layer: metric.compute(metric.update(pairs, examples)) for layer, pairs in by_layer.items()}
    if threshold is not None:
        metric = metric.at(threshold)
    state = metric.update(predictions, examples)
    found = metric.compute(state)
    return Result(
        task.name, language, split, found, len(next(iter(state.values()))), state, by_id,
        metric.interval(state), metric.major(found), baselines.values(task, metric, examples), curve,
    )  # fmt: skip


def _has_gold(task, examples) -> bool:
    if task.type == "retrieval":
        return "gold" in examples
    return any(GOLD[task.type] in example for example in examples)
