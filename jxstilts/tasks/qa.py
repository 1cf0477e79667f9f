"""Extractive question answering in SQuAD's JSON format: SQuAD v1.1 and v2.0, XQuAD, MLQA, TyDiQA-GoldP."""

import functools
import logging
import pathlib
from collections.abc import Callable

from jxstilts.forms import texts
from jxstilts.readers import parse_json, read_text
from jxstilts.runtime import InputError
from jxstilts.tasks import pairs
from jxstilts.tasks.spec import Recipe, TaskSpec, Tfds, beside

ANSWERS = texts.Answers(64, texts.MT5)

logger = logging.getLogger(__name__)


def read_squad(
    path: pathlib.Path,
    repeated_ids: bool = False,
    translated: bool = False,
    keep: Callable[[str], bool] | None = None,
    unanswerable: bool = False,
) -> list[dict]:
    """Reads a SQuAD-format file; answer offsets count Unicode characters and are checked.

    "answers" is absent where the gold answers have been taken out: no answers at all, or XTREME's placeholder (one
    empty text at 0). It is empty only for a question marked `is_impossible` (SQuAD v2); without `unanswerable` such a
    question is an error, because the task's metric knows no empty answer. An id that comes again is an error, because
    predictions are matched by id; with `repeated_ids` it gets the question's number instead ("42#17").
    With `translated`, machine translation may have lost an answer: a question that should have one, and none is at
    its offset, is left out and counted in the log (the study too leaves out training answers that it cannot find).
    keep: id -> whether to read the question; the others are not looked at.
    """
    document = parse_json(read_text(path), path)
    examples, seen, lost = [], set(), []
    for where, context, question in _questions(document, path):
        identifier = _get(question, "id", str, where)
        if keep and not keep(identifier):
            continue
        where = f"{path}: question {identifier!r:.80}"
        if identifier in seen and not repeated_ids:
            raise InputError(f"{where}: this id is in the file twice")
        while identifier in seen:
            identifier = f"{identifier}#{len(examples)}"
        seen.add(identifier)
        example = {"id": identifier, "question": _get(question, "question", str, where), "context": context}
        given, impossible = _given(question, where, unanswerable)
        if translated:
            given = [answer for answer in given if _is_there(answer, context)]
            if not given and not impossible:
                lost.append(identifier)
                continue
        answers = [(_get(answer, "text", str, where), _get(answer, "answer_start", int, where)) for answer in given]
        examples.append(_with_answers(example, answers, impossible, where))
    if lost:
        total = len(lost) + len(examples)
        logger.warning(
            "%s: left out %d of %d questions, whose answer is not at its offset (first: %r)",
            path, len(lost), total, lost[0],
        )  # fmt: skip
    if not examples:
        which = " has its answer at its offset" if lost else " is of this language" if keep else ""
        raise InputError(f"{path}: no question in the file{which}")
    return _alike(examples, str(path))


def _given(question, where, unanswerable):
    """Returns the gold answers as they stand in the file, and whether the question is marked as one without."""
    given = _get(question, "answers", list, where) if "answers" in question else []
    impossible = _get(question, "is_impossible", bool, where) if "is_impossible" in question else False
    answered = any(isinstance(answer, dict) and answer.get("text") for answer in given)
    if impossible and answered:
        raise InputError(f"{where} is marked is_impossible, but has an answer")
    # SQuAD v2 names plausible answers where there is no right one
    if not unanswerable and (impossible or (question.get("plausible_answers") and not answered)):
        sign = "is_impossible: true" if impossible else "plausible_answers, but no answers"
        raise InputError(
            f"{where} has {sign}, as SQuAD v2 marks a question without an answer, and this task has none of those; "
            "read the file as task 'squad_v2' (a task of your own: read_squad with unanswerable=True)"
        )
    return given, impossible


def _alike(examples, where):
    """Returns the examples if all or none hold "answers"."""
    labelled = {"answers" in example: example["id"] for example in examples}
    if len(labelled) == 2:
        raise InputError(
            f"{where}: question {labelled[False]!r:.60} has no answer, but {labelled[True]!r:.60} has; only task "
            "'squad_v2' takes questions without an answer, and each is marked there with is_impossible: true"
        )
    return examples


def _questions(document, path):
    """Yields (place for a message, context, question object)."""
    for i, article in enumerate(_get(document, "data", list, str(path))):
        for j, paragraph in enumerate(_get(article, "paragraphs", list, f"{path}: data[{i}]")):
            where = f"{path}: data[{i}].paragraphs[{j}]"
            context = _get(paragraph, "context", str, where)
            for k, question in enumerate(_get(paragraph, "qas", list, where)):
                yield f"{where}.qas[{k}]", context, question


def _get(value, key, kind, where):
    if not isinstance(value, dict) or type(value.get(key)) is not kind:  # true is no number
        raise InputError(f"{where}: expected an object with {key!r} ({kind.__name__}), as in SQuAD's JSON")
    return value[key]


def _is_there(answer, context):
    text, start = (answer.get("text"), answer.get("answer_start")) if isinstance(answer, dict) else (None, None)
    if type(text) is not str or type(start) is not int:
        return False
    return bool(text) and start >= 0 and context.startswith(text, start)


def _with_answers(example, answers, impossible, where):
    if impossible:
        return example | {"answers": []}
    if not any(text for text, _ in answers):
        return example
    context = example["context"]
    for text, start in answers:
        if not text or start < 0 or context[start : start + len(text)] != text:
            there = context[max(start, 0) : max(start, 0) + len(text)]
            nearest = context.find(text) if text else -1
            hint = f"; the text is first found at {nearest}" if nearest >= 0 else ""
            raise InputError(f"{where}: answer {text!r:.60} is not at offset {start}, where {there!r:.60} stands{hint}")
    return example | {"answers": [{"text": text, "start": start} for text, start in answers]}


def _squad_from_tfds(rows, language, unanswerable=False):
    examples = []
    for row in rows:
        where = f"TFDS question {row['id']!r:.80}"
        example = {"id": row["id"], "question": row["question"], "context": row["context"]}
        answers = list(zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True))
        question = row | {"answers": [{"text": text} for text in row["answers"]["text"]]}
        question["plausible_answers"] = row.get("plausible_answers", {}).get("text")
        _, impossible = _given(question, where, unanswerable)
        examples.append(_with_answers(example, answers, impossible, where))
    return _alike(examples, "TFDS")


SQUAD = TaskSpec(
    name="squad_v1",
    type="span",
    languages=("en",),
    splits={"train": ("intermediate/squad/train-v1.1.json",), "dev": ("intermediate/squad/dev-v1.1.json",)},
    read=read_squad,
    metric="squad",
    text=ANSWERS,
    train_task="squad_v1",
    sizes={"train": 87_599, "dev": 10_570},
    recipe=Recipe(16, 384, 2, "the study's release, XQuAD script"),
    translated={
        "train": (
            "xtreme_translations/SQuAD/translate-train/squad.translate.train.en-{language}.json",
            *beside("intermediate/squad/train-v1.1.json"),
        )
    },
    read_translated=functools.partial(read_squad, translated=True),
    tfds=Tfds(
        names=("squad/v1.1",),
        splits={"train": "train", "dev": "validation"},
        convert=_squad_from_tfds,
        languages=("en",),
    ),
    description="SQuAD v1.1: answers are spans of an English Wikipedia paragraph",
    url="https://rajpurkar.github.io/SQuAD-explorer/",
    licence="CC BY-SA 4.0",
)

SQUAD_V2 = TaskSpec(
    name="squad_v2",
    type="span",
    languages=("en",),
    splits={"train": ("intermediate/squad/train-v2.0.json",), "dev": ("intermediate/squad/dev-v2.0.json",)},
    read=functools.partial(read_squad, unanswerable=True),
    metric="squad_v2",
    text=texts.Answers(64, texts.OURS, none="unanswerable"),
    unanswerable=True,
    train_task="squad_v2",
    sizes={"train": 130_319, "dev": 11_873},
    recipe=Recipe(16, 384, 2, "not in the study's release; as SQuAD v1.1 there"),
    translated={"train": beside("intermediate/squad/train-v2.0.json")},
    read_translated=functools.partial(read_squad, translated=True, unanswerable=True),
    tfds=Tfds(
        names=("squad/v2.0",),
        splits={"train": "train", "dev": "validation"},
        convert=functools.partial(_squad_from_tfds, unanswerable=True),
        languages=("en",),
    ),
    description="SQuAD v2.0: SQuAD v1.1 and questions that their paragraph does not answer",
    url="https://rajpurkar.github.io/SQuAD-explorer/",
    licence="CC BY-SA 4.0",
)

# The paper, and XTREME's download script, leave out Romanian, which was added to XQuAD later.
XQUAD_LANGUAGES = ("en", "ar", "de", "el", "es", "hi", "ru", "th", "tr", "vi", "zh")

XQUAD = TaskSpec(
    name="xquad",
    type="span",
    languages=(*XQUAD_LANGUAGES, "ro"),
    splits={"test": ("xtreme/xquad/xquad.{language}.json",)},
    read=read_squad,
    parallel=True,
    metric="squad",
    text=ANSWERS,
    train_task="squad_v1",
    sizes={"test": 1_190},
    tfds=Tfds(
        names=("xquad/{language}",),
        splits={"test": "test"},
        convert=_squad_from_tfds,
        languages=XQUAD_LANGUAGES,
        module="tensorflow_datasets.question_answering",
    ),
    description="Part of SQuAD v1.1's dev set (1,190 questions), translated by professionals",
    url="https://github.com/google-deepmind/xquad",
    licence="CC BY-SA 4.0",
)

MLQA_LANGUAGES = ("en", "ar", "de", "es", "hi", "vi", "zh")


def _mlqa_fields(language):
    context, _, question = language.partition("-")
    return {"context": (context,), "question": (question or context,)}


MLQA = TaskSpec(
    name="mlqa",
    type="span",
    languages=MLQA_LANGUAGES,
    more_languages=pairs.codes(MLQA_LANGUAGES),
    splits={
        split: (f"xtreme/mlqa/MLQA_V1/{split}/{split}-context-{{context}}-question-{{question}}.json",)
        for split in ("dev", "test")
    },
    fields=_mlqa_fields,
    read=read_squad,
    parallel=True,
    metric="mlqa",
    text=ANSWERS,
    train_task="squad_v1",
    sizes={"dev": 1_148},
    tfds=Tfds(
        names=("mlqa/{language}",),
        splits={"dev": "validation", "test": "test"},
        convert=_squad_from_tfds,
        languages=MLQA_LANGUAGES,
    ),
    description="SQuAD's format in 7 languages; 'en-de' is an English context with a German question",
    url="https://github.com/facebookresearch/MLQA",
    licence="CC BY-SA 3.0",
)

TYDIQA_NAMES = {
    "en": "english",
    "ar": "arabic",
    "bn": "bengali",
    "fi": "finnish",
    "id": "indonesian",
    "ko": "korean",
    "ru": "russian",
    "sw": "swahili",
    "te": "telugu",
}


def read_tydiqa(path: pathlib.Path, language: str) -> list[dict]:
    """Reads TyDiQA-GoldP: a file of one language, or the release's training file, which holds all of them.

    An id of the release begins with the language's name ("english-..."); those of other languages are left out.
    XTREME has cut the ids of its training files down to their last part, and few of them stay unique.
    """

    def keep(identifier):
        name = identifier.partition("-")[0]
        return name == TYDIQA_NAMES[language] or name not in TYDIQA_NAMES.values()

    return read_squad(path, repeated_ids=True, keep=keep)


def _tydiqa_from_tfds(rows, language):
    # its train split holds all languages
    own = [row for row in rows if row["id"].split("-")[0] == TYDIQA_NAMES[language]]
    return _squad_from_tfds(own, language)


def _tydiqa_fields(language):
    return {"language": (language,), "name": (TYDIQA_NAMES[language],)}


TYDIQA = TaskSpec(
    name="tydiqa",
    type="span",
    languages=tuple(TYDIQA_NAMES),
    splits={
        "train": (
            "xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.{language}.train.json",
            "xtreme/tydiqa/tydiqa-goldp-v1.1-train.json",
        ),
        # XTREME takes the answers out; the release has them
        "dev": (
            "xtreme/tydiqa/tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-{name}.json",
            "xtreme/tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.{language}.dev.json",
        ),
    },
    fields=_tydiqa_fields,
    read=read_tydiqa,
    multilingual=True,
    metric="squad",
    text=ANSWERS,
    tokens=166,
    train_task="tydiqa",
    sizes={"train": 3_696, "dev": 440},
    recipe=Recipe(16, 384, 2, "the study's release, TyDiQA script"),
    translated={
        "train": (
            "xtreme_translations/TyDiQA-GoldP/translate-train/tydiqa.translate.train.en-{language}.json",
            *beside("xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json"),
        )
    },
    read_translated=functools.partial(read_squad, repeated_ids=True, translated=True),
    tfds=Tfds(
        names=("tydi_qa/goldp",),
        splits={"train": "train", "dev": "validation-{language}"},
        convert=_tydiqa_from_tfds,
        languages=tuple(TYDIQA_NAMES),
        module="tensorflow_datasets.question_answering",
    ),
    description="TyDiQA-GoldP: questions asked in 9 languages, not translated; XTREME's test set is 'dev'",
    url="https://github.com/google-research-datasets/tydiqa",
    licence="Apache-2.0",
)
