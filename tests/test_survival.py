"""Whatever goes wrong is told in one line, the state is kept, and the same command goes on: disk, memory, numbers."""

import contextlib
import errno
import os
import pathlib
import resource
import subprocess
import sys
import time

import folders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import samples

from jxstilts import checkpoint, cli, forms, runtime, tracking
from jxstilts.checkpoint import Checkpoints
from jxstilts.data import cache, prepare
from jxstilts.data.features import Features
from jxstilts.eval import results
from jxstilts.mesh import make_mesh
from jxstilts.models import bundle
from jxstilts.models.model import Model, make_config
from jxstilts.runtime import InputError


@contextlib.contextmanager
def largest_file(size: int):
    """No file may grow beyond `size` bytes: what a full disk is to a test that may not fill one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# The parts that write


def state(seed=0):
    kernel = jax.random.normal(jax.random.key(seed), (100, 400))
    return {
        "params": {"kernel": kernel, "bias": jnp.ones(3)},
        "mu": jnp.ones((4, 4), jnp.bfloat16),
        "step": jnp.int32(1),
    }


def abstract():
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state())


def test_a_save_that_fails_is_noticed_at_the_next_step(tmp_path, capfd):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(1), {"best": 1})
    checkpoints.wait()
    with largest_file(20_000):
        checkpoints.save(2, state(2), {"best": 2})
        with pytest.raises(InputError) as error:
            end = time.monotonic() + 20
            while time.monotonic() < end:
                checkpoints.check()  # as at every step
                assert checkpoints.steps() == [1]  # not yet committed, or failed
    text = str(error.value)
    assert text.startswith("the checkpoint of step 2 could not be saved; the one of step 1 is kept: ")
    assert str(tmp_path) in text and text.endswith("File too large: raise the limit (ulimit -f)")
    assert "ValueError" not in capfd.readouterr().err  # Orbax's threads print no tracebacks of it
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    checkpoints.save(2, state(2), {"best": 2})
    checkpoints.wait()
    restored = checkpoints.resume(abstract(), pytest.fail)
    assert restored[0] == 2 and restored[2] == {"best": 2}
    jax.tree.map(np.testing.assert_array_equal, restored[1], state(2))
    checkpoints.close()


def test_what_a_killed_save_left_is_removed(tmp_path):
    left = tmp_path / "7.orbax-checkpoint-tmp" / "state"
    left.mkdir(parents=True)
    Checkpoints(tmp_path).close()
    assert not list(tmp_path.iterdir())


def spoil(folder: pathlib.Path) -> None:
    """Changes a bit of the largest file: the arrays' values."""
    path = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_not_gone_on_from(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for number in (1, 2, 3):
        checkpoints.save(number, state(number), {"best": number}, keep={1})
    checkpoints.close()
    spoil(tmp_path / "3/state")
    (tmp_path / "2/meta/metadata").write_text('{"meta": 1}')
    notes = []
    checkpoints = Checkpoints(tmp_path)
    found, arrays, meta = checkpoints.resume(abstract(), notes.append)
    assert found == 1 and meta == {"best": 1}
    jax.tree.map(np.testing.assert_array_equal, arrays, state(1))
    assert notes == [
        f"{tmp_path}/3: this checkpoint is damaged: not the values that were saved: params/kernel. It is kept as "
        "damaged-3; going back to step 1",
        f"{tmp_path}/2: this checkpoint is damaged: its record is not the one that was saved. It is kept as damaged-2; "
        "going back to step 1",
    ]
    checkpoints.save(3, state(3), {"best": 3})  # the same step again
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.resume(abstract(), pytest.fail)[0] == 3
    spoil(tmp_path / "3/state")
    with pytest.raises(InputError, match=r"/3: this checkpoint is damaged: not the values that were saved: params/ker"):
        checkpoints.restore_params(3, abstract()["params"])
    spoil(tmp_path / "1/state")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"/3: .* no good one before it: remove .* to begin the phase anew"):
        checkpoints.resume(abstract(), pytest.fail)
    assert sorted(tmp_path.iterdir()) == before
    checkpoints.close()


@pytest.mark.parametrize("file", ["state/manifest.ocdbt", "meta/metadata", "state/ocdbt.process_0/d"])
@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_checkpoint_without_one_of_its_files(tmp_path, file, damage):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(), {})
    checkpoints.wait()
    path = tmp_path / "1" / file
    for each in [path] if path.is_file() else list(path.iterdir()):
        each.unlink()
        if damage == "empty":
            each.touch()
    with pytest.raises(InputError, match="/1: this checkpoint is damaged: "):
        checkpoints.restore(1, abstract())
    checkpoints.close()


def test_sums_are_the_same_on_any_mesh_and_see_every_bit():
    values = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    mesh = make_mesh({"data": 2, "fsdp": 4})
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp", "data"))
    sums = [checkpoint._sums({"x": array}) for array in (jnp.asarray(values), jax.device_put(values, spread))]
    assert sums[0] == sums[1]
    swapped = values.copy()
    swapped[0, 0], swapped[0, 1] = values[0, 1], values[0, 0]
    assert checkpoint._sums({"x": jnp.asarray(swapped)}) != sums[0]
    for kind in (jnp.bfloat16, jnp.int32, jnp.uint8, bool):
        array = jnp.asarray(values > 0, kind)
        assert checkpoint._sums({"x": array}) != checkpoint._sums({"x": array.at[3, 3].set(array[3, 3] == 0)})


KEY = {"task": "mnli"}


def features():
    return Features(np.arange(50_000, dtype=np.int32), np.arange(0, 50_001, 5), {}, {})


def test_a_cache_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(InputError) as error, runtime.explained("phase p"), largest_file(10_000):
        cache.cached(tmp_path / "c", KEY, features)
    text = str(error.value)
    assert text.startswith(f"phase p: {tmp_path}/c/.") and "tokens.npy: " in text
    assert text.endswith("free some, or give a folder on another disk") or text.endswith("raise the limit (ulimit -f)")
    assert not list((tmp_path / "c").iterdir())
    assert len(cache.cached(tmp_path / "c", KEY, features)) == 10_000


def test_a_changed_example_is_noticed_by_the_cache(tmp_path, monkeypatch):
    made = []
    form = forms.get("classification")
    monkeypatch.setattr(type(form), "tokenize", lambda self, examples, *_, **__: made.append(examples) or features())
    monkeypatch.setattr(prepare.tokenizer, "fingerprint", lambda _: "t")
    rows = [{"id": "1", "text_a": "one", "text_b": None, "label": 0}]
    for examples in (rows, rows, [{**rows[0], "text_a": "two"}], rows):
        prepare.features(form, examples, None, samples.template(), forms.Reading(max_length=16), tmp_path)
    assert [one[0]["text_a"] for one in made] == ["one", "two"]


def test_results_are_whole_when_they_cannot_be_written(tmp_path):
    rows = [folders.row(), folders.row(language="de", study="x" * 2000)]
    mine = {key: rows[0][key] for key in ("evaluation", "config_fingerprint", "checkpoint_sha256")}
    path = tmp_path / "results.jsonl"
    results._store(path, rows[:1], mine)
    with pytest.raises(InputError) as error, runtime.explained(), largest_file(1000):
        results._store(path, rows[1:], mine)
    assert str(error.value) == f"{path}: File too large: raise the limit (ulimit -f)"
    assert tracking.read_rows(path) == rows[:1] and [one.name for one in tmp_path.iterdir()] == ["results.jsonl"]


def test_a_bundle_that_cannot_be_written_leaves_the_old_one(tmp_path):
    model = Model(make_config("xlmr", "tiny"), ())
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), model.abstract()[0])
    sha = bundle.save(tmp_path / "b", model, params)
    with pytest.raises(InputError) as error, runtime.explained("phase p"), largest_file(50_000):
        bundle.save(tmp_path / "b", model, jax.tree.map(lambda x: 2 * x, params))
    assert str(error.value).startswith("phase p: ") and "File too large: raise the limit" in str(error.value)
    assert bundle.load(tmp_path / "b").meta["sha256"] == sha


def test_metrics_that_cannot_be_written_are_whole_rows(tmp_path):
    writer = tracking.Writer(tmp_path)
    with pytest.raises(OSError) as error, largest_file(1000):
        for number in range(1, 1000):
            writer.write(number, {"loss": 1.0, "accuracy": 2.0})
    writer.close()
    assert runtime.trouble(error.value).startswith(f"{tmp_path}/metrics.jsonl: File too large")
    rows = tracking.read_rows(tmp_path / "metrics.jsonl")
    assert 5 < len(rows) == rows[-1]["step"] <= number
    writer = tracking.Writer(tmp_path, 4)
    writer.write(5, {"loss": 0.5})
    writer.close()
    assert [row["step"] for row in tracking.read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]


def test_a_full_tensorboard_file_is_no_endless_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "BOARD_SECONDS", -1.0)
    board = tracking._Board(tmp_path, 0)
    with pytest.raises(OSError) as error, largest_file(1000):
        for number in range(1, 1000):
            board.write(number, {"loss": 1.0})
    assert runtime.trouble(error.value).startswith(f"{tmp_path}: File too large")


# What is said


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "", "/w/a"), "/w/a: No space left on device: free some, or give a folder on another"),
        (OSError(errno.EROFS, "", "/w/a"), "/w/a: Read-only file system: give another folder, or change this one's"),
        (PermissionError(errno.EACCES, "", "/w/a"), "/w/a: Permission denied: give another folder, or change this"),
        (OSError("/w/a: 9 requested and 3 written"), "/w/a: 9 requested and 3 written; is the disk full? free some"),
        (MemoryError("Unable to allocate 9 GiB"), "out of this machine's memory (Unable to allocate 9 GiB): take a sm"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), "out of the device's memory (RESOURCE_EXHA"),
        (ValueError("Failed writing: \"/w/d/1\": No space left [os_error_code='28']"), "/w/d/1: No space left on dev"),
        (Exception("No space left on device (os error 28)"), "a file, or the output: No space left on device: free"),
        (ValueError("no such thing"), None),
        (FileNotFoundError(errno.ENOENT, "", "/w/a"), None),
        (jax.errors.JaxRuntimeError("INTERNAL: a bug"), None),
    ],
)
def test_trouble_is_told_in_one_line(error, text):
    found = runtime.trouble(error)
    assert (found is None) == (text is None)
    assert not text or (found.startswith(text) and "\n" not in found)


def test_the_command_line_tells_it_and_ends_with_2(monkeypatch, capsys):
    monkeypatch.setitem(cli.COMMANDS, "tasks", lambda options: (_ for _ in ()).throw(MemoryError))
    assert cli.main(["tasks"]) == 2
    assert capsys.readouterr().err.startswith("jxstilts: error: out of this machine's memory: take a smaller batch")


@pytest.mark.parametrize("to", ["full", "closed"])
def test_an_output_that_takes_nothing(to):
    code = "import sys\nfrom jxstilts import cli\nsys.exit(cli.main(['languages']))"
    if to == "full":
        with open("/dev/full", "w") as full:
            done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith("jxstilts: error: a file, or the output: No space left on device: free some")
        assert len(done.stderr.splitlines()) == 1
        with open("/dev/full", "w") as full:
            assert subprocess.run([sys.executable, "-c", code], stdout=full, stderr=full).returncode == 2
    else:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True)
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, "")
