"""What all writers of task files share: the statistics, a grammar per language, the sizes, and small draws."""

import dataclasses
import json
from collections.abc import Iterable, Sequence

from jxstilts.miniworld import concepts
from jxstilts.miniworld.grammar import Grammar
from jxstilts.miniworld.languages import Language
from jxstilts.miniworld.lexicon import Lexicon
from jxstilts.miniworld.scenes import Frame, Names, Thing, World
from jxstilts.miniworld.streams import Stream


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is written. Rows of each kind of task in (train, dev or test); `text`, `parallel`: 1/text of
    the running text and 1/parallel of the parallel text that the languages' data say.
    retrieval: sentences of Tatoeba. mining: of BUCC, a quarter of them in pairs.
    """

    text: int
    nli: tuple[int, int]
    anli: tuple[int, int]
    pairs: tuple[int, int]
    questions: tuple[int, int]
    choice: tuple[int, int]
    tagging: tuple[int, int]
    retrieval: int
    mining: int
    parallel: int


SIZES = {
    "tiny": Size(60, (180, 60), (60, 30), (120, 40), (90, 48), (60, 30), (90, 30), 40, 40, 10),
    "small": Size(1, (9_000, 600), (1_500, 300), (6_000, 400), (6_000, 300), (3_000, 300), (3_000, 300), 400, 400, 1),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One world about to be written."""

    world: World
    languages: tuple[Language, ...]
    grammars: dict[str, Grammar]
    size: Size

    @property
    def english(self) -> Grammar:
        """The grammar of English."""
        return self.grammars["en"]

    def stream(self, *key: object) -> Stream:
        """Returns a stream of draws of this world for one purpose."""
        return Stream(self.world.seed, *key)


def setting(seed: int, languages: Sequence[Language], size: str) -> Setting:
    """Prepares a world."""
    grammars = {language.code: Grammar(Lexicon(language, seed)) for language in languages}
    return Setting(World(seed), tuple(languages), grammars, SIZES[size])


def balanced(stream: Stream, labels: Sequence, count: int) -> list:
    """Returns `count` labels in random order, each as often as the others (or once more)."""
    return stream.shuffled([labels[i % len(labels)] for i in range(count)])


def plain(world: World, stream: Stream, names: Names, named: int = 30) -> Frame:
    """Draws an event whose attributes are equally likely, so that no value of them hints at a label.

    All of quality, colour, place and time are said; the number of things is 1, 2 or 3, and half the events are denied.
    """
    frame = world.frame(stream, names, named)
    thing = Thing(
        "noun", frame.object.words, 1 + stream.below(3), stream.pick(concepts.QUALITIES), stream.pick(concepts.COLOURS)
    )
    place = Thing("noun", (stream.pick(concepts.PLACES),)) if frame.place.kind == "noun" else frame.place
    agent = dataclasses.replace(frame.agent, quality=None)
    return Frame(agent, frame.verb, thing, place, stream.pick(concepts.TIMES), bool(stream.below(2)))


def uniform(world: World, stream: Stream, names: Names) -> Frame:
    """Draws an event as `plain` does, in which agent, verb and object do not go together either; none is denied."""
    frame = plain(world, stream, names)
    noun = stream.pick(concepts.ANIMATE)
    return dataclasses.replace(
        frame,
        agent=Thing("noun", (noun,)) if frame.agent.kind == "noun" else frame.agent,
        verb=stream.pick(concepts.VERBS),
        object=dataclasses.replace(frame.object, words=(stream.other(concepts.NOUNS, noun),)),
        negative=False,
    )


ATTRIBUTES = ("quality", "colour", "place", "time")


def saying(frame: Frame, attributes: Iterable[str]) -> Frame:
    """Returns the event with only these of its `ATTRIBUTES` said."""
    unsaid = {key: None for key in ATTRIBUTES if key not in attributes}
    about = {key: None for key in ("quality", "colour") if key in unsaid}
    rest = {key: None for key in ("place", "time") if key in unsaid}
    return dataclasses.replace(frame, object=dataclasses.replace(frame.object, **about), **rest)


def changed(frame: Frame, key: str, world: World, stream: Stream, names: Names) -> Frame:
    """Returns the event with another value of one of its parts.

    key: one of `ATTRIBUTES`, "number", "negative", "verb", "noun" (of the object) or "agent".
    """
    thing = frame.object
    if key == "negative":
        return dataclasses.replace(frame, negative=not frame.negative)
    if key == "verb":
        return dataclasses.replace(frame, verb=stream.other(concepts.VERBS, frame.verb))
    if key == "time":
        return dataclasses.replace(frame, time=stream.other(concepts.TIMES, frame.time))
    if key == "place":
        return dataclasses.replace(frame, place=_other_place(frame.place, world, stream, names))
    if key == "agent":
        return dataclasses.replace(frame, agent=_other_agent(frame, world, stream, names))
    if key == "noun":
        nouns = concepts.ANIMATE if thing.words[0] in concepts.ANIMATE else concepts.THINGS
        values = {"words": (stream.other(nouns, *thing.words, *frame.agent.words),)}
    elif key == "number":
        values = {"number": stream.other((1, 2, 3), thing.number)}
    else:
        choices = concepts.COLOURS if key == "colour" else concepts.QUALITIES
        values = {key: stream.other(choices, getattr(thing, key))}
    return dataclasses.replace(frame, object=dataclasses.replace(thing, **values))


def _other_place(place, world, stream, names):
    if place.kind == "noun":
        return Thing("noun", (stream.other(concepts.PLACES, *place.words),))
    other = place
    while other.words == place.words:
        other = world.location(stream, names)
    return other


def _other_agent(frame, world, stream, names):
    agent = other = frame.agent
    while other.words == agent.words:
        if agent.kind == "noun":
            other = Thing("noun", (stream.other(concepts.ANIMATE, *frame.object.words),), quality=agent.quality)
        else:
            other = world.person(stream, names) if agent.kind == "PER" else world.organisation(stream, names)
    return other


def scenes(world: World, stream: Stream, names: Names, count: int) -> list[Frame]:
    """Draws events that differ from each other in agent, verb, object, place and time: a question fits only one."""
    found: list[Frame] = []
    while len(found) < count:
        frame = world.frame(stream, names, named=50)
        parts = [frame.agent.words[0], frame.verb, *frame.object.words, frame.place.words[-1], frame.time]
        if not any(part in _parts(other) for other in found for part in parts):
            found.append(frame)
    return stream.shuffled(found)  # those drawn later have the rarer words


def _parts(frame):
    return (*frame.agent.words, frame.verb, *frame.object.words, *frame.place.words, frame.time)


def json_lines(rows: Iterable[dict]) -> str:
    """Returns JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def tab_lines(rows: Iterable[Sequence[object]]) -> str:
    """Returns lines of cells between tabs."""
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)
