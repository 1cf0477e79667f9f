"""Words and their tags: UD parts of speech and PAN-X names in all languages, CCG categories in English."""

from collections.abc import Iterator, Sequence

from jxstilts.miniworld.concepts import QUESTIONS
from jxstilts.miniworld.grammar import Grammar, Token
from jxstilts.miniworld.scenes import World
from jxstilts.miniworld.setting import Setting
from jxstilts.miniworld.streams import Stream


def files(setting: Setting) -> Iterator[tuple[str, str]]:
    """Yields (path, content) of udpos, panx and ccg.

    dev and test are parallel across languages; training data is in every language, English having four times as much.
    """
    train, rest = setting.size.tagging
    for code, grammar in setting.grammars.items():
        rows = {"train": train if code == "en" else train // 4, "dev": rest, "test": rest}
        for split, count in rows.items():
            language = (code,) if split == "train" else ()
            stream = setting.stream("udpos", split, *language)
            sentences = [_sentence(setting.world, stream, split, grammar) for _ in range(count)]
            yield f"xtreme/udpos/{split}-{code}.tsv", _lines(sentences, "upos")
            stream = setting.stream("panx", split, *language)
            names = setting.world.names(split)
            frames = [setting.world.sentence(stream, names, named=80) for _ in range(count)]
            yield f"xtreme/panx/{split}-{code}.tsv", _lines([grammar.statement(frame) for frame in frames], "ner")
    for split, count in {"train": train, "dev": rest, "test": rest}.items():
        stream, names = setting.stream("ccg", split), setting.world.names(split)
        lines = []
        for _ in range(count):
            frame = setting.world.sentence(stream, names)
            tokens = setting.english.derived(frame, marked=stream.chance(30))
            lines.append(" ".join(f"{token.form}|{token.upos}|{token.category}" for token in tokens) + "\n")
        yield f"intermediate/ccg/{split}.txt", "".join(lines)


def _sentence(world: World, stream: Stream, split: str, grammar: Grammar) -> list[Token]:
    frame = world.sentence(stream, world.names(split))
    marked = stream.chance(30)
    if stream.chance(20):
        return grammar.question(frame, stream.pick(tuple(QUESTIONS)), front=stream.chance(50), marked=marked)
    return grammar.statement(frame, marked=marked)


def _lines(sentences: Sequence[Sequence[Token]], tag: str) -> str:
    words = ("".join(f"{token.form}\t{getattr(token, tag)}\n" for token in sentence) for sentence in sentences)
    return "\n".join(words)
