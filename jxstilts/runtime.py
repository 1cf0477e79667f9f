"""What every process needs before any model exists: errors, safe file writes, signals, start-up, versions."""

import contextlib
import difflib
import errno
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import re
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: schedulers requeue on it

# What a file system says, and what helps.
FREE = "free some, or give a folder on another disk"
OTHER = "give another folder, or change this one's permissions"
FILES = {
    errno.ENOSPC: FREE, errno.EDQUOT: FREE, errno.EFBIG: "raise the limit (ulimit -f)",
    errno.EROFS: OTHER, errno.EACCES: OTHER, errno.EPERM: OTHER,
    errno.ENOTDIR: "give another folder", errno.EEXIST: "give another folder", errno.EISDIR: "give a file",
    errno.ENAMETOOLONG: "give a shorter name", errno.EMFILE: "raise the limit (ulimit -n)",
    errno.ENFILE: "close some", errno.EIO: "the disk, or the way to it, is broken", errno.ESTALE: "mount it again",
}  # fmt: skip
MEMORY = (
    "take a smaller batch_size (of an evaluation: tokens_per_batch) or more accumulation, config.compute.remat='full', "
    "config.compute.dtype='bfloat16' or more config.mesh.fsdp; `jxstilts check` says what fits"
)

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
    return f"unknown {what} {str(name)!r:.80}{hint} Known: {', '.join(known) or 'none'}"


def shown(text: str, longest: int = 1000) -> str:
    """The text as one line that any terminal shows as it is, and not longer than a message should be."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text[:longest])


def counted(number: int, noun: str) -> str:
    """Returns "1 phase", "2,000 phases"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shown_list(names: Iterable[str], most: int = 20) -> str:
    """Returns names for an error message, the first `most` of them."""
    names = [f"{name!r:.60}" for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def trouble(error: BaseException, memory: str = MEMORY) -> str | None:
    """Says in one line what this machine ran out of, or would not do, and what helps; None where it is neither.

    memory: what helps against a lack of it. TensorStore's errors (ValueError) and those of libraries in Rust (plain
    Exception) quote the system's number.
    """
    said = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"out of this machine's memory{f' ({said})' if said else ''}: {memory}"
    quoted = re.search(r"(?:os_error_code='|\(os error )(\d+)", said)
    number = int(quoted[1]) if quoted else getattr(error, "errno", None)
    if number in FILES:
        named = re.search(r'(?:Failed \w+|local file):? "([^"]+)"', said)
        path = named[1] if quoted and named else getattr(error, "filename", None)
        return f"{path or 'a file, or the output'}: {os.strerror(number)}: {FILES[number]}"
    if isinstance(error, OSError) and number is None and said.endswith("written"):  # numpy's, which drops the number
        return f"{said}; is the disk full? {FREE}"
    if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in said:
        return f"out of the device's memory ({said[:300]}): {memory}"
    return None


@contextlib.contextmanager
def explained(where: str = "", memory: str = MEMORY) -> Iterator[None]:
    """Makes of a full disk, a folder that cannot be written and a lack of memory an InputError: "WHERE: what, why"."""
    try:
        yield
    except Exception as error:  # libraries in Rust raise no less
        text = None if isinstance(error, InputError | Interrupted) else trouble(error, memory)
        if text is None:
            raise
        raise InputError(f"{where}: {text}" if where else text) from error


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Adds the file's name to an error of the block: what fails after `open` does not say where."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise OSError(f"{path}: {error}") from error
        error.filename = error.filename or str(path)
        raise


def atomic_write(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a whole file or nothing: a reader, or a crash, never sees half of it."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        with writing(path), open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            temporary.unlink()
        raise


def make_folder(path: str | os.PathLike, where: str) -> pathlib.Path:
    """Makes a folder that results go to, and sees that files can be written there.

    where: the option or key, for messages. Raises InputError otherwise: a file, no right, a place that holds no files
    (/proc). A full disk is left to what writes there.
    """
    path = pathlib.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{where}={str(path)!r:.200}: {why}; {FILES.get(number, 'give another folder')}") from error
    return path


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
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # small programs add up at every start


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
