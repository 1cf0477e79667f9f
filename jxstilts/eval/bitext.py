"""Retrieval tasks: sentences to embeddings, then each sentence's translation, or the mined pairs."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jxstilts.data import batching, prepare
from jxstilts.eval import metrics, predict, retrieval
from jxstilts.eval.options import Options
from jxstilts.mesh import batch_divisor
from jxstilts.models.heads.embedding import EmbeddingSpec
from jxstilts.models.model import Model, Params
from jxstilts.runtime import InputError
from jxstilts.tasks import TaskSpec

# the metric of tasks whose predictions are mined pairs; else each target sentence gets a source sentence
MINED = "bucc"


def embed(
    model: Model,
    params: Params,
    sentences: Sequence[Mapping],
    *,
    tokenizer: Any,
    options: Options | None = None,
    layers: Sequence[int] | None = None,
    mesh: Mesh | None = None,
    cache_dir: str | pathlib.Path | None = None,
) -> np.ndarray:
    """Returns embeddings of [{"id", "text"}, ...] in some hidden states, [layers, N, D] float32, from one pass.

    Args:
        options: max_length, tokens_per_batch and pooling are read (see `evaluator.Options`).
        layers: which hidden states, 0 = embeddings, -1 = last; default: all L + 1. Only these reach the host.
    Equal texts are encoded once. Raises InputError for a layer or a max_length that the model does not reach.
    """
    config = model.config
    options = (options or Options()).fit("retrieval", model)
    layers = tuple(range(config.layers + 1)) if layers is None else tuple(layer_of(model, layer) for layer in layers)
    reader = model.with_heads(EmbeddingSpec("embedding", "embedding", pooling=options.pooling, layers=layers))

    texts = {sentence["text"]: place for place, sentence in reversed(list(enumerate(sentences)))}
    unique = sorted(texts.values())  # the first place of each text
    features = prepare.features(
        [sentences[i] for i in unique], "text", tokenizer, cache_dir, max_length=options.max_length
    )
    plans = batching.plan_evaluation(
        features.lengths,
        tokens_per_batch=options.tokens_per_batch,
        buckets=batching.length_buckets(options.max_length),
        multiple_of=batch_divisor(mesh) if mesh else 1,
    )
    batches = batching.batches(
        features, plans, type="text", max_segments=1, pad_id=config.pad_id, labelled=False
    )  # fmt: skip
    found = np.zeros((len(layers), len(sentences), config.width), np.float32)
    places = np.array(unique, np.int64)
    for batch, arrays in predict.predict_all(reader, params, "embedding", batches, mesh):
        real = np.flatnonzero(batch["index"][:, 0] >= 0)
        found[:, places[batch["index"][real, 0]]] = arrays["embeddings"][real, 0].swapaxes(0, 1)
    again = [i for i, sentence in enumerate(sentences) if texts[sentence["text"]] != i]
    found[:, again] = found[:, [texts[sentences[i]["text"]] for i in again]]
    return found


def layer_of(model: Model, layer: int) -> int:
    """Returns the number of a hidden state, counted from 0, of one that may be counted from the end (-1)."""
    count = model.config.layers
    if not -count - 1 <= layer <= count:
        raise InputError(f"layer={layer}: the model has the hidden states 0 to {count}")
    return layer % (count + 1)


def retrieve(run: Any, task: TaskSpec, examples: Mapping[str, list], head: str | None = None) -> tuple[Any, Any]:
    """Returns (predictions, examples) of a retrieval task in the hidden state `options.layer`; it needs no head.

    run: model, params, tokenizer, options, mesh and cache_dir, as the evaluator holds them. The predictions are
    {target id: source id}, or for mined pairs [(source id, target id, margin), ...], the best first.
    """
    layer = run.options.resolve(task, run.model).layer
    sides = _embedded(run, task, examples, [layer])
    return _predictions(task, examples, {side: vectors[0] for side, vectors in sides.items()}, run.mesh), examples


def layer_curve(
    model: Model,
    params: Params,
    task: TaskSpec,
    examples: Mapping[str, list],
    *,
    tokenizer: Any,
    language: str = "en",
    options: Options | None = None,
    layers: Sequence[int] | None = None,
    mesh: Mesh | None = None,
    cache_dir: str | pathlib.Path | None = None,
) -> dict[int, dict[str, float]]:
    """Returns {hidden state: {value name: value}} of a retrieval task, from one pass over its sentences.

    layers: which hidden states, by default all; those asked for are held in memory together, N x D x 4 bytes each.
    The other arguments are those of `evaluator.evaluate`; `options.layer` is not read.
    """
    wanted = range(model.config.layers + 1) if layers is None else [layer_of(model, layer) for layer in layers]
    run = _Run(model, params, tokenizer, options or Options(), mesh, cache_dir)
    sides = _embedded(run, task, examples, wanted)
    metric = metrics.get(task.metric, language)
    curve = {}
    for place, layer in enumerate(wanted):
        vectors = {side: vectors[place] for side, vectors in sides.items()}
        found = _predictions(task, examples, vectors, mesh)
        curve[layer] = metric.compute(metric.update(found, examples))
    return curve


@dataclasses.dataclass(frozen=True)
class _Run:
    model: Model
    params: Params
    tokenizer: Any
    options: Options
    mesh: Mesh | None
    cache_dir: Any


def _embedded(run, task, examples, layers):
    """Returns {side: [layers, N, D]}; to be mined, N counts the different texts only, in the order of the first."""
    sides = {side: examples[side] for side in ("source", "target")}
    if task.metric == MINED:
        sides = {side: [rows[0] for rows in collapse(rows).values()] for side, rows in sides.items()}
    return {
        side: embed(
            run.model, run.params, rows, tokenizer=run.tokenizer, options=run.options, layers=layers,
            mesh=run.mesh, cache_dir=run.cache_dir,
        )
        for side, rows in sides.items()
    }  # fmt: skip


def _predictions(task, examples, vectors, mesh):
    if task.metric == MINED:
        return expand(retrieval.mine(vectors["source"], vectors["target"], mesh=mesh), examples)
    # Protocol 3.6: the English sentence is the query, the other language the index; cosine, one neighbour, no margin.
    query, index = retrieval.normalise(vectors["target"]), retrieval.normalise(vectors["source"])
    _, found = retrieval.nearest(query, index, mesh=mesh)
    names = [example["id"] for example in examples["source"]]
    return {example["id"]: names[place] for example, place in zip(examples["target"], found[:, 0], strict=True)}


def collapse(sentences: Sequence[Mapping]) -> dict[str, list]:
    """Returns {text: its sentences}, in the order of each text's first sentence."""
    found: dict[str, list] = {}
    for sentence in sentences:
        found.setdefault(sentence["text"], []).append(sentence)
    return found


def expand(pairs: Sequence[tuple[int, int, float]], examples: Mapping[str, list]) -> list[tuple[str, str, float]]:
    """Turns pairs of texts (source, target, score) into pairs of ids: every id of the one with every id of the other.

    This is the study's rule for identical sentences. The numbers count the texts as `collapse` orders them.
    """
    source, target = (list(collapse(examples[side]).values()) for side in ("source", "target"))
    return [(s["id"], t["id"], score) for a, b, score in pairs for s in source[a] for t in target[b]]
