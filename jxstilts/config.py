"""Configs: `configs/X.py:args` files, command-line overrides, strict conversion to dataclasses, fingerprints.

A config file defines `get_config(arg)` and returns a dict or an `ml_collections.ConfigDict`, mostly by `complete`.
Those stay at the edge: inside the package there are frozen dataclasses, made by `build`, which refuses unknown keys and
wrong types. What the command line gives is text until `build` reads it by its key's type, so that every key of the
dataclasses can be given there, also one that the file leaves out. (ml_collections' flags only know those of the file.)
"""

import dataclasses
import hashlib
import json
import pathlib
import runpy
import sys
import traceback
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any

from jxstilts.overrides import Given, items, mapping, read
from jxstilts.runtime import InputError, shown, suggest

# What a config file may raise: it is a Python program.
FAILURES = (
    ArithmeticError, AssertionError, AttributeError, ImportError, KeyError, IndexError, MemoryError, NameError, OSError,
    RecursionError, SyntaxError, TypeError, ValueError,
)  # fmt: skip
LARGEST = 2**63 - 1


class New(dict):
    """What the command line gives of something that the config file does not have."""


def setting(default: Any, meaning: str, *, least: float | None = None, allowed: Collection[Any] = ()) -> Any:
    """Returns the dataclass field of a key of a config; `jxstilts config` and docs/config.md print what stands here.

    Args:
        default: ... where the key has to be given; a function or a type: makes the default.
        meaning: what the key decides, in what unit, and what special values stand for.
        least: the least that a number can be; `at_least` refuses less.
        allowed: the values that a text can be, for those who read about it; the dataclass itself refuses others.
    """
    about = {"meaning": meaning, "least": least, "allowed": tuple(allowed)}
    if default is ...:
        return dataclasses.field(metadata=about)
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=about)
    return dataclasses.field(default=default, metadata=about)


@dataclasses.dataclass(frozen=True)
class Keys:
    """Annotates a dict whose keys are some of `hints`, which gives {key: type} for the dict's own values.

    kind: the dataclass whose keys they are, where they are those of one.
    """

    hints: Callable[[Mapping[str, Any]], dict[str, Any]]
    kind: type | None = None


def some_of(kind: type) -> Any:
    """Returns the type of a dict that holds some of a dataclass's keys, of those inside it too."""
    return Annotated[dict[str, Any], Keys(lambda values: hints(kind), kind)]


def parse_arg(arg: str | None, **defaults: Any) -> types.SimpleNamespace:
    """Reads a config's argument string "a=1,flag,b=x" into the types of `defaults`.

    A bare name means True. Raises InputError for unknown names, values of another type, and a name that stands twice.
    """
    given: dict[str, Any] = {}
    for item in filter(None, (arg or "").split(",")):
        key, equals, text = item.partition("=")
        if key not in defaults:
            raise InputError(f"config argument {item!r}: {suggest('argument', key, defaults)}")
        if key in given:
            raise InputError(f"config argument {item!r}: {key} is given twice")
        kind = type(defaults[key])
        value = True if kind is bool and not equals else read(kind, text)
        try:
            given[key] = _convert(kind, value, key)
        except InputError as error:
            raise InputError(f"config argument {item!r}: {key} takes a {kind.__name__}") from error
    return types.SimpleNamespace(**defaults | given)


def names(text: str, known: Iterable[str], what: str) -> list[str]:
    """Returns the parts of "a+b", each one of `known`. Raises InputError, which begins with `what`, for another."""
    known = list(known)
    for name in (found := text.split("+")):
        if name not in known:
            raise InputError(f"{what}={text}: {suggest('name', name, known)}")
    return found


def load(argv: Sequence[str]) -> dict[str, Any]:
    """Reads `--config=FILE[:args]` and puts `--config.KEY=VALUE` overrides in; returns nested dicts for `build`.

    Overrides are still text (`Given`). A key that is not there is added: whether there may be one, and what the text
    means, the dataclass says. Raises InputError: no such file, a file that fails, an unknown option, a key given twice.
    """
    files: list[str] = []
    overrides: dict[str, str] = {}
    for argument in argv:
        key, equals, text = argument.lstrip("-").partition("=")
        if not argument.startswith("-"):
            raise InputError(f"unexpected argument {argument!r:.300}; overrides are written --config.KEY=VALUE")
        if key != "config" and not key.startswith("config."):
            raise InputError(f"unknown option {shown(argument, 300)}; options are --workdir and --config.KEY=VALUE")
        if not equals:
            raise InputError(f"{shown(argument, 300)} has no value; write --{shown(key, 300)}=VALUE")
        if key == "config":
            files.append(text)
        elif key in overrides:
            raise InputError(f"--{shown(key, 300)} is given twice; give it once")
        else:
            overrides[key] = text
    if not files:
        raise InputError("no config: give --config=configs/NAME.py[:args]")
    if len(files) > 1:
        raise InputError(f"--config is given {len(files)} times; give it once")
    values = _run(files[0])
    for key in sorted(overrides, key=lambda key: key.count(".")):  # a whole value before what is inside it
        _put(values, key, overrides[key])
    return values


def _run(file: str) -> dict[str, Any]:
    """Returns what the get_config of FILE[:args] returns, as nested dicts."""
    given, colon, arg = file.partition(":")
    path = _find(given, f"--config={shown(file)}")
    where = f"--config={shown(file)}"
    try:
        get_config = runpy.run_path(path, run_name="jxstilts_config").get("get_config")
        if not callable(get_config):
            raise InputError("the file defines no get_config(arg)")
        found = get_config(arg) if colon else get_config()
        if not hasattr(found, "items"):
            raise InputError(
                f"get_config returned a {type(found).__name__}; "
                "return a dict of the study's keys, or complete(Study, {...})"
            )
        return _opened(found)
    except InputError as error:
        raise InputError(f"{where}: {_line(error)}") from error
    except FAILURES as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        at = f"line {lines[-1]}: " if lines else ""
        raise InputError(f"{where}: {at}{shown(f'{type(error).__name__}: {_line(error)}')}") from error


def _find(given: str, where: str) -> str:
    """Returns the path of a config file: as given, or of one that comes with jxstilts (configs/X.py) where it lies."""
    package = pathlib.Path(__file__).parent
    own = [package / given, package.parent / given] if given.startswith("configs/") else []
    places = [pathlib.Path(given), *own]
    try:
        there = [path for path in places if path.is_file()]
        near = [] if there else [sorted(map(str, path.parent.glob("*.py"))) for path in places]
    except (OSError, ValueError):  # too long for a name, or a zero in it
        there, near = [], []
    if not there:
        some = ", ".join(next(filter(None, near), [])[:20]) or "no config files"
        raise InputError(f"{where}: no file {given!r:.300}; beside it: {some}")
    return str(there[0])


def _opened(value: Any) -> Any:
    return {key: _opened(item) for key, item in value.items()} if hasattr(value, "items") else value


def _put(values: dict[str, Any], key: str, text: str) -> None:
    """Puts an override where it belongs, and what has to be there before it."""
    node, where = values, "config"
    *path, last = key.split(".")[1:]
    for part in path:
        inside = node.get(part)
        if inside is None:
            inside = New()
        elif isinstance(inside, Given):
            inside = New(mapping(inside, f"{where}.{part}"))
        elif not isinstance(inside, dict):
            raise InputError(f"--{shown(key, 300)}: {shown(where, 300)}.{part} is {inside!r:.60}, it has no keys")
        node[part] = inside
        node, where = inside, f"{where}.{part}"
    node[last] = Given(text)


def complete(kind: type, values: Mapping[str, Any], where: str = "config") -> Any:
    """Returns a ConfigDict of the dataclass `kind` with every key, what `values` leave out as its default.

    Raises InputError for keys that `kind` does not have.
    """
    from ml_collections import ConfigDict
    from ml_collections.config_dict import placeholder

    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in _checked(values, where):
        if key not in fields:
            raise InputError(f"{where}: {suggest('key', key, fields)}")
    filled = ConfigDict()
    for name, field in fields.items():
        hint, inner = hints[name], f"{where}.{name}"
        if dataclasses.is_dataclass(hint):
            value = complete(hint, values.get(name, {}), inner)
        elif typing.get_origin(hint) is dict and dataclasses.is_dataclass(typing.get_args(hint)[1]):
            item, entries = typing.get_args(hint)[1], _checked(values.get(name, {}), inner)
            value = {key: complete(item, entry, f"{inner}.{key}") for key, entry in entries.items()}
        elif name in values:
            value = values[name]
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            raise InputError(f"{where}: no value for {name}")
        if value is None:  # a typed place, so that get_config can fill it
            kinds = [option for option in typing.get_args(hint) if option is not type(None)]
            value = placeholder(typing.get_origin(kinds[0]) or kinds[0])
        filled[name] = ConfigDict(value) if isinstance(value, dict) else value
    return filled


def build(kind: type, values: Mapping[str, Any], where: str) -> Any:
    """Makes the frozen dataclass `kind` from a mapping; `where` is the config path for messages.

    Nested dataclass fields and tuples are built too. Raises InputError for unknown, missing or mistyped keys.
    """
    kinds = hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    made = {}
    for key, value in _checked(values, where).items():
        if key not in fields:
            raise InputError(f"{where}: {suggest('key', key, fields)}")
        if isinstance(value, New) and typing.get_origin(kinds[key]) is dict:  # beside what is there by default
            value = {**fields[key].default_factory(), **value} if _has_default(fields[key]) else value
        made[key] = _convert(kinds[key], value, f"{where}.{key}")
    missing = [name for name, field in fields.items() if name not in values and not _has_default(field)]
    if missing:
        raise InputError(f"{where}: no value for {', '.join(missing)}")
    return kind(**made)


def at_least(where: str, values: Any) -> None:
    """Raises InputError where a number of a dataclass, or of one inside it, is below its `least`; None is never."""
    for field in dataclasses.fields(values):
        value, low = getattr(values, field.name), field.metadata.get("least")
        if low is not None and value is not None and value < low:
            raise InputError(f"{where}.{field.name}={value}: expected {low} or more")
        inside = value if isinstance(value, dict) else {"": value}
        for name, one in inside.items():
            if dataclasses.is_dataclass(one):
                at_least(f"{where}.{field.name}{name and '.'}{name}", one)


def hints(kind: type) -> dict[str, Any]:
    """Returns {key: type} of a dataclass."""
    return typing.get_type_hints(kind, include_extras=True)


def _has_default(field: dataclasses.Field) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _checked(values: Any, where: str) -> Mapping[str, Any]:
    """Returns the values; raises InputError unless they are keys with values."""
    if not hasattr(values, "items"):
        raise InputError(f"{where}={shown(repr(values)):.200}: expected keys, got {type(values).__name__}")
    for key in values.keys():
        if type(key) is not str:
            raise InputError(f"{where}: {key!r:.60} is not a name")
    return values


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Returns a value as its type wants it. Raises InputError that names the type."""
    if typing.get_origin(hint) is Annotated:
        hint, keys = typing.get_args(hint)[:2]
        return _some(keys, mapping(value, where) if isinstance(value, Given) else value, where)
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    hint = next(option for option in options if option is not type(None))
    text, origin = isinstance(value, Given), typing.get_origin(hint)
    if text and value.lower() == "none" and type(None) in options:
        value = None
    elif text and (origin is dict or dataclasses.is_dataclass(hint)):
        value = mapping(value, where)
    elif text and origin is tuple:
        value = items(value, typing.get_args(hint)[0], where)
    elif text:
        value = read(hint, value)
    if value is None and type(None) in options:
        return None
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        made = tuple(_convert(typing.get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        twice = [item for i, item in enumerate(made) if item in made[:i]]
        if twice:
            raise InputError(f"{where}={shown(repr(made)):.200}: {twice[0]!r:.60} stands twice")
        return made
    if origin is dict:
        item = typing.get_args(hint)[1]
        return {key: _convert(item, one, f"{where}.{key}") for key, one in _checked(value, where).items()}
    if hint is float and type(value) in (int, float):
        if not abs(value) <= sys.float_info.max:  # nor is NaN
            raise InputError(f"{where}={value!r:.60}: expected a finite number")
        return float(value)
    if hint is int and type(value) is int and abs(value) > LARGEST:
        raise InputError(f"{where}={value!r:.60}: expected int of at most 18 digits")
    if hint is Any or type(value) is hint:
        return value
    got = "" if text else f", got {type(value).__name__}"
    raise InputError(f"{where}={shown(repr(value)):.200}: expected {_expected(hint, value)}{got}")


def _some(keys: Keys, values: Any, where: str) -> dict[str, Any]:
    """Returns the given keys with values as their types want them; nothing is filled in."""
    hints = keys.hints(_checked(values, where))
    made = {}
    for key, value in values.items():
        if key not in hints:
            raise InputError(f"{where}: {suggest('key', key, hints)}")
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            hint = some_of(hint)
        elif typing.get_origin(hint) is dict and dataclasses.is_dataclass(typing.get_args(hint)[1]):
            hint = dict[str, some_of(typing.get_args(hint)[1])]
        made[key] = _convert(hint, value, f"{where}.{key}")
    return made


def _expected(hint: Any, value: Any) -> str:
    """Says what a type takes."""
    if typing.get_origin(hint) is not tuple:
        return "True or False" if hint is bool else getattr(hint, "__name__", str(hint))
    item = typing.get_args(hint)[0]
    if type(value) is item:
        return f"a list of {item.__name__}, as ({value!r:.60},) is of this one alone"
    return f"a list of {getattr(item, '__name__', item)}, an empty one as ()"


def plain(value: Any) -> Any:
    """Turns dataclasses, ConfigDicts and tuples into JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "items"):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def fingerprint(value: Any) -> str:
    """SHA-256 of a config or any JSON-able value; equal values in any key order have equal fingerprints."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Names each key in which two plain configs differ, as "key: old -> new"."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(set(old) | set(new))
        return [d for key in keys for d in differences(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))]
    return [] if old == new else [f"{where}: {old!r} -> {new!r}"]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
