"""What a split holds, by content: the files that `tasks.load` would read, and their SHA-256."""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator

from jxstilts import runtime, tasks
from jxstilts.tasks import pairs, sources


def digests(
    name: str, data_dir: str | os.PathLike, split: str, language: str, source: str, kept: pathlib.Path
) -> dict[str, str]:
    """Returns {file: SHA-256} of what `tasks.load` reads; names relative to the data folder, or to TFDS's.

    kept: folder that keeps what was computed, by path, size and time of the last change. A file that is not there is
    left out: reading it is what fails, with a message that says where it should be.
    """
    found = _files(tasks.get(name), data_dir, split, language, source)
    return {path.relative_to(root).as_posix(): _digest(path, kept) for root, path in found}


def _files(spec, data_dir, split, language, source) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Yields (folder, file) in the order of preference of `tasks.load`."""
    if spec.parts:
        for part in spec.parts:
            yield from _files(tasks.get(part), data_dir, split, language, source)
        return
    if spec.paired and len(pairs.sides(language)) > 1:
        for side in pairs.sides(language):
            yield from _files(spec, data_dir, split, side, source)
        return
    root = pathlib.Path(data_dir).expanduser()
    if source != "tfds":
        paths = sources.find_files(spec, root, split, language) or sources.find_translated(spec, root, split, language)
        for path in paths:
            yield root, path
            yield from ((root, other) for other in (spec.companions(path) if spec.companions else ()))
        if paths:
            return
    if source != "files":
        for folder in sources.find_tfds(spec, split, language):
            yield from ((sources.tfds_folder(), path) for path in sorted(folder.iterdir()) if path.is_file())


def _digest(path: pathlib.Path, kept: pathlib.Path) -> str:
    path = path.absolute()
    stat = path.stat()
    seen = {"path": str(path), "size": stat.st_size, "changed": stat.st_mtime_ns}
    record = kept / f"{hashlib.sha256(str(path).encode()).hexdigest()}.json"
    if record.exists():
        before = json.loads(record.read_text())
        if all(before[key] == value for key, value in seen.items()):
            return before["sha256"]
    sha = runtime.sha256_file(path)
    runtime.atomic_write(record, json.dumps({**seen, "sha256": sha}))
    return sha
