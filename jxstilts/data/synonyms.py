"""Copies of training examples whose words are replaced by synonyms: smoothing by data (arXiv 2104.08645).

The release of that paper takes the synonyms from counter-fitted vectors; here a user's file has them.
"""

import functools
import hashlib
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jxstilts.readers import read_lines
from jxstilts.runtime import InputError

WORD = re.compile(r"\w+")


@functools.lru_cache(maxsize=4)
def read(path: str) -> Mapping[str, tuple[str, ...]]:
    """Returns {word in small letters: its synonyms} of a file `word<TAB>synonym<TAB>synonym...`.

    Raises InputError, with file:line, for a line without a synonym, and for a word that comes again.
    """
    file, found = pathlib.Path(path).expanduser(), {}
    for number, line in enumerate(read_lines(file), start=1):
        word, *others = line.split("\t")
        word = word.lower()
        if not WORD.fullmatch(word) or not others or not all(each.strip() for each in others):
            raise InputError(f"{file}:{number}: expected word<TAB>synonym<TAB>synonym..., got {line!r:.60}")
        if word in found:
            raise InputError(f"{file}:{number}: the word {word!r} comes again; put its synonyms on one line")
        found[word] = tuple(others)
    return found


def with_copies(examples: Sequence[dict], keys: Sequence[str], path: str, count: int) -> list[dict]:
    """Returns each example and then `count` copies of it, in which each word with synonyms is drawn anew.

    The word itself and each of its synonyms are equally likely, in each place apart. The draw is a function of the
    example's id and the copy's number. keys: of the texts, or lists of texts, that are changed.
    """
    table, found = read(path), []
    for example in examples:
        found.append(example)
        for copy in range(1, count + 1):
            digest = hashlib.sha256(f"{copy}/{example['id']}".encode()).digest()
            stream = np.random.Philox(key=np.frombuffer(digest[:16], np.uint64))
            changed = {key: _drawn(example[key], table, stream) for key in keys}
            found.append({**example, **changed, "id": f"{example['id']}~{copy}"})
    return found


def _drawn(value: Any, table: Mapping[str, tuple[str, ...]], stream: np.random.Philox) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_drawn(each, table, stream) for each in value)
    if value is None:
        return None

    def one(match: re.Match) -> str:
        word = match.group()
        others = table.get(word.lower())
        if others is None:
            return word
        place = int(stream.random_raw()) * (len(others) + 1) >> 64
        if not place:
            return word
        new = others[place - 1]
        return new[:1].upper() + new[1:] if word[0].isupper() else new

    return WORD.sub(one, value)
