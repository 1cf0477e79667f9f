"""Configs: files and their arguments, strict conversion, fingerprints."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jxstilts import config, study
from jxstilts.runtime import InputError

TEXT = """
from ml_collections import ConfigDict
from jxstilts.config import parse_arg
def get_config(arg=None):
    arg = parse_arg(arg, size=1, fast=False, name="x", rate=0.1)
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


def read(file, *overrides, kind=Outer):
    return config.build(kind, config.load([f"--config={file}", *(f"--config.{each}" for each in overrides)]), "config")


def test_arguments_and_overrides(file):
    assert read(f"{file}:size=5,fast", "rate=2", "inner.many=(4,5)") == Outer(2.0, 5, "x", Inner(True, (4, 5)))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--confg.steps=3"], "unknown option --confg.steps=3; options are --workdir and --config.KEY=VALUE"),
        (["steps=3"], "unexpected argument"),
        (["--noconfig.inner.fast"], "unknown option --noconfig.inner.fast"),
        (["--config.steps"], "--config.steps has no value; write --config.steps=VALUE"),
        (["--config.steps=3", "--config.steps=4"], "--config.steps is given twice"),
        (["--config.steps.more=3"], "config.steps is 1, it has no keys"),
        (["--config.name.x=3"], "config.name is 'x', it has no keys"),
    ],
)
def test_bad_options(file, arguments, text):
    with pytest.raises(InputError, match=text):
        config.load([f"--config={file}", *arguments])


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return Study, {'study': 's'}", r"get_config returned a tuple; return a dict .*complete\(Study, \{...\}\)"),
        ("return None", "get_config returned a NoneType"),
        ("return [1]", "get_config returned a list"),
        ("return complete(Study, [1])", r"config=\[1\]: expected keys, got list"),
        ("return complete(Study, {'phases': ['a']})", "config.phases=.*: expected keys, got list"),
        ("return complete(Study, {'phases': {'a': None}})", "config.phases.a=None: expected keys, got NoneType"),
        ("return complete(Study, {'grid': 3})", "config.grid=3: expected keys, got int"),
        ("x = 1\n    return {}['a']", r"c.py: line 5: KeyError: 'a'"),
    ],
)
def test_what_get_config_returns(tmp_path, body, text):
    head = "from jxstilts.config import complete\nfrom jxstilts.study import Study\ndef get_config(arg=None):\n    "
    values = "'study': 's', 'data_dir': '', 'model': {}, 'evaluations': {}"
    (tmp_path / "c.py").write_text(head + body.replace("Study, {", f"Study, {{{values}, "))
    with pytest.raises(InputError, match=text):
        study.from_config(config.load([f"--config={tmp_path}/c.py"]), to_run=False)
    (tmp_path / "c.py").write_text("x = 1")
    with pytest.raises(InputError, match=r"defines no get_config\(arg\)"):
        config.load([f"--config={tmp_path}/c.py"])


def test_a_plain_dict_is_a_config(tmp_path):
    values = "{'study': 's', 'data_dir': '', 'model': {}, 'phases': {'p': {'init': 'random'}}, 'evaluations': {}}"
    (tmp_path / "c.py").write_text(f"def get_config():\n    return {values}")
    found = study.from_config(config.load([f"--config={tmp_path}/c.py", "--config.phases.p.seed=3"]), to_run=False)
    assert found.phases["p"].seed == 3


@pytest.mark.parametrize(
    ("arg", "text"),
    [
        ("sise=5", "did you mean 'size'"), ("size=x", "size takes a int"), ("fast=2", "bool"),
        ("size", "size takes a int"), ("size=1_0", "size takes a int"), ("size=１", "size takes a int"),
        ("rate=nan", "rate takes a float"), ("rate=1e999", "rate takes a float"), ("fast=1", "fast takes a bool"),
        ("size=1,size=2", "size is given twice"),
    ],
)  # fmt: skip
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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.dictionaries(st.text(), x), max_leaves=10
)


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
    read_ = lambda *more: read(tmp_path / "c.py", *more, kind=Unset)  # noqa: E731
    assert read_() == Unset()
    assert read_("rate=1e-3").rate == 1e-3
    with pytest.raises(InputError, match="rate"):
        read_("rate=fast")


def test_names_are_of_those_that_are_known():
    assert config.names("b+a", ("a", "b"), "arms") == ["b", "a"]
    with pytest.raises(InputError, match=r"arms=a\+full_: .*'full_'.*full"):
        config.names("a+full_", {"a": 1, "full": 2}, "arms")
