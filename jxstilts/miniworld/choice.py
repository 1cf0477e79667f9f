"""Multiple choice, in English: HellaSwag, Cosmos QA and CommonsenseQA. Choices alone do not tell which is right."""

import csv
import dataclasses
import io
from collections.abc import Iterator
from typing import NamedTuple

from jxstilts.miniworld import concepts
from jxstilts.miniworld.grammar import Grammar, text
from jxstilts.miniworld.scenes import Frame, Names, World
from jxstilts.miniworld.setting import Setting, balanced, json_lines, saying, scenes
from jxstilts.miniworld.streams import Stream

FAVOURITES = 4  # a verb's objects that count as what one does it to


class Item(NamedTuple):
    """A context, a question (or the beginning of the next sentence), and choices of which `label` is right."""

    context: str
    question: str
    choices: list[str]
    label: int


def continuation(world: World, stream: Stream, names: Names, label: int, grammar: Grammar) -> Item:
    """HellaSwag: two agents have a thing each; one goes on with something. With its own thing, of four.

    The others are the other agent's thing and two that nobody has.
    """
    events = [saying(event, ("colour",)) for event in scenes(world, stream, names, 4)]
    who, other, *rest = (dataclasses.replace(event, object=_one(event.object)) for event in events)
    verb, time = stream.other(concepts.VERBS, who.verb, other.verb), stream.pick(concepts.TIMES)
    things = [other.object, *(frame.object for frame in rest)]
    things = stream.shuffled(things)
    things.insert(label, who.object)
    endings = []
    for thing in things:
        tokens = grammar.statement(Frame(who.agent, verb, thing, None, time))
        endings.append(text([token for token in tokens if not token.roles[0].startswith("agent")]))
    context = " ".join(text(grammar.statement(frame)) for frame in stream.shuffled([who, other]))
    return Item(context, text(grammar.phrase(who, "agent")), endings, label)


def _one(thing):
    return dataclasses.replace(thing, number=1)


def comprehension(world: World, stream: Stream, names: Names, label: int, grammar: Grammar) -> Item:
    """Cosmos QA: a question about one of three events; two of the four answers stand in the context."""
    slot = stream.pick(("object", "place", "time"))
    said = ("place", "time")
    about, other, third, *rest = (
        dataclasses.replace(saying(event, said), object=_one(saying(event, said).object))
        for event in scenes(world, stream, names, 5)
    )
    question = text(grammar.question(saying(about, [key for key in said if key != slot]), slot, front=True))
    wrong = stream.shuffled([other, *rest])
    answers = [text(grammar.phrase(frame, slot)) for frame in wrong]
    answers.insert(label, text(grammar.phrase(about, slot)))
    context = " ".join(text(grammar.statement(frame)) for frame in stream.shuffled([about, other, third]))
    return Item(context, question, answers, label)


def knowledge(world: World, stream: Stream, names: Names, label: int, grammar: Grammar) -> Item:
    """CommonsenseQA: what does one do this to? Known from the company that words keep in running text.

    Each of the five choices is a favourite of one verb among five and of no other of these: any could be the answer.
    """
    while True:
        verbs = stream.shuffled(concepts.VERBS)[:5]
        favourites = {verb: world.objects[verb].items[:FAVOURITES] for verb in verbs}
        things = [stream.pick(favourites[verb]) for verb in verbs]
        homes = [sum(thing in favourites[verb] for verb in verbs) for thing in things]
        if homes == [1] * len(verbs):
            break
    frame = world.frame(stream, names)
    while frame.agent.words[0] in things:
        frame = world.frame(stream, names)
    asked = saying(dataclasses.replace(frame, verb=verbs[label]), ())
    return Item("", text(grammar.question(asked, "object", front=True)), things, label)


def files(setting: Setting) -> Iterator[tuple[str, str]]:
    """Yields (path, content) of the three tasks' training and dev files."""
    for split, other, count in zip(("train", "dev"), ("train", "val"), setting.size.choice, strict=True):
        rows = (
            {"ind": i, "ctx_a": item.context, "ctx_b": item.question, "ctx": f"{item.context} {item.question}"}
            | {"endings": item.choices, "label": item.label}
            for i, item in enumerate(_items(setting, continuation, "hellaswag", split, 4, count))
        )
        yield f"intermediate/hellaswag/hellaswag_{other}.jsonl", json_lines(rows)

        table = io.StringIO(newline="")
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["id", "context", "question", *(f"answer{i}" for i in range(4)), "label"])
        for i, item in enumerate(_items(setting, comprehension, "cosmosqa", split, 4, count)):
            writer.writerow([f"{split}-{i}", item.context, item.question, *item.choices, item.label])
        name = {"train": "train", "dev": "valid"}[split]
        yield f"intermediate/cosmosqa/{name}.csv", table.getvalue()

        rows = (
            {"id": f"{split}-{i}", "answerKey": "ABCDE"[item.label], "question": _stem(item)}
            for i, item in enumerate(_items(setting, knowledge, "commonsenseqa", split, 5, count))
        )
        yield f"intermediate/commonsenseqa/{split}_rand_split.jsonl", json_lines(rows)


def _stem(item):
    choices = [{"label": letter, "text": choice} for letter, choice in zip("ABCDE", item.choices, strict=True)]
    return {"stem": item.question, "choices": choices}


def _items(setting, make, task, split, choices, count):
    stream, names = setting.stream(task, split), setting.world.names(split)
    labels = balanced(stream, range(choices), count)
    return [make(setting.world, stream, names, label, setting.english) for label in labels]
