"""Overrides on the command line: every type of key, also keys that the file leaves out, and what is refused."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_config import Inner, Outer, read

from jxstilts import config, overrides
from jxstilts.runtime import InputError


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
    "complete": "    from test_overrides import Every, config\n    return config.complete(Every, {})",
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
    given_ = {key: overrides.Given(each if type(each) is str else repr(each)) for key, each in fields.items()
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
