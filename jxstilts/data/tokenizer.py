"""Tokenizers: loading, training with XLM-R's conventions, saving, the fingerprint that names caches, bulk encoding.

XLM-R's ids: <s> 0, <pad> 1, </s> 2, <unk> 3, pieces, <mask> last. Sources: SentencePiece (Kudo and Richardson, 2018);
XLM-R's vocabulary (Conneau et al., 2020), whose ids are fairseq's: SentencePiece id + 1.
"""

import functools
import hashlib
import itertools
import json
import os
import pathlib
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from jxstilts.data import encoders, tokenizer_files
from jxstilts.data.encoders import compose
from jxstilts.data.ragged import offsets_of, spread
from jxstilts.data.vocabulary import learn
from jxstilts.runtime import InputError, atomic_write, sha256_file

__all__ = ["SPECIAL", "Tokenizer", "compose", "encode", "fingerprint", "load", "save", "train"]

SPECIAL = dict(zip(tokenizer_files.ROLES, tokenizer_files.USUAL["XLMRoberta"], strict=True))
SAID = string.ascii_letters + string.digits + "_:$"  # in the targets of text forms, as "choice5", whatever the text
CHUNK = 16_384  # texts encoded at once: the library's result objects are large


class Tokenizer:
    """A tokenizer of the library `tokenizers`, and which of its tokens are special.

    Has `backend_tokenizer` (not to be changed, since `fingerprint` is computed once), `len()`, the number of ids,
    `all_special_ids`, and `bos_token`, `bos_token_id` and so on for each of SPECIAL (None where there is none: of
    `load`, only `unk_token` and `pad_token` are always there). Anything else, calling it too,
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
    def encoder(self):
        """How texts become ids, see `encoders.make`; made when it is first needed."""
        return encoders.make(self)

    @functools.cached_property
    def hugging_face(self):
        """The `transformers` fast tokenizer; changes to it are not seen here, nor saved."""
        return self.to_hugging_face()

    def to_hugging_face(self):
        """Returns a new `transformers` fast tokenizer, which shares nothing with this one."""
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


def load(path: str | os.PathLike | None) -> Tokenizer:
    """Returns the tokenizer of a folder (tokenizer.json, a *.bpe.model, or vocab.txt) or of such a file.

    A bare SentencePiece model gets XLM-R's (fairseq's) ids, a vocab.txt is BERT's WordPiece. Reads local files only;
    raises InputError otherwise. As long as the files hold the same, the same object: reading XLM-R's takes seconds, and
    a run asks several times.
    """
    if path is None:  # what a bundle or a folder without one says of it
        raise InputError("this model has no tokenizer: put its tokenizer.json beside the weights and import it again")
    file = tokenizer_files.find(pathlib.Path(path).expanduser())
    try:
        return _load(file, *((part.name, sha256_file(part)) for part in tokenizer_files.parts(file)))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error}") from error


@functools.lru_cache(maxsize=2)
def _load(file: pathlib.Path, *digests: tuple[str, str]) -> Tokenizer:
    return Tokenizer(*tokenizer_files.read(file))


def train(
    texts: Iterable[str], vocab_size: int, *, model: str = "unigram", coverage: float = 0.9995, sentinels: int = 0
) -> Tokenizer:
    """Trains a tokenizer with XLM-R's special tokens, ids and normalisation (NFKC, runs of blanks joined).

    `vocab_size` counts the special tokens; a small text gives fewer. `model`: "unigram" or "bpe". `coverage`: see
    `vocabulary.learn`. `sentinels`: so many tokens for span corruption, which vocab_size counts, too; with them there
    is a piece for every character that a text form may say. The same texts give the same tokenizer. Raises InputError
    if vocab_size is too small.
    """
    characters = SAID if sentinels else ""
    learned = learn(texts, vocab_size - sentinels, model=model, coverage=coverage, characters=characters)
    return Tokenizer(tokenizer_files.finish(learned, sentinels), SPECIAL)


def save(tokenizer, folder: str | os.PathLike) -> None:
    """Writes tokenizer.json and tokenizer_config.json, which `load` and Hugging Face's AutoTokenizer read."""
    full = tokenizer.to_hugging_face() if isinstance(tokenizer, Tokenizer) else tokenizer
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
    before a word; (-1, -1) for a token that stands for none, such as a lone word boundary.
    Ids are SentencePiece's own for a tokenizer that is one of its models (see `sentencepiece_model.processor`), which
    spells what reads like a special token ("</s>"); else the library's, and what reads like one becomes <unk>.
    Raises InputError for a text with half a character (a lone surrogate).
    """
    encoder = tokenizer.encoder if isinstance(tokenizer, Tokenizer) else encoders.make(tokenizer)
    _plain(tokenizer)
    unique = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    parts = [encoder(chunk, spans) for chunk in _chunks(unique, CHUNK)] or [encoder([], spans)]
    flat, sizes = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "lengths"))

    order = np.fromiter((unique[text] for text in texts), np.int64, len(texts))
    take = spread(offsets_of(sizes)[:-1][order], sizes[order])
    offsets = offsets_of(sizes[order])
    if not spans:
        return flat[take], offsets
    start, end = (np.concatenate([getattr(part, name) for part in parts]) for name in ("start", "end"))
    return flat[take], offsets, start[take], end[take]


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
