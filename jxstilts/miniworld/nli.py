"""Inference: MNLI, SNLI, ANLI and XNLI. A pair's label follows from its two scenes, slot by slot.

Entailment: the hypothesis says nothing that the premise does not say of the same event. Contradiction: one thing that
both say differs: an attribute, the number, or whether it happened. Neutral: the hypothesis says one thing more.
"""

from collections.abc import Iterator
from typing import NamedTuple

from jxstilts.miniworld.grammar import Grammar, text
from jxstilts.miniworld.scenes import Frame, Names, World
from jxstilts.miniworld.setting import ATTRIBUTES, Setting, balanced, changed, json_lines, plain, saying, tab_lines
from jxstilts.miniworld.streams import Stream

LABELS = ("contradiction", "entailment", "neutral")
ROUNDS = ("R1", "R2", "R3")


class Pair(NamedTuple):
    """A premise of one or more events, and whether each is said with its time at the unusual end."""

    premise: tuple[Frame, ...]
    marked: tuple[bool, ...]
    hypothesis: Frame
    label: str

    def texts(self, grammar: Grammar) -> tuple[str, str]:
        """Returns premise and hypothesis in a language."""
        statements = zip(self.premise, self.marked, strict=True)
        premise = " ".join(text(grammar.statement(frame, marked=marked)) for frame, marked in statements)
        return premise, text(grammar.statement(self.hypothesis))


def pair(world: World, stream: Stream, names: Names, label: str, attributes_only: bool = False) -> Pair:
    """Draws a pair with a label.

    The premise says three of the four attributes and the hypothesis one or two, whatever the label; each value is
    equally likely on either side. Neither side alone says anything about the label.
    """
    frame = plain(world, stream, names)
    order = stream.shuffled(ATTRIBUTES)
    said = order[: 1 + stream.below(2)]
    # the attribute that the premise leaves out: one of the hypothesis's, or one of the others
    unsaid = said[0] if label == "neutral" else order[-1]
    hypothesis, premise = saying(frame, said), saying(frame, [key for key in ATTRIBUTES if key != unsaid])
    if attributes_only:
        hypothesis, premise = (_happened(one) for one in (hypothesis, premise))
    if label == "contradiction":
        keys = ("attribute",) * 3 + ("number", "negative")
        key = "attribute" if attributes_only else stream.pick(keys)
        hypothesis = changed(hypothesis, said[0] if key == "attribute" else key, world, stream, names)
    return Pair((premise,), (stream.chance(30),), hypothesis, label)


def _happened(frame):
    return Frame(frame.agent, frame.verb, frame.object, frame.place, frame.time)


def adversarial(world: World, stream: Stream, names: Names, label: str, level: int) -> Pair:
    """Draws a pair whose premise tells of other events too, more of them or more alike at a higher level (1 to 3)."""
    given = pair(world, stream, names, label)
    frames = list(given.premise)
    while len(frames) < (2 if level == 1 else 3):
        other = plain(world, stream, names)
        if level == 3:
            other = changed(given.premise[0], "noun", world, stream, names)
            other = changed(changed(other, "negative", world, stream, names), "number", world, stream, names)
        else:
            other = saying(other, stream.shuffled(ATTRIBUTES)[:3])
        if all(other.core != frame.core for frame in frames):
            frames.append(other)
    return Pair(tuple(stream.shuffled(frames)), tuple(stream.chance(30) for _ in frames), given.hypothesis, given.label)


def files(setting: Setting) -> Iterator[tuple[str, str]]:
    """Yields (path, content) of MNLI, SNLI, ANLI (English) and XNLI (all languages, parallel)."""
    world, english = setting.world, setting.english
    for split, count in zip(("train", "dev"), setting.size.nli, strict=True):
        names = world.names(split)
        for task, simple in (("mnli", False), ("snli", True)):
            stream = setting.stream(task, split)
            pairs = [pair(world, stream, names, label, simple) for label in balanced(stream, LABELS, count)]
            yield f"intermediate/{task}/{split}.jsonl", json_lines(_mnli(pairs, english))
    for level, folder in enumerate(ROUNDS, start=1):
        for split, count in zip(("train", "dev"), setting.size.anli, strict=True):
            stream, names = setting.stream("anli", folder, split), world.names(split)
            labels = balanced(stream, LABELS, count)
            pairs = [adversarial(world, stream, names, label, level) for label in labels]
            rows = (
                {"uid": f"{split}-{i}", "context": one.texts(english)[0], "hypothesis": one.texts(english)[1]}
                | {"label": one.label[0]}
                for i, one in enumerate(pairs)
            )
            yield f"intermediate/anli/{folder}/{split}.jsonl", json_lines(rows)
    for split in ("dev", "test"):
        stream, names = setting.stream("xnli", split), world.names(split)
        pairs = [pair(world, stream, names, label) for label in balanced(stream, LABELS, setting.size.nli[1])]
        for code, grammar in setting.grammars.items():
            yield f"xtreme/xnli/{split}-{code}.tsv", tab_lines((*one.texts(grammar), one.label) for one in pairs)


def _mnli(pairs, english):
    for i, one in enumerate(pairs):
        premise, hypothesis = one.texts(english)
        yield {"pairID": str(i), "gold_label": one.label, "sentence1": premise, "sentence2": hypothesis}
