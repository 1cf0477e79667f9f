"""The way back: a model written as a Hugging Face folder, and which of its heads go with it."""

import dataclasses
import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from golden.batches import FOLDERS, HERE

from jxstilts.checkpoint import digests
from jxstilts.models import export, huggingface
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError

LABELS = ("contradiction", "entailment", "neutral")


@pytest.mark.parametrize("name", FOLDERS)
def test_there_and_back_is_bitwise(name, tmp_path):
    loaded = huggingface.load(HERE / name)
    assert export.to_huggingface(loaded, tmp_path / "out") == []
    again = huggingface.load(tmp_path / "out")
    assert digests(loaded.params) == digests(again.params)
    assert loaded.model == again.model


@pytest.fixture
def many():
    """A model with a pooler and several heads."""
    config = make_config("xlmr", "tiny", pooler=True)
    specs = (HeadSpec("nli", "classification", LABELS), HeadSpec("qa", "span"), HeadSpec("e", "embedding"))
    model = Model(config, specs)
    return huggingface.Loaded(model, jax.jit(model.init)(jax.random.key(0)))


def test_export_chooses_a_head(many, tmp_path):
    with pytest.raises(InputError, match=r"several heads .nli, qa.; choose one .head., or the encoder alone"):
        export.to_huggingface(many, tmp_path / "a")
    with pytest.raises(InputError, match="'nly'; did you mean 'nli'"):
        export.to_huggingface(many, tmp_path / "a", head="nly")
    left_out = export.to_huggingface(many, tmp_path / "a", head="qa")
    assert left_out == [
        "encoder/pooler/bias", "encoder/pooler/kernel",
        "heads/nli/dense/bias", "heads/nli/dense/kernel", "heads/nli/out/bias", "heads/nli/out/kernel",
    ]  # fmt: skip
    again = huggingface.load(tmp_path / "a")
    assert [spec.type for spec in again.model.head_specs] == ["span"] and not again.model.config.pooler

    export.to_huggingface(many, tmp_path / "b", encoder_only=True)
    again = huggingface.load(tmp_path / "b")
    assert again.model.head_specs == () and again.model.config == many.model.config
    assert digests(again.params["encoder"]) == digests(many.params["encoder"])

    with pytest.raises(InputError, match="exists; export writes to a new folder"):
        export.to_huggingface(many, tmp_path / "b", encoder_only=True)


def test_export_of_an_embedding_model_is_the_encoder(many, tmp_path):
    model = many.model.with_heads(HeadSpec("e", "embedding"))
    params = {"encoder": many.params["encoder"], "heads": {"e": {}}}
    assert export.to_huggingface(huggingface.Loaded(model, params), tmp_path / "out") == []
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["XLMRobertaModel"]


def test_export_refuses_a_head_on_the_pooler(many, tmp_path):
    spec = HeadSpec("nli", "classification", LABELS, pooling="pooler")
    loaded = dataclasses.replace(many, model=many.model.with_heads(spec))
    with pytest.raises(InputError, match=r"reads the pooler's output.*export the encoder alone"):
        export.to_huggingface(loaded, tmp_path / "out")


def test_export_takes_the_tokenizer_along_and_nothing_else(tmp_path):
    folder = shutil.copytree(HERE / "xlmr_classification", tmp_path / "model")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "notes.txt").write_text("not the tokenizer's")
    loaded = huggingface.load(folder)
    assert loaded.tokenizer_dir == folder
    export.to_huggingface(loaded, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json",
    }  # fmt: skip


def test_bfloat16_parameters_are_exported_as_they_are(tmp_path):
    loaded = huggingface.load(HERE / "xlmr_span")
    params = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), loaded.params)
    export.to_huggingface(dataclasses.replace(loaded, params=params), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    again = huggingface.load(tmp_path / "out")
    assert digests(jax.tree.map(lambda x: x.astype(np.float32), params)) == digests(again.params)
