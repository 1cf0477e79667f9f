"""Natural language inference: MNLI, SNLI, ANLI and their union (English training data), XNLI (15 languages)."""

import logging
import pathlib

from jxstilts.forms import texts
from jxstilts.readers import checked, class_id, read_json_lines, read_lines, rows_by_header, rows_by_place
from jxstilts.runtime import InputError, shown
from jxstilts.tasks import pairs
from jxstilts.tasks.spec import Recipe, TaskSpec, Tfds, beside

logger = logging.getLogger(__name__)

LABELS = ("contradiction", "entailment", "neutral")
NO_GOLD = "-"  # MNLI and SNLI: the five annotators reached no majority
MNLI_KEYS = ("sentence1", "sentence2", "gold_label")
ANLI_LABELS = ("c", "e", "n")  # the same classes in the same order
XNLI_KEYS = ("language", "gold_label", "sentence1", "sentence2")
XNLI_MT_KEYS = ("premise", "hypo", "label")


def _text(name: str, source: str = texts.OURS) -> texts.Classes:
    return texts.Classes(16, source, f"{name} hypothesis: {{text_b}} premise: {{text_a}}", LABELS)


def read_mnli(path: pathlib.Path) -> list[dict]:
    """Reads MNLI or SNLI as JSON lines (the official releases), or MNLI with GLUE's header line (.tsv).

    Rows without a gold label ("-") are left out, as the releases ask, and counted in the log. An id is the row's
    number in the file, from 0, so that leaving rows out does not renumber the others.
    """
    if path.suffix == ".tsv":
        return _with_gold(path, rows_by_header(path, read_lines(path), MNLI_KEYS))
    rows = read_json_lines(path, MNLI_KEYS)
    return _with_gold(path, ((number, [row[key] for key in MNLI_KEYS]) for number, row in rows))


def _with_gold(path, rows):
    examples, skipped = [], 0
    for i, (number, (text_a, text_b, label)) in enumerate(rows):
        if label == NO_GOLD:
            skipped += 1
            continue
        examples.append(_example(i, text_a, text_b, class_id(label, LABELS, f"{path}:{number}")))
    if skipped:
        logger.info("%s: left out %d of %d rows, which have no gold label", path, skipped, skipped + len(examples))
    if not examples:
        raise InputError(f"{path}: no row has a gold label")
    return examples


def read_translated(path: pathlib.Path) -> list[dict]:
    """Reads machine-translated MNLI or SNLI; an id is the row's number from 0.

    A .tsv is XNLI-MT's (header premise, hypo, label), XTREME's (five columns without header: the English pair, the
    translated pair, the label) or has GLUE's header; another file holds JSON lines as in the English release.
    """
    if path.suffix != ".tsv":
        return read_mnli(path)
    lines = read_lines(path)
    header = lines[0].split("\t")
    if set(XNLI_MT_KEYS) <= set(header):
        rows = rows_by_header(path, lines, XNLI_MT_KEYS)
    elif len(header) == 5:
        rows = rows_by_place(path, lines, (5,), "")
    else:
        return read_mnli(path)
    examples = []
    for i, (number, (*_, text_a, text_b, label)) in enumerate(rows):
        label = "contradiction" if label == "contradictory" else label
        examples.append(_example(i, text_a, text_b, class_id(label, LABELS, f"{path}:{number}")))
    return checked(examples, "label", path)


def read_anli(path: pathlib.Path) -> list[dict]:
    """Reads one round of ANLI; an id is the round (the folder's name) and the row's uid: "r1/..."."""
    examples = []
    for number, row in read_json_lines(path, ("uid", "context", "hypothesis", "label")):
        label = class_id(row["label"], ANLI_LABELS, f"{path}:{number}")
        examples.append(_example(f"{path.parent.name.lower()}/{row['uid']}", row["context"], row["hypothesis"], label))
    return checked(examples, "label", path)


def read_xnli(path: pathlib.Path, language: str) -> list[dict]:
    """Reads XNLI: XTREME's file of one language, or the release's (XNLI-1.0) of all.

    XTREME: premise TAB hypothesis TAB label, without header or quoting; test files come without the label column, and
    their examples have no "label". The release: a header line and tab-separated cells, or JSON lines, with language,
    gold_label, sentence1 and sentence2; always labelled. Rows are parallel across languages and the id is the row's
    number among those of its language, from 0, so an id names the same item in every language and either form.
    """
    if path.suffix == ".jsonl":
        rows = read_json_lines(path, XNLI_KEYS)
        return _of_language(path, ((number, [row[key] for key in XNLI_KEYS]) for number, row in rows), language)
    lines = read_lines(path)
    if set(XNLI_KEYS) <= set(lines[0].split("\t")):
        return _of_language(path, rows_by_header(path, lines, XNLI_KEYS), language)
    examples = []
    names = "premise, hypothesis and label (or no label, in test)"
    for number, cells in rows_by_place(path, lines, (2, 3), names):
        label = class_id(cells[2], LABELS, f"{path}:{number}") if len(cells) == 3 else None
        examples.append(_example(number - 1, cells[0], cells[1], label))
    return examples


def _of_language(path, rows, language):
    examples, others = [], set()
    for number, (code, label, text_a, text_b) in rows:
        if code == language:
            label = class_id(label, LABELS, f"{path}:{number}")
            examples.append(_example(len(examples), text_a, text_b, label))
        else:
            others.add(code)
    if not examples:
        there = shown(", ".join(sorted(others)), 300)
        raise InputError(f"{path}: no row in {language!r}; languages there: {there or 'none'}")
    return examples


def _example(row, text_a, text_b, label):
    example = {"id": str(row), "text_a": text_a, "text_b": text_b}
    return example if label is None else example | {"label": label}


def _mnli_from_tfds(rows, language):
    # glue/mnli carries the row number and is stored shuffled; multi_nli and snli have no number
    numbered = sorted(((row.get("idx", i), row) for i, row in enumerate(rows)), key=lambda pair: pair[0])
    return [_example(i, row["premise"], row["hypothesis"], _tfds_label(row)) for i, row in numbered]


def _snli_from_tfds(rows, language):
    return [example for example in _mnli_from_tfds(rows, language) if "label" in example]  # others have no majority


def _anli_from_tfds(rows, language):
    return [_example(row["uid"], row["context"], row["hypothesis"], ANLI_LABELS.index(row["label"])) for row in rows]


def _xnli_from_tfds(rows, language):
    examples = []
    for i, row in enumerate(rows):
        hypothesis = row["hypothesis"]["translation"][row["hypothesis"]["language"].index(language)]
        examples.append(_example(i, row["premise"][language].strip(), hypothesis.strip(), _tfds_label(row)))
    return examples


def _tfds_label(row):
    return None if row["label"] is None else LABELS.index(row["label"])


def _files(folder, *names):
    return tuple(f"intermediate/{folder}/{name}" for name in names)


AS_XNLI = "not in the study's release; as XNLI there"
MNLI_TRAIN = _files("mnli", "train.jsonl", "multinli_1.0_train.jsonl", "train.tsv")
SNLI_TRAIN = _files("snli", "train.jsonl", "snli_1.0_train.jsonl")  # lines of GLUE's train.tsv differ in columns
ANLI_TRAIN = _files("anli", "R1/train.jsonl", "R2/train.jsonl", "R3/train.jsonl")

MNLI = TaskSpec(
    name="mnli",
    type="classification",
    languages=("en",),
    splits={
        "train": MNLI_TRAIN,
        "dev": _files("mnli", "dev.jsonl", "multinli_1.0_dev_matched.jsonl", "dev_matched.tsv"),
    },
    read=read_mnli,
    labels=LABELS,
    metric="accuracy",
    text=_text("mnli", texts.GLUE),
    train_task="mnli",
    tfds=Tfds(
        names=("glue/mnli", "multi_nli"),
        splits={"train": "train", "dev": "validation_matched"},
        convert=_mnli_from_tfds,
        languages=("en",),
        module="tensorflow_datasets.text",
    ),
    sizes={"train": 392_702, "dev": 9_815},
    recipe=Recipe(32, 256, 2, "the study's release, XNLI script"),
    translated={
        "train": (
            "XNLI-MT-1.0/multinli/multinli.train.{language}.tsv",
            "xtreme_translations/XNLI/translate-train/en-{language}-translated.tsv",
            *beside(*MNLI_TRAIN),
        )
    },
    read_translated=read_translated,
    description="Multi-genre natural language inference: does the premise entail or contradict the hypothesis?",
    url="https://cims.nyu.edu/~sbowman/multinli/",
    licence="OANC and others, by genre (see the release)",
)

SNLI = TaskSpec(
    name="snli",
    type="classification",
    languages=("en",),
    splits={"train": SNLI_TRAIN, "dev": _files("snli", "dev.jsonl", "snli_1.0_dev.jsonl")},
    read=read_mnli,
    labels=LABELS,
    metric="accuracy",
    text=_text("snli"),
    tokens=30,
    train_task="snli",
    tfds=Tfds(
        names=("snli",),
        splits={"train": "train", "dev": "validation"},
        convert=_snli_from_tfds,
        languages=("en",),
    ),
    sizes={"train": 549_367, "dev": 9_842},
    recipe=Recipe(32, 256, 2, AS_XNLI),
    translated={"train": beside(*SNLI_TRAIN)},
    read_translated=read_translated,
    description="Natural language inference over descriptions of pictures",
    url="https://nlp.stanford.edu/projects/snli/",
    licence="CC BY-SA 4.0",
)

ANLI = TaskSpec(
    name="anli",
    type="classification",
    languages=("en",),
    splits={"train": ANLI_TRAIN, "dev": _files("anli", "R1/dev.jsonl", "R2/dev.jsonl", "R3/dev.jsonl")},
    union=True,
    read=read_anli,
    labels=LABELS,
    metric="accuracy",
    text=_text("anli"),
    tokens=100,
    train_task="anli",
    tfds=Tfds(
        names=("anli/r1", "anli/r2", "anli/r3"),
        splits={"train": "train", "dev": "validation"},
        convert=_anli_from_tfds,
        languages=("en",),
        union=True,
    ),
    sizes={"train": 162_865, "dev": 3_200},
    recipe=Recipe(32, 256, 2, AS_XNLI),
    translated={"train": beside(*ANLI_TRAIN)},
    description="Adversarial natural language inference, rounds 1 to 3: written to be hard for the models of the time",
    url="https://github.com/facebookresearch/anli",
    licence="CC BY-NC 4.0",
)

ANLI_PLUS = TaskSpec(
    name="anli_plus",
    type="classification",
    languages=("en",),
    splits={"train": (), "dev": ()},
    read=None,
    parts=("anli", "mnli", "snli"),
    labels=LABELS,
    metric="accuracy",
    text=_text("nli"),
    train_task="anli_plus",
    sizes={"train": 1_104_934, "dev": 22_857},
    recipe=Recipe(32, 256, 2, AS_XNLI),
    translated={"train": ()},
    description="ANLI, MNLI and SNLI together, under one head",
    url="https://github.com/facebookresearch/anli",
    licence="by part: see anli, mnli and snli",
)


def _xnli_release(split):
    return tuple(f"{folder}XNLI-1.0/xnli.{split}.{end}" for folder in ("xtreme/xnli/", "") for end in ("tsv", "jsonl"))


XNLI_LANGUAGES = ("en", "ar", "bg", "de", "el", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")

XNLI = TaskSpec(
    name="xnli",
    type="classification",
    languages=XNLI_LANGUAGES,
    more_languages=pairs.codes(XNLI_LANGUAGES),
    paired=True,
    # XTREME takes the labels out of its test files; the release has them
    splits={
        "dev": ("xtreme/xnli/dev-{language}.tsv", *_xnli_release("dev")),
        "test": (*_xnli_release("test"), "xtreme/xnli/test-{language}.tsv"),
    },
    read=read_xnli,
    multilingual=True,
    labels=LABELS,
    parallel=True,
    metric="accuracy",
    text=texts.Classes(4, texts.MT5, "xnli: premise: {text_a} hypothesis: {text_b}", ("2", "0", "1")),
    train_task="mnli",
    tfds=Tfds(
        names=("xnli",),
        splits={"dev": "validation", "test": "test"},
        convert=_xnli_from_tfds,
        languages=XNLI_LANGUAGES,
        module="tensorflow_datasets.text",
    ),
    sizes={"dev": 2_490, "test": 5_010},
    description="MNLI's format in 15 languages, dev and test translated by professionals",
    url="https://github.com/facebookresearch/XNLI",
    licence="CC BY-NC 4.0",
)
