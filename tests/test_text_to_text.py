"""Tasks as text, by hand-written examples of the cited formats; packing with targets; span corruption restated."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts import tasks
from jxstilts.data import batching, packing
from jxstilts.data.features import concatenate
from jxstilts.eval import predict
from jxstilts.forms import Reading, texts
from jxstilts.mesh import make_mesh, put_batch
from jxstilts.models.heads.text_to_text import TextSpec
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError
from jxstilts.train import optimizer, step
from jxstilts.train.objectives import base, span_corruption
from jxstilts.train.terms import Loss

PAIR = {"id": "1", "text_a": "A man {sleeps}.", "text_b": "He rests.", "label": 1}
QUESTION = {
    "id": "q", "question": "Who re-used it?", "context": "It was re-used (again) by O'Neil-Smith.",
    "answers": [{"text": "O'Neil-Smith", "start": 26}],
}  # fmt: skip
WORDS = {"id": "w", "words": ["Rick", "met", "Rick", "Deckard", "."], "tags": ["B-PER", "O", "B-PER", "I-PER", "O"]}
CHOICE = {"id": "c", "prompt": "It rained.", "choices": ["dry", "wet"], "label": 1}
FORMATS = [  # task, example, input, target: by hand, from tasks.py and preprocessors.py of the two repositories
    ("mnli", PAIR, "mnli hypothesis: He rests. premise: A man {sleeps}.", "entailment"),
    ("xnli", PAIR, "xnli: premise: A man {sleeps}. hypothesis: He rests.", "0"),
    ("pawsx", PAIR, "paws sentence1: A man {sleeps}. sentence2: He rests.", "paraphrase"),
    ("qqp", PAIR | {"label": 0}, "qqp question1: A man {sleeps}. question2: He rests.", "not_duplicate"),
    (
        "mlqa", QUESTION, "question: Who re - used it ?  context: It was re - used ( again ) by O ' Neil - Smith . ",
        "O ' Neil - Smith",
    ),
    ("squad_v2", QUESTION | {"answers": []}, None, "unanswerable"),
    ("panx", WORDS, "tag: Rick met Rick Deckard .", "PER: Rick $$ PER: Rick Deckard"),
    ("udpos", WORDS | {"tags": ["PROPN", "VERB", "PROPN", "PROPN", "PUNCT"]}, "tag: Rick met Rick Deckard .",
     "PROPN VERB PROPN PROPN PUNCT"),
    ("cosmosqa", CHOICE, "cosmosqa prompt: It rained. choice1: dry choice2: wet", "choice2"),
    ("xcopa", CHOICE, "copa prompt: It rained. choice1: dry choice2: wet", "choice2"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "example", "asked", "said"), FORMATS, ids=[row[0] for row in FORMATS])
def test_formats_and_what_is_read_back(name, example, asked, said):
    spec = tasks.get(f"{name}_text")
    text, origin = spec.text, spec.origin
    assert spec.type == "text_to_text" and origin is tasks.get(name)
    spec.form.check(spec, [example])
    assert asked is None or text.input(example, origin.labels) == asked
    assert text.target(example, origin.labels) == said
    read = text.read(said, example, origin.labels)
    if origin.type in ("classification", "choice"):
        assert read == example["label"] and text.wrong(example) not in range(9)
    elif origin.type == "tagging":
        assert read == example["tags"] and set(text.wrong(example)) == {"O"}
    elif origin.unanswerable:
        assert read == {"text": "", "no_answer": 1.0}
    else:
        assert read == "O'Neil-Smith" and text.read("nobody - else", example, ()) == "nobody - else"
    assert text.read("", example, origin.labels) is None or name == "panx"


def test_every_task_that_is_scored_by_a_head_has_a_text_form():
    for name in tasks.names():
        spec = tasks.get(name)
        assert (spec.text is not None) == (spec.type in ("classification", "choice", "tagging", "span")), name
    trained = {"mlqa": "squad_v1", "multichecklist": "squad_v1", "xcopa": "copa", "mnli": "mnli"}
    assert all(tasks.get(f"{name}_text").train_task == f"{own}_text" for name, own in trained.items())
    own = tasks.get("xnli_text").train_task
    assert own == "mnli_as_xnli_text" and tasks.get(own).text == tasks.get("xnli").text
    assert tasks.get(own).origin.name == "mnli"
    with pytest.raises(InputError, match="unknown task 'nothing_text'"):
        tasks.get("nothing_text")


def test_entities_that_cannot_be_placed_and_mt5s_own_score():
    form = texts.Entities(9, "")
    labels = ("B-PER", "I-PER", "B-LOC", "I-LOC", "O")
    assert form.read("PER: Rick $$ LOC: Mars $$ XX: met", WORDS, labels) == ["B-PER", "O", "O", "O", "O"]
    assert form.read("no entities here", WORDS, labels) is None
    assert form.read("", WORDS, labels) == ["O"] * 5
    # one of two right, one of three said is: a second ": " counts on neither side
    score = form.score(["PER: Rick $$ PER: Deckard $$ PER: a: b"], [WORDS], labels)
    assert score == {"span_f1": pytest.approx(100 * 2 * 1 / (2 + 2))}


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab1é\u0301 -.,'(¿\u00a0中", min_size=1, max_size=30), st.data())
def test_what_is_padded_is_found_again(context, data):
    begin = data.draw(st.integers(0, len(context) - 1))
    answer = context[begin : data.draw(st.integers(begin + 1, len(context)))].strip()
    if not answer:
        return
    said = texts.padded(answer).strip()
    found = texts.unpadded(said, context)
    assert found in context or found == said
    assert texts.padded(found).split() == said.split()


# Batches with targets


def features(count=24, seed=0):
    tokenizer = samples.small_tokenizer()
    rng = np.random.default_rng(seed)
    rows = [
        {"id": str(i), "text_a": " ".join(rng.choice(samples.WORDS, rng.integers(1, 9))), "text_b": "the cat",
         "label": int(rng.integers(3))}
        for i in range(count)
    ]  # fmt: skip
    spec = tasks.get("mnli_text")
    return spec, spec.form.tokenize(rows, tokenizer, make_template(), Reading(max_length=32)), tokenizer


def make_template():
    return Model(make_config("mt5", "tiny"), family="mt5").template


def make_model(tokenizer, tied=False):
    config = make_config("mt5", "tiny", vocab_size=len(tokenizer), pad_id=1, eos_id=2, tied=tied)
    return Model(config, (HeadSpec("text_to_text", "text_to_text"),), family="mt5")


def test_packed_equals_unpacked():
    """The loss and its gradients, with targets of several examples in a row of the decoder."""
    spec, made, tokenizer = features()
    fields = spec.form.batch_fields(make_template())
    options = {"fields": fields, "pad_id": 1}
    apart = batching.Plan.of([(i,) for i in range(len(made))], 32, len(made))
    together = packing.plan_packed(made.needed, num_rows=8, length=96, max_segments=8, seed=0, epoch=0)
    assert len(together) == 1 and max(map(len, together[0].rows)) > 1
    batches = [
        batching.assemble_plan(made, apart, max_segments=1, **options),
        batching.assemble_plan(made, together[0], max_segments=8, **options),
    ]
    assert batches[0]["targets"].shape == (24, 16) and batches[1]["targets"].shape == (8, 48)
    assert batches[1]["targets_segments"].max() > 1
    model = make_model(tokenizer)
    params = jax.jit(model.init)(jax.random.key(0))

    @jax.jit
    def run(params, batch):
        def mean(params):
            total, weight = model.loss(params, "text_to_text", batch)["loss"]
            return total / weight

        return jax.value_and_grad(mean)(params)

    (loss, slopes), (packed, packed_slopes) = (run(params, batch) for batch in batches)
    np.testing.assert_allclose(packed, loss, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(packed_slopes), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, float(np.abs(a).max())))


def test_targets_go_with_their_features(tmp_path):
    from jxstilts.data import cache

    spec, made, tokenizer = features(9)
    kept = cache.cached(tmp_path, {"a": 1}, lambda: made)
    again = cache.cached(tmp_path, {"a": 1}, lambda: pytest.fail("made twice"))
    for one in (kept, again):
        np.testing.assert_array_equal(one.texts["targets"].tokens, made.texts["targets"].tokens)
        assert one.texts["targets"].room == (16, 32)
    ids = np.array([7, 2, 2])
    both = concatenate([made, made]).take(ids + 9)
    assert both.texts["targets"].tokens.tolist() == made.take(ids).texts["targets"].tokens.tolist()
    plan = batching.Plan.of([(0, 1), (), (2,)], 64, 3)
    batch = batching.assemble_plan(both, plan, fields=spec.form.batch_fields(make_template()), max_segments=2, pad_id=1)
    ends = (batch["targets"] == tokenizer.eos_token_id).sum(1)
    assert ends.tolist() == [2, 0, 1] and batch["targets_segments"].max(1).tolist() == [2, 0, 1]


# Span corruption


def restated(tokens, cut, sentinel, end, sentinels=True):
    """Inputs and targets of one text, token by token."""
    inputs, targets, number, before = [], [], -1, None
    for token, gone in zip(tokens, cut, strict=True):
        if gone and not before:
            number += 1
            inputs.append(sentinel - number)
            targets += [sentinel - number] if sentinels else []
        (targets if gone else inputs).append(token)
        before = gone
    return [*inputs, end], [*targets, end]


def test_span_corruption_is_t5s():
    """Counts and alternation of each mask, exact inputs and targets, and how long spans are on average."""
    longest, rows, vocabulary = 60, 64, 500
    rng = np.random.default_rng(0)
    lengths = np.concatenate([rng.integers(3, longest + 1, rows - 3), [1, 2, longest]])
    tokens = rng.integers(10, 300, (rows, longest)).astype(np.int32)
    segments = (np.arange(longest) < lengths[:, None]).astype(np.int32)
    tokens[np.arange(rows), lengths - 1] = 2
    batch = {"tokens": tokens * segments, "segments": segments, "positions": segments}
    signal, context = span_corruption.Objective(name="x"), base.Context(vocabulary, 0, (0, 1, 2))
    made = {
        key: np.asarray(a)
        for key, a in jax.jit(lambda b, k: signal.prepare(b, k, context))(batch, jax.random.key(1)).items()
    }
    bare = dataclasses.replace(signal, sentinels=False)
    without = np.asarray(jax.jit(lambda b, k: bare.prepare(b, k, context))(batch, jax.random.key(1))["targets"])
    keys = jax.random.split(jax.random.key(1), rows)
    mask = jax.vmap(lambda key, length: span_corruption.noise_mask(key, length, longest, 0.15, 3.0))
    masks = np.asarray(jax.jit(mask)(keys, jnp.asarray(lengths - 1, jnp.int32)))
    spans = []
    for row, length in enumerate(lengths):
        cut = masks[row][: length - 1]
        wanted = int(np.round(np.float32(length - 1) * np.float32(0.15)))
        noise = min(max(wanted, 1), length - 2) if length > 2 else 0
        assert cut.sum() == noise
        if noise:
            begins = np.flatnonzero(cut & ~np.r_[False, cut[:-1]])
            assert not cut[0] and cut[-1] and len(begins) == max(round(noise / 3), 1)
            spans.append(noise / len(begins))
        inputs, targets = restated(tokens[row, : length - 1], cut, vocabulary - 1, 2)
        assert made["tokens"][row][made["segments"][row] > 0].tolist() == inputs
        assert made["targets"][row][made["targets_segments"][row] > 0].tolist() == (targets if noise else [])
        if noise:
            wanted = restated(tokens[row, : length - 1], cut, 0, 2, sentinels=False)[1]
            assert without[row][without[row] > 0].tolist() == wanted
    assert 2.3 < np.mean(spans) < 3.3


def test_masks_are_spread_evenly():
    """Every place but the ends is cut out about equally often."""
    keys = jax.random.split(jax.random.key(0), 4000)
    masks = jax.jit(jax.vmap(lambda key: span_corruption.noise_mask(key, jnp.int32(40), 48, 0.15, 3.0)))(keys)
    share = np.asarray(masks).mean(0)
    assert share[40:].max() == 0 and share[0] == 0 and abs(share.sum() - 6) < 1e-3
    assert np.abs(share[4:34] - share[4:34].mean()).max() < 0.03


# On a mesh


def test_one_device_equals_eight():
    """Three steps of training, and what is said after them."""
    spec, made, tokenizer = features()
    plan = batching.Plan.of([(i,) for i in range(len(made))], 64, len(made))
    batch = batching.assemble_plan(made, plan, fields=spec.form.batch_fields(make_template()), max_segments=1, pad_id=1)
    model = make_model(tokenizer)
    config = optimizer.Optimizer(learning_rate=1e-2, warmup=0.0, weight_decay=0.0)
    tx, context = optimizer.make(config, 3), base.Context(len(tokenizer), 0, ())
    losses, said = [], []
    for mesh in (make_mesh({}, jax.devices()[:1]), make_mesh({"data": 2, "fsdp": 2, "tensor": 2})):
        terms = {"mnli": Loss("text_to_text", options={"z_loss": 1e-4})}
        train_step = step.make_train_step(model, terms, tx, mesh, context=context)
        shardings, _ = step.state_shardings(model, tx, mesh)
        params = jax.jit(model.init)(jax.random.key(0))
        state = jax.device_put(step.new_state(params, tx, 0), shardings)
        own = []
        for _ in range(3):
            state, metrics = train_step(state, put_batch({"mnli": batch}, mesh))
            own.append(float(metrics["loss"]))
        losses.append(own)
        asked = model.with_heads(TextSpec("text_to_text", "text_to_text", length=6, beams=2))
        said.append(np.asarray(predict.predict(asked, state["params"], "text_to_text", batch, mesh)["tokens"]))
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-5)
    np.testing.assert_array_equal(said[1], said[0])
