"""What happens in the world: frames of meaning, and the skewed statistics by which concepts keep company."""

import dataclasses
import functools
import itertools

from jxstilts.miniworld import concepts
from jxstilts.miniworld.streams import Choice, Stream


@dataclasses.dataclass(frozen=True, slots=True)
class Thing:
    """An agent, an object or a place.

    kind: "noun", or the kind of a name, "PER", "ORG" or "LOC". words: the noun; or the words of a name, of which some
    are concepts (the bank in "kela bank"). number: 1 to 5; quality, colour: None where nothing is said of it.
    """

    kind: str
    words: tuple[str, ...]
    number: int = 1
    quality: str | None = None
    colour: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """One event, that happens or (negative) does not. place, time, partner (a second agent): None where not said."""

    agent: Thing
    verb: str
    object: Thing
    place: Thing | None = None
    time: str | None = None
    negative: bool = False
    partner: Thing | None = None

    @property
    def core(self) -> tuple:
        """What identifies the event: agent, verb and object without their qualities."""
        return self.agent.words, self.verb, self.object.words


@dataclasses.dataclass(frozen=True)
class Names:
    """A pool of names. Those of training files differ from those of dev and test files."""

    given: tuple[str, ...]
    places: tuple[str, ...]


class World:
    """The statistics of one seed, shared by all languages, and the two pools of names."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        given = Stream(seed, "names", "given").shuffled(concepts.GIVEN)
        places = Stream(seed, "names", "places").shuffled(concepts.PLACE_NAMES)
        half = len(given) // 2, len(places) // 2
        self.train_names = Names(tuple(given[: half[0]]), tuple(places[: half[1]]))
        self.test_names = Names(tuple(given[half[0] :]), tuple(places[half[1] :]))
        self.all_names = Names(tuple(given), tuple(places))
        table = functools.partial(_company, seed)
        self.agents = table("agents", ("any",), concepts.ANIMATE, gentle=True)["any"]
        self.verbs = table("verbs", concepts.ANIMATE, concepts.VERBS)
        self.objects = table("objects", concepts.VERBS, concepts.NOUNS)
        self.places = table("places", concepts.NOUNS, concepts.PLACES)
        self.times = table("times", concepts.PLACES, concepts.TIMES)
        self.colours = table("colours", concepts.NOUNS, concepts.COLOURS)
        self.qualities = table("qualities", concepts.NOUNS, concepts.QUALITIES)
        self.numbers = table("numbers", concepts.NOUNS, (2, 3, 4, 5), gentle=True)

    def names(self, split: str) -> Names:
        """Returns the pool of a split: "train", or "dev" and "test"; "text" has both."""
        return {"train": self.train_names, "text": self.all_names}.get(split, self.test_names)

    def frame(self, stream: Stream, names: Names, named: int = 30) -> Frame:
        """Draws an event with everything said of it except a partner; `named`: per cent of agents with a name."""
        verb_of = noun = self.agents.draw(stream)
        if stream.chance(named):
            agent = self.organisation(stream, names) if stream.chance(35) else self.person(stream, names)
        else:
            agent = Thing("noun", (noun,), quality=self.qualities[noun].draw(stream))
        verb = self.verbs[verb_of].draw(stream)
        what = self.objects[verb].draw(stream)
        while what == noun:
            what = self.objects[verb].draw(stream)
        number = self.numbers[what].draw(stream) if stream.chance(30) else 1
        quality, colour = self.qualities[what].draw(stream), self.colours[what].draw(stream)
        place = self.places[what].draw(stream)
        where = self.location(stream, names) if stream.chance(named // 2) else Thing("noun", (place,))
        time = self.times[place].draw(stream)
        return Frame(agent, verb, Thing("noun", (what,), number, quality, colour), where, time)

    def sentence(self, stream: Stream, names: Names, named: int = 30) -> Frame:
        """Draws an event as running text tells it: some of it unsaid, some of it denied, some agents together."""
        frame = self.frame(stream, names, named)
        said = stream.below(64)
        agent = frame.agent if said & 1 else dataclasses.replace(frame.agent, quality=None)
        thing = dataclasses.replace(
            frame.object,
            quality=frame.object.quality if said & 6 == 6 else None,
            colour=frame.object.colour if said & 8 else None,
        )
        partner = None
        if stream.chance(8):
            partner = Thing("noun", (stream.other(concepts.ANIMATE, *agent.words, *thing.words),))
        return Frame(
            agent, frame.verb, thing, frame.place if said & 16 else None, frame.time if said & 32 else None,
            stream.chance(15), partner,
        )  # fmt: skip

    def person(self, stream: Stream, names: Names) -> Thing:
        """Draws a person: a given name, and in four of ten cases a surname."""
        given = stream.pick(names.given)
        return Thing("PER", (given, stream.pick(names.places)) if stream.chance(40) else (given,))

    def organisation(self, stream: Stream, names: Names) -> Thing:
        """Draws an organisation, such as "kela bank"."""
        return Thing("ORG", (stream.pick(names.places), stream.pick(concepts.COMPANIES)))

    def location(self, stream: Stream, names: Names) -> Thing:
        """Draws a place with a name, such as "kela" or "port kela"."""
        name = stream.pick(names.places)
        return Thing("LOC", (stream.pick(concepts.SITES), name) if stream.chance(40) else (name,))


def _company(seed, kind, heads, members, gentle=False):
    """Returns head -> a skewed choice among the members, in an order of its own: its distributional fingerprint.

    No two heads have the same two favourites.
    """
    weights = [12 // (rank + 1) + 4 if gentle else (48 >> rank) + 1 for rank in range(len(members))]
    stream, table, favourites = Stream(seed, "company", kind), {}, set()
    for head in heads:
        order = next(
            order
            for order in (stream.shuffled(members) for _ in itertools.count())
            if gentle or tuple(order[:2]) not in favourites
        )
        favourites.add(tuple(order[:2]))
        table[head] = Choice(order, weights)
    return table
