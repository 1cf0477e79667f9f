"""The task's own loss, on its own head."""

import dataclasses

from jxstilts.train.objectives import base


@dataclasses.dataclass(frozen=True)
class Objective(base.Objective):
    """head: a head of the model."""

    HEAD = base.OWN
    WHOLE_VOCABULARY = False
    head: str = ""

    def loss(self, model, params, batches, rng, progress):
        """The head's loss on its stream; logs: what else the head says, as accuracy."""
        (forward,) = batches.values()
        sums = model.head(self.head).loss(params, forward.hidden, forward.batch, rng)
        return *sums["loss"], {name: pair for name, pair in sums.items() if name != "loss"}
