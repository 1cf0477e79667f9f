"""Predictions and gold labels as files in XTREME's submission layout: TASK/SPLIT-LANGUAGE.tsv or .json.

A task of a benchmark has the file that the official evaluation reads (protocol 5.1), in the order of the examples:
  labels   classification: a label name per line
  tags     tagging: a tag per line, without the word, and a blank line after each sentence
  pairs    bitext mining: source id TAB English id, of the pairs whose score reaches the threshold
  indices  translation search: a line per English sentence, the place (from 0) of the foreign sentence found for it.
           The English sentences come sorted by text, as XTREME's preprocessing sorts them: white space at their ends
           removed, by code point, equal ones in the order of the data. So the gold file is a permutation.
  answers  question answering: a JSON object, question id -> answer text; gold answers are a SQuAD-format file
Any other task has a JSON object, example id -> prediction (`objects`): label names, tags, the place of a choice, or
the answer text. Where answers may be absent the text is "" if none is better, and SPLIT-LANGUAGE.no_answer.json beside
it holds the scores for that, id -> null score - span score: what the official SQuAD v2 script takes as predictions
and --na-prob-file.

SPLIT is "test" for the split that a benchmark takes for its test set, whatever the data set calls it (`file_split`).
"""

import json
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from jxstilts import tasks
from jxstilts.eval.benchmarks import BENCHMARKS
from jxstilts.runtime import InputError, atomic_write
from jxstilts.tasks.spec import class_id, parse_json, read_lines, read_text

BENCHMARK_KINDS = {"classification": "labels", "tagging": "tags", "span": "answers"}
SUFFIXES = {"answers": ".json", "objects": ".json"}  # all others: .tsv
NO_ANSWER = ".no_answer.json"


def _entries(task):
    return [entry for benchmark in BENCHMARKS.values() for entry in benchmark.entries if entry.task == task]


def kind_of(task: str) -> str:
    """Returns which of the module's forms a task's files have."""
    spec = tasks.get(task)
    if not _entries(task):
        return "objects"
    if spec.type == "retrieval":
        return "pairs" if spec.metric == "bucc" else "indices"
    return BENCHMARK_KINDS.get(spec.type, "objects")


def file_split(task: str, split: str) -> str:
    """Returns the split in a file's name: "test" for what a benchmark takes as its test set, else the split itself."""
    return "test" if any(entry.split == split for entry in _entries(task)) else split


def path(folder: str | pathlib.Path, task: str, split: str, language: str) -> pathlib.Path:
    """Returns the file of one task, split and language: FOLDER/TASK/SPLIT-LANGUAGE.tsv or .json."""
    name = f"{file_split(task, split)}-{language}{SUFFIXES.get(kind_of(task), '.tsv')}"
    return pathlib.Path(folder) / task / name


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
        predictions: as `evaluator.evaluate` gives them: {example id: class index, tags, answer text or {"text",
            "no_answer"}, or place of a choice}; {English id: source id}; [(source id, English id, score), ...].
        threshold: of mined pairs; those with this score or a higher one are written. None: all of them.
    A word without a tag (None: it was cut off an over-long sentence) gets XTREME's placeholder, which is O where that
    is a tag and X for parts of speech; in JSON it stays null.
    Raises InputError for predictions that are not of these examples, or that the file's form cannot hold.
    """
    spec, target = tasks.get(task), path(folder, task, split, language)
    kind = kind_of(task)
    if kind == "pairs":
        rows = [(a, b) for a, b, score in predictions if threshold is None or score >= threshold]
    elif kind == "indices":
        places = {sentence["id"]: place for place, sentence in enumerate(examples["source"])}
        rows = []
        for sentence in _by_text(examples["target"]):
            found = predictions.get(sentence["id"])
            if found not in places:
                raise InputError(f"{target}: English sentence {sentence['id']!r} has no source sentence, but {found!r}")
            rows.append(places[found])
    else:
        examples = _predicted(examples, predictions, target)
        values = {example["id"]: predictions[example["id"]] for example in examples}
        if spec.type == "classification":
            values = {identifier: spec.labels[index] for identifier, index in values.items()}
        if kind == "tags":
            empty = "O" if "O" in spec.labels else "X"
            values = {key: [empty if tag is None else tag for tag in tags] for key, tags in values.items()}
        if spec.metric == "squad_v2":
            scores = {key: value["no_answer"] for key, value in values.items()}
            values = {key: "" if scores[key] > 0 else value["text"] for key, value in values.items()}
            atomic_write(target.with_suffix(NO_ANSWER), _json(scores))
        rows = values if kind in ("answers", "objects") else list(values.values())
    atomic_write(target, _text(rows, kind, target))
    return target


def write_labels(folder: str | pathlib.Path, task: str, split: str, language: str, examples: Any) -> pathlib.Path:
    """Writes the gold labels of examples as the file that a file of predictions is scored against; returns its path.

    Questions become a SQuAD-format file with their contexts. Raises InputError for examples without gold.
    """
    spec, target = tasks.get(task), path(folder, task, split, language)
    kind = kind_of(task)
    if spec.type == "retrieval":
        if "gold" not in examples:
            raise InputError(f"{target}: the examples have no gold pairs")
        rows = list(examples["gold"])
        if kind == "indices":
            places = {sentence["id"]: place for place, sentence in enumerate(examples["source"])}
            gold = {english: places.get(source) for source, english in rows}
            queries = {sentence["id"] for sentence in examples["target"]}
            if gold.keys() != queries or None in gold.values() or len(gold) != len(rows):
                raise InputError(f"{target}: this file holds one gold source per English sentence; the examples do not")
            rows = [gold[sentence["id"]] for sentence in _by_text(examples["target"])]
    else:
        field = {"tagging": "tags", "span": "answers"}.get(spec.type, "label")
        missing = [example["id"] for example in examples if field not in example]
        if missing:
            raise InputError(f"{target}: example {missing[0]!r} has no gold {field}")
        values = {example["id"]: example[field] for example in examples}
        if spec.type == "classification":
            values = {identifier: spec.labels[index] for identifier, index in values.items()}
        rows = values if kind == "objects" else list(values.values())
        if spec.type == "span":
            atomic_write(target, _json(_squad(examples)))
            return target
    atomic_write(target, _text(rows, kind, target))
    return target


def read(folder: str | pathlib.Path, task: str, split: str, language: str, examples: Any) -> Any:
    """Returns the predictions that `write` has written for these examples; mined pairs come without their scores.

    Raises InputError, with file and line, for a file that does not hold predictions for them.
    """
    spec, target = tasks.get(task), path(folder, task, split, language)
    kind = kind_of(task)
    if kind in ("answers", "objects"):
        values = read_object(target)
        unknown = values.keys() - {example["id"] for example in examples}
        if unknown:
            raise InputError(f"{line_of(target, min(unknown))}: {min(unknown)!r:.80} is the id of no example")
        if spec.type == "classification":
            wrong = [key for key, value in values.items() if value not in spec.labels]
            where = line_of(target, wrong[0]) if wrong else ""
            values = {key: class_id(value, spec.labels, where) for key, value in values.items()}
        else:
            _check_kinds(target, spec, values, examples)
        beside = target.with_suffix(NO_ANSWER)
        if spec.metric == "squad_v2":
            scores = read_object(beside)
            if scores.keys() != values.keys():
                raise InputError(f"{beside}: expected a score for each question of {target.name}")
            for key, value in scores.items():
                if type(value) not in (int, float) or not math.isfinite(value):
                    raise InputError(f"{line_of(beside, key)}: expected a number for {key!r:.80}, got {value!r:.60}")
            values = {key: {"text": value, "no_answer": scores[key]} for key, value in values.items()}
        return values
    rows = read_rows(target, task)
    if kind == "pairs":
        return rows
    if kind == "indices":
        english = _by_text(examples["target"])
        check_length(target, rows, len(english), "English sentences")
        for number, place in enumerate(rows, start=1):
            if place >= len(examples["source"]):
                raise InputError(f"{target}:{number}: there are {len(examples['source'])} sentences, counted from 0")
        return {sentence["id"]: examples["source"][place]["id"] for sentence, place in zip(english, rows, strict=True)}
    if len(rows) > len(examples):
        check_length(target, rows, len(examples), "examples")
    if kind == "labels":
        rows = [spec.labels.index(row) for row in rows]
    return {example["id"]: row for example, row in zip(examples, rows, strict=False)}


def _check_kinds(file, spec, values, examples):
    """Raises InputError unless each value of an object is of the kind that the task's type has."""
    examples = {example["id"]: example for example in examples}
    for key, value in values.items():
        if spec.type == "tagging":
            words = examples[key].get("words", value)
            expected = "a tag, or null, per word"
            fits = isinstance(value, list) and all(tag is None or isinstance(tag, str) for tag in value)
            fits = fits and len(value) == len(words)
        elif spec.type == "choice":
            expected = "the place of a choice, from 0"
            fits = type(value) is int and 0 <= value < len(examples[key].get("choices", range(value + 1)))
        else:
            expected, fits = "a text", isinstance(value, str)
        if not fits:
            raise InputError(f"{line_of(file, key)}: expected {expected} for {key!r:.80}, got {value!r:.60}")


def read_rows(file: pathlib.Path, task: str) -> list:
    """Returns what a .tsv file of a task holds: label names, lists of tags, pairs of ids, or numbers; may be empty.

    White space at the ends of a line means nothing, as in the official evaluation. Raises InputError with file:line.
    """
    spec, kind = tasks.get(task), kind_of(task)
    lines = _lines(file)
    if kind == "tags":
        return _sentences(file, lines, spec)
    return [ROWS[kind](line, f"{file}:{number}", spec) for number, line in enumerate(lines, start=1)]


def _label(line, where, spec):
    class_id(line, spec.labels, where)
    return line


def _index(line, where, spec):
    if not re.fullmatch("0|[1-9][0-9]{0,8}", line):
        raise InputError(f"{where}: expected the number of a sentence, counted from 0; got {line!r:.60}")
    return int(line)


def _pair(line, where, spec):
    ids = line.split("\t")
    if len(ids) != 2 or not all(ids):
        raise InputError(f"{where}: expected source id TAB English id, got {line!r:.60}")
    return tuple(ids)


ROWS = {"labels": _label, "indices": _index, "pairs": _pair}


def _sentences(file, lines, spec):
    sentences: list[list[str]] = [[]]
    for number, tag in enumerate(lines, start=1):
        if not tag:
            sentences.append([])
            continue
        if spec.labels and tag not in spec.labels:
            raise InputError(f"{file}:{number}: unknown tag {tag!r:.60}; allowed: {', '.join(spec.labels)}")
        sentences[-1].append(tag)
    if not sentences[-1]:  # what follows the last blank line is a sentence only if there is something
        sentences.pop()
    return sentences


def _lines(file: pathlib.Path) -> list[str]:
    check_there(file)
    data = file.read_bytes()
    if not data.strip():  # no pair above the threshold, or no word in any sentence; `read_lines` refuses it
        return [""] * data.count(b"\n")
    return [line.strip() for line in read_lines(file)]


def check_there(file: pathlib.Path) -> None:
    """Raises InputError where there is no such file."""
    if not file.is_file():
        raise InputError(f"no file {file}")


def read_object(file: pathlib.Path) -> dict[str, Any]:
    """Returns a JSON object. Raises InputError, with file:line, for anything else, and for a key that comes again."""
    check_there(file)
    found = parse_json(read_text(file), file, halves=True)  # `write` writes half pairs as escapes
    if not isinstance(found, dict):
        raise InputError(f"{file}:1: expected a JSON object, id -> prediction; got {found!r:.40}")
    return _unrepeated(file, found)


def _unrepeated(file, found):
    """Returns the object; the plain parser would keep the last value of a key that comes again."""
    pairs = json.loads(read_text(file), object_pairs_hook=lambda items: items)
    if len(pairs) != len(found):
        seen: set[str] = set()
        again = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise InputError(f"{line_of(file, again, last=True)}: the id {again!r:.80} is in the file twice")
    return found


def line_of(file: pathlib.Path, key: str, last: bool = False) -> str:
    """Returns "file:line" of the first (or last) place where a JSON file holds a string."""
    text = read_text(file)
    for ascii_only in (False, True):
        literal = json.dumps(key, ensure_ascii=ascii_only)
        place = text.rfind(literal) if last else text.find(literal)
        if place >= 0:
            return f"{file}:{text.count(chr(10), 0, place) + 1}"
    return f"{file}:1"


def check_length(file: pathlib.Path, rows: Sequence, expected: int, what: str) -> None:
    """Raises InputError, at the first line too many or the last there is, unless there are as many rows as expected."""
    if len(rows) != expected:
        line = min(len(rows), expected + 1)
        raise InputError(f"{file}:{max(line, 1)}: {len(rows)} lines for {expected} {what}")


def _predicted(examples, predictions, target):
    """Returns the examples that predictions are for: all, or the first ones."""
    first = examples[: len(predictions)]
    missing = [example["id"] for example in first if example["id"] not in predictions]
    if missing or len(first) < len(predictions):
        why = f"{missing[0]!r} has no prediction" if missing else f"there are {len(examples)} examples"
        raise InputError(f"{target}: {len(predictions)} predictions are not those of the first examples: {why}")
    return first


def _by_text(sentences):
    return sorted(sentences, key=lambda sentence: sentence["text"].strip())


def _text(rows, kind, target):
    if kind in ("answers", "objects"):
        return _json(rows)
    if kind == "tags":
        return "".join("".join(f"{tag}\n" for tag in tags) + "\n" for tags in rows)
    if kind == "pairs":
        for identifier in (identifier for pair in rows for identifier in pair):
            if not identifier or identifier != identifier.strip() or any(mark in identifier for mark in "\t\r\n"):
                raise InputError(f"{target}: the id {identifier!r} cannot stand in a line of two ids and a tab")
        rows = ["\t".join(pair) for pair in rows]
    return "".join(f"{row}\n" for row in rows)


def _json(value) -> bytes:
    # half a surrogate pair is no UTF-8 but may come out of a JSON file; this writes it as JSON's own escape
    return (json.dumps(value, ensure_ascii=False, indent=0) + "\n").encode("utf-8", "backslashreplace")


def _squad(examples):
    paragraphs: dict[str, list] = {}
    for example in examples:
        answers = [{"text": answer["text"], "answer_start": answer["start"]} for answer in example["answers"]]
        question = {"id": example["id"], "question": example["question"], "answers": answers}
        paragraphs.setdefault(example["context"], []).append(question | ({} if answers else {"is_impossible": True}))
    found = [{"context": context, "qas": questions} for context, questions in paragraphs.items()]
    return {"version": "1.1", "data": [{"title": "", "paragraphs": found}]}
