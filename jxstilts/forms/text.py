"""Running text: nothing is predicted of it; masked language modelling and the like learn from it."""

import numpy as np

from jxstilts.data.features import Features
from jxstilts.data.tokenizer import encode
from jxstilts.forms import base, checks
from jxstilts.runtime import InputError


class Text(base.Form):
    """Example {"id": str, "text": str}. A feature per line, or per two lines, cut to max_length."""

    name = "text"
    keys = {"text": (str,)}  # noqa: RUF012
    scored = False
    has_head = False
    running_text = True
    rows = 'a text or {"text": ...}'

    def example(self, row):
        return {"text": checks.got({"text": row} if isinstance(row, str) else checks.keyed(row, "text"), "text", str)}

    def tokenize(self, examples, tokenizer, template, reading, labels=(), *, joined=False, paired=False) -> Features:
        """joined: consecutive lines fill features up to max_length (RoBERTa's FULL-SENTENCES).

        Then a line that is longer than that is cut into pieces, and nothing is lost. paired: each line with the one
        after it is an input of two texts, the longer one cut at its end, as a sentence-pair task's inputs are.
        """
        if paired:
            return _pairs(examples, tokenizer, template, reading)
        room = base.check_room(reading, template.specials(pair=False), 1, "text")
        flat, offsets = encode(tokenizer, [example["text"] for example in examples])
        starts, lengths = offsets[:-1], np.minimum(np.diff(offsets), room)
        if joined:
            starts, lengths = _blocks(offsets, room)
        filled = template.fill(tokenizer, (flat, starts, lengths))
        return Features(filled.tokens, filled.offsets, {}, filled.token_fields)

    def collector(self, given):
        raise InputError(f"task {given.spec.name!r} is raw text, which has no evaluation")


def _pairs(examples, tokenizer, template, reading) -> Features:
    room = base.check_room(reading, template.specials(pair=True), 2, "two texts")
    flat, offsets = encode(tokenizer, [example["text"] for example in examples])
    lengths = np.diff(offsets)
    first, second = base.kept(lengths[:-1], lengths[1:], room)
    starts = offsets[:-1]
    filled = template.fill(tokenizer, (flat, starts[:-1], first), (flat, starts[1:], second))
    return Features(filled.tokens, filled.offsets, {}, filled.token_fields)


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


FORM = Text()
