"""Processes that are killed: `python faults.py` forks one `jxstilts` command after another, and ends each by SIGKILL.

A fork has all modules, so it starts at once; the server itself has no thread and has not started JAX. A kill comes some
time after the start, or is aimed: just before the n-th change to the file system that fits a pattern, or a moment
later, while a file is being written. `Server` is the other end, for tests.
"""

import contextlib
import json
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import threading
import time

CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.utime", "shutil.rmtree"}
UNFINISHED = re.compile(r"(/|^)\..*(\.tmp|\.partial|\.older|\.stale|\.lock|\.[0-9a-f]{16})(/|$)|orbax-checkpoint-tmp")
HIT = "killed at "  # what an aimed kill prints, with the path
# what a process was doing, by the file that it was at
STAGES = {
    "vocabulary": r"^tokenizer/",
    "compile cache": r"^compile/",
    "caching": r"^cache/",
    "pre-training": r"^phases/pre/(checkpoints|metrics|tensorboard|\.metrics)",
    "fine-tuning": r"^phases/[^/]+/(checkpoints|metrics|tensorboard|\.metrics)",
    "end of a phase": r"^phases/[^/]+/\.?(best|DONE)",
    "evaluation": r"^(items|predictions)/|results\.jsonl",
    "reporting": r"^report/",
}


class Server:
    """Starts `python faults.py` with one device; `attempt` runs a command in a fork of it."""

    def __init__(self, hash_seed: int):
        environment = {
            **os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0", "JAX_PLATFORMS": "cpu",
            "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": str(hash_seed), "MPLBACKEND": "agg",
        }  # fmt: skip
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([sys.executable, __file__], env=environment, **pipes)

    def attempt(self, argv: list, root: pathlib.Path, after: float = 600.0, **aim) -> dict:
        """Runs a command to its end, or until it is killed `after` so many seconds.

        aim: `pattern`, `number`, `delay`: it is killed `delay` seconds after the number-th change below `root` whose
        path fits the pattern; 0: just before it.
        Returns {"killed", "code" (of one that ended), "seconds", "said" (all that it printed)}.
        """
        order = {"argv": list(map(str, argv)), "root": f"{root}/", "out": f"{root}.out", "after": after, **aim}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline()) | {"said": pathlib.Path(order["out"]).read_text()}

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(60)


def unfinished(root: pathlib.Path) -> set[str]:
    """Returns what nobody is to find in a finished folder: temporary files and folders, locks, leases, checkpoints."""
    found = {str(path.relative_to(root)) for path in root.rglob("*")}
    return {name for name in found if UNFINISHED.search(name) or re.search(r"^leases/.|^phases/.*/checkpoints", name)}


def stage(path: str) -> str:
    """Returns what a process does that changes a path."""
    return next((what for what, pattern in STAGES.items() if re.search(pattern, path)), "start")


def newest(root: pathlib.Path, since: float) -> str:
    """Returns the file below a folder that was changed last, since a time; "" where none was. Leases do not count."""
    found, time_of_it = "", since
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and not name.startswith("leases/") and path.stat().st_mtime > time_of_it:
                found, time_of_it = name, path.stat().st_mtime
    return found


def serve() -> None:
    """Takes an order a line until there is no more."""
    import jax
    import tensorboardX  # noqa: F401

    import jxstilts.report.comparisons
    import jxstilts.report.page
    import jxstilts.study  # noqa: F401
    from jxstilts import cli, runtime

    start = runtime.start

    def keep_all(compile_cache: str | None = None) -> None:
        """A tiny model compiles faster than what is worth keeping elsewhere."""
        start(compile_cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

    runtime.start = keep_all
    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit("a process with threads must not fork")
    for line in sys.stdin:
        order = json.loads(line)
        began = time.monotonic()
        pid = os.fork()
        if not pid:
            _become(order)
            sys.exit(cli.main(order["argv"]))
        ended = os.pidfd_open(pid)
        waiting = select.poll()
        waiting.register(ended, select.POLLIN)
        if not waiting.poll(1000 * order["after"]):
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        os.close(ended)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        code = None if killed else os.waitstatus_to_exitcode(status)
        print(json.dumps({"killed": killed, "code": code, "seconds": time.monotonic() - began}), flush=True)


def _become(order: dict) -> None:
    """Makes this fork what a process of its own would be."""
    os.setsid()
    out = os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number, own in enumerate((os.open(os.devnull, os.O_RDONLY), out, out)):
        os.dup2(own, number)
    sys.stdin = open(0)
    if "pattern" in order:
        sys.addaudithook(_aimed(order["root"], re.compile(order["pattern"]), order["number"], order["delay"]))


def _aimed(root: str, pattern: re.Pattern, number: int, delay: float):
    """Returns an audit hook that kills this process. Hooks are called before what they are told of."""
    seen = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event not in CHANGES or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
            name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
            if name.startswith(root) and pattern.search(name.removeprefix(root)):
                seen += 1
                if seen == number:
                    os.write(1, f"\n{HIT}{name.removeprefix(root)}\n".encode())
                if seen == number and delay:
                    threading.Thread(target=_die, args=(delay,), daemon=True).start()
                elif seen == number:
                    _die()

    return hook


def _die(delay: float = 0.0) -> None:
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    serve()
