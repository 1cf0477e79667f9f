"""The heads of multiple choice and tagging against numpy, and that packing and padding change nothing."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
import samples

from jxstilts import forms
from jxstilts.data import batching
from jxstilts.data.features import Features
from jxstilts.mesh import make_mesh, put_batch
from jxstilts.models import export, huggingface
from jxstilts.models.layers import Compute
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError

TAGS = ("N", "V", "D", "P", "X")
SPECS = (HeadSpec("c", "choice"), HeadSpec("p", "choice", pooling="pooler"), HeadSpec("t", "tagging", TAGS))


@pytest.fixture(scope="module")
def model():
    return Model(make_config("xlmr", "tiny", vocab_size=60, pooler=True, init_std=0.3), SPECS)


@pytest.fixture(scope="module")
def params(model):
    return jax.jit(model.init)(jax.random.key(0))


def questions(choices, seed=0):
    """Features of questions with these numbers of choices, each choice of a random length."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, 12, sum(choices))
    labels = np.zeros(sum(choices), np.int32)
    labels[np.cumsum([0, *choices[:-1]]) + [generator.integers(count) for count in choices]] = 1
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    fields = {
        "example": np.repeat(np.arange(len(choices)), choices).astype(np.int32),
        "label": labels,
    }
    return Features(generator.integers(4, 60, offsets[-1]).astype(np.int32), offsets, fields)


def choice_batch(features, rows, num_rows, max_segments, length=128):
    plan = batching.Plan.of(tuple(map(tuple, rows)), length, num_rows)
    (plan,) = batching.expand([plan], batching.groups(features, forms.get("choice").fields))
    return batching.assemble_plan(features, plan, **samples.as_batch("choice"), max_segments=max_segments)


def numbers(result):
    return {name: (float(total), float(weight)) for name, (total, weight) in result.items()}


def log_softmax(scores):
    scores = np.asarray(scores, np.float64)
    scores = scores - scores.max(-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


# Choice.


CHOICES = (4, 2, 5, 1, 3)


@pytest.mark.parametrize("head", ["c", "p"])
def test_choice_loss_is_that_of_numpy(model, params, head):
    features = questions(CHOICES)
    batch = choice_batch(features, [[0, 1], [2], [3, 4]], 4, 8)
    found = numbers(jax.jit(model.loss, static_argnums=1)(params, head, batch))
    logits = np.asarray(model.predict(params, head, batch)["logits"])
    assert logits.shape == (4, 8) and logits.dtype == np.float32
    scores = {int(index): logits[place] for place, index in np.ndenumerate(batch["index"]) if index >= 0}
    groups = batching.groups(features, forms.get("choice").fields)
    loss = right = 0
    for begin, end in itertools.pairwise(groups):
        own = [scores[i] for i in range(begin, end)]
        gold = features.fields["label"][begin:end].tolist().index(1)
        loss -= log_softmax(own)[gold]
        right += int(np.argmax(own) == gold)
    assert found["loss"] == (pytest.approx(loss, rel=1e-5), len(CHOICES))
    assert found["accuracy"] == (right, len(CHOICES))


def test_the_pooler_is_read_only_on_request(model, params):
    batch = choice_batch(questions(CHOICES), [[0], [1]], 2, 4)
    own = {**params, "heads": {**params["heads"], "p": params["heads"]["c"]}}
    assert not np.allclose(model.predict(own, "c", batch)["logits"], model.predict(own, "p", batch)["logits"])
    classes = Model(model.config, (HeadSpec("p", "classification", ("yes",), pooling="pooler"),))
    logits = classes.predict({**params, "heads": {"p": own["heads"]["p"]}}, "p", batch)["logits"][..., 0]
    np.testing.assert_array_equal(logits, model.predict(own, "p", batch)["logits"])
    bare = {**params, "encoder": {name: part for name, part in params["encoder"].items() if name != "pooler"}}
    with pytest.raises(InputError, match=r"config.model.pooler=True"):
        Model(dataclasses.replace(model.config, pooler=False), SPECS).predict(bare, "p", batch)


def test_questions_in_one_row_are_as_in_rows_of_their_own(model, params):
    features = questions(CHOICES)
    layouts = (
        ([[0], [1], [2], [3], [4]], 5, 5),
        ([[0, 1], [2], [3, 4]], 4, 9),
        ([[4, 2, 0], [3, 1]], 2, 16),
        ([[2], [4], [0], [3], [1]], 8, 6),
    )

    def run(params, batch):
        result = model.loss(params, "c", batch)
        return result["loss"][0] / result["loss"][1], result

    found = []
    for rows, num_rows, segments in layouts:
        batch = choice_batch(features, rows, num_rows, segments, length=160)
        (_, result), gradient = jax.jit(jax.value_and_grad(run, has_aux=True))(params, batch)
        found.append((numbers(result), gradient))
    first, gradient = found[0]
    assert first["loss"][1] == len(CHOICES)
    for result, other in found[1:]:
        for name in first:
            np.testing.assert_allclose(result[name], first[name], rtol=1e-5)
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(gradient["heads"]["c"]))


def test_rows_over_devices(model, params):
    features = questions((4, 2, 5, 3, 4, 1, 2, 3, 5))
    batch = choice_batch(features, [[8, 0], *([i] for i in range(1, 8))], 8, 9, length=96)
    batch["tags"] = np.where(batch["segments"] > 0, batch["tokens"] % len(TAGS), -1)
    for head in ("c", "t"):
        loss = jax.jit(lambda params, batch, head=head: model.loss(params, head, batch))
        alone, shared = (numbers(loss(params, rows)) for rows in (batch, put_batch(batch, make_mesh({"data": -1}))))
        for name in alone:
            np.testing.assert_allclose(shared[name], alone[name], rtol=1e-5)


def test_a_batch_of_padding_has_no_weight_and_no_gradient(model, params):
    features = questions(CHOICES)
    batch = choice_batch(features, [], 2, 4, length=16)
    assert (batch["group"] == -1).all()
    result = model.loss(params, "c", batch)
    assert numbers(result) == {"loss": (0, 0), "accuracy": (0, 0)}
    gradient = jax.jit(jax.grad(lambda params: model.loss(params, "c", batch)["loss"][0]))(params)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(gradient))
    half = choice_batch(features, [[0]], 1, 4)
    half["labels"] = np.zeros_like(half["labels"])  # a question whose right choice is not known
    assert numbers(model.loss(params, "c", half))["loss"] == (0, 0)


def test_equal_scores_go_to_the_first_choice(model, params):
    """As numpy's argmax does, by which an evaluation picks the answer."""
    zero = {**params, "heads": {**params["heads"], "c": jax.tree.map(np.zeros_like, params["heads"]["c"])}}
    features = questions((4, 2, 5))
    batch = choice_batch(features, [[0, 1], [2]], 2, 8)
    right = [features.fields["label"][begin] for begin in batching.groups(features, forms.get("choice").fields)[:-1]]
    assert numbers(model.loss(zero, "c", batch))["accuracy"] == (sum(right), 3)
    assert numbers(model.loss(zero, "c", batch))["loss"][0] == pytest.approx(np.log([4, 2, 5]).sum())


@pytest.mark.parametrize("head", ["c", "t"])
def test_dropout(params, head):
    config = make_config("xlmr", "tiny", vocab_size=60, pooler=True, hidden_dropout=0.5, attention_dropout=0.0)
    model, batch = Model(config, SPECS), choice_batch(questions(CHOICES), [[0, 1]], 1, 8)
    batch["tags"] = np.where(batch["segments"] > 0, 1, -1)
    hidden = np.ones((*batch["tokens"].shape, config.width), np.float32)
    losses = [model.head(head).loss(params, hidden, batch, rng)["loss"][0] for rng in map(jax.random.key, (0, 0, 1))]
    assert losses[0] == losses[1] != losses[2]
    plain = dataclasses.replace(model, config=dataclasses.replace(config, hidden_dropout=0.0))
    assert (
        model.head(head).loss(params, hidden, batch)["loss"][0]
        == (plain.head(head).loss(params, hidden, batch, jax.random.key(0))["loss"][0])
    )


# Tagging.


def test_tagging_loss_is_that_of_numpy(model, params):
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(3, 20, model.config.width)).astype(np.float32)
    tags = generator.integers(-1, len(TAGS), (3, 20))
    tags[2] = -1
    head = model.head("t")
    found = numbers(head.loss(params, hidden, {"tags": tags}))
    own = params["heads"]["t"]
    logits = hidden.astype(np.float64) @ np.asarray(own["kernel"]) + np.asarray(own["bias"])
    places = np.argwhere(tags >= 0)
    loss = -sum(log_softmax(logits[r, t])[tags[r, t]] for r, t in places)
    right = sum(int(logits[r, t].argmax() == tags[r, t]) for r, t in places)
    assert found["loss"] == (pytest.approx(loss, rel=1e-5), len(places))
    assert found["accuracy"] == (right, len(places))
    classes = head.predict(params, hidden, {})["classes"]
    assert classes.dtype == np.int32
    np.testing.assert_array_equal(classes, logits.argmax(-1))
    assert numbers(head.loss(params, hidden, {"tags": np.full((3, 20), -1)})) == {"loss": (0, 0), "accuracy": (0, 0)}


def test_tagging_packed_is_as_unpacked(model, params):
    generator = np.random.default_rng(0)
    loss = jax.jit(lambda params, batch: model.loss(params, "t", batch))
    for _ in range(4):
        lengths = generator.integers(3, 13, 5)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tags = generator.integers(-1, len(TAGS), offsets[-1]).astype(np.int32)
        tokens = generator.integers(4, 60, offsets[-1]).astype(np.int32)
        features = Features(tokens, offsets, {"example": np.arange(5, dtype=np.int32)}, {"tag": tags})
        order = generator.permutation(5).tolist()
        options = {**samples.as_batch("tagging"), "length": 48, "num_rows": 6}
        alone = batching.assemble(features, [[i] for i in range(5)], max_segments=1, **options)
        packed = batching.assemble(features, [order[:2], order[2:]], max_segments=5, **options)
        losses = [numbers(loss(params, batch)) for batch in (alone, packed)]
        for name in losses[0]:
            np.testing.assert_allclose(losses[0][name], losses[1][name], rtol=1e-5)
        assert losses[0]["loss"][1] == (tags >= 0).sum()


def test_bfloat16_and_a_thousand_labels():
    labels = tuple(str(i) for i in range(1363))
    compute = Compute(dtype="bfloat16")
    model = Model(make_config("xlmr", "tiny", vocab_size=60), (HeadSpec("t", "tagging", labels),), compute)
    params = model.init(jax.random.key(0))
    hidden = np.random.default_rng(0).normal(size=(2, 8, model.config.width))
    result = model.head("t").loss(params, hidden, {"tags": np.full((2, 8), 1362)})
    assert result["loss"][0].dtype == np.float32 and float(result["loss"][0] / result["loss"][1]) < 10
    assert model.head("t").predict(params, hidden, {})["classes"].shape == (2, 8)


# What each head needs, and Hugging Face.


def test_heads_that_lack_labels():
    model = Model(make_config("xlmr", "tiny", vocab_size=60), (HeadSpec("t", "tagging"),))
    with pytest.raises(InputError, match="tagging head 't' needs labels"):
        model.init(jax.random.key(0))


def test_a_tagging_head_goes_there_and_back(model, params, tmp_path):
    loaded = huggingface.Loaded(model, jax.tree.map(np.asarray, params))
    left = export.to_huggingface(loaded, tmp_path / "out")  # of these heads the only one with a class
    assert {path.split("/")[1] for path in left if path.startswith("heads/")} == {"c", "p"}
    again = huggingface.load(tmp_path / "out")
    assert again.model.head_specs == (HeadSpec("tagging", "tagging", TAGS),)
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(again.params["heads"]["tagging"][name], params["heads"]["t"][name])


def test_a_choice_head_has_no_class(model, params, tmp_path):
    loaded = huggingface.Loaded(model.with_heads(SPECS[0]), jax.tree.map(np.asarray, params))
    with pytest.raises(InputError, match=r"computes the head 'c' \(type choice\); export the encoder alone"):
        export.to_huggingface(loaded, tmp_path / "out", head="c")
    with pytest.raises(InputError, match=r"computes the head c; export the encoder alone"):
        export.to_huggingface(loaded, tmp_path / "out")
    left = export.to_huggingface(loaded, tmp_path / "out", encoder_only=True)
    assert "heads/c/out/kernel" in left and huggingface.load(tmp_path / "out").model.head_specs == ()


def test_a_multiple_choice_model_of_hugging_face_is_not_taken_for_a_tagger(tmp_path):
    """It has a `classifier.weight` too, on the pooler."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    config = transformers.XLMRobertaConfig(
        vocab_size=48, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=26, type_vocab_size=1, num_labels=1,
    )  # fmt: skip
    transformers.XLMRobertaForMultipleChoice(config).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="the head of XLMRobertaForMultipleChoice is not computed here"):
        huggingface.load(tmp_path / "model")
