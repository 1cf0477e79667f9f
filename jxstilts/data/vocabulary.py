"""Learning a vocabulary from text: byte-pair encoding, or a unigram model pruned from it. Deterministic.

The `tokenizers` library's own unigram trainer is not used: two runs on the same text differ (its hash tables are
randomly seeded), and 4 MB of text in many scripts take it a minute.
"""

import collections
import itertools
import re
from collections.abc import Iterable

import numpy as np

from jxstilts.runtime import InputError, suggest

SPACE = "\u2581"  # SentencePiece's visible blank, at the head of the first piece of each word
FIRST = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3
MASK = "<mask>"  # the last id
SEEDS = 4  # a unigram model is pruned from this many times its size
KEEP = 0.75  # share of the pieces that survives a round of pruning, as in SentencePiece
LONGEST = 16  # characters of a piece, as in SentencePiece


def learn(texts: Iterable[str], vocab_size: int, *, model: str, coverage: float, characters: str = ""):
    """Returns a `tokenizers.Tokenizer` with at most vocab_size - 1 pieces (the mask is still to be added).

    `model`: "bpe" (Sennrich et al., 2016) or "unigram" (Kudo, 2018). The rarest characters, at most 1 - coverage of
    the text, get no piece (SentencePiece's character_coverage). characters: these have a piece of their own, whether
    or not they occur. Holds the texts in memory.
    """
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers

    if model not in ("unigram", "bpe"):
        raise InputError(suggest("tokenizer model", model, ("unigram", "bpe")))
    if not 0 < coverage <= 1:
        raise InputError(f"coverage must be above 0 and at most 1, not {coverage}")
    normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    special = re.compile("|".join(map(re.escape, (*FIRST, MASK))))
    words = _words((normalizer.normalize_str(special.sub(" ", text)) for text in texts), coverage)
    if not words:
        raise InputError("no text to train a tokenizer on")
    alphabet = sorted(set(characters).union(*words))
    needed = len(alphabet) + len(FIRST) + 1
    if vocab_size < needed:
        raise InputError(
            f"vocab_size {vocab_size} is too small for the {len(alphabet)} characters of the text: "
            f"give at least {needed}, or lower coverage ({coverage})"
        )
    if model == "bpe":
        backend = _byte_pairs(words, alphabet, vocab_size - 1)
    else:
        seeds = _byte_pairs(words, alphabet, SEEDS * vocab_size).get_vocab(with_added_tokens=False)
        pieces = sorted(set(seeds) - set(FIRST), key=lambda piece: (seeds[piece], piece))
        scored = _unigrams(words, pieces, vocab_size - 1 - len(FIRST))
        vocabulary = [(token, 0.0) for token in FIRST] + scored
        backend = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=FIRST.index("<unk>")))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    return backend


def _words(texts: Iterable[str], coverage: float) -> dict[str, int]:
    """Returns the words, each with the visible blank before it, and how often they occur; most frequent first."""
    counts = collections.Counter(itertools.chain.from_iterable(map(str.split, texts)))
    characters = collections.Counter()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
    ranked = sorted(characters.items(), key=lambda item: (-item[1], item[0]))
    seen = np.cumsum([count for _, count in ranked] or [0])
    kept = int(np.searchsorted(seen, coverage * seen[-1])) + 1
    rare = {ord(character): " " for character, _ in ranked[kept:]}
    words = collections.Counter()
    for word, count in counts.items():
        for part in word.translate(rare).split():
            words[SPACE + part] += count
    return dict(sorted(words.items(), key=lambda item: (-item[1], item[0])))


def _byte_pairs(words: dict[str, int], alphabet: list[str], size: int):
    import tokenizers
    from tokenizers import models, trainers

    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(FIRST),
        initial_alphabet=alphabet,
        max_token_length=LONGEST,
        show_progress=False,
    )
    # Without a pre-tokenizer each string is one word, so a word that occurs n times has to be given n times.
    backend.train_from_iterator(
        itertools.chain.from_iterable(itertools.starmap(itertools.repeat, words.items())), trainer
    )
    return backend


def _unigrams(words: dict[str, int], pieces: list[str], size: int) -> list[tuple[str, float]]:
    """Returns at most `size` of the pieces with their log probabilities, best first.

    Expectation maximisation over best segmentations. In each round every piece is charged what the text would lose
    in log probability if it were spelled by its two best parts; the cheapest are dropped. Single characters stay.
    """
    import tokenizers
    from tokenizers import models

    counts = np.fromiter(words.values(), np.float64, len(words))
    lengths = np.array([len(piece) for piece in pieces])
    halves = _halves(pieces)
    alive = np.ones(len(pieces), bool)
    values = _frequencies(words, pieces)  # log probability; for a dropped piece that of its parts

    def fit() -> np.ndarray:
        """Sets `values` of the living by one pass over the words; returns how often each piece is used [pieces]."""
        living = np.flatnonzero(alive)
        vocabulary = [("<unk>", 0.0)] + [(pieces[i], float(values[i])) for i in living]
        backend = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=0))
        found = [encoding.ids for encoding in backend.encode_batch_fast(list(words), add_special_tokens=False)]
        ids = np.fromiter(itertools.chain.from_iterable(found), np.int64) - 1
        weights = np.repeat(counts, [len(piece_ids) for piece_ids in found])
        used = np.zeros(len(pieces))
        used[living] = np.bincount(ids, weights, len(living))
        values[living] = np.log(np.maximum(used[living], 0.5) / used.sum())
        return used

    while True:
        used = fit()
        parts = np.full(len(pieces), -np.inf)
        for length, (whole, left, right) in halves:  # short ones first: the parts of a piece are shorter than it
            np.maximum.at(parts, whole, values[left] + values[right])
            dropped = (lengths == length) & ~alive
            values[dropped] = parts[dropped]
        surplus = int(alive.sum()) - size
        if surplus <= 0:
            break
        candidates = np.flatnonzero(alive & (lengths > 1))
        cost = used[candidates] * (values[candidates] - parts[candidates])
        remove = min(surplus, int((1 - KEEP) * alive.sum()) + 1)
        alive[candidates[np.argsort(cost, kind="stable")[:remove]]] = False
    best = sorted(np.flatnonzero(alive), key=lambda i: (-values[i], pieces[i]))
    return [(pieces[i], float(values[i])) for i in best]


def _halves(pieces: list[str]) -> list[tuple[int, np.ndarray]]:
    """Returns, by length of the piece, int64 [3, K]: each way (whole, left, right) to cut a piece into two pieces."""
    number = {piece: place for place, piece in enumerate(pieces)}
    found = collections.defaultdict(list)
    for place, piece in enumerate(pieces):
        for cut in range(1, len(piece)):
            left, right = number.get(piece[:cut]), number.get(piece[cut:])
            if left is not None and right is not None:
                found[len(piece)].append((place, left, right))
    return [(length, np.array(found[length], np.int64).T) for length in sorted(found)]


def _frequencies(words: dict[str, int], pieces: list[str]) -> np.ndarray:
    """Returns log(occurrences as a substring) - log(all occurrences) of each piece, float [pieces]."""
    seen = dict.fromkeys(pieces, 0)
    longest = max(map(len, pieces))
    for word, count in words.items():
        for begin in range(len(word)):
            for end in range(begin + 1, min(begin + longest, len(word)) + 1):
                part = word[begin:end]
                if part in seen:
                    seen[part] += count
    occurrences = np.fromiter(seen.values(), np.float64, len(seen))
    return np.log(np.maximum(occurrences, 0.5) / occurrences.sum())
