"""Segment-aware attention, of a text to itself or to another: one entry, several backends, chosen by name.

A backend that cannot honour what it is asked for (dropout, the platform, the precision) refuses; nothing falls back.
"auto" is a choice by a rule (`choose`), which the training log names.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jxstilts.mesh import on_one_cpu
from jxstilts.runtime import InputError, suggest

HALF = ("bfloat16", "float16")
SHOWN = "intermediates"  # Flax's collection for what a module keeps beside its result
SMALL = 2**23  # bytes of float32 scores of all rows: so many are no slower together on a CPU


class Sight(NamedTuple):
    """Which keys a query sees, and what is added to their scores; the arguments of `attend`."""

    segments: jax.Array
    key_segments: jax.Array
    window: jax.Array | int | None = None
    causal: bool = False
    bias: jax.Array | None = None
    scale: float | None = None

    @property
    def plain(self) -> bool:
        """Is it a text's scaled attention to itself, without anything added?"""
        return self.key_segments is self.segments and not self.causal and self.bias is None and self.scale is None


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array,
    *,
    backend: str,
    dropout: float = 0.0,
    dropout_key: jax.Array | None = None,
    window: jax.Array | int | None = None,
    key_segments: jax.Array | None = None,
    causal: bool = False,
    bias: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """Scaled dot-product attention inside each segment of a row (Vaswani et al. 2017, eq. 1).

    Args:
        query: [B, T, N, H] (rows, tokens, heads, head width). key, value: [B, S, N, H].
        segments: [B, T] int; a token attends to the tokens of its own segment only. Padding (0) is a segment of its
            own, so in a text's attention to itself no row of scores is ever masked whole.
        backend: a key of BACKENDS, or "auto".
        dropout: rate on the attention probabilities, applied when `dropout_key` is given.
        window: a token attends to those at most so many places before or after it; None: to all (Beltagy et al. 2020).
        key_segments: [B, S], of another text's tokens; None: query, key and value are of the same.
        causal: a token attends to none that comes after it in its row.
        bias: [1 or B, N, T, S] float32, added to the scores; the same for all rows where there is one.
        scale: of the products; None: H ** -0.5.
    Returns: [B, T, N, H] in query's dtype.
    Raises: InputError for an unknown backend, or one that cannot do what is asked.
    """
    if backend not in NAMES:
        raise InputError(f"config.compute.attention: {suggest('attention backend', backend, NAMES)}")
    rate = dropout if dropout_key is not None else 0.0
    sight = Sight(segments, segments if key_segments is None else key_segments, window, causal, bias, scale)
    backend, _ = choose(backend, rate, str(query.dtype), query.shape[1], window is not None, not sight.plain)
    return BACKENDS[backend](query, key, value, sight, rate, dropout_key)


def show(module: Any, query: jax.Array, key: jax.Array, segments: jax.Array, **sight: Any) -> None:
    """Keeps the weights of `attend`, float32 [B, N, T, S], where the module's caller asks for "intermediates".

    module: a Flax one, whose "attention" they are. sight: as `attend` takes it. Dropout takes no part.
    """
    if not module.is_mutable_collection(SHOWN):
        return
    seen = Sight(segments, **{"key_segments": segments, **sight})
    scores = jnp.where(mask(seen), _scores(query, key, seen), jnp.finfo(jnp.float32).min)
    module.sow(
        SHOWN, "attention", jax.nn.softmax(scores, axis=-1), reduce_fn=lambda old, new: new, init_fn=lambda: None
    )


def choose(
    backend: str, dropout: float, dtype: str, tokens: int = 128, windowed: bool = False, biased: bool = False
) -> tuple[str, str]:
    """Returns (backend, why). "auto" is the device's fused one where that can do what is asked, else xla.

    dropout: on the probabilities, 0 unless training; dtype: of the computation; tokens: of a row; windowed: is there a
    window? biased: is something added to the scores, or are they of a decoder?
    """
    if backend != "auto":
        return backend, "as configured"
    platform = jax.default_backend()
    fused = {"gpu": "cudnn", "tpu": "splash"}.get(platform)
    if fused is None:
        return "xla", f"the only one on {platform}"
    if dropout:
        return "xla", f"{fused} has no attention dropout, and this model's is {dropout}"
    if fused == "cudnn" and dtype not in HALF:
        return "xla", f"cudnn computes in {' or '.join(HALF)}, not {dtype}"
    if biased:
        return "xla", f"{fused} adds nothing to the scores here, and this model does"
    if fused == "splash" and windowed:
        return "xla", "splash has no window here, and this model has one"
    if fused == "splash" and tokens % 128:
        return "xla", f"splash needs rows of a multiple of 128 tokens, not {tokens}"
    return fused, f"fused, on {platform}"


def mask(sight: Sight) -> jax.Array:
    """-> [..., 1, T, S] bool: True where a query sees a key."""
    seen = sight.segments[..., None, :, None] == sight.key_segments[..., None, None, :]
    place, other = (jnp.arange(each.shape[-1]) for each in (sight.segments, sight.key_segments))
    if sight.window is not None:
        seen &= jnp.abs(place[:, None] - other) <= sight.window
    return seen & (place[:, None] >= other) if sight.causal else seen


def drop(x: jax.Array, rate: float, key: jax.Array | None, before: jax.Array | int = 0) -> jax.Array:
    """Inverted dropout. The mask is a function of the key and the global shape, so it does not depend on the mesh.

    before: of an x that is a part, how many vectors of the whole (along its last dimension) come before it.
    """
    return x if key is None or rate == 0.0 else _masked(x, rate, jax.random.key_data(key), jnp.uint32(before))


# Checkpointed: the backward pass computes the mask again, which costs less than storing and reading it.
@partial(jax.checkpoint, prevent_cse=False, static_argnums=(1,))
def _masked(x: jax.Array, rate: float, key: jax.Array, before: jax.Array) -> jax.Array:
    keep = _random_bits(key, x.shape, before) >= np.uint32(rate * 2.0**32)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))


def _random_bits(key: jax.Array, shape: tuple[int, ...], before: jax.Array) -> jax.Array:
    """key uint32 [2] -> uint32 `shape`: a hash of the key and of each element's row and column; `before` rows in.

    For dropout masks only. JAX's own generator costs some 5 ns an element on a CPU; this one costs a few tenths, and
    XLA fuses it with what reads it. Every row has a sequence of its own, chosen by 64 bits.
    """
    row = jnp.full((*shape[:-1], 1), before)
    stride = 1
    for axis in reversed(range(len(shape) - 1)):
        row += jax.lax.broadcasted_iota(jnp.uint32, row.shape, axis) * np.uint32(stride % 2**32)
        stride *= shape[axis]
    start = _mix(_mix(row ^ key[0]) ^ key[1])
    step = _mix(start + np.uint32(0x9E3779B9)) | np.uint32(1)
    return _mix(start + step * jax.lax.broadcasted_iota(jnp.uint32, shape, len(shape) - 1))


def _mix(x: jax.Array) -> jax.Array:
    """A bijection of uint32 in which every input bit sways every output bit (murmur3's scheme, Wellons' constants)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _xla(query, key, value, sight, rate, dropout_key):
    """Plain products; on one CPU row after row, unless they are small: only the scores of one row are stored, in cache.

    The backward pass computes them again, which there takes no longer than writing and reading those of all rows.
    """
    if not on_one_cpu():
        return _plain(query, key, value, sight, rate, dropout_key)
    rows, tokens, heads, _ = query.shape
    if 4 * rows * heads * tokens * key.shape[1] <= SMALL:
        return _fewer_passes(query, key, value, sight, rate, dropout_key)
    shared = sight.bias is None or len(sight.bias) == 1
    kept = sight if sight.bias is None or not shared else sight._replace(bias=sight.bias[0])

    @partial(jax.checkpoint, prevent_cse=False)
    def row(part):
        number, *arrays, segments, key_segments, bias = part
        own = kept._replace(segments=segments, key_segments=key_segments, **({} if shared else {"bias": bias}))
        return _fewer_passes(*arrays, own, rate, dropout_key, number * np.uint32(heads * tokens))

    numbers = jnp.arange(rows, dtype=jnp.uint32)
    parts = (numbers, query, key, value, sight.segments, sight.key_segments, None if shared else sight.bias)
    return jax.lax.map(row, parts)


def _plain(query, key, value, sight, rate, dropout_key):
    """query [B, T, N, H], key and value [B, S, N, H] -> [B, T, N, H]."""
    scores, value = _scores(query, key, sight), jnp.swapaxes(value, -3, -2)
    scores = jnp.where(mask(sight), scores, jnp.finfo(jnp.float32).min)
    weights = drop(jax.nn.softmax(scores, axis=-1), rate, dropout_key)
    return jnp.swapaxes(jnp.einsum("...ts,...sh->...th", weights.astype(value.dtype), value), -3, -2)


def _fewer_passes(query, key, value, sight, rate, dropout_key, before=0):
    """What `_plain` does, also of one row ([T, N, H], [T]), with fewer passes over the scores; before: as in `drop`.

    The softmax's sum divides the result, [T, H] a head, not the weights, [T, S]. The mask is added, so that XLA makes
    it once for all heads and layers; a score added to so much is lost in rounding, so the sum is what `where` gives.
    Not on a TPU: its backward pass keeps the undivided result in float32 (base on v5e:2x4: 3.99 to 4.14 GiB a chip).
    """
    scores, value = _scores(query, key, sight), jnp.swapaxes(value, -3, -2)
    scores += jnp.where(mask(sight), 0.0, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1, keepdims=True)
    weights = drop(weights, rate, dropout_key, before).astype(value.dtype)
    out = jnp.einsum("...ts,...sh->...th", weights, value, preferred_element_type=jnp.float32) / total
    return jnp.swapaxes(out.astype(value.dtype), -3, -2)


def _scores(query: jax.Array, key: jax.Array, sight: Sight) -> jax.Array:
    """[..., T, N, H], [..., S, N, H] -> float32 [..., N, T, S]: products of operands in the layout they read fastest.

    With the scale and the bias.
    """
    scale = query.shape[-1] ** -0.5 if sight.scale is None else sight.scale
    query, key = jnp.swapaxes(query, -3, -2) * scale, jnp.swapaxes(key, -3, -2)
    scores = jnp.einsum("...th,...sh->...ts", query, key, preferred_element_type=jnp.float32)
    return scores if sight.bias is None else scores + sight.bias


def _require(backend: str, platform: str, hardware: str, rate: float, sight: Sight) -> None:
    """Raises InputError where a fused backend cannot run, or would leave the dropout or the bias out."""
    if not sight.plain:
        raise InputError(
            f"config.compute.attention={backend!r} has neither a bias of the scores nor a decoder's mask, and this "
            "model needs them; set config.compute.attention='xla'"
        )
    if jax.default_backend() != platform:
        raise InputError(
            f"config.compute.attention={backend!r} needs {hardware}, this process runs on {jax.default_backend()!r}; "
            "set config.compute.attention='xla'"
        )
    if rate:
        raise InputError(
            f"config.compute.attention={backend!r} has no attention dropout, but the model asks for {rate}; "
            "set config.model.attention_dropout=0.0 or config.compute.attention='xla'"
        )


def _cudnn(query, key, value, sight, rate, dropout_key):
    _require("cudnn", "gpu", "an NVIDIA GPU", rate, sight)
    if str(query.dtype) not in HALF:
        raise InputError(
            f"config.compute.attention='cudnn' computes in bfloat16 or float16, not {query.dtype}; "
            "set config.compute.dtype='bfloat16' or config.compute.attention='xla'"
        )
    # The mask has to be [B, 1, T, T]: cuDNN knows no segment ids and refuses a broadcast [B, 1, 1, T] mask.
    return jax.nn.dot_product_attention(query, key, value, mask=mask(sight), implementation="cudnn")


def _splash(query, key, value, sight, rate, dropout_key):
    _require("splash", "tpu", "a TPU", rate, sight)
    if sight.window is not None:
        raise InputError(
            "config.compute.attention='splash' has no window here, but this model's attention has one; "
            "set config.compute.attention='xla'"
        )
    _, tokens, heads, width = query.shape
    if tokens % 128:
        raise InputError(
            f"config.compute.attention='splash' needs rows of a multiple of 128 tokens, not {tokens}; "
            "set config.phases.*.max_length and buckets accordingly, or config.compute.attention='xla'"
        )
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    every = splash.MultiHeadMask([splash.FullMask((tokens, tokens))] * heads)
    kernel = splash.make_splash_mha_single_device(every)
    ids = splash.SegmentIds(q=sight.segments, kv=sight.segments)
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query * width**-0.5, key, value))
    return jnp.swapaxes(jax.vmap(kernel)(query, key, value, ids), 1, 2)


BACKENDS = {"xla": _xla, "plain": _plain, "cudnn": _cudnn, "splash": _splash}
NAMES = ("auto", *BACKENDS)
