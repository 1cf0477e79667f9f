"""Causes and effects: Social IQa and COPA (English, trained on one after the other), XCOPA in eleven languages.

The prompts are those of XTREME-R's released code: the context and its question; the premise and "What was the cause?"
or "What was the effect?", in English whatever the language.
"""

import logging
import pathlib

from jxstilts.forms import texts
from jxstilts.readers import checked, read_json_lines
from jxstilts.runtime import InputError
from jxstilts.tasks.choice import RECIPE
from jxstilts.tasks.spec import TaskSpec, beside

logger = logging.getLogger(__name__)

LETTERS = ("A", "B", "C")
ASKED = ("cause", "effect")
AS_TEXT = texts.Choices(12, texts.OURS, "copa")  # XCOPA's, too, which is asked of a model that was trained on COPA


def read_siqa(path: pathlib.Path) -> list[dict]:
    """Reads Social IQa's JSON lines: three answers, the right one named by its letter in "correct".

    A row without "correct" is unlabelled. An id is the row's number in the file, from 0.
    """
    keys = ("context", "question", *(f"answer{letter}" for letter in LETTERS))
    examples = []
    for number, row in read_json_lines(path, keys):
        example = {
            "id": str(number - 1),
            "prompt": f"{row['context']} {row['question']}",
            "choices": [row[key] for key in keys[2:]],
        }
        if row.get("correct") not in (None, "", *LETTERS):
            raise InputError(
                f"{path}:{number}: unknown 'correct' {row['correct']!r:.60}; allowed: {', '.join(LETTERS)}"
            )
        if row.get("correct"):
            example["label"] = LETTERS.index(row["correct"])
        examples.append(example)
    return checked(examples, "label", path)


def read_copa(path: pathlib.Path) -> list[dict]:
    """Reads COPA in SuperGLUE's JSON lines, which XCOPA shares. An id is the row's "idx".

    A test file of XTREME-R ("test-XX.jsonl"), in which every label has been made 0, is unlabelled.
    """
    examples = []
    for number, row in read_json_lines(path, ("premise", "choice1", "choice2", "question")):
        where = f"{path}:{number}"
        if row["question"] not in ASKED:
            raise InputError(f"{where}: unknown question {row['question']!r:.60}; allowed: {', '.join(ASKED)}")
        if type(row.get("idx")) is not int:
            raise InputError(f"{where}: expected a whole number 'idx', got {row.get('idx')!r:.60}")
        prompt = f"{row['premise']} What was the {row['question']}?"
        example = {"id": str(row["idx"]), "prompt": prompt, "choices": [row["choice1"], row["choice2"]]}
        if "label" in row:
            if type(row["label"]) is not int or row["label"] not in (0, 1):
                raise InputError(f"{where}: unknown label {row['label']!r:.60}; allowed: 0, 1")
            example["label"] = row["label"]
        examples.append(example)
    if path.name.startswith("test-") and {example.get("label") for example in examples} == {0}:
        logger.info("%s: every label is 0, XTREME-R's placeholder: unlabelled", path)
        for example in examples:
            del example["label"]
    return checked(examples, "label", path)


SIQA = TaskSpec(
    name="siqa",
    type="choice",
    languages=("en",),
    splits={
        split: (f"xtreme-r/siqa/socialIQa_v1.4_{name}.jsonl",)
        for split, name in {"train": "trn", "dev": "dev", "test": "tst"}.items()
    },
    read=read_siqa,
    metric="accuracy",
    choices=3,
    tokens=40,
    train_task="siqa",
    sizes={"dev": 1_954, "test": 2_224},
    recipe=RECIPE,
    translated={"train": beside("xtreme-r/siqa/socialIQa_v1.4_trn.jsonl")},
    text=texts.Choices(12, texts.OURS, "siqa"),
    description="Why people do something, and what happens then: three answers",
    url="https://maartensap.com/social-iqa/",
    licence="CC BY 4.0",
)

COPA = TaskSpec(
    name="copa",
    type="choice",
    languages=("en",),
    splits={
        split: (f"xtreme-r/copa/{name}.en.jsonl", f"xtreme-r/xcopa/{name}-en.jsonl")
        for split, name in {"train": "train", "dev": "val", "test": "test"}.items()
    },
    read=read_copa,
    metric="accuracy",
    choices=2,
    tokens=24,
    train_task="copa",
    sizes={"train": 400, "dev": 100, "test": 500},
    recipe=RECIPE,
    translated={"train": beside("xtreme-r/copa/train.en.jsonl")},
    text=AS_TEXT,
    description="Which of two sentences is the cause, or the effect, of a third?",
    url="https://people.ict.usc.edu/~gordon/copa.html",
    licence="BSD 2-Clause; this copy (COPA-SSE) MIT",
)

XCOPA_LANGUAGES = tuple("et ht id it qu sw ta th tr vi zh".split())


def _xcopa(folder: str, name: str, languages: tuple[str, ...], description: str) -> TaskSpec:
    def files(given: str) -> tuple[str, ...]:
        processed = (f"xtreme-r/xcopa/{given}-{{language}}.jsonl",) if name == "xcopa" else ()
        return (f"xtreme-r/{folder}/{{language}}/{given}.{{language}}.jsonl", *processed)

    return TaskSpec(
        name=name,
        type="choice",
        languages=languages,
        splits={"dev": files("val"), "test": files("test")},
        read=read_copa,
        parallel=True,
        metric="accuracy",
        choices=2,
        tokens=28,
        train_task="copa",
        text=AS_TEXT,
        description=description,
        url="https://github.com/cambridgeltl/xcopa",
        licence="CC BY 4.0",
    )


XCOPA = _xcopa("xcopa", "xcopa", XCOPA_LANGUAGES, "COPA's dev and test items translated into eleven languages")
XCOPA_GMT = _xcopa(
    "xcopa-gmt",
    "xcopa_gmt",
    tuple(code for code in XCOPA_LANGUAGES if code != "qu"),
    "XCOPA machine-translated back into English (translate-test); the language is that of the original",
)
