"""Adapters: small parts that are trained while the encoder is frozen, in params["adapters"][NAME].

lora      W + alpha / rank A B for matrices W of the encoder (Hu et al. 2021); A is normal, B zero.
houlsby   h + U relu(D h) on the output h of each attention and each feed-forward layer, before the residual is added
          (Houlsby et al. 2019)
pfeiffer  h + U relu(D LayerNorm(h + x)) on the output h of each feed-forward layer whose residual is x (Pfeiffer et al.
          2020, MAD-X); where the layer has no LayerNorm there (pre-LN), D reads h

An invertible adapter (MAD-X) goes with a houlsby or pfeiffer one: it changes the embeddings by `layers.couple`, and
masked words are looked for after its inverse.

B and U are zero at the start, so a model begins as the encoder that they are added to. LoRA is computed as two thin
products: W has no gradient then, and nothing of its size is ever made, as there would be for the sum W + A B.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxstilts.checkpoint import leaves, nested
from jxstilts.config import setting
from jxstilts.models.initial import normal
from jxstilts.models.layers import Bottleneck, Coupling, Dense
from jxstilts.models.patterns import matches
from jxstilts.runtime import InputError, suggest

SITES = {"houlsby": ("attention_adapter", "mlp_adapter"), "pfeiffer": ("normed_adapter",)}  # names of `Bottleneck`s
KINDS = ("lora", *SITES)
STD = 0.02  # of D


@dataclasses.dataclass(frozen=True)
class Adapter:
    """What an adapter is. The keys that another kind reads say nothing."""

    kind: str = setting("lora", "what it is", allowed=KINDS)
    matrices: tuple[str, ...] = setting(
        ("layers/query", "layers/value"), "lora: matrices of the encoder, by path as in `freeze`: layers/*/kernel = all"
    )
    rank: int = setting(8, "lora: columns of A", least=1)
    alpha: float = setting(16.0, "lora: A B is taken alpha / rank times")
    reduction: int = setting(16, "pfeiffer, houlsby: width of the model / width of the adapter", least=1)
    invertible: bool = setting(False, "pfeiffer, houlsby: with an invertible adapter on the embeddings (MAD-X)")
    layers: str = setting(":", "layers that have it, as Python slices a list: :-1 leaves the last out (MAD-X 2.0)")
    language: str = setting("", "of a language adapter, which is read for inputs in this language alone; '' = of none")

    def __post_init__(self):
        if self.kind not in KINDS:
            raise InputError(f"kind: {suggest('kind of adapter', self.kind, KINDS)}")
        if min(self.rank, self.reduction) < 1:
            raise InputError(f"rank={self.rank}, reduction={self.reduction}: they are at least 1")
        if not self.matrices and self.kind == "lora":
            raise InputError("matrices=(): name those that LoRA is for, such as layers/query")
        if self.invertible and self.kind == "lora":
            raise InputError("invertible=True is for the kinds pfeiffer and houlsby")
        begin, colon, end = self.layers.partition(":")
        if not colon or not all(part == "" or part.removeprefix("-").isdecimal() for part in (begin, end)):
            raise InputError(f"layers={self.layers!r:.60}: a slice of the layers, such as ':' or ':-1' or '0:2'")

    def span(self, count: int) -> tuple[int, int]:
        """Returns (the first layer, the one after the last) of `count`. Raises InputError where it is none."""
        begin, _, end = self.layers.partition(":")
        first, last, _ = slice(int(begin) if begin else None, int(end) if end else None).indices(count)
        if first >= last:
            raise InputError(f"layers={self.layers!r}: none of the model's {count} layers")
        return first, last


@dataclasses.dataclass(frozen=True)
class Sites:
    """Where an encoder takes adapters. dense: paths of its dense layers; others: of its `Bottleneck`s and `Coupling`.

    shapes, axes: of its parameters, by path.
    """

    dense: frozenset[str]
    others: frozenset[str]
    shapes: Mapping[str, Any]
    axes: Mapping[str, tuple]


@functools.lru_cache(maxsize=16)
def sites(model: Any) -> Sites:
    """Returns the places of a `Model` without heads. They are those that its encoder computes with, in shapes alone."""
    shapes, axes = model.abstract()
    found: dict[type, set[str]] = {Dense: set(), Bottleneck: set(), Coupling: set()}

    def note(call, args, kwargs, context):
        if context.method_name == "__call__" and type(context.module) in found:
            found[type(context.module)].add("/".join(context.module.path))
        return call(*args, **kwargs)

    row = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    batch = dict.fromkeys(("tokens", "segments", "positions"), row)
    with nn.intercept_methods(note):
        jax.eval_shape(lambda own, rows: model.encoder().apply({"params": own}, rows), shapes["encoder"], batch)
    named = leaves(axes["encoder"], is_leaf=lambda node: isinstance(node, tuple))
    return Sites(
        frozenset(found[Dense]), frozenset(found[Bottleneck] | found[Coupling]), leaves(shapes["encoder"]), named
    )


def init(spec: Adapter, model: Any, key: jax.Array) -> dict[str, Any]:
    """Returns an adapter's parameters, boxed with their axes: at each place a [L, D, r], b [L, r, F], or down, up.

    L is missing where the encoder's matrix has no such dimension. model: without heads. Raises InputError where the
    encoder has no such place.
    """
    there, made = sites(model), {}
    width, layers, dtype = model.config.width, model.config.layers, model.compute.param_dtype
    first, last = spec.span(layers)

    def add(path, shape, axes, std):
        own = jax.random.fold_in(key, zlib.crc32(path.encode()))
        value = normal(std)(own, shape, dtype) if std else jnp.zeros(shape, dtype)
        made[path] = nn.Partitioned(value, axes)

    if spec.kind == "lora":
        for path in _matrices(spec, there, layers):
            *stack, inputs, outputs = there.shapes[f"{path}/kernel"].shape
            *lead, axis, other = there.axes[f"{path}/kernel"]
            stack = [last - first] if spec.layers != ":" else stack
            add(f"{path}/a", (*stack, inputs, spec.rank), (*lead, axis, None), inputs**-0.5)
            add(f"{path}/b", (*stack, spec.rank, outputs), (*lead, None, other), 0)
        return nested(made)
    for path in (f"layers/{name}" for name in SITES[spec.kind]):
        _check_place(path, spec, there, model)
        _bottleneck(add, path, (width, max(width // spec.reduction, 1), width), last - first)
    if spec.invertible:
        _check_place("embeddings/coupling", spec, there, model)
        one, two = width // 2, width - width // 2
        for name, sizes in (("first", (two, max(two // 2, 1), one)), ("second", (one, max(one // 2, 1), two))):
            _bottleneck(add, f"embeddings/coupling/{name}", sizes)
    return nested(made)


def _check_place(path: str, spec: Adapter, there: Sites, model: Any) -> None:
    if path not in there.others:
        raise InputError(
            f"kind={spec.kind!r}: the encoder of the family {model.family!r} has no place for it; take kind='lora'"
        )


def _bottleneck(add: Callable, path: str, sizes: tuple[int, int, int], layers: int | None = None) -> None:
    """Adds D and U with their biases. sizes: inputs, inner ones, outputs. layers: None: not stacked."""
    stack, lead = ((), ()) if layers is None else ((layers,), ("layers",))
    wide = None if layers is None else "embed"
    add(f"{path}/down/kernel", (*stack, *sizes[:2]), (*lead, wide, None), STD)
    add(f"{path}/down/bias", (*stack, sizes[1]), (*lead, None), 0)
    add(f"{path}/up/kernel", (*stack, *sizes[1:]), (*lead, None, wide), 0)
    add(f"{path}/up/bias", (*stack, sizes[2]), (*lead, None), 0)


def _matrices(spec: Adapter, there: Sites, layers: int) -> list[str]:
    """Returns the paths of the dense layers that a LoRA is for."""
    known = {path.removeprefix("encoder/") for path in there.dense}
    chosen = []
    for pattern in spec.matrices:
        found = [path for path in there.dense if matches(f"encoder/{path}/kernel", [pattern])]
        if not found:
            raise InputError(f"matrices: {suggest('matrix of the encoder', pattern, known)}")
        chosen += found
    chosen = sorted(set(chosen))
    odd = [path for path in chosen if there.shapes[f"{path}/kernel"].shape[:-2] != (layers,)]
    if odd and spec.layers != ":":
        raise InputError(f"layers={spec.layers!r}: {odd[0]} is not stacked over the model's {layers} layers; take ':'")
    return chosen


def beside(encoder: Any, used: Sequence[tuple[Adapter, Any]], layers: int) -> dict[str, Any]:
    """Returns the encoder's parameters with those of adapters beside them, where `Dense` and `Bottleneck` look.

    used: (adapter, its parameters), in the order of a stack.
    """
    tree, thin = leaves(encoder), {}
    for place, (spec, own) in enumerate(used):
        for path, array in leaves(own).items():
            array = _on_all_layers(spec, array, layers) if path.startswith("layers/") else array
            if spec.kind == "lora":
                site, _, name = path.rpartition("/")
                scaled = array * (spec.alpha / spec.rank) if name == "a" else array
                thin.setdefault(f"{site}/lora_{name}", []).append(scaled)
            else:
                room, site, rest = path.split("/", 2)
                tree[f"{room}/{site}/{place:02}/{rest}"] = array
    for path, parts in thin.items():  # several on one matrix are one of all their ranks
        tree[path] = parts[0] if len(parts) == 1 else jnp.concatenate(parts, -1 if path.endswith("a") else -2)
    return nested(tree)


def _on_all_layers(spec: Adapter, array: jax.Array, layers: int) -> jax.Array:
    """Zeros, which add nothing, for the layers that have none."""
    if spec.layers == ":":
        return array
    first, last = spec.span(layers)
    return jnp.pad(array, ((first, layers - last), *((0, 0),) * (array.ndim - 1)))


def for_language(model: Any, params: Any, language: str) -> tuple[Any, Any]:
    """Returns (a `Model`, its parameters) for inputs in a language: of language adapters, those of the language alone.

    The model is the same for every language whose adapters are alike, so that they share what is compiled. Raises
    InputError where the model has language adapters and none of this language.
    """
    own = dict(model.adapters)
    known = sorted({spec.language for spec in own.values()} - {""})
    if not known:
        return model, params
    if language not in known:
        raise InputError(f"the model has language adapters of {', '.join(known)}, none of {language!r}")
    named, trees = [], {}
    for name, spec in own.items():
        if spec.language in ("", language):
            alias, mark = (f"language {len(named)}", "input") if spec.language else (name, "")
            named.append((alias, dataclasses.replace(spec, language=mark)))
            trees[alias] = params["adapters"][name]
    named = sorted(named, key=lambda each: not each[1].language)
    return dataclasses.replace(model, adapters=tuple(named), language="input"), {**params, "adapters": trees}


def merged(loaded: Any) -> Any:
    """Returns a `Loaded` with all its adapters, which are LoRA, added to the weights."""
    model, params = merge(loaded.model, loaded.params, [name for name, _ in loaded.model.adapters])
    return dataclasses.replace(loaded, model=model, params=params)


def merge(model: Any, params: Any, names: Sequence[str]) -> tuple[Any, Any]:
    """Returns (a `Model`, its parameters) with LoRA added to the encoder's weights, W + alpha / rank A B.

    names: of adapters, which are gone then. Raises InputError for one that is not there or is of another kind.
    """
    own = dict(model.adapters)
    if not names:
        raise InputError("merge: the model has no adapters")
    for name in names:
        if name not in own:
            raise InputError(f"merge: {suggest('adapter', name, own)}")
        if own[name].kind != "lora":
            raise InputError(f"merge: {name} is a {own[name].kind} adapter: LoRA alone can be added to the weights")
    thin = leaves(beside({}, [(own[name], params["adapters"][name]) for name in names], model.config.layers))
    flat = leaves(params["encoder"])
    for path in filter(lambda path: path.endswith("/lora_a"), thin):
        site = path.removesuffix("/lora_a")
        kernel = flat[f"{site}/kernel"]
        change = jnp.matmul(thin[path], thin[f"{site}/lora_b"], precision=jax.lax.Precision.HIGHEST)
        flat[f"{site}/kernel"] = (kernel + change).astype(kernel.dtype)
    rest = {name: tree for name, tree in params["adapters"].items() if name not in names}
    others = {room: tree for room, tree in params.items() if room not in ("encoder", "adapters")}
    kept = tuple((name, spec) for name, spec in model.adapters if name not in names)
    params = {"encoder": nested(flat), **others, **({"adapters": rest} if rest else {})}
    return dataclasses.replace(model, adapters=kept), params
