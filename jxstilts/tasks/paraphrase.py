"""Paraphrase: Quora question pairs (English) and PAWS-X (English training data, 7 languages)."""

import logging
import pathlib

from jxstilts.forms import texts
from jxstilts.readers import checked, class_id, read_lines, rows_by_header, rows_by_place
from jxstilts.runtime import InputError
from jxstilts.tasks import pairs
from jxstilts.tasks.spec import Recipe, TaskSpec, Tfds, beside

logger = logging.getLogger(__name__)

LABELS = ("0", "1")  # 1 = paraphrase
QQP_KEYS = ("question1", "question2", "is_duplicate")
PAWSX_KEYS = ("sentence1", "sentence2", "label")
MOST_BROKEN = 0.01  # share of broken rows above which a file is damaged, or another file


def read_qqp(path: pathlib.Path) -> list[dict]:
    """Reads GLUE's QQP: a header line, then id, qid1, qid2, question1, question2, is_duplicate.

    GLUE's training file holds a few rows that a line break in a question has torn apart. They are left out and
    counted in the log, up to one in a hundred; more are an error. An id is the row's number in the file, from 0.
    """
    lines = read_lines(path)
    columns = lines[0].count("\t") + 1
    numbers, torn = [1], []
    for number, line in enumerate(lines[1:], start=2):
        (numbers if line.count("\t") + 1 == columns else torn).append(number)
    if len(torn) > MOST_BROKEN * (len(lines) - 1):
        cells = lines[torn[0] - 1].count("\t") + 1
        raise InputError(f"{path}:{torn[0]}: {cells} columns, the header has {columns} ({len(torn)} such lines)")
    if torn:
        logger.warning("%s: left out %d of %d lines, torn apart (first: %d)", path, len(torn), len(lines) - 1, torn[0])
    whole = [lines[number - 1] for number in numbers]
    examples = []
    for at, (text_a, text_b, label) in rows_by_header(path, whole, QQP_KEYS):
        number = numbers[at - 1]
        label = class_id(label, LABELS, f"{path}:{number}")
        examples.append(_example(number - 2, _unquoted(text_a), _unquoted(text_b), label))
    return checked(examples, "label", path)


def _unquoted(cell):
    # Copies written by a CSV library put quotes around a cell with quotes in it, and double those.
    inner = cell[1:-1]
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '""' in inner and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else cell


def read_pawsx(path: pathlib.Path) -> list[dict]:
    """Reads PAWS-X: XTREME's two or three columns without header, or the release's (x-final) with one.

    Test files of XTREME come without the label column; their examples have no "label". An id is the row's number from
    0; rows are parallel across languages in dev and test.
    """
    examples = []
    for row, (number, (text_a, text_b, *label)) in enumerate(_pawsx_rows(path, (2, 3))):
        label = class_id(label[0], LABELS, f"{path}:{number}") if label else None
        examples.append(_example(row, text_a, text_b, label))
    return checked(examples, "label", path)


def read_translated_pawsx(path: pathlib.Path) -> list[dict]:
    """Reads machine-translated PAWS-X: the release's or XTREME's (five columns: English pair, translated pair, label).

    Some rows of these files hold something else than a label; they are left out and counted in the log.
    """
    examples, wrong = [], []
    for row, (number, (*_, text_a, text_b, label)) in enumerate(_pawsx_rows(path, (3, 5))):
        if label in LABELS:
            examples.append(_example(row, text_a, text_b, LABELS.index(label)))
        else:
            wrong.append((number, label))
    if len(wrong) > 10 * MOST_BROKEN * (len(wrong) + len(examples)):
        class_id(wrong[0][1], LABELS, f"{path}:{wrong[0][0]}")
    if wrong:
        total = len(wrong) + len(examples)
        logger.warning("%s: left out %d of %d rows without a label (first: %d)", path, len(wrong), total, wrong[0][0])
    return checked(examples, "label", path)


def _pawsx_rows(path, allowed):
    lines = read_lines(path)
    if set(PAWSX_KEYS) <= set(lines[0].split("\t")):
        return rows_by_header(path, lines, PAWSX_KEYS)
    names = "a header with sentence1, sentence2, label, or " + " or ".join(map(str, allowed)) + " columns without one"
    return rows_by_place(path, lines, allowed, names)


def _example(row, text_a, text_b, label):
    example = {"id": str(row), "text_a": text_a, "text_b": text_b}
    return example if label is None else example | {"label": label}


def _qqp_from_tfds(rows, language):
    classes = {"not_duplicate": 0, "duplicate": 1, None: None}
    ordered = sorted(rows, key=lambda row: row["idx"])  # stored shuffled
    return [
        _example(row["idx"], _unquoted(row["question1"]), _unquoted(row["question2"]), classes[row["label"]])
        for row in ordered
    ]


def _pawsx_from_tfds(rows, language):
    classes = {"different_meaning": 0, "paraphrase": 1, None: None}
    return [_example(i, row["sentence1"], row["sentence2"], classes[row["label"]]) for i, row in enumerate(rows)]


QQP = TaskSpec(
    name="qqp",
    type="classification",
    languages=("en",),
    splits={"train": ("intermediate/qqp/train.tsv",), "dev": ("intermediate/qqp/dev.tsv",)},
    read=read_qqp,
    labels=LABELS,
    metric="paraphrase",
    text=texts.Classes(16, texts.GLUE, "qqp question1: {text_a} question2: {text_b}", ("not_duplicate", "duplicate")),
    tokens=34,
    train_task="qqp",
    tfds=Tfds(
        names=("glue/qqp",),
        splits={"train": "train", "dev": "validation"},
        convert=_qqp_from_tfds,
        languages=("en",),
        module="tensorflow_datasets.text",
    ),
    sizes={"train": 363_846, "dev": 40_430},
    recipe=Recipe(32, 256, 5, "not in the study's release; as PAWS-X there"),
    translated={"train": beside("intermediate/qqp/train.tsv")},
    description="Quora question pairs: do two questions ask the same?",
    url="https://gluebenchmark.com/tasks",
    licence="Quora's terms of service",
)

PAWSX_LANGUAGES = ("en", "de", "es", "fr", "ja", "ko", "zh")

PAWSX = TaskSpec(
    name="pawsx",
    type="classification",
    languages=PAWSX_LANGUAGES,
    more_languages=pairs.codes(PAWSX_LANGUAGES),
    paired=True,
    splits={
        "train": ("xtreme/pawsx/train-{language}.tsv", "xtreme/pawsx/x-final/{language}/train.tsv"),
        "dev": ("xtreme/pawsx/dev-{language}.tsv", "xtreme/pawsx/x-final/{language}/dev_2k.tsv"),
        # XTREME takes the labels out; the release has them
        "test": ("xtreme/pawsx/x-final/{language}/test_2k.tsv", "xtreme/pawsx/test-{language}.tsv"),
    },
    read=read_pawsx,
    labels=LABELS,
    parallel=True,
    metric="accuracy",
    text=texts.Classes(
        24, texts.MT5, "paws sentence1: {text_a} sentence2: {text_b}", ("different_meaning", "paraphrase")
    ),
    tokens=62,
    train_task="pawsx",
    tfds=Tfds(
        names=("paws_x_wiki/{language}",),
        splits={"train": "train", "dev": "validation", "test": "test"},
        convert=_pawsx_from_tfds,
        languages=PAWSX_LANGUAGES,
    ),
    sizes={"train": 49_401, "dev": 2_000, "test": 2_000},
    recipe=Recipe(32, 256, 5, "the study's release, PAWS-X script"),
    translated={
        "train": (
            "xtreme_translations/PAWSX/translate-train/en-{language}-translated.tsv",
            "xtreme/pawsx/x-final/{language}/translated_train.tsv",
            *beside("xtreme/pawsx/train-en.tsv"),
        )
    },
    read_translated=read_translated_pawsx,
    description="Paraphrase or not, pairs with many words in common; dev and test translated by professionals",
    url="https://github.com/google-research-datasets/paws/tree/master/pawsx",
    licence="free for any purpose; naming Google as the source is asked for",
)
