"""The command for a GPU, rehearsed on a CPU: every row ends, with its peer, without the packages that it can lack."""

import json
import shutil
import sys

import pytest
from test_parity_finetune import TOKENIZER, encoder, finetune  # noqa: F401  a fixture

torch = pytest.importorskip("torch")

ABSENT = ("ml_collections", "grain", "tensorflow_datasets", "tensorboardX", "orbax", "orbax.checkpoint", "matplotlib")


@pytest.fixture
def gpu(finetune, monkeypatch):  # noqa: F811
    from benchmarks import gpu

    for name in ABSENT:
        monkeypatch.setitem(sys.modules, name, None)
    return gpu


@pytest.fixture
def measured(gpu, world, tmp_path):
    """-> (names of rows) -> the rows of the result, each done."""
    data, out = tmp_path / "data", tmp_path / "result.json"
    shutil.copytree(world, data)
    shutil.copytree(TOKENIZER, data / "tokenizer")
    given = ["--tiny", "--minutes=60", "--device=cpu", "--repetitions=1", f"--out={out}", f"--data_dir={data}"]
    given.append(f"--encoder={encoder('xlmr', tmp_path / 'encoder')}")

    def run(names):
        assert gpu.main([*given, f"--rows={','.join(names)}"]) == 0
        rows = json.loads(out.read_text())["rows"]
        assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys(names, "done")
        return {name: row["parts"] for name, row in rows.items()}

    return run


def check_training(parts):
    assert not any("failed" in found for found in parts.values()), parts
    assert set(parts["ratio"]) == {"jxstilts", "whole"} and parts["what"]["logits_difference"] < 0.1
    assert 0 < parts["jxstilts"]["planned"] < parts["jxstilts, all token embeddings trained"]["planned"]
    peer = min(parts["torch"]["seconds"], parts["torch, compiled"]["seconds"])
    assert parts["ratio"]["jxstilts"] == pytest.approx(peer / parts["jxstilts"]["seconds"])


def test_rows_end_with_their_peers(measured, capsys):
    rows = measured(["train questions", "attention", "retrieval", "evaluation"])
    check_training(rows["train questions"])
    failed = {name: found["failed"] for name, found in rows["attention"].items() if "failed" in found}
    assert list(failed) == ["xnli, cudnn", "tydiqa, cudnn"] and "needs an NVIDIA GPU" in failed["xnli, cudnn"]
    for backend in ("xla", "plain", "torch sdpa"):
        found = rows["attention"][f"tydiqa, {backend}"]
        assert found["agrees"] and found["out"] > 0
    assert rows["retrieval"]["jxstilts float32"]["same_neighbours"] == [1.0, 1.0]
    assert rows["evaluation"]["ratio"]["logits_difference"] < 0.1
    assert "evaluation: done" in capsys.readouterr().out


@pytest.mark.slow
def test_the_other_rows_end(measured):
    rows = measured(["train large", "train base", "fine-tuning"])
    for name in ("train large", "train base"):
        check_training(rows[name])
    assert "en" in rows["fine-tuning"]["MNLI to XNLI"]["languages"]


def test_a_row_that_fails_and_rows_that_are_not_reached(gpu, tmp_path, monkeypatch):
    from benchmarks import gpu_rows

    out = tmp_path / "result.json"

    def part() -> dict:
        raise RuntimeError("RESOURCE_EXHAUSTED: out\n of memory")

    def row(context, note):
        assert note("first", dict) == {} and note("second", part) is None
        assert json.loads(out.read_text())["rows"]["attention"]["parts"]["second"]["failed"]
        part()

    monkeypatch.setitem(gpu_rows.ROWS, "attention", row)
    for name in ("evaluation", "train large"):
        monkeypatch.setitem(gpu.EXPECTED, name, 10_000)
    common = ["--device=cpu", f"--out={out}", "--rows=attention,evaluation,train large"]
    assert gpu.main([*common, "--minutes=60"]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert list(rows) == ["attention", "evaluation", "train large"]
    assert rows["attention"]["status"] == "failed"
    assert rows["attention"]["reason"] == "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    for name in ("evaluation", "train large"):
        assert rows[name]["status"] == "not reached" and rows[name]["needed"] == gpu.EXPECTED[name] > rows[name]["left"]
    assert list(gpu_rows.ROWS) == list(gpu.EXPECTED)


def test_what_is_not_there_is_said(gpu, tmp_path, monkeypatch, capsys):
    given = [f"--out={tmp_path / 'out.json'}", "--device=cpu"]
    assert gpu.main([*given, "--rows=atention"]) == 2
    assert "did you mean 'attention'" in capsys.readouterr().err
    monkeypatch.setattr(gpu, "NEEDED", ("jax", "no_such_package"))
    assert gpu.main(given) == 2
    assert "not installed, and needed: no_such_package" in capsys.readouterr().err
