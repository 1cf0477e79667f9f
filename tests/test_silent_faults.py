"""Faults that would give a wrong number without a word: models, tokenizers, labels and examples that do not fit."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import samples
from golden.batches import HERE
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from jxstilts import cli, tasks
from jxstilts.data import tokenizer as tokenizers
from jxstilts.eval.evaluator import Evaluator, Options
from jxstilts.forms.labels import match
from jxstilts.models import bundle
from jxstilts.models.checks import check_vocabulary
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError
from jxstilts.train import inputs, mixture
from jxstilts.train.phase import Select

MNLI, POS = tasks.get("mnli"), tasks.get("udpos")
TAGS = dataclasses.replace(POS, name="tags", labels=("ADJ", "DET", "NOUN", "VERB"), train_task="tags")
HEADS = (
    HeadSpec("mnli", "classification", MNLI.labels),
    HeadSpec("tags", "tagging", TAGS.labels),
    HeadSpec("qa", "span"),
)


@pytest.fixture(scope="module")
def tokenizer():
    return samples.word_tokenizer(60)


@pytest.fixture(scope="module")
def model(tokenizer):
    return Model(make_config("xlmr", "tiny", vocab_size=len(tokenizer), init_std=0.3), HEADS)


@pytest.fixture(scope="module")
def params(model):
    return jax.jit(model.init)(jax.random.key(3))


def pairs(count=12):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(samples.WORDS, 5)) for _ in range(2 * count)]
    return [
        {"id": str(i), "text_a": texts[i], "text_b": texts[-1 - i], "label": int(rng.integers(3))} for i in range(count)
    ]


def sentences(count=8, length=6):
    rng = np.random.default_rng(1)
    return [
        {"id": str(i), "words": list(map(str, rng.choice(samples.WORDS, length))),
         "tags": list(map(str, rng.choice(TAGS.labels, length)))}
        for i in range(count)
    ]  # fmt: skip


# --- vocabulary ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(1, 300))
def test_more_ids_than_rows_are_refused_and_no_others(ids, rows):
    config = make_config("xlmr", "tiny", vocab_size=rows, pad_id=0)
    if ids <= rows:
        check_vocabulary(config, range(ids))
    else:
        with pytest.raises(InputError, match=f"tokenizer has {ids} ids.* have {rows} rows"):
            check_vocabulary(config, range(ids))


def test_every_use_of_a_model_checks_its_tokenizer(model, params, tokenizer, tmp_path, one_device):
    short = dataclasses.replace(model, config=dataclasses.replace(model.config, vocab_size=len(tokenizer) - 1))
    run = Evaluator(short, params, tokenizer)
    for use in (lambda: run.evaluate(MNLI, pairs()), lambda: run.embed([{"id": "0", "text": "the dog"}])):
        with pytest.raises(InputError, match="they do not belong together"):
            use()
    folder = shutil.copytree(HERE / "xlmr", tmp_path / "hf")
    tokenizers.save(tokenizer, folder)
    assert cli.main(["import", str(folder), str(tmp_path / "bundle")]) == 2 and not (tmp_path / "bundle").exists()


# --- weights and outputs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["roberta.embeddings.word_embeddings.weight", "classifier.out_proj.bias"])
def test_weights_that_are_no_numbers_are_named(name, value, tmp_path):
    folder = shutil.copytree(HERE / "xlmr_classification", tmp_path / "hf")
    tensors = load_file(folder / "model.safetensors")
    tensors[name].reshape(-1)[-1] = value
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"NaN or infinite: (encoder/embeddings/tokens|heads/classification/out/bias)"):
        bundle.load(folder)


def test_a_bundle_of_nan_is_refused(model, params, tmp_path):
    broken = jax.tree.map(jnp.array, params)
    broken["encoder"]["layers"]["mlp_in"]["kernel"] = (
        broken["encoder"]["layers"]["mlp_in"]["kernel"].at[1, 0, 0].set(jnp.nan)
    )
    bundle.save(tmp_path / "bundle", model, broken)
    with pytest.raises(InputError, match="encoder/layers/mlp_in/kernel"):
        bundle.load(tmp_path / "bundle")


@pytest.mark.parametrize(("task", "examples"), [(MNLI, pairs), (TAGS, sentences)])
def test_outputs_that_are_no_numbers_name_the_task(task, examples, model, params, tokenizer):
    broken = jax.tree.map(lambda leaf: leaf * jnp.inf, params)
    with pytest.raises(InputError, match=rf"task '{task.name}' in en: the model's outputs are not finite .* input 0"):
        Evaluator(model, broken, tokenizer).evaluate(task, examples())


# --- labels ----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.permutations(MNLI.labels), st.sampled_from([str, str.upper, str.title]))
def test_labels_are_matched_by_name(order, case):
    found = match([case(label) for label in order], MNLI.labels, "here")
    assert [MNLI.labels[place] for place in found] == list(order)


@pytest.mark.parametrize(
    "labels",
    [("LABEL_0", "LABEL_1", "LABEL_2"), ("entailment", "neutral"), (*MNLI.labels, "other"), ("a", "A", "neutral")],
)
def test_other_labels_are_refused_with_both_lists(labels, model, params, tokenizer):
    other = model.with_heads(HeadSpec("mnli", "classification", labels))
    with pytest.raises(InputError, match=rf"{labels[0]!r}.*the task has 3, 'contradiction', 'entailment', 'neutral'"):
        Evaluator(other, params, tokenizer).evaluate(MNLI, pairs())


@pytest.mark.parametrize(("task", "examples", "path"), [(MNLI, pairs, ("mnli", "out")), (TAGS, sentences, ("tags",))])
def test_a_head_in_another_order_says_the_same(task, examples, path, model, params, tokenizer):
    order = np.random.default_rng(2).permutation(len(task.labels))
    spec = next(spec for spec in HEADS if spec.name == path[0])
    other = model.with_heads(dataclasses.replace(spec, labels=tuple(task.labels[i].upper() for i in order)))
    mixed = jax.tree.map(jnp.array, params)
    layer = mixed["heads"]
    for key in path:
        layer = layer[key]
    layer["kernel"], layer["bias"] = layer["kernel"][:, order], layer["bias"][order]
    run, again = Evaluator(model, params, tokenizer), Evaluator(other, mixed, tokenizer)
    assert run.evaluate(task, examples()).predictions == again.evaluate(task, examples()).predictions
    given_to_it = task.form.in_terms_of(other.head_specs[0].labels, task, examples())
    for mine, theirs in zip(given_to_it, examples(), strict=True):
        if "label" in mine:
            assert other.head_specs[0].labels[mine["label"]] == task.labels[theirs["label"]].upper()
        else:
            assert mine["tags"] == [tag.upper() for tag in theirs["tags"]]


def test_a_kept_head_with_other_labels_is_refused():
    phase = mixture.Stream(task="mnli", head="old")
    start = (HeadSpec("old", "classification", ("yes", "no", "maybe")),)
    asked = type("Phase", (), {"keep_heads": ("old",), "tasks": {"mnli": phase}})
    with pytest.raises(InputError, match=r"config.phases.p.tasks.mnli: keep_heads: head 'old'.*'yes', 'no', 'maybe'"):
        inputs.check_kept(asked, start, "config.phases.p")


# --- tags and words --------------------------------------------------------------------------------------------------


def test_gold_tags_that_the_head_lacks_are_counted_and_may_be_left_out(model, params, tokenizer):
    examples = sentences()
    examples[0]["tags"][:2], examples[3]["tags"][0] = ["DATE", "DATE"], "MONEY"
    run = Evaluator(model, params, tokenizer)
    missed = run.evaluate(TAGS, examples)
    assert missed.notes == {"unknown_tags": {"DATE": 2, "MONEY": 1}}
    assert run.evaluate(TAGS, sentences()).notes == {}
    left = dataclasses.replace(run, options=Options(unknown_tags="leave_out")).evaluate(TAGS, examples)
    right = sum(a == b for e in examples for a, b in zip(missed.predictions[e["id"]], e["tags"], strict=True))
    assert missed.metrics["accuracy"] == pytest.approx(100 * right / 48)
    assert (
        left.metrics["accuracy"] == pytest.approx(100 * right / 45)
        and left.metrics["accuracy_all"] == missed.metrics["accuracy"]
    )


def test_words_cut_off_are_counted_beside_values_over_all_words(model, params, tokenizer):
    examples = sentences(4, 30)
    run = Evaluator(model, params, tokenizer, Options(max_length=12, long_sentences="truncate"))
    result = run.evaluate(TAGS, examples)
    cut = sum(tags.count(None) for tags in result.predictions.values())
    assert result.notes == {"cut_words": cut} and cut > 0
    right = sum(a == b for e in examples for a, b in zip(result.predictions[e["id"]], e["tags"], strict=True))
    assert result.metrics["accuracy_all"] == pytest.approx(100 * right / 120)
    assert result.metrics["accuracy"] == pytest.approx(100 * right / (120 - cut))
    whole = dataclasses.replace(run, options=Options(max_length=12, long_sentences="split")).evaluate(TAGS, examples)
    assert whole.notes == {} and "accuracy_all" not in whole.metrics


# --- examples in memory ----------------------------------------------------------------------------------------------

PAIR, SENTENCE = pairs(1)[0], sentences(1)[0]
QUESTION = {"id": "q", "question": "who", "context": "the dog", "answers": [{"text": "dog", "start": 4}]}


@pytest.mark.parametrize(
    ("task", "examples", "words"),
    [
        (MNLI, ["the dog runs"], "example 0: expected a dict with id, text_a, text_b, got 'the dog runs'"),
        (MNLI, "the dog runs", "expected a list of examples"),
        (MNLI, [PAIR | {"label": 3}], "the label is 3; expected .* a number from 0 to 2"),
        (MNLI, [PAIR | {"label": -1}], "the label is -1"),
        (MNLI, [PAIR | {"label": "entailment"}], "the label is 'entailment'"),
        (MNLI, [PAIR | {"label": True}], "the label is True"),
        (MNLI, [PAIR, PAIR], "example 1: the id '0' is there twice"),
        (MNLI, [PAIR | {"id": 7}], "expected a text as 'id', got 7"),
        (MNLI, [PAIR | {"text_a": None}], "expected 'text_a' to be a str, got None"),
        (MNLI, [{key: PAIR[key] for key in ("id", "text_a")}], "expected 'text_b' to be a str or None, got nothing"),
        (TAGS, [SENTENCE | {"words": "the dog"}], "expected 'words' to be a list or tuple, got 'the dog'"),
        (TAGS, [SENTENCE | {"tags": ["NOUN"]}], "has 6 words but 1 tags"),
        (TAGS, [SENTENCE | {"tags": [0] * 6}], "expected tags by name"),
        (tasks.get("squad_v1"), [QUESTION | {"answers": []}], "no answer, but every question of 'squad_v1' has one"),
        (tasks.get("squad_v1"), [QUESTION | {"answers": ["dog"]}], "expected answers"),
        (tasks.get("tatoeba"), [PAIR], "expected {'source'"),
    ],
)
def test_examples_in_memory_are_checked(task, examples, words, model, params, tokenizer):
    with pytest.raises(InputError, match=words):
        Evaluator(model, params, tokenizer, Options(max_length=96, layer=1)).evaluate(task, examples)


def test_a_language_that_nobody_knows_is_refused(model, params, tokenizer):
    with pytest.raises(InputError, match="unknown language of task 'mnli' 'eng'; did you mean 'en'"):
        Evaluator(model, params, tokenizer).evaluate(MNLI, pairs(), language="eng")


# --- import and export -----------------------------------------------------------------------------------------------


def test_import_writes_over_nothing_unless_told(tmp_path, capsys):
    arguments = ["import", str(HERE / "xlmr"), str(tmp_path / "bundle")]
    assert cli.main(arguments) == 0 and "has no tokenizer" in capsys.readouterr().out
    before = json.loads((tmp_path / "bundle/bundle.json").read_text())["sha256"]
    assert cli.main(["import", str(HERE / "xlmr_span"), arguments[2]]) == 2
    assert json.loads((tmp_path / "bundle/bundle.json").read_text())["sha256"] == before
    assert cli.main(["import", str(HERE / "xlmr_span"), arguments[2], "--force"]) == 0
    assert json.loads((tmp_path / "bundle/bundle.json").read_text())["sha256"] != before


def test_a_head_that_no_class_computes_is_refused_by_name(model, tmp_path, capsys):
    made = model.with_heads(HeadSpec("pick", "choice"))
    bundle.save(tmp_path / "bundle", made, jax.jit(made.init)(jax.random.key(0)))
    assert cli.main(["export", str(tmp_path / "bundle"), str(tmp_path / "hf")]) == 2
    assert "computes the head pick; export the encoder alone" in capsys.readouterr().err
    assert not (tmp_path / "hf").exists()


# --- languages -------------------------------------------------------------------------------------------------------


def test_dev_rows_are_of_the_languages_trained_in_or_of_those_asked_for(world):
    stream = mixture.Stream(task="udpos")
    assert list(inputs.dev_rows(stream, Select(), str(world))) == ["en"]
    german = dataclasses.replace(stream, languages=("de", "ru"))
    rows = inputs.dev_rows(german, Select(rows=5), str(world))
    assert list(rows) == ["de", "ru"] and rows["de"] == tasks.load("udpos", world, "dev", "de", limit=5)
    assert list(inputs.dev_rows(stream, Select(languages=("de",)), str(world))) == ["de"]
