"""Tokenizers' folders: added tokens, roles, vocab.txt, and text as the tokenizer's own normaliser takes it."""

import itertools
import json
import unicodedata

import numpy as np
import pytest
import samples
import sentencepieces
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts.data import tokenizer
from jxstilts.runtime import InputError


def folder(where, **files):
    """Writes files of a folder: JSON for objects; "spm": a SentencePiece model."""
    where.mkdir(parents=True, exist_ok=True)
    names = {"config": "tokenizer_config.json", "map": "special_tokens_map.json", "added": "added_tokens.json"}
    names |= {"spm": "sentencepiece.bpe.model", "words": "vocab.txt", "fast": "tokenizer.json"}
    for name, content in files.items():
        if isinstance(content, bytes):
            (where / names[name]).write_bytes(content)
        else:
            text = "".join(f"{line}\n" for line in content) if name == "words" else json.dumps(content)
            (where / names[name]).write_text(text)
    return where


def rows(found, texts):
    flat, offsets = tokenizer.encode(found, texts)
    return [flat[begin:end].tolist() for begin, end in itertools.pairwise(offsets)]


def slow(where):
    """transformers' tokenizer of a folder with a SentencePiece model."""
    from transformers import XLMRobertaTokenizer

    return XLMRobertaTokenizer.from_pretrained(str(where))


# --- added tokens ----------------------------------------------------------------------------------------------------


def added(number: int, content: str, **flags) -> dict:
    usual = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False, "special": False}
    return {str(number): {"content": content, **usual, **flags}}


SIZE = sentencepieces.processor(sentencepieces.trained()).vocab_size() + 2  # ids of the trained model: the next is free
TEXTS = [
    "[USER] said people [URL] [USER]", "a[USER]b ［USER］ [user]", "[URL][USER]  [URL]", "", " ", "[USER",
    "ｶﾞ[URL]e\u0301[USER]\u0301",
]  # fmt: skip


@pytest.mark.parametrize(
    "flags",
    [{}, {"lstrip": True}, {"rstrip": True}, {"single_word": True}, {"normalized": False},
     {"special": True, "normalized": False}, {"lstrip": True, "rstrip": True, "normalized": False}],
)  # fmt: skip
def test_added_tokens_of_the_configuration(tmp_path, flags):
    decoder = added(SIZE, "[USER]", **flags) | added(SIZE + 1, "[URL]") | added(SIZE - 1, "<mask>", special=True)
    where = folder(tmp_path, spm=sentencepieces.trained(), config={"added_tokens_decoder": decoder})
    found, expected = tokenizer.load(where), slow(where)
    assert len(found) == SIZE + 2 and found.mask_token_id == SIZE - 1
    assert rows(found, TEXTS[:-1]) == expected(TEXTS[:-1], add_special_tokens=False).input_ids
    flat, offsets, start, end = tokenizer.encode(found, TEXTS, spans=True)
    np.testing.assert_array_equal(flat, tokenizer.encode(found, TEXTS)[0])
    for text, begin, stop in zip(TEXTS, offsets[:-1], offsets[1:], strict=True):
        for token, a, b in zip(flat[begin:stop], start[begin:stop], end[begin:stop], strict=True):
            if token >= SIZE:
                name = ("[USER]", "[URL]")[token - SIZE]
                assert unicodedata.normalize("NFKC", text[a:b]) == name
    tokenizer.save(found, tmp_path / "saved")
    assert rows(tokenizer.load(tmp_path / "saved"), TEXTS) == rows(found, TEXTS)


def test_added_tokens_json_alone(tmp_path):
    where = folder(
        tmp_path, spm=sentencepieces.trained(), added={"[URL]": SIZE + 1, "[USER]": SIZE, "<mask>": SIZE - 1}
    )
    found = tokenizer.load(where)
    assert len(found) == SIZE + 2 and found.convert_tokens_to_ids(["[USER]", "[URL]"]) == [SIZE, SIZE + 1]
    assert rows(found, TEXTS[:-1]) == slow(where)(TEXTS[:-1], add_special_tokens=False).input_ids
    # between added tokens the ids are SentencePiece's, where the library's are not
    assert rows(found, TEXTS[-1:]) == [
        [*sentencepieces.expected(sentencepieces.trained(), ["ｶﾞ"])[0], SIZE + 1,
         *sentencepieces.expected(sentencepieces.trained(), ["e\u0301"])[0], SIZE,
         *sentencepieces.expected(sentencepieces.trained(), ["\u0301"])[0]]
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("[]AB ab\t<x>"), max_size=12), max_size=5),
       st.lists(st.sampled_from(["[A]", "[B]", "[AB]", "a b", "<x>", "A"]), unique=True, max_size=4),
       st.fixed_dictionaries({name: st.booleans() for name in ("lstrip", "rstrip", "single_word", "normalized")})
)  # fmt: skip
def test_any_added_tokens(tmp_path_factory, texts, names, flags):
    decoder = {}
    for place, name in enumerate(names):
        decoder |= added(SIZE + place, name, **flags)
    where = folder(tmp_path_factory.mktemp("m"), spm=sentencepieces.trained(), config={"added_tokens_decoder": decoder})
    found = tokenizer.load(where)
    assert len(found) == SIZE + len(names)
    assert rows(found, texts) == [slow(where)(text, add_special_tokens=False).input_ids for text in texts]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"added": {"[A]": SIZE + 1}},
            r"added_tokens.json: '\[A\]' has the id \d+, where sentencepiece.bpe.model has \d+",
        ),
        ({"added": {"[A]": 7}}, r"added_tokens.json: '\[A\]' has the id 7"),
        ({"added": {"<mask>": 7}}, "added_tokens.json: '<mask>' has the id 7"),
        ({"added": {"[A]": "7"}}, "expected a token and its id"),
        ({"added": ["[A]"]}, "added_tokens.json: not a tokenizer's JSON"),
        ({"config": {"added_tokens_decoder": [1]}}, "added_tokens_decoder=.*expected an object"),
        ({"config": {"added_tokens_decoder": {"x": {"content": "[A]"}}}}, "added_tokens_decoder: 'x'"),
        (
            {"config": {"added_tokens_decoder": added(SIZE, "[A]")}, "added": {"[A]": SIZE + 1}},
            "added_tokens.json: '.A.': ",
        ),
        (
            {"config": {"additional_special_tokens": ["[A]"]}},
            r"additional_special_tokens has '\[A\]', for which no file",
        ),
        (
            {"map": {"additional_special_tokens": [{"content": "[A]"}]}},
            "special_tokens_map.json: additional_special_tok",
        ),
        ({"config": {"added_tokens_decoder": added(4, "▁")}}, "'▁' is a piece of sentencepiece.bpe.model|has the id 4"),
    ],
)
def test_added_tokens_that_cannot_be(tmp_path, files, message):
    with pytest.raises(InputError, match=message):
        tokenizer.load(folder(tmp_path, spm=sentencepieces.trained(), **files))


# --- roles -----------------------------------------------------------------------------------------------------------

XLMR = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
BERT = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
GEMMA = XLMR | {"cls_token": "<bos>", "sep_token": "<eos>"}


def fast(where, names, **files):
    """A folder with a tokenizer.json whose vocabulary has these special tokens."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

    where.mkdir(parents=True, exist_ok=True)
    unknown = "[UNK]" if "[UNK]" in names else "<unk>"
    vocabulary = [*((name, 0.0) for name in names), *((letter, -1.0) for letter in "▁abcdefghijklmnopqrstuvwxyz")]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=names.index(unknown)))
    made.normalizer, made.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    made.add_special_tokens([AddedToken(name, special=True) for name in names])
    made.save(str(where / "tokenizer.json"))
    return folder(where, **files)


def roles(found) -> dict:
    return {role: getattr(found, role) for role in XLMR}


BOTH = [*XLMR.values(), "[CLS]", "[SEP]"]


@pytest.mark.parametrize(
    ("names", "files", "expected"),
    [
        ([*XLMR.values()], {}, XLMR),
        ([*BERT.values()], {"config": {"tokenizer_class": "PreTrainedTokenizerFast"}}, BERT),
        (["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], {}, GEMMA),
        (["<s>", "</s>", "<pad>", "<unk>"], {}, XLMR | {"mask_token": None}),
        (BOTH, {"map": XLMR | {"cls_token": "[CLS]", "sep_token": {"content": "[SEP]"}}},
         XLMR | {"cls_token": "[CLS]", "sep_token": "[SEP]"}),
        (BOTH, {"config": {"cls_token": "<s>"}, "map": {"cls_token": "[CLS]", "sep_token": "[SEP]"}},
         XLMR | {"sep_token": "[SEP]"}),
        (BOTH, {"config": {"tokenizer_class": "XLMRobertaTokenizerFast"}}, XLMR),
        ([*XLMR.values(), *BERT.values()], {"config": {"tokenizer_class": "BertTokenizer"}}, BERT),
        (["<cls>", "<pad>", "<unk>", "<sep>"], {"map": {"cls_token": "<cls>", "sep_token": "<sep>"}},
         {"cls_token": "<cls>", "sep_token": "<sep>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": None}),
        (["<pad>", "<unk>", "</s>"], {}, {**XLMR, "cls_token": None, "mask_token": None}),
    ],
)  # fmt: skip
def test_roles(tmp_path, names, files, expected):
    where = fast(tmp_path, names, **files)
    found = tokenizer.load(where)
    assert roles(found) == expected
    ids = {role: None if token is None else names.index(token) for role, token in expected.items()}
    assert {role: getattr(found, f"{role}_id") for role in ids} == ids and len(found) == 27 + len(set(names))
    if files.get("map"):
        from transformers import AutoTokenizer

        full = AutoTokenizer.from_pretrained(str(where))
        named = files["map"].keys() - files.get("config", {}).keys()
        assert all(getattr(full, role) == getattr(found, role) for role in named)


@pytest.mark.parametrize(
    ("names", "files", "message"),
    [
        (BOTH, {}, r"has </s> and \[SEP\]: name the sep_token in tokenizer_config.json"),
        (BOTH, {"config": {"sep_token": "</s>"}}, r"has <s> and \[CLS\]: name the cls_token"),
        ([*BERT.values()], {"config": {"cls_token": "<s>"}}, "no cls_token, nor does tokenizer_config.json .*: '<s>'"),
        ([*XLMR.values()], {"map": {"mask_token": "[MASK]"}}, r"no mask_token, nor does .*: '\[MASK\]'"),
        (["<s>", "</s>", "<unk>"], {}, "no pad_token, nor does tokenizer_config.json name another"),
        ([*XLMR.values()], {"map": {"mask_token": 5}}, "special_tokens_map.json: mask_token=5: expected a token"),
        ([*XLMR.values()], {"map": [1]}, "special_tokens_map.json: not a tokenizer's JSON: expected an object"),
    ],
)  # fmt: skip
def test_a_wrong_role_is_never_guessed(tmp_path, names, files, message):
    with pytest.raises(InputError, match=message):
        tokenizer.load(fast(tmp_path, names, **files))


def test_a_role_that_is_needed_is_refused_where_it_is_needed(tmp_path):
    found = tokenizer.load(fast(tmp_path, ["<pad>", "<unk>", "</s>"]))
    assert rows(found, ["ab"]) == [[3, 4, 5]] and found.mask_token_id is None
    with pytest.raises(InputError, match="no cls_token"):
        samples.tokenize([{"text": "ab"}], "text", found, max_length=8)


# --- text as it is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalizer", ["NFD", "NFKD", "Lowercase", None, "NFC", "NFKC"])
@pytest.mark.parametrize("model", ["bytes", "unigram"])
def test_ids_are_the_library_s_on_the_text_as_it_is(tmp_path, normalizer, model):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE() if model == "bytes" else models.Unigram())
    made.normalizer = None if normalizer is None else getattr(normalizers, normalizer)()
    made.pre_tokenizer = pre_tokenizers.ByteLevel() if model == "bytes" else pre_tokenizers.Metaspace()
    names = [*dict.fromkeys(XLMR.values())]
    if model == "bytes":
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=900, special_tokens=names, initial_alphabet=alphabet, show_progress=False
        )
    else:
        trainer = trainers.UnigramTrainer(vocab_size=500, special_tokens=names, unk_token="<unk>", show_progress=False)
    texts = [*samples.TEXTS, *(unicodedata.normalize("NFD", text) for text in samples.TEXTS), "e\u0323\u0301 \u0301a"]
    made.train_from_iterator(texts, trainer)
    made.save(str(tmp_path / "tokenizer.json"))
    expected = [found.ids for found in made.encode_batch(texts, add_special_tokens=False)]
    assert rows(tokenizer.load(tmp_path), texts) == expected


# --- vocab.txt -------------------------------------------------------------------------------------------------------


def words(lines, size: int = 1500) -> list[str]:
    """A WordPiece vocabulary of text, cased."""
    from tokenizers import BertWordPieceTokenizer

    made = BertWordPieceTokenizer(lowercase=False)
    made.train_from_iterator(lines, vocab_size=size, min_frequency=1, show_progress=False)
    return [token for token, _ in sorted(made.get_vocab().items(), key=lambda item: item[1])]


def bert(where):
    from transformers import BertTokenizer

    return BertTokenizer.from_pretrained(str(where))


def check_bert(where, texts):
    found = tokenizer.load(where)
    assert rows(found, texts) == bert(where)(texts, add_special_tokens=False).input_ids
    return found


@pytest.mark.parametrize(
    "config",
    [None, {}, {"do_lower_case": False}, {"do_lower_case": False, "strip_accents": True}, {"strip_accents": False},
     {"do_lower_case": False, "tokenize_chinese_chars": False}],
)  # fmt: skip
def test_vocab_txt(tmp_path, config):
    where = folder(tmp_path, words=words([*samples.TEXTS, *map(str.lower, samples.TEXTS)]))
    if config is not None:
        folder(where, config=config)
    texts = [*samples.TEXTS, *map(str.upper, samples.TEXTS), "İI ẞ \x00\ufffd a\u200bb [x] 狐 ﬁ e\u0301", ""]
    texts += [unicodedata.normalize("NFD", text) for text in texts]
    found = check_bert(where, texts)
    assert roles(found) == BERT and found.bos_token is None and len(found) == len(bert(where))
    assert found("a", "b").input_ids == bert(where)("a", "b").input_ids
    tokenizer.save(found, tmp_path / "saved")
    again = tokenizer.load(tmp_path / "saved")
    assert tokenizer.fingerprint(again) == tokenizer.fingerprint(found) and rows(again, texts) == rows(found, texts)


def test_vocab_txt_with_added_tokens_and_other_names(tmp_path):
    vocabulary = [*words(samples.TEXTS), "<cls>", "<unk>"]
    size = len(vocabulary)
    where = folder(
        tmp_path, words=vocabulary, added={"[USER]": size},
        config={"cls_token": "<cls>"}, map={"unk_token": "<unk>", "cls_token": "[CLS]"},
    )  # fmt: skip
    found = check_bert(where, ["[USER] the king \u16a0 [USER]s", "x[USER]y"])
    assert (found.cls_token_id, found.unk_token_id, len(found)) == (size - 2, size - 1, size + 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=5), st.booleans())
def test_vocab_txt_on_any_text(tmp_path_factory, texts, lower):
    where = folder(tmp_path_factory.mktemp("m"), words=words(samples.TEXTS[:4], 200), config={"do_lower_case": lower})
    check_bert(where, texts)


@pytest.mark.parametrize("count", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_vocab_txt_on_ntrex(tmp_path, corpus, count):
    texts = []
    for file in sorted((corpus / "text" / "ntrex").glob("*.txt"))[::3][:40]:
        texts += file.read_text(encoding="utf-8").split("\n")[:count]
    where = folder(tmp_path, words=words(texts[::4], 4000), config={"do_lower_case": False})
    assert len(texts) == 40 * count
    check_bert(where, texts)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"words": ["[UNK]", "[PAD]", "a", "b", "a"]}, "vocab.txt:3: 'a' stands again in line 5"),
        ({"words": ["[PAD]", "a"]}, r"vocab.txt: its vocabulary has no unk_token '\[UNK\]'"),
        ({"words": b"[UNK]\n\xff"}, "vocab.txt: cannot be read as lines of UTF-8"),
        (
            {"words": ["[UNK]", "[PAD]"], "config": {"do_lower_case": "yes"}},
            "do_lower_case='yes': expected true or false",
        ),
        ({"words": ["[UNK]", "[PAD]"], "config": {"do_basic_tokenize": False}}, "do_basic_tokenize must be true"),
        ({"words": ["[UNK]", "[PAD]"], "config": {"sep_token": "[SEP]"}}, "no sep_token, nor does"),
    ],
)
def test_vocab_txt_that_cannot_be(tmp_path, files, message):
    with pytest.raises(InputError, match=message):
        tokenizer.load(folder(tmp_path, **files))
