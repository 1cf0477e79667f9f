"""An objective from outside the package, as a user writes one: a domain adversary (Ganin & Lempitsky 2015).

Its discriminator learns to tell the streams apart by the states of the examples' first tokens; the encoder gets its
gradient reversed, by a strength that grows with the phase.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from jxstilts.models.heads import first_tokens
from jxstilts.train import objectives


@jax.custom_vjp
def reverse(x, strength):
    return x


reverse.defvjp(lambda x, strength: (x, strength), lambda strength, g: (-strength * g, jnp.zeros_like(strength)))


@dataclasses.dataclass(frozen=True)
class Objective(objectives.Objective):
    """source: the stream whose examples are of class 1. start: share of the phase before the encoder hears of it."""

    source: str = ""
    width: int = 8
    strength: float = 1.0
    start: float = 0.0

    def init(self, model, key):
        one, two = jax.random.split(key)
        return {
            "hidden": {
                "kernel": 0.1 * jax.random.normal(one, (model.config.width, self.width)),
                "bias": jnp.zeros(self.width),
            },
            "output": {"kernel": 0.1 * jax.random.normal(two, (self.width, 1)), "bias": jnp.zeros(1)},
        }

    def loss(self, model, params, batches, rng, progress):
        """Binary cross-entropy in nats per example."""
        strength = self.strength * (2 / (1 + jnp.exp(-10 * progress)) - 1) * (progress >= self.start)
        total, right, weight = jnp.zeros(()), jnp.zeros(()), jnp.zeros(())
        for name, forward in batches.items():
            x = reverse(first_tokens(forward.hidden, forward.batch).astype(jnp.float32), strength)
            for layer, act in (("hidden", jax.nn.gelu), ("output", lambda y: y[..., 0])):
                own = self.own(params)[layer]
                x = act(x @ own["kernel"] + own["bias"])
            label = jnp.full(x.shape, float(name == self.source))
            weights = forward.batch["weights"]
            total += (optax.sigmoid_binary_cross_entropy(x, label) * weights).sum()
            right += (((x > 0) == label) * weights).sum()
            weight += weights.sum()
        return total, weight, {"accuracy": (right, weight), "strength": (strength, jnp.ones(()))}
