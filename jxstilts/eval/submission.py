"""Predictions and gold labels as files in XTREME's submission layout: TASK/SPLIT-LANGUAGE.tsv or .json.

A task of a benchmark has the file that the official evaluation reads (protocol 5.1), as its form says
(`jxstilts.forms`): a label or a tag per line, an object question id -> answer, pairs of ids, numbers of sentences. Any
other task has a JSON object, example id -> prediction: label names, tags, the place of a choice, or the answer text.

SPLIT is "test" for the split that a benchmark takes for its test set, whatever the data set calls it (`file_split`).
"""

import pathlib
from typing import Any

from jxstilts import tasks
from jxstilts.eval.benchmarks import BENCHMARKS
from jxstilts.forms import files


def _entries(task):
    return [entry for benchmark in BENCHMARKS.values() for entry in benchmark.entries if entry.task == task]


def file_split(task: str, split: str) -> str:
    """Returns the split in a file's name: "test" for what a benchmark takes as its test set, else the split itself."""
    return "test" if any(entry.split == split for entry in _entries(task)) else split


def path(folder: str | pathlib.Path, task: str, split: str, language: str) -> pathlib.Path:
    """Returns the file of one task, split and language: FOLDER/TASK/SPLIT-LANGUAGE.tsv or .json."""
    suffix = tasks.get(task).form.suffix if _entries(task) else ".json"
    return pathlib.Path(folder) / task / f"{file_split(task, split)}-{language}{suffix}"


def write(
    folder: str | pathlib.Path,
    task: str,
    split: str,
    language: str,
    examples: Any,
    predictions: Any,
    threshold: float | None = None,
) -> pathlib.Path:
    """Writes one file of predictions and returns its path.

    Args:
        examples: as `tasks.load` gives them; predictions may be of the first ones only.
        predictions: as `evaluator.Evaluator.evaluate` gives them: {example id: class index, tags, answer text or
            {"text", "no_answer"}, or place of a choice}; {English id: source id}; [(source id, English id, score)].
        threshold: of mined pairs; those with this score or a higher one are written. None: all of them.
    A word without a tag (None: it was cut off an over-long sentence) gets XTREME's placeholder in lines; in JSON it
    stays null. Raises InputError for predictions that are not of these examples, or that the file's form cannot hold.
    """
    target, spec = path(folder, task, split, language), tasks.get(task)
    spec.form.write(target, spec, examples, predictions, threshold)
    return target


def write_labels(folder: str | pathlib.Path, task: str, split: str, language: str, examples: Any) -> pathlib.Path:
    """Writes the gold labels of examples as the file that a file of predictions is scored against; returns its path.

    Questions become a SQuAD-format file with their contexts. Raises InputError for examples without gold.
    """
    target, spec = path(folder, task, split, language), tasks.get(task)
    spec.form.write_labels(target, spec, examples)
    return target


def read(folder: str | pathlib.Path, task: str, split: str, language: str, examples: Any) -> Any:
    """Returns the predictions that `write` has written for these examples; mined pairs come without their scores.

    Raises InputError, with file and line, for a file that does not hold predictions for them.
    """
    spec = tasks.get(task)
    return spec.form.read(path(folder, task, split, language), spec, examples)


def values(file: pathlib.Path, task: str) -> list[Any]:
    """Returns what a file holds, without the examples that it is of: names, tags, answers. Raises InputError."""
    if file.suffix == ".json":
        return list(files.read_object(file).values())
    return tasks.get(task).form.read_lines(file, tasks.get(task))
