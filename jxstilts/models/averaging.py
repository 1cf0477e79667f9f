"""The mean of several sets of parameters: of checkpoints of one run, or of runs that began alike.

Izmailov et al. 2018 (arXiv 1803.05407); Wortsman et al. 2022 (arXiv 2203.05482); for zero-shot transfer Schmidt et al.
2023 (arXiv 2305.16834). The mean of runs is of use where they have one starting point, their heads' included.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jxstilts.checkpoint import leaves
from jxstilts.data import tokenizer as tokenizers
from jxstilts.models import bundle
from jxstilts.models.layers import Compute
from jxstilts.models.model import Params
from jxstilts.runtime import InputError


def mean(trees: Iterable[Params]) -> Params:
    """Returns the mean of trees of one shape, each leaf in its own dtype, where the first one's lie.

    Two trees are held beside the sum. It is float32 with what each addition loses kept apart (Neumaier 1974), which
    gives what float64 gives but for one rounding.
    """
    total = lost = like = None
    count = 0
    for tree in trees:
        if total is None:
            like = jax.tree.map(lambda leaf: leaf.dtype, tree)
            total, lost = _begin(tree)
        else:
            total, lost = _add(total, lost, tree)
        count += 1
    if total is None:
        raise InputError("the mean of no parameters")
    return jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), _divide(total, lost, count), like)


@jax.jit
def _begin(tree):
    first = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)
    return first, jax.tree.map(jnp.zeros_like, first)


@partial(jax.jit, donate_argnums=(0, 1))
def _add(total, lost, tree):
    def one(a, c, b):
        b = b.astype(jnp.float32)
        whole = a + b
        return whole, c + jnp.where(jnp.abs(a) >= jnp.abs(b), (a - whole) + b, (b - whole) + a)

    pairs = jax.tree.map(one, total, lost, tree)
    return jax.tree.transpose(jax.tree.structure(total), jax.tree.structure((0, 0)), pairs)


@jax.jit
def _divide(total, lost, count):
    return jax.tree.map(lambda a, c: (a + c) / count, total, lost)


def bundles(sources: Sequence[str | pathlib.Path], target: str | pathlib.Path) -> str:
    """Writes the bundle of the mean of several models, and returns its SHA-256.

    Raises InputError that says what differs where they are not of one architecture, one tokenizer, and heads of the
    same names, types and labels.
    """
    if len(sources) < 2:
        raise InputError(f"an average is of two models at least; got {len(sources)}")
    for source in sources:
        if bundle.model_of(source, Compute()).adapters:
            raise InputError(f"{source} has adapters, whose mean is not that of the weights: merge them first (import)")
    first, used = bundle.load(sources[0]), []
    for source in sources[1:]:
        _check_alike(first, sources[0], source)

    def each():
        for number, source in enumerate(sources):
            loaded = first if number == 0 else bundle.load(source)
            origin = {key: loaded.meta["provenance"][key] for key in ("phase", "source") if key in loaded.meta["provenance"]}  # noqa: E501  # fmt: skip
            used.append({"sha256": loaded.meta["sha256"], **origin})
            yield loaded.params

    params = mean(each())
    return bundle.save(target, first.model, params, tokenizer_files=first.tokenizer_dir, provenance={"average": used})


def _check_alike(first: Any, path: Any, source: Any) -> None:
    """Raises InputError where a model cannot be averaged with the first; reads no parameters."""
    one, other = first.model, bundle.model_of(source, first.model.compute)
    differ = []
    if one.family != other.family:
        differ.append(f"family {one.family!r} and {other.family!r}")
    elif one.config != other.config:
        values = zip(dataclasses.asdict(one.config).items(), dataclasses.asdict(other.config).values(), strict=True)
        differ += [f"{key} {a!r} and {b!r}" for (key, a), b in values if a != b]
    heads = [{spec.name: spec for spec in model.head_specs} for model in (one, other)]
    for name in sorted(heads[0].keys() ^ heads[1].keys()):
        differ.append(f"the head {name!r} is in {path if name in heads[0] else source} alone")
    for name in sorted(heads[0].keys() & heads[1].keys()):
        specs = [dataclasses.asdict(each[name]) for each in heads]
        differ += [f"the head {name!r}: {key} {a!r:.200} and {specs[1][key]!r:.200}"
                   for key, a in specs[0].items() if a != specs[1].get(key)]  # fmt: skip
    if not differ and leaves(one.abstract()[0]).keys() != leaves(other.abstract()[0]).keys():
        differ.append("the parameters of objectives")
    if _tokenizer(path) != _tokenizer(source):
        differ.append("the tokenizers")
    if differ:
        raise InputError(f"{path} and {source} cannot be averaged: they differ in {'; '.join(differ)}")


def _tokenizer(source: str | pathlib.Path) -> str | None:
    folder = pathlib.Path(source).expanduser() / "tokenizer"
    return tokenizers.fingerprint(tokenizers.load(folder)) if folder.is_dir() else None
