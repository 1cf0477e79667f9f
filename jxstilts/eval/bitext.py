"""Retrieval tasks: sentences to embeddings, then each sentence's translation, or the mined pairs."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jxstilts.data import prepare
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
    found = np.zeros((len(layers), len(sentences), config.width), np.float32)
    for index, vectors in predict.each(reader, params, "embedding", features, "text", options, mesh=mesh):
        found[:, unique[index]] = vectors
    again = [i for i, sentence in enumerate(sentences) if texts[sentence["text"]] != i]
    found[:, again] = found[:, [texts[sentences[i]["text"]] for i in again]]
    return found


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
    layer = (options or Options()).resolve(task, model).layer
    found = retrieve_layers(
        model, params, task, examples,
        tokenizer=tokenizer, options=options, layers=(layer,), mesh=mesh, cache_dir=cache_dir,
    )  # fmt: skip
    return found[layer]


def retrieve_layers(
    model: Model,
    params: Params,
    task: TaskSpec,
    examples: Mapping[str, list],
    *,
    tokenizer: Any,
    options: Options | None = None,
    layers: Sequence[int] | None = None,
    mesh: Mesh | None = None,
    cache_dir: str | pathlib.Path | None = None,
) -> dict[int, Any]:
    """Returns {hidden state: predictions, as `retrieve` gives them} from one pass over the sentences.

    layers: which hidden states, by default all; those asked for are held in memory together, N x D x 4 bytes each.
    `options.layer` is not read.
    """
    options = options or Options()
    layers = [layer_of(model, layer) for layer in (range(model.config.layers + 1) if layers is None else layers)]
    sides = {side: examples[side] for side in ("source", "target")}
    if task.metric == MINED:  # the different texts only, in the order of the first
        sides = {side: [rows[0] for rows in collapse(rows).values()] for side, rows in sides.items()}
    vectors = {
        side: embed(
            model, params, rows, tokenizer=tokenizer, options=options, layers=layers, mesh=mesh, cache_dir=cache_dir
        )
        for side, rows in sides.items()
    }
    if options.subtract_means:
        vectors = {side: found - found.mean(1, keepdims=True) for side, found in vectors.items()}
    return {
        layer: _predictions(task, examples, {side: found[place] for side, found in vectors.items()}, mesh)
        for place, layer in enumerate(layers)
    }


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
