"""Retrieval tasks from sentences to predictions: pooling, layers, duplicate sentences, devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import WORDS, word_tokenizer

from jxstilts import tasks
from jxstilts.data import prepare
from jxstilts.eval import metrics, ranking, retrieval
from jxstilts.eval.evaluator import Evaluator, Options
from jxstilts.forms import Given, mining
from jxstilts.mesh import make_mesh
from jxstilts.models.heads.embedding import EmbeddingSpec
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError

POOL = {
    "mean": lambda hidden: hidden.mean(1),
    "mean_without_specials": lambda hidden: hidden[:, 1:-1].mean(1),
    "first": lambda hidden: hidden[:, 0],
}


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return Model(make_config("xlmr", "tiny", vocab_size=len(tokenizer), init_std=0.3))


@pytest.fixture(scope="module")
def params(model):
    return jax.jit(model.init)(jax.random.key(7))


@pytest.fixture(scope="module")
def sentences():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(2, 12))) for _ in range(20)]
    return [{"id": f"s{i}", "text": text} for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def pairs(sentences):
    """Texts that occur twice on either side, and the same texts as translations."""
    source = [*sentences, {"id": "s-again", "text": sentences[3]["text"]}]
    target = [{"id": row["id"].replace("s", "t"), "text": row["text"]} for row in reversed(sentences[:15])]
    target += [{"id": "t-more", "text": "what is not a house"}, {"id": "t-again", "text": sentences[3]["text"]}]
    gold = [(a["id"], b["id"]) for a in source for b in target if a["text"] == b["text"]]
    return {"source": source, "target": target, "gold": gold}


@pytest.fixture(scope="module")
def bucc():
    return dataclasses.replace(tasks.get("tatoeba"), name="mined", type="mining", metric="bucc")


def hidden_of(model, params, tokenizer, text):
    """One sentence, one row: [L + 1, T, D]."""
    ids = jnp.asarray([tokenizer(text)["input_ids"]], jnp.int32)
    batch = {"tokens": ids, "segments": jnp.ones_like(ids), "positions": jnp.arange(ids.shape[1])[None]}
    return model.encode(params, batch, all_hidden=True)[:, 0]


# --- embeddings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", POOL)
def test_pooling_equals_one_sentence_at_a_time(model, params, tokenizer, sentences, pooling):
    rows = [*sentences[:3], sentences[0]]
    options = Options(pooling=pooling)
    found = Evaluator(model, params, tokenizer, options).embed(rows)
    assert found.shape == (3, 4, 32) and found.dtype == np.float32
    for number, row in enumerate(rows):
        expected = POOL[pooling](hidden_of(model, params, tokenizer, row["text"]))
        np.testing.assert_allclose(found[:, number], expected, atol=1e-5)
    np.testing.assert_array_equal(found[:, 3], found[:, 0])


@pytest.mark.parametrize("pooling", POOL)
def test_two_segments_in_a_row_and_none(model, pooling):
    reader = model.with_heads(EmbeddingSpec("e", "embedding", pooling=pooling, layers=(2, 0)))
    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 8, 32)), jnp.float32)
    batch = {
        "segments": jnp.array([[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 0, 0, 0, 0, 0, 0]]),
        "first": jnp.array([[0, 3], [0, 0]]),
    }
    found = reader.head("e").predict({}, hidden, batch)["embeddings"]
    for row, slot, begin, end in ((0, 0, 0, 3), (0, 1, 3, 7), (1, 0, 0, 2)):
        if pooling == "mean_without_specials" and end - begin == 2:
            np.testing.assert_array_equal(found[row, slot], 0)  # nothing between the special tokens
        else:
            np.testing.assert_allclose(
                found[row, slot], POOL[pooling](hidden[jnp.array([2, 0]), row, begin:end]), atol=1e-6
            )
    np.testing.assert_array_equal(found[1, 1], 0)


def test_a_plain_head_gives_the_mean_of_every_hidden_state(model):
    head = model.with_heads(HeadSpec("e", "embedding")).head("e")
    hidden = jnp.arange(3 * 4 * 32.0).reshape(3, 1, 4, 32)
    batch = {"segments": jnp.array([[1, 1, 1, 0]]), "first": jnp.array([[0]])}
    np.testing.assert_allclose(head.predict({}, hidden, batch)["embeddings"][0, 0], hidden[:, 0, :3].mean(1))


def test_only_the_layers_asked_for_come_back(model, params, tokenizer, sentences):
    every = Evaluator(model, params, tokenizer).embed(sentences)
    some = Evaluator(model, params, tokenizer).embed(sentences, layers=[-1, 0])
    assert some.shape == (2, 20, 32)
    np.testing.assert_allclose(some, every[[2, 0]], atol=1e-6)
    with pytest.raises(InputError, match="layer=3: the model has the hidden states 0 to 2"):
        Evaluator(model, params, tokenizer).embed(sentences, layers=[3])


def test_batches_devices_and_an_empty_text_change_nothing(model, params, tokenizer, sentences):
    rows = [*sentences, {"id": "empty", "text": ""}]
    one = Evaluator(model, params, tokenizer).embed(rows)
    assert np.isfinite(one).all()
    for mesh, budget in ((None, 32), (make_mesh({"data": 4, "fsdp": 2}), 256)):
        options = Options(tokens_per_batch=budget)
        other = Evaluator(model, params, tokenizer, options, mesh).embed(rows)
        np.testing.assert_allclose(other, one, atol=1e-5)
    assert Evaluator(model, params, tokenizer).embed([]).shape == (3, 0, 32)


@pytest.mark.parametrize(
    ("change", "text"),
    [({"pooling": "men"}, "unknown pooling 'men'; did you mean 'mean'"), ({"max_length": 4000}, "for 128 tokens")],
)
def test_bad_options(model, params, tokenizer, sentences, change, text):
    with pytest.raises(InputError, match=text):
        Evaluator(model, params, tokenizer, Options(**change)).embed(sentences)


# --- tasks -----------------------------------------------------------------------------------------------------------


def run(model, params, tokenizer, task, examples, mesh=None, **options):
    options = Options(**{"layer": -1, **options})
    return Evaluator(model, params, tokenizer, options, mesh).evaluate(task, examples).predictions


def test_every_id_of_an_identical_sentence_is_mined(model, params, tokenizer, pairs, bucc):
    found = run(model, params, tokenizer, bucc, pairs, layer=1)
    assert found
    scores = [score for _, _, score in found]
    assert scores == sorted(scores, reverse=True) and min(scores) > 0
    by_pair = {(source, target): score for source, target, score in found}
    assert len(by_pair) == len(found)
    four = {by_pair[source, target] for source in ("s3", "s-again") for target in ("t3", "t-again")}
    assert len(four) == 1
    texts = {row["id"]: row["text"] for side in ("source", "target") for row in pairs[side]}
    mined = {(texts[source], texts[target]) for source, target in by_pair}
    assert len({a for a, _ in mined}) == len({b for _, b in mined}) == len(mined)  # one to one, as texts
    values = metrics.get("bucc").compute(metrics.get("bucc").update(found, pairs))
    assert values["f1"] == 100 and set(pairs["gold"]) <= set(by_pair)


def test_mining_collapses_what_the_vectors_do_not_tell(model, params, tokenizer, pairs, bucc):
    """The same as mining the different texts only."""
    found = run(model, params, tokenizer, bucc, pairs)
    alone = {
        "source": pairs["source"][:-1],
        "target": [row for row in pairs["target"] if row["id"] != "t-again"],
    }
    vectors = {side: Evaluator(model, params, tokenizer).embed(alone[side], layers=[-1])[0] for side in alone}
    expected = retrieval.mine(vectors["source"], vectors["target"])
    names = [(alone["source"][i]["id"], alone["target"][j]["id"]) for i, j, _ in expected]
    assert [pair[:2] for pair in found if not {"s-again", "t-again"} & {*pair[:2]}] == names
    # without gold pairs too, as in a test set
    bare = {side: pairs[side] for side in ("source", "target")}
    assert run(model, params, tokenizer, bucc, bare) == found


def test_means_are_taken_from_each_side(model, params, tokenizer, sentences):
    rows = {"source": sentences[:8], "target": sentences[5:], "gold": [("s5", "s5")]}
    options = Options(layer=1, subtract_means=True)
    found = Evaluator(model, params, tokenizer, options).evaluate(tasks.get("tatoeba"), rows).predictions
    sides = {}
    for side in ("source", "target"):
        vectors = Evaluator(model, params, tokenizer).embed(rows[side], layers=[1])[0].astype(np.float64)
        vectors -= vectors.mean(0)
        sides[side] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = (sides["target"] @ sides["source"].T).argmax(1)
    assert found == {row["id"]: rows["source"][place]["id"] for row, place in zip(rows["target"], nearest, strict=True)}
    plain = Evaluator(model, params, tokenizer, Options(layer=1)).evaluate(tasks.get("tatoeba"), rows).predictions
    assert plain != found
    alone = {"source": sentences[:1], "target": sentences[1:2]}  # nothing is left of one sentence
    assert Evaluator(model, params, tokenizer, options).evaluate(tasks.get("tatoeba"), alone).predictions == {
        "s1": "s0"
    }


def test_eight_devices_predict_what_one_does(model, params, tokenizer, pairs, bucc):
    mesh = make_mesh({"data": 8})
    for task in (bucc, tasks.get("tatoeba")):
        one, many = (run(model, params, tokenizer, task, pairs, mesh=each) for each in (None, mesh))
        if task is bucc:
            np.testing.assert_allclose([pair[2] for pair in many], [pair[2] for pair in one], rtol=1e-4)
            one, many = ({pair[:2] for pair in found} for found in (one, many))
        assert many == one


def test_one_sentence_on_each_side(model, params, tokenizer, sentences, bucc):
    rows = sentences[:1]
    examples = {"source": rows, "target": rows, "gold": [("s0", "s0")]}
    ((source, target, score),) = run(model, params, tokenizer, bucc, examples)
    assert (source, target) == ("s0", "s0") and score == pytest.approx(1, abs=1e-5)
    assert run(model, params, tokenizer, tasks.get("tatoeba"), examples) == {"s0": "s0"}


def test_the_curve_holds_what_each_layer_scores(model, params, tokenizer, sentences, pairs, bucc):
    rng = np.random.default_rng(1)
    noisy = [{**row, "text": row["text"] + " " + rng.choice(WORDS)} for row in sentences]
    examples = {"source": sentences, "target": noisy, "gold": [(row["id"], row["id"]) for row in sentences]}
    (result,) = Evaluator(model, params, tokenizer, Options(layer=1)).languages(
        tasks.get("tatoeba"), [("de", examples)], all_layers=True
    )
    curve = result.curve
    assert list(curve) == [0, 1, 2] and curve[1] == result.metrics
    for layer, values in curve.items():
        one = Evaluator(model, params, tokenizer, Options(layer=layer)).evaluate(tasks.get("tatoeba"), examples)
        assert values == one.metrics
    assert len({values["accuracy"] for values in curve.values()}) > 1  # or the test would show nothing
    options = Options(pooling="first", layer=-1).resolve(bucc, model)
    features = prepare.features(bucc.form, pairs, tokenizer, model.template, options, None)
    collector = bucc.form.collector(Given(bucc, pairs, features, (), options, (2, 0), ranking.Search()))
    texts = [sentence for side in bucc.form.sides(pairs).values() for sentence in side]
    vectors = Evaluator(model, params, tokenizer, options).embed(texts, layers=[-1, 0])
    for index in reversed(range(len(texts))):
        collector.add(index, vectors[:, index])
    mined = collector.by_layer()
    assert list(mined) == [2, 0]
    assert mined[2] == run(model, params, tokenizer, bucc, pairs, pooling="first")


def test_languages_together_are_as_each_alone(model, params, tokenizer, bucc):
    rng, languages = np.random.default_rng(0), {}
    for size, language in enumerate(("de", "fr", "zh"), start=3):
        source = [{"id": f"{language}-{i}", "text": " ".join(rng.choice(WORDS, size))} for i in range(9)]
        target = [{**row, "text": f"{row['text']} {rng.choice(WORDS)}"} for row in source[:8]] + source[8:]
        languages[language] = {"source": source, "target": target, "gold": [(row["id"], row["id"]) for row in source]}
    for task, options in ((tasks.get("tatoeba"), Options(subtract_means=True)), (bucc, Options())):
        ready = Evaluator(model, params, tokenizer, dataclasses.replace(options, layer=1))
        together = list(ready.languages(task, languages.items()))
        assert [result.language for result in together] == list(languages)
        for result in together:
            alone = ready.evaluate(task, languages[result.language])
            assert result.metrics == pytest.approx(alone.metrics, abs=1e-4) and result.predictions
            if task is bucc:
                assert [pair[:2] for pair in result.predictions] == [pair[:2] for pair in alone.predictions]
            else:
                assert result.predictions == alone.predictions


def test_texts_become_ids():
    examples = {
        "source": [{"id": i, "text": text} for i, text in zip("abcd", "xyxz", strict=True)],
        "target": [{"id": i, "text": text} for i, text in zip("klm", "uvu", strict=True)],
    }
    assert list(mining.collapse(examples["source"])) == ["x", "y", "z"]
    found = mining.expand([(0, 0, 2.0), (2, 1, 1.5)], examples)
    assert found == [("a", "k", 2.0), ("a", "m", 2.0), ("c", "k", 2.0), ("c", "m", 2.0), ("d", "l", 1.5)]
