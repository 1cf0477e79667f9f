"""What every process needs before any model exists: errors, safe file writes, signals, start-up, versions."""

import contextlib
import difflib
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import secrets
import signal
import sys
import threading
from collections.abc import Iterable, Iterator

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: schedulers requeue on it

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "tokenizers", "numpy")


class InputError(ValueError):
    """Bad input or configuration: one line that says what was given, what is allowed and what to change."""


class Interrupted(Exception):
    """The process was asked to stop; the state has been saved and the same command goes on from there."""


def suggest(what: str, name: object, known: Iterable[str]) -> str:
    """Returns "unknown WHAT 'name'; did you mean 'x'? known: ..." for an error message."""
    known = sorted(map(str, known))
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {str(name)!r}{hint} Known: {', '.join(known) or 'none'}"


def atomic_write(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a whole file or nothing: a reader, or a crash, never sees half of it."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def sha256_file(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Returns the versions that a result depends on, for provenance records."""
    found = {"python": platform.python_version(), "jxstilts": sys.modules["jxstilts"].__version__}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def start(compile_cache: str | None = None) -> None:
    """Sets what a process must set before JAX compiles anything: the persistent compile cache.

    `compile_cache` is a folder; None leaves JAX's own setting (`JAX_COMPILATION_CACHE_DIR`) alone. The folder is
    trusted input: anyone who can write there can make this process run code.
    """
    import jax

    if compile_cache:
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(compile_cache).expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@contextlib.contextmanager
def stop_requested() -> Iterator[list[str]]:
    """Yields a list that gets the signal's name once SIGTERM or SIGINT arrives; a second SIGINT stops at once.

    Inside the block the first signal only asks: the training loop sees it between two steps, saves and leaves.
    """
    received: list[str] = []

    def note(number, frame):
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield received  # signals are delivered to the main thread only
        return
    previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
