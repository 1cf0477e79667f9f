"""The reference of a config's keys, made from the dataclasses: what `jxstilts config` prints, and docs/config.md.

A key's meaning stands beside its field (`config.setting`). In a path NAME stands for a name of the user's own.
"""

import dataclasses
import difflib
import inspect
import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any

from jxstilts.config import hints
from jxstilts.models.families import ROOM
from jxstilts.models.model import family_module
from jxstilts.runtime import InputError
from jxstilts.study.config import ModelConfig, Study
from jxstilts.train import objectives
from jxstilts.train.mixture import Stream
from jxstilts.train.terms import Further

NAME = "NAME"
KINDS = {int: "whole number", float: "number", bool: "True or False", str: "text"}
REQUIRED = "required"
WIDTH = 100  # columns


@dataclasses.dataclass(frozen=True)
class Key:
    """One key. of: where it is a key only for some, "family=bert". inside: the path of the keys that it holds."""

    path: str
    of: str
    kind: str
    default: str
    meaning: str
    inside: str

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def parent(self) -> str:
        return self.path.rpartition(".")[0]


@dataclasses.dataclass(frozen=True)
class Section:
    """The keys of one dataclass, at its own place. also: the other paths at which the same keys stand."""

    path: str
    of: str
    about: str
    keys: tuple[Key, ...]
    also: tuple[str, ...]


def keys() -> list[Key]:
    """Returns every key at every path, those of a study first."""
    return [key for path, of, kind in _places() for key in _keys(path, of, kind)]


def sections() -> list[Section]:
    """Returns every dataclass of a config once, in the order of the keys that hold them."""
    everywhere = list(_places())
    places: dict[tuple[type, str], list[str]] = {}
    for path, of, kind in sorted(everywhere, key=lambda place: (place[0].startswith("grid."), place[0].count("."))):
        places.setdefault((kind, of), []).append(path)
    found = []
    for path, of, kind in everywhere:
        first, *also = places[kind, of]
        if path == first:
            said = inspect.getdoc(sys.modules[kind.__module__] if of else kind)  # a variant has a file of its own
            about = " ".join((said or "").partition("\n\n")[0].split())
            found.append(Section(path, of, about, tuple(_keys(path, of, kind)), tuple(also)))
    return found


def _places(path: str = "", kind: type = Study) -> Iterator[tuple[str, str, type]]:
    """Yields (path, of, dataclass) of a dataclass and of all that are inside it, wherever they stand."""
    yield path, "", kind
    for field in dataclasses.fields(kind):
        below = f"{path}.{field.name}".lstrip(".")
        for of, inner in _variants(kind, field.name).items():
            yield below, of, inner
        inner, several = _inner(hints(kind)[field.name])
        if inner is not None:
            yield from _places(f"{below}.{NAME}" if several else below, inner)


def _variants(kind: type, name: str) -> dict[str, type]:
    """Returns the dataclasses whose keys a dict may have, by what decides which."""
    if (kind, name) == (Study, "model"):
        own = {f"family={family}": family_module(family).Config for family in ROOM.names()}
        return {"": ModelConfig} | own
    if kind in (Stream, Further) and name == "options":
        return {f"objective={each}": objectives.get(each) for each in objectives.names()}
    return {}


def _inner(hint: Any) -> tuple[type | None, bool]:
    """Returns (the dataclass whose keys a type holds or None, whether it holds them by names)."""
    if typing.get_origin(hint) is dict:
        return _inner(typing.get_args(hint)[1])[0], True
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[1].kind
    return (hint, False) if dataclasses.is_dataclass(hint) else (None, False)


def _keys(path: str, of: str, kind: type) -> Iterator[Key]:
    kinds = hints(kind)
    for field in dataclasses.fields(kind):
        if kind is not Study and issubclass(kind, objectives.Objective) and field.name == "name":
            continue  # of the entry in the phase: not an option
        own = f"{path}.{field.name}".lstrip(".")
        inner, several = _inner(kinds[field.name])
        if inner is not None:
            inside = f"{own}.{NAME}" if several else own
        else:
            inside = own if _variants(kind, field.name) else ""
        meaning = field.metadata.get("meaning", "")
        yield Key(own, of, _in_words(kinds[field.name], field.metadata), _default(field, of), meaning, inside)


def _in_words(hint: Any, about: Any) -> str:
    """Says what a value is, and what it may be."""
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    main, origin = options[0], typing.get_origin(options[0])
    if origin is tuple:
        text = f"list of {KINDS[typing.get_args(main)[0]]}s"
    elif origin is dict:
        value = typing.get_args(main)[1]
        text = f"names, each with a {KINDS[value]}" if value in KINDS else "keys" if value is Any else "names with keys"
    elif origin is typing.Literal:
        text = " or ".join(map(str, typing.get_args(main)))
    else:
        text = KINDS.get(main, "keys")
    allowed = about.get("allowed", ())
    if allowed and origin is not dict:
        text = ", ".join(each or '""' for each in allowed if each or main is not str)
    if about.get("least") is not None:
        text += f", {about['least']:g} or more"
    return text + (", or None" if type(None) in options else "")


def _default(field: dataclasses.Field, of: str) -> str:
    """Says what a key is where it is not given."""
    if field.default is not dataclasses.MISSING:
        return '""' if field.default == "" else str(field.default)
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
        return "" if dataclasses.is_dataclass(value) else str(value)
    return "as the preset" if of.startswith("family=") else REQUIRED


def text(wanted: str = "") -> str:
    """Returns the reference as text: all of it, one key, or what stands inside a key.

    wanted: a path, with names in place of NAME or with NAME; or its end, such as learning_rate. Raises InputError, with
    the nearest keys, for one that there is not.
    """
    parts = wanted.partition("=")[0].removeprefix("config.").split(".")
    found = sections()
    owners = _owners(found)
    if parts == [""]:
        return "\n\n".join([INTRODUCTION, *(_section(part, owners) for part in found)])
    every = keys()
    exact = [key for key in every if _fits(key.path, parts)]
    own = {key.inside for key in exact} - {""}
    inside = [
        part for part in found if any(path in own or _fits(path, parts) for path in (part.path, *part.also) if path)
    ]
    if exact or inside:
        return "\n\n".join([*map(_whole, exact), *(_section(part, owners) for part in inside)])
    listed = [key for part in found for key in part.keys]
    ends = [key for key in listed if _fits(key.path, parts, end=True)]
    if ends:
        return "\n\n".join(map(_whole, ends))
    raise InputError(f"unknown key {wanted!r:.80}; {_nearest(parts, every, listed)}")


def _fits(path: str, parts: list[str], end: bool = False) -> bool:
    own = path.split(".")
    if end:
        own = own[-len(parts) :]
    return len(own) == len(parts) and all(a in (NAME, b) for a, b in zip(own, parts, strict=True))


def _nearest(parts: list[str], every: list[Key], listed: list[Key]) -> str:
    """Says which keys come nearest: those beside the first part that is unknown, or for a single part any."""
    beside, asked = listed, parts[-1]
    for end in range(len(parts) - 1, 0, -1):
        known = [key for key in every if _fits(key.parent, parts[:end])]
        if known:
            beside, asked = known, parts[end]
            break
    names = dict.fromkeys(key.name for key in beside)
    near = difflib.get_close_matches(asked, names, n=3)
    paths = dict.fromkeys(key.path for name in near for key in beside if key.name == name)
    return f"did you mean {' or '.join(list(paths)[:5])}?" if paths else "`jxstilts config` lists them all"


INTRODUCTION = (
    "Every key of a study's config. NAME stands for a name of your own. Any key can be given on the\n"
    "command line: --config.phases.NAME.optimizer.learning_rate=1e-5. `jxstilts config KEY` tells of one\n"
    "key, `jxstilts new study NAME` writes a first config."
)


def _owners(found: list[Section]) -> dict[str, str]:
    """Returns {each path at which a dataclass stands: the one at which it is listed}."""
    return {path: part.path for part in found for path in (part.path, *part.also)}


def _section(part: Section, owners: dict[str, str]) -> str:
    title = f"{part.path or 'config'}{f' ({part.of})' if part.of else ''}: {part.about}"
    lines = textwrap.wrap(title, WIDTH, subsequent_indent="  ", break_long_words=False)
    for key in part.keys:
        default = f" = {key.default}" if key.default not in ("", REQUIRED) else f" ({REQUIRED})" * bool(key.default)
        lines.append(f"  {key.name}{default}: {key.kind}")
        owner = owners[key.inside] if key.inside else key.path
        more = f"; its keys: {owner}" if owner != key.path else ""
        lines += textwrap.wrap(key.meaning + more, WIDTH, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def _whole(key: Key) -> str:
    rows = {"only for": key.of, "value": key.kind, "default": key.default, "meaning": key.meaning}
    lines = [key.path]
    for name, value in rows.items():
        if value:
            lines += textwrap.wrap(f"{name:<9}{value}", WIDTH, initial_indent="  ", subsequent_indent=" " * 11)
    return "\n".join([*lines, f"  written  --config.{key.path}=VALUE"])


def markdown() -> str:
    """Returns docs/config.md."""
    lines = [
        "# Every key of a config",
        "",
        "Made by `jxstilts config --markdown > docs/config.md`; a test holds it against the code. "
        "[configs.md](configs.md) tells how a config is written, and how its keys are given on the command line. In a "
        "path NAME stands for a name of your own: of a phase, a stream of a phase, an evaluation.",
    ]
    found = sections()
    owners = _owners(found)
    for part in found:
        of = f", {part.of}" if part.of else ""
        lines += ["", f"## {f'`{part.path}`' if part.path else 'The study'}{of}", "", _plain(part.about)]
        if part.also:
            lines += ["", f"The same keys: {', '.join(f'`{path}`' for path in part.also)}."]
        lines += ["", "| key | value | default | meaning |", "|---|---|---|---|"]
        for key in part.keys:
            owner = owners[key.inside] if key.inside else key.path
            more = f"; its keys: `{owner}`" if owner != key.path else ""
            default = f"`{key.default}`" if key.default and key.default[0] not in "ar" else key.default
            lines.append(f"| `{key.name}` | {_plain(key.kind)} | {default} | {_plain(key.meaning)}{more} |")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Escapes what Markdown would read as marks."""
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
