"""Examples to features: token ids of `<s> A </s></s> B </s>`, cut to a length, with labels and answer positions."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jxstilts.data.ragged import join, offsets_of, spread
from jxstilts.data.tokenizer import encode
from jxstilts.runtime import InputError, suggest


@dataclasses.dataclass(frozen=True)
class Features:
    """N tokenised inputs of different lengths, M tokens in all; feature i has tokens[offsets[i]:offsets[i+1]].

    tokens int32 [M]; offsets int64 [N+1]; fields: name -> [N]; token_fields: name -> [M].
    classification: field label (only if labelled). span: field example (index into the examples) and, only if
    labelled, start and end (token index in the feature, both 0 = `<s>` when the answer is not in this window); token
    fields char_start and char_end (characters of the context; -1 for a token that no answer may begin or end with)
    and max_context (among the windows that show this token, this one shows most around it).
    """

    tokens: np.ndarray
    offsets: np.ndarray
    fields: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    token_fields: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int32 [N]"""
        return np.diff(self.offsets).astype(np.int32)


def tokenize(
    examples: Sequence[Mapping],
    type: str,
    tokenizer,
    *,
    max_length: int,
    doc_stride: int = 128,
    max_query_length: int = 64,
    join_lines: bool = False,
) -> Features:
    """Tokenises examples of one type: "classification" | "span" | "text" (retrieval: each side as "text").

    max_length counts the special tokens. classification: pairs that are too long lose tokens at the end of the longer
    text, one by one, of B when they are equally long (BERT's and jiant's rule). text: one feature per line, cut;
    with `join_lines` consecutive lines fill features up to max_length (RoBERTa's FULL-SENTENCES), a line that is
    longer than that is cut into pieces, nothing is lost. span: windows of the context, each `doc_stride` tokens
    after the one before (a step, as in BERT's SQuAD code and jiant, not an overlap), after the question's first
    `max_query_length` tokens; the first of several answers is the target. Raises InputError.
    """
    types = {"classification": _classification, "span": _span, "text": _text}
    if type not in types:
        raise InputError(suggest("feature type", type, types))
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise InputError("this tokenizer has no <s> or </s>: inputs `<s> A </s></s> B </s>` cannot be built with it")
    if type == "span":
        options = {"doc_stride": doc_stride, "max_query_length": max_query_length}
    else:
        options = {"join_lines": join_lines} if type == "text" else {}
    return types[type](examples, tokenizer, max_length, **options)


def concatenate(parts: Sequence[Features]) -> Features:
    """Returns the features of all parts, in order, with the fields that all parts have (`example` stays per part)."""
    if not parts:
        raise InputError("there are no features to put together")
    fields = [name for name in parts[0].fields if all(name in part.fields for part in parts)]
    token_fields = [name for name in parts[0].token_fields if all(name in part.token_fields for part in parts)]
    return Features(
        tokens=np.concatenate([part.tokens for part in parts]),
        offsets=offsets_of(np.concatenate([np.diff(part.offsets) for part in parts])),
        fields={name: np.concatenate([part.fields[name] for part in parts]) for name in fields},
        token_fields={name: np.concatenate([part.token_fields[name] for part in parts]) for name in token_fields},
    )


def _labelled(examples: Sequence[Mapping], key: str) -> bool:
    """Whether all examples have the key; some with and some without is an error."""
    count = sum(key in example for example in examples)
    if count not in (0, len(examples)):
        missing = next(example["id"] for example in examples if key not in example)
        raise InputError(f"{count} of {len(examples)} examples have {key!r}, example {missing!r} has not: all or none")
    return count > 0


def _constant(count: int, *ids: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same ids in each of `count` rows, as a part of `join`."""
    return np.array(ids, np.int32), np.zeros(count, np.int64), np.full(count, len(ids))


def _classification(examples: Sequence[Mapping], tokenizer, max_length: int) -> Features:
    count = len(examples)
    flat, offsets = encode(tokenizer, [e["text_a"] for e in examples] + [e["text_b"] or "" for e in examples])
    is_pair = np.fromiter((e["text_b"] is not None for e in examples), bool, count)
    room = max_length - np.where(is_pair, 4, 2)
    if max_length < 6:
        raise InputError(f"max_length {max_length} leaves no room for two texts and 4 special tokens: give at least 6")
    length_a, length_b = np.split(np.diff(offsets), 2)
    kept_b = np.minimum(length_b, np.maximum(room // 2, room - length_a))
    kept_a = np.minimum(length_a, room - kept_b)
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    between, zeros, two = _constant(count, sep, sep)
    parts = (
        _constant(count, cls),
        (flat, offsets[:count], kept_a),
        (between, zeros, np.where(is_pair, two, 0)),
        (flat, offsets[count:-1], kept_b),
        _constant(count, sep),
    )
    tokens, offsets, _ = join(parts)
    labels = {"label": np.array([e["label"] for e in examples], np.int32)} if _labelled(examples, "label") else {}
    return Features(tokens, offsets, labels)


def _text(examples: Sequence[Mapping], tokenizer, max_length: int, join_lines: bool) -> Features:
    room = max_length - 2
    if room < 1:
        raise InputError(f"max_length {max_length} leaves no room for text and 2 special tokens: give at least 3")
    flat, offsets = encode(tokenizer, [example["text"] for example in examples])
    starts, lengths = offsets[:-1], np.minimum(np.diff(offsets), room)
    if join_lines:
        starts, lengths = _blocks(offsets, room)
    cls, sep = _constant(len(starts), tokenizer.cls_token_id), _constant(len(starts), tokenizer.sep_token_id)
    tokens, offsets, _ = join((cls, (flat, starts, lengths), sep))
    return Features(tokens, offsets)


def _blocks(offsets: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts lines that lie one after the other into blocks of whole lines, at most `room` tokens each.

    Returns starts and lengths int64 [blocks]. A line longer than `room` is cut every `room` tokens.
    """
    starts, begin = [], 0
    while begin < offsets[-1]:
        starts.append(begin)
        last = int(offsets[np.searchsorted(offsets, begin + room, side="right") - 1])
        begin = last if last > begin else begin + room
    starts = np.array(starts, np.int64)
    return starts, np.diff(np.append(starts, offsets[-1]))


def _span(examples: Sequence[Mapping], tokenizer, max_length: int, doc_stride: int, max_query_length: int) -> Features:
    if doc_stride < 1 or max_query_length < 1:
        raise InputError(f"doc_stride ({doc_stride}) and max_query_length ({max_query_length}) must be at least 1")
    if max_length < max_query_length + 5:
        raise InputError(
            f"max_length {max_length} leaves no room for a context after max_query_length {max_query_length} tokens "
            f"and 4 special tokens: give at least {max_query_length + 5}"
        )
    labelled = _labelled(examples, "answers")
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
        _constant(count, cls),
        (questions, question_at[example], question_length[example]),
        _constant(count, sep, sep),
        (contexts, source, length),
        _constant(count, sep),
    )
    tokens, offsets, begins = join(parts)
    place, source = spread(offsets[:-1] + begins[3], length), spread(source, length)
    token_fields = {name: np.full(len(tokens), -1, np.int32) for name in ("char_start", "char_end")}
    token_fields["char_start"][place] = char_start[source]
    token_fields["char_end"][place] = char_end[source]
    token_fields["max_context"] = np.zeros(len(tokens), bool)
    token_fields["max_context"][place] = _max_context(source, length)

    fields = {"example": example.astype(np.int32)}
    if labelled:
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
