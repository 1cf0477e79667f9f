"""Classification of a text, or of a pair of texts."""

import numpy as np

from jxstilts.data.features import Features, Field, labelled
from jxstilts.data.tokenizer import encode
from jxstilts.forms import base, checks, files
from jxstilts.forms.labels import match
from jxstilts.readers import class_id
from jxstilts.runtime import InputError


class Classes(base.Collector):
    """Logits [C] of each example -> class ids [N]."""

    def prepare(self):
        given = self.given
        self.found = np.zeros(len(given.features), np.int64)
        self.places = match(given.labels, given.spec.labels, f"task {given.spec.name!r}")

    def add(self, index, array):
        self.found[index] = self.places[array.argmax()]

    def finish(self):
        return self.found.tolist()


class Scores(base.Collector):
    """Logits [C] of each example -> {"label": name, "probabilities": {name: p}, "logits": {name: x}}."""

    def prepare(self):
        self.found = [None] * len(self.given.features)

    def add(self, index, array):
        self.found[index] = array

    def finish(self):
        labels = self.given.labels
        return [
            {
                "label": labels[int(logits.argmax())],
                "probabilities": dict(zip(labels, checks.chances(logits).tolist(), strict=True)),
                "logits": dict(zip(labels, logits.tolist(), strict=True)),
            }
            for logits in self.found
        ]


class Classification(base.Form):
    """Example {"id": str, "text_a": str, "text_b": str | None, "label": int}.

    Pairs that are too long lose tokens at the end of the longer text, one by one, of the first text when they are
    equally long (jiant's rule; BERT's takes the second).
    """

    name = "classification"
    keys = {"text_a": (str,), "text_b": (str, type(None))}  # noqa: RUF012
    gold = "label"
    labelled = True
    replaceable = ("text_a", "text_b")
    fields = (Field("labels", "label", "value", gold=True),)
    typical = (45, 1)
    suffix = ".tsv"
    rows = (
        'a text, a pair (text, text), or {"text": ...} or {"text_a": ..., "text_b": ...}, with "label", a name or a '
        "place among the labels"
    )
    scores = Scores

    def example(self, row):
        given = {"text": row} if isinstance(row, str) else checks.keyed(row, "text_a", "text_b")
        first = "text" if "text" in given and "text_a" not in given else "text_a"
        second = given.get("text_b")
        if second is not None:
            checks.got(given, "text_b", str)
        example = {"text_a": checks.got(given, first, str), "text_b": second}
        return example | ({"label": given["label"]} if "label" in given else {})

    def named(self, gold):
        return [gold]

    def as_gold(self, gold, labels):
        return checks.place(gold, labels)

    def check_gold(self, spec, example, where):
        checks.check_place(example["label"], len(spec.labels), f"the place of one of {', '.join(spec.labels)}", where)

    def tokenize(self, examples, tokenizer, template, reading, labels=()) -> Features:
        """Features have the field label, where the examples have it."""
        singles, pairs = template.specials(pair=False), template.specials(pair=True)
        base.check_room(reading, pairs, 2, "two texts")
        flat, offsets = encode(tokenizer, [e["text_a"] for e in examples] + [e["text_b"] or "" for e in examples])
        count, lengths = len(examples), np.diff(offsets)
        is_pair = np.fromiter((e["text_b"] is not None for e in examples), bool, count)
        room = reading.max_length - np.where(is_pair, pairs, singles)
        kept_a, kept_b = base.kept(lengths[:count], lengths[count:], room)
        filled = template.fill(
            tokenizer, (flat, offsets[:count], kept_a), (flat, offsets[count:-1], kept_b), is_pair=is_pair
        )
        fields = {"label": np.array([e["label"] for e in examples], np.int32)} if labelled(examples, "label") else {}
        return Features(filled.tokens, filled.offsets, fields, filled.token_fields)

    def in_terms_of(self, labels, spec, examples):
        place = {theirs: own for own, theirs in enumerate(match(labels, spec.labels, f"task {spec.name!r}"))}
        return [{**e, "label": place[e["label"]]} if "label" in e else e for e in examples]

    def collector(self, given):
        return Classes(given)

    def guesses(self, spec, examples):
        """Returns the most frequent label for all."""
        return [base.most_frequent_label(examples)]

    def gold_in_words(self, batch, own, labels, tokenizer):
        return labels[batch["labels"][0, 0]]

    def to_value(self, spec, prediction):
        return spec.labels[prediction]

    def from_value(self, spec, value, example, where):
        return class_id(value, spec.labels, where())

    def read_lines(self, file, spec):
        """Returns label names, one a line."""
        found = files.lines_of(file)
        for number, label in enumerate(found, start=1):
            class_id(label, spec.labels, f"{file}:{number}")
        return found

    def compared(self, spec, found, gold):
        examples = [{"id": str(row), "label": spec.labels.index(label)} for row, label in enumerate(gold)]
        return [spec.labels.index(label) for label in found], examples


class States(Classification):
    """Texts and pairs whose states are read (`models.heads.states`), of each token; a row of a batch holds one."""

    output = "states"
    per_token = True
    alone = True

    def collector(self, given):
        raise InputError("states are read, nothing is predicted of them")


FORM = Classification()
STATES = States()
