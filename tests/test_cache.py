import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jxstilts.data.cache import cached
from jxstilts.data.features import Features
from jxstilts.runtime import InputError

KEY = {"task": "mnli", "options": {"max_length": 128}}
HERE = pathlib.Path(__file__).parent


def features(seed=0):
    lengths = np.random.default_rng(seed).integers(0, 9, 50)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(offsets[-1], dtype=np.int32) + seed
    return Features(tokens, offsets, {"label": np.arange(50, dtype=np.int32)}, {"max_context": tokens % 2 == 0})


def assert_same(a, b):
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_array_equal(a.offsets, b.offsets)
    for mine, other in ((a.fields, b.fields), (a.token_fields, b.token_fields)):
        assert mine.keys() == other.keys()
        for name in mine:
            assert mine[name].dtype == other[name].dtype
            np.testing.assert_array_equal(mine[name], other[name])


def never():
    raise AssertionError("the entry should have been read")


def entry(folder):
    (found,) = folder.iterdir()  # also: no temporary folder is left
    return found


def test_made_once_then_memory_mapped(tmp_path):
    made = cached(tmp_path / "a" / "b", KEY, features)
    read = cached(tmp_path / "a" / "b", dict(reversed(KEY.items())), never)
    assert_same(made, features())
    assert_same(read, features())
    assert isinstance(read.tokens.base, np.memmap) and not read.tokens.flags.writeable
    assert json.loads((entry(tmp_path / "a" / "b") / "entry.json").read_text())["key"] == KEY


def test_another_key_is_another_entry(tmp_path):
    cached(tmp_path, KEY, features)
    other = cached(tmp_path, {**KEY, "options": {"max_length": 129}}, lambda: features(1))
    assert_same(other, features(1))
    assert len(list(tmp_path.iterdir())) == 2


def test_no_features_at_all(tmp_path):
    empty = Features(np.zeros(0, np.int32), np.zeros(1, np.int64), {"label": np.zeros(0, np.int32)})
    assert_same(cached(tmp_path, KEY, lambda: empty), empty)
    assert_same(cached(tmp_path, KEY, never), empty)


@pytest.mark.parametrize("file", ["tokens.npy", "offsets.npy", "field.label.npy", "entry.json"])
@pytest.mark.parametrize("damage", ["missing", "shorter", "longer", "empty", "scrambled"])
def test_damaged_entry_is_made_again(tmp_path, file, damage):
    cached(tmp_path, KEY, features)
    path = entry(tmp_path) / file
    content = path.read_bytes()
    path.unlink()
    changed = {"shorter": content[:-3], "longer": content + b"x", "empty": b"", "scrambled": b"\xff" * len(content)}
    if damage in changed:
        path.write_bytes(changed[damage])
    assert_same(cached(tmp_path, KEY, features), features())
    assert_same(cached(tmp_path, KEY, never), features())
    entry(tmp_path)


def test_the_second_of_two_makers_uses_the_entry_of_the_first(tmp_path):
    def make():  # another process, which has lost its lease, finishes while this one is still at work
        cached(tmp_path / "other", KEY, features)
        os.rename(entry(tmp_path / "other"), tmp_path / "cache" / entry(tmp_path / "other").name)
        return features(1)

    assert_same(cached(tmp_path / "cache", KEY, make), features())
    entry(tmp_path / "cache")


def test_key_must_be_json(tmp_path):
    for bad in ({"path": tmp_path}, {"rate": float("nan")}):
        with pytest.raises(InputError, match="cache key"):
            cached(tmp_path, bad, never)


def start(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment)


def test_processes_at_once(tmp_path):
    code = """
import sys, pathlib, time, test_cache
folder = pathlib.Path(sys.argv[1])
while not (folder / "go").exists():
    time.sleep(0.001)
for number in range(20):
    key = {"number": number}
    def make():
        with open(folder / "made", "a") as file:
            file.write(f"{number}\\n")
        return test_cache.features()
    test_cache.assert_same(test_cache.cached(folder / "cache", key, make), test_cache.features())
"""
    processes = [start(code, tmp_path) for _ in range(3)]
    time.sleep(0.5)
    (tmp_path / "go").touch()
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len(list((tmp_path / "cache").iterdir())) == 20
    made = (tmp_path / "made").read_text().split()
    assert sorted(map(int, made)) == list(range(20))  # each by one of them; the others have waited for it


def test_killed_in_the_middle_of_writing(tmp_path):
    code = """
import sys, time, numpy, test_cache
real = numpy.save
def slow(file, array, **options):
    real(file, array[: len(array) // 2], **options)
    file.flush()
    time.sleep(60)
numpy.save = slow
test_cache.cached(sys.argv[1], test_cache.KEY, test_cache.features)
"""
    process = start(code, tmp_path)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("*/tokens.npy")) and not list(tmp_path.glob(".*/tokens.npy")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert_same(cached(tmp_path, KEY, features), features())
    (leftover,) = tmp_path.glob(".*.tmp")
    os.utime(leftover, (0, 0))
    cached(tmp_path, {"another": 1}, features)
    assert not leftover.exists()
