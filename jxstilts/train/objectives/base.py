"""What objectives have in common: see the package's own text for the contract."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import jax
import optax

from jxstilts.models.model import Batch, Model, Params
from jxstilts.train import optimizer as optimizers

OWN = "task"  # Objective.HEAD: the head of the stream's task, whatever its type


@dataclasses.dataclass(frozen=True)
class Context:
    """What objectives may need to know of the vocabulary."""

    vocab_size: int
    mask_id: int
    special_ids: tuple[int, ...]


class Forward:
    """A stream's micro-batch and what the encoder makes of it, which is computed once, whoever asks.

    batch: arrays, as `prepare` left them. rng: for what comes after the encoder, as a head's dropout; None: without.
    every: is some objective going to read `all_hidden`? Then the one pass gives every hidden state.
    """

    def __init__(self, model: Model, params: Params, batch: Batch, key: jax.Array | None, every: bool = False):
        self._model, self._params, self._every = model, params, every
        self.batch = batch
        self._key, self.rng = (None, None) if key is None else jax.random.split(key)

    @functools.cached_property
    def _encoded(self) -> jax.Array:
        return self._model.encode(self._params, self.batch, self._key, all_hidden=self._every)

    def moved(self, perturbation: jax.Array, params: Params, every: bool = False) -> jax.Array:
        """The last hidden states, or all, where [B, T, D] is added to the words' embeddings; with the same dropout.

        Each call is a pass of its own.
        """
        batch = {**self.batch, "perturbation": perturbation}
        return self._model.encode(params, batch, self._key, all_hidden=every)

    @property
    def hidden(self) -> jax.Array:
        """The last hidden states, [B, T, D]."""
        return self._encoded[-1] if self._every else self._encoded

    @property
    def all_hidden(self) -> jax.Array:
        """All hidden states, [L + 1, B, T, D], 0 the embeddings; for an objective that `reads_all`."""
        assert self._every, "an objective that reads all_hidden says so in reads_all"
        return self._encoded

    def state(self, layer: int) -> jax.Array:
        """One hidden state, [B, T, D], 0 the embeddings, -1 the last; for another than -1 see `all_hidden`."""
        return self.hidden if layer == -1 else self.all_hidden[layer]


@dataclasses.dataclass(frozen=True)
class Objective:
    """One training signal. A subclass is a frozen dataclass; its fields are its options, hashable, with defaults.

    name: of its entry in the phase, not an option.
    """

    name: str = dataclasses.field(default="", kw_only=True)
    HEAD: ClassVar[str | None] = None
    KEPT: ClassVar[bool] = False
    WHOLE_VOCABULARY: ClassVar[bool] = True
    READS_LANGUAGE: ClassVar[bool] = False

    def reads_all(self, model: Model) -> bool:
        """Does it read all hidden states, not the last alone?"""
        return False

    def own(self, params: Params) -> Any:
        """Returns the objective's own parameters."""
        return params["extra"][self.name]

    @classmethod
    def check(cls, tokenizer: Any, where: str) -> None:
        """Raises InputError, beginning with `where`, where a tokenizer lacks what the objective needs."""

    def check_languages(self, codes: Iterable[str], where: str) -> None:
        """Raises InputError, beginning with `where`, for a language of its streams that it cannot deal with."""

    def init(self, model: Model, key: jax.Array) -> Any:
        """Returns the objective's own parameters, a dict of arrays, or {} for none. Jittable in `key`.

        Arrays may be boxed with logical axis names as a model's are; others lie whole on every device.
        """
        return {}

    def optimizer(self, config: optimizers.Optimizer, steps: int) -> optax.GradientTransformation:
        """Returns the optimizer of those parameters. config: the entry's `optimizer`, filled up from the phase's."""
        return optimizers.make(config, steps)

    def prepare(self, batch: Batch, rng: jax.Array, context: Context) -> Batch:
        """Returns a stream's whole batch as the objective needs it, before it is split into micro-batches."""
        return batch

    def kept(self, model: Model, batches: Mapping[str, Forward]) -> Any:
        """Returns what of a micro-batch the objective's optimizer is handed, arrays [B, ...]; None for nothing."""
        return None

    def loss(
        self, model: Model, params: Params, batches: Mapping[str, Forward], rng: jax.Array, progress: jax.Array
    ) -> tuple[jax.Array, jax.Array, dict[str, tuple[jax.Array, jax.Array]]]:
        """Returns (sum of the losses, sum of their weights, logs {name: (sum, weight)})."""
        raise NotImplementedError(f"{type(self).__module__} has no loss")
