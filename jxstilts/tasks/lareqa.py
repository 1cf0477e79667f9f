"""Finding the sentence that answers a question: LAReQA on XQuAD-R, and questions with their sentences to train on.

A candidate is a sentence of a paragraph and that paragraph after it, as in XTREME-R's released code.
"""

import functools
import itertools
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from jxstilts.data.candidates import Candidates
from jxstilts.readers import checked, parse_json, read_text
from jxstilts.runtime import InputError
from jxstilts.tasks.spec import Recipe, TaskSpec, beside

LANGUAGES = tuple("en ar de el es hi ru th tr vi zh".split())
BREAK = re.compile(r"[.!?]+[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[^\Wa-z_])|(?<=\s)[.!?]+\s+")
# What ends in a full stop and no sentence, in the English of SQuAD and TyDiQA: titles, initials, "No. 1".
NO_BREAK = re.compile(
    r"(?:^|[\s(\"“])(?:[A-Z]|Mr|Mrs|Ms|Dr|St|Prof|Gen|Col|Lt|Sgt|Capt|Rev|Jr|Sr|vs|No|cf|ca|c|e\.g|i\.e)\.$"
)


class Question(NamedTuple):
    """A question, its candidates by number in the file's list of them, and those of them that answer it."""

    id: str
    text: str
    right: tuple[int, ...]


class File(NamedTuple):
    """A file's questions, and its candidates as (id without the language, text)."""

    questions: list[Question]
    candidates: list[tuple[str, str]]


def sentences_of(text: str) -> list[tuple[int, int]]:
    """Returns [begin, end) of each sentence of an English paragraph that says nothing of them.

    A sentence ends with full stops, exclamation or question marks and white space where what follows does not begin
    with a small letter, but not after an initial or a usual abbreviation; and where such marks stand alone. The release
    has a rule of its own.
    """
    ends = [match for match in BREAK.finditer(text) if not NO_BREAK.search(text, 0, match.start() + 1)]
    begins = [0, *(match.end() for match in ends)]
    stops = [match.end() - len(match[0]) + len(match[0].rstrip()) for match in ends] + [len(text.rstrip())]
    return [(begin, end) for begin, end in zip(begins, stops, strict=True) if begin < end]


def _read(path: pathlib.Path) -> File:
    """Reads a file in SQuAD's format, with "sentence_breaks" of each paragraph or without.

    A question whose answer begins in no sentence is left out, as in the release. Raises InputError.
    """
    document = parse_json(read_text(path), path)
    questions, candidates, numbers = [], [], itertools.count(1)
    for where, paragraph in _paragraphs(document, path):
        number, context = next(numbers), _get(paragraph, "context", str, where)
        breaks = _breaks(paragraph, context, where)
        texts = [context[begin:end] for begin, end in breaks]
        first = len(candidates)
        candidates += [(f"{number}_{place}", (text + context).replace("\n", "")) for place, text in enumerate(texts)]
        for i, question in enumerate(_get(paragraph, "qas", list, where)):
            at = f"{where}.qas[{i}]"
            starts = [_get(answer, "answer_start", int, at) for answer in _get(question, "answers", list, at)[:1]]
            holds = [text for text, (a, b) in zip(texts, breaks, strict=True) if starts and a <= starts[0] < b]
            if holds:
                right = tuple(first + place for place, text in enumerate(texts) if text == holds[0])
                questions.append(Question(_get(question, "id", str, at), _get(question, "question", str, at), right))
    if not questions:
        raise InputError(f"{path}: no question of the file has an answer in a sentence")
    return File(questions, candidates)


def _paragraphs(document: Any, path: pathlib.Path) -> Iterator[tuple[str, dict]]:
    for i, article in enumerate(_get(document, "data", list, str(path))):
        for j, paragraph in enumerate(_get(article, "paragraphs", list, f"{path}: data[{i}]")):
            yield f"{path}: data[{i}].paragraphs[{j}]", paragraph


def _breaks(paragraph: dict, context: str, where: str) -> list[tuple[int, int]]:
    if "sentence_breaks" not in paragraph:
        return sentences_of(context)
    breaks = _get(paragraph, "sentence_breaks", list, where)
    for pair in breaks:
        fine = isinstance(pair, list) and len(pair) == 2 and all(type(place) is int for place in pair)
        if not fine or not 0 <= pair[0] < pair[1] <= len(context):
            raise InputError(
                f"{where}: sentence_breaks has {pair!r:.60}; expected [begin, end] in the context's {len(context)}"
            )
    return [(begin, end) for begin, end in breaks]


def _get(value: Any, key: str, kind: type, where: str) -> Any:
    if not isinstance(value, dict) or type(value.get(key)) is not kind:
        raise InputError(f"{where}: expected an object with {key!r} ({kind.__name__}), as in XQuAD-R's JSON")
    return value[key]


def pool_files(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files of the other languages beside one of XQuAD-R: all are one pool."""
    files = (path.with_name(f"{code}.json") for code in LANGUAGES)
    return [file for file in files if file.is_file() and file != path]


def read_lareqa(path: pathlib.Path) -> dict:
    """Reads the questions of one language, and the candidates of all languages that lie beside it.

    Returns {"query": [{"id", "text"}, ...], "candidate": Candidates, "gold": [(query id, candidate id), ...]}. Right is
    the sentence that holds the answer in every language, the question's own too. A candidate's id is
    LANGUAGE_PARAGRAPH_SENTENCE, paragraphs from 1, sentences from 0; the pool has the languages in alphabetical order.
    """
    files = sorted([path, *pool_files(path)], key=lambda file: file.stem)
    stamps = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    candidates, right, questions = _pool(stamps)
    own = questions[path.stem]
    return {
        "query": [{"id": question.id, "text": question.text} for question in own],
        "candidate": candidates,
        "gold": [(question.id, name) for question in own for name in right[question.id]],
    }


@functools.lru_cache(maxsize=2)  # the eleven languages of a task share it
def _pool(stamps: tuple) -> tuple[Candidates, dict[str, list[str]], dict[str, list[Question]]]:
    rows, right, questions = [], {}, {}
    for name, _, _ in stamps:
        path = pathlib.Path(name)
        found = _read(path)
        names = [f"{path.stem}_{identifier}" for identifier, _ in found.candidates]
        rows += [{"id": own, "text": text} for own, (_, text) in zip(names, found.candidates, strict=True)]
        questions[path.stem] = found.questions
        seen: set[str] = set()
        for question in found.questions:
            if question.id in seen:
                raise InputError(f"{path}: question {question.id!r:.80}: this id is in the file twice")
            seen.add(question.id)
            right.setdefault(question.id, []).extend(names[place] for place in question.right)
    return Candidates(rows), right, questions


def _named(questions: list[Question]) -> Iterator[tuple[str, Question]]:
    """Yields (id, question); an id that comes again gets the question's number ("42#17"), as in TyDiQA's files."""
    seen: set[str] = set()
    for number, question in enumerate(questions):
        yield (f"{question.id}#{number}" if question.id in seen else question.id), question
        seen.add(question.id)


def read_train(path: pathlib.Path) -> list[dict]:
    """Reads questions and the sentences that answer them: [{"id", "query", "candidate"}, ...], to train on."""
    found = _read(path)
    pairs = [
        {"id": name, "query": question.text, "candidate": found.candidates[question.right[0]][1]}
        for name, question in _named(found.questions)
    ]
    return checked(pairs, "gold", path)


def read_dev(path: pathlib.Path) -> dict:
    """Reads one file as `read_lareqa` does, its own sentences being the pool."""
    found = _read(path)
    rows = [{"id": identifier, "text": text} for identifier, text in found.candidates]
    named = list(_named(found.questions))
    return {
        "query": [{"id": name, "text": question.text} for name, question in named],
        "candidate": Candidates(rows),
        "gold": [(name, rows[place]["id"]) for name, question in named for place in question.right],
    }


def first(examples: dict, limit: int) -> dict:
    """Returns the first queries with their right answers; the pool stays whole."""
    query = examples["query"][:limit]
    kept = {row["id"] for row in query}
    gold = {"gold": [pair for pair in examples["gold"] if pair[0] in kept]} if "gold" in examples else {}
    return {"query": query, "candidate": examples["candidate"]} | gold


def first_of_training(examples: Any, limit: int) -> Any:
    """Returns the first pairs, or of a dev set the first queries and the paragraphs that hold their answers."""
    if isinstance(examples, list):
        return examples[:limit]
    found = first(examples, limit)
    paragraphs = {name.partition("_")[0] for _, name in found["gold"]}
    rows = [row for row in found["candidate"] if row["id"].partition("_")[0] in paragraphs]
    return found | {"candidate": Candidates(rows)}


def read_questions(path: pathlib.Path) -> Any:
    """Reads a training file as pairs, any other as a search."""
    return read_train(path) if "train" in path.name else read_dev(path)


SOURCE = "not in the study's release; XTREME-R's LAReQA script, but for the rate and the warm-up"


def _training(name: str, files: dict[str, tuple[str, ...]], description: str, url: str) -> TaskSpec:
    return TaskSpec(
        name=name,
        type="embedding",
        languages=("en",),
        splits=files,
        read=read_questions,
        first=first_of_training,
        metric="map20",
        train_task=name,
        tokens=190,
        recipe=Recipe(16, 256, 3, SOURCE, query_length=96, negatives=4),
        translated={"train": beside(files["train"][0])},
        description=description,
        url=url,
        licence="CC BY-SA 4.0" if name.startswith("squad") else "Apache-2.0",
    )


SQUAD_RETRIEVAL = _training(
    "squad_retrieval",
    {"train": ("intermediate/squad/train-v1.1.json",), "dev": ("intermediate/squad/dev-v1.1.json",)},
    "Questions of SQuAD v1.1 and the sentence that answers each, which LAReQA is trained on",
    "https://rajpurkar.github.io/SQuAD-explorer/",
)
TYDIQA_FILES = "xtreme/tydiqa/tydiqa-goldp-v1.1-{split}/tydiqa.goldp.en.{split}.json"
TYDIQA_RETRIEVAL = _training(
    "tydiqa_retrieval",
    {split: (TYDIQA_FILES.format(split=split),) for split in ("train", "dev")},
    "English questions of TyDiQA-GoldP and the sentence that answers each, where SQuAD is not there",
    "https://github.com/google-research-datasets/tydiqa",
)

LAREQA = TaskSpec(
    name="lareqa",
    type="embedding",
    languages=LANGUAGES,
    splits={"test": ("xtreme-r/lareqa/xquad-r/{language}.json", "lareqa/xquad-r/{language}.json")},
    read=read_lareqa,
    companions=pool_files,
    first=first,
    parallel=True,
    metric="lareqa",
    train_task="squad_retrieval",
    description="Rank 13,014 sentences of eleven languages by how well they answer a question; eleven are right",
    url="https://github.com/google-research-datasets/lareqa",
    licence="CC BY-SA 4.0",
)
