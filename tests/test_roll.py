"""The roll of several processes, without JAX: meeting, stopping at the same call, and noticing who is lost."""

import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from jxstilts import processes
from jxstilts.processes import Settings, first_node, settings
from jxstilts.runtime import InputError

START = """
import os, sys, time
from jxstilts import processes, roll
from jxstilts.runtime import InputError, Interrupted
roll.GRACE, roll.PATIENCE, roll.SILENCE = 0.5, 0.5, 3.0
wanted = processes.settings(*sys.argv[1:5])
try:
    processes._roll = processes._call(wanted, None)[0]
    print("joined", flush=True)
except InputError as error:
    sys.exit(f"error: {error}")
index = processes.index()
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def start(count, code, timeout=20, only=None, port=None):
    """Starts the processes, those of `only`, on a script in which they have joined."""
    port = port or free_port()
    return [
        subprocess.Popen(
            [sys.executable, "-c", START + code, str(count), str(index), f"localhost:{port}", str(timeout)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for index in (range(count) if only is None else only)
    ]  # fmt: skip


def ended(running, seconds=30):
    """Returns (exit code, output) of each, without the line that it has joined."""
    found = []
    for process in running:
        out, _ = process.communicate(timeout=seconds)
        found.append((process.returncode, out.removeprefix("joined\n").rstrip()))
    return found


def test_alone_nothing_waits():
    assert processes.index() == 0 and processes.count() == 1 and processes.first()
    assert processes.meet("here", 3) == [3] and processes.first_says("here", lambda: 4) == 4
    processes.same("a value", 5)
    with processes.joined(None):
        assert processes.agreed(bool)(1) is True
    processes.finish(75)  # no joined process: nothing to end


def test_values_go_round():
    code = """
print(processes.meet("a", {"i": index}), processes.first_says("b", lambda: [index, os.getppid() > 0]))
try:
    processes.first_says("c", lambda: (_ for _ in ()).throw(InputError("wrong data")))
except InputError as error:
    print(error)
try:
    processes.same("the config", index == 2)
except InputError as error:
    print(error)
processes._roll.leave(0, "")
"""
    said = "[{'i': 0}, {'i': 1}, {'i': 2}] [0, True]\nwrong data\n"
    other = "the config of process 2 is not that of process 0; start all with the same"
    assert ended(start(3, code)) == [(0, said + other)] * 3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_stop_at_the_same_call(seed):
    """One process wants to stop at its 20th call or so; all stop at one call, not before, soon after."""
    who, when = random.Random(seed).randrange(3), 20 + seed
    code = f"""
import random
chance = random.Random(index)
for call in range(1, 10000):
    time.sleep(chance.uniform(0, 0.004) * (1 + index))
    if processes._roll.stop(index == {who} and call == {when}):
        break
print(call, processes._roll.stop(False))
processes._roll.leave(75, "stopped")
"""
    found = ended(start(3, code))
    assert len({out for _, out in found}) == 1, found
    call, again = found[0][1].split()
    assert {when} <= {min(int(call), when)} and int(call) < 2000 and again == "True"


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_the_others_end_when_one_is_killed(victim):
    running = start(
        3, "processes.meet('a')\nprint('ready', flush=True)\nprocesses.meet('b') if index else time.sleep(50)\n"
    )
    for process in running:
        assert [process.stdout.readline() for _ in range(2)] == ["joined\n", "ready\n"]
    running[victim].kill()
    began = time.monotonic()
    for index, (code, out) in enumerate(ended(running)):
        if index != victim:
            pid = running[victim].pid
            assert code == 75 and f"process {victim} of 3 (pid {pid} on " in out and "has ended without a word" in out
            assert "run the same command again to go on" in out
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("victim", [0, 1])
def test_a_silent_process_is_named(victim):
    running = start(3, "time.sleep(50)\n")
    for process in running:
        assert process.stdout.readline() == "joined\n"
    running[victim].send_signal(signal.SIGSTOP)
    others = [process for process in running if process is not running[victim]]
    try:
        for code, out in ended(others):
            assert code == 75 and f"process {victim} of 3" in out and "has not been heard of for 3 s" in out
    finally:
        running[victim].kill()
        running[victim].communicate()


def test_who_does_not_come_to_a_meeting_is_named():
    script = "processes.meet('the data')\nif index == 1: time.sleep(60)\nprocesses.meet('the step')\n"
    for code, out in ended(start(3, script, timeout=1)):
        assert code == 75 and "process 1 of 3 (pid " in out and "process 0" not in out and "process 2" not in out
        assert "last seen at 'the data' did not come to 'the step' within 1 s; all stop; run the same" in out


def test_processes_at_different_places_end():
    for code, out in ended(start(2, "processes.meet('here' if index else 'there')\n")):
        assert code == 1 and "(process 0: there; process 1: here)" in out


@pytest.mark.parametrize("who", [0, 1])
def test_an_error_of_one_ends_the_others(who):
    """It leaves; the others wait for it in a collective, say, and are ended with its exit code and cause."""
    code = f"""
if index == {who}:
    processes._roll.leave(2, "no such file")
    sys.exit(2)
time.sleep(50)
"""
    found = ended(start(3, code))
    assert [code for code, _ in found] == [2, 2, 2]
    for index, (_, out) in enumerate(found):
        assert (f"process {who} of 3" in out and "stopped: no such file; the others stop, too" in out) == (index != who)


def test_a_failure_that_all_have_is_no_end():
    code = """
time.sleep(0.2 * index)
print(processes.meet("the end of phase a", "no data", failure="no data"))
time.sleep(1)
print(processes.meet("the end of phase b", ""))
processes._roll.leave(0, "")
"""
    assert ended(start(3, code)) == [(0, "['no data', 'no data', 'no data']\n['', '', '']")] * 3


def test_a_failure_of_one_ends_all():
    script = """
if index == 1:
    processes.meet("the end of phase a", "out of memory", failure="out of memory")
time.sleep(50)
"""
    for code, out in ended(start(3, script)):
        assert code == 2 and "process 1 of 3" in out and "stopped: out of memory" in out


def test_who_has_not_joined_is_named():
    found = ended(start(4, "", timeout=3, only=[0, 2]))  # a busy machine may start one a second after the other
    assert [code for code, _ in found] == [1, 1]
    for _, out in found:
        assert "process 1, 3 of 4 did not join within 3 s" in out
    ((code, out),) = ended(start(2, "", timeout=1, only=[1]))
    assert code == 1 and "process 1 of 2: process 0 is not at localhost:" in out


def test_strangers_and_doubles_are_turned_away():
    port = free_port()
    first = start(3, "print(processes.meet('a', index)); processes._roll.leave(0, '')", only=[0], port=port)
    end = time.monotonic() + 20
    while True:
        try:
            stranger = socket.create_connection(("localhost", port))
            break
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)
    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert stranger.recv(10) == b""
    ((code, out),) = ended(start(2, "", only=[1], port=port))
    assert code == 1 and "of is 2, here it is 3" in out
    more = start(3, "print(processes.meet('a', index)); processes._roll.leave(0, '')", only=[1, 1], port=port)
    while all(process.poll() is None for process in more):
        assert time.monotonic() < end
        time.sleep(0.05)
    (double,) = [process for process in more if process.poll() is not None]
    ((_, out),) = ended([double])
    assert "process 1 of 3 (pid " in out and "is there already" in out
    more.remove(double)
    running = (
        first + more + start(3, "print(processes.meet('a', index)); processes._roll.leave(0, '')", only=[2], port=port)
    )
    assert ended(running) == [(0, "[0, 1, 2]")] * 3


# Who takes part

SLURM = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "123456", "SLURM_STEP_NODELIST": "gpu[07-10,12]"}


def test_settings():
    assert settings(environ={}) is None
    assert settings("1", environ={}) is None
    explicit = Settings("explicit", "host:7000", 4, 2, 1800.0)
    assert settings("4", "2", "host:7000", environ={}) == explicit
    environ = {"JXSTILTS_PROCESSES": "4", "JXSTILTS_PROCESS": "2", "JXSTILTS_COORDINATOR": "host:7000"}
    assert settings(environ=environ) == explicit
    assert settings(process="1", timeout="60", environ=environ) == Settings("explicit", "host:7000", 4, 1, 60.0)
    assert settings("slurm", environ=SLURM) == Settings("slurm", "gpu07:23456", 8, 3, 1800.0)
    assert settings("slurm", coordinator="h:1", environ=SLURM).address == "h:1"
    assert settings("tpu", environ={}) == Settings("tpu")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("", "1"), "--process and --coordinator need --processes"),
        (("two",), "--processes=two --process=: numbers (or --processes=slurm, or tpu)"),
        (("2",), "--processes=2 needs --process=I, from 0, and --coordinator=HOST:PORT"),
        (("2", "2", "h:1"), "--process=2 of --processes=2: counts from 0"),
        (("2", "1", "host"), "--coordinator=host: HOST:PORT"),
        (("2", "1", "host:99999"), "--coordinator=host:99999: HOST:PORT"),
        (("2", "1", "h:1", "soon"), "--process_timeout=soon: a number of seconds"),
        (("2", "1", "h:1", "nan"), "--process_timeout=nan: a number of seconds"),
        (("tpu", "1"), "--processes=tpu: the slice says which process this is"),
        (("slurm",), "start the command with srun; 'SLURM_PROCID' is not in the environment"),
    ],
)
def test_bad_settings(given, text):
    with pytest.raises(InputError) as error:
        settings(*given, environ={})
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("n1,n2", "n1"), ("gpu[07-10,12]", "gpu07"), ("a[1,3].b,c", "a1.b"), ("x-y[001-015],z", "x-y001")],
)
def test_first_node(nodes, first):
    assert first_node(nodes) == first
