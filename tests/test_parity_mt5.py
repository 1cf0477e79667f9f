"""mT5 gives the numbers of transformers: states, logits, loss, training; tied and untied; and the way back."""

import json

import jax
import numpy as np
import optax
import pytest

from jxstilts.checkpoint import digests, leaves
from jxstilts.models import bundle, export, huggingface
from jxstilts.models.heads.text_to_text import TextSpec
from jxstilts.models.relative import buckets
from jxstilts.runtime import InputError
from jxstilts.train import optimizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)

SIZES = {
    "vocab_size": 120, "d_model": 24, "d_kv": 5, "d_ff": 40, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12, "pad_token_id": 0,
    "decoder_start_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
LENGTHS, TARGETS = (23, 9, 4), (7, 3, 11)


def build(tied: bool, name: str = "MT5ForConditionalGeneration", seed: int = 0, **changes):
    """A transformers model whose every parameter is random."""
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**(SIZES | changes), attn_implementation="eager")).eval()
    generator = torch.Generator().manual_seed(seed)
    if not tied:  # transformers ties what it makes; what a file has apart it leaves apart
        model.lm_head.weight = torch.nn.Parameter(torch.empty(model.lm_head.weight.shape))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.5 if "relative" in key else 0.15, generator=generator)
            if key.endswith("norm.weight"):
                parameter.add_(1.0)
    return model


def both(folder, tied, **changes):
    model = build(tied, **changes)
    model.save_pretrained(folder)
    return model, bundle.load(folder)


def texts(lengths, seed, vocab_size=SIZES["vocab_size"]):
    """-> tokens [B, T] and segments: rows of these lengths that end with the end-of-text token, padded with 0."""
    tokens = np.random.default_rng(seed).integers(2, vocab_size, (len(lengths), max(lengths))).astype(np.int32)
    segments = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int32)
    tokens[np.arange(len(lengths)), np.array(lengths) - 1] = 1
    return tokens * segments, segments


def given():
    tokens, segments = texts(LENGTHS, 0)
    targets, targets_segments = texts(TARGETS, 1)
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape) * segments
    batch = {"tokens": tokens, "segments": segments, "positions": positions}
    return batch | {"targets": targets, "targets_segments": targets_segments}


def oracle(model, batch):
    labels = np.where(batch["targets_segments"] > 0, batch["targets"], -100)
    arrays = {"input_ids": batch["tokens"], "attention_mask": batch["segments"], "labels": labels}
    return model(**{key: torch.tensor(each).long() for key, each in arrays.items()}, output_hidden_states=True)


@pytest.mark.parametrize("both_ways", [True, False])
def test_every_distance_has_the_row_of_transformers(both_ways):
    own = transformers.models.mt5.modeling_mt5.MT5Attention._relative_position_bucket
    distance = np.arange(-2000, 2001)
    for count, farthest in ((32, 128), (8, 12), (16, 300)):
        wanted = own(torch.tensor(distance), bidirectional=both_ways, num_buckets=count, max_distance=farthest)
        np.testing.assert_array_equal(buckets(distance, both_ways, count, farthest), wanted.numpy())


@pytest.mark.parametrize("tied", [True, False])
def test_states_logits_and_loss(tied, tmp_path):
    model, loaded = both(tmp_path / "model", tied)
    own, batch = loaded.model, given()
    assert own.config.tied is tied and own.config.decoder_layers == 2
    head = own.head("text_to_text")
    with torch.no_grad():
        wanted = oracle(model, batch)

    @jax.jit
    def run(params):
        every = own.encode(params, batch, all_hidden=True)
        return (
            every,
            head.states(params, every[-1], batch),
            head.logits(params, every[-1], batch),
            own.loss(params, "text_to_text", batch),
        )

    every, states, logits, loss = run(loaded.params)
    real, said = batch["segments"] > 0, batch["targets_segments"] > 0
    hidden = torch.stack(wanted.encoder_hidden_states).numpy()
    assert every.shape == hidden.shape == (4, *batch["tokens"].shape, 24)
    np.testing.assert_allclose(np.asarray(every)[:, real], hidden[:, real], atol=1e-5)
    np.testing.assert_allclose(np.asarray(states)[said], wanted.decoder_hidden_states[-1].numpy()[said], atol=1e-5)
    np.testing.assert_allclose(np.asarray(logits)[said], wanted.logits.numpy()[said], atol=1e-5)
    total, weight = loss["loss"]
    assert weight == said.sum()
    np.testing.assert_allclose(total / weight, wanted.loss.item(), rtol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_there_and_back_to_the_bit(tied, tmp_path):
    model, loaded = both(tmp_path / "model", tied)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="8KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    assert digests(bundle.load(tmp_path / "sharded").params) == digests(loaded.params)
    bundle.save(tmp_path / "bundle", loaded.model, loaded.params)
    assert export.to_huggingface(bundle.load(tmp_path / "bundle"), tmp_path / "out") == []
    again = huggingface.load(tmp_path / "out")
    assert again.model == loaded.model and digests(again.params) == digests(loaded.params)
    theirs = transformers.MT5ForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert torch.equal(theirs.lm_head.weight, model.lm_head.weight)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in theirs.state_dict().items())
    export.to_huggingface(loaded, tmp_path / "encoder", encoder_only=True)
    alone = transformers.AutoModelForTextEncoding.from_pretrained(tmp_path / "encoder")
    assert type(alone).__name__ == "MT5EncoderModel"
    assert torch.equal(
        alone.encoder.block[1].layer[0].SelfAttention.q.weight, model.encoder.block[1].layer[0].SelfAttention.q.weight
    )
    encoder = bundle.load(tmp_path / "encoder")
    assert encoder.model.head_specs == () and digests(encoder.params["encoder"]) == digests(loaded.params["encoder"])


def test_aliases_and_what_is_not_computed(tmp_path):
    from safetensors.numpy import load_file, save_file

    _, loaded = both(tmp_path / "model", tied=False)
    file, config = tmp_path / "model" / "model.safetensors", tmp_path / "model" / "config.json"
    stored = load_file(file)
    for part in ("encoder", "decoder"):
        stored[f"{part}.embed_tokens.weight"] = stored["shared.weight"]
    legacy = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    save_file({**stored, legacy: np.zeros((8, 4), np.float32)}, file, metadata={"format": "pt"})
    old = bundle.load(tmp_path / "model")
    assert digests(old.params) == digests(loaded.params) and legacy in old.meta["provenance"]["ignored"]
    without = {key: value for key, value in stored.items() if key != "shared.weight"}
    save_file(without, file, metadata={"format": "pt"})
    assert digests(bundle.load(tmp_path / "model").params) == digests(loaded.params)
    save_file({**stored, "lm_head.weight": stored["shared.weight"].copy()}, file, metadata={"format": "pt"})
    assert bundle.load(tmp_path / "model").model.config.tied
    save_file({**stored, "decoder.embed_tokens.weight": stored["lm_head.weight"]}, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"decoder.embed_tokens.weight: expected the values of shared.weight"):
        bundle.load(tmp_path / "model")
    save_file(stored, file, metadata={"format": "pt"})
    said = json.loads(config.read_text())
    for changes, message in (
        ({"feed_forward_proj": "relu"}, "feed_forward_proj='relu' is not supported, only 'gated-gelu'"),
        ({"model_type": "t5", "tie_word_embeddings": True}, r"T5 v1.0"),
        ({"decoder_start_token_id": 5}, "decoder_start_token_id=5 is not supported"),
    ):
        config.write_text(json.dumps(said | changes))
        with pytest.raises(InputError, match=message):
            bundle.load(tmp_path / "model")
    config.write_text(json.dumps(said | {"model_type": "t5", "tie_word_embeddings": False}))
    assert digests(bundle.load(tmp_path / "model").params) == digests(loaded.params)


@pytest.mark.parametrize(("tied", "beams"), [(True, 1), (False, 4)])
def test_what_is_said_is_what_transformers_says(tied, beams, tmp_path):
    """200 inputs of mixed lengths; the end-of-text token is made likely, so that texts of all lengths come out."""
    model, _ = both(tmp_path / "model", tied)
    with torch.no_grad():
        model.lm_head.weight[1] *= 5.0
    model.save_pretrained(tmp_path / "ending")
    loaded = bundle.load(tmp_path / "ending")
    spec = TextSpec("text_to_text", "text_to_text", length=12, beams=beams)
    own = loaded.model.with_heads(spec)
    lengths = np.random.default_rng(2).integers(1, 24, 200)
    tokens, segments = texts(lengths, 3)
    batch = {"tokens": tokens, "segments": segments, "positions": segments}
    said = np.asarray(jax.jit(lambda params: own.predict(params, "text_to_text", batch))(loaded.params)["tokens"])[:, 0]
    arrays = {"input_ids": torch.tensor(tokens).long(), "attention_mask": torch.tensor(segments).long()}
    wanted = model.generate(**arrays, max_new_tokens=12, num_beams=beams, do_sample=False)[:, 1:].numpy()
    wanted = np.pad(wanted, ((0, 0), (0, 12 - wanted.shape[1])))
    ended = np.cumsum(wanted == 1, axis=1) - (wanted == 1) > 0
    np.testing.assert_array_equal(said, np.where(ended, 0, wanted))
    counts = (said > 0).sum(1)
    assert len(set(counts)) > 4 and (said == 1).any(1).mean() > 0.1, np.bincount(counts)


@pytest.mark.parametrize("tied", [True, False])
def test_twenty_steps_of_training(tied, tmp_path):
    """AdamW without dropout: the same losses, gradient norms and, in the end, weights."""
    model, loaded = both(tmp_path / "model", tied, dropout_rate=0.0)
    config = optimizer.Optimizer(learning_rate=1e-3, warmup=0.1, weight_decay=0.01)
    tx, steps = optimizer.make(config, 20), 20

    @jax.jit
    def step(params, state, batch):
        def mean(params):
            total, weight = loaded.model.loss(params, "text_to_text", batch)["loss"]
            return total / weight

        loss, gradient = jax.value_and_grad(mean)(params)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss, optax.tree.norm(gradient)

    spared = [key for key, _ in model.named_parameters() if "norm" in key or "bias" in key]
    groups = [
        {"params": [each for key, each in model.named_parameters() if (key in spared) == spare], "weight_decay": decay}
        for spare, decay in ((True, 0.0), (False, 0.01))
    ]
    adamw = torch.optim.AdamW(groups, lr=1e-3, eps=1e-8)
    rate = transformers.get_linear_schedule_with_warmup(adamw, 2, steps)
    params, state = loaded.params, tx.init(loaded.params)
    for number in range(steps):
        tokens, segments = texts((17, 9, 12), 10 + number)
        targets, targets_segments = texts((5, 8, 3), 50 + number)
        batch = {"tokens": tokens, "segments": segments, "positions": segments}
        batch |= {"targets": targets, "targets_segments": targets_segments}
        params, state, loss, norm = step(params, state, batch)
        wanted = oracle(model, batch).loss
        adamw.zero_grad()
        wanted.backward()
        theirs = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        rate.step()
        np.testing.assert_allclose(loss, wanted.item(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(norm, theirs.item(), rtol=1e-4)
    model.save_pretrained(tmp_path / "trained")
    found, start = leaves(params), leaves(loaded.params)
    for path, trained in leaves(bundle.load(tmp_path / "trained").params).items():
        np.testing.assert_allclose(found[path], trained, atol=1e-4, err_msg=path)
        assert np.abs(np.asarray(found[path]) - np.asarray(start[path])).max() > 5e-4, path
