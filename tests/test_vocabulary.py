"""Training the token embeddings that occur: the weights of full training, as `train.vocabulary` says how closely."""

import dataclasses
import pathlib

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.tpu import classifier
from jxstilts import config as configs
from jxstilts import miniworld, runtime, study
from jxstilts.check import phases as steps_of
from jxstilts.check import program, report
from jxstilts.checkpoint import leaves
from jxstilts.mesh import make_mesh
from jxstilts.models import bundle
from jxstilts.models.layers import Compute
from jxstilts.models.model import Model, make_config
from jxstilts.train import inputs, mixture, objectives, optimizer, terms, vocabulary
from jxstilts.train import phase as phases

TOKENIZER = pathlib.Path(miniworld.__file__).parent / "micro" / "tokenizer"
TABLE = "encoder/embeddings/tokens"
SIZE = 2379
MODEL = Model(make_config("xlmr", "tiny", vocab_size=SIZE, hidden_dropout=0.0, attention_dropout=0.0, init_std=0.2))
STREAMS = {
    "mnli": {"batch_size": 16, "max_length": 48, "limit": 64},
    "udpos": {"batch_size": 16, "max_length": 48, "limit": 64, "packed": True},
    "tydiqa": {"batch_size": 16, "max_length": 64, "doc_stride": 24, "max_query_length": 12, "limit": 16},
    "commonsenseqa": {"batch_size": 16, "max_length": 32, "limit": 48},
}
ADAMW = optimizer.Optimizer(learning_rate=1e-3, warmup=0.2, weight_decay=0.1)


def phase_of(*tasks, **changes):
    streams = {task: mixture.Stream(task=task, buckets=1, **STREAMS[task]) for task in tasks}
    select = phases.Select(metric="", every=100)
    given = {"tasks": streams, "steps": 6, "optimizer": ADAMW, "select": select, "save_every": 100, **changes}
    return phases.Phase(**given).resolve("config.phases.one")


class Runs:
    """Phases of one world, each in a folder of its own."""

    def __init__(self, folder, world, mesh):
        self.folder, self.world, self.mesh, self.count = folder, str(world), mesh, 0

    def __call__(self, phase, folder=None, stop=lambda step: False, evaluate=None, mesh=None):
        """-> the parameters that the phase ends with, on the host"""
        self.count += folder is None
        place = self.place(folder or f"run{self.count}", mesh)
        phases.run("one", phase, MODEL, None, TOKENIZER, place, {}, evaluate, stop)
        return leaves(jax.device_get(bundle.load(place.folder / "best").params))

    def place(self, folder, mesh=None):
        cache = self.folder / "cache"
        return phases.Place(self.folder / folder, self.world, cache, mesh or self.mesh, quiet=True)

    def rows(self, phase):
        model = terms.with_extra(inputs.heads(phase, MODEL, (), self.world), terms.losses(phase))
        return inputs.make(phase, model, TOKENIZER, self.place("data")).rows


@pytest.fixture
def runs(tmp_path, world, one_device):
    return Runs(tmp_path, world, one_device)


def compare(found, wanted, rows, config=ADAMW, steps=6, start=None):
    """Rows that train, and all other parameters: to the tolerance of a step. Rows that do not occur: to 2^-22."""
    assert list(found) == list(wanted) and 0 < len(rows.ids) < SIZE
    apart = np.setdiff1d(np.arange(SIZE), rows.ids)
    for path, value in wanted.items():
        if path.endswith("key/bias"):  # its gradient is nothing but rounding: softmax takes no notice of a shift
            continue
        own, other = (found[path][rows.ids], value[rows.ids]) if path == TABLE else (found[path], value)
        np.testing.assert_allclose(own, other, rtol=0, atol=2e-5, err_msg=path)
    start = np.asarray(start, np.float64)[apart]
    count, warmup = np.arange(steps), int(config.warmup * steps)
    rates = config.learning_rate * np.where(count < warmup, count / max(warmup, 1), (steps - count) / (steps - warmup))
    exact = start * np.prod(1 - rates * config.weight_decay)
    assert np.any(exact != start)
    assert np.all(np.abs(found[TABLE][apart] - exact) <= 2.0**-22 * np.abs(exact))
    np.testing.assert_allclose(wanted[TABLE][apart], exact, rtol=1e-5)


def start_of(phase, runs):
    model = inputs.heads(phase, MODEL, (), runs.world)
    return jax.device_get(jax.jit(model.init)(jax.random.key(phase.seed)))["encoder"]["embeddings"]["tokens"]


@pytest.mark.parametrize(
    ("tasks", "changes"),
    [
        (("udpos",), {"freeze": ("layers", "embeddings/positions"), "seed": 3}),
        (("tydiqa", "commonsenseqa"), {"optimizer": dataclasses.replace(ADAMW, clip=1e-2)}),
    ],
)
def test_the_weights_are_those_of_full_training(tasks, changes, runs):
    phase = phase_of(*tasks, **changes)
    found, wanted = runs(phase), runs(dataclasses.replace(phase, vocabulary="whole"))
    compare(found, wanted, runs.rows(phase), phase.optimizer, start=start_of(phase, runs))


def test_on_eight_devices_with_accumulation(runs):
    phase = phase_of("mnli", accumulation=2)
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    wanted = runs(dataclasses.replace(phase, vocabulary="whole"))
    compare(runs(phase, mesh=mesh), wanted, runs.rows(phase), start=start_of(phase, runs))


def test_a_checkpoint_is_that_of_full_training(runs):
    """So a run may go on from it either way."""
    phase = phase_of("mnli")
    whole = dataclasses.replace(phase, vocabulary="whole")
    wanted = runs(phase)
    for one, last in ((phase, 2), (whole, 4)):
        with pytest.raises(runtime.Interrupted):
            runs(one, "broken", stop=lambda step: step == last)  # noqa: B023
    found = runs(phase, "broken")
    for path, value in wanted.items():
        if not path.endswith("key/bias"):
            np.testing.assert_allclose(found[path], value, rtol=1e-5, atol=2e-5, err_msg=path)


def test_evaluation_and_best_weights_see_the_whole_table(runs):
    """The first evaluation is the best: its weights come from the checkpoint."""
    seen = []

    def evaluate(model, params):
        seen.append((model.config.vocab_size, np.asarray(params["encoder"]["embeddings"]["tokens"])))
        return {"major": -float(len(seen))}

    best = runs(phase_of("mnli", select=phases.Select(metric="major", every=2)), evaluate=evaluate)
    assert [(size, len(table)) for size, table in seen] == [(SIZE, SIZE)] * 3
    np.testing.assert_array_equal(best[TABLE], seen[0][1])
    assert np.all(seen[1][1] != seen[0][1], axis=1)[1:].mean() > 0.9  # trained or decayed


def test_decay_counts_updates_not_steps():
    """A step that is skipped, since its loss is not finite, leaves the optimizer's state as it was."""
    optim = optimizer.make(ADAMW, 10)
    state = optim.init({"kernel": jnp.zeros(3)})
    assert optimizer.updates(state) == 0
    _, state = optim.update({"kernel": jnp.ones(3)}, state, {"kernel": jnp.zeros(3)})
    assert optimizer.updates(state) == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"vocabulary": "whole"}, "as configured"),
        ({"freeze": ("embeddings",)}, "it is frozen"),
        ({"tasks": {"text": mixture.Stream(objective="mlm", batch_size=8, max_length=32)}}, "other arrays with a row"),
    ],
)
def test_where_all_rows_are_trained(changes, why, runs):
    phase = phase_of("mnli", **changes)
    model = terms.with_extra(inputs.heads(phase, MODEL, (), runs.world), terms.losses(phase))
    assert why in vocabulary.why_whole(phase, model)
    data = inputs.make(phase, model, TOKENIZER, runs.place("data"))
    assert data.rows is None and any(why in note for note in data.notes)


def test_an_objective_that_does_not_say_trains_all_rows(monkeypatch, runs):
    monkeypatch.setattr(objectives.get("task"), "WHOLE_VOCABULARY", True)
    assert vocabulary.why_whole(phase_of("mnli"), MODEL) == "the objective task may read any row"
    assert objectives.Objective.WHOLE_VOCABULARY and objectives.get("mlm").WHOLE_VOCABULARY


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(data=st.data(), size=st.integers(2, 1500))
def test_rows(data, size):
    ids = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=300))
    always = data.draw(st.lists(st.integers(0, size - 1), max_size=5))
    found = vocabulary.rows([np.array(ids[::2], np.int32), np.array(ids[1::2], np.int32)], always, size)
    if found is None:
        assert -(-len({*ids, *always}) // vocabulary.UNIT) * vocabulary.UNIT >= size
        return
    assert len(found.ids) % vocabulary.UNIT == 0 and np.all(np.diff(found.ids) > 0)
    assert {*ids, *always} <= set(found.ids.tolist())
    np.testing.assert_array_equal(found.ids[found.places[ids]], ids)
    assert (found.places >= 0).sum() == len(found.ids)


def test_check_counts_the_memory():
    """Moments and gradients of what is trained, the whole table beside them, and the state when it is saved."""
    made = classifier("tiny", 16, 32, compute=Compute())
    config = dataclasses.replace(made.model.config, vocab_size=4096)
    made = dataclasses.replace(made, model=dataclasses.replace(made.model, config=config))
    less, mesh = (
        dataclasses.replace(made, embeddings=1024),
        make_mesh({"data": 8}),
    )  # arrays below 4 MiB are whole on each
    assert made.key != less.key and less.trained.config.vocab_size == 1024
    whole, part = program.compile(made, mesh), program.compile(less, mesh)
    table, missing = 4096 * config.width, 3072 * config.width
    assert part.parameters == whole.parameters and (part.frozen, part.saved) == (missing, 3 * 4 * missing)
    assert whole.memory.weights - part.memory.weights == 4 * missing and part.memory.kept == 4 * table
    assert whole.memory.optimizer - part.memory.optimizer == 2 * 4 * missing and whole.memory.kept == 0
    state = part.memory.weights + part.memory.optimizer + 4 + 8  # and the step's number and random key
    assert part.memory.saving == state + 4 * 4 * table
    text = report.text(report.as_json(report.Checked(steps_of.Step("p", ("p",), less), part, None, "", None), None))
    assert "1,024 token embeddings occur: " in text and "all token embeddings 0.5 MiB" in text


def test_check_reads_the_data(world):
    """Which token embeddings a phase trains: from its training rows; without a data folder all are counted."""
    given = ["--config=configs/quickstart.py:smoke"]
    for more, count, note in (([f"--config.data_dir={world}"], 128, ""), ([], 0, "no config.data_dir")):
        found = study.only(study.from_config(configs.load([*given, *more]), to_run=False), "micro-mnli-s0")
        (step_of, *_), _ = steps_of.steps(found)
        assert (step_of.program.embeddings >= 128) == bool(count) and note in step_of.note
