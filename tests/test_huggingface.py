"""Hugging Face folders: every layout that is read, and everything that is refused."""

import json
import shutil
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from golden.batches import HERE
from safetensors.numpy import load_file, save_file

from jxstilts.checkpoint import digests, leaves
from jxstilts.models import export, huggingface
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError

LABELS = ("contradiction", "entailment", "neutral")


@pytest.fixture
def folder(tmp_path):
    """A copy of the golden classifier that a test may spoil."""
    return shutil.copytree(HERE / "xlmr_classification", tmp_path / "model")


def edit_config(folder, drop=(), **changes):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if key not in drop}))


def edit_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors")


def same(a, b):
    return digests(a.params) == digests(b.params)


def test_encoder_head_labels_and_provenance():
    loaded = huggingface.load(HERE / "xlmr_classification")
    assert loaded.model.config == make_config(
        "xlmr", vocab_size=48, width=16, layers=2, heads=2, mlp=32, max_positions=24
    )
    assert loaded.model.head_specs == (HeadSpec("classification", "classification", LABELS),)
    assert {str(leaf.dtype) for leaf in leaves(loaded.params).values()} == {"float32"}
    assert loaded.tokenizer_dir is None
    provenance = loaded.meta["provenance"]
    assert provenance["source"].endswith("xlmr_classification") and provenance["revision"] is None
    assert list(provenance["files"]) == ["model.safetensors"] and len(provenance["files"]["model.safetensors"]) == 64
    assert loaded.meta["heads"][0]["labels"] == LABELS


def test_pooler_heads_and_prenorm_are_seen():
    assert huggingface.load(HERE / "xlmr").model.config.pooler
    assert huggingface.inspect(HERE / "xlmr")[0].head_specs == ()
    assert huggingface.inspect(HERE / "xlmr_span")[0].head_specs == (HeadSpec("span", "span"),)
    model, _ = huggingface.inspect(HERE / "xlmr_xl_mlm")
    assert model.config.prenorm and not model.config.pooler and model.head_specs == (HeadSpec("mlm", "mlm"),)


def test_heads_are_chosen_by_name():
    loaded = huggingface.load(HERE / "xlmr_span", heads=())
    assert loaded.model.head_specs == () and loaded.params["heads"] == {}
    with pytest.raises(InputError, match="'spam'; did you mean 'span'"):
        huggingface.load(HERE / "xlmr_span", heads=("spam",))


@pytest.mark.parametrize("head", ["classification", "choice", "span", "mlm", "tagging"])
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("xlmr", {"prenorm": False, "pooler": True}), ("xlmr", {"prenorm": True}), ("bert", {"pooler": True}),
        ("bert", {}), ("modernbert", {}),
    ],
)  # fmt: skip
def test_each_tensor_is_mapped_exactly_once(family, changes, head):
    if (family, head) == ("xlmr", "choice"):
        return  # no class has it
    model = Model(make_config(family, "tiny", **changes), (HeadSpec("a", head, LABELS),), family=family)
    found = huggingface.places(model, "body.")
    assert len({place.name for place in found}) == len(found)
    parts = [(place.path, place.layer) for place in found]
    assert len(set(parts)) == len(parts)
    assert {place.path for place in found} == set(leaves(model.abstract()[0]))


@pytest.mark.parametrize("prefix", ["", "xlm-roberta.", "model.roberta."])
def test_any_prefix(folder, prefix):
    outer = "model." if prefix.startswith("model.") else ""

    def rename(tensors):
        return {
            prefix + name.removeprefix("roberta.") if name.startswith("roberta.") else outer + name: value
            for name, value in tensors.items()
        }

    edit_tensors(folder, rename)
    assert same(huggingface.load(folder), huggingface.load(HERE / "xlmr_classification"))


def shard(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, index = sorted(tensors), {}
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return names, index


def test_shards(folder):
    shard(folder)
    loaded = huggingface.load(folder)
    assert same(loaded, huggingface.load(HERE / "xlmr_classification"))
    assert len(loaded.meta["provenance"]["files"]) == 2


def test_index_that_does_not_agree_with_its_shards(folder):
    names, index = shard(folder)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index | {names[0]: index[names[1]]}}))
    with pytest.raises(InputError, match=f"not in the file that it names: {names[0]}"):
        huggingface.load(folder)
    path.write_text(json.dumps({"weight_map": index | {names[0]: "../other.safetensors"}}))
    with pytest.raises(InputError, match="files of the same folder"):
        huggingface.load(folder)
    path.write_text(json.dumps({"weight_map": index | {names[0]: "model-00003.safetensors"}}))
    with pytest.raises(InputError, match=r"model-00003.safetensors: this file of the model is missing"):
        huggingface.load(folder)
    path.write_text(json.dumps({"weight_map": index}))
    first, second = sorted(set(index.values()))
    save_file(load_file(folder / first) | load_file(folder / second), folder / second)
    with pytest.raises(InputError, match=f"{second}: holds tensors of another shard"):
        huggingface.load(folder)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_other_precisions_become_float32(folder, dtype):
    edit_tensors(folder, lambda tensors: {name: value.astype(dtype) for name, value in tensors.items()})
    words = huggingface.load(folder).params["encoder"]["embeddings"]["tokens"]
    exact = load_file(HERE / "xlmr_classification" / "model.safetensors")["roberta.embeddings.word_embeddings.weight"]
    assert words.dtype == np.float32
    np.testing.assert_array_equal(words, exact.astype(dtype).astype(np.float32))


def test_every_misfit_is_named_in_one_error(folder):
    def spoil(tensors):
        del tensors["roberta.encoder.layer.1.output.dense.bias"]
        tensors["roberta.encoder.layer.0.intermediate.dense.weight"] = np.zeros((16, 32), np.float32)
        tensors["roberta.embeddings.LayerNorm.bias"] = np.zeros(16, np.int32)
        tensors["roberta.encoder.layer.2.output.dense.bias"] = np.zeros(16, np.float32)
        tensors["adapter.weight"] = np.zeros(3, np.float32)
        return tensors

    edit_tensors(folder, spoil)
    with pytest.raises(InputError) as error:
        huggingface.load(folder)
    assert str(error.value).splitlines() == [str(error.value)]
    for text in (
        "do not fit config.json in 5 places",
        "roberta.encoder.layer.1.output.dense.bias: expected (16,), found nothing",
        "roberta.encoder.layer.0.intermediate.dense.weight: expected (32, 16), found (16, 32)",
        "roberta.embeddings.LayerNorm.bias: expected a type of F64, F32, F16, BF16, found I32",
        "roberta.encoder.layer.2.output.dense.bias: not expected, found (16,)",
        "adapter.weight: not expected, found (3,)",
    ):
        assert text in str(error.value)


def test_known_buffers_and_classifier_dropout_are_recorded_as_ignored(folder):
    edit_tensors(folder, lambda tensors: tensors | {"roberta.embeddings.position_ids": np.arange(26)[None]})
    edit_config(folder, classifier_dropout=0.3)
    ignored = huggingface.load(folder).meta["provenance"]["ignored"]
    assert ignored[0] == "roberta.embeddings.position_ids" and "classifier_dropout=0.3" in ignored[1]


def test_names_of_old_bert_files(tmp_path):
    """As the first conversions from TensorFlow have them: gamma and beta, and a head for the next sentence."""
    folder = shutil.copytree(HERE / "bert_mlm", tmp_path / "model")
    original = huggingface.load(folder)

    def age(tensors):
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        found = {}
        for name, value in tensors.items():
            end = next((end for end in old if name.endswith(end)), "")
            found[name.removesuffix(end) + old.get(end, "")] = value
        return found | {
            "cls.seq_relationship.weight": np.zeros((2, 16), np.float32),
            "cls.seq_relationship.bias": np.zeros(2, np.float32),
            "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"].copy(),
            "cls.predictions.decoder.bias": tensors["cls.predictions.bias"].copy(),
            "bert.embeddings.position_ids": np.arange(24)[None],
        }

    edit_tensors(folder, age)
    aged = huggingface.load(folder)
    assert same(aged, original) and aged.model == original.model
    assert aged.meta["provenance"]["ignored"] == [
        "bert.embeddings.position_ids", "cls.seq_relationship.bias", "cls.seq_relationship.weight",
    ]  # fmt: skip
    twice = {"bert.embeddings.LayerNorm.weight": np.ones(16, np.float32)}
    edit_tensors(folder, lambda tensors: tensors | twice)
    with pytest.raises(InputError, match=r"LayerNorm.gamma and .*LayerNorm.weight are the same tensor, and both"):
        huggingface.load(folder)


def test_the_pooler_of_a_bert_classifier(tmp_path):
    """It is the encoder's where the encoder has one, and else the head's; one class of Hugging Face has both."""
    for pooler in (True, False):
        config = make_config("bert", "tiny", pooler=pooler)
        model = Model(
            config, (HeadSpec("nli", "classification", LABELS), HeadSpec("t", "tagging", LABELS)), family="bert"
        )
        loaded = huggingface.Loaded(model, jax.jit(model.init)(jax.random.key(0)))
        assert ("pooler" in loaded.params["encoder"], "dense" in loaded.params["heads"]["nli"]) == (pooler, not pooler)
        assert not any("pooler" in path for path in export.to_huggingface(loaded, tmp_path / f"{pooler}", head="nli"))
        again = huggingface.load(tmp_path / f"{pooler}")
        assert again.model.config.pooler and set(again.params["heads"]["classification"]) == {"kernel", "bias"}
        own = loaded.params["encoder"]["pooler"] if pooler else loaded.params["heads"]["nli"]["dense"]
        np.testing.assert_array_equal(again.params["encoder"]["pooler"]["kernel"], own["kernel"])
        left = export.to_huggingface(loaded, tmp_path / f"{pooler}-t", head="t")  # which class has no pooler
        assert ("encoder/pooler/kernel" in left) == pooler


def test_tied_decoder(tmp_path):
    folder = shutil.copytree(HERE / "xlmr_mlm", tmp_path / "model")
    original = huggingface.load(folder)
    words, bias = "roberta.embeddings.word_embeddings.weight", "lm_head.bias"

    def add(tensors):
        return tensors | {"lm_head.decoder.weight": tensors[words].copy(), "lm_head.decoder.bias": tensors[bias].copy()}

    edit_tensors(folder, add)
    assert same(huggingface.load(folder), original)
    edit_tensors(folder, lambda tensors: {name: x for name, x in tensors.items() if name not in (words, bias)})
    assert same(huggingface.load(folder), original)

    def differ(tensors):
        tensors[words] = tensors["lm_head.decoder.weight"] + 1
        tensors[bias] = tensors["lm_head.decoder.bias"]
        return tensors

    edit_tensors(folder, differ)
    with pytest.raises(InputError, match=r"in 1 places: lm_head.decoder.weight: expected the values of roberta.emb"):
        huggingface.load(folder)


@pytest.mark.parametrize("kept", [0, 5, 100, 5000, -1])
def test_truncated_file(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"model.safetensors: damaged, or not a safetensors file"):
        huggingface.load(folder)


def test_folder_without_weights_or_encoder(folder, tmp_path):
    edit_tensors(folder, lambda tensors: {"a.weight": tensors["classifier.dense.weight"]})
    with pytest.raises(InputError, match=r"no tensor named embeddings.position_embeddings.weight"):
        huggingface.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"holds no weights; expected one of model.safetensors, "):
        huggingface.load(folder)
    with pytest.raises(InputError, match=r"config.json: cannot be read as JSON"):
        huggingface.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model_type": "deberta"}, r"no family computes model_type='deberta'.*known: .*xlm-roberta \(family xlmr\)"),
        ({"model_type": None}, "no family computes model_type=None"),
        ({"hidden_act": "relu"}, "hidden_act='relu' is not supported, only 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"type_vocab_size": 2}, "type_vocab_size=2"),
        ({"is_decoder": True}, "is_decoder=True"),
        ({"problem_type": "regression"}, "only 'single_label_classification'"),
        ({"hidden_size": None, "layer_norm_eps": None}, "no value for hidden_size, layer_norm_eps"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers='2'; allowed is a whole number from 1 up"),
        ({"num_attention_heads": 0}, "num_attention_heads=0; allowed is a whole number from 1 up"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label must map 0, 1, ..."),
        ({"id2label": {"0": "a", "1": "b"}}, r"classifier.out_proj.weight: expected \(2, 16\), found \(3, 16\)"),
    ],
)
def test_config_that_is_not_computed_here(folder, changes, text):
    edit_config(folder, **changes)
    with pytest.raises(InputError, match=f"(?s).*{text}"):
        huggingface.load(folder)


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("bert", {"hidden_act": "gelu_new"}, "hidden_act='gelu_new' is not supported, only 'gelu'"),
        ("bert", {"type_vocab_size": 0}, "type_vocab_size=0; allowed is a whole number from 1 up"),
        ("modernbert", {"layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 2}, "only one full_attention"),
        ("modernbert", {"layer_types": ["full_attention"] * 3}, "only one full_attention in every n layers"),
        ("modernbert", {"layer_types": 3}, "only one full_attention in every n layers"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "only rope_type='default'"),
        ("modernbert", {"rope_parameters": {"full_attention": 1}}, "only rope_type='default'"),
        ("modernbert", {"rope_scaling": {"type": "linear"}}, "rope_scaling={'type': 'linear'} is not supported"),
        ("modernbert", {"norm_bias": True}, "norm_bias=True is not supported"),
        ("modernbert", {"classifier_pooling": "max"}, "classifier_pooling='max'; allowed is 'cls' or 'mean'"),
        ("modernbert", {"num_attention_heads": 16}, "width=16 is not a multiple of twice heads=16"),
    ],
)
def test_config_that_another_family_does_not_compute(name, changes, text, tmp_path):
    folder = shutil.copytree(HERE / name, tmp_path / "model")
    edit_config(folder, **changes)
    with pytest.raises(InputError, match=f"(?s)config.json: .*{text}"):
        huggingface.load(folder)


def test_a_modernbert_config_of_transformers_4(tmp_path):
    folder = shutil.copytree(HERE / "modernbert", tmp_path / "model")
    wanted = huggingface.load(folder).model.config
    assert (wanted.global_every, wanted.global_theta, wanted.local_theta) == (3, 1000.0, 100.0)
    old = {"global_attn_every_n_layers": 3, "global_rope_theta": 1000.0, "local_rope_theta": 100.0}
    edit_config(folder, drop=["layer_types", "rope_parameters"], **old)
    assert huggingface.load(folder).model.config == wanted


def test_an_unknown_model_type_is_not_taken_for_a_near_one(folder):
    edit_config(folder, model_type="xlm-robert")
    with pytest.raises(InputError) as error:
        huggingface.load(folder)
    assert "did you mean" not in str(error.value)


def test_config_defaults(folder):
    edit_config(folder, drop=["pad_token_id", "hidden_dropout_prob", "hidden_act", "initializer_range"])
    assert huggingface.load(folder).model.config == huggingface.load(HERE / "xlmr_classification").model.config


def test_torch_file(folder):
    torch = pytest.importorskip("torch")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, path)
    loaded = huggingface.load(folder)
    assert same(loaded, huggingface.load(HERE / "xlmr_classification"))
    assert list(loaded.meta["provenance"]["files"]) == ["pytorch_model.bin"]

    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"pytorch_model.bin: damaged, or holds more than tensors"):
        huggingface.load(folder)


class Payload:
    def __reduce__(self):
        return print, ("this must not run",)


def test_torch_file_with_code_is_refused(folder, capsys):
    torch = pytest.importorskip("torch")
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Payload()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="holds more than tensors"):
        huggingface.load(folder)
    assert capsys.readouterr().out == ""


def test_torch_file_without_torch(folder, monkeypatch):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"where torch is installed.*convert the model to model.safetensors"):
        huggingface.load(folder)


def test_hub_id(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    snapshot = shutil.copytree(HERE / "xlmr_span", tmp_path / "snapshots" / ("c0ffee" * 6))
    asked = []

    def download(name, revision, allow_patterns):
        asked.append((name, revision, allow_patterns[1]))
        return str(snapshot)

    monkeypatch.setattr(hub, "snapshot_download", download)
    provenance = huggingface.load("someone/some-model@v2").meta["provenance"]
    assert provenance["source"] == "someone/some-model" and provenance["revision"] == "c0ffee" * 6
    assert asked == [("someone/some-model", "v2", "model*.safetensors")]
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no weights"):
        huggingface.load("some-model")
    patterns = ("model*.safetensors", "flax_model*.msgpack", "pytorch_model*.bin")
    assert asked[1:] == [("some-model", None, pattern) for pattern in patterns]


def test_hub_out_of_reach(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def offline(*_, **__):
        raise hub.errors.LocalEntryNotFoundError("no connection\nand nothing in the cache")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(InputError, match=r"no connection and nothing.*download the folder elsewhere.*give its path"):
        huggingface.load("someone/some-model")
    with pytest.raises(InputError, match="not a folder and not a hub id"):
        huggingface.load("/no/such/folder")
