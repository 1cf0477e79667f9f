"""Words and their tags in columns, one word a line: the files of CoNLL's shared tasks and of Universal Dependencies."""

import pathlib
import re

from jxstilts.readers import checked, read_lines
from jxstilts.runtime import InputError

HINT = "a task of your own reads other columns with jxstilts.tasks.columns"
SPAN_TAG = re.compile(r"O|[BIESLUM]-\S+")
TAG_NAME = re.compile(r"[A-Z][A-Z0-9$_-]*")  # as in the tag sets of treebanks
CONLLU_COLUMNS = 10
CONLLU_ID = re.compile(r"[0-9]+")
CONLLU_NO_WORD = re.compile(r"[0-9]+-[0-9]+|[0-9]+\.[0-9]+")  # a contraction of the words that follow; an empty node


def read_columns(
    path: pathlib.Path,
    word: int,
    tag: int | None,
    labels: tuple[str, ...] = (),
    separator: str | None = None,
    comments: tuple[str, ...] = ("-DOCSTART-",),
) -> list[dict]:
    """Reads words and tags from two columns of a file; a blank line or a comment ends a sentence.

    word, tag: the numbers of the two columns, from 1. Without a tag column (None) the file is unlabelled.
    labels: the tags that may stand there; with () any may, and the task's tags are those of its training data.
    separator: one character, such as a tab, or None for any number of blanks and tabs. With None no word can hold a
      blank; a no-break space is part of a word.
    comments: a line whose first column is one of these is left out. "#" takes away every word "#", but no "#hashtag".
    Every line must have as many columns as the first, because a word that holds a blank moves the columns behind it.
    An id is the sentence's number from 0. Raises InputError with file:line.
    """
    if min(word, word if tag is None else tag) < 1:
        raise ValueError(f"columns are counted from 1; word={word}, tag={tag}")
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        cells = _split(line, separator)
        rows.append((number, None if not line.strip(" \t") or cells[0] in comments else cells))
    return _examples(path, rows, word, tag, labels)


def read_conllu(path: pathlib.Path, tag: int = 4, labels: tuple[str, ...] = ()) -> list[dict]:
    """Reads a CoNLL-U file: the words in column 2 and the tags in column 4 (UPOS), or in another (5: XPOS).

    The words are the syntactic words. The line of a contraction (id "3-4") and an empty node ("5.1") are left out;
    lines that begin with "#" are comments. XTREME joins contractions, so its POS data are not the same. Where every tag
    is "_", the file is unlabelled. An id is the sentence's number from 0. Raises InputError with file:line.
    """
    if not 1 <= tag <= CONLLU_COLUMNS:
        raise ValueError(f"CoNLL-U has columns 1 to {CONLLU_COLUMNS}; tag={tag}")
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        cells = line.split("\t")
        if not line.strip(" \t") or line.startswith("#"):
            rows.append((number, None))
        elif len(cells) != CONLLU_COLUMNS:
            raise InputError(f"{path}:{number}: {len(cells)} columns between tabs, CoNLL-U has {CONLLU_COLUMNS}")
        elif CONLLU_ID.fullmatch(cells[0]):
            rows.append((number, cells))
        elif not CONLLU_NO_WORD.fullmatch(cells[0]):
            raise InputError(
                f"{path}:{number}: id {cells[0]!r:.60}; CoNLL-U has 3, 3-4 (contraction) or 3.1 (empty node)"
            )
    without = all(cells is None or cells[tag - 1] == "_" for _, cells in rows)
    return _examples(path, rows, 2, None if without else tag, labels)


def _split(line: str, separator: str | None) -> list[str]:
    return line.split(separator) if separator else [cell for cell in re.split("[ \t]+", line) if cell]


def _examples(path, rows: list[tuple[int, list[str] | None]], word: int, tag: int | None, labels) -> list[dict]:
    """Makes examples of (line number, cells, or None between two sentences)."""
    known, columns, first = frozenset(labels), None, None
    sentences: list[tuple[list[str], list[str]]] = [([], [])]
    for number, cells in rows:
        if cells is None:
            sentences.append(([], []))
            continue
        if columns is None:
            columns, first = len(cells), number
            if columns < max(word, tag or word):
                raise InputError(f"{path}:{number}: {columns} columns; the word should be in {word}, its tag in {tag}")
        if len(cells) != columns:
            raise InputError(f"{path}:{number}: {len(cells)} columns, line {first} has {columns}")
        text, label = cells[word - 1], cells[(tag or word) - 1]
        for name, cell in (("word", text), ("tag", label)):
            if not cell.strip(" \t"):
                raise InputError(f"{path}:{number}: the {name} is empty")
        if tag and known and label not in known:
            raise InputError(f"{path}:{number}: unknown tag {label!r:.60}; allowed: {', '.join(labels)}")
        sentences[-1][0].append(text)
        sentences[-1][1].append(label)
    examples = []
    for words, tags in sentences:
        if words:
            example = {"id": str(len(examples)), "words": words}
            examples.append(example | {"tags": tags} if tag else example)
    return checked(examples, "tags", path)


def refuse_blanks(path: pathlib.Path, lines: list[str], labels: tuple[str, ...]) -> None:
    """Raises InputError with file:line where a file without tabs has columns between blanks.

    A word may hold blanks. So the lines are columns only if more than half of them end in a tag, the task's own or one
    of a span ("O", "B-MISC"); or if all have the same number of fields, two or more, and the fields of one place look
    like tags: all capitals, or few different ones. Comments of CoNLL-U and document marks may stand between.
    """
    rows = {number: line for number, line in enumerate(lines, start=1) if line.strip(" \t")}
    if any("\t" in line for line in rows.values()):
        return
    words = {number: line for number, line in rows.items() if not line.startswith(("# ", "-DOCSTART-"))}
    number = _first_of_columns(rows, labels) or _first_of_columns(words, labels)
    if number:
        raise InputError(
            f"{path}:{number}: {lines[number - 1]!r:.60} looks like columns between blanks; this task's word and tag "
            f"stand with a tab between them. Write tabs, or name the columns: {HINT}"
        )


def _first_of_columns(rows: dict[int, str], labels: tuple[str, ...]) -> int | None:
    """Returns the number of the first line that looks like columns, where the lines as a whole do."""
    fields = {number: line.split() for number, line in rows.items()}
    tagged = [n for n, row in fields.items() if len(row) > 1 and (row[-1] in labels or SPAN_TAG.fullmatch(row[-1]))]
    if 2 * len(tagged) > len(fields):
        return tagged[0]
    widths = {len(row) for row in fields.values()}
    if len(widths) == 1 and min(widths) > 1 and any(map(_look_like_tags, zip(*fields.values(), strict=True))):
        return next(iter(fields))
    return None


def _look_like_tags(values: tuple[str, ...]) -> bool:
    return 4 * len(set(values)) <= len(values) or all(map(TAG_NAME.fullmatch, values))
