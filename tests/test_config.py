"""Configs: arguments, overrides, strict conversion, fingerprints."""

import dataclasses
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jxstilts import config, study
from jxstilts.runtime import InputError

TEXT = """
from ml_collections import ConfigDict
from jxstilts.config import parse_arg
def get_config(arg=None):
    arg = parse_arg(arg, size=1, fast=False, name="x")
    return ConfigDict({"rate": 0.1, "steps": arg.size, "name": arg.name, "inner": {"fast": arg.fast, "many": (1, 2)}})
"""


@dataclasses.dataclass(frozen=True)
class Inner:
    fast: bool = False
    many: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outer:
    rate: float
    steps: int = 3
    name: str = ""
    inner: Inner = dataclasses.field(default_factory=Inner)
    parts: dict[str, Inner] = dataclasses.field(default_factory=dict)
    maybe: float | None = None


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some.py"
    path.write_text(TEXT)
    return str(path)


def test_arguments_and_overrides(file):
    made = config.load([f"--config={file}:size=5,fast", "--config.rate=2", "--config.inner.many=(4,5)"])
    built = config.build(Outer, dict(made.items()), "config")
    assert built == Outer(2.0, 5, "x", Inner(True, (4, 5)))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--config.steqs=3"], "did you mean 'steps'"),
        (["--config.inner.fist=True"], "config.inner: unknown key 'fist'; did you mean 'fast'"),
        (["--config.steps=many"], "steps"),
        (["--confg.steps=3"], "Unknown command line flag"),
        (["steps=3"], "unexpected argument"),
    ],
)
def test_bad_overrides(file, arguments, text):
    with pytest.raises(InputError, match=text):
        config.load([f"--config={file}", *arguments])


@pytest.mark.parametrize(
    ("arg", "text"), [("sise=5", "did you mean 'size'"), ("size=x", "size takes a int"), ("fast=2", "bool")]
)
def test_bad_arguments(file, arg, text):
    with pytest.raises(InputError, match=text) as caught:
        config.load([f"--config={file}:{arg}"])
    assert "Traceback" not in str(caught.value)


def test_missing_file_names_its_neighbours(file):
    with pytest.raises(InputError, match=r"no file .*other.py.*some\.py"):
        config.load([f"--config={file.replace('some', 'other')}"])
    with pytest.raises(InputError, match="no config"):
        config.load([])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"rate": 1.0, "stepz": 1}, "c: unknown key 'stepz'; did you mean 'steps'"),
        ({"steps": 1}, "no value for rate"),
        ({"rate": "1"}, r"c\.rate='1': expected float, got str"),
        ({"rate": 1.0, "steps": 1.5}, r"c\.steps=1.5: expected int, got float"),
        ({"rate": 1.0, "steps": True}, "expected int, got bool"),
        ({"rate": 1.0, "inner": {"many": (1, "2")}}, r"c\.inner\.many\[1\]='2'"),
        ({"rate": 1.0, "parts": {"a": {"quick": True}}}, r"c\.parts\.a: unknown key"),
    ],
)
def test_build_refuses(values, text):
    with pytest.raises(InputError, match=text):
        config.build(Outer, values, "c")


def test_complete_has_every_key():
    made = config.complete(Outer, {"rate": 1.0, "parts": {"a": {}}})
    assert made.to_dict() == {
        "rate": 1.0, "steps": 3, "name": "", "inner": {"fast": False, "many": ()},
        "parts": {"a": {"fast": False, "many": ()}}, "maybe": None,
    }  # fmt: skip
    assert config.build(Outer, dict(made.items()), "c") == Outer(1.0, parts={"a": Inner()})
    with pytest.raises(InputError, match="did you mean 'rate'"):
        config.complete(Outer, {"rat": 1.0})


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.dictionaries(st.text(), x))


@given(st.dictionaries(st.text(), JSON))
def test_fingerprint_ignores_key_order(value):
    turned = dict(reversed(list(value.items())))
    assert config.fingerprint(value) == config.fingerprint(turned)
    assert config.differences(config.plain(value), config.plain(turned)) == []


def test_differences_name_the_keys():
    old, new = {"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}
    assert config.differences(old, new) == ["a.c: 2 -> 3", "d: None -> 4"]
    assert config.fingerprint(old) != config.fingerprint(new)


@dataclasses.dataclass(frozen=True)
class Unset:
    rate: float | None = None
    inner: Inner = dataclasses.field(default_factory=Inner)


def test_what_is_unset_can_be_set_on_the_command_line(tmp_path):
    (tmp_path / "c.py").write_text(
        "from test_config import Unset\nfrom jxstilts.config import complete\n"
        "def get_config(arg=None):\n    return complete(Unset, {})\n"
    )
    read = lambda *more: config.build(Unset, dict(config.load([f"--config={tmp_path}/c.py", *more]).items()), "config")  # noqa: E731
    assert read() == Unset()
    assert read("--config.rate=1e-3").rate == 1e-3
    with pytest.raises(InputError, match="rate"):
        read("--config.rate=fast")


CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_a_whole_study(path):
    found = study.from_config(config.load([f"--config={path}"]), to_run=False)
    assert found.study and found.phases and found.evaluations
    assert {one.phase for one in found.evaluations.values()} <= set(study.order(found))


def test_the_study_on_real_text_has_its_cells():
    path = CONFIGS[0].with_name("real_study.py")
    found = study.from_config(config.load([f"--config={path}"]), to_run=False)
    arms = {(one.intermediate, one.what.tasks[0]) for one in found.evaluations.values()}
    assert len(arms) == 4 * 6
    trained = [one for one in found.evaluations.values() if one.what.tasks[0] in ("xnli", "udpos", "panx", "tydiqa")]
    assert len(trained) == 4 * 4 * 3
