"""Weights that transformers' Flax models saved: the parameters are those of the same model in safetensors."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from flax import serialization, traverse_util
from golden.batches import HERE
from safetensors.numpy import load_file, save_file
from samples import flax_names, random_params, write_flax

from jxstilts.checkpoint import digests, leaves
from jxstilts.models import export, huggingface
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError


@pytest.fixture
def folder(tmp_path):
    """A classifier's folder without weights."""
    shutil.copytree(HERE / "xlmr_classification", tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    return tmp_path / "model"


def tensors(name="xlmr_classification"):
    return load_file(HERE / name / "model.safetensors")


def same(a, b):
    return a.model == b.model and digests(a.params) == digests(b.params)


@pytest.mark.parametrize("name", ["xlmr", "xlmr_mlm", "xlmr_span", "bert_tagging", "bert_choice"])
def test_parameters_are_those_of_the_safetensors_file(name, tmp_path):
    shutil.copy(HERE / name / "config.json", tmp_path)
    write_flax(tmp_path / "flax_model.msgpack", tensors(name))
    loaded = huggingface.load(tmp_path)
    assert same(loaded, huggingface.load(HERE / name))
    assert list(loaded.meta["provenance"]["files"]) == ["flax_model.msgpack"]


def test_names_are_those_of_transformers():
    names = flax_names(tensors())
    for name, shape in {  # FlaxXLMRobertaForSequenceClassification of transformers 4
        "roberta/embeddings/word_embeddings/embedding": (48, 16),
        "roberta/embeddings/LayerNorm/scale": (16,),
        "roberta/encoder/layer/1/attention/self/query/kernel": (16, 16),
        "roberta/encoder/layer/0/attention/output/LayerNorm/bias": (16,),
        "roberta/encoder/layer/0/intermediate/dense/kernel": (16, 32),
        "classifier/dense/kernel": (16, 16),
        "classifier/out_proj/kernel": (16, 3),
    }.items():
        assert names[name].shape == shape


def test_an_encoder_and_decoder(tmp_path):
    model = Model(make_config("mt5", "tiny"), (HeadSpec("text_to_text", "text_to_text"),), family="mt5")
    made = huggingface.Loaded(model, random_params(model))
    export.to_huggingface(made, tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    names = flax_names(load_file(weights))
    own = {name.replace("/scale", "/weight"): array for name, array in names.items()}  # FlaxT5LayerNorm's
    weights.with_name("flax_model.msgpack").write_bytes(
        serialization.to_bytes(traverse_util.unflatten_dict(own, sep="/"))
    )
    weights.unlink()
    assert {"shared/embedding", "lm_head/kernel", "decoder/final_layer_norm/weight"} <= set(own)
    assert same(huggingface.load(tmp_path / "model"), made)


def test_shards_and_half_precision(folder):
    half = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors().items()}
    names = list(half)
    parts = {"flax_model-00001-of-00002.msgpack": names[::2], "flax_model-00002-of-00002.msgpack": names[1::2]}
    index = {}
    for file, own in parts.items():
        write_flax(folder / file, {name: half[name] for name in own})
        index |= dict.fromkeys(flax_names({name: half[name] for name in own}), file)
    (folder / "flax_model.msgpack.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    found = leaves(huggingface.load(folder).params)
    for path, array in leaves(huggingface.load(HERE / "xlmr_classification").params).items():
        np.testing.assert_array_equal(found[path], array.astype(ml_dtypes.bfloat16).astype(np.float32))
    (folder / "flax_model-00002-of-00002.msgpack").unlink()
    with pytest.raises(InputError, match=r"flax_model-00002-of-00002.msgpack: this file of the model is missing"):
        huggingface.load(folder)


def test_safetensors_of_a_flax_model(folder):
    names = {name.replace("/", "."): np.ascontiguousarray(array) for name, array in flax_names(tensors()).items()}
    save_file(names, folder / "model.safetensors", metadata={"format": "flax"})
    assert same(huggingface.load(folder), huggingface.load(HERE / "xlmr_classification"))


def test_safetensors_go_before_it_and_torch_files_behind(folder):
    (folder / "pytorch_model.bin").write_bytes(b"")
    write_flax(folder / "flax_model.msgpack", tensors())
    assert same(huggingface.load(folder), huggingface.load(HERE / "xlmr_classification"))
    (folder / "flax_model.msgpack").write_bytes(b"")
    save_file(tensors(), folder / "model.safetensors")
    assert same(huggingface.load(folder), huggingface.load(HERE / "xlmr_classification"))


def test_what_is_no_such_file_is_refused_in_one_line(folder):
    file = folder / "flax_model.msgpack"
    write_flax(file, tensors())
    content = file.read_bytes()
    nested = traverse_util.unflatten_dict(flax_names(tensors()), sep="/")
    wrong = {**nested, "classifier": {"dense": {"kernel": [1.0, 2.0]}}}
    for changed, message in (
        (content[:-100], "damaged, or not a file of transformers' Flax models: .*incomplete"),
        (content + b"\x00", "damaged, or not a file of transformers' Flax models"),
        (b"version https://git-lfs", "damaged, or not a file of transformers' Flax models"),
        (serialization.msgpack_serialize(wrong), "expected nested dictionaries of arrays, found a list"),
        (serialization.msgpack_serialize([1]), "expected nested dictionaries of arrays, found a list"),
        (serialization.to_bytes({**nested, "more": np.zeros(3)}), r"more: not expected, found \(3,\)"),
        (serialization.to_bytes({"a": {"kernel": np.ones((2, 2)), "scale": np.ones(2)}}), "both a.weight"),
        (b"\xc7\x0c\x01\x93\x91\x01\xa6object\xc4\x00", "damaged, or not a file of transformers' Flax models"),
    ):
        file.write_bytes(changed)
        with pytest.raises(InputError, match=message) as caught:
            huggingface.load(folder)
        assert "\n" not in str(caught.value)
