"""Paraphrase: QQP (questions, English) and PAWS-X (statements, with many words in common)."""

import dataclasses
from collections.abc import Iterator

from jxstilts.miniworld import concepts
from jxstilts.miniworld.grammar import Grammar, text
from jxstilts.miniworld.scenes import Frame, Names, Thing, World
from jxstilts.miniworld.setting import ATTRIBUTES, Setting, balanced, changed, saying, tab_lines, uniform
from jxstilts.miniworld.streams import Stream

# PAWS-X is in two of the world's languages besides English.
PAWSX_LANGUAGES = ("en", "de", "es")


def question_pair(world: World, stream: Stream, names: Names, label: int, grammar: Grammar) -> tuple[str, str]:
    """Draws two questions that ask the same (1), or differ in one word's meaning or in what they ask (0).

    One has its question word in front and the other in place, whatever the label.
    """
    asked = stream.pick(("object", "place", "time"))
    said = stream.shuffled([key for key in ATTRIBUTES if key != asked])[: 1 + stream.below(2)]
    frame = saying(uniform(world, stream, names), said)
    frames, slots = [frame, frame], [asked, asked]
    if label == 0:
        seen = [key for key in said if asked != "object" or key in ("place", "time")]
        key = stream.pick(["agent", "verb", *seen, *(["noun"] if asked != "object" else [])])
        frames[1] = changed(frame, key, world, stream, names)
    front = stream.below(2)
    texts = [
        text(grammar.question(one, slot, front=place == front))
        for place, (one, slot) in enumerate(zip(frames, slots, strict=True))
    ]
    return texts[0], texts[1]


def statement_pair(world: World, stream: Stream, names: Names, label: int) -> tuple[tuple[Frame, Frame], int]:
    """Draws two statements that say the same (1), or not (0): two words have changed places, or one is another.

    Returns the events and which of the two (0, 1) has its time at the unusual end, whatever the label.
    """
    if stream.chance(30):
        agent, other = (Thing("PER", (given,)) for given in stream.shuffled(names.given)[:2])
        kinds = ["roles", "word"]
    else:
        nouns, qualities = stream.shuffled(concepts.ANIMATE), stream.shuffled(concepts.QUALITIES)
        agent, other = (Thing("noun", (nouns[i],), quality=qualities[i]) for i in range(2))
        kinds = ["roles", "qualities", "word"]
    place = Thing("noun", (stream.pick(concepts.PLACES),))
    first = Frame(agent, stream.pick(concepts.VERBS), other, place, stream.pick(concepts.TIMES))
    second, kind = first, stream.pick(kinds)
    if label == 0 and kind == "roles":
        second = dataclasses.replace(first, agent=other, object=agent)
    elif label == 0 and kind == "qualities":
        second = dataclasses.replace(
            first,
            agent=dataclasses.replace(agent, quality=other.quality),
            object=dataclasses.replace(other, quality=agent.quality),
        )
    elif label == 0:
        second = changed(first, stream.pick(("verb", "place", "time")), world, stream, names)
    return (first, second), stream.below(2)


def files(setting: Setting) -> Iterator[tuple[str, str]]:
    """Yields (path, content) of QQP and PAWS-X."""
    world, counts = setting.world, setting.size.pairs
    for split, count in zip(("train", "dev"), counts, strict=True):
        stream, names = setting.stream("qqp", split), world.names(split)
        rows = [("id", "qid1", "qid2", "question1", "question2", "is_duplicate")]
        for i, label in enumerate(balanced(stream, (0, 1), count)):
            rows.append((i, 2 * i, 2 * i + 1, *question_pair(world, stream, names, label, setting.english), label))
        yield f"intermediate/qqp/{split}.tsv", tab_lines(rows)
    for split, count in (("train", counts[0]), ("dev", counts[1]), ("test", counts[1])):
        stream, names = setting.stream("pawsx", split), world.names(split)
        labels = balanced(stream, (0, 1), count)
        drawn = [(*statement_pair(world, stream, names, label), label) for label in labels]
        for code in PAWSX_LANGUAGES if split != "train" else ("en",):
            grammar = setting.grammars[code]
            rows = (
                (*(text(grammar.statement(one, marked=i == marked)) for i, one in enumerate(frames)), label)
                for frames, marked, label in drawn
            )
            yield f"xtreme/pawsx/{split}-{code}.tsv", tab_lines(rows)
