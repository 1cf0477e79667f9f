"""Parts of speech straight from treebanks of Universal Dependencies, by the rules of XTREME's preprocessing.

XTREME-R keeps UD 2.5 for the languages of XTREME and takes UD 2.7 for the five new ones; all treebanks of a language
are joined in the order of their files' names.
"""

import collections
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jxstilts.readers import checked, read_lines
from jxstilts.runtime import InputError
from jxstilts.tasks.columns import CONLLU_COLUMNS, CONLLU_ID, CONLLU_NO_WORD

NEW_LANGUAGES = ("lt", "pl", "ro", "uk", "wo")
# Of several words of a contraction that stand equally high, the one whose part of speech comes first gives the tag.
PRECEDENCE = {
    "": "VERB NOUN PROPN PRON ADJ NUM ADV INTJ AUX ADP DET PART CCONJ SCONJ X PUNCT".split(),
    "es": "VERB AUX PRON ADP DET".split(),
    "fr": "VERB AUX PRON NOUN ADJ ADV ADP DET PART SCONJ CONJ".split(),
    "it": "VERB AUX ADV PRON ADP DET INTJ".split(),
}
NON_JOINER = "\u200c"


class Word(NamedTuple):
    form: str
    tag: str
    heads: tuple[int, ...]  # of the tree and of the enhanced graph


class Contraction(NamedTuple):
    form: str
    first: int
    last: int


def patterns(split: str) -> tuple[str, ...]:
    """Returns where the treebanks of a language may lie: as UD's release has them, in XTREME's or XTREME-R's folder."""
    below = f"ud-treebanks-v{{version}}/UD_*/{{language}}_*-ud-{split}.conllu"
    return f"xtreme-r/{below}", f"xtreme/{below}", below


def fields(language: str) -> dict[str, tuple[str, ...]]:
    """Returns the pattern fields of a language."""
    return {"language": (language,), "version": ("2.7" if language in NEW_LANGUAGES else "2.5",)}


def read_treebank(path: pathlib.Path, labels: Sequence[str]) -> list[dict]:
    """Reads a .conllu file as XTREME does; ids are FILE:SENTENCE, from 0.

    A contraction ("3-4") is one word with the tag of the one of its words that stands highest in the sentence's graph;
    blanks and zero-width non-joiners in a word go; a sentence whose words are all "_" but one goes, as where a licence
    forbids the text. Raises InputError with file:line.
    """
    language, examples = path.name.partition("_")[0], []
    for line, words, contractions in _sentences(path):
        rows = _joined(words, contractions, PRECEDENCE.get(language, PRECEDENCE[""]), f"{path}:{line}")
        unknown = [tag for _, tag in rows if tag not in labels]
        if unknown:
            raise InputError(f"{path}:{line}: unknown tag {unknown[0]!r:.60}; allowed: {', '.join(labels)}")
        empty = sum(form == "_" for form, _ in rows)
        if empty and empty >= len(rows) - 1:
            continue
        forms = [form.replace(NON_JOINER, "").replace(" ", "") for form, _ in rows]
        examples.append({"id": f"{path.stem}:{len(examples)}", "words": forms, "tags": [tag for _, tag in rows]})
    return checked(examples, "tags", path)


def _sentences(path: pathlib.Path) -> Iterator[tuple[int, dict[int, Word], list[Contraction]]]:
    """Yields (line of its first word, words by number, contractions) of each sentence."""
    words: dict[int, Word] = {}
    contractions: list[Contraction] = []
    begin = 0
    for number, line in enumerate([*read_lines(path), ""], start=1):
        if line.startswith("#"):
            continue
        if not line.strip():
            if words:
                yield begin, words, contractions
            words, contractions = {}, []
            continue
        cells = line.split("\t")
        where = f"{path}:{number}"
        if len(cells) != CONLLU_COLUMNS:
            raise InputError(f"{where}: {len(cells)} columns between tabs, CoNLL-U has {CONLLU_COLUMNS}")
        begin = begin if words or contractions else number
        if CONLLU_ID.fullmatch(cells[0]):
            if int(cells[0]) != len(words) + 1:
                raise InputError(f"{where}: the word {cells[0]} comes after {len(words)} words of its sentence")
            heads = [head for head in (cells[6],) if head.isdecimal()]
            heads += [dep.partition(":")[0] for dep in cells[8].split("|") if dep.partition(":")[0].isdecimal()]
            words[len(words) + 1] = Word(cells[1], cells[3], tuple(map(int, heads)))
        elif not CONLLU_NO_WORD.fullmatch(cells[0]):
            raise InputError(f"{where}: id {cells[0]!r:.60}; CoNLL-U has 3, 3-4 (contraction) or 3.1 (empty node)")
        elif "-" in cells[0]:
            contractions.append(Contraction(cells[1], *map(int, cells[0].split("-"))))


def _joined(
    words: Mapping[int, Word], contractions: Sequence[Contraction], precedence: Sequence[str], where: str
) -> list[tuple[str, str]]:
    """Returns (form, tag) of each word, contractions as one."""
    kept = {number: (word.form, word.tag) for number, word in words.items()}
    for one in contractions:
        span = range(one.first, one.last + 1)
        if not span or any(number not in kept for number in span):
            raise InputError(f"{where}: the contraction {one.first}-{one.last} is not of words of its sentence")
        above = {number: len(_above(words, number)) for number in span}
        highest = [number for number in span if above[number] == min(above.values())]
        if len(highest) > 1:
            ranks = {number: _rank(words[number].tag, precedence) for number in highest}
            highest = [min(highest, key=ranks.__getitem__)]
        tag = words[highest[0]].tag
        for number in span:
            del kept[number]
        kept[one.first] = (one.form, tag)
    return [kept[number] for number in sorted(kept)]


def _rank(tag: str, precedence: Sequence[str]) -> int:
    return precedence.index(tag) if tag in precedence else len(precedence)


def _above(words: Mapping[int, Word], number: int) -> set[int]:
    """Returns the numbers from which a word can be reached in the sentence's graph; 0 is the root."""
    found, waiting = set(), collections.deque(words[number].heads)
    while waiting:
        head = waiting.popleft()
        if head not in found:
            found.add(head)
            waiting.extend(words[head].heads if head in words else ())
    return found - {number}
