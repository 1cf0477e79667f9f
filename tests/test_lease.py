"""Leases of a shared folder: one owner at a time, a dead one is replaced, a lost one is noticed."""

import json
import multiprocessing
import os
import pathlib
import signal
import time

import pytest

from jxstilts import lease

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


def take(path, together, winners):
    together.wait()
    if lease.acquire(path):
        winners.put(os.getpid())
    together.wait()


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


def test_a_lease_of_one_who_came_first_is_put_back(tmp_path):
    """Two find a dead owner; the slower one does not take the lease from the faster one."""
    path = tmp_path / "a"
    held = lease.acquire(path)
    lease._discard(path, "the token of the dead owner", "mine")
    assert not held.lost and lease.acquire(path) is None
    held.release()
    assert list(tmp_path.iterdir()) == []


def test_of_many_one_replaces_the_dead(tmp_path, process):
    process.kill()
    process.join()
    together, winners = spawn.Barrier(4), spawn.Queue()
    others = [spawn.Process(target=take, args=(tmp_path / "a", together, winners)) for _ in range(4)]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
    assert winners.get(timeout=5) and winners.empty()


def test_a_file_that_two_change_loses_nothing(tmp_path):
    path = pathlib.Path(tmp_path / "n")
    path.write_text("0")
    others = [spawn.Process(target=count, args=(path, 40)) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
    assert path.read_text() == "80"
