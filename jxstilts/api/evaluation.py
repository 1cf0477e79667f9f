"""Evaluation of a model on rows of a program's own, by a metric of its own."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from jxstilts.api import own
from jxstilts.api.ready import Ready, form_of, whole_sentences
from jxstilts.eval.evaluator import Result
from jxstilts.runtime import InputError


def evaluate(
    model: Ready, rows: Iterable[Any], metric: Any = None, *, head: str | None = None, language: str = "en",
    columns: Mapping[str, str] | None = None, **options: Any,
) -> Result:  # fmt: skip
    """Scores a model on rows with gold.

    Args:
        rows: as `Ready.predict` takes them, with gold: "label", "tags" or "answers". Labels are matched by name.
        metric: None = the form's: accuracy, seqeval (F1 of named entities), squad. The name of another; a
            `jxstilts.eval.metrics.Metric`; or a function of predictions and gold, which gives a number or a dict: both
            are lists of label names, of lists of tags, of places of choices, or of answers and of lists of gold answers
            ({"text", "start"}).
        head: the name of one; needed where several could be meant.
        language: whose rules the metric takes.
        options: fields of `eval.evaluator.Options`.
    Returns: metrics {name: 0-100}, their 95 % intervals, a trivial rule's values (baseline), predictions by id: the
        row's own "id" where it is a text, else its place.
    Raises InputError that names the row, or the option.
    """
    spec = model.head(head)
    form = form_of(spec)
    found = own.examples(form, rows, "rows", columns=columns, gold=True)
    if not found:
        raise InputError("rows: there are none to score")
    task = own.task(form, spec.labels, found, metric, languages=(language,))
    found = own.with_gold(form, found, spec.labels, "rows")
    with own.plainly(f"task {own.TASK!r}, "):
        evaluator = model.evaluator(**whole_sentences(options))
        result = evaluator.evaluate(task, found, head=spec.name, language=language)
    predictions = {name: form.to_value(task, value) for name, value in result.predictions.items()}
    return dataclasses.replace(result, predictions=predictions)
