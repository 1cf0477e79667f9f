"""What a trivial rule scores: the value that a model has to beat before its own says anything."""

import collections
import hashlib
import re
from collections.abc import Iterable
from typing import Any

from jxstilts.eval.metrics import Metric
from jxstilts.tasks import TaskSpec

WORDS = 5  # a drawn answer has 1 to 5 words,
CHARACTERS = 10  # or 1 to 10 characters where text is written without spaces
SPACED = 15  # which is so when the pieces between its spaces are longer than this on average


def values(task: TaskSpec, metric: Metric, examples: Any) -> dict[str, float] | None:
    """Returns {value name: 0-100} of the trivial rule for the task's type, by the task's metric, on these examples.

    classification: the most frequent label; choice: the most frequent place of the right choice; tagging: the most
    frequent tag for every word; span: an answer drawn at random, the same in every run, or that there is none if
    that scores better; retrieval of one sentence: the chance to draw the right one. None for anything else.
    """
    if task.type == "retrieval":
        return {"accuracy": 100 / len(examples["source"])} if metric.name == "retrieval" else None
    rules = {"classification": _labels, "choice": _labels, "tagging": _tags, "span": _spans}
    if task.type not in rules:
        return None
    scored = [metric.compute(metric.update(guess, examples)) for guess in rules[task.type](metric, examples)]
    return max(scored, key=metric.major)


def _most_frequent(items: Iterable) -> Any:
    """Returns the most frequent item, of equals the one that sorts first; None if there is none."""
    counts = collections.Counter(items)
    return min(counts, key=lambda item: (-counts[item], item), default=None)


def _labels(metric, examples):
    return [[_most_frequent(example["label"] for example in examples)] * len(examples)]


def _tags(metric, examples):
    tag = _most_frequent(tag for example in examples for tag in example["tags"])
    return [{example["id"]: [tag] * len(example["words"]) for example in examples}]


def _spans(metric, examples):
    drawn = {example["id"]: draw_span(example["id"], example["context"]) for example in examples}
    if metric.name != "squad_v2":
        return [drawn]
    never = {identifier: {"text": "", "no_answer": 1.0} for identifier in drawn}
    return [never, {identifier: {"text": text, "no_answer": -1.0} for identifier, text in drawn.items()}]


def draw_span(identifier: str, context: str) -> str:
    """Returns a random piece of a context: whole words, or characters where it is written without spaces."""
    pieces = [match.span() for match in re.finditer(r"\S+", context)]
    longest = WORDS
    if len(re.sub(r"\s", "", context)) > SPACED * len(pieces):
        longest = CHARACTERS
        pieces = [match.span() for match in re.finditer(r"\S", context)]
    if not pieces:
        return ""
    # a hash, because numpy's and Python's generators promise nothing about their numbers in later versions
    bits = int.from_bytes(hashlib.sha256(identifier.encode()).digest())
    bits, number = divmod(bits, min(longest, len(pieces)))
    first = bits % (len(pieces) - number)
    return context[pieces[first][0] : pieces[first + number][1]]
