"""What hidden states tell of the language: a fresh linear probe, and how translations lie to each other in each state.

A discriminator that was trained against the encoder says little: it may have failed for reasons of its own. So these
are fitted anew, on states that no longer change.
"""

import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special

from jxstilts import tasks
from jxstilts.data import tokenizer as tokenizers
from jxstilts.eval.evaluator import Evaluator
from jxstilts.eval.ranking import Search
from jxstilts.models.model import Model, Params
from jxstilts.runtime import InputError

DECAY = 1e-3  # of the probe's weights, whose inputs have mean 0 and variance 1


def linear_probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Returns the accuracy, 0 to 100, on `test` of a logistic regression that is fitted on `train`.

    train [N, D], test [M, D]: standardised by the mean and deviation of `train`. labels: int [N], [M], from 0. The
    loss has one minimum, which L-BFGS finds, so nothing depends on a seed. Raises InputError for a class alone.
    """
    mean, scale = train.mean(0), train.std(0) + 1e-6
    x, rows = ((each - mean) / scale for each in (train, test))
    classes = int(labels.max()) + 1
    if classes < 2:
        raise InputError("a probe needs two classes at least")
    wanted = np.eye(classes)[labels]

    def loss(flat):
        weights, bias = flat[:-classes].reshape(x.shape[1], classes), flat[-classes:]
        logits = x @ weights + bias
        off = (scipy.special.softmax(logits, axis=1) - wanted) / len(x)
        value = -(scipy.special.log_softmax(logits, axis=1) * wanted).sum() / len(x) + DECAY / 2 * (weights**2).sum()
        return value, np.concatenate([(x.T @ off + DECAY * weights).ravel(), off.sum(0)])

    start = np.zeros((x.shape[1] + 1) * classes)
    flat = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    said = (rows @ flat[:-classes].reshape(-1, classes) + flat[-classes:]).argmax(1)
    return float(100 * (said == test_labels).mean())


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Returns linear centred kernel alignment, 0 to 1, of two sets of states [N, D], [N, E] of the same N things.

    ||Y'X||^2 / (||X'X|| ||Y'Y||), of centred columns (Kornblith et al. 2019, equation 5): 1 where one is the other,
    turned and scaled. NaN where all states of a set are the same.
    """
    x, y = (np.asarray(each, np.float64) - np.mean(each, 0, dtype=np.float64) for each in (x, y))
    between, within = np.linalg.norm(y.T @ x) ** 2, np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(between / within) if within else float("nan")


def pairs(task: str, data_dir: str, split: str, languages: Iterable[str], limit: int = 0) -> dict[str, dict]:
    """Returns {language: {"source", "target"}}: the first sentences of each and the same in English, as many of each.

    limit: at most so many; 0 = as many as the smallest language has.
    """
    found = {code: tasks.load(task, data_dir, split, code, limit=limit or None) for code in languages}
    count = min(limit or sys.maxsize, *(len(each["source"]) for each in found.values()))
    return {code: {side: each[side][:count] for side in ("source", "target")} for code, each in found.items()}


def states(evaluator: Evaluator, pairs: Mapping[str, Mapping]) -> list[dict[str, float]]:
    """Returns of each hidden state, 0 = embeddings, {"language": accuracy of a probe, "cka", "retrieval": means}.

    pairs: language -> {"source": its sentences, "target": the same in English}, as `tasks.load` gives Tatoeba's, as
    many in every language. The probe tells English and these languages apart, by the mean of a sentence's states; it
    is fitted on the sentences of even number and tested on the others, so that a sentence that stands in several
    languages is on one side. CKA is that of translations, retrieval the accuracy, 0 to 100, with which an English
    sentence finds its translation among the language's (protocol 3.6); both are means over the languages. Raises
    InputError for languages of different size.
    """
    if len({len(pair["source"]) for pair in pairs.values()}) != 1:
        raise InputError("the languages of a probe need as many sentences each")
    first = next(iter(pairs.values()))["target"]
    embed = evaluator.embed  # [states, N, D]
    vectors = {code: (embed(pair["source"]), embed(pair["target"])) for code, pair in pairs.items()}
    spoken = [embed(first), *(own for own, _ in vectors.values())]
    place, search = np.arange(len(first)), Search(evaluator.mesh)
    found = []
    for state in range(len(spoken[0])):
        x = np.concatenate([each[state] for each in spoken]).astype(np.float64)
        labels = np.repeat(np.arange(len(spoken)), len(first))
        odd = np.tile(place % 2 == 1, len(spoken))
        ckas = [linear_cka(own[state], english[state]) for own, english in vectors.values()]
        accuracy = linear_probe(x[~odd], labels[~odd], x[odd], labels[odd])
        hits = [search.nearest(english[state], own[state]) == place for own, english in vectors.values()]
        found.append({"language": accuracy, "cka": float(np.mean(ckas)), "retrieval": 100 * float(np.mean(hits))})
    return found


def during(
    probe: Any, data_dir: str, tokenizer_dir: pathlib.Path, cache_dir: pathlib.Path, mesh: Any
) -> Callable[[Model, Params], dict[str, float]]:
    """Returns what a phase asks while it trains: of a model and its parameters {"language/3": value, "cka/3", ...}.

    probe: the phase's; retrieval has its task's name. The numbers after the slash are those of `states`.
    """
    tokenizer = tokenizers.load(tokenizer_dir)
    given = pairs(probe.task, data_dir, probe.split, probe.languages, probe.limit)

    def values(model: Model, params: Params) -> dict[str, float]:
        found = states(Evaluator(model, params, tokenizer, mesh=mesh, cache_dir=cache_dir), given)
        names = {name: probe.task if name == "retrieval" else name for name in found[0]}
        return {f"{names[name]}/{state}": each[name] for name in names for state, each in enumerate(found)}

    return values
