"""Parameters that a phase leaves as they are: no gradient, no optimizer state, no update, nothing sent.

They are named by paths: of the encoder's parts, such as embeddings, embeddings/tokens or layers/mlp_in, all of it as
encoder, and heads as heads/NAME. A part has its layers in one array, so single layers cannot be frozen.
"""

from collections.abc import Sequence
from typing import Any

from jxstilts.checkpoint import leaves
from jxstilts.runtime import InputError, suggest


def check(params: Any, freeze: Sequence[str], where: str = "freeze") -> None:
    """Raises InputError for a path that names nothing, and where nothing is left to train."""
    known = {prefix for path in leaves(params) for prefix in _prefixes(path)}
    for name in freeze:
        if name not in known:
            raise InputError(f"{where}: {suggest('parameters', name, known)}")
    if not leaves(split(params, freeze)[0]):
        raise InputError(f"{where}={tuple(freeze)}: nothing is left to train")


def split(params: Any, freeze: Sequence[str]) -> tuple[dict, dict]:
    """Returns (what is trained, what is frozen): two trees without each other's leaves."""
    trained: dict[str, Any] = {}
    frozen: dict[str, Any] = {}
    for path, leaf in leaves(params).items():
        node = trained if _prefixes(path).isdisjoint(freeze) else frozen
        *inner, last = path.split("/")
        for key in inner:
            node = node.setdefault(key, {})
        node[last] = leaf
    return trained, frozen


def merge(one: Any, other: Any) -> Any:
    """Returns the tree that `split` split."""
    if not isinstance(one, dict):
        return one
    both = {**other, **one}
    return {key: merge(one[key], other[key]) if key in one and key in other else both[key] for key in both}


def _prefixes(path: str) -> set[str]:
    """encoder/layers/query/kernel -> encoder, layers, layers/query; heads/mnli/dense/bias -> heads/mnli."""
    room, *inner = path.split("/")
    if room == "heads":
        return {f"heads/{inner[0]}"}
    return {room, inner[0], "/".join(inner[:2])}
