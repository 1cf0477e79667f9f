"""Adapters: they begin as their encoder, have the gradients of the weights that they stand for, and leave it alone."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_step import ADAMW, CONTEXT, HEADS, make_batch

from benchmarks.tpu import classifier
from jxstilts.check import phases, program, report
from jxstilts.checkpoint import leaves, nested
from jxstilts.mesh import make_mesh, put_batch
from jxstilts.models import adapters
from jxstilts.models.adapters import Adapter
from jxstilts.models.layers import Bottleneck, Compute, couple
from jxstilts.models.model import Model, make_config
from jxstilts.runtime import InputError
from jxstilts.train import adapting, optimizer, step
from jxstilts.train import phase as phase_module
from jxstilts.train.adapting import Entry

LORA = Adapter(matrices=("layers/*/kernel",), rank=4, alpha=8.0)
MADX = Adapter("pfeiffer", reduction=4, layers=":-1")
HOULSBY = Adapter("houlsby", reduction=4)
PLAIN = make_config("xlmr", "tiny", hidden_dropout=0.0, attention_dropout=0.0)
BATCH = make_batch("tagging")


def model_with(**named) -> Model:
    return Model(PLAIN, (HEADS["tagging"],), adapters=tuple(named.items()))


def moved(params, seed=1):
    """The parameters with adapters that do something."""
    flat, key = leaves(params["adapters"]), jax.random.key(seed)
    made = {path: leaf + 0.1 * jax.random.normal(key, leaf.shape) for path, leaf in flat.items()}
    return {**params, "adapters": nested(made)}


def test_the_start_is_the_encoder_to_the_bit():
    model = model_with(a=LORA, b=MADX, c=HOULSBY)
    params = jax.jit(model.init)(jax.random.key(0))
    base = jax.jit(model.bare.encode)(params, BATCH)
    encode = jax.jit(model.encode)
    np.testing.assert_array_equal(encode(params, BATCH), base)
    for name in ("a", "b", "c"):
        own = {**params["adapters"], name: moved(params)["adapters"][name]}
        assert np.abs(encode({**params, "adapters": own}, BATCH) - base).max() > 0.01, name


def test_lora_is_the_sum_of_weights_and_has_its_gradients():
    """dL/dB = s A^T dL/dW, dL/dA = s dL/dW B^T of the merged weights W + s A B, in every layer."""
    model = model_with(own=LORA, more=dataclasses.replace(LORA, rank=2, matrices=("layers/query",), layers="1:"))
    params = moved(jax.jit(model.init)(jax.random.key(0)))

    def loss(params, model):
        return model.loss(params, "tags", BATCH)["loss"][0]

    grad = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    plain, merged = adapters.merge(model, params, ["own", "more"])
    assert plain.adapters == () and "adapters" not in merged
    (value, found), (same, whole) = grad(params, model), grad(merged, plain)
    np.testing.assert_allclose(value, same, rtol=1e-6)
    for site, own in params["adapters"]["own"]["layers"].items():
        scale, weights = LORA.alpha / LORA.rank, whole["encoder"]["layers"][site]["kernel"]
        expected = {
            "a": scale * jnp.einsum("ldf,lrf->ldr", weights, own["b"]),
            "b": scale * jnp.einsum("ldr,ldf->lrf", own["a"], weights),
        }
        for half, value in expected.items():
            given = found["adapters"]["own"]["layers"][site][half]
            np.testing.assert_allclose(given, value, rtol=0, atol=2e-5 * np.abs(value).max(), err_msg=site)
    kernel = lambda tree: tree["encoder"]["layers"]["query"]["kernel"]  # noqa: E731
    np.testing.assert_array_equal(found["adapters"]["more"]["layers"]["query"]["a"].shape, (1, 32, 2))
    first = adapters.merge(model, params, ["own"])[1]
    np.testing.assert_array_equal(kernel(first)[0], kernel(merged)[0])
    assert not np.array_equal(kernel(first)[1], kernel(merged)[1])


def test_a_bottleneck_by_hand():
    """Pfeiffer's on a layer's feed-forward output; nothing in the last layer; a language adapter comes first."""
    model = model_with(task=dataclasses.replace(MADX, layers=":"), own=dataclasses.replace(MADX, language="de"))
    model = dataclasses.replace(model, language="de")
    params = moved(jax.jit(model.init)(jax.random.key(0)))
    body = model.body(params)["layers"]["normed_adapter"]
    assert sorted(body) == ["00", "01"] and not np.any(body["00"]["up"]["kernel"][1])
    y, x = jax.random.normal(jax.random.key(2), (2, 3, 32))
    stack = jax.tree.map(lambda leaf: leaf[0], body)
    found = Bottleneck("float32", "float32").apply({"params": stack}, y, lambda y: 2 * y + x)
    for own in (stack["00"], stack["01"]):
        inner = np.maximum((2 * y + x) @ own["down"]["kernel"] + own["down"]["bias"], 0)
        y = y + inner @ own["up"]["kernel"] + own["up"]["bias"]
    np.testing.assert_allclose(found, y, rtol=1e-5, atol=1e-5)
    both = jax.jit(model.encode)(params, BATCH)
    off = jax.jit(dataclasses.replace(model, language="").encode)(params, BATCH)
    one, rest = adapters.for_language(model, params, "de")
    np.testing.assert_array_equal(jax.jit(one.encode)(rest, BATCH), both)
    assert not np.array_equal(both, off)
    with pytest.raises(InputError, match="language adapters of de, none of 'sw'"):
        adapters.for_language(model, params, "sw")


def test_an_invertible_adapter_and_its_inverse():
    """On the embeddings; masked words are looked for after the inverse; an adapter that is off changes neither."""
    spec = dataclasses.replace(MADX, invertible=True, language="de")
    model = Model(PLAIN, (HEADS["mlm"],), adapters=(("own", spec),), language="de")
    off = dataclasses.replace(model, language="")
    params = moved(jax.jit(model.init)(jax.random.key(0)))
    own = params["adapters"]["own"]["embeddings"]["coupling"]
    x = jax.random.normal(jax.random.key(5), (2, 3, 32))
    there, inner = couple(own, x), own["first"]
    np.testing.assert_allclose(couple(own, there, back=True), x, rtol=0, atol=1e-6)
    squeezed = np.maximum(x[..., 16:] @ inner["down"]["kernel"] + inner["down"]["bias"], 0) @ inner["up"]["kernel"]
    np.testing.assert_allclose(there[..., :16], x[..., :16] + squeezed + inner["up"]["bias"], rtol=0, atol=1e-5)
    embedded, plain = (jax.jit(partial(each.encode, all_hidden=True))(params, BATCH)[0] for each in (model, off))
    np.testing.assert_allclose(embedded, couple(own, plain), rtol=0, atol=1e-5)
    assert np.abs(embedded - plain).max() > 0.1
    batch = {"mlm_positions": np.arange(8, dtype=np.int32)[None].repeat(16, 0)}
    hidden = jax.random.normal(jax.random.key(6), (16, 32, 32))
    x, table, bias = off.head("mlm")._inputs(params, hidden, batch)
    expected = couple(own, x, back=True) @ table.T + bias
    np.testing.assert_allclose(model.head("mlm").logits(params, hidden, batch), expected, rtol=0, atol=1e-5)


def run(mesh, model, entries, steps=3, accumulation=1):
    """-> (the first parameters, the last state, losses) of a phase's step."""
    phase = adapting.frozen(phase_module.Phase(adapters=entries), model)
    optim = optimizer.make(ADAMW, 20)
    shardings, _ = step.state_shardings(model, optim, mesh, phase.freeze)
    init = jax.jit(lambda key: step.new_state(model.init(key), optim, 3, phase.freeze), out_shardings=shardings)
    state = init(jax.random.key(0))
    first = jax.device_get(state["params"])
    losses = {"tagging": step.Loss("tags")}
    train = step.make_train_step(
        model, losses, optim, mesh, context=CONTEXT, accumulation=accumulation, freeze=phase.freeze
    )  # fmt: skip
    found = []
    for _ in range(steps):
        state, metrics = train(state, {"tagging": put_batch(BATCH, mesh)})
        found.append(float(metrics["loss"]))
    return first, jax.device_get(state), found


def test_only_the_adapters_and_heads_are_trained_alike_on_any_mesh(one_device):
    """The encoder and an adapter that is kept: the same to the bit, without moments; one device, eight, accumulated."""
    model = model_with(lora=LORA, task=MADX, old=HOULSBY)
    entries = {"lora": Entry(**vars(LORA)), "task": Entry(**vars(MADX)), "old": Entry(use="keep")}
    first, state, losses = run(one_device, model, entries)
    changed = {path for path, leaf in leaves(state["params"]).items() if not np.array_equal(leaf, leaves(first)[path])}
    trained = {path for path in leaves(first) if path.startswith(("adapters/lora", "adapters/task", "heads/"))}
    assert set(leaves(optax.tree_utils.tree_get(state["opt_state"], "mu"))) == trained
    assert changed == trained and losses[-1] < losses[0]
    _, other, same = run(make_mesh({"data": 2, "fsdp": 2, "tensor": 2}), model, entries, accumulation=2)
    np.testing.assert_allclose(same, losses, rtol=0, atol=1e-5)
    for path, leaf in leaves(other["params"]).items():
        np.testing.assert_allclose(leaf, leaves(state["params"])[path], rtol=0, atol=2e-5, err_msg=path)


def test_what_check_counts():
    """The share that is trained; no moments and gradients of the encoder."""
    made = classifier("tiny", 16, 32, compute=Compute())
    model = dataclasses.replace(made.model, adapters=(("own", LORA),))
    phase = adapting.frozen(phase_module.Phase(adapters={"own": Entry(**vars(LORA))}), model)
    less = dataclasses.replace(made, model=model, freeze=phase.freeze)
    assert less.key != made.key
    part = program.compile(less, make_mesh({}, jax.devices()[:1]))
    encoder, added, heads = (
        sum(leaf.size for leaf in leaves(model.abstract()[0][room]).values())
        for room in ("encoder", "adapters", "heads")
    )
    assert part.parameters == encoder + added + heads and part.frozen == encoder and part.saved == 3 * 4 * encoder
    assert 0 <= part.memory.optimizer - 2 * 4 * (added + heads) < 100  # the schedule
    text = report.text(report.as_json(report.Checked(phases.Step("p", ("p",), less), part, None, "", None), None))
    assert f"{part.parameters:,}, {added + heads:,} of them trained" in text


def test_no_such_place():
    for family, spec, message in (
        ("xlmr", Adapter(matrices=("layers/quary",)), r"matrices: unknown matrix of the encoder 'layers/quary'; did"),
        ("xlmr", Adapter(matrices=("pooler",)), "unknown matrix of the encoder 'pooler'"),
        ("xlmr", Adapter(layers="2:"), "none of the model's 2 layers"),
        ("modernbert", MADX, "family 'modernbert' has no place for it; take kind='lora'"),
        ("modernbert", Adapter(matrices=("*/output",), layers=":1"), "first/output is not stacked"),
    ):
        model = Model(make_config(family, "tiny", pooler=True) if family == "xlmr" else make_config(family, "tiny"),
                      family=family, adapters=(("own", spec),))  # fmt: skip
        with pytest.raises(InputError, match=message):
            model.abstract()
    for keys, message in (
        ({"kind": "lorra"}, "did you mean 'lora'"), ({"layers": "last"}, "a slice of the layers"),
        ({"rank": 0}, "at least 1"), ({"use": "merge", "rank": 4}, "leave the other keys out"), ({"use": "on"}, "use"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            Entry(**keys)


@pytest.mark.parametrize(
    "family", ["modernbert", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bert", "mt5"))]
)
def test_lora_on_every_family(family):
    """Of every dense layer of an encoder, those that are not stacked too."""
    bare = Model(make_config(family, "tiny"), family=family)
    spec = Adapter(matrices=tuple(sorted(adapters.sites(bare).dense)))
    model = dataclasses.replace(bare, adapters=(("own", spec),))
    params = moved(jax.jit(model.init)(jax.random.key(0)))
    plain, merged = adapters.merge(model, params, ["own"])
    found, expected = jax.jit(model.encode)(params, BATCH), jax.jit(plain.encode)(merged, BATCH)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    assert not np.allclose(found, jax.jit(model.bare.encode)(params, BATCH), atol=1e-3)


def test_what_becomes_of_a_starting_points_adapters():
    start = (("old", LORA), ("de", dataclasses.replace(MADX, language="de")))

    def settle(start=start, **entries):
        return adapting.settle(entries, start, True, "config.phases.p.adapters")

    assert settle((), new=Entry())[0] == (("new", Adapter()),)
    kept = settle(old=Entry(use="keep"), de=Entry(use="keep"), new=Entry())
    assert [name for name, _ in kept[0]] == ["old", "de", "new"] and kept[1] == "de"
    assert settle(old=Entry(use="merge"), de=Entry(use="drop")) == ((), "")
    assert settle(old=Entry(**vars(LORA)), de=Entry(use="drop"))[0] == start[:1]
    for entries, message in (
        ({}, r"adapter 'old': say what becomes of it, config.phases.p.adapters.old.use='keep'"),
        ({"old": Entry()}, "another adapter of this name"), ({"old": Entry(use="keep")}, "here none of de"),
        ({"odl": Entry(use="keep")}, "did you mean 'old'"),
        ({"old": Entry(use="drop"), "de": Entry(use="keep"), "sw": Entry(language="sw")}, "here de, sw of de, sw"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            settle(**entries)
