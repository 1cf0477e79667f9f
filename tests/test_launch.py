"""The launchers, with programs in the place of gcloud, srun and scontrol that write down how they are called."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LAUNCH = ROOT / "launch"
# What cloud.google.com/sdk/gcloud/reference documents of the commands that are used.
WIDE = {"--project", "--quiet", "--format"}
DOCUMENTED = {
    "queued-resources create": {"--zone", "--node-id", "--accelerator-type", "--runtime-version", "--spot"},
    "queued-resources describe": {"--zone"},
    "queued-resources delete": {"--zone", "--force"},
    "tpu-vm ssh": {"--zone", "--worker", "--command"},
    "tpu-vm scp": {"--zone", "--worker"},
}
FAKE = r"""#!{python}
import json, os, pathlib, sys
folder = pathlib.Path(__file__).parent
with open(folder / "calls.jsonl", "a") as log:
    log.write(json.dumps([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]) + "\n")
for number, (pattern, answers) in enumerate(json.loads((folder / "answers.json").read_text())):
    if pattern in " ".join(sys.argv):
        used = folder / f"used{{number}}"
        count = int(used.read_text()) if used.exists() else 0
        used.write_text(str(count + 1))
        text, code = answers[min(count, len(answers) - 1)]
        print(text)
        sys.exit(code)
"""


@pytest.fixture
def fake(tmp_path):
    """Puts programs into the PATH; answers are [(part of the command line, [(output, exit code), ...]), ...]."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(*names, answers=()):
        for name in names:
            (folder / name).write_text(FAKE.format(python=sys.executable))
            (folder / name).chmod(0o755)
        (folder / "answers.json").write_text(json.dumps(answers))
        return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "JXSTILTS_POLL": "0"}

    make.calls = lambda: [json.loads(line) for line in (folder / "calls.jsonl").read_text().splitlines()]
    return make


def call(environment, *line, cwd=ROOT):
    return subprocess.run(line, env=environment, cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", ["env.sh", "tpu_pod.sh", "slurm.sbatch"])
def test_shellcheck(name):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed (apt install shellcheck)")
    done = call(os.environ, "shellcheck", "-x", f"launch/{name}")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_xla_knows_the_flags(platform):
    """XLA ends a process at a flag that it does not know, whatever the flag is for."""
    start = "import jax; jax.config.update('jax_platforms', 'cpu'); print(len(jax.devices()), sum(jax.numpy.ones(3)))"
    line = f'. launch/env.sh {platform}; echo "$XLA_FLAGS"; exec "$0" -c "$1"'
    clean = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    done = call({**clean, "JXSTILTS_SIMULATED": "3"}, "bash", "-c", line, sys.executable, start)
    devices = 3 if platform == "cpu" else 1
    assert done.stdout.splitlines()[1:] == [f"{devices} 3.0"], done.stderr
    assert ("latency_hiding" in done.stdout) == (platform == "gpu")


AGAIN = """
import os, sys
print(os.getpid(), flush=True)
from jxstilts import pages
pages.large()
print(os.environ.get("GLIBC_TUNABLES"), sys.flags.optimize, sys.argv[1:])
"""


@pytest.mark.parametrize("before, after", [
    ("", "glibc.malloc.hugetlb=1"),
    ("glibc.malloc.trim_threshold=200000", "glibc.malloc.trim_threshold=200000:glibc.malloc.hugetlb=1"),
    ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
])  # fmt: skip
def test_large_pages(before, after, tmp_path):
    """The program starts again, once, as the same process, with its options and arguments."""
    pages = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not pages.is_file() or "[madvise]" not in pages.read_text():
        pytest.skip("this system does not give large pages on request")
    (tmp_path / "program.py").write_text(AGAIN)
    clean = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    environment = clean | ({"GLIBC_TUNABLES": before} if before else {}) | {"PYTHONPATH": str(ROOT)}
    done = call(environment, sys.executable, "-O", tmp_path / "program.py", "run", "a b")
    *processes, last = done.stdout.splitlines()
    assert last == f"{after} 1 ['run', 'a b']", done.stderr
    assert len(processes) == (1 if before == after else 2) and len(set(processes)) == 1
    read = subprocess.run([sys.executable, "-", "run"], input=AGAIN, env=environment, capture_output=True, text=True)
    assert read.stdout.splitlines()[1:] == [f"{before or None} 0 ['run']"]  # a program from stdin is read only once


def test_unknown_platform():
    done = call(os.environ, "bash", "-c", ". launch/env.sh cuda")
    assert done.returncode == 2 and "unknown platform 'cuda'; cpu, gpu or tpu" in done.stderr


def test_xla_flags_are_set_here_only():
    found = [path for folder in ("jxstilts", "configs", "launch") for path in (ROOT / folder).rglob("*")
             if path.is_file() and re.search(rb"--xla_|LIBTPU_INIT_ARGS", path.read_bytes())
             and path.suffix != ".pyc"]  # fmt: skip
    assert found == [LAUNCH / "env.sh"]


# local.py

CHILD = """
import os, signal, sys, time
index = os.environ["JXSTILTS_PROCESS"]
names = "JXSTILTS_PROCESSES", "JXSTILTS_COORDINATOR", "XLA_FLAGS"
print("hello", *(os.environ.get(name) for name in names), flush=True)
"""


def local(*options, code="", **more):
    line = [sys.executable, LAUNCH / "local.py", *options, "--", sys.executable, "-c", CHILD + code]
    clean = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**clean, **more})


def test_local_tells_each_process_who_it_is():
    out, _ = local("--processes=3", "--simulated=2", "--port=7000").communicate(timeout=60)
    words = "hello 3 localhost:7000 --xla_force_host_platform_device_count=2"
    assert sorted(out.splitlines()) == [f"[{i}] {words}" for i in range(3)]


def test_local_shares_the_gpus_out():
    code = "print(os.environ['CUDA_VISIBLE_DEVICES'])"
    out, _ = local("--processes=2", "--gpus=2", code=code, CUDA_VISIBLE_DEVICES="4,5,6,7").communicate(timeout=60)
    assert {"[0] 4,5", "[1] 6,7"} <= set(out.splitlines())


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", 0),
        ("sys.exit(75)", 75),
        ("sys.exit(2 if index == '1' else 0)", 2),
        ("os.kill(os.getpid(), 9) if index == '0' else sys.exit(75)", 75),  # killed, and the other has saved
        ("os.kill(os.getpid(), 9)", 137),
    ],
)
def test_local_exit_code(code, expected):
    process = local("--processes=2", code=code)
    process.communicate(timeout=60)
    assert process.returncode == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_local_passes_signals_on(number):
    code = f"""
signal.signal({int(number)}, lambda *_: (print("got it", flush=True), os._exit(75)))
print("ready", flush=True)
time.sleep(50)
"""
    process = local("--processes=2", code=code)
    ready = 0
    while ready < 2:
        ready += "ready" in process.stdout.readline()
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert out.count("got it") == 2 and process.returncode == 75


def test_local_ends_those_that_stay():
    code = "time.sleep(50) if index == '1' else sys.exit(3)"
    start = (
        f"import sys; sys.path.insert(0, {str(LAUNCH)!r}); import local; local.PATIENCE = 0.5; sys.exit(local.main())"
    )
    line = [sys.executable, "-c", start, "--processes=2", "--", sys.executable, "-c", CHILD + code]
    began = time.monotonic()
    done = subprocess.run(line, capture_output=True, text=True, timeout=40)
    assert done.returncode == 3 and "[1] did not end by itself; killed" in done.stdout
    assert time.monotonic() - began < 30


def test_local_dry_run():
    out, _ = local("--processes=2", "--dry-run", "--port=7001").communicate(timeout=60)
    first, second = (line for line in out.splitlines() if line.startswith("JXSTILTS"))
    assert "JXSTILTS_PROCESS=0 JXSTILTS_COORDINATOR=localhost:7001" in first and "JXSTILTS_PROCESS=1" in second
    assert "hello" not in [line.split()[0] for line in out.splitlines() if line]


# slurm.sbatch


def slurm(environment, *options):
    return call(environment, "bash", LAUNCH / "slurm.sbatch", *options)


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"), [(0, "0", False), (2, "0", False), (75, "0", True), (75, "100", False)]
)
def test_slurm_goes_back_into_the_queue_on_75_only(fake, code, restarts, requeued):
    environment = fake("srun", "scontrol", answers=[("srun", [("", code)])])
    own = {"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": restarts, "SLURM_SUBMIT_DIR": str(ROOT)}
    done = slurm(environment | own, "--config=a b.py", "--workdir=w")
    assert done.returncode == code
    run, *rest = fake.calls()
    assert run == ["srun", "--kill-on-bad-exit=0", "--wait=300", ".venv/bin/jxstilts", "run", "--config=a b.py",
                   "--workdir=w"]  # fmt: skip
    assert rest == ([["scontrol", "requeue", "17"]] if requeued else [])


def test_slurm_asks_for_what_it_needs():
    text = (LAUNCH / "slurm.sbatch").read_text()
    given = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in re.findall("^#SBATCH.*$", text, re.M))
    assert {"requeue", "gpus-per-node"} <= set(given)
    assert given["ntasks-per-node"] == "1" and given["open-mode"] == "append"
    assert given["signal"].startswith("TERM@")  # to the processes, not to the script
    assert "export JXSTILTS_PROCESSES=slurm" in text


def test_slurm_dry_run_runs_nothing(fake):
    environment = fake("srun", "scontrol")
    done = slurm(environment, "--dry-run", "--config=a b.py")
    assert done.returncode == 0 and not (pathlib.Path(environment["PATH"].split(":")[0]) / "calls.jsonl").exists()
    assert "jxstilts run --config=a\\ b.py" in done.stdout and "scontrol requeue JOB" in done.stdout
    assert slurm(environment).returncode == 2


# tpu_pod.sh

SLICE = ["--name=n", "--zone=z", "--type=v5litepod-16", "--version=v2-alpha-tpuv5-lite"]
STUDY = ["--", "--config=configs/my paper.py:x", "--workdir=/mnt/jxstilts/p"]
STATE = "queued-resources describe"


def pod(environment, *options, cwd=ROOT):
    return call(environment, "bash", LAUNCH / "tpu_pod.sh", *options, cwd=cwd)


def documented(calls):
    """Checks every call of gcloud against what is documented; returns the command and options of each."""
    found = []
    for program, *words in calls:
        if program != "gcloud":
            continue
        assert words[:2] == ["compute", "tpus"]
        name = " ".join(words[2:4])
        options = dict(word.partition("=")[::2] for word in words[4:] if word.startswith("--"))
        assert set(options) <= DOCUMENTED[name] | WIDE, (name, options)
        assert options["--zone"] == "z"
        found.append((name, options, [word for word in words[4:] if not word.startswith("--")]))
    return found


def begun(found):
    return [options["--command"] for name, options, _ in found if "nohup" in options.get("--command", "")]


def test_pod_makes_a_slice_runs_and_fetches(fake, tmp_path):
    environment = fake("gcloud", "git", "tar", answers=[
        (STATE, [("", 1), ("WAITING_FOR_RESOURCES", 0), ("ACTIVE", 0)]), ("cat jxstilts/run.code", [("0", 0)]),
    ])  # fmt: skip
    options = [*SLICE, "--spot", "--project=p", "--nfs=10.0.0.2:/share", f"--fetch={tmp_path / 'r'}", "--delete"]
    done = pod(environment, *options, *STUDY)
    assert done.returncode == 0, done.stderr
    found = documented(fake.calls())
    assert all(options["--project"] == "p" for _, options, _ in found)
    create = next(one for one in found if one[0] == "queued-resources create")
    assert create[1:] == (
        {"--zone": "z", "--project": "p", "--node-id": "n", "--accelerator-type": "v5litepod-16",
         "--runtime-version": "v2-alpha-tpuv5-lite", "--spot": ""}, ["n"],
    )  # fmt: skip
    steps = [(name, options.get("--worker")) for name, options, _ in found if not name.endswith("describe")]
    assert steps == [
        ("queued-resources create", None), ("tpu-vm scp", "all"), ("tpu-vm ssh", "all"), ("tpu-vm ssh", "all"),
        ("tpu-vm ssh", "all"), ("tpu-vm ssh", "0"), ("tpu-vm ssh", "0"), ("tpu-vm ssh", "0"), ("tpu-vm scp", "0"),
        ("queued-resources delete", None),
    ]  # fmt: skip
    mount = next(options["--command"] for _, options, _ in found if "mount -t nfs" in options.get("--command", ""))
    assert "10.0.0.2:/share /mnt/jxstilts" in mount
    (remote,) = begun(found)
    (got,) = [words for name, options, words in found if name == "tpu-vm scp" and options["--worker"] == "0"]
    assert got == ["n:results.tar.gz", str(tmp_path / "r/results.tar.gz")]
    assert "run.code" in remote and found[-1][1].keys() >= {"--force", "--quiet"}


def test_pod_runs_what_it_was_given(fake, tmp_path):
    """The line that the workers get, run by a shell here: its words are those that were given."""
    environment = fake("gcloud", "git", "tar", answers=[(STATE, [("ACTIVE", 0)]), ("cat jxstilts", [("0", 0)])])
    assert pod(environment, *SLICE, f"--fetch={tmp_path / 'r'}", *STUDY).returncode == 0
    (remote,) = begun(documented(fake.calls()))
    home = tmp_path / "home/jxstilts"
    (home / ".venv/bin").mkdir(parents=True)
    shutil.copytree(LAUNCH, home / "launch")
    program = home / ".venv/bin/jxstilts"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 75\n')
    program.chmod(0o755)
    (home / "run.code").write_text("0")  # of a run before
    done = subprocess.run(["sh", "-c", remote], cwd=home.parent, timeout=30)
    end = time.monotonic() + 30
    while not (home / "run.code").exists() or not (home / "run.code").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert done.returncode == 0 and (home / "run.code").read_text() == "75\n"
    assert (home / "run.log").read_text().splitlines() == ["run", "--processes=tpu", *STUDY[1:]]


def test_pod_takes_a_slice_that_is_there_and_reports_the_code(fake):
    environment = fake("gcloud", "git", answers=[(STATE, [("ACTIVE", 0)]), ("cat jxstilts/run.code", [("2", 0)])])
    done = pod(environment, *SLICE, *STUDY)
    found = documented(fake.calls())
    assert done.returncode == 2 and len(begun(found)) == 1
    assert not {"queued-resources create", "queued-resources delete"} & {name for name, *_ in found}


def test_pod_goes_on_after_a_preemption(fake, tmp_path):
    """The first slice is taken away in mid-run; the second run ends with 75, the third is done."""
    environment = fake("gcloud", "git", "tar", answers=[
        (STATE, [("ACTIVE", 0), ("ACTIVE", 0), ("SUSPENDED", 0), ("SUSPENDED", 0), ("ACTIVE", 0)]),
        ("cat jxstilts/run.code", [("", 255), ("75", 0), ("0", 0)]),
    ])  # fmt: skip
    done = pod(environment, *SLICE, "--spot", f"--fetch={tmp_path / 'r'}", *STUDY)
    assert done.returncode == 0 and "the slice is gone (attempt 1 of 10)" in done.stderr
    found = documented(fake.calls())
    names = [name for name, *_ in found]
    assert len(begun(found)) == 3
    assert names.count("queued-resources delete") == 1 and names.count("queued-resources create") == 1


def test_pod_gives_up_after_some_attempts(fake):
    environment = fake("gcloud", "git", answers=[(STATE, [("ACTIVE", 0)]), ("cat jxstilts/run.code", [("75", 0)])])
    assert pod(environment, *SLICE, "--attempts=2", *STUDY).returncode == 75
    assert len(begun(documented(fake.calls()))) == 2


def test_pod_without_a_slice(fake):
    environment = fake("gcloud", "git", answers=[(STATE, [("", 1), ("PROVISIONING", 0), ("FAILED", 0)])])
    done = pod(environment, *SLICE, *STUDY)
    assert done.returncode == 1 and "the slice n is FAILED" in done.stderr


def test_pod_dry_run_calls_nothing(fake):
    environment = fake("gcloud", "git", "tar")
    done = pod(environment, *SLICE, "--dry-run", "--delete", *STUDY)
    assert done.returncode == 0 and not (pathlib.Path(environment["PATH"].split(":")[0]) / "calls.jsonl").exists()
    assert "queued-resources create n --zone=z --node-id=n" in done.stdout
    assert "queued-resources delete n" in done.stdout


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--name=n", *STUDY], "--zone=... is needed"),
        ([*SLICE, "--spt", *STUDY], "unknown option --spt"),
        ([*SLICE, "--attempts=0", *STUDY], "--attempts=0: a number, 1 or more"),
        ([*SLICE, "--", "--config=c.py"], "give --workdir=/..., an absolute path"),
    ],
)
def test_pod_bad_options(fake, options, text):
    done = pod(fake("gcloud"), *options)
    assert done.returncode == 2 and text in done.stderr
