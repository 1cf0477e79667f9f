"""Extractive questions: windows of the context after the question, an answer cut out of it (BERT's SQuAD code)."""

import hashlib
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jxstilts.data.features import Features, Field, labelled
from jxstilts.data.ragged import spread
from jxstilts.data.tokenizer import encode
from jxstilts.forms import base, checks, files
from jxstilts.forms.answers import decode, ranked
from jxstilts.readers import parse_json, read_text
from jxstilts.runtime import InputError, atomic_write

NO_ANSWER = ".no_answer.json"
WORDS = 5  # a drawn answer has 1 to 5 words,
CHARACTERS = 10  # or 1 to 10 characters where text is written without spaces
SPACED = 15  # which is so when the pieces between its spaces are longer than this on average


class Spans(base.Collector):
    """Start and end scores [T, 2] of each window's tokens -> {question id: answer}."""

    def prepare(self):
        self.windows = {}

    def add(self, index, array):
        features = self.given.features
        begin, end = features.offsets[index], features.offsets[index + 1]
        fields = {name: values[begin:end] for name, values in features.token_fields.items()}
        self.windows[index] = (int(features.fields["example"][index]), array, fields)

    def examples(self):
        """Returns the questions that the windows belong to: with max_features, the first ones."""
        if not self.given.options.max_features:
            return self.given.examples
        return self.given.examples[: 1 + max(example for example, _, _ in self.windows.values())]

    def finish(self):
        options = self.given.options
        return decode(
            self.examples(), self.windows, n_best=options.n_best, max_answer_length=options.max_answer_length,
            null_scores=self.given.spec.unanswerable,
        )  # fmt: skip


class Scores(Spans):
    """Start and end scores [T, 2] of each window's tokens -> the answers to each question, with their scores.

    {"text", "score", "start", "end": of the best; "no_answer": how much better it scores to give none; "answers": the
    `n_best` with different texts, the best first, each with its "probability" among them}. start, end: characters of
    the context. Where there is no valid span the text is "", and there are no answers.
    """

    def finish(self):
        options = self.given.options
        found = ranked(self.examples(), self.windows, options.n_best, options.max_answer_length)
        return [self._with_chances(answers, null) for answers, null in found]

    def _with_chances(self, answers, null):
        chances = checks.chances(np.array([each["score"] for each in answers])).tolist() if answers else []
        best = answers[0] if answers else {"text": "", "score": 0.0, "start": 0, "end": 0}
        answers = [each | {"probability": chance} for each, chance in zip(answers, chances, strict=True)]
        return {**best, "no_answer": null - best["score"], "answers": answers}


class Span(base.Form):
    """Example {"id": str, "question": str, "context": str, "answers": [{"text": str, "start": int}, ...]}.

    No answer in the context, as in SQuAD v2: "answers" is []. Windows of the context come each `doc_stride` tokens
    after the one before (a step, as in BERT's SQuAD code and jiant, not an overlap), after the question's first
    `max_query_length` tokens; the first of several answers is the target.
    """

    name = "span"
    keys = {"question": (str,), "context": (str,)}  # noqa: RUF012
    gold = "answers"
    fields = (Field("start", "start", "index", gold=True), Field("end", "end", "index", gold=True))
    per_token = True
    counts_features = True
    typical = (211, 1)
    rows = (
        'a pair (question, context) or {"question": ..., "context": ...}, with "answers", [{"text": ..., "start": '
        'character}, ...] (or {"text": [...], "answer_start": [...]}), [] where the context has none'
    )
    scores = Scores

    def example(self, row):
        given = checks.keyed(row, "question", "context")
        example = {key: checks.got(given, key, str) for key in ("question", "context")}
        return example | ({"answers": _own_answers(given, example["context"])} if "answers" in given else {})

    def own_task(self, examples):
        unanswerable = any(not example.get("answers", True) for example in examples)
        return {"metric": "squad_v2" if unanswerable else "squad", "unanswerable": unanswerable}

    def options(self, reading):
        return super().options(reading) | {
            "doc_stride": reading.doc_stride, "max_query_length": reading.max_query_length
        }  # fmt: skip

    def check_gold(self, spec, example, where):
        answers = example["answers"]
        fits = isinstance(answers, list | tuple) and all(
            isinstance(each, Mapping) and isinstance(each.get("text"), str) and isinstance(each.get("start"), int)
            for each in answers
        )
        if not fits:
            raise InputError(f'{where}: expected answers [{{"text": str, "start": int}}, ...], got {answers!r:.60}')
        if not answers and not spec.unanswerable:
            raise InputError(f"{where}: no answer, but every question of {spec.name!r} has one")

    def tokenize(self, examples, tokenizer, template, reading, labels=()) -> Features:
        """Fields example and, of labelled examples, start and end.

        These are tokens of the feature, both 0, the first special token, where the answer is not in this window. Token
        fields char_start and char_end (characters of the context; -1 for a token that no answer may begin or end with)
        and max_context (among the windows that show this token, this one shows most around it).
        """
        _check(reading, template)
        with_answers = labelled(examples, "answers")
        questions, question_at = encode(tokenizer, [example["question"] for example in examples])
        contexts, context_at, char_start, char_end = encode(tokenizer, [e["context"] for e in examples], spans=True)

        # One row per example, then one per window.
        question_length = np.minimum(np.diff(question_at), reading.max_query_length)
        context_length = np.diff(context_at)
        room = reading.max_length - template.specials(pair=True) - question_length
        step = np.minimum(reading.doc_stride, room)
        windows = 1 + np.maximum(0, -(-(context_length - room) // step))
        example = np.repeat(np.arange(len(examples)), windows)
        begin = spread(np.zeros(len(examples)), windows) * step[example]
        length = np.minimum(room[example], context_length[example] - begin)

        source = context_at[example] + begin
        question = (questions, question_at[example], question_length[example])
        filled = template.fill(tokenizer, question, (contexts, source, length))
        place, source = spread(filled.offsets[:-1] + filled.begins["B"], length), spread(source, length)
        token_fields = dict(filled.token_fields)
        for name, values in (("char_start", char_start), ("char_end", char_end)):
            token_fields[name] = np.full(len(filled.tokens), -1, np.int32)
            token_fields[name][place] = values[source]
        token_fields["max_context"] = np.zeros(len(filled.tokens), bool)
        token_fields["max_context"][place] = _max_context(source, length)

        fields = {"example": example.astype(np.int32)}
        if with_answers:
            first, last = _answers(examples, context_at, char_start, char_end)
            first, last = first[example] - begin, last[example] - begin
            inside = (first >= 0) & (last < length)
            for name, place in (("start", first), ("end", last)):
                fields[name] = np.where(inside, place + filled.begins["B"], 0).astype(np.int32)
        return Features(filled.tokens, filled.offsets, fields, token_fields)

    def collector(self, given):
        return Spans(given)

    def guesses(self, spec, examples):
        """Returns an answer drawn at random, the same in every run, and where there may be none, that there is none."""
        drawn = {example["id"]: draw_span(example["id"], example["context"]) for example in examples}
        if not spec.unanswerable:
            return [drawn]
        never = {identifier: {"text": "", "no_answer": 1.0} for identifier in drawn}
        return [never, {identifier: {"text": text, "no_answer": -1.0} for identifier, text in drawn.items()}]

    def gold_in_words(self, batch, own, labels, tokenizer):
        begin, end = int(batch["start"][0, 0]), int(batch["end"][0, 0])
        return tokenizer.decode(batch["tokens"][0, begin : end + 1]) if end else "no answer here"

    def write(self, file, spec, examples, predictions, threshold):
        """Where questions may have no answer, the text is "" if none is better, and the scores for that lie beside.

        Those are null score - span score: what the official SQuAD v2 script takes as --na-prob-file.
        """
        if spec.unanswerable:
            examples = files.predicted(examples, predictions, file)
            scores = {each["id"]: predictions[each["id"]]["no_answer"] for each in examples}
            predictions = {key: "" if score > 0 else predictions[key]["text"] for key, score in scores.items()}
            atomic_write(file.with_suffix(NO_ANSWER), files.json_bytes(scores))
        super().write(file, spec, examples, predictions, threshold)

    def write_labels(self, file, spec, examples):
        """Writes a SQuAD-format file with the contexts."""
        missing = [example["id"] for example in examples if self.gold not in example]
        if missing:
            raise InputError(f"{file}: example {missing[0]!r} has no gold {self.gold}")
        atomic_write(file, files.json_bytes(_squad(examples)))

    def to_value(self, spec, prediction):
        """Where questions may have no answer, "" if none is better."""
        if not isinstance(prediction, Mapping):
            return prediction
        return "" if prediction["no_answer"] > 0 else prediction["text"]

    def from_value(self, spec, value, example, where):
        if not isinstance(value, str):
            raise InputError(f"{where()}: expected a text for {example['id']!r:.80}, got {value!r:.60}")
        return value

    def read(self, file, spec, examples):
        values = super().read(file, spec, examples)
        if not spec.unanswerable:
            return values
        beside = file.with_suffix(NO_ANSWER)
        scores = files.read_object(beside)
        if scores.keys() != values.keys():
            raise InputError(f"{beside}: expected a score for each question of {file.name}")
        for key, value in scores.items():
            if type(value) not in (int, float) or not math.isfinite(value):
                raise InputError(f"{files.line_of(beside, key)}: expected a number for {key!r:.80}, got {value!r:.60}")
        return {key: {"text": value, "no_answer": scores[key]} for key, value in values.items()}

    def compare(self, spec, predictions, labels):
        found, examples = files.read_object(predictions), read_gold(labels)
        unknown = found.keys() - {example["id"] for example in examples}
        if unknown:
            first = min(unknown)
            more = f" ({len(unknown)} such ids)" if len(unknown) > 1 else ""
            raise InputError(f"{files.line_of(predictions, first)}: {labels} has no question {first!r:.80}{more}")
        for identifier, answer in found.items():
            if not isinstance(answer, str):
                where = files.line_of(predictions, identifier)
                raise InputError(f"{where}: the answer to {identifier!r:.80} is {answer!r:.60}, expected a text")
        return found, examples


def _own_answers(row: Mapping, context: str) -> list[dict[str, Any]]:
    """Returns the answers of a program's own row, in either of the two layouts. Raises InputError."""
    given = checks.got(row, "answers", list | tuple | Mapping, "a list of answers")
    if isinstance(given, Mapping):
        columns = [given.get(key) for key in ("text", "answer_start")]
        if not all(isinstance(column, list | tuple) for column in columns) or len(set(map(len, columns))) > 1:
            raise InputError(f"'answers' are {given!r:.60}; expected as many under 'text' as under 'answer_start'")
        given = [{"text": text, "start": start} for text, start in zip(*columns, strict=True)]
    found = []
    for answer in given:
        answer = checks.keyed(answer, "text", "start")
        text = checks.got(answer, "text", str)
        start = answer.get("answer_start", answer.get("start"))
        if not checks.whole(start) or start < 0 or context[start : start + len(text)] != text or not text:
            raise InputError(f"the answer {text!r:.60} does not stand at character {start!r:.20} of the context")
        found.append({"text": text, "start": int(start)})
    return found


def _check(reading: base.Reading, template) -> None:
    stride, longest = reading.doc_stride, reading.max_query_length
    if stride < 1 or longest < 1:
        raise InputError(f"doc_stride ({stride}) and max_query_length ({longest}) must be at least 1")
    specials = template.specials(pair=True)
    if reading.max_length < longest + specials + 1:
        raise InputError(
            f"max_length {reading.max_length} leaves no room for a context after max_query_length {longest} tokens "
            f"and {specials} special tokens: give at least {longest + specials + 1}"
        )


def _answers(
    examples: Sequence[Mapping], context_at: np.ndarray, char_start: np.ndarray, char_end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first and last token of the first answer, from the head of the context, int64 [N]; -1 if none."""
    span = np.full((2, len(examples)), -1, np.int64)
    for row, example in enumerate(examples):
        if not example["answers"]:
            continue
        answer = example["answers"][0]
        begin, end = answer["start"], answer["start"] + len(answer["text"])
        tokens = slice(context_at[row], context_at[row + 1])
        overlaps = np.flatnonzero((char_end[tokens] > begin) & (char_start[tokens] < end))
        if len(overlaps):
            span[:, row] = overlaps[0], overlaps[-1]
    return span[0], span[1]


def _max_context(source: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Marks each token in the one window that shows most around it; the first of equals. bool [sum of lengths]

    source int64 [sum of lengths]: which token of the contexts each is. The score is that of BERT's SQuAD code,
    min(tokens to the left, to the right) + 0.01 * window length, in hundredths.
    """
    left = spread(np.zeros(len(length)), length)
    whole = np.repeat(length, length)
    score = 100 * np.minimum(left, whole - 1 - left) + whole
    order = np.lexsort((np.arange(len(source)), -score, source))
    first = np.ones(len(order), bool)
    first[1:] = source[order][1:] != source[order][:-1]
    best = np.zeros(len(order), bool)
    best[order[first]] = True
    return best


def draw_span(identifier: str, context: str) -> str:
    """Returns a random piece of a context: whole words, or characters where it is written without spaces."""
    pieces = [match.span() for match in re.finditer(r"\S+", context)]
    longest = WORDS
    if len(re.sub(r"\s", "", context)) > SPACED * len(pieces):
        longest = CHARACTERS
        pieces = [match.span() for match in re.finditer(r"\S", context)]
    if not pieces:
        return ""
    # a hash, because numpy's and Python's generators promise nothing about their numbers in later versions
    bits = int.from_bytes(hashlib.sha256(identifier.encode()).digest())
    bits, number = divmod(bits, min(longest, len(pieces)))
    first = bits % (len(pieces) - number)
    return context[pieces[first][0] : pieces[first + number][1]]


def _squad(examples):
    paragraphs: dict[str, list] = {}
    for example in examples:
        answers = [{"text": answer["text"], "answer_start": answer["start"]} for answer in example["answers"]]
        question = {"id": example["id"], "question": example["question"], "answers": answers}
        paragraphs.setdefault(example["context"], []).append(question | ({} if answers else {"is_impossible": True}))
    found = [{"context": context, "qas": questions} for context, questions in paragraphs.items()]
    return {"version": "1.1", "data": [{"title": "", "paragraphs": found}]}


def read_gold(file: pathlib.Path) -> list[dict[str, Any]]:
    """Returns [{"id", "answers": [{"text"}, ...]}, ...] of gold answers.

    The file is in SQuAD's format (the object, or only its list of articles), or an object id -> answer text.
    Raises InputError for another form, an id that comes again, and a question without an answer (XTREME's test files
    come with empty ones).
    """
    files.check_there(file)
    document = parse_json(read_text(file), file, halves=True)
    if isinstance(document, Mapping) and not isinstance(document.get("data"), list):
        golds = [(identifier, [answer]) for identifier, answer in files.read_object(file).items()]
    else:
        try:
            golds = [
                (question["id"], [answer["text"] for answer in question["answers"]])
                for article in (document["data"] if isinstance(document, Mapping) else document)
                for paragraph in article["paragraphs"]
                for question in paragraph["qas"]
            ]
        except (KeyError, TypeError) as error:
            raise InputError(f"{file}:1: neither SQuAD's format nor an object id -> answer: {error!r:.200}") from error
    seen: set[str] = set()
    for identifier, answers in golds:
        if not isinstance(identifier, str) or not all(isinstance(answer, str) for answer in answers):
            raise InputError(f"{file}:1: question {identifier!r:.80}: the id and the answers must be texts")
        if identifier in seen:
            raise InputError(f"{files.line_of(file, identifier, last=True)}: {identifier!r:.80} is in the file twice")
        if not any(answers):
            raise InputError(f"{files.line_of(file, identifier)}: question {identifier!r:.80} has no gold answer")
        seen.add(identifier)
    if not golds:
        raise InputError(f"{file}:1: the file is empty")
    return [{"id": name, "answers": [{"text": answer} for answer in answers]} for name, answers in golds]


FORM = Span()
