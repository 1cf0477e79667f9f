"""Parameters that a phase leaves as they are: no gradient, no optimizer state, no update, nothing sent.

They are named by their paths or the beginning of them, in which * stands for anything (fnmatch): encoder, heads/NAME,
encoder/layers/*/kernel, extra/NAME. The encoder's own parts need no encoder/ before them: embeddings, layers/mlp_in. A
part has its layers in one array, so single layers cannot be frozen.
"""

from collections.abc import Sequence
from typing import Any

from jxstilts.checkpoint import leaves, nested
from jxstilts.models.patterns import matches, prefixes
from jxstilts.runtime import InputError, suggest


def check(params: Any, freeze: Sequence[str], where: str = "freeze") -> None:
    """Raises InputError for a pattern that matches nothing, and where nothing is left to train."""
    paths = list(leaves(params))
    for pattern in freeze:
        if not any(matches(path, [pattern]) for path in paths):
            known = {prefix for path in paths for prefix in prefixes(path)}
            shown = {name for name in known if name.count("/") < 2 and not name.startswith("encoder/")}
            raise InputError(f"{where}: {suggest('parameters', pattern, known if '*' in pattern else shown)}")
    if not leaves(split(params, freeze)[0]):
        raise InputError(f"{where}={tuple(freeze)}: nothing is left to train")


def split(params: Any, freeze: Sequence[str]) -> tuple[dict, dict]:
    """Returns (what is trained, what is frozen): two trees without each other's leaves.

    A branch without arrays, as the head of an embedding model's recipe, stands in the first.
    """
    flat = leaves(params, is_leaf=lambda node: isinstance(node, dict) and not node)
    named = {path for path, leaf in flat.items() if not isinstance(leaf, dict) and matches(path, freeze)}
    trained = nested({path: leaf for path, leaf in flat.items() if path not in named})
    return trained, nested({path: leaf for path, leaf in flat.items() if path in named})


def merge(one: Any, other: Any) -> Any:
    """Returns the tree that `split` split."""
    if not isinstance(one, dict):
        return one
    both = {**other, **one}
    return {key: merge(one[key], other[key]) if key in one and key in other else both[key] for key in both}
