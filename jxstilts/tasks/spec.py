"""What a task is: `TaskSpec`, with how it is trained and where TFDS holds it."""

import dataclasses
import itertools
import pathlib
import string
from collections.abc import Callable, Mapping
from typing import Any

from jxstilts import forms
from jxstilts.forms.texts import TextForm
from jxstilts.runtime import InputError, suggest
from jxstilts.tasks.languages import LANGUAGES


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a task is trained. The defaults of the optimizer are the study's for every task.

    batch_size: examples per update. max_length: tokens. epochs: passes over the training data. source: in words.
    warmup: share of the steps, or from 1 up their number. Of queries and candidates (`forms.embedding`):
    query_length, tokens of a query; negatives, candidates that a query is compared with in its softmax, the right one
    among them.
    """

    batch_size: int
    max_length: int
    epochs: int
    source: str
    learning_rate: float = 1e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    query_length: int = 0
    negatives: int = 0


@dataclasses.dataclass(frozen=True)
class Tfds:
    """Where TensorFlow Datasets holds the same examples.

    names: data sets in order of preference, such as "xquad/{language}"; the first one that is prepared is read. With
      `union` all of them are, one after the other, and an id begins with its config: "r1/...".
    splits: our split -> its split; both may hold {language}.
    convert: (rows, language) -> what `TaskSpec.read` returns; a row holds str, int, list and dict only, and class
      labels by their names (None where there is no label).
    languages: the languages it has.
    module: what has to be imported before TFDS knows a data set of the older kind by its name (to prepare it only).
    """

    names: tuple[str, ...]
    splits: Mapping[str, str]
    convert: Callable[[list[dict], str], Any]
    languages: tuple[str, ...]
    module: str = "tensorflow_datasets"
    union: bool = False


def language_only(language: str) -> dict[str, tuple[str, ...]]:
    """Returns the pattern field that most tasks need: the language itself."""
    return {"language": (language,)}


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """One data set with one metric.

    type: the name of its form (`jxstilts.forms`), which decides what an example is, the head, files of predictions.
    languages: codes as XTREME writes them, "en" first where it is there.
    more_languages: further ones that can be read when asked for by name (MLQA's mixed pairs, Tatoeba's other pairs).
    splits: split -> file patterns relative to `data_dir`. The first file that is there is read; with `union` all are.
      A pattern with a "*" is all files that match it, in the order of their names.
    read: (path) -> the examples of one file; raises InputError. None for a task made of `parts`.
    multilingual: a file may hold several languages, so `read` is called with (path, language).
    fields: language -> values of each pattern field; a pattern is filled with each (with none: it is left out).
    parallel: an example's id means the same item in every language: a translation of it.
    labels: class names; the index is the class id. () for type "tagging": those of the training examples.
    metric: name in `jxstilts.eval.metrics`, or a `Metric` of a program's own; None where nothing is scored.
    train_task: the English task that a target is trained on; its own name where it has training data.
    sizes: split -> rows of the official English release, where a source for the number is known.
    tokens: mean of an input (of a question with all its choices), for plans; 0: as its form says. By XLM-R's tokenizer
      on the first 1,000 English training rows; PAWS-X: dev rows; SQuAD: the English XQuAD; CCG: the English UD.
    choices: of a question; 0: as its form says.
    recipe: how the study trains on it; None where nothing is trained.
    unanswerable: span, some questions have no answer in their context ("answers": []).
    one_right: embedding, a query has one right candidate.
    paired: its languages "a-b" are put together of both languages' own data (`tasks.pairs`).
    companions: (file that a pattern names) -> the other files that belong to it; where it gives none, the data is not
      whole. None: a file stands for itself.
    first: (examples, limit) -> the first of them; None: the first of the list.
    parts: a task made of others: their examples in turns, ids as "mnli/17". All have the same labels.
    translated: split -> patterns of machine-translated copies of the English data, for any language of the table in
      `languages`; they hold {language} only. An original file of that language comes first.
    read_translated: parses one of those files; None: `read` does.
    text: its text form (`forms.texts`), by which an encoder-decoder takes it: the task NAME_text (`tasks.get`).
    origin: of a task NAME_text, the task that it is the text form of.
    """

    name: str
    type: str
    languages: tuple[str, ...]
    splits: Mapping[str, tuple[str, ...]]
    read: Callable[..., Any] | None
    description: str
    url: str
    licence: str
    labels: tuple[str, ...] = ()
    metric: Any = None
    train_task: str | None = None
    tfds: Tfds | None = None
    more_languages: tuple[str, ...] = ()
    fields: Callable[[str], dict[str, tuple[str, ...]]] = language_only
    union: bool = False
    multilingual: bool = False
    parallel: bool = False
    unanswerable: bool = False
    one_right: bool = False
    paired: bool = False
    companions: Callable[[pathlib.Path], list[pathlib.Path]] | None = None
    first: Callable[[Any, int], Any] | None = None
    tokens: float = 0.0
    choices: int = 0
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    recipe: Recipe | None = None
    parts: tuple[str, ...] = ()
    translated: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    read_translated: Callable[[pathlib.Path], Any] | None = None
    text: TextForm | None = None
    origin: "TaskSpec | None" = None

    def __post_init__(self):
        if self.type not in forms.names():
            raise InputError(f"task {self.name!r}: {suggest('form', self.type, forms.names())}")

    @property
    def form(self) -> forms.Form:
        """The form of the task's examples."""
        return forms.get(self.type).of(self)

    @property
    def typical(self) -> tuple[float, int]:
        """Mean tokens of an input, and inputs of a question, for plans."""
        tokens, choices = self.form.typical
        return self.tokens or tokens, self.choices or choices

    def loadable(self, split: str) -> tuple[str, ...]:
        """Returns the languages that `tasks.load` takes for a split: its own, and those it may be translated into."""
        codes = self.languages + self.more_languages + (tuple(LANGUAGES) if split in self.translated else ())
        return tuple(dict.fromkeys(codes))

    def patterns(self, split: str, language: str) -> list[str]:
        """Returns the paths, relative to `data_dir`, at which a split's original files in a language may lie."""
        if language not in self.languages + self.more_languages:
            return []
        return _fill(self.splits[split], self.fields(language))

    def translated_patterns(self, split: str, language: str) -> list[str]:
        """Returns the paths at which machine-translated copies of a split may lie; empty for English."""
        return [] if language == "en" else _fill(self.translated.get(split, ()), language_only(language))


def _fill(patterns, values):
    filled = []
    for pattern in patterns:
        keys = dict.fromkeys(key for _, key, _, _ in string.Formatter().parse(pattern) if key)
        for chosen in itertools.product(*(values[key] for key in keys)):
            filled.append(pattern.format(**dict(zip(keys, chosen, strict=True))))
    return filled


def beside(*paths: str) -> tuple[str, ...]:
    """Returns the patterns of translated copies that lie beside English files: train.tsv -> train.{language}.tsv."""
    return tuple("{}.{{language}}.{}".format(*path.rsplit(".", 1)) for path in paths)
