"""Tags of words: accuracy, and F1 of the chunks that they mark, as the study's tagging tasks are scored."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jxstilts.eval.metrics.base import State, SumMetric, ratio
from jxstilts.runtime import InputError

ALL = "_all"  # ends the columns and the values that are over all words
MISSING = ""  # stands for the tags of a sentence that has no prediction


class TagAccuracy(SumMetric):
    """Share of words with the gold tag, over all sentences together. Value: "accuracy".

    Words that no prediction was made for (None: cut off an over-long sentence) are left out, as in the study's code.
    Where there are any, each value stands there again with "_all": over all words, those counted as wrong.
    """

    name = "tag_accuracy"

    def update(self, predictions: Mapping[str, Sequence[str | None]], examples: Sequence[dict]) -> State:
        """Scores {sentence id: a tag or None per word}; a sentence without a prediction counts as wrong in every word.

        Raises InputError for a sentence without gold tags or with another number of predictions than words.
        """
        pairs = [self._pair(predictions, example) for example in examples]
        columns = self._counts([gold for gold, _ in pairs], [found for _, found in pairs])
        if sum(len(gold) for gold, _ in pairs) < sum(len(example["tags"]) for example in examples):
            found = [predictions.get(example["id"]) or [None] * len(example["tags"]) for example in examples]
            found = [[MISSING if tag is None else tag for tag in tags] for tags in found]
            whole = self._counts([list(example["tags"]) for example in examples], found)
            columns = [
                own | {name + ALL: n for name, n in each.items()} for own, each in zip(columns, whole, strict=True)
            ]
        return self._state((example["id"], counts) for example, counts in zip(examples, columns, strict=True))

    def _pair(self, predictions, example) -> tuple[list[str], list[str]]:
        """Returns the gold and the predicted tags of the words that count."""
        if "tags" not in example:
            raise InputError(f"metric {self.name!r}: sentence {example['id']!r} has no gold tags, so nothing to score")
        gold = example["tags"]
        found = predictions.get(example["id"])
        if found is None:
            return list(gold), [MISSING] * len(gold)
        if len(found) != len(gold):
            raise InputError(
                f"metric {self.name!r}: sentence {example['id']!r} has {len(gold)} words, not {len(found)} as predicted"
            )
        kept = [(a, b) for a, b in zip(gold, found, strict=True) if b is not None]
        return [a for a, _ in kept], [b for _, b in kept]

    def _counts(self, gold: list[list[str]], found: list[list[str]]) -> list[dict[str, int]]:
        """Returns the columns of each sentence."""
        return [
            {"right": sum(map(str.__eq__, a, b)), "total": len(a)} for a, b in zip(gold, found, strict=True)
        ]  # fmt: skip

    def merge(self, a: State, b: State) -> State:
        """See `Metric.merge`; where only one of the two has words left out, the other's values are of all words."""
        whole = {name + ALL for name in (*a, *b) if name + ALL in (*a, *b)}
        full = [{name: state[name.removesuffix(ALL)] for name in whole} | state if state else state for state in (a, b)]
        return super().merge(*full)

    def score(self, sums: Mapping[str, Any], n: int) -> dict[str, Any]:
        """Returns the values, and where words are left out the values over all words."""
        whole = {name.removesuffix(ALL): total for name, total in sums.items() if name.endswith(ALL)}
        more = {name + ALL: value for name, value in self._values(whole).items()} if whole else {}
        return self._values(sums) | more

    def _values(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the share of right words; 0 when there is no word."""
        return {"accuracy": 100 * ratio(sums["right"], sums["total"])}


class Seqeval(TagAccuracy):
    """Chunk F1, precision and recall by the rules of seqeval 0.0.12 (lenient, as conlleval's), and accuracy over words.

    Values: "f1", "precision", "recall", "accuracy". XTREME's published values and the study's release use that version
    (protocol 3.5). The type of a chunk is what stands behind a tag's last "-"; the type of a tag without "-" (UPOS) is
    the whole tag. So parts of speech make chunks too: equal neighbours are one chunk, except tags that begin with S
    (SCONJ, SYM), of which each is one. seqeval 1.2.2 gives the same values for tags such as O, B-PER and I-PER; it
    differs for tags without prefix, whose first letter it cuts off, and for types that hold a "-" ("B-GPE-LOC").
    Each chunk is counted in the sentence in which it ends. One sequence of all sentences is scored, with an O after
    each, as seqeval does it: only for tags of the types "" and "O" ("I-", "X-O") does it matter what came before.
    """

    name = "seqeval"
    headline = ("f1",)

    def _counts(self, gold, found):
        columns = super()._counts(gold, found)
        kinds: dict[str, int] = {}
        there, first, kind = _chunks(gold, kinds)
        predicted, first_found, kind_found = _chunks(found, kinds)
        correct = there & predicted & (first == first_found) & (kind == kind_found)
        begins = np.cumsum([0, *(len(tags) + 1 for tags in gold)])[:-1]  # of the sentences
        for name, ends in (("correct", correct), ("predicted", predicted), ("gold", there)):
            for column, count in zip(columns, np.add.reduceat(ends, begins, dtype=np.int64).tolist(), strict=True):
                column[name] = count
        return columns

    def _values(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the micro-averaged values; 0 where nothing is predicted or there."""
        precision = ratio(sums["correct"], sums["predicted"])
        recall = ratio(sums["correct"], sums["gold"])
        return {
            "f1": 100 * ratio(2 * precision * recall, precision + recall),
            "precision": 100 * precision,
            "recall": 100 * recall,
            **super()._values(sums),
        }

    def major(self, values: Mapping[str, float]) -> float:
        """Returns the chunk F1."""
        return values["f1"]


def _chunks(sentences: list[list[str]], kinds: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the chunks of seqeval 0.0.12's `get_entities` in W words: of all sentences, and one O after each.

    Returns bool [W], "does a chunk end with this word?", and of the chunks that do the first word [W] and the type [W],
    a number that `kinds` gives it. The rules are written here because 0.0.12 no longer installs and later versions of
    seqeval have others.
    """
    flat = [tag or "O" for tags in sentences for tag in (*tags, "O")]
    known = {tag: number for number, tag in enumerate(dict.fromkeys(flat))}
    tags = np.fromiter((known[tag] for tag in flat), np.int64, len(flat))
    numbers = [kinds.setdefault(tag.rpartition("-")[2], len(kinds)) for tag in known]
    kind = np.array(numbers, np.int64)[tags]

    def begins(letters: str) -> np.ndarray:
        return np.array([tag[0] in letters for tag in known], bool)[tags]

    def before(letters: str) -> np.ndarray:
        return np.concatenate([["O" in letters], begins(letters)[:-1]])

    changed = kind != np.concatenate([[kinds.setdefault("", len(kinds))], kind[:-1]])
    starts = begins("BS") | (before("ESO") & begins("EI")) | (changed & ~begins("O."))
    ended = before("ES") | (before("BI") & begins("BSO")) | (changed & ~before("O."))  # with the word before this one
    first = np.maximum.accumulate(np.where(starts, np.arange(len(flat)), 0))
    return np.append(ended[1:], False), first, kind
