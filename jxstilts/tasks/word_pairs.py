"""Word pairs to train on: a word of a language and its English translation, from a file of the user's own."""

import pathlib

from jxstilts.readers import checked, read_lines
from jxstilts.runtime import InputError
from jxstilts.tasks import languages
from jxstilts.tasks.spec import TaskSpec


def read(path: pathlib.Path) -> list[dict]:
    """Reads word TAB translation, a pair a line, without a header: [{"id": line from 0, "query", "candidate"}, ...]."""
    examples = []
    for number, line in enumerate(read_lines(path), start=1):
        words = [word.strip() for word in line.split("\t")]
        if len(words) != 2 or not all(words):
            raise InputError(f"{path}:{number}: {line!r:.60}: expected two columns, a word and its translation")
        examples.append({"id": str(number - 1), "query": words[0], "candidate": words[1]})
    return checked(examples, "gold", path)


WORD_PAIRS = TaskSpec(
    name="word_pairs",
    type="embedding",
    languages=tuple(code for code in languages.LANGUAGES if code != "en"),
    splits={"train": ("word_pairs/{language}.tsv", "word_pairs/{language}-en.tsv")},
    read=read,
    tokens=4,
    description="A word and its English translation, for the objective `contrastive`; the files are the user's own",
    url="docs/adapters.md",
    licence="as the user's files",
)
