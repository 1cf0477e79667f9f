"""Domain-adversarial training: its gradients, its controls, and the same numbers however a batch is cut."""

import functools
import json
import operator
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_packing import batch_pair
from test_step import ADAMW, CONTEXT, HEADS

from jxstilts import config, runtime, study, tracking
from jxstilts.checkpoint import leaves
from jxstilts.data import pipeline
from jxstilts.mesh import make_mesh, put_batch
from jxstilts.models.model import Model, make_config
from jxstilts.runtime import InputError
from jxstilts.tasks.languages import LANGUAGES
from jxstilts.train import objectives, optimizer, step, terms

EN, DE, SW = (list(LANGUAGES).index(code) for code in ("en", "de", "sw"))
STREAMS = ("nli", "text")
SMALL = {"width": 8, "strength": 0.7, "start": 0.0}
CRITIC = {**SMALL, "form": "wasserstein", "penalty": 2.0, "clip": 0.3}
MODEL = Model(make_config("xlmr", "tiny", hidden_dropout=0.0, attention_dropout=0.0), (HEADS["classification"],))


def spoken(batch, places):
    """The batch with languages drawn of `places` by the examples' own numbers, and numbered where it is not."""
    rows, segments = batch["weights"].shape
    index = batch.get("index", np.arange(rows * segments, dtype=np.int32).reshape(rows, segments))
    return {**batch, "index": index, "language": np.array(places, np.int32)[index % len(places)]}


@functools.cache
def batches(packed=False):
    """English examples one a row or packed, and others' beside them, of which one in three is English."""
    apart, together = batch_pair("classification", 8)
    text = {key: value for key, value in batch_pair("tagging", 8)[1].items() if key != "tags"}
    return {"nli": spoken(together if packed else apart, [EN]), "text": spoken(text, [DE, SW, EN])}


# Gradients


def stream(hidden, batch):
    """What an objective sees of a stream, all of whose states are `hidden`."""
    return types.SimpleNamespace(state=lambda layer: hidden, batch=batch)


def examples(options, strength=0.6):
    """Returns (objective, own parameters, loss(own, hidden of both streams) without the encoder)."""
    signal = objectives.make("adversarial", {"depth": 2, "width": 5, "dropout": 0.0, **options}, "domain")
    own = signal.init(MODEL, jax.random.key(1))
    own = jax.tree.map(lambda x: x + 0.1, own)
    prepared = {name: signal.prepare(batch, None, CONTEXT) for name, batch in batches().items()}
    hidden = {
        name: jax.random.normal(jax.random.key(i), (*batch["tokens"].shape, MODEL.config.width))
        for i, (name, batch) in enumerate(prepared.items())
    }

    def loss(own, hidden):
        given = {name: stream(hidden[name], batch) for name, batch in prepared.items()}
        params = {"extra": {"domain": own}}
        total, weight, _ = signal.loss(None, params, given, None, jnp.float32(strength))
        return total / weight

    return signal, own, hidden, loss


def slopes(function, x, gradient, ways):
    """Returns (by central differences, by the gradient) the derivative along the gradient itself; ways: how far."""
    length = optax.tree_utils.tree_norm(gradient)
    ends = [function(jax.tree.map(lambda v, g, s=s: v + s * ways * g / length, x, gradient)) for s in (1, -1)]
    return float((ends[0] - ends[1]) / (2 * ways)), float(length)


@pytest.mark.parametrize("form", ["reversal", pytest.param("uniform", marks=pytest.mark.slow), "wasserstein"])
def test_gradients_against_finite_differences(form):
    """The discriminator's own go down its loss; the encoder's are those of what it hears, times the strength."""
    more = {"clip": 1.0} if form == "wasserstein" else {"languages": ("en", "de", "sw")}
    signal, own, hidden, loss = examples({"form": form, "strength": 0.7, "start": 0.2, **more})
    strength = 0.7 * (2 / (1 + np.exp(-10 * 0.5)) - 1)  # half of what comes after the start
    found = jax.jit(jax.grad(loss, (0, 1)))(own, hidden)
    by_differences, by_gradient = slopes(jax.jit(lambda own: loss(own, hidden)), own, found[0], 0.02)
    assert by_gradient > 1e-2 and by_gradient == pytest.approx(by_differences, rel=1e-2)

    @jax.jit
    def heard(hidden):
        if form != "uniform":
            return loss(own, hidden)
        total = weight = 0.0
        for name, batch in batches().items():
            x = jnp.einsum("bst,btd->bsd", shares(batch), hidden[name])
            told = jax.nn.log_softmax(signal.discriminate(own, x, None)).mean(-1)
            total, weight = total + (told * batch["weights"]).sum(), weight + batch["weights"].sum()
        return total / weight

    by_differences, by_gradient = slopes(heard, hidden, found[1], 0.3)
    assert by_gradient > 1e-3 and by_gradient == pytest.approx(-strength * by_differences, rel=2e-2)


def shares(batch):
    """A segment's tokens, each with its share of the mean."""
    inside = batch["segments"][:, None] == np.arange(1, batch["weights"].shape[1] + 1)[None, :, None]
    return inside / np.maximum(inside.sum(-1, keepdims=True), 1)


def test_the_penalty_by_hand():
    """Of a linear critic |dQ/dx| is the length of its kernel, for every example; the encoder hears nothing of it."""
    _, own, hidden, loss = examples({**CRITIC, "depth": 0})
    _, _, _, without = examples({**CRITIC, "depth": 0, "penalty": 0.0})
    length = jnp.linalg.norm(own["layer_0"]["kernel"])
    loss, without = jax.jit(loss), jax.jit(without)
    assert float(loss(own, hidden) - without(own, hidden)) == pytest.approx(2 * float(length - 1) ** 2, rel=1e-3)
    one, other = (jax.jit(jax.grad(each, 1))(own, hidden) for each in (loss, without))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_labels():
    each = objectives.make("adversarial", {"languages": ("sw", "de", "en")}, "domain")
    drawn = objectives.make("adversarial", {"labels": "random"}, "domain")
    text = batches()["text"]
    binary = objectives.make("adversarial", {}, "domain")._labels(text)
    np.testing.assert_array_equal(binary, text["language"] == EN)
    np.testing.assert_array_equal(
        each._labels(text), np.select([text["language"] == SW, text["language"] == DE], [0, 1], 2)
    )
    labels = np.asarray(drawn._labels(spoken({"weights": np.ones((60, 20))}, [DE])))
    assert abs(labels.mean() - 0.5) < 0.06
    again = spoken({"weights": np.ones((2, 20)), "index": np.arange(40)[::-1].reshape(2, 20)}, [DE])
    np.testing.assert_array_equal(np.asarray(drawn._labels(again)).ravel()[::-1], labels[:2].ravel())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"form": "wassertein"}, "unknown form 'wassertein'; did you mean 'wasserstein'"),
        ({"form": "wasserstein"}, "needs clip or penalty"),
        ({"languages": ("en",)}, "two at least"),
        ({"languages": ("en", "xx")}, "languages: unknown language 'xx'"),
        ({"start": 1.0}, "are shares"),
        ({"updates": 0}, "1 or more"),
        ({"penalty": 1.0}, "is of form='wasserstein'"),
    ],
)
def test_refusals(options, text):
    with pytest.raises(InputError, match=text):
        objectives.make("adversarial", options, "domain")


# Steps


def losses(**entries):
    """A task, a stream that feeds the adversaries alone, and these adversaries between them."""
    further = {name: step.Loss("", "adversarial", 0.5, STREAMS, options, ADAMW) for name, options in entries.items()}
    return {"nli": step.Loss("nli"), "text": step.Loss("", "none"), **further}


def run(mesh, given, made, accumulation=1, count=3):
    """Returns (metrics of each step, the last state)."""
    model = terms.with_extra(MODEL, given)
    optim = terms.optimizer(ADAMW, given, 20, model)
    shardings, _ = step.state_shardings(model, optim, mesh)
    state = jax.jit(lambda key: step.new_state(model.init(key), optim, 3), out_shardings=shardings)(jax.random.key(0))
    train = step.make_train_step(model, given, optim, mesh, context=CONTEXT, accumulation=accumulation)
    placed, found = {name: put_batch(batch, mesh) for name, batch in made.items()}, []
    for _ in range(count):
        state, metrics = train(state, placed)
        found.append(jax.device_get(metrics))
    return found, jax.device_get(state)


BOTH = {
    "classes": {**SMALL, "languages": ("en", "de", "sw"), "dropout": 0.0},
    "critic": {**CRITIC, "layer": 1, "updates": 3, "dropout": 0.0},
}


@functools.cache
def expected():
    return run(make_mesh({}, jax.devices()[:1]), losses(**BOTH), batches())


@pytest.mark.parametrize("way", ["eight devices, accumulated", pytest.param("packed", marks=pytest.mark.slow)])
def test_a_batch_gives_the_same_numbers(way, one_device):
    if way == "packed":
        found = run(one_device, losses(**BOTH), batches(packed=True))
    else:
        found = run(make_mesh({"data": 2, "fsdp": 2, "tensor": 2}), losses(**BOTH), batches(), accumulation=2)
    for a, b in zip(expected()[0], found[0], strict=True):
        for key in a.keys() - {"padded_tokens"}:
            np.testing.assert_allclose(b[key], a[key], rtol=0, atol=2e-5 * max(1, abs(a[key])), err_msg=key)
    one, other = (leaves(state["params"]["extra"]) for _, state in (expected(), found))
    for path, value in one.items():
        np.testing.assert_allclose(other[path], value, rtol=0, atol=3e-5, err_msg=path)
        assert np.abs(value).max() <= 0.3 + 1e-6 or path.startswith("classes")


def test_strength_0_equals_plain_training(one_device):
    """To the bit, with a probe of one update and one of several, and the text that they read beside the task's."""
    made = {"nli": batches()["nli"]}
    plain, beside = (
        run(one_device, {"nli": step.Loss("nli")}, made)[1],
        {name: {**options, "strength": 0.0} for name, options in BOTH.items()},
    )
    _, first = run(one_device, losses(**beside), batches(), count=0)
    found, probed = run(one_device, losses(**beside), batches())
    for room in ("encoder", "heads"):
        for path, value in leaves(plain["params"][room]).items():
            np.testing.assert_array_equal(leaves(probed["params"][room])[path], value, err_msg=path)
    before, after = (leaves(state["params"]["extra"]) for state in (first, probed))
    assert all((before[path] != after[path]).any() for path in before)
    assert [float(row["classes/strength"]) for row in found] == [0.0] * 3


def test_several_updates_by_hand():
    """As many steps of Adam on the states that the step keeps, each clipped; without its streams nothing changes."""
    signal, own, hidden, _ = examples({**CRITIC, "updates": 3})
    given = {name: stream(hidden[name], signal.prepare(batch, None, CONTEXT)) for name, batch in batches().items()}
    kept, tree = {"domain": signal.kept(None, given)}, {"extra": {"domain": own}}
    several, adam = signal.optimizer(ADAMW, 10), optimizer.make(ADAMW, 30)

    @jax.jit
    def at_once(tree):
        updates, state = several.update(jax.tree.map(jnp.ones_like, tree), several.init(tree), tree, kept=kept)
        return optax.apply_updates(tree, updates), several.update(tree, state, tree, kept={})[0]

    @jax.jit
    def one(own, state):
        mean = lambda own: operator.truediv(*signal._sums(own, kept["domain"], None, None)[:2])  # noqa: E731
        updates, state = adam.update(jax.grad(mean)(own), state, own)
        return jax.tree.map(lambda x: jnp.clip(x, -0.3, 0.3), optax.apply_updates(own, updates)), state

    state = adam.init(own)
    for _ in range(3):
        own, state = one(own, state)
    found, still = at_once(tree)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), found["extra"]["domain"], own)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(still))


# Text beside a task


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_lengths_do_not_tell_the_language(seed):
    rng = np.random.default_rng(seed)
    like = rng.poisson(12, 4000) + 4
    sizes = {"de": 900, "sw": 300, "th": 2000}
    lengths = np.concatenate(
        [rng.poisson(mean, size) + 3 for mean, size in zip((18, 14, 10), sizes.values(), strict=True)]
    )
    ends = np.cumsum([0, *sizes.values()])
    groups = {code: np.arange(ends[i], ends[i + 1]) for i, code in enumerate(sizes)}
    made, shares = pipeline.like_lengths(groups, lengths, dict.fromkeys(sizes, 1 / 3), like)
    ids = pipeline.mixture_ids(made, lengths, shares, seed=seed, epoch=0, count=6000)
    for code, own in groups.items():
        drawn = lengths[ids[np.isin(ids, own)]]
        assert len(drawn) == pytest.approx(2000, abs=20)
        bins = np.arange(like.max() + 2)
        apart = [np.cumsum(np.bincount(each, minlength=len(bins)) / len(each)) for each in (like, drawn)]
        assert np.abs(apart[0] - apart[1]).max() < 0.12, code  # Kolmogorov and Smirnov's distance
    with pytest.raises(InputError, match="xx has no text of"):
        pipeline.like_lengths({"xx": np.arange(3)}, np.array([90, 95, 99]), {"xx": 1.0}, like)


STUDY = """
from jxstilts.config import complete
from jxstilts.study import Study

SMALL = {"batch_size": 8, "max_length": 32, "buckets": 1}


def get_config(arg=None):
    text = {**SMALL, "languages": ("de", "tr", "en"), "objective": "none", "mode": "mixed", "amount": 1.0,
            "sampling_exponent": 0.0, "paired": True, "lengths_of": "mnli"}
    domain = {"streams": ("mnli", "text"), "objective": "adversarial", "optimizer": {"learning_rate": 1e-2},
              "options": {"width": 8, "updates": 2, "languages": ("en", "de", "tr")}}
    return complete(Study, {
        "study": "adversarial", "data_dir": "", "mesh": {"data": 1}, "model": {"preset": "tiny"},
        "tokenizer": {"vocab_size": 400, "model": "bpe", "languages": ("en", "de")},
        "phases": {"one": {"tasks": {"mnli": SMALL, "text": text}, "objectives": {"domain": domain}, "steps": 4,
                           "optimizer": {"learning_rate": 1e-3, "warmup": 0.0}, "save_every": 2, "log_every": 1}},
        "evaluations": {},
    })
"""


@pytest.mark.slow
def test_a_phase_that_is_stopped_goes_on_to_the_bit(world, compile_cache, tmp_path):
    (tmp_path / "study.py").write_text(STUDY)
    folders = [f"--config.data_dir={world}", f"--config.compile_cache={compile_cache}"]
    found, outcomes = study.from_config(config.load([f"--config={tmp_path}/study.py", *folders])), []
    for workdir, stops in ((tmp_path / "whole", ()), (tmp_path / "broken", (2,))):
        for at in stops:
            with pytest.raises(runtime.Interrupted):
                study.run(found, workdir, lambda now, at=at: now >= at, devices=jax.devices()[:1])
        study.run(found, workdir, devices=jax.devices()[:1])
        rows = tracking.read_rows(workdir / "phases/one/metrics.jsonl")
        done = json.loads((workdir / "phases/one/DONE").read_text())
        outcomes.append(
            (done["checkpoint_sha256"], [{key: row[key] for key in row if "domain" in key} for row in rows])
        )
    assert outcomes[0] == outcomes[1]
    assert {"domain/loss", "domain/accuracy", "domain/strength"} <= outcomes[0][1][0].keys()
    wrong = [f"--config={tmp_path}/study.py", *folders, "--config.phases.one.tasks.text.languages=de,ru"]
    with pytest.raises(InputError, match=r"objectives\.domain\.options\.languages.*'ru', a language of its streams"):
        study.from_config(config.load(wrong))
    wrong[-1] = "--config.phases.one.tasks.text.lengths_of=text"
    with pytest.raises(InputError, match=r"tasks\.text\.lengths_of: unknown stream of a task 'text'"):
        study.from_config(config.load(wrong))
