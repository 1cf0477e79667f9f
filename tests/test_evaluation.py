"""Prediction, span decoding, retrieval and evaluation, against independent computations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import WORDS, word_tokenizer

from jxstilts import tasks
from jxstilts.eval import evaluator, retrieval
from jxstilts.eval.evaluator import Evaluator, Options
from jxstilts.forms import answers as decoding
from jxstilts.mesh import make_mesh
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    specs = (HeadSpec("mnli", "classification", tasks.get("mnli").labels), HeadSpec("qa", "span"))
    config = make_config("xlmr", "tiny", vocab_size=len(tokenizer), init_std=0.3)
    return Model(config, specs)


@pytest.fixture(scope="module")
def params(model):
    return jax.jit(model.init)(jax.random.key(7))


def sentence(rng, low=3, high=30):
    return " ".join(rng.choice(WORDS, rng.integers(low, high)))


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(0)
    return [
        {"id": str(i), "text_a": sentence(rng), "text_b": sentence(rng), "label": int(rng.integers(3))}
        for i in range(37)
    ]


@pytest.fixture(scope="module")
def questions():
    rng = np.random.default_rng(1)
    rows = []
    for i in range(9):
        context = sentence(rng, 5, 150)
        begin = context.index(context.split()[2])
        answer = {"text": context.split()[2], "start": begin}
        rows.append({"id": f"q{i}", "question": sentence(rng, 3, 6), "context": context, "answers": [answer]})
    return rows


def test_batches_and_meshes_change_no_prediction(model, params, tokenizer, pairs):
    """37 examples: the last batch is partial and counts."""
    results = []
    for mesh, budget in (
        (None, 64),
        (None, 4096),
        (make_mesh({"data": 8}), 2048),
        (make_mesh({"data": 2, "fsdp": 2, "tensor": 2}), 512),
    ):
        options = Options(tokens_per_batch=budget)
        results.append(Evaluator(model, params, tokenizer, options, mesh).evaluate(tasks.get("mnli"), pairs))
    assert results[0].n == 37 and len(results[0].predictions) == 37
    assert all(result == results[0] for result in results)
    right = sum(results[0].predictions[row["id"]] == row["label"] for row in pairs)
    assert results[0].metrics["accuracy"] == pytest.approx(100 * right / 37)
    counts = np.bincount([row["label"] for row in pairs])
    assert results[0].baseline == {"accuracy": pytest.approx(100 * counts.max() / 37)}
    low, high = results[0].interval["accuracy"]
    assert low < results[0].metrics["accuracy"] == results[0].major < high


def test_classification_equals_one_example_at_a_time(model, params, tokenizer, pairs):
    result = Evaluator(model, params, tokenizer).evaluate(tasks.get("mnli"), pairs[:5])
    for row in pairs[:5]:
        ids = tokenizer(row["text_a"], row["text_b"])["input_ids"]
        one = jnp.asarray([ids], jnp.int32)
        batch = {
            "tokens": one, "segments": jnp.ones_like(one), "positions": jnp.arange(len(ids))[None],
            "first": jnp.zeros((1, 1), jnp.int32),
        }  # fmt: skip
        logits = model.predict(params, "mnli", batch)["logits"][0, 0]
        assert int(logits.argmax()) == result.predictions[row["id"]]


def test_span_evaluation_equals_a_search_over_all_windows(model, params, tokenizer, questions):
    options = Options(max_length=48, doc_stride=16, max_query_length=12, n_best=1000)
    ready = Evaluator(model, params, tokenizer, options)
    result = ready.evaluate(dataclasses.replace(tasks.get("xquad"), name="x"), questions)
    assert set(result.predictions) == {row["id"] for row in questions}
    for row in questions:
        answer = result.predictions[row["id"]]
        assert answer and answer in row["context"] and len(answer.split()) <= options.max_answer_length
    first = dataclasses.replace(ready, options=dataclasses.replace(options, max_features=3))
    few = first.evaluate(tasks.get("xquad"), questions)
    assert few.n < result.n


def test_questions_with_noise_have_other_answers_and_the_same_gold(model, params, tokenizer, questions, pairs):
    options = Options(max_length=48, doc_stride=16, max_query_length=12)
    plain = Evaluator(model, params, tokenizer, options).evaluate(tasks.get("xquad"), questions)
    noisy = Evaluator(model, params, tokenizer, dataclasses.replace(options, question_noise=0.3))
    found = noisy.evaluate(tasks.get("xquad"), questions)
    assert found.n == plain.n and found.baseline == plain.baseline and found.predictions != plain.predictions
    assert noisy.evaluate(tasks.get("xquad"), questions) == found
    with pytest.raises(InputError, match="question_noise: task 'mnli' has no questions"):
        noisy.evaluate(tasks.get("mnli"), pairs)
    with pytest.raises(InputError, match=r"question_noise=1\.5 is a share of the letters"):
        Evaluator(model, params, tokenizer, Options(question_noise=1.5)).evaluate(tasks.get("xquad"), questions)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 12))
def test_best_span_equals_brute_force(seed, length, longest):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(length, 2))
    char_start = np.where(rng.random(length) < 0.7, np.arange(length), -1)
    max_context = rng.random(length) < 0.7
    found = decoding.window_candidates(logits, char_start, max_context, n_best=length, max_answer_length=longest)
    allowed = [
        (logits[i, 0] + logits[j, 1], i, j)
        for i in range(length)
        for j in range(i, min(i + longest, length))
        if char_start[i] >= 0 and char_start[j] >= 0 and max_context[i]
    ]
    assert (found is None) == (not allowed)
    if allowed:
        assert found[0] == pytest.approx(max(allowed)[0])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 50), st.integers(1, 5))
def test_nearest_equals_the_full_matrix(seed, queries, index, k):
    rng = np.random.default_rng(seed)
    a = rng.integers(-3, 4, (queries, 4)).astype(np.float32)  # small integers: exact scores and many ties
    b = rng.integers(-3, 4, (index, 4)).astype(np.float32)
    k = min(k, index)
    scores, ids = retrieval.nearest(a, b, k=k, tile=16)
    order = np.argsort(-(a @ b.T), axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(a @ b.T, order, 1))


def test_retrieval_of_the_same_sentences_is_perfect(model, params, tokenizer):
    rng = np.random.default_rng(3)
    texts = list(dict.fromkeys(sentence(rng, 6, 20) for _ in range(20)))
    rows = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    examples = {"source": rows, "target": rows, "gold": [(row["id"], row["id"]) for row in rows]}
    for layer in (0, 1, -1):
        result = Evaluator(model, params, tokenizer, Options(layer=layer)).evaluate(tasks.get("tatoeba"), examples)
        assert result.metrics == {"accuracy": 100.0}


def test_embeddings_are_means_over_all_tokens(model, params, tokenizer):
    rows = [{"id": "0", "text": "the red dog runs"}, {"id": "1", "text": "a cat"}]
    found = Evaluator(model, params, tokenizer).embed(rows)
    assert found.shape == (3, 2, 32)
    for number, row in enumerate(rows):
        ids = jnp.asarray([tokenizer(row["text"])["input_ids"]], jnp.int32)
        batch = {"tokens": ids, "segments": jnp.ones_like(ids), "positions": jnp.arange(ids.shape[1])[None]}
        hidden = model.encode(params, batch, all_hidden=True)
        np.testing.assert_allclose(found[:, number], hidden[:, 0].mean(1), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"head": "other"}, "needs the classification head 'other'; the model has mnli"),
        ({"options": Options(max_length=4000)}, "positions for 128 tokens"),
    ],
)
def test_bad_requests(model, params, tokenizer, pairs, change, text):
    ready = Evaluator(model, params, tokenizer, change.get("options", Options()))
    with pytest.raises(InputError, match=text):
        ready.evaluate(tasks.get("mnli"), pairs, head=change.get("head"))


def test_head_with_other_labels_is_refused(model, params, tokenizer, pairs):
    other = model.with_heads(HeadSpec("mnli", "classification", ("yes", "no")))
    with pytest.raises(InputError, match="predicts 2 labels, 'yes', 'no'"):
        Evaluator(other, params, tokenizer).evaluate(tasks.get("mnli"), pairs)
    none = model.with_heads()
    with pytest.raises(InputError, match="the model has no heads"):
        Evaluator(none, params, tokenizer).evaluate(tasks.get("mnli"), pairs)


def test_unlabelled_rows_get_predictions_and_no_score(model, params, tokenizer, pairs):
    bare = [{key: value for key, value in row.items() if key != "label"} for row in pairs]
    labelled = Evaluator(model, params, tokenizer).evaluate(tasks.get("mnli"), pairs)
    found = Evaluator(model, params, tokenizer).evaluate(tasks.get("mnli"), bare)
    assert found.predictions == labelled.predictions and found.n == len(pairs)
    assert (found.metrics, found.values, found.interval, found.major, found.baseline) == ({}, {}, {}, None, None)
    with pytest.raises(InputError, match="all or none"):  # some with and some without: a fault of the data
        Evaluator(model, params, tokenizer).evaluate(tasks.get("mnli"), [*pairs, {**bare[0], "id": "x"}])


def test_languages_in_one_stream_are_as_one_by_one(model, params, tokenizer, pairs, monkeypatch):
    """Whether their rows share batches or not, and whatever the groups."""
    given = [("en", pairs), ("de", pairs[3:]), ("sw", pairs[:5]), ("th", pairs[:1])]
    ready = Evaluator(model, params, tokenizer)
    apart = [ready.evaluate(tasks.get("xnli"), rows, head="mnli", language=language) for language, rows in given]
    for tokens in (1, 200, 10**9):
        monkeypatch.setattr(evaluator, "STREAM", tokens)
        found = ready.languages(tasks.get("xnli"), iter(given), head="mnli")
        assert list(found) == apart


def test_bad_layer(model, params, tokenizer):
    rows = [{"id": "0", "text": "a cat"}]
    examples = {"source": rows, "target": rows, "gold": [("0", "0")]}
    with pytest.raises(InputError, match="hidden states 0 to 2"):
        Evaluator(model, params, tokenizer, Options(layer=9)).evaluate(tasks.get("tatoeba"), examples)
