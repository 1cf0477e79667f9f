"""`jxstilts score --benchmark=xtreme-r`: perfect, shuffled and damaged folders in all ten formats."""

import json
import shutil

import pytest
from perfect import folder_of

from jxstilts import cli
from jxstilts.eval import benchmarks

XTREME_R = benchmarks.get("xtreme-r")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Labels and perfect predictions of all ten tasks in all their languages."""
    return folder_of(XTREME_R, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folders(whole, tmp_path):
    """A copy to spoil."""
    shutil.copytree(whole, tmp_path / "w")
    return tmp_path / "w"


def run(capsys, folder, *more, code=0):
    arguments = ["score", f"--predictions={folder / 'predictions'}", f"--labels={folder / 'labels'}"]
    found = cli.main([*arguments, "--benchmark=xtreme-r", *more])
    out, err = capsys.readouterr()
    assert found == code, err
    return err if code else json.loads(out) if "--json" in more else out


def test_the_files_are_named_as_in_the_release(whole):
    kinds = {path.parent.name: path.name for path in sorted((whole / "predictions").glob("*/*")) if "-tr." in path.name}
    assert kinds == {
        "xnli": "test-tr.tsv", "xcopa": "test-tr.jsonl", "udpos": "test-tr.tsv", "panx": "test-tr.tsv",
        "xquad": "test-tr.json", "tatoeba": "test-tr.tsv", "mewslix": "test-tr.json", "lareqa": "test-tr.json",
    }  # fmt: skip
    assert (whole / "labels/xcopa/test-tr.jsonl").read_text().startswith('{"label": 0}\n{"label": 1}\n')
    assert json.loads((whole / "labels/mewslix/test-tr.json").read_text())["tr-0"] == ["de_0_0"]


def test_perfect_predictions_give_100_and_the_mean_of_ten_is_named(whole, capsys):
    found = run(capsys, whole, "--json")
    assert found["overall"] == 100 and list(found["tasks"]) == list(XTREME_R.tasks)
    assert all(set(task["avg"].values()) == {100} for task in found["tasks"].values())
    text = run(capsys, whole)
    assert "mean of ten" in text and "the mean of ten tasks is the paper's rule" in text and "overall" not in text
    assert [line.split()[0] for line in text.splitlines() if " xcopa " in line] == ["classification", "multi_choice"]


def test_shuffled_predictions_give_the_value_computed_by_hand(folders, capsys):
    where = folders / "predictions"
    # gold 0 1 0 1; two are right
    (where / "xcopa/test-tr.jsonl").write_text("".join(f'{{"label": {label}}}\n' for label in (0, 0, 1, 1)))
    # one right entity each: first, third, nowhere
    ranked = {"tr-0": ["de_0_0"], "tr-1": ["a", "b", "de_1_0"], "tr-2": ["x"]}
    (where / "mewslix/test-tr.json").write_text(json.dumps(ranked))
    # three right each (de, en, tr): all at the top; one, third; a question without a ranking
    ranked = {"tr-0": ["tr_0_0", "en_0_0", "de_0_0"], "tr-1": ["a", "b", "de_1_0"]}
    (where / "lareqa/test-tr.json").write_text(json.dumps(ranked))
    found = run(capsys, folders, "--json", "--languages=tr", "--tasks=xcopa,mewslix,lareqa")["tasks"]
    assert found["xcopa"]["languages"]["tr"] == {"accuracy": 50}
    assert found["mewslix"]["languages"]["tr"]["map20"] == pytest.approx(100 * (1 + 1 / 3) / 3)
    assert found["lareqa"]["languages"]["tr"]["map20"] == pytest.approx(100 * (1 + 1 / 9) / 3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("xcopa/test-tr.jsonl", '{"label": 0}\n{"label": 2}\n', 'test-tr.jsonl:2: expected {"label": 0 to 1}'),
        ("xcopa/test-tr.jsonl", "0\n1\n0\n1\n", "test-tr.jsonl:1: expected"),
        ("xcopa/test-tr.jsonl", '{"label": 0}\n', "1 lines for 4 lines of"),
        ("xcopa/test-tr.jsonl", '{"label": 0}\n{"label"\n', "test-tr.jsonl:2: not JSON"),
        ("mewslix/test-tr.json", '{"tr-0": "Q1"}', "test-tr.json:1: 'tr-0': expected a list of ids"),
        ("mewslix/test-tr.json", '{"tr-0": ["a", "a"]}', "'tr-0' has an id twice in its ranking"),
        ("mewslix/test-tr.json", '{\n"tr-9": ["a"]}', "test-tr.json:2: 'tr-9' is the id of no query"),
        ("lareqa/test-tr.json", '[["a"]]', "expected a JSON object"),
        ("lareqa/test-tr.json", None, "no file"),
    ],
)
def test_a_damaged_file_is_one_clear_error(folders, capsys, name, content, message):
    path = folders / "predictions" / name
    path.unlink() if content is None else path.write_text(content)
    assert message in run(capsys, folders, f"--tasks={name.partition('/')[0]}", code=2)


def test_mewslix_has_one_right_entity_each(folders, capsys):
    (folders / "labels/mewslix/test-tr.json").write_text('{"tr-0": ["a", "b"], "tr-1": ["a"], "tr-2": ["b"]}')
    assert "has 2 right; expected one id" in run(capsys, folders, "--tasks=mewslix", code=2)


def test_a_group_has_a_value_where_all_its_tasks_are(folders, capsys):
    shutil.rmtree(folders / "predictions/lareqa")
    text = run(capsys, folders)
    assert "no mean of ten: it needs all 10 tasks" in text and "multi_choice" in text
    assert "lareqa is not scored: no folder" in text
