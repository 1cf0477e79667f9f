"""Several real processes on this machine (gloo on loopback) run one study: the same results; none waits for ever."""

import os
import signal
import socket
import subprocess
import sys
import time

import files
import numpy as np
import pytest

from jxstilts import tracking

CONFIG = """
from jxstilts.config import complete
from jxstilts.eval import pool
from jxstilts.study import Study


def get_config(arg=None):
    # the two phases are of one shape, which is compiled once
    phase = {
        "tasks": {"mnli": {"batch_size": 16, "max_length": 32, "limit": 96, "buckets": 1}}, "epochs": 1.0,
        "optimizer": {"learning_rate": 3e-3}, "select": {"metric": "accuracy", "rows": 24, "every": 3},
        "log_every": 1, "save_every": 2,
    }
    qa = {
        "tasks": {"tydiqa": {
            "batch_size": 8, "max_length": 64, "doc_stride": 24, "max_query_length": 12, "holdout": 12, "buckets": 1,
        }},
        "init": "mnli", "epochs": 1.0, "optimizer": {"learning_rate": 3e-3}, "log_every": 1, "save_every": 2,
        "select": {"metric": "major", "rows": 12, "every": 3},
    }
    xquad = {"phase": "target", "model": "tiny", "intermediate": "mnli", "target": "tydiqa",
             "what": {"tasks": ("xquad",), "languages": ("en", "de"), "limit": 6,
                      "options": {"max_length": 64, "doc_stride": 24, "max_query_length": 12}}}
    xnli = {"phase": "target", "model": "tiny", "intermediate": "mnli", "target": "xnli",
            "what": {"tasks": ("xnli",), "languages": ("en", "de"), "limit": 40, "options": {"max_length": 32}}}
    lareqa = {"phase": "mnli", "model": "tiny", "intermediate": "mnli",
              "what": {"tasks": ("lareqa",), "languages": ("en", "de"), "options": {"max_length": 64, "layer": 2}}}
    pool.STORED = 32  # so that LAReQA's candidates are a pool on disk
    return complete(Study, {
        "study": "together", "data_dir": "",
        "model": {"preset": "tiny", "hidden_dropout": 0.1, "attention_dropout": 0.1},
        "tokenizer": {"vocab_size": 400, "model": "bpe", "languages": ("en", "de")},
        "phases": {"mnli": phase, "target": qa if arg == "qa" else phase | {"init": "mnli", "seed": 1}},
        "evaluations": {
            **({"target": xquad, "lareqa": lareqa} if arg == "qa" else {"target": xnli}),
            "tatoeba": {
                "phase": "mnli", "model": "tiny", "intermediate": "mnli",
                "what": {"tasks": ("tatoeba",), "languages": ("de",), "limit": 40, "options": {"max_length": 32}},
            },
        },
    })
"""


@pytest.fixture(scope="module")
def place(world, tmp_path_factory):
    """The config and the data."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "c.py").write_text(CONFIG)
    text, nli = "text/common_voice/[de][en].txt", ("intermediate/mnli/*", "xtreme/xnli/*-[de][en].tsv")
    qa = "xtreme/tydiqa/*/*", "xtreme/xquad/*[de][en].json", "xtreme-r/lareqa/*/[de][en].json"
    files.part(world, folder / "data", text, *nli, *qa, "xtreme/tatoeba/*.deu-*")
    return folder


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def start(place, workdir, count=2, devices=2, timeout=120, config="c.py"):
    """Starts the processes of a run, with `devices` among them."""
    flags = f"--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={devices // count}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "jxstilts", "run", f"--config={place / config}",
               f"--config.data_dir={place / 'data'}", f"--workdir={workdir}"]  # fmt: skip
    together = [f"--processes={count}", f"--coordinator=localhost:{free_port()}", f"--process_timeout={timeout}"]
    return [
        subprocess.Popen(
            [*command, *together, f"--process={index}"], env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for index in range(count)
    ]  # fmt: skip


def ended(running, seconds=300):
    """Waits for the processes; returns their exit codes and what they printed."""
    out = [process.communicate(timeout=seconds)[0] for process in running]
    return [process.returncode for process in running], out


def losses(workdir):
    rows = {phase: tracking.read_rows(workdir / f"phases/{phase}/metrics.jsonl") for phase in ("mnli", "target")}
    return {(phase, row["step"]): row["loss"] for phase in rows for row in rows[phase] if row["kind"] == "train"}


def values(workdir):
    rows = tracking.read_rows(workdir / "results.jsonl")
    return {(row["task"], row["language"], row["metric"]): row["value"] for row in rows}


def same(workdir, reference):
    assert len(losses(reference)) > 8 and losses(workdir).keys() == losses(reference).keys()
    assert losses(workdir) == pytest.approx(losses(reference), abs=1e-5)
    assert len(values(reference)) > 2 and values(workdir) == values(reference)


@pytest.fixture(scope="module")
def alone(place, tmp_path_factory):
    """One process with two devices."""
    workdir = tmp_path_factory.mktemp("alone")
    codes, out = ended(start(place, workdir, 1))
    assert codes == [0], out
    return workdir


def until(running, path, text=""):
    """Waits until a file is there, with so much text."""
    end = time.monotonic() + 200
    while not (path.exists() and text in path.read_text()):
        assert all(process.poll() is None for process in running) and time.monotonic() < end, ended(running)
        time.sleep(0.01)


def test_two_processes_come_to_the_results_of_one(place, alone, tmp_path):
    """Stopped by a signal to one of them, too: both stop at the same step, and a run of both goes on."""
    running = start(place, tmp_path)
    until(running, tmp_path / "phases/mnli/metrics.jsonl", '"step": 1')
    running[1].send_signal(signal.SIGTERM)
    codes, out = ended(running)
    assert codes == [75, 75], "\n".join(out)
    (first, second) = (line for text in out for line in text.splitlines() if "stopped at step" in line)
    assert first == second and "saved. Run the same command again to go on" in first
    assert "phase 1/2" in out[0] and "phase 1/2" not in out[1] and "loss" not in out[1]  # process 0 speaks for all
    running = start(place, tmp_path)
    codes, out = ended(running)
    assert codes == [0, 0], "\n".join(out)
    assert "going on from step" in out[0] and "going on" not in out[1]
    same(tmp_path, alone)


SLICE = """
import functools, sys
import jax, numpy as np
from jax.experimental import multihost_utils
from jxstilts import processes
from jxstilts.eval import retrieval
from jxstilts.mesh import make_mesh, process_rows, put_batch, put_whole
from jxstilts.runtime import InputError

index, address = int(sys.argv[1]), sys.argv[2]
# what a TPU slice says of itself
jax.distributed.initialize = functools.partial(jax.distributed.initialize, address, 2, index)
with processes.joined(processes.settings("tpu", timeout="60")):
    assert (processes.index(), processes.count(), jax.process_count()) == (index, 2, 2)
    assert processes.meet("a", index) == [0, 1]
    whole = np.arange(16).reshape(8, 2)
    sizes = {"data": -1}, {"fsdp": 2, "tensor": 2}, {"data": 2, "tensor": 2}, {"data": 2, "fsdp": 2}, {"tensor": 4}
    for size in sizes:
        mesh = make_mesh(size)
        part, parts = process_rows(mesh)
        assert (part, parts) == ((0, 1) if size == {"tensor": 4} else (index, 2))
        mine = whole.reshape(parts, 8 // parts, 2)[part]
        for placed in (put_batch({"x": mine}, mesh), put_whole({"x": whole}, mesh)):
            assert (multihost_utils.process_allgather(placed["x"], tiled=True) == whole).all()
    devices = [jax.devices()[i] for i in (0, 2, 1, 3)]  # the processes take turns
    try:
        process_rows(make_mesh({"data": 4}, devices))
        raise SystemExit("no error")
    except InputError as error:
        assert "are not one of equal parts; let the data axis take the processes" in str(error)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 8)), rng.normal(size=(37, 8))
    for mesh in (make_mesh(), make_mesh({"data": 2, "tensor": 2})):
        spread = retrieval.nearest_both_ways(a, b, 3, tile=16, mesh=mesh)
        for one, other in zip(spread, retrieval.nearest_both_ways(a, b, 3, tile=16), strict=True):
            assert (one[1] == other[1]).all() and np.abs(one[0] - other[0]).max() < 1e-5
    print("done")
"""


def test_a_slice_finds_itself_and_its_rows():
    """As on a TPU slice, where JAX finds the processes; meshes whose axes join the processes, and retrieval on them."""
    flags = "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    address = f"localhost:{free_port()}"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SLICE, str(index), address], env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    codes, out = ended(running)
    assert codes == [0, 0] and all(text.endswith("done\n") for text in out), "\n".join(out)


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "count"), [(0, 2), (1, 1)])
def test_a_killed_process_ends_the_other_and_a_new_run_goes_on(place, alone, tmp_path, victim, count):
    """With the same number of processes, or another."""
    running = start(place, tmp_path)
    until(running, tmp_path / "phases/mnli/metrics.jsonl", '"step": 3')
    running[victim].kill()
    killed = time.monotonic()
    codes, out = ended(running)
    assert time.monotonic() - killed < 20
    assert codes[victim] == -9 and codes[1 - victim] == 75, "\n".join(out)
    text = f"jxstilts: process {victim} of 2 (pid {running[victim].pid} on "
    assert any(line.startswith(text) and "run the same command again" in line for line in out[1 - victim].splitlines())
    codes, out = ended(start(place, tmp_path, count))
    assert codes == [0] * count, "\n".join(out)
    same(tmp_path, alone)


@pytest.mark.slow
def test_four_processes_come_to_the_results_of_one(place, tmp_path):
    """Another kind of target, a pool of candidates on disk, and one of the four is killed in between."""
    for name, count in (("alone", 1), ("four", 4)):
        running = start(place, tmp_path / name, count, devices=4, config="c.py:qa")
        if count > 1:
            until(running, tmp_path / "four/phases/target/metrics.jsonl", '"step": 2')
            running[2].kill()
            codes, out = ended(running)
            assert codes == [75, 75, -9, 75], "\n".join(out)
            running = start(place, tmp_path / name, count, devices=4, config="c.py:qa")
        codes, out = ended(running)
        assert codes == [0] * count, "\n".join(out)
    same(tmp_path / "four", tmp_path / "alone")
    pools = "cache/features/pools/*.npy"
    stored = [np.load(path) for name in ("four", "alone") for path in (tmp_path / name).glob(pools)]
    assert len(stored) == 2 and len(stored[0]) >= 32 and ("lareqa", "de", "map20") in values(tmp_path / "four")
    np.testing.assert_allclose(*stored, atol=1e-3)  # half precision
