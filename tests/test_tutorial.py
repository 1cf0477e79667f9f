"""The tutorial: every block of docs/tutorial.md is run in order, and prints what the page shows."""

import contextlib
import csv
import io
import itertools
import json
import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys

import pytest

from jxstilts import cli, tasks
from jxstilts.runtime import InputError

PAGE = (pathlib.Path(__file__).parent.parent / "docs" / "tutorial.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
POINTS = 5.0  # another processor rounds otherwise, and a tiny model's scores move


def run_page() -> None:
    """Writes the page's files and runs its commands in the working folder, in order."""
    blocks = list(BLOCK.finditer(PAGE))
    assert len(blocks) * 2 == PAGE.count("```")
    for block, after in itertools.pairwise([*blocks, None]):
        kind, text = block.groups()
        if kind == "python":
            (name,) = re.findall(r"`(\w+\.py)`[^`]*:\n\n$", PAGE[: block.start()][-1000:])
            pathlib.Path(name).write_text(text)
        elif kind == "sh":
            shown = after[2] if after and after[1] == "text" else ""
            code = 2 if shown.startswith("jxstilts: error: ") else 0
            lines = text.replace("\\\n", " ").splitlines()
            compare(shown, "".join(command(line, code) for line in lines))
        else:
            assert kind == "text", f"nothing is done with a block of {kind}"


def command(line: str, code: int) -> str:
    """Runs one line of a shell block and returns what it prints; jxstilts and Python run in this process."""
    words = shlex.split(line)
    if words[0] == "export":
        os.environ.update([words[1].split("=")])
        return ""
    own = dict(itertools.takewhile(lambda pair: len(pair) == 2 and pair[0].isupper(), (w.split("=") for w in words)))
    words = words[len(own) :]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        for key, value in own.items():
            patch.setenv(key, value)
        if words[0] == "jxstilts":
            with contextlib.redirect_stderr(out):
                assert cli.main(words[1:]) == code, out.getvalue()
        elif words[0] == "python":
            runpy.run_path(words[1], run_name="__main__")
        else:
            out.write(subprocess.run(["bash", "-c", line], check=True, capture_output=True, text=True).stdout)
    return out.getvalue()


def compare(shown: str, out: str) -> None:
    """Asserts that the lines shown are printed in this order, others between them; scores may be a little off."""
    printed = iter(out.splitlines())
    for line in shown.splitlines():
        if line != "...":
            assert any(alike(line, found) for found in printed), f"not printed, or not there: {line}\n\n{out}"


def alike(shown: str, printed: str) -> bool:
    a, b = (re.sub(r"[*\\|]", " ", text).replace("−", "-").split() for text in (shown, printed))
    return len(a) == len(b) and all(map(same, a, b))


def same(a: str, b: str) -> bool:
    if a == "..." or a == b:
        return True
    if not all(re.fullmatch(r"\(?[+-]?\d+\.\d+[),]*", word) for word in (a, b)):
        return False
    return abs(float(a.strip("(),")) - float(b.strip("(),"))) <= POINTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the page leaves behind. One process runs it, on one device as the reader has it."""
    folder = tmp_path_factory.mktemp("tutorial")
    own = {"XLA_FLAGS": "--xla_backend_optimization_level=0", tasks.OUTSIDE: ""}
    done = subprocess.run(
        [sys.executable, __file__], cwd=folder, env=os.environ | own, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_it_runs_and_prints_what_it_shows(folder):
    """What the text concludes from the numbers."""
    rows = [json.loads(line) for line in (folder / "runs/scores/results.jsonl").read_text().splitlines()]
    found = {row["language"]: row["value"] for row in rows}
    assert found["en"] > 95 and found["ru"] > 90 and max(found["de"], found["tr"]) < 65
    with (folder / "runs/study/report/tables/comparisons.csv").open() as file:
        (worse,) = [row for row in csv.DictReader(file) if row["task"] == "tatoeba"]
    assert float(worse["high"]) < 0 and float(worse["p_holm"]) < 0.05


def test_every_file_of_its_table_is_there(folder):
    rows = re.findall(r"^\| (`.+`) \| ", PAGE.split("What lies in `runs/study`:")[1], re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert len(names) == 15 and [name for name in names if not (folder / "runs/study" / name).exists()] == []


SPEC = """from jxstilts.tasks import TaskSpec

MINE = TaskSpec(
    name="mine", type="text", languages=("en",), splits={"train": ("mine.txt",)}, read=None, description="", url="",
    licence="",
)
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("licence=", "license=", r"mine\.py:3: TypeError: .*unexpected keyword argument 'license'"),
        ("import TaskSpec", "import TaskSpek", r"mine\.py:1: ImportError: .*TaskSpek"),
        ("TaskSpec(", "TaskSpec(,", r"mine\.py:3: SyntaxError"),
        ('("en",)', '("en")', r"mine\.py: task 'mine': languages='en' is one text, not a tuple; write \('en',\)"),
        ('("mine.txt",)', '"mine.txt"', r"mine\.py: task 'mine': splits\['train'\]='mine.txt' is one text"),
        ('name="mine"', 'name="mnli"', r"two tasks are named 'mnli'; the second is in .*mine\.py: rename it"),
        (SPEC, "import json\n", r"JXSTILTS_TASKS: .*mine\.py has no TaskSpec"),
        (SPEC, None, r"JXSTILTS_TASKS: '.*mine\.py' is no Python file"),
    ],
)
def test_a_wrong_task_file_is_one_clear_error(tmp_path, monkeypatch, old, new, message):
    if new is not None:
        (tmp_path / "mine.py").write_text(SPEC.replace(old, new))
    monkeypatch.setenv(tasks.OUTSIDE, str(tmp_path / "mine.py"))
    with pytest.raises(InputError, match=message):
        tasks.names()


def test_tasks_are_known_as_long_as_their_files_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv(tasks.OUTSIDE, raising=False)
    with pytest.raises(InputError, match=r"unknown task 'mine'.*; files of your own are named in JXSTILTS_TASKS"):
        tasks.get("mine")
    files = [tmp_path / "one.py", tmp_path / "two.py"]
    files[0].write_text(SPEC)
    files[1].write_text(SPEC.replace('"mine"', '"other"') + "from jxstilts.tasks.nli import MNLI\n")
    monkeypatch.setenv(tasks.OUTSIDE, os.pathsep.join(map(str, files)))
    assert {"mine", "other", "mnli"} <= set(tasks.names()) and tasks.get("other").languages == ("en",)
    monkeypatch.setenv(tasks.OUTSIDE, str(files[1]))
    assert "mine" not in tasks.names() and "other" in tasks.names()


if __name__ == "__main__":
    run_page()
