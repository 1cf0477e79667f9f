"""The dual encoder: its loss against numpy, the same for any mesh and accumulation, trained and evaluated."""

import json

import jax
import numpy as np
import pytest
import samples

from jxstilts import config, forms, mesh, study, tracking
from jxstilts.data import batching
from jxstilts.data.tokenizer import encode
from jxstilts.forms.base import Reading
from jxstilts.mesh import make_mesh, put_batch
from jxstilts.models.heads.dual import DualSpec
from jxstilts.models.model import Model, make_config
from jxstilts.runtime import InputError
from jxstilts.train import objectives, optimizer, step

ROWS = 16


def pairs(count=ROWS):
    rng = np.random.default_rng(0)
    text = lambda: " ".join(rng.choice(samples.WORDS, int(rng.integers(2, 6))))  # noqa: E731
    return [{"id": str(i), "query": text(), "candidate": text()} for i in range(count)]


def built(negatives=4, pooler=False):
    words = samples.word_tokenizer()
    made = make_config("xlmr", "tiny", vocab_size=len(words), hidden_dropout=0.0, attention_dropout=0.0, pooler=pooler)
    return Model(made, (DualSpec("d", "dual", (), "pooler" if pooler else "", negatives),)), words


def batch_of(model, words, rows=ROWS, empty=1):
    """A pair a row, the last rows empty."""
    form, reading = forms.get("embedding"), Reading(max_length=12, query_length=8)
    features = form.tokenize(pairs(), words, model.template, reading)
    ids = [(2 * i, 2 * i + 1) for i in range(rows - empty)]
    fields = form.batch_fields(model.template)
    return batching.assemble(features, ids, length=24, num_rows=rows, fields=fields, max_segments=2, pad_id=1)


def test_loss_against_numpy():
    """Of both kinds of vector, from the same hidden states."""
    model, words = built(pooler=True)
    params, batch = jax.jit(model.init)(jax.random.key(0)), batch_of(model, words)
    hidden = jax.jit(model.encode)(params, batch)
    kernel, bias = (np.asarray(params["encoder"]["pooler"][name]) for name in ("kernel", "bias"))
    for pooling in ("", "pooler"):
        own = model.with_heads(DualSpec("d", "dual", (), pooling, 4))
        found = jax.jit(own.head("d").loss)(params, hidden, batch)
        vectors = np.zeros((ROWS, 2, hidden.shape[-1]))
        for row, side in np.argwhere(batch["weights"] > 0):
            states = np.asarray(hidden)[row][batch["segments"][row] == side + 1]
            vector = np.tanh(states[0] @ kernel + bias) if pooling else states.mean(0)
            vectors[row, side] = vector / np.linalg.norm(vector)
        total, blocks = 0.0, ROWS // 4
        for row in range(ROWS - 1):
            block = [other for other in range(row % blocks, ROWS, blocks) if other < ROWS - 1]
            scores = 100 * vectors[block, 1] @ vectors[row, 0]
            total += np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[block.index(row)]
        assert float(found["loss"][0]) == pytest.approx(total, rel=1e-4)
        assert float(found["loss"][1]) == ROWS - 1
    assert float(params["heads"]["d"]["scale"]) == 100


def after_steps(devices, accumulation):
    model, words = built()
    on = make_mesh({"data": devices}, jax.devices()[:devices])
    made = optimizer.make(optimizer.Optimizer(learning_rate=1e-3, warmup=0.0, weight_decay=0.0), 20)
    shardings, _ = step.state_shardings(model, made, on)
    state = jax.jit(lambda key: step.new_state(model.init(key), made, seed=3), out_shardings=shardings)(
        jax.random.key(0)
    )
    context = objectives.Context(vocab_size=len(words), mask_id=4, special_ids=(0, 1, 2, 3))
    train = step.make_train_step(model, {"d": step.Loss("d")}, made, on, context=context, accumulation=accumulation)
    losses = []
    for _ in range(2):
        state, metrics = train(state, {"d": put_batch(batch_of(model, words), on)})
        losses.append(float(metrics["loss"]))
    return losses


def test_neither_accumulation_nor_a_mesh_changes_the_task():
    plain = after_steps(1, 1)
    other = after_steps(4, 2)
    assert other[0] == pytest.approx(plain[0], rel=1e-5)
    assert other[1] == pytest.approx(plain[1], rel=1e-3)  # by the gradients; times 100, so are errors of rounding
    with pytest.raises(InputError, match="negatives_per_step=4 does not divide the 2 rows of a micro-batch"):
        after_steps(1, 8)


def test_texts_are_cut_each_at_its_own_length_and_lowered_if_asked():
    model, words = built()
    form, row = forms.get("embedding"), {"id": "0", "query": "The CAT runs " * 9, "candidate": "The DOG runs " * 9}
    made = form.tokenize([row], words, model.template, Reading(max_length=14, query_length=6))
    assert made.lengths.tolist() == [6, 14] and made.fields["example"].tolist() == [0, 0]
    low = form.tokenize([row], words, model.template, Reading(max_length=14, query_length=6, lower_case=True))
    expected = encode(words, [row["query"].lower()])[0][:4]
    assert low.tokens[1:5].tolist() == expected.tolist() != made.tokens[1:5].tolist()


CONFIG = """
from jxstilts.config import complete
from jxstilts.study import Study

def get_config(arg=None):
    return complete(Study, {
        "study": "dual", "data_dir": "", "compile_cache": arg or "", "mesh": {"data": 1},
        "model": {"preset": "tiny", "hidden_dropout": 0.0, "attention_dropout": 0.0},
        "tokenizer": {"path": "words"},
        "phases": {"answers": {
            "tasks": {"squad_retrieval": {"batch_size": 8, "max_length": 48, "negatives_per_step": 4, "buckets": 1}},
            "epochs": 1.0, "optimizer": {"learning_rate": 1e-3}, "log_every": 2,
            "select": {"metric": "map20", "rows": 8, "every": 100},
        }},
        "evaluations": {"lareqa": {
            "phase": "answers", "model": "tiny", "intermediate": "none",
            "what": {"tasks": ("lareqa",), "languages": ("en", "de"), "limit": 4, "options": {"max_length": 48}},
        }},
    })
"""


def test_trained_on_questions_and_evaluated_against_one_pool(world, tmp_path, compile_cache, monkeypatch):
    from jxstilts.data import tokenizer as tokenizers

    monkeypatch.chdir(tmp_path)
    tokenizers.save(samples.small_tokenizer(), tmp_path / "words")
    (tmp_path / "config.py").write_text(CONFIG)
    command = [f"--config={tmp_path / 'config.py'}:{compile_cache}", f"--config.data_dir={world}"]
    made = study.from_config(config.load(command))
    study.run(made, tmp_path / "run", devices=mesh.all_devices()[:1])
    folder = tmp_path / "run/phases/answers"
    rows = tracking.read_rows(folder / "metrics.jsonl")
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert len(losses) > 4 and np.isfinite(losses).all() and np.mean(losses[1:-1]) < losses[0]
    [head] = json.loads((folder / "best/bundle.json").read_text())["heads"]
    assert (head["type"], head["negatives"], head["name"]) == ("dual", 4, "squad_retrieval")
    rows = [json.loads(line) for line in (tmp_path / "run/results.jsonl").read_text().splitlines()]
    assert {(row["language"], row["metric"], row["pool"], row["n"]) for row in rows} == {
        (code, metric, 288, 4) for code in ("en", "de") for metric in ("map20", "map20_cross")
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("negatives_per_step=3", "negatives_per_step=3 does not divide batch_size=8"),
        ("packed=True", "packed=True: task 'squad_retrieval' compares the examples of a batch"),
    ],
)
def test_settings_that_cannot_be(world, tmp_path, monkeypatch, change, message):
    from jxstilts.data import tokenizer as tokenizers

    monkeypatch.chdir(tmp_path)
    tokenizers.save(samples.small_tokenizer(), tmp_path / "words")
    (tmp_path / "config.py").write_text(CONFIG)
    command = [f"--config={tmp_path / 'config.py'}", f"--config.data_dir={world}"]
    made = study.from_config(config.load([*command, f"--config.phases.answers.tasks.squad_retrieval.{change}"]))
    with pytest.raises(InputError, match=message):
        study.run(made, tmp_path / "run", devices=mesh.all_devices()[:1])
