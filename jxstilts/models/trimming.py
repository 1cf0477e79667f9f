"""A model with fewer rows of token embeddings: those of the pieces that a trimmed tokenizer has kept."""

import dataclasses
from collections.abc import Iterable

import jax
import numpy as np

from jxstilts.checkpoint import leaves
from jxstilts.models.huggingface import Loaded
from jxstilts.models.model import Model
from jxstilts.runtime import InputError


def fixed_ids(model: Model, ids: int) -> Iterable[int]:
    """Returns the ids that have to stay for the model's own sake, of a tokenizer of so many ids.

    Where positions count from the padding's id on, all ids up to it keep their places. Raises InputError where the
    config's pad_id is no id of the tokenizer.
    """
    config = model.config
    found = {config.pad_id, *range(config.first_position)}
    if max(found) >= ids:
        raise InputError(f"pad_id={config.pad_id} of the model's config is none of the tokenizer's {ids:,} ids")
    return sorted(found)


def pick(loaded: Loaded, kept: np.ndarray) -> Loaded:
    """Returns the model with row kept[i] as row i of everything that has a row, or a value, for each id.

    kept: int [n], ascending; the `fixed_ids` are among them. Rows beyond the tokenizer's ids, which no text reads, go.
    Raises InputError for parameters beside encoder and heads that have as many rows: their meaning is not known here.
    """
    config = loaded.model.config
    smaller = dataclasses.replace(
        config, vocab_size=len(kept), pad_id=int(np.searchsorted(kept, config.pad_id)),
    )  # fmt: skip
    model = dataclasses.replace(loaded.model, config=smaller)
    extra = leaves(loaded.params.get("extra", {}))
    odd = [path for path, leaf in extra.items() if config.vocab_size in leaf.shape]
    if odd:
        raise InputError(
            f"extra/{odd[0]}: {extra[odd[0]].shape}: it may have a row for each id; which, only its objective knows"
        )
    wanted = leaves(model.abstract()[0])

    def one(path, leaf):
        shape = wanted[jax.tree_util.keystr(path, simple=True, separator="/")].shape
        for axis in (axis for axis, size in enumerate(shape) if size != leaf.shape[axis]):
            leaf = np.asarray(leaf).take(kept, axis)
        return leaf

    return dataclasses.replace(loaded, model=model, params=jax.tree_util.tree_map_with_path(one, loaded.params))
