"""What methods train on beside a world: held-out words apart, a control without the truth, rows that are read."""

import pathlib

import pytest

from benchmarks import world_files
from jxstilts import cli, miniworld, tasks

ROOT = pathlib.Path(__file__).parent.parent
FOREIGN = ("de", "es", "ru", "el", "hi", "ar", "tr")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    miniworld.write(root / "world")
    assert world_files.main([str(root / "world"), str(root / "true")]) == 0
    assert world_files.main([str(root / "world"), str(root / "shuffled"), "--shuffled"]) == 0
    return root


def words(folder, code):
    return {row["query"]: row["candidate"] for row in tasks.load("word_pairs", folder, "train", code)}


def test_pairs(folders):
    lexicon = [line.split("\t") for line in (folders / "world/gold/lexicon.tsv").read_text("utf-8").splitlines()]
    for code in FOREIGN:
        column = lexicon[0].index(code)
        gold = {row[column]: row[0] for row in lexicon[1:]}
        true, shuffled = words(folders / "true", code), words(folders / "shuffled", code)
        lines = (folders / f"true/word_pairs/held-out/{code}.tsv").read_text("utf-8").splitlines()
        held_out = dict(line.split("\t") for line in lines)
        assert all(gold[word] == english != word for word, english in (true | held_out).items())
        assert len(held_out) > 5 and not set(true.values()) & set(held_out.values())
        assert true.keys() == shuffled.keys() and sorted(true.values()) == sorted(shuffled.values())
        assert all(true[word] != shuffled[word] for word in true)


def test_few_rows(folders, capsys):
    for code in FOREIGN:
        few = tasks.load("mnli", folders / "true", "train", code, source="files")
        dev = tasks.load("xnli", folders / "world", "dev", code)[: world_files.FEW]
        assert [(row["text_a"], row["label"]) for row in few] == [(row["text_a"], row["label"]) for row in dev]
    assert world_files.main([str(folders / "world"), str(folders / "true")]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.slow
def test_the_table_of_word_pairs(folders, capsys):
    from benchmarks import word_pairs

    data, workdir = folders / "true", folders / "run"
    config = f"--config={ROOT}/configs/word_pairs.py:states=2,seeds=1,steps=30,rate=3e-3"
    assert cli.main(["run", config, f"--config.data_dir={data}", f"--workdir={workdir}"]) == 0
    capsys.readouterr()
    assert word_pairs.main([str(workdir), str(workdir), str(data)]) == 0
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    (begin,) = [number for number, cells in enumerate(lines) if cells[0] == "margin"]
    rows = lines[begin + 2 : begin + 6]
    assert [row[:2] for row in rows] == [["state 2", str(state)] for state in range(4)]
    untrained, shuffled, trained = zip(*(map(float, row[2:5]) for row in rows), strict=True)
    assert trained == shuffled  # the same run on both sides
    assert trained[0] == untrained[0] and trained[2] > untrained[2]  # LoRA is above the embeddings
    assert word_pairs.main([str(workdir), str(workdir), str(folders / "world")]) == 2
    assert "has no file" in capsys.readouterr().err
