"""Tokenizers with XLM-R's conventions: loading, saving, the fingerprint that names caches, and encoding in bulk.

Ids: <s> 0, <pad> 1, </s> 2, <unk> 3, pieces, <mask> last. Sources: SentencePiece (Kudo and Richardson, 2018);
XLM-R's vocabulary (Conneau et al., 2020), whose ids are fairseq's: SentencePiece id + 1.
"""

import copy
import functools
import hashlib
import itertools
import json
import math
import os
import pathlib
import struct
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from jxstilts.data.ragged import offsets_of, spread
from jxstilts.data.vocabulary import FIRST, MASK, SPACE, learn
from jxstilts.runtime import InputError, atomic_write, sha256_file

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>"}
SPECIAL |= {"cls_token": "<s>", "mask_token": MASK}
CHUNK = 16_384  # texts encoded at once: the library's result objects are large


class Tokenizer:
    """A tokenizer of the library `tokenizers`, with the special tokens of XLM-R.

    Has `backend_tokenizer` (not to be changed, since `fingerprint` is computed once), `len()`, `all_special_ids`, and
    `bos_token`, `bos_token_id` and so on for each of SPECIAL (None where there is none). Anything else, calling it too,
    is done by the `transformers` fast tokenizer of the same content, `hugging_face`, made when it is first needed: that
    import takes half a second, which a run whose rows are cached would spend for nothing. All functions of this file
    take either.
    """

    def __init__(self, backend, special: Mapping[str, str]):
        self.backend_tokenizer = backend
        for role in SPECIAL:
            token = special.get(role)
            setattr(self, role, token)
            setattr(self, f"{role}_id", None if token is None else backend.token_to_id(token))
        found = (getattr(self, f"{role}_id") for role in SPECIAL)
        self.all_special_ids = list(dict.fromkeys(number for number in found if number is not None))

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=True)

    @functools.cached_property
    def fingerprint(self) -> str:
        return _sha256(self)

    @functools.cached_property
    def hugging_face(self):
        """The `transformers` fast tokenizer; changes to it are not seen here."""
        from transformers import PreTrainedTokenizerFast

        special = {role: getattr(self, role) for role in SPECIAL if getattr(self, role) is not None}
        _plain(self)
        return PreTrainedTokenizerFast(
            tokenizer_object=self.backend_tokenizer, clean_up_tokenization_spaces=False, **special
        )

    def __call__(self, *args, **options):
        return self.hugging_face(*args, **options)

    def __getattr__(self, name: str):
        if name.startswith("__"):  # of copying and pickling
            raise AttributeError(name)
        return getattr(self.hugging_face, name)


def load(path: str | os.PathLike) -> Tokenizer:
    """Returns the tokenizer of a folder (tokenizer.json, or a *.bpe.model) or of such a file.

    A bare SentencePiece model gets XLM-R's (fairseq's) ids. Reads local files only; raises InputError otherwise. As
    long as the files hold the same, the same object: reading XLM-R's takes seconds, and a run asks several times.
    """
    path = pathlib.Path(path).expanduser()
    file = path
    if path.is_dir():
        found = (path / "tokenizer.json", *sorted(path.glob("*.bpe.model")))
        file = next((file for file in found if file.is_file()), None)
    if file is None or not file.is_file() or file.suffix not in (".json", ".model"):
        raise InputError(f"{path}: no tokenizer here; give a folder with tokenizer.json or sentencepiece.bpe.model")
    parts = (file, file.with_name("tokenizer_config.json"))
    try:
        return _load(file, *(sha256_file(part) for part in parts if part.is_file()))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error}") from error


@functools.lru_cache(maxsize=2)
def _load(file: pathlib.Path, *digests: str) -> Tokenizer:
    return _from_sentencepiece(file) if file.suffix == ".model" else _from_json(file)


def train(texts: Iterable[str], vocab_size: int, *, model: str = "unigram", coverage: float = 0.9995) -> Tokenizer:
    """Trains a tokenizer with XLM-R's special tokens, ids and normalisation (NFKC, runs of blanks joined).

    `vocab_size` counts the special tokens; a small text gives fewer. `model`: "unigram" or "bpe". `coverage`: see
    `vocabulary.learn`. The same texts give the same tokenizer. Raises InputError if vocab_size is too small.
    """
    return _wrap(learn(texts, vocab_size, model=model, coverage=coverage))


def save(tokenizer, folder: str | os.PathLike) -> None:
    """Writes tokenizer.json and tokenizer_config.json, which `load` and Hugging Face's AutoTokenizer read."""
    full = tokenizer.hugging_face if isinstance(tokenizer, Tokenizer) else tokenizer
    _plain(full)
    full.save_pretrained(str(folder))
    config = pathlib.Path(folder) / "tokenizer_config.json"
    stored = json.loads(config.read_text())
    stored["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that releases before transformers 5 know too
    atomic_write(config, json.dumps(stored, indent=2, sort_keys=True) + "\n")


def fingerprint(tokenizer) -> str:
    """Returns a SHA-256, in hex, of all that decides the ids of a text."""
    return tokenizer.fingerprint if isinstance(tokenizer, Tokenizer) else _sha256(tokenizer)


def _sha256(tokenizer) -> str:
    return hashlib.sha256(_plain(tokenizer).to_str().encode()).hexdigest()


def encode(tokenizer, texts: Sequence[str], *, spans: bool = False) -> tuple[np.ndarray, ...]:
    """Encodes many texts without special tokens. N texts, M tokens in all.

    Returns tokens int32 [M], offsets int64 [N+1] (text i has tokens[offsets[i]:offsets[i+1]]), and with `spans` also
    char_start and char_end int32 [M]: the characters of the original text that a token stands for, without the blank
    before a word; (-1, -1) for a token that stands for none, such as a lone word boundary. What reads like a special
    token in a text ("</s>") becomes <unk>. Ids are those of SentencePiece, see `compose`.
    """
    backend = _plain(tokenizer)
    unique = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    tokens, lengths, starts, ends = [], [], [], []
    for chunk in _chunks(unique, CHUNK):
        composed = [compose(text) for text in chunk]
        method = backend.encode_batch if spans else backend.encode_batch_fast
        encodings = method([text for text, _ in composed], add_special_tokens=False)
        lengths += [len(encoding) for encoding in encodings]
        ids = np.fromiter(itertools.chain.from_iterable(encoding.ids for encoding in encodings), np.int32)
        tokens.append(ids)
        if spans:
            for text, (_, origin), encoding in zip(chunk, composed, encodings, strict=True):
                start, end = _trim(text, origin, np.array(encoding.offsets, np.int32).reshape(-1, 2))
                starts.append(start)
                ends.append(end)
    special = [i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id]
    flat = np.concatenate([np.zeros(0, np.int32), *tokens])
    space = backend.token_to_id(SPACE)
    boundary = np.zeros(len(flat), bool) if space is None else flat == space
    flat[np.isin(flat, special)] = tokenizer.unk_token_id

    order = np.fromiter((unique[text] for text in texts), np.int64, len(texts))
    sizes = np.array(lengths, np.int64)
    take = spread(offsets_of(sizes)[:-1][order], sizes[order])
    offsets = offsets_of(sizes[order])
    if not spans:
        return flat[take], offsets
    none = np.full(len(flat), -1, np.int32)
    start, end = (np.concatenate([np.zeros(0, np.int32), *part]) for part in (starts, ends))
    real = (start < end) & ~boundary
    return flat[take], offsets, np.where(real, start, none)[take], np.where(real, end, none)[take]


def compose(text: str) -> tuple[str, np.ndarray | None]:
    """Joins base characters and the marks that follow them into single characters, left to right.

    The library's normaliser loses marks that SentencePiece keeps (of a decomposed "ẹ́" or "ế" it drops the accent);
    on composed text both give the same ids. Unlike Unicode's NFC this does not reorder marks, nor does SentencePiece.
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


def _chunks(items: Iterable, size: int) -> Iterator[list]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _plain(tokenizer):
    """Returns the backend with no truncation or padding, which an earlier call of the tokenizer may have left on."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return backend


def _wrap(backend) -> Tokenizer:
    from tokenizers import AddedToken, decoders, processors

    backend.add_special_tokens([*FIRST, AddedToken(MASK, lstrip=True, normalized=False)])
    ids = [(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ids
    )
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    # Copied by way of JSON, in which a score may change in its last bit: then a saved one has the same fingerprint.
    return Tokenizer(copy.deepcopy(backend), SPECIAL)


def _from_json(file: pathlib.Path) -> Tokenizer:
    import tokenizers

    config = file.with_name("tokenizer_config.json")
    model = _object(file).get("model")
    if not isinstance(model, dict) or "vocab" not in model:
        raise InputError(f"{file}: not a tokenizer: it holds no vocabulary")
    stored = _object(config) if config.is_file() else {}
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
        # a character of private use: what is unknown has to have an id
        backend.encode("\ue000", add_special_tokens=False)
        pieces = model["vocab"].values() if isinstance(model["vocab"], dict) else range(len(model["vocab"]))
        last = max(*pieces, *backend.get_added_tokens_decoder())
    except Exception as error:  # the library raises no less for a damaged file
        raise InputError(f"{file}: not a tokenizer, or damaged: {error!r:.300}") from error
    special = {}
    for role, usual in SPECIAL.items():
        token = stored.get(role) or usual  # published XLM-R folders leave some of them to the class
        token = token.get("content") if isinstance(token, dict) else token
        if not isinstance(token, str) or not token.isprintable():
            raise InputError(f"{config}: {role}={token!r:.60}: expected a token")
        if backend.token_to_id(token) is not None:
            special[role] = token
    tokenizer = Tokenizer(backend, special)
    if last >= len(tokenizer):  # a model has as many rows as there are tokens
        raise InputError(f"{file}: damaged: it has {len(tokenizer)} tokens, but one with the id {last}")
    needed = [role for role in SPECIAL if role not in ("mask_token", *special)]
    if needed:
        raise InputError(f"{file}: its vocabulary has no {', '.join(needed)}, nor does {config.name} name another")
    return tokenizer


def _object(file: pathlib.Path) -> dict:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a tokenizer's JSON, or damaged: {error!s:.300}") from error
    if not isinstance(found, dict):
        raise InputError(f"{file}: not a tokenizer's JSON: expected an object, found {found!r:.60}")
    return found


def _from_sentencepiece(file: pathlib.Path) -> Tokenizer:
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers

    try:
        pieces, characters = _parse_sentencepiece(file.read_bytes())
        vocabulary = [(token, 0.0) for token in FIRST] + pieces + [(MASK, 0.0)]
        backend = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=FIRST.index("<unk>")))
        if characters:
            backend.normalizer = normalizers.Precompiled(characters)
    except Exception as error:  # the library raises no less, and damaged bytes stand for anything
        raise InputError(f"{file}: not a SentencePiece unigram model ({error!s:.300})") from error
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    return _wrap(backend)


def _parse_sentencepiece(data: bytes) -> tuple[list[tuple[str, float]], bytes]:
    """Returns the normal pieces with their scores, and the normaliser's character map, of a SentencePiece ModelProto.

    Format: sentencepiece_model.proto; pieces = 1 (piece 1, score 2, type 3), trainer_spec = 2 (model_type 3: 1 is
    unigram), normalizer_spec = 3 (precompiled_charsmap 2). Read here, since that needs neither protobuf nor
    sentencepiece installed.
    """
    pieces, characters = [], b""
    for number, value in _protobuf(data):
        if number == 1:
            piece = dict(_protobuf(value))
            if piece.get(3, 1) == 1:
                pieces.append((piece[1].decode(), struct.unpack("<f", piece[2])[0]))
                if not math.isfinite(pieces[-1][1]):
                    raise ValueError(f"the score of a piece is {pieces[-1][1]}")
        elif number == 2 and dict(_protobuf(value)).get(3, 1) != 1:
            raise ValueError("its model_type is not unigram")
        elif number == 3:
            characters = dict(_protobuf(value)).get(2, b"")
    if not pieces:
        raise ValueError("it holds no pieces")
    return pieces, characters


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
