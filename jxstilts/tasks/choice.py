"""Multiple choice: HellaSwag, Cosmos QA, CommonsenseQA (English)."""

import csv
import io
import pathlib

from jxstilts.forms import texts
from jxstilts.readers import checked, read_json_lines, read_text
from jxstilts.runtime import InputError, shown
from jxstilts.tasks.spec import Recipe, TaskSpec, Tfds, beside

COSMOS_KEYS = ("id", "context", "question", "answer0", "answer1", "answer2", "answer3")


def read_hellaswag(path: pathlib.Path) -> list[dict]:
    """Reads HellaSwag's JSON lines: the prompt is ctx_a, each choice ctx_b and an ending.

    A row without ctx_a has its whole context in "ctx" or "context". No label, or an empty one, is an unlabelled row.
    An id is the row's number in the file, from 0.
    """
    examples = []
    for number, row in read_json_lines(path, ()):
        where = f"{path}:{number}"
        endings = row.get("endings")
        if not isinstance(endings, list) or not endings or not all(isinstance(ending, str) for ending in endings):
            raise InputError(f"{where}: expected 'endings' (a list of strings), as in HellaSwag's JSON")
        key = next((key for key in ("ctx_a", "ctx", "context") if isinstance(row.get(key), str)), None)
        if key is None:
            raise InputError(f"{where}: expected a string 'ctx_a' (or 'ctx', 'context'), as in HellaSwag's JSON")
        begin = row.get("ctx_b") if key == "ctx_a" else ""
        choices = [f"{begin} {ending}" if begin else ending for ending in endings]
        examples.append(_example(number - 1, row[key], choices, row.get("label"), where))
    return checked(examples, "label", path)


def read_cosmosqa(path: pathlib.Path) -> list[dict]:
    """Reads Cosmos QA: CSV with quoted commas, quotes and line breaks, or (its test set) JSON lines.

    The prompt is the context, a space, the question. No label, or an empty one, is an unlabelled row.
    """
    examples = []
    for number, row in _cosmos_csv(path) if path.suffix == ".csv" else read_json_lines(path, COSMOS_KEYS):
        prompt = f"{row['context']} {row['question']}"
        choices = [row[key] for key in COSMOS_KEYS[3:]]
        examples.append(_example(row["id"], prompt, choices, row.get("label"), f"{path}:{number}"))
    return checked(examples, "label", path)


def _cosmos_csv(path):
    """Yields (number of the line on which the row begins, row)."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    columns, begin = [], 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{path}:{begin}: not CSV ({error})") from error
        if cells is None:
            return
        if not columns:
            missing = [key for key in COSMOS_KEYS if key not in cells]
            if missing:
                raise InputError(f"{path}:1: expected a header with {', '.join(COSMOS_KEYS)}; missing {missing}")
            columns = cells
        elif len(cells) != len(columns):
            raise InputError(f"{path}:{begin}: {len(cells)} columns, the header has {len(columns)}")
        else:
            yield begin, dict(zip(columns, cells, strict=True))
        begin = reader.line_num + 1


def read_commonsenseqa(path: pathlib.Path) -> list[dict]:
    """Reads CommonsenseQA's JSON lines: the prompt is the question's stem, the choices stand by their letters.

    A row without answerKey is unlabelled.
    """
    examples = []
    for number, row in read_json_lines(path, ("id",)):
        where = f"{path}:{number}"
        question = row.get("question")
        choices = question.get("choices") if isinstance(question, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(question.get("stem"), str):
            raise InputError(f"{where}: expected 'question' with 'stem' and 'choices', as in CommonsenseQA's JSON")
        texts = {}
        for choice in choices:
            pair = [choice.get(key) for key in ("label", "text")] if isinstance(choice, dict) else []
            if len(pair) != 2 or not all(isinstance(value, str) for value in pair) or pair[0] in texts:
                raise InputError(f"{where}: expected choices with 'label' (each once) and 'text'; got {choice!r:.60}")
            texts[pair[0]] = pair[1]
        letters, answer = sorted(texts), row.get("answerKey")
        if answer not in (None, "", *letters):
            raise InputError(f"{where}: unknown answerKey {answer!r:.60}; allowed: {shown(', '.join(letters), 300)}")
        label = letters.index(answer) if answer else None
        examples.append(_example(row["id"], question["stem"], [texts[letter] for letter in letters], label, where))
    return checked(examples, "label", path)


def _example(row, prompt, choices, label, where):
    """Makes an example; label: the right choice as a number or its digits, None or "" where there is none."""
    example = {"id": str(row), "prompt": prompt, "choices": choices}
    if label is None or label == "":
        return example
    allowed = [str(i) for i in range(len(choices))]
    if isinstance(label, bool) or str(label) not in allowed:
        raise InputError(f"{where}: unknown label {label!r:.60}; allowed: {', '.join(allowed)}")
    return example | {"label": int(label)}


def _hellaswag_from_tfds(rows, language):
    # it keeps the whole context only, and gives an unlabelled row the label -1
    return [
        _example(i, row["context"], row["endings"], None if row["label"] == -1 else row["label"], f"TFDS row {i}")
        for i, row in enumerate(rows)
    ]


def _cosmosqa_from_tfds(rows, language):
    return [
        _example(
            row["id"], f"{row['context']} {row['question']}", [row[key] for key in COSMOS_KEYS[3:]], row["label"],
            f"TFDS row {row['id']!r}",
        )
        for row in rows
    ]  # fmt: skip


RECIPE = Recipe(32, 256, 2, "not in the study's release; as XNLI there")

HELLASWAG = TaskSpec(
    name="hellaswag",
    type="choice",
    languages=("en",),
    splits={
        split: (f"intermediate/hellaswag/hellaswag_{name}.jsonl",)
        for split, name in {"train": "train", "dev": "val", "test": "test"}.items()
    },
    read=read_hellaswag,
    metric="accuracy",
    text=texts.Choices(12, texts.OURS, "hellaswag"),
    train_task="hellaswag",
    tfds=Tfds(
        names=("hellaswag",),
        splits={"train": "train", "dev": "validation", "test": "test"},
        convert=_hellaswag_from_tfds,
        languages=("en",),
        module="tensorflow_datasets.text",
    ),
    sizes={"train": 39_905, "dev": 10_042, "test": 10_003},
    recipe=RECIPE,
    translated={"train": beside("intermediate/hellaswag/hellaswag_train.jsonl")},
    description="Which of four endings goes on with a description of everyday events?",
    url="https://github.com/rowanz/hellaswag",
    licence="MIT",
)

COSMOSQA = TaskSpec(
    name="cosmosqa",
    type="choice",
    languages=("en",),
    splits={
        "train": ("intermediate/cosmosqa/train.csv",),
        "dev": ("intermediate/cosmosqa/valid.csv",),
        "test": ("intermediate/cosmosqa/test.jsonl",),
    },
    read=read_cosmosqa,
    metric="accuracy",
    text=texts.Choices(12, texts.OURS, "cosmosqa"),
    tokens=462,
    train_task="cosmosqa",
    tfds=Tfds(
        names=("cosmos_qa",),
        splits={"train": "train", "dev": "validation", "test": "test"},
        convert=_cosmosqa_from_tfds,
        languages=("en",),
        module="tensorflow_datasets.question_answering",
    ),
    sizes={"train": 25_262, "dev": 2_985, "test": 6_963},
    recipe=RECIPE,
    translated={"train": beside("intermediate/cosmosqa/train.csv")},
    description="Questions about what blog stories leave unsaid: four answers, one plausible",
    url="https://wilburone.github.io/cosmos/",
    licence="CC BY 4.0",
)

COMMONSENSEQA = TaskSpec(
    name="commonsenseqa",
    type="choice",
    languages=("en",),
    splits={
        split: (f"intermediate/commonsenseqa/{name}.jsonl",)
        for split, name in {
            "train": "train_rand_split",
            "dev": "dev_rand_split",
            "test": "test_rand_split_no_answers",
        }.items()
    },
    read=read_commonsenseqa,
    metric="accuracy",
    text=texts.Choices(12, texts.OURS, "commonsenseqa"),
    tokens=113,
    choices=5,
    train_task="commonsenseqa",
    sizes={"train": 9_741, "dev": 1_221, "test": 1_140},
    recipe=RECIPE,
    translated={"train": beside("intermediate/commonsenseqa/train_rand_split.jsonl")},
    description="Questions of common sense with five answers",
    url="https://www.tau-nlp.sites.tau.ac.il/commonsenseqa",
    licence="MIT",
)
