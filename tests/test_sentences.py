"""Embedding models: the recipe in a folder, in a bundle, in a phase's hand-over and in retrieval."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import samples
from golden.batches import HERE
from safetensors.numpy import save_file

from jxstilts import cli, tasks
from jxstilts.checkpoint import digests
from jxstilts.eval import evaluator
from jxstilts.models import bundle, export
from jxstilts.models.heads.embedding import EmbeddingSpec, Recipe
from jxstilts.models.model import Model, make_config
from jxstilts.runtime import InputError
from jxstilts.train import handover

WIDTH, OUTPUTS = 16, 10
MEAN, CLS = {"pooling_mode_mean_tokens": True}, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}


def put(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def sentence_folder(folder, kinds=("Transformer", "Pooling", "Normalize"), pooling=MEAN, dense=None, **prompts):
    """The golden encoder as sentence-transformers would save it."""
    shutil.copytree(HERE / "xlmr", folder)
    types = [f"sentence_transformers.models.{kind}" for kind in kinds]
    modules = [{"idx": i, "path": f"{i}_{kinds[i]}" if i else "", "type": kind} for i, kind in enumerate(types)]
    put(folder / "modules.json", modules)
    put(
        folder / "1_Pooling/config.json",
        {"word_embedding_dimension": WIDTH, "pooling_mode_max_tokens": False, **pooling},
    )
    put(folder / "sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": False})
    if prompts:
        put(folder / "config_sentence_transformers.json", prompts)
    if dense:
        config = {"in_features": WIDTH, "out_features": OUTPUTS, "bias": True, "activation_function": dense}
        put(folder / "2_Dense/config.json", config)
        rng = np.random.default_rng(0)
        weights = {"linear.weight": rng.normal(size=(OUTPUTS, WIDTH)), "linear.bias": rng.normal(size=OUTPUTS)}
        save_file({k: v.astype(np.float32) for k, v in weights.items()}, folder / "2_Dense/model.safetensors")
    return folder


TANH = "torch.nn.modules.activation.Tanh"
FOLDERS = {
    "e5": ({}, Recipe(normalise=True, max_length=20)),
    "prompted": (
        {"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": "query"},
        Recipe(prefix="query: ", normalise=True, max_length=20),
    ),
    "labse": (
        {"kinds": ("Transformer", "Pooling", "Dense", "Normalize"), "pooling": CLS, "dense": TANH},
        Recipe(pooling="first", dense=OUTPUTS, activation="tanh", normalise=True, max_length=20),
    ),
    "plain": ({"kinds": ("Transformer", "Pooling")}, Recipe(max_length=20)),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_says_its_recipe_and_keeps_it_through_bundle_and_export(name, tmp_path):
    options, recipe = FOLDERS[name]
    loaded = bundle.load(sentence_folder(tmp_path / "there", **options))
    assert loaded.model.recipe == recipe
    bundle.save(tmp_path / "bundle", loaded.model, loaded.params)
    again = bundle.load(tmp_path / "bundle")
    assert again.model.head_specs == loaded.model.head_specs and digests(again.params) == digests(loaded.params)
    export.to_huggingface(again, tmp_path / "back")
    back = bundle.load(tmp_path / "back")
    assert back.model == loaded.model and digests(back.params) == digests(loaded.params)
    export.to_huggingface(again, tmp_path / "bare", encoder_only=True)
    assert bundle.load(tmp_path / "bare").model.recipe is None


@pytest.mark.parametrize("name", FOLDERS)
def test_vectors_follow_the_recipe(name, tmp_path):
    options, recipe = FOLDERS[name]
    loaded = bundle.load(sentence_folder(tmp_path / "there", **options))
    rng = np.random.default_rng(1)
    tokens = rng.integers(4, 48, (3, 9)).astype(np.int32)
    lengths = np.array([9, 5, 3])
    segments = (np.arange(9) < lengths[:, None]).astype(np.int32)
    batch = {
        "tokens": tokens, "segments": segments, "positions": np.tile(np.arange(9, dtype=np.int32), (3, 1)) * segments,
        "first": np.zeros((3, 1), np.int32), "weights": np.ones((3, 1), np.float32),
    }  # fmt: skip
    found = np.asarray(loaded.model.predict(loaded.params, "embedding", batch)["embeddings"])[:, 0, -1]
    hidden = np.asarray(loaded.model.encode(loaded.params, batch), np.float64)
    for row, length in enumerate(lengths):
        expected = hidden[row, 0] if recipe.pooling == "first" else hidden[row, :length].mean(0)
        if recipe.dense:
            dense = loaded.params["heads"]["embedding"]["dense"]
            expected = np.tanh(expected @ np.asarray(dense["kernel"], np.float64) + np.asarray(dense["bias"]))
        if recipe.normalise:
            expected = expected / np.linalg.norm(expected)
        np.testing.assert_allclose(found[row, : len(expected)], expected, atol=1e-5)
        assert not found[row, len(expected) :].any()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            {"kinds": ("Transformer", "WeightedLayerPooling", "Pooling")},
            "WeightedLayerPooling, Pooling are not",
        ),
        (
            {"pooling": {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}},
            "this pooling is not computed",
        ),
        ({"pooling": {"pooling_mode_max_tokens": True, **MEAN}}, "this pooling is not computed"),
        ({"pooling": {"include_prompt": False, **MEAN}}, "this pooling is not computed"),
        ({"prompts": {"q": "query: "}, "default_prompt_name": "query"}, "'query' is none of the prompts"),
        ({"kinds": ("Transformer", "Pooling", "Dense"), "dense": "torch.nn.GELU"}, "activation_function='gelu'"),
    ],
)
def test_what_is_not_computed_is_refused(spoil, words, tmp_path):
    with pytest.raises(InputError, match=words):
        bundle.load(sentence_folder(tmp_path / "there", **spoil))


@pytest.fixture(scope="module")
def small():
    tokenizer = samples.small_tokenizer()
    recipe = Recipe(prefix="the ", normalise=True)
    config = make_config("xlmr", "tiny", vocab_size=len(tokenizer))
    plain = Model(config)
    own = plain.with_heads(EmbeddingSpec("embedding", "embedding", recipe=recipe))
    params = jax.jit(own.init)(jax.random.key(0))
    return tokenizer, plain, own, params


def pairs(texts):
    rows = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    return {"source": rows[::-1], "target": rows, "gold": [(row["id"], row["id"]) for row in rows]}


def test_retrieval_takes_the_models_own_recipe_and_shows_every_state_beside_it(small):
    tokenizer, plain, own, params = small
    examples, task = pairs([text[:30] for text in samples.TEXTS]), tasks.get("tatoeba")
    run = evaluator.Evaluator(own, params, tokenizer)
    result = run.evaluate(task, examples)
    assert list(result.curve) == list(range(plain.config.layers + 1))
    vectors = run.vectors(examples["source"])
    prefixed = [{**row, "text": "the " + row["text"]} for row in examples["source"]]
    other = evaluator.Evaluator(plain, params, tokenizer).embed(prefixed, layers=[-1])[0]
    np.testing.assert_allclose(vectors, other / np.linalg.norm(other, axis=-1, keepdims=True), atol=1e-5)

    by_protocol = dataclasses.replace(run, options=evaluator.Options(sentence="protocol"))
    without = evaluator.Evaluator(plain, params, tokenizer)
    assert by_protocol.evaluate(task, examples) == without.evaluate(task, examples)
    assert "the model's own recipe, prefix 'the '" in run.options.resolve(task, own).in_words(own)
    assert "mean of hidden state 1 of 2" in by_protocol.options.resolve(task, own).in_words(own)
    with pytest.raises(InputError, match="unknown sentence 'own'"):
        evaluator.Options(sentence="own").resolve(task, own)
    with pytest.raises(InputError, match="no recipe of its own"):
        without.vectors(examples["source"])


def test_training_keeps_the_recipe(small, one_device, tmp_path):
    _, _, own, params = small
    bundle.save(tmp_path / "bundle", own, params)
    params = bundle.load(tmp_path / "bundle").params
    taken, lists = handover.take_over(own, params, ("embedding",), 0, one_device)
    assert "heads/embedding" in lists.loaded and digests(taken["encoder"]) == digests(params["encoder"])


def test_import_stores_a_prefix(tmp_path, capsys):
    folder = sentence_folder(tmp_path / "there")
    assert cli.main(["import", str(folder), str(tmp_path / "bundle"), "--prefix=query: "]) == 0
    assert "prefix 'query: ', mean of the last hidden state, normalised" in capsys.readouterr().out
    assert bundle.load(tmp_path / "bundle").model.recipe.prefix == "query: "
    assert cli.main(["import", str(HERE / "xlmr"), str(tmp_path / "other"), "--prefix=query: "]) == 2
    assert not (tmp_path / "other").exists()
