"""Further objectives: from a file outside the package, with parameters, an optimizer and a schedule of their own."""

import dataclasses
import functools
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_packing import batch_pair
from test_step import ADAMW, CONTEXT, HEADS, make_batch

from jxstilts import cli, config, hlo, runtime, study, tracking
from jxstilts.checkpoint import Checkpoints, leaves
from jxstilts.mesh import make_mesh, put_batch
from jxstilts.models import bundle, export
from jxstilts.models.model import Model, make_config
from jxstilts.runtime import InputError
from jxstilts.train import identity, mixture, objectives, step, terms
from jxstilts.train import phase as phases

FILE = pathlib.Path(__file__).with_name("adversary.py")
STEPS = 20
NLI = {"nli": step.Loss("nli")}
ADVERSARY = step.Loss(
    "",
    "adversary",
    0.5,
    ("nli", "other"),
    {"source": "other"},
    dataclasses.replace(ADAMW, learning_rate=3e-3, warmup=0),
)


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    monkeypatch.setenv("JXSTILTS_OBJECTIVES", str(FILE))


def losses(**changes):
    """A task, a stream that feeds the adversary alone, and the adversary between them."""
    return NLI | {"other": step.Loss("", "none"), "adversary": dataclasses.replace(ADVERSARY, **changes)}


def batches():
    return {
        "nli": make_batch("classification"),
        "other": make_batch("tagging") | {"tokens": make_batch("mlm")["tokens"]},
    }


class Run:
    """A training step with its state."""

    def __init__(self, mesh, given, dropout=0.1, accumulation=1, total=STEPS, freeze=()):
        sizes = make_config("xlmr", "tiny", hidden_dropout=dropout, attention_dropout=dropout)
        self.model, self.mesh = terms.with_extra(Model(sizes, (HEADS["classification"],)), given), mesh
        optim = terms.optimizer(ADAMW, given, total, self.model)
        shardings, _ = step.state_shardings(self.model, optim, mesh, freeze)
        first = jax.jit(lambda key: step.new_state(self.model.init(key), optim, 3, freeze), out_shardings=shardings)
        self.state = first(jax.random.key(0))
        self.train = step.make_train_step(
            self.model, given, optim, mesh, context=CONTEXT, accumulation=accumulation, freeze=freeze
        )

    def lower(self, made):
        return self.train.lower(self.state, {name: put_batch(batch, self.mesh) for name, batch in made.items()})

    def steps(self, made, count=3):
        """Returns the metrics of each step."""
        found = []
        for _ in range(count):
            self.state, metrics = self.train(
                self.state, {name: put_batch(batch, self.mesh) for name, batch in made.items()}
            )
            found.append(jax.device_get(metrics))
        return found


def close(one, other, atol=1e-5):
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_allclose(b[key], a[key], rtol=0, atol=atol * max(1, abs(a[key])), err_msg=key)


@functools.cache
def on_one_device(dropout):
    made = Run(make_mesh({}, jax.devices()[:1]), losses(), dropout)
    return made.steps(batches()), jax.device_get(made.state)


def test_one_device_equals_eight():
    expected, one = on_one_device(0.1)
    eight = Run(make_mesh({"data": 2, "fsdp": 2, "tensor": 2}), losses())
    close(expected, eight.steps(batches()))
    moments, found = (
        {path: leaf for path, leaf in leaves(jax.device_get(state["opt_state"])).items() if "mu" in path.split("/")}
        for state in (one, eight.state)
    )
    assert any(path.endswith("extra/adversary/output/kernel") for path in moments)
    for path, moment in moments.items():
        np.testing.assert_allclose(found[path], moment, rtol=0, atol=1e-4 * np.abs(moment).max() + 1e-8, err_msg=path)


def test_accumulation_changes_no_number(one_device):
    """Several terms have weights of their own: here 31 examples against 62."""
    expected, one = on_one_device(0.0)
    cut = Run(one_device, losses(), 0.0, accumulation=4)
    close(expected, cut.steps(batches()))
    for path, value in leaves(cut.state["params"]["extra"]).items():
        np.testing.assert_allclose(value, leaves(one["params"]["extra"])[path], rtol=0, atol=1e-5)


def test_packing_changes_no_number(one_device):
    apart, packed = batch_pair("classification")
    beside = batches()["other"]
    found = [Run(one_device, losses(), 0.0).steps({"nli": each, "other": beside}) for each in (apart, packed)]
    for metrics in (metrics for run in found for metrics in run):
        del metrics["padded_tokens"]
    close(*found)


def encoder_and_heads(state):
    return {path: value for path, value in leaves(state["params"]).items() if not path.startswith("extra/")}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_strength_0_equals_plain_training(one_device, accumulation):
    """To the bit, in mid-schedule: the adversary learns, with its own clipping, and nothing else hears of it."""
    made = {"nli": batches()["nli"]}
    plain = Run(one_device, NLI, accumulation=accumulation)
    probe = Run(one_device, losses(streams=("nli",), options={"strength": 0.0}), accumulation=accumulation)
    first = jax.device_get(probe.state["params"]["extra"])
    rows = [each.steps(made) for each in (plain, probe)]
    for a, b in zip(*rows, strict=True):
        assert a["loss"] == b["nli/loss"] and a["gradient_norm"] == b["gradient_norm"]
    expected, found = (encoder_and_heads(jax.device_get(each.state)) for each in (plain, probe))
    assert expected.keys() == found.keys()
    for path in expected:
        np.testing.assert_array_equal(found[path], expected[path], err_msg=path)
    last = jax.device_get(probe.state["params"]["extra"])
    assert all((a != b).any() for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(last), strict=True))
    assert "adversary/gradient_norm" in rows[1][0] and "adversary/gradient_norm" not in rows[0][0]


def test_a_weight_of_0_leaves_the_entry_out():
    streams = {"nli": mixture.Stream(task="mnli", batch_size=8, max_length=16)}
    entry = terms.Further(streams=("nli",), objective="adversary", weight=0.0)
    phase = phases.Phase(tasks=streams, objectives={"adversary": entry}, steps=1)
    assert terms.losses(phase) == terms.losses(dataclasses.replace(phase, objectives={}))


def test_the_streams_are_encoded_once(one_device, monkeypatch):
    """A step with two more objectives costs the FLOPs of one without: one pass, and none for the losses' weights."""
    made = {"nli": batches()["nli"]}
    second = {"again": dataclasses.replace(ADVERSARY, streams=("nli",))}
    both = losses(streams=("nli",)) | second
    plain, more = (Run(one_device, each, accumulation=4).lower(made) for each in (NLI, both))
    flops = [hlo.cost(hlo.read(each.compile().as_text())).flops for each in (plain, more)]
    assert flops[0] < flops[1] < 1.02 * flops[0]
    calls, encode = [], Model.encode
    monkeypatch.setattr(Model, "encode", lambda *args, **options: calls.append(1) or encode(*args, **options))
    model = terms.with_extra(Model(make_config("xlmr", "tiny"), (HEADS["classification"],)), both)
    forward = objectives.Forward(model, model.init(jax.random.key(0)), made["nli"], None, every=True)
    assert forward.hidden.shape == forward.all_hidden.shape[1:] == (16, 32, 32) and len(calls) == 1
    np.testing.assert_array_equal(forward.hidden, forward.all_hidden[-1])


def test_progress_is_the_share_of_the_phase_and_compiles_nothing(one_device):
    made = {name: batches()[name] for name in ("nli", "other")}
    run = Run(one_device, losses(options={"source": "other", "start": 0.1}))
    found = [float(row["adversary/strength"]) for row in run.steps(made, 5)]
    share = np.arange(5) / STEPS
    np.testing.assert_allclose(found, (2 / (1 + np.exp(-10 * share)) - 1) * (share >= 0.1), rtol=1e-5)
    assert run.train._cache_size() == 1
    longer = Run(one_device, losses(options={"source": "other", "start": 0.1}), total=500)
    assert run.lower(made).as_text() == longer.lower(made).as_text()


def test_a_step_takes_those_of_its_streams_that_it_has(one_device):
    """A step of another task: the adversary sees that stream alone, and joins only what it reads."""
    run = Run(one_device, losses())
    (row,) = run.steps({"other": batches()["other"]}, 1)
    assert row["gradient_norm"] == 0  # at the start of the phase the encoder does not hear of it
    assert row["other/loss"] == 0 and row["loss"] == 0.5 * row["adversary/loss"] > 0 and "nli/loss" not in row


def test_each_group_has_its_own_rate_and_clipping(one_device):
    """Adam's first step is the rate times the gradient's sign, whatever the gradient's size."""
    run = Run(one_device, losses())
    before = jax.device_get(run.state["params"])
    run.steps(batches(), 1)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, jax.device_get(run.state["params"]))
    assert max(leaves(moved["encoder"]).values()) == 0  # warm-up: the first step has a rate of 0
    assert 2e-3 < moved["extra"]["adversary"]["output"]["kernel"] < 3.1e-3
    only = Run(one_device, losses(), freeze=("encoder", "heads/*"))
    rows = only.steps(batches(), 4)
    assert rows[0]["gradient_norm"] == 0 and rows[3]["adversary/loss"] < rows[0]["adversary/loss"]


def test_a_checkpoint_holds_their_parameters_and_moments(one_device, tmp_path):
    run = Run(one_device, losses())
    run.steps(batches(), 2)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, run.state, {"best": None})
    checkpoints.wait()
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), run.state)
    expected = run.steps(batches(), 2), jax.device_get(run.state)
    run.state, _ = checkpoints.restore(2, target)
    assert run.steps(batches(), 2) == expected[0]
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(run.state), expected[1])
    checkpoints.close()


STREAMS = {"nli": mixture.Stream(task="mnli"), "text": mixture.Stream(batch_size=8, max_length=16, objective="none")}


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"objective": "advresary"}, r"p\.objectives\.x\.objective: unknown objective 'advresary'; did you mean 'adv"),
        (
            {"objective": ""},
            r"unknown objective 'x'.*Known: adversarial, adversary, .*mlm, .*task; .* JXSTILTS_OBJECTIVES",
        ),
        ({"streams": ("nil", "text")}, r"p\.objectives\.x\.streams: unknown stream 'nil'; did you mean 'nli'"),
        ({"streams": ()}, "name one of the phase's tasks"),
        ({"weight": -1.0}, "0 or more"),
        ({"options": {"widht": 3}}, r"p\.objectives\.x\.options: unknown option 'widht'; did you mean 'width'"),
        ({"options": {"name": "y"}}, r"unknown option 'name'"),
        ({"options": {"width": "3"}}, r"p\.objectives\.x\.options\.width='3': expected int"),
        ({"objective": "task"}, "'task' trains a head, so it is the objective of a stream"),
        ({"objective": "mlm"}, "further on one stream"),
        ({"streams": ("nli",)}, r"p\.tasks\.text: objective='none', and none of p\.objectives"),
    ],
)
def test_refusals_name_the_key(entry, text):
    made = {"objective": "adversary", "streams": ("nli", "text"), **entry}
    with pytest.raises(InputError, match=text):
        terms.resolve({"x": terms.Further(**made)}, STREAMS, ADAMW, "p")


def test_a_file_without_an_objective_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("Objective = dict\n")
    monkeypatch.setenv("JXSTILTS_OBJECTIVES", str(tmp_path / "mine.py"))
    with pytest.raises(InputError, match="has no class Objective that inherits"):
        objectives.get("mine")


def test_reversing():
    import importlib.util

    spec = importlib.util.spec_from_file_location("adversary_here", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    gradient = jax.grad(lambda x: (module.reverse(x, jnp.float32(0.25)) ** 2).sum())(jnp.array([1.0, -2.0]))
    np.testing.assert_allclose(gradient, [-0.5, 1.0])


STUDY = """
from jxstilts.config import complete
from jxstilts.study import Study

SMALL = {"batch_size": 8, "max_length": 32, "buckets": 1}
FAST = {"learning_rate": 1e-3, "warmup": 0.0}


def get_config(arg=None):
    text = {**SMALL, "task": "text", "languages": ("de",), "packed": True, "objective": "none", "mode": "mixed",
            "amount": 1.0}
    further = {"streams": ("mnli", "text"), "objective": arg, "options": {"source": "text"},
               "optimizer": {"learning_rate": 1e-2}, "weight": 0.5}
    return complete(Study, {
        "study": "further", "data_dir": "", "mesh": {"data": 1}, "model": {"preset": "tiny"},
        "tokenizer": {"vocab_size": 400, "model": "bpe", "languages": ("en", "de")},
        "phases": {
            "one": {"tasks": {"mnli": SMALL, "text": text}, "objectives": {"domain": further}, "steps": 6,
                    "optimizer": FAST, "save_every": 2, "log_every": 1},
            "two": {"init": "one", "tasks": {"mnli": SMALL, "text": text}, "objectives": {"domain": further},
                    "steps": 1, "optimizer": FAST},
        },
        "evaluations": {},
    })
"""


@pytest.fixture
def plan(tmp_path, world, compile_cache, monkeypatch):
    """Loads the study with an adversary whose parameters are dropped or kept."""
    kept = tmp_path / "kept.py"
    kept.write_text(FILE.read_text().replace("    source: str", "    KEPT = True\n    source: str"))
    monkeypatch.setenv("JXSTILTS_OBJECTIVES", os.pathsep.join(map(str, (FILE, kept))))
    (tmp_path / "study.py").write_text(STUDY)
    folders = [f"--config.data_dir={world}", f"--config.compile_cache={compile_cache}"]
    return lambda name, *more: [f"--config={tmp_path}/study.py:{name}", *folders, *more]


def test_a_phase(plan, tmp_path, capsys):
    """Stopped and gone on with, to the bit; the bundle is without the adversary, and says so; `check` builds it."""
    outcomes = []
    for workdir, stops in ((tmp_path / "whole", ()), (tmp_path / "broken", (1, 3))):
        found = study.from_config(config.load(plan("adversary")))
        for at in stops:
            with pytest.raises(runtime.Interrupted):
                study.run(found, workdir, lambda now, at=at: now >= at, devices=jax.devices()[:1])
        study.run(found, workdir, devices=jax.devices()[:1])
        rows = tracking.read_rows(workdir / "phases/one/metrics.jsonl")
        outcomes.append((
            json.loads((workdir / "phases/two/DONE").read_text()),
            [{key: row[key] for key in row if "adversary" in key or "domain" in key} for row in rows],
        ))  # fmt: skip
    assert outcomes[0] == outcomes[1]
    assert {"domain/loss", "domain/accuracy", "domain/gradient_norm"} <= outcomes[0][1][0].keys()
    meta = bundle.read_meta(tmp_path / "whole/phases/one/best")
    assert meta["provenance"]["left_out"] == ["extra/domain"] and "extra" not in meta
    assert "extra/domain" in meta["provenance"]["handover"]["new"]
    assert not any(path.startswith("extra") for path in meta["leaves"])
    capsys.readouterr()
    assert cli.main(["check", *plan("adversary", "--config.mesh.data=8"), "--only=one"]) == 0
    assert "parameters" in capsys.readouterr().out


def test_what_is_a_part_of_the_model_is_kept_and_taken_over(plan, tmp_path):
    found = study.from_config(config.load(plan("kept", "--config.phases.one.steps=1")))
    study.run(found, tmp_path / "run", devices=jax.devices()[:1])
    one, two = (bundle.load(tmp_path / f"run/phases/{name}/best") for name in ("one", "two"))
    assert "extra/domain" in two.meta["provenance"]["handover"]["loaded"]
    assert two.meta["provenance"]["left_out"] == [] and two.meta["extra"]["domain"]["output/kernel"] == [8, 1]
    assert {path for path in leaves(one.params) if path.startswith("extra/")} == {
        f"extra/domain/{layer}/{leaf}" for layer in ("hidden", "output") for leaf in ("kernel", "bias")
    }
    bundle.save(tmp_path / "again", one.model, one.params, tokenizer_files=one.tokenizer_dir)
    assert bundle.read_meta(tmp_path / "again")["sha256"] == one.meta["sha256"]
    assert "extra/domain/output/bias" in export.to_huggingface(one, tmp_path / "exported", encoder_only=True)
    meta = json.loads((tmp_path / "again/bundle.json").read_text())
    for wrong in ([1], {"domain": {}}, {"domain": {"bias": [-1]}}, {"a/b": {"bias": [1]}}, {"domain": 3}):
        (tmp_path / "again/bundle.json").write_text(json.dumps(meta | {"extra": wrong}))
        with pytest.raises(InputError, match=r"again/bundle\.json: "):
            bundle.read_meta(tmp_path / "again")
    phase = dataclasses.replace(found.phases["two"], objectives={}, tasks={"mnli": found.phases["two"].tasks["mnli"]})
    plain = dataclasses.replace(found, phases={"one": found.phases["one"], "two": phase})
    study.run(plain, tmp_path / "run", devices=jax.devices()[:1])
    taken = bundle.read_meta(tmp_path / "run/phases/two/best")["provenance"]["handover"]
    assert "extra/domain" in taken["dropped"]


def test_phases_of_before_stay_what_they_are():
    phase = phases.Phase(steps=0)
    assert "objectives" not in identity.settings(phase)
    entry = terms.Further(streams=("nli",), objective="adversary")
    assert "objectives" in identity.settings(
        dataclasses.replace(phase, tasks={"nli": STREAMS["nli"]}, objectives={"adversary": entry})
    )
