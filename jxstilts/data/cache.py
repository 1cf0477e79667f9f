"""Features on disk: memory-mapped arrays in a folder named by a fingerprint of what they were made from.

An entry is written beside its place and renamed into it, so a reader sees a whole entry or none, whatever was killed.
Two processes may make the same entry at once: the one that comes second uses the other's.
"""

import hashlib
import json
import os
import pathlib
import secrets
import shutil
import time
from collections.abc import Callable, Mapping

import numpy as np

from jxstilts.data.tokenize import Features
from jxstilts.runtime import InputError

LEFTOVER = 24 * 3600  # seconds after which a temporary folder is taken for that of a killed process


def cached(folder: str | os.PathLike, key: Mapping, make: Callable[[], Features]) -> Features:
    """Returns the features of `key`, memory-mapped, from `folder`, or makes and stores them.

    `key` is anything JSON that decides the content; it is kept beside the arrays in entry.json. An entry with a
    missing, shortened or unreadable file is made again. Raises InputError for a key that is not JSON.
    """
    folder = pathlib.Path(folder)
    try:
        canonical = json.dumps(key, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"a cache key must be JSON: {error}") from error
    entry = folder / hashlib.sha256(canonical.encode()).hexdigest()
    features = _read(entry)
    if features is not None:
        return features
    made = make()
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    temporary = _beside(entry)
    _write(temporary, made, json.loads(canonical))
    while (features := _read(entry)) is None:
        try:
            os.rename(temporary, entry)
        except OSError:  # an entry stands there
            if _read(entry) is None:
                _discard(entry)
    shutil.rmtree(temporary, ignore_errors=True)
    return features


def _beside(entry: pathlib.Path) -> pathlib.Path:
    return entry.with_name(f".{entry.name[:16]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def _discard(entry: pathlib.Path) -> None:
    """Takes a damaged entry away in one step, so that nobody sees it half deleted."""
    aside = _beside(entry)
    try:
        os.rename(entry, aside)
    except FileNotFoundError:
        return  # another process was faster
    shutil.rmtree(aside, ignore_errors=True)


def _remove_leftovers(folder: pathlib.Path) -> None:
    for path in folder.glob(".*.tmp"):
        try:
            old = time.time() - path.stat().st_mtime > LEFTOVER
        except FileNotFoundError:
            continue
        if old:
            shutil.rmtree(path, ignore_errors=True)


def _write(folder: pathlib.Path, features: Features, key: Mapping) -> None:
    folder.mkdir()
    files = {}
    for name, array in _arrays(features).items():
        path = folder / f"{name}.npy"
        with open(path, "wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        files[path.name] = path.stat().st_size
    with open(folder / "entry.json", "w") as file:
        json.dump({"key": key, "features": len(features), "tokens": int(features.offsets[-1]), "files": files}, file)
        file.flush()
        os.fsync(file.fileno())


def _arrays(features: Features) -> dict[str, np.ndarray]:
    arrays = {"tokens": features.tokens, "offsets": features.offsets}
    arrays |= {f"field.{name}": array for name, array in features.fields.items()}
    return arrays | {f"token_field.{name}": array for name, array in features.token_fields.items()}


def _read(entry: pathlib.Path) -> Features | None:
    """Returns the features of an entry, or None if it is not there or damaged."""
    try:
        record = json.loads((entry / "entry.json").read_text())
        arrays = {}
        for file, size in record["files"].items():
            path = entry / file
            if path.stat().st_size != size:
                return None
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            arrays[file.removesuffix(".npy")] = array
        return Features(
            arrays["tokens"],
            arrays["offsets"],
            {name.removeprefix("field."): array for name, array in arrays.items() if name.startswith("field.")},
            {
                name.removeprefix("token_field."): array
                for name, array in arrays.items()
                if name.startswith("token_field.")
            },
        )
    except (OSError, ValueError, KeyError):  # ValueError: not JSON, not an array file, or cut short
        return None
