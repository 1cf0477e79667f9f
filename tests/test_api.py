"""From Python: predictions against single rows through the model, fine-tuning on rows, errors that name the row."""

import contextlib
import dataclasses
import json

import jax
import numpy as np
import pytest
from samples import WORDS, word_tokenizer

from jxstilts import api, forms, runtime, tracking
from jxstilts.api import training
from jxstilts.data import batching
from jxstilts.data import tokenizer as tokenizers
from jxstilts.eval import metrics, predict
from jxstilts.eval.evaluator import Evaluator, Options
from jxstilts.mesh import make_mesh
from jxstilts.models import bundle
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError

HEADS = (
    HeadSpec("nli", "classification", ("neutral", "yes", "no")),
    HeadSpec("qa", "span"),
    HeadSpec("pos", "tagging", ("X", "NOUN", "VERB")),
    HeadSpec("which", "choice"),
)
SHORT = {"max_length": 48, "doc_stride": 16, "max_query_length": 12, "tokens_per_batch": 2000}
QUIET = {"progress": False, "learning_rate": 3e-3, "batch_size": 8, "max_length": 16, "packed": False, "buckets": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory, compile_cache):
    """A random model with a head of every form that has scores."""
    runtime.start(str(compile_cache))
    folder, tokenizer = tmp_path_factory.mktemp("model"), word_tokenizer()
    made = Model(make_config("xlmr", "tiny", vocab_size=len(tokenizer), init_std=0.2), HEADS)
    tokenizers.save(tokenizer, folder / "tokenizer")
    params = jax.jit(made.init)(jax.random.key(3))
    bundle.save(folder / "model", made, params, tokenizer_files=folder / "tokenizer")
    return api.load(folder / "model", make_mesh({}, jax.devices()[:1]))


def sentences(count, low=2, high=30, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(low, high))) for _ in range(count)]


def rows_of(head):
    """Rows of the head's form, as `predict` takes them."""
    first, second = sentences(23), sentences(23, 5, 90, seed=1)
    return {
        "nli": list(zip(first, second, strict=True)),
        "qa": list(zip(first, second, strict=True)),
        "pos": [text.split() for text in second],
        "which": [(text, second[i : i + 2 + i % 3]) for i, text in enumerate(first[:-4])],
    }[head]


def alone(model, head, example, options):
    """Logits of each feature of one example, each in a batch of its own."""
    spec = model.head(head)
    form = forms.get(spec.type).detailed()
    features = form.tokenize([{"id": "0", **example}], model.tokenizer, model.model.template, options)
    asked = form.asked(spec, options)
    own = model.model.with_heads(asked)
    found = []
    for i, length in enumerate(features.lengths.tolist()):
        batch = batching.assemble(
            features, [[i]], length=48, num_rows=1, fields=model.model.template.fields, max_segments=12, pad_id=1
        )
        arrays = predict.predict(own, model.params, head, batch)
        found.append(np.asarray(arrays[form.output])[0, : length if form.per_token else 1])
    return found


@pytest.mark.parametrize("head", ["nli", "which", "pos", "qa"])
def test_predictions_are_those_of_each_row_alone_in_any_batch(model, head):
    rows = rows_of(head)
    results = [model.predict(rows, head, **{**SHORT, "tokens_per_batch": size}) for size in (48, 2000)]
    assert len(results[0]) == len(rows)
    options = Options(**SHORT, long_sentences="split")
    form = forms.get(model.head(head).type)
    for place in (0, 7, len(rows) - 1):
        logits = alone(model, head, form.example(rows[place]), options)
        for found in (result[place] for result in results):
            check(head, found, rows[place], logits)


def check(head, found, row, logits):
    if head == "nli":
        assert list(found["logits"].values()) == pytest.approx(logits[0][0].tolist(), abs=1e-4)
        chances = np.exp(logits[0][0]) / np.exp(logits[0][0]).sum()
        assert list(found["probabilities"].values()) == pytest.approx(chances.tolist(), abs=1e-5)
        assert found["label"] == HEADS[0].labels[int(chances.argmax())]
    elif head == "which":
        scores = [float(each[0]) for each in logits]
        assert found["logits"] == pytest.approx(scores, abs=1e-4) and sum(found["probabilities"]) == pytest.approx(1)
        assert found["label"] == int(np.argmax(scores)) and found["text"] == row[1][found["label"]]
    elif head == "pos":
        assert found["words"] == row and len(found["tags"]) == len(found["scores"]) == len(found["logits"]) == len(row)
        joined = np.concatenate([each[1:-1] for each in logits])  # every word is one token here
        np.testing.assert_allclose(found["logits"], joined, atol=1e-4)
        assert found["tags"] == [HEADS[2].labels[i] for i in joined.argmax(-1)]
        assert all(1 / 3 <= score <= 1 for score in found["scores"])
    else:
        none = min(float(each[0].sum()) for each in logits)
        assert found["no_answer"] == pytest.approx(none - found["score"], abs=1e-3)
        answers = found["answers"]
        assert found["text"] == answers[0]["text"] and sum(a["probability"] for a in answers) == pytest.approx(1)
        assert [a["score"] for a in answers] == sorted((a["score"] for a in answers), reverse=True)
        assert all(row[1][a["start"] : a["end"]] == a["text"] for a in answers) and len(answers) > 1


def test_predictions_agree_with_evaluation(model):
    pairs = rows_of("nli")
    gold = [{"text_a": a, "text_b": b, "label": ("yes", 0, "NO")[i % 3]} for i, (a, b) in enumerate(pairs)]
    found = api.evaluate(model, gold, head="nli", **SHORT)
    said = [each["label"] for each in model.predict(pairs, "nli", **SHORT)]
    assert list(found.predictions.values()) == said
    right = [("yes", "neutral", "no")[i % 3] for i in range(len(pairs))]
    share = 100 * np.mean([a == b for a, b in zip(said, right, strict=True)])
    assert found.metrics == {"accuracy": pytest.approx(share)} and found.n == len(pairs)

    def share_of_yes(predictions, labels):
        assert labels == right
        return {"yes": predictions.count("yes"), "other": 0}

    counted = api.evaluate(model, gold, share_of_yes, head="nli", **SHORT)
    assert counted.metrics == {"yes": said.count("yes"), "other": 0} and counted.interval == {}
    own = type("Own", (type(metrics.get("accuracy")),), {"name": "own"})
    assert api.evaluate(model, gold, own, head="nli", **SHORT).metrics == found.metrics
    questions = [{"question": q, "context": c, "answers": [{"text": c[:3], "start": 0}]} for q, c in rows_of("qa")]
    best = [each["text"] for each in model.predict(rows_of("qa"), "qa", **SHORT)]
    assert list(api.evaluate(model, questions, head="qa", **SHORT).predictions.values()) == best
    tagged = [{"words": words, "tags": ["NOUN"] * len(words)} for words in rows_of("pos")]
    same = api.evaluate(model, tagged, "tag_accuracy", head="pos", **SHORT)
    assert list(same.predictions.values()) == [each["tags"] for each in model.predict(rows_of("pos"), "pos", **SHORT)]


def test_few_shapes_are_compiled(model):
    before = predict.compiled()._cache_size()
    for count in (1, 2, 9, 23):
        assert len(model.predict(sentences(count, high=20), "nli", max_length=96)) == count
    assert predict.compiled()._cache_size() - before <= 1 and model.predict([], "nli") == []


def test_vectors(model):
    texts = sentences(9)
    evaluator = Evaluator(model.model, model.params, model.tokenizer)
    states = evaluator.embed([{"id": text, "text": text} for text in texts])
    np.testing.assert_allclose(model.embed(texts), states[-1], atol=1e-5)
    np.testing.assert_allclose(model.embed(iter(texts), layer=1), states[1], atol=1e-5)
    with pytest.raises(InputError, match=r"text 1 is 7; expected a str"):
        model.embed(["a", 7])


def test_states_and_attention(model):
    """Hidden states are those of one row alone, and the weights are those by which a layer mixes its values."""
    rows = ["the dog runs", ("what is near", "who does not sleep"), "a cat"]
    states, weights = model.hidden(rows, max_length=16), model.attention(rows, max_length=16)
    encode = jax.jit(lambda params, batch: model.model.encode(params, batch, all_hidden=True))
    for row, state, weight in zip(rows, states, weights, strict=True):
        tokens = model.tokenizer.convert_tokens_to_ids(state["tokens"])
        place = np.arange(16)[None]
        batch = {"tokens": np.array([tokens + [1] * (16 - len(tokens))]), "positions": place}
        expected = encode(model.params, {**batch, "segments": (place < len(tokens)) * 1})[:, 0, : len(tokens)]
        np.testing.assert_allclose(state["hidden"], expected, atol=1e-5)
        shown = weight["attention"]
        assert weight["tokens"] == state["tokens"] and shown.shape == (2, 4, len(tokens), len(tokens)), row
        np.testing.assert_allclose(shown.sum(-1), 1, atol=1e-5)
    own = jax.tree.map(lambda x: np.asarray(x[1], np.float64), model.params["encoder"]["layers"])
    x = states[0]["hidden"][1]
    query, key = ((x @ own[n]["kernel"] + own[n]["bias"]).reshape(len(x), 4, 8) for n in ("query", "key"))
    scores = np.exp(np.einsum("tnh,snh->nts", query, key) / 8**0.5)
    np.testing.assert_allclose(weights[0]["attention"][1], scores / scores.sum(-1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(
        model.attention(rows, [-1], max_length=16)[0]["attention"][0], weights[0]["attention"][1]
    )
    with pytest.raises(InputError, match=r"layer=3: there are 3, 0 to 2"):
        model.hidden(rows, [3])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["modernbert", "mt5"])
def test_every_family_shows_its_attention(family):
    made = Model(make_config(family, "tiny", vocab_size=50, init_std=0.5), family=family)
    tokens = np.arange(40)[None] % 50
    batch = {"tokens": tokens, "segments": 1 + (tokens > 29), "positions": tokens % 30}
    params = jax.jit(made.init)(jax.random.key(1))
    weights = np.asarray(jax.jit(made.attention)(params, batch))[:, 0]
    assert weights.shape == (made.config.layers, made.config.heads, 40, 40)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert (weights[..., :30, 30:] == 0).all() and (weights[..., 30:, :30] == 0).all() and weights.std() > 0.01
    near = np.abs(np.arange(30)[:, None] - np.arange(30)) <= 8  # the window of ModernBERT's local layers here
    far = [(layer[:, :30, :30] * ~near).max() > 0 for layer in weights]
    assert far == ([True, False, False, True] if family == "modernbert" else [True] * len(weights))


@pytest.mark.parametrize(
    ("rows", "head", "message"),
    [
        (["a"], None, r"nli \(classification\), qa \(span\).*give head="),
        (["a"], "ner", r"unknown head 'ner'.*Known: nli, pos, qa, which"),
        ("a text", "nli", r"predict: expected a list of rows, got 'a text'; a row is a text, a pair"),
        (["a", 3], "nli", r"predict, row 1: it is 3\. A row is a text, a pair"),
        ([("a", "b", "c")], "nli", r"row 0: it is \('a', 'b', 'c'\)"),
        ([{"txt": "a"}], "nli", r"row 0: it has no 'text_a', only 'txt'"),
        ([("a", None), ("a", 1)], "nli", r"row 1: 'text_b' is 1; expected a str"),
        (["a text"], "pos", r"row 0: 'words' is 'a text'; expected a list of words"),
        ([["a", 1]], "pos", r"row 0: 'words' is \['a', 1\]; expected a list of words"),
        ([[]], "pos", r"row 0: 'words' is \[\]"),
        ([("q",)], "qa", r"row 0: it is \('q',\)\. A row is a pair \(question, context\)"),
        ([("p", [])], "which", r"row 0: 'choices' is \[\]; expected a list of texts"),
    ],
)
def test_a_wrong_row_is_named(model, rows, head, message):
    with pytest.raises(InputError, match=message):
        model.predict(rows, head)


@pytest.mark.parametrize(
    ("row", "head", "message"),
    [
        ({"text": "a"}, "nli", r"rows, row 1: it has no 'label', only 'text'"),
        ({"text": "a", "label": "maybe"}, "nli", r"row 1: unknown label 'maybe'.*Known: neutral, no, yes"),
        ({"text": "a", "label": 3}, "nli", r"row 1: the label 3 is no place among 3 labels"),
        ({"text": "a", "label": None}, "nli", r"row 1: the label is None"),
        ({"words": ["a"], "tags": []}, "pos", r"row 1: it has 1 words but 0 tags"),
        ({"question": "q", "context": "abc", "answers": [("b", 2)]}, "qa", r"'b' does not stand at character 2"),
        ({"question": "q", "context": "abc", "answers": {"text": ["b"]}}, "qa", r"as many under 'text' as under"),
        ({"prompt": "q", "choices": ["a", "b"], "label": 2}, "which", r"place of the right choice, 0 to 1"),
    ],
)
def test_wrong_gold_is_named(model, row, head, message):
    right = {
        "nli": {"text": "a", "label": 0}, "pos": {"words": ["a"], "tags": [1]},
        "qa": {"question": "q", "context": "abc", "answers": [{"text": "b", "start": 1}]},
        "which": {"prompt": "q", "choices": ["a", "b"], "label": 1},
    }[head]  # fmt: skip
    with pytest.raises(InputError, match=message):
        api.evaluate(model, [right, row], head=head)


def test_options_and_metrics_are_checked(model):
    with pytest.raises(InputError, match=r"^unknown key 'max_lenght'; did you mean 'max_length'"):
        model.predict(["a"], "nli", max_lenght=3)
    with pytest.raises(InputError, match="metric=3: expected a name"):
        api.evaluate(model, [{"text": "a", "label": 0}], 3, head="nli")
    with pytest.raises(InputError, match=r"metric odd: it gave 'x'"):
        api.evaluate(model, [{"text": "a", "label": 0}], odd, head="nli")
    with pytest.raises(InputError, match="there are none to score"):
        api.evaluate(model, [], head="nli")


def odd(predictions, labels):
    return "x"


# --- fine-tuning -----------------------------------------------------------------------------------------------------

TRAIN = [
    {"a": f"{name} {verb}", "b": f"{name} does {how}{verb}", "gold": label}
    for name in ("dog", "cat", "house", "who")
    for verb in ("runs", "sleeps", "near")
    for how, label in (("", 1), ("not ", 0))
]
NAMES = {"columns": {"text_a": "a", "text_b": "b", "label": "gold"}, "labels": ("denied", "said")}


class Set:
    """Stands for a data set of another library: it can be iterated over, and nothing else."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def test_fine_tuning_on_rows(model, tmp_path, capsys, monkeypatch):
    """It goes on after a stop, learns, leaves the start as it was, returns what is done, and its files are read."""
    folder = tmp_path / "w"
    options = {**QUIET, **NAMES, "epochs": 14, "folder": folder, "dropout": 0.0}
    before = jax.tree.map(np.asarray, model.params)
    with monkeypatch.context() as patch:
        patch.setattr(training, "_stopping", lambda kept: contextlib.nullcontext(lambda step: step == 20))
        with pytest.raises(runtime.Interrupted, match="finetune: stopped at step 20 of 42; saved"):
            api.finetune(model, TRAIN, TRAIN, metric=share, **options)
    tuned = api.finetune(model, Set(TRAIN), dev=TRAIN, metric=share, **options)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((np.asarray(b) == a).all()), before, model.params))
    assert tuned.heads == {"classification": HeadSpec("classification", "classification", ("denied", "said"))}
    found = api.evaluate(tuned, TRAIN, columns=NAMES["columns"])
    assert found.metrics["accuracy"] > 95
    assert {row["step"] for row in tracking.read_rows(folder / "finetune/metrics.jsonl") if row["kind"] == "dev"} == {
        3 * epoch for epoch in range(1, 15)
    }
    done = json.loads((folder / "finetune/DONE").read_text())
    assert done["best"]["value"] == pytest.approx(share(["said"], ["said"])) and capsys.readouterr().err == ""
    stamp = (folder / "finetune/DONE").stat().st_mtime_ns
    again = api.finetune(model, TRAIN, dev=TRAIN, metric=share, **options)
    assert (folder / "finetune/DONE").stat().st_mtime_ns == stamp
    pairs = [("dog near", "dog does not near")]
    tuned.save(tmp_path / "saved")
    assert tuned.export(tmp_path / "exported") == []
    same = [m.predict(pairs)[0]["logits"] for m in (
        tuned, again, api.load(tmp_path / "saved", model.mesh), api.load(tmp_path / "exported", model.mesh),
        api.load(folder / "finetune", model.mesh),
    )]  # fmt: skip
    assert all(each == pytest.approx(same[0], abs=1e-5) for each in same)


def share(predictions, labels):
    return 10 * sum(a == b for a, b in zip(predictions, labels, strict=True)) / len(labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": []}, r"^train: there are no rows to train on"),
        ({"dev": []}, r"^dev: there are no rows; leave it out"),
        ({"labels": None}, r"train, row 0: the label 1 is no name; give labels="),
        ({"labels": ("a", "a")}, r"expected different names"),
        ({"labels": ("denied",)}, r"denied; there are two at least"),
        ({"dev": [{**TRAIN[0], "gold": "sad"}]}, r"dev, row 0: unknown label 'sad'"),
        ({"columns": {"text": "x"}}, r"train, row 0: it has no 'x' \(columns\), only 'a', 'b', 'gold'"),
        ({"form": "taging"}, r"unknown form 'taging'; did you mean 'tagging'"),
        ({"form": "retrieval"}, r"form='retrieval': rows are taken of choice, classification, span, tagging"),
        ({"learning_rat": 1}, r"^unknown setting 'learning_rat'; did you mean 'learning_rate'"),
        ({"max_length": 4096}, r"^max_length=4096, but the model has positions for 128 tokens"),
        ({"dropout": -1.0}, r"^dropout=-1\.0: expected 0 or more"),
        ({"batch_size": [8]}, r"^batch_size=\[8\]: expected int, got list"),
        ({"batch_size": "8"}, r"^batch_size='8': expected int, got str"),
        ({"metric": "f1x", "dev": TRAIN}, r"unknown metric 'f1x'"),
    ],
)
def test_a_wrong_call_is_one_clear_error(model, changes, message):
    call = {**QUIET, **NAMES, "train": TRAIN, **changes}
    with pytest.raises(InputError, match=message):
        api.finetune(model, **call)


def test_a_model_without_a_tokenizer_says_so(model):
    bare = api.Ready(dataclasses.replace(model.loaded, tokenizer_dir=None), model.mesh)
    with pytest.raises(InputError, match=r"no tokenizer: put its tokenizer\.json"):
        bare.predict(["a"], "nli")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["span", "choice"])
def test_questions_and_choices_are_learned(model, form):
    names, colours = ("dog", "cat", "house"), ("red", "blue")
    if form == "span":
        rows = [
            {"question": "what", "context": f"{a} near the {c} {b}", "answers": [{"text": c, "start": len(a) + 10}]}
            for a in names for b in names for c in colours
        ]  # fmt: skip
        rows.append({"question": "what", "context": "a dog runs", "answers": []})
        settings = {"max_length": 24, "max_query_length": 4, "doc_stride": 8, "epochs": 30}
    else:
        rows = [
            {"prompt": name, "choices": [f"{name} {c}", f"who {c}"][:: 1 - 2 * i], "label": i}
            for name in names for c in colours for i in range(2)
        ]  # fmt: skip
        settings = {"epochs": 30}
    tuned = api.finetune(model, rows, form=form, **{**QUIET, "dropout": 0.0, **settings})
    options = {key: settings[key] for key in ("max_length", "max_query_length", "doc_stride") if key in settings}
    found = api.evaluate(tuned, rows, **options)
    assert max(found.metrics.values()) > 90, found.metrics
    (first,) = tuned.predict(rows[:1], **options)
    assert first["text"] == ("red" if form == "span" else "dog red")
