"""Config files, command-line overrides and whole configs, mutated: a study, or one line that names the key; and the
command line itself on a few of the campaign's inputs."""

import json
import os
import subprocess
import sys

import fuzz
import pytest
from files import write
from hypothesis import strategies as st
from ml_collections import ConfigDict
from perfect import examples_of

from jxstilts import config, study
from jxstilts.eval import submission
from jxstilts.runtime import InputError

STUDY = {
    "study": "s", "data_dir": "", "model": {"preset": "tiny", "width": 32, "heads": 4, "hidden_dropout": 0.1},
    "tokenizer": {"vocab_size": 400, "languages": ["en", "de"]},
    "phases": {
        "pretrain": {"tasks": {"text": {"objective": "mlm", "batch_size": 8, "max_length": 64}}, "steps": 12,
                     "optimizer": {"learning_rate": 1e-3}},
        "mnli": {"init": "pretrain", "tasks": {"mnli": {"batch_size": 16, "max_length": 48}}, "epochs": 2.0,
                 "select": {"metric": "accuracy", "rows": 24, "every": 4}},
    },
    "evaluations": {
        "xnli": {"phase": "mnli", "model": "tiny", "intermediate": "none", "target": "xnli",
                 "what": {"tasks": ["xnli"], "languages": ["en", "de"], "options": {"max_length": 48}}},
    },
    "grid": {"models": {"t": "pretrain"}, "intermediates": ["none", "mnli"], "targets": {"udpos": {}}, "seeds": [1, 2]},
}  # fmt: skip
FILE = f"""from jxstilts.config import complete, parse_arg
from jxstilts.study import Study
VALUES = {STUDY!r}
def get_config(arg=None):
    arg = parse_arg(arg, seed=0, name="s", fast=False, rate=0.1)
    return complete(Study, VALUES | {{"study": f"{{arg.name}} {{arg.seed}}"}})
"""


def check_study(found: study.Study) -> None:
    """Raises AssertionError unless the study can be gone through."""
    assert type(found.study) is str and sorted(study.order(found)) == sorted(found.phases)
    for phase in found.phases.values():
        assert type(phase.init) is str and phase.epochs >= 0 and phase.steps >= 0
    for one in found.evaluations.values():
        assert one.phase in found.phases and one.what.pairs()
    assert len(config.fingerprint(found)) == 64


@fuzz.shares(40, 4000)
def test_whole_configs(tmp_path, monkeypatch, count):
    monkeypatch.chdir(tmp_path)
    content = json.dumps(STUDY).encode()

    def attempt(plan):
        try:
            values = ConfigDict(json.loads(fuzz.mutate(content, plan, fuzz.NODES)))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return  # not what a config file can give
        check_study(study.from_config(values, to_run=False))

    fuzz.run("configs", count, attempt, "", longest=fuzz.TYPED)


@fuzz.shares(20, 2500)
def test_config_files(tmp_path, monkeypatch, count):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it is told from newer source by the second
    file = write(tmp_path, "some.py", FILE)
    check_study(study.from_config(config.load([f"--config={file}"]), to_run=False))

    def attempt(plan):
        fuzz.put(file, fuzz.mutate(FILE.encode(), plan, fuzz.TEXT), plan)
        check_study(study.from_config(config.load([f"--config={file}"]), to_run=False))

    fuzz.run("config files", count, attempt, "config", longest=fuzz.TYPED)


KEYS = ["study", "data_dir", "mesh.data", "model.width", "model.heads", "model.hidden_dropout", "grid.seeds",
        "phases.mnli.init", "phases.mnli.epochs", "phases.mnli.steps", "phases.mnli.dropout", "phases.mnli.keep_heads",
        "phases.mnli.tasks.mnli.batch_size", "phases.mnli.tasks.mnli.languages", "phases.pretrain.seed",
        "phases.pretrain.optimizer.learning_rate", "tokenizer.vocab_size", "evaluations.xnli.what.languages",
        "evaluations.xnli.what.split", "compute.dtype", "grid", "phases", "phases.mnli", "model", "study.x", "",
        "grid.models.t", "phasis", "__class__", "evaluations.xnli.what.options.max_length"]  # fmt: skip
TEXTS = [text for text in fuzz.VALUES if len(text) < 1000] + [
    "", "mnli", "en", "('en',)", "(1,2", "(", ")", "1,2", "None", "nan", "inf", "-1e400", "0x10", "1_0", "True", "no",
    "[1]*10**9", "__import__('os')", "a=b", " 1", "１", "\x00", "\u2028", "\ud800", "é", "{}", "lambda: 1", "'", "\\",
]  # fmt: skip
OVERRIDES = st.lists(
    st.one_of(
        st.builds("--config.{}={}".format, st.sampled_from(KEYS), st.sampled_from(TEXTS) | st.text(max_size=8)),
        st.builds("--{}={}".format, st.sampled_from(["config", "configs", "workdir", ""]), st.sampled_from(TEXTS)),
        st.sampled_from(TEXTS),
        st.builds("--no{}".format, st.sampled_from(["config", "config.study", ""])),
    ),
    min_size=1,
    max_size=3,
)
ARGUMENTS = st.builds(
    "seed={},{}".format, st.sampled_from(TEXTS), st.sampled_from([*TEXTS, "fast", "rate=x", "rate=9"])
)


@fuzz.shares(30, 5000)
def test_overrides(tmp_path, monkeypatch, count):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, "some.py", FILE)

    def attempt(given):
        arguments, more = given
        check_study(study.from_config(config.load([f"--config={file}{arguments}", *more]), to_run=False))

    strategy = st.tuples(st.just("") | ARGUMENTS.map(":{}".format), OVERRIDES)
    fuzz.run("overrides", count, attempt, "", strategy, fuzz.TYPED)


# --- through the command line ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("everything", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_command_line_ends_with_one_line(tmp_path, everything):
    """Some inputs, each through a process of its own: exit code 2, one line, no traceback."""
    file = write(tmp_path, "some.py", FILE)
    examples = examples_of("xnli", "de")
    for side in ("labels", "predictions"):
        submission.write_labels(tmp_path / side, "xnli", "test", "de", examples)
    spoilt = {"deep": b"[" * 10**5, "odd": b"neutral\n\xff\n", "wrong": b"neutral\n" * 3 + b"maybe\n" * 3, "none": b""}
    for name, content in spoilt.items():
        folder = tmp_path / name / "xnli"
        folder.mkdir(parents=True)
        (folder / "test-de.tsv").write_bytes(content)
    (tmp_path / "deep.py").write_text("VALUES = " + "(" * 10**4)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/bundle.json").write_bytes(spoilt["deep"])
    score = ["score", f"--labels={tmp_path / 'labels'}", "--tasks=xnli", "--languages=de"]
    commands = [
        *([*score, f"--predictions={tmp_path / name}"] for name in spoilt),
        [*score, f"--predictions={'x' * 5000}"],
    ]
    slow = [  # they start JAX
        ["plan", f"--config={file}", "--config.phases.mnli.epochs=nan"],
        ["plan", f"--config={file}", "--config.model.heads=0"],
        ["plan", f"--config={tmp_path / 'deep.py'}"],
        ["plan", f"--config={file}", f"--config.data_dir={'x' * 5000}"],
        ["plan", f"--config={file}:seed={'9' * 5000}"],
        ["import", str(tmp_path / "bundle"), str(tmp_path / "copy")],
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "XLA_FLAGS": ""}
    running = [
        subprocess.Popen([sys.executable, "-m", "jxstilts", *command], stderr=subprocess.PIPE, text=True,
                         stdout=subprocess.PIPE, env=environment)
        for command in (commands + slow if everything else commands)
    ]  # fmt: skip
    for command, process in zip(commands + slow, running, strict=False):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 2, (command, err[-2000:])
        assert not out and err.startswith("jxstilts: error: ") and err.count("\n") == 1, (command, err[-2000:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(arg=None):\n    return 1 / 0", r"some.py: .*ZeroDivisionError"),
        ("def get_config(arg=None):\n    return [][0]", r"some.py: .*IndexError"),
        ("def get_config(arg=None:\n", r"some.py: .*SyntaxError"),
        ("import nothing_here\n", r"some.py: .*nothing_here"),
    ],
)
def test_found_in_config_files(tmp_path, text, message):
    write(tmp_path, "some.py", text)
    with pytest.raises(InputError, match=message):
        config.load([f"--config={tmp_path / 'some.py'}"])
