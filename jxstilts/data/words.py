"""Tagging features: words to sub-words one word at a time, the tag on the first; long sentences cut or split."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from jxstilts.data.features import Features, constant, labelled
from jxstilts.data.ragged import join, offsets_of, spread
from jxstilts.data.tokenizer import encode
from jxstilts.runtime import InputError, suggest

LONG_SENTENCES = ("split", "truncate")
MAX_SUBWORDS = 100  # a word of more is taken for a mis-read URL and the like, and becomes one <unk> (protocol 3.5)


def features(
    examples: Sequence[Mapping], tokenizer, max_length: int, labels: Sequence[str], long_sentences: str
) -> Features:
    """See `tokenize.tokenize`."""
    if long_sentences not in LONG_SENTENCES:
        raise InputError(suggest("value of long_sentences", long_sentences, LONG_SENTENCES))
    room = max_length - 2
    if room < 1:
        raise InputError(f"max_length {max_length} leaves no room for words and 2 special tokens: give at least 3")
    tags = _tags(examples, labels)
    words = list(itertools.chain.from_iterable(example["words"] for example in examples))
    longest = MAX_SUBWORDS if long_sentences == "truncate" else min(MAX_SUBWORDS, room)
    subwords, word_at = _subwords(tokenizer, words, longest)

    # One row per sentence (its first word), then one per feature: words first[i]:first[i+1] of all words.
    sentence_at = offsets_of(np.array([len(example["words"]) for example in examples], np.int64))
    first, example = sentence_at[:-1], np.arange(len(examples))
    if long_sentences == "split":
        first, example = _split(sentence_at, word_at, room)
    first_token = word_at[np.append(first, len(words))]
    length = np.minimum(np.diff(first_token), room)
    cls, sep = constant(len(first), tokenizer.cls_token_id), constant(len(first), tokenizer.sep_token_id)
    tokens, offsets, begins = join((cls, (subwords, first_token[:-1], length), sep))

    # Where each word begins in its feature; a word whose first sub-word is cut off is in none.
    count = np.diff(np.append(first, len(words)))
    place = word_at[:-1] - np.repeat(first_token[:-1], count)
    shown = place < np.repeat(length, count)
    place = (place + np.repeat(offsets[:-1] + begins[1], count))[shown]
    number = spread(np.zeros(len(examples)), np.diff(sentence_at))
    token_fields = {}
    for name, value in (("word", number), ("tag", tags)):
        if value is not None:
            token_fields[name] = np.full(len(tokens), -1, np.int32)
            token_fields[name][place] = value[shown]
    return Features(tokens, offsets, {"example": example.astype(np.int32)}, token_fields)


def _tags(examples: Sequence[Mapping], labels: Sequence[str]) -> np.ndarray | None:
    """The label id of each word of all sentences, -1 for a tag that is no label; None without gold or labels."""
    if not labelled(examples, "tags") or not labels:
        return None
    for example in examples:
        if len(example["tags"]) != len(example["words"]):
            raise InputError(
                f"example {example['id']!r} has {len(example['words'])} words but {len(example['tags'])} tags"
            )
    ids = {label: number for number, label in enumerate(labels)}
    tags = itertools.chain.from_iterable(example["tags"] for example in examples)
    return np.fromiter((ids.get(tag, -1) for tag in tags), np.int64)


def _subwords(tokenizer, words: Sequence[str], longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns sub-words, int32 [M], and where those of each word begin, int64 [words + 1]: from 1 to `longest` each."""
    flat, offsets = encode(tokenizer, words)
    count = np.diff(offsets)
    odd = (count == 0) | (count > longest)
    unknown, zeros, one = constant(len(words), tokenizer.unk_token_id)
    flat, offsets, _ = join(((flat, offsets[:-1], np.where(odd, 0, count)), (unknown, zeros, np.where(odd, one, 0))))
    return flat, offsets


def _split(sentence_at: np.ndarray, word_at: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts sentences before each word that does not fit in `room` tokens any more.

    Returns the first word of each piece and its sentence, int64 [pieces]. No word has more than `room` tokens.
    """
    cuts = []
    pieces = np.ones(len(sentence_at) - 1, np.int64)
    for sentence in np.flatnonzero(np.diff(word_at[sentence_at]) > room).tolist():
        begin, end = sentence_at[sentence : sentence + 2].tolist()
        while word_at[end] - word_at[begin] > room:
            begin = int(np.searchsorted(word_at, word_at[begin] + room, side="right")) - 1
            cuts.append(begin)
            pieces[sentence] += 1
    first = np.sort(np.concatenate([sentence_at[:-1], np.array(cuts, np.int64)]))
    return first, np.repeat(np.arange(len(pieces)), pieces)
