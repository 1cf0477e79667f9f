"""The benchmarks of the host: what a device needs by hand, rates that agree with counts, parts that add up."""

import json
import pathlib
import subprocess
import sys

import pytest

from jxstilts import miniworld
from jxstilts.data import tokenizer
from jxstilts.tasks import load

ROOT = pathlib.Path(__file__).parent.parent
TOKENIZER = pathlib.Path(miniworld.__path__[0]) / "micro" / "tokenizer"
SMALL = ["--model=tiny", "--rows=40", "--steps=9", "--repetitions=2", "--batch_size=4", "--max_length=32"]


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import first_step, pipeline, startup

    return {"first_step": first_step, "pipeline": pipeline, "startup": startup}


def measure(benchmark, tmp_path, *arguments):
    out = tmp_path / "result.json"
    assert benchmark.main([f"--out={out}", *arguments]) == 0
    return json.loads(out.read_text())


def test_pipeline(benchmarks, world, tmp_path, capsys):
    pytest.importorskip("torch")
    data = [f"--data_dir={world}", f"--tokenizer={TOKENIZER}", "--task=xnli"]
    result = measure(benchmarks["pipeline"], tmp_path, *SMALL, *data)
    assert (result["task"], result["rows"], result["inputs"]) == ("mnli", 40, 40)
    words = tokenizer.load(TOKENIZER)
    rows = load("mnli", str(world), "train", "en", limit=40)
    sizes = [len(words(row["text_a"], row["text_b"], truncation=True, max_length=32)["input_ids"]) for row in rows]
    for sides in result["tokenising"].values():  # both sides make the same tokens
        assert sides["jxstilts"]["tokens"] == sides["transformers"]["tokens"] == result["tokens"] == sum(sizes)

    matrices = 2 * (4 * 32**2 + 2 * 32 * 64)  # of the preset tiny: 2 layers, width 32, mlp 64
    flops = [n * (6 * matrices + 12 * 2 * 32 * n) for n in sizes]
    need = result["need"]["H100"]
    assert need["real"] == pytest.approx(0.5 * 989e12 / (sum(flops) / 40))
    assert need["full"] == pytest.approx(0.5 * 989e12 / (32 * (6 * matrices + 12 * 2 * 32 * 32)))
    assert result["need"]["TPU v5e"]["full"] == pytest.approx(need["full"] * 197 / 989)

    for devices in (1, 8):
        for way in ("packed", "sorted by length", "DataLoader"):
            row = result["read"][f"{way}, {devices}"]
            assert row["examples_per_second"] == pytest.approx(row["examples"] * row["batches_per_second"])
            assert 0 < row["efficiency"] <= 1 and 0 < row["examples"] <= 4 * devices
            assert row["H100"]["real"] == pytest.approx(row["examples_per_second"] / need["real"] / devices)
        packed = result["read"][f"packed, {devices}"]
        step = packed["examples"] / (need["real"] * devices)  # seconds that the device takes
        assert packed["H100"]["planning_share"] == pytest.approx(packed["planning_seconds"] / step)
        assert packed["efficiency"] >= result["read"][f"sorted by length, {devices}"]["efficiency"] - 1e-9
    ours, peer = (result["read"][f"{way}, 1"]["examples_per_second"] for way in ("packed", "DataLoader"))
    assert result["ratio"] == pytest.approx(ours / peer)
    printed = capsys.readouterr().out
    assert f"ratio {result['ratio']:.1f}" in printed and "TPU v5e" in printed


def test_pipeline_says_what_it_cannot_measure(benchmarks, world, capsys):
    data = [f"--data_dir={world}", f"--tokenizer={TOKENIZER}"]
    assert benchmarks["pipeline"].main([*data, "--task=tatoeba"]) == 2
    assert "--task=tatoeba" in capsys.readouterr().err
    assert benchmarks["pipeline"].main([*data, "--steps=0"]) == 2
    assert "--steps" in capsys.readouterr().err


def test_startup_of_commands(benchmarks, tmp_path, monkeypatch, capsys):
    startup = benchmarks["startup"]
    monkeypatch.setattr(startup, "COMMANDS", {"quick": ["-c", "pass"], "slow": ["-c", "import time; time.sleep(1.6)"]})
    result = measure(startup, tmp_path, "--repetitions=1", "--parts=commands")
    assert result["commands"]["quick"]["seconds"] < 1.5 < result["commands"]["slow"]["seconds"]
    printed = capsys.readouterr().out.splitlines()
    assert [("over 1.5" in line) for line in printed if line.startswith(("quick", "slow"))] == [False, True]
    monkeypatch.setattr(startup, "COMMANDS", {"fails": ["-c", "raise SystemExit('no such thing')"]})
    assert startup.main(["--parts=commands", "--repetitions=1"]) == 2
    assert "no such thing" in capsys.readouterr().err


def test_parts_of_the_first_step_add_up(benchmarks, tmp_path, monkeypatch):
    first_step = benchmarks["first_step"]
    now = [first_step.START]
    monkeypatch.setattr(first_step.time, "time", lambda: now[0])
    monkeypatch.setattr(first_step.os, "_exit", lambda code: None)

    class Module:
        @staticmethod
        def load():
            now[0] += 2

    watch = first_step.Watch(str(tmp_path / "record.json"), first_step.START - 0.5)
    watch.around(Module, "load", "before", "load")
    now[0] += 1
    Module.load()
    watch.event("/jax/core/compile/backend_compile_duration", 0.25)
    watch.event("/jax/something/else", 9.0)
    now[0] += 4
    watch.mark("before")
    watch.leave()
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["parts"] == pytest.approx({"interpreter": 0.5, "before": 5, "load": 2})
    assert record["seconds"] == pytest.approx(7.5)
    assert record["jax"] == {"before": {"programs": 1, "compile or load": 0.25}}


@pytest.mark.slow
def test_the_first_step_is_timed(benchmarks, tmp_path, capsys):
    result = measure(benchmarks["startup"], tmp_path, "--model=tiny", "--repetitions=1", "--parts=first step")
    cold, warm = (result["first_step"][name] for name in ("empty cache", "full cache"))
    for one in (cold, warm):
        assert one["seconds"] == pytest.approx(sum(one["parts"].values()))
        assert one["jax"]["step"]["programs"] == 1
    assert warm["jax"]["step"]["compile or load"] < cold["jax"]["step"]["compile or load"]
    assert "first training step, XLM-R tiny" in capsys.readouterr().out


def test_listing_imports_nothing_heavy():
    """`jxstilts tasks` and `languages` start as fast as --help does (tests/test_cli.py has that one)."""
    heavy = {"jax", "flax", "optax", "orbax", "transformers", "tokenizers", "grain", "tensorflow_datasets", "torch"}
    code = (
        f"import sys\nfrom jxstilts import cli\ncodes = [cli.main([name]) for name in ('tasks', 'languages')]\n"
        f"print(codes, sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1:] == ["[0, 0] []"], done.stdout[-500:] + done.stderr
