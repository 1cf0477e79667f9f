"""AdamW with linear warm-up and decay, as in the study (protocol 3.3)."""

import dataclasses
from typing import Any

import jax
import optax

from jxstilts.runtime import InputError


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Hyper-parameters of one phase's optimizer. None: as in the recipe of the phase's tasks."""

    learning_rate: float | None = None
    warmup: float | None = None  # share of all steps, below 1; from 1 up, their number
    weight_decay: float | None = None  # not on biases and LayerNorms
    clip: float = 1.0  # global gradient norm; 0 = off
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self):
        for field in ("learning_rate", "warmup", "weight_decay"):
            value = getattr(self, field)
            if value is not None and value < 0:
                raise InputError(f"optimizer.{field}={value} is negative")
        if self.warmup is not None and self.warmup >= 1 and self.warmup != int(self.warmup):
            raise InputError(
                f"optimizer.warmup={self.warmup}: a share of all steps below 1, or a whole number of steps"
            )


def schedule(config: Optimizer, steps: int) -> optax.Schedule:
    """Learning rate at step 0, 1, ...: linear from 0 over the warm-up, then linear to 0 at `steps`.

    The same numbers as Hugging Face's `get_linear_schedule_with_warmup`.
    """
    warmup = min(int(config.warmup), steps) if config.warmup >= 1 else int(config.warmup * steps)
    rise = optax.linear_schedule(0.0, config.learning_rate, max(warmup, 1))
    fall = optax.linear_schedule(config.learning_rate, 0.0, max(steps - warmup, 1))
    return optax.join_schedules([rise, fall], [warmup]) if warmup else fall


def decayed(params: Any) -> Any:
    """Tree of bool: does weight decay apply? Not to biases and LayerNorm scales."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in ("bias", "scale"), params)


def make(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """Returns the optax optimizer for `steps` steps in all."""
    adamw = optax.adamw(
        schedule(config, steps),
        b1=config.beta1, b2=config.beta2, eps=config.eps, weight_decay=config.weight_decay, mask=decayed,
    )  # fmt: skip
    return optax.chain(optax.clip_by_global_norm(config.clip), adamw) if config.clip else adamw
