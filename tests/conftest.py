"""Shared set-up. Eight simulated devices: sharding tests use them all, the others a mesh of one."""

import gc
import os
import pathlib

gc.set_threshold(20_000, 10, 10)  # as the command line does

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
        pytest.skip("JXSTILTS_DATA does not name a data_dir (docs/development.md: Tests)")
    return pathlib.Path(path)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> pathlib.Path:
    """The tiny miniature world as a data_dir, for all tests alike: copy what is to be changed."""
    from jxstilts import miniworld

    folder = tmp_path_factory.mktemp("session") / "world"
    miniworld.write(folder)
    return folder


@pytest.fixture(scope="session")
def compile_cache(tmp_path_factory) -> pathlib.Path:
    """Studies that share it compile the same step once."""
    return tmp_path_factory.mktemp("compile")


@pytest.fixture(scope="session")
def xlmr(corpus):
    """XLM-R's own tokenizer."""
    from jxstilts.data import tokenizer

    return tokenizer.load(corpus / "tokenizer")


@pytest.fixture
def no_tfds(monkeypatch, tmp_path):
    """TFDS finds nothing, whatever is prepared on this machine."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing-prepared"))


@pytest.fixture
def one_device():
    """A mesh of one device."""
    import jax

    from jxstilts.mesh import make_mesh

    return make_mesh({}, jax.devices()[:1])
