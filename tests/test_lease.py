"""Leases of a shared folder: one owner at a time, a dead one is replaced, a lost one is noticed."""

import contextlib
import errno
import json
import multiprocessing
import os
import pathlib
import signal
import threading
import time
import types

import numpy as np
import pytest

from jxstilts import lease

Lease = lease.Lease  # a Stage puts something else there
spawn = multiprocessing.get_context("spawn")


def hold(path, ready):
    lease.acquire(path)
    ready.set()
    time.sleep(60)


def count(path, times):
    """Adds 1 to the number in a file, `times` times."""
    for _ in range(times):
        with lease.locked(path.with_suffix(".lock"), poll=0.001):
            path.write_text(str(int(path.read_text()) + 1))


def take(folder, rounds, together, winners):
    """Tells which of the leases 0 to rounds - 1 this process got, where others want the same one at the same time."""
    won = []
    for n in range(rounds):
        together.wait()
        if held := lease.acquire(folder / str(n)):
            won.append(n)
        together.wait()
        if held:
            held.release()
    winners.put(won)


@pytest.fixture
def process(tmp_path):
    """A process that holds tmp_path/a."""
    ready = spawn.Event()
    process = spawn.Process(target=hold, args=(tmp_path / "a", ready))
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()
    process.join()


def test_one_holds_it_and_gives_it_up(tmp_path):
    held = lease.acquire(tmp_path / "new/a")
    assert lease.acquire(tmp_path / "new/a") is None
    assert lease.living(tmp_path / "new/a")["pid"] == os.getpid() and not held.lost
    held.release()
    assert lease.living(tmp_path / "new/a") == {} and list((tmp_path / "new").iterdir()) == []
    again = lease.acquire(tmp_path / "new/a")
    held.release()  # a second time: no longer its own
    assert lease.owner(tmp_path / "new/a")["pid"] == os.getpid()
    again.release()


def test_a_killed_owner_is_replaced_at_once(tmp_path, process):
    assert lease.acquire(tmp_path / "a") is None
    assert lease.living(tmp_path / "a")["pid"] == process.pid
    os.kill(process.pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while (held := lease.acquire(tmp_path / "a")) is None:  # not yet reaped: a zombie is as dead
        assert time.monotonic() < end
    held.release()
    assert list(tmp_path.iterdir()) == []


def test_an_owner_elsewhere_is_replaced_when_it_is_silent(tmp_path):
    path = tmp_path / "a"
    other = {"host": "elsewhere", "machine": "elsewhere", "pid": 1, "token": "t"}
    path.write_text(json.dumps(other))
    assert lease.acquire(path) is None
    os.utime(path, (time.time() - lease.EXPIRES - 5,) * 2)
    assert lease.living(path) == {}
    lease.acquire(path).release()
    path.write_text("")  # cut short when that machine went down
    assert lease.acquire(path) is None
    os.utime(path, (time.time() - lease.EXPIRES - 5,) * 2)
    lease.acquire(path).release()


def test_an_owner_elsewhere_is_known_by_its_next_sign_of_life(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text(json.dumps({"host": "elsewhere", "machine": "elsewhere", "pid": 7, "token": "t"}))
    looked = []

    def sleep(seconds):
        looked.append(seconds)
        if len(looked) == 3:
            os.utime(path)

    monkeypatch.setattr(lease.time, "sleep", sleep)
    assert lease.living(path)["pid"] == 7 and len(looked) == 3


def test_it_is_kept_alive_and_a_loss_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.02)
    path = tmp_path / "a"
    held = lease.acquire(path)
    os.utime(path, (1, 1))
    end = time.monotonic() + 10
    while path.stat().st_mtime < 2:
        assert time.monotonic() < end
    path.unlink()
    other = json.dumps({"host": "elsewhere", "machine": "elsewhere", "pid": 1, "token": "t"})
    path.write_text(other)
    while not held.lost:
        assert time.monotonic() < end
    held.release()
    assert path.read_text() == other  # it is not taken from its new owner


def test_a_process_that_slept_looks_before_it_goes_on(tmp_path, monkeypatch):
    held = lease.acquire(tmp_path / "a")
    monkeypatch.setattr(lease, "EXPIRES", -1.0)  # as if no sign of life had been given for long
    assert not held.lost
    (tmp_path / "a").unlink()
    assert held.lost


def test_of_many_one_replaces_the_dead(tmp_path, process):
    process.kill()
    process.join()
    for n in range(100):
        (tmp_path / str(n)).write_bytes((tmp_path / "a").read_bytes())
    together, winners = spawn.Barrier(4), spawn.Queue()
    others = [spawn.Process(target=take, args=(tmp_path, 100, together, winners)) for _ in range(4)]
    for other in others:
        other.start()
    won = [winners.get(timeout=60) for _ in others]
    for other in others:
        other.join(60)
    assert sorted(n for names in won for n in names) == list(range(100))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


class Killed(BaseException):
    """A process ends here: nothing of it runs any more, no `finally` either."""


class Stage:
    """Threads that lease.py takes for processes, of which one runs at a time, from one file operation to the next."""

    def __init__(self, monkeypatch):
        self.living, self.ended = {os.getpid()}, set()
        self._here, self._back = threading.local(), threading.Semaphore(0)
        self._turns = {}
        real = os.getpid()
        monkeypatch.setattr(lease.os, "getpid", lambda: getattr(self._here, "pid", real))
        monkeypatch.setattr(lease, "_running", lambda pid: pid in self.living)
        monkeypatch.setattr(lease, "Lease", lambda path, token: path)
        monkeypatch.setattr(lease.time, "sleep", lambda seconds: self._stop())
        for module, name in [(lease.os, "link"), (lease.os, "replace"), (lease.os, "unlink"), (lease, "owner")]:
            monkeypatch.setattr(module, name, self._stopping(getattr(module, name)))

    def _stop(self):
        if pid := getattr(self._here, "pid", None):
            self._back.release()
            self._turns[pid].acquire()
            if pid not in self.living:
                raise Killed

    def _stopping(self, function):
        def stopped(*args, **options):
            self._stop()
            return function(*args, **options)

        return stopped

    def start(self, pid, function):
        def run():
            self._here.pid = pid
            with contextlib.suppress(Killed):
                self._stop()
                function()
            self.ended.add(pid)
            self._back.release()

        self.living.add(pid)
        self._turns[pid] = threading.Semaphore(0)
        threading.Thread(target=run, daemon=True).start()
        self._back.acquire()

    def step(self, pid):
        self._turns[pid].release()
        assert self._back.acquire(timeout=60)


@pytest.mark.parametrize("deaths", [0.0, 0.1])
def test_in_every_order_one_has_it(tmp_path, monkeypatch, deaths):
    """Three want the lease of a dead one and a fourth clears it away; each stops anywhere, and may be killed there."""
    dead, *others, clearer = range(2**22, 2**22 + 5)  # above the numbers of real processes
    for seed in range(150):
        random, folder = np.random.default_rng(seed), tmp_path / str(seed)
        with monkeypatch.context() as patch:
            stage, winners = Stage(patch), set()
            stage.start(dead, lambda folder=folder: lease.acquire(folder / "a"))
            while dead not in stage.ended:
                stage.step(dead)
            stage.living.discard(dead)

            def want(pid, folder=folder, winners=winners):
                if lease.acquire(folder / "a"):
                    winners.add(pid)

            def clear(folder=folder, seed=seed):
                seat = lease.acquire(tmp_path / f"seat {seed}")
                Lease.clear(types.SimpleNamespace(path=seat), folder)

            for pid in others:
                stage.start(pid, lambda pid=pid: want(pid))
            stage.start(clearer, clear)
            while rest := sorted({*others, clearer} - stage.ended):
                pid = int(random.choice(rest))
                if random.random() < deaths:
                    stage.living.discard(pid)
                stage.step(pid)
                assert len(winners & stage.living) <= 1, seed
            has = lease.acquire(folder / "a")
            assert (has is None) == bool(winners & stage.living), seed
            assert deaths or [path.name for path in folder.iterdir()] == ["a"], seed


def test_a_place_that_could_not_be_taken_is_free_for_the_next(tmp_path, process, monkeypatch):
    process.kill()
    process.join()

    def refuse(*paths):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(lease.os, "replace", refuse)
        lease.acquire(tmp_path / "a")
    lease.acquire(tmp_path / "a").release()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_file_system_is_cleared(tmp_path, process, monkeypatch):
    process.kill()
    process.join()
    link = os.link

    def beside(source, target):
        if pathlib.Path(source).parent != pathlib.Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target)

    monkeypatch.setattr(lease.os, "link", beside)
    seat = lease.acquire(tmp_path / "elsewhere/seat")
    seat.clear(tmp_path, "a")
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    seat.release()


def test_a_file_that_two_change_loses_nothing(tmp_path):
    path = pathlib.Path(tmp_path / "n")
    path.write_text("0")
    others = [spawn.Process(target=count, args=(path, 40)) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
    assert path.read_text() == "80"
