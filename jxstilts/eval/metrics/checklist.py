"""MultiCheckList: a case of a test passes only if all its examples are answered right."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jxstilts.eval.metrics.base import State, SumMetric, ratio
from jxstilts.runtime import InputError

# What the release takes for articles (or, as in Wolof, for what may stand there) at the places where they may stand.
# They are replaced by a blank; then marks and blanks at both ends go. Upper and lower case count.
WORDS = {
    "de": "ein eine einen", "el": "Ο ένα μια", "en": "a an the in at", "es": "un una unos unas el la los las",
    "eu": "bat", "fa": "یک", "fr": "un une le la en", "hu": "egy", "it": "un una", "nl": "een", "pt": "um uma",
    "tl": "Si", "tr": "bir", "vi": "một", "wo": "dafa", "yo": "kan",
}  # fmt: skip
BEGINNINGS = {
    "bn": "একটি একজন", "hi": "एक", "ml": "ഒരു", "mr": "एक", "my": "တစ်ဦး", "pa": "ਇੱਕ ਇਕ", "ta": "ஒரு",
}  # fmt: skip
OTHER = {"af": r"(?:’n)\b", "ar": r"\sال^|ال"}
MARKS = {"bn": "৷", "hi": "৷", "pa": "।", "pl": "„”", "ur": "\u200f"}
ALL = ",. "


def clean(text: str, language: str) -> str:
    """Returns an answer as it is compared (XTREME-R's release, multichecklist)."""
    pattern = OTHER.get(language)
    if language in WORDS:
        pattern = rf"\b(?:{'|'.join(WORDS[language].split())})\b"
    elif language in BEGINNINGS:
        pattern = rf"\b(?:{'|'.join(BEGINNINGS[language].split())})"
    text = re.sub(pattern, " ", text) if pattern else text
    return text.strip(ALL + MARKS.get(language, ""))


class MultiCheckList(SumMetric):
    """Share of cases that pass, the mean over the tests: "passed". "error_TEST": the share that fails, of each test.

    "examples_right" is the share of examples that are answered right, which is of this package: it tells models apart
    of which no case passes. The unit is a case; the id of an example is TEST/CASE/EXAMPLE.
    """

    name = "multichecklist"
    headline = ("passed",)

    def update(self, predictions: Mapping[str, str], examples: Sequence[dict]) -> State:
        """Scores {example id: answer text} against span examples; one without an answer fails its case."""
        rights: dict[str, list[bool]] = {}
        for example in examples:
            case, _, _ = example["id"].rpartition("/")
            if not case or not example.get("answers"):
                raise InputError(f"metric {self.name!r}: {example['id']!r} is no example of a case, with its answer")
            found = predictions.get(example["id"])
            right = found is not None and self._alike(found, example["answers"][0]["text"])
            rights.setdefault(case, []).append(right)
        tests = list(dict.fromkeys(case.partition("/")[0] for case in rights))
        return self._state((case, self._columns(case.partition("/")[0], own, tests)) for case, own in rights.items())

    def _alike(self, found: str, gold: str) -> bool:
        return clean(found, self.language) == clean(gold, self.language)

    @staticmethod
    def _columns(own: str, rights: Sequence[bool], tests: Sequence[str]) -> dict[str, float]:
        """Two columns a test: is the case of it, and did it fail? And its examples, and those that are right."""
        columns = {"examples": float(len(rights)), "right": float(sum(rights))}
        for test in tests:
            columns[f"cases_{test}"] = float(test == own)
            columns[f"failed_{test}"] = float(test == own and not all(rights))
        return columns

    def score(self, sums: Mapping[str, Any], n: Any) -> dict[str, Any]:
        """Returns the values; of draws in which a test has no case, its error is 0."""
        tests = [name.removeprefix("cases_") for name in sums if name.startswith("cases_")]
        errors = {f"error_{test}": 100 * ratio(sums[f"failed_{test}"], sums[f"cases_{test}"]) for test in tests}
        right = 100 * ratio(sums["right"], sums["examples"])
        return {"passed": 100 - np.mean(list(errors.values()), axis=0), **errors, "examples_right": right}

    def major(self, values: Mapping[str, float]) -> float:
        """Returns the share of cases that pass."""
        return values["passed"]
