"""Ids of SentencePiece models against the sentencepiece package: any text, all types of pieces, other settings."""

import itertools
import re
import tempfile
import unicodedata

import numpy as np
import pytest
import sentencepieces as pieces
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jxstilts.data import sentencepiece_model, tokenizer
from jxstilts.runtime import InputError

# Characters on which normalisers differ: marks, kana and their halfwidth voicing marks, jamo, presentation forms,
# controls, white space of all kinds, SentencePiece's own blank, and ordinary ones beside them.
ODD = (
    "aeiouAEọẹ ﬁﬃ①½ªÅĲ\u0301\u0302\u0323\u0300\u0327\u0345\u093c\u0ddc\u0dca\u0e33\u0f73"
    "ｶﾊｳガかｯｰ\uff9e\uff9f\u3099\u309a\u1112\u1161\u11ab한\uffa1\uffc2ﷺﻼﭏ\u200b\u200c\u200d\u200e\u2060\ufeff"
    "\u00ad\u0085\u00a0\u1680\u2028\u2029\u202f\u205f\u3000\u2581\u0000\u0001\u0008\t\n\x0b\r\x1c\x1f\x7f\x9f\ufffd\uffff中狐🇩🇪👩🏽\U000e0041\U0002f800ᚠ<s>/[]"
)
TEXT = st.text(st.one_of(st.sampled_from(ODD), st.characters(exclude_categories=["Cs"])), max_size=30)
LANGUAGES = "eng deu vie yor hin tha zho jpn kor ara heb rus ell swa tur hun".split()


def load(folder, data: bytes):
    (folder / "sentencepiece.bpe.model").write_bytes(data)
    return tokenizer.load(folder)


def rows(found, texts: list[str]) -> list[list[int]]:
    flat, offsets = tokenizer.encode(found, texts)
    return [flat[begin:end].tolist() for begin, end in itertools.pairwise(offsets)]


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=5))
@example(["ｽﾅｯﾌﾟﾘﾝｸﾞ", "かﾞ", "a\u0085b", "</s> <mask>", "\u2581a \u2581\u2581 b", "x" * 5000])
def test_any_text_with_xlmr_s_model(xlmr, corpus, texts):
    data = (corpus / "tokenizer" / "sentencepiece.bpe.model").read_bytes()
    assert rows(xlmr, texts) == pieces.expected(data, texts)


@pytest.mark.slow
def test_every_character_and_pair_with_xlmr_s_model(xlmr, corpus):
    data = (corpus / "tokenizer" / "sentencepiece.bpe.model").read_bytes()
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    marks = [one for one in every if unicodedata.category(one) == "Mn"] + ["\uff9e", "\uff9f"]
    bases = [one for one in every[:0x10000] if unicodedata.decomposition(one) or one.isalpha()][::7]
    for texts in (every, [base + mark for base in bases for mark in marks[::40]]):
        assert rows(xlmr, texts) == pieces.expected(data, texts)


@pytest.mark.slow
def test_all_of_ntrex_with_xlmr_s_model(xlmr, corpus):
    data = (corpus / "tokenizer" / "sentencepiece.bpe.model").read_bytes()
    for file in sorted((corpus / "text" / "ntrex").glob("*.txt")):
        lines = file.read_text(encoding="utf-8").split("\n")
        lines += [unicodedata.normalize("NFD", line) for line in lines]
        assert rows(xlmr, lines) == pieces.expected(data, lines), file.name


RULES = ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity")
SETTINGS = st.fixed_dictionaries(
    {
        "rule": st.sampled_from(RULES),
        "dummy": st.booleans(),
        "join": st.booleans(),
        "escape": st.sampled_from((1, 1, 1, 1, 0)),
        "suffix": st.sampled_from((0, 0, 0, 0, 1)),
        "bytes": st.booleans(),
    }
)
LETTERS = st.text(st.sampled_from("▁▁abeéが中ｶ\u0301\uff9e<>한"), min_size=1, max_size=4)
KINDS = (pieces.NORMAL,) * 6 + (pieces.CONTROL, pieces.USER_DEFINED, pieces.USER_DEFINED, pieces.UNUSED)
PIECES = st.lists(st.tuples(LETTERS, st.floats(-12, -1, width=16), st.sampled_from(KINDS)), max_size=30)


def edited(chosen: dict, extra: list) -> bytes:
    """A model with pieces of all types and other settings, as no trainer makes it."""
    usual = {"▁": (-3.0, pieces.NORMAL), "a": (-4.0, pieces.NORMAL), "d": (-5.0, pieces.NORMAL)}  # d: not in LETTERS
    rest = usual | {text: rest for text, *rest in extra}
    listed = [("<pad>", 0.0, pieces.CONTROL), *((text, *rest) for text, rest in rest.items())]
    if chosen["bytes"]:
        listed[2:2] = [(f"<0x{byte:02X}>", 0.0, pieces.BYTE) for byte in range(256)]
    characters = pieces.rule(chosen["rule"])
    characters = b"" if characters == sentencepiece_model.NO_CHARACTERS else pieces.field(2, characters)
    trainer = pieces.field(24, chosen["suffix"]) + pieces.field(35, int(chosen["bytes"]))
    numbers = ((3, chosen["dummy"]), (4, chosen["join"]), (5, chosen["escape"]))
    return pieces.model(
        listed, 0.0, trainer, characters + b"".join(pieces.field(number, int(value)) for number, value in numbers)
    )


@settings(max_examples=80, deadline=None)
@given(
    SETTINGS, PIECES, st.lists(st.one_of(st.text(st.sampled_from("▁ abeéが中ｶ\u0301\uff9e<>한\t狐")), TEXT), max_size=6)
)
def test_models_of_all_types_of_pieces(tmp_path_factory, chosen, extra, texts):
    data = edited(chosen, extra)
    folder = tmp_path_factory.mktemp("model")
    texts = [*texts, "".join(text for text, *_ in extra), "".join(f" {text}" for text, *_ in extra)]
    if not chosen["escape"] or chosen["suffix"]:
        with pytest.raises(InputError, match=r"escape_whitespaces=false|treat_whitespace_as_suffix=true"):
            load(folder, data)
        return
    found = load(folder, data)
    expected = pieces.expected(data, texts)
    assert rows(found, texts) == expected
    assert len(found) == pieces.processor(data).vocab_size() + 2 and found.mask_token_id == len(found) - 1
    assert [found.cls_token_id, found.pad_token_id, found.sep_token_id, found.unk_token_id] == [0, 1, 2, 3]
    with tempfile.TemporaryDirectory() as saved:
        tokenizer.save(found, saved)
        again = tokenizer.load(saved)
    assert tokenizer.fingerprint(again) == tokenizer.fingerprint(found) and rows(again, texts) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"user_defined_symbols": "<e1>,</e1>,狐"},
        {"byte_fallback": True, "character_coverage": 0.98, "vocab_size": 600},
        {"control_symbols": "<sep>,<mask>"},
        {"pad_id": 3},
        {"add_dummy_prefix": False},
        {"remove_extra_whitespaces": False},
        {"split_by_whitespace": False},
        {"split_digits": True, "split_by_unicode_script": False, "allow_whitespace_only_pieces": True},
        *({"normalization_rule_name": name} for name in RULES),
        {"pad_id": 3, "user_defined_symbols": "<e1>", "control_symbols": "<c>", "byte_fallback": True,
         "vocab_size": 700, "add_dummy_prefix": False, "normalization_rule_name": "nfkc_cf"},
    ],
)  # fmt: skip
def test_trained_models(tmp_path, options):
    data = pieces.trained(**options)
    texts = [*pieces.samples.TEXTS, "  The <e1> KING </e1>  <c>  watches  ", "<sep> <mask> ﬁ ｶﾞ 狐\u0085ᚠᚡ ᚠ", ""]
    texts += [unicodedata.normalize("NFD", text) for text in texts]
    assert rows(load(tmp_path, data), texts) == pieces.expected(data, texts)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pieces.model(trainer=pieces.field(3, 2)), "model_type is not unigram"),
        (pieces.model([("[CLS]", 0.0, pieces.UNKNOWN)]), r"piece 3, '\[CLS\]'"),
        (pieces.model([("a", 0.0, 9)]), "piece 3, 'a', has the unknown type 9"),
        (pieces.model(["a", "b", "a"]), "piece 5, 'a', .*stands twice"),
        (pieces.model(["<mask>"]), "piece 3, '<mask>', .*stands twice"),
        (pieces.model([("<0x41>", 0.0, pieces.BYTE)]), "piece 3, '<0x41>', is of a byte without byte_fallback"),
        (pieces.model(["a", ("<0x41>", 0.0, pieces.BYTE)], trainer=pieces.field(35, 1)), "without the piece <0x00>"),
        (pieces.model([("<e>", 0.0, pieces.CONTROL)]), "no normal pieces"),
        (pieces.piece("<pad>", 0.0, pieces.CONTROL) + pieces.model(), "its piece 0 is '<pad>': expected <unk>"),
        (pieces.model(normalizer=pieces.field(2, b"\0" * 40)), "precompiled_charsmap is damaged"),
        (
            pieces.model(normalizer=pieces.field(2, b"\0\4\0\0" + b"\xff\xff\xff\x7f" * 256 + b"a\0")),
            "charsmap is damaged",
        ),
    ],
)
def test_refusals_name_the_piece_or_the_setting(tmp_path, data, message):
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path, data)
    assert "sentencepiece.bpe.model: not a SentencePiece unigram model" in str(caught.value)


@settings(max_examples=80, deadline=None)
@given(st.lists(TEXT, max_size=6), st.booleans())
def test_spans_are_characters_of_the_original(tmp_path_factory, texts, fallback):
    options = {"byte_fallback": True, "vocab_size": 700} if fallback else {}
    found = load(tmp_path_factory.mktemp("model"), pieces.trained(**options))
    flat, offsets, start, end = tokenizer.encode(found, texts, spans=True)
    np.testing.assert_array_equal(flat, tokenizer.encode(found, texts)[0])
    for text, begin, stop in zip(texts, offsets[:-1], offsets[1:], strict=True):
        first, last = start[begin:stop], end[begin:stop]
        real = first >= 0
        assert ((last == -1) == ~real).all() and (first[real] < last[real]).all() and (last <= len(text)).all()
        assert (np.diff(first[real]) >= 0).all() and (np.diff(last[real]) >= 0).all()
        assert all(text[place] != " " for place in first[real])
        left_out = np.setdiff1d(
            np.arange(len(text)), [i for a, b in zip(first, last, strict=True) for i in range(a, b)]
        )
        assert all(not pieces.processor(pieces.trained()).normalize(text[i]).strip("▁") for i in left_out)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ﬁne  ｽﾅｯﾌﾟ\u200b x\u0085y ", ["ﬁne", "ｽﾅｯﾌﾟ", "x\u0085y"]),
        (unicodedata.normalize("NFD", "nhà vua"), [unicodedata.normalize("NFD", word) for word in ("nhà", "vua")]),
        ("a\u0001 👩‍👩‍👧 ᚠᚡ ᚠ", ["a", "👩‍👩‍👧", "ᚠᚡ", "ᚠ"]),
        ("\u3000ẹ\u0301 ㌀ x\u0301\u0302", ["ẹ\u0301", "㌀", "x\u0301\u0302"]),
    ],
)
@pytest.mark.parametrize("fallback", [False, True])
def test_spans_of_words_cover_them(tmp_path, text, words, fallback):
    options = {"byte_fallback": True, "vocab_size": 700, "character_coverage": 0.98} if fallback else {}
    _, _, start, end = tokenizer.encode(load(tmp_path, pieces.trained(**options)), [text], spans=True)
    begin = 0
    for word in words:
        begin = text.index(word, begin)
        inside = [(a, b) for a, b in zip(start, end, strict=True) if a >= 0 and b > begin and a < begin + len(word)]
        assert inside[0][0] == begin and inside[-1][1] == begin + len(word), (word, inside)
        begin += len(word)


def test_half_characters_are_refused(tmp_path):
    for found in (load(tmp_path, pieces.trained()), pieces.samples.small_tokenizer()):
        with pytest.raises(InputError, match=r"half a character, U\+D800: 'a\\ud800'"):
            tokenizer.encode(found, ["b", "a\ud800"])


def test_a_damaged_character_map_of_a_tokenizer_json(tmp_path):
    tokenizer.save(load(tmp_path, pieces.trained()), tmp_path / "saved")
    file = tmp_path / "saved" / "tokenizer.json"
    file.write_text(re.sub('"precompiled_charsmap":.*?"(.{8})', r'"precompiled_charsmap":"\1////', file.read_text()))
    with pytest.raises(InputError, match=r"tokenizer.json: not a tokenizer, or damaged: .*precompiled_charsmap"):
        tokenizer.load(tmp_path / "saved")
