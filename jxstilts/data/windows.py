"""Span features: windows of the context after the question, and where the answer is in each (BERT's SQuAD code)."""

from collections.abc import Mapping, Sequence

import numpy as np

from jxstilts.data.features import Features, constant, labelled
from jxstilts.data.ragged import join, spread
from jxstilts.data.tokenizer import encode
from jxstilts.runtime import InputError


def features(
    examples: Sequence[Mapping], tokenizer, max_length: int, doc_stride: int, max_query_length: int
) -> Features:
    """See `tokenize.tokenize`."""
    if doc_stride < 1 or max_query_length < 1:
        raise InputError(f"doc_stride ({doc_stride}) and max_query_length ({max_query_length}) must be at least 1")
    if max_length < max_query_length + 5:
        raise InputError(
            f"max_length {max_length} leaves no room for a context after max_query_length {max_query_length} tokens "
            f"and 4 special tokens: give at least {max_query_length + 5}"
        )
    with_answers = labelled(examples, "answers")
    questions, question_at = encode(tokenizer, [example["question"] for example in examples])
    contexts, context_at, char_start, char_end = encode(tokenizer, [e["context"] for e in examples], spans=True)

    # One row per example, then one per window.
    question_length = np.minimum(np.diff(question_at), max_query_length)
    context_length = np.diff(context_at)
    room = max_length - 4 - question_length
    step = np.minimum(doc_stride, room)
    windows = 1 + np.maximum(0, -(-(context_length - room) // step))
    example = np.repeat(np.arange(len(examples)), windows)
    begin = spread(np.zeros(len(examples)), windows) * step[example]
    length = np.minimum(room[example], context_length[example] - begin)

    count, cls, sep = len(example), tokenizer.cls_token_id, tokenizer.sep_token_id
    source = context_at[example] + begin
    parts = (
        constant(count, cls),
        (questions, question_at[example], question_length[example]),
        constant(count, sep, sep),
        (contexts, source, length),
        constant(count, sep),
    )
    tokens, offsets, begins = join(parts)
    place, source = spread(offsets[:-1] + begins[3], length), spread(source, length)
    token_fields = {name: np.full(len(tokens), -1, np.int32) for name in ("char_start", "char_end")}
    token_fields["char_start"][place] = char_start[source]
    token_fields["char_end"][place] = char_end[source]
    token_fields["max_context"] = np.zeros(len(tokens), bool)
    token_fields["max_context"][place] = _max_context(source, length)

    fields = {"example": example.astype(np.int32)}
    if with_answers:
        first, last = _answers(examples, context_at, char_start, char_end)
        first, last = first[example] - begin, last[example] - begin
        inside = (first >= 0) & (last < length)
        fields["start"] = np.where(inside, first + begins[3], 0).astype(np.int32)
        fields["end"] = np.where(inside, last + begins[3], 0).astype(np.int32)
    return Features(tokens, offsets, fields, token_fields)


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
