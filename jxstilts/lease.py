"""Who works on what in a folder that several processes, or machines, share.

A lease is a file that appears whole (a hard link), says whose it is, and is touched while its owner lives. It may be
taken over once it has not been touched for `EXPIRES` seconds, and at once where its owner was a process of this machine
that is no longer there. No lock of the file system is used, so it works wherever hard links and renames do.
"""

import contextlib
import json
import os
import pathlib
import secrets
import socket
import threading
import time
from collections.abc import Iterator

from jxstilts import roll

EXPIRES = 120.0  # seconds without a sign of life
BEAT = 10.0  # seconds between two signs of life

_held: set["Lease"] = set()  # by this process


class Lease:
    """A lease that this process holds; see `acquire`. A thread keeps it alive until `release`."""

    def __init__(self, path: pathlib.Path, token: str):
        self.path, self._token = path, token
        self._seen = time.monotonic()
        self._gone = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease {path.name}", daemon=True)
        self._thread.start()
        _held.add(self)

    @property
    def lost(self) -> bool:
        """Whether another process has it by now, say because this one was stopped for a while."""
        if not self._gone and time.monotonic() - self._seen > EXPIRES:
            self._renew()
        return self._gone

    def release(self) -> None:
        """Gives the lease up; does nothing where it is lost."""
        self._ended.set()
        self._thread.join()
        _held.discard(self)
        if not self.lost and owner(self.path).get("token") == self._token:
            self.path.unlink(missing_ok=True)
        self._gone = True

    def clear(self, folder: str | os.PathLike, names: str = "[!.]*") -> None:
        """Removes the leases of dead owners from a folder, and what killed ones left beside them. names: a glob."""
        folder = pathlib.Path(folder)
        for path in folder.glob(names):
            with _signed(path) as (own, _):  # not this lease's file: the folder may be on another file system
                if (holder := owner(path)) and _dead(holder, path, own):
                    _succeed(path, holder, own, keep=False)
        os.utime(self.path)
        now = self.path.stat().st_mtime
        for path in folder.glob(f".{names}.*"):
            with contextlib.suppress(FileNotFoundError):
                if now - path.stat().st_mtime > EXPIRES:
                    path.unlink()

    def _beat(self) -> None:
        while not self._gone and not self._ended.wait(BEAT):
            self._renew()

    def _renew(self) -> None:
        try:
            if owner(self.path).get("token") == self._token:
                os.utime(self.path)
                self._seen = time.monotonic()
            else:
                self._gone = True
        except FileNotFoundError:
            self._gone = True
        except OSError:  # a file system that is away for a moment: the next time will tell
            pass


def acquire(path: str | os.PathLike) -> Lease | None:
    """Returns the lease of this name, or None where another holds it. Makes the folder.

    Waits where another is taking a dead owner's place: milliseconds, or `EXPIRES` if its machine is lost just then.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _signed(path) as (own, token):
        while True:
            try:
                os.link(own, path)
                return Lease(path, token)
            except FileExistsError:
                holder = owner(path)
                if not holder:
                    continue  # given up in between
                if not _dead(holder, path, own):
                    return None
                if _succeed(path, holder, own):
                    return Lease(path, token)
                time.sleep(0.01)  # another is at it


@contextlib.contextmanager
def locked(path: str | os.PathLike, poll: float = 0.05) -> Iterator[None]:
    """Holds the lease `path` inside the block; waits for it as long as another holds it."""
    while (lease := acquire(path)) is None:
        time.sleep(poll)
    try:
        yield
    finally:
        lease.release()


def owner(path: str | os.PathLike) -> dict:
    """Returns what a lease says of its owner (host, machine, pid, token); {} where there is none."""
    try:
        with open(path) as file:
            try:
                return json.load(file)
            except ValueError:  # a machine went down before the file reached its disk: nobody's, until it expires
                return {"host": "?", "machine": "", "pid": 0, "token": f"inode {os.fstat(file.fileno()).st_ino}"}
    except FileNotFoundError:
        return {}


def living(path: str | os.PathLike) -> dict:
    """Returns the `owner` of a lease if it is alive, else {}.

    An owner on another machine is known to be alive only by its next sign of life, so this may take `BEAT` seconds,
    and up to `EXPIRES` where it is not.
    """
    path = pathlib.Path(path)
    probe = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    first = None
    try:
        while holder := owner(path):
            probe.touch()
            if _dead(holder, path, probe):
                return {}
            with contextlib.suppress(FileNotFoundError):
                beat = path.stat().st_mtime_ns
                if holder["machine"] == _machine() or first not in (None, beat):
                    return holder
                first = beat
            time.sleep(1.0)
        return {}
    finally:
        probe.unlink(missing_ok=True)


@contextlib.contextmanager
def _signed(path: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
    """A hidden file beside `path` that says who this process is, and its new token; gone after the block."""
    token = secrets.token_hex(8)
    own = path.with_name(f".{path.name}.{token}")
    me = {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(), "token": token}
    try:
        own.write_text(json.dumps(me))
        yield own, token
    finally:
        own.unlink(missing_ok=True)


def _dead(holder: dict, path: pathlib.Path, fresh: pathlib.Path) -> bool:
    """fresh: a file that was just written beside it, so that both times are of the same clock, the file system's."""
    if holder["machine"] == _machine() and not _running(holder["pid"]):
        return True
    os.utime(fresh)
    try:
        return fresh.stat().st_mtime - path.stat().st_mtime > EXPIRES
    except FileNotFoundError:
        return True  # given up in between


def _succeed(path: pathlib.Path, dead: dict, own: pathlib.Path, keep: bool = True) -> bool:
    """Replaces a dead owner's file by `own` (or removes it: not `keep`). False where another does so, or came first.

    Only who has the claim on a dead owner's token touches its file, so that a living owner's is never moved, not for a
    moment. A claim is a hard link too, named by that token; on the token of one who died in the middle there is a claim
    in turn. Claims go after the file has changed, and who gets one looks at the file again: a late one changes nothing.
    """
    token, claims = dead["token"], []
    while True:
        claims.append(path.with_name(f".{path.name}.{token}.next"))
        try:
            os.link(own, claims[-1])
            break
        except FileExistsError:
            before = owner(claims[-1])
            if not before or not _dead(before, claims[-1], own):
                return False
            token = before["token"]
    spent = claims[-1:]
    try:
        if first := owner(path).get("token") == dead["token"]:
            if keep:
                os.replace(own, path)
            else:
                path.unlink(missing_ok=True)
            spent = claims
        return first
    finally:  # also where the file system refuses: a claim that a living process has left would never be anyone else's
        for claim in spent:
            claim.unlink(missing_ok=True)


def _machine() -> str:
    """Where a process number means something: this host, since it was started, and its space of process numbers."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    with contextlib.suppress(OSError, IndexError):  # a killed process whose parent has not yet asked for its end
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return True


def _release_all() -> None:
    for held in list(_held):
        held.release()


roll.at_end(_release_all)
