"""SentencePiece models as bytes: written by hand as sentencepiece_model.proto says, trained, and edited."""

import functools
import io
import struct

import samples

from jxstilts.data import sentencepiece_model

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def field(number: int, value) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def piece(text: str, score: float, kind: int) -> bytes:
    return field(1, field(1, text.encode()) + field(2, score) + field(3, kind))


def model(pieces=("▁", "▁the", "king", "a", "e", "▁a", "中"), score=-1.0, trainer=b"", normalizer=b"") -> bytes:
    """A unigram model: pieces (normal ones as text, others as text, score, type), trainer_spec, normalizer_spec."""
    first = (("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL))
    rest = tuple((one, score, NORMAL) if isinstance(one, str) else one for one in pieces)
    body = b"".join(piece(*one) for one in (*first, *rest))
    return (
        body + field(2, field(3, 1) + field(4, 8000) + trainer) + field(3, field(1, b"nmt") + field(3, 1) + normalizer)
    )


@functools.cache
def trained(**options) -> bytes:
    """A small model of samples.TEXTS, by SentencePiece's trainer; lists as "a,b"."""
    import sentencepiece

    usual = {"model_type": "unigram", "vocab_size": 420, "normalization_rule_name": "nmt_nfkc", "num_threads": 1}
    usual |= {"minloglevel": 2, "hard_vocab_limit": False, "character_coverage": 1.0}
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(samples.TEXTS * 3), model_writer=out, **usual | options
    )
    return out.getvalue()


@functools.cache
def rule(name: str) -> bytes:
    """The character map of one of SentencePiece's normalisation rules."""
    return sentencepiece_model.parse(trained(normalization_rule_name=name)).characters


@functools.lru_cache(maxsize=8)
def processor(data: bytes):
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=data)


def expected(data: bytes, texts: list[str]) -> list[list[int]]:
    """fairseq's ids of texts, by SentencePiece: its own + 1, the unknown one 3."""
    found = processor(data)
    return [[3 if i == found.unk_id() else i + 1 for i in ids] for ids in found.encode(texts)]
