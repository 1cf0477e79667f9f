"""Adapters in bundles, apart from their base; PEFT's folders; a study with language adapters."""

import dataclasses
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from golden.batches import HERE
from test_adapters import LORA, MADX, moved

import jxstilts
from jxstilts import api, checkpoint, cli, config, runtime, study
from jxstilts.checkpoint import digests, leaves
from jxstilts.mesh import make_mesh
from jxstilts.models import adapters, bundle, export, peft
from jxstilts.runtime import InputError

MICRO = pathlib.Path(jxstilts.__file__).parent / "miniworld" / "micro"
PAGE = (pathlib.Path(__file__).parent.parent / "docs/adapters.md").read_text(encoding="utf-8")
GOLDEN = HERE / "xlmr_classification"


def with_adapters(loaded, **named):
    """-> (the model with more adapters, its parameters with adapters that do something)"""
    model = dataclasses.replace(loaded.model, adapters=(*loaded.model.adapters, *named.items()))
    made = moved(jax.jit(model.init_beside)(jax.random.key(3)))["adapters"] | loaded.params.get("adapters", {})
    return model, {**loaded.params, "adapters": made}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """-> (a folder that holds the bundles base and own, the model of own, its parameters). No test may change it."""
    folder = tmp_path_factory.mktemp("adapters")
    shutil.copytree(GOLDEN, folder / "base")
    loaded = bundle.load(folder / "base")
    model, params = with_adapters(loaded, lora=LORA, madx=MADX)
    bundle.save(folder / "own", model, params, base=bundle.base(loaded))
    return folder, model, params


@pytest.fixture
def copied(saved, tmp_path):
    return pathlib.Path(shutil.copytree(saved[0], tmp_path / "moved"))


def test_a_bundle_has_the_adapters_and_not_the_base(saved):
    folder, model, params = saved
    assert not any(path.startswith("encoder") for path in checkpoint.stored_shapes(folder / "own/params"))
    loaded = bundle.load(folder / "own")
    assert loaded.model == model and digests(loaded.params) == digests(params)
    assert loaded.meta["sha256"] == checkpoint.combined_digest(digests(params)) and loaded.meta["format"] == 2
    spread = bundle.load(folder / "own", mesh=make_mesh({"fsdp": 4, "tensor": 2}))
    assert digests(spread.params) == digests(params)
    assert bundle.load(folder / "own", heads=()).params["heads"] == {}


def test_an_adapter_upon_an_adapter_has_the_same_base(copied):
    """Moved with its base, which is found beside it; several in one bundle; a whole bundle needs no base."""
    loaded = bundle.load(copied / "own")
    model, params = with_adapters(loaded, more=LORA)
    base = bundle.base(loaded)
    assert base.path == str(copied / "base")
    bundle.save(copied / "more", model, params, base=base)
    assert bundle.read_meta(copied / "more")["base"]["sha256"] == bundle.read_meta(copied / "own")["base"]["sha256"]
    bundle.save(copied / "whole", model, params)
    found = bundle.load(copied / "more")
    assert digests(found.params) == digests(bundle.load(copied / "whole").params) == digests(params)
    assert [name for name, _ in found.model.adapters] == ["lora", "madx", "more"]


def test_another_base(copied):
    other = bundle.load(copied / "base")
    changed = jax.tree.map(lambda leaf: leaf + 1, other.params)
    shutil.rmtree(copied / "base")
    meta = copied / "own/bundle.json"
    content = json.loads(meta.read_text())
    content["base"]["path"] = "/nowhere/at/all"
    meta.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"trained on /nowhere/at/all, whose encoder is not stored with them: .*bring it"
    ):
        bundle.load(copied / "own")
    bundle.save(copied / "base", other.model, changed)
    with pytest.raises(InputError, match=r"own/bundle.json: .*another encoder, of SHA-256 \w+, theirs has \w+; bring"):
        bundle.load(copied / "own")
    meta.write_text(json.dumps({**content, "base": {"path": ".", "near": ".", "sha256": ""}}))
    with pytest.raises(InputError, match="no encoder of its own either"):
        bundle.load(copied / "own")
    for wrong in ({"base": "there"}, {"adapters": {"lora": {"kind": "lorra"}}}, {"adapters": {"a/b": {}}}):
        meta.write_text(json.dumps({**content, **wrong}))
        with pytest.raises(InputError, match=r"bundle\.json: "):
            bundle.read_meta(copied / "own")


def test_lora_merged_and_exported_by_the_command_line(saved, tmp_path, capsys):
    folder, model, params = saved
    loaded = bundle.load(folder / "own")
    with pytest.raises(InputError, match=r"the model has adapters \(lora, madx\)"):
        export.to_huggingface(loaded, tmp_path / "hf")
    with pytest.raises(InputError, match="madx is a pfeiffer adapter"):
        adapters.merged(loaded)
    model, params = with_adapters(bundle.load(folder / "base"), lora=LORA)
    bundle.save(tmp_path / "own", model, params, base=bundle.base(bundle.load(folder / "base")))
    assert cli.main(["export", str(tmp_path / "own"), str(tmp_path / "hf"), "--merge"]) == 0
    assert cli.main(["import", str(tmp_path / "own"), str(tmp_path / "whole"), "--merge"]) == 0
    plain, merged = adapters.merge(model, params, ["lora"])
    for name in ("hf", "whole"):
        found = bundle.load(tmp_path / name)
        assert found.model == plain and digests(found.params) == digests(merged), name
    assert cli.main(["import", str(folder / "base"), str(tmp_path / "x"), "--merge"]) == 2
    assert "the model has no adapters" in capsys.readouterr().err


def test_pefts_folder_and_back_is_the_same_to_the_bit(saved, tmp_path, capsys):
    folder, _, params = saved
    out = tmp_path / "lora"
    assert cli.main(["export", str(folder / "own"), str(out), "--adapter=lora", "--head=classification"]) == 0
    own = json.loads((out / "adapter_config.json").read_text())
    assert (own["r"], own["lora_alpha"], own["task_type"]) == (LORA.rank, LORA.alpha, "SEQ_CLS")
    assert own["modules_to_save"] == ["classifier"] and "encoder.layer.1.attention.self.query" in own["target_modules"]
    assert cli.main(["import", str(folder / "base"), str(tmp_path / "own"), f"--adapter={out}"]) == 0
    found = bundle.load(tmp_path / "own")
    assert "base" in found.meta and found.model.head_specs[0].labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    for room, name in (("adapters", "lora"), ("heads", "classification")):
        assert digests(found.params[room][name]) == digests(params[room][name])
    again = dict(found.model.adapters)["lora"]
    assert (again.rank, again.alpha, again.layers, len(again.matrices)) == (4, 8.0, ":", 6)

    base = bundle.load(folder / "base")
    part = dataclasses.replace(LORA, layers="1:2", matrices=("layers/value",))
    model, params = with_adapters(base, last=part)
    peft.write(bundle.Loaded(model, params), tmp_path / "last", "last")
    assert dict(peft.read(base, tmp_path / "last", "last").model.adapters)["last"] == part
    file = tmp_path / "last/adapter_config.json"
    content = json.loads(file.read_text())
    for change, message in (
        ({"use_dora": True}, "use_dora=True is not computed here, only False"), ({"peft_type": "IA3"}, "peft_type"),
        ({"r": 2}, r"value/a: expected \(2, 16\) \(r=2\), found \(4, 16\)"), ({"r": "x"}, "expected two numbers"),
    ):  # fmt: skip
        file.write_text(json.dumps({**content, **change}))
        with pytest.raises(InputError, match=message):
            peft.read(base, tmp_path / "last", "last")
    with pytest.raises(InputError, match="madx is a pfeiffer adapter"):
        peft.write(bundle.load(folder / "own"), tmp_path / "no", "madx")


SMALL = {
    "en": {"steps": 3, "tasks.text.batch_size": 8, "tasks.text.max_length": 32},
    "de": {"steps": 3, "tasks.text.batch_size": 8, "tasks.text.max_length": 32},
    "nli": {"steps": 4, "tasks.mnli.batch_size": 8, "tasks.mnli.max_length": 32, "tasks.mnli.limit": 64,
            "tasks.mnli.buckets": 1},
}  # fmt: skip


@pytest.mark.slow
def test_a_study_with_language_adapters(world, tmp_path, compile_cache, capsys):
    """The config of docs/adapters.md, small: MAD-X, with German's adapter exchanged at evaluation; and broken off."""
    file = tmp_path / "madx.py"
    file.write_text(re.search(r"`madx.py`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)[1])
    options = [f"--config={file}:{MICRO}", f"--config.data_dir={world}", f"--config.compile_cache={compile_cache}"]
    options += [f"--config.phases.{name}.{key}={value}" for name, keys in SMALL.items() for key, value in keys.items()]
    options += [f"--config.phases.{name}.optimizer.warmup=0" for name in SMALL]
    options += ["--config.mesh.data=1", "--config.evaluations.xnli.what.limit=8"]
    plan, one = study.from_config(config.load(options)), jax.devices()[:1]
    study.run(plan, tmp_path / "run", devices=one)
    nli = bundle.load(tmp_path / "run/phases/nli/best")
    assert [name for name, _ in nli.model.adapters] == ["en", "de", "nli"]
    assert pathlib.Path(nli.meta["base"]["path"]) == MICRO
    assert digests(nli.params["encoder"]) == digests(bundle.load(MICRO).params["encoder"])
    for code in ("en", "de"):  # the task's phase has left them as they are
        own = bundle.load(tmp_path / f"run/phases/{code}/best").params["adapters"][code]
        assert digests(own) == digests(nli.params["adapters"][code])
        assert any(leaf.any() for path, leaf in leaves(own).items() if "up/kernel" in path)

    only = study.only(plan, "nli")
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    shutil.rmtree(tmp_path / "again/phases/nli")
    with pytest.raises(runtime.Interrupted, match="stopped at step 2 of 4"):
        study.run(only, tmp_path / "again", stop=lambda step: step == 2, devices=one)
    study.run(only, tmp_path / "again", devices=one)
    assert bundle.load(tmp_path / "again/phases/nli/best").meta["sha256"] == nli.meta["sha256"]

    capsys.readouterr()
    best = f"--model={tmp_path / 'run/phases/nli'}"
    common = [f"--data_dir={world}", f"--out={tmp_path / 'out'}", "--limit=4"]
    assert cli.main(["evaluate", best, "--tasks=xnli", "--languages=ru", *common]) == 2
    assert "the model has language adapters of de, en, none of 'ru'" in capsys.readouterr().err
    assert cli.main(["evaluate", best, "--tasks=tatoeba", "--languages=de", *common]) == 2
    assert "its inputs are in several languages at once" in capsys.readouterr().err
    wrong = [*options, "--config.phases.nli.adapters.en.use=drop"]
    with pytest.raises(InputError, match=r"config.phases.nli.adapters: one language's adapters .* here none of de"):
        study.run(study.from_config(config.load(wrong)), tmp_path / "run")


def test_the_language_of_the_input_decides(world):
    """Each language's result is that of the model with that language's adapter alone."""
    from jxstilts import tasks
    from jxstilts.data import tokenizer
    from jxstilts.eval.evaluator import Evaluator

    base = bundle.load(MICRO)
    named = {code: dataclasses.replace(MADX, language=code) for code in ("en", "de")}
    model, params = with_adapters(base, **named)
    own = Evaluator(model, params, tokenizer.load(MICRO / "tokenizer"))
    rows = [
        {"id": str(i), "text": row["text_a"]} for i, row in enumerate(tasks.load("xnli", world, "dev", "de", limit=4))
    ]
    with pytest.raises(InputError, match=r"speaking\(language\)"):
        own.embed(rows)
    found = {code: own.speaking(code).embed(rows, [-1]) for code in named}
    assert not np.array_equal(found["en"], found["de"])
    alone = adapters.for_language(model, params, "de")
    expected = Evaluator(*alone, own.tokenizer).embed(rows, [-1])
    np.testing.assert_array_equal(found["de"], expected)
    assert own.speaking("de").model == own.speaking("en").model  # they share what is compiled
    ready = api.Ready(bundle.Loaded(model, params, MICRO / "tokenizer", base.meta), make_mesh({}, jax.devices()[:1]))
    texts = [row["text"] for row in rows]
    for ask in (ready.embed, ready.hidden):  # a program says it
        with pytest.raises(InputError, match=r"from jxstilts.api language="):
            ask(texts)
    np.testing.assert_allclose(ready.embed(texts, layer=-1, language="de"), expected[0], atol=1e-5)
