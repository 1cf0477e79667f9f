"""F1 and exact match of answer spans, by SQuAD v1.1's rules and by MLQA's."""

import abc
import collections
import re
import string
import unicodedata
from collections.abc import Mapping, Sequence

from jxstilts.eval.metrics.base import State, SumMetric
from jxstilts.runtime import InputError, suggest

ASCII_PUNCTUATION = frozenset(string.punctuation)

# What MLQA's official evaluation takes for articles. They are whole words, but for Arabic, where every occurrence of
# the letters goes, also inside a word.
MLQA_ARTICLES = {
    "en": r"\b(?:a|an|the)\b",
    "es": r"\b(?:un|una|unos|unas|el|la|los|las)\b",
    "de": r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "vi": r"\b(?:của|là|cái|chiếc|những)\b",
    "ar": "ال",
    "hi": None,
    "zh": None,
}
HAN_OR_WORD = re.compile(r"[\u4e00-\u9fa5]|[^\s\u4e00-\u9fa5]+")


class _Span(SumMetric):
    """Token F1 and exact match, the best over the gold answers. Values: "f1" and "exact_match"."""

    headline = ("f1", "exact_match")

    @abc.abstractmethod
    def words(self, text: str) -> list[str]:
        """Returns the words of an answer that are compared."""

    def update(self, predictions: Mapping[str, str], examples: Sequence[dict]) -> State:
        """Scores {example id: answer text} against span examples; an example without a prediction scores 0.

        Raises InputError for an example without gold answers.
        """
        return self._state([(example["id"], self._score(predictions, example)) for example in examples])

    def _score(self, predictions, example):
        answers = example.get("answers")
        if not answers:
            raise InputError(
                f"metric {self.name!r}: question {example['id']!r} has no gold answer, so nothing to score"
            )
        prediction = predictions.get(example["id"])
        if prediction is None:
            return {"f1": 0.0, "exact_match": 0.0}
        if not isinstance(prediction, str):
            raise InputError(
                f"metric {self.name!r}: the prediction for {example['id']!r} is {prediction!r}, expected a text"
            )
        found = self.words(prediction)
        golds = [self.words(answer["text"]) for answer in answers]
        return {"f1": max(token_f1(found, gold) for gold in golds), "exact_match": float(found in golds)}

    def major(self, values: Mapping[str, float]) -> float:
        """Returns the mean of F1 and exact match."""
        return (values["f1"] + values["exact_match"]) / 2


def token_f1(found: Sequence[str], gold: Sequence[str]) -> float:
    """Returns the F1 of two lists of words, 0 to 1, in which a word counts as often as it is there."""
    # two answers without any word score 0, as in the official scripts, though they match exactly
    common = (collections.Counter(found) & collections.Counter(gold)).total()
    return 2 * common / (len(found) + len(gold)) if common else 0.0


def _without_punctuation(text, is_punctuation):
    return "".join(character for character in text if not is_punctuation(character))


def _is_punctuation(character):
    return character in ASCII_PUNCTUATION or unicodedata.category(character).startswith("P")


class Squad(_Span):
    """SQuAD v1.1's rules, for every language: lower case, no ASCII punctuation, no English articles, white space."""

    name = "squad"

    def words(self, text: str) -> list[str]:
        """Returns the words of an answer that are compared."""
        bare = _without_punctuation(text.lower(), ASCII_PUNCTUATION.__contains__)
        return re.sub(MLQA_ARTICLES["en"], " ", bare).split()


class Mlqa(_Span):
    """MLQA's rules for the language of the context, which is the language of the answers.

    Lower case; no Unicode or ASCII punctuation; none of the language's articles; Chinese split into characters
    (U+4E00 to U+9FA5), all else at white space.
    """

    name = "mlqa"

    def __init__(self, language: str = "en"):
        super().__init__(language)
        self._context = language.partition("-")[0]
        if self._context not in MLQA_ARTICLES:
            raise InputError(suggest("language of metric 'mlqa'", self._context, MLQA_ARTICLES))

    def words(self, text: str) -> list[str]:
        """Returns the words of an answer that are compared."""
        text = _without_punctuation(text.lower(), _is_punctuation)
        articles = MLQA_ARTICLES[self._context]
        if articles:
            text = re.sub(articles, " ", text)
        return HAN_OR_WORD.findall(text) if self._context == "zh" else text.split()
