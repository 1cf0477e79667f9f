"""Frozen parameters: the same to the bit at the end, without gradient, moments or part in the norm, and not sent."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from test_step import ADAMW, CONTEXT, HEADS, make_batch

from benchmarks.tpu import classifier
from jxstilts import cli, config, study
from jxstilts.check import phases, program, report
from jxstilts.checkpoint import leaves
from jxstilts.mesh import make_mesh, put_batch
from jxstilts.models import bundle
from jxstilts.models.layers import Compute
from jxstilts.models.model import Model, make_config
from jxstilts.runtime import InputError
from jxstilts.train import frozen, identity, optimizer, step
from jxstilts.train import phase as phase_module

MODEL = Model(make_config("xlmr", "tiny", hidden_dropout=0.0, attention_dropout=0.0), (HEADS["mlm"], HEADS["tagging"]))
PARAMS = MODEL.abstract()[0]


def run(mesh, freeze, head="tagging", steps=3, accumulation=1):
    """-> (the first parameters, the last state, the last metrics)"""
    optim = optimizer.make(ADAMW, 20)
    shardings, _ = step.state_shardings(MODEL, optim, mesh, freeze)
    init = jax.jit(lambda key: step.new_state(MODEL.init(key), optim, 3, freeze), out_shardings=shardings)
    state = init(jax.random.key(0))
    first = jax.device_get(state["params"])
    losses = {head: step.Loss(HEADS[head].name, "mlm" if head == "mlm" else "task")}
    train = step.make_train_step(
        MODEL, losses, optim, mesh, context=CONTEXT, accumulation=accumulation, freeze=freeze
    )  # fmt: skip
    for _ in range(steps):
        state, metrics = train(state, {head: put_batch(make_batch(head), mesh)})
    return first, jax.device_get(state), jax.device_get(metrics)


@pytest.mark.parametrize(
    ("freeze", "head", "accumulation"),
    [(("embeddings",), "mlm", 1), (("embeddings/tokens", "layers/mlp_in"), "tagging", 2), (("encoder",), "tagging", 1)],
)
def test_frozen_parameters_stay_as_they_are(freeze, head, accumulation):
    first, state, metrics = run(make_mesh({"data": 4, "fsdp": 2}), freeze, head, accumulation=accumulation)
    trained, kept = map(leaves, frozen.split(first, freeze))
    last = leaves(state["params"])
    assert list(last) == list(leaves(first)) and kept and trained
    for path, value in kept.items():
        np.testing.assert_array_equal(last[path], value)
    changed = {path for path, value in trained.items() if not np.array_equal(last[path], value)}
    other = "heads/tags" if head == "mlm" else "heads/mlm"
    assert changed >= {path for path in trained if not path.startswith((other, "encoder/pooler"))}
    assert set(leaves(optax.tree_utils.tree_get(state["opt_state"], "mu"))) == set(trained)
    assert metrics["gradient_norm"] > 0


def test_the_others_have_the_gradients_that_they_had(one_device):
    """After one step a moment is (1 - beta1) times the gradient, clipped by the norm of what is trained."""
    freeze = ("embeddings", "layers/query")
    gradients, norms = [], []
    for each in (freeze, ()):
        _, state, metrics = run(one_device, each, steps=1)
        norms.append(metrics["gradient_norm"])
        scale = (1 - ADAMW.beta1) * min(1.0, ADAMW.clip / norms[-1])
        moments = leaves(optax.tree_utils.tree_get(state["opt_state"], "mu"))
        gradients.append({path: moment / scale for path, moment in moments.items()})
    part, whole = gradients
    assert norms[0] < norms[1] and set(part) < set(whole)
    np.testing.assert_allclose(np.sqrt(sum(np.square(value).sum() for value in part.values())), norms[0], rtol=1e-5)
    for path, value in part.items():
        np.testing.assert_allclose(value, whole[path], rtol=0, atol=1e-5 * np.abs(whole[path]).max() + 1e-9)


def test_names():
    with pytest.raises(
        InputError, match=r"config\.p\.freeze: unknown parameters 'embedings'; did you mean 'embeddings'"
    ):
        frozen.check(PARAMS, ("embedings",), "config.p.freeze")
    with pytest.raises(InputError, match=r"Known: .*heads/mlm.*layers/mlp_in"):
        frozen.check(PARAMS, ("heads/other",))
    with pytest.raises(InputError, match="nothing is left to train"):
        frozen.check(PARAMS, ("encoder", "heads/mlm", "heads/tags"))
    frozen.check(PARAMS, ("embeddings/tokens", "layers", "heads/mlm"))
    trained, kept = frozen.split(PARAMS, ("layers/key", "heads/mlm"))
    assert set(leaves(kept)) >= {"encoder/layers/key/kernel", "encoder/layers/key/bias", "heads/mlm/bias"}
    assert frozen.merge(trained, kept) == PARAMS


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("encoder/layers/*/kernel", 6), ("layers/*/kernel", 6), ("layers/mlp_*", 6), ("heads/*", 7), ("heads", 7),
        ("heads/tags/*", 2), ("*/bias", 13), ("encoder/embeddings", 5), ("layers/query/kernel", 1),
    ],
)  # fmt: skip
def test_patterns(pattern, count):
    assert len(leaves(frozen.split(PARAMS, (pattern,))[1])) == count
    frozen.check(PARAMS, (pattern,))


def test_a_pattern_that_matches_nothing():
    with pytest.raises(
        InputError, match=r"p\.freeze: unknown parameters 'layers/\*/kernal'; did you mean 'layers/\w+/k"
    ):
        frozen.check(PARAMS, ("embeddings", "layers/*/kernal"), "p.freeze")


def test_a_phase_is_another_with_other_frozen_parameters():
    phase = phase_module.Phase(steps=0)
    assert identity.settings(phase) != identity.settings(dataclasses.replace(phase, freeze=("embeddings",)))


def test_what_it_saves():
    """On eight devices: moments, matrix products, what is sent; and what `check` says."""
    made = classifier("tiny", 16, 32, compute=Compute())
    mesh = make_mesh({"data": 8})
    less = dataclasses.replace(made, freeze=("embeddings", "layers/mlp_in"))
    assert made.key != less.key
    whole, part = program.compile(made, mesh), program.compile(less, mesh)
    config = made.model.config
    count = (1000 + 130 + 1 + 2) * config.width + config.layers * (config.width + 1) * config.mlp
    assert part.frozen == count and part.saved == 3 * 4 * count and part.parameters == whole.parameters
    assert whole.memory.optimizer - part.memory.optimizer == 2 * 4 * count
    assert whole.memory.weights == part.memory.weights and part.memory.total < whole.memory.total - 2 * 4 * count
    product = 2 * 16 * 32 * config.layers * config.width * config.mlp / 8
    assert whole.cost.flops - part.cost.flops == product
    np.testing.assert_allclose(whole.cost.sent - part.cost.sent, 2 * 7 / 8 * 4 * count, rtol=0.01)
    checked = report.Checked(phases.Step("p", ("p",), less), part, None, "", None)
    text = report.text(report.as_json(checked, None))
    assert (
        f"{part.parameters:,}, {part.parameters - count:,} of them trained; embeddings, layers/mlp_in frozen: " in text
    )


CONFIG = """
from jxstilts.config import complete
from jxstilts.study import Study


def get_config(arg=None):
    task = {"batch_size": 8, "max_length": 32, "buckets": 1}
    return complete(Study, {
        "study": "frozen", "data_dir": "", "mesh": {"data": 2, "fsdp": 4}, "model": {"preset": "tiny"},
        "tokenizer": {"vocab_size": 400, "model": "bpe", "languages": ("en",)},
        "phases": {
            "start": {"tasks": {"mnli": task}, "steps": 1, "optimizer": {"learning_rate": 1e-3}},
            "nli": {
                "init": "start", "tasks": {"mnli": task}, "steps": 2, "freeze": ("embeddings",),
                "optimizer": {"learning_rate": 1e-3, "warmup": 0.0},
            },
        },
        "evaluations": {},
    })
"""


@pytest.mark.slow
def test_a_phase(world, tmp_path, compile_cache, capsys):
    """A study with frozen embeddings; and one that freezes what is not there."""
    file = tmp_path / "frozen.py"
    file.write_text(CONFIG)
    options = [f"--config={file}", f"--config.data_dir={world}", f"--config.compile_cache={compile_cache}"]
    assert cli.main(["run", *options, f"--workdir={tmp_path / 'run'}"]) == 0
    start, end = (leaves(bundle.load(tmp_path / f"run/phases/{name}/best").params) for name in ("start", "nli"))
    for path in start:
        if not path.startswith("heads/"):
            same = np.array_equal(start[path], end[path])
            assert same == path.startswith(("encoder/embeddings", "encoder/pooler")), path
    for command in ("check", "run"):
        capsys.readouterr()
        wrong = [*options, "--config.phases.nli.freeze=('embedding',)", "--only=nli"]
        assert cli.main([command, *wrong, f"--workdir={tmp_path / 'run'}"][: 6 if command == "check" else 7]) == 2
        assert "config.phases.nli.freeze: unknown parameters 'embedding'" in capsys.readouterr().err


def test_freezing_is_proposed_last(one_device):
    found = study.from_config(config.load(["--config=configs/quickstart.py:smoke"]), to_run=False)
    steps, _ = phases.steps(study.only(found, "micro-mnli-s0"))
    changes = report.changes(found, steps[0], one_device)
    words, changed, _ = changes[-1]
    assert words.endswith(" and config.phases.micro-mnli-s0.freeze=('embeddings',)")
    assert changed.freeze == ("embeddings",) and changed.accumulation == changes[-2][1].accumulation > 1
    assert "freeze" in phase_module.Phase.__dataclass_fields__
    already = dataclasses.replace(steps[0], program=dataclasses.replace(steps[0].program, freeze=("layers",)))
    assert not any("freeze" in words for words, _, _ in report.changes(found, already, one_device))
