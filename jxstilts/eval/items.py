"""What is known of each item of an evaluation, kept beside its rows, so that two systems can be compared item by item.

FOLDER/items/EVALUATION/TASK.SPLIT-LANGUAGE.npz holds numpy arrays, nothing pickled: `about`, a JSON object of what the
items belong to; `ids`; `groups`, where there are any; and each column of the metric's state as `column.NAME`.
"""

import dataclasses
import io
import json
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jxstilts.eval import metrics
from jxstilts.eval.metrics.base import ratio
from jxstilts.runtime import InputError, atomic_write

COLUMN = "column."
# an evaluation's items are those of its rows only where these agree
IDENTITY = ("evaluation", "config_fingerprint", "checkpoint_sha256")


@dataclasses.dataclass(frozen=True)
class Kept:
    """The items of one task in one language.

    ids [n]: sorted. columns: {name: [n]}, from whose sums the metric's values follow (`score`). groups [n]: equal for
    questions about one paragraph: the id of the first of them; None where items are no such questions. sparse: an item
    that is not there counts 0 in every column (mined pairs: a sentence without any).
    """

    ids: np.ndarray
    columns: dict[str, np.ndarray]
    groups: np.ndarray | None = None
    sparse: bool = False


def of(result: Any, examples: Any) -> Kept:
    """Returns the items of an `evaluator.Result` with gold, and of the examples it is of.

    Mined pairs become counts of each source sentence at the threshold that the result was scored with.
    """
    values, sparse = result.values, "threshold" in result.metrics
    if sparse:
        values = _of_pairs(values, result.metrics["threshold"])
    ids = sorted(next(iter(values.values())))
    groups = None
    if isinstance(examples, list) and "context" in examples[0]:
        first: dict[str, str] = {}
        of_id = {example["id"]: first.setdefault(example["context"], example["id"]) for example in examples}
        if of_id.keys() >= set(ids):  # else an item is several examples, a case of a test, and no paragraph's alone
            groups = np.array([of_id[identifier] for identifier in ids])
    columns = {name: np.array([column[i] for i in ids], np.float64) for name, column in values.items()}
    return Kept(np.array(ids), columns, groups, sparse)


def _of_pairs(state: Mapping[str, Mapping[str, float]], threshold: float) -> dict[str, dict[str, float]]:
    """Returns {"correct", "predicted", "gold"} of each source sentence from the state of `metrics.bitext.Bucc`."""
    found = {pair for pair, score in state["score"].items() if score >= threshold}
    gold = set(state["gold"])
    sources = {pair.partition("\t")[0] for pair in found | gold}
    counts = {name: dict.fromkeys(sources, 0.0) for name in ("correct", "predicted", "gold")}
    for name, pairs in (("correct", found & gold), ("predicted", found), ("gold", gold)):
        for pair in pairs:
            counts[name][pair.partition("\t")[0]] += 1
    return counts


def score(metric: str, names: Sequence[str]) -> Callable[[Mapping[str, Any], Any], Any]:
    """Returns (sums of columns, number of items) -> the mean of a metric's values `names`, elementwise.

    Of mined pairs the values are those at the threshold that was given to `of`.
    """

    def values(sums: Mapping[str, Any], n: Any) -> Mapping[str, Any]:
        if {"correct", "predicted", "gold"} == sums.keys():
            precision = 100 * ratio(sums["correct"], sums["predicted"])
            recall = 100 * ratio(sums["correct"], sums["gold"])
            f1 = 200 * ratio(sums["correct"], sums["predicted"] + sums["gold"])
            return {"f1": f1, "precision": precision, "recall": recall}
        return metrics.get(metric).score(sums, n)

    def mean(sums: Mapping[str, Any], n: Any) -> Any:
        found = values(sums, n)
        return sum(found[name] for name in names) / len(names)

    return mean


def path(folder: pathlib.Path, evaluation: str, task: str, split: str, language: str) -> pathlib.Path:
    """Returns the file of one task, split and language."""
    return pathlib.Path(folder) / "items" / evaluation / f"{task}.{split}-{language}.npz"


def write(file: pathlib.Path, kept: Kept, identity: Mapping[str, str]) -> None:
    """Writes items whole or not at all; the same items give the same bytes."""
    about = {key: identity[key] for key in IDENTITY} | {"sparse": kept.sparse}
    arrays = {"about": np.array(json.dumps(about)), "ids": kept.ids}
    if kept.groups is not None:
        arrays["groups"] = kept.groups
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays, **{COLUMN + name: column for name, column in kept.columns.items()})
    atomic_write(file, buffer.getvalue())


def belongs(file: pathlib.Path, identity: Mapping[str, str]) -> bool:
    """Returns whether a file is there and holds the items of the evaluation that `identity`, or a row, is of."""
    if not file.exists():
        return False
    with _open(file) as arrays:
        about = json.loads(str(arrays["about"]))
    return all(about[key] == identity[key] for key in IDENTITY)


def read(file: pathlib.Path) -> Kept:
    """Returns the items of a file. Raises InputError for a file that is not one."""
    with _open(file) as arrays:
        columns = {name.removeprefix(COLUMN): arrays[name] for name in arrays.files if name.startswith(COLUMN)}
        groups = arrays["groups"] if "groups" in arrays.files else None
        return Kept(arrays["ids"], columns, groups, json.loads(str(arrays["about"]))["sparse"])


def prune(folder: pathlib.Path, evaluation: str, identity: Mapping[str, str]) -> None:
    """Removes what is left of the evaluation as it was before its request, data or model changed."""
    for file in (pathlib.Path(folder) / "items" / evaluation).glob("*.npz"):
        if not belongs(file, identity):
            file.unlink()


def _open(file: pathlib.Path):
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: not the items of an evaluation ({error}); remove it and run again") from error
