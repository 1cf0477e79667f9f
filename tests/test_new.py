"""Starting files: each runs as `jxstilts new` writes it."""

import json

import files
import pytest

from jxstilts import cli, new, tasks
from jxstilts.models.families import ROOM
from jxstilts.train import objectives

CONFIG = """
from jxstilts import miniworld
TOKENIZER = miniworld.__path__[0] + "/micro/tokenizer"
def get_config():
    stream = {"batch_size": 8, "max_length": 16, "buckets": 1}
    phase = {"init": "random", "tasks": {"mood": stream}, "objectives": {"steady": {"streams": ("mood",)}},
             "epochs": 0, "steps": 4, "log_every": 1, "optimizer": {"learning_rate": 1e-3}, "select": {"metric": ""}}
    return {"study": "s", "data_dir": "data", "model": {"family": "plain", "preset": "tiny", "vocab_size": 6000},
            "tokenizer": {"path": TOKENIZER}, "phases": {"one": phase}, "evaluations": {}}
"""


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=0):
        found = cli.main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        assert found == code, err
        return err if code else out

    return run


def test_a_study_runs_as_it_is(run, world, tmp_path, compile_cache):
    assert "jxstilts plan --config=first.py" in run("new", "study", "first")
    (tmp_path / "data").symlink_to(world)
    assert "4 evaluations of 14 pairs" in run("plan", "--config=first.py")
    more = ["--only=encoder-none-xnli-s0", f"--config.compile_cache={compile_cache}", "--config.grid.what.limit=8",
            "--config.grid.phase.select.metric="]  # fmt: skip
    out = run("run", "--config=first.py", "--workdir=w", *more)
    assert "# first: zero-shot results" in out and "xnli (4) accuracy" in out
    rows = [json.loads(line) for line in (tmp_path / "w/results.jsonl").read_text().splitlines()]
    assert {row["language"] for row in rows} == {"en", "de", "ru", "tr"}


def test_a_task_a_family_and_an_objective_run_as_they_are(run, tmp_path, monkeypatch):
    """All three in one phase."""
    for kind, name, variable in (
        ("task", "mood", tasks.OUTSIDE),
        ("family", "plain", ROOM.variable),
        ("objective", "steady", objectives.ROOM.variable),
    ):
        assert f"export {variable}={name}.py" in run("new", kind, name)
        monkeypatch.setenv(variable, f"{name}.py")
    example = [line.strip() for line in (tmp_path / "mood.py").read_text().splitlines() if "<TAB>" in line]
    assert len(example) == 2
    files.write(tmp_path, "data/mood/train-en.tsv", "".join(f"{line}\n" for line in example * 8).replace("<TAB>", "\t"))
    assert "mood: Is the text positive or negative?" in run("tasks") and "plain tiny" in run("models")
    assert "root mean square" in run("config", "phases.one.objectives.steady.options")
    files.write(tmp_path, "c.py", CONFIG)
    run("run", "--config=c.py", "--workdir=w")
    logged = [json.loads(line) for line in (tmp_path / "w/phases/one/metrics.jsonl").read_text().splitlines()]
    assert all(row["steady/size"] > 0 for row in logged if row["kind"] == "train")


@pytest.mark.parametrize("kind", new.KINDS)
def test_a_starting_file_is_never_overwritten(run, tmp_path, kind):
    (tmp_path / "mine.py").write_text("mine")
    assert "mine.py exists; give another name" in run("new", kind, "mine", code=2)
    assert (tmp_path / "mine.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("sutdy", "x"), "unknown kind of starting file 'sutdy'; did you mean 'study'"),
        (("task", "my-task"), "give a name of letters, digits and _, such as my_task"),
        (("task", "xnli"), "the name 'xnli' is taken by a known task"),
        (("family", "bert"), "the name 'bert' is taken by a known family"),
        (("objective", "mlm"), "the name 'mlm' is taken by a known objective"),
    ],
)
def test_bad_names(run, arguments, text):
    assert text in run("new", *arguments, code=2)
