"""Tagging words: UD parts of speech, PAN-X named entities, CCG supertags."""

import functools
import logging
import pathlib
import re

from jxstilts.forms import texts
from jxstilts.readers import checked, read_lines
from jxstilts.runtime import InputError
from jxstilts.tasks import treebanks
from jxstilts.tasks.columns import HINT, refuse_blanks
from jxstilts.tasks.languages import LANGUAGES
from jxstilts.tasks.spec import Recipe, TaskSpec, Tfds, beside

logger = logging.getLogger(__name__)

UPOS = tuple("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split())
NER = ("O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER")


def read_words(path: pathlib.Path, labels: tuple[str, ...], placeholder: str) -> list[dict]:
    """Reads XTREME's tagging files: word TAB tag, a blank line after each sentence.

    A file with words only is unlabelled, and so is a test file in which XTREME has replaced every tag by
    `placeholder`. A word may hold blanks; columns between blanks are an error (`columns.read_columns` reads them). Raw
    PAN-X, where every word is written "language:word", loses that prefix. An id is the sentence's number from 0.
    """
    lines = read_lines(path)
    columns = next(line for line in lines if line.strip(" \t")).count("\t") + 1
    if columns not in (1, 2):
        raise InputError(f"{path}:1: {columns} columns, expected a word and its tag (or only the word); {HINT}")
    if columns == 1:
        refuse_blanks(path, lines, labels)
    sentences, known = [[]], frozenset(labels)
    for number, line in enumerate(lines, start=1):
        if not line.strip(" \t"):
            sentences.append([])
            continue
        word, *tag = line.split("\t")
        if len(tag) + 1 != columns:
            raise InputError(f"{path}:{number}: {len(tag) + 1} columns, the first line has {columns}; {HINT}")
        if not word:
            raise InputError(f"{path}:{number}: the word is empty")
        if tag and tag[0] not in known:
            raise InputError(f"{path}:{number}: unknown tag {tag[0]!r:.60}; allowed: {', '.join(labels)}")
        sentences[-1].append((word, *tag))
    sentences = [sentence for sentence in sentences if sentence]
    prefix = _prefix(path, sentences)
    examples = []
    for i, sentence in enumerate(sentences):
        example = {"id": str(i), "words": [row[0].removeprefix(prefix) for row in sentence]}
        examples.append(example | {"tags": [tag for _, tag in sentence]} if columns == 2 else example)
    tags = {tag for example in examples for tag in example.get("tags", ())}
    if path.name.startswith("test") and tags == {placeholder}:
        logger.info("%s: every tag is %r, XTREME's placeholder: unlabelled", path, placeholder)
        for example in examples:
            del example["tags"]
    return checked(examples, "tags", path)


def _prefix(path, sentences):
    """Returns "de:" where that is the file's language and every word begins so, else ""."""
    prefix = sentences[0][0][0].partition(":")[0]
    if prefix not in LANGUAGES or prefix not in re.split(r"[^a-z]+", f"{path.parent.name}/{path.name}"):
        return ""
    prefix += ":"
    every = all(word.startswith(prefix) and word != prefix for sentence in sentences for word, *_ in sentence)
    return prefix if every else ""


def read_upos(path: pathlib.Path) -> list[dict]:
    """Reads parts of speech from XTREME's files, or from a treebank (.conllu), see `treebanks.read_treebank`."""
    if path.suffix == ".conllu":
        return treebanks.read_treebank(path, UPOS)
    return read_words(path, UPOS, "X")


def read_ccg(path: pathlib.Path) -> list[dict]:
    """Reads CCGbank's supertagging lines: a sentence per line, words as word|POS|category between spaces.

    A word may hold "|" itself; a category never does. An id is the sentence's number from 0.
    """
    examples = []
    for number, line in enumerate(read_lines(path), start=1):
        words, tags = [], []
        for token in line.split():
            parts = token.rsplit("|", 2)
            if len(parts) != 3 or not all(parts):
                raise InputError(f"{path}:{number}: expected word|POS|category, got {token!r:.60}")
            words.append(parts[0])
            tags.append(parts[2])
        if words:
            examples.append({"id": str(len(examples)), "words": words, "tags": tags})
    return checked(examples, "tags", path)


def _from_tfds(rows, language, key):
    examples = []
    for row in rows:
        pairs = [(word, tag) for word, tag in zip(row["tokens"], row[key], strict=True) if tag != "_"]
        if pairs:
            examples.append(
                {"id": str(len(examples)), "words": [word for word, _ in pairs], "tags": [tag for _, tag in pairs]}
            )
    return examples


UDPOS_LANGUAGES = tuple(
    """en af ar bg de el es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur vi yo zh""".split()
)

UDPOS = TaskSpec(
    name="udpos",
    type="tagging",
    languages=UDPOS_LANGUAGES,
    more_languages=treebanks.NEW_LANGUAGES,  # what XTREME-R adds
    splits={
        split: (f"xtreme/udpos/{split}-{{language}}.tsv", *treebanks.patterns(split))
        for split in ("train", "dev", "test")
    },
    fields=treebanks.fields,
    read=read_upos,
    labels=UPOS,
    metric="seqeval",
    text=texts.Tags(256, texts.OURS),
    train_task="udpos",
    tfds=Tfds(
        names=("xtreme_pos/xtreme_pos_{language}",),
        splits={"train": "train", "dev": "dev", "test": "test"},
        convert=functools.partial(_from_tfds, key="upos"),
        # TFDS holds Tagalog under "ta" and Tamil under "tl"
        languages=tuple(code for code in UDPOS_LANGUAGES if code not in ("ta", "tl")),
        module="tensorflow_datasets.text",
    ),
    sizes={"train": 21_787, "dev": 3_974, "test": 5_440},
    recipe=Recipe(32, 256, 10, "the study's release, POS script"),
    translated={"train": beside("xtreme/udpos/train-en.tsv")},
    description="Parts of speech, Universal Dependencies 2.5; kk, th, tl and yo have no dev set",
    url="https://universaldependencies.org/",
    licence="by treebank (see each; some non-commercial)",
)

PANX_LANGUAGES = tuple(
    """en af ar bg bn de el es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr ms my nl pt ru sw ta te th tl tr ur
    vi yo zh""".split()
)

PANX = TaskSpec(
    name="panx",
    type="tagging",
    languages=PANX_LANGUAGES,
    more_languages=("az", "gu", "lt", "pa", "pl", "qu", "ro", "uk"),  # what XTREME-R adds
    splits={
        "train": ("xtreme/panx/train-{language}.tsv", "xtreme/panx/{language}/train"),
        "dev": ("xtreme/panx/dev-{language}.tsv", "xtreme/panx/{language}/dev"),
        # XTREME takes the tags out; the raw files have them
        "test": ("xtreme/panx/{language}/test", "xtreme/panx/test-{language}.tsv"),
    },
    read=functools.partial(read_words, labels=NER, placeholder="O"),
    labels=NER,
    metric="seqeval",
    text=texts.Entities(128, texts.MT5),
    tokens=14,
    train_task="panx",
    tfds=Tfds(
        names=("wikiann/{language}",),
        splits={"train": "train", "dev": "validation", "test": "test"},
        convert=functools.partial(_from_tfds, key="tags"),
        languages=PANX_LANGUAGES,
        module="tensorflow_datasets.text",
    ),
    sizes={"train": 20_000, "dev": 10_000},
    recipe=Recipe(32, 256, 10, "the study's release, NER script"),
    translated={"train": beside("xtreme/panx/train-en.tsv")},
    description="Named entities (persons, places, organisations) in Wikipedia, tagged automatically",
    url="https://github.com/afshinrahimi/mmner",
    licence="not stated; the text is Wikipedia's (CC BY-SA)",
)

CCG = TaskSpec(
    name="ccg",
    type="tagging",
    languages=("en",),
    splits={split: (f"intermediate/ccg/{split}.txt",) for split in ("train", "dev", "test")},
    read=read_ccg,
    metric="tag_accuracy",
    text=texts.Tags(512, texts.OURS),
    train_task="ccg",
    recipe=Recipe(32, 256, 10, "not in the study's release; as POS there"),
    translated={"train": beside("intermediate/ccg/train.txt")},
    description="CCG supertags of the Wall Street Journal; the tag set is that of the training data",
    url="https://catalog.ldc.upenn.edu/LDC2005T13",
    licence="LDC User Agreement",
)
