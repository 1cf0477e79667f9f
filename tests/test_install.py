"""What an installation has: the wheel, the interpreter, the entry points, completion in a shell."""

import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

import jxstilts
from jxstilts import arguments, cli, config
from jxstilts.runtime import InputError

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in a wheel that is built from a copy of the sources."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("jxstilts", "configs", "docs"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    command = [sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", str(folder)]
    done = subprocess.run(command, cwd=folder / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as found:
        metadata = next(name for name in found.namelist() if name.endswith(".dist-info/METADATA"))
        return set(found.namelist()), found.read(metadata).decode()


def test_a_wheel_holds_all_that_commands_read(wheel):
    names, metadata = wheel
    assert "Requires-Python: >=3.11" in metadata
    configs = {f"jxstilts/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert len(configs) > 5
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "jxstilts").rglob("*") if path.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    assert "jxstilts/miniworld/micro/bundle.json" in package and "jxstilts/new/study.py" in package
    pages = {f"jxstilts/{path.relative_to(ROOT)}" for path in (ROOT / "docs").rglob("*") if path.is_file()}
    assert "jxstilts/docs/notebook.ipynb" in pages
    assert configs | package | pages <= names


def test_every_page_that_the_program_names_is_there(capsys):
    """The help says where the pages are."""
    named = {
        name
        for folder in ("jxstilts", "configs")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"(?<![\w./])docs/(\w+\.md)", path.read_text())
    }
    assert len(named) > 9 and all((arguments.docs() / name).is_file() for name in named)
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert f"docs/*.md lie in\n  {arguments.docs()}\n" in capsys.readouterr().out


def test_its_configs_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.load(["--config=configs/quickstart.py:smoke"])["study"] == "quickstart"
    with pytest.raises(InputError, match=r"no file 'configs/qickstart.py'; beside it: .*configs/quickstart\.py"):
        config.load(["--config=configs/qickstart.py"])
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/quickstart.py").write_text("def get_config():\n    return {'study': 'mine'}")
    assert config.load(["--config=configs/quickstart.py"]) == {"study": "mine"}  # one's own goes before it


def test_an_old_interpreter_is_told(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    with pytest.raises(ImportError, match=r"needs Python 3\.11 or newer; this is 3\.10"):
        exec(compile(pathlib.Path(jxstilts.__file__).read_text(), "jxstilts", "exec"), {})


def test_version():
    done = subprocess.run([sys.executable, "-m", "jxstilts", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == f"jxstilts {jxstilts.__version__}\n", done.stderr


def test_every_command_has_its_line_of_help():
    assert list(arguments.HELP) == [*cli.COMMANDS] and set(arguments.OPTIONS) <= set(cli.COMMANDS)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["ev"], ["evaluate"]),
        (["--v"], ["--version"]),
        (["plan", "--to"], ["--tokens_per_second="]),
        (["run", "--config", "=", "x"], ["x.py"]),
        (["run", "--config=x"], ["--config=x.py"]),
        (["new", "o"], ["objective"]),
        (["evaluate", "--lower"], ["--lower_case"]),
    ],
)
def test_completion(capsys, tmp_path, typed, offered):
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    (tmp_path / "x.py").touch()
    words = " ".join(f"'{word}'" for word in ["jxstilts", *typed])
    lines = f"{script}\nCOMP_WORDS=({words}); COMP_CWORD={len(typed)}; _jxstilts; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split() == offered


def test_completion_of_another_shell(capsys):
    assert cli.main(["completion", "zsh"]) == 0 and "bashcompinit" in capsys.readouterr().out
    assert cli.main(["completion", "fish"]) == 2 and "unknown shell 'fish'" in capsys.readouterr().err
