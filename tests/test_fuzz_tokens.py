"""Tokenizers' files and cached features, mutated: refused, or made again, or they work."""

import json
import shutil

import fuzz
import numpy as np
import pytest
import samples
import sentencepieces

from jxstilts.data import cache, tokenizer
from jxstilts.data.features import Features
from jxstilts.runtime import InputError


def check_tokenizer(found, roles=("cls", "sep", "pad", "unk")) -> None:
    """Raises AssertionError unless the tokenizer has the special tokens that the package uses, and encodes any text."""
    ids = [getattr(found, f"{role}_token_id") for role in roles]
    assert all(type(one) is int and 0 <= one < len(found) for one in ids), ids
    tokens, offsets = tokenizer.encode(found, ["the king é 中\u2028\x00", "", "</s> a"])
    assert tokens.dtype == np.int32 and len(offsets) == 4 and offsets[-1] == len(tokens)
    assert not len(tokens) or (0 <= tokens.min() and tokens.max() < len(found))
    assert len(tokenizer.fingerprint(found)) == 64


@pytest.mark.parametrize("model", ["bpe", "unigram"])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@fuzz.shares(20, 3000)
def test_tokenizers(tmp_path, model, name, count):
    tokenizer.save(tokenizer.train(samples.TEXTS[:3], 70, model=model, coverage=1.0), tmp_path)
    file = tmp_path / name
    content = file.read_bytes()

    def attempt(plan):
        fuzz.put(file, fuzz.mutate(content, plan, fuzz.JSON), plan)
        check_tokenizer(tokenizer.load(tmp_path))

    fuzz.run(f"{model} {name}", count, attempt, str(tmp_path))


@fuzz.shares(40, 6000)
def test_sentencepiece(tmp_path, count):
    file = tmp_path / "sentencepiece.bpe.model"
    file.write_bytes(sentencepieces.model())
    check_tokenizer(tokenizer.load(tmp_path))

    def attempt(plan):
        fuzz.put(file, fuzz.mutate(sentencepieces.model(), plan, fuzz.BYTES), plan)
        check_tokenizer(tokenizer.load(file))

    fuzz.run("sentencepiece", count, attempt, str(tmp_path))


@pytest.mark.parametrize("name", ["sentencepiece.bpe.model", "tokenizer.json"])
@fuzz.shares(20, 2000)
def test_character_maps(tmp_path, name, count):
    """Most bytes of these files are the normaliser's character map, through which SentencePiece steps unchecked."""
    source = tmp_path / "source.model"
    source.write_bytes(sentencepieces.trained())
    tokenizer.save(tokenizer.load(source), tmp_path)
    content = source.read_bytes() if name.endswith("model") else (tmp_path / name).read_bytes()
    file = tmp_path / "mutated" / name
    file.parent.mkdir()

    def attempt(plan):
        fuzz.put(file, fuzz.mutate(content, plan, fuzz.BYTES), plan)
        found = tokenizer.load(file)
        check_tokenizer(found)
        tokenizer.encode(found, ["ﬁne ｶﾞ e\u0301 한 ㌀ ①"], spans=True)

    fuzz.run(f"character map {name}", count, attempt, str(tmp_path))


FILES = {
    "tokenizer_config.json": {
        "cls_token": "<s>", "sep_token": {"content": "</s>"}, "tokenizer_class": "XLMRobertaTokenizer",
        "additional_special_tokens": ["[A]"], "do_lower_case": False,
        "added_tokens_decoder": {"12": {"content": "[A]", "special": True}, "13": {"content": "[B]", "lstrip": True}},
    },
    "special_tokens_map.json": {"pad_token": "<pad>", "mask_token": {"content": "<mask>", "lstrip": True}},
    "added_tokens.json": {"[A]": 12, "[B]": 13},
    "vocab.txt": ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "##b", "the", "king", "e", "中", "x"],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["vocab.txt", "sentencepiece.bpe.model"])
@pytest.mark.parametrize("name", [*FILES])
@fuzz.shares(15, 1500)
def test_folders(tmp_path, kind, name, count):
    contents = {key: json.dumps(value).encode() for key, value in FILES.items()}
    contents["vocab.txt"] = "\n".join(FILES["vocab.txt"]).encode()
    contents["tokenizer_config.json"] = contents["tokenizer_config.json"].replace(b'{"', b'{"unk_token": "<unk>", "', 1)
    if kind != "vocab.txt":
        del contents["vocab.txt"]
        contents[kind] = sentencepieces.model()
        name = kind if name == "vocab.txt" else name
    for other, content in contents.items():
        (tmp_path / other).write_bytes(content)
    assert tokenizer.load(tmp_path).convert_tokens_to_ids("[B]") == 13

    def attempt(plan):
        kinds = fuzz.JSON if name.endswith("json") else fuzz.TEXT
        fuzz.put(tmp_path / name, fuzz.mutate(contents[name], plan, kinds), plan)
        check_tokenizer(tokenizer.load(tmp_path), ("pad", "unk"))

    fuzz.run(f"{kind} {name}", count, attempt, str(tmp_path))


# --- cached features -------------------------------------------------------------------------------------------------


def features() -> Features:
    offsets = np.array([0, 3, 3, 5, 9], np.int64)
    return Features(
        np.arange(9, dtype=np.int32), offsets, {"label": np.arange(4, dtype=np.int32)},
        {"word": np.arange(9, dtype=np.int32), "max_context": np.arange(9) % 2 == 0},
    )  # fmt: skip


def check_features(found: Features) -> None:
    """Raises AssertionError unless these have the form of `features`; the numbers may differ."""
    usual = features()
    assert found.fields.keys() == usual.fields.keys() and found.token_fields.keys() == usual.token_fields.keys()
    for name, array in cache._arrays(usual).items():
        assert cache._arrays(found)[name].dtype == array.dtype and cache._arrays(found)[name].shape == array.shape
    assert found.offsets[0] == 0 and found.offsets[-1] == len(found.tokens) and (np.diff(found.offsets) >= 0).all()


NAMES = ("entry.json", "tokens.npy", "offsets.npy", "field.label.npy", "token_field.word.npy")


@pytest.mark.parametrize("name", NAMES)
@fuzz.shares(12, 1500)
def test_cache(tmp_path, name, count):
    cache.cached(tmp_path, {"a": 1}, features)
    (entry,) = (path for path in tmp_path.iterdir() if path.is_dir())
    contents = {path.name: path.read_bytes() for path in entry.iterdir()}

    def attempt(plan):
        shutil.rmtree(entry, ignore_errors=True)
        entry.mkdir()
        for other, content in contents.items():
            (entry / other).write_bytes(content)
        kinds = fuzz.JSON if name == "entry.json" else fuzz.BYTES
        fuzz.put(entry / name, fuzz.mutate(contents[name], plan, kinds), plan)
        found = cache._read(entry)
        if found is not None:  # else `cached` makes it again
            check_features(found)

    fuzz.run(f"cache {name}", count, attempt, "no refusal: a damaged entry is made again")
    check_features(cache.cached(tmp_path, {"a": 1}, features))


# --- what the campaign has found -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (sentencepieces.field(1, 5), "not a SentencePiece unigram model"),
        (sentencepieces.field(1, sentencepieces.field(2, 0.0)), "not a SentencePiece unigram model"),
        (
            sentencepieces.field(1, sentencepieces.field(1, 7) + sentencepieces.field(2, 0.0)),
            "not a SentencePiece unigram model",
        ),
        (b"\xff" * 10**6, "it is damaged"),
        (sentencepieces.model(score=float("nan")), "the score of a piece is nan"),
    ],
)
def test_found_in_sentencepiece_models(tmp_path, data, message):
    (tmp_path / "m.model").write_bytes(data)
    with fuzz.limit(5), pytest.raises(InputError, match=message):
        tokenizer.load(tmp_path / "m.model")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("tokenizer.json", {"model": "vocab"}, "tokenizer.json: not a tokenizer"),
        ("tokenizer.json", {"model": True}, "tokenizer.json: not a tokenizer: it holds no vocabulary"),
        ("tokenizer.json", {"added_tokens": [5]}, "tokenizer.json: not a tokenizer, or damaged: "),
        ("tokenizer_config.json", {"cls_token": [1]}, r"tokenizer_config.json: cls_token=\[1\]: expected a token"),
        ("tokenizer_config.json", {"sep_token": {"x": 1}}, r"tokenizer_config.json: sep_token=None: expected a token"),
        ("tokenizer_config.json", {"pad_token": "<nil>"}, "tokenizer.json: its vocabulary has no pad_token, nor does"),
    ],
)
def test_found_in_tokenizers(tmp_path, name, changes, message):
    tokenizer.save(samples.word_tokenizer(), tmp_path)
    content = json.loads((tmp_path / name).read_text())
    (tmp_path / name).write_text(json.dumps(content | changes))
    with pytest.raises(InputError, match=message):
        tokenizer.load(tmp_path)


def test_a_vocabulary_without_its_unknown_piece(tmp_path):
    tokenizer.save(samples.word_tokenizer(), tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["unk_token"] = "<none>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="not found in the vocabulary"):
        tokenizer.load(tmp_path)


def test_ids_beyond_the_vocabulary(tmp_path):
    tokenizer.save(samples.word_tokenizer(), tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    piece = max(content["model"]["vocab"], key=content["model"]["vocab"].get)
    content["model"]["vocab"][piece] += 1000
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"tokenizer.json: damaged: it has \d+ tokens, but one with the id 1\d{3}"):
        tokenizer.load(tmp_path)


@pytest.mark.parametrize("text", ["[" * 10**5, '"files"', '{"files": 3}', '{"files": {"../../tokens.npy": 3}}', "null"])
def test_a_cache_entry_with_another_record_is_made_again(tmp_path, text):
    cache.cached(tmp_path, {"a": 1}, features)
    (record,) = tmp_path.glob("*/entry.json")
    record.write_text(text)
    check_features(cache.cached(tmp_path, {"a": 1}, features))


def test_a_cache_entry_that_lost_a_field_is_made_again(tmp_path):
    cache.cached(tmp_path, {"a": 1}, features)
    (record,) = tmp_path.glob("*/entry.json")
    content = json.loads(record.read_text())
    del content["files"]["field.label.npy"]
    record.write_text(json.dumps(content))
    check_features(cache.cached(tmp_path, {"a": 1}, features))
