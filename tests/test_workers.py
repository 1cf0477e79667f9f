"""Workers on one folder, killed runs and failed phases: every phase exactly once, the same results whatever happens."""

import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import time

import files
import jax
import pytest

from jxstilts import cli, config, lease, study, tracking
from jxstilts.runtime import InputError

CONFIG = """
from jxstilts.config import complete
from jxstilts.study import Study


def get_config(arg=None):
    nli = {"tasks": {"mnli": {"batch_size": 16, "max_length": 32, "limit": 64, "buckets": 1}}}
    return complete(Study, {
        "study": "workers", "data_dir": "", "mesh": {"data": 1},
        "model": {"preset": "tiny", "hidden_dropout": 0.1, "attention_dropout": 0.1},
        "tokenizer": {"vocab_size": 400, "model": "bpe", "languages": ("en", "de")},
        "evaluations": {},
        "phases": {"start": {"init": "random"}},
        "grid": {
            "models": {"m": "start"}, "intermediates": ("none", "mnli"),
            "targets": {"tatoeba": {}} | ({} if arg == "small" else {"xnli": {}}),
            "seeds": (1, 2), "training": {"mnli": nli},
            "phase": {"epochs": 1.0, "optimizer": {"learning_rate": 3e-3}, "save_every": 2, "log_every": 1,
                      "select": {"metric": "accuracy", "rows": 8, "every": 2}},
            "what": {"options": {"max_length": 32, "tokens_per_batch": 512}},
        },
    })
"""
ONE_DEVICE = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}


@pytest.fixture(scope="module")
def place(world, tmp_path_factory):
    """Holds config, data, and the caches that all runs share."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "c.py").write_text(CONFIG)
    text, nli, pairs = "text/common_voice/[de][en].txt", "xtreme/xnli/*-[de][en].tsv", "xtreme/tatoeba/*.deu-*"
    files.part(world, folder / "data", "intermediate/mnli/*", text, nli, pairs)
    return folder


def arguments(place, *more):
    cache = f"--config.cache_dir={place / 'cache'}"
    return [f"--config={place / 'c.py'}", f"--config.data_dir={place / 'data'}", cache, *more]


def make(place, *more):
    return study.from_config(config.load(arguments(place, *more)))


@pytest.fixture(scope="module")
def unbroken(place, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    study.run(make(place), workdir, devices=jax.devices()[:1])
    return workdir


def results(workdir):
    return sorted((workdir / "results.jsonl").read_bytes().splitlines())


def test_a_grid_runs_to_its_results(unbroken):
    rows = tracking.read_rows(unbroken / "results.jsonl")
    found = {(row["intermediate"], row["task"], row["seed"], row["phase"]) for row in rows}
    assert found == {
        ("none", "xnli", 1, "m-mnli-s1"), ("none", "xnli", 2, "m-mnli-s2"), ("none", "tatoeba", 0, "start"),
        ("mnli", "xnli", 1, "m-mnli-mnli-s1"), ("mnli", "xnli", 2, "m-mnli-mnli-s2"),
        ("mnli", "tatoeba", 1, "m-mnli-s1"), ("mnli", "tatoeba", 2, "m-mnli-s2"),
    }  # fmt: skip
    assert not list((unbroken / "leases").iterdir()) and not (unbroken / "failed").exists()


SCRIPT = """
import sys
from jxstilts import config, study
shard = tuple(map(int, sys.argv[2].split("/"))) if sys.argv[2] else None
study.run(study.from_config(config.load(sys.argv[3:])), sys.argv[1], shard=shard)
"""


def start(place, workdir, shard=""):
    """Starts a process that runs the small study: three phases."""
    given = [option.replace("c.py", "c.py:small") for option in arguments(place)]
    line = [sys.executable, "-c", SCRIPT, str(workdir), shard, *given]
    return subprocess.Popen(line, env=ONE_DEVICE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def begun(process):
    """Waits for a process, and returns the phases that it began."""
    out, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, out
    return [line.split()[2] for line in out.splitlines() if line.startswith("phase ")]


@pytest.fixture(scope="module")
def reference(place, tmp_path_factory):
    """An unbroken run by a process of its own: one with eight simulated devices rounds otherwise."""
    workdir = tmp_path_factory.mktemp("reference")
    assert begun(start(place, workdir)) == ["start", "m-mnli-s1", "m-mnli-s2"]
    return workdir


def test_two_workers_do_each_phase_once_and_replace_a_killed_one(place, reference, tmp_path):
    killed = start(place, tmp_path, "2/2")
    end = time.monotonic() + 1200
    while not (tmp_path / "phases/m-mnli-s1/metrics.jsonl").exists():
        assert killed.poll() is None and time.monotonic() < end, killed.communicate()[0]
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert lease.owner(tmp_path / "leases/phase-m-mnli-s1")["pid"] == killed.pid
    workers = [start(place, tmp_path, f"{number}/2") for number in (1, 2)]
    assert sorted(begun(workers[0]) + begun(workers[1])) == ["m-mnli-s1", "m-mnli-s2"]
    assert results(tmp_path) == results(reference)
    assert not list((tmp_path / "leases").iterdir())


@pytest.mark.slow
def test_ten_kills_change_nothing(place, reference, tmp_path):
    chance = random.Random(0)
    for number in range(10):
        process = start(place, tmp_path, "1/2" if number % 2 else "")
        time.sleep(chance.uniform(2, 14))
        process.kill()
        process.communicate()
    begun(start(place, tmp_path))
    assert results(tmp_path) == results(reference)


def test_a_folder_belongs_to_one(place, tmp_path):
    plan = make(place)
    alone = lease.acquire(tmp_path / "leases/alone")
    with pytest.raises(InputError, match=rf"process {os.getpid()} on .* works there; wait for it, or give each"):
        study.run(plan, tmp_path, devices=jax.devices()[:1])
    with pytest.raises(InputError, match=r"works there alone, or as worker 1 of 2"):
        study.run(plan, tmp_path, devices=jax.devices()[:1], shard=(1, 2))
    alone.release()
    worker = lease.acquire(tmp_path / "leases/worker-1-of-2")
    for shard in (None, (1, 2)):
        with pytest.raises(InputError, match=r"works there"):
            study.run(plan, tmp_path, devices=jax.devices()[:1], shard=shard)
    worker.release()
    assert not list((tmp_path / "leases").iterdir()) and not (tmp_path / "tokenizer").exists()


def test_a_failed_phase_stops_only_what_needs_it(place, unbroken, tmp_path, capsys):
    """Seed 1 fails: its loss is not finite. The rest goes on; the next run tries again, and with success forgets it."""
    workdir = shutil.copytree(unbroken, tmp_path / "w")
    shutil.rmtree(workdir / "phases/m-mnli-s1")
    shutil.rmtree(workdir / "phases/m-mnli-mnli-s2")
    plan = make(place)
    good = plan.phases["m-mnli-s1"]
    bad = dataclasses.replace(good, optimizer=dataclasses.replace(good.optimizer, learning_rate=1e20))
    broken = dataclasses.replace(plan, phases=plan.phases | {"m-mnli-s1": bad})
    with pytest.raises(study.Failed, match=r"phase m-mnli-s1 failed: .*loss of step .*; not run.*: m-mnli-mnli-s1$"):
        study.run(broken, workdir, devices=jax.devices()[:1])
    out = capsys.readouterr().out
    assert "phase 5/5: m-mnli-mnli-s2" in out and "m-mnli-mnli-s1" not in out
    record = json.loads((workdir / "failed/phase-m-mnli-s1.json").read_text())
    assert "the loss of step" in record["cause"] and record["pid"] == os.getpid()
    study.run(plan, workdir, devices=jax.devices()[:1])
    assert not list((workdir / "failed").iterdir()) and results(workdir) == results(unbroken)


def test_a_failed_run_prints_its_tables_first(place, unbroken, tmp_path, monkeypatch, capsys):
    workdir = shutil.copytree(unbroken, tmp_path / "w")

    def failed(*_, **__):
        raise study.Failed("phase a failed: no data")

    monkeypatch.setattr(study, "run", failed)
    assert cli.main(["run", *arguments(place), f"--workdir={workdir}"]) == 2
    out, err = capsys.readouterr()
    assert "tatoeba" in out and "written to" in out and err == "jxstilts: error: phase a failed: no data\n"
    (workdir / "results.jsonl").unlink()
    assert cli.main(["run", *arguments(place), f"--workdir={workdir}"]) == 2
    assert capsys.readouterr() == ("", err)


def test_a_failed_evaluation_stops_nothing_else(place, unbroken, tmp_path):
    workdir = shutil.copytree(unbroken, tmp_path / "w")
    (workdir / "results.jsonl").unlink()
    key = "m-none-xnli-s1"
    plan = make(place)
    what = plan.evaluations[key].what
    wrong = dataclasses.replace(plan.evaluations[key], what=dataclasses.replace(what, head="other", benchmark=""))
    plan = dataclasses.replace(plan, evaluations=plan.evaluations | {key: wrong})
    with pytest.raises(InputError, match=r"^evaluation m-none-xnli-s1 failed: "):
        study.run(plan, workdir, devices=jax.devices()[:1])
    own = b'"evaluation": "m-none-xnli-s1"'
    assert results(workdir) == [row for row in results(unbroken) if own not in row]


def test_only_a_part(place, tmp_path, capsys):
    plan = study.only(make(place), "m-none-tatoeba-*")
    study.run(plan, tmp_path, devices=jax.devices()[:1])
    assert [path.name for path in (tmp_path / "phases").iterdir()] == ["start"]
    assert {row["task"] for row in tracking.read_rows(tmp_path / "results.jsonl")} == {"tatoeba"}


def test_a_world_leaves_its_strata(place, tmp_path):
    data = shutil.copytree(place / "data", tmp_path / "data")
    languages = [{"code": "en", "resource": "high"}, {"code": "de", "resource": "low"}]
    record = {"size": "tiny", "seed": 3, "sha256": "abcdef0123456789", "languages": languages}
    (data / "world.json").write_text(json.dumps(record))
    plan = study.only(dataclasses.replace(make(place), data_dir=str(data)), "start")
    study.run(plan, tmp_path / "w", devices=jax.devices()[:1])
    found = json.loads((tmp_path / "w/strata.json").read_text())
    assert found == {"world": "miniworld tiny, seed 3, abcdef012345", "high": ["en"], "low": ["de"]}


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/2/3"])
def test_bad_shards(place, tmp_path, capsys, shard):
    assert cli.main(["run", *arguments(place), f"--workdir={tmp_path}", f"--shard={shard}"]) == 2
    assert f"--shard={shard}: i/n, worker i of n" in capsys.readouterr().err
