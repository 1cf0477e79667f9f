"""Studies that run into a full disk, a lack of memory, damage or numbers that are not finite, and go on."""

import json
import shutil

import files
import jax
import numpy as np
import pytest
from test_step import ADAMW, CONTEXT, HEADS, make_batch
from test_survival import largest_file, spoil

from jxstilts import cli, config, runtime, study, tracking
from jxstilts.mesh import make_mesh, put_batch
from jxstilts.models.model import Model, make_config
from jxstilts.runtime import InputError
from jxstilts.train import mixture, optimizer, step

CONFIG = """
from jxstilts.config import complete
from jxstilts.study import Study


def get_config(arg=None):
    qqp = {"batch_size": 16, "max_length": 32, "limit": 64, "buckets": 1, "languages": ("en", "de"), "packed": False}
    return complete(Study, {
        "study": "survival", "data_dir": "", "mesh": {"data": 1},
        "model": {"preset": "tiny", "hidden_dropout": 0.1, "attention_dropout": 0.1},
        "tokenizer": {"vocab_size": 400, "model": "bpe", "languages": ("en", "de")},
        "phases": {"p": {
            "tasks": {"qqp": qqp}, "steps": 6, "optimizer": {"learning_rate": 3e-3}, "save_every": 2, "log_every": 1,
            "select": {"metric": ""},
        }},
        "evaluations": {},
    })
"""


@pytest.fixture(scope="module")
def place(world, tmp_path_factory):
    """Holds the config and the data."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "c.py").write_text(CONFIG)
    files.part(world, folder / "data", "intermediate/qqp/*", "text/common_voice/[de][en].txt")
    train = folder / "data/intermediate/qqp/train.tsv"
    shutil.copy(train, train.with_suffix(".de.tsv"))
    return folder


@pytest.fixture(scope="module")
def command(place, compile_cache):
    cache = f"--config.cache_dir={place / 'cache'}", f"--config.compile_cache={compile_cache}"
    return [f"--config={place / 'c.py'}", f"--config.data_dir={place / 'data'}", *cache]


@pytest.fixture(scope="module")
def run(command):
    def run(workdir, *more, steps=0):
        """Runs the study; steps: stopped before step `steps`."""
        plan = study.from_config(config.load([*command, *more]))
        study.run(plan, workdir, lambda now: bool(steps) and now == steps, devices=jax.devices()[:1])

    return run


@pytest.fixture(scope="module")
def unbroken(run, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    run(workdir)
    return workdir


def sha(workdir):
    return json.loads((workdir / "phases/p/DONE").read_text())["checkpoint_sha256"]


def begun(run, workdir, *more, steps=4):
    """A study that was stopped before a step, all before it saved."""
    with pytest.raises(runtime.Interrupted, match=f"p: stopped at step {steps} of 6; saved"):
        run(workdir, *more, steps=steps)
    return workdir / "phases/p/checkpoints"


def test_a_full_disk_stops_the_phase_and_the_same_command_goes_on(run, unbroken, tmp_path):
    saved = begun(run, tmp_path)
    with largest_file(100_000), pytest.raises(study.Failed) as error:
        run(tmp_path)
    text = str(error.value)
    assert text.startswith("phase p failed: the checkpoint of step 6 could not be saved; the one of step 4 is kept: ")
    assert "File too large: raise the limit" in text and "\n" not in text
    assert sorted(path.name for path in saved.iterdir()) == ["2", "4"]
    assert not (tmp_path / "phases/p/DONE").exists()
    run(tmp_path)
    assert sha(tmp_path) == sha(unbroken)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), "the device's memory"),
        (MemoryError("Unable to allocate 9 GiB"), "this machine's memory"),
    ],
)
def test_a_lack_of_memory_names_the_keys(run, unbroken, tmp_path, monkeypatch, error, text):
    real = step.make_train_step

    def make(*args, **options):
        train = real(*args, **options)

        def limited(state, batches):
            if int(state["step"]) == 4:
                raise error
            return train(state, batches)

        return limited

    monkeypatch.setattr(step, "make_train_step", make)
    with pytest.raises(study.Failed) as failed:
        run(tmp_path)
    said = str(failed.value)
    assert said.startswith(f"phase p failed: out of {text} (") and "\n" not in said
    for key in (
        "config.phases.p.tasks.qqp.batch_size=16", "config.phases.p.accumulation=1", "config.compute.remat",
        "config.compute.dtype", "config.mesh.fsdp", "`jxstilts check`",
    ):  # fmt: skip
        assert key in said
    monkeypatch.undo()
    run(tmp_path)
    assert sha(tmp_path) == sha(unbroken)


def test_a_damaged_checkpoint_costs_only_its_steps(run, unbroken, tmp_path, capsys):
    saved = begun(run, tmp_path)
    spoil(saved / "4/state")
    capsys.readouterr()
    run(tmp_path)
    said = capsys.readouterr().err
    assert f"p: {saved}/4: this checkpoint is damaged: not the values that were saved: " in said
    assert "It is kept as damaged-4; going back to step 2\np: going on from step 2\n" in said
    assert sha(tmp_path) == sha(unbroken)


def test_a_folder_that_cannot_be_made(command, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["run", *command, f"--workdir={tmp_path}/file/w"]) == 2
    said = capsys.readouterr().err
    assert said == f"jxstilts: error: --workdir='{tmp_path}/file/w': Not a directory; give another folder\n"


# Numbers that are not finite


@pytest.fixture
def strange(monkeypatch):
    """Makes the loss of the given steps, counted from 1, not a number."""
    real, wanted = mixture.MixtureSource.__getitem__, set()

    def batches(self, number):
        found = real(self, number)
        for batch in found.values() if number + 1 in wanted else ():
            batch["weights"] = batch["weights"] * np.float32("nan")
        return found

    monkeypatch.setattr(mixture.MixtureSource, "__getitem__", batches)
    return wanted.update


def test_a_loss_that_is_not_finite_stops_with_its_examples(run, unbroken, tmp_path, strange, monkeypatch):
    strange({5})
    with pytest.raises(study.Failed) as error:
        run(tmp_path)
    kept = tmp_path / "phases/p/nonfinite.jsonl"
    said = str(error.value)
    assert said.startswith("phase p failed: p: the loss of step 5 is nan, its gradient's norm nan; its examples and ")
    assert f"are in {kept}; the last good checkpoint is step 4; lower config.phases.p.optimizer.learning_rate" in said
    assert "config.phases.p.skip_nonfinite" in said
    (row,) = tracking.read_rows(kept)
    assert row["step"] == 5 and row["metrics"]["loss"] == "nan"
    examples = row["examples"]["qqp"]
    assert len(examples) == 16 == len({(one["language"], one["row"]) for one in examples})
    assert {one["task"] for one in examples} == {"qqp"} and {one["language"] for one in examples} == {"en", "de"}
    assert all(0 <= one["row"] < 64 for one in examples)
    with pytest.raises(study.Failed, match="the loss of step 5 is nan"):
        run(tmp_path)
    assert len(tracking.read_rows(kept)) == 1  # the step that ran again is not there twice
    monkeypatch.undo()
    run(tmp_path)
    assert sha(tmp_path) == sha(unbroken) and tracking.read_rows(kept) == []


def test_so_many_steps_may_be_skipped(run, tmp_path, strange, capsys):
    """The count is kept when a run is stopped; one more than allowed stops the phase."""
    strange({2, 5})
    more = "--config.phases.p.skip_nonfinite=2"
    run(tmp_path / "whole", more)
    assert "p: the loss of step 5 is nan, its gradient's norm nan: skipped, 2 of at most 2; its examples: " in (
        capsys.readouterr().err
    )
    begun(run, tmp_path / "broken", more, steps=3)
    run(tmp_path / "broken", more)
    assert sha(tmp_path / "broken") == sha(tmp_path / "whole")
    for name in ("whole", "broken"):
        rows = {row["step"]: row for row in tracking.read_rows(tmp_path / name / "phases/p/metrics.jsonl")}
        assert [rows[number]["skipped"] for number in range(1, 7)] == [0, 1, 1, 1, 2, 2]
        assert "loss" not in rows[5] and np.isfinite(rows[6]["loss"])
        assert rows[3]["learning_rate"] == pytest.approx(3e-3 * 5 / 6)  # the second update
        assert [row["step"] for row in tracking.read_rows(tmp_path / name / "phases/p/nonfinite.jsonl")] == [2, 5]
    strange({6})
    begun(run, tmp_path / "more", more, steps=4)
    with pytest.raises(
        study.Failed, match=r"step 6 is nan.*; 3 such steps, config.phases.p.skip_nonfinite=2; .*step 4"
    ):
        run(tmp_path / "more", more)


def test_a_negative_number_of_steps_is_refused(command):
    with pytest.raises(InputError, match="skip_nonfinite=-1: 0"):
        study.from_config(config.load([*command, "--config.phases.p.skip_nonfinite=-1"]))


@pytest.mark.slow
def test_a_skipped_step_leaves_all_as_it_was():
    """On a mesh, with accumulation and two streams, one of which is enough."""
    heads = dict(list(HEADS.items())[:2])
    model = Model(make_config("xlmr", "tiny"), tuple(heads.values()))
    optim = optimizer.make(ADAMW, 20)
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    shardings, _ = step.state_shardings(model, optim, mesh)
    state = jax.jit(lambda key: step.new_state(model.init(key), optim, 0), out_shardings=shardings)(jax.random.key(0))
    losses = {name: step.Loss(spec.name) for name, spec in heads.items()}
    train = step.make_train_step(model, losses, optim, mesh, context=CONTEXT, accumulation=2, skip_nonfinite=True)
    good = {name: make_batch(name) for name in heads}
    bad = {name: dict(batch) for name, batch in good.items()}
    last = list(heads)[-1]
    bad[last]["weights"] = bad[last]["weights"] * np.float32("nan")
    before = None
    for number, batch in enumerate((good, bad, good)):
        state, metrics = train(state, put_batch(batch, mesh))
        found = jax.device_get(state)
        assert bool(np.isfinite(metrics["loss"])) == (batch is good) and found["step"] == number + 1
        kept = {key: found[key] for key in ("params", "opt_state")}
        if batch is bad:
            jax.tree.map(np.testing.assert_array_equal, kept, before)
        elif before:
            kernel = lambda tree: tree["params"]["encoder"]["layers"]["mlp_in"]["kernel"]  # noqa: E731
            assert (kernel(kept) != kernel(before)).any()
        before = kept
