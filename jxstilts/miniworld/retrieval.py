"""Sentence retrieval: Tatoeba in every language, BUCC in those of its languages that the world has."""

from collections.abc import Iterator

from jxstilts.miniworld.grammar import text
from jxstilts.miniworld.scenes import Frame
from jxstilts.miniworld.setting import Setting, tab_lines
from jxstilts.miniworld.streams import Stream

BUCC_LANGUAGES = ("de", "ru")


def different(setting: Setting, stream: Stream, count: int) -> list[Frame]:
    """Draws events of which no two are said alike in any language, whatever the world's languages are like."""
    frames: dict[tuple, Frame] = {}
    while len(frames) < count:
        frame = setting.world.sentence(stream, setting.world.test_names)
        # without what a language may leave unmarked: number words and negations are said in all
        frames.setdefault((frame.core, frame.place, frame.time, frame.negative), frame)
    return list(frames.values())


def files(setting: Setting) -> Iterator[tuple[str, str]]:
    """Yields (path, content). Tatoeba's English side is the same for all languages."""
    frames = different(setting, setting.stream("tatoeba"), setting.size.retrieval)
    for language in setting.languages[1:]:
        for code, end in ((language.code, language.iso3), ("en", "eng")):
            grammar = setting.grammars[code]
            lines = "".join(text(grammar.statement(frame)) + "\n" for frame in frames)
            yield f"xtreme/tatoeba/tatoeba.{language.iso3}-eng.{end}", lines

    for split in ("dev", "test"):
        for code in BUCC_LANGUAGES:
            yield from _mining(setting, split, code)


def _mining(setting, split, code):
    """Two sides of equal length, a quarter of whose sentences have their partner on the other."""
    stream, count = setting.stream("bucc2018", split, code), setting.size.mining
    pairs = count // 4
    frames = different(setting, stream, 2 * count - pairs)
    foreign = stream.shuffled(range(count))
    english = stream.shuffled([*range(pairs), *range(count, len(frames))])
    places = {}
    for side, order in ((code, foreign), ("en", english)):
        ids = {frame: f"{side}-{place:09d}" for place, frame in enumerate(order, start=1)}
        grammar = setting.grammars[side]
        rows = ((identifier, text(grammar.statement(frames[frame]))) for frame, identifier in ids.items())
        yield f"xtreme/bucc2018/{code}-en.{split}.{side}", tab_lines(rows)
        places[side] = ids
    gold = sorted((places[code][frame], places["en"][frame]) for frame in range(pairs))
    yield f"xtreme/bucc2018/{code}-en.{split}.gold", tab_lines(gold)
