"""Token embeddings of a language that a model has not seen, from those of translations into a language that it knows.

The idea is TET of BhashaSetu (arXiv 2602.05599). The rule here, of the pairs i of a word and its translation:

    e'(p) = sum_i c_i(p) m_i / sum_i c_i(p)      c_i(p) = n_i(p) / |w_i|      m_i = 1 / |t_i| sum_{q in t_i} e(q)

w_i and t_i are the pieces of the word and of its translation, n_i(p) counts the piece p in w_i, and every e is the
embedding that the model had before. So a piece gets the mean of the translations of all words in which it stands, and
a piece that is a whole word counts more than one of several.

A row serves every language whose text has the piece, so some rows stay as they are (`staying`).
"""

import json
import pathlib
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

from jxstilts.checkpoint import leaves, nested
from jxstilts.data import tokenizer as tokenizers
from jxstilts.data.sentencepiece_model import BYTES
from jxstilts.models import bundle
from jxstilts.models.checks import check_vocabulary
from jxstilts.readers import read_lines
from jxstilts.runtime import InputError, sha256_file
from jxstilts.tasks import word_pairs

TABLE = "encoder/embeddings/tokens"
SHOWN = 5  # words that the report names


def translate(
    source: str, target: str, pairs: str, keep: Sequence[str] = (), say: Callable[[str], None] = print
) -> str:
    """Writes the bundle `target`: the model `source` with new rows for the pieces of the words of a file of pairs.

    Args:
        source: a bundle, a Hugging Face folder or a hub id.
        pairs: a file of word TAB translation, a pair a line, as the task word_pairs reads it.
        keep: files of text whose pieces keep their rows.
        say: is handed the lines of the report.
    Returns: the SHA-256 of the parameters. Raises InputError for a file that cannot be read, no pair with pieces on
        both sides, and a model without a tokenizer or a table of token embeddings; then nothing is written.
    """
    files = [pathlib.Path(each).expanduser() for each in (pairs, *keep)]
    rows, lines = word_pairs.read(files[0]), [line for file in files[1:] for line in read_lines(file)]
    loaded = bundle.load(source)
    tokenizer, flat = tokenizers.load(loaded.tokenizer_dir), leaves(loaded.params)
    check_vocabulary(loaded.model.config, tokenizer, source)
    if TABLE not in flat:
        raise InputError(f"{source}: a model of the family {loaded.model.family!r} has no token embeddings {TABLE}")
    words, translations = (encode(tokenizer, [row[key] for row in rows]) for key in ("query", "candidate"))
    strange = [row["query"] for row, own in zip(rows, words, strict=True) if tokenizer.unk_token_id in own]
    special = tokenizer.all_special_ids
    known = [[ids[~np.isin(ids, special)] for ids in side] for side in (words, translations)]
    both = [sides for sides in zip(*known, strict=True) if all(map(len, sides))]
    if not both:
        raise InputError(f"{files[0]}: in no pair the tokenizer of {source} has a piece for both words")
    words, translations = zip(*both, strict=True)
    ids, values = means(np.asarray(flat[TABLE]), words, translations)
    stay = staying(tokenizer, ids, translations, tokenizers.encode(tokenizer, lines)[0])
    changes = np.array([not why for why in stay])
    free, table = ids[changes], np.array(flat[TABLE])
    table[free] = values[changes].astype(table.dtype)
    record = {
        "model": str(source), "sha256": loaded.meta["sha256"], "pairs": sha256_file(files[0]),
        "keep": [sha256_file(file) for file in files[1:]], "rows": len(free),
    }  # fmt: skip
    sha = bundle.save(
        target, loaded.model, nested(flat | {TABLE: table}),
        tokenizer_files=loaded.tokenizer_dir, provenance={**loaded.meta["provenance"], "translated": record},
    )  # fmt: skip
    used = sum(bool(np.isin(own, free).any()) for own in words)
    say(f"{target}: {len(free):,} of {len(table):,} rows set, from {used:,} of {len(rows):,} pairs, sha256 {sha}")
    reasons = [f"{stay.count(why):,} {why}" for why in dict.fromkeys(filter(None, stay))]
    say(f"{len(ids):,} different pieces are in the words; as they were: {', '.join(reasons) or 'none'}")
    if len(both) < len(rows):
        say(f"pairs with a side that the tokenizer has no piece for, which say nothing: {len(rows) - len(both):,}")
    if strange:
        some = ", ".join(strange[:SHOWN]) + ", ..." * (len(strange) > SHOWN)
        say(f"words with characters that the tokenizer does not know, which stay unknown: {len(strange):,} ({some})")
    return sha


def encode(tokenizer: tokenizers.Tokenizer, words: Sequence[str]) -> list[np.ndarray]:
    """Returns the ids of each word's pieces, as it stands in a text after a blank."""
    ids, offsets = tokenizers.encode(tokenizer, [f" {word}" for word in words])
    return np.split(ids, offsets[1:-1])


def means(
    table: np.ndarray, words: Sequence[np.ndarray], translations: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (the ids of the words' pieces [n], ascending, their new rows float64 [n, D]) by the rule above.

    table: [V, D]. words, translations: of each pair the ids of the pieces, one or more.
    """
    vectors = np.stack([table[ids].mean(0, dtype=np.float64) for ids in translations])
    sizes = np.array([len(ids) for ids in words])
    ids, places = np.unique(np.concatenate(words), return_inverse=True)
    owner, weights = np.repeat(np.arange(len(words)), sizes), np.repeat(1 / sizes, sizes)
    sums, total = np.zeros((len(ids), table.shape[1])), np.zeros(len(ids))
    np.add.at(sums, places, vectors[owner] * weights[:, None])
    np.add.at(total, places, weights)
    return ids, sums / total[:, None]


def staying(
    tokenizer: tokenizers.Tokenizer, ids: np.ndarray, translations: Sequence[np.ndarray], kept: np.ndarray
) -> list[str]:
    """Returns of each of these pieces why its row stays as it is, "" where it is set.

    kept: ids of text that is to be read as before. Beside what that and the translations have, pieces without a letter
    stay, such as the bare mark of a word's beginning, and pieces for bytes, of which other characters are made too.
    """
    from tokenizers import decoders

    backend, known = tokenizer.backend_tokenizer, np.concatenate(translations)
    stored = json.loads(backend.to_str())
    parts = BYTES if stored["model"].get("byte_fallback") else ()
    of_bytes = '"ByteLevel"' in json.dumps(stored["pre_tokenizer"])
    found = []
    for number, translates, is_kept in zip(ids.tolist(), np.isin(ids, known), np.isin(ids, kept), strict=True):
        name = backend.id_to_token(number)
        bare = name in parts or not _has_letter(decoders.ByteLevel().decode([name]) if of_bytes else name)
        found.append(
            "in translations" if translates else "in the text of --keep" if is_kept else "without a letter" * bare
        )
    return found


def _has_letter(text: str) -> bool:
    """Is there a letter or a vowel sign? The sign for part of a character is none."""
    return any(unicodedata.category(character)[0] in "LM" for character in text)
