"""Segments do not see each other, whatever the layout; remat and bfloat16 change no result; backends refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.batches import HERE, expected, one_per_row, packed, worst

from jxstilts.mesh import make_mesh, on_one_cpu
from jxstilts.models import bundle
from jxstilts.models.attention import BACKENDS, attend, choose, drop
from jxstilts.models.layers import Compute
from jxstilts.runtime import InputError

FOLDERS = [
    "xlmr_classification", "xlmr_span", "xlmr_xl_classification", "bert_classification",
    "modernbert_classification", "modernbert_span",  # whose first example is longer than the window
]  # fmt: skip


def apart_and_packed(folder):
    """The same three labelled examples: a row each, and all in one row."""
    wanted = expected(folder)
    types = wanted.get("types")
    apart = one_per_row(wanted["tokens"], wanted["mask"], types)
    together = packed(wanted["tokens"], wanted["mask"], 26, types)
    starts, ends = np.array([4, 2, 1]), np.array([9, 2, 2])
    first = together["first"][0]
    if folder.endswith("span"):
        apart |= {"start": starts[:, None], "end": ends[:, None]}
        together |= {"start": (starts + first)[None], "end": (ends + first)[None]}
    else:
        labels = np.array([2, 0, 1])
        apart |= {"labels": labels[:, None]}
        together |= {"labels": labels[None]}
    return apart, together


def run(model, params, batch):
    """Returns (mean loss, hidden, gradient) of the model's only head."""
    name = model.head_specs[0].name

    def mean(params, batch):
        hidden = model.encode(params, batch)
        total, weight = model.head(name).loss(params, hidden, batch)["loss"]
        return total / weight, hidden

    (loss, hidden), gradient = jax.jit(jax.value_and_grad(mean, has_aux=True))(params, batch)
    return loss, hidden, gradient


def largest_difference(a, b):
    return max(jax.tree.leaves(jax.tree.map(worst, a, b)))


@pytest.mark.parametrize("folder", FOLDERS)
def test_packed_examples_equal_examples_apart(folder):
    loaded = bundle.load(HERE / folder)
    apart, together = apart_and_packed(folder)
    loss, hidden, gradient = run(loaded.model, loaded.params, apart)
    packed_loss, row, packed_gradient = run(loaded.model, loaded.params, together)
    for i, (start, length) in enumerate(zip(together["first"][0], apart["segments"].sum(1), strict=True)):
        assert worst(row[0, start : start + length], hidden[i, :length]) < 1e-5
    assert abs(loss - packed_loss) < 1e-5
    assert largest_difference(gradient, packed_gradient) < 1e-5


def test_what_a_neighbour_says_does_not_matter():
    loaded = bundle.load(HERE / "xlmr_span")
    _, together = apart_and_packed("xlmr_span")
    other = {**together, "tokens": np.where(together["segments"] == 2, 7, together["tokens"])}
    encode = jax.jit(loaded.model.encode)
    before, after = (encode(loaded.params, batch)[0] for batch in (together, other))
    second = together["segments"][0] == 2
    np.testing.assert_array_equal(before[~second], after[~second])
    assert worst(before[second], after[second]) > 0.1


@pytest.mark.parametrize("folder", ["xlmr_classification", "modernbert_classification"])
def test_remat_changes_no_result(folder):
    loaded = bundle.load(HERE / folder)
    batch, _ = apart_and_packed(folder)
    loss, _, gradient = run(loaded.model, loaded.params, batch)
    for remat in ("full", "dots"):
        model = dataclasses.replace(loaded.model, compute=Compute(remat=remat))
        other_loss, _, other_gradient = run(model, loaded.params, batch)
        assert abs(loss - other_loss) < 1e-6, remat
        assert largest_difference(gradient, other_gradient) < 1e-6, remat


@pytest.mark.parametrize("folder", ["xlmr_classification", "xlmr_xl_classification"])
def test_bfloat16_stays_near(folder):
    wanted = expected(folder)
    batch = one_per_row(wanted["tokens"], wanted["mask"])
    loaded = bundle.load(HERE / folder, compute=Compute(dtype="bfloat16"))
    hidden = jax.jit(loaded.model.encode)(loaded.params, batch)
    assert hidden.dtype == jnp.bfloat16
    assert worst(hidden, wanted["hidden"][-1], wanted["mask"]) < 0.05  # 8 bits of mantissa, two layers, values up to 4
    logits = loaded.model.head("classification").logits(loaded.params, hidden, batch)
    assert worst(logits[:, 0], wanted["logits"]) < 0.02


@pytest.mark.parametrize("backend", ["xla", "plain"])
def test_a_window_ends_at_its_last_place_and_at_the_segment(backend):
    generator = np.random.default_rng(0)
    query, key, value = generator.standard_normal((3, 1, 12, 2, 4)).astype(np.float32)
    segments = np.array([[1] * 7 + [2] * 5])
    found = attend(query, key, value, segments, backend=backend, window=2)
    for place in range(12):
        seen = [other for other in range(12) if abs(other - place) <= 2 and segments[0, other] == segments[0, place]]
        scores = np.einsum("nh,snh->ns", query[0, place], key[0, seen]) / 2
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        assert worst(found[0, place], np.einsum("ns,snh->nh", weights, value[0, seen])) < 1e-5
    whole = attend(query, key, value, segments, backend=backend)
    np.testing.assert_array_equal(attend(query, key, value, segments, backend=backend, window=12), whole)


def call(backend, dtype=jnp.float32, tokens=128, **options):
    x = jnp.ones((1, tokens, 2, 8), dtype)
    return attend(x, x, x, jnp.ones((1, tokens), jnp.int32), backend=backend, **options)


def test_unknown_backend_names_the_nearest():
    with pytest.raises(InputError, match=r"config.compute.attention.*'cudn'.*did you mean 'cudnn'"):
        call("cudn")
    assert set(BACKENDS) == {"xla", "plain", "cudnn", "splash"}


@pytest.mark.parametrize("backend", ["cudnn", "splash"])
def test_backend_refuses_another_platform(backend):
    with pytest.raises(InputError, match=f"'{backend}' needs .* 'cpu'.*set config.compute.attention='xla'"):
        call(backend)


@pytest.mark.parametrize(
    ("backend", "platform", "options", "text"),
    [
        ("cudnn", "gpu", {"dtype": jnp.bfloat16, "dropout": 0.1}, "config.model.attention_dropout=0.0"),
        ("cudnn", "gpu", {}, "not float32; set config.compute.dtype='bfloat16'"),
        ("splash", "tpu", {"dropout": 0.1}, "config.model.attention_dropout=0.0"),
        ("splash", "tpu", {"tokens": 96}, "multiple of 128 tokens, not 96"),
        ("splash", "tpu", {"window": 64}, "'splash' has no window here"),
    ],
)
def test_backend_refuses_what_it_cannot_do(monkeypatch, backend, platform, options, text):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    key = jax.random.key(0) if "dropout" in options else None
    with pytest.raises(InputError, match=text):
        call(backend, dropout_key=key, **options)


@pytest.mark.parametrize("rows", [8, 40])
def test_on_one_cpu_attention_is_the_same_and_stores_the_scores_of_one_row_where_they_are_many(rows):
    generator = np.random.default_rng(0)
    arrays = generator.standard_normal((3, rows, 128, 4, 8), np.float32)  # query, key, value: 2 or 10 MiB of scores
    segments = np.sort(generator.integers(0, 4, (rows, 128)), axis=1)[:, ::-1]

    def loss(arrays, backend):
        out = attend(*arrays, segments, backend=backend, dropout=0.3, dropout_key=jax.random.key(1))
        return (out**2).sum(), out

    found = []
    for backend in ("xla", "plain"):
        compiled = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1).lower(arrays, backend).compile()
        found.append((*compiled(arrays), compiled.memory_analysis().temp_size_in_bytes))
    (gradient, out, memory), (wanted, expected_, more) = found
    assert worst(out, expected_) < 1e-6 and worst(gradient, wanted) < 1e-5
    assert rows == 8 or memory < more / 4


def test_a_mesh_says_whether_one_cpu_computes():
    assert on_one_cpu()
    for devices, alone in ((jax.devices()[:1], True), (jax.devices()[:2], False)):
        with jax.sharding.use_abstract_mesh(make_mesh(None, devices).abstract_mesh):
            assert on_one_cpu() is alone


def test_dropout_without_a_key_is_evaluation(monkeypatch):
    np.testing.assert_array_equal(call("xla", dropout=0.5), call("xla"))


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_masks_are_as_good_as_independent(rate):
    """Rate, and correlations between columns, rows, neighbouring keys: within 5 standard errors of independent bits."""
    shape = (16, 4, 32, 64)
    key = jax.random.key(3)
    keys = (key, jax.random.key(4), jax.random.fold_in(key, 1), *jax.random.split(key))
    masks = [np.asarray(drop(jnp.ones(shape), rate, key)) > 0 for key in keys]
    scale = (rate * (1 - rate)) ** 0.5
    bits = (masks[0] - (1 - rate)) / scale
    assert abs(bits.mean()) < 5 / bits.size**0.5
    columns, rows = bits.reshape(-1, 64), bits.reshape(64, -1).T
    for table in (columns, rows):
        correlation = table.T @ table / len(table)
        assert np.abs(correlation[~np.eye(table.shape[1], dtype=bool)]).max() < 5 / len(table) ** 0.5
    for other in masks[1:]:
        assert abs((bits * (other - (1 - rate)) / scale).mean()) < 5 / bits.size**0.5


def test_dropout_keeps_the_mean_and_its_gradient_has_the_same_mask():
    x, key = jnp.ones((8, 16, 32)), jax.random.key(0)
    kept = drop(x, 0.25, key)
    assert set(np.unique(kept).tolist()) == {0.0, np.float32(1 / 0.75).item()}
    gradient = jax.grad(lambda x: drop(x, 0.25, key).sum())(x)
    np.testing.assert_array_equal(gradient, kept)


@pytest.mark.parametrize(
    "platform, dropout, dtype, tokens, backend, why",
    [
        ("cpu", 0.0, "bfloat16", 128, "xla", "the only one on cpu"),
        ("gpu", 0.0, "bfloat16", 100, "cudnn", "fused, on gpu"),
        ("gpu", 0.1, "bfloat16", 128, "xla", "cudnn has no attention dropout, and this model's is 0.1"),
        ("gpu", 0.0, "float32", 128, "xla", "cudnn computes in bfloat16 or float16, not float32"),
        ("tpu", 0.0, "float32", 256, "splash", "fused, on tpu"),
        ("tpu", 0.1, "bfloat16", 256, "xla", "splash has no attention dropout"),
        ("tpu", 0.0, "bfloat16", 200, "xla", "rows of a multiple of 128 tokens, not 200"),
    ],
)
def test_auto_takes_the_fused_backend_where_it_can_do_what_is_asked(
    platform, dropout, dtype, tokens, backend, why, monkeypatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    chosen, reason = choose("auto", dropout, dtype, tokens)
    assert chosen == backend and why in reason
    assert choose("splash", dropout, dtype, tokens)[0] == "splash"
    assert choose("auto", dropout, dtype, tokens, windowed=True)[0] == ("cudnn" if backend == "cudnn" else "xla")


def test_auto_computes_what_its_choice_computes():
    loaded = bundle.load(HERE / "xlmr_classification", compute=Compute(attention="auto"))
    plain = bundle.load(HERE / "xlmr_classification")
    batch, _ = apart_and_packed("xlmr_classification")
    for found, expected_ in zip(*(run(one.model, one.params, batch) for one in (loaded, plain)), strict=True):
        assert largest_difference(found, expected_) == 0


@pytest.mark.parametrize("backend", ["cudnn", "splash"])
def test_a_fused_backend_is_given_the_layout_that_it_reads(backend, monkeypatch):
    """Its library's own computation, by XLA or interpreted, stands in for the hardware; two segments in a row."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    plain, kernel = jax.nn.dot_product_attention, splash.make_splash_mha_single_device
    monkeypatch.setattr(
        jax.nn, "dot_product_attention", lambda *arrays, implementation, **options: plain(*arrays, **options)
    )
    monkeypatch.setattr(splash, "make_splash_mha_single_device", lambda mask: kernel(mask, interpret=True))
    monkeypatch.setattr(jax, "default_backend", lambda: {"cudnn": "gpu", "splash": "tpu"}[backend])
    dtype = jnp.bfloat16 if backend == "cudnn" else jnp.float32
    arrays = np.random.default_rng(0).standard_normal((3, 2, 128, 3, 64)).astype(dtype)  # B 2, T 128, N 3, H 64
    segments = jnp.asarray([[1] * 50 + [2] * 78, [1] * 100 + [0] * 28])
    window = 20 if backend == "cudnn" else None
    found, wanted = (attend(*arrays, segments, backend=name, window=window) for name in (backend, "plain"))
    assert found.shape == (2, 128, 3, 64)
    assert np.abs(np.asarray(found - wanted, np.float32)).max() < (0.03 if backend == "cudnn" else 1e-5)
