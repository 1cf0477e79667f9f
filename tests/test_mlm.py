"""The masked-language-modelling head in tiles of positions: the numbers of the whole, less memory, no more is sent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jxstilts import hlo
from jxstilts.mesh import batch_sharding, make_mesh, replicated
from jxstilts.models import words
from jxstilts.models.layers import Compute
from jxstilts.models.model import HeadSpec, Model, make_config

ROWS, LENGTH, COUNT, VOCAB = 16, 24, 7, 600


def make_model(dtype="float32"):
    return Model(make_config("xlmr", "tiny", vocab_size=VOCAB, init_std=0.3), (HeadSpec("m", "mlm"),), Compute(dtype))


def given():
    """-> (hidden [B, T, D], batch); half of a row has no weight, and a word that is right stands in each."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(ROWS, LENGTH, 32)).astype(np.float32)
    batch = {
        "mlm_positions": rng.integers(0, LENGTH, (ROWS, COUNT)).astype(np.int32),
        "mlm_labels": rng.integers(0, VOCAB, (ROWS, COUNT)).astype(np.int32),
        "mlm_weights": (rng.random((ROWS, COUNT)) < 0.6).astype(np.float32),
    }
    model = make_model()
    logits = model.head("m").predict(model.init(jax.random.key(0)), hidden, batch)["logits"]
    batch["mlm_labels"][:, 0] = np.asarray(logits).argmax(-1)[:, 0]
    return hidden, batch


def gradients(model, mesh=None):
    """A function of (params, hidden, batch) -> (loss and accuracy as sums with weights, gradients of both inputs)."""

    def total(params, hidden, batch):
        sums = model.head("m").loss(params, hidden, batch)
        return 0.7 * sums["loss"][0] / sums["loss"][1], sums

    def run(params, hidden, batch):
        found = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
        if mesh is None:
            (_, sums), slopes = found(params, hidden, batch)
        else:
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                (_, sums), slopes = found(params, hidden, batch)
        return sums, slopes

    return run


@pytest.fixture
def tiles(monkeypatch):
    """Tiles of the given number of positions, however few logits there are."""

    def cut(positions):
        monkeypatch.setattr(words, "LARGE", 0)
        monkeypatch.setattr(words, "TILE", 4 * VOCAB * positions)

    return cut


@pytest.mark.parametrize("positions", [ROWS * COUNT, 20, 1])
def test_tiles_change_nothing(tiles, positions):
    model, (hidden, batch) = make_model(), given()
    params = model.init(jax.random.key(0))
    sums, slopes = jax.jit(gradients(model))(params, hidden, batch)
    tiles(positions)
    tiled, tiled_slopes = jax.jit(gradients(model))(params, hidden, batch)
    assert tiled["accuracy"] == sums["accuracy"] and 0 < sums["accuracy"][0] < sums["accuracy"][1]
    np.testing.assert_allclose(tiled["loss"], sums["loss"], rtol=1e-6)
    np.testing.assert_allclose(model.head("m").loss(params, hidden, batch)["loss"], sums["loss"], rtol=1e-6)
    for a, b in zip(jax.tree.leaves(tiled_slopes), jax.tree.leaves(slopes), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(np.abs(b).max(), 1e-3))
    assert np.abs(slopes[0]["encoder"]["embeddings"]["tokens"]).max() > 1e-3


def test_tiles_in_bfloat16(tiles):
    """Their slopes are added up in float32, so they come nearer to float32's than the whole's do."""
    model, (hidden, batch) = make_model("bfloat16"), given()
    params = model.init(jax.random.key(0))
    tiles(20)
    sums, slopes = jax.jit(gradients(model))(params, hidden, batch)
    exact, exact_slopes = jax.jit(gradients(make_model()))(params, hidden, batch)
    np.testing.assert_allclose(sums["loss"][0], exact["loss"][0], rtol=1e-2)
    tables = [each[0]["encoder"]["embeddings"]["tokens"] for each in (slopes, exact_slopes)]
    assert tables[0].dtype == jnp.float32
    np.testing.assert_allclose(tables[0], tables[1], rtol=0, atol=2e-2 * np.abs(tables[1]).max())


def test_a_tile_is_all_that_is_held(monkeypatch):
    """Of 64 tiles: less than a tenth of the memory of the whole logits."""
    model, (hidden, batch) = make_model(), given()
    shapes = [
        jax.eval_shape(model.init, jax.random.key(0)),
        jax.ShapeDtypeStruct((512, *hidden.shape[1:]), jnp.float32),
        {key: jax.ShapeDtypeStruct((512, 16), array.dtype) for key, array in batch.items()},
    ]
    sizes = []
    for positions in (0, 128):
        if positions:
            monkeypatch.setattr(words, "LARGE", 0)
            monkeypatch.setattr(words, "TILE", 4 * VOCAB * positions)
        compiled = jax.jit(gradients(model)).lower(*shapes).compile()
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    logits = 4 * 512 * 16 * VOCAB
    assert sizes[0] > logits and sizes[1] < sizes[0] - 0.9 * logits


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_rows_stay_on_their_devices(tiles, sizes):
    """Over a mesh: the same numbers, and only the words' gradient crosses, once."""
    mesh = make_mesh(dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)))
    model, (hidden, batch) = make_model(), given()
    params = model.init(jax.random.key(0))
    expected, slopes = jax.jit(gradients(model))(params, hidden, batch)
    placed = jax.tree.map(lambda _: replicated(mesh), params)
    placed["encoder"]["embeddings"]["tokens"] = NamedSharding(mesh, PartitionSpec("tensor", "fsdp"))
    rows = jax.tree.map(lambda _: batch_sharding(mesh), (hidden, batch))
    counts = []
    for positions in (0, 4):
        if positions:
            tiles(positions)
        step = jax.jit(
            gradients(model, mesh), in_shardings=(placed, *rows), out_shardings=(replicated(mesh), (placed, rows[0]))
        )
        compiled = step.lower(params, hidden, batch).compile()
        counts.append(hlo.cost(hlo.read(compiled.as_text())))
        found, others = step(*jax.device_put((params, hidden, batch), (placed, *rows)))
        np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-6)
        assert found["accuracy"] == expected["accuracy"]
        for a, b in zip(jax.tree.leaves(others), jax.tree.leaves(slopes), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * max(np.abs(b).max(), 1e-3))
    whole, tiled = counts
    assert tiled.flops <= whole.flops * 1.3  # the last tile is filled up
    if sizes[2] == 1:  # the tensor axis splits the words, and each tile's maximum is one over its devices
        assert {kind: each["count"] for kind, each in tiled.by_kind().items()}.keys() <= whole.by_kind().keys()
        assert tiled.sent <= 1.01 * whole.sent
