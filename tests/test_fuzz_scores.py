"""Submissions, label files and results.jsonl, mutated: refused in a line with the file's name, or scored 0 to 100."""

import json
import math
import pathlib

import folders
import fuzz
import pytest
from perfect import SIZES, examples_of, perfect

from jxstilts import tasks
from jxstilts.eval import result_rows, scoring, submission
from jxstilts.eval.benchmarks import BENCHMARKS
from jxstilts.runtime import InputError


def _both(folder, task):
    """Writes predictions and labels of one language; returns their files."""
    benchmark = next(each for each in BENCHMARKS.values() if task in each.tasks)
    entry = benchmark.entry(task)
    language = {"tydiqa": "fi", "xcopa": "sw"}.get(task, "de")
    examples = examples_of(task, language)
    found = perfect(task, examples)
    own = submission.write(folder / "predictions", task, entry.split, language, examples, found)
    return language, own, submission.write_labels(folder / "labels", task, entry.split, language, examples)


def _kinds(file):
    return fuzz.JSON if file.suffix in (".json", ".jsonl") else fuzz.TEXT


@pytest.mark.parametrize("side", ["predictions", "labels"])
@pytest.mark.parametrize("task", SIZES)
@fuzz.shares(12, 1500)
def test_scoring(tmp_path, task, side, count):
    language, *files = _both(tmp_path, task)
    assert set(scoring.score_file(task, language, *files).values()) - {0.0} == {100}  # of mined pairs: a threshold
    file = files[side == "labels"]
    content = file.read_bytes()

    def attempt(plan):
        fuzz.put(file, fuzz.mutate(content, plan, _kinds(file)), plan)
        found = scoring.score_file(task, language, *files)
        assert found and all(math.isfinite(value) and 0 <= value <= 100 for value in found.values())

    fuzz.run(f"{task} {side}", count, attempt, str(file))


def _examples(task):
    if task == "ccg":
        return [{"id": "0", "words": ["the", "dog"]}, {"id": "1", "words": ["é"]}]
    if task == "hellaswag":
        return [{"id": f"{i}", "prompt": "p", "choices": ["a", "b", "c"]} for i in range(3)]
    return [{"id": f"q{i}"} for i in range(3)]


PREDICTIONS = {
    "mnli": {"q0": 0, "q1": 2, "q2": 1},
    "squad_v1": {"q0": "a", "q1": "", "q2": "é"},
    "squad_v2": {f"q{i}": {"text": "a", "no_answer": i - 1.5} for i in range(3)},
    "hellaswag": {"0": 2, "1": 0, "2": 1},
    "ccg": {"0": ["NP/N", None], "1": ["N"]},
}


def _check_prediction(task, example, value):
    labels = tasks.get(task).labels
    if task == "mnli":
        assert type(value) is int and 0 <= value < len(labels)
    elif task == "hellaswag":
        assert type(value) is int and 0 <= value < len(example["choices"])
    elif task == "ccg":
        assert len(value) == len(example["words"]) and all(tag is None or type(tag) is str for tag in value)
    elif task == "squad_v2":
        assert type(value["text"]) is str and math.isfinite(value["no_answer"])
    else:
        assert type(value) is str


@pytest.mark.parametrize("task", PREDICTIONS)
@fuzz.shares(12, 1500)
def test_predictions_of_other_tasks(tmp_path, task, count):
    examples = {example["id"]: example for example in _examples(task)}
    files = submission.write(tmp_path, task, "dev", "en", list(examples.values()), PREDICTIONS[task]).parent
    for file in sorted(files.iterdir()):
        content = file.read_bytes()

        def attempt(plan, file=file, content=content):
            fuzz.put(file, fuzz.mutate(content, plan, fuzz.JSON), plan)
            found = submission.read(tmp_path, task, "dev", "en", list(examples.values()))
            for key, value in found.items():
                _check_prediction(task, examples[key], value)

        fuzz.run(f"{task} {file.name}", count // len(list(files.iterdir())), attempt, str(tmp_path))
        file.write_bytes(content)


@fuzz.shares(24, 3000)
def test_results(tmp_path, count):
    rows = folders.study(tmp_path, {"none": 0.0, "mnli": 0.1}, n=4, seeds=1)[:6]
    file = folders.put(tmp_path, *rows) / "results.jsonl"
    assert result_rows.read(file) == rows
    content = file.read_bytes()

    def attempt(plan):
        fuzz.put(file, fuzz.mutate(content, plan, fuzz.JSON), plan)
        for row in result_rows.read(file):
            assert all(type(row[key]) is str for key in result_rows.TEXTS) and type(row["seed"]) is int
            assert row["value"] is None or math.isfinite(row["value"])

    fuzz.run("results.jsonl", count, attempt, str(file))


# --- what is provably wrong ------------------------------------------------------------------------------------------


def _rows(change):
    def spoil(text, a, b):
        rows = text.split("\n")[:-1]
        full = [at for at, row in enumerate(rows) if row]  # a blank line more or less at the end means nothing
        return "".join(f"{row}\n" for row in change(rows, full[a % len(full)], b))

    return spoil


def _of_object(change):
    def spoil(text, a, b):
        value = json.loads(text)
        change(value, list(value)[a % len(value)], b)
        return json.dumps(value)

    return spoil


OTHER = ("maybe", "-3", "b-per", "NOUN NOUN", "\u200b", "neutral\x00", "９", "1.0", "1e0", "None")
WRONG = {
    "a line too many": ("xnli pawsx tatoeba", _rows(lambda rows, at, b: [*rows[:at], rows[b % len(rows)], *rows[at:]])),
    "a line too few": ("xnli pawsx tatoeba udpos panx", _rows(lambda rows, at, b: [*rows[:at], *rows[at + 1 :]])),
    "no label": (
        "xnli pawsx tatoeba udpos panx",
        _rows(lambda rows, at, b: [*rows[:at], rows[at] + OTHER[b % len(OTHER)], *rows[at + 1 :]]),
    ),
    "no pair": ("bucc2018", _rows(lambda rows, at, b: [*rows[:at], rows[at] + "\tx" * (1 + b % 3), *rows[at + 1 :]])),
    "no tab": ("bucc2018", _rows(lambda rows, at, b: [*rows[:at], rows[at].replace("\t", " "), *rows[at + 1 :]])),
    "not UTF-8": (" ".join(SIZES), lambda text, a, b: fuzz._insert(text.encode(), a, fuzz.ODD.index(b"\xff"))),
    "cut short": ("xquad mlqa tydiqa", lambda text, a, b: text[: 1 + a % (len(text.rstrip()) - 2)]),
    "an id of no question": ("xquad mlqa tydiqa", _of_object(lambda v, key, b: v.update({f"{key}{b}": v.pop(key)}))),
    "an answer that is no text": (
        "xquad mlqa tydiqa",
        _of_object(lambda v, key, b: v.update({key: (None, 1, True, [], {}, ["a"], math.inf)[b % 7]})),
    ),
    "an id twice": (
        "xquad mlqa tydiqa",
        lambda text, a, b: '{"de-1": "x", "fi-1": "x", ' + text.lstrip().removeprefix("{"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("why", "task"), [(why, task) for why, (names, _) in WRONG.items() for task in names.split()])
@fuzz.shares(4, 400)
def test_no_wrong_acceptance(tmp_path, why, task, count):
    language, own, labels = _both(tmp_path, task)
    content, spoil = own.read_text(), WRONG[why][1]

    def attempt(plan):
        _, a, b = plan[0]
        spoilt = spoil(content, a, b)
        own.write_bytes(spoilt if isinstance(spoilt, bytes) else spoilt.encode())
        scoring.score_file(task, language, own, labels)
        pytest.fail(f"taken: {spoilt!r}")

    tally = fuzz.run(f"{why}: {task}", count, attempt, str(own))
    assert tally["refused"] == tally["inputs"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"0": ["NP"], "1": ["N"]}', r"dev-en.json:1: expected a tag, or null, per word for '0', got \['NP'\]"),
        ('{"0": ["NP", 1],\n"1": ["N"]}', r"dev-en.json:1: expected a tag, or null, per word for '0'"),
    ],
)
def test_tags_of_an_object_are_one_per_word(tmp_path, content, message):
    (tmp_path / "ccg").mkdir()
    (tmp_path / "ccg/dev-en.json").write_text(content)
    with pytest.raises(InputError, match=message):
        submission.read(tmp_path, "ccg", "dev", "en", _examples("ccg"))


def test_a_score_that_is_no_number(tmp_path):
    file = submission.write(tmp_path, "squad_v2", "dev", "en", _examples("squad_v2"), PREDICTIONS["squad_v2"])
    beside = pathlib.Path(str(file).replace(".json", ".no_answer.json"))
    beside.write_text('{"q0": 1,\n"q1": NaN, "q2": 0}')
    with pytest.raises(InputError, match=r"no_answer.json:2: expected a number for 'q1', got nan"):
        submission.read(tmp_path, "squad_v2", "dev", "en", _examples("squad_v2"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "results.jsonl:2: not JSON"),
        ("[1]", "results.jsonl:2: not a row of results: expected an object"),
        ("{}", "results.jsonl:2: not a row of results: expected a text 'study', got None"),
        (json.dumps(folders.row(value="50")), "results.jsonl:2: .* a number 'value', got '50'"),
        (json.dumps(folders.row(seed=None)), "results.jsonl:2: .* a whole number 'seed'"),
    ],
)
def test_a_line_that_is_no_row(tmp_path, line, message):
    file = folders.put(tmp_path, folders.row()) / "results.jsonl"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(InputError, match=message):
        result_rows.read(file)
    file.write_text(file.read_text().removesuffix("\n")[:-1])  # a crash: what was not completed does not count
    assert result_rows.read(file) == [folders.row()]
