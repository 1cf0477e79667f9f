"""Queries and candidates as vectors: a dual encoder with shared weights, which learns from the pairs of a batch.

Evaluation ranks one pool of candidates, which all languages of a task share, for each query.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jxstilts.data.features import Features, Field
from jxstilts.data.tokenizer import encode
from jxstilts.forms import base, checks, files
from jxstilts.runtime import InputError, atomic_write

DEPTH = 21  # candidates that are kept of a query: the 20 that count, and one, since a value leaves one out (LAReQA)

BLOCK = 2**14  # candidates that are tokenised at once


class Ranked(base.Collector):
    """The vector of each query -> the ids of the best candidates, {query id: ids, the best first}."""

    def prepare(self):
        self.pool = self.given.pool(self.given.examples["candidate"])
        self.vectors = np.zeros((len(self.given.features), self.pool.shape[1]), np.float32)

    def add(self, index, array):
        self.vectors[index] = array[-1]

    def finish(self):
        given = self.given
        _, places = given.search.ranked(self.vectors, self.pool, DEPTH)
        names = given.examples["candidate"].ids()
        queries = given.examples["query"]
        return {
            query["id"]: [names[place] for place in row] for query, row in zip(queries, places.tolist(), strict=True)
        }

    def notes(self):
        return {"pool": len(self.pool)}


class Scores(Ranked):
    """The vector of each query -> {"candidates": [{"text", "place", "score"}, ...]}, the best `n_best` first.

    place: in the pool, from 0. score: the cosine.
    """

    def finish(self):
        pool, search = self.given.examples["candidate"], self.given.search
        scores, places = search.ranked(self.vectors, self.pool, self.given.options.n_best)
        return [
            {
                "candidates": [
                    {"text": pool[place]["text"], "place": place, "score": score}
                    for place, score in zip(*row, strict=True)
                ]
            }
            for row in zip(places.tolist(), scores.tolist(), strict=True)
        ]


class Embedding(base.Form):
    """To train on: [{"id": str, "query": str, "candidate": str}, ...].

    To evaluate: {"query": [{"id", "text"}, ...], "candidate": `data.candidates.Candidates`, "gold": [(query id,
    candidate id), ...]}, of one language's queries. Equal scores: the candidate that comes first in the pool wins.
    """

    name = "embedding"
    gold = "gold"
    fields = (Field("group", "example", "group", empty=-1),)
    output = "embeddings"
    typical = (95, 2)
    reads_plain = True
    in_batch = True
    scores = Scores

    def check(self, spec, examples):
        if not isinstance(examples, Mapping) or not {"query", "candidate"} <= examples.keys():
            raise InputError(
                f"task {spec.name!r}: expected {{'query': [...], 'candidate': a pool}}, got {examples!r:.60}; training "
                "pairs cannot be held out, the task has a dev split"
            )
        seen: set[str] = set()
        for place, query in enumerate(examples["query"]):
            checks.check_example(query, {"text": (str,)}, seen, f"task {spec.name!r}, query {place}")

    def some(self, examples, count):
        return {**examples, "query": examples["query"][:count]}

    def parts(self, examples):
        return [examples["query"] if isinstance(examples, Mapping) else examples]

    def tokenize(self, examples, tokenizer, template, reading, labels=()) -> Features:
        """Of pairs two features each, the query and its candidate, with the field example; of queries one each."""
        if examples and "candidate" in examples[0]:
            return self._pairs(examples, tokenizer, template, reading)
        return self._texts([row["text"] for row in examples], tokenizer, template, reading, query_length(reading))

    def candidates(self, rows: Sequence[Mapping], tokenizer, template, reading) -> Features:
        """Returns a feature for each of [{"id", "text"}, ...] of a pool."""
        return self._texts([row["text"] for row in rows], tokenizer, template, reading, reading.max_length)

    def further(self, examples, tokenizer, template, reading):
        if isinstance(examples, Mapping):
            pool = examples["candidate"]
            for begin in range(0, len(pool), BLOCK):
                yield self.candidates(pool[begin : begin + BLOCK], tokenizer, template, reading)

    def _texts(self, texts, tokenizer, template, reading, most) -> Features:
        texts = [_written(text, reading) for text in texts]
        limits = np.full(len(texts), most)
        flat, starts, lengths = _cut(texts, limits, tokenizer, template, reading)
        filled = template.fill(tokenizer, (flat, starts, lengths))
        return Features(filled.tokens, filled.offsets, {}, filled.token_fields)

    def _pairs(self, examples, tokenizer, template, reading) -> Features:
        texts = [_written(row[side], reading) for row in examples for side in ("query", "candidate")]
        limits = np.tile([query_length(reading), reading.max_length], len(examples))
        flat, starts, lengths = _cut(texts, limits, tokenizer, template, reading)
        filled = template.fill(tokenizer, (flat, starts, lengths))
        example = np.repeat(np.arange(len(examples), dtype=np.int32), 2)
        return Features(filled.tokens, filled.offsets, {"example": example}, filled.token_fields)

    def options(self, reading):
        more = {"query_length": query_length(reading), "lower_case": reading.lower_case}
        return super().options(reading) | more | {"prefix": getattr(reading, "prefix", None) or ""}

    @property
    def head_type(self):
        return "dual"

    def head_class(self):
        from jxstilts.models.heads import dual

        return dual.Head

    def head_spec(self, name, labels, stream):
        from jxstilts.models.heads.dual import DualSpec  # JAX, which files of predictions do without

        negatives = stream.negatives_per_step or stream.batch_size
        if stream.batch_size % negatives:
            raise InputError(
                f"negatives_per_step={negatives} does not divide batch_size={stream.batch_size}: each query of a batch "
                "has as many candidates in its softmax"
            )
        pooling = stream.pooling or "mean"
        return DualSpec(name, "dual", (), pooling, negatives, aggregation=stream.aggregation)

    def kept_head(self, head, stream):
        return dataclasses.replace(head, negatives=self.head_spec(head.name, (), stream).negatives)

    def reader(self, options, layers, recipe):
        from jxstilts.models.heads.embedding import EmbeddingSpec

        return EmbeddingSpec("embedding", "embedding", pooling=options.pooling, layers=tuple(layers), recipe=recipe)

    def collector(self, given):
        return Ranked(given)

    def count(self, examples):
        return len(examples["query"])

    def has_gold(self, examples):
        return "gold" in examples

    def baseline(self, spec, metric, examples):
        return None

    def gold_in_words(self, batch, own, labels, tokenizer):
        return "the query, then its candidate"

    # Files: {query id: candidate ids, the best first}; gold {query id: the right ids}

    def write(self, file, spec, examples, predictions, threshold):
        missing = [query["id"] for query in examples["query"][: len(predictions)] if query["id"] not in predictions]
        if missing:
            raise InputError(f"{file}: query {missing[0]!r} has no ranking")
        atomic_write(file, files.json_bytes({name: list(found) for name, found in predictions.items()}))

    def write_labels(self, file, spec, examples):
        if "gold" not in examples:
            raise InputError(f"{file}: the examples have no gold candidates")
        gold: dict[str, list[str]] = {}
        for query, candidate in examples["gold"]:
            gold.setdefault(query, []).append(candidate)
        atomic_write(file, files.json_bytes(gold))

    def read(self, file, spec, examples):
        found = _lists(file)
        unknown = found.keys() - {query["id"] for query in examples["query"]}
        if unknown:
            raise InputError(f"{files.line_of(file, min(unknown))}: {min(unknown)!r:.80} is the id of no query")
        return found

    def compare(self, spec, predictions, labels):
        found, gold = _lists(predictions), _lists(labels)
        if not gold:
            raise InputError(f"{labels}:1: the file is empty")
        unknown = found.keys() - gold.keys()
        if unknown:
            where = files.line_of(predictions, min(unknown))
            raise InputError(f"{where}: {min(unknown)!r:.80} is the id of no query of {labels}")
        for name, right in gold.items():
            if not right or (spec.one_right and len(right) != 1):
                what = "one id" if spec.one_right else "ids"
                raise InputError(f"{files.line_of(labels, name)}: {name!r:.80} has {len(right)} right; expected {what}")
        return found, {"gold": [(name, candidate) for name, right in gold.items() for candidate in right]}


def query_length(reading: base.Reading) -> int:
    """Returns the tokens of a query at most: by default as of a candidate."""
    return min(reading.query_length or reading.max_length, reading.max_length)


def _written(text: str, reading: base.Reading) -> str:
    text = (getattr(reading, "prefix", None) or "") + text
    return text.lower() if reading.lower_case else text


def _cut(texts, limits, tokenizer, template, reading):
    """Returns the ids of texts, each cut to its number of tokens, special ones included: a part for `Template.fill`."""
    specials = template.specials(pair=False)
    base.check_room(reading, specials, 1, "a text")
    flat, offsets = encode(tokenizer, texts)
    room = np.maximum(limits - specials, 1)
    return flat, offsets[:-1], np.minimum(np.diff(offsets), room)


def _lists(file) -> dict[str, list[str]]:
    """Returns {query id: ids without white space at their ends}. Raises InputError with file:line."""
    found = {}
    for name, given in files.read_object(file).items():
        if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            raise InputError(f"{files.line_of(file, name)}: {name!r:.80}: expected a list of ids, got {given!r:.60}")
        found[name] = [each.strip() for each in given]
        if len(set(found[name])) != len(found[name]):
            raise InputError(f"{files.line_of(file, name)}: {name!r:.80} has an id twice in its ranking")
    return found


FORM = Embedding()
