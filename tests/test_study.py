"""Phases and studies: the whole path on the miniature world, stopped and resumed, and what is refused."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest
import toy

from jxstilts import cli, config, runtime, study, tracking
from jxstilts.models import bundle
from jxstilts.runtime import InputError


@pytest.fixture(scope="module")
def config_file(compile_cache, tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "toy.py"
    path.write_text(toy.CONFIG)
    return f"{path}:{compile_cache}"


def make(config_file, world, *overrides):
    return study.from_config(config.load([f"--config={config_file}", f"--config.data_dir={world}", *overrides]))


@pytest.fixture(scope="module")
def unbroken(config_file, world, tmp_path_factory):
    """A study folder that ran from start to end in one go."""
    workdir = tmp_path_factory.mktemp("unbroken")
    plan = make(config_file, world)
    # tests need one device, the process has eight
    study.run(plan, workdir, devices=jax.devices()[:1])
    return workdir


def outcome(workdir: pathlib.Path):
    """What has to be bitwise equal: parameters of every phase, losses of every step, results."""
    shas = {path.parent.name: json.loads(path.read_text()) for path in sorted(workdir.glob("phases/*/DONE"))}
    losses = {
        path.parent.name: [
            {key: row.get(key) for key in ("step", "kind", "loss", "accuracy", "f1")}
            for row in tracking.read_rows(path)
            if row["kind"] == "dev"
        ]
        for path in sorted(workdir.glob("phases/*/metrics.jsonl"))
    }
    return shas, losses, tracking.read_rows(workdir / "results.jsonl")


def test_a_study_runs_to_its_table(unbroken):
    rows = tracking.read_rows(unbroken / "results.jsonl")
    assert {(row["task"], row["language"], row["metric"]) for row in rows} == {
        *((task, language, metric) for task, metrics in (("xnli", ("accuracy",)), ("xquad", ("f1", "exact_match")))
          for language in ("en", "de") for metric in metrics),
        ("tatoeba", "de", "accuracy"),
    }  # fmt: skip
    needed = """study phase model intermediate target task language split metric value n seed checkpoint_sha256
        config_fingerprint jxstilts_version""".split()
    assert all(set(needed) <= set(row) and 0 <= row["value"] <= 100 for row in rows)
    assert {row["n"] for row in rows if row["task"] == "xquad"} == {6}
    assert json.loads((unbroken / "predictions/xquad/xquad/test-de.json").read_text()).keys() == {
        f"xquad-{paragraph}-{question}" for paragraph in range(3) for question in range(2)
    }
    phase = unbroken / "phases/pretrain"
    assert not (phase / "checkpoints").exists()
    assert any((phase / "tensorboard").iterdir())
    losses = [row["loss"] for row in tracking.read_rows(phase / "metrics.jsonl") if row["kind"] == "train"]
    assert losses[-1] < losses[0]


def test_a_phase_on_the_same_task_goes_on_with_its_head(unbroken, config_file, world, tmp_path):
    for part in ("phases/pretrain", "phases/mnli", "tokenizer"):
        shutil.copytree(unbroken / part, tmp_path / part)
    more = ["init=mnli", "steps=1", "tasks.mnli.batch_size=16", "tasks.mnli.max_length=48", "select.rows=24",
            "optimizer.learning_rate=0"]  # fmt: skip
    phases = {"more": more, "anew": [*more, "keep_heads=()"]}
    given = [f"--config.phases.{name}.{key}" for name, keys in phases.items() for key in keys]
    plan = make(config_file, world, *given, "--config.evaluations={}")
    plan = dataclasses.replace(plan, phases={key: plan.phases[key] for key in ("pretrain", "mnli", "more", "anew")})
    study.run(plan, tmp_path, devices=jax.devices()[:1])
    metas = {name: bundle.read_meta(tmp_path / "phases" / name / "best") for name in ("mnli", "more", "anew")}
    taken = {name: meta["provenance"].get("handover") for name, meta in metas.items()}
    assert taken["more"] == {"loaded": ["encoder", "heads/mnli"], "new": [], "dropped": []}
    assert taken["anew"] == {"loaded": ["encoder"], "new": ["heads/mnli"], "dropped": ["heads/mnli"]}
    assert metas["more"]["leaves"] == metas["mnli"]["leaves"] != metas["anew"]["leaves"]
    assert metas["more"]["provenance"]["best"]["metric"] == "major"  # the same rule as a grid's
    before = {name: (tmp_path / "phases" / name / "DONE").stat().st_mtime_ns for name in metas}
    study.run(plan, tmp_path, devices=jax.devices()[:1])
    assert {name: (tmp_path / "phases" / name / "DONE").stat().st_mtime_ns for name in metas} == before


def test_three_lists_are_recorded(unbroken):
    taken = bundle.read_meta(unbroken / "phases/qa/best")["provenance"]["handover"]
    assert taken == {"loaded": ["encoder"], "new": ["heads/tydiqa"], "dropped": ["heads/mnli"]}


def test_second_run_does_nothing(unbroken, config_file, world, capsys):
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*") if path.is_file()}
    study.run(make(config_file, world), unbroken, devices=jax.devices()[:1])
    after = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*") if path.is_file()}
    assert before == after
    assert "phase" not in capsys.readouterr().out


@pytest.mark.parametrize("stops", [(1, 7, 2, 9), pytest.param((4, 5, 11, 3, 1, 8, 6), marks=pytest.mark.slow)])
def test_stopped_after_any_step_equals_unbroken(unbroken, config_file, world, tmp_path, stops):
    """Stops after the given numbers of steps or evaluations; the caches are the unbroken run's."""
    plan = make(config_file, world, f"--config.cache_dir={unbroken / 'cache'}")
    shutil.copytree(unbroken / "tokenizer", tmp_path / "tokenizer")
    for count in stops:
        asked = []
        with pytest.raises(runtime.Interrupted):
            study.run(plan, tmp_path, lambda step: asked.append(step) or len(asked) > count, devices=jax.devices()[:1])  # noqa: B023
    study.run(plan, tmp_path, devices=jax.devices()[:1])
    assert outcome(tmp_path) == outcome(unbroken)


def test_a_study_that_starts_from_a_bundle_needs_no_tokenizer(unbroken, config_file, world, tmp_path):
    plan = make(config_file, world, "--config.phases.mnli.steps=2", "--config.phases.mnli.epochs=0.0")
    start = dataclasses.replace(plan.phases["mnli"], init=str(unbroken / "phases/pretrain/best"))
    plan = dataclasses.replace(plan, phases={"mnli": start}, evaluations={}, tokenizer=study.TokenizerConfig())
    study.run(plan, tmp_path, devices=jax.devices()[:1])
    assert not (tmp_path / "tokenizer").exists()
    assert (tmp_path / "phases/mnli/best/tokenizer").is_dir()


def test_a_changed_phase_runs_again_and_so_does_what_follows(unbroken, config_file, world, tmp_path, capsys):
    workdir = shutil.copytree(unbroken, tmp_path / "w")
    study.run(make(config_file, world, "--config.phases.mnli.epochs=1.0"), workdir, devices=jax.devices()[:1])
    out = capsys.readouterr().out
    assert "mnli: runs again, phase.epochs: 2.0 -> 1.0. What was there is kept in" in out
    assert "qa: runs again, start: " in out and "pretrain" not in out
    shas = outcome(workdir)[0]
    old = outcome(unbroken)[0]
    assert shas["pretrain"] == old["pretrain"] and shas["mnli"] != old["mnli"] and shas["qa"] != old["qa"]
    rows = tracking.read_rows(workdir / "results.jsonl")
    assert {row["checkpoint_sha256"] for row in rows} == {shas[name]["checkpoint_sha256"] for name in ("mnli", "qa")}
    kept = {path.parent.name.rpartition("-")[0]: path for path in workdir.glob("phases/.superseded/*/DONE")}
    assert {name: json.loads(path.read_text()) for name, path in kept.items()} == {n: old[n] for n in ("mnli", "qa")}


def test_changed_data_runs_again(unbroken, config_file, world, tmp_path, capsys):
    data, workdir = shutil.copytree(world, tmp_path / "data"), shutil.copytree(unbroken, tmp_path / "w")
    (data / "xtreme/xquad/xquad.de.json").unlink()  # not read by any phase
    train = data / "xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json"
    train.write_text(train.read_text().replace('"who ', '"which one '))
    plan = make(config_file, data)
    study.run(dataclasses.replace(plan, evaluations={}), workdir, devices=jax.devices()[:1])
    out = capsys.readouterr().out
    assert "qa: runs again, data.xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json: " in out
    assert out.count("runs again") == 1


def test_changed_tokenizer_is_refused(unbroken, config_file, world):
    plan = make(config_file, world, "--config.tokenizer.vocab_size=100")
    with pytest.raises(
        InputError, match=r"tokenizer was trained with another config: config.tokenizer.vocab_size: 400 -> 100"
    ):
        study.run(plan, unbroken, devices=jax.devices()[:1])


def test_changed_evaluation_runs_again(unbroken, config_file, world, tmp_path):
    shutil.copytree(unbroken, tmp_path / "w")
    plan = make(config_file, world, "--config.evaluations.xquad.what.limit=3")
    study.run(plan, tmp_path / "w", devices=jax.devices()[:1])
    rows = tracking.read_rows(tmp_path / "w" / "results.jsonl")
    assert {row["n"] for row in rows if row["task"] == "xquad"} == {3}
    assert len(rows) == len(tracking.read_rows(unbroken / "results.jsonl"))


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            ["--config.phases.mnli.tasks.mnli.task=mnly"],
            "config.phases.mnli.tasks.mnli.task: unknown task 'mnly'; did you mean 'mnli'",
        ),
        (["--config.phases.pretrain.tasks.text.languages=('en','dee')"], "did you mean 'de'"),
        (
            ["--config.evaluations.xnli.phase=mnl"],
            r"config.evaluations.xnli.phase: unknown phase 'mnl'; did you mean 'mnli'",
        ),
        (["--config.evaluations.xnli.what.languages=('xx',)"], "unknown language"),
        (["--config.phases.pretrain.init=qa"], "in a circle"),
        (["--config.phases.mnli.steps=4"], "epochs or steps, not both"),
        (["--config.phases.mnli.accumulation=3"], "multiple of accumulation"),
        (["--config.phases.mnli.optimizer.warmup=2.5"], "share of all steps"),
        (["--config.compute.attention=cuda"], "attention backend"),
    ],
)
def test_bad_configs_are_refused_before_anything_runs(config_file, world, tmp_path, overrides, text):
    with pytest.raises(InputError, match=text):
        plan = make(config_file, world, *overrides)
        study.run(plan, tmp_path / "w", devices=jax.devices()[:1])
    assert not (tmp_path / "w" / "phases").exists()


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["--config.phases.mnli.tasks.mnli.max_length=4000"], "positions for 128 tokens"),
        (["--config.phases.mnli.select.metric=f1"], "select.metric: unknown metric 'f1'"),
        (["--config.phases.mnli.keep_heads=('mlm2',)"], "no head 'mlm2' to take over"),
        (["--config.phases.qa.tasks.tydiqa.holdout=44"], "holdout=44, but task 'tydiqa' has 44 training rows"),
        (["--config.phases.mnli.optimizer.learning_rate=1e20"], "loss of step .* is (nan|inf)"),
    ],
)
def test_bad_phases(unbroken, config_file, world, tmp_path, overrides, text):
    shutil.copytree(unbroken / "phases" / "pretrain", tmp_path / "phases" / "pretrain")
    if any("qa" in key for key in overrides):
        shutil.copytree(unbroken / "phases" / "mnli", tmp_path / "phases" / "mnli")
        (tmp_path / "results.jsonl").write_bytes((unbroken / "results.jsonl").read_bytes())
    shutil.copytree(unbroken / "tokenizer", tmp_path / "tokenizer")
    plan = make(config_file, world, *overrides)
    with pytest.raises(InputError, match=text):
        study.run(plan, tmp_path, devices=jax.devices()[:1])


def test_a_checkpoint_is_not_chosen_by_dev_rows_without_gold(unbroken, config_file, world, tmp_path):
    shutil.copytree(world, tmp_path / "data")
    dev = tmp_path / "data/xtreme/tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.en.dev.json"
    articles = json.loads(next((tmp_path / "data/xtreme/xquad").glob("*.json")).read_text())
    for article in articles["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                question["answers"] = [{"answer_start": 0, "text": ""}]  # as in XTREME's own copy
    dev.parent.mkdir(parents=True, exist_ok=True)
    dev.write_text(json.dumps(articles))
    for part in ("phases/pretrain", "phases/mnli", "tokenizer"):
        shutil.copytree(unbroken / part, tmp_path / "w" / part)
    plan = make(config_file, tmp_path / "data", "--config.phases.qa.tasks.tydiqa.holdout=0")
    with pytest.raises(InputError, match="the dev rows of 'tydiqa' have no gold labels"):
        study.run(plan, tmp_path / "w", devices=jax.devices()[:1])


def command(config_file, world, workdir, unbroken):
    return [
        sys.executable, "-m", "jxstilts", "run", f"--config={config_file}", f"--config.data_dir={world}",
        f"--workdir={workdir}", f"--config.cache_dir={unbroken / 'cache'}",
    ]  # fmt: skip


ONE_DEVICE = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"not reached; exit code {process.poll()}: {process.communicate()[1]}")


def test_signals_save_and_kill_loses_nothing(unbroken, config_file, world, tmp_path):
    """SIGTERM exits with 75; kill -9 leaves a folder that the same command continues; the end is the unbroken one."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    # A process with one device rounds otherwise than this one with eight, so the comparison is with its like.
    reference = command(config_file, world, whole, unbroken)
    assert subprocess.run(reference, env=ONE_DEVICE, capture_output=True, timeout=300).returncode == 0
    arguments = command(config_file, world, broken, unbroken)
    shutil.copytree(unbroken / "tokenizer", broken / "tokenizer")
    for number, name in ((signal.SIGTERM, "pretrain"), (signal.SIGKILL, "mnli")):
        log = broken / "phases" / name / "metrics.jsonl"
        process = subprocess.Popen(arguments, env=ONE_DEVICE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: log.exists() and log.stat().st_size > 0, process)  # noqa: B023
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == {signal.SIGTERM: 75, signal.SIGKILL: -9}[number], errors
        assert "Traceback" not in errors
    done = subprocess.run(arguments, env=ONE_DEVICE, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "| tiny" in done.stdout
    assert outcome(broken) == outcome(whole)


def test_cli_reports_bad_input_in_one_line(config_file, world, tmp_path, capsys):
    assert cli.main(["run", f"--config={config_file}", "--workdir", str(tmp_path), "--config.data_dir=/nowhere"]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert errors == ["jxstilts: error: config.data_dir='/nowhere': no such folder"]
