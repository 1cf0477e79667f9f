"""Tagging of words: sub-words one word at a time, the tag on the first; long sentences are cut or split."""

import collections
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from jxstilts.data.features import Features, Field, constant, labelled
from jxstilts.data.ragged import join, offsets_of, spread
from jxstilts.data.tokenizer import encode
from jxstilts.forms import base, checks, files
from jxstilts.forms.labels import match
from jxstilts.runtime import InputError, suggest

MAX_SUBWORDS = 100  # a word of more is taken for a mis-read URL and the like, and becomes one <unk> (protocol 3.5)


class Tags(base.Collector):
    """Classes [T] of each feature's tokens -> {sentence id: a tag per word, None where the word was cut off}."""

    def prepare(self):
        given = self.given
        self.names = given.labels  # as the task writes them, where it names its tags
        if given.spec.labels:
            places = match(given.labels, given.spec.labels, f"task {given.spec.name!r}")
            self.names = [given.spec.labels[place] for place in places]
        self.tags = [[None] * len(example["words"]) for example in self.given.examples]

    def add(self, index, array):
        features = self.given.features
        words = features.token_fields["word"][features.offsets[index] : features.offsets[index + 1]]
        mine = self.tags[features.fields["example"][index]]
        for place in np.flatnonzero(words >= 0).tolist():
            mine[words[place]] = self.names[array[place]]

    def finish(self):
        """Words whose gold tag the head cannot predict are left out where `Options.unknown_tags` says so."""
        examples, known = self.given.examples, set(self.names)
        found = {example["id"]: tags for example, tags in zip(examples, self.tags, strict=True)}
        if self.given.options.unknown_tags == "miss":
            return found
        for example in examples:
            if "tags" in example:
                pairs = zip(found[example["id"]], example["tags"], strict=True)
                found[example["id"]] = [tag if gold in known else None for tag, gold in pairs]
        return found

    def notes(self):
        """cut_words: words that are cut off. unknown_tags: {gold tag that the head cannot predict: words}."""
        unknown = collections.Counter(tag for example in self.given.examples for tag in example.get("tags", ()))
        notes = {
            "cut_words": sum(tags.count(None) for tags in self.tags),
            "unknown_tags": {tag: unknown[tag] for tag in sorted(unknown.keys() - set(self.names))},
        }
        return {name: value for name, value in notes.items() if value}


class Scores(base.Collector):
    """Logits [T, C] of each feature's tokens -> {"words", "tags", "scores", "logits"} of each sentence.

    tags, scores: of each word, and its probability; None where the word was cut off. logits: float32 [words, C], NaN
    there.
    """

    def prepare(self):
        shape = len(self.given.labels)
        self.logits = [np.full((len(each["words"]), shape), np.nan, np.float32) for each in self.given.examples]

    def add(self, index, array):
        features = self.given.features
        words = features.token_fields["word"][features.offsets[index] : features.offsets[index + 1]]
        begins = words >= 0
        self.logits[features.fields["example"][index]][words[begins]] = array[begins]

    def finish(self):
        names = self.given.labels
        found = []
        for example, logits in zip(self.given.examples, self.logits, strict=True):
            cut = np.isnan(logits).any(-1).tolist()
            best, highest = logits.argmax(-1).tolist(), checks.chances(logits).max(-1).tolist()
            tags = [None if none else names[place] for none, place in zip(cut, best, strict=True)]
            scores = [None if none else score for none, score in zip(cut, highest, strict=True)]
            found.append({"words": list(example["words"]), "tags": tags, "scores": scores, "logits": logits})
        return found


class Tagging(base.Form):
    """Example {"id": str, "words": [str, ...], "tags": [str, ...]}: one per word, names, not ids.

    The words are read one by one, each as at the start of a text; a word of no or of more than 100 sub-words becomes
    one <unk>. `long_sentences`: "truncate" keeps the first max_length - 2 sub-words, as jiant does: words that begin
    later are in no feature; "split" goes on in further features, cut before the word that does not fit, as XTREME
    does: each word is in exactly one (and is <unk> if it alone does not fit).
    """

    name = "tagging"
    keys = {"words": (list, tuple)}  # noqa: RUF012
    gold = "tags"
    labelled = True
    replaceable = ("words",)
    fields = (Field("tags", "tag", "token", empty=-1, gold=True),)
    output = "classes"
    per_token = True
    typical = (32, 1)
    suffix = ".tsv"
    rows = 'a list of words or {"words": [...]}, with "tags", a name or a place among the labels for each word'
    scores = Scores
    scores_output = "logits"

    def example(self, row):
        given = row if isinstance(row, Mapping) else {"words": row}
        example = {"words": checks.texts(given, "words", "a list of words")}
        if "tags" not in given:
            return example
        tags = checks.got(given, "tags", list | tuple, "a list of tags")
        if len(tags) != len(example["words"]):
            raise InputError(f"it has {len(example['words'])} words but {len(tags)} tags")
        return example | {"tags": list(tags)}

    def named(self, gold):
        return gold

    def as_gold(self, gold, labels):
        return [labels[checks.place(tag, labels)] for tag in gold]

    def own_task(self, examples):
        return {"metric": "seqeval"}

    def asked(self, head, options):
        if self.output != self.scores_output:
            return head
        kind = self.head_class().asking  # which brings JAX, that a list of tasks does not need
        return kind(head.name, head.type, head.labels, head.pooling)

    def options(self, reading):
        return super().options(reading) | {"long_sentences": reading.long_sentences}

    def check_gold(self, spec, example, where):
        tags, words = example["tags"], example["words"]
        if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) for tag in tags):
            raise InputError(f"{where}: expected tags by name, one for each word, got {tags!r:.60}")
        if len(tags) != len(words):
            raise InputError(f"{where} ({example['id']!r:.60}) has {len(words)} words but {len(tags)} tags")

    def tokenize(self, examples, tokenizer, template, reading, labels=()) -> Features:
        """labels: the tags, in the order of their ids; without them the features have no tags.

        Field example; token fields word (index in the sentence of the word that begins with this token, else -1) and,
        where the examples have it, tag (id in `labels` where a word begins, -1 elsewhere and for a tag that `labels`
        lacks).
        """
        if reading.long_sentences not in base.LONG_SENTENCES:
            raise InputError(suggest("value of long_sentences", reading.long_sentences, base.LONG_SENTENCES))
        room = base.check_room(reading, template.specials(pair=False), 1, "words")
        tags = _tags(examples, labels)
        words = list(itertools.chain.from_iterable(example["words"] for example in examples))
        longest = MAX_SUBWORDS if reading.long_sentences == "truncate" else min(MAX_SUBWORDS, room)
        subwords, word_at = _subwords(tokenizer, words, longest)

        # One row per sentence (its first word), then one per feature: words first[i]:first[i+1] of all words.
        sentence_at = offsets_of(np.array([len(example["words"]) for example in examples], np.int64))
        first, example = sentence_at[:-1], np.arange(len(examples))
        if reading.long_sentences == "split":
            first, example = _split(sentence_at, word_at, room)
        first_token = word_at[np.append(first, len(words))]
        length = np.minimum(np.diff(first_token), room)
        filled = template.fill(tokenizer, (subwords, first_token[:-1], length))

        # Where each word begins in its feature; a word whose first sub-word is cut off is in none.
        count = np.diff(np.append(first, len(words)))
        place = word_at[:-1] - np.repeat(first_token[:-1], count)
        shown = place < np.repeat(length, count)
        place = (place + np.repeat(filled.offsets[:-1] + filled.begins["A"], count))[shown]
        number = spread(np.zeros(len(examples)), np.diff(sentence_at))
        token_fields = dict(filled.token_fields)
        for name, value in (("word", number), ("tag", tags)):
            if value is not None:
                token_fields[name] = np.full(len(filled.tokens), -1, np.int32)
                token_fields[name][place] = value[shown]
        return Features(filled.tokens, filled.offsets, {"example": example.astype(np.int32)}, token_fields)

    def in_terms_of(self, labels, spec, examples):
        if not spec.labels:
            return examples
        places = match(labels, spec.labels, f"task {spec.name!r}")
        own = {spec.labels[place]: label for label, place in zip(labels, places, strict=True)}
        return [{**e, "tags": [own.get(tag, tag) for tag in e["tags"]]} if "tags" in e else e for e in examples]

    def labels(self, spec, examples):
        """Returns the task's tags; where the set is open (CCG), those of the examples, sorted."""
        return spec.labels or tuple(sorted({tag for example in examples for tag in example.get("tags", ())}))

    def collector(self, given):
        return Tags(given)

    def guesses(self, spec, examples):
        """Returns the most frequent tag for every word."""
        tag = base.most_frequent(tag for example in examples for tag in example["tags"])
        return [{example["id"]: [tag] * len(example["words"]) for example in examples}]

    def gold_in_words(self, batch, own, labels, tokenizer):
        first = np.isin(batch["segments"][0], 1 + np.flatnonzero(own))
        return " ".join(labels[tag] for tag in batch["tags"][0][first] if tag >= 0)

    def from_value(self, spec, value, example, where):
        fits = isinstance(value, list) and all(tag is None or isinstance(tag, str) for tag in value)
        if not fits or len(value) != len(example.get("words", value)):
            raise InputError(
                f"{where()}: expected a tag, or null, per word for {example['id']!r:.80}, got {value!r:.60}"
            )
        return value

    def lines(self, spec, value):
        """A word without a tag gets XTREME's placeholder: O where that is a tag, X for parts of speech."""
        empty = "O" if "O" in spec.labels else "X"
        return [*(empty if tag is None else tag for tag in value), ""]

    def read_lines(self, file, spec):
        """Returns lists of tags: a tag a line, a blank line after each sentence."""
        sentences: list[list[str]] = [[]]
        for number, tag in enumerate(files.lines_of(file), start=1):
            if not tag:
                sentences.append([])
                continue
            if spec.labels and tag not in spec.labels:
                raise InputError(f"{file}:{number}: unknown tag {tag!r:.60}; allowed: {', '.join(spec.labels)}")
            sentences[-1].append(tag)
        if not sentences[-1]:  # what follows the last blank line is a sentence only if there is something
            sentences.pop()
        return sentences

    def compare(self, spec, predictions, labels):
        found, gold = self.read_lines(predictions, spec), self.read_lines(labels, spec)
        if not gold:
            raise InputError(f"{labels}:1: the file is empty")
        lines = [1, 1]  # where the sentence begins in both files
        for number, (tags, right) in enumerate(zip(found, gold, strict=False), start=1):
            if len(tags) != len(right):
                raise InputError(
                    f"{predictions}:{lines[0]}: sentence {number} has {len(tags)} tags, but {len(right)} at "
                    f"{labels}:{lines[1]}"
                )
            lines = [lines[0] + len(tags) + 1, lines[1] + len(right) + 1]
        if len(found) != len(gold):
            raise InputError(f"{predictions}:{lines[0]}: {len(found)} sentences, but {len(gold)} in {labels}")
        examples = [{"id": str(row), "tags": tags} for row, tags in enumerate(gold)]
        return {str(row): tags for row, tags in enumerate(found)}, examples


def _tags(examples: Sequence[Mapping], labels: Sequence[str]) -> np.ndarray | None:
    """The label id of each word of all sentences, -1 for a tag that is no label; None without gold or labels."""
    if not labelled(examples, "tags") or not labels:
        return None
    for example in examples:
        if len(example["tags"]) != len(example["words"]):
            raise InputError(
                f"example {example['id']!r} has {len(example['words'])} words but {len(example['tags'])} tags"
            )
    ids = {label: number for number, label in enumerate(labels)}
    tags = itertools.chain.from_iterable(example["tags"] for example in examples)
    return np.fromiter((ids.get(tag, -1) for tag in tags), np.int64)


def _subwords(tokenizer, words: Sequence[str], longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns sub-words, int32 [M], and where those of each word begin, int64 [words + 1]: from 1 to `longest` each."""
    flat, offsets = encode(tokenizer, words)
    count = np.diff(offsets)
    odd = (count == 0) | (count > longest)
    unknown, zeros, one = constant(len(words), tokenizer.unk_token_id)
    flat, offsets, _ = join(((flat, offsets[:-1], np.where(odd, 0, count)), (unknown, zeros, np.where(odd, one, 0))))
    return flat, offsets


def _split(sentence_at: np.ndarray, word_at: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts sentences before each word that does not fit in `room` tokens any more.

    Returns the first word of each piece and its sentence, int64 [pieces]. No word has more than `room` tokens.
    """
    cuts = []
    pieces = np.ones(len(sentence_at) - 1, np.int64)
    for sentence in np.flatnonzero(np.diff(word_at[sentence_at]) > room).tolist():
        begin, end = sentence_at[sentence : sentence + 2].tolist()
        while word_at[end] - word_at[begin] > room:
            begin = int(np.searchsorted(word_at, word_at[begin] + room, side="right")) - 1
            cuts.append(begin)
            pieces[sentence] += 1
    first = np.sort(np.concatenate([sentence_at[:-1], np.array(cuts, np.int64)]))
    return first, np.repeat(np.arange(len(pieces)), pieces)


FORM = Tagging()
