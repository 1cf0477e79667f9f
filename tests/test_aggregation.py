"""Heads that read all hidden states: the weights against numpy, gradients, devices, bundles, the next phase."""

import dataclasses
import json

import flax.linen as nn
import jax
import numpy as np
import pytest
import test_step

from jxstilts.checkpoint import digests, leaves
from jxstilts.mesh import make_mesh
from jxstilts.models import bundle, export, model
from jxstilts.models.heads import AGGREGATIONS
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError
from jxstilts.train import handover, identity, keeping
from jxstilts.train.mixture import Stream
from jxstilts.train.phase import Phase

KINDS = AGGREGATIONS[1:]


def head(kind, name="nli"):
    return HeadSpec(name, "classification", ("a", "b", "c"), aggregation=kind)


def states_of(count, width, rows=2, tokens=5):
    """States of unlike sizes, the later the larger."""
    drawn = np.random.default_rng(0).normal(size=(count, rows, tokens, width))
    return drawn * np.arange(1, count + 1)[:, None, None, None]


def random_mix(count, width, kind):
    drawn = np.random.default_rng(1).normal(size=(2, max(count, width))).astype(np.float32)
    return {"bias": drawn[0, :count], **({"query": drawn[1, :width]} if kind == "attention" else {})}


@pytest.mark.parametrize(("kind", "family"), [("softmax", "xlmr"), *(("attention", name) for name in model.families())])
def test_the_weighted_sum_is_that_of_numpy(kind, family):
    made = Model(make_config(family, "tiny"), (head(kind),), family=family)
    own, count, width = made.head("nli"), made.config.layers + 1, made.config.width
    first = nn.unbox(own.new(jax.random.key(0)))["mix"]
    mix = random_mix(count, width, kind)
    assert {name: leaf.shape for name, leaf in first.items()} == {name: leaf.shape for name, leaf in mix.items()}
    states = states_of(count, width)
    scaled = states * np.sqrt(np.square(states[-1]).mean(-1) / np.square(states).mean(-1))[..., None]
    scores = mix["bias"][:, None, None] + scaled @ mix.get("query", np.zeros(width)) / np.sqrt(width)
    weights = np.exp(scores) / np.exp(scores).sum(0)
    found = own.aggregated({"heads": {"nli": {"mix": mix}}}, states.astype(np.float32))
    np.testing.assert_allclose(found, (weights[..., None] * scaled).sum(0), rtol=1e-4, atol=1e-5)
    begins = own.aggregated({"heads": {"nli": {"mix": first}}}, states.astype(np.float32))
    np.testing.assert_allclose(begins, scaled[-1] / 2 + scaled[:-1].mean(0) / 2, rtol=1e-4, atol=1e-5)


def test_gradients_are_finite_differences():
    made = Model(make_config("xlmr", "tiny"), (head("attention"),))
    own, count, width = made.head("nli"), made.config.layers + 1, made.config.width
    params = nn.unbox(own.new(jax.random.key(0)))
    batch = test_step.make_batch("classification")
    states = states_of(count, width, *batch["tokens"].shape).astype(np.float32)

    @jax.jit
    def loss(mix):
        whole = {"heads": {"nli": {**jax.tree.map(lambda x: 20 * x, params), "mix": mix}}}
        return own.loss(whole, own.aggregated(whole, states), batch)["loss"][0]

    mix = random_mix(count, width, "attention")
    found = jax.jit(jax.grad(loss))(mix)
    for name in ("bias", "query"):
        size = np.linalg.norm(found[name])
        ends = [float(loss({**mix, name: mix[name] + step * found[name] / size})) for step in (0.02, -0.02)]
        assert size > 1e-2
        np.testing.assert_allclose((ends[0] - ends[1]) / 0.04, size, rtol=2e-2)


@pytest.mark.slow  # tests/test_robust.py has the attention on eight devices in any case
def test_devices_and_accumulation_change_nothing(one_device, monkeypatch):
    spec = dataclasses.replace(test_step.HEADS["span"], aggregation="attention")
    monkeypatch.setitem(test_step.HEADS, "span", spec)
    plain, state = test_step.run_steps(one_device, "span", steps=3, dropout=0.0)
    eight = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    cut, _ = test_step.run_steps(eight, "span", steps=3, dropout=0.0, accumulation=2)
    np.testing.assert_allclose(cut, plain, atol=1e-5)
    mix = state["params"]["heads"]["qa"]["mix"]
    assert plain[-1] < plain[0] and np.abs(mix["query"]).max() > 1e-4
    assert np.abs(np.asarray(mix["bias"]) - [0, 0, np.log(2)]).max() > 1e-4


def test_bundles_and_export(tmp_path):
    made = Model(make_config("xlmr", "tiny"), (head("attention"), head("", "other")))
    params = jax.jit(made.init)(jax.random.key(0))
    bundle.save(tmp_path / "b", made, params)
    loaded = bundle.load(tmp_path / "b")
    assert loaded.model == made and digests(loaded.params) == digests(params)
    written = json.loads((tmp_path / "b/bundle.json").read_text())["heads"]
    assert written[0]["aggregation"] == "attention" and "aggregation" not in written[1]
    with pytest.raises(InputError, match=r"no Hugging Face class computes the head 'nli'"):
        export.to_huggingface(loaded, tmp_path / "out", head="nli")
    meta = json.loads((tmp_path / "b/bundle.json").read_text())
    meta["heads"][0]["aggregation"] = "atention"
    (tmp_path / "b/bundle.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match=r"unknown aggregation 'atention'; did you mean 'attention'"):
        bundle.load(tmp_path / "b")


def test_the_next_phase_goes_on_with_the_same_head_alone(one_device):
    made = Model(make_config("xlmr", "tiny"), (head("softmax", "mnli"),))
    start = jax.jit(made.init)(jax.random.key(0))
    params, taken = handover.take_over(made, start, ("mnli",), 1, one_device)
    assert digests(params) == digests(start) and "heads/mnli" in taken.loaded
    labels = ("contradiction", "entailment", "neutral")
    spec = dataclasses.replace(made.head_specs[0], labels=labels)
    for aggregation, kept in (("softmax", ("mnli",)), ("", ())):
        phase = Phase(tasks={"mnli": Stream(task="mnli", aggregation=aggregation)})
        assert keeping.keep(phase, made, (spec,), "").keep_heads == kept


def test_phases_of_before_are_the_same():
    settings = identity.settings(Phase(tasks={"mnli": Stream(task="mnli")}))
    assert "aggregation" not in settings["tasks"]["mnli"]
    other = identity.settings(Phase(tasks={"mnli": Stream(task="mnli", aggregation="softmax")}))
    assert other["tasks"]["mnli"]["aggregation"] == "softmax"
    with pytest.raises(InputError, match=r"aggregation: unknown aggregation 'max'"):
        Stream(task="mnli", aggregation="max")


def test_embedding_heads_read_all_states_as_ever():
    made = Model(make_config("xlmr", "tiny"), (HeadSpec("e", "embedding"),))
    assert made.head("e").all_hidden and not leaves(jax.jit(made.init)(jax.random.key(0))["heads"])
