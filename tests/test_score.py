"""`jxstilts score` on folders in all nine formats: perfect, shuffled and broken ones, and what its output says."""

import json
import pathlib
import random
import shutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfect import SIZES, examples_of, folder_of, perfect

from jxstilts import cli, tasks
from jxstilts.eval import scoring, submission
from jxstilts.eval.benchmarks import BENCHMARKS
from jxstilts.forms import span
from jxstilts.runtime import InputError

XTREME = BENCHMARKS["xtreme"]
METRICS = {
    **{task: ["accuracy"] for task in ("xnli", "pawsx", "tatoeba")},
    **{task: ["f1"] for task in ("udpos", "panx", "bucc2018")},
    **{task: ["f1", "exact_match"] for task in ("xquad", "mlqa", "tydiqa")},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Labels and perfect predictions of all nine tasks in all their languages."""
    return folder_of(XTREME, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folders(whole, tmp_path):
    """A copy to spoil."""
    shutil.copytree(whole, tmp_path / "w")
    return tmp_path / "w"


@pytest.fixture
def run(capsys):
    """Runs `jxstilts score` on a folder of predictions/ and labels/."""

    def run(folder, *more, code=0):
        arguments = ["score", f"--predictions={folder / 'predictions'}", f"--labels={folder / 'labels'}", *more]
        found = cli.main(arguments)
        out, err = capsys.readouterr()
        assert found == code, err
        if code == 2:
            assert not out and err.count("\n") == 1 and err.startswith("jxstilts: error: ")
            return err
        assert not err
        return json.loads(out) if "--json" in more else out

    return run


def test_perfect_predictions_give_100(whole, run):
    found = run(whole, "--json")
    assert list(found) == ["overall", "tasks"] and found["overall"] == 100
    assert list(found["tasks"]) == [entry.task for entry in XTREME.entries]
    for entry in XTREME.entries:
        task = found["tasks"][entry.task]
        assert list(task) == ["avg", "languages"] and list(task["languages"]) == list(entry.languages)
        expected = dict.fromkeys(METRICS[entry.task], 100)
        assert task["avg"] == expected and all(values == expected for values in task["languages"].values())


def put(folder, task, language, content):
    """Replaces one file of predictions by lines, or a JSON object."""
    path = submission.path(folder / "predictions", task, XTREME.entry(task).split, language)
    assert path.is_file()
    path.write_text(json.dumps(content) if isinstance(content, dict) else "".join(f"{line}\n" for line in content))
    return path


def test_shuffled_predictions_give_the_value_computed_by_hand(folders, run):
    """In German everywhere (Finnish in TyDiQA); every other language stays perfect."""
    # gold: c e n c e n; the 1st, 2nd, 4th and 5th are right
    put(folders, "xnli", "de", "contradiction entailment contradiction contradiction entailment entailment".split())
    put(folders, "pawsx", "de", "01101")  # gold 0 1 0 1 0: two are right
    # gold: a chunk NOUN, a chunk VERB, and ADV in the third sentence; found: VERB, ADJ, ADV: one right of three
    put(folders, "udpos", "de", ["VERB", "ADJ", "", "", "ADV", ""])
    # gold: PER(0-1), LOC, ORG; found: PER(0), LOC, LOC(5): one right of three
    put(folders, "panx", "de", ["B-PER", "O", "O", "", "O", "", "B-LOC", "B-LOC", ""])
    answers = {
        "0": "river of light",  # gold "tower": nothing in common
        "1": "the light river",  # gold "river of light", two words in common: F1 4/5, but 4/6 where "the" is a word
        "2": "1889.",  # punctuation does not count
    }  # and none to the fourth question, "42 km"
    for task, language in (("xquad", "de"), ("mlqa", "de"), ("tydiqa", "fi")):
        put(folders, task, language, {f"{language}-{i}": text for i, text in answers.items()})
    # gold: 0-9 1-8 2-7 3-6; found 2 right ones, one of them twice, and one wrong: P 2/3, R 2/4, F1 4/7
    put(folders, "bucc2018", "de", ["de-1\ten-8", "de-0\ten-8", "de-0\ten-9", "de-1\ten-8"])
    # English sorted: a b c d e, so the gold is 2 0 4 1 3
    put(folders, "tatoeba", "de", "20143")
    found = run(folders, "--json")
    by_hand = {
        "xnli": {"accuracy": 100 * 4 / 6},
        "pawsx": {"accuracy": 40},
        "udpos": {"f1": 100 / 3},
        "panx": {"f1": 100 / 3},
        **{task: {"f1": 100 * (4 / 5 + 1) / 4, "exact_match": 25} for task in ("xquad", "tydiqa")},
        "mlqa": {"f1": 100 * (4 / 6 + 1) / 4, "exact_match": 25},
        "bucc2018": {"f1": 100 * 4 / 7},
        "tatoeba": {"accuracy": 60},
    }
    scores = []
    for entry in XTREME.entries:
        task, language = found["tasks"][entry.task], "fi" if entry.task == "tydiqa" else "de"
        expected = by_hand[entry.task]
        assert task["languages"].pop(language) == pytest.approx(expected), entry.task
        assert all(set(values.values()) == {100} for values in task["languages"].values())
        number = len(entry.languages)
        means = {name: (100 * (number - 1) + value) / number for name, value in expected.items()}
        assert task["avg"] == pytest.approx(means)
        scores.append(sum(means.values()) / len(means))
    assert found["overall"] == pytest.approx(sum(scores) / 9)


def test_text_shows_languages_tasks_groups_and_overall(folders, run):
    put(folders, "xnli", "de", ["neutral"] * 6)  # a third
    out = run(folders)
    lines = [line.split() for line in out.splitlines()]
    assert ["xnli", "de", "33.33", "-", "-"] in lines
    mean = (1400 + 100 / 3) / 15
    assert ["xnli", "mean", "of", "15", f"{mean:.2f}", "-", "-"] in lines
    assert ["sentence", "pair", "mean", "of", "2", f"{(mean + 100) / 2:.2f}"] in lines
    assert ["overall", f"{(mean + 800) / 9:.2f}"] in lines
    table = out.split("\n\n")[1].splitlines()
    assert len({len(line) for line in table}) == 1  # aligned
    assert len(table) == 1 + sum(len(entry.languages) + 1 for entry in XTREME.entries)


def test_tasks_and_languages_restrict(whole, run):
    found = run(whole, "--json", "--tasks=tatoeba,xnli", "--languages=sw,en")
    assert found["overall"] is None
    assert {task: list(values["languages"]) for task, values in found["tasks"].items()} == {
        "xnli": ["sw", "en"], "tatoeba": ["sw"],
    }  # fmt: skip
    assert run(whole, "--json", "--tasks=xnli,pawsx")["overall"] is None
    out = run(whole, "--tasks=xnli,tatoeba")
    assert "no overall value" in out and "mean of 2" not in out  # neither group is complete
    every = ",".join(entry.task for entry in XTREME.entries)
    assert run(whole, "--json", f"--tasks={every}")["overall"] == 100


def test_tasks_without_folders_are_left_out_and_named(folders, run):
    shutil.rmtree(folders / "labels" / "panx")
    shutil.rmtree(folders / "predictions" / "mlqa")
    out = run(folders)
    assert f"panx is not scored: no folder {folders / 'labels/panx'}" in out
    assert f"mlqa is not scored: no folder {folders / 'predictions/mlqa'}" in out
    found = run(folders, "--json")
    assert found["overall"] is None and len(found["tasks"]) == 7


def test_dev_files_and_other_languages_by_name(tmp_path, run):
    """--split=dev takes dev-XX where a task has a dev set, and the languages that it has there."""
    for task, split, languages in (
        ("udpos", "dev", [code for code in XTREME.entry("udpos").languages if code not in ("kk", "th", "tl", "yo")]),
        ("tydiqa", "dev", XTREME.entry("tydiqa").languages),
        ("mlqa", "dev", ["en-de"]),
    ):
        for language in languages:
            examples = examples_of(task, language)
            submission.write_labels(tmp_path / "labels", task, split, language, examples)
            submission.write(tmp_path / "predictions", task, split, language, examples, perfect(task, examples))
    found = run(tmp_path, "--json", "--split=dev", "--tasks=udpos,tydiqa")
    assert len(found["tasks"]["udpos"]["languages"]) == 29 and len(found["tasks"]["tydiqa"]["languages"]) == 9
    found = run(tmp_path, "--json", "--split=dev", "--languages=en-de")
    assert found["tasks"] == {
        "mlqa": {"avg": {"f1": 100, "exact_match": 100}, "languages": {"en-de": {"f1": 100, "exact_match": 100}}}
    }


def test_gold_answers_as_the_data_sets_have_them(folders, run):
    """SQuAD's format, only its list of articles, or an object of answers; of several gold answers the best counts."""
    question = {"id": "en-0", "question": "?", "answers": [{"text": "Sun"}, {"text": "the moon", "answer_start": 7}]}
    articles = [{"title": "t", "paragraphs": [{"context": "not looked at", "qas": [question]}]}]
    put(folders, "xquad", "en", {"en-0": "Moon"})
    for gold in ({"version": "1.1", "data": articles}, articles, {"en-0": "moon"}):
        (folders / "labels/xquad/test-en.json").write_text(json.dumps(gold))
        found = run(folders, "--json", "--tasks=xquad", "--languages=en")
        assert found["tasks"]["xquad"]["avg"] == {"f1": 100, "exact_match": 100}


def test_own_rules_of_mlqa_apply(folders, run):
    """An article of the context's language: a word like any other to SQuAD's rules."""
    for task, exact in (("xquad", 0), ("mlqa", 100)):
        for side in ("labels", "predictions"):
            answer = {"q": "der Turm" if side == "labels" else "Turm"}
            (folders / side / task / "test-de.json").write_text(json.dumps(answer))
        assert run(folders, "--json", f"--tasks={task}", "--languages=de")["tasks"][task]["avg"]["exact_match"] == exact


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("xnli", ["neutral"] * 5, "xnli/test-de.tsv:5: 5 lines for 6 lines of "),
        ("xnli", ["neutral"] * 8, "xnli/test-de.tsv:7: 8 lines for 6 lines of "),
        ("xnli", ["neutral"] * 3 + ["Neutral"] * 3, "xnli/test-de.tsv:4: unknown label 'Neutral'; allowed: "),
        ("pawsx", "01012", "pawsx/test-de.tsv:5: unknown label '2'; allowed: 0, 1"),
        ("pawsx", [], "pawsx/test-de.tsv:1: 0 lines for 5 lines of "),
        ("udpos", ["NOUN", "", "", "ADV"], "udpos/test-de.tsv:1: sentence 1 has 1 tags, but 2 at "),
        ("udpos", ["NOUN", "VERB", "", "ADV"], "udpos/test-de.tsv:4: sentence 2 has 1 tags, but 0 at "),
        ("udpos", ["NOUN", "VERB", "", ""], "udpos/test-de.tsv:5: 2 sentences, but 3 in "),
        ("udpos", ["NOUN", "VERB", "", "", "ADV", "", ""], "udpos/test-de.tsv:7: 4 sentences, but 3 in "),
        ("panx", ["B-PER", "PER"], "panx/test-de.tsv:2: unknown tag 'PER'; allowed: O, B-LOC"),
        ("panx", ["the\tB-PER"], "panx/test-de.tsv:1: unknown tag 'the\\tB-PER'"),
        ("bucc2018", ["de-1 en-8"], "bucc2018/test-de.tsv:1: expected source id TAB English id, got 'de-1 en-8'"),
        ("tatoeba", "2014x", "tatoeba/test-de.tsv:5: expected the number of a sentence, counted from 0; got 'x'"),
        ("tatoeba", "2014", "tatoeba/test-de.tsv:4: 4 lines for 5 lines of "),
        ("xquad", ["tower"], "xquad/test-de.json:1: not JSON (Expecting value, column 1)"),
        ("xquad", ['["tower"]'], "xquad/test-de.json:1: expected a JSON object"),
        ("xquad", ['{"de-0": "tower",', '"de-9": ""}'], "xquad/test-de.json:2: "),
        ("xquad", {"de-9": "tower", "x": ""}, "has no question 'de-9' (2 such ids)"),
        ("xquad", ['{"de-0": "a",', '"de-0": "b"}'], "xquad/test-de.json:2: the id 'de-0' is in the file twice"),
        ("xquad", {"de-0": ["tower"]}, "xquad/test-de.json:1: the answer to 'de-0' is ['tower'], expected a text"),
    ],
)
def test_what_is_wrong_with_predictions(folders, run, task, content, message):
    put(folders, task, "de", content)
    assert message in run(folders, code=2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("xnli/test-de.tsv", "", "labels/xnli/test-de.tsv:1: the file is empty"),
        ("xnli/test-de.tsv", "neutral\nmaybe\n", "labels/xnli/test-de.tsv:2: unknown label 'maybe'"),
        ("bucc2018/test-de.tsv", "", "labels/bucc2018/test-de.tsv:1: the file is empty"),
        ("tatoeba/test-de.tsv", "0\nzero\n", "labels/tatoeba/test-de.tsv:2: expected the number"),
        ("mlqa/test-de.json", "{}", "labels/mlqa/test-de.json:1: the file is empty"),
        ("mlqa/test-de.json", '{"data": [{"paragraphs": 3}]}', "labels/mlqa/test-de.json:1: neither SQuAD's format"),
        ("mlqa/test-de.json", '{"de-0": 3}', "labels/mlqa/test-de.json:1: question 'de-0': the id and the answers"),
        ("mlqa/test-de.json", '{"de-0": "a",\n"de-1": ""}', "labels/mlqa/test-de.json:2: question 'de-1' has no gold"),
        (
            "mlqa/test-de.json",
            '{"de-0": "a",\n"de-0": "b"}',
            "labels/mlqa/test-de.json:2: the id 'de-0' is in the file",
        ),
        (
            "mlqa/test-de.json",
            '[{"paragraphs": [{"qas": [{"id": "a", "answers": [{"text": "b"}]},\n'
            '{"id": "a", "answers": [{"text": "b"}]}]}]}]',
            "labels/mlqa/test-de.json:2: 'a' is in the file twice",
        ),
    ],
)
def test_what_is_wrong_with_labels(folders, run, name, content, message):
    (folders / "labels" / name).write_text(content)
    assert message in run(folders, code=2)


def test_missing_files_and_folders(folders, run):
    for side in ("predictions", "labels"):
        files = [folders / side / "xnli" / f"test-{code}.tsv" for code in ("sw", "vi")]
        for file in files:
            file.rename(file.with_suffix(".away"))
        assert f"--{side}: no file {files[0]}, and 1 more of this task are missing" in run(folders, code=2)
        assert run(folders, "--json", "--languages=de,en")["tasks"]["xnli"]["avg"]["accuracy"] == 100
        for file in files:
            file.with_suffix(".away").rename(file)
    shutil.rmtree(folders / "labels" / "xnli")
    assert "task 'xnli' was asked for, but there is no folder" in run(folders, "--tasks=xnli,pawsx", code=2)
    (folders / "predictions").rename(folders / "elsewhere")
    assert f"--predictions: no folder {folders / 'predictions'}" in run(folders, code=2)
    (folders / "predictions").mkdir()
    assert "no task's folder in common; expected xnli, pawsx" in run(folders, code=2)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--tasks=xnly", "unknown task of benchmark 'xtreme' 'xnly'; did you mean 'xnli'"),
        ("--tasks=mnli", "unknown task of benchmark 'xtreme' 'mnli'"),
        ("--languages=swa", "unknown language of these tasks 'swa'; did you mean 'sw'"),
        ("--benchmark=extreme", "unknown benchmark 'extreme'; did you mean 'xtreme'"),
        ("--split=val", "unknown split 'val'"),
    ],
)
def test_unknown_names(whole, run, option, message):
    assert message in run(whole, option, code=2)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_scores_are_the_share_of_what_was_left_right(whole, data):
    """Any task in any language, any number of items spoiled; the order of mined pairs is of no consequence."""
    import tempfile

    task = data.draw(st.sampled_from(["xnli", "pawsx", "bucc2018", "tatoeba", "xquad"]))
    language = data.draw(st.sampled_from(XTREME.entry(task).languages))
    wrong = data.draw(st.integers(0, SIZES[task]))
    gold = submission.path(whole / "labels", task, "test", language)
    own = submission.path(whole / "predictions", task, "test", language)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / own.name
        if task == "xquad":
            answers = json.loads(own.read_text())
            path.write_text(json.dumps({key: answers[key] for key in list(answers)[wrong:]}))
        else:
            other = {"pawsx": {"0": "1", "1": "0"}, "xnli": {"neutral": "entailment"}}.get(task, {})
            spoil = {"xnli": "neutral", "tatoeba": "77", "bucc2018": "a\tb"}.get(task)
            rows = own.read_text().splitlines()
            for place in range(wrong):
                rows[place] = other.get(rows[place], spoil)
            if task == "bucc2018":
                random.Random(wrong).shuffle(rows)
            path.write_text("\n".join(rows))
        found = scoring.score_file(task, language, path, gold)
    right = SIZES[task] - wrong
    if task == "bucc2018":  # the spoiled ones are one and the same pair
        expected = 100 * 2 * right / (right + min(wrong, 1) + SIZES[task])
        assert found["f1"] == pytest.approx(expected)
    else:
        assert found[METRICS[task][0]] == pytest.approx(100 * right / SIZES[task])


def test_questions_need_no_file_of_ours(tmp_path):
    with pytest.raises(InputError, match="no file"):
        span.read_gold(tmp_path / "none.json")


def test_score_is_fast_to_start_and_needs_no_jax(whole):
    code = (
        "import sys\nfrom jxstilts import cli\n"
        f"code = cli.main(['score', '--predictions={whole}/predictions', '--labels={whole}/labels'])\n"
        "print(code, sorted({'jax', 'flax', 'transformers', 'tokenizers', 'grain', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


def test_predictions_and_labels_of_real_data(corpus, tmp_path, run):
    """The corpus's own files: gold against gold gives 100, its question files serve as labels as they are."""
    for task, split, language in (("udpos", "test", "ta"), ("tatoeba", "test", "sw"), ("bucc2018", "dev", "zh")):
        examples = tasks.load(task, corpus, split, language)
        submission.write_labels(tmp_path / "labels", task, "test", language, examples)
        found = perfect(task, examples)
        submission.write(tmp_path / "predictions", task, "test", language, examples, found)
    for task, split, language, name in (
        ("xquad", "test", "th", "xquad/xquad.th.json"),
        ("mlqa", "dev", "zh", "mlqa/MLQA_V1/dev/dev-context-zh-question-zh.json"),
    ):
        examples = tasks.load(task, corpus, split, language)
        submission.write(tmp_path / "predictions", task, "test", language, examples, perfect(task, examples))
        target = submission.path(tmp_path / "labels", task, "test", language)
        target.parent.mkdir(parents=True)
        shutil.copy(corpus / "xtreme" / name, target)
    asked = {"udpos": "ta", "tatoeba": "sw", "bucc2018": "zh", "xquad": "th", "mlqa": "zh"}
    for task, language in asked.items():
        found = run(tmp_path, "--json", f"--tasks={task}", f"--languages={language}")
        assert set(found["tasks"][task]["avg"].values()) == {100}
    name = "xtreme/tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.fi.dev.json"
    submission.write(tmp_path / "predictions", "tydiqa", "dev", "fi", [], {})
    (tmp_path / "labels/tydiqa").mkdir()
    shutil.copy(corpus / name, tmp_path / "labels/tydiqa/test-fi.json")
    line = run(tmp_path, "--tasks=tydiqa", "--languages=fi", code=2)
    assert "has no gold answer" in line  # XTREME has taken them out
