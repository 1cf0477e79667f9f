"""A tokenizer with fewer pieces that cuts chosen texts as before: which pieces these texts need, and the smaller one.

Why the ids stay the same, renumbered in their order, for a text whose pieces are all kept:
- Unigram (Kudo, 2018): the best segmentation is still there, and no other one has become better. The score of what is
  unknown counts from the lowest score, that of a user-defined piece from the highest, so these two pieces stay too.
- BPE (Sennrich et al., 2016): merges happen in the order of their ranks. Those that lead to a kept piece stay, all
  other merges were never done in such a text.
- WordPiece (Wu et al., 2016): the longest piece that fits is taken each time, and it is still the longest. A word that
  comes to a dead end becomes the unknown token: the pieces on the way there stay, or a shorter one could lead on.
"""

import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from jxstilts.data import tokenizer as tokenizers
from jxstilts.data.encoders import Encoded
from jxstilts.data.sentencepiece_model import BYTES
from jxstilts.runtime import InputError

KINDS = ("Unigram", "BPE", "WordPiece")


class Needed:
    """Collects which pieces of a tokenizer a trimmed one has to have.

    From the beginning these are all added and special tokens, the unknown one, pieces for bytes, and `ids`.
    Raises InputError for a tokenizer of another kind.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, ids: Sequence[int] = ()):
        self.tokenizer = tokenizer
        self.stored = json.loads(tokenizer.backend_tokenizer.to_str())
        self.model = model = self.stored["model"]
        affixes = model["type"] == "BPE" and (model["continuing_subword_prefix"] or model["end_of_word_suffix"])
        if model["type"] not in KINDS or affixes:
            shown = ", ".join(f"{key}={value!r}" for key, value in model.items() if key not in ("vocab", "merges"))
            raise InputError(
                f"only tokenizers of the kinds {', '.join(KINDS)}, BPE without a prefix or suffix of its pieces, can "
                f"be trimmed; this one has {shown:.300}"
            )
        self.names = {tokenizer.backend_tokenizer.id_to_token(i): i for i in range(len(tokenizer))}
        self.used = np.zeros(len(tokenizer), bool)  # [V] by id
        unknown = model["unk_id"] if model["type"] == "Unigram" else self.names.get(model["unk_token"])
        fixed = [*ids, *tokenizer.all_special_ids, *_processor_ids(self.stored["post_processor"])]
        fixed += [token["id"] for token in self.stored["added_tokens"]] + [unknown] * (unknown is not None)
        fixed += [self.names[piece] for piece in BYTES & self.names.keys() if model.get("byte_fallback")]
        if not 0 <= min(fixed) <= max(fixed) < len(tokenizer):
            raise InputError(f"this tokenizer cannot be trimmed: of its special ids {fixed}, some are no ids of pieces")
        self.used[fixed] = True
        self._words: set[str] = set()  # of WordPiece, those of texts in which one became the unknown token
        if model["type"] == "Unigram":
            scores = np.array([score for _, score in model["vocab"]])
            rest = np.flatnonzero(~self.used[: len(scores)])
            self.used[[rest[scores[rest].argmin()], rest[scores[rest].argmax()]] if len(rest) else []] = True

    def add(self, texts: Sequence[str], encoded: Encoded) -> None:
        """Adds what the texts need; encoded: their pieces, of this tokenizer's encoder."""
        self.used[encoded.ids] = True
        if self.model["type"] != "WordPiece":
            return
        backend, ends = self.tokenizer.backend_tokenizer, np.cumsum(encoded.lengths)
        unknown = np.flatnonzero(encoded.ids == self.names.get(self.model["unk_token"]))
        for place in np.unique(np.searchsorted(ends, unknown, side="right")).tolist():
            text = texts[place]
            text = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
            cut = [(text, None)] if backend.pre_tokenizer is None else backend.pre_tokenizer.pre_tokenize_str(text)
            self._words.update(word for word, _ in cut)

    def keep(self) -> tuple[np.ndarray, list | None]:
        """Returns which ids stay, bool [V], and of BPE the merges that stay."""
        keep, merges = self.used.copy(), None
        if self.model["type"] == "WordPiece":
            for word in self._words:
                keep[_greedy(word, self.model)] = True
        elif self.model["type"] == "BPE":
            pieces = [piece for piece, number in self.names.items() if keep[number]]
            found, merges = _paths(pieces, self.model)
            keep[[self.names[piece] for piece in found]] = True
        return keep, merges


def write(needed: Needed, folder: pathlib.Path) -> tuple[tokenizers.Tokenizer, np.ndarray]:
    """Writes the tokenizer with the needed pieces only, ids counted anew in the same order.

    Returns it as it reads back, and int32 [n]: the old id of each new one. Raises InputError where the library gives
    other ids than these.
    """
    import tokenizers as library

    keep, merges = needed.keep()
    kept = np.flatnonzero(keep).astype(np.int32)
    new = np.where(keep, np.cumsum(keep) - 1, -1)
    stored, old = dict(needed.stored), needed.tokenizer
    model = dict(stored["model"])
    if model["type"] == "Unigram":
        model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if keep[i]]
        model["unk_id"] = None if model["unk_id"] is None else int(new[model["unk_id"]])
    else:
        model["vocab"] = {piece: int(new[i]) for piece, i in model["vocab"].items() if keep[i]}
    if merges is not None:
        model["merges"] = merges
    stored["model"] = model
    stored["added_tokens"] = [{**token, "id": int(new[token["id"]])} for token in stored["added_tokens"]]
    stored["post_processor"] = _renumbered(stored["post_processor"], new)
    roles = {role: getattr(old, role) for role in tokenizers.SPECIAL if getattr(old, role) is not None}
    backend = library.Tokenizer.from_str(json.dumps(stored, ensure_ascii=False))
    tokenizers.save(tokenizers.Tokenizer(backend, roles), folder)
    found = tokenizers.load(folder)
    names = [old.backend_tokenizer.id_to_token(i) for i in kept.tolist()]
    again = [found.backend_tokenizer.id_to_token(i) for i in range(len(found))]
    if names != again or any(getattr(found, role) != token for role, token in roles.items()):
        wrong = next((each for each in zip(names, again, strict=False) if each[0] != each[1]), "their number")
        raise InputError(f"this tokenizer cannot be trimmed: its ids do not follow the order of its pieces ({wrong})")
    return found, kept


# --- post-processors: the special tokens that the library puts around texts -----------------------------------------


def _processor_ids(processor: Mapping | None) -> list[int]:
    found: list[int] = []
    _each_id(processor, lambda number: found.append(number) or number)
    return found


def _renumbered(processor: Mapping | None, new: np.ndarray) -> Mapping | None:
    return _each_id(processor, lambda number: int(new[number]))


def _each_id(processor: Mapping | None, change) -> Mapping | None:
    """Returns a post-processor with each id changed. Raises InputError for a kind that is not known."""
    if processor is None or processor["type"] == "ByteLevel":
        return processor
    if processor["type"] == "Sequence":
        return {**processor, "processors": [_each_id(part, change) for part in processor["processors"]]}
    if processor["type"] in ("BertProcessing", "RobertaProcessing"):
        sides = {side: [processor[side][0], change(processor[side][1])] for side in ("sep", "cls")}
        return {**processor, **sides}
    if processor["type"] == "TemplateProcessing":
        tokens = {
            name: {**token, "ids": [change(number) for number in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
        return {**processor, "special_tokens": tokens}
    raise InputError(f"a tokenizer with the post-processor {processor['type']!r} cannot be trimmed")


# --- what a piece stands on ------------------------------------------------------------------------------------------


def _greedy(word: str, model: Mapping) -> list[int]:
    """Returns the ids of the pieces that WordPiece finds in a word before it comes to a dead end or the word's end."""
    vocabulary, begin, found = model["vocab"], 0, []
    if len(word) > model["max_input_chars_per_word"]:
        return found
    while begin < len(word):
        prefix = model["continuing_subword_prefix"] if begin else ""
        ends = range(len(word), begin, -1)
        end = next((end for end in ends if prefix + word[begin:end] in vocabulary), None)
        if end is None:
            break
        found.append(vocabulary[prefix + word[begin:end]])
        begin = end
    return found


def _paths(pieces: Sequence[str], model: Mapping) -> tuple[set[str], list]:
    """Returns all pieces that occur while BPE makes these, these among them, and the merges that it does, by rank."""
    ranks = {tuple(merge): rank for rank, merge in enumerate(model["merges"])}
    vocabulary, found, done = model["vocab"], set(), set()
    for piece in pieces:
        symbols = list(piece)
        found.update(symbol for symbol in symbols if symbol in vocabulary)
        while len(symbols) > 1:
            pairs = itertools.pairwise(symbols)
            rank, place = min((ranks.get(pair, len(ranks)), place) for place, pair in enumerate(pairs))
            if rank == len(ranks):
                break
            symbols[place : place + 2] = ["".join(symbols[place : place + 2])]
            found.add(symbols[place])
            done.add(rank)
    return found | {piece for piece in pieces if piece in vocabulary}, [model["merges"][rank] for rank in sorted(done)]
