"""Bundles: what is saved comes back bitwise, or the error says what is wrong with it."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.batches import HERE

from jxstilts import checkpoint
from jxstilts.checkpoint import digests, leaves
from jxstilts.mesh import make_mesh, param_shardings
from jxstilts.models import bundle
from jxstilts.models.layers import Compute
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError

SPECS = (
    HeadSpec("nli", "classification", ("contradiction", "entailment", "neutral"), pooling="pooler"),
    HeadSpec("qa", "span"),
    HeadSpec("mlm", "mlm"),
    HeadSpec("vectors", "embedding"),
)


@pytest.fixture(scope="module")
def model():
    return Model(make_config("xlmr", "tiny", pooler=True), SPECS)


@pytest.fixture(scope="module")
def params(model):
    return jax.jit(model.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def saved(model, params, tmp_path_factory):
    """A bundle that no test may change; see `spoiled`."""
    tokenizer = tmp_path_factory.mktemp("tokenizer")
    (tokenizer / "tokenizer.json").write_text('{"version": "1.0"}')
    (tokenizer / "weights.bin").write_text("not the tokenizer's")
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    bundle.save(folder, model, params, tokenizer_files=tokenizer, provenance={"parent": None, "phase": "mnli"})
    return folder


@pytest.fixture
def spoiled(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "bundle")


def edit_meta(folder, **changes):
    path = folder / "bundle.json"
    meta = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in meta.items() if value is not None}))


def test_what_is_saved_comes_back(saved, model, params):
    loaded = bundle.load(saved)
    assert loaded.model == model
    assert digests(loaded.params) == digests(params)
    assert jax.tree.structure(loaded.params) == jax.tree.structure(params)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves(loaded.params).values())
    assert {path.name for path in loaded.tokenizer_dir.iterdir()} == {"tokenizer.json"}


def test_meta(saved, params):
    meta = bundle.read_meta(saved)
    assert meta["format"] == bundle.FORMAT and meta["family"] == "xlmr" and meta["config"]["width"] == 32
    assert meta["heads"][0] == {
        "name": "nli", "type": "classification", "labels": ["contradiction", "entailment", "neutral"],
        "pooling": "pooler",
    }  # fmt: skip
    assert meta["provenance"]["phase"] == "mnli" and "jax" in meta["provenance"]["versions"]
    assert meta["leaves"] == digests(params)
    assert meta["sha256"] == checkpoint.combined_digest(digests(params))
    assert bundle.load(saved).meta == meta


def test_heads_by_name(saved, params):
    loaded = bundle.load(saved, heads=("qa",))
    assert [spec.name for spec in loaded.model.head_specs] == ["qa"] and list(loaded.params["heads"]) == ["qa"]
    assert bundle.load(saved, heads=()).params["heads"] == {}
    with pytest.raises(InputError, match="unknown head 'nly'; did you mean 'nli'"):
        bundle.load(saved, heads=("nly",))


def test_onto_a_mesh(saved, model, params):
    mesh = make_mesh({"fsdp": 4, "tensor": 2})
    _, axes = model.abstract()
    expected, _ = param_shardings(axes, params, mesh)
    for path in (saved, HERE / "xlmr_classification"):
        loaded = bundle.load(path, mesh=mesh)
        words = loaded.params["encoder"]["embeddings"]["tokens"]
        assert words.sharding == expected["encoder"]["embeddings"]["tokens"]
        assert len({str(shard.index) for shard in words.addressable_shards}) == 8
        assert digests(loaded.params) == loaded.meta["leaves"]


def test_saved_from_a_mesh(model, params, saved, tmp_path):
    _, axes = model.abstract()
    shardings, _ = param_shardings(axes, params, make_mesh({"data": 2, "fsdp": 2, "tensor": 2}))
    spread = jax.tree.map(jax.device_put, params, shardings)
    assert bundle.save(tmp_path / "bundle", model, spread) == bundle.read_meta(saved)["sha256"]
    assert digests(bundle.load(tmp_path / "bundle").params) == digests(params)


def test_another_dtype(saved, params):
    loaded = bundle.load(saved, compute=Compute(param_dtype="bfloat16"))
    expected = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    assert digests(loaded.params) == digests(expected)
    loaded = bundle.load(HERE / "xlmr_span", compute=Compute(param_dtype="bfloat16"), mesh=make_mesh({"fsdp": 8}))
    assert {leaf.dtype for leaf in leaves(loaded.params).values()} == {jnp.dtype("bfloat16")}


def test_hugging_face_folder_is_taken_as_well(tmp_path):
    loaded = bundle.load(HERE / "xlmr_span")
    meta = loaded.meta
    digest = bundle.save(tmp_path / "bundle", loaded.model, loaded.params, provenance=meta["provenance"])
    again = bundle.load(tmp_path / "bundle")
    assert digest == meta["sha256"] == again.meta["sha256"]
    assert again.model == loaded.model
    assert again.meta["provenance"]["source"].endswith("xlmr_span")
    assert bundle.read_meta(HERE / "xlmr_span")["config"] == meta["config"]


def test_changed_parameter_is_named(spoiled, params):
    changed = jax.tree.map(np.array, params)
    changed["encoder"]["layers"]["query"]["kernel"][1, 2, 3] += 1e-6
    checkpoint.save_params(spoiled / "params", changed)
    with pytest.raises(InputError, match=r"is damaged: .*: encoder/layers/query/kernel$"):
        bundle.load(spoiled)
    assert bundle.load(spoiled, verify=False).model.head_specs == SPECS


def test_damaged_files(spoiled):
    files = sorted((path for path in spoiled.glob("params/**/d/*")), key=lambda path: path.stat().st_size)
    content = bytearray(files[-1].read_bytes())
    content[len(content) // 2] ^= 0xFF
    files[-1].write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be read|is damaged"):
        bundle.load(spoiled)
    shutil.rmtree(spoiled / "params")
    with pytest.raises(InputError, match="params"):
        bundle.load(spoiled)


def test_changed_tokenizer_is_named(spoiled):
    (spoiled / "tokenizer" / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"is damaged: .*tokenizer/tokenizer.json"):
        bundle.load(spoiled)
    (spoiled / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"is damaged: .*tokenizer/tokenizer.json"):
        bundle.load(spoiled)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 99}, "bundle format 99, this version reads 1 and 2; upgrade jxstilts"),
        ({"format": 0}, "bundle format 0, this version reads 1 and 2; make the bundle again"),
        ({"format": None}, "bundle format None"),
        ({"leaves": None}, "expected 'leaves' to be a dict, found None"),
        ({"family": "xlmx"}, r"bundle.json: config.model.family: unknown .*'xlmx'; did you mean 'xlmr'"),
        ({"config": {"vocab_size": 10}}, "bundle.json: config.model: no value for heads"),
        ({"heads": [{"name": "nli"}]}, r"bundle.json: 'labels'"),
    ],
)
def test_meta_that_does_not_fit(spoiled, changes, text):
    edit_meta(spoiled, **changes)
    for read in (bundle.read_meta, bundle.load):
        with pytest.raises(InputError, match=text):
            read(spoiled)


def test_config_that_does_not_fit_the_parameters(spoiled):
    config = bundle.read_meta(spoiled)["config"]
    edit_meta(spoiled, config=config | {"vocab_size": 999})
    with pytest.raises(InputError, match=r"encoder/embeddings/tokens: expected \(999, 32\), found \(1000, 32\)"):
        bundle.load(spoiled)


def test_meta_that_is_no_json(spoiled):
    (spoiled / "bundle.json").write_text('{"format": 1,')
    with pytest.raises(InputError, match=r"bundle.json: cannot be read as JSON"):
        bundle.load(spoiled)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="not a folder and not a hub id"):
        bundle.load(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"config.json: cannot be read"):
        bundle.load(tmp_path)


def test_something_else_is_left_alone(model, params, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not a bundle; it is left alone"):
        bundle.save(tmp_path / "thesis", model, params)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["thesis.tex"]


def test_parameters_of_another_model(model, params, tmp_path):
    other = model.with_heads(HeadSpec("qa", "span"), HeadSpec("other", "span"))
    with pytest.raises(InputError) as error:
        bundle.save(tmp_path / "bundle", other, params)
    assert "heads/other/kernel: expected (32, 2), found None" in str(error.value)
    assert "heads/nli/out/bias: expected None, found (3,)" in str(error.value)
    with pytest.raises(InputError, match="holds no tokenizer"):
        bundle.save(tmp_path / "bundle", model, params, tokenizer_files=tmp_path)
    assert not list(tmp_path.iterdir())


def test_save_replaces_a_bundle_whole(spoiled, model, params):
    doubled = jax.tree.map(lambda x: 2 * x, params)
    digest = bundle.save(spoiled, model, doubled)
    loaded = bundle.load(spoiled)
    assert loaded.meta["sha256"] == digest and digests(loaded.params) == digests(doubled)
    assert loaded.tokenizer_dir is None
    assert [path.name for path in spoiled.parent.iterdir()] == [spoiled.name]


class Killed(Exception):
    pass


@pytest.mark.parametrize("when", [0, 1, 2])
def test_interrupted_save_leaves_a_whole_bundle(spoiled, model, params, monkeypatch, when):
    """Stops at each rename: whatever is found afterwards is the old bundle or the new one."""
    old = bundle.read_meta(spoiled)["sha256"]
    doubled = jax.tree.map(lambda x: 2 * x, params)
    real, calls = os.replace, []

    def replace(source, target):
        if str(source).endswith((".partial", spoiled.name)) or str(target).endswith(".older"):
            calls.append(source)
            if len(calls) > when:
                raise Killed
        real(source, target)

    monkeypatch.setattr(bundle.os, "replace", replace)
    if when < 2:
        with pytest.raises(Killed):
            bundle.save(spoiled, model, doubled)
    else:
        bundle.save(spoiled, model, doubled)
    monkeypatch.undo()
    loaded = bundle.load(spoiled)
    assert (loaded.meta["sha256"] == old) == (when < 2)
    assert digests(loaded.params) == loaded.meta["leaves"]
    bundle.save(spoiled, model, doubled)  # what was left behind is no obstacle
    assert [path.name for path in spoiled.parent.iterdir()] == [spoiled.name]


PROCESS = """
import sys
import jax
from jxstilts import processes
from jxstilts.mesh import make_mesh, param_shardings
from jxstilts.models import bundle
from jxstilts.models.model import HeadSpec, Model, make_config
with processes.joined(processes.settings("2", sys.argv[1], "localhost:{port}")):
    model = Model(make_config("xlmr", "tiny"), (HeadSpec("qa", "span"),))
    mesh = make_mesh({{"data": 2, "fsdp": 2}})
    shapes, axes = model.abstract()
    shardings, _ = param_shardings(axes, shapes, mesh)
    params = jax.jit(model.init, out_shardings=shardings)(jax.random.key(0))
    assert not params["encoder"]["embeddings"]["tokens"].is_fully_addressable
    digest = bundle.save({folder!r}, model, params)
    assert bundle.load({folder!r}, mesh=mesh).meta["sha256"] == digest
    assert bundle.load({golden!r}, mesh=mesh).params["heads"]["span"]["bias"].sharding.mesh == mesh
"""


def test_two_processes_save_and_load_together(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    code = PROCESS.format(port=port, folder=str(tmp_path / "bundle"), golden=str(HERE / "xlmr_span"))
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "PYTHONPATH": str(pathlib.Path(bundle.__file__).parents[2]),
    }
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(i)], env=environment, stderr=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert digests(bundle.load(tmp_path / "bundle").params) == bundle.read_meta(tmp_path / "bundle")["leaves"]
