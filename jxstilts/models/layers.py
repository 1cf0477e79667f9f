"""The parts that every family is made of: dense, LayerNorm, GELU, and how they are computed."""

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxstilts.config import setting
from jxstilts.models.attention import NAMES, drop
from jxstilts.models.initial import matrix
from jxstilts.runtime import InputError, suggest

DTYPES = ("float32", "bfloat16", "float16")
REMAT = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True)
class Compute:
    """How the model is computed; changes speed, memory and rounding, never the parameters' shapes."""

    dtype: str = setting("float32", "precision of activations and matrix products", allowed=DTYPES)
    param_dtype: str = setting("float32", "precision of the parameters and the optimizer's moments", allowed=DTYPES)
    attention: str = setting(
        "xla",
        "which program computes it: cudnn on NVIDIA GPUs in half precision, splash on TPUs, auto chooses",
        allowed=NAMES,
    )
    remat: str = setting(
        "none", "what the backward pass computes again to save memory: all (full), or all but matrix products (dots)",
        allowed=REMAT,
    )  # fmt: skip

    def __post_init__(self):
        if self.attention not in NAMES:
            raise InputError(f"config.compute.attention: {suggest('attention backend', self.attention, NAMES)}")
        if self.remat not in REMAT:
            raise InputError(f"config.compute.remat: {suggest('remat policy', self.remat, REMAT)}")
        for key in ("dtype", "param_dtype"):
            if getattr(self, key) not in DTYPES:
                known = suggest("dtype", getattr(self, key), DTYPES)
                raise InputError(f"config.compute.{key}: {known}")

    @property
    def kinds(self) -> dict[str, str]:
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU, x * Phi(x) (Hendrycks and Gimpel 2016). Its derivative is written out: XLA's own is far slower."""
    return x * (0.5 * (1.0 + jax.lax.erf(x * 0.7071067811865476)))


@gelu.defjvp
def _gelu_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    cdf = 0.5 * (1.0 + jax.lax.erf(x * 0.7071067811865476))
    slope = cdf + x * (0.3989422804014327 * jnp.exp(-0.5 * jnp.square(x)))
    return x * cdf, slope * dx


def perturbed(words: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Returns the embeddings of a batch's tokens [B, T, D], moved by its `perturbation` [B, T, D], if it has one."""
    return words + batch["perturbation"].astype(words.dtype) if "perturbation" in batch else words


class Dense(nn.Module):
    """[..., D] -> [..., F], kernel [D, F]. Computed on flat [rows, D]: faster, on CPU above all going backward.

    Where `models.adapters` has put them beside the kernel, the product of lora_a [D, r] and lora_b [r, F] is added.
    """

    features: int
    axes: tuple[str, str]
    std: float
    dtype: str
    param_dtype: str
    rate: float = 0.0  # of dropout on x, where a key is given
    biased: bool = True

    @nn.compact
    def __call__(self, x, key=None):
        init = nn.with_logical_partitioning(matrix(self, self.std), self.axes)
        kernel = self.param("kernel", init, (x.shape[-1], self.features), self.param_dtype)
        flat = drop(x, self.rate, key).astype(self.dtype).reshape(-1, x.shape[-1])
        out = flat @ kernel.astype(self.dtype)
        if self.biased:
            bias_init = nn.with_logical_partitioning(nn.initializers.zeros, self.axes[1:])
            out += self.param("bias", bias_init, (self.features,), self.param_dtype).astype(self.dtype)
        if self.has_variable("params", "lora_a"):
            thin = flat @ self.get_variable("params", "lora_a").astype(self.dtype)
            out += thin @ self.get_variable("params", "lora_b").astype(self.dtype)
        return out.reshape(*x.shape[:-1], self.features)


class Bottleneck(nn.Module):
    """A place for adapters, y [..., D] -> y + U relu(D before(y)) of each one there, in their names' order.

    Without one, as an encoder begins, it is nothing. See `models.adapters`.
    """

    dtype: str
    param_dtype: str

    @nn.compact
    def __call__(self, y, before=lambda y: y):
        for _, own in sorted(self.variables.get("params", {}).items()):
            y = y + _squeezed(own, before(y).astype(self.dtype))
        return y


class Coupling(nn.Module):
    """A place for invertible adapters, x [..., D] -> x after `couple` with each one there, in their names' order."""

    @nn.compact
    def __call__(self, x):
        for _, own in sorted(self.variables.get("params", {}).items()):
            x = couple(own, x)
        return x


def couple(own, x: jax.Array, back: bool = False) -> jax.Array:
    """Additive coupling of the halves of x [..., D] (NICE, Dinh et al. 2015): x1 + F(x2), then x2 + G(that); or back.

    own: "first", F, and "second", G: each U relu(D x).
    """
    half = x.shape[-1] // 2
    one, two = x[..., :half], x[..., half:]
    if back:
        two = two - _squeezed(own["second"], one)
        one = one - _squeezed(own["first"], two)
    else:
        one = one + _squeezed(own["first"], two)
        two = two + _squeezed(own["second"], one)
    return jnp.concatenate([one, two], -1)


def _squeezed(own, x: jax.Array) -> jax.Array:
    """[..., D] -> [..., F], U relu(D x) with biases, on flat rows as `Dense`."""
    inner = x.reshape(-1, x.shape[-1])
    for half in ("down", "up"):
        inner = inner @ own[half]["kernel"].astype(x.dtype) + own[half]["bias"].astype(x.dtype)
        inner = nn.relu(inner) if half == "down" else inner
    return inner.reshape(*x.shape[:-1], inner.shape[-1])


class LayerNorm(nn.Module):
    """Layer normalisation over the last dimension (Ba et al. 2016), statistics in float32."""

    eps: float
    dtype: str
    param_dtype: str
    biased: bool = True

    @nn.compact
    def __call__(self, x):
        ones = nn.with_logical_partitioning(nn.initializers.ones, ("norm",))
        zeros = nn.with_logical_partitioning(nn.initializers.zeros, ("norm",))
        scale = self.param("scale", ones, (x.shape[-1],), self.param_dtype)
        bias = self.param("bias", zeros, (x.shape[-1],), self.param_dtype) if self.biased else 0.0
        x = x.astype(jnp.float32)
        centred = x - x.mean(-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.eps)
        return (normal * scale + bias).astype(self.dtype)


class Aggregation(nn.Module):
    """All hidden states of a token [N, B, T, D] -> one [B, T, D]: their sum, weighted by a softmax over the states.

    A state's score is a learned number of its own (Peters et al. 2018), and with `attention` its product with a learned
    query besides, divided by sqrt(D), so that a token chooses (after Chen et al. 2022, arXiv 2205.08497). States are
    scaled to the length of the token's last one: those within a pre-norm encoder are not normalised. The last state
    begins with half of the weight, the others share the rest: no finite scores give it all.
    """

    attention: bool
    param_dtype: str

    @nn.compact
    def __call__(self, states):
        count, width = states.shape[0], states.shape[-1]

        def first(key, shape, dtype):
            return jnp.zeros(shape, dtype).at[-1].set(jnp.log(count - 1.0))

        scores = self.param("bias", nn.with_logical_partitioning(first, ("norm",)), (count,), self.param_dtype)
        scores = scores.astype(jnp.float32)[:, None, None]
        x = states.astype(jnp.float32)
        squares = jnp.square(x).mean(-1, keepdims=True) + 1e-12
        x = x * jnp.sqrt(squares[-1] / squares)
        if self.attention:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, ("norm",))
            query = self.param("query", zeros, (width,), self.param_dtype).astype(jnp.float32)
            scores = scores + jnp.einsum("nbtd,d->nbt", x, query) / width**0.5
        weights = jnp.broadcast_to(jax.nn.softmax(scores, axis=0), x.shape[:-1])
        return jnp.einsum("nbt,nbtd->btd", weights, x).astype(states.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last dimension (Zhang and Sennrich 2019), statistics in float32."""

    eps: float
    dtype: str
    param_dtype: str

    @nn.compact
    def __call__(self, x):
        ones = nn.with_logical_partitioning(nn.initializers.ones, ("norm",))
        scale = self.param("scale", ones, (x.shape[-1],), self.param_dtype)
        x = x.astype(jnp.float32)
        return (x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.eps) * scale).astype(self.dtype)


class Perceptron(nn.Module):
    """[..., D] -> [..., F]: dropout, dense, activation, LayerNorm where `eps` is given, dropout, linear.

    rates: of the two dropouts. biased: have the dense layer and the norm a bias?
    """

    outputs: int
    std: float
    rates: tuple[float, float]
    activation: Callable[[jax.Array], jax.Array]
    dtype: str
    param_dtype: str
    eps: float | None = None
    biased: bool = True

    @nn.compact
    def __call__(self, x, rng=None):
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        keys = (None, None) if rng is None else jax.random.split(rng)
        inner = {"rate": self.rates[0], "biased": self.biased, **kinds}
        x = self.activation(Dense(x.shape[-1], ("embed", None), self.std, name="dense", **inner)(x, keys[0]))
        if self.eps is not None:
            x = LayerNorm(self.eps, name="norm", biased=self.biased, **kinds)(x)
        return Dense(self.outputs, ("embed", "classes"), self.std, rate=self.rates[1], name="out", **kinds)(x, keys[1])
