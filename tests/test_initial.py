import flax.errors
import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jxstilts.models import initial
from jxstilts.models.model import HeadSpec, Model, make_config

SHAPES = [(768, 700), (3, 200, 1000), (2**19,), (640, 2), (), (2**19 - 1,)]
KEY = jax.random.key(7)


def bits(array):
    return np.asarray(array).view(np.uint32)


def plain(std, shape, dtype="float32"):
    return jax.jit(lambda key: nn.initializers.normal(std)(key, shape, dtype))


@pytest.mark.parametrize("shape, own", zip(SHAPES, [True] * 3 + [False] * 3, strict=True))
def test_large_arrays_are_made_in_one_loop(shape, own):
    program = str(jax.make_jaxpr(lambda key: initial.normal(0.02)(key, shape, "float32"))(KEY))
    assert ("random_bits" not in program) == own


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("std", [0.02, 1.0])
def test_the_numbers_are_those_of_jax(shape, std):
    np.testing.assert_array_equal(bits(initial.normal(std)(KEY, shape, "float32")), bits(plain(std, shape)(KEY)))


def test_other_dtypes_are_those_of_jax():
    found = initial.normal(0.02)(KEY, SHAPES[0], "bfloat16")
    np.testing.assert_array_equal(found, plain(0.02, SHAPES[0], "bfloat16")(KEY))
    assert found.dtype == "bfloat16"


def test_keys_of_another_generator_are_honoured():
    key = jax.random.key(7, impl="rbg")
    np.testing.assert_array_equal(
        bits(initial.normal(0.02)(key, SHAPES[0], "float32")), bits(plain(0.02, SHAPES[0])(key))
    )


def test_the_numbers_do_not_depend_on_the_mesh():
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    split = NamedSharding(mesh, P("data", "model"))
    make = jax.jit(lambda key: initial.normal(0.02)(key, SHAPES[0], "float32"), out_shardings=split)
    np.testing.assert_array_equal(bits(make(KEY)), bits(plain(0.02, SHAPES[0])(KEY)))


def test_layers_of_a_stack_differ():
    """The large kernels of a stack are made inside a scan, with a key for each layer."""
    model = Model(make_config("xlmr", "tiny", width=768, heads=12, mlp=800, layers=2))
    kernels = jax.jit(model.init)(KEY)["encoder"]["layers"]["mlp_in"]["kernel"]
    assert kernels[0].size >= initial.LARGE
    values = np.asarray(kernels)
    assert not np.array_equal(values[0], values[1])
    assert values.std() == pytest.approx(0.02, rel=0.01) and abs(values.mean()) < 1e-4


def test_a_parameter_of_the_wrong_shape_is_refused_when_a_model_is_applied():
    model = Model(make_config("xlmr", "tiny"), (HeadSpec("qa", "span"),))
    params = jax.jit(model.init)(KEY)
    batch = {key: np.ones((1, 8), np.int32) for key in ("tokens", "segments", "positions")}
    table = params["encoder"]["embeddings"]["tokens"]
    params["encoder"]["embeddings"]["tokens"] = table[:, :16]
    with pytest.raises(flax.errors.ScopeParamShapeError, match="tokens"):
        model.encode(params, batch)
