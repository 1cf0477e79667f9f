"""Question answering in SQuAD's format: SQuAD v1.1 and v2.0, XQuAD, MLQA and TyDiQA."""

import dataclasses
import json
from collections.abc import Iterator
from typing import NamedTuple

from jxstilts.miniworld.concepts import QUESTIONS
from jxstilts.miniworld.grammar import Grammar, Token, content, text
from jxstilts.miniworld.scenes import Frame, Names, World
from jxstilts.miniworld.setting import Setting, saying, scenes
from jxstilts.miniworld.streams import Stream

# Of these benchmarks' languages, those of the world.
MLQA_LANGUAGES = ("en", "de", "es", "hi", "ar")
TYDIQA_LANGUAGES = {"en": "english", "ar": "arabic", "ru": "russian"}


class Question(NamedTuple):
    """A question about one slot of one event; `about` is what the question says, `place` which event answers it.

    place is -1 where none does.
    """

    about: Frame
    slot: str
    front: bool
    place: int


class Passage(NamedTuple):
    """A context of several events, whether each has its time at the unusual end, and questions about it."""

    events: tuple[Frame, ...]
    marked: tuple[bool, ...]
    questions: tuple[Question, ...]

    def paragraph(self, context: Grammar, question: Grammar, identifier: str, version2: bool = False) -> dict:
        """Returns SQuAD's paragraph, with the context in one language and the questions in one."""
        sentences = [
            context.statement(event, marked=marked) for event, marked in zip(self.events, self.marked, strict=True)
        ]
        texts = [text(sentence) for sentence in sentences]
        entries = []
        for number, one in enumerate(self.questions):
            words = text(question.question(one.about, one.slot, front=one.front))
            answers = []
            if one.place >= 0:
                before = sum(len(other) + 1 for other in texts[: one.place])
                start, answer = span(sentences[one.place], one.slot)
                answers = [{"text": answer, "answer_start": before + start}]
            entry = {"id": f"{identifier}-{number}", "question": words, "answers": answers}
            entries.append(entry | {"is_impossible": one.place < 0} if version2 else entry)
        return {"context": " ".join(texts), "qas": entries}


def span(tokens: list[Token], slot: str) -> tuple[int, str]:
    """Returns the place of a slot's answer in the sentence's text, in characters, and the answer."""
    places = content(tokens, slot)
    first, last = places[0], places[-1]
    return len(text(tokens[:first])) + (first > 0), text(tokens[first : last + 1])


def passage(world: World, stream: Stream, names: Names, impossible: bool = False) -> Passage:
    """Draws two to four events and a question about two of them; with `impossible` a third that none answers.

    That one is about an event with the agent, or the thing, of another event that the context does not tell.
    """
    drawn = []
    for frame in scenes(world, stream, names, 3 + stream.below(3)):
        said = (("place", "time"), ("place", "time", "colour"), ("place", "time", "quality"))[stream.below(3)]
        drawn.append(dataclasses.replace(saying(frame, said), agent=dataclasses.replace(frame.agent, quality=None)))
    *events, untold = drawn
    order = stream.shuffled(range(len(events)))
    questions = [_question(stream, events[place], place) for place in order[:2]]
    if impossible:
        one = _question(stream, events[order[0]], -1)
        if one.slot == "object" or (one.slot != "agent" and stream.chance(50)):
            about = dataclasses.replace(one.about, agent=untold.agent)
        else:
            thing = dataclasses.replace(one.about.object, words=untold.object.words)
            about = dataclasses.replace(one.about, object=thing)
        questions.insert(stream.below(3), one._replace(about=about))
    return Passage(tuple(events), tuple(stream.chance(30) for _ in events), tuple(questions))


def _question(stream, event, place):
    slot = stream.pick(tuple(QUESTIONS))
    # a question says who, what was done, what with, and the place or the time, whichever is not asked
    said = ["place" if slot == "time" else "time" if slot == "place" else stream.pick(("place", "time"))]
    return Question(saying(event, said), slot, bool(stream.below(2)), place)


def document(paragraphs: list[dict], version: str = "1.1") -> str:
    """Returns SQuAD's JSON."""
    data = [{"title": "miniworld", "paragraphs": paragraphs}]
    return json.dumps({"version": version, "data": data}, ensure_ascii=False) + "\n"


def files(setting: Setting) -> Iterator[tuple[str, str]]:
    """Yields (path, content) of the question answering files. Counts are of questions."""
    english = setting.english
    counts = dict(zip(("train", "dev"), setting.size.questions, strict=True))
    for split, count in counts.items():
        for version, each in (("1.1", 2), ("2.0", 3)):
            drawn = _passages(setting, "squad", f"{split}-{version}", count // each, each == 3)
            paragraphs = [one.paragraph(english, english, f"{split}-{i}", each == 3) for i, one in enumerate(drawn)]
            yield f"intermediate/squad/{split}-v{version}.json", document(paragraphs, version)

    drawn = _passages(setting, "xquad", "test", counts["dev"] // 2)
    for code, grammar in setting.grammars.items():
        paragraphs = [one.paragraph(grammar, grammar, f"xquad-{i}") for i, one in enumerate(drawn)]
        yield f"xtreme/xquad/xquad.{code}.json", document(paragraphs)

    for split in ("dev", "test"):
        drawn = _passages(setting, "mlqa", split, counts["dev"] // 4)
        for context in MLQA_LANGUAGES:
            for question in MLQA_LANGUAGES:
                grammars = setting.grammars[context], setting.grammars[question]
                paragraphs = [one.paragraph(*grammars, f"mlqa-{i}") for i, one in enumerate(drawn)]
                name = f"{split}/{split}-context-{context}-question-{question}.json"
                yield f"xtreme/mlqa/MLQA_V1/{name}", document(paragraphs)

    # not translated: each language has passages of its own; as in XTREME only English is trained on
    for code, name in TYDIQA_LANGUAGES.items():
        grammar = setting.grammars[code]
        for split in ("train", "dev") if code == "en" else ("dev",):
            drawn = _passages(setting, f"tydiqa-{code}", split, counts[split] // 4)
            paragraphs = [one.paragraph(grammar, grammar, f"{name}-{split}-{i}") for i, one in enumerate(drawn)]
            yield f"xtreme/tydiqa/tydiqa-goldp-v1.1-{split}/tydiqa.goldp.{code}.{split}.json", document(paragraphs)


def _passages(setting, task, split, count, impossible=False):
    stream, names = setting.stream(task, split), setting.world.names(split.split("-")[0])
    return [passage(setting.world, stream, names, impossible) for _ in range(count)]
