"""`jxstilts check`: every step from shapes alone, what fits and what would help, batches too small for a mesh."""

import dataclasses
import importlib.util
import json

import jax
import numpy as np
import pytest
import samples

from benchmarks import memory, scaling, tpu
from benchmarks.tpu import classifier
from jxstilts import cli, config, forms, hlo, study
from jxstilts import mesh as meshes
from jxstilts.check import chips, examples, phases, program, report
from jxstilts.check.program import BatchShape, Compiled, Memory
from jxstilts.data import tokenizer as tokenizers
from jxstilts.mesh import make_mesh
from jxstilts.models.layers import Compute
from jxstilts.runtime import InputError
from jxstilts.train import inputs
from jxstilts.train import phase as phase_module

QUICK = ("--config=configs/quickstart.py:smoke", "--only=micro-mnli-s0")


def load(*arguments):
    return study.from_config(config.load(list(arguments)), to_run=False)


def test_a_phase_of_the_quickstart(world, capsys):
    assert cli.main(["check", *QUICK, f"--config.data_dir={world}", "--device_memory=1GiB", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (row,) = found["steps"]
    assert found["devices"] == 8 and row["phases"] == ["micro-mnli-s0"] and row["fits"] is True
    trained, memory = row["parameters"] - row["frozen"], row["memory"]
    assert 0 < row["embeddings"] < 2379 and row["frozen"] == (2379 - row["embeddings"]) * 96
    state = 3 * 4 * trained  # weights and two moments, float32, replicated
    assert memory["weights"] == 4 * trained and memory["kept"] == 4 * 2379 * 96
    assert state <= memory["arguments"] < state + 20_000  # and the batch
    assert memory["weights"] + memory["optimizer"] - state < 100  # counters
    assert row["flops"] * 8 == pytest.approx(row["model_flops"], rel=0.05)  # the head's are beside it
    assert row["sent"] == pytest.approx(2 * 7 / 8 * 4 * trained, rel=0.02)
    assert "the first example: <s> " in row["batches"]["mnli"] and " -> " in row["batches"]["mnli"]


def test_the_text_and_exit_2_where_it_does_not_fit(capsys, monkeypatch):
    monkeypatch.setattr(program, "compile", pretend)
    assert cli.main(["check", *QUICK, "--device_memory=50MiB"]) == 2
    said = capsys.readouterr()
    assert "fits           NO" in said.out and "not shown: no config.data_dir" in said.out
    assert "micro-mnli-s0: does not fit: 110.0 MiB a device of 50.0 MiB" in said.err
    assert "with config.compute.dtype=bfloat16 and config.compute.remat=full it fits: 35.0 MiB a device" in said.err
    assert said.err.count("\n") == said.err.count("compiling") + said.err.count("trying") + 1


def pretend(made, mesh):
    """Temporaries of 100 MiB, halved by bfloat16, quartered by remat."""
    compute = made.model.compute
    temporaries = 100 / (2 if compute.dtype == "bfloat16" else 1) / (2 if compute.remat == "full" else 1)
    memory = Memory(10 * 2**20, 0, 0, 0, int(temporaries * 2**20), 0)
    operation = hlo.Operation("product", "dot", made.model_flops / mesh.size, 1e6, 1)
    return Compiled(1, mesh.size, memory, hlo.Cost((operation,), (), (), {}), 0.0)


def test_what_would_help_names_keys_that_exist(one_device):
    found = load(*QUICK[:1])
    steps, unknown = phases.steps(study.only(found, "micro-mnli-s0"))
    assert not unknown
    words = [text for text, _, _ in report.changes(found, steps[0], make_mesh())]
    assert words[0] == "config.compute.dtype=bfloat16"
    assert words[2].endswith("config.mesh.data=1 and config.mesh.fsdp=-1")
    assert words[-2].endswith("config.phases.micro-mnli-s0.accumulation=4")  # 32 rows on 8 devices; then: frozen parts
    fields = {field.name for field in dataclasses.fields(Compute)}
    assert {"dtype", "remat"} <= fields and "accumulation" in phase_module.Phase.__dataclass_fields__
    alone = [text for text, _, _ in report.changes(found, steps[0], one_device)]
    assert not any("mesh" in text for text in alone) and alone[-2].endswith("accumulation=32")


def test_the_papers_steps_need_neither_data_nor_weights():
    steps, unknown = phases.steps(load("--config=configs/paper.py:seeds=1"))
    assert not unknown
    assert sum(each.phase == "large-all9-s1" for each in steps) == 6  # its tasks have six shapes
    assert {each.program.model.config.width for each in steps} == {1024}
    questions = next(each for each in steps if "commonsenseqa" in each.program.shapes)
    assert questions.program.shapes["commonsenseqa"] == BatchShape(
        forms.get("choice").batch_fields(samples.template()), 32, 5 * 256, 5
    )
    assert "give config.data_dir" in questions.bound


def test_a_start_that_must_be_fetched_is_named(tmp_path):
    file = tmp_path / "other.py"
    file.write_text(
        "from jxstilts.config import complete\nfrom jxstilts.study import Study\n"
        "def get_config(arg=None):\n"
        "    return complete(Study, {'study': 's', 'data_dir': '', 'model': {}, 'evaluations': {}, 'phases': {\n"
        "        'nli': {'init': 'someone/some-model', 'tasks': {'mnli': {}}}}})\n"
    )
    assert phases.steps(load(f"--config={file}")) == ([], ["nli"])


@pytest.mark.parametrize("task", ["mnli", "udpos", "squad_v1", "commonsenseqa"])
def test_abstract_batches_are_the_real_ones(task, world, tmp_path, one_device):
    """The same arrays and dtypes as training makes of data, except for rows and lengths."""
    found = load("--config=configs/quickstart.py:smoke", f"--config.data_dir={world}")
    name = (
        next(name for name, each in found.phases.items() if list(each.tasks) == [task])
        if task != "commonsenseqa"
        else "micro-all9-s0"
    )
    phase, model = found.phases[name], phases.model_of(found, name)
    stream = dataclasses.replace(phase.tasks[task], limit=32)
    one = dataclasses.replace(phase, tasks={task: stream}, epochs=0.0, steps=1)
    place = phase_module.Place(tmp_path, str(world), tmp_path, one_device)
    folder = phases.tokenizer_of(found, name)
    real = inputs.make(one, model, folder, place).source[0][task]
    shape, bound = phases.shape(found, name, task, model)
    abstract = shape.arrays()
    assert not bound
    assert {key: array.dtype for key, array in real.items()} == {key: each.dtype for key, each in abstract.items()}
    assert {key: array.ndim for key, array in real.items()} == {key: each.ndim for key, each in abstract.items()}
    assert real["tokens"].size <= np.prod(abstract["tokens"].shape)
    text = examples.describe(phase, task, model, folder, str(world), one_device)
    assert tokenizers.load(folder).decode([0]) in text


def test_a_batch_too_small_for_the_mesh():
    made = classifier("tiny", 32, 16, compute=Compute())
    mesh = jax.sharding.AbstractMesh((256, 1, 1), ("data", "fsdp", "tensor"))
    with pytest.raises(InputError, match=r"batch_size=32: too small a batch for the mesh: 256 devices") as error:
        program.refuse_small(made.shapes, 1, mesh, "config.phases.p")
    assert "a batch_size of 256, at most 32 devices, or config.mesh={'data': 32, 'tensor': 8}" in str(error.value)
    with pytest.raises(InputError, match="multiple of 24"):
        program.refuse_small(made.shapes, 3, make_mesh(), "config.phases.p")


def test_too_small_a_batch_on_the_command_line(capsys, monkeypatch):
    monkeypatch.setattr(chips, "devices", lambda topology: jax.devices())
    arguments = ["check", *QUICK, "--topology=v5e:2x4", "--config.grid.training.mnli.tasks.mnli.batch_size=4"]
    assert cli.main(arguments) == 2
    said = capsys.readouterr()
    assert "too small a batch for the mesh: 8 devices" in said.err and "problem" in said.out


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GiB", 24 * 2**30), ("1.5gib", 3 * 2**29), ("100", 100), ("l4", 24 * 10**9), ("v5e", int(15.75 * 2**30))],
)
def test_sizes_of_memory(text, size):
    assert chips.memory(text) == size


def test_malformed_options():
    with pytest.raises(InputError, match=r"--device_memory=24 apples: .*such as 24GiB"):
        chips.memory("24 apples")
    with pytest.raises(InputError, match=r"unknown TPU 'v9'.*Known: v5e, v5p, v6e"):
        chips.devices("v9:2x4")
    with pytest.raises(InputError, match="shape of a slice"):
        chips.devices("v5e")


def test_no_tpu_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'jxstilts\[tpu\]'"):
        chips.devices("v5e:2x4")


def test_weak_and_strong_scaling_on_simulated_devices():
    """Weak: FLOPs per device constant, and what is sent follows the formula. Strong: FLOPs per device fall."""
    options = scaling._parser().parse_args(
        ["--model=tiny", "--devices=1,8", "--rows_per_device=2", "--batch_size=16", "--length=16"]
    )
    rows = {(row["mode"], row["devices"]): row for row in scaling.run(options)["rows"]}
    assert rows["weak", 8]["flops"] == rows["weak", 1]["flops"]
    assert rows["strong", 8]["flops"] * 8 == pytest.approx(rows["strong", 1]["flops"], rel=1e-3)
    assert rows["weak", 1]["sent"] == 0
    for mode in ("weak", "strong"):
        assert rows[mode, 8]["sent"] == pytest.approx(rows[mode, 8]["formula"], rel=0.01)
    assert "all-reduce" in scaling.table(scaling_result(rows))


def test_what_a_split_optimizer_state_takes_and_sends(monkeypatch):
    """A moment's bytes on a device fall by the number of devices, what is sent does not rise, and the formula holds."""
    made, mesh = classifier("mini", 16, 16, compute=Compute()), make_mesh({"data": 8})
    split = program.compile(made, mesh)
    monkeypatch.setattr(meshes, "SPREAD_FROM", 2**60)
    whole = program.compile(made, mesh)
    words = 4 * made.model.config.vocab_size * made.model.config.width
    assert whole.memory.optimizer - split.memory.optimizer == 2 * words * 7 // 8
    assert split.memory.total < whole.memory.total - 2 * words * 7 // 8
    assert split.cost.sent < whole.cost.sent and split.cost.flops == whole.cost.flops
    assert scaling.formula(made, mesh) == pytest.approx(whole.cost.sent, rel=0.01)
    monkeypatch.undo()
    assert scaling.formula(made, mesh) == pytest.approx(split.cost.sent, rel=0.01)


def test_weights_travel_and_not_activations_where_parameters_are_split():
    """What a device sends under fsdp is of the size of the parameters, whatever the batch."""
    mesh = make_mesh({"fsdp": 8})
    few, many = (program.compile(classifier("tiny", rows, 32, compute=Compute()), mesh) for rows in (16, 128))
    assert few.cost.sent < 3 * 4 * few.parameters and many.cost.sent < 3 * 4 * many.parameters


def test_the_table_of_memory(monkeypatch):
    monkeypatch.setattr(program, "compile", pretend)
    options = memory._parser().parse_args(["--model=tiny", "--device_memory=50MiB"])
    result = memory.run(options)
    assert {row["way"]: row["fits"] for row in result["rows"]} == {
        "none": False, "accumulation 4": False, "remat dots": False, "remat full": True,
        "remat full, accumulation 4": True, "embeddings that occur": False, "all of these": True,
    }  # fmt: skip
    assert memory.table(result).count("yes") == 3


def test_the_table_of_slices(monkeypatch):
    monkeypatch.setattr(program, "compile", pretend)
    monkeypatch.setattr(chips, "devices", lambda topology: jax.devices())
    monkeypatch.setattr(tpu.importlib.metadata, "version", lambda name: "0")
    options = tpu._parser().parse_args(["--model=tiny", "--topology=v5e:2x4,v6e:2x4"])
    first, second = tpu.run(options)["rows"]
    assert first["batch_size"] == 8 * 32 and first["fits"] and first["prediction"]["share"] == 0
    # products alone, at the peak: 918 / 197 times as fast
    ratio = first["prediction"]["compute"] / second["prediction"]["compute"]
    assert ratio == pytest.approx(918 / 197)
    small = tpu.run(tpu._parser().parse_args(["--model=tiny", "--topology=v5e:2x4", "--batch_size=4"]))
    assert "too small a batch" in tpu.table(small)


def scaling_result(rows):
    kept = {"model": "tiny", "axis": "data", "rows_per_device": 2, "batch_size": 16, "length": 16, "dtype": "float32"}
    return {"rows": list(rows.values()), **kept, "versions": {"jax": jax.__version__}}


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="no libtpu: pip install jxstilts[tpu]")
def test_a_slice_that_is_not_here(capsys):
    assert cli.main(["check", *QUICK, "--topology=v5e:2x4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (row,) = found["steps"]
    assert found["device_kind"] == "TPU v5 lite" and row["fits"] is True
    assert row["flops"] * 8 == pytest.approx(row["model_flops"], rel=0.1)
    predicted = row["prediction"]
    assert 0 < predicted["mfu"] < 1 and 0 < predicted["share"] < 1
    assert predicted["seconds"] >= max(predicted["compute"], predicted["memory"])
