"""The task's own loss, on its own head."""

import dataclasses

from jxstilts.config import setting
from jxstilts.runtime import InputError
from jxstilts.train.objectives import base


@dataclasses.dataclass(frozen=True)
class Objective(base.Objective):
    """Trains the head of the stream's task."""

    HEAD = base.OWN
    WHOLE_VOCABULARY = False
    head: str = setting("", "the name of the head; a stream gives that of its own")
    z_loss: float = setting(0.0, "text to text: weight of the square of log Z (t5x: 1e-4), see `models.words.sums`")

    def loss(self, model, params, batches, rng, progress):
        """The head's loss on its stream; logs: what else the head says, as accuracy."""
        (forward,) = batches.values()
        head = model.head(self.head)
        if self.z_loss:
            if not hasattr(head, "z_loss"):
                raise InputError(
                    f"z_loss={self.z_loss}: the {head.spec.type} head {self.head!r} says no texts; leave it 0"
                )
            head = dataclasses.replace(head, z_loss=self.z_loss)
        sums = head.loss(params, forward.hidden, forward.batch, rng)
        return *sums["loss"], {name: pair for name, pair in sums.items() if name != "loss"}
