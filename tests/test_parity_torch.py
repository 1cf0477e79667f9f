"""The same numbers as transformers on PyTorch, live: forward, training, and the way back into its classes."""

import dataclasses
import gc

import jax
import numpy as np
import optax
import pytest
from golden.batches import HERE, one_per_row, packed, worst

from jxstilts.checkpoint import leaves
from jxstilts.models import bundle, export, huggingface
from jxstilts.models.model import HeadSpec, make_config
from jxstilts.train import optimizer

torch = pytest.importorskip("torch")
from golden import make_golden  # noqa: E402

torch.set_num_threads(1)  # tiny operations: threads would only wait for each other

SIZES = {
    "vocab_size": 300,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
}
STEPS = 20
# A softmax does not change when a constant is added to all its scores, so these gradients are rounding errors only,
# which AdamW blows up to full steps. (Of mlp_norm/bias this is true of the last layer, under a span head.)
NO_GRADIENT = {
    "classification": ["encoder/layers/key/bias"],
    "span": ["encoder/layers/key/bias", "heads/span/bias", "heads/span/out/bias", "encoder/layers/mlp_norm/bias"],
    "mlm": ["encoder/layers/key/bias"],
    "tagging": ["encoder/layers/key/bias"],
    "choice": ["encoder/layers/key/bias", "heads/choice/bias"],
}
FAMILIES = {"XLMRoberta": 4, "XLMRobertaXL": 4, "Bert": 5, "ModernBert": 5}  # and how many of the classes are computed
CLASSES = {
    "ForSequenceClassification": "classification", "ForQuestionAnswering": "span", "ForMaskedLM": "mlm",
    "ForTokenClassification": "tagging", "ForMultipleChoice": "choice",
}  # fmt: skip


def both(name, folder, **changes):
    """Returns a random transformers model and the same one read by this package."""
    model = make_golden.build(name, **(SIZES | changes))
    model.save_pretrained(folder)
    return model, bundle.load(folder)


@pytest.mark.parametrize(
    ("family", "head"), [(family, head) for family, count in FAMILIES.items() for head in list(CLASSES)[:count]]
)
def test_hidden_states_and_logits(family, head, tmp_path):
    oracle, loaded = both(family + head, tmp_path / "model")
    batch = make_golden.inputs((20, 13, 5, 20), SIZES["vocab_size"])
    if family == "Bert":
        batch = make_golden.typed(batch)
    wanted, mask = make_golden.outputs(oracle, **batch), batch["mask"]
    rows = one_per_row(batch["tokens"], mask, batch.get("types"))
    rows["mlm_positions"] = np.broadcast_to(np.arange(mask.shape[1]), mask.shape)
    name = loaded.model.head_specs[0].name

    @jax.jit
    def run(params):
        hidden = loaded.model.encode(params, rows, all_hidden=True)
        last = loaded.model.encode(params, rows)
        return hidden, last, loaded.model.head(name).logits(params, last, rows)

    hidden, last, logits = run(loaded.params)
    assert worst(hidden, wanted["hidden"], mask) < 1e-5
    assert worst(last, wanted["hidden"][-1], mask) < 1e-5
    if name == "classification":
        assert worst(logits[:, 0], wanted["logits"]) < 1e-5
    elif name == "choice":
        assert worst(logits[:, 0], wanted["logits"][0]) < 1e-5
    elif name == "span":
        assert worst(logits, torch.stack([wanted["start"], wanted["end"]], -1), mask) < 1e-5
    else:
        assert worst(logits, wanted["logits"], mask) < 1e-5


def test_classification_on_the_pooler(tmp_path):
    """The study's head: transformers' classification head, fed with its pooler's output."""
    encoder, loaded = both("XLMRobertaModel", tmp_path / "encoder")
    classifier, labelled = both("XLMRobertaForSequenceClassification", tmp_path / "classifier", num_hidden_layers=1)
    batch = make_golden.inputs((9, 4), SIZES["vocab_size"])
    with torch.no_grad():
        pooled = encoder(input_ids=batch["tokens"], attention_mask=batch["mask"]).pooler_output
        wanted = classifier.classifier(pooled[:, None])
    model = loaded.model.with_heads(HeadSpec("nli", "classification", make_golden.LABELS, pooling="pooler"))
    params = {**loaded.params, "heads": {"nli": labelled.params["heads"]["classification"]}}
    logits = model.predict(params, "nli", one_per_row(batch["tokens"], batch["mask"]))["logits"]
    assert worst(logits[:, 0], wanted) < 1e-5


def test_base_size(tmp_path):
    """XLM-R base with its whole vocabulary (278 million parameters), through a safetensors file."""
    import transformers

    sizes = {
        "vocab_size": 250002, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
    }  # fmt: skip
    torch.manual_seed(0)
    config = transformers.XLMRobertaConfig(**sizes, attn_implementation="eager")
    oracle = transformers.XLMRobertaModel(config).eval()
    oracle.save_pretrained(tmp_path / "base")
    batch = make_golden.inputs((32, 17), sizes["vocab_size"])
    wanted = make_golden.outputs(oracle, **batch)["hidden"].numpy()
    del oracle
    gc.collect()
    loaded = huggingface.load(tmp_path / "base", hash_files=False)
    assert dataclasses.replace(loaded.model.config, pooler=False) == make_config("xlmr", "base")
    rows = one_per_row(batch["tokens"], batch["mask"])
    hidden = jax.jit(lambda params: loaded.model.encode(params, rows, all_hidden=True))(loaded.params)
    assert worst(hidden, wanted, batch["mask"]) < 2e-5


def task_batches(head, oracle):
    """Returns (arguments for transformers, batch for this package) of every step: same examples, same labels."""
    bert = type(oracle).__name__.startswith("Bert")
    generator = np.random.default_rng(0)
    lengths = (16, 16, 16, 16) if head == "span" else (16, 11, 7, 16)  # transformers' span loss includes padding
    for step in range(STEPS):
        batch = make_golden.inputs(lengths, SIZES["vocab_size"], seed=step)
        if bert:
            batch = make_golden.typed(batch)
        theirs, ours = make_golden.arguments(oracle, batch), one_per_row(**batch)
        if head == "choice":  # one question, its choices in one row
            right = generator.integers(4)
            theirs["labels"] = torch.tensor([right])
            ours = packed(batch["tokens"], batch["mask"], 64, batch.get("types"))
            ours |= {"labels": np.eye(4, dtype=np.int32)[[right]], "group": np.zeros((1, 4), np.int32)}
        elif head == "classification":
            labels = generator.integers(0, 3, (4, 1))
            theirs["labels"], ours["labels"] = torch.from_numpy(labels[:, 0]), labels
        elif head == "tagging":
            tags = np.where(ours["segments"] > 0, generator.choice([-1, 0, 1, 2, 2, 2], (4, 16)), -1)
            theirs["labels"], ours["tags"] = torch.from_numpy(np.where(tags < 0, -100, tags)), tags
        elif head == "span":
            start = generator.integers(1, 10, (4, 1))
            end = start + generator.integers(0, 4, (4, 1))
            theirs |= {"start_positions": torch.from_numpy(start[:, 0]), "end_positions": torch.from_numpy(end[:, 0])}
            ours |= {"start": start, "end": end}
        else:
            positions = np.stack([generator.choice(np.arange(1, n - 1), 3, replace=False) for n in lengths])
            labels = generator.integers(4, SIZES["vocab_size"], positions.shape)
            everywhere = np.full(ours["tokens"].shape, -100)
            np.put_along_axis(everywhere, positions, labels, 1)
            theirs["labels"] = torch.from_numpy(everywhere)
            weights = np.ones(positions.shape, np.float32)
            ours |= {"mlm_positions": positions, "mlm_labels": labels, "mlm_weights": weights}
        yield theirs, ours


def train_theirs(model, config, batches):
    from transformers import get_linear_schedule_with_warmup

    spared = [p for name, p in model.named_parameters() if name.endswith("bias") or "orm.weight" in name]
    decayed = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "orm.weight" in name)]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, eps=config.eps, betas=(config.beta1, config.beta2))
    rate = get_linear_schedule_with_warmup(adamw, int(config.warmup * STEPS), STEPS)
    losses, norms = [], []
    for batch, _ in batches:
        loss = model(**batch).loss
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip).item())
        adamw.step()
        rate.step()
        adamw.zero_grad()
        losses.append(loss.item())
    return losses, norms


def train_ours(loaded, config, batches):
    name, tx = loaded.model.head_specs[0].name, optimizer.make(config, STEPS)

    @jax.jit
    def step(params, state, batch):
        def mean(params):
            total, weight = loaded.model.loss(params, name, batch)["loss"]
            return total / weight

        loss, gradient = jax.value_and_grad(mean)(params)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss, optax.tree.norm(gradient)

    params, state, losses, norms = loaded.params, tx.init(loaded.params), [], []
    for _, batch in batches:
        params, state, loss, norm = step(params, state, batch)
        losses.append(float(loss))
        norms.append(float(norm))
    return losses, norms, params


@pytest.mark.parametrize(
    ("family", "name"),
    [
        *(("XLMRoberta", name) for name in list(CLASSES)[:4]), *(("Bert", name) for name in CLASSES),
        *(("ModernBert", name) for name in list(CLASSES)[:3]),
    ],
)  # fmt: skip
def test_training(family, name, tmp_path):
    """20 AdamW steps without dropout: the same losses, gradient norms and, in the end, weights."""
    head = CLASSES[name]
    oracle, loaded = both(family + name, tmp_path / "model")
    config = optimizer.Optimizer(learning_rate=1e-3, warmup=0.1, weight_decay=0.01)
    batches = list(task_batches(head, oracle))
    losses, norms = train_theirs(oracle, config, batches)
    our_losses, our_norms, params = train_ours(loaded, config, batches)
    np.testing.assert_allclose(our_losses, losses, atol=1e-4)
    np.testing.assert_allclose(our_norms, norms, rtol=1e-3)

    oracle.save_pretrained(tmp_path / "trained")
    found, start = leaves(params), leaves(loaded.params)
    trained = leaves(huggingface.load(tmp_path / "trained").params)
    for path in set(start) - set(NO_GRADIENT[head]):
        assert worst(found[path], trained[path]) < 1e-4, path
        assert worst(found[path], start[path]) > (1e-3 if family == "XLMRoberta" else 5e-4), path  # of steps up to 2e-2


EXPORTS = [
    (folder, "AutoModel" + next((end for end in CLASSES if name.endswith(end)), ""))
    for folder, name in make_golden.MODELS.items()
]


@pytest.mark.parametrize(("folder", "auto"), EXPORTS)
def test_transformers_loads_what_is_exported(folder, auto, tmp_path):
    import transformers

    loaded = huggingface.load(HERE / folder)
    export.to_huggingface(loaded, tmp_path / "out")
    model, info = getattr(transformers, auto).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    original = make_golden.build(make_golden.MODELS[folder])
    assert type(model) is type(original)
    state, exported = original.state_dict(), model.state_dict()
    assert set(state) == set(exported)
    assert all(torch.equal(state[name], exported[name]) for name in state)
    written, wanted = model.config.to_diff_dict(), original.config.to_diff_dict()
    for key in set(wanted) - {"transformers_version"}:
        assert written[key] == wanted[key], key


def test_encoder_alone_without_a_pooler(tmp_path):
    import transformers

    loaded = huggingface.load(HERE / "xlmr_span", heads=())
    export.to_huggingface(loaded, tmp_path / "out")
    _, info = transformers.AutoModel.from_pretrained(
        tmp_path / "out", output_loading_info=True, add_pooling_layer=False
    )
    assert not any(info.values()), info
