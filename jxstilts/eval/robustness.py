"""How even a model's answers are over languages, from the values of each example.

A value has one language, or a pair: the context's and the question's, as MLQA's 49. Examples with the same id are
translations of each other, so a draw of the bootstrap takes an item in all languages.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from jxstilts.eval.metrics.bootstrap import intervals
from jxstilts.runtime import InputError

Values = Mapping[str, Mapping[str, float]]
RIGHT = 1 - 1e-9


def measures(
    values: Values, source: str = "en", level: float = 0.95, draws: int = 1000
) -> dict[str, tuple[float, tuple[float, float]]]:
    """Returns {measure: (value, (low, high))}, 0 to 100, with percentile bootstrap intervals over items.

    Args:
        values: "de" or, of a context and a question of other languages, "de-en" -> {example id: 0 to 1}, as F1.
    diagonal: mean over languages whose context and question are one. gap: that of `source` less the mean of the others.
    worst: the lowest of them. off_diagonal: mean over the pairs; penalty: diagonal less off-diagonal.
    consistency: of the items that are right (1) in the source, the share that is right in every language that has them.
    A measure is there where the languages that it needs are. Raises InputError without the source or another language.
    """
    diagonal = sorted(name for name in values if "-" not in name)
    if source not in diagonal or len(diagonal) < 2:
        raise InputError(f"robustness needs {source!r} and another language; there is {', '.join(sorted(values))}")
    names = [source, *(name for name in diagonal if name != source), *sorted(set(values) - set(diagonal))]
    ids = sorted(set().union(*(values[name] for name in names)))
    table = np.array([[values[name].get(key, np.nan) for key in ids] for name in names])
    there, given = ~np.isnan(table), np.nan_to_num(table)
    right = (given >= RIGHT) | ~there
    shared = there[0] & (there[1 : len(diagonal)].any(0))
    begun = (shared & (given[0] >= RIGHT)).astype(np.float64)
    kept = begun * right[: len(diagonal)].all(0)

    def found(weights: np.ndarray) -> dict[str, np.ndarray]:
        """weights [draws, items] -> each measure [draws]; a language without an item in a draw makes it undefined."""
        with np.errstate(invalid="ignore", divide="ignore"):
            means = 100 * (weights @ given.T) / (weights @ there.T)
            own, pairs = means[:, : len(diagonal)], means[:, len(diagonal) :]
            said = {"diagonal": own.mean(1), "gap": own[:, 0] - own[:, 1:].mean(1), "worst": own.min(1)}
            if pairs.size:
                said |= {"off_diagonal": pairs.mean(1), "penalty": said["diagonal"] - pairs.mean(1)}
            return said | {"consistency": 100 * (weights @ kept) / (weights @ begun)}

    whole = {name: float(value[0]) for name, value in found(np.ones((1, len(ids)))).items()}
    defined = {name: value for name, value in whole.items() if np.isfinite(value)}
    draw = lambda weights: {name: value for name, value in found(weights).items() if name in defined}  # noqa: E731
    bounds = intervals(defined, np.ones(len(ids), np.int64), draw, len(ids), level, draws)
    return {name: (value, bounds[name]) for name, value in defined.items()}


def noisy(task: str, examples: Sequence[Mapping], rate: float, seed: int = 0) -> list[dict]:
    """Returns questions with noise: of each word's letters a share `rate` is dropped, doubled or swapped with the next.

    Contexts and answers stay. A function of (seed, id), so that all models are asked the same. Raises InputError for a
    task whose examples have no question.
    """
    if not isinstance(examples, list) or not all("question" in example for example in examples):
        raise InputError(
            f"question_noise: task {task!r} has no questions; it is for XQuAD, MLQA, TyDiQA and their like"
        )
    return [
        {**example, "question": _with_noise(example["question"], rate, f"{seed}/{example['id']}")}
        for example in examples
    ]


def _with_noise(text: str, rate: float, key: str) -> str:
    digest = hashlib.sha256(key.encode()).digest()
    rng = np.random.Philox(key=np.frombuffer(digest[:16], np.uint64))
    drawn = rng.random_raw(2 * len(text) + 2).reshape(-1, 2)
    made, place = [], 0
    while place < len(text):
        chance, kind = int(drawn[place, 0]) / 2**64, int(drawn[place, 1]) % 3
        character, following = text[place], text[place + 1 : place + 2]
        if not character.isalpha() or chance >= rate:
            made.append(character)
        elif kind == 0:
            pass  # dropped
        elif kind == 1 or not following.isalpha():
            made.append(2 * character)
        else:
            made.append(following + character)
            place += 1
        place += 1
    return "".join(made)
