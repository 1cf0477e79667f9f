"""Hidden-state mixing: the mixed loss against numpy, its ends, and that speed changes nothing."""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_step

from jxstilts.mesh import make_mesh, put_batch
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError
from jxstilts.train import objectives, optimizer, step

SPEC = HeadSpec("nli", "classification", ("a", "b", "c"))
MODEL = Model(make_config("xlmr", "tiny", layers=1, hidden_dropout=0.0, attention_dropout=0.0), (SPEC,))
ROWS = 4


def forward(seed, weights=(1, 1, 1, 1)):
    """A micro-batch and its states, without an encoder."""
    rng = np.random.default_rng(seed)
    batch = {
        "first": jnp.zeros((ROWS, 1), jnp.int32), "labels": jnp.asarray(rng.integers(0, 3, (ROWS, 1))),
        "weights": jnp.asarray(np.array(weights, np.float32)[:, None]), "segments": jnp.ones((ROWS, 3), jnp.int32),
    }  # fmt: skip
    return types.SimpleNamespace(batch=batch, hidden=jnp.asarray(rng.normal(size=(ROWS, 3, 32)).astype(np.float32)))


def make(**options):
    return objectives.make("mixing", {"head": "nli", "high": "en", **options}, "mix")


def test_the_loss_is_that_of_numpy():
    head = MODEL.head("nli")
    params = {"heads": {"nli": jax.tree.map(lambda x: 20 * x, nn.unbox(head.new(jax.random.key(0))))}}
    high, low = forward(1), forward(2, weights=(1, 1, 0, 1))
    total, weight, _ = make(share=0.7).loss(MODEL, params, {"en": high, "sw": low}, None, None)
    mixed = 0.7 * high.hidden[:, :1] + 0.3 * low.hidden[:, :1]
    logits = np.asarray(head.apply(params, mixed), np.float64)[:, 0]
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    gold = [np.asarray(each.batch["labels"])[:, 0] for each in (high, low)]
    losses = -0.7 * log[np.arange(ROWS), gold[0]] - 0.3 * log[np.arange(ROWS), gold[1]]
    np.testing.assert_allclose(total, losses[[0, 1, 3]].sum(), rtol=1e-5)
    assert float(weight) == 3
    for share, own in ((1.0, high), (0.0, low)):  # the ends: one stream's own loss
        full = forward(2)
        full.batch["labels"], full.hidden = low.batch["labels"], low.hidden
        own = full if own is low else own
        found = make(share=share).loss(MODEL, params, {"en": high, "sw": full}, None, None)
        np.testing.assert_allclose(found[0], head.loss(params, own.hidden, own.batch)["loss"][0], rtol=1e-5)
    alone = make().loss(MODEL, params, {"en": high}, None, None)
    assert float(alone[0]) == float(alone[1]) == 0


def run(mesh, accumulation):
    optim = optimizer.make(test_step.ADAMW, 20)
    shardings, _ = step.state_shardings(MODEL, optim, mesh)
    state = jax.jit(lambda key: step.new_state(MODEL.init(key), optim, 3), out_shardings=shardings)(jax.random.key(0))
    terms = {
        "en": step.Loss("nli"), "sw": step.Loss("nli"),
        "mix": step.Loss("", "mixing", 2.0, ("en", "sw"), {"head": "nli", "high": "en"}),
    }  # fmt: skip
    train = step.make_train_step(MODEL, terms, optim, mesh, context=test_step.CONTEXT, accumulation=accumulation)
    one = test_step.make_batch("classification")
    one = {**one, **{key: one[key][:, :1] for key in ("first", "labels", "weights")}}
    batches = {"en": one, "sw": {key: np.roll(leaf, 3, 0) for key, leaf in one.items()}}
    found = []
    for _ in range(3):  # the rate begins at 0
        state, metrics = train(state, put_batch(batches, mesh))
        found.append([float(metrics[key]) for key in ("loss", "mix/loss", "gradient_norm")])
    return np.array(found)


@pytest.mark.slow
def test_devices_and_accumulation_change_nothing(one_device):
    plain = run(one_device, 1)
    np.testing.assert_allclose(run(make_mesh({"data": 4, "fsdp": 2}), 2), plain, rtol=1e-4)
    assert plain[0, 1] > 0.1 and plain[2, 0] < plain[0, 0]


@pytest.mark.parametrize(
    ("options", "low", "message"),
    [({"share": 2.0}, None, "share=2.0 is between 0 and 1"), ({"head": ""}, None, r"options\.head names the head"),
     ({"high": "fr"}, 1, r"the streams are en, sw, high='fr'"), ({}, 2, "one batch_size, and packed=False")],
)  # fmt: skip
def test_what_cannot_be_mixed(options, low, message):
    with pytest.raises(InputError, match=message):
        own = make(**options)
        other = forward(2)
        other.batch["weights"] = jnp.ones((ROWS, low))
        own.loss(MODEL, {}, {"en": forward(1), "sw": other}, None, None)
