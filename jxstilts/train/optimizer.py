"""AdamW with linear warm-up and decay, as in the study (protocol 3.3); Adafactor and a constant rate, as of mT5."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jxstilts.config import setting
from jxstilts.runtime import InputError, suggest
from jxstilts.train.adafactor import scale_by_adafactor

NAMES, SCHEDULES = ("adamw", "adafactor"), ("linear", "constant")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Hyper-parameters of one phase's optimizer. None: as in the recipe of the phase's tasks."""

    name: str = setting("adamw", "the algorithm; beta1, beta2 and eps say nothing of adafactor", allowed=NAMES)
    schedule: str = setting(
        "linear", "the rate after the warm-up: linear to 0 at the last step, or constant", allowed=SCHEDULES
    )
    learning_rate: float | None = setting(
        None, "the highest learning rate; None = as in the recipe of the phase's tasks", least=0
    )
    warmup: float | None = setting(
        None,
        "steps in which the rate rises from 0: below 1 a share of all, from 1 up their number; None = as in the recipe",
        least=0,
    )
    weight_decay: float | None = setting(
        None, "AdamW's, times the rate; not on biases and norms; None = as in the recipe", least=0
    )
    clip: float = setting(1.0, "the largest global norm of the gradient; 0 = no clipping", least=0)
    beta1: float = setting(0.9, "decay of Adam's first moment", least=0)
    beta2: float = setting(0.999, "decay of Adam's second moment", least=0)
    eps: float = setting(1e-8, "Adam's epsilon, beside the root of the second moment", least=0)

    def __post_init__(self):
        for key, known in (("name", NAMES), ("schedule", SCHEDULES)):
            if getattr(self, key) not in known:
                raise InputError(f"optimizer.{key}: {suggest(key, getattr(self, key), known)}")
        for field in ("learning_rate", "warmup", "weight_decay"):
            value = getattr(self, field)
            if value is not None and value < 0:
                raise InputError(f"optimizer.{field}={value} is negative")
        if self.warmup is not None and self.warmup >= 1 and self.warmup != int(self.warmup):
            raise InputError(
                f"optimizer.warmup={self.warmup}: a share of all steps below 1, or a whole number of steps"
            )


class Schedule(NamedTuple):
    """A linear learning rate and where it stands, as arrays: phases that differ only here share a compiled step."""

    count: jax.Array  # updates so far
    peak: jax.Array
    warmup: jax.Array  # updates
    steps: jax.Array

    def rate(self) -> jax.Array:
        """Linear from 0 over the warm-up, then linear to 0 at `steps`.

        The same numbers as Hugging Face's `get_linear_schedule_with_warmup`.
        """
        rise = self.count / jnp.maximum(self.warmup, 1)
        fall = jnp.maximum(self.steps - self.count, 0) / jnp.maximum(self.steps - self.warmup, 1)
        return self.peak * jnp.where(self.count < self.warmup, rise, fall)


class Constant(Schedule):
    """As `Schedule`, without the fall."""

    def rate(self) -> jax.Array:
        """Linear from 0 over the warm-up, then the peak."""
        return self.peak * jnp.where(self.count < self.warmup, self.count / jnp.maximum(self.warmup, 1), 1.0)


def schedule(config: Optimizer, steps: int) -> Schedule:
    """Returns the learning rate of a phase of `steps` steps, before its first."""
    warmup = min(int(config.warmup), steps) if config.warmup >= 1 else int(config.warmup * steps)
    whole = [jnp.asarray(number, jnp.int32) for number in (0, warmup, steps)]
    kind = Constant if config.schedule == "constant" else Schedule
    return kind(whole[0], jnp.asarray(config.learning_rate, jnp.float32), *whole[1:])


def _scale_by_rate(config: Optimizer, steps: int) -> optax.GradientTransformation:
    def update(updates, state, params=None):
        del params
        rate = state.rate()
        return jax.tree.map(lambda u: -rate * u, updates), state._replace(count=state.count + 1)

    return optax.GradientTransformation(lambda params: schedule(config, steps), update)


def _clip(norm: float) -> optax.GradientTransformation:
    """Global-norm clipping (Pascanu et al. 2013) by one factor.

    The numbers of `optax.clip_by_global_norm` but for rounding. That divides each element by the norm, which XLA on a
    CPU keeps as a second copy of all gradients; the product with a scalar is computed where it is needed.
    """

    def update(updates, params=None):
        del params
        factor = jnp.minimum(1.0, norm / optax.tree_utils.tree_norm(updates))
        return jax.tree.map(lambda u: u * factor.astype(u.dtype), updates)

    return optax.stateless(update)


def decayed(params: Any) -> Any:
    """Tree of bool: does weight decay apply? Not to biases, those of distances included, and norms' scales."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in ("bias", "scale", "relative"), params)


def make(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """Returns the optax optimizer for `steps` steps in all."""
    if config.name == "adafactor":
        first = scale_by_adafactor()
    else:
        first = optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.eps)
    whole = optax.chain(
        first, optax.add_decayed_weights(config.weight_decay, mask=decayed), _scale_by_rate(config, steps)
    )
    return optax.chain(_clip(config.clip), whole) if config.clip else whole


def grouped(
    main: optax.GradientTransformation, groups: Mapping[str, optax.GradientTransformation]
) -> optax.GradientTransformation:
    """Returns an optimizer that treats params["extra"][NAME] by groups[NAME] and all else by `main`.

    Each group has its own state and clips by its own norm.
    """

    def labels(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: path[1].key if path and path[0].key == "extra" else "", tree
        )

    return optax.partition({"": main, **groups}, labels)


def progress(state: Any, step: jax.Array) -> jax.Array:
    """Returns the share of all steps that are done, float32, when `step` of them are; state: of an optimizer of `make`.

    The number of all steps is state, too, so phases of other lengths share a compiled step. NaN where the optimizer is
    another, which has no such number.
    """
    schedules = _schedules(state)
    if not schedules:
        return jnp.full((), jnp.nan, jnp.float32)
    return step.astype(jnp.float32) / jnp.maximum(schedules[0].steps, 1)


def updates(state: Any) -> int:
    """Returns how many updates the state of an optimizer of `make` has seen: without steps that were skipped."""
    return int(_schedules(state)[0].count)


def _schedules(state: Any) -> list[Schedule]:
    """Those in an optimizer's state, that of the main group first."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, Schedule))
    return [node for node in nodes if isinstance(node, Schedule)]
