"""Retrieval of sentences: for each English sentence the nearest of another language."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jxstilts.data.features import Features
from jxstilts.forms import base, checks, files, text
from jxstilts.runtime import InputError, atomic_write

SIDES = ("source", "target")


class Vectors(base.Collector):
    """Vectors [layers, D] of each sentence, those of the source first -> what `Retrieval.found` makes of them."""

    def prepare(self):
        self.vectors = None

    def add(self, index, array):
        if self.vectors is None:
            self.vectors = np.zeros((len(array), len(self.given.features), array.shape[-1]), np.float32)
        self.vectors[:, index] = array

    def finish(self):
        layer = self.given.options.layer  # None: by the model's own recipe, whose vector comes last
        return self._of(-1 if layer is None else self.given.layers.index(layer))

    def by_layer(self):
        """Returns the predictions in each hidden state that was read, where there are several."""
        layers = self.given.layers
        return {layer: self._of(place) for place, layer in enumerate(layers)} if len(layers) > 1 else {}

    def _of(self, place: int) -> Any:
        given, sides, begin = self.given, {}, 0
        form = given.spec.form
        for side, rows in form.sides(given.examples).items():
            own = self.vectors[place, begin : begin + len(rows)]
            sides[side] = own - own.mean(0, keepdims=True) if given.options.subtract_means else own
            begin += len(rows)
        return form.found(given, sides)


class Retrieval(base.Form):
    """Examples {"source": [{"id", "text"}, ...], "target": [...] (English, the queries), "gold": [(source, target)]}.

    Protocol 3.6: the English sentence is the query, the other language the index; cosine, one neighbour, no margin.
    """

    name = "retrieval"
    gold = "gold"
    output = "embeddings"
    has_head = False
    once = True
    suffix = ".tsv"

    def sides(self, examples: Mapping[str, list]) -> dict[str, Sequence[Mapping]]:
        """Returns {side: the sentences that are embedded}."""
        return {side: examples[side] for side in SIDES}

    def found(self, given: base.Given, vectors: Mapping[str, np.ndarray]) -> Any:
        """Returns predictions from {side: vectors [N, D]}: {target id: source id}."""
        places = given.search.nearest(vectors["target"], vectors["source"])
        names = [sentence["id"] for sentence in given.examples["source"]]
        queries = given.examples["target"]
        return {sentence["id"]: names[place] for sentence, place in zip(queries, places, strict=True)}

    def check(self, spec, examples):
        if not isinstance(examples, Mapping) or not all(isinstance(examples.get(side), list) for side in SIDES):
            raise InputError(f"task {spec.name!r}: expected {{'source': [...], 'target': [...]}}, got {examples!r:.60}")
        for side in SIDES:
            seen: set[str] = set()
            for place, sentence in enumerate(examples[side]):
                checks.check_example(sentence, {"text": (str,)}, seen, f"task {spec.name!r}, {side} {place}")

    def parts(self, examples):
        return list(self.sides(examples).values())

    def tokenize(self, examples, tokenizer, template, reading, labels=()) -> Features:
        """A feature per sentence [{"id", "text"}, ...]: the prefix of the options and the text, cut to max_length."""
        if reading.prefix:
            examples = [{**example, "text": reading.prefix + example["text"]} for example in examples]
        return text.FORM.tokenize(examples, tokenizer, template, reading)

    def options(self, reading):
        return super().options(reading) | {"prefix": reading.prefix}

    def reader(self, options, layers, recipe):
        from jxstilts.models.heads.embedding import EmbeddingSpec  # JAX, which files of predictions do without

        return EmbeddingSpec("embedding", "embedding", pooling=options.pooling, layers=tuple(layers), recipe=recipe)

    def collector(self, given):
        return Vectors(given)

    def count(self, examples):
        return len(examples["target"])

    def has_gold(self, examples):
        return "gold" in examples

    def baseline(self, spec, metric, examples):
        """Returns the chance to draw the right sentence."""
        return {"accuracy": 100 / len(examples["source"])}

    def write(self, file, spec, examples, predictions, threshold):
        """A line per English sentence: the place, from 0, of the source sentence found for it.

        The English sentences come sorted by text, as XTREME's preprocessing sorts them: white space at their ends
        removed, by code point, equal ones in the order of the data. So the gold file is a permutation.
        """
        places = {sentence["id"]: place for place, sentence in enumerate(examples["source"])}
        rows = []
        for sentence in _by_text(examples["target"]):
            found = predictions.get(sentence["id"])
            if found not in places:
                raise InputError(f"{file}: English sentence {sentence['id']!r} has no source sentence, but {found!r}")
            rows.append(places[found])
        atomic_write(file, "".join(f"{row}\n" for row in rows))

    def write_labels(self, file, spec, examples):
        rows = _gold(file, examples)
        places = {sentence["id"]: place for place, sentence in enumerate(examples["source"])}
        gold = {english: places.get(source) for source, english in rows}
        queries = {sentence["id"] for sentence in examples["target"]}
        if gold.keys() != queries or None in gold.values() or len(gold) != len(rows):
            raise InputError(f"{file}: this file holds one gold source per English sentence; the examples do not")
        atomic_write(file, "".join(f"{gold[sentence['id']]}\n" for sentence in _by_text(examples["target"])))

    def read_lines(self, file, spec):
        """Returns numbers of sentences, counted from 0."""
        found = files.lines_of(file)
        for number, line in enumerate(found, start=1):
            if not re.fullmatch("0|[1-9][0-9]{0,8}", line):
                what = f"expected the number of a sentence, counted from 0; got {line!r:.60}"
                raise InputError(f"{file}:{number}: {what}")
        return list(map(int, found))

    def read(self, file, spec, examples):
        rows, english = self.read_lines(file, spec), _by_text(examples["target"])
        files.check_length(file, rows, len(english), "English sentences")
        for number, place in enumerate(rows, start=1):
            if place >= len(examples["source"]):
                raise InputError(f"{file}:{number}: there are {len(examples['source'])} sentences, counted from 0")
        return {sentence["id"]: examples["source"][place]["id"] for sentence, place in zip(english, rows, strict=True)}

    def compared(self, spec, found, gold):
        examples = {"gold": [(place, str(row)) for row, place in enumerate(gold)]}
        return {str(row): place for row, place in enumerate(found)}, examples


def _by_text(sentences):
    return sorted(sentences, key=lambda sentence: sentence["text"].strip())


def _gold(file, examples):
    if "gold" not in examples:
        raise InputError(f"{file}: the examples have no gold pairs")
    return list(examples["gold"])


FORM = Retrieval()
