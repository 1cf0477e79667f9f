"""Submission files: what is written can be read again, in the order and the form that the official evaluation takes."""

import json
import string
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts import tasks
from jxstilts.eval import submission
from jxstilts.eval.benchmarks import BENCHMARKS
from jxstilts.runtime import InputError

FILES = settings(deadline=None, max_examples=40)
# any text that JSON can hold, half surrogate pairs, line separators and zero bytes included
ODD = st.text(st.characters(exclude_categories=()), max_size=8) | st.sampled_from(["", '"', "\\", "\ud800", "\u2028x"])
LANGUAGES = st.sampled_from(["en", "sw", "en-de"])
IDS = st.lists(ODD, unique=True, max_size=6)


def rows_of(ids, **more):
    return [{"id": identifier, **more} for identifier in ids]


def again(task, examples, predictions, language="en", split="test", **more):
    """Writes, reads, and checks the name."""
    with tempfile.TemporaryDirectory() as folder:
        path = submission.write(folder, task, split, language, examples, predictions, **more)
        assert path == submission.path(folder, task, split, language) and path.is_file()
        assert not [other for other in path.parent.iterdir() if other.name.startswith(".")]
        return submission.read(folder, task, split, language, examples)


@pytest.mark.parametrize("task", ["xnli", "pawsx", "mnli", "anli_plus"])
@FILES
@given(st.data(), LANGUAGES)
def test_labels_come_back(task, data, language):
    examples = rows_of(data.draw(IDS))
    classes = len(tasks.get(task).labels)
    predictions = {row["id"]: data.draw(st.integers(0, classes - 1)) for row in examples}
    assert again(task, examples, predictions, language) == predictions


@pytest.mark.parametrize("task", ["udpos", "panx"])
@FILES
@given(st.data(), LANGUAGES)
def test_tags_come_back_also_of_empty_sentences(task, data, language):
    examples = rows_of(data.draw(IDS))
    tags = st.lists(st.sampled_from(tasks.get(task).labels), max_size=4)
    predictions = {row["id"]: data.draw(tags) for row in examples}
    assert again(task, examples, predictions, language) == predictions


@FILES
@given(st.data())
def test_open_tags_and_missing_ones_come_back(data):
    examples = rows_of(data.draw(IDS))
    predictions = {row["id"]: data.draw(st.lists(ODD | st.none(), max_size=4)) for row in examples}
    assert again("ccg", examples, predictions) == predictions


@pytest.mark.parametrize("task", ["xquad", "mlqa", "tydiqa", "squad_v1"])
@FILES
@given(st.data(), LANGUAGES)
def test_answers_come_back_also_empty_ones(task, data, language):
    examples = rows_of(data.draw(IDS))
    predictions = {row["id"]: data.draw(ODD) for row in examples}
    assert again(task, examples, predictions, language) == predictions


@FILES
@given(st.data())
def test_choices_come_back(data):
    examples = rows_of(data.draw(IDS))
    predictions = {row["id"]: data.draw(st.integers(0, 4)) for row in examples}
    assert again("hellaswag", examples, predictions) == predictions


@FILES
@given(st.data())
def test_answers_that_may_be_absent_come_back_as_the_official_script_takes_them(data):
    examples = rows_of(data.draw(IDS))
    given_ = {
        row["id"]: {"text": data.draw(ODD), "no_answer": data.draw(st.floats(allow_nan=False, allow_infinity=False))}
        for row in examples
    }
    expected = {
        key: {"text": "" if value["no_answer"] > 0 else value["text"], "no_answer": value["no_answer"]}
        for key, value in given_.items()
    }
    assert again("squad_v2", examples, given_) == expected


WORD = st.text(string.ascii_letters + "-äж中", min_size=1, max_size=5)


@FILES
@given(st.lists(st.tuples(WORD, WORD, st.floats(0.1, 2)), max_size=6), LANGUAGES)
def test_pairs_come_back_in_order(pairs, language):
    assert again("bucc2018", {}, pairs, language) == [(a, b) for a, b, _ in pairs]
    kept = again("bucc2018", {}, pairs, language, threshold=1.0)
    assert kept == [(a, b) for a, b, score in pairs if score >= 1.0]


@FILES
@given(st.data(), LANGUAGES)
def test_indices_come_back(data, language):
    examples = {
        "source": [{"id": name, "text": ""} for name in data.draw(st.lists(ODD, min_size=1, max_size=6, unique=True))],
        "target": [{"id": name, "text": data.draw(ODD)} for name in data.draw(IDS)],
    }
    sources = st.sampled_from([row["id"] for row in examples["source"]])
    predictions = {row["id"]: data.draw(sources) for row in examples["target"]}
    assert again("tatoeba", examples, predictions, language) == predictions


def text(path):
    return path.read_text(encoding="utf-8")


def test_files_as_the_official_evaluation_reads_them(tmp_path):
    """Every form once, byte for byte."""
    three = rows_of("abc")
    path = submission.write(tmp_path, "xnli", "test", "sw", three, {"a": 1, "b": 0, "c": 2})
    assert path == tmp_path / "xnli/test-sw.tsv" and text(path) == "entailment\ncontradiction\nneutral\n"
    path = submission.write(tmp_path, "pawsx", "dev", "ko", three, {"a": 1, "b": 0, "c": 1})
    assert path == tmp_path / "pawsx/dev-ko.tsv" and text(path) == "1\n0\n1\n"
    path = submission.write(tmp_path, "panx", "test", "de", three[:2], {"a": ["O", "B-PER", None], "b": []})
    assert text(path) == "O\nB-PER\nO\n\n\n"
    path = submission.write(tmp_path, "udpos", "test", "de", three[:1], {"a": ["NOUN", None]})
    assert text(path) == "NOUN\nX\n\n"
    path = submission.write(tmp_path, "bucc2018", "test", "fr", {}, [("fr-2", "en-1", 1.2), ("fr-1", "en-9", 1.1)])
    assert path == tmp_path / "bucc2018/test-fr.tsv" and text(path) == "fr-2\ten-1\nfr-1\ten-9\n"
    path = submission.write(tmp_path, "mlqa", "test", "zh", three[:2], {"a": '中 "x"', "b": ""})
    assert path == tmp_path / "mlqa/test-zh.json" and text(path) == '{\n"a": "中 \\"x\\"",\n"b": ""\n}\n'
    path = submission.write(tmp_path, "mnli", "dev", "en", three[:1], {"a": 2})
    assert path == tmp_path / "mnli/dev-en.json" and json.loads(text(path)) == {"a": "neutral"}
    path = submission.write(tmp_path, "ccg", "dev", "en", three[:1], {"a": ["N", None]})
    assert json.loads(text(path)) == {"a": ["N", None]}
    answers = {"a": {"text": "x", "no_answer": -1.5}, "b": {"text": "y", "no_answer": 0.5}}
    path = submission.write(tmp_path, "squad_v2", "dev", "en", three[:2], answers)
    assert json.loads(text(path)) == {"a": "x", "b": ""}
    assert json.loads(text(tmp_path / "squad_v2/dev-en.no_answer.json")) == {"a": -1.5, "b": 0.5}


def test_what_a_benchmark_takes_as_test_is_named_so():
    found = {entry.task: submission.file_split(entry.task, entry.split) for entry in BENCHMARKS["xtreme"].entries}
    assert set(found.values()) == {"test"}
    assert submission.path("P", "tydiqa", "dev", "fi").as_posix() == "P/tydiqa/test-fi.json"
    assert submission.path("P", "tydiqa", "train", "en").as_posix() == "P/tydiqa/train-en.json"
    assert submission.path("P", "mlqa", "dev", "en").as_posix() == "P/mlqa/dev-en.json"


def test_english_sentences_come_sorted_by_text(tmp_path):
    """White space at the ends does not count, upper case is before lower case, equal sentences keep their order."""
    english = ["b", "a ", "Z", " aa", "b", "a"]
    examples = {
        "source": [{"id": str(i), "text": "x"} for i in range(6)],
        "target": [{"id": str(i), "text": words} for i, words in enumerate(english)],
        "gold": [(str(i), str(i)) for i in range(6)],
    }
    order = [2, 1, 5, 3, 0, 4]
    path = submission.write_labels(tmp_path / "labels", "tatoeba", "test", "de", examples)
    assert text(path) == "".join(f"{i}\n" for i in order)
    path = submission.write(tmp_path, "tatoeba", "test", "de", examples, {str(i): str(5 - i) for i in range(6)})
    assert text(path) == "".join(f"{5 - i}\n" for i in order)


def test_predictions_of_the_first_examples(tmp_path):
    examples = rows_of("abcd")
    path = submission.write(tmp_path, "xnli", "test", "en", examples, {"a": 0, "b": 1})
    assert text(path).count("\n") == 2
    assert submission.read(tmp_path, "xnli", "test", "en", examples) == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    ("task", "examples", "predictions", "message"),
    [
        ("xnli", rows_of("abc"), {"a": 0, "c": 1}, "'b' has no prediction"),
        ("xnli", rows_of("a"), {"a": 0, "c": 1}, "there are 1 examples"),
        ("bucc2018", {}, [("a\tb", "c", 1.0)], "cannot stand in a line"),
        ("bucc2018", {}, [("", "c", 1.0)], "cannot stand in a line"),
        ("tatoeba", {"source": rows_of("a"), "target": rows_of("x", text="x")}, {}, "'x' has no source sentence"),
        ("tatoeba", {"source": rows_of("a"), "target": rows_of("x", text="x")}, {"x": "b"}, "but 'b'"),
    ],
)
def test_predictions_that_no_file_can_hold(tmp_path, task, examples, predictions, message):
    with pytest.raises(InputError, match=message):
        submission.write(tmp_path, task, "test", "en", examples, predictions)
    assert not list(tmp_path.rglob("*.tsv"))


@pytest.mark.parametrize(
    ("task", "examples", "message"),
    [
        ("xnli", rows_of("a"), "'a' has no gold label"),
        ("udpos", rows_of("a"), "'a' has no gold tags"),
        ("xquad", rows_of("a"), "'a' has no gold answers"),
        ("bucc2018", {"source": [], "target": []}, "no gold pairs"),
        (
            "tatoeba",
            {"source": rows_of("ab"), "target": rows_of("x", text=""), "gold": [("a", "x"), ("b", "x")]},
            "one",
        ),
        ("tatoeba", {"source": rows_of("a"), "target": rows_of("xy", text=""), "gold": [("a", "x")]}, "one gold"),
    ],
)
def test_labels_that_are_not_there(tmp_path, task, examples, message):
    with pytest.raises(InputError, match=message):
        submission.write_labels(tmp_path, task, "test", "en", examples)


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("xnli", "neutral\nmaybe\n", r"test-en.tsv:2: unknown label 'maybe'"),
        ("xnli", "neutral\n" * 4, r"test-en.tsv:4: 4 lines for 3 examples"),
        ("udpos", "NOUN\n\nNOUNS\n", r"test-en.tsv:3: unknown tag 'NOUNS'"),
        ("xquad", '{"a": "x",\n"d": "y"}', r"test-en.json:2: 'd' is the id of no example"),
        ("xquad", '{"a": "x",\n"b": "y",\n"a": "z"}', r"test-en.json:3: the id 'a' is in the file twice"),
        ("xquad", '["a"]', r"test-en.json:1: expected a JSON object"),
        ("mnli", '{"a": "neutral",\n"b": "maybe"}', r"test-en.json:2: unknown label 'maybe'"),
        ("squad_v2", '{"a": "x"}', r"no file .*test-en.no_answer.json"),
        ("bucc2018", "a\tb\nc\n", r"test-en.tsv:2: expected source id TAB English id, got 'c'"),
        ("bucc2018", "a\tb\n\n", r"test-en.tsv:2: expected source id TAB English id, got ''"),
    ],
)
def test_files_that_hold_something_else(tmp_path, task, content, message):
    path = submission.path(tmp_path, task, "test", "en")
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        submission.read(tmp_path, task, "test", "en", rows_of("abc"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0\n1\n", "test-de.tsv:2: 2 lines for 3 English sentences"),
        ("0\n1\n2\n0\n", "test-de.tsv:4: 4 lines for 3 English sentences"),
        ("0\n1\n3\n", "test-de.tsv:3: there are 3 sentences, counted from 0"),
        ("0\n-1\n2\n", "test-de.tsv:2: expected the number of a sentence, counted from 0; got '-1'"),
        ("0\n01\n2\n", "test-de.tsv:2: expected the number"),
        ("0\n[1]\n2\n", "test-de.tsv:2: expected the number"),
        (f"0\n{'9' * 5000}\n2\n", "test-de.tsv:2: expected the number"),
    ],
)
def test_bad_indices(tmp_path, content, message):
    path = tmp_path / "tatoeba/test-de.tsv"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        submission.read(
            tmp_path, "tatoeba", "test", "de", {"source": rows_of("abc"), "target": rows_of("xyz", text="t")}
        )


def test_line_ends_and_white_space_mean_nothing(tmp_path):
    """As in the official readers, which strip every line; Windows line ends and a missing last one are fine too."""
    for task, content, expected in (
        ("xnli", "neutral\r\n entailment \r\n", ["neutral", "entailment"]),
        ("xnli", "\ufeffneutral\nentailment", ["neutral", "entailment"]),
        ("udpos", "NOUN\r\n\r\nVERB", [["NOUN"], ["VERB"]]),
        ("udpos", "NOUN\n \t\nVERB\n\n", [["NOUN"], ["VERB"]]),
        ("udpos", "\n\n", [[], []]),
        ("udpos", "", []),
        ("bucc2018", "", []),
        ("bucc2018", "a\tb", [("a", "b")]),
    ):
        (tmp_path / "file").write_text(content, encoding="utf-8", newline="")
        assert submission.values(tmp_path / "file", task) == expected
    (tmp_path / "file").write_bytes(b"neutral\n\xff\n")
    with pytest.raises(InputError, match="file:2: not UTF-8"):
        submission.values(tmp_path / "file", "xnli")
