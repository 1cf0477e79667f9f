"""The roll that process 0 keeps of several processes: its messages, meetings, and what ends them (see `processes`).

Lines of JSON, {"kind": ...}. To the keeper: hello, meet, stop, call, left. From it: welcome, refused, met, report,
stop_at, bye, end. Both ways: beat.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from jxstilts.runtime import EXIT_BAD_INPUT, EXIT_INTERRUPTED, InputError

SILENCE = 90.0  # seconds without a sign of life after which a process is taken for lost; JAX's own limit is 100
GRACE = 10.0  # seconds that the others have to leave, after one has left with an error
PATIENCE = 60.0  # seconds that the others have to come to a meeting, after one has come to it with a failure
MOMENT = 3.0  # seconds that the others have to read why they end
LONGEST = 1 << 26  # bytes of a message
AGAIN = "run the same command again to go on from what is saved"

_at_end: list[Callable[[], None]] = []


def at_end(work: Callable[[], None]) -> None:
    """Has something done before this process is ended from outside its main thread."""
    _at_end.append(work)


def end(code: int) -> None:
    """Ends this process at once, whatever its threads wait for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _end_with(text: str, code: int) -> None:
    for work in _at_end:
        work()
    os.write(2, f"jxstilts: {text}\n".encode())  # in one piece, whatever the main thread is printing
    end(code)


class _Line:
    """A connection that carries messages both ways. Raises OSError when it is broken, TimeoutError after `silence`."""

    def __init__(self, connection: socket.socket, silence: float):
        connection.settimeout(silence)
        self._connection, self._file = connection, connection.makefile("rb")
        self._sending = threading.Lock()

    def send(self, message: dict) -> None:
        with self._sending:
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict:
        data = self._file.readline(LONGEST)
        if not data.endswith(b"\n"):
            raise ConnectionError("closed")
        message = json.loads(data)
        if not isinstance(message, dict):
            raise ValueError("not a message")
        return message

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def _start(work: Callable, *args: Any) -> None:
    threading.Thread(target=work, args=args, name="roll", daemon=True).start()


def _named(me: dict) -> str:
    return f"process {me['process']} of {me['of']} (pid {me['pid']} on {me['host']})"


class Roll:
    """This process's end of the roll. `tell` sends to the keeper, `hear` takes what it sends."""

    def __init__(self, me: dict, timeout: float, connection: socket.socket | None = None, keeper: Any = None):
        """connection: to the keeper; None where it is in this process. Raises InputError when it refuses."""
        self.index, self.count = me["process"], me["of"]
        self._changed = threading.Condition()
        self._met: dict[int, list] = {}
        self._meetings = self._calls = 0
        self._wanted = self._reporting = self._bye = False
        self._stop_at: int | None = None
        self.welcome: dict = {}
        if connection is None:
            self.tell = lambda message: keeper.heard(0, message)
            return
        line = _Line(connection, timeout)  # the keeper answers once all are there
        line.send({"kind": "hello", **me})
        try:
            self.welcome = line.receive()
        except (OSError, ValueError) as error:
            raise InputError(f"{_named(me)}: process 0 went away before all had joined ({error})") from error
        if self.welcome.get("kind") != "welcome":
            raise InputError(f"{_named(me)}: {self.welcome.get('text', 'process 0 has refused it')}")
        silence = min(timeout, SILENCE)
        connection.settimeout(silence)
        self._line, self._keeper = line, self.welcome["keeper"]
        self.tell = self._send
        _start(self._listen, silence)
        _start(_beat, line, silence)

    def _send(self, message: dict) -> None:
        with contextlib.suppress(OSError):  # the thread that listens finds out, too, and says so
            self._line.send(message)

    def _listen(self, silence: float) -> None:
        what = f"{_named(self._keeper)} has ended without a word"
        try:
            while True:
                self.hear(self._line.receive())
        except TimeoutError:
            what = f"{_named(self._keeper)} has not been heard of for {silence:.0f} s"
        except (OSError, ValueError):
            pass
        if not self._bye:
            _end_with(f"{what}; this process stops; {AGAIN}", EXIT_INTERRUPTED)

    def hear(self, message: dict) -> None:
        kind = message["kind"]
        if kind == "end":
            _end_with(message["text"], message["code"])
        if kind == "report":
            with self._changed:
                self._reporting, calls = True, self._calls
            self.tell({"kind": "call", "calls": calls})
            return
        with self._changed:
            if kind == "met":
                self._met[message["number"]] = message["values"]
            elif kind == "stop_at":
                self._stop_at = message["call"]
            elif kind == "bye":
                self._bye = True
            self._changed.notify_all()

    def meet(self, name: str, value: Any, failure: str = "") -> list:
        number, self._meetings = self._meetings, self._meetings + 1
        self.tell({"kind": "meet", "number": number, "name": name, "value": value, "failure": failure})
        with self._changed:
            self._changed.wait_for(lambda: number in self._met)
            return self._met.pop(number)

    def stop(self, wanted: bool) -> bool:
        """Whether all stop at this call. After a signal the keeper has all report how many calls they have made; from
        then on each holds at its next call until the keeper has named the call at which all stop: one that none has
        passed.
        """
        if wanted and not self._wanted:
            self._wanted = True
            self.tell({"kind": "stop"})
        with self._changed:
            self._changed.wait_for(lambda: not self._reporting or self._stop_at is not None)
            self._calls += 1
            return self._stop_at is not None and self._calls >= self._stop_at

    def leave(self, code: int, cause: str) -> None:
        """Says goodbye; code is not 0 after an error. Process 0 stays until the others have left, or ends them."""
        self.tell({"kind": "left", "code": code, "cause": cause})
        with self._changed:
            self._changed.wait_for(lambda: self._bye, timeout=GRACE + 10.0)


def _beat(line: _Line, silence: float) -> None:
    with contextlib.suppress(OSError):
        while True:
            line.send({"kind": "beat"})
            time.sleep(min(5.0, silence / 4))


class Keeper:
    """Process 0's: takes the messages of all, itself included."""

    def __init__(self, listener: socket.socket, me: dict, more: dict, timeout: float):
        """more: fields of the welcome. timeout: for joining, and for coming to a meeting."""
        self._listener, self._more, self._timeout = listener, {"keeper": me, **more}, timeout
        self._silence = min(timeout, SILENCE)
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._who = {0: me}
        self._lines: dict[int, _Line] = {}
        self._left: dict[int, int] = {}  # index: exit code
        self._gone: set[int] = set()  # their connections have ended
        self._meetings: dict[int, dict[int, dict]] = {}  # number: index: message
        self._since: dict[int, float] = {}
        self._last: dict[int, str] = {}  # index: the last meeting it came to
        self._calls: dict[int, int] = {}
        self._stopping = self._ended = False
        self._failed: tuple[float, str, int] | None = None  # until when the others may leave by themselves; why; code
        self._own: Roll | None = None

    def gather(self) -> Roll:
        """Waits until all have joined, and returns this process's own roll. Raises InputError: who is missing."""
        _start(self._accept)
        count = self._who[0]["of"]
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._who) == count, self._timeout):
                missing = [str(i) for i in range(count) if i not in self._who]
                text = f"process {', '.join(missing)} of {count} did not join within {self._timeout:.0f} s"
                for line in self._lines.values():
                    with contextlib.suppress(OSError):
                        line.send({"kind": "refused", "text": text})
                raise InputError(f"{text}; start them all with the same --coordinator and --processes")
            self._own = Roll(self._who[0], self._timeout, keeper=self)
            for line in self._lines.values():
                with contextlib.suppress(OSError):  # noticed by the thread that listens
                    line.send({"kind": "welcome", **self._more})
        self._listener.close()
        for index, line in self._lines.items():
            _start(self._listen, index, line)
            _start(_beat, line, self._silence)
        _start(self._watch)
        return self._own

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed: all are there
                return
            _start(self._admit, connection)

    def _admit(self, connection: socket.socket) -> None:
        line = _Line(connection, 10.0)
        try:
            hello = line.receive()
            index = hello["process"]
            wanted = {key: hello[key] for key in ("process", "of", "host", "pid", "version")}
        except (OSError, ValueError, KeyError):  # not one of us
            line.close()
            return
        connection.settimeout(self._silence)
        with self._changed:
            mine = self._who[0]
            differs = [f"{key} is {wanted[key]}, here it is {mine[key]}" for key in ("of", "version")
                       if wanted[key] != mine[key]]  # fmt: skip
            if index in self._who:
                differs.append(f"{_named(self._who[index])} is there already")
            elif index not in range(mine["of"]):
                differs.append(f"there is no process {index}")
            if differs:
                line.send({"kind": "refused", "text": "; ".join(differs)})
                line.close()
                return
            self._who[index], self._lines[index] = wanted, line
            self._changed.notify_all()

    def _listen(self, index: int, line: _Line) -> None:
        what = "has ended without a word"
        try:
            while True:
                self.heard(index, line.receive())
        except TimeoutError:
            what = f"has not been heard of for {self._silence:.0f} s"
        except (OSError, ValueError, KeyError):
            pass
        with self._changed:
            self._gone.add(index)
            self._changed.notify_all()
            if index not in self._left:
                self._end(f"{_named(self._who[index])} {what}; the others stop; {AGAIN}", EXIT_INTERRUPTED)

    def heard(self, index: int, message: dict) -> None:
        with self._lock:
            kind = message["kind"]
            if kind == "meet":
                self._come(index, message)
            elif kind == "stop" and not self._stopping:
                self._stopping = True
                self._send({"kind": "report"})
            elif kind == "call":
                self._calls[index] = message["calls"]
                if len(self._calls) == len(self._who):
                    self._send({"kind": "stop_at", "call": max(self._calls.values()) + 1})
            elif kind == "left":
                self._leave(index, message["code"], message["cause"])

    def _come(self, index: int, message: dict) -> None:
        number, name = message["number"], message["name"]
        come = self._meetings.setdefault(number, {})
        come[index] = message
        self._last[index] = name
        self._since.setdefault(number, time.monotonic())
        if len(come) < len(self._who):
            if message["failure"]:  # the others may wait for this one in a collective
                self._fail(index, PATIENCE, message["failure"], EXIT_BAD_INPUT)
            return
        places = {i: come[i]["name"] for i in sorted(come)}
        if len(set(places.values())) > 1:
            listed = "; ".join(f"process {i}: {place}" for i, place in places.items())
            self._end(f"the processes do not do the same ({listed}); this is an error of the program", 1, index)
        self._send({"kind": "met", "number": number, "values": [come[i]["value"] for i in sorted(come)]})
        del self._meetings[number], self._since[number]
        if not self._left:
            self._failed = None  # all have come: they know of it

    def _leave(self, index: int, code: int, cause: str) -> None:
        self._left[index] = code
        if code:
            self._fail(index, GRACE, cause, code)
        if index:
            with contextlib.suppress(OSError):
                self._lines[index].send({"kind": "bye"})
        if 0 in self._left and len(self._left) == len(self._who):
            self._own.hear({"kind": "bye"})

    def _fail(self, index: int, seconds: float, cause: str, code: int) -> None:
        if self._failed is None:
            text = f"{_named(self._who[index])} stopped: {cause}; the others stop, too"
            self._failed = time.monotonic() + seconds, text, code

    def _watch(self) -> None:
        """Looks after what takes too long."""
        while not self._ended:
            time.sleep(min(0.5, self._timeout / 4))
            with self._lock:
                now = time.monotonic()
                if self._failed and now > self._failed[0]:
                    self._end(*self._failed[1:])
                for number, since in list(self._since.items()):
                    if now - since > self._timeout and not self._failed:
                        self._too_late(number)

    def _too_late(self, number: int) -> None:
        come = self._meetings[number]
        name = next(iter(come.values()))["name"]
        missing = [
            f"{_named(me)}, last seen at {self._last.get(i, 'the start')!r}"
            for i, me in sorted(self._who.items()) if i not in come
        ]  # fmt: skip
        self._end(
            f"{'; '.join(missing)} did not come to {name!r} within {self._timeout:.0f} s; all stop; {AGAIN}",
            EXIT_INTERRUPTED,
        )

    def _end(self, text: str, code: int, by: int = 0) -> None:
        """Ends all that have not left, this process last. by: whose listening thread this is, which hears no more."""
        if self._ended:
            return
        self._ended = True
        last = {"kind": "end", "text": text, "code": code}
        self._tell_others(last)
        # What has not been read when this process ends is lost.
        self._changed.wait_for(lambda: self._gone | {by} >= self._lines.keys(), MOMENT)
        self._own.hear({"kind": "bye"} if 0 in self._left else last)

    def _send(self, message: dict) -> None:
        self._tell_others(message)
        if 0 not in self._left:
            self._own.hear(message)

    def _tell_others(self, message: dict) -> None:
        for index, line in self._lines.items():
            if index not in self._left:
                with contextlib.suppress(OSError):
                    line.send(message)
