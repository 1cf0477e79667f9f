"""my_objective: keeps hidden states at one size. Its name becomes known by JXSTILTS_OBJECTIVES=my_objective.py.

    jxstilts run --config=C.py --workdir=W --config.phases.PHASE.objectives.my_objective.streams=TASK \
        --config.phases.PHASE.objectives.my_objective.weight=0.1

The contract stands in jxstilts/train/objectives/__init__.py: an objective may also have parameters, an optimizer and a
head of its own, read several streams, and follow a schedule (`progress`).
"""

import dataclasses

import jax.numpy as jnp

from jxstilts.config import setting
from jxstilts.train import objectives


@dataclasses.dataclass(frozen=True)
class Objective(objectives.Objective):
    """Its fields are its options, of which `jxstilts config` says what stands here."""

    WHOLE_VOCABULARY = False  # it reads no token embedding but those of the batch
    size: float = setting(1.0, "the root mean square that the numbers of a hidden state should have")

    def loss(self, model, params, batches, rng, progress):
        """(root mean square - size) ** 2 of each token's last hidden state, summed over the tokens of a micro-batch.

        Returns (sum, weight, logs): sums and weights are added over micro-batches, devices and hosts, and divided once.
        """
        total = weight = size = 0.0
        for forward in batches.values():  # one of each of its streams that the step takes
            real = (forward.batch["segments"] > 0).astype(jnp.float32)  # [B, T]; 0 = padding
            found = jnp.sqrt(jnp.square(forward.hidden.astype(jnp.float32)).mean(-1) + 1e-6)  # hidden: [B, T, D]
            total += (real * jnp.square(found - self.size)).sum()
            size += (real * found).sum()
            weight += real.sum()
        return total, weight, {"size": (size, weight)}  # what is logged beside the loss
