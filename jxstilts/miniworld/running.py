"""Running text for masked language modelling, a little of it line-parallel, and the gold alignment and lexicon."""

import dataclasses
from collections.abc import Iterator

from jxstilts.miniworld.concepts import CONCEPTS, GIVEN, PLACE_NAMES, QUESTIONS, UPOS
from jxstilts.miniworld.grammar import Grammar, Token, text
from jxstilts.miniworld.scenes import World
from jxstilts.miniworld.setting import ATTRIBUTES, Setting, changed, saying, tab_lines
from jxstilts.miniworld.streams import Stream

DOCUMENT = 48  # words of a document, at most
SWITCHED = frozenset({"NOUN", "VERB", "ADJ", "NUM"})


def files(setting: Setting) -> Iterator[tuple[str, str]]:
    """Yields (path, content) of the monolingual text, the parallel text and the gold files.

    A language's first half is single sentences, its second half documents of one scene.
    """
    for language in setting.languages:
        yield f"text/common_voice/{language.code}.txt", "".join(line + "\n" for line in lines(setting, language.code))

    stream = setting.stream("ntrex")
    count = setting.english.language.parallel // setting.size.parallel
    frames = [setting.world.sentence(stream, setting.world.all_names) for _ in range(count)]
    english = [setting.english.statement(frame) for frame in frames]
    for language in setting.languages:
        count = language.parallel // setting.size.parallel
        if not count:
            continue  # an empty file would be an error to its readers
        sentences = [setting.grammars[language.code].statement(frame) for frame in frames[:count]]
        kind = "src" if language.code == "en" else "ref"
        lines_ = "".join(text(sentence) + "\n" for sentence in sentences)
        yield f"text/ntrex/newstest2019-{kind}.{language.ntrex}.txt", lines_
        if language.code != "en":
            pairs = (aligned(*pair) for pair in zip(english[:count], sentences, strict=True))
            rows = (" ".join(f"{a}-{b}" for a, b in pair) + "\n" for pair in pairs)
            yield f"gold/alignment.en-{language.code}.txt", "".join(rows)
    yield "gold/lexicon.tsv", lexicon(setting)


def lines(setting: Setting, code: str) -> Iterator[str]:
    """Yields a language's lines of running text. A longer corpus of the same language begins both halves the same.

    Glosses are like what crawled text has here and there: a sentence and its translation on one page.
    """
    grammar, world = setting.grammars[code], setting.world
    count = max(2, grammar.language.corpus // setting.size.text)
    for kind, some in (("sentence", count - count // 2), ("document", count // 2)):
        stream, switch = setting.stream("text", code, kind), setting.stream("switching", code, kind)
        gloss = setting.stream("glosses", code)
        for _ in range(some):
            if kind == "document":
                yield _switched(document(world, stream, grammar), switch, grammar)
                continue
            frame = world.sentence(stream, world.all_names)
            said = [_switched(grammar.statement(frame, marked=stream.chance(25)), switch, grammar)]
            if gloss.chance(grammar.language.glosses):
                said.append(text(setting.english.statement(frame)))
            yield " ".join(said)


def document(world: World, stream: Stream, grammar: Grammar) -> list[Token]:
    """Draws a document: an event, and what is said of it (again, denied, asked and answered), or happens next."""
    names = world.all_names
    frame = world.frame(stream, names)
    tokens = grammar.statement(saying(frame, stream.shuffled(ATTRIBUTES)[: 2 + stream.below(3)]))
    while True:
        kind, marked = stream.below(4), stream.chance(30)
        some = stream.shuffled(ATTRIBUTES)[: 1 + stream.below(2)]
        if kind == 0:
            more = grammar.statement(saying(frame, some), marked=marked)
        elif kind == 1:
            wrong = changed(saying(frame, some), some[0], world, stream, names)
            more = grammar.statement(dataclasses.replace(wrong, negative=True), marked=marked)
        elif kind == 2:
            slot = stream.pick(tuple(QUESTIONS))
            asked = saying(frame, [key for key in some if slot not in (key, "object")])
            more = grammar.question(asked, slot, front=stream.chance(50))
            more += [*grammar.phrase(frame, slot), Token(".", "PUNCT", ("end",))]
        else:
            new = world.frame(stream, names)
            while frame.agent.words[0] in new.object.words:
                new = world.frame(stream, names)
            frame = dataclasses.replace(new, agent=frame.agent)
            more = grammar.statement(saying(frame, some), marked=marked)
        if len(tokens) + len(more) > DOCUMENT:
            return tokens
        tokens += more


def _switched(tokens, stream, grammar):
    percent = grammar.language.switching
    words = []
    for token in tokens:
        # drawn whatever the share is, so that a higher one only switches more
        if token.upos in SWITCHED and stream.chance(percent) and token.concept:
            words.append(token.concept)
        else:
            words.append(token.form)
    return " ".join(words)


def aligned(english: list[Token], foreign: list[Token]) -> list[tuple[int, int]]:
    """Returns pairs of places of words that say the same part of the same meaning, sorted."""
    return [
        (i, j)
        for i, word in enumerate(english)
        for j, other in enumerate(foreign)
        if not set(word.roles).isdisjoint(other.roles)
    ]


def lexicon(setting: Setting) -> str:
    """Returns concept, part of speech, and each language's word; "-x" and "x-" are affixes, "" says it is unsaid.

    Names follow, with the part of speech PROPN.
    """
    lexicons = [setting.grammars[language.code].lexicon for language in setting.languages]
    rows = [("concept", "upos", *(language.code for language in setting.languages))]
    rows += [(concept, UPOS[concept], *(one.words[concept] for one in lexicons)) for concept in CONCEPTS]
    rows += [(name, "PROPN", *(one.name(name) for one in lexicons)) for name in (*GIVEN, *PLACE_NAMES)]
    return tab_lines(rows)
