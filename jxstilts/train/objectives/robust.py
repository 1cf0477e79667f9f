"""Robust training on a task: its loss where the words' embeddings are moved (Huang et al. 2021, arXiv 2104.08645).

A word of another language lies near its English counterpart, not on it. A model that says the same in a ball around
each word's embedding forgives that. Two ways are here: adversarial training, on the worst place of the ball that some
steps of projected gradient ascent find (Madry et al. 2018, arXiv 1706.06083), and randomised smoothing, on a random
place. Smoothing by synonyms changes the data: see `Stream.synonyms`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jxstilts.config import setting
from jxstilts.runtime import InputError, suggest
from jxstilts.train.objectives import task

MODES = ("adversarial", "noise")


@dataclasses.dataclass(frozen=True)
class Objective(task.Objective):
    """Trains the head of the stream's task where the words' embeddings are moved."""

    mode: str = setting(
        "adversarial", "adversarial: the worst place that is found in the ball; noise: a random one on its surface",
        allowed=MODES,
    )  # fmt: skip
    radius: float = setting(
        0.1,
        "of the ball, as a share of the length of the token's embedding; 0 = the task's own loss, to the bit",
        least=0,
    )
    steps: int = setting(1, "adversarial: steps of gradient ascent from the embedding itself", least=1)
    step: float = setting(1.0, "adversarial: length of each, as a share of the radius", least=0)

    def __post_init__(self):
        if self.mode not in MODES:
            raise InputError(f"robust: {suggest('mode', self.mode, MODES)}")
        if self.radius < 0 or self.step <= 0 or self.steps < 1:
            raise InputError(
                f"robust: radius={self.radius} is 0 or more, step={self.step} above 0, steps={self.steps} at least 1"
            )

    def prepare(self, batch, rng, context):
        """Adds noise_keys uint32 [B, T, 2]: a token's noise depends on its example and place, not on the row it is in.

        So it is the same packed, accumulated and on any devices; from step to step it differs.
        """
        if self.mode != "noise" or not self.radius:
            return batch
        own = jnp.maximum(batch["segments"] - 1, 0)
        example = jnp.maximum(jnp.take_along_axis(batch["index"], own, axis=1), 0)

        def one(example, place):
            return jax.random.key_data(jax.random.fold_in(jax.random.fold_in(rng, example), place))

        return {**batch, "noise_keys": jax.vmap(jax.vmap(one))(example, batch["positions"])}

    def loss(self, model, params, batches, rng, progress):
        """The head's loss at the moved embeddings; logs: what else the head says there, as accuracy."""
        (forward,) = batches.values()
        if not self.radius:
            return super().loss(model, params, batches, rng, progress)
        fixed = jax.tree.map(jax.lax.stop_gradient, params)
        words = fixed["encoder"]["embeddings"]["tokens"][forward.batch["tokens"]].astype(jnp.float32)
        inside = (forward.batch["segments"] > 0)[..., None]
        ball = self.radius * jnp.sqrt(jnp.square(words).sum(-1, keepdims=True)) * inside  # [B, T, 1]
        if self.mode == "noise":
            moved = ball * _unit(_normal(forward.batch["noise_keys"], words.shape[-1]))
        else:
            slope = jax.grad(lambda moved: self.at(moved, model, fixed, forward, rng)["loss"][0])
            moved = jax.lax.stop_gradient(self.climb(slope, ball, words.shape))
        return self.split(self.at(moved, model, params, forward, rng))

    def at(self, moved, model, params, forward, rng):
        """The head's {name: (sum, weight)} where `moved` [B, T, D] is added to the words' embeddings."""
        states = forward.moved(moved, params, self.reads_all(model))
        return self.sums(model, params, states, forward.batch, rng)

    def climb(self, slope, ball, shape):
        """Projected gradient ascent. slope: [B, T, D] -> gradient. ball: each token's radius, [B, T, 1]."""

        def one(moved, _):
            moved = moved + self.step * ball * _unit(slope(moved))
            length = jnp.sqrt(jnp.square(moved).sum(-1, keepdims=True))
            return moved * jnp.where(length > ball, ball / jnp.maximum(length, 1e-30), 1.0), None

        return jax.lax.scan(one, jnp.zeros(shape), None, length=self.steps)[0]


def _unit(vectors):
    """Each vector at length 1; one of length 0 as it is."""
    return vectors / jnp.maximum(jnp.sqrt(jnp.square(vectors).sum(-1, keepdims=True)), 1e-30)


def _normal(keys, width):
    """uint32 [B, T, 2] -> [B, T, width], each token's by its own key."""
    one = lambda key: jax.random.normal(jax.random.wrap_key_data(key), (width,))  # noqa: E731
    return jax.vmap(jax.vmap(one))(keys)
