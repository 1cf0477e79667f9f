"""The benchmark against PyTorch compares like with like: same examples, same weights, same losses."""

import json
import pathlib

import jax
import pytest

torch = pytest.importorskip("torch")

ROOT = pathlib.Path(__file__).parent.parent
# One row length for all batches: little to compile.
SMALL = ["--model=tiny", "--dropout=0", "--batches=2", "--batch_size=4", "--repetitions=1"]


@pytest.fixture
def step(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    threads, platforms = torch.get_num_threads(), jax.config.jax_platforms
    jax.devices()  # before any test asks for a device that is not there
    from benchmarks import step

    yield step
    torch.set_num_threads(threads)
    jax.config.update("jax_platforms", platforms)


def measure(step, tmp_path, *arguments):
    out = tmp_path / "result.json"
    assert step.main([*SMALL, f"--out={out}", *arguments]) == 0
    return json.loads(out.read_text())


def check(result):
    assert result["ratio"] == result["ratios"]["train_as_run"] > 0
    assert set(result["ratios"]) == {"train_as_run", "train_same", "forward_as_run", "forward_same"}
    for cell, ratio in result["ratios"].items():
        kind, how = cell.split("_", 1)
        assert ratio == pytest.approx(
            result["measured"][f"{kind}/torch"]["seconds"] / result["measured"][f"{kind}/{how}"]["seconds"]
        )
    assert result["examples"] == {"torch": 8, "jax": 8}
    assert result["real_tokens"]["torch"] == result["real_tokens"]["jax"]
    assert result["padded_tokens"]["torch"] == result["padded_tokens"]["same"] >= result["real_tokens"]["torch"]
    assert result["logits_difference"] < 1e-5
    assert result["first_losses"]["jax"] == pytest.approx(result["first_losses"]["torch"], abs=1e-4)
    assert {"torch", "jax", "transformers"} <= set(result["versions"])
    for row in result["measured"].values():
        assert row["examples_per_second"] * row["seconds"] == pytest.approx(8)
        assert 0 < row["mfu"] < 1


def test_random_tokens(step, tmp_path, capsys):
    result = measure(step, tmp_path, "--max_length=24")
    check(result)
    assert len(set(result["first_losses"]["jax"])) == 2  # of two batches, in order
    printed = capsys.readouterr().out
    assert "random tokens" in printed and f"ratio {result['ratio']:.2f}" in printed


@pytest.mark.slow
def test_questions_on_real_data(step, tmp_path, corpus):
    result = measure(step, tmp_path, "--task=tydiqa", "--max_length=96", f"--data_dir={corpus}")
    check(result)
    assert "English train" in result["source"]


def test_what_is_not_there_is_said(step, capsys):
    assert step.main(["--device=gpu"]) == 2
    assert "--device=gpu" in capsys.readouterr().err
    assert step.main(["--model=bse"]) == 2
    assert "did you mean 'base'" in capsys.readouterr().err
    assert step.main(["--batches=0"]) == 2
    assert "--batches" in capsys.readouterr().err
