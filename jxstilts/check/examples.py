"""One real batch of each stream of a phase, made as training makes it, and its first example in words."""

import dataclasses
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jxstilts import tasks
from jxstilts.data import batching, prepare
from jxstilts.data import tokenizer as tokenizers
from jxstilts.mesh import make_mesh
from jxstilts.models.model import Model
from jxstilts.train import inputs
from jxstilts.train import phase as phases

ROWS = 1000  # that are tokenised to see how long a question with its choices gets
WORDS = 400  # characters of an example that are shown


def describe(phase: Any, key: str, model: Model, tokenizer_dir: pathlib.Path, data_dir: str, mesh: Mesh) -> str:
    """Returns the first batch of the stream `key` in words; few rows are tokenised.

    Raises InputError for malformed data.
    """
    stream = phase.tasks[key]
    few = stream.limit or stream.batch_size * (8 if stream.packed else 1)
    alone = dataclasses.replace(
        stream, mode="sampled", amount=0.0, lengths_of="", limit=min(few, stream.batch_size * 8)
    )
    one = dataclasses.replace(phase, tasks={key: alone}, epochs=0.0, steps=1)
    with tempfile.TemporaryDirectory() as folder:
        cache = pathlib.Path(folder)
        data = inputs.make(one, model, tokenizer_dir, phases.Place(cache, data_dir, cache, mesh, quiet=True))
        batch = data.source[0][key]
    labels = {spec.name: spec.labels for spec in model.head_specs}[inputs.head_name(stream)]
    tokenizer = tokenizers.load(tokenizer_dir)
    own = _own(batch)  # the first example of a row that may hold several; a question's choices are one example
    first = np.isin(batch["segments"][0], 1 + np.flatnonzero(own))
    tokens = batch["tokens"][0][first]
    text = tokenizer.decode(tokens if data.rows is None else data.rows.ids[tokens])
    text = text if len(text) <= WORDS else f"{text[:WORDS]}..."
    rows, length = batch["tokens"].shape
    real = float((batch["segments"] > 0).mean())
    gold = tasks.get(stream.task).form.gold_in_words(batch, own, labels, tokenizer)
    return f"tokens [{rows}, {length}], {real:.0%} real; the first example: {text}{gold and f' -> {gold}'}"


def longest(phase: Any, key: str, model: Model, tokenizer_dir: pathlib.Path, data_dir: str) -> int:
    """Returns the tokens of the longest input among the first ROWS of a stream, rounded up as `inputs.make` does."""
    stream = phase.tasks[key]
    rows = inputs.training_rows(dataclasses.replace(stream, limit=min(stream.limit or ROWS, ROWS)), data_dir)
    form = tasks.get(stream.task).form
    with tempfile.TemporaryDirectory() as folder:
        features = prepare.features(
            form, rows, tokenizers.load(tokenizer_dir), model.template, stream, pathlib.Path(folder)
        )
        groups = batching.groups(features, form.fields)
        return 16 * -(-int((features.offsets[groups[1:]] - features.offsets[groups[:-1]]).max()) // 16)


def embeddings(phase: Any, model: Model, tokenizer_dir: pathlib.Path, data_dir: str) -> int:
    """Returns how many token embeddings a phase trains, 0 = all. All its training rows are tokenised."""
    with tempfile.TemporaryDirectory() as folder:
        cache, mesh = pathlib.Path(folder), make_mesh({}, jax.devices()[:1])
        rows = inputs.make(phase, model, tokenizer_dir, phases.Place(cache, data_dir, cache, mesh, quiet=True)).rows
    return 0 if rows is None else len(rows.ids)


def _own(batch: dict[str, np.ndarray]) -> np.ndarray:
    """bool [S]: the segments of the first row that make up its first example."""
    if "group" in batch:
        return batch["group"][0] == 0
    return np.arange(batch["weights"].shape[1]) == 0
