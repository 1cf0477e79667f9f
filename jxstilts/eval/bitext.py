"""Retrieval tasks: sentences to embeddings, then each sentence's translation, or the mined pairs."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jxstilts.data import prepare, tokenize
from jxstilts.data.features import Features
from jxstilts.eval import predict, retrieval
from jxstilts.eval.options import Options, layer_of
from jxstilts.models.heads.embedding import EmbeddingSpec
from jxstilts.models.model import Model, Params
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
    Equal sentences are encoded once. Raises InputError for a layer or a max_length that the model does not reach.
    """
    options = (options or Options()).fit("retrieval", model)
    features = prepare.features(list(sentences), "text", tokenizer, cache_dir, max_length=options.max_length)
    return _embed(model, params, features, options, _layers(model, layers), mesh)


def _embed(model, params, features, options, layers, mesh) -> np.ndarray:
    reader = model.with_heads(EmbeddingSpec("embedding", "embedding", pooling=options.pooling, layers=tuple(layers)))
    place_of: dict[bytes, int] = {}  # of different sentences
    offsets = features.offsets.tolist()
    places = [
        place_of.setdefault(features.tokens[begin:end].tobytes(), len(place_of))
        for begin, end in itertools.pairwise(offsets)
    ]
    _, unique = np.unique(places, return_index=True)
    found = np.zeros((len(layers), len(unique), model.config.width), np.float32)
    for index, vectors in predict.each(reader, params, "embedding", features.take(unique), "text", options, mesh=mesh):
        found[:, index] = vectors
    return found[:, np.array(places, np.int64)] if len(unique) < len(places) else found


def _layers(model: Model, layers: Sequence[int] | None) -> list[int]:
    return [layer_of(model, layer) for layer in (range(model.config.layers + 1) if layers is None else layers)]


def retrieve(
    model: Model,
    params: Params,
    task: TaskSpec,
    examples: Mapping[str, list],
    *,
    tokenizer: Any,
    options: Options | None = None,
    mesh: Mesh | None = None,
    cache_dir: str | pathlib.Path | None = None,
) -> Any:
    """Returns the predictions of a retrieval task in the hidden state `options.layer`; it needs no head.

    They are {target id: source id}, or for mined pairs [(source id, target id, margin), ...], the best first.
    """
    options = (options or Options()).resolve(task, model)
    sentences = features(task, examples, tokenizer, options, cache_dir)
    (found,) = retrieve_layers(model, params, task, [(examples, sentences)], options=options, mesh=mesh)
    return found[options.layer]


def features(
    task: TaskSpec, examples: Mapping[str, list], tokenizer: Any, options: Options, cache_dir: Any
) -> Features:
    """Returns the sentences that are to be embedded, tokenised: those of the source side, then those of the target."""
    return tokenize.concatenate(
        [
            prepare.features(rows, "text", tokenizer, cache_dir, max_length=options.max_length)
            for rows in _sides(task, examples).values()
        ]
    )


def _sides(task, examples) -> dict[str, list]:
    """Returns {side: what is searched}: of mined pairs the different texts only, in the order of the first."""
    sides = {side: examples[side] for side in ("source", "target")}
    if task.metric == MINED:
        sides = {side: [rows[0] for rows in collapse(rows).values()] for side, rows in sides.items()}
    return sides


def retrieve_layers(
    model: Model,
    params: Params,
    task: TaskSpec,
    items: Sequence[tuple[Mapping[str, list], Features]],
    *,
    options: Options,
    layers: Sequence[int] | None = None,
    mesh: Mesh | None = None,
) -> list[dict[int, Any]]:
    """Returns {hidden state: predictions, as `retrieve` gives them} of each item, from one pass over all sentences.

    Args:
        items: (examples, their `features`), say of several languages, which share the rows of a batch.
        options: decided; layers: which hidden states, by default `options.layer`; those asked for are held in memory
            together, N x D x 4 bytes each.
    """
    layers = _layers(model, (options.layer,) if layers is None else layers)
    sentences = tokenize.concatenate([features for _, features in items])
    vectors = _embed(model, params, sentences, options, layers, mesh)
    found, begin = [], 0
    for examples, _ in items:
        sides = {}
        for side, rows in _sides(task, examples).items():
            sides[side] = vectors[:, begin : begin + len(rows)]
            begin += len(rows)
        if options.subtract_means:
            sides = {side: own - own.mean(1, keepdims=True) for side, own in sides.items()}
        by_layer = [{side: own[place] for side, own in sides.items()} for place in range(len(layers))]
        found.append(
            {layer: _predictions(task, examples, own, mesh) for layer, own in zip(layers, by_layer, strict=True)}
        )
    return found


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
