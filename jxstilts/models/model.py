"""A model: one family's encoder and named heads, as pure functions of a plain nested dict of parameters.

params = {"encoder": {...}, "heads": {"mnli": {...}}}; where there are branches beside them, "extra": {NAME: {...}} and
"adapters": {NAME: {...}}, too
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxstilts import forms
from jxstilts.checkpoint import leaves
from jxstilts.models import adapters, heads
from jxstilts.models.adapters import Adapter
from jxstilts.models.attention import SHOWN
from jxstilts.models.families import ROOM
from jxstilts.models.families.base import Family, missing
from jxstilts.models.heads import HeadSpec
from jxstilts.models.heads.embedding import EmbeddingSpec, Recipe
from jxstilts.models.layers import Compute
from jxstilts.runtime import InputError, suggest

Params = dict[str, Any]
Batch = Mapping[str, jax.Array]


def families() -> list[str]:
    """Names of the model families, those of the user's own files included."""
    return ROOM.names()


def family_module(family: str) -> Family:
    """Returns a family. Raises InputError for an unknown name, and for a file that lacks a part of the contract."""
    module = ROOM.get(family, "config.model.family")
    if lacking := missing(module):
        raise InputError(f"{module.__file__}: a family also defines {', '.join(lacking)} (models/families/base.py)")
    return module


def published(name: str) -> tuple[str, str] | None:
    """Returns (family, preset) of a hub id whose weights are known, with or without a revision; None of another."""
    name = name.partition("@")[0]
    return next(((own, hub[name]) for own in families() if name in (hub := family_module(own).HUB)), None)


def head_class(type: str) -> type[heads.HeadBase]:
    """Returns the class of the heads of a type: one of `models.heads`, or that of a form. Raises InputError."""
    if type in heads.types():
        return heads.kind(type)
    known = {*heads.types(), *forms.names()}
    if type not in known:
        raise InputError(suggest("head type", type, known))
    return forms.get(type).head_class()


def make_config(family: str, preset: str | None = None, **changes):
    """Returns the family's Config from a preset and/or fields. Raises InputError for unknown names."""
    module = family_module(family)
    if preset is not None and preset not in module.PRESETS:
        raise InputError(f"config.model.preset: {suggest('preset', preset, module.PRESETS)}")
    known = {field.name for field in dataclasses.fields(module.Config)}
    for key in changes:
        if key not in known:
            raise InputError(f"config.model: {suggest('key', key, known)}")
    values = {**(module.PRESETS[preset] if preset else {}), **changes}
    missing = {f.name for f in dataclasses.fields(module.Config) if f.default is dataclasses.MISSING} - set(values)
    if missing:
        raise InputError(f"config.model: no value for {', '.join(sorted(missing))}; give them or a preset")
    return module.Config(**values)


@dataclasses.dataclass(frozen=True)
class Model:
    """Encoder + heads. Hashable, so it can be a static argument of jitted functions.

    extra: branches of parameters beside them, (name, anything hashable with `init(model, key)`); {} = no branch.
    adapters: (name, `adapters.Adapter`). language: of language adapters, that of this language is on, no other.
    """

    config: Any
    head_specs: tuple[HeadSpec, ...] = ()
    compute: Compute = dataclasses.field(default_factory=Compute)
    family: str = "xlmr"
    extra: tuple[tuple[str, Any], ...] = ()
    adapters: tuple[tuple[str, Adapter], ...] = ()
    language: str = ""

    def __post_init__(self):
        names = [spec.name for spec in self.head_specs]
        if len(set(names)) != len(names):
            raise InputError(f"a model's heads need different names, got {names}")

    def head(self, name: str):
        """Returns the head with this name (see `models/heads`): `loss` and `predict`."""
        specs = {spec.name: spec for spec in self.head_specs}
        if name not in specs:
            raise InputError(suggest("head", name, specs))
        spec = specs[name]
        layout = family_module(self.family).heads(self.config).get(spec.type, heads.Layout())
        invertible = tuple(name for name, spec in self.on if spec.invertible)
        return head_class(spec.type)(spec, self.config, self.compute, layout, invertible)

    @property
    def recipe(self) -> Recipe | None:
        """How the model makes a sentence's vector, where it is an embedding model."""
        found = (spec.recipe for spec in self.head_specs if isinstance(spec, EmbeddingSpec))
        return next(found, None)

    def with_prefix(self, prefix: str) -> "Model":
        """Returns the model with this text before each sentence, in its recipe. Raises InputError where it has none."""
        if self.recipe is None:
            raise InputError("prefix: this model has no recipe for sentence vectors (modules.json beside its weights)")
        recipe = dataclasses.replace(self.recipe, prefix=prefix)
        own = (
            dataclasses.replace(spec, recipe=recipe) if isinstance(spec, EmbeddingSpec) else spec
            for spec in self.head_specs
        )
        return self.with_heads(*own)

    @property
    def sentence(self) -> str:
        """How a hidden state of this family is pooled into a sentence's vector, where nothing else is said."""
        return family_module(self.family).SENTENCE

    @property
    def template(self):
        """The `data.template.Template` by which texts become this model's inputs."""
        return family_module(self.family).TEMPLATE

    def encoder(self, train: bool = False, all_hidden: bool = False) -> nn.Module:
        return family_module(self.family).Encoder(self.config, self.compute, train, all_hidden)

    def encode(self, params: Params, batch: Batch, rng: jax.Array | None = None, all_hidden: bool = False) -> jax.Array:
        """tokens, segments, positions [B, T] -> hidden [B, T, D] (or [L + 1, B, T, D]); with `rng`: with dropout.

        The family may read more of the batch.
        """
        rngs = {} if rng is None else {"dropout": rng}
        return self.encoder(rng is not None, all_hidden).apply({"params": self.body(params)}, batch, rngs=rngs)

    @property
    def on(self) -> list[tuple[str, Adapter]]:
        """The adapters that are on, in the order of a stack: that of a language comes first (MAD-X)."""
        found = [(name, spec) for name, spec in self.adapters if spec.language in ("", self.language)]
        return sorted(found, key=lambda each: not each[1].language)

    def body(self, params: Params) -> Any:
        """Returns the encoder's parameters, with those of the adapters that are on beside them."""
        used = [(spec, params["adapters"][name]) for name, spec in self.on]
        return adapters.beside(params["encoder"], used, self.config.layers) if used else params["encoder"]

    def attention(self, params: Params, batch: Batch) -> jax.Array:
        """tokens, segments, positions [B, T] -> the weights of every layer's attention, float32 [L, B, heads, T, T].

        Raises InputError for a family that does not show them (`models.attention.show`).
        """
        _, kept = self.encoder().apply({"params": self.body(params)}, batch, mutable=[SHOWN])
        shown = leaves(kept.get(SHOWN, {}))
        if not shown:
            raise InputError(f"the family {self.family!r} does not show its attention (models.attention.show)")
        stacks = (shown[path] for path in sorted(shown))  # a first layer apart is named before those that are stacked
        return jnp.concatenate([stack if stack.ndim == 5 else stack[None] for stack in stacks])

    def loss(self, params: Params, head: str, batch: Batch, rng: jax.Array | None = None) -> dict[str, tuple]:
        """Returns {name: (sum, weight)} of a head on a batch; divide once, after adding over everything."""
        encode_key, head_key = (None, None) if rng is None else jax.random.split(rng)
        head = self.head(head)
        hidden = self.encode(params, batch, encode_key, all_hidden=head.all_hidden)
        return head.loss(params, head.aggregated(params, hidden), batch, head_key)

    def predict(self, params: Params, head: str, batch: Batch) -> dict[str, jax.Array]:
        """Returns the head's arrays for a batch, without dropout."""
        head = self.head(head)
        if head.reads_attention:
            return head.predict(params, self.attention(params, batch), batch)
        hidden = self.encode(params, batch, all_hidden=head.all_hidden)
        return head.predict(params, head.aggregated(params, hidden), batch)

    # Jitted, so that what `abstract` has traced is not traced again by `init`.
    @functools.partial(jax.jit, static_argnums=0)
    def _init_encoder(self, rng: jax.Array) -> Any:
        row = jnp.zeros((1, 8), jnp.int32)
        batch = {"tokens": row, "segments": row + 1, "positions": row}
        return self.encoder().init({"params": jax.random.split(rng)[0]}, batch)["params"]

    @functools.partial(jax.jit, static_argnums=0)
    def _init_heads(self, rng: jax.Array) -> dict[str, Any]:
        own = jax.random.split(rng)[1]
        return {spec.name: self.head(spec.name).new(_named(own, spec.name)) for spec in self.head_specs}

    @functools.partial(jax.jit, static_argnums=0)
    def _init_extra(self, rng: jax.Array) -> dict[str, Any]:
        own = jax.random.fold_in(rng, 1)
        made = {name: branch.init(self, _named(own, name)) for name, branch in self.extra}
        return {name: branch for name, branch in made.items() if branch}

    @functools.partial(jax.jit, static_argnums=0)
    def _init_adapters(self, rng: jax.Array) -> dict[str, Any]:
        own = jax.random.fold_in(rng, 2)
        return {name: adapters.init(spec, self.bare, _named(own, name)) for name, spec in self.adapters}

    def init(self, rng: jax.Array) -> Params:
        """Random parameters: normal(init_std) matrices, zero biases, unit LayerNorms. Jittable."""
        return nn.unbox({"encoder": self.bare._init_encoder(rng)}) | self.init_beside(rng)

    def init_beside(self, rng: jax.Array) -> Params:
        """The heads, extra branches and adapters of `init`, without the work for the encoder."""
        beside = {"extra": self._init_extra(rng) if self.extra else {}}
        beside["adapters"] = self._init_adapters(rng) if self.adapters else {}
        return nn.unbox({"heads": self._init_heads(rng), **{room: tree for room, tree in beside.items() if tree}})

    @property
    def bare(self) -> "Model":
        """The encoder alone."""
        return dataclasses.replace(self, head_specs=(), extra=(), adapters=(), language="")

    def abstract(self) -> tuple[Params, Params]:
        """Returns (ShapeDtypeStructs, logical axes) of the parameters; the axes are tuples of names per dimension."""
        return _abstract(self)

    def with_heads(self, *specs: HeadSpec) -> "Model":
        return dataclasses.replace(self, head_specs=tuple(specs))


def _named(rng: jax.Array, name: str) -> jax.Array:
    """A key that depends on a name, not on its place: adding a head or a branch leaves the others as they were."""
    return jax.random.fold_in(rng, sum(ord(c) * 257**i for i, c in enumerate(name)) % 2**31)


@functools.lru_cache(maxsize=64)  # a phase asks five times
def _abstract(model: Model) -> tuple[Params, Params]:
    if model == model.bare:
        return _shapes({"encoder": model._init_encoder, "heads": model._init_heads})
    encoder, axes = _abstract(model.bare)  # whose trace is nearly all of the time, whatever stands beside it
    made = {"heads": model._init_heads} | ({"extra": model._init_extra} if model.extra else {})
    made |= {"adapters": model._init_adapters} if model.adapters else {}
    beside, own = ({name: tree for name, tree in trees.items() if tree or name == "heads"} for trees in _shapes(made))
    return {**encoder, **beside}, {**axes, **own}


def _shapes(made: dict[str, Callable[[jax.Array], Any]]) -> tuple[Params, Params]:
    def make():
        key = jax.random.key(0)  # made in here: outside it would need a device
        return {name: function(key) for name, function in made.items()}

    boxed = jax.eval_shape(make)
    is_box = lambda x: isinstance(x, nn.Partitioned)  # noqa: E731
    axes = jax.tree.map(lambda x: tuple(x.names) if is_box(x) else (None,) * x.ndim, boxed, is_leaf=is_box)
    return nn.unbox(boxed), axes
