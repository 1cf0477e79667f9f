"""Natural language inference: MNLI (English training data) and XNLI (15 languages)."""

import logging
import pathlib

from jxstilts.runtime import InputError
from jxstilts.tasks.spec import TaskSpec, Tfds, class_id, read_json_lines, read_lines

logger = logging.getLogger(__name__)

LABELS = ("contradiction", "entailment", "neutral")
NO_GOLD = "-"  # MNLI: the five annotators reached no majority
MNLI_KEYS = ("sentence1", "sentence2", "gold_label")


def read_mnli(path: pathlib.Path) -> list[dict]:
    """Reads MNLI as JSON lines (the official release) or, where the file ends in .tsv, with GLUE's header line.

    Rows without a gold label ("-") are left out, as the release asks, and counted in the log. An id is the row's
    number in the file, from 0, so that leaving rows out does not renumber the others.
    """
    rows = _tsv_with_header(path) if path.suffix == ".tsv" else read_json_lines(path, MNLI_KEYS)
    examples, skipped = [], 0
    for i, (number, row) in enumerate(rows):
        if row["gold_label"] == NO_GOLD:
            skipped += 1
            continue
        label = class_id(row["gold_label"], LABELS, f"{path}:{number}")
        examples.append(_example(i, row["sentence1"], row["sentence2"], label))
    if skipped:
        logger.info("%s: left out %d of %d rows, which have no gold label", path, skipped, skipped + len(examples))
    if not examples:
        raise InputError(f"{path}: no row has a gold label")
    return examples


def _tsv_with_header(path):
    header, *lines = read_lines(path)
    columns = header.split("\t")
    missing = [key for key in MNLI_KEYS if key not in columns]
    if missing:
        raise InputError(f"{path}:1: expected a header line with {', '.join(MNLI_KEYS)}; missing {missing}")
    for number, line in enumerate(lines, start=2):
        cells = line.split("\t")
        if len(cells) != len(columns):
            raise InputError(f"{path}:{number}: {len(cells)} columns, the header has {len(columns)}")
        yield number, dict(zip(columns, cells, strict=True))


def read_xnli(path: pathlib.Path) -> list[dict]:
    """Reads XTREME's XNLI: premise TAB hypothesis TAB label, without header or quoting.

    Test files come without the label column; their examples have no "label". Rows are parallel across languages and
    the id is the row's number from 0, so an id names the same item in every language.
    """
    lines = read_lines(path)
    columns = lines[0].count("\t") + 1
    if columns not in (2, 3):
        raise InputError(f"{path}:1: {columns} columns, expected premise, hypothesis and label (or no label, in test)")
    examples = []
    for number, line in enumerate(lines, start=1):
        cells = line.split("\t")
        if len(cells) != columns:
            raise InputError(f"{path}:{number}: {len(cells)} columns, line 1 has {columns}")
        label = class_id(cells[2], LABELS, f"{path}:{number}") if columns == 3 else None
        examples.append(_example(number - 1, cells[0], cells[1], label))
    return examples


def _example(row, text_a, text_b, label):
    example = {"id": str(row), "text_a": text_a, "text_b": text_b}
    return example if label is None else example | {"label": label}


def _mnli_from_tfds(rows, language):
    # glue/mnli carries the row number and is stored shuffled; multi_nli has no number
    numbered = sorted(((row.get("idx", i), row) for i, row in enumerate(rows)), key=lambda pair: pair[0])
    return [_example(i, row["premise"], row["hypothesis"], _tfds_label(row)) for i, row in numbered]


def _xnli_from_tfds(rows, language):
    examples = []
    for i, row in enumerate(rows):
        hypothesis = row["hypothesis"]["translation"][row["hypothesis"]["language"].index(language)]
        examples.append(_example(i, row["premise"][language].strip(), hypothesis.strip(), _tfds_label(row)))
    return examples


def _tfds_label(row):
    return None if row["label"] is None else LABELS.index(row["label"])


MNLI = TaskSpec(
    name="mnli",
    type="classification",
    languages=("en",),
    splits={
        "train": tuple(
            f"intermediate/mnli/{name}" for name in ("train.jsonl", "multinli_1.0_train.jsonl", "train.tsv")
        ),
        "dev": tuple(
            f"intermediate/mnli/{name}" for name in ("dev.jsonl", "multinli_1.0_dev_matched.jsonl", "dev_matched.tsv")
        ),
    },
    read=read_mnli,
    labels=LABELS,
    metric="accuracy",
    train_task="mnli",
    tfds=Tfds(
        names=("glue/mnli", "multi_nli"),
        splits={"train": "train", "dev": "validation_matched"},
        convert=_mnli_from_tfds,
        languages=("en",),
        module="tensorflow_datasets.text",
    ),
    description="Multi-genre natural language inference: does the premise entail or contradict the hypothesis?",
    url="https://cims.nyu.edu/~sbowman/multinli/",
    licence="OANC and others, by genre (see the release)",
)

XNLI_LANGUAGES = ("en", "ar", "bg", "de", "el", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")

XNLI = TaskSpec(
    name="xnli",
    type="classification",
    languages=XNLI_LANGUAGES,
    splits={"dev": ("xtreme/xnli/dev-{language}.tsv",), "test": ("xtreme/xnli/test-{language}.tsv",)},
    read=read_xnli,
    labels=LABELS,
    metric="accuracy",
    train_task="mnli",
    tfds=Tfds(
        names=("xnli",),
        splits={"dev": "validation", "test": "test"},
        convert=_xnli_from_tfds,
        languages=XNLI_LANGUAGES,
        module="tensorflow_datasets.text",
    ),
    description="MNLI's format in 15 languages, dev and test translated by professionals",
    url="https://github.com/facebookresearch/XNLI",
    licence="CC BY-NC 4.0",
)
