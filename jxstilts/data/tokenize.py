"""Examples to features: token ids of `<s> A </s></s> B </s>`, cut to a length, with labels and answer positions."""

from collections.abc import Mapping, Sequence

import numpy as np

from jxstilts.data import windows, words
from jxstilts.data.features import Features, constant, labelled
from jxstilts.data.ragged import join, offsets_of
from jxstilts.data.tokenizer import encode
from jxstilts.runtime import InputError, suggest

__all__ = ["Features", "concatenate", "tokenize"]


def tokenize(
    examples: Sequence[Mapping],
    type: str,
    tokenizer,
    *,
    max_length: int,
    doc_stride: int = 128,
    max_query_length: int = 64,
    join_lines: bool = False,
    labels: Sequence[str] = (),
    long_sentences: str = "split",
) -> Features:
    """Tokenises examples of one type: "classification" | "choice" | "span" | "tagging" | "text" (see `Features`).

    max_length counts the special tokens; retrieval: each side as "text".
    classification: pairs that are too long lose tokens at the end of the longer text, one by one, of the first text
    when they are equally long (jiant's rule; BERT's takes the second).
    choice: each choice as the pair (prompt, choice); what is too long is cut by the same rule, but at the front.
    text: one feature per line, cut; with `join_lines` consecutive lines fill features up to max_length (RoBERTa's
    FULL-SENTENCES), a line that is longer than that is cut into pieces, nothing is lost.
    span: windows of the context, each `doc_stride` tokens after the one before (a step, as in BERT's SQuAD code and
    jiant, not an overlap), after the question's first `max_query_length` tokens; the first of several answers is the
    target.
    tagging: the words one by one, each as at the start of a text; a word of no or of more than 100 sub-words becomes
    one <unk>. `long_sentences`: "truncate" keeps the first max_length - 2 sub-words, as jiant does: words that begin
    later are in no feature; "split" goes on in further features, cut before the word that does not fit, as XTREME
    does: each word is in exactly one (and is <unk> if it alone does not fit). `labels` are the tags, in the order of
    their ids; without them there are no tags.
    Raises InputError.
    """
    types = {"classification": _classification, "choice": _choice, "span": windows.features, "tagging": words.features}
    types |= {"text": _text}
    if type not in types:
        raise InputError(suggest("feature type", type, types))
    missing = [role for role in ("cls_token", "sep_token") if getattr(tokenizer, f"{role}_id") is None]
    if missing:
        raise InputError(
            f"this tokenizer has no {' and no '.join(missing)} (<s> or </s>): inputs `<s> A </s></s> B </s>` cannot be "
            "built with it; name the tokens in its tokenizer_config.json"
        )
    options = {
        "span": {"doc_stride": doc_stride, "max_query_length": max_query_length},
        "tagging": {"labels": labels, "long_sentences": long_sentences},
        "text": {"join_lines": join_lines},
    }
    return types[type](examples, tokenizer, max_length, **options.get(type, {}))


def concatenate(parts: Sequence[Features]) -> Features:
    """Returns the features of all parts, in order, with the fields that all parts have.

    `example` becomes the index into the examples of all parts, in order.
    """
    if not parts:
        raise InputError("there are no features to put together")
    fields = [name for name in parts[0].fields if all(name in part.fields for part in parts)]
    token_fields = [name for name in parts[0].token_fields if all(name in part.token_fields for part in parts)]
    joined = {name: np.concatenate([part.fields[name] for part in parts]) for name in fields}
    if "example" in joined:  # every example has a feature, so the last one tells how many there are
        examples = [part.fields["example"].max(initial=-1) + 1 for part in parts]
        joined["example"] = joined["example"] + np.repeat(
            np.cumsum(examples, dtype=np.int32) - np.array(examples, np.int32), [len(part) for part in parts]
        )
    return Features(
        tokens=np.concatenate([part.tokens for part in parts]),
        offsets=offsets_of(np.concatenate([np.diff(part.offsets) for part in parts])),
        fields=joined,
        token_fields={name: np.concatenate([part.token_fields[name] for part in parts]) for name in token_fields},
    )


def _kept(length_a: np.ndarray, length_b: np.ndarray, room: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens of two texts are left when the longer one loses tokens, one by one, the first of equals.

    Takes and returns int64 [N]; the texts together have at most `room` tokens in the end.
    """
    kept_a = np.minimum(length_a, np.maximum(room // 2, room - length_b))
    return kept_a, np.minimum(length_b, room - kept_a)


def _check_room(max_length: int) -> None:
    if max_length < 6:
        raise InputError(f"max_length {max_length} leaves no room for two texts and 4 special tokens: give at least 6")


def _classification(examples: Sequence[Mapping], tokenizer, max_length: int) -> Features:
    _check_room(max_length)
    count = len(examples)
    flat, offsets = encode(tokenizer, [e["text_a"] for e in examples] + [e["text_b"] or "" for e in examples])
    is_pair = np.fromiter((e["text_b"] is not None for e in examples), bool, count)
    kept_a, kept_b = _kept(*np.split(np.diff(offsets), 2), max_length - np.where(is_pair, 4, 2))
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    between, zeros, two = constant(count, sep, sep)
    parts = (
        constant(count, cls),
        (flat, offsets[:count], kept_a),
        (between, zeros, np.where(is_pair, two, 0)),
        (flat, offsets[count:-1], kept_b),
        constant(count, sep),
    )
    tokens, offsets, _ = join(parts)
    fields = {"label": np.array([e["label"] for e in examples], np.int32)} if labelled(examples, "label") else {}
    return Features(tokens, offsets, fields)


def _choice(examples: Sequence[Mapping], tokenizer, max_length: int) -> Features:
    _check_room(max_length)
    with_label = labelled(examples, "label")
    for e in examples:
        choices = len(e["choices"])
        if not choices or (with_label and not 0 <= e["label"] < choices):
            raise InputError(f"example {e['id']!r} has {choices} choices and the label {e.get('label')!r} (from 0)")
    choices = np.array([len(e["choices"]) for e in examples], np.int64)
    texts = [e["prompt"] for e in examples] + [choice for e in examples for choice in e["choices"]]
    flat, offsets = encode(tokenizer, texts)
    example = np.repeat(np.arange(len(examples)), choices)
    end_a, length_a = offsets[1:][example], np.diff(offsets)[example]
    end_b, length_b = offsets[1:][len(examples) :], np.diff(offsets)[len(examples) :]
    kept_a, kept_b = _kept(length_a, length_b, max_length - 4)
    count, cls, sep = len(example), tokenizer.cls_token_id, tokenizer.sep_token_id
    parts = (
        constant(count, cls),
        (flat, end_a - kept_a, kept_a),
        constant(count, sep, sep),
        (flat, end_b - kept_b, kept_b),
        constant(count, sep),
    )
    tokens, offsets, _ = join(parts)
    fields = {"example": example.astype(np.int32)}
    if with_label:
        fields["label"] = np.zeros(count, np.int32)
        fields["label"][offsets_of(choices)[:-1] + np.array([e["label"] for e in examples], np.int64)] = 1
    return Features(tokens, offsets, fields)


def _text(examples: Sequence[Mapping], tokenizer, max_length: int, join_lines: bool) -> Features:
    room = max_length - 2
    if room < 1:
        raise InputError(f"max_length {max_length} leaves no room for text and 2 special tokens: give at least 3")
    flat, offsets = encode(tokenizer, [example["text"] for example in examples])
    starts, lengths = offsets[:-1], np.minimum(np.diff(offsets), room)
    if join_lines:
        starts, lengths = _blocks(offsets, room)
    cls, sep = constant(len(starts), tokenizer.cls_token_id), constant(len(starts), tokenizer.sep_token_id)
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
