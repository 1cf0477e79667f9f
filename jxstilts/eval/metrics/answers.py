"""What is wrong with answers to questions, whatever their F1: not in the context, in another script, none where asked.

Scripts are compared, not languages, since the script of every character is known. A model that answers in English where
the context is Arabic, Hindi or Chinese answers in another script. Between languages of one script, an answer in the
wrong language is not in the context.
"""

import functools
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from jxstilts.eval.metrics.base import State, SumMetric, ratio


class AnswerFaults(SumMetric):
    """Shares of questions, 0 to 100, lower is better.

    not_in_context: the answer is no piece of the context, white space aside. other_script: most letters of the answer
    are of scripts that the context does not have. empty: there is no answer, of questions that have one.
    false_answers: there is one, of questions that have none. Predictions are texts, or {"text", "no_answer"}.
    """

    name = "answer_faults"
    headline = ("not_in_context",)

    def update(self, predictions: Mapping[str, Any], examples: Sequence[dict]) -> State:
        """Judges {example id: answer} against span examples; an example without a prediction is empty."""
        return self._state(
            (example["id"], self._columns(predictions.get(example["id"]), example)) for example in examples
        )

    def _columns(self, prediction, example):
        if isinstance(prediction, Mapping):
            prediction = "" if prediction["no_answer"] > 0 else prediction["text"]
        said, answers = prediction or "", example.get("answers")
        none = answers is not None and not answers
        return {
            "not_in_context": _bare(said) not in _bare(example["context"]),
            "other_script": other_script(said, example["context"]),
            "empty": not said and not none,
            "false": bool(said) and none,
            "unanswerable": none,
        }

    def score(self, sums: Mapping[str, Any], n: int) -> dict[str, Any]:
        """Returns the shares; false_answers are of the questions without an answer, 0 where there are none."""
        answerable = n - sums["unanswerable"]
        return {
            "not_in_context": 100 * sums["not_in_context"] / n,
            "other_script": 100 * sums["other_script"] / n,
            "empty": 100 * ratio(sums["empty"], answerable),
            "false_answers": 100 * ratio(sums["false"], sums["unanswerable"]),
        }

    def major(self, values: Mapping[str, float]) -> float:
        """Returns 100 minus the share of answers that are not in the context: higher is better."""
        return 100 - values["not_in_context"]


def other_script(text: str, context: str) -> bool:
    """Returns whether most letters of a text are of scripts that another text does not have."""
    letters = [script(character) for character in text if character.isalpha()]
    known = {script(character) for character in set(context) if character.isalpha()}
    return sum(each not in known for each in letters) > len(letters) / 2


@functools.lru_cache(maxsize=4096)
def script(character: str) -> str:
    """Returns the script of a letter as its Unicode name begins: LATIN, CYRILLIC, CJK, HANGUL, ..."""
    return unicodedata.name(character, "UNKNOWN").partition(" ")[0]


def _bare(text: str) -> str:
    return "".join(text.split())
