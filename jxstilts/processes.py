"""Several processes, on one machine or many, that run one command together.

Process 0 keeps the roll: a connection with each of the others. Over it they meet (a barrier that hands small values
round), agree at which call a signal stops them all, and learn at once that one of them has ended or, after a while,
that it is silent: then all end with one line that says who and why, instead of waiting for ever in a collective. Where
nothing was joined this process is the only one, and nothing here waits.

Messages are lines of JSON. As with JAX's own coordination service, whoever reaches the port can disturb the run: the
network between the processes is trusted (docs/security.md).
"""

import contextlib
import dataclasses
import logging
import os
import platform
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from jxstilts.roll import Keeper, Roll, end
from jxstilts.runtime import EXIT_BAD_INPUT, EXIT_INTERRUPTED, InputError, Interrupted

T = TypeVar("T")
TIMEOUT = 1800.0  # seconds
MOMENT = 3.0  # seconds
PREFIX = "JXSTILTS_"  # of the environment variables that stand for the options
LOOPBACK = ("localhost", "127.0.0.1")
SLURM_PORTS = 20000, 10000  # the first, how many: which one, the job's number says

_roll: Roll | None = None
_broken = False


@dataclasses.dataclass(frozen=True)
class Settings:
    """Who takes part. kind "tpu": JAX finds out; address, count and index are not set."""

    kind: str  # explicit, slurm or tpu
    address: str = ""  # host:port of process 0
    count: int = 0
    index: int = 0
    timeout: float = TIMEOUT  # how long a process that does not join, or come to a meeting, is waited for


def settings(
    processes: str = "",
    process: str = "",
    coordinator: str = "",
    timeout: str = "",
    environ: Mapping[str, str] = os.environ,
) -> Settings | None:
    """Returns who takes part, by the command line's options or JXSTILTS_PROCESSES etc.; None: this process alone.

    processes: a number, "slurm" or "tpu". Raises InputError that says which option to change.
    """
    processes = processes or environ.get(f"{PREFIX}PROCESSES", "")
    process = process or environ.get(f"{PREFIX}PROCESS", "")
    coordinator = coordinator or environ.get(f"{PREFIX}COORDINATOR", "")
    timeout = timeout or environ.get(f"{PREFIX}PROCESS_TIMEOUT", "")
    if not processes:
        if process or coordinator:
            raise InputError("--process and --coordinator need --processes: how many there are")
        return None
    try:
        seconds = float(timeout or TIMEOUT)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"--process_timeout={timeout}: a number of seconds")
    if processes == "tpu":
        if process or coordinator:
            raise InputError("--processes=tpu: the slice says which process this is; leave out the others")
        return Settings("tpu", timeout=seconds)
    if processes == "slurm":
        index, count, address = _slurm(environ)
        if process:
            raise InputError("--processes=slurm: SLURM says which process this is; leave out --process")
        return _checked(Settings("slurm", coordinator or address, count, index, seconds))
    if not processes.isdecimal() or (process and not process.isdecimal()):
        raise InputError(f"--processes={processes} --process={process}: numbers (or --processes=slurm, or tpu)")
    if int(processes) > 1 and not (process and coordinator):
        raise InputError(
            f"--processes={processes} needs --process=I, from 0, and --coordinator=HOST:PORT, where process 0 is found"
        )
    return _checked(Settings("explicit", coordinator, int(processes), int(process or 0), seconds))


def _checked(found: Settings) -> Settings | None:
    if not 0 <= found.index < found.count:
        raise InputError(f"--process={found.index} of --processes={found.count}: counts from 0")
    if found.count == 1:
        return None
    host, _, port = found.address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"--coordinator={found.address}: HOST:PORT, where process 0 is found")
    return found


def _slurm(environ: Mapping[str, str]) -> tuple[int, int, str]:
    """Returns (index, count, address) of a task that srun started."""
    try:
        index, count = int(environ["SLURM_PROCID"]), int(environ["SLURM_NTASKS"])
        job, nodes = int(environ["SLURM_JOB_ID"]), environ["SLURM_STEP_NODELIST"]
    except (KeyError, ValueError) as error:
        raise InputError(f"--processes=slurm: start the command with srun; {error} is not in the environment") from None
    first, ports = SLURM_PORTS
    return index, count, f"{first_node(nodes)}:{first + job % ports}"


def first_node(nodes: str) -> str:
    """Returns the first host of a SLURM node list: "gpu[03-05,9],other" -> "gpu03"."""
    found = re.fullmatch(r"([^\[,]+)(?:\[(\w+)[^\]]*\]([^,]*))?(?:,.*)?", nodes)
    if not found:
        raise InputError(f"SLURM_STEP_NODELIST={nodes} is not a node list; give --coordinator=HOST:PORT")
    return "".join(part or "" for part in found.groups())


def index() -> int:
    """Which of the processes this one is, from 0."""
    return _roll.index if _roll else 0


def count() -> int:
    """How many processes run this command."""
    return _roll.count if _roll else 1


def first() -> bool:
    """Whether this is the process that writes shared files and speaks for all."""
    return index() == 0


def meet(name: str, value: Any = None, failure: str = "") -> list:
    """Waits for all processes to come here, and returns the values of all, in order. Values are JSON.

    Processes that do not come within the time-out, or come to another place, end the run (exit code 75 or 1).
    failure: why this process comes sooner than it should; the others have a minute, then they are ended.
    """
    return [value] if _roll is None else _roll.meet(name, value, failure)


def first_says(name: str, make: Callable[[], T]) -> T:
    """Returns, to all processes, the JSON value that process 0 makes. All raise the InputError that it raises."""
    if _roll is None:
        return make()
    said: dict[str, Any] = {}
    if first():
        try:
            said = {"value": make()}
        except InputError as error:
            said = {"error": str(error)}
    said = meet(name, said)[0]
    if "error" in said:
        raise InputError(said["error"])
    return said["value"]


def same(name: str, value: Any) -> None:
    """Raises InputError, in all processes, where they do not give the same JSON value."""
    values = meet(name, value)
    other = [str(i) for i, given in enumerate(values) if given != values[0]]
    if other:
        raise InputError(f"{name} of process {', '.join(other)} is not that of process 0; start all with the same")


def agreed(stop: Callable[[int], bool]) -> Callable[[int], bool]:
    """Makes of a question that each process answers for itself one with the same answer in all.

    All processes must ask it the same number of times. One that says yes stops all of them, at a call that none has
    passed yet; until then asking costs nothing.
    """
    roll = _roll
    return stop if roll is None else lambda step: roll.stop(stop(step))


@contextlib.contextmanager
def joined(wanted: Settings | None) -> Iterator[None]:
    """Joins the other processes for the time of the block, which ends when all have come to its end.

    Must come before JAX's first use of a device. An error that not all processes run into ends the others too.
    """
    global _roll, _broken
    if wanted is None:
        yield
        return
    import jax

    _roll = _join(wanted)
    if _roll is None:  # a TPU slice of one host
        yield
        return
    if _roll.index:
        logging.getLogger("jxstilts").setLevel(logging.ERROR)  # process 0 warns for all
    try:
        yield
        meet("the end")
    except BaseException as error:
        _broken = True
        if _exit_code(error) == 1:  # a collective fails where another process is lost: then the roll ends this one
            time.sleep(MOMENT)
        _roll.leave(_exit_code(error), " ".join(str(error).split()) or type(error).__name__)
        raise
    else:
        _roll.leave(0, "")
        jax.distributed.shutdown()
    finally:
        _roll = None


def finish(code: int) -> None:
    """Ends this process at once where the others were left by an error: JAX would wait for them at the exit."""
    if _broken:
        end(code)


def _exit_code(error: BaseException) -> int:
    kinds = {InputError: EXIT_BAD_INPUT, Interrupted: EXIT_INTERRUPTED}
    return next((code for kind, code in kinds.items() if isinstance(error, kind)), 1)


def _join(wanted: Settings) -> Roll | None:
    import jax

    jax.config.update("jax_enable_preemption_service", False)  # the roll agrees on where to stop
    if wanted.kind == "tpu":
        jax.distributed.initialize()
        if jax.process_count() == 1:
            return None
        wanted = dataclasses.replace(wanted, count=jax.process_count(), index=jax.process_index())
        return _call(wanted, _exchange)[0]
    roll, port = _call(wanted, None)
    host = wanted.address.rpartition(":")[0]
    jax.distributed.initialize(
        f"{host}:{port}", wanted.count, wanted.index, cluster_detection_method="deactivate",
        coordinator_bind_address=f"{host}:{port}" if host in LOOPBACK else None,
        initialization_timeout=max(int(wanted.timeout), 1), shutdown_timeout_seconds=60,
    )  # fmt: skip
    return roll


def _call(wanted: Settings, exchange: Callable[[str], str] | None) -> tuple[Roll, int]:
    """Opens or joins the roll; returns it and the port that process 0 has chosen for JAX.

    exchange: gives all processes the address that process 0 passes to it, where they do not know it.
    """
    me = {
        "process": wanted.index, "of": wanted.count, "host": platform.node(), "pid": os.getpid(),
        "version": sys.modules["jxstilts"].__version__,
    }  # fmt: skip
    if wanted.index:
        host, _, port = (exchange("") if exchange else wanted.address).rpartition(":")
        return _knock(wanted, me, host, int(port))
    own = 0 if exchange else int(wanted.address.rpartition(":")[2])
    alone = wanted.address.rpartition(":")[0] in LOOPBACK
    try:
        listener = socket.create_server((wanted.address.rpartition(":")[0] if alone else "", own))
    except OSError as error:
        raise InputError(f"--coordinator={wanted.address}: {error.strerror}; take another port") from error
    if exchange:
        exchange(f"{_own_address()}:{listener.getsockname()[1]}")
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    keeper = Keeper(listener, me, {"port": port}, wanted.timeout)
    return keeper.gather(), port


def _knock(wanted: Settings, me: dict, host: str, port: int) -> tuple[Roll, int]:
    """Tries to join until process 0 is there."""
    deadline = time.monotonic() + wanted.timeout
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=5.0)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise InputError(
                    f"process {wanted.index} of {wanted.count}: process 0 is not at {host}:{port} after "
                    f"{wanted.timeout:.0f} s ({error}); is it started, and is --coordinator right?"
                ) from error
            time.sleep(0.2)
    roll = Roll(me, wanted.timeout, connection)
    return roll, roll.welcome["port"]


def _own_address() -> str:
    """Returns the address by which this machine goes out; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        return probe.getsockname()[0]
    return platform.node()


def _exchange(address: str) -> str:
    """Returns process 0's argument, in all processes, by a collective."""
    import numpy as np
    from jax.experimental import multihost_utils

    given = np.zeros(256, np.uint8)
    given[: len(address)] = np.frombuffer(address.encode(), np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(given))).rstrip(b"\0").decode()
