"""Features on disk: memory-mapped arrays in a folder named by a fingerprint of what they were made from.

An entry is written beside its place and renamed into it, so a reader sees a whole entry or none, whatever was killed.
Of processes that share the folder one makes an entry, under a lease; the others wait for it. Where one lost its lease
and two make an entry at once, the one that comes second uses the other's.
"""

import errno
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import time
import tokenize
import zipfile
from collections.abc import Callable, Mapping

import numpy as np

from jxstilts import lease
from jxstilts.data.features import Features, Texts
from jxstilts.runtime import InputError, writing

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
    pause = 0.02
    while (features := _read(entry)) is None:
        if held := lease.acquire(folder / f".{entry.name[:16]}.lock"):
            try:
                if _read(entry) is None:  # made by another since we looked
                    _make(entry, make, json.loads(canonical))
            finally:
                held.release()
        else:
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
    return features


def _make(entry: pathlib.Path, make: Callable[[], Features], key: Mapping) -> None:
    """Makes and stores an entry; of one that cannot be stored nothing is left."""
    made = make()
    remove_leftovers(entry.parent)
    temporary = _beside(entry)
    try:
        _write(temporary, made, key)
        if _read(temporary) is None:
            raise OSError(errno.EIO, "what was just written cannot be read", str(temporary))
        while _read(entry) is None:
            try:
                os.rename(temporary, entry)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
                if _read(entry) is None:  # what stands there is damaged
                    _discard(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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


def remove_leftovers(folder: pathlib.Path) -> None:
    """Removes what killed processes were writing into a cache's folder, when it is a day old."""
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
        with writing(path), open(path, "wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        files[path.name] = _seen(path, array)
    with writing(folder / "entry.json"), open(folder / "entry.json", "w") as file:
        json.dump({"key": key, "features": len(features), "tokens": int(features.offsets[-1]), "files": files}, file)
        file.flush()
        os.fsync(file.fileno())


def _arrays(features: Features) -> dict[str, np.ndarray]:
    arrays = {"tokens": features.tokens, "offsets": features.offsets}
    arrays |= {f"field.{name}": array for name, array in features.fields.items()}
    for name, one in features.texts.items():
        own = {"tokens": one.tokens, "offsets": one.offsets, "room": np.array(one.room)}
        arrays |= {f"text.{name}.{part}": array for part, array in own.items()}
    return arrays | {f"token_field.{name}": array for name, array in features.token_fields.items()}


def _texts(arrays: dict[str, np.ndarray]) -> dict[str, Texts]:
    names = {name.split(".")[1] for name in arrays if name.startswith("text.")}
    parts = {name: [arrays[f"text.{name}.{part}"] for part in ("tokens", "offsets", "room")] for name in names}
    return {name: Texts(tokens, offsets, tuple(room.tolist())) for name, (tokens, offsets, room) in parts.items()}


def _seen(path: pathlib.Path, array: np.ndarray) -> list:
    """What entry.json keeps of an array: its file's size, its dtype and its shape."""
    return [path.stat().st_size, array.dtype.str, list(array.shape)]


def _read(entry: pathlib.Path) -> Features | None:
    """Returns the features of an entry, or None if it is not there or damaged."""
    try:
        record = json.loads((entry / "entry.json").read_text())
        arrays = {}
        for path in entry.glob("*.npy"):
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            arrays[path.name.removesuffix(".npy")] = np.asarray(mapped)  # the same memory; a memmap is slow to index
        if record["files"] != {f"{name}.npy": _seen(entry / f"{name}.npy", array) for name, array in arrays.items()}:
            return None
        offsets = arrays["offsets"]
        if offsets[0] != 0 or offsets[-1] != len(arrays["tokens"]) or (np.diff(offsets) < 0).any():
            return None
        return Features(
            arrays["tokens"],
            arrays["offsets"],
            {name.removeprefix("field."): array for name, array in arrays.items() if name.startswith("field.")},
            {
                name.removeprefix("token_field."): array
                for name, array in arrays.items()
                if name.startswith("token_field.")
            },
            _texts(arrays),
        )
    except (
        OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, MemoryError, SyntaxError,
        EOFError, tokenize.TokenError, zipfile.BadZipFile,
    ):  # fmt: skip
        return None  # what json and numpy make of a file that is cut short, or of other bytes
