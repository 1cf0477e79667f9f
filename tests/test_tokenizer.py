import itertools
import json
import math
import os
import pathlib
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts.data import tokenizer
from jxstilts.runtime import InputError

MODELS = ("bpe", "unigram")
DECOMPOSED_YORUBA = "Ọmọ rẹ̀ sì ń wò ó"


def split(flat, offsets):
    return [flat[begin:end].tolist() for begin, end in itertools.pairwise(offsets)]


@pytest.mark.parametrize("model", MODELS)
def test_trained_tokenizer_has_xlmr_conventions(model):
    trained = samples.small_tokenizer(model)
    assert len(trained) <= 600
    assert trained.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>"]) == [0, 1, 2, 3]
    assert trained.mask_token_id == len(trained) - 1
    pair = trained("the king", "the tower").input_ids
    assert pair[0] == 0 and pair[-1] == 2 and pair.count(2) == 3
    assert trained.decode(trained("The king  watches").input_ids, skip_special_tokens=True) == "The king watches"
    flat, _ = tokenizer.encode(trained, samples.TEXTS)
    assert 3 not in flat
    assert tokenizer.encode(trained, ["ᚠ"])[0].tolist()[-1] == 3


@pytest.mark.parametrize("model", MODELS)
def test_training_is_deterministic(model):
    code = "import sys, samples; from jxstilts.data import tokenizer as t"
    code += "; print(t.fingerprint(samples.small_tokenizer(sys.argv[1])))"
    command = [sys.executable, "-c", code, model]
    here = pathlib.Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(here.parent), "TOKENIZERS_PARALLELISM": "true"}
    other = subprocess.run(command, capture_output=True, text=True, cwd=here, env=environment, check=True)
    assert other.stdout.strip() == tokenizer.fingerprint(samples.small_tokenizer(model))


def test_unigram_model_is_a_distribution_that_segments_about_as_short_as_bpe():
    trained = samples.small_tokenizer("unigram")
    pieces = json.loads(trained.backend_tokenizer.to_str())["model"]["vocab"][4:]
    assert sum(math.exp(score) for _, score in pieces) == pytest.approx(1, abs=0.05)
    counts = {model: len(tokenizer.encode(samples.small_tokenizer(model), samples.TEXTS)[0]) for model in MODELS}
    assert counts["unigram"] < 1.1 * counts["bpe"]


@pytest.mark.parametrize(
    "texts, size, model, message",
    [
        (samples.TEXTS, 600, "wordpiece", "unknown tokenizer model"),
        (samples.TEXTS, 50, "bpe", "too small for the"),
        ((), 600, "bpe", "no text"),
    ],
)
def test_training_refuses(texts, size, model, message):
    with pytest.raises(InputError, match=message):
        tokenizer.train(texts, size, model=model)


def test_coverage_leaves_rare_characters_out():
    trained = tokenizer.train(["common words here " * 200 + "ж"], 60, model="bpe", coverage=0.99)
    assert tokenizer.encode(trained, ["ж"])[0].tolist()[-1] == 3


@pytest.mark.parametrize("model", MODELS)
def test_save_and_load_give_the_same_ids(model, tmp_path):
    trained = samples.small_tokenizer(model)
    trained("leaves truncation on", max_length=3, truncation=True, padding="max_length")
    tokenizer.save(trained, tmp_path)
    for loaded in (tokenizer.load(tmp_path), tokenizer.load(tmp_path / "tokenizer.json")):
        assert tokenizer.fingerprint(loaded) == tokenizer.fingerprint(trained)
        assert loaded.all_special_ids == trained.all_special_ids
        np.testing.assert_array_equal(
            tokenizer.encode(loaded, samples.TEXTS)[0], tokenizer.encode(trained, samples.TEXTS)[0]
        )
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    assert loaded(samples.TEXTS[0]).input_ids == trained(samples.TEXTS[0]).input_ids


@pytest.mark.parametrize(
    "config",
    [None, {"model_max_length": 512}, {"cls_token": "<s>", "mask_token": {"content": "<mask>", "lstrip": True}}],
)
def test_load_finds_the_special_tokens_of_published_folders(config, tmp_path):
    trained = samples.small_tokenizer()
    tokenizer.save(trained, tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = tokenizer.load(tmp_path)
    for role in tokenizer.SPECIAL:
        assert getattr(loaded, f"{role}_id") == getattr(trained, f"{role}_id"), role
    assert len(loaded) == len(trained) and sorted(loaded.all_special_ids) == sorted(trained.all_special_ids)
    tokenizer.save(loaded, tmp_path / "again")
    assert tokenizer.load(tmp_path / "again").mask_token_id == trained.mask_token_id


def test_load_reads_an_unchanged_file_once(tmp_path):
    tokenizer.save(samples.small_tokenizer(), tmp_path)
    first = tokenizer.load(tmp_path)
    assert tokenizer.load(tmp_path) is first
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"cls_token": "</s>"}))
    assert (first.cls_token_id, tokenizer.load(tmp_path).cls_token_id) == (0, 2)
    tokenizer.save(samples.small_tokenizer("unigram"), tmp_path)
    assert tokenizer.fingerprint(tokenizer.load(tmp_path)) != tokenizer.fingerprint(first)


def test_transformers_is_imported_only_where_it_is_needed(tmp_path):
    tokenizer.save(samples.small_tokenizer(), tmp_path)
    code = """
import copy, sys
from jxstilts.data import tokenizer
small = copy.deepcopy(tokenizer.load(sys.argv[1]))
ids = tokenizer.encode(small, ["the king"])[0].tolist()
print(tokenizer.fingerprint(small), len(small), small.mask_token_id, small.all_special_ids)
print("transformers" in sys.modules, small("the king").input_ids == [0, *ids, 2], "transformers" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=pathlib.Path(__file__).parent.parent)
    assert done.stdout.splitlines()[-1] == "False True True"


def test_changes_to_the_library_s_tokenizer_stay_there(tmp_path):
    trained = samples.small_tokenizer.__wrapped__()  # its own: the others' is shared by the tests of a process
    before = tokenizer.fingerprint(trained)
    trained.add_tokens(["ᚠ"])
    assert tokenizer.fingerprint(trained) == before
    tokenizer.save(trained, tmp_path)
    assert tokenizer.fingerprint(tokenizer.load(tmp_path)) == before
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = trained.no_such_thing


def test_load_refuses_what_is_no_tokenizer(tmp_path):
    for path in (tmp_path, tmp_path / "absent.json", tmp_path / "absent"):
        with pytest.raises(InputError, match="no tokenizer here"):
            tokenizer.load(path)
    for content in ("{}", "no JSON", '{"model": {"type": "Unigram"}}'):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(InputError, match="not a tokenizer"):
            tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    for content in (b"no model at all", b"", b"\x0a\xff\xff\xff\x0f", b"\x12\x02\x18\x02"):
        (tmp_path / "sentencepiece.bpe.model").write_bytes(content)
        with pytest.raises(InputError, match="not a SentencePiece unigram model"):
            tokenizer.load(tmp_path)


def test_encode_keeps_special_tokens_out_and_order_in():
    trained = samples.small_tokenizer()
    texts = ["the king", "", "a </s> b <mask> <s>", "the king", "   "]
    flat, offsets = tokenizer.encode(trained, texts)
    rows = split(flat, offsets)
    assert rows[0] == rows[3] and rows[0] and rows[1] == rows[4] == []
    assert not {0, 1, 2, trained.mask_token_id} & set(flat.tolist()) and rows[2].count(3) == 3
    flat, offsets = tokenizer.encode(trained, [])
    assert flat.tolist() == [] and offsets.tolist() == [0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab ẹeé\u0301\u0323\u0300ﬁ中한\u1112\u1161\u200b\u3000👩\u0e33ـ")), max_size=6))
def test_spans_are_characters_of_the_original(texts):
    trained = samples.small_tokenizer()
    flat, offsets, start, end = tokenizer.encode(trained, texts, spans=True)
    np.testing.assert_array_equal(flat, tokenizer.encode(trained, texts)[0])
    for text, begin, stop in zip(texts, offsets[:-1], offsets[1:], strict=True):
        for first, last in zip(start[begin:stop], end[begin:stop], strict=True):
            assert (first, last) == (-1, -1) or 0 <= first < last <= len(text)
            assert first == -1 or not text[first].isspace()
        assert (np.diff([place for place in start[begin:stop] if place >= 0]) >= 0).all()


@pytest.mark.parametrize(
    "text, words",
    [
        ("The tower  in\tParis", ["The", "tower", "in", "Paris"]),
        (unicodedata.normalize("NFD", "nhà vua"), ["nhà", "vua"]),
        ("الملك من البرج", ["الملك", "من", "البرج"]),
        ("ﬁne 👩‍👩‍👧 fox", ["ﬁne", "fox"]),
    ],
)
def test_spans_of_words_cover_them(text, words):
    trained = samples.small_tokenizer()
    _, _, start, end = tokenizer.encode(trained, [text], spans=True)
    for word in words:
        word = word if word in text else unicodedata.normalize("NFD", word)
        begin = text.index(word)
        inside = [(s, e) for s, e in zip(start, end, strict=True) if s >= 0 and e > begin and s < begin + len(word)]
        assert inside[0][0] == begin and inside[-1][1] == begin + len(word)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("aeoẹéếọ \u0301\u0302\u0323\u0300\u0db4\u0ddc\u0dca\u1112\u1161\u11ab")))
def test_compose_keeps_the_text(text):
    composed, origin = tokenizer.compose(text)
    assert unicodedata.normalize("NFC", composed) == unicodedata.normalize("NFC", text)
    if origin is None:
        assert composed == text
    else:
        pieces = [text[begin:end] for begin, end in itertools.pairwise(origin)]
        assert "".join(pieces) == text
        assert all(
            unicodedata.normalize("NFC", p) == unicodedata.normalize("NFC", c)
            for p, c in zip(pieces, composed, strict=True)
        )


def test_xlmr_ids(xlmr):
    assert xlmr("Hello World!").input_ids == [0, 35378, 6661, 38, 2]
    assert (len(xlmr), xlmr.mask_token_id, xlmr.pad_token_id) == (250_002, 250_001, 1)
    assert xlmr("a", "b").input_ids == [0, 10, 2, 2, 876, 2]


def test_xlmr_ids_are_those_of_sentencepiece(xlmr, corpus):
    sentencepiece = pytest.importorskip("sentencepiece")
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(corpus / "tokenizer" / "sentencepiece.bpe.model"))
    lines = [DECOMPOSED_YORUBA]
    for path in sorted((corpus / "text" / "ntrex").glob("*.txt")):
        with path.open(encoding="utf-8") as file:
            lines += [line.rstrip("\n") for line in itertools.islice(file, 6)]
    lines += [unicodedata.normalize("NFD", line) for line in lines]
    rows = split(*tokenizer.encode(xlmr, lines))
    expected = [[i + 1 if i else 3 for i in ids] for ids in oracle.encode(lines)]
    wrong = [line for line, row, ids in zip(lines, rows, expected, strict=True) if row != ids]
    assert len(lines) > 1500 and not wrong


def test_xlmr_survives_saving(xlmr, tmp_path):
    tokenizer.save(xlmr, tmp_path)
    loaded = tokenizer.load(tmp_path)
    assert tokenizer.fingerprint(loaded) == tokenizer.fingerprint(xlmr)
    texts = [*samples.TEXTS, DECOMPOSED_YORUBA]
    np.testing.assert_array_equal(tokenizer.encode(loaded, texts)[0], tokenizer.encode(xlmr, texts)[0])
