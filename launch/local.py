"""Runs one command as N processes of this machine, for tests and for boxes with several GPUs.

    python launch/local.py --processes=4 --gpus=1 -- jxstilts run --config=configs/X.py --workdir=W
    python launch/local.py --processes=2 --simulated=2 -- jxstilts run ...      # CPU, two simulated devices in each

Every line of output gets the number of its process. SIGTERM and SIGINT go on to all. The exit code is that of the first
process that ended by itself with an error; where all were killed, 128 + signal.
"""

import argparse
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

ENV = pathlib.Path(__file__).parent / "env.sh"
PATIENCE = 120.0  # seconds that the others have to end, after one has ended with an error


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, required=True, help="how many")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of each; default: no GPU")
    parser.add_argument("--simulated", type=int, default=0, help="simulated CPU devices of each; default: 1")
    parser.add_argument("--port", type=int, default=0, help="where process 0 is found; default: a free one")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    parser.add_argument("command", nargs="+", help="after --")
    options = parser.parse_args(argv)
    if options.processes < 1 or (options.gpus and options.simulated):
        parser.error("at least one process, with GPUs or with simulated devices")
    port = options.port or _free_port()
    plans = [_plan(options, index, port) for index in range(options.processes)]
    if options.dry_run:
        for own, line in plans:
            print(shlex.join([f"{key}={value}" for key, value in own.items()] + line))
        return 0
    running = [
        subprocess.Popen(line, env=os.environ | own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for own, line in plans
    ]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, frame: [one.send_signal(got) for one in running if one.poll() is None])
    printing = threading.Lock()
    readers = [threading.Thread(target=_copy, args=(i, one, printing)) for i, one in enumerate(running)]
    for reader in readers:
        reader.start()
    codes = _wait(running)
    for reader in readers:
        reader.join()
    return _exit_code(codes)


def _plan(options: argparse.Namespace, index: int, port: int) -> tuple[dict[str, str], list[str]]:
    """Returns the environment that process `index` gets besides this one's, and its command."""
    own = {
        "JXSTILTS_PROCESSES": str(options.processes),
        "JXSTILTS_PROCESS": str(index),
        "JXSTILTS_COORDINATOR": f"localhost:{port}",
    }
    if options.gpus:
        first = index * options.gpus
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = visible.split(",") if visible else [str(i) for i in range(options.processes * options.gpus)]
        own["CUDA_VISIBLE_DEVICES"] = ",".join(names[first : first + options.gpus])
    elif options.simulated:
        own["JXSTILTS_SIMULATED"] = str(options.simulated)
    platform = "gpu" if options.gpus else "cpu"
    return own, ["bash", "-c", '. "$0" "$1" && shift && exec "$@"', str(ENV), platform, *options.command]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def _copy(index: int, process: subprocess.Popen, printing: threading.Lock) -> None:
    """Prints a process's lines as they come; a progress line's carriage return ends a line, too."""
    rest = b""
    while data := process.stdout.read1(1 << 16):
        *lines, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
        _print(index, lines, printing)
    _print(index, [rest], printing)


def _print(index: int, lines: list[bytes], printing: threading.Lock) -> None:
    with printing:
        for line in lines:
            if line.strip():
                print(f"[{index}] {line.decode(errors='replace').rstrip()}", flush=True)


def _wait(running: list[subprocess.Popen]) -> list[int]:
    """Waits for all, in the end no longer than PATIENCE; returns the exit codes in the order of their ends."""
    codes: dict[int, int] = {}
    failed = None
    while len(codes) < len(running):
        for index, process in enumerate(running):
            if index not in codes and process.poll() is not None:
                codes[index] = process.returncode
                failed = failed or (process.returncode and time.monotonic())
        if failed and time.monotonic() - failed > PATIENCE:
            for index, process in enumerate(running):
                if index not in codes:
                    print(f"[{index}] did not end by itself; killed", flush=True)
                    process.kill()
            failed = None
        time.sleep(0.05)
    return list(codes.values())


def _exit_code(codes: list[int]) -> int:
    wrong = [code for code in codes if code > 0] + [128 - code for code in codes if code < 0]
    return wrong[0] if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
