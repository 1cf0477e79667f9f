"""How examples become batches and answers."""

import dataclasses

import jax

from jxstilts.config import setting
from jxstilts.forms import Form, Reading
from jxstilts.models.heads.embedding import POOLINGS, Recipe
from jxstilts.models.model import Model
from jxstilts.runtime import InputError, suggest
from jxstilts.tasks import TaskSpec, protocols

# A CPU needs no larger batch to be busy, and of a small one the last leaves less empty: 3 rows of 384, or 9 of 128.
SENTENCES = ("", "protocol")
UNKNOWN_TAGS = ("miss", "leave_out")
TOKENS = {"cpu": 1152}


@dataclasses.dataclass(frozen=True)
class Options(Reading):
    """What is left at 0, "" or None is decided by the protocol, "authors" or "xtreme" (see `tasks.protocols`)."""

    protocol: str = setting("authors", "whose lengths, layers and rules are the defaults", allowed=protocols.PROTOCOLS)
    max_answer_length: int = setting(30, "span: tokens of an answer, at most", least=1)
    n_best: int = setting(
        20,
        "span: beginnings, and ends, that an answer is looked for among; embedding: candidates that "
        "jxstilts.api gives of a query",
        least=1,
    )
    tokens_per_batch: int = setting(0, "rows times their length; 0 = as suits the device", least=0)
    layer: int | None = setting(
        None, "retrieval: the hidden state that is pooled, 0 = embeddings, -1 = last; None = recipe or protocol"
    )
    pooling: str = setting(
        "", 'retrieval: how tokens become a vector, mean with special tokens; "" = as the model says', allowed=POOLINGS
    )
    sentence: str = setting(
        "",
        "retrieval: \"\" = an embedding model's own recipe, protocol = the protocol's hidden state",
        allowed=SENTENCES,
    )
    prefix: str | None = setting(None, "retrieval: text before each sentence; None = by the model's own recipe")
    unknown_tags: str = setting(
        "miss", "tagging: a word whose gold tag the head cannot predict is a miss, or is left out", allowed=UNKNOWN_TAGS
    )
    subtract_means: bool = setting(
        False, "retrieval: the mean of each side, which all sentences of a language share, is taken from its vectors"
    )
    question_noise: float = setting(
        0.0, "questions: share of the letters that are dropped, doubled or swapped with the next; below 1", least=0
    )
    beams: int = setting(
        1, "text to text: texts that are followed side by side; 1 = the likeliest token each time", least=1
    )
    max_features: int = setting(0, "only the first so many rows, windows, questions or sentences; 0 = all", least=0)

    def fit(self, form: Form, model: Model) -> "Options":
        """Returns the options with max_length and tokens_per_batch decided.

        Raises InputError where the model does not reach max_length, or the protocol knows none for the form.
        """
        lengths, reach = protocols.get(self.protocol).lengths, model.config.max_length
        if self.max_length > reach:
            raise InputError(f"max_length={self.max_length}, but the model has positions for {reach} tokens")
        if not self.max_length and form.name not in lengths:
            raise InputError(f"max_length: the protocol {self.protocol!r} has none for the form {form.name!r}; give it")
        return dataclasses.replace(
            self,
            max_length=self.max_length or min(lengths[form.name], reach),
            pooling=self.pooling or model.sentence,
            tokens_per_batch=self.tokens_per_batch or TOKENS.get(jax.default_backend(), 8192),
        )

    def resolve(self, task: TaskSpec, model: Model, plain: bool | None = None) -> "Options":
        """Returns the options with everything decided.

        plain: the model is read without a trained head; None: as the task's form says.
        Raises InputError for an unknown protocol or rule, and a length or layer that the model does not reach.
        """
        if self.sentence not in SENTENCES:
            raise InputError(suggest("sentence", self.sentence, SENTENCES))
        if self.unknown_tags not in UNKNOWN_TAGS:
            raise InputError(suggest("unknown_tags", self.unknown_tags, UNKNOWN_TAGS))
        if not 0 <= self.question_noise < 1:
            raise InputError(f"question_noise={self.question_noise} is a share of the letters: from 0, below 1")
        protocol = protocols.get(self.protocol)
        own = min(protocol.lengths.get(task.name, 0), model.config.max_length)
        query_length = self.query_length or protocol.query_lengths.get(task.name, 0)
        given = dataclasses.replace(self, max_length=self.max_length or own, query_length=query_length)
        decided = given.fit(task.form, model)
        layer = None
        if not task.form.has_head if plain is None else plain:
            recipe = self.recipe(model)
            decided = decided.by(recipe)
            layer = self.layer
            if layer is None and recipe is None:
                layer = protocols.layer(self.protocol, task.name, model.config.layers)
        return dataclasses.replace(
            decided,
            layer=None if layer is None else layer_of(model, layer),
            long_sentences=self.long_sentences or protocol.long_sentences,
        )

    def recipe(self, model: Model) -> Recipe | None:
        """Returns the model's own recipe where it counts: no hidden state and no other rule is asked for."""
        return model.recipe if self.layer is None and not self.sentence and not self.pooling else None

    def by(self, recipe: Recipe | None) -> "Options":
        """Returns the options with the prefix, the pooling and the length of a recipe, where it says something."""
        if recipe is None:
            return dataclasses.replace(self, prefix=self.prefix or "")
        length = min(self.max_length, recipe.max_length or self.max_length)
        prefix = recipe.prefix if self.prefix is None else self.prefix
        return dataclasses.replace(self, prefix=prefix, pooling=recipe.pooling, max_length=length)

    def in_words(self, model: Model) -> str:
        """Says how sentences become vectors, of options that are decided."""
        if self.layer is None:
            return f"the model's own recipe, {dataclasses.replace(model.recipe, prefix=self.prefix)}"
        prefix = f"prefix {self.prefix!r}, " if self.prefix else ""
        return f"{prefix}{self.pooling} of hidden state {self.layer} of {model.config.layers}"


def layer_of(model: Model, layer: int) -> int:
    """Returns the number of a hidden state, counted from 0, of one that may be counted from the end (-1).

    Raises InputError for one that the model does not have.
    """
    count = model.config.layers
    if not -count - 1 <= layer <= count:
        raise InputError(f"layer={layer}: the model has the hidden states 0 to {count}")
    return layer % (count + 1)
