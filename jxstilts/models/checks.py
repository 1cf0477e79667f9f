"""What a stored model may say of itself: the values of its config and its labels, before anything is made of them."""

import typing
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jxstilts.checkpoint import leaves
from jxstilts.models.model import family_module
from jxstilts.runtime import InputError, shown


def check_values(family: str, values: Mapping[str, Any], where: str, names: Mapping[str, str] | None = None) -> None:
    """Raises InputError unless every value is one that the field of the family's Config can have.

    names: what the fields are called where the values stand. Unknown fields are left to `make_config`.
    """
    kinds = typing.get_type_hints(family_module(family).Config)
    for field, value in values.items():
        kind = kinds.get(field)
        if kind is None or (kind is bool and type(value) is bool):
            continue
        if typing.get_origin(kind) is typing.Literal:
            choices = typing.get_args(kind)
            if value not in choices:
                what = f"{where}{(names or {}).get(field, field)}={shown(repr(value), 60)}"
                raise InputError(f"{what}; allowed is {' or '.join(map(repr, choices))}")
            continue
        least = 0 if kind is float or field == "pad_id" else 1
        most, allowed = 2**31 - 1, f"{'number' if kind is float else 'whole number'} from {least} up"
        if field.endswith("dropout"):
            most, allowed = 1 - 1e-6, "number from 0 to below 1"
        if kind is bool or type(value) not in (int, kind) or not least <= value <= most:  # NaN is in no range
            allowed = "true or false" if kind is bool else f"a {allowed}"
            raise InputError(f"{where}{(names or {}).get(field, field)}={shown(repr(value), 60)}; allowed is {allowed}")
    if values.get("pad_id", 0) >= values.get("vocab_size", 2**31):
        raise InputError(f"{where}pad_id={values['pad_id']} is not in the vocabulary of {values['vocab_size']}")


def check_vocabulary(config: Any, tokenizer: Any, where: str = "") -> None:
    """Raises InputError where a tokenizer has more ids than the embedding has rows; JAX would clamp such an id.

    More rows than ids are fine: published models round their number up.
    """
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"{where}{': ' if where else ''}the tokenizer has {len(tokenizer):,} ids, but the model's embeddings have "
            f"{config.vocab_size:,} rows (vocab_size): they do not belong together; take the tokenizer that the model "
            "was trained with"
        )
    end = getattr(config, "eos_id", None)
    if end is not None and end != (own := tokenizer.eos_token_id):
        raise InputError(
            f"{where}{': ' if where else ''}the model's texts end with the id {end} (eos_id), the tokenizer's with "
            f"{own}: they do not belong together; of a model from a random start set config.model.eos_id={own}"
        )


def check_finite(params: Any, where: object) -> None:
    """Raises InputError for parameters that are NaN or infinite; it names all of them."""
    wrong = [path for path, leaf in leaves(params).items() if not _finite(leaf)]
    if wrong:
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise InputError(f"{where}: weights that are NaN or infinite: {', '.join(wrong[:10])}{more}")


def _finite(leaf: Any) -> bool:
    if not leaf.size:
        return True
    library = jnp if isinstance(leaf, jax.Array) else np
    return bool(library.isfinite(leaf.min())) and bool(library.isfinite(leaf.max()))  # both are NaN if one value is


def check_labels(labels: Sequence[str], where: str) -> None:
    """Raises InputError unless labels are texts that differ."""
    if not all(isinstance(label, str) and label.isprintable() for label in labels) or len(set(labels)) < len(labels):
        raise InputError(f"{where}: expected labels that differ, found {labels!r:.200}")
