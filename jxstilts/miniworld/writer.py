"""Writes a world as a data_dir: all at once or not at all, and byte for byte the same for the same options."""

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator, Sequence

from jxstilts.miniworld import choice, languages, nli, pairs, qa, retrieval, running, tagging, xtreme_r
from jxstilts.miniworld.setting import SIZES, Setting, setting
from jxstilts.runtime import InputError, suggest

VERSION = 3  # of the world's design; the same seed and options give the same bytes within a version
RECORD = "world.json"
ROOMS = (running, nli, pairs, qa, choice, tagging, retrieval, xtreme_r)


def files(given: Setting) -> Iterator[tuple[str, str]]:
    """Yields (path, content) of every file except the record."""
    return itertools.chain.from_iterable(room.files(given) for room in ROOMS)


def write(
    folder: str | os.PathLike, size: str = "tiny", seed: int = 0, changes: Sequence[str] = (), force: bool = False
) -> dict:
    """Writes the world into a new folder and returns its record, the content of world.json.

    size: one of `setting.SIZES`. changes: see `languages.vary`. force: replace a folder that holds a world.
    Raises InputError for bad options and for a folder that is not empty.
    """
    if size not in SIZES:
        raise InputError(f"--size: {suggest('size', size, SIZES)}")
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed={seed}: a whole number from 0 to 2**63 - 1")
    given = setting(seed, languages.vary(changes), size)
    folder = pathlib.Path(folder).absolute()
    old = _checked(folder, force)
    mark = f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}"
    building, aside = folder.with_name(f"{mark}.new"), folder.with_name(f"{mark}.old")
    try:
        building.mkdir(parents=True)
        record = _write(building, given, size, changes)
        if old:
            os.rename(folder, aside)
        os.rename(building, folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error})") from error
    finally:
        if aside.exists() and not folder.exists():
            os.rename(aside, folder)
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)
    return record


def _checked(folder, force):
    """Returns whether a world stands at `folder` that is to be replaced."""
    if not folder.exists() and not folder.is_symlink():
        return False
    if folder.is_symlink() or not folder.is_dir():
        raise InputError(f"{folder}: not a folder; give one that is new or empty")
    if not any(folder.iterdir()):
        return False
    if not (folder / RECORD).is_file():
        raise InputError(f"{folder}: not empty, and no world (it has no {RECORD}); give a folder that is new or empty")
    if not force:
        raise InputError(f"{folder}: holds a world already; --force replaces it")
    return True


def _write(folder, given, size, changes):
    content = {}
    for name, text in files(given):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = text.encode()
        path.write_bytes(data)
        content[name] = hashlib.sha256(data).hexdigest()
    whole = "".join(f"{sha}  {name}\n" for name, sha in sorted(content.items()))
    record = {
        "version": VERSION,
        "seed": given.world.seed,
        "size": size,
        "vary": list(changes),
        "sha256": hashlib.sha256(whole.encode()).hexdigest(),
        "files": len(content),
        "names": {"train": _names(given.world.train_names), "dev and test": _names(given.world.test_names)},
        "languages": [_language(language, given) for language in given.languages],
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return record


def _names(names):
    return [*names.given, *names.places]


def _language(language, given):
    lines = max(2, language.corpus // given.size.text)
    return dataclasses.asdict(language) | {
        "resource": language.resource,
        "sentences": lines - lines // 2,
        "documents": lines // 2,
        "parallel_lines": language.parallel // given.size.parallel,
    }
