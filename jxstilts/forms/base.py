"""The contract of a form, with what most forms do alike."""

import abc
import collections
import copy
import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from jxstilts.config import setting
from jxstilts.data.features import Features, Field
from jxstilts.data.template import Template
from jxstilts.forms import checks, files
from jxstilts.runtime import InputError, atomic_write

LONG_SENTENCES = ("split", "truncate")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How examples become inputs, in training and in evaluation alike."""

    max_length: int = setting(
        0,
        "tokens of a row, special ones included; at most as many as the model reaches; 0 = as the protocol says",
        least=0,
    )
    doc_stride: int = setting(128, "span: tokens from the beginning of one window to that of the next", least=1)
    max_query_length: int = setting(64, "span: tokens of a question", least=1)
    long_sentences: str = setting(
        "", 'tagging: truncate (cut words get no tag) or split into several rows; "" = as the protocol says',
        allowed=LONG_SENTENCES,
    )  # fmt: skip
    query_length: int = setting(
        0, "embedding: tokens of a query; of a candidate: max_length; 0 = as the protocol or the recipe says", least=0
    )
    lower_case: bool = setting(False, "embedding: texts in lower case, as XTREME-R's release reads them for XLM-R")

    @property
    def reading(self) -> dict[str, Any]:
        """These fields alone, of an object that has more."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Reading)}


@dataclasses.dataclass(frozen=True)
class Given:
    """What a collector is handed.

    spec: the task. labels: of the head. options: of the evaluation (`eval.options.Options`), decided. layers: the
    hidden states that the head reads, where there are several. search: the exact neighbour search on the devices
    (`eval.ranking.Search`), for forms that compare vectors. pool: candidates -> their vectors [M, D], made once for
    all languages (`eval.pool`). tokenizer: for forms whose head says texts.
    """

    spec: Any
    examples: Any
    features: Features
    labels: tuple[str, ...]
    options: Any
    layers: tuple[int, ...] = ()
    search: Any = None
    pool: Callable[[Any], np.ndarray] | None = None
    tokenizer: Any = None


class Collector(abc.ABC):
    """Takes a head's arrays of one language's features, one by one in any order, and makes predictions of them."""

    def __init__(self, given: Given):
        self.given = given
        self.prepare()

    @abc.abstractmethod
    def prepare(self) -> None:
        """Makes room for what is to come."""

    @abc.abstractmethod
    def add(self, index: int, array: np.ndarray) -> None:
        """Takes the array of feature `index`: that of its segment, or [T, ...] of its own tokens (`Form.per_token`)."""

    @abc.abstractmethod
    def finish(self) -> Any:
        """Returns the predictions as the task's metric takes them."""

    def examples(self) -> Any:
        """Returns the examples that the predictions are of: all, but where `Options.max_features` counts features."""
        return self.given.examples

    def notes(self) -> dict[str, Any]:
        """Returns what has to stand beside the values, as JSON: {} where there is nothing to say."""
        return {}

    def beside(self) -> Mapping[str, tuple[str, Any, Any]]:
        """Returns {name: (metric, predictions, examples)} that are scored, too, for the notes; "": the task's own."""
        return {}

    def by_layer(self) -> Mapping[int, Any]:
        """Returns {hidden state: predictions} where several were asked for."""
        return {}


class Form(abc.ABC):
    """What a kind of problem decides. An example is a dict with an "id"; `gold` is absent, not None, without gold.

    name: also that of the module, and of the type of its heads. fields: what a batch has beside tokens, segments and
    positions. output, per_token: the array of the head's `predict` that a collector takes, one for each segment or one
    for each token. typical: (mean tokens of an input, inputs of a question) where nothing better is known, for plans.
    """

    name: ClassVar[str]
    keys: ClassVar[Mapping[str, tuple[type, ...]]] = {}  # of an example, beside "id" and its gold, and their types
    gold: ClassVar[str] = ""  # the key of an example that holds what is right
    replaceable: ClassVar[tuple[str, ...]] = ()  # keys of texts whose words may change without a change of the gold
    fields: ClassVar[tuple[Field, ...]] = ()
    output: ClassVar[str] = "logits"
    per_token: ClassVar[bool] = False
    typical: ClassVar[tuple[float, int]] = (0.0, 1)
    scored: ClassVar[bool] = True  # is there an evaluation?
    has_head: ClassVar[bool] = True  # is a head trained for it?
    labelled: ClassVar[bool] = False  # does a head predict one of its labels?
    shared_head: ClassVar[str] = ""  # the head of all its tasks, where they share one
    alone: ClassVar[bool] = False  # does an evaluation's row hold one input, of those of like lengths?
    running_text: ClassVar[bool] = False  # raw text: other lines may share a feature, languages are sampled
    counts_features: ClassVar[bool] = False  # does `Options.max_features` count features, not examples?
    once: ClassVar[bool] = False  # are equal inputs of several languages encoded once?
    reads_plain: ClassVar[bool] = False  # without its head, is a plain encoder read as retrieval reads it?
    in_batch: ClassVar[bool] = (
        False  # are the examples of a batch compared? Then it is random, and a row has one of them
    )
    as_text: ClassVar[bool] = False  # is an example written, and what is said read, by a task's text form?
    suffix: ClassVar[str] = ".json"  # of a benchmark's file; other tasks have JSON objects
    rows: ClassVar[str] = ""  # what a row of a program's own is, in words; "": there are none
    # What makes a dict with scores of each example, and the array that it takes ("" = `output`). A form that is derived
    # from another and predicts something else has to say it anew.
    scores: ClassVar[type[Collector] | None] = None
    scores_output: ClassVar[str] = ""

    def of(self, spec: Any) -> "Form":
        """Returns the form of a task's examples: itself, where all tasks have the same."""
        return self

    # Examples

    def check(self, spec: Any, examples: Any) -> None:
        """Raises InputError, naming the example, unless examples are of this form and of the task, each id once."""
        if isinstance(examples, str | Mapping) or not isinstance(examples, Sequence):
            raise InputError(f"task {spec.name!r}: expected a list of examples, got {examples!r:.60}")
        seen: set[str] = set()
        for place, example in enumerate(examples):
            where = f"task {spec.name!r}, example {place}"
            checks.check_example(example, self.keys, seen, where)
            if self.gold in example:
                self.check_gold(spec, example, where)

    def check_gold(self, spec: Any, example: Mapping, where: str) -> None:  # noqa: B027  (raw text has none)
        """Raises InputError, beginning with `where`, unless the example's gold is one that the task can have."""

    # Rows of a program's own

    def example(self, row: Any) -> dict[str, Any]:
        """Returns what a row (`rows`) says as an example, without an id, its gold as the row has it.

        Raises InputError that begins with "it" or a key, for a row of another shape.
        """
        raise InputError(f"the form {self.name!r} takes no rows of a program's own")

    def named(self, gold: Any) -> Iterable[Any]:
        """Returns the labels that an example's gold names, as `example` gives it."""
        return ()

    def as_gold(self, gold: Any, labels: Sequence[str]) -> Any:
        """Returns gold as an example of a task with these labels has it. Raises InputError for an unknown label."""
        return gold

    def own_task(self, examples: Sequence[Mapping]) -> dict[str, Any]:
        """Returns the fields of a TaskSpec for rows of a program's own: the metric, and what the examples show."""
        return {"metric": "accuracy"}

    @property
    def has_scores(self) -> bool:
        """Are there predictions with scores?"""
        return "scores" in vars(type(self))

    @property
    def takes_rows(self) -> bool:
        """Are there rows of a program's own, with gold to train on and predictions with scores?"""
        return bool(self.rows) and self.has_scores

    def detailed(self) -> "Form":
        """Returns the form whose collector gives a dict for each example, in order: the prediction, with scores.

        Raises InputError where the form has none.
        """
        if not self.has_scores:
            raise InputError(f"the form {self.name!r} has no predictions with scores")
        form = copy.copy(self)
        form.collector, form.output = self.scores, self.scores_output or self.output
        return form

    # Inputs

    def parts(self, examples: Any) -> list[list[dict]]:
        """Returns the lists of examples that are tokenised one after the other, each for itself."""
        return [examples]

    @abc.abstractmethod
    def tokenize(
        self,
        examples: Sequence[Mapping],
        tokenizer: Any,
        template: Template,
        reading: Reading,
        labels: Sequence[str] = (),
    ) -> Features:
        """Returns the features of examples. Raises InputError for an example or a length that cannot be."""

    def further(self, examples: Any, tokenizer: Any, template: Template, reading: Reading) -> Iterable[Features]:
        """Yields the features of what else is read when examples are evaluated: a pool that they share."""
        return ()

    def some(self, examples: Any, count: int) -> Any:
        """Returns the first examples."""
        return examples[:count]

    def options(self, reading: Reading) -> dict[str, Any]:
        """Returns what of a reading decides the features, as JSON: a part of the cache's key."""
        return {"max_length": reading.max_length}

    def batch_fields(self, template: Template, labelled: bool = True) -> tuple[Field, ...]:
        """Returns the fields of a batch: the form's, with gold or without, and those that the model reads."""
        return template.fields + tuple(field for field in self.fields if labelled or not field.gold)

    def room(self, reading: Reading) -> tuple[int, int]:
        """Returns how many tokens of a further text go beside a row of how many (`data.features.Texts`)."""
        return 1, 1

    @property
    def grouped(self) -> bool:
        """Do several features make one question, and stand in one row?"""
        return any(field.kind == "group" for field in self.fields)

    # Head and labels

    def head_class(self) -> type:
        """Returns the class of the form's heads (`models.heads.HeadBase`)."""
        return importlib.import_module(f"jxstilts.models.heads.{self.name}").Head

    @property
    def head_type(self) -> str:
        """The type of the form's heads."""
        return self.name

    def head_spec(self, name: str, labels: Sequence[str], stream: Any) -> Any:
        """Returns the HeadSpec of a head that a stream (`train.mixture.Stream`, resolved) trains."""
        from jxstilts.models.heads import HeadSpec  # JAX, which files of predictions do without

        return HeadSpec(name, self.head_type, tuple(labels), stream.pooling, aggregation=stream.aggregation)

    def kept_head(self, head: Any, stream: Any) -> Any:
        """Returns the HeadSpec of a starting point's head that a stream goes on to train."""
        return head

    def reader(self, options: Any, layers: Sequence[int], recipe: Any) -> Any:
        """Returns the HeadSpec by which a form without a trained head reads a model.

        layers: the hidden states. recipe: the model's own, where it counts.
        """
        raise InputError(f"the form {self.name!r} reads a trained head")

    def asked(self, head: Any, options: Any) -> Any:
        """Returns the HeadSpec of a trained head as an evaluation with these options (decided) reads it."""
        return head

    def labels(self, spec: Any, examples: Iterable[Mapping]) -> tuple[str, ...]:
        """Returns the class names: the task's, or where its set is open those of the examples."""
        return spec.labels

    def in_terms_of(self, labels: Sequence[str], spec: Any, examples: list[dict]) -> list[dict]:
        """Returns labelled examples with gold as a head with these labels has it, not as the task has it."""
        return examples

    # Predictions and what they are compared with

    @abc.abstractmethod
    def collector(self, given: Given) -> Collector:
        """Returns what makes predictions of a head's arrays."""

    def count(self, examples: Any) -> int:
        """Returns how many predictions are asked for."""
        return len(examples)

    def has_gold(self, examples: Any) -> bool:
        """Returns whether there is anything to score."""
        return any(self.gold in example for example in examples)

    def by_id(self, predictions: Any, examples: Any) -> Any:
        """Returns predictions as a `Result` keeps them: by example id. A list is one for each example, in order."""
        if not isinstance(predictions, list):
            return predictions
        return dict(zip((example["id"] for example in examples), predictions, strict=True))

    def baseline(self, spec: Any, metric: Any, examples: Any) -> dict[str, float] | None:
        """Returns {value name: 0-100} of a trivial rule by the task's metric: the best of `guesses`; None: none."""
        scored = [metric.compute(metric.update(guess, examples)) for guess in self.guesses(spec, examples)]
        return max(scored, key=metric.major, default=None)

    def guesses(self, spec: Any, examples: Any) -> list[Any]:
        """Returns the predictions of trivial rules."""
        return []

    def gold_in_words(self, batch: Mapping[str, np.ndarray], own: np.ndarray, labels: Sequence[str], tokenizer) -> str:
        """Returns what is right in the first example of a batch; own bool [S]: its segments of the first row."""
        return ""

    # Files of predictions: of a benchmark's tasks in its layout (`official`), of others JSON objects by example id

    def to_value(self, spec: Any, prediction: Any) -> Any:
        """Returns a prediction, or the gold, as a file holds it: JSON."""
        return prediction

    def from_value(self, spec: Any, value: Any, example: Mapping, where: Callable[[], str]) -> Any:
        """Returns the prediction that `to_value` made a value of. Raises InputError with `where()`: file:line."""
        return value

    def lines(self, spec: Any, value: Any) -> list[str]:
        """Returns the lines that a benchmark's .tsv file has for one value."""
        return [value]

    def read_lines(self, file: pathlib.Path, spec: Any) -> list[Any]:
        """Returns the values of a benchmark's .tsv file. Raises InputError with file:line."""
        raise InputError(f"{file}: the form {self.name!r} has no such files")

    def write(self, file: pathlib.Path, spec: Any, examples: Any, predictions: Any, threshold: float | None) -> None:
        """Writes predictions; see `eval.submission.write`."""
        examples = files.predicted(examples, predictions, file)
        values = {each["id"]: self.to_value(spec, predictions[each["id"]]) for each in examples}
        atomic_write(file, self._text(spec, values, file))

    def write_labels(self, file: pathlib.Path, spec: Any, examples: Any) -> None:
        """Writes gold; see `eval.submission.write_labels`."""
        missing = [example["id"] for example in examples if self.gold not in example]
        if missing:
            raise InputError(f"{file}: example {missing[0]!r} has no gold {self.gold}")
        values = {example["id"]: self.to_value(spec, example[self.gold]) for example in examples}
        atomic_write(file, self._text(spec, values, file))

    def _text(self, spec: Any, values: Mapping[str, Any], file: pathlib.Path) -> str | bytes:
        if file.suffix == ".json":
            return files.json_bytes(values)
        return "".join(f"{line}\n" for value in values.values() for line in self.lines(spec, value))

    def read(self, file: pathlib.Path, spec: Any, examples: Any) -> Any:
        """Returns predictions; see `eval.submission.read`."""
        if file.suffix == ".json":
            by_id = {example["id"]: example for example in examples}
            values = files.read_object(file)
            unknown = values.keys() - by_id.keys()
            if unknown:
                raise InputError(f"{files.line_of(file, min(unknown))}: {min(unknown)!r:.80} is the id of no example")
            return {
                key: self.from_value(spec, value, by_id[key], lambda key=key: files.line_of(file, key))
                for key, value in values.items()
            }
        rows = self.read_lines(file, spec)
        if len(rows) > len(examples):
            files.check_length(file, rows, len(examples), "examples")
        pairs = zip(examples, rows, strict=False)
        return {example["id"]: self.from_value(spec, row, example, lambda: str(file)) for example, row in pairs}

    def compare(self, spec: Any, predictions: pathlib.Path, labels: pathlib.Path) -> tuple[Any, Any]:
        """Returns (predictions, examples with gold) of two files of a benchmark, as the metric takes them.

        Raises InputError, with file and line, for what does not belong together.
        """
        found, gold = self.read_lines(predictions, spec), self.read_lines(labels, spec)
        if not gold:
            raise InputError(f"{labels}:1: the file is empty")
        files.check_length(predictions, found, len(gold), f"lines of {labels}")
        return self.compared(spec, found, gold)

    def compared(self, spec: Any, found: list[Any], gold: list[Any]) -> tuple[Any, Any]:
        """Returns (predictions, examples with gold) of the values of two files of as many lines."""
        raise InputError(f"the form {self.name!r} has no files of a benchmark")


def most_frequent(items: Iterable) -> Any:
    """Returns the most frequent item, of equals the one that sorts first; None if there is none."""
    counts = collections.Counter(items)
    return min(counts, key=lambda item: (-counts[item], item), default=None)


def most_frequent_label(examples: Sequence[Mapping]) -> list[int]:
    """Returns the most frequent label, or place of the right choice, once for each example."""
    return [most_frequent(example["label"] for example in examples)] * len(examples)


def kept(length_a: np.ndarray, length_b: np.ndarray, room: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens of two texts are left when the longer one loses tokens, one by one, the first of equals.

    Takes and returns int64 [N]; the texts together have at most `room` tokens in the end (jiant's rule).
    """
    kept_a = np.minimum(length_a, np.maximum(room // 2, room - length_b))
    return kept_a, np.minimum(length_b, room - kept_a)


def check_room(reading: Reading, specials: int, least: int, what: str) -> int:
    """Returns the tokens that are left for text. Raises InputError where there are fewer than `least`."""
    room = reading.max_length - specials
    if room < least:
        raise InputError(
            f"max_length {reading.max_length} leaves no room for {what} and {specials} special tokens: give at least "
            f"{specials + least}"
        )
    return room
