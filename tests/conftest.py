"""Shared set-up. Eight simulated devices: sharding tests use them all, the others a mesh of one."""

import os
import pathlib

# Compiling is most of the tests' time; the parity tests are run once more with XLA's optimisations (see .ci/run).
FLAGS = " --xla_force_host_platform_device_count=8"
if "JXSTILTS_TEST_OPTIMISED" not in os.environ:
    FLAGS += " --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + FLAGS
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def corpus() -> pathlib.Path:
    """The data_dir of real public data, where the environment names one."""
    path = os.environ.get("JXSTILTS_DATA")
    if not path or not pathlib.Path(path).is_dir():
        pytest.skip("JXSTILTS_DATA does not name a data_dir (README: Tests on real data)")
    return pathlib.Path(path)


@pytest.fixture
def one_device():
    """A mesh of one device."""
    import jax

    from jxstilts.mesh import make_mesh

    return make_mesh({}, jax.devices()[:1])
