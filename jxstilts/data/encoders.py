"""Texts to ids and character spans: by SentencePiece where the tokenizer is one of its models, else by `tokenizers`."""

import itertools
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jxstilts.data import sentencepiece_model
from jxstilts.data.ragged import offsets_of
from jxstilts.data.vocabulary import SPACE
from jxstilts.runtime import InputError

OTHER = "\ue000other"  # names what is no added token


class Encoded(NamedTuple):
    """The pieces of N texts, one text after the other: M in all."""

    ids: np.ndarray  # int32 [M]
    lengths: np.ndarray  # int64 [N]
    start: np.ndarray  # int32 [M] first character of the original text, or -1; of no meaning if not asked for
    end: np.ndarray  # int32 [M] one past the last character, or -1


def make(tokenizer):
    """Returns the function (texts, spans) -> Encoded of a tokenizer, see `tokenizer.encode`."""
    found = sentencepiece_model.processor(tokenizer.backend_tokenizer)
    return _Library(tokenizer) if found is None else _SentencePiece(tokenizer, found)


class _Library:
    """The library's own ids, but <unk> for what reads like a special token."""

    def __init__(self, tokenizer):
        self._backend = tokenizer.backend_tokenizer
        self._special = [i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id]
        self._unknown = tokenizer.unk_token_id
        self._space = self._backend.token_to_id(SPACE)
        self._composes = _composes(self._backend.normalizer)

    def __call__(self, texts: Sequence[str], spans: bool) -> Encoded:
        composed = [compose(text) if self._composes else (text, None) for text in texts]
        method = self._backend.encode_batch if spans else self._backend.encode_batch_fast
        encodings = _half(lambda: method([text for text, _ in composed], add_special_tokens=False), texts)
        ids = _flat(encoding.ids for encoding in encodings)
        boundary = ids == self._space if self._space is not None else np.zeros(len(ids), bool)
        ids[np.isin(ids, self._special)] = self._unknown
        lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
        if not spans or not encodings:
            return Encoded(ids, lengths, ids, ids)
        found = [
            _trim(text, origin, np.array(encoding.offsets, np.int32).reshape(-1, 2))
            for text, (_, origin), encoding in zip(texts, composed, encodings, strict=True)
        ]
        start, end = map(np.concatenate, zip(*found, strict=True))
        real = (start < end) & ~boundary
        return Encoded(ids, lengths, np.where(real, start, np.int32(-1)), np.where(real, end, np.int32(-1)))


class _SentencePiece:
    """SentencePiece's own ids; tokens added after its vocabulary are cut out of the text first, as in `transformers`.

    What reads like a special token is spelled with other pieces, as SentencePiece does.
    """

    def __init__(self, tokenizer, processor):
        self._processor = processor
        backend = tokenizer.backend_tokenizer
        added = backend.get_added_tokens_decoder()
        special = {*tokenizer.all_special_ids}
        self._added = [number for number in sorted(added) if number >= processor.vocab_size() and number not in special]
        self._cutter = _cutter(backend, [added[number] for number in self._added]) if self._added else None
        self._bytes = np.full(processor.vocab_size(), -1, np.int16)  # the byte that a piece stands for, or -1
        if processor.is_byte(processor.piece_to_id("<0x00>")):
            for place, piece in enumerate(sorted(sentencepiece_model.BYTES)):
                self._bytes[processor.piece_to_id(piece)] = place

    def __call__(self, texts: Sequence[str], spans: bool) -> Encoded:
        if self._cutter is None:
            return self._encode(list(texts), spans)
        return self._encode_between(texts, spans)

    def _encode(self, texts: list[str], spans: bool) -> Encoded:
        rows = _half(lambda: self._processor.encode(texts), texts)
        ids, lengths = _flat(rows), np.fromiter(map(len, rows), np.int64, len(rows))
        if not spans or not rows:
            return Encoded(ids, lengths, ids, ids)
        found = [
            self._spans(*parts)
            for parts in zip(
                texts,
                np.split(ids, np.cumsum(lengths)[:-1]),
                self._processor.encode(texts, out_type=str),
                self._processor.normalize(texts, with_offsets=True),
                strict=True,
            )
        ]
        start, end = map(np.concatenate, zip(*found, strict=True))
        return Encoded(ids, lengths, start, end)

    def _spans(self, text: str, ids: np.ndarray, pieces: list[str], normal: tuple) -> tuple[np.ndarray, np.ndarray]:
        """Returns starts and ends [M] of the pieces of a text; `normal`: its normal form, places in `text`."""
        if not pieces:
            return ids, ids
        normalized, origin = normal[0], np.array(normal[1], np.int32)
        sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
        byte = self._bytes[ids]
        following = np.append(byte[1:], -1)
        inner = (following >= 0x80) & (following < 0xC0)  # not a character's last byte
        sizes[byte >= 0] = ~inner[byte >= 0]
        bounds = offsets_of(sizes)
        first, last = bounds[:-1].copy(), bounds[1:] - 1
        last[byte >= 0] = first[byte >= 0]  # each byte stands for the whole character

        word = np.frombuffer(normalized.encode("utf-32-le"), np.uint32) != ord(SPACE)
        places = np.arange(len(word))
        first = np.minimum.accumulate(np.where(word, places, len(word))[::-1])[::-1][first]
        last = np.maximum.accumulate(np.where(word, places, -1))[last]
        real = first <= last
        start, at = origin[first], origin[last]
        end = origin[np.minimum(np.searchsorted(origin, at, side="right"), len(word))]
        for piece in np.flatnonzero(real & (end - at > 1)):  # characters that the normaliser drops are no part of it
            while end[piece] > at[piece] + 1 and not self._processor.normalize(text[end[piece] - 1]):
                end[piece] -= 1
        real &= start < end
        return np.where(real, start, np.int32(-1)), np.where(real, end, np.int32(-1))

    def _encode_between(self, texts: Sequence[str], spans: bool) -> Encoded:
        parts = []  # (text, begin, end, added token or -1): what lies between added tokens, and these, in order
        for place, cut in enumerate(_half(lambda: self._cutter.encode_batch(list(texts)), texts)):
            at = 0
            for number, (begin, end) in zip(cut.ids, cut.offsets, strict=True):
                if number:
                    parts += [(place, at, begin, -1), (place, begin, end, number - 1)]
                    at = end
            parts.append((place, at, len(texts[place]), -1))
        owner, begins, _, tokens = np.array(parts, np.int64).reshape(-1, 4).T
        strings = [texts[place][begin:end] for place, begin, end, _ in parts]
        encoded = self._encode([text if token < 0 else "" for text, token in zip(strings, tokens, strict=True)], spans)
        lengths = np.where(tokens < 0, encoded.lengths, 1)
        token = np.repeat(tokens, lengths)
        between = token < 0
        ids = np.array(self._added, np.int32)[token]
        ids[between] = encoded.ids
        sums = np.bincount(owner, lengths, len(texts)).astype(np.int64)
        if not spans:
            return Encoded(ids, sums, ids, ids)
        start, end = np.zeros(len(ids), np.int32), np.zeros(len(ids), np.int32)
        start[between], end[between] = encoded.start, encoded.end
        added = [text for text, token in zip(strings, tokens, strict=True) if token >= 0]
        start[~between] = [len(text) - len(text.lstrip()) for text in added]  # a token may take blanks beside it
        end[~between] = [len(text.rstrip()) for text in added]
        shift = np.where(start < 0, 0, np.repeat(begins, lengths)).astype(np.int32)
        return Encoded(ids, sums, start + shift, end + shift)


def _cutter(backend, added: list):
    """Returns a library tokenizer for which what is between added tokens is one token, 0; added ones count from 1."""
    import tokenizers
    from tokenizers import models

    cutter = tokenizers.Tokenizer(models.WordLevel({OTHER: 0}, unk_token=OTHER))
    cutter.normalizer = backend.normalizer
    cutter.add_tokens(added)
    return cutter


def _half(encode, texts: Sequence[str]):
    """Calls `encode`; raises InputError when a text holds a lone surrogate, which libraries refuse in their own way."""
    try:
        return encode()
    except (RuntimeError, TypeError, UnicodeError) as error:
        for text in texts:
            half = next((c for c in text if "\ud800" <= c <= "\udfff"), None) if isinstance(text, str) else None
            if half is not None:
                raise InputError(f"a text holds half a character, U+{ord(half):04X}: {text!r:.80}") from error
        raise


def _composes(normalizer) -> bool:
    """Whether a library normaliser begins with NFC or NFKC, so that composing a text before it changes nothing."""
    if normalizer is None:
        return False
    steps = [step["type"] for step in sentencepiece_model.steps(normalizer, "normalizers")]
    return next((step for step in steps if step != "Nmt"), None) in ("NFC", "NFKC")


def compose(text: str) -> tuple[str, np.ndarray | None]:
    """Joins base characters and the marks that follow them into single characters, left to right.

    The library's NFC and NFKC say of a composed character only where its base stood; on composed text they give the
    same ids, and spans with the marks. Unlike Unicode's NFC this does not reorder marks.
    Returns the text and int32 [len + 1], the place of each of its characters in the original; None if unchanged.
    """
    if unicodedata.is_normalized("NFC", text):
        return text, None
    characters: list[str] = []
    origin: list[int] = []
    for place, character in enumerate(text):
        if characters:
            joined = unicodedata.normalize("NFC", characters[-1] + character)
            if len(joined) == 1:
                characters[-1] = joined
                continue
        characters.append(character)
        origin.append(place)
    return "".join(characters), np.array([*origin, len(text)], np.int32)


def _trim(text: str, origin: np.ndarray | None, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns starts and ends [M] in the original text, past the blanks that a span begins with."""
    if origin is not None:
        spans = origin[spans]
    places = np.arange(len(text) + 1, dtype=np.int32)
    blank = np.fromiter((character.isspace() for character in text), bool, len(text))
    places[:-1][blank] = len(text)
    following = np.minimum.accumulate(places[::-1])[::-1]  # [len + 1] the next place that is not blank
    return following[spans[:, 0]], spans[:, 1]


def _flat(rows) -> np.ndarray:
    return np.fromiter(itertools.chain.from_iterable(rows), np.int32)
