"""Rows of a program's own, and its own metric, as a task."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jxstilts import forms, tasks
from jxstilts.eval import metrics
from jxstilts.eval.metrics import Metric
from jxstilts.forms.texts import OURS, Plain
from jxstilts.runtime import InputError, shown_list
from jxstilts.tasks import TaskSpec

TASK = "rows"  # the name of such a task, in messages and in what a folder records


def examples(
    form: forms.Form, rows: Iterable[Any], name: str, *, columns: Mapping[str, str] | None = None, gold: bool = False
) -> list[dict[str, Any]]:
    """Returns rows as a form's examples, their gold as the rows have it (see `with_gold`).

    Args:
        rows: a list or anything else that can be iterated over, such as a `datasets.Dataset`; see `forms.Form.rows`.
        name: of the rows, for messages.
        columns: {the form's key: the rows' own name for it}, of rows that are dicts.
        gold: every row needs it. Without it gold is kept where rows have it.
    Raises InputError that names the row, counted from 0, and says what is allowed.
    """
    if not form.rows:
        raise InputError(f"the form {form.name!r} takes no rows of a program's own as {name}; see docs/python.md")
    if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
        raise InputError(f"{name}: expected a list of rows, got {rows!r:.60}; a row is {form.rows}")
    found = []
    for place, row in enumerate(rows):
        try:
            example = form.example(_renamed(row, columns or {}))
            if gold and form.gold not in example:
                has = f", only {shown_list(map(str, row))}" if isinstance(row, Mapping) else ""
                raise InputError(f"it has no {form.gold!r}{has}")
        except InputError as error:
            raise InputError(f"{name}, row {place}: {error}. A row is {form.rows}") from error
        own = row.get("id") if isinstance(row, Mapping) else None
        found.append({"id": own if isinstance(own, str) else str(place), **example})
    return found


def _renamed(row: Any, columns: Mapping[str, str]) -> Any:
    if not columns or not isinstance(row, Mapping):
        return row
    missing = [name for name in columns.values() if name not in row]
    if missing:
        raise InputError(f"it has no {missing[0]!r} (columns), only {shown_list(map(str, row))}")
    return {**row, **{own: row[name] for own, name in columns.items()}}


def labels_of(form: forms.Form, found: Iterable[Mapping], name: str) -> tuple[str, ...]:
    """Returns the names of the labels that examples have as gold, sorted; () of a form that has none."""
    named: set[str] = set()
    for place, example in enumerate(found):
        for label in form.named(example[form.gold]):
            if not isinstance(label, str):
                raise InputError(
                    f"{name}, row {place}: the label {label!r:.60} is no name; give labels=(...), the names in the "
                    "order of such numbers"
                )
            named.add(label)
    return tuple(sorted(named))


def with_gold(form: forms.Form, found: Iterable[dict], labels: Sequence[str], name: str) -> list[dict[str, Any]]:
    """Returns examples with gold as a task with these labels has it. Raises InputError that names the row."""
    made = []
    for place, example in enumerate(found):
        try:
            gold = {form.gold: form.as_gold(example[form.gold], labels)} if form.gold in example else {}
        except InputError as error:
            raise InputError(f"{name}, row {place}: {error}") from error
        made.append({**example, **gold})
    return made


def task(form: forms.Form, labels: Sequence[str], found: Sequence[Mapping], metric: Any, **fields: Any) -> TaskSpec:
    """Returns the task of such rows.

    metric: the name of one, a Metric, or a function (see `Function`); None = the form's. fields: of the TaskSpec.
    """
    basic = {
        "languages": ("en",), "splits": {}, "read": None, "description": "rows of a program's own", "url": "",
        "licence": "",
    }  # fmt: skip
    fields = {**basic, **form.own_task(found), "labels": tuple(labels), **fields}
    if isinstance(metric, type) and issubclass(metric, Metric):
        metric = metric()
    if callable(metric):
        metric = Function(metric, TaskSpec(name=TASK, type=form.name, **fields))
    elif metric is not None:
        if not isinstance(metric, str | Metric):
            raise InputError(f"metric={metric!r:.60}: expected a name, a Metric or a function of predictions and gold")
        metrics.get(metric)  # raises where nothing is named so
    return TaskSpec(name=TASK, type=form.name, **fields | ({} if metric is None else {"metric": metric}))


def text_task(name: str | None, length: int) -> TaskSpec:
    """Returns the task NAME_text, of which the name may be given without its end; None: a text as it stands.

    length: tokens of what is said then. Raises InputError for an unknown task, and one without a text form.
    """
    if name is None:
        plain = task(forms.get("text"), (), (), None)
        return dataclasses.replace(plain, type="text_to_text", text=Plain(length, OURS), origin=plain)
    found = tasks.get(name)
    if found.text is None:
        raise InputError(f"task={name!r}: the task has no text form (docs/mt5.md)")
    return found if found.origin is not None else tasks.get(f"{name}{tasks.AS_TEXT}")


class Function(Metric):
    """A function of predictions and gold as a metric, with no interval.

    function(predictions, gold) -> a number, or {name: number}. Both are lists in the order of the rows: the names of
    labels, places of choices, lists of tags (None where a word was cut off), or answers beside lists of gold answers.
    """

    name = "function"

    def __init__(self, function: Callable[[list, list], Any], spec: TaskSpec):
        super().__init__()
        self.function, self.spec = function, spec
        self.title = getattr(function, "__name__", "value").strip("<>")

    def update(self, predictions: Any, examples: Any) -> dict[str, dict]:
        spec = self.spec
        by_id = spec.form.by_id(predictions, examples)
        pairs = {}
        for example in examples:
            gold = example[spec.form.gold]
            pairs[example["id"]] = [spec.form.to_value(spec, value) for value in (by_id[example["id"]], gold)]
        return {self.title: pairs}

    def compute(self, state: dict[str, dict]) -> dict[str, float]:
        """Raises InputError where the function gives no number."""
        found, gold = map(list, zip(*state[self.title].values(), strict=True))
        value = self.function(found, gold)
        values = value if isinstance(value, Mapping) else {self.title: value}
        try:
            numbers = {str(name): float(number) for name, number in values.items()}
        except (TypeError, ValueError) as error:
            raise InputError(f"metric {self.title}: it gave {value!r:.60}; expected a number or a dict") from error
        if not numbers:
            raise InputError(f"metric {self.title}: it gave no value")
        return numbers

    def interval(self, state: Any) -> dict[str, tuple[float, float]]:
        return {}

    def major(self, values: Mapping[str, float]) -> float:
        """Returns the first value."""
        return next(iter(values.values()))


@contextlib.contextmanager
def plainly(*prefixes: str) -> Iterator[None]:
    """Takes the config's paths out of messages: a program gives `batch_size`, not a key of a config."""
    try:
        yield
    except InputError as error:
        text = str(error)
        for prefix in prefixes:
            text = text.replace(prefix, "")
        if text == str(error):
            raise
        raise InputError(text) from error
