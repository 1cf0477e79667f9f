"""An encoder-decoder with remat computes the same, in bfloat16 nearly so; its encoder takes any head."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_text_to_text import features, make_model, make_template

from jxstilts import tasks
from jxstilts.data import batching
from jxstilts.forms import Reading
from jxstilts.models import generation
from jxstilts.models.layers import Compute
from jxstilts.models.model import HeadSpec


@pytest.fixture(scope="module")
def made():
    """(model, parameters, a batch with targets)"""
    spec, found, tokenizer = features()
    plan = batching.Plan.of([(i,) for i in range(8)], 32, 8)
    batch = batching.assemble_plan(
        found, plan, fields=spec.form.batch_fields(make_template()), max_segments=1, pad_id=1
    )
    model = make_model(tokenizer)
    return model, jax.jit(model.init)(jax.random.key(0)), batch


def run(model, params, batch):
    """-> (mean loss, its gradients)"""

    @jax.jit
    def mean(params):
        total, weight = model.loss(params, "text_to_text", batch)["loss"]
        return total / weight

    return jax.value_and_grad(mean)(params)


def test_remat_changes_no_result(made):
    model, params, batch = made
    loss, slopes = run(*made)
    for remat in ("full", "dots"):
        other = dataclasses.replace(model, compute=Compute(remat=remat))
        found, own = run(other, params, batch)
        assert abs(found - loss) < 1e-6, remat
        for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(own), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6 * max(1.0, float(np.abs(a).max())))


def test_bfloat16_stays_near(made):
    model, params, batch = made
    loss, slopes = run(*made)
    rounded = dataclasses.replace(model, compute=Compute(dtype="bfloat16"))
    assert jax.eval_shape(rounded.encode, params, batch).dtype == jnp.bfloat16
    found, own = run(rounded, params, batch)
    assert found.dtype == jnp.float32 and found != loss and abs(found - loss) < 0.02 * loss
    whole, theirs = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (slopes, own))
    assert whole @ theirs > 0.99 * np.linalg.norm(whole) * np.linalg.norm(theirs)


@pytest.mark.parametrize(("task", "kind"), [("mnli", "classification"), ("udpos", "tagging"), ("xquad", "span")])
def test_the_encoder_alone_takes_every_head(made, task, kind):
    model, _, _ = made
    spec = tasks.get(task)
    labels = spec.labels or (("NOUN", "VERB") if kind == "tagging" else ())
    alone = model.with_heads(HeadSpec("own", kind, labels))
    params = jax.jit(alone.init)(jax.random.key(1))
    rows = {
        "mnli": [{"id": "1", "text_a": "the cat", "text_b": "a dog", "label": 1}],
        "udpos": [{"id": "1", "words": ["the", "cat"], "tags": ["NOUN", "VERB"]}],
        "xquad": [
            {"id": "1", "question": "the cat", "context": "a dog", "answers": [{"text": "dog", "start": 2}]},
        ],
    }[task]  # fmt: skip
    _, _, tokenizer = features(1)
    form = spec.form
    reading = Reading(max_length=32, max_query_length=8, doc_stride=8, long_sentences="truncate")
    found = form.tokenize(rows, tokenizer, make_template(), reading, labels)
    plan = batching.Plan.of([(i,) for i in range(len(found))], 32, len(found))
    batch = batching.assemble_plan(found, plan, fields=form.batch_fields(make_template()), max_segments=1, pad_id=1)
    slopes = jax.jit(jax.grad(lambda params: alone.loss(params, "own", batch)["loss"][0]))(params)
    moved = {room: any(float(jnp.abs(x).max()) > 0 for x in jax.tree.leaves(slopes[room])) for room in slopes}
    assert moved == {"encoder": True, "heads": True}
    decoder = [x for path, x in jax.tree.leaves_with_path(slopes["encoder"]) if "decoder" in jax.tree_util.keystr(path)]
    assert not any(float(jnp.abs(x).max()) for x in decoder)  # which no such head reads


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(3, 96), (2, 2, 250), (1, 2560)]), st.sampled_from([1, 2, 8]))
def test_the_largest_by_blocks_are_top_k(seed, shape, count):
    """Of many equal values, too, of which the first counts."""
    logits = jnp.asarray(np.random.default_rng(seed).integers(0, 40, shape).astype(np.float32))
    for found, wanted in zip(generation.largest(logits, count), jax.lax.top_k(logits, count), strict=True):
        np.testing.assert_array_equal(found, wanted)
