"""What a phase trains on: one or several tasks, and which of them each optimizer step takes (protocol 1.6)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jxstilts import tasks
from jxstilts.config import setting
from jxstilts.data.pipeline import BatchSource
from jxstilts.forms import Reading
from jxstilts.models.heads import AGGREGATIONS, POOLINGS
from jxstilts.runtime import InputError, suggest
from jxstilts.tasks import protocols

METHODS = ("proportional", "capped", "temperature", "uniform")
MODES = ("sampled", "alternate", "mixed")


@dataclasses.dataclass(frozen=True)
class Stream(Reading):
    """One task of a phase. batch_size and max_length 0: as in the protocol's recipe (see `jxstilts tasks`)."""

    task: str = setting("", 'a task of `jxstilts tasks`; "" = the stream\'s own name')
    objective: str = setting(
        "task", "what is minimised: task is the task's own loss; the others are those of its `options`"
    )
    languages: tuple[str, ...] = setting(
        ("en",), "languages of the training rows; others than en: machine-translated copies, or the task's own data"
    )
    source: str = setting(
        "auto", "files of data_dir, what TFDS has prepared, or files where they are there and else TFDS",
        allowed=tasks.SOURCES,
    )  # fmt: skip
    limit: int = setting(0, "training rows per language, the first ones; 0 = all", least=0)
    holdout: int = setting(0, "the last so many training rows are dev rows, where the dev split has no labels", least=0)
    synonyms: str = setting("", "file of a word and its synonyms a line, tabs between them, for `copies`")
    copies: int = setting(
        0,
        "of each training row, in which the words of `synonyms` are drawn from themselves and their synonyms",
        least=0,
    )
    sampling_exponent: float | None = setting(
        None, "languages are drawn with p ~ tokens ** this; None = 0.3 for text, 1 for tasks", least=0
    )
    paired: bool = setting(False, "text: a line and the one after it are the two texts of an input")
    lengths_of: str = setting("", "text: another stream; in every language these inputs are as long as that stream's")
    head: str = setting("", 'the name of its head; "" = the task\'s name; streams that name the same head share it')
    pooling: str = setting(
        "", 'what the head reads: the first token, the mean, or the pooler; "" = as the family does', allowed=POOLINGS
    )
    aggregation: str = setting(
        "",
        'which hidden states the head reads: "" = the last; softmax, attention: all, by learned weights',
        allowed=AGGREGATIONS[1:],
    )
    batch_size: int = setting(0, "examples of an update, all devices together; 0 = as in the recipe", least=0)
    packed: bool | None = setting(
        None,
        "text: lines are joined to full rows; tasks: the examples of a batch share its rows; None = text: no, tasks: "
        "where that is less to compute",
    )
    sort_window: int = setting(
        50, "where rows are not packed: batches that are sorted by length together; 1 = purely random batches", least=1
    )
    buckets: int = setting(
        6, "shapes of batches, each compiled once: row lengths; packed: rows x length, and a last resort", least=1
    )
    negatives_per_step: int = setting(
        0, "embedding: candidates in a query's softmax; 0 = as the recipe says, or those of the whole batch", least=0
    )
    mode: str = setting(
        "sampled",
        "sampled: one of those that `sampling` draws from; alternate: in `amount` of all steps, evenly spaced; mixed: "
        "beside the drawn task in every step",
        allowed=MODES,
    )
    options: dict[str, Any] = setting(dict, "keys of the objective")
    amount: float = setting(0.0, "alternate: share of the steps; mixed: weight of the loss", least=0)

    @property
    def own_languages(self) -> tuple[str, ...]:
        """English, or where the task is not trained in it, the languages in which it is."""
        return ("en",) if "en" in self.languages else self.languages

    def __post_init__(self):
        if self.mode not in MODES:
            raise InputError(suggest("mode", self.mode, MODES))
        if self.mode == "alternate" and not 0 < self.amount < 1:
            raise InputError(f"amount={self.amount}: the share of the steps of an alternate task is between 0 and 1")
        if self.mode == "mixed" and not self.amount > 0:
            raise InputError(f"amount={self.amount}: the weight of a mixed task's loss is above 0")
        if self.mode == "sampled" and self.amount:
            raise InputError(f"amount={self.amount} needs mode='alternate' or mode='mixed'")
        if self.pooling and self.pooling not in POOLINGS:
            raise InputError(f"pooling: {suggest('pooling', self.pooling, POOLINGS)}")
        if self.aggregation not in AGGREGATIONS:
            raise InputError(f"aggregation: {suggest('aggregation', self.aggregation, AGGREGATIONS[1:])}")
        if self.buckets < 1 or self.sort_window < 1:
            raise InputError("buckets and sort_window are at least 1")
        counts = ("batch_size", "max_length", "query_length", "limit", "holdout", "negatives_per_step", "copies")
        if min(getattr(self, name) for name in counts) < 0:
            raise InputError(f"{', '.join(counts)} are 0 or more")
        if bool(self.synonyms) != bool(self.copies):
            raise InputError(f"synonyms={self.synonyms!r:.60} and copies={self.copies} go together: a file, a number")
        if not self.languages:
            raise InputError("languages is empty")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the task of a step is drawn among the sampled ones: p ~ min(n, cap) ** (1 / temperature), n its inputs."""

    method: str = setting("proportional", "uniform: all alike; the others: by the number of inputs", allowed=METHODS)
    cap: int = setting(0, "capped, temperature: inputs that a task counts for at most; 0 = no cap", least=0)
    temperature: float = setting(1.0, "for the method temperature only: above 1 draws small tasks more often")

    def __post_init__(self):
        if self.method not in METHODS:
            raise InputError(suggest("sampling method", self.method, METHODS))
        if self.method == "capped" and self.cap < 1:
            raise InputError("sampling.method='capped' needs sampling.cap")
        if self.method in ("proportional", "uniform") and self.cap:
            raise InputError(f"sampling.cap={self.cap} has no effect with method={self.method!r}; use 'capped'")
        if self.temperature <= 0 or (self.temperature != 1 and self.method != "temperature"):
            raise InputError(f"sampling.temperature={self.temperature} is above 0, and for method='temperature' only")

    def probabilities(self, sizes: Sequence[int]) -> np.ndarray:
        """Returns float64 [tasks], their sum 1, for tasks of `sizes` inputs."""
        power = 0.0 if self.method == "uniform" else 1.0 / self.temperature
        weights = np.array([min(n, self.cap) if self.cap else n for n in sizes], np.float64) ** power
        return weights / weights.sum()


def resolve(streams: Mapping[str, Stream], protocol: str, where: str) -> dict[str, Stream]:
    """Returns the streams with every default filled in. Raises InputError that begins with the config path."""
    filled = {}
    for name, stream in streams.items():
        key = f"{where}.{name}"
        try:
            spec = tasks.get(stream.task or name)
        except InputError as error:
            raise InputError(f"{key}{'.task' if stream.task else ''}: {error}") from error
        missing = [field for field in ("batch_size", "max_length") if not getattr(stream, field)]
        recipe = protocols.recipe(protocol, spec)
        if missing and recipe is None:
            raise InputError(
                f"{key}.{missing[0]}: the protocol {protocol!r} has no default for task {spec.name!r}; give it"
            )
        if stream.synonyms and not spec.form.replaceable:
            raise InputError(
                f"{key}.synonyms: the words of task {spec.name!r} cannot be replaced: no text of it is free of its gold"
            )
        exponent = stream.sampling_exponent
        filled[name] = dataclasses.replace(
            stream,
            task=spec.name,
            packed=False if stream.packed is None and spec.form.running_text else stream.packed,
            sampling_exponent=exponent if exponent is not None else 0.3 if spec.form.running_text else 1.0,
            long_sentences=stream.long_sentences or protocols.get(protocol).long_sentences,
            query_length=stream.query_length or (recipe.query_length if recipe else 0),
            negatives_per_step=stream.negatives_per_step or (recipe.negatives if recipe else 0),
            **{field: getattr(recipe, field) for field in missing},
        )
    if streams and not any(stream.mode == "sampled" for stream in streams.values()):
        raise InputError(f"{where}: one task at least needs mode='sampled'")
    for name, stream in filled.items():
        _check_text(stream, filled, f"{where}.{name}")
    if sum(stream.amount for stream in streams.values() if stream.mode == "alternate") >= 1:
        raise InputError(f"{where}: the shares (amount) of the alternate tasks add up to 1 or more")
    return filled


def _check_text(stream: Stream, streams: Mapping[str, Stream], where: str) -> None:
    """Raises InputError for a stream that says of itself what only text has."""
    text = {name for name, each in streams.items() if tasks.get(each.task).form.running_text}
    for field in ("paired", "lengths_of"):
        if getattr(stream, field) and not tasks.get(stream.task).form.running_text:
            raise InputError(f"{where}.{field}: for running text (task 'text'), not for task {stream.task!r}")
        if getattr(stream, field) and stream.packed:
            raise InputError(f"{where}.{field}: for single lines; set packed=False")
    if stream.lengths_of and stream.lengths_of not in streams.keys() - text:
        raise InputError(f"{where}.lengths_of: {suggest('stream of a task', stream.lengths_of, streams.keys() - text)}")


def count_steps(streams: Mapping[str, Stream], sampling: Sampling, whole: Mapping[str, int], epochs: float) -> int:
    """Returns epochs * sum over the sampled tasks of ceil(min(n, cap) / batch size), and the alternate tasks' steps.

    whole: the steps of each stream's whole epoch, ceil(n / batch size) where no rows are packed.
    """
    own = [
        min(whole[name], -(-sampling.cap // stream.batch_size)) if sampling.cap else whole[name]
        for name, stream in streams.items()
        if stream.mode == "sampled"
    ]
    share = sum(stream.amount for stream in streams.values() if stream.mode == "alternate")
    return max(round(epochs * sum(own) / (1 - share)), 1)


def draw(
    streams: Mapping[str, Stream], sampling: Sampling, sizes: Mapping[str, int], steps: int, seed: int
) -> np.ndarray:
    """Returns int32 [steps]: which stream (by place in `streams`) each step takes, a function of the seed.

    Sampled tasks are drawn independently. Alternate tasks take the steps at which their share is due.
    """
    names = list(streams)
    sampled = [i for i, name in enumerate(names) if streams[name].mode == "sampled"]
    ends = np.cumsum(sampling.probabilities([sizes[names[i]] for i in sampled]))
    # The raw stream of a numpy bit generator never changes, so a run draws the same under a later numpy.
    uniform = (np.random.Philox(key=(seed, 3)).random_raw(steps) >> np.uint64(11)) * 2.0**-53
    drawn = np.array(sampled, np.int32)[np.minimum(np.searchsorted(ends, uniform, side="right"), len(ends) - 1)]
    taken = dict.fromkeys((i for i, name in enumerate(names) if streams[name].mode == "alternate"), 0)
    if taken:
        for step in range(steps):
            due = {i: streams[names[i]].amount * (step + 1) - count for i, count in taken.items()}
            latest = max(due, key=due.__getitem__)
            if due[latest] >= 1 - 1e-9:
                drawn[step] = latest
                taken[latest] += 1
    return drawn


class MixtureSource:
    """Random access to the batches of a run: source[step] = {stream: batch}, one task and all the mixed ones.

    order: int [steps], the stream of each step (see `draw`); sources: stream -> its batches, one after the other.
    places: int [V], a number to take for each token; None: its own.
    """

    def __init__(
        self, order: np.ndarray, sources: Mapping[str, BatchSource], mixed: Sequence[str] = (),
        places: np.ndarray | None = None,
    ):  # fmt: skip
        self.sources, self._mixed, self._order, self._places = dict(sources), tuple(mixed), order, places
        self._names = list(sources)
        self._steps = [np.flatnonzero(order == i) for i in range(len(self._names))]

    def __len__(self) -> int:
        return len(self._order)

    def __repr__(self) -> str:
        return f"MixtureSource(steps={len(self)}, streams={', '.join(self._names)})"

    def __getitem__(self, step: int) -> dict[str, dict[str, np.ndarray]]:
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of a run of {len(self)} steps")
        chosen = int(self._order[step])
        index = int(np.searchsorted(self._steps[chosen], step))
        batches = {self._names[chosen]: self.sources[self._names[chosen]][index]}
        batches |= {name: self.sources[name][step] for name in self._mixed}
        if self._places is None:
            return batches
        return {name: {**batch, "tokens": self._places[batch["tokens"]]} for name, batch in batches.items()}
