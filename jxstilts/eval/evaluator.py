"""Evaluation of a model on a task: a pure function of its arguments."""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jxstilts.data import batching, prepare
from jxstilts.eval import baselines, metrics, predict, retrieval, spans
from jxstilts.mesh import batch_divisor
from jxstilts.models.model import HeadSpec, Model, Params
from jxstilts.runtime import InputError
from jxstilts.tasks import TaskSpec

LENGTHS = {"classification": 256, "choice": 256, "tagging": 256, "span": 384, "retrieval": 512}  # protocol 3.3
# What a head says of each type's features: the name of the array, and whether it is per token or per segment.
OUTPUTS = {
    "classification": ("logits", False),
    "choice": ("logits", False),
    "tagging": ("classes", True),
    "span": ("logits", True),
    "text": ("embeddings", False),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """How examples become batches and answers; the defaults are the authors' protocol where it says something."""

    max_length: int = 0  # tokens of a row; 0 = by the protocol, as far as the model reaches (see LENGTHS)
    doc_stride: int = 128
    max_query_length: int = 64
    max_answer_length: int = 30  # tokens
    n_best: int = 20
    tokens_per_batch: int = 8192
    layer: int = -1  # retrieval: which hidden state, 0 = embeddings, -1 = last
    max_features: int = 0  # only the first N rows, windows, questions or sentences (dev selection: 500); 0 = all
    long_sentences: str = "split"  # tagging: "split" into several rows, or "truncate" (the study's dev rule)


@dataclasses.dataclass(frozen=True)
class Result:
    """One task in one language.

    metrics, interval, baseline: {value name: 0-100}; the 95 % interval over examples is (low, high), the baseline is
    that of a trivial rule (see `baselines`). major: the one number for model choice. values: the metric's state,
    {column: {example id: number}}. predictions: by example id.
    """

    task: str
    language: str
    split: str
    metrics: dict[str, float]
    n: int
    values: Mapping[str, Mapping[str, float]]
    predictions: dict[str, Any]
    interval: dict[str, tuple[float, float]]
    major: float
    baseline: dict[str, float] | None


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
    mesh: Mesh | None = None,
    cache_dir: str | pathlib.Path | None = None,
) -> Result:
    """Predicts and scores one task in one language.

    Args:
        params: on the host, or on `mesh` when one is given.
        examples: what `tasks.load` returns.
        head: name of the head to use; by default the model's only head of the task's type. Retrieval needs none.
    Raises InputError: no such head, a head with other labels than the task, unlabelled examples.
    """
    options = options or Options()
    kinds = {
        "classification": _classification, "choice": _choice, "tagging": _tagging, "span": _spans,
        "retrieval": _retrieval,
    }  # fmt: skip
    if task.type not in kinds:
        raise InputError(f"task {task.name!r} is of type {task.type!r}, which has no evaluation")
    run = _Run(model, params, tokenizer, fit(options, task.type, model), mesh, cache_dir)
    predictions, examples = kinds[task.type](run, task, examples, head)
    metric = metrics.get(task.metric, language)
    state = metric.update(predictions, examples)
    if isinstance(predictions, list):
        predictions = dict(zip((example["id"] for example in examples), predictions, strict=True))
    found = metric.compute(state)
    return Result(
        task.name, language, split, found, len(next(iter(state.values()))), state, predictions,
        metric.interval(state), metric.major(found), baselines.values(task, metric, examples),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Run:
    model: Model
    params: Params
    tokenizer: Any
    options: Options
    mesh: Mesh | None
    cache_dir: Any

    def features(self, examples, type, **more):
        return prepare.features(
            examples, type, self.tokenizer, self.cache_dir, max_length=self.options.max_length, **more
        )

    def outputs(self, model, head, features, type, limit=0):
        """Yields (feature index, its array), each feature once, in no order; limit: only the first rows' features.

        The array is [...] of its segment, or [T, ...] of its own tokens (see OUTPUTS).
        """
        name, per_token = OUTPUTS[type]
        groups = batching.groups(features, type)
        units = np.arange(len(groups) - 1)
        if limit:
            units = units[:limit]
        segments = int(np.diff(groups).max(initial=1))
        plans = batching.plan_evaluation(
            np.diff(features.offsets[groups])[units],
            tokens_per_batch=self.options.tokens_per_batch,
            buckets=batching.length_buckets(self.options.max_length * segments),
            multiple_of=batch_divisor(self.mesh) if self.mesh else 1,
        )
        batches = batching.batches(
            features, batching.expand(plans, groups),
            type=type, max_segments=segments, pad_id=self.model.config.pad_id, labelled=False,
        )  # fmt: skip
        lengths = features.lengths
        for batch, arrays in predict.predict_all(model, self.params, head, batches, self.mesh):
            for row, slot in np.argwhere(batch["index"] >= 0).tolist():
                index = int(batch["index"][row, slot])
                if per_token:
                    first = batch["first"][row, slot]
                    yield index, arrays[name][row, first : first + lengths[index]]
                else:
                    yield index, arrays[name][row, slot]

    def first(self, examples):
        """The examples that `max_features` leaves."""
        return examples[: self.options.max_features or None]


def fit(options: Options, type: str, model: Model) -> Options:
    """Sets max_length where it is 0. Raises InputError for one that the model's positions cannot reach."""
    reach = model.config.max_length
    if options.max_length > reach:
        raise InputError(f"max_length={options.max_length}, but the model has positions for {reach} tokens")
    return dataclasses.replace(options, max_length=options.max_length or min(LENGTHS[type], reach))


def pick_head(model: Model, task: TaskSpec, head: str | None) -> HeadSpec:
    """Returns the head to use for a task. Raises InputError when it is missing, ambiguous or has other labels."""
    of_type = [spec for spec in model.head_specs if spec.type == task.type]
    have = ", ".join(f"{spec.name} ({spec.type})" for spec in model.head_specs) or "no heads"
    if head is not None:
        chosen = [spec for spec in of_type if spec.name == head]
    else:
        chosen = [spec for spec in of_type if spec.name in (task.name, task.train_task)] or of_type
    if len(chosen) != 1:
        wanted = f"the {task.type} head {head!r}" if head else f"one {task.type} head"
        raise InputError(f"task {task.name!r} needs {wanted}; the model has {have}")
    if task.labels and chosen[0].labels != task.labels:
        raise InputError(
            f"head {chosen[0].name!r} predicts {', '.join(chosen[0].labels)}; task {task.name!r} has the labels "
            f"{', '.join(task.labels)}"
        )
    return chosen[0]


def _classification(run, task, examples, head):
    head = pick_head(run.model, task, head)
    examples = run.first(examples)
    features = run.features(examples, "classification")
    found = {i: int(logits.argmax()) for i, logits in run.outputs(run.model, head.name, features, task.type)}
    return [found[i] for i in range(len(examples))], examples


def _choice(run, task, examples, head):
    head = pick_head(run.model, task, head)
    examples = run.first(examples)
    features = run.features(examples, "choice")
    scores = np.empty(len(features), np.float32)
    for index, logits in run.outputs(run.model, head.name, features, task.type):
        scores[index] = logits.item()
    groups = batching.groups(features, "choice")
    return [int(scores[a:b].argmax()) for a, b in itertools.pairwise(groups.tolist())], examples


def _tagging(run, task, examples, head):
    head = pick_head(run.model, task, head)
    examples = run.first(examples)
    features = run.features(examples, "tagging", labels=head.labels, long_sentences=run.options.long_sentences)
    tags: list[list[str | None]] = [[None] * len(example["words"]) for example in examples]
    for index, classes in run.outputs(run.model, head.name, features, task.type):
        words = features.token_fields["word"][features.offsets[index] : features.offsets[index + 1]]
        mine = tags[features.fields["example"][index]]
        for place in np.flatnonzero(words >= 0).tolist():
            mine[words[place]] = head.labels[classes[place]]
    return {example["id"]: found for example, found in zip(examples, tags, strict=True)}, examples


def _spans(run, task, examples, head):
    head = pick_head(run.model, task, head)
    options = run.options
    features = run.features(examples, "span", doc_stride=options.doc_stride, max_query_length=options.max_query_length)
    windows = {}
    for index, logits in run.outputs(run.model, head.name, features, task.type, options.max_features):
        begin, end = features.offsets[index], features.offsets[index + 1]
        fields = {name: values[begin:end] for name, values in features.token_fields.items()}
        windows[index] = (int(features.fields["example"][index]), logits, fields)
    if options.max_features:  # only the questions that the first windows belong to
        examples = examples[: 1 + max(example for example, _, _ in windows.values())]
    answers = spans.decode(
        examples, windows, n_best=options.n_best, max_answer_length=options.max_answer_length,
        null_scores=task.metric == "squad_v2",
    )  # fmt: skip
    return answers, examples


def embed(
    model: Model,
    params: Params,
    sentences: list[dict],
    *,
    tokenizer: Any,
    options: Options | None = None,
    mesh: Mesh | None = None,
    cache_dir: str | pathlib.Path | None = None,
) -> np.ndarray:
    """Returns mean-pooled embeddings of [{"id", "text"}, ...] in every hidden state, [L + 1, N, D] float32."""
    run = _Run(model, params, tokenizer, fit(options or Options(), "retrieval", model), mesh, cache_dir)
    reader = model.with_heads(HeadSpec("embedding", "embedding"))
    features = run.features(sentences, "text")
    rows = dict(run.outputs(reader, "embedding", features, "text"))
    return np.stack([rows[i] for i in range(len(sentences))], axis=1)


def _retrieval(run, task, examples, head):
    options = run.options
    layers = run.model.config.layers
    if not -layers - 1 <= options.layer <= layers:
        raise InputError(f"layer={options.layer}: the model has the hidden states 0 to {layers}")
    sides = {
        side: embed(
            run.model, run.params, examples[side],
            tokenizer=run.tokenizer, options=options, mesh=run.mesh, cache_dir=run.cache_dir,
        )[options.layer]
        for side in ("source", "target")
    }  # fmt: skip
    # Protocol 3.6: the English sentence is the query, the other language the index; cosine, one neighbour, no margin.
    query, index = retrieval.normalise(sides["target"]), retrieval.normalise(sides["source"])
    _, found = retrieval.nearest(query, index)
    names = [example["id"] for example in examples["source"]]
    return {
        example["id"]: names[place] for example, place in zip(examples["target"], found[:, 0], strict=True)
    }, examples
