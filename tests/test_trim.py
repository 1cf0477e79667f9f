"""Trimming: the same ids, renumbered, for each kind of tokenizer; the same rows; the command from end to end."""

import dataclasses
import functools
import itertools
import json
import pathlib
import tempfile
import types

import files
import jax
import numpy as np
import pytest
import samples
import sentencepieces
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts import cli, miniworld, tasks
from jxstilts.checkpoint import leaves
from jxstilts.data import tokenizer as tokenizers
from jxstilts.data import trimming
from jxstilts.data.sentencepiece_model import BYTES
from jxstilts.eval.trim import Comparison
from jxstilts.models import bundle
from jxstilts.models import trimming as rows
from jxstilts.models.heads.embedding import EmbeddingSpec, Recipe
from jxstilts.models.huggingface import Loaded
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError

MICRO = pathlib.Path(miniworld.__file__).parent / "micro"
PREFIX = "ερετε "  # before each sentence of the recipe; no other text of its letters is kept
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
WORDS = sorted({word for text in samples.TEXTS for word in text.split()})


# --- tokenizers ------------------------------------------------------------------------------------------------------


def of_backend(backend, roles=tokenizers.SPECIAL):
    """A tokenizer of a library object: written and read, as any other."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizers.save(tokenizers.Tokenizer(backend, roles), folder)
        return tokenizers.load(folder)


def of_model(data: bytes, **config):
    """The tokenizer of a SentencePiece model."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "sentencepiece.bpe.model").write_bytes(data)
        pathlib.Path(folder, "tokenizer_config.json").write_text(json.dumps(config))
        return tokenizers.load(folder)


def of_words(*words):
    """BERT's tokenizer of a vocab.txt."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "vocab.txt").write_text("".join(f"{word}\n" for word in words))
        return tokenizers.load(folder)


def word_pieces():
    import tokenizers as library
    from tokenizers import models, normalizers, pre_tokenizers, trainers

    learned = library.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learned.normalizer, learned.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    learned.train_from_iterator(samples.TEXTS, trainers.WordPieceTrainer(vocab_size=380, special_tokens=special))
    vocabulary = learned.get_vocab()
    single = [word for word in vocabulary if word.startswith("##") and len(word) == 3]
    for word in sorted(single)[::3]:  # so that some words come to a dead end
        del vocabulary[word]
    return of_words(*sorted(vocabulary, key=lambda word: (word in special, vocabulary[word])))


def byte_pairs():
    import tokenizers as library
    from tokenizers import models, pre_tokenizers, processors, trainers

    learned = library.Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[*SPECIAL, "<mask>"], initial_alphabet=alphabet)
    learned.train_from_iterator(samples.TEXTS, trainer)
    stored = json.loads(learned.to_str())["model"]
    pieces = sorted(stored["vocab"], key=lambda piece: (piece in SPECIAL, stored["vocab"][piece]))  # special ones last
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    backend = library.Tokenizer(models.BPE(vocabulary, [tuple(merge) for merge in stored["merges"]]))
    backend.pre_tokenizer = learned.pre_tokenizer
    ends = (("</s>", vocabulary["</s>"]), ("<s>", vocabulary["<s>"]))
    backend.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), processors.RobertaProcessing(*ends)]
    )
    backend.add_special_tokens([*SPECIAL, "<mask>"])
    return of_backend(backend)


def falling_back(ignore_merges: bool):
    """BPE with pieces for bytes, for half of the letters, and unused tokens between."""
    import tokenizers as library
    from tokenizers import models

    stored = json.loads(samples.small_tokenizer("bpe").backend_tokenizer.to_str())
    letters = {piece for piece in stored["model"]["vocab"] if len(piece) == 1 and ord(piece) % 2}
    pieces = [p for p in stored["model"]["vocab"] if p not in SPECIAL and not set(p) & letters]
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL, *sorted(BYTES), "<mask>", "<unused>", *pieces])}
    merges = [tuple(merge) for merge in stored["model"]["merges"] if "".join(merge) in vocabulary]
    backend = library.Tokenizer.from_str(json.dumps(stored | {"added_tokens": [], "post_processor": None}))
    backend.model = models.BPE(
        vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True, ignore_merges=ignore_merges
    )
    backend.add_special_tokens([*SPECIAL, "<mask>", "<unused>"])
    return of_backend(backend)


SMALL = {"character_coverage": 0.98}  # some characters have no piece
KINDS = {
    "bpe": lambda: samples.small_tokenizer("bpe"),
    "bytes": byte_pairs,
    "fallback": lambda: falling_back(False),
    "ignore_merges": lambda: falling_back(True),
    "unigram": lambda: samples.small_tokenizer("unigram"),
    "sentencepiece": lambda: of_model(sentencepieces.trained(**SMALL, user_defined_symbols="[URL],cat")),
    "sentencepiece_bytes": lambda: of_model(sentencepieces.trained(**SMALL, byte_fallback=True, vocab_size=600)),
    "wordpiece": word_pieces,
}  # fmt: skip
make = functools.cache(lambda kind: KINDS[kind]())


def trim(tokenizer, texts):
    needed = trimming.Needed(tokenizer)
    needed.add(texts, tokenizer.encoder(texts, True))
    with tempfile.TemporaryDirectory() as folder:
        return trimming.write(needed, pathlib.Path(folder))


def split(tokenizer, texts):
    flat, offsets = tokenizers.encode(tokenizer, texts)
    return [flat[a:b].tolist() for a, b in itertools.pairwise(offsets)]


# --- ids -------------------------------------------------------------------------------------------------------------

word = st.sampled_from(WORDS) | st.text(alphabet="".join(sorted(set("".join(samples.TEXTS)))) + "ᚠ[", max_size=6)
text = st.lists(word | st.sampled_from(["[URL]", "cat", "</s>", "x" * 120]), max_size=8).map(" ".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None)
@given(kept=st.lists(text, min_size=1, max_size=6), others=st.lists(text, max_size=30), order=st.randoms())
def test_ids_are_the_old_ones_renumbered(kind, kept, others, order):
    """Of the texts, of texts of their words, and of any other text that needs no piece that is gone."""
    tokenizer = make(kind)
    smaller, old = trim(tokenizer, kept)
    assert (np.diff(old) > 0).all() and len(smaller) == len(old) <= len(tokenizer)
    Comparison(smaller, old)(kept, True, tokenizer.encoder(kept, True))
    words = [each for line in kept for each in line.split()]
    order.shuffle(words)
    shuffled = [" ".join(words[i : i + 4]) for i in range(0, len(words), 4)]
    gone = set(range(len(tokenizer))) - set(old.tolist())
    for line, before in zip(shuffled + others, split(tokenizer, shuffled + others), strict=True):
        (after,) = split(smaller, [line])
        if not gone & set(before) and (kind != "wordpiece" or tokenizer.unk_token_id not in before):
            assert old[after].tolist() == before
        elif gone & set(before):
            assert old[after].tolist() != before
    for role in tokenizers.SPECIAL:
        number = getattr(smaller, f"{role}_id")
        assert getattr(smaller, role) == getattr(tokenizer, role)
        assert number is None or old[number] == getattr(tokenizer, f"{role}_id")
    ends = [found.backend_tokenizer.encode("").ids for found in (smaller, tokenizer)]
    assert old[ends[0]].tolist() == ends[1]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_smaller_and_a_text_that_it_was_not_trimmed_for_is_named(kind):
    tokenizer, kept = make(kind), list(samples.TEXTS[:3])
    smaller, old = trim(tokenizer, kept)
    assert len(smaller) < 0.9 * len(tokenizer)
    check, line = Comparison(smaller, old), samples.TEXTS[5]
    check(kept, False, tokenizer.encoder(kept, False))
    assert check.texts == 3
    with pytest.raises(InputError, match=f"cannot be trimmed.*{line[:20]}"):
        check([*kept, line], False, tokenizer.encoder([*kept, line], False))
    again, same = trim(smaller, kept)
    assert len(again) == len(smaller) and tokenizers.fingerprint(again) == tokenizers.fingerprint(smaller)
    assert same.tolist() == list(range(len(smaller)))


def test_a_word_at_a_dead_end_stays_unknown():
    """Without the longer piece that led there, two shorter ones would spell the word."""
    tokenizer = of_words("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "ab", "##bc", "x")
    smaller, old = trim(tokenizer, ["abc", "x a", "x ##bc"])
    assert split(smaller, ["abc"]) == [[1]] and "ab" in smaller.get_vocab()
    unprotected = trimming.Needed(tokenizer)
    unprotected.used[[tokenizer.backend_tokenizer.token_to_id(piece) for piece in ("a", "##bc")]] = True
    with tempfile.TemporaryDirectory() as folder:
        smaller, old = trimming.write(unprotected, pathlib.Path(folder))
    assert split(smaller, ["abc"]) != [[1]]
    with pytest.raises(InputError, match="cuts 'abc' otherwise"):
        Comparison(smaller, old)(["x", "abc"], True, tokenizer.encoder(["x", "abc"], True))


def test_the_score_of_what_is_unknown_does_not_change():
    """It is the lowest score less 10: "cd", -25, beats the unknown c and d only while a piece has -30."""
    data = sentencepieces.model(
        pieces=[("▁", -1.0, 1), ("c", -12.0, 1), ("d", -12.0, 1), ("▁cz", -30.0, 1), ("ez", -25.0, 1), ("z", -1.0, 1)]
    )
    tokenizer = of_model(data)
    smaller, old = trim(tokenizer, ["c ez"])
    assert "▁cz" in smaller.get_vocab()
    assert [old[row].tolist() for row in split(smaller, ["c ez", "ez"])] == split(tokenizer, ["c ez", "ez"])


def test_the_score_of_a_piece_of_the_users_own_does_not_change():
    """It counts from the highest score: "cat" beats "ca" and "t" only while a piece has -0.1."""
    pieces = [
        ("▁", -1.0, 1),
        ("cat", 0.0, sentencepieces.USER_DEFINED),
        ("ca", -1.2, 1),
        ("t", -1.2, 1),
        ("z", -0.1, 1),
    ]
    tokenizer = of_model(sentencepieces.model(pieces=pieces))
    smaller, old = trim(tokenizer, ["ca t"])
    assert "z" in smaller.get_vocab()
    assert (
        [old[row].tolist() for row in split(smaller, ["cat"])] == split(tokenizer, ["cat"]) != split(tokenizer, ["ca"])
    )


def test_a_piece_of_other_characters_is_another_one():
    tokenizer, lines = make("unigram"), list(samples.TEXTS[:2])
    found = tokenizer.encoder(lines, True)
    moved = types.SimpleNamespace(
        encoder=lambda texts, spans: found._replace(end=found.end + (found.ids == found.ids[-1]))
    )
    check = Comparison(moved, np.arange(len(tokenizer)))
    check(lines, False, found)
    with pytest.raises(InputError, match="cuts 'In 1889 the tower"):
        check(lines, True, found)


def test_other_kinds_are_refused():
    import tokenizers as library
    from tokenizers import models

    words = library.Tokenizer(models.WordLevel({token: i for i, token in enumerate(SPECIAL)}, unk_token="<unk>"))
    suffixed = library.Tokenizer(
        models.BPE({token: i for i, token in enumerate(SPECIAL)}, [], unk_token="<unk>", end_of_word_suffix="</w>")
    )
    for backend in (words, suffixed):
        with pytest.raises(InputError, match="only tokenizers of the kinds Unigram, BPE, WordPiece"):
            trimming.Needed(tokenizers.Tokenizer(backend, tokenizers.SPECIAL))


# --- rows ------------------------------------------------------------------------------------------------------------


def random(model: Model) -> Loaded:
    """The model with parameters that are all different."""
    draw = np.random.default_rng(0)
    return Loaded(
        model, jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(np.float32), model.abstract()[0])
    )


@pytest.mark.parametrize("family, pad", [("xlmr", 1), ("bert", 3), ("modernbert", 3)])
def test_rows_of_the_kept_ids(family, pad):
    """Embeddings and the masked words' biases; positions, which may count from the padding's id, stay as they are."""
    specs = (HeadSpec("words", "mlm"), HeadSpec("nli", "classification", ("a", "b")))
    model = Model(make_config(family, "tiny", vocab_size=90, pad_id=pad), specs, family=family)
    fixed = rows.fixed_ids(model, 80)
    assert fixed == ([0, 1] if family == "xlmr" else [3])
    kept = np.array(sorted({*fixed, 0, 2, 5, 40, 41, 79}))
    loaded = random(model)
    small = rows.pick(loaded, kept)
    assert small.model.config.vocab_size == len(kept) and kept[small.model.config.pad_id] == pad
    assert small.model.config.first_position == model.config.first_position
    before, after = leaves(loaded.params), leaves(small.params)
    picked = {path for path, leaf in before.items() if 90 in leaf.shape}
    assert picked == {"encoder/embeddings/tokens", "heads/words/bias"}
    for path, leaf in before.items():
        np.testing.assert_array_equal(after[path], leaf[kept] if path in picked else leaf)


def test_rows_of_unknown_meaning_and_a_foreign_padding_are_refused():
    model = Model(make_config("bert", "tiny", vocab_size=90, pad_id=85), family="bert")
    with pytest.raises(InputError, match=r"pad_id=85 .* none of the tokenizer's 80 ids"):
        rows.fixed_ids(model, 80)
    loaded = random(model)
    with pytest.raises(InputError, match="extra/words/bias"):
        rows.pick(
            dataclasses.replace(loaded, params=loaded.params | {"extra": {"words": {"bias": np.zeros(90)}}}),
            np.arange(86),
        )


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data_dir(world, tmp_path_factory):
    patterns = ("xnli/*-[de][en].tsv", "xquad/xquad.[de][en].json", "tatoeba/tatoeba.deu-*", "udpos/test-[de][enl].tsv")
    return files.part(world, tmp_path_factory.mktemp("data"), *(f"xtreme/{pattern}" for pattern in patterns))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The micro encoder with heads for sentence pairs and spans, and a recipe with a prefix in another language."""
    loaded = bundle.load(MICRO)
    recipe = EmbeddingSpec("embedding", "embedding", recipe=Recipe(prefix=PREFIX))
    heads = (HeadSpec("nli", "classification", tasks.get("mnli").labels), HeadSpec("qa", "span"), recipe)
    whole = loaded.model.with_heads(*heads)
    folder = tmp_path_factory.mktemp("model") / "bundle"
    params = loaded.params | {"heads": random(whole).params["heads"]}
    bundle.save(folder, whole, params, tokenizer_files=loaded.tokenizer_dir, provenance={"source": "micro"})
    return folder


def run(capsys, *arguments, code=0):
    found = cli.main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    assert found == code and "Traceback" not in err, err
    return out if code == 0 else err


WHICH = ("--tasks=xnli,xquad,tatoeba,udpos", "--languages=en,de")


def test_a_trimmed_model_is_evaluated_to_the_same_values(model, data_dir, tmp_path, capsys):
    target = tmp_path / "small"
    out = run(capsys, "trim", model, target, f"--data_dir={data_dir}", *WHICH)
    whole, small = bundle.load(model), bundle.load(target)
    size, before = small.model.config.vocab_size, whole.model.config.vocab_size
    assert f"{size:,} of {before:,} rows kept" in out and size < 0.6 * before
    assert "other languages of these tasks: 100.0 % of 30 (el 100.0)" in out
    assert "other tasks in these languages: none in the data folder" in out
    assert len(tokenizers.load(small.tokenizer_dir)) == size
    pieces = [
        [found.backend_tokenizer.id_to_token(i) for i in samples.ids(found, f"{PREFIX}aus")]
        for found in map(tokenizers.load, (whole.tokenizer_dir, small.tokenizer_dir))
    ]
    assert pieces[0] == pieces[1] and "<unk>" not in pieces[0]
    record = small.meta["provenance"]["trimmed"]
    assert record["sha256"] == whole.meta["sha256"] and (record["rows"], record["kept"]) == (before, size)
    assert small.meta["provenance"]["source"] == "micro" and record["languages"] == ["de", "en"]
    assert small.model.head_specs == whole.model.head_specs
    results = []
    for place, path in enumerate((model, target)):
        folder = tmp_path / str(place)
        run(
            capsys, "evaluate", f"--model={path}", f"--data_dir={data_dir}", f"--out={folder}",
            "--tasks=xquad,tatoeba", "--languages=de", "--tokens_per_batch=512", "--max_length=96",
        )  # fmt: skip
        lines = map(json.loads, (folder / "results.jsonl").read_text().splitlines())
        values = {(row["task"], row["language"], row["metric"]): row["value"] for row in lines}
        predictions = {file.relative_to(folder): file.read_bytes() for file in folder.glob("predictions/*/*/*")}
        results.append((values, predictions))
    assert results[0] == results[1] and len({task for task, _, _ in results[0][0]}) == 2


@pytest.mark.parametrize(
    "options, message",
    [
        (("--tasks=xnlo", "--languages=en"), "--tasks: unknown task 'xnlo'; did you mean 'xnli'?"),
        (("--tasks=xnli", "--languages=ed"), "--languages: unknown language of these tasks 'ed'"),
        (("--tasks=xnli", "--languages=en,th"), "has no text of th"),
        (("--tasks=xnli,panx", "--languages=en"), "has no text of panx"),
        (("--tasks=xtreme,xnli",), "one benchmark (xtreme) alone"),
        (("--tasks=xtreme", "--data_dir=nowhere"), "--data_dir=nowhere: no such folder"),
        (("--tasks=,",), "--tasks is empty"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(model, data_dir, tmp_path, capsys, options, message):
    error = run(capsys, "trim", model, tmp_path / "small", f"--data_dir={data_dir}", *options, code=2)
    assert message in error.splitlines()[-1] and error.splitlines()[-1].startswith("jxstilts: error: ")
    assert not list(tmp_path.iterdir())


def test_an_existing_bundle_is_replaced_only_when_asked(model, data_dir, tmp_path, capsys):
    arguments = ("trim", model, tmp_path / "small", f"--data_dir={data_dir}", "--tasks=tatoeba", "--languages=de")
    run(capsys, *arguments)
    assert "exists; give another target" in run(capsys, *arguments, code=2)
    assert "rows kept" in run(capsys, *arguments, "--force")
