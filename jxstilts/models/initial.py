"""Random starting values."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

LARGE = 2**19  # elements
TURNS = ((13, 15, 26, 6), (17, 29, 16, 24))


def matrix(module: nn.Module, std: float) -> Callable:
    """Returns the initialiser of a module's matrix, normal(0, std).

    Where the module has its parameters, Flax asks the initialiser of each for nothing but its shape, in every trace;
    zeros say that soonest.
    """
    return normal(std) if module.is_initializing() else nn.initializers.zeros


@functools.lru_cache
def normal(std: float) -> Callable:
    """Returns an initialiser, normal(0, std): bit for bit the numbers of `nn.initializers.normal`.

    On a CPU JAX makes random bits in several passes over the whole array. For a large float32 one they are made here in
    one fused loop: a quarter of the time, and none of the memory, for a table of 250,002 words.
    """

    @functools.partial(jax.jit, static_argnums=(1, 2))  # traced once for each shape
    def init(key, shape, dtype="float32"):
        large = jnp.dtype(dtype) == jnp.float32 and LARGE <= math.prod(shape) < 2**32
        by_place = getattr(jax.config, "jax_threefry_partitionable", True)  # an option that JAX means to remove
        same = str(jax.random.key_impl(key)) == "threefry2x32" and by_place
        if not large or not same or jax.default_backend() != "cpu":
            return nn.initializers.normal(std)(key, shape, dtype)
        # 23 random bits are a number in [1, 2), which becomes one in (-1, 1), and that a normal one.
        one = jax.lax.bitcast_convert_type((_threefry(key, shape) >> 9) | np.uint32(0x3F800000), jnp.float32)
        least = np.nextafter(np.float32(-1), np.float32(0))
        uniform = jnp.maximum(least, (one - 1) * (np.float32(1) - least) + least)
        return np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform) * np.float32(std)

    return init


def _threefry(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """uint32 of a shape: Threefry-2x32 with 20 rounds (Salmon et al. 2011) of each element's place, halves xor-ed."""
    first, second = jax.random.key_data(key)
    keys = (first, second, first ^ second ^ np.uint32(0x1BD11BDA))
    place = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        place = place * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    left, right = jnp.zeros(shape, jnp.uint32) + keys[0], place + keys[1]
    for four in range(5):
        for turn in TURNS[four % 2]:
            left = left + right
            right = ((right << turn) | (right >> (32 - turn))) ^ left
        left, right = left + keys[(four + 1) % 3], right + keys[(four + 2) % 3] + np.uint32(four + 1)
    return left ^ right
