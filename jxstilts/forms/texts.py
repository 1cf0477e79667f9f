"""Text forms: how a task's example becomes a text and its gold another, and how what a model says is read back.

Formats: google-research/multilingual-t5 (tasks.py, preprocessors.py) for XNLI, PAWS-X, named entities and questions;
google-research/text-to-text-transfer-transformer (preprocessors.glue) for MNLI and QQP. Where neither has a task, the
form is ours, and says so.
"""

import abc
import collections
import dataclasses
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jxstilts.runtime import InputError

OURS = "ours"
GLUE = "google-research/text-to-text-transfer-transformer, preprocessors.glue"
MT5 = "google-research/multilingual-t5, preprocessors"
# T5's padding leaves letters, digits, marks, underscores and ASCII blanks alone; \w has all of them but marks.
SYMBOL = re.compile(r"[^\w\s]|[^\S \t\n\f\r]")
BLANKS = re.compile(r"[ \t\n\f\r]+")
BETWEEN = " $$ "  # between the entities of a target


@dataclasses.dataclass(frozen=True)
class TextForm(abc.ABC):
    """One task's text form. length: tokens of the longest target, its end included. source: where it is from."""

    length: int
    source: str
    whole: ClassVar[bool] = False  # is a target of no use where it does not fit?

    @abc.abstractmethod
    def input(self, example: Mapping, labels: Sequence[str]) -> str:
        """Returns what the model reads. labels: of the task."""

    @abc.abstractmethod
    def target(self, example: Mapping, labels: Sequence[str]) -> str:
        """Returns what the model is to say of a labelled example."""

    @abc.abstractmethod
    def read(self, said: str, example: Mapping, labels: Sequence[str]) -> Any:
        """Returns the prediction that a text says, as the task's own form has it; None where it says none."""

    def told(self, found: Any, example: Mapping, labels: Sequence[str]) -> dict[str, Any]:
        """Returns what `read` found as `jxstilts.api` gives it: the keys of the own form's results, None for none."""
        return {"prediction": found}

    @abc.abstractmethod
    def wrong(self, example: Mapping) -> Any:
        """Returns the prediction that stands for a text which says none: one that is wrong whatever the gold is."""

    def score(self, said: Sequence[str], examples: Sequence[Mapping], labels: Sequence[str]) -> dict[str, float]:
        """Returns further values, 0 to 100, of texts beside labelled examples: what the form's source scores."""
        return {}

    def as_said(self, said: Sequence[str], examples: Sequence[Mapping]) -> tuple[Any, Any] | None:
        """Returns (predictions, examples) that the task's metric scores beside its own; None: there are none."""
        return None


@dataclasses.dataclass(frozen=True)
class Plain(TextForm):
    """A text as it stands, and what is said of it."""

    def input(self, example, labels):
        return example["text"]

    def target(self, example, labels):
        raise InputError("a plain text has no target to learn")

    def read(self, said, example, labels):
        return said

    def told(self, found, example, labels):
        return {"text": found}

    def wrong(self, example):
        return ""


@dataclasses.dataclass(frozen=True)
class Classes(TextForm):
    """A class in words. template: with the example's keys in braces. words: of each label, in the task's order."""

    whole = True
    template: str
    words: tuple[str, ...]

    def input(self, example, labels):
        return self.template.format(**{key: value for key, value in example.items() if isinstance(value, str)})

    def target(self, example, labels):
        return self.words[example["label"]]

    def read(self, said, example, labels):
        return self.words.index(said) if said in self.words else None

    def told(self, found, example, labels):
        return {"label": None if found is None else labels[found]}

    def wrong(self, example):
        return -1


@dataclasses.dataclass(frozen=True)
class Choices(TextForm):
    """The right one of several by its number, after T5's COPA: `NAME prompt: p choice1: a choice2: b` -> `choice2`."""

    whole = True
    name: str

    def input(self, example, labels):
        choices = (f"choice{number}: {text}" for number, text in enumerate(example["choices"], start=1))
        return " ".join((f"{self.name} prompt: {example['prompt']}", *choices))

    def target(self, example, labels):
        return f"choice{example['label'] + 1}"

    def read(self, said, example, labels):
        known = [f"choice{number + 1}" for number in range(len(example["choices"]))]
        return known.index(said) if said in known else None

    def told(self, found, example, labels):
        return {"label": found, "text": None if found is None else example["choices"][found]}

    def wrong(self, example):
        return -1


@dataclasses.dataclass(frozen=True)
class Tags(TextForm):
    """A tag for each word: `tag: w1 w2` -> `NOUN VERB`."""

    def input(self, example, labels):
        return f"tag: {' '.join(example['words'])}"

    def target(self, example, labels):
        return " ".join(example["tags"])

    def read(self, said, example, labels):
        tags = said.split()
        known = not labels or set(tags) <= set(labels)
        return tags if known and len(tags) == len(example["words"]) else None

    def told(self, found, example, labels):
        return {"words": list(example["words"]), "tags": found}

    def wrong(self, example):
        """O: no entity, and no tag of another set."""
        return ["O"] * len(example["words"])


@dataclasses.dataclass(frozen=True)
class Entities(TextForm):
    """Named entities: `tag: w1 w2 w3` -> `PER: w1 w2 $$ LOC: w3`.

    The targets say no places. Read back, an entity has the first words of the sentence that are its own and are free;
    one that is not there, or of no known kind, makes the answer unreadable no further than itself.
    """

    def input(self, example, labels):
        return f"tag: {' '.join(example['words'])}"

    def target(self, example, labels):
        return BETWEEN.join(f"{kind}: {text}" for kind, text in entities(example["words"], example["tags"]))

    def read(self, said, example, labels):
        words, found = example["words"], _said_entities(said)
        if found is None:
            return None
        tags = ["O"] * len(words)
        for kind, text in found:
            own = text.split()
            free = (
                place
                for place in range(len(words) - len(own) + 1)
                if words[place : place + len(own)] == own and set(tags[place : place + len(own)]) == {"O"}
            )
            if own and f"B-{kind}" in labels and (begin := next(free, None)) is not None:
                tags[begin : begin + len(own)] = [f"B-{kind}", *[f"I-{kind}"] * (len(own) - 1)]
        return tags

    def told(self, found, example, labels):
        return {"words": list(example["words"]), "tags": found}

    def wrong(self, example):
        """O: no entity, and no tag of another set."""
        return ["O"] * len(example["words"])

    def score(self, said, examples, labels):
        """mT5's own: F1 of (kind, text), wherever they stand; a text with a second ":" counts on neither side."""
        right = predicted = gold = 0
        for text, example in zip(said, examples, strict=True):
            found = collections.Counter(_said_entities(text) or ())
            wanted = collections.Counter(_said_entities(self.target(example, labels)) or ())
            right, predicted, gold = right + (found & wanted).total(), predicted + found.total(), gold + wanted.total()
        return {"span_f1": 200 * right / (predicted + gold) if predicted + gold else 0.0}


def entities(words: Sequence[str], tags: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (kind, text) of each named entity of a sentence with tags B-KIND, I-KIND and O, in order."""
    found: list[tuple[str, list[str]]] = []
    last = ""
    for word, tag in zip(words, tags, strict=True):
        begin, _, kind = tag.partition("-")
        if kind and (begin == "B" or kind != last):
            found.append((kind, [word]))
        elif kind:
            found[-1][1].append(word)
        last = kind
    return [(kind, " ".join(own)) for kind, own in found]


def _said_entities(said: str) -> list[tuple[str, str]] | None:
    """Returns the (kind, text) that a text says; None where it is no list of them."""
    found = []
    for part in said.split(BETWEEN.strip()) if said.strip() else ():
        pieces = part.strip().split(": ")
        if len(pieces) == 2:
            found.append((pieces[0], pieces[1]))
        elif len(pieces) < 2:
            return None
    return found


@dataclasses.dataclass(frozen=True)
class Answers(TextForm):
    """An answer to a question: `question: q context: c` -> the answer, all with blanks around symbols.

    An answer is scored as the context spells it, without those blanks; what the context does not hold is scored as it
    is said. none: what stands for no answer; "": every question has one.
    """

    none: str = ""

    def input(self, example, labels):
        return f"question: {padded(example['question'])} context: {padded(example['context'])}"

    def target(self, example, labels):
        return padded(example["answers"][0]["text"]).strip() if example["answers"] else self.none

    def read(self, said, example, labels):
        if not self.none:
            return unpadded(said, example["context"]) if said else None
        if said == self.none:
            return {"text": "", "no_answer": 1.0}
        return {"text": unpadded(said, example["context"]), "no_answer": -1.0} if said else None

    def told(self, found, example, labels):
        return {"text": found["text"] if isinstance(found, dict) else found}

    def wrong(self, example):
        return {"text": "", "no_answer": -1.0} if self.none else ""

    def as_said(self, said, examples):
        """What T5 scores: answers as they were said against gold with blanks around symbols."""
        gold = [
            {**each, "answers": [{**answer, "text": padded(answer["text"]).strip()} for answer in each["answers"]]}
            for each in examples
        ]
        if self.none:
            found = (
                {"text": "" if text == self.none else text, "no_answer": 2.0 * (text == self.none) - 1} for text in said
            )
        else:
            found = iter(said)
        return dict(zip((each["id"] for each in examples), found, strict=True)), gold


def padded(text: str) -> str:
    """Returns a text with blanks around each character that is no letter, digit, mark or underscore (T5's own rule)."""

    def around(found: re.Match) -> str:
        return found[0] if unicodedata.category(found[0])[0] == "M" else f" {found[0]} "

    return BLANKS.sub(" ", SYMBOL.sub(around, text))


def unpadded(said: str, context: str) -> str:
    """Returns the piece of the context that reads as `said` once both are padded; `said` where there is none."""
    wanted = "".join(padded(said).split())
    places = [place for place, character in enumerate(context) if not character.isspace()]
    bare = "".join(context[place] for place in places)
    spelled = BLANKS.sub(" ", padded(said)).strip()
    begin = bare.find(wanted) if wanted else -1
    while begin >= 0:
        piece = context[places[begin] : places[begin + len(wanted) - 1] + 1]
        if padded(piece).strip() == spelled:
            return piece
        begin = bare.find(wanted, begin + 1)
    return said
