"""SentencePiece models: reading them with fairseq's ids, and the processor that gives SentencePiece's own ids.

A model is kept as a tokenizer of the library `tokenizers`, which `save`, the fingerprint and `transformers` need. That
library's ids are not always SentencePiece's: its `Precompiled` normaliser replaces whole grapheme clusters by the
shortest key that they begin with, where SentencePiece replaces the longest key at each place, and it splits words at
white space that SentencePiece keeps. So `processor` makes a SentencePiece model of such a tokenizer again.
Sources: SentencePiece (Kudo and Richardson, 2018), sentencepiece_model.proto.
"""

import base64
import json
import math
import pathlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jxstilts.data.vocabulary import FIRST, MASK, SPACE
from jxstilts.runtime import InputError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # SentencePiece.Type
HEAD = (("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL))  # pieces 0 to 2; fairseq has them elsewhere
BYTES = frozenset(f"<0x{value:02X}>" for value in range(256))
LARGEST = 3e38  # scores are float32
# A character map without a key: the double array's root and 255 empty units, then the (empty) texts.
NO_CHARACTERS = struct.pack("<I", 1024) + bytes(1025)


class Model(NamedTuple):
    """What decides the ids of a text: pieces by id (text, score, type), the normaliser's map, and settings."""

    pieces: list[tuple[str, float, int]]
    characters: bytes  # normalizer_spec.precompiled_charsmap
    dummy_prefix: bool = True
    join_blanks: bool = True  # remove_extra_whitespaces
    byte_fallback: bool = False


def read(file: pathlib.Path):
    """Returns a `tokenizers.Tokenizer` with fairseq's ids: <s> 0, <pad> 1, </s> 2, <unk> 3, else SentencePiece's + 1.

    <mask> comes last. Control and unused pieces, which no text gives, keep their places; one that has the name of
    another token, and each unused one, is named "PIECE ID" there. Raises InputError for what is no unigram model, and
    names the piece or the setting that has no such form.
    """
    import tokenizers
    from tokenizers import AddedToken, models

    try:
        model = _fairseq(parse(file.read_bytes()))
        vocabulary = [(piece, score) for piece, score, _ in model.pieces]
        unknown = FIRST.index("<unk>")
        backend = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=unknown, byte_fallback=model.byte_fallback))
        _set_steps(backend, model)
    except Exception as error:  # the library raises no less, and damaged bytes stand for anything
        raise InputError(f"{file}: not a SentencePiece unigram model ({error!s:.300})") from error
    kinds = {CONTROL: [], USER_DEFINED: []}
    for piece, _, kind in model.pieces:
        if kind in kinds and piece not in (*FIRST, MASK):
            kinds[kind].append(AddedToken(piece, normalized=False, special=kind == CONTROL))
    backend.add_special_tokens(kinds[CONTROL])
    backend.add_tokens(kinds[USER_DEFINED])
    return backend


def parse(data: bytes) -> Model:
    """Returns the model that a SentencePiece ModelProto holds, with SentencePiece's ids. Raises ValueError.

    Format: pieces = 1 (piece 1, score 2, type 3); trainer_spec = 2 (model_type 3, treat_whitespace_as_suffix 24,
    byte_fallback 35); normalizer_spec = 3 (precompiled_charsmap 2, add_dummy_prefix 3, remove_extra_whitespaces 4,
    escape_whitespaces 5). Read here, since damaged bytes must not reach the library.
    """
    pieces, trainer, normalizer = [], {}, {}
    for number, value in _protobuf(data):
        if number == 1:
            piece = dict(_protobuf(value))
            text, kind = piece[1].decode(), piece.get(3, NORMAL)
            score = struct.unpack("<f", piece.get(2, bytes(4)))[0]
            if not math.isfinite(score):
                raise ValueError(f"the score of a piece is {score}")
            if not NORMAL <= kind <= BYTE:
                raise ValueError(f"piece {len(pieces)}, {text!r:.60}, has the unknown type {kind}")
            pieces.append((text, score, kind))
        elif number in (2, 3):
            (trainer if number == 2 else normalizer).update(_protobuf(value))
    if trainer.get(3, 1) != 1:
        raise ValueError("its model_type is not unigram")
    if not pieces:
        raise ValueError("it holds no pieces")
    for settings, field, usual, name in (
        (trainer, 24, 0, "treat_whitespace_as_suffix=true"),
        (normalizer, 5, 1, "escape_whitespaces=false"),
    ):
        if settings.get(field, usual) != usual:
            raise ValueError(f"it is made with {name}, which is not supported")
    characters = normalizer.get(2, b"")
    if characters:
        check_characters(characters)
    return Model(
        pieces, characters or NO_CHARACTERS, normalizer.get(3, 1) != 0, normalizer.get(4, 1) != 0, bool(trainer.get(35))
    )


def _fairseq(model: Model) -> Model:
    """Returns the model with fairseq's first tokens, a mask, and pieces whose names are all different."""
    for place, expected in enumerate(HEAD):
        found = model.pieces[place] if place < len(model.pieces) else (None, 0.0, NORMAL)
        if (found[0], found[2]) != expected:
            raise ValueError(
                f"its piece {place} is {found[0]!r:.60}: expected {expected[0]} (pieces 0 to 2 are <unk>, <s> and "
                "</s>), since ids follow fairseq's order"
            )
    pieces = [(token, 0.0, UNKNOWN if token == "<unk>" else CONTROL) for token in FIRST]
    seen = {*FIRST, MASK}
    for place, (piece, score, kind) in enumerate(model.pieces[len(HEAD) :], len(HEAD)):
        if kind == UNUSED or (kind == CONTROL and piece in seen):
            piece, kind = f"{piece} {place + 1}", CONTROL  # no text gives a blank within a piece
        if not piece or "\0" in piece or kind == UNKNOWN or piece in seen:
            raise ValueError(
                f"its piece {place}, {piece!r:.60}, is empty, holds a zero, is a second unknown piece, or stands twice"
            )
        if (kind == BYTE) != (model.byte_fallback and piece in BYTES):
            raise ValueError(f"its piece {place}, {piece!r:.60}, is of a byte without byte_fallback, or the reverse")
        seen.add(piece)
        pieces.append((piece, score, kind))
    if model.byte_fallback and not seen >= BYTES:
        raise ValueError(f"byte_fallback without the piece {min(BYTES - seen)}")
    if all(kind != NORMAL for _, _, kind in pieces):
        raise ValueError("it holds no normal pieces")
    return model._replace(pieces=[*pieces, (MASK, 0.0, CONTROL)])


def _set_steps(backend, model: Model) -> None:
    from tokenizers import Regex, normalizers, pre_tokenizers

    whole = all(SPACE not in piece[1:] for piece, _, kind in model.pieces if kind == NORMAL)  # pieces end with words
    backend.normalizer = normalizers.Precompiled(model.characters)
    if whole and model.dummy_prefix and model.join_blanks:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
        )
        return
    if model.join_blanks:
        blanks = [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
        backend.normalizer = normalizers.Sequence([backend.normalizer, *blanks])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme="always" if model.dummy_prefix else "never", split=whole
    )


def processor(backend):
    """Returns a SentencePieceProcessor with the ids of a `tokenizers.Tokenizer`, or None.

    None unless it has the form of a SentencePiece model: unigram pieces, a `Precompiled` normaliser (beside it only
    ones that join or strip blanks), and `Metaspace`. Tokens of the vocabulary that stand in `added_tokens` are control
    pieces if they are special, else user-defined ones, as `transformers` writes them.
    """
    model = _of(backend)
    return None if model is None else _load(model)


def _of(backend) -> Model | None:
    if type(backend.model).__name__ != "Unigram" or backend.normalizer is None or backend.pre_tokenizer is None:
        return None
    normal = steps(backend.normalizer, "normalizers")
    cuts = steps(backend.pre_tokenizer, "pretokenizers")
    names = [step["type"] for step in normal]
    if names.count("Precompiled") != 1 or not {*names} <= {"Precompiled", "Replace", "Strip"}:
        return None
    joins = [step for step in normal if step["type"] == "Replace"]
    if any(step["pattern"] != {"Regex": " {2,}"} or step["content"] not in (" ", SPACE) for step in joins):
        return None
    if [step["type"] for step in cuts] not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        return None
    stored = json.loads(backend.to_str())
    vocabulary, unknown = stored["model"]["vocab"], stored["model"]["unk_id"]
    fallback = bool(stored["model"].get("byte_fallback"))
    names = {piece for piece, _ in vocabulary}
    odd = not all(abs(score) < LARGEST for _, score in vocabulary)
    odd |= len(names) != len(vocabulary) or "" in names or any("\0" in piece for piece in names)
    odd |= fallback and not names >= BYTES
    if odd or unknown is None or cuts[-1]["replacement"] != SPACE:
        return None
    added = {token["content"]: CONTROL if token["special"] else USER_DEFINED for token in stored["added_tokens"]}
    if fallback:
        added |= dict.fromkeys(BYTES, BYTE)
    pieces = [(piece, score, added.get(piece, NORMAL)) for piece, score in vocabulary]
    pieces[unknown] = (*pieces[unknown][:2], UNKNOWN)
    (characters,) = (base64.b64decode(step["precompiled_charsmap"]) for step in normal if step["type"] == "Precompiled")
    return Model(pieces, characters, cuts[-1]["prepend_scheme"] != "never", bool(joins) or len(cuts) == 2, fallback)


def steps(step, name: str) -> list[dict]:
    """Returns the library's normaliser or pre-tokenizer as JSON, a sequence as its members."""
    stored = json.loads(step.__getstate__())
    return stored[name] if stored["type"] == "Sequence" else [stored]


def check_characters(data: bytes) -> None:
    """Raises ValueError unless each step through a character map stays inside, and SentencePiece takes it.

    Format (SentencePiece's normalizer.cc): bytes of the double array, uint32; the array (darts-clone's units); texts,
    each with a zero byte at its end.
    """
    size = struct.unpack("<I", data[:4])[0] if len(data) >= 4 else 0
    texts = data[4 + size :]
    if size < 1024 or size % 1024 or not texts.endswith(b"\0"):
        raise ValueError("its precompiled_charsmap is damaged")
    units = np.frombuffer(data, "<u4", size // 4, 4).astype(np.int64)
    nodes = units < 1 << 31  # the others hold places of texts
    following = np.arange(len(units)) ^ ((units >> 10) << ((units & 1 << 9) >> 6))
    leaves = following[nodes & (units >> 8 & 1 == 1)]
    inside = (following[nodes] < len(units)).all()
    values = units[leaves] & 0x7FFFFFFF if inside else np.array([len(texts)])
    texts.decode()
    letters = np.frombuffer(texts, np.uint8)
    if (values >= len(texts)).any() or (letters[values] & 0xC0 == 0x80).any():
        raise ValueError("its precompiled_charsmap is damaged")
    try:
        _load(Model([("<unk>", 0.0, UNKNOWN), ("a", 0.0, NORMAL)], data))
    except RuntimeError as error:
        raise ValueError(f"its precompiled_charsmap is damaged: {error}") from error


def _load(model: Model):
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=_write(model))


def _write(model: Model) -> bytes:
    """Returns a SentencePiece ModelProto, as `parse` reads it."""
    scores = struct.pack(f"<{len(model.pieces)}f", *(score for _, score, _ in model.pieces))
    pieces = []
    for place, (piece, _, kind) in enumerate(model.pieces):
        text = piece.encode()
        head = b"\x0a" + _varint(len(text))
        size = _varint(len(head) + len(text) + 7)
        pieces.append(b"\x0a%b%b%b\x15%b\x18%c" % (size, head, text, scores[4 * place : 4 * place + 4], kind))
    trainer = b"\x18\x01" + b"\x98\x02" + bytes([model.byte_fallback])  # model_type, byte_fallback
    normalizer = b"\x18" + bytes([model.dummy_prefix]) + b"\x20" + bytes([model.join_blanks])
    if model.characters != NO_CHARACTERS:
        normalizer = b"\x12" + _varint(len(model.characters)) + model.characters + normalizer
    fields = (b"\x12", trainer), (b"\x1a", normalizer)
    return b"".join(pieces) + b"".join(tag + _varint(len(body)) + body for tag, body in fields)


def _varint(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _protobuf(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields (field number, value) of a protobuf message; sub-messages and fixed-width numbers as bytes."""

    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while data[at] & 0x80:
            value |= (data[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if shift > 63:
                raise ValueError("it is damaged")
        return value | data[at] << shift, at + 1

    at = 0
    while at < len(data):
        tag, at = varint(at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(at)
            yield tag >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            size, at = varint(at)
        if size is None or at + size > len(data):
            raise ValueError("it is damaged")
        yield tag >> 3, data[at : at + size]
        at += size
