"""The published protocols: everything in which they differ, as data (protocol sections 3, 3.3 and 4.1, 4.2).

`authors` is the study's released code (jiant), the default. `xtreme` is what the scripts of google-research/xtreme did
when the study was made (June 2020), but for a fault: they lower-cased questions for a cased model. (Their last version
trains questions for 3 epochs in batches of 32, and pairs at 3e-5.) `xtreme_r` is that last version, with the values it
has for XLM-R Large. It reads the texts of LAReQA and Mewsli-X in lower case for that model, which is a cased one; here
that is an option, `lower_case`, and off. Never mix two protocols in one table.
"""

import dataclasses
from collections.abc import Mapping

from jxstilts.runtime import InputError, suggest
from jxstilts.tasks.spec import Recipe, TaskSpec


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What a protocol fixes.

    recipes: training task -> Recipe, where it differs from the task's own (`TaskSpec.recipe`, the study's).
    own: are the tasks' own recipes part of it?
    lengths: form, or task where it is another -> tokens of a row, when it is evaluated.
    query_lengths: embedding task -> tokens of a query.
    long_sentences: tagging, a sentence longer than a row: "truncate" or "split".
    layers: retrieval task -> hidden state of XLM-R Large's 24 layers, 0 = embeddings.
    """

    recipes: Mapping[str, Recipe]
    own: bool
    lengths: Mapping[str, int]
    long_sentences: str
    layers: Mapping[str, int]
    query_lengths: Mapping[str, int] = dataclasses.field(default_factory=dict)


def _xtreme(epochs, rate, batch_size=32, max_length=128, warmup=0.0, weight_decay=0.0):
    return Recipe(batch_size, max_length, epochs, "XTREME's scripts, June 2020", rate, warmup, weight_decay)


def _xtreme_r(epochs, rate, batch_size=32, max_length=128, **more):
    own = {"warmup": 0.0, "weight_decay": 0.0} | more
    return Recipe(batch_size, max_length, epochs, "XTREME-R's scripts, for XLM-R Large", rate, **own)


_QUESTIONS = _xtreme(2, 3e-5, batch_size=16, max_length=384, warmup=500, weight_decay=1e-4)
_QUESTIONS_R = _xtreme_r(3, 3e-5, max_length=384, warmup=500, weight_decay=1e-4)
_ANSWERS = _xtreme_r(3, 2e-5, batch_size=16, max_length=256, query_length=96, negatives=4)
_LENGTHS = {
    "classification": 128, "choice": 128, "tagging": 128, "span": 384, "retrieval": 512, "mining": 512,
    "text_to_text": 1024,  # mT5's
}  # fmt: skip
# of LAReQA and Mewsli-X there is one protocol, whichever is asked for
_POOLS = {"embedding": 256, "mewslix": 64, "wikipedia_pairs": 64}
_QUERIES = {"lareqa": 96, "squad_retrieval": 96, "tydiqa_retrieval": 96, "mewslix": 64, "wikipedia_pairs": 64}

PROTOCOLS = {
    "authors": Protocol(
        recipes={},
        own=True,
        lengths={**_LENGTHS, "classification": 256, "choice": 256, "tagging": 256, **_POOLS},
        long_sentences="truncate",
        layers={"bucc2018": 14, "tatoeba": 14},
        query_lengths=_QUERIES,
    ),
    "xtreme": Protocol(
        recipes={
            "mnli": _xtreme(5, 2e-5),
            "pawsx": _xtreme(5, 2e-5),
            "udpos": _xtreme(10, 2e-5),
            "panx": _xtreme(10, 2e-5),
            "squad_v1": _QUESTIONS,
            "tydiqa": _QUESTIONS,
        },
        own=False,
        lengths=_LENGTHS | _POOLS,
        long_sentences="split",
        layers={"bucc2018": 20, "tatoeba": 14},
        query_lengths=_QUERIES,
    ),
    "xtreme_r": Protocol(
        recipes={
            "mnli": _xtreme_r(5, 3e-5),
            "siqa": _xtreme_r(5, 3e-5),
            "copa": _xtreme_r(5, 3e-5),
            "udpos": _xtreme_r(10, 2e-5),
            "panx": _xtreme_r(10, 2e-5),
            "squad_v1": _QUESTIONS_R,
            "tydiqa": _QUESTIONS_R,
            "squad_retrieval": _ANSWERS,
            "tydiqa_retrieval": _ANSWERS,
            "wikipedia_pairs": _xtreme_r(2, 1e-5, max_length=64, query_length=64, negatives=8),
        },
        own=False,
        lengths=_LENGTHS | _POOLS,
        long_sentences="split",
        layers={"tatoeba": 14},
        query_lengths=_QUERIES,
    ),
}


def get(name: str) -> Protocol:
    """Returns a protocol. Raises InputError for an unknown name."""
    if name not in PROTOCOLS:
        raise InputError(suggest("protocol", name, PROTOCOLS))
    return PROTOCOLS[name]


def recipe(name: str, task: TaskSpec) -> Recipe | None:
    """Returns a protocol's training recipe for a task, None where it has none."""
    protocol = get(name)
    return protocol.recipes.get(task.name) or (task.recipe if protocol.own else None)


def layer(name: str, task: str, layers: int) -> int:
    """Returns the hidden state that a retrieval task reads in a model of `layers` layers, 0 = embeddings.

    The protocols speak of 24 layers; in a model of another depth the state at the same share of the depth is taken
    (this package's rule). Raises InputError for a task of which the protocol says nothing.
    """
    known = get(name).layers
    if task not in known:
        raise InputError(f"the protocol {name!r} names no hidden state for task {task!r}; give options.layer")
    return round(known[task] * layers / 24)
