"""Configs: arguments, overrides, strict conversion, fingerprints."""

import dataclasses
import types
import typing

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


@dataclasses.dataclass(frozen=True)
class Every:
    """Every kind of type that a study's keys have."""

    whole: int = 0
    number: float = 0.0
    yes: bool = False
    text: str = "t"
    maybe: int | None = 1
    perhaps: bool | None = None
    numbers: tuple[int, ...] = (7,)
    words: tuple[str, ...] = ("w",)
    inner: Inner = dataclasses.field(default_factory=Inner)
    parts: dict[str, Inner] = dataclasses.field(default_factory=dict)
    sizes: dict[str, int] = dataclasses.field(default_factory=lambda: {"a": 1, "b": 2})
    some: config.some_of(Outer) = dataclasses.field(default_factory=dict)
    named: dict[str, config.some_of(Outer)] = dataclasses.field(default_factory=dict)


FILES = {  # the same config: everything left out, everything filled in, and what is read from a ConfigDict
    "bare": "    return {}",
    "complete": "    from test_config import Every, config\n    return config.complete(Every, {})",
    "ConfigDict": "    from ml_collections import ConfigDict\n    return ConfigDict({'parts': {}})",
}


@pytest.fixture(params=FILES)
def every(request, tmp_path):
    path = tmp_path / "every.py"
    path.write_text(f"def get_config(arg=None):\n{FILES[request.param]}\n")
    return path


@pytest.mark.parametrize(
    ("overrides", "values"),
    [
        (["whole=3"], {"whole": 3}),
        (["whole=-3"], {"whole": -3}),
        (["number=1e-5"], {"number": 1e-5}),
        (["number=2"], {"number": 2.0}),
        (["yes=True"], {"yes": True}),
        (["yes=true", "perhaps=False"], {"yes": True, "perhaps": False}),
        (["text=3"], {"text": "3"}),
        (["text=None"], {"text": "None"}),
        (["text="], {"text": ""}),
        (["text=a=b.c"], {"text": "a=b.c"}),
        (["maybe=None"], {"maybe": None}),
        (["maybe=4"], {"maybe": 4}),
        (["numbers=1,2"], {"numbers": (1, 2)}),
        (["numbers=(3,)"], {"numbers": (3,)}),
        (["numbers=3,"], {"numbers": (3,)}),
        (["numbers=[3]"], {"numbers": (3,)}),
        (["numbers=()"], {"numbers": ()}),
        (["words=en"], {"words": ("en",)}),
        (["words='en'"], {"words": ("en",)}),
        (["words=en,de"], {"words": ("en", "de")}),
        (["words=(en, de)"], {"words": ("en", "de")}),
        (["words=('en',)"], {"words": ("en",)}),
        (["words=[]"], {"words": ()}),
        (["inner.many=(4,5)", "inner.fast=true"], {"inner": Inner(True, (4, 5))}),
        (["inner={'fast': True}"], {"inner": Inner(True)}),
        (["inner={'fast': True}", "inner.many=1,"], {"inner": Inner(True, (1,))}),
        (["inner.many=1,", "inner={'fast': True}"], {"inner": Inner(True, (1,))}),
        (["parts.new.fast=true"], {"parts": {"new": Inner(True)}}),
        (["parts.new={}"], {"parts": {"new": Inner()}}),
        (["parts={'a': {}, 'b': {'many': (1,)}}"], {"parts": {"a": Inner(), "b": Inner(False, (1,))}}),
        (["sizes.b=3"], {"sizes": {"a": 1, "b": 3}}),
        (["sizes={'c': 3}"], {"sizes": {"c": 3}}),
        (["some.rate=1", "some.inner.many=1,2"], {"some": {"rate": 1.0, "inner": {"many": (1, 2)}}}),
        (["some.parts.x.fast=false"], {"some": {"parts": {"x": {"fast": False}}}}),
        (["some={'maybe': None}"], {"some": {"maybe": None}}),
        (["named.x.steps=3"], {"named": {"x": {"steps": 3}}}),
    ],
)  # fmt: skip
def test_every_key_can_be_set_on_the_command_line(every, overrides, values):
    assert read(every, *overrides, kind=Every) == Every(**values)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("wole=3", "config: unknown key 'wole'; did you mean 'whole'"),
        ("inner.fist=True", "config.inner: unknown key 'fist'; did you mean 'fast'"),
        ("parts.a.fist=True", "config.parts.a: unknown key 'fist'; did you mean 'fast'"),
        ("some.inner.fist=True", "config.some.inner: unknown key 'fist'; did you mean 'fast'"),
        ("named.a.step=3", "config.named.a: unknown key 'step'; did you mean 'steps'"),
        *((f"whole={text}", f"config.whole='{text}': expected int") for text in
          ("many", "1.0", "1e3", "True", "None", "1_0", "", " 1", "１", "0x10", "nan", "1,")),
        ("whole=" + "9" * 5000, "config.whole='9+.*: expected int"),
        ("whole=" + "9" * 30, "config.whole=9+: expected int of at most 18 digits"),
        *((f"number={text}", f"config.number=.*'{text}': expected float") for text in
          ("fast", "nan", "inf", "-Infinity", "True", "1_0.0", "1,5", "", "infinity")),
        ("number=1e999", "config.number=inf: expected a finite number"),
        *((f"yes={text}", f"config.yes='{text}': expected True or False") for text in ("1", "0", "yes", "no", "")),
        ("maybe=nothing", "expected int"),
        ("numbers=3", r"config.numbers=3: a list is expected: \(3,\) is 3 alone, \(0,1,2\) are three numbers"),
        ("numbers=None", "config.numbers='None': expected a list"),
        ("numbers=1,x", r"config.numbers\[1\]='x': expected int"),
        ("numbers=1,1", r"config.numbers=\(1, 1\): 1 stands twice"),
        ("numbers=(1,2", "expected a list"),
        ("numbers=(1.5,2)", r"config.numbers\[0\]=1.5: expected int, got float"),
        ("words=", "config.words='': expected a list, as .a,b., an empty one as"),
        ("words=None", "config.words='None': expected a list"),
        ("words=en,,de", "expected a list"),
        ("words=en,en", "'en' stands twice"),
        ("words=(1,2)", r"config.words\[0\]=1: expected str, got int"),
        ("inner=True", "config.inner='True': expected keys"),
        ("inner={'fast': 1}", "config.inner.fast=1: expected True or False, got int"),
        ("parts=[1]", "config.parts=.* expected keys"),
        ("parts.a=3", "config.parts.a='3': expected keys"),
        ("some.maybe=x", "config.some.maybe='x': expected float"),
        ("sizes.a=x", "config.sizes.a='x': expected int"),
        ("=3", "config: unknown key ''"),
        ("inner..fast=True", "config.inner: unknown key ''"),
    ],
)  # fmt: skip
def test_bad_overrides(every, override, text):
    with pytest.raises(InputError, match=text) as caught:
        read(every, override, kind=Every)
    assert "\n" not in str(caught.value)


@given(
    st.builds(
        Every, whole=st.integers(-(2**62), 2**62), number=st.floats(allow_nan=False, allow_infinity=False),
        yes=st.booleans(), text=st.text(), maybe=st.none() | st.integers(0, 9), perhaps=st.none() | st.booleans(),
        numbers=st.lists(st.integers(-9, 9), unique=True).map(tuple),
        words=st.lists(st.text(), unique=True).map(tuple),
    )
)  # fmt: skip
def test_what_python_prints_is_read_back(values):
    """Any value of any type, as Python writes it, comes back the same; text as it is."""
    fields = {field.name: getattr(values, field.name) for field in dataclasses.fields(Every)}
    given_ = {key: config.Given(each if type(each) is str else repr(each)) for key, each in fields.items()
              if key in ("whole", "number", "yes", "text", "maybe", "perhaps", "numbers", "words")}  # fmt: skip
    assert config.build(Every, given_, "config") == values


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"number": "1e-5"}, "c.number='1e-5': expected float, got str"),
        ({"yes": "False"}, "c.yes='False': expected True or False, got str"),
        ({"yes": 1}, "c.yes=1: expected True or False, got int"),
        ({"whole": True}, "c.whole=True: expected int, got bool"),
        ({"words": "en"}, r"c.words='en': expected a list of str, as \('en',\) is of this one alone, got str"),
        ({"numbers": 3}, r"c.numbers=3: expected a list of int, as \(3,\) is of this one alone, got int"),
        ({"numbers": None}, "c.numbers=None: expected a list of int"),
        ({"numbers": (1, 1)}, "1 stands twice"),
        ({"number": float("nan")}, "c.number=nan: expected a finite number"),
        ({"number": 10**400}, "expected a finite number"),
        ({"inner": 3}, "c.inner=3: expected keys, got int"),
        ({"parts": [1]}, "c.parts=.*: expected keys, got list"),
        ({"parts": {1: {}}}, "c.parts: 1 is not a name"),
        ({"named": {"a": {"step": 1}}}, "c.named.a: unknown key 'step'"),
    ],
)
def test_values_of_a_config_file_are_not_read_as_something_else(values, text):
    with pytest.raises(InputError, match=text):
        config.build(Every, values, "c")


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
    read_ = lambda *more: read(tmp_path / "c.py", *more, kind=Unset)  # noqa: E731
    assert read_() == Unset()
    assert read_("rate=1e-3").rate == 1e-3
    with pytest.raises(InputError, match="rate"):
        read_("rate=fast")


BARE = """
def get_config(arg=None):
    return {"study": "s", "data_dir": "", "model": {"preset": "tiny"},
            "phases": {"own": {"init": "random", "tasks": {"mnli": {}}}},
            "evaluations": {"one": {"phase": "own", "model": "m", "intermediate": "none", "what": {"tasks": ["xnli"]}}},
            "grid": {"models": {"m": "own"}, "intermediates": ("none", "mnli"), "targets": {"xnli": {}}}}
"""
SAMPLES = {int: "3", float: "1e-5", bool: "True", str: "word", typing.Any: "3"}
ENTRIES = {"phases": "own", "evaluations": "one", "tasks": "mnli", "training": "mnli", "targets": "xnli"}


def keys(hint, where):
    """Every key below one of the schema, each with a text of its type."""
    annotated = typing.get_origin(hint) is typing.Annotated
    hints = typing.get_args(hint)[1].hints({}) if annotated else {}
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint, include_extras=True)
    for name, inner in hints.items():
        yield from keys(inner, f"{where}.{name}")
    if hints:
        return
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    kind = next(option for option in options if option is not type(None))
    if typing.get_origin(kind) is dict:
        yield from keys(typing.get_args(kind)[1], f"{where}.{ENTRIES.get(where.rpartition('.')[2], 'name')}")
    elif typing.get_origin(kind) is tuple:
        yield where, f"{SAMPLES[typing.get_args(kind)[0]]},"
    else:
        yield where, SAMPLES[kind]
        if len(options) > 1:
            yield where, "None"


def test_every_key_of_a_study_can_be_set_though_the_file_leaves_it_out(tmp_path):
    """Each key is read as its type; what the value may be is said by the dataclasses, in one line."""
    (tmp_path / "c.py").write_text(BARE)
    every = list(keys(study.Study, "config"))
    names = {key.removeprefix("config.") for key, _ in every}
    assert {
        "phases.own.tasks.mnli.max_length", "phases.own.optimizer.learning_rate", "grid.phase.select.every",
        "grid.training.mnli.tasks.mnli.batch_size", "grid.targets.xnli.options.doc_stride", "model.hidden_dropout",
        "evaluations.one.what.options.layer", "grid.what.limit", "grid.replay.amount", "mesh.name", "tokenizer.path",
    } <= names  # fmt: skip
    said = []
    for key, text in every:
        given = config.load([f"--config={tmp_path}/c.py", f"--{key}={text}"])
        try:
            config.build(study.Study, given, "config")
        except InputError as error:
            said.append(str(error))
    assert len(every) > 250
    typed = [text for text in said if "expected" in text or "unknown key" in text or "no value" in text]
    assert not typed, typed


@pytest.mark.parametrize(
    ("override", "get", "value"),
    [
        ("phases.own.optimizer.learning_rate=1e-5", lambda it: it.phases["own"].optimizer.learning_rate, 1e-5),
        ("phases.own.tasks.mnli.packed=true", lambda it: it.phases["own"].tasks["mnli"].packed, True),
        ("phases.own.freeze=embeddings", lambda it: it.phases["own"].freeze, ("embeddings",)),
        ("phases.own.tasks.qqp.limit=9", lambda it: it.phases["own"].tasks["qqp"].limit, 9),
        ("evaluations.one.what.options.layer=-1", lambda it: it.evaluations["one"].what.options.layer, -1),
        ("evaluations.one.what.languages=en,de", lambda it: it.evaluations["one"].what.languages, ("en", "de")),
        ("grid.seeds=(3,)", lambda it: it.phases["m-mnli-s3"].seed, 3),
        ("grid.seeds=0,1", lambda it: sorted(it.phases)[1:3], ["m-mnli-mnli-s1", "m-mnli-s0"]),
        ("grid.phase.select.every=7", lambda it: it.phases["m-mnli-s0"].select.every, 7),
        ("grid.training.mnli.optimizer.clip=2", lambda it: it.phases["m-mnli-s0"].optimizer.clip, 2.0),
        ("grid.targets.udpos.limit=5", lambda it: it.evaluations["m-none-udpos-s0"].what.limit, 5),
        ("grid.what.options.max_length=64", lambda it: it.evaluations["m-none-xnli-s0"].what.options.max_length, 64),
        ("model.hidden_dropout=0", lambda it: it.model["hidden_dropout"], 0.0),
        ("mesh.fsdp=2", lambda it: it.mesh, {"data": -1, "fsdp": 2, "tensor": 1}),
        ("tokenizer.languages=de", lambda it: it.tokenizer.languages, ("de",)),
    ],
)
def test_keys_that_the_file_leaves_out(tmp_path, override, get, value):
    (tmp_path / "c.py").write_text(BARE)
    more = ["--config.phases.own.epochs=1"] if "qqp" in override else []
    arguments = [f"--config={tmp_path}/c.py", f"--config.{override}", *more]
    found = get(study.from_config(config.load(arguments), to_run=False))
    assert found == value and type(found) is type(value)


def test_a_new_phase_and_its_evaluation(tmp_path):
    (tmp_path / "c.py").write_text(BARE)
    more = ["init=own", "tasks.qqp.limit=9"]
    more = [*(f"phases.new.{each}" for each in more), "evaluations.new.phase=new", "evaluations.new.model=m"]
    more += ["evaluations.new.intermediate=qqp", "evaluations.new.what.tasks=pawsx"]
    arguments = [f"--config={tmp_path}/c.py", *(f"--config.{each}" for each in more)]
    found = study.from_config(config.load(arguments), to_run=False)
    assert found.phases["new"].tasks["qqp"].limit == 9 and found.evaluations["new"].what.names() == ("pawsx",)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("grid.seeds=3", r"config.grid.seeds=3: a list is expected: \(3,\) is 3 alone, \(0,1,2\) are three"),
        ("grid.seeds=-1,", r"config.grid.seeds=\(-1,\): 0 or more"),
        ("phases.onw.epochs=2", "config.phases: unknown phase 'onw'; did you mean 'own'.*a new one needs .*onw.init"),
        ("evaluations.oen.what.limit=5", "config.evaluations: unknown evaluation 'oen'; did you mean 'one'"),
        ("phases.own.tasks.mnil.limit=5", "config.phases.own.tasks.mnil: unknown task 'mnil'; did you mean 'mnli'"),
        ("grid.training.mnil.epochs=1", "config.grid.training: unknown .* 'mnil'; did you mean 'mnli'"),
        ("grid.targets.xnil.limit=1", "unknown task 'xnil'"),
        ("mesh.dta=2", "config.mesh: unknown mesh axis 'dta'; did you mean 'data'"),
        ("model.widht=32", "config.model: unknown key 'widht'; did you mean 'width'"),
        ("evaluations.one.what.limit=-5", "config.evaluations.one.what.limit=-5: expected 0 or more"),
        ("evaluations.one.what.options.max_length=-1", "what.options.max_length=-1: expected 0 or more"),
        ("phases.own.save_every=0", "config.phases.own.save_every=0: expected 1 or more"),
        ("phases.own.log_every=0", "config.phases.own.log_every=0: expected 1 or more"),
        ("phases.own.seed=-1", "config.phases.own.seed=-1: expected 0 or more"),
        ("tokenizer.vocab_size=0", "config.tokenizer.vocab_size=0: expected 1 or more"),
        ("phases.own.tasks.mnli.doc_stride=0", "tasks.mnli.doc_stride=0: expected 1 or more"),
        ("phases.own.tasks.mnli.limit=-1", "limit"),
        ("phases.own.optimizer.clip=-1", "optimizer.clip=-1.0: expected 0 or more"),
        ("phases.own.tasks.mnli.languages=en,en", "'en' stands twice"),
    ],
)
def test_bad_values_of_a_study(tmp_path, override, text):
    (tmp_path / "c.py").write_text(BARE)
    with pytest.raises(InputError, match=text):
        study.from_config(config.load([f"--config={tmp_path}/c.py", f"--config.{override}"]), to_run=False)
