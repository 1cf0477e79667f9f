"""Evaluation of a model on a task: a pure function of an `Evaluator`, the task and the examples.

The inputs of several languages share one stream of batches and their rows, so that next to nothing is padding and a
shape or two serve all languages and tasks of a head. Threads tokenise what comes next and score what is done while the
device computes. A task's form decides what differs between kinds of tasks (`jxstilts.forms`).
"""

import bisect
import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jxstilts.data import prepare
from jxstilts.data.features import Features, concatenate
from jxstilts.eval import metrics, pool, predict
from jxstilts.eval.options import Options, layer_of
from jxstilts.eval.ranking import Search
from jxstilts.eval.robustness import noisy
from jxstilts.forms import Collector, Given, retrieval
from jxstilts.forms.classification import STATES
from jxstilts.forms.labels import match
from jxstilts.models import adapters
from jxstilts.models.checks import check_vocabulary
from jxstilts.models.heads.states import StatesSpec
from jxstilts.models.model import HeadSpec, Model, Params
from jxstilts.runtime import InputError, suggest
from jxstilts.tasks import TaskSpec
from jxstilts.tasks.languages import LANGUAGES

__all__ = ["Evaluator", "Options", "Result", "pick_head"]

STREAM = 64  # batches: languages are put together until they fill as many; an interrupt loses no more than that


@dataclasses.dataclass(frozen=True)
class Result:
    """One task in one language.

    metrics, interval, baseline: {value name: 0-100}; the 95 % interval over examples is (low, high), the baseline is
    that of a trivial rule (see `baselines`). major: the one number for model choice. n: what is averaged over; values:
    the metric's state, {column: {example id: number}}. Of examples without gold there are predictions only: metrics,
    values and interval are empty, major and baseline None. predictions: by example id; of mined pairs a list. curve:
    {hidden state: metrics}, where asked for. notes: what has to stand beside the values, such as words that were cut
    off (`forms.Collector.notes`).
    """

    task: str
    language: str
    split: str
    metrics: dict[str, float]
    n: int
    values: Mapping[str, Mapping[str, float]]
    predictions: Any
    interval: dict[str, tuple[float, float]]
    major: float | None
    baseline: dict[str, float] | None
    curve: Mapping[int, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """A model that is ready to be evaluated.

    params: on the host, or on `mesh` where one is given. options: how examples become batches and answers. cache_dir:
    of tokenised inputs; None = no cache. identity: digest of the parameters; with both, the vectors of a large pool of
    candidates are kept in cache_dir/pools (`pool`).
    """

    model: Model
    params: Params
    tokenizer: Any
    options: Options = dataclasses.field(default_factory=Options)
    mesh: Mesh | None = None
    cache_dir: str | pathlib.Path | None = None
    identity: str = ""

    def evaluate(
        self, task: TaskSpec, examples: Any, *, head: str | None = None, language: str = "en", split: str = "dev",
        threshold: float | None = None,
    ) -> Result:  # fmt: skip
        """Predicts and scores one task in one language.

        Args:
            examples: what `tasks.load` returns.
            head: name of the head to use; by default the model's only head of the task's form. Retrieval needs none.
            threshold: of mined pairs (BUCC), tuned on dev; None tunes it on these examples.
        Raises InputError: no such head, a head with other labels than the task, some examples with gold and some not.
        """
        thresholds = {} if threshold is None else {language: threshold}
        (result,) = self.languages(task, [(language, examples)], head=head, split=split, thresholds=thresholds)
        return result

    def languages(
        self,
        task: TaskSpec,
        languages: Iterable[tuple[str, Any]],
        *,
        head: str | None = None,
        split: str = "dev",
        thresholds: Mapping[str, float] | None = None,
        all_layers: bool = False,
    ) -> Iterator[Result]:
        """Yields the Result of each (language, examples), in order; the arguments are those of `evaluate`.

        all_layers: of retrieval, score every hidden state beside the one that counts (`Result.curve`), from the same
        pass. `languages` is read in another thread, a little ahead. Results come in groups, when all rows of some
        languages have gone through the model; what comes to about STREAM batches is one group.
        """
        if self._silent:
            for language, examples in languages:
                own = self.speaking(language, task)
                options = {"split": split, "thresholds": thresholds, "all_layers": all_layers}
                yield from own.languages(task, [(language, examples)], head=head, **options)
            return
        run = self._run(task, task.form, head, all_layers)
        items, thresholds = iter(languages), thresholds or {}
        with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(1) as behind:
            coming = ahead.submit(_group, run, items)
            waiting: list[Future] = []
            while group := coming.result():
                coming = ahead.submit(_group, run, items)
                futures = [
                    behind.submit(_score, task, language, split, collector, thresholds.get(language))
                    for language, collector in _stream(run, group)
                ]
                yield from (future.result() for future in waiting)  # of the group before: scored meanwhile
                waiting = futures
            yield from (future.result() for future in waiting)

    @property
    def _silent(self) -> bool:
        """Has the model language adapters, none of which is on?"""
        return any(spec.language for _, spec in self.model.adapters) and not self.model.language

    def _check(self) -> None:
        """Raises InputError for a tokenizer that is not the model's, and where no language is chosen."""
        check_vocabulary(self.model.config, self.tokenizer)
        if self._silent:
            how = "`speaking(language)`; from jxstilts.api language=..."
            raise InputError(f"the model has language adapters: say which language its inputs are in ({how})")

    def speaking(self, language: str, task: TaskSpec | None = None) -> "Evaluator":
        """Returns the evaluator whose language adapters are those of a language; `languages` does so by itself.

        Raises InputError where there are none of the language, and for a task whose inputs are in several at once.
        """
        if task is not None and (not task.form.has_head or task.form.in_batch or "-" in language):
            raise InputError(
                f"task {task.name!r} in {language}: its inputs are in several languages at once, and the model has an "
                "adapter for each: `Evaluator.speaking(language).embed` reads sentences of one language"
            )
        model, params = adapters.for_language(self.model, self.params, language)
        return dataclasses.replace(self, model=model, params=params)

    def details(self, task: TaskSpec, examples: Sequence[Mapping], *, head: str | None = None) -> list[dict[str, Any]]:
        """Returns what a head says of each example, with scores, in the order of the examples (`Form.detailed`).

        Raises InputError as `evaluate` does, and for a form without predictions with scores.
        """
        run = self._run(task, task.form.detailed(), head, False)
        ((_, collector),) = _stream(run, _group(run, iter([(task.languages[0], examples)])))
        return collector.finish()

    def _run(self, task: TaskSpec, form: Any, head: str | None, all_layers: bool) -> "_Run":
        self._check()
        if not form.scored:
            raise InputError(f"task {task.name!r} is of the form {form.name!r}, which has no evaluation")
        plain, layers, model = reads_plain(self.model, task, head), (), self.model
        options = self.options.resolve(task, model, plain)
        if not plain:
            spec = form.asked(pick_head(model, task, head), options)
            model = model.with_heads(*(spec if each.name == spec.name else each for each in model.head_specs))
        else:
            recipe = model.recipe if options.layer is None else None
            every = all_layers or recipe is not None  # what an embedding model would score otherwise stands beside it
            if form.has_head:  # one vector alone is compared with the pool
                layers = (options.layer or 0,)
            else:
                layers = tuple(range(model.config.layers + 1)) if every else (options.layer,)
            spec = form.reader(options, layers, recipe)
            model = model.with_heads(spec)
        return _Run(dataclasses.replace(self, model=model, options=options), task, form, spec, layers)

    def embed(self, sentences: Sequence[Mapping], layers: Sequence[int] | None = None) -> np.ndarray:
        """Returns embeddings of [{"id", "text"}, ...] in some hidden states, [layers, N, D] float32, from one pass.

        Of the options max_length, tokens_per_batch, pooling and prefix are read. layers: which hidden states, 0 =
        embeddings, -1 = last; default: all L + 1; only these reach the host. Equal sentences are encoded once.
        Raises InputError for a layer or a max_length that the model does not reach.
        """
        layers = range(self.model.config.layers + 1) if layers is None else layers
        layers = [layer_of(self.model, layer) for layer in layers]
        options = self.options.fit(retrieval.FORM, self.model).by(None)
        return self._embed(sentences, options, retrieval.FORM.reader(options, layers, None), len(layers))

    def vectors(self, sentences: Sequence[Mapping]) -> np.ndarray:
        """Returns a vector for each of [{"id", "text"}, ...], [N, D] float32, by an embedding model's own recipe.

        Raises InputError for a model without one, or options that ask for something else.
        """
        recipe = self.options.recipe(self.model)
        if recipe is None:
            raise InputError(
                "vectors: this model has no recipe of its own, or the options ask for another one; see `embed`"
            )
        options = self.options.fit(retrieval.FORM, self.model).by(recipe)
        return self._embed(sentences, options, retrieval.FORM.reader(options, [0], recipe), 2)[1]

    def states(
        self, examples: Sequence[Mapping], layers: Sequence[int] | None = None, attention: bool = False
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns (tokens int32 [T], states) of each text or pair [{"id", "text_a", "text_b"}, ...], in order.

        states: hidden ones, float32 [layers, T, D], or the weights of attention, float32 [layers, heads, T, T].
        layers: of hidden states 0 = embeddings, -1 = last; of attention from 0; None = all. All are held on the host.
        Raises InputError for a layer that there is not, and a family that does not show its attention.
        """
        count = self.model.config.layers + (not attention)
        layers = range(count) if layers is None else layers
        for layer in layers:
            if not -count <= layer < count:
                raise InputError(f"layer={layer}: there are {count}, 0 to {count - 1}")
        spec = StatesSpec("states", "states", layers=tuple(layer % count for layer in layers), attention=attention)
        self._check()
        options = self.options.fit(STATES, self.model)
        features = prepare.features(STATES, examples, self.tokenizer, self.model.template, options, None)
        run = dataclasses.replace(self, model=self.model.with_heads(spec), options=options)
        found: list[Any] = [None] * len(features)
        for index, array in predict.each(run, spec.name, features, STATES):
            tokens = features.tokens[features.offsets[index] : features.offsets[index + 1]]
            # copies: what is cut out of a batch would keep all of it
            own = array[..., : len(tokens)].transpose(1, 2, 0, 3) if attention else array.transpose(1, 0, 2)
            found[index] = (np.array(tokens), np.ascontiguousarray(own))
        return found

    def _embed(self, sentences: Sequence[Mapping], options: Options, head: HeadSpec, count: int) -> np.ndarray:
        self._check()
        form, run = retrieval.FORM, dataclasses.replace(self, model=self.model.with_heads(head), options=options)
        given = {"source": list(sentences), "target": []}
        features = prepare.features(form, given, self.tokenizer, self.model.template, options, self.cache_dir)
        width = max(self.model.config.width, head.recipe.dense if head.recipe else 0)
        found = np.zeros((count, len(features), width), np.float32)
        for places, vectors in _arrays(run, head, features, form):
            found[:, places] = vectors[:, None]
        return found


@dataclasses.dataclass(frozen=True)
class _Run:
    """An evaluator of one task. evaluator: with its options decided. layers: the hidden states that are read.

    form: the task's, or that of its predictions with scores.
    """

    evaluator: Evaluator
    task: TaskSpec
    form: Any
    head: HeadSpec
    layers: tuple[int, ...]
    pools: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)  # their vectors, by the pool's key

    def pool(self, candidates: Any) -> np.ndarray:
        """Returns the vectors of a pool, which are made once for all languages."""
        own = self.evaluator
        if candidates.key not in self.pools:
            stored = own.cache_dir is not None and own.identity and len(candidates) >= pool.STORED
            place = pool.Place(pathlib.Path(own.cache_dir) / "pools", own.identity) if stored else None
            self.pools[candidates.key] = pool.vectors(own, self.head, self.form, candidates, place)
        return self.pools[candidates.key]

    def features(self, examples: Any) -> Features:
        own = self.evaluator
        more = {"labels": self.head.labels} if self.head.labels else {}
        return prepare.features(
            self.form, examples, own.tokenizer, own.model.template, own.options, own.cache_dir, **more
        )

    def collector(self, examples: Any, features: Features) -> Collector:
        own = self.evaluator
        search = Search(own.mesh)
        return self.form.collector(
            Given(
                self.task,
                examples,
                features,
                self.head.labels,
                own.options,
                self.layers,
                search,
                self.pool,
                own.tokenizer,
            )
        )


def reads_plain(model: Model, task: TaskSpec, head: str | None) -> bool:
    """Whether a model is read without a trained head: as retrieval always is, or where the form allows for it.

    Of a form that has heads: the model has none of them, and none is asked for.
    """
    form = task.form
    bare = not head and all(spec.type != form.head_type for spec in model.head_specs)
    return not form.has_head or (form.reads_plain and bare)


def pick_head(model: Model, task: TaskSpec, head: str | None) -> HeadSpec:
    """Returns the head to use for a task. Raises InputError when it is missing, ambiguous or has other labels."""
    of_type = [spec for spec in model.head_specs if spec.type == task.form.head_type]
    have = ", ".join(f"{spec.name} ({spec.type})" for spec in model.head_specs) or "no heads"
    if head is not None:
        chosen = [spec for spec in of_type if spec.name == head]
    else:
        chosen = (
            [spec for spec in of_type if spec.name == task.name]
            or [spec for spec in of_type if spec.name == task.train_task]
            or [spec for spec in of_type if spec.labels == task.labels]
            or of_type
        )
    if len(chosen) != 1:
        kind = task.form.head_type
        wanted = f"the {kind} head {head!r}" if head else f"one {kind} head"
        raise InputError(f"task {task.name!r} needs {wanted}; the model has {have}")
    if task.labels:
        match(chosen[0].labels, task.labels, f"head {chosen[0].name!r}, task {task.name!r}")
    return chosen[0]


def _group(run: _Run, items: Iterator) -> list[tuple[str, Any, Features]]:
    """Reads and tokenises languages until they make a group: [(language, examples, features), ...]."""
    group, tokens = [], 0
    form, options = run.form, run.evaluator.options
    known = {*run.task.languages, *run.task.more_languages, *LANGUAGES}
    for language, examples in items:
        if language not in known:
            raise InputError(suggest(f"language of task {run.task.name!r}", language, known))
        form.check(run.task, examples)
        if form.has_head and not form.counts_features and options.max_features:
            examples = form.some(examples, options.max_features)
        if options.question_noise:
            examples = noisy(run.task.name, examples, options.question_noise)
        features = run.features(examples)
        group.append((language, examples, features))
        tokens += len(features.tokens)
        if tokens >= STREAM * options.tokens_per_batch:
            break
    return group


def _stream(run: _Run, group: list) -> list[tuple[str, Collector]]:
    """Runs the rows of all languages of a group; returns each language's collector, which has seen all of its rows."""
    form, options = run.form, run.evaluator.options
    collectors = [run.collector(examples, features) for _, examples, features in group]
    ends = list(itertools.accumulate(len(features) for _, _, features in group))
    features = group[0][2] if len(group) == 1 else concatenate([features for _, _, features in group])
    limit = options.max_features if form.counts_features else 0
    if limit and len(group) > 1:
        raise InputError(f"max_features applies to one language at a time for a task of the form {form.name!r}")
    with _named(run.task, group):
        for places, array in _arrays(run.evaluator, run.head, features, form, limit):
            for index in places:
                place = bisect.bisect_right(ends, index)
                collectors[place].add(index - (ends[place - 1] if place else 0), array)
    return [(language, collector) for (language, _, _), collector in zip(group, collectors, strict=True)]


@contextlib.contextmanager
def _named(task: TaskSpec, group: list) -> Iterator[None]:
    """Adds the task and its languages to what is said of the model's outputs."""
    try:
        yield
    except InputError as error:
        languages = ", ".join(language for language, _, _ in group)
        raise InputError(f"task {task.name!r} in {languages}: {error}") from error


def _arrays(
    run: Evaluator, head: HeadSpec, features: Features, form: Any, limit: int = 0
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yields (features, their array): one feature, or where a form asks for it all that have equal tokens."""
    if not form.once:
        yield from (([index], array) for index, array in predict.each(run, head.name, features, form, limit))
        return
    places: dict[bytes, list[int]] = {}
    for index, (begin, end) in enumerate(itertools.pairwise(features.offsets.tolist())):
        places.setdefault(features.tokens[begin:end].tobytes(), []).append(index)
    alike = list(places.values())
    first = np.array([own[0] for own in alike], np.int64)
    yield from ((alike[index], array) for index, array in predict.each(run, head.name, features.take(first), form))


def _score(task: TaskSpec, language: str, split: str, collector: Collector, threshold: float | None) -> Result:
    """Scores the predictions of one language; without gold there is nothing to score."""
    form, predictions, examples = task.form, collector.finish(), collector.examples()
    by_id = form.by_id(predictions, examples)
    if not form.has_gold(examples):
        return Result(task.name, language, split, {}, form.count(examples), {}, by_id, {}, None, None)
    metric = metrics.get(task.metric, language)
    curve = {layer: metric.compute(metric.update(own, examples)) for layer, own in collector.by_layer().items()}
    if threshold is not None:
        metric = metric.at(threshold)
    state = metric.update(predictions, examples)
    found = metric.compute(state)
    beside = {}
    for name, (other, *pair) in collector.beside().items():
        own = metrics.get(other, language) if other else metric
        beside[name] = own.compute(own.update(*pair))
    return Result(
        task.name, language, split, found, len(next(iter(state.values()))), state, by_id,
        metric.interval(state), metric.major(found), form.baseline(task, metric, examples), curve,
        {**collector.notes(), **beside},
    )  # fmt: skip
