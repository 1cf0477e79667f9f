"""Word pairs drawn together in one hidden state: the loss against numpy, with LoRA, on any mesh; the probe by layer."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from test_dual import ROWS, batch_of, built

from jxstilts import tasks
from jxstilts.checkpoint import leaves
from jxstilts.eval import alignment
from jxstilts.mesh import make_mesh, put_batch
from jxstilts.models.adapters import Adapter
from jxstilts.runtime import InputError
from jxstilts.train import adapting, objectives, optimizer, step
from jxstilts.train import phase as phase_module
from jxstilts.train.adapting import Entry
from jxstilts.train.objectives import contrastive

CONTEXT = objectives.Context(vocab_size=1000, mask_id=4, special_ids=(0, 1, 2, 3))
LORA = Adapter(matrices=("layers/*/kernel",), rank=4, alpha=8.0, layers=":1")


def vectors(states, batch):
    """-> [L + 1, B, 2, D] means of the tokens of each word, special ones left out"""
    tokens, segments = np.asarray(batch["tokens"]), np.asarray(batch["segments"])
    made = np.zeros((len(states), len(tokens), 2, states.shape[-1]))
    for row, side in np.argwhere(np.asarray(batch["weights"]) > 0):
        inner = (segments[row] == side + 1) & (tokens[row] > 3)
        made[:, row, side] = np.asarray(states)[:, row, inner].mean(1)
    return made


def test_loss_against_numpy():
    model, words = built()
    model = model.with_heads()
    params, batch = jax.jit(model.init)(jax.random.key(0)), batch_of(model, words)
    states = jax.jit(lambda own, rows: model.encode(own, rows, all_hidden=True))(params, batch)
    for layer, count in ((1, 4), (-1, 0)):
        own = contrastive.Objective(name="words", layer=layer, temperature=0.1, negatives=count)
        forward = types.SimpleNamespace(batch=own.prepare(batch, None, CONTEXT), state=states.__getitem__)
        total, weight, logs = own.loss(model, params, {"words": forward}, None, None)
        found = vectors(states, batch)[layer]
        found /= np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-9)
        expected, blocks = 0.0, ROWS // (count or ROWS)
        for row in range(ROWS - 1):
            block = [other for other in range(row % blocks, ROWS, blocks) if other < ROWS - 1]
            for side in (0, 1):
                scores = found[block, 1 - side] @ found[row, side] / 0.1
                expected += 0.5 * (np.log(np.exp(scores).sum()) - scores[block.index(row)])
        assert float(total) == pytest.approx(expected, rel=1e-4) and float(weight) == ROWS - 1
        cosines = (found[:-1, 0] * found[:-1, 1]).sum(-1).sum()
        assert float(logs["cosine"][0]) == pytest.approx(cosines, rel=1e-4)
    for keys, message in (({"layer": 3}, "hidden states 0 to 2"), ({"negatives": 5}, "does not divide the 16 rows")):
        with pytest.raises(InputError, match=message):
            contrastive.Objective(name="words", **keys).loss(model, params, {"words": forward}, None, None)
    with pytest.raises(InputError, match="temperature=0"):
        contrastive.Objective(name="words", temperature=0.0)


def after_steps(mesh, accumulation, steps):
    """-> (the first parameters, the last, the logs of each step) of LoRA on the first layer, loss on its states."""
    model, words = built()
    model = dataclasses.replace(model.with_heads(), adapters=(("own", LORA),))
    freeze = adapting.frozen(phase_module.Phase(adapters={"own": Entry(**vars(LORA))}), model).freeze
    made = optimizer.make(optimizer.Optimizer(learning_rate=1e-2, warmup=0.0, weight_decay=0.0), 40)
    shardings, _ = step.state_shardings(model, made, mesh, freeze)
    state = jax.jit(lambda key: step.new_state(model.init(key), made, 3, freeze), out_shardings=shardings)(
        jax.random.key(0)
    )
    first = jax.device_get(state["params"])
    options = {"layer": 1, "temperature": 0.1, "negatives": 4}
    losses = {"words": step.Loss("", "contrastive", options=options)}
    train = step.make_train_step(model, losses, made, mesh, context=CONTEXT, accumulation=accumulation, freeze=freeze)
    found = []
    for _ in range(steps):
        state, metrics = train(state, {"words": put_batch(batch_of(model, words), mesh)})
        found.append({name: float(metrics[name]) for name in ("loss", "cosine")})
    return model, words, first, jax.device_get(state["params"]), found


def test_lora_draws_the_pairs_together(one_device):
    model, words, first, last, logs = after_steps(one_device, 1, 20)
    assert logs[-1]["loss"] < 0.7 * logs[0]["loss"]
    for path, leaf in leaves(last["encoder"]).items():
        np.testing.assert_array_equal(leaf, leaves(first["encoder"])[path])
    batch = batch_of(model, words)
    encode = jax.jit(lambda own, rows: model.encode(own, rows, all_hidden=True))
    probes = []
    for params in (first, last):
        found = vectors(encode(params, batch), batch)[:, :-1]
        probes.append(alignment.probe(found[:, :, 0], found[:, :, 1]))
        pairs = np.mean([_cosine(*found[1, row]) for row in range(ROWS - 1)])
        others = [_cosine(found[1, i, 0], found[1, j, 1]) for i in range(ROWS - 1) for j in range(ROWS - 1) if i != j]
        np.testing.assert_allclose((probes[-1].pairs[1], probes[-1].others[1]), (pairs, np.mean(others)), rtol=1e-5)
    assert probes[1].margin[1] > probes[0].margin[1] + 0.1 and probes[1].pairs[0] == probes[0].pairs[0]

    _, _, _, _, other = after_steps(make_mesh({"data": 4}, jax.devices()[:4]), 2, 2)
    for one, two in zip(logs, other, strict=False):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    with pytest.raises(InputError, match="expected twice"):
        alignment.probe(np.zeros((2, 1, 3)), np.zeros((2, 1, 3)))


def _cosine(one, other):
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def test_word_pairs_are_read_from_a_file(tmp_path):
    file = tmp_path / "word_pairs/sw.tsv"
    file.parent.mkdir()
    file.write_text("maji\twater\nmti mkubwa\tbig tree\n")
    found = tasks.load("word_pairs", tmp_path, "train", "sw")
    assert found == [
        {"id": "0", "query": "maji", "candidate": "water"}, {"id": "1", "query": "mti mkubwa", "candidate": "big tree"}
    ]  # fmt: skip
    file.write_text("maji\twater\nmti\n")
    with pytest.raises(InputError, match=r"sw.tsv:2: 'mti': expected two columns"):
        tasks.load("word_pairs", tmp_path, "train", "sw")
