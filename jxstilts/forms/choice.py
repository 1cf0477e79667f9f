"""Multiple choice: each choice is read after the prompt, and the best one counts."""

import itertools
import json

import numpy as np

from jxstilts.data import batching
from jxstilts.data.features import Features, Field, labelled
from jxstilts.data.ragged import offsets_of
from jxstilts.data.tokenizer import encode
from jxstilts.forms import base, checks, files
from jxstilts.readers import parse_json
from jxstilts.runtime import InputError


class Choices(base.Collector):
    """A score for each choice -> the place of the best, for each question [N]."""

    def prepare(self):
        self.scores = np.empty(len(self.given.features), np.float32)

    def add(self, index, array):
        self.scores[index] = array.item()

    def finish(self):
        groups = batching.groups(self.given.features, FORM.fields).tolist()
        return [int(self.scores[a:b].argmax()) for a, b in itertools.pairwise(groups)]


class Scores(Choices):
    """A score for each choice -> {"label": place of the best, "text": its text, "probabilities": [...], "logits"}."""

    def finish(self):
        groups = batching.groups(self.given.features, FORM.fields).tolist()
        found = []
        for example, (begin, end) in zip(self.given.examples, itertools.pairwise(groups), strict=True):
            logits = self.scores[begin:end]
            best = int(logits.argmax())
            chances, text = checks.chances(logits).tolist(), example["choices"][best]
            found.append({"label": best, "text": text, "probabilities": chances, "logits": logits.tolist()})
        return found


class Choice(base.Form):
    """Example {"id": str, "prompt": str, "choices": [str, ...], "label": int (index of the right choice)}.

    Each choice is the pair (prompt, choice); what is too long loses tokens as a classified pair does, but at the front.
    """

    name = "choice"
    keys = {"prompt": (str,), "choices": (list, tuple)}  # noqa: RUF012
    gold = "label"
    replaceable = ("prompt", "choices")
    fields = (Field("group", "example", "group", empty=-1), Field("labels", "label", "value", gold=True))
    typical = (195, 4)
    suffix = ".jsonl"
    rows = (
        'a pair (prompt, [choice, ...]) or {"prompt": ..., "choices": [...]}, with "label", the place of the right one'
    )
    scores = Scores

    def example(self, row):
        given = checks.keyed(row, "prompt", "choices")
        example = {
            "prompt": checks.got(given, "prompt", str),
            "choices": checks.texts(given, "choices", "a list of texts"),
        }
        if "label" not in given:
            return example
        label, count = given["label"], len(example["choices"])
        if not checks.whole(label) or not 0 <= label < count:
            raise InputError(f"'label' is {label!r:.60}; expected the place of the right choice, 0 to {count - 1}")
        return example | {"label": int(label)}

    def check_gold(self, spec, example, where):
        checks.check_place(example["label"], len(example["choices"]), "the place of the right choice", where)

    def tokenize(self, examples, tokenizer, template, reading, labels=()) -> Features:
        """A feature per choice, those of a question one after the other.

        Fields: example (index into the examples) and, where the examples have it, label (1 = the right choice).
        """
        room = base.check_room(reading, template.specials(pair=True), 2, "two texts")
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
        kept_a, kept_b = base.kept(length_a, length_b, room)
        filled = template.fill(tokenizer, (flat, end_a - kept_a, kept_a), (flat, end_b - kept_b, kept_b))
        fields = {"example": example.astype(np.int32)}
        if with_label:
            fields["label"] = np.zeros(len(example), np.int32)
            fields["label"][offsets_of(choices)[:-1] + np.array([e["label"] for e in examples], np.int64)] = 1
        return Features(filled.tokens, filled.offsets, fields, filled.token_fields)

    def collector(self, given):
        return Choices(given)

    def guesses(self, spec, examples):
        """Returns the most frequent place of the right choice for all."""
        return [base.most_frequent_label(examples)]

    def gold_in_words(self, batch, own, labels, tokenizer):
        return f"choice {int(batch['labels'][0][own].argmax()) + 1}"

    def lines(self, spec, value):
        return [json.dumps({"label": value})]

    def read_lines(self, file, spec):
        """Returns the labels of JSON lines, an object with "label" each (XTREME-R's XCOPA)."""
        found = []
        for number, line in enumerate(files.lines_of(file), start=1):
            row = parse_json(line, file, number) if line else None
            label = row.get("label") if isinstance(row, dict) else None
            most = spec.typical[1]
            if type(label) is not int or not 0 <= label < most:
                raise InputError(f'{file}:{number}: expected {{"label": 0 to {most - 1}}}, got {line!r:.60}')
            found.append(label)
        return found

    def compared(self, spec, found, gold):
        return found, [{"id": str(row), "label": label} for row, label in enumerate(gold)]

    def from_value(self, spec, value, example, where):
        if type(value) is not int or not 0 <= value < len(example.get("choices", range(value + 1))):
            raise InputError(
                f"{where()}: expected the place of a choice, from 0 for {example['id']!r:.80}, got {value!r:.60}"
            )
        return value


FORM = Choice()
