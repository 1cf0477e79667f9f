"""Configs: `configs/X.py:args` files, command-line overrides, strict conversion to dataclasses, fingerprints.

A config file defines `get_config(arg)` and returns an `ml_collections.ConfigDict`. ConfigDict stays at the edge: inside
the package there are frozen dataclasses, made by `build`, which refuses unknown keys and wrong types.
"""

import dataclasses
import hashlib
import json
import pathlib
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from jxstilts.runtime import InputError, suggest

# What a config file may raise, beside what overrides do: it is a Python program.
FAILURES = (
    ArithmeticError, AssertionError, ImportError, IndexError, MemoryError, NameError, OSError, RecursionError,
    SyntaxError,
)  # fmt: skip


def parse_arg(arg: str | None, **defaults: Any) -> types.SimpleNamespace:
    """Reads a config's argument string "a=1,flag,b=x" into the types of `defaults`.

    A bare name means True. Raises InputError for unknown names and values of another type.
    """
    values = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        key, equals, text = item.partition("=")
        if key not in defaults:
            raise InputError(f"config argument {item!r}: {suggest('argument', key, defaults)}")
        kind = type(defaults[key])
        try:
            if kind is bool:
                values[key] = True if not equals else {"true": True, "false": False}[text.lower()]
            else:
                values[key] = kind(text)
        except (ValueError, KeyError) as error:
            raise InputError(f"config argument {item!r}: {key} takes a {kind.__name__}") from error
    return types.SimpleNamespace(**values)


def load(argv: Sequence[str]) -> Any:
    """Reads `--config=FILE[:args]` and `--config.key=value` overrides; returns the locked ConfigDict.

    Raises InputError: no such file, unknown key (with the nearest one), value of a wrong type, unknown option.
    """
    from absl import flags
    from ml_collections import config_flags

    def parse(arguments: Sequence[str]) -> tuple[Any, list[str]]:
        values = flags.FlagValues()
        arguments = ["jxstilts", *arguments]
        config_flags.DEFINE_config_file("config", lock_config=True, flag_values=values, sys_argv=arguments)
        rest = values(arguments)[1:]
        values.config.keys()  # what could not be loaded says so only here
        return values.config, rest

    files = [a.split("=", 1)[1] for a in argv if a.startswith(("--config=", "-config="))]
    if not files:
        raise InputError("no config: give --config=configs/NAME.py[:args]")
    if len(files) > 1:
        raise InputError(f"--config is given {len(files)} times; give it once")
    [file] = files
    path = file.split(":")[0]
    try:
        there = pathlib.Path(path).is_file()
        near = [] if there else sorted(map(str, pathlib.Path(path).parent.glob("*.py")))
    except (OSError, ValueError):  # too long for a name, or a zero in it
        there, near = False, []
    if not there:
        some = ", ".join(near[:20]) or "no config files"
        raise InputError(f"--config={shown(file)}: no file {path!r:.300}; beside it: {some}")
    try:
        _check_overrides(parse([f"--config={file}"])[0], argv)
        config, rest = parse(argv)
    except flags.UnrecognizedFlagError as error:
        raise InputError(f"{shown(_line(error))}; options are --workdir and --config.KEY=VALUE") from error
    except (flags.Error, AttributeError, TypeError, KeyError, ValueError, *FAILURES) as error:
        raise InputError(f"--config={shown(file)}: {_first_cause(error)}") from error
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r:.300}; overrides are written --config.KEY=VALUE")
    return config


def _check_overrides(config: Any, argv: Sequence[str]) -> None:
    """Names an unknown key with the nearest one at its own level."""
    for argument in argv:
        if argument.startswith(("--config.", "-config.")):
            node, where = config, "config"
            for key in argument.lstrip("-").split("=", 1)[0].split(".")[1:]:
                if not hasattr(node, "keys") or key not in node:
                    raise InputError(f"{where}: {suggest('key', key, getattr(node, 'keys', tuple)())}")
                node, where = node[key], f"{where}.{key}"


def complete(kind: type, values: Mapping[str, Any], where: str = "config") -> Any:
    """Returns a ConfigDict of the dataclass `kind` with every key, so that each can be overridden on the command line.

    Raises InputError for keys that `kind` does not have.
    """
    from ml_collections import ConfigDict
    from ml_collections.config_dict import placeholder

    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            raise InputError(f"{where}: {suggest('key', key, fields)}")
    filled = ConfigDict()
    for name, field in fields.items():
        hint, inner = hints[name], f"{where}.{name}"
        if dataclasses.is_dataclass(hint):
            value = complete(hint, values.get(name, {}), inner)
        elif typing.get_origin(hint) is dict and dataclasses.is_dataclass(typing.get_args(hint)[1]):
            item = typing.get_args(hint)[1]
            value = {key: complete(item, entry, f"{inner}.{key}") for key, entry in values.get(name, {}).items()}
        elif name in values:
            value = values[name]
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            raise InputError(f"{where}: no value for {name}")
        if value is None:  # a typed place, so that the command line can fill it
            kinds = [option for option in typing.get_args(hint) if option is not type(None)]
            value = placeholder(kinds[0])
        filled[name] = ConfigDict(value) if isinstance(value, dict) else value
    return filled


def build(kind: type, values: Mapping[str, Any], where: str) -> Any:
    """Makes the frozen dataclass `kind` from a mapping; `where` is the config path for messages.

    Nested dataclass fields and tuples are built too. Raises InputError for unknown, missing or mistyped keys.
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            raise InputError(f"{where}: {suggest('key', key, fields)}")
    missing = [
        name for name, field in fields.items()
        if name not in values
        and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]  # fmt: skip
    if missing:
        raise InputError(f"{where}: no value for {', '.join(missing)}")
    return kind(**{key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    hint = next(option for option in options if option is not type(None))
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping) or hasattr(value, "items"):
            return build(hint, dict(value.items()), where)
    elif origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_convert(typing.get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    elif origin is dict and hasattr(value, "items"):
        return {key: _convert(typing.get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
    elif hint is float and type(value) in (int, float):
        if not abs(value) <= sys.float_info.max:  # nor is NaN
            raise InputError(f"{where}={value!r:.60}: expected a finite number")
        return float(value)
    elif hint is Any:
        return value
    elif type(value) is hint:
        return value
    expected = getattr(hint, "__name__", str(hint))
    raise InputError(f"{where}={shown(repr(value)):.200}: expected {expected}, got {type(value).__name__}")


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


def _first_cause(error: BaseException) -> str:
    """The message; where absl quotes a whole traceback of the config file, that of the exception it came from."""
    chain = [error]
    while before := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(before)
    ours = [link for link in chain if isinstance(link, InputError)]
    if ours:
        return _line(ours[-1])
    if isinstance(error, FAILURES) or "Traceback" in str(error):
        return shown(f"{type(chain[-1]).__name__}: {_line(chain[-1])}")
    return shown(_line(error))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def shown(text: str, longest: int = 1000) -> str:
    """The text as one line that any terminal shows as it is, and not longer than a message should be."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text[:longest])
