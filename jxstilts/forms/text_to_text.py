"""A task as text: a decoder says the answer in words, which are read back as a prediction of the task's own form."""

from typing import Any

import numpy as np

from jxstilts.data.features import Features, Field, Texts, labelled
from jxstilts.data.ragged import join
from jxstilts.data.tokenizer import encode
from jxstilts.forms import base
from jxstilts.runtime import InputError


class Said(base.Collector):
    """The tokens that were said of each example -> predictions of the task's own form."""

    def prepare(self):
        self.tokens = [None] * len(self.given.features)

    def add(self, index, array):
        self.tokens[index] = array

    def read(self) -> list[Any]:
        """Returns the prediction that each text says, None where it says none; `said` are the texts."""
        spec, examples, tokenizer = self.given.spec, self.given.examples, self.given.tokenizer
        self.said = [decode(tokenizer, tokens) for tokens in self.tokens]
        labels = spec.origin.labels
        return [spec.text.read(said, example, labels) for said, example in zip(self.said, examples, strict=True)]

    def finish(self):
        examples, text = self.given.examples, self.given.spec.text
        found = self.read()
        self.unread = sum(one is None for one in found)
        found = [text.wrong(example) if one is None else one for one, example in zip(found, examples, strict=True)]
        if isinstance(found[0], int):
            return found
        return dict(zip((example["id"] for example in examples), found, strict=True))

    def beside(self):
        """as_said: by the rules of the text form's source. faults: what is wrong with answers to questions."""
        pair = self.given.spec.text.as_said(self.said, self.given.examples)
        if pair is None:
            return {}
        return {"as_said": ("", *pair), "faults": ("answer_faults", self.finish(), self.given.examples)}

    def notes(self):
        spec, examples = self.given.spec, self.given.examples
        found: dict[str, Any] = {"unreadable": self.unread}
        if spec.form.has_gold(examples):
            found |= spec.text.score(self.said, examples, spec.origin.labels)
        return found


class Told(Said):
    """The tokens that were said of each example -> {"said": the text, ...}, with what it is read as (`TextForm.told`).

    The decoder gives tokens and no score.
    """

    def finish(self):
        spec, found = self.given.spec, self.read()
        return [
            {"said": said, **spec.text.told(one, example, spec.origin.labels)}
            for said, one, example in zip(self.said, found, self.given.examples, strict=True)
        ]


def decode(tokenizer: Any, tokens: np.ndarray) -> str:
    """Returns the text of tokens up to the end of the text, without special ones."""
    ends = np.flatnonzero(tokens == tokenizer.eos_token_id)
    own = tokens[: ends[0]] if len(ends) else tokens
    special = set(tokenizer.all_special_ids)
    return tokenizer.backend_tokenizer.decode([int(token) for token in own if int(token) not in special]).strip()


class TextToText(base.Form):
    """The examples of another form, by the task's text form (`TaskSpec.text`); inputs are cut at max_length."""

    name = "text_to_text"
    fields = (Field("targets", "targets", "target", gold=True),)
    output = "tokens"
    shared_head = "text_to_text"
    alone = True
    as_text = True
    typical = (64, 1)
    scores = Told

    def __init__(self, spec: Any = None):
        self.spec = spec
        if spec is not None:
            own = spec.origin.form
            self.keys, self.gold, self.suffix, self.rows = own.keys, own.gold, own.suffix, own.rows

    def of(self, spec):
        if spec.text is None or spec.origin is None:
            raise InputError(f"task {spec.name!r}: the type 'text_to_text' is that of a text form (TaskSpec.text)")
        return type(self)(spec)

    def example(self, row):
        return self.spec.origin.form.example(row)

    def check_gold(self, spec, example, where):
        spec.origin.form.check_gold(spec.origin, example, where)

    def options(self, reading):
        return super().options(reading) | {"text": repr(self.spec.text), "labels": list(self.spec.origin.labels)}

    def tokenize(self, examples, tokenizer, template, reading, labels=()) -> Features:
        """Features have the text targets, where the examples have gold."""
        text, own = self.spec.text, self.spec.origin.labels
        room = base.check_room(reading, template.specials(pair=False), 1, "a text")
        count, with_gold = len(examples), labelled(examples, self.gold)
        inputs = [text.input(example, own) for example in examples]
        targets = [text.target(example, own) for example in examples] if with_gold else []
        flat, offsets = encode(tokenizer, inputs + targets)
        lengths = np.diff(offsets)
        filled = template.fill(tokenizer, (flat, offsets[:count], np.minimum(lengths[:count], room)))
        texts = {}
        if with_gold:
            if text.whole:
                self._check_whole(tokenizer, targets, flat[offsets[count] :], lengths[count:])
            end = np.array([tokenizer.eos_token_id], np.int32)
            said = (flat, offsets[count:-1], np.minimum(lengths[count:], text.length - 1))
            tokens, begins, _ = join([said, (end, np.zeros(count, np.int64), np.ones(count, np.int64))])
            texts = {"targets": Texts(tokens, begins, self.room(reading))}
        return Features(filled.tokens, filled.offsets, {}, filled.token_fields, texts)

    def _check_whole(self, tokenizer, targets, flat, lengths):
        """Raises InputError where a class cannot be said: it is too long, or of pieces that the tokenizer lacks."""
        long, unknown = lengths >= self.spec.text.length, np.zeros(len(lengths), bool)
        unknown[np.repeat(np.arange(len(lengths)), lengths)[flat == tokenizer.unk_token_id]] = True
        wrong = np.flatnonzero(long | unknown)
        if len(wrong):
            first, most = wrong[0], self.spec.text.length - 1
            raise InputError(
                f"task {self.spec.name!r}: the target {targets[first]!r:.60} is {lengths[first]} tokens of this "
                f"tokenizer{', some unknown' if unknown[first] else ''}; its form takes {most} at most, all known: "
                "take another tokenizer, or a text form of your own (TaskSpec.text)"
            )

    def room(self, reading):
        return self.spec.text.length, reading.max_length

    def asked(self, head, options):
        kind = self.head_class().spec_class  # which brings JAX, that a list of tasks does not need
        return kind(head.name, head.type, head.labels, length=self.spec.text.length, beams=options.beams)

    def collector(self, given):
        return Said(given)

    def count(self, examples):
        return self.spec.origin.form.count(examples)

    def guesses(self, spec, examples):
        """Returns the rules of the task's own form."""
        return spec.origin.form.guesses(spec.origin, examples)

    def baseline(self, spec, metric, examples):
        return spec.origin.form.baseline(spec.origin, metric, examples)

    def gold_in_words(self, batch, own, labels, tokenizer):
        return decode(tokenizer, batch["targets"][0][batch["targets_segments"][0] == 1])

    # Files: those of the task's own form; where nothing readable was said, a class is an empty text.

    def to_value(self, spec, prediction):
        unread = isinstance(prediction, int) and prediction < 0
        return "" if unread else spec.origin.form.to_value(spec.origin, prediction)

    def from_value(self, spec, value, example, where):
        return (
            -1
            if value == "" and self.gold == "label"
            else spec.origin.form.from_value(spec.origin, value, example, where)
        )

    def lines(self, spec, value):
        return spec.origin.form.lines(spec.origin, value)

    def read_lines(self, file, spec):
        return spec.origin.form.read_lines(file, spec.origin)

    def write(self, file, spec, examples, predictions, threshold):
        own = super() if self.gold == "label" else spec.origin.form
        own.write(file, spec if self.gold == "label" else spec.origin, examples, predictions, threshold)

    def write_labels(self, file, spec, examples):
        spec.origin.form.write_labels(file, spec.origin, examples)

    def read(self, file, spec, examples):
        if self.gold == "label":
            return super().read(file, spec, examples)
        return spec.origin.form.read(file, spec.origin, examples)

    def compare(self, spec, predictions, labels):
        return spec.origin.form.compare(spec.origin, predictions, labels)


FORM = TextToText()
