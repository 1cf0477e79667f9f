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

    def reads_all(self, model):
        """Where its head does."""
        return model.head(self.head).all_hidden

    def loss(self, model, params, batches, rng, progress):
        """The head's loss on its stream; logs: what else the head says, as accuracy."""
        (forward,) = batches.values()
        states = forward.all_hidden if self.reads_all(model) else forward.hidden
        return self.split(self.sums(model, params, states, forward.batch, rng))

    def sums(self, model, params, states, batch, rng):
        """Returns {name: (sum, weight)} of the head. states: all hidden states where it `reads_all`, else the last."""
        head = model.head(self.head)
        if self.z_loss:
            if not hasattr(head, "z_loss"):
                raise InputError(
                    f"z_loss={self.z_loss}: the {head.spec.type} head {self.head!r} says no texts; leave it 0"
                )
            head = dataclasses.replace(head, z_loss=self.z_loss)
        return head.loss(params, head.aggregated(params, states), batch, rng)

    @staticmethod
    def split(sums):
        """{name: (sum, weight)} -> what `loss` returns."""
        return *sums["loss"], {name: pair for name, pair in sums.items() if name != "loss"}
