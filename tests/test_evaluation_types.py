"""Evaluation of multiple choice, tagging and SQuAD v2, against one input at a time through the model."""

import dataclasses
import json
import pathlib
import re

import jax
import numpy as np
import pytest
from samples import WORDS, word_tokenizer

import jxstilts
from jxstilts import tasks
from jxstilts.data import prepare
from jxstilts.data import tokenizer as tokenizers
from jxstilts.eval import benchmarks, predict, results
from jxstilts.eval.evaluator import Evaluator, Options
from jxstilts.forms import answers as decoding
from jxstilts.mesh import make_mesh
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError

TAGS = ("ADJ", "DET", "NOUN", "VERB")
CHOICE = dataclasses.replace(tasks.get("mnli"), name="pick", type="choice", labels=(), metric="accuracy")
TAGGING = dataclasses.replace(tasks.get("mnli"), name="tags", type="tagging", labels=TAGS, metric="seqeval")
SQUAD_V2 = dataclasses.replace(tasks.get("squad_v1"), name="qa2", metric="squad_v2", unanswerable=True)


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer(60)


@pytest.fixture(scope="module")
def model(tokenizer):
    specs = (HeadSpec("pick", "choice"), HeadSpec("tags", "tagging", TAGS), HeadSpec("qa", "span"))
    return Model(make_config("xlmr", "tiny", vocab_size=len(tokenizer), init_std=0.3), specs)


@pytest.fixture(scope="module")
def params(model):
    return jax.jit(model.init)(jax.random.key(7))


@pytest.fixture(scope="module")
def run(model, params, tokenizer):
    def evaluate(task, examples, mesh=None, head=None, with_model=model, **options):
        return Evaluator(with_model, params, tokenizer, Options(**options), mesh).evaluate(task, examples, head=head)

    return evaluate


def words(rng, low, high):
    return [str(word) for word in rng.choice(WORDS, rng.integers(low, high))]


@pytest.fixture(scope="module")
def questions():
    """Two to five choices each."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(13):
        choices = [" ".join(words(rng, 1, 6)) for _ in range(rng.integers(2, 6))]
        label = int(rng.integers(len(choices)))
        rows.append({"id": f"c{i}", "prompt": " ".join(words(rng, 2, 12)), "choices": choices, "label": label})
    return rows


@pytest.fixture(scope="module")
def sentences():
    rng = np.random.default_rng(1)
    rows = []
    for i in range(11):
        chosen = words(rng, 1, 25)
        rows.append({"id": f"s{i}", "words": chosen, "tags": [str(tag) for tag in rng.choice(TAGS, len(chosen))]})
    return rows


def single(model, params, head, ids):
    """The head's arrays for one input alone in its row, which is padded so that one compilation does."""
    place = np.arange(128)[None]
    batch = {
        "tokens": np.pad(ids, (0, 128 - len(ids)), constant_values=1)[None].astype(np.int32),
        "segments": (place < len(ids)).astype(np.int32), "positions": np.where(place < len(ids), place, 0),
        "first": np.zeros((1, 1), np.int32),
    }  # fmt: skip
    return {name: np.asarray(array)[0] for name, array in predict.predict(model, params, head, batch).items()}


MESH = {"data": 2, "fsdp": 2, "tensor": 2}


# --- choice ----------------------------------------------------------------------------------------------------------


def test_choice_equals_one_choice_at_a_time(run, model, params, tokenizer, questions):
    found = run(CHOICE, questions).predictions
    for row in questions[:6]:
        scores = []
        for choice in row["choices"]:
            ids = tokenizer(row["prompt"], choice)["input_ids"]
            scores.append(single(model, params, "pick", ids)["logits"].item())
        assert found[row["id"]] == int(np.argmax(scores)) and max(np.diff(np.sort(scores))) > 1e-4


def test_batches_and_meshes_change_no_choice(run, questions):
    first = run(CHOICE, questions, tokens_per_batch=64)
    assert run(CHOICE, questions, tokens_per_batch=4096) == first
    assert run(CHOICE, questions, tokens_per_batch=512, mesh=make_mesh(MESH)) == first
    assert list(first.predictions) == [row["id"] for row in questions] and first.n == 13
    right = [first.predictions[row["id"]] == row["label"] for row in questions]
    assert first.metrics == {"accuracy": pytest.approx(100 * np.mean(right))} and first.major == 100 * np.mean(right)
    counts = np.bincount([row["label"] for row in questions])
    assert first.baseline == {"accuracy": pytest.approx(100 * counts.max() / 13)}


def test_first_questions_only(run, questions):
    whole, few = run(CHOICE, questions), run(CHOICE, questions, max_features=4)
    assert few.predictions == {row["id"]: whole.predictions[row["id"]] for row in questions[:4]} and few.n == 4


# --- tagging ---------------------------------------------------------------------------------------------------------


def test_tags_equal_one_sentence_at_a_time(run, model, params, tokenizer, sentences):
    found = run(TAGGING, sentences)
    for row in sentences:
        ids, begins = [tokenizer.cls_token_id], []
        for word in row["words"]:
            begins.append(len(ids))
            ids += tokenizer(word, add_special_tokens=False)["input_ids"]
        classes = single(model, params, "tags", [*ids, tokenizer.sep_token_id])["classes"]
        assert found.predictions[row["id"]] == [TAGS[classes[place]] for place in begins]
    assert found.major == found.metrics["f1"] and set(found.interval) == set(found.metrics) == set(found.baseline)
    right = [a == b for row in sentences for a, b in zip(found.predictions[row["id"]], row["tags"], strict=True)]
    assert found.metrics["accuracy"] == pytest.approx(100 * np.mean(right))


def test_batches_and_meshes_change_no_tag(run, sentences):
    first = run(TAGGING, sentences, tokens_per_batch=64)
    assert run(TAGGING, sentences, mesh=make_mesh(MESH), tokens_per_batch=512) == first


def test_split_sentences_are_joined_and_truncated_ones_end_in_none(run, tokenizer, sentences):
    whole = run(TAGGING, sentences)
    split = run(TAGGING, sentences, max_length=12, long_sentences="split")
    cut = run(TAGGING, sentences, max_length=12, long_sentences="truncate")
    for row in sentences:
        kept = np.cumsum([len(tokenizer(word, add_special_tokens=False)["input_ids"]) for word in row["words"]])
        inside = int(np.sum(np.concatenate([[0], kept[:-1]]) < 10))  # words whose first sub-word is in the row
        assert set(split.predictions[row["id"]]) <= set(TAGS)  # every word once, none left out
        assert len(split.predictions[row["id"]]) == len(row["words"])
        assert [tag is None for tag in cut.predictions[row["id"]]] == [i >= inside for i in range(len(row["words"]))]
        if kept[-1] <= 10:
            assert split.predictions[row["id"]] == cut.predictions[row["id"]] == whole.predictions[row["id"]]
    assert any(None in tags for tags in cut.predictions.values())
    total = sum(len(row["words"]) for row in sentences)
    assert sum(split.values["total"].values()) == sum(whole.values["total"].values()) == total
    assert sum(cut.values["total"].values()) < total
    assert run(TAGGING, sentences, max_length=12) == cut  # the study's protocol is the default
    assert run(TAGGING, sentences, max_length=12, protocol="xtreme") == split


def test_first_sentences_only_even_when_they_are_split(run, sentences):
    few = run(TAGGING, sentences, max_features=3, max_length=12, long_sentences="split")
    assert list(few.predictions) == ["s0", "s1", "s2"]
    assert all(None not in tags for tags in few.predictions.values())


def test_an_open_label_set_takes_the_heads_labels(run, model, sentences):
    task = dataclasses.replace(TAGGING, name="open", labels=(), metric="tag_accuracy")
    gold = [{**row, "tags": ["S[dcl]", *row["tags"][1:]]} for row in sentences]  # a tag that the head has never seen
    found = run(task, gold)
    assert set().union(*found.predictions.values()) <= set(TAGS)
    assert found == run(task, gold, head="tags")
    two = model.with_heads(HeadSpec("one", "tagging", TAGS), HeadSpec("two", "tagging", TAGS))
    with pytest.raises(InputError, match=r"needs one tagging head; the model has one \(tagging\), two \(tagging\)"):
        run(task, gold, with_model=two)
    with pytest.raises(InputError, match="predicts 4 labels, 'ADJ', 'DET', 'NOUN', 'VERB'; the task has 1, 'A'"):
        run(dataclasses.replace(TAGGING, labels=("A",)), gold)


def test_unknown_rule_for_long_sentences(run, sentences):
    with pytest.raises(InputError, match="long_sentences 'splt'; did you mean 'split'"):
        run(TAGGING, sentences, long_sentences="splt")


# --- squad v2 and result rows ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def passages():
    rng = np.random.default_rng(2)
    rows = []
    for i in range(8):
        context = words(rng, 5, 60)
        answers = [{"text": context[0], "start": 0}] if i % 2 else []
        rows.append({"id": f"q{i}", "question": " ".join(words(rng, 2, 5)), "context": " ".join(context)})
        rows[-1]["answers"] = answers
    return rows


def test_squad_v2_predictions_hold_the_no_answer_score(run, model, params, tokenizer, passages):
    options = {"max_length": 48, "doc_stride": 16, "max_query_length": 12}
    found = run(SQUAD_V2, passages, **options)
    plain = run(
        dataclasses.replace(SQUAD_V2, metric="squad", unanswerable=False),
        [p for p in passages if p["answers"]],
        **options,
    )
    assert all(found.predictions[name]["text"] == text for name, text in plain.predictions.items())
    assert found.n == 8 and found.major == (found.metrics["best_f1"] + found.metrics["best_exact_match"]) / 2
    assert set(found.metrics) == {
        "exact_match", "f1", "best_exact_match", "best_f1", "has_answer_f1", "no_answer_accuracy",
    }  # fmt: skip
    features = prepare.features(SQUAD_V2.form, passages, tokenizer, model.template, Options(**options), None)
    least = {}
    for number in range(len(features)):  # each window alone: the null score is the least, the span's the greatest
        tokens = slice(*features.offsets[number : number + 2])
        logits = single(model, params, "qa", features.tokens[tokens])["logits"][: tokens.stop - tokens.start]
        fields = [features.token_fields[name][tokens] for name in ("char_start", "max_context")]
        best = decoding.window_candidates(logits, *fields)
        one = least.setdefault(passages[features.fields["example"][number]]["id"], [np.inf, -np.inf])
        one[:] = min(one[0], float(logits[0].sum())), max(one[1], best[0] if best else -np.inf)
    assert len(features) > len(passages)
    for name, (null, answer) in least.items():
        assert found.predictions[name]["no_answer"] == pytest.approx(null - answer, abs=1e-4)
    json.dumps(found.predictions, allow_nan=False)


def test_result_rows_have_intervals_baselines_and_the_major_value(model, params, tokenizer, tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    lines = "".join(
        json.dumps({
            "sentence1": " ".join(words(rng, 2, 9)), "sentence2": " ".join(words(rng, 2, 9)),
            "gold_label": str(rng.choice(tasks.get("mnli").labels)),
        }) + "\n"
        for _ in range(30)
    )  # fmt: skip
    (tmp_path / "intermediate/mnli").mkdir(parents=True)
    (tmp_path / "intermediate/mnli/dev.jsonl").write_text(lines)
    tokenizers.save(tokenizer, tmp_path / "tokenizer")
    classifier = model.with_heads(HeadSpec("mnli", "classification", tasks.get("mnli").labels))
    weights = jax.jit(classifier.init)(jax.random.key(0))

    class Loaded:
        model, params, tokenizer_dir = classifier, weights, tmp_path / "tokenizer"

    results.add(
        tmp_path, "mine", results.Request(("mnli",), source="files"), {"checkpoint_sha256": "0"}, lambda: Loaded,
        data_dir=str(tmp_path), cache_dir=tmp_path / "cache", digests_dir=tmp_path / "digests",
    )  # fmt: skip
    [row] = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert 0 <= row["low"] <= row["value"] == row["major"] <= row["high"] <= 100
    assert row["baseline"] >= 100 / 3 and row["n"] == 30 and row["metric"] == "accuracy"


@pytest.mark.parametrize("protocol, most", [("authors", 12), ("xtreme", 11)])
def test_a_whole_benchmark_compiles_at_most_twelve_shapes(protocol, most, world):
    """All nine tasks in all languages of the world.

    Two row lengths at most of each of four heads, one of questions, three of the embeddings of one hidden state; or
    one of each of five heads and three of the embeddings of two hidden states.
    """
    names = ("xnli", "pawsx", "udpos", "panx", "squad_v1")
    specs = tuple(HeadSpec(name, tasks.get(name).type, tasks.get(name).labels) for name in names)
    words = tokenizers.load(pathlib.Path(jxstilts.__file__).parent / "miniworld" / "micro" / "tokenizer")
    model = Model(make_config("xlmr", "tiny", vocab_size=len(words), max_positions=512, layers=6), specs)
    params = jax.jit(model.init)(jax.random.key(0))
    predict.compiled().clear_cache()
    ready, done = Evaluator(model, params, words, Options(protocol=protocol)), 0
    for name in benchmarks.get("xtreme").tasks:
        task = tasks.get(name)
        split = "test" if "test" in task.splits else "dev"
        have = [code for code in task.languages if tasks.available(name, world, split, code)]
        examples = ((code, tasks.load(name, world, split, code, limit=12)) for code in have)
        done += len(list(ready.languages(task, examples)))
    assert done == 52 and 5 < predict.compiled()._cache_size() <= most


@pytest.mark.parametrize("platform, knows, eigen", [("cpu", True, True), ("cpu", False, False), ("tpu", True, False)])
def test_products_are_eigens_on_a_cpu_whose_xla_can_be_told(platform, knows, eigen, model, params, monkeypatch):
    monkeypatch.setattr(predict, "_knows", lambda options: knows)
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    options = predict.compiler_options.__wrapped__()
    monkeypatch.undo()
    compiled = jax.jit(predict._predict, static_argnums=(0, 1, 2), compiler_options=options)
    batch = {key: np.ones((4, 32), np.int32) for key in ("tokens", "segments", "positions")}
    head = model.head_specs[0].name
    program = compiled.lower(model, head, None, params, batch | {"first": np.zeros((4, 1), np.int32)})
    text = program.compile().as_text()
    library = set(re.findall(r"%ynn_fusion.* calls=(%\S+?),", text))  # computations handed to YNNPACK
    products = [part.split(" ")[0] in library for part in text.split("\n\n") if " dot(" in part]
    assert len(products) > 1 and (sum(products) < len(products) / 2) is eigen


def test_an_option_that_xla_lacks_is_not_given():
    assert not predict._knows({"xla_cpu_no_such_option": "1"})
    with pytest.raises(jax.errors.JaxRuntimeError, match="not a valid enum value"):
        predict._knows({"xla_cpu_experimental_ynn_fusion_type": "NO_SUCH_TYPE"})
