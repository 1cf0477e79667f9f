"""Bundles, Hugging Face folders, weight files and checkpoints, mutated: refused in one line, or whole."""

import dataclasses
import functools
import json
import math
import shutil

import fuzz
import jax
import numpy as np
import pytest
import samples
from golden.batches import HERE
from safetensors.numpy import load_file
from samples import write_flax

from jxstilts import checkpoint
from jxstilts.checkpoint import digests, leaves
from jxstilts.models import bundle, huggingface, tensor_files
from jxstilts.models.layers import Compute
from jxstilts.models.model import Model
from jxstilts.runtime import InputError

GOLDEN = HERE / "xlmr_classification"
# Orbax leaves coroutines behind where a file is damaged
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A model's shapes are traced once, not once per input."""
    monkeypatch.setattr(Model, "abstract", functools.cache(Model.abstract))


def check_model(model: Model) -> None:
    """Raises AssertionError unless this is a model that can be made."""
    shapes, _ = model.abstract()
    for leaf in leaves(shapes).values():
        assert all(type(size) is int and size > 0 for size in leaf.shape), leaf
    config = dataclasses.asdict(model.config)
    kinds = {field.name: field.type for field in dataclasses.fields(model.config)}
    for key, value in config.items():
        assert type(value) is kinds[key] or (kinds[key] is float and type(value) is int), (key, value)
        assert math.isfinite(value) and value >= 0
    assert config["hidden_dropout"] < 1 and config["attention_dropout"] < 1 and config["pad_id"] < config["vocab_size"]
    for spec in model.head_specs:
        assert type(spec.name) is str and type(spec.pooling) is str and spec.name.isprintable()
        assert len(set(spec.labels)) == len(spec.labels) and all(type(label) is str for label in spec.labels)


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(GOLDEN, tmp_path / "model")


@fuzz.shares(40, 4000)
def test_config_of_a_hugging_face_folder(folder, count):
    file = folder / "config.json"
    content = file.read_bytes()

    def attempt(plan):
        fuzz.put(file, fuzz.mutate(content, plan, fuzz.JSON), plan)
        check_model(huggingface.inspect(folder)[0])

    fuzz.run("config.json", count, attempt, str(folder))


def _safetensors(content, plan):
    """Mutates the whole file, or its JSON header alone, whose length then is right."""
    if plan[0][2] % 2:
        return fuzz.mutate(content, plan, fuzz.BYTES)
    end = 8 + int.from_bytes(content[:8], "little")
    header = fuzz.mutate(content[8:end], plan, fuzz.JSON)
    return len(header).to_bytes(8, "little") + header + content[end:]


@fuzz.shares(40, 4000)
def test_safetensors(folder, count):
    file = folder / "model.safetensors"
    content = file.read_bytes()

    def attempt(plan):
        fuzz.put(file, _safetensors(content, plan), plan)
        loaded = huggingface.load(folder)
        check_model(loaded.model)
        shapes, _ = loaded.model.abstract()
        assert {path: leaf.shape for path, leaf in leaves(loaded.params).items()} == {
            path: leaf.shape for path, leaf in leaves(shapes).items()
        }

    fuzz.run("model.safetensors", count, attempt, str(folder))


@fuzz.shares(40, 2000)
def test_truncated_safetensors_are_refused(folder, count):
    file = folder / "model.safetensors"
    content = file.read_bytes()

    def attempt(plan):
        file.write_bytes(content[: plan[0][1] * 7919 % len(content)])
        huggingface.load(folder)

    assert fuzz.run("truncated safetensors", count, attempt, str(folder))["refused"] >= count


@fuzz.shares(20, 2000)
def test_index_of_shards(folder, count):
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    names = tensor_files.open_file(folder / "model-1.safetensors")
    content = json.dumps({"weight_map": dict.fromkeys(names, "model-1.safetensors")}).encode()
    file = folder / "model.safetensors.index.json"

    def attempt(plan):
        fuzz.put(file, fuzz.mutate(content, plan, fuzz.JSON), plan)
        assert all(tensor.file.parent == folder for tensor in tensor_files.open_tensors(folder).values())

    fuzz.run("index.json", count, attempt, str(folder))


@fuzz.shares(40, 2000)
def test_flax_files(folder, count):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    file = folder / "flax_model.msgpack"
    write_flax(file, tensors)
    content = file.read_bytes()

    def attempt(plan):
        fuzz.put(file, fuzz.mutate(content, plan, fuzz.BYTES), plan)
        check_model(huggingface.load(folder).model)

    fuzz.run("flax_model.msgpack", count, attempt, str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    file = tmp_path / "pytorch_model.bin"
    torch.save({f"a.{i}": torch.arange(5.0) for i in range(3)}, file, _use_new_zipfile_serialization=zipped)
    content = file.read_bytes()

    def attempt(plan):
        fuzz.put(file, fuzz.mutate(content, plan, fuzz.BYTES), plan)
        for name, tensor in tensor_files.open_tensors(tmp_path).items():
            assert type(name) is str and tensor.read().shape == tensor.shape

    fuzz.run(f"pytorch_model.bin, {'zip' if zipped else 'pickle'}", 1500, attempt, str(tmp_path))


# --- bundles ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return samples.tiny_bundle(tmp_path_factory.mktemp("bundles") / "bundle", samples.word_tokenizer())


@fuzz.shares(40, 4000)
def test_record_of_a_bundle(saved, tmp_path, count):
    folder = shutil.copytree(saved, tmp_path / "bundle")
    file = folder / "bundle.json"
    content = file.read_bytes()

    def attempt(plan):
        fuzz.put(file, fuzz.mutate(content, plan, fuzz.JSON), plan)
        meta = bundle.read_meta(folder)
        check_model(bundle._model(meta, folder, Compute()))

    fuzz.run("bundle.json", count, attempt, str(folder))


@fuzz.shares(6, 400)
def test_a_bundle_is_whole_or_refused(saved, tmp_path, count):
    """Any byte of any file; what is loaded has the values, the labels and the tokenizer that were saved."""
    folder = shutil.copytree(saved, tmp_path / "bundle")
    whole = bundle.load(saved)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent != folder)
    contents = {file: file.read_bytes() for file in files}
    damaged = [folder]

    def attempt(plan):
        if damaged:  # bring back what the input before this one has spoilt
            shutil.rmtree(folder)
            shutil.copytree(saved, folder)
        file = files[plan[0][2] % len(files)]
        damaged[:] = [file]
        fuzz.put(file, fuzz.mutate(contents[file], plan, fuzz.BYTES), plan)
        loaded = bundle.load(folder)
        assert digests(loaded.params) == digests(whole.params) and loaded.model == whole.model
        for path in (saved / "tokenizer").iterdir():
            assert (folder / "tokenizer" / path.name).read_bytes() == path.read_bytes()

    fuzz.run("bundle", count, attempt, str(folder))


@fuzz.shares(6, 200)
def test_checkpoints(tmp_path, count):
    """The record of a checkpoint and its arrays' files: what is restored is what was saved."""
    state = {"params": {"a": np.arange(6, dtype=np.float32)}, "step": np.int32(3)}
    state = jax.tree.map(jax.numpy.asarray, state)
    kept = checkpoint.Checkpoints(tmp_path / "kept")
    kept.save(3, state, {"data": [1, 2], "best": None})
    kept.wait()
    kept.close()
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
    folder = tmp_path / "spoilt"
    files = sorted(path.relative_to(tmp_path / "kept") for path in (tmp_path / "kept").rglob("*") if path.is_file())

    def attempt(plan):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "kept", folder)
        file = folder / files[plan[0][2] % len(files)]
        kinds = fuzz.BYTES if b"\x00" in file.read_bytes() else fuzz.JSON
        fuzz.put(file, fuzz.mutate(file.read_bytes(), plan, kinds), plan)
        opened = checkpoint.Checkpoints(folder)
        try:
            if opened.steps():
                found, meta = opened.restore(3, abstract)
                assert digests(found) == digests(state) and meta == {"data": [1, 2], "best": None}
        finally:
            opened.close()

    fuzz.run("checkpoint", count, attempt, str(folder))


# --- what the campaign has found -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": ["roberta"]}, "no family computes model_type"),
        ({"architectures": [5]}, r"architectures=\[5\]: expected a list of names"),
        ({"architectures": "XLMRobertaModel"}, "expected a list of names"),
        ({"layer_norm_eps": math.inf}, "layer_norm_eps=inf; allowed is a number from 0 up"),
        ({"hidden_dropout_prob": math.nan}, "hidden_dropout_prob=nan; allowed is a number from 0 to below 1"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob=1.0; allowed is a number from 0 to below 1"),
        ({"pad_token_id": 40}, "max_position_embeddings=26 leaves no position"),
        ({"pad_token_id": 48}, "pad_id=48 is not in the vocabulary of 48"),
        ({"num_hidden_layers": 10**9}, r"num_hidden_layers=1000000000, but the weights are \d+ tensors"),
        ({"id2label": {"0": "a", "1": "a", "2": "b"}}, "id2label: expected labels that differ"),
    ],
)
def test_found_in_config_json(folder, changes, message):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(InputError, match=message):
        huggingface.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"heads": 0}}, "bundle.json: config: heads=0; allowed is a whole number from 1 up"),
        ({"config": {"width": "32"}}, "bundle.json: config: width='32'; allowed is a whole number"),
        ({"config": {"pooler": 0.1}}, "bundle.json: config: pooler=0.1; allowed is true or false"),
        ({"heads": [{"name": "a", "type": "span", "labels": "abc"}]}, "bundle.json: heads: not a head"),
        ({"heads": [{"name": "../a", "type": "span", "labels": []}]}, "bundle.json: heads: not a head"),
        ({"heads": [{"name": "a", "type": "spam", "labels": []}]}, "unknown head type 'spam'; did you mean 'span'"),
        ({"heads": [{"name": "a", "type": "span", "labels": ["b", "b"]}]}, "expected labels that differ"),
    ],
)
def test_found_in_bundle_json(saved, tmp_path, changes, message):
    folder = shutil.copytree(saved, tmp_path / "bundle")
    meta = json.loads((folder / "bundle.json").read_text())
    changes = {key: {**meta[key], **value} if isinstance(value, dict) else value for key, value in changes.items()}
    (folder / "bundle.json").write_text(json.dumps(meta | changes))
    with pytest.raises(InputError, match=message):
        bundle.load(folder)


def test_json_that_is_nested_too_deep(folder):
    (folder / "config.json").write_text("[" * 10**5)
    with pytest.raises(InputError, match=r"config.json: cannot be read as JSON"):
        huggingface.load(folder)
