"""From Python: what a decoder says, read back, and candidates ranked for queries, beside single rows."""

import dataclasses
import pathlib
import re

import jax
import numpy as np
import pytest
import samples
from test_adapters import moved

from jxstilts import api, runtime, tasks
from jxstilts.data import batching
from jxstilts.data import tokenizer as tokenizers
from jxstilts.eval import predict
from jxstilts.forms import Given, Reading, get
from jxstilts.mesh import make_mesh
from jxstilts.models import bundle
from jxstilts.models.adapters import Adapter
from jxstilts.models.heads.dual import DualSpec
from jxstilts.models.heads.text_to_text import TextSpec
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError

PAGE = pathlib.Path(__file__).parent.parent / "docs/python.md"
POOL = ["the dog runs", "who sleeps near the house", "a cat", "the red house", "what is near"]
QUERIES = ["a dog", "what is in the house"]
PAIRS = [("the cat", "a dog"), ("the dog does not sleep near the house", "who"), ("red", "blue")]


def loaded(folder, family, tokenizer, heads, **changes):
    made = Model(make_config(family, "tiny", vocab_size=len(tokenizer), init_std=0.3, **changes), heads, family=family)
    tokenizers.save(tokenizer, folder / "tokenizer")
    params = jax.jit(made.init)(jax.random.key(3))
    return api.Ready(bundle.Loaded(made, params, folder / "tokenizer", {}), make_mesh({}, jax.devices()[:1]))


@pytest.fixture(scope="module")
def speaker(tmp_path_factory, compile_cache):
    runtime.start(str(compile_cache))
    head = HeadSpec("text_to_text", "text_to_text")
    return loaded(
        tmp_path_factory.mktemp("mt5"), "mt5", samples.small_tokenizer(), (head,), pad_id=1, eos_id=2, tied=False
    )


@pytest.fixture(scope="module")
def ranker(tmp_path_factory, compile_cache):
    runtime.start(str(compile_cache))
    return loaded(tmp_path_factory.mktemp("dual"), "xlmr", samples.word_tokenizer(), (DualSpec("d", "dual"),))


def tokens_alone(model, text, length):
    """What is said of one text in a batch of its own."""
    ids = [*model.tokenizer(text, add_special_tokens=False)["input_ids"], model.tokenizer.eos_token_id]
    place = np.arange(32, dtype=np.int32)[None]
    tokens = np.array([ids + [1] * (32 - len(ids))], np.int32)
    batch = {"tokens": tokens, "segments": (place < len(ids)).astype(np.int32), "positions": place}
    asked = model.model.with_heads(TextSpec("text_to_text", "text_to_text", length=length))
    return np.asarray(predict.predict(asked, model.params, "text_to_text", batch)["tokens"])[0, 0]


def test_a_decoder_says_of_each_row_what_it_says_of_it_alone(speaker):
    spec, ends = tasks.get("mnli_text"), speaker.tokenizer.eos_token_id
    rows = ["the cat", "who sleeps near the red house", "a dog"]
    found = speaker.predict(rows, max_length=48, max_answer_length=spec.text.length)
    assert len({each["text"] for each in found}) > 1
    for row, result in zip(rows, found, strict=True):
        own = tokens_alone(speaker, row, spec.text.length).tolist()
        own = own[: own.index(ends)] if ends in own else own
        assert result == dict.fromkeys(
            ("said", "text"), speaker.tokenizer.decode(own, skip_special_tokens=True).strip()
        )
    read = speaker.predict(PAIRS, task="mnli", max_length=48)
    written = [spec.text.input({"text_a": a, "text_b": b}, ()) for a, b in PAIRS]
    said = speaker.predict(written, max_length=48, max_answer_length=spec.text.length)
    assert [each["said"] for each in read] == [each["text"] for each in said]
    assert all(each["label"] in (None, *spec.origin.labels) for each in read)
    assert speaker.predict(PAIRS, task="mnli_text", max_length=48) == read and speaker.predict([]) == []


@pytest.mark.parametrize(
    ("task", "row", "said", "told"),
    [
        ("mnli", ("a", "b"), "entailment", {"label": "entailment"}),
        ("mnli", ("a", "b"), "perhaps", {"label": None}),
        ("copa", ("it rained", ["dry", "wet"]), "choice2", {"label": 1, "text": "wet"}),
        ("udpos", ["the", "cat"], "DET NOUN", {"words": ["the", "cat"], "tags": ["DET", "NOUN"]}),
        ("panx", ["Rick", "met"], "PER: Rick", {"words": ["Rick", "met"], "tags": ["B-PER", "O"]}),
        ("squad_v1", ("who", "the re-used cat"), "re - used", {"text": "re-used"}),
        ("squad_v2", ("who", "the cat"), "unanswerable", {"text": ""}),
        ("squad_v2", ("who", "the cat"), "", {"text": None}),
    ],
)
def test_what_is_said_is_read_by_the_tasks_text_form(monkeypatch, task, row, said, told):
    spec = tasks.get(f"{task}_text")
    form = spec.form.detailed()
    monkeypatch.setattr("jxstilts.forms.text_to_text.decode", lambda tokenizer, tokens: said)
    example = {"id": "0", **spec.form.example(row)}
    collector = form.collector(Given(spec, [example], [None], (), None))
    collector.add(0, np.zeros(3, np.int32))
    assert collector.finish() == [{"said": said, **told}]


def vector_alone(model, text):
    form = get("embedding")
    features = form.tokenize([{"id": "0", "text": text}], model.tokenizer, model.model.template, Reading(max_length=32))
    fields = model.model.template.fields
    batch = batching.assemble(features, [[0]], length=32, num_rows=1, fields=fields, max_segments=1, pad_id=1)
    return np.asarray(predict.predict(model.model, model.params, "d", batch)["embeddings"])[0, 0, 0]


def test_candidates_are_ranked_by_cosine(ranker):
    """By the head's vectors, and of a model without such a head by those of `embed`."""
    bare = api.Ready(dataclasses.replace(ranker.loaded, model=ranker.model.with_heads()), ranker.mesh)
    vectors = np.stack([vector_alone(ranker, text) for text in [*QUERIES, *POOL]])
    embedded = bare.embed([*QUERIES, *POOL])
    embedded = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    for model, own in ((ranker, vectors), (bare, embedded)):
        scores = own[: len(QUERIES)] @ own[len(QUERIES) :].T
        found = model.predict(QUERIES, candidates=iter(POOL), n_best=3)
        for row, result in zip(scores, found, strict=True):
            best = np.argsort(-row)[:3].tolist()
            assert [each["place"] for each in result["candidates"]] == best
            assert [each["text"] for each in result["candidates"]] == [POOL[place] for place in best]
            assert [each["score"] for each in result["candidates"]] == pytest.approx(row[best].tolist(), abs=1e-5)
    assert len(ranker.predict(QUERIES, "d", candidates=POOL)[0]["candidates"]) == len(POOL)
    assert ranker.predict([], candidates=POOL) == []


def test_wrong_calls_are_named(speaker, ranker):
    with pytest.raises(InputError, match=r"predict, row 0: it is \('a', 'b'\)\. A row is a text or"):
        speaker.predict([("a", "b")])
    with pytest.raises(InputError, match=r"task='tatoeba': the task has no text form"):
        speaker.predict(["a"], task="tatoeba")
    with pytest.raises(InputError, match=r"takes no rows of a program's own as rows"):
        api.evaluate(speaker, [{"text": "a", "label": "b"}])
    with pytest.raises(InputError, match=r"d \(dual\); none gives predictions.*give candidates= to rank"):
        ranker.predict(["a"])
    with pytest.raises(InputError, match=r"unknown head of vectors 'e'.*Known: d"):
        ranker.predict(["a"], "e", candidates=POOL)
    with pytest.raises(InputError, match=r"candidates: there are none to rank"):
        ranker.predict(["a"], candidates=[])


def test_the_pages_blocks_run(speaker, ranker, monkeypatch, capsys):
    """docs/python.md, "Text, candidates, language adapters", on these models and one with adapters of two languages."""
    adapters = {code: Adapter("pfeiffer", reduction=4, language=code) for code in ("en", "de")}
    made = Model(
        ranker.model.config, (HeadSpec("nli", "classification", ("a", "b")),), adapters=tuple(adapters.items())
    )
    params = moved(jax.jit(made.init)(jax.random.key(1)))
    several = api.Ready(dataclasses.replace(ranker.loaded, model=made, params=params), ranker.mesh)
    monkeypatch.setattr(api, "load", {"MT5": speaker, "MODEL": ranker, "MADX": several}.get)
    (section,) = re.findall(r"^## Text, candidates.*?(?=^## )", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    blocks = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    space: dict = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), space)
    assert len(eval(capsys.readouterr().out.splitlines()[-1])) == 2
    english = several.predict(["ein Tag"], language="en")[0]["logits"]
    assert space["german"][0]["logits"] != pytest.approx(english) and space["vectors"].shape == (1, 32)
    with pytest.raises(InputError, match="language="):
        several.predict(["ein Tag"])
