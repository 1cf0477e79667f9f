"""What the specs say of each task: sizes of the official releases, recipes, the list that a user sees."""

import logging

import pytest
from files import lines, write

from jxstilts import tasks
from jxstilts.runtime import InputError
from jxstilts.tasks.spec import TaskSpec

pytestmark = pytest.mark.usefixtures("no_tfds")


def test_unknown_type_of_a_spec():
    fields = {
        "name": "x",
        "languages": ("en",),
        "splits": {},
        "read": None,
        "description": "",
        "url": "",
        "licence": "",
    }
    with pytest.raises(InputError, match=r"'x': unknown form 'choices'; did you mean 'choice'\?.* choice, .*, tagging"):
        TaskSpec(type="choices", **fields)


@pytest.fixture
def unwarned(monkeypatch):
    monkeypatch.setattr(tasks, "_warned", set())


def test_another_size_than_the_release_is_said_once(tmp_path, caplog, unwarned):
    write(tmp_path, "xtreme/xnli/dev-en.tsv", "a\tb\tneutral\n" * 3)
    write(tmp_path, "xtreme/xnli/dev-sw.tsv", "a\tb\tneutral\n")
    tasks.load("xnli", tmp_path, "dev", "sw")
    tasks.load("xnli", tmp_path, "dev", limit=3)
    assert not caplog.records
    tasks.load("xnli", tmp_path, "dev")
    tasks.load("xnli", tmp_path, "dev")
    [record] = caplog.records
    assert record.getMessage() == "xnli dev: 3 rows; the official release has 2,490"
    assert record.levelno == logging.WARNING
    write(tmp_path, "xtreme/xnli/test-en.tsv", "a\tb\n" * 5010)
    tasks.load("xnli", tmp_path, "test")
    assert len(caplog.records) == 1


def test_parts_warn_for_themselves(tmp_path, caplog, unwarned):
    pair = {"gold_label": "neutral", "sentence1": "a", "sentence2": "b"}
    for part in ("mnli", "snli"):
        write(tmp_path, f"intermediate/{part}/dev.jsonl", lines(pair))
    row = {"uid": "u", "context": "c", "hypothesis": "h", "label": "e"}
    write(tmp_path, "intermediate/anli/R2/dev.jsonl", lines(row))
    tasks.load("anli_plus", tmp_path, "dev")
    said = [record.getMessage() for record in caplog.records]
    assert said[:3] == [
        "anli dev: 1 rows; the official release has 3,200",
        "mnli dev: 1 rows; the official release has 9,815",
        "snli dev: 1 rows; the official release has 9,842",
    ]


def test_every_trained_task_has_a_recipe_and_says_from_where():
    found = {}
    for name in tasks.names():
        spec = tasks.get(name)
        assert (spec.recipe is not None) == (spec.train_task == name)
        assert set(spec.sizes) <= set(spec.splits)
        if spec.recipe:
            assert "train" in spec.splits and "dev" in spec.splits and "train" in spec.translated
            assert "the study's release" in spec.recipe.source
            recipe = (spec.recipe.batch_size, spec.recipe.max_length, spec.recipe.epochs)
            found.setdefault(recipe, set()).add(name)
    assert found == {
        (32, 256, 2): {"mnli", "snli", "anli", "anli_plus", "hellaswag", "cosmosqa", "commonsenseqa", "siqa", "copa"},
        (32, 256, 5): {"qqp", "pawsx"},
        (32, 256, 10): {"udpos", "panx", "ccg"},
        (16, 384, 2): {"squad_v1", "squad_v2", "tydiqa"},
        (16, 256, 3): {"squad_retrieval", "tydiqa_retrieval"},
        (32, 64, 2): {"wikipedia_pairs"},
    }
    released = {name for name in tasks.names() if (r := tasks.get(name).recipe) and r.source.startswith("the study")}
    assert released == {"mnli", "squad_v1", "pawsx", "udpos", "panx", "tydiqa"}


def test_the_list_of_tasks(capsys):
    from jxstilts import cli

    assert cli.main(["tasks"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 120
    for name in tasks.names():
        assert f"\n{name}: " in printed
    block = printed.split("\nudpos: ")[1].split("\n\n")[0]
    for part in ("train 21,787", "33: en af", "seqeval", "head       udpos", "length 256, 10 epochs", "by treebank"):
        assert part in block
    assert "translations: read if present" in block
    assert "mnli (trained on mnli)" in printed.split("\nxnli: ")[1].split("\n\n")[0]
