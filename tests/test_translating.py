"""Token embeddings from translations: the rule by hand, the rows that stay, the command from end to end."""

import pathlib
import re

import numpy as np
import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st
from test_trim import make, of_words

from jxstilts import cli, miniworld
from jxstilts.checkpoint import digests, leaves
from jxstilts.data import tokenizer as tokenizers
from jxstilts.eval.evaluator import Evaluator
from jxstilts.miniworld import languages, lexicon
from jxstilts.models import bundle, translating
from jxstilts.models.model import Model, families, make_config

MICRO = pathlib.Path(miniworld.__file__).parent / "micro"


def run(capsys, *arguments, code=0):
    found = cli.main(["translate_embeddings", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert found == code and "Traceback" not in err, err
    return out if code == 0 else err.splitlines()[-1]


def written(path, *pairs):
    path.write_text("".join("\t".join(pair) + "\n" for pair in pairs), encoding="utf-8")
    return path


# --- the rule ---------------------------------------------------------------------------------------------------------


def test_by_hand():
    """Piece 5 is all of one word and a third of another: weights 1 and 1/3."""
    table = np.arange(20.0).reshape(10, 2)  # row r: (2 r, 2 r + 1)
    words = [np.array([5]), np.array([5, 6, 6])]
    translations = [np.array([1]), np.array([2, 3])]  # means (2, 3) and (5, 6)
    ids, rows = translating.means(table, words, translations)
    assert ids.tolist() == [5, 6]
    np.testing.assert_allclose(rows, [[(2 + 5 / 3) / (4 / 3), (3 + 6 / 3) / (4 / 3)], [5, 6]])


pieces = st.lists(st.integers(0, 11), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(pieces, pieces), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_the_rule_piece_by_piece(pairs, seed):
    """As the equation reads; and the order of the pairs is of no account."""
    table = np.random.default_rng(seed).normal(size=(12, 3)).astype(np.float32)
    sides = [[np.array(each) for each in side] for side in zip(*pairs, strict=True)]
    ids, rows = translating.means(table, *sides)
    assert ids.tolist() == sorted({piece for word, _ in pairs for piece in word})
    for piece, row in zip(ids.tolist(), rows, strict=True):
        shares = [word.count(piece) / len(word) for word, _ in pairs]
        means = [sum(table[q].astype(np.float64) for q in other) / len(other) for _, other in pairs]
        expected = sum(c * m for c, m in zip(shares, means, strict=True)) / sum(shares)
        np.testing.assert_allclose(row, expected, rtol=1e-12, atol=1e-12)
    again = translating.means(table, *([side[i] for i in range(len(side))][::-1] for side in sides))
    np.testing.assert_allclose(again[1], rows, rtol=1e-12, atol=1e-12)


# --- rows that stay ---------------------------------------------------------------------------------------------------


def why(tokenizer, words, translations, kept=()):
    """Returns {piece of the words: why it stays}."""
    own, others = translating.encode(tokenizer, words), translating.encode(tokenizer, translations)
    ids = np.unique(np.concatenate(own))
    found = translating.staying(tokenizer, ids, others, tokenizers.encode(tokenizer, list(kept))[0])
    return dict(zip(map(tokenizer.backend_tokenizer.id_to_token, ids.tolist()), found, strict=True))


def test_what_other_text_reads_stays():
    tokenizer = of_words("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "paka", "##ni", "##s", "mbwa", "-", "1")
    found = why(tokenizer, ["pakani", "mbwa-1", "mbwas"], ["dogs", "dog"], ["a mbwa"])
    assert found == {
        "paka": "", "##ni": "", "mbwa": "in the text of --keep", "##s": "in translations", "-": "without a letter",
        "1": "without a letter",
    }  # fmt: skip


def test_parts_of_characters_and_the_bare_beginning_of_a_word_stay():
    """A character that is no piece is spelled with pieces for bytes, of which others are made too."""
    assert why(samples.small_tokenizer("unigram"), ["שζ"], ["the"])["▁"] == "without a letter"
    found = why(make("fallback"), ["ɮtower"], ["the"])
    assert found["<0xC9>"] == found["<0xAE>"] == "without a letter" and "" in found.values()
    found = why(make("bytes"), ["ɮ"], ["the"])
    assert len(found) >= 2 and set(found.values()) == {"without a letter"}


def test_a_word_stands_after_a_blank():
    """In byte-level BPE a word at the beginning of a text has other pieces than within."""
    (own,) = translating.encode(make("bytes"), ["tower"])
    assert make("bytes").backend_tokenizer.id_to_token(own[0]).startswith("Ġ")
    for kind in ("unigram", "bpe", "wordpiece", "sentencepiece"):
        bare = np.split(*(lambda ids, at: (ids, at[1:-1]))(*tokenizers.encode(make(kind), ["tower", "ζ"])))
        for one, other in zip(translating.encode(make(kind), ["tower", "ζ"]), bare, strict=True):
            np.testing.assert_array_equal(one, other)


def test_every_family_has_the_table():
    for family in families():
        assert translating.TABLE in leaves(Model(make_config(family, "tiny"), family=family).abstract()[0]), family


# --- the command ------------------------------------------------------------------------------------------------------


def greek():
    """Pairs of the miniature world's Greek; whole words of the language, without affixes."""
    (language,) = (each for each in languages.INVENTED if each.code == "el")
    words = lexicon.Lexicon(language, 0).words
    return [(word, concept) for concept, word in words.items() if word and "-" not in word]


def test_the_command(tmp_path, capsys):
    """The rows of the words' pieces are those of the rule, all else is the same to the bit; English reads as before."""
    pairs = written(tmp_path / "el.tsv", *greek())
    kept = tmp_path / "kept.txt"
    kept.write_text("βαμε dog\n", encoding="utf-8")
    said = run(capsys, MICRO, tmp_path / "b", f"--pairs={pairs}", f"--keep={kept}")
    before, after = bundle.load(MICRO), bundle.load(tmp_path / "b")
    tokenizer = tokenizers.load(after.tokenizer_dir)
    assert after.model == before.model
    assert tokenizers.fingerprint(tokenizer) == tokenizers.fingerprint(tokenizers.load(before.tokenizer_dir))
    old, new = (np.asarray(leaves(each.params)[translating.TABLE]) for each in (before, after))
    changed = np.flatnonzero((old != new).any(1))
    parts = {word: tokenizers.encode(tokenizer, [word])[0] for word, _ in greek()}
    english = np.unique(tokenizers.encode(tokenizer, [concept for _, concept in greek()])[0])
    stays = {*english.tolist(), *tokenizers.encode(tokenizer, ["βαμε"])[0].tolist()}
    assert changed.tolist() == sorted({int(i) for own in parts.values() for i in own} - stays)
    assert f"{len(changed):,} of 2,379 rows set, from " in said and "1 in the text of --keep" in said
    word, concept = greek()[0]
    (place,) = parts[word]
    assert sum(place in own for own in parts.values()) == 1
    np.testing.assert_array_equal(new[place], old[translating.encode(tokenizer, [concept])[0]].mean(0))
    both = [digests(each.params) for each in (before, after)]
    assert {path for path in both[0] if both[0][path] != both[1][path]} == {translating.TABLE}
    assert after.meta["provenance"]["translated"]["rows"] == len(changed)

    texts = [{"id": "0", "text": "the dog sees the cat ."}, {"id": "1", "text": f"{word} ."}]
    own, other = (Evaluator(each.model, each.params, tokenizer).embed(texts) for each in (before, after))
    np.testing.assert_array_equal(own[:, 0], other[:, 0])
    assert np.isfinite(other).all() and (own[:, 1] != other[:, 1]).any(-1).all()
    assert "exists; give another target" in run(capsys, MICRO, tmp_path / "b", f"--pairs={pairs}", code=2)


@settings(max_examples=5, deadline=None)
@given(st.lists(st.sampled_from([concept for _, concept in greek()]), min_size=1, max_size=20))
def test_pairs_of_a_word_and_itself_change_nothing(tmp_path_factory, words):
    folder, said = tmp_path_factory.mktemp("same"), []
    pairs = written(folder / "same.tsv", *((word, word) for word in words))
    sha = translating.translate(MICRO, folder / "b", pairs, say=said.append)
    assert sha == bundle.read_meta(MICRO)["sha256"] and "0 of 2,379 rows set, from 0 of " in said[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("βαμε", "cat"), ("βαμε",)], r"el\.tsv:2: 'βαμε': expected two columns"),
    ],
)
def test_wrong_pairs(tmp_path, capsys, rows, message):
    pairs = written(tmp_path / "el.tsv", *rows)
    error = run(capsys, MICRO, tmp_path / "b", f"--pairs={pairs}", code=2)
    assert re.search(message, error), error
    assert not (tmp_path / "b").exists()


def test_unknown_characters_and_files_that_are_not_there(tmp_path, capsys):
    pairs = written(tmp_path / "el.tsv", ("βαμε", "cat"), ("ᚠᚢ", "dog"), ("βαμεᚠ", "dog"))
    said = run(capsys, MICRO, tmp_path / "b", f"--pairs={pairs}")
    assert "words with characters that the tokenizer does not know, which stay unknown: 2 (ᚠᚢ, βαμεᚠ)" in said
    error = run(capsys, MICRO, tmp_path / "c", f"--pairs={pairs}", f"--keep={tmp_path}/none.txt", code=2)
    assert "none.txt: cannot be read" in error
    model = samples.tiny_bundle(tmp_path / "m", of_words("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat"))
    pairs = written(tmp_path / "el.tsv", ("βαμε", "cat"), ("cat", "dog"))
    error = run(capsys, model, tmp_path / "c", f"--pairs={pairs}", code=2)
    assert f"el.tsv: in no pair the tokenizer of {model} has a piece for both words" in error
