"""How examples become batches and answers."""

import dataclasses

import jax

from jxstilts.data.words import LONG_SENTENCES
from jxstilts.models.model import Model
from jxstilts.runtime import InputError, suggest
from jxstilts.tasks import TaskSpec, protocols

# A CPU needs no larger batch to be busy, and of a small one the last leaves less empty: 3 rows of 384, or 9 of 128.
TOKENS = {"cpu": 1152}


@dataclasses.dataclass(frozen=True)
class Options:
    """What is left at 0, "" or None is decided by the protocol, "authors" or "xtreme" (see `tasks.protocols`)."""

    protocol: str = "authors"
    max_length: int = 0  # tokens of a row, at most as many as the model reaches
    doc_stride: int = 128
    max_query_length: int = 64
    max_answer_length: int = 30  # tokens
    n_best: int = 20
    tokens_per_batch: int = 0  # rows times their length; 0 = as suits the device
    layer: int | None = None  # retrieval: which hidden state, 0 = embeddings, -1 = last
    pooling: str = "mean"  # retrieval: "mean" (special tokens included), "mean_without_specials" or "first" (token)
    subtract_means: bool = False  # retrieval: take from each side its mean, what all sentences of a language share
    max_features: int = 0  # only the first N rows, windows, questions or sentences (dev selection: 500); 0 = all
    long_sentences: str = ""  # tagging: "truncate" (cut words get no tag) or "split" into several rows

    def fit(self, type: str, model: Model) -> "Options":
        """Returns the options with max_length and tokens_per_batch decided.

        Raises InputError where the model does not reach max_length.
        """
        protocol, reach = protocols.get(self.protocol), model.config.max_length
        if self.max_length > reach:
            raise InputError(f"max_length={self.max_length}, but the model has positions for {reach} tokens")
        return dataclasses.replace(
            self,
            max_length=self.max_length or min(protocol.lengths[type], reach),
            tokens_per_batch=self.tokens_per_batch or TOKENS.get(jax.default_backend(), 8192),
        )

    def resolve(self, task: TaskSpec, model: Model) -> "Options":
        """Returns the options with everything decided.

        Raises InputError for an unknown protocol or rule, and a length or layer that the model does not reach.
        """
        layer = self.layer
        if layer is None and task.type == "retrieval":
            layer = protocols.layer(self.protocol, task.name, model.config.layers)
        long_sentences = self.long_sentences or protocols.get(self.protocol).long_sentences
        if long_sentences not in LONG_SENTENCES:
            raise InputError(suggest("long_sentences", long_sentences, LONG_SENTENCES))
        layer = None if layer is None else layer_of(model, layer)
        return dataclasses.replace(self.fit(task.type, model), layer=layer, long_sentences=long_sentences)


def layer_of(model: Model, layer: int) -> int:
    """Returns the number of a hidden state, counted from 0, of one that may be counted from the end (-1).

    Raises InputError for one that the model does not have.
    """
    count = model.config.layers
    if not -count - 1 <= layer <= count:
        raise InputError(f"layer={layer}: the model has the hidden states 0 to {count}")
    return layer % (count + 1)
