"""What XTREME-R adds: causes and effects, sentences that answer questions, mentions of entities; all with gold."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jxstilts.miniworld import concepts
from jxstilts.miniworld.choice import comprehension
from jxstilts.miniworld.grammar import Grammar, text
from jxstilts.miniworld.qa import passage, span
from jxstilts.miniworld.scenes import Frame, Names, Thing, World
from jxstilts.miniworld.setting import Setting, balanced, json_lines, saying, scenes
from jxstilts.miniworld.streams import Stream

# Of these benchmarks' languages, those of the world.
XCOPA_LANGUAGES = ("tr",)
LAREQA_LANGUAGES = ("en", "de", "es", "ru", "el", "hi", "ar", "tr")
MEWSLIX_LANGUAGES = ("ar", "de", "en", "es", "tr")


class Alternatives(NamedTuple):
    """An event, and two others of the same agent; the one with the first one's thing is the cause, or the effect."""

    premise: Frame
    choices: tuple[Frame, Frame]
    asked: str
    label: int

    def row(self, grammar: Grammar, number: int) -> dict:
        """Returns a row of COPA in a language."""
        first, second = (text(grammar.statement(frame)) for frame in self.choices)
        row = {"premise": text(grammar.statement(self.premise)), "choice1": first, "choice2": second}
        return row | {"question": self.asked, "label": self.label, "idx": number}


def alternatives(world: World, stream: Stream, names: Names, label: int) -> Alternatives:
    """Draws a question of COPA. Who wins a choice by its words alone, wins as often with the other one."""
    event, other = (saying(frame, ()) for frame in scenes(world, stream, names, 2))
    things = [dataclasses.replace(frame.object, number=1) for frame in (event, other)]
    verb, time = stream.other(concepts.VERBS, event.verb), stream.pick(concepts.TIMES)
    right, wrong = (Frame(event.agent, verb, thing, None, time) for thing in things)
    choices = (wrong, right) if label else (right, wrong)
    premise = dataclasses.replace(event, object=things[0], negative=False)
    return Alternatives(premise, choices, stream.pick(("cause", "effect")), label)


def files(setting: Setting) -> Iterator[tuple[str, str]]:
    """Yields (path, content) of Social IQa, COPA, XCOPA, XQuAD-R and Mewsli-X."""
    yield from _siqa(setting)
    yield from _copa(setting)
    yield from _lareqa(setting)
    yield from _mewslix(setting)


def _counts(setting: Setting) -> dict[str, int]:
    train, rest = setting.size.choice
    return {"train": train, "dev": rest, "test": rest}


def _siqa(setting):
    for (split, count), name in zip(_counts(setting).items(), ("trn", "dev", "tst"), strict=True):
        stream, names = setting.stream("siqa", split), setting.world.names(split)
        rows = []
        for label in balanced(stream, range(3), count):
            item = comprehension(setting.world, stream, names, label, setting.english)
            answers = {f"answer{letter}": choice for letter, choice in zip("ABC", item.choices, strict=False)}
            rows.append({"context": item.context, "question": item.question, **answers, "correct": "ABC"[label]})
        yield f"xtreme-r/siqa/socialIQa_v1.4_{name}.jsonl", json_lines(rows)


def _copa(setting):
    for (split, count), name in zip(_counts(setting).items(), ("train", "val", "test"), strict=True):
        stream, names = setting.stream("copa", split), setting.world.names(split)
        drawn = [alternatives(setting.world, stream, names, label) for label in balanced(stream, (0, 1), count)]

        def rows(code: str, drawn: Sequence[Alternatives] = drawn) -> str:
            return json_lines(one.row(setting.grammars[code], number) for number, one in enumerate(drawn))

        yield f"xtreme-r/copa/{name}.en.jsonl", rows("en")
        for code in XCOPA_LANGUAGES if split != "train" else ():
            yield f"xtreme-r/xcopa/{code}/{name}.{code}.jsonl", rows(code)
            yield f"xtreme-r/xcopa-gmt/{code}/{name}.{code}.jsonl", rows("en")


def _lareqa(setting):
    stream, names = setting.stream("lareqa", "test"), setting.world.names("test")
    drawn = [passage(setting.world, stream, names) for _ in range(setting.size.questions[1] // 4)]
    for code in LAREQA_LANGUAGES:
        grammar, paragraphs = setting.grammars[code], []
        for number, one in enumerate(drawn):
            paragraph = one.paragraph(grammar, grammar, f"lareqa-{number}")
            texts = [
                text(grammar.statement(event, marked=marked))
                for event, marked in zip(one.events, one.marked, strict=True)
            ]
            paragraphs.append(paragraph | {"sentences": texts, "sentence_breaks": _breaks(texts)})
        content = json.dumps({"data": [{"paragraphs": paragraphs}]}, ensure_ascii=False)
        yield f"xtreme-r/lareqa/xquad-r/{code}.json", content + "\n"


def _breaks(texts: Sequence[str]) -> list[list[int]]:
    """Returns [begin, end] of each sentence of a text that has a blank between them."""
    begins = [sum(len(before) + 1 for before in texts[:place]) for place in range(len(texts))]
    return [[begin, begin + len(one)] for begin, one in zip(begins, texts, strict=True)]


class Person(NamedTuple):
    """An entity, described in one language by two events of its."""

    number: int
    name: Thing
    code: str
    events: tuple[Frame, Frame]

    def entity(self, setting: Setting) -> dict:
        """Returns the entity as Mewsli-X has it."""
        texts = [text(setting.grammars[self.code].statement(event)) for event in self.events]
        spans = [{"start": begin, "end": end} for begin, end in _breaks(texts)]
        return {
            "entity_id": f"Q{self.number}", "title": f"Q{self.number}", "description": " ".join(texts),
            "description_language": self.code, "description_url": "", "sentence_spans": spans,
        }  # fmt: skip


def _people(setting: Setting, split: str, count: int, begin: int) -> list[Person]:
    """Draws people of different names; no name is a part of another."""
    stream, names = setting.stream("mewslix", "people", split), setting.world.names(split)
    whole = stream.shuffled([(given, place) for given in names.given for place in names.places])[:count]
    return [
        Person(begin + number, thing, stream.pick(tuple(setting.grammars)), _events(setting, stream, names, thing))
        for number, thing in enumerate(Thing("PER", words) for words in whole)
    ]


def _events(setting, stream, names, thing) -> tuple[Frame, Frame]:
    events = (saying(frame, ("place", "time")) for frame in scenes(setting.world, stream, names, 2))
    first, second = (dataclasses.replace(event, agent=thing, negative=False, partner=None) for event in events)
    return first, second


def _mention(setting: Setting, stream: Stream, names: Names, person: Person, code: str, name: str) -> dict:
    """Returns an article of two sentences, the second about a person, whom it mentions."""
    grammar = setting.grammars[code]
    before, event = _events(setting, stream, names, person.name)
    other = dataclasses.replace(before, agent=Thing("noun", (stream.other(concepts.ANIMATE, *before.object.words),)))
    tokens = grammar.statement(event)
    texts = [text(grammar.statement(other)), text(tokens)]
    start, mention = span(tokens, "agent")
    begin = len(texts[0]) + 1 + start
    context = {
        "document_title": "", "document_url": "", "document_id": name, "language": code, "text": " ".join(texts),
        "sentence_spans": [{"start": a, "end": b} for a, b in _breaks(texts)],
    }  # fmt: skip
    where = {"start": begin, "end": begin + len(mention), "text": mention}
    return {
        "context": context,
        "mention": {"example_id": name, "mention_span": where, "entity_id": f"Q{person.number}", "metadata": {}},
    }


def _mewslix(setting):
    count = setting.size.retrieval
    people = {"train": _people(setting, "train", count, 1), "test": _people(setting, "test", count, 1 + count)}
    yield "xtreme-r/mewslix/candidate_set_entities.jsonl", json_lines(one.entity(setting) for one in people["test"])
    for split, own in (("train", people["train"]), ("dev", people["train"][: count // 2])):
        stream, names = setting.stream("mewslix", "pairs", split), setting.world.names("train")
        drawn = (_mention(setting, stream, names, one, "en", f"{split}-{one.number}") for one in own)
        rows = (
            {"contextual_mention": mention, "entity": one.entity(setting)}
            for one, mention in zip(own, drawn, strict=True)
        )
        yield f"xtreme-r/mewslix/wikipedia_pairs-{split}.jsonl", json_lines(rows)
    for split in ("dev", "test"):
        for code in MEWSLIX_LANGUAGES:
            stream, names = setting.stream("mewslix", split, code), setting.world.names("test")
            own = stream.shuffled(people["test"])[: count // 2]
            drawn = [_mention(setting, stream, names, one, code, f"{split}-{code}-{one.number}") for one in own]
            articles = ({"context": each["context"], "mentions": [each["mention"]]} for each in drawn)
            yield f"xtreme-r/mewslix/wikinews_mentions/{split}-{code}.jsonl", json_lines(articles)
            gold = {each["mention"]["example_id"]: [each["mention"]["entity_id"]] for each in drawn}
            yield f"xtreme-r/mewslix/wikinews_labels/{split}-{code}.json", json.dumps(gold) + "\n"
