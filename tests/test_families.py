"""Model families: each has every part of the contract; one more is one more file, in the package or outside."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from jxstilts.checkpoint import digests, leaves
from jxstilts.models import bundle, export, huggingface, model
from jxstilts.models.families import ROOM, base
from jxstilts.models.heads import HeadSpec
from jxstilts.models.model import Model, make_config
from jxstilts.runtime import InputError

LABELS = ("yes", "no")
SPECS = tuple(HeadSpec(kind[:1], kind, LABELS) for kind in ("classification", "tagging"))


@pytest.mark.parametrize("name", model.families())
def test_a_family_has_every_part_of_the_contract(name):
    assert len(base.MEMBERS) == 10
    module = model.family_module(name)
    assert base.missing(module) == []
    assert set(module.HUB.values()) <= set(module.PRESETS) and "tiny" in module.PRESETS
    config = make_config(name, "tiny")
    fields = module.HUGGINGFACE.fields
    assert {*fields, *module.HUGGINGFACE.required, *module.HUGGINGFACE.optional} <= set(vars(config))
    assert {"classification", "choice", "tagging", "span", "mlm"} <= set(module.heads(config))
    # Four times the width is four to sixteen times the work.
    wide = make_config(name, "tiny", width=4 * config.width, mlp=4 * config.mlp)
    assert 4 < module.training_flops(wide, 64) / module.training_flops(config, 64) < 16
    for hub, preset in module.HUB.items():
        assert model.published(f"{hub}@v1") == (name, preset)
    assert model.published("someone/else") is None


def test_families_are_listed_without_running_them():
    code = (
        "import sys; from jxstilts.models.families import ROOM; print(*ROOM.names()); "
        "print(*(name for name in sys.modules if name.startswith('jxstilts.models.')))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names, imported = out.splitlines()
    assert "xlmr" in names.split() and imported.split() == ["jxstilts.models.families"]


OWN = '''
"""XLM-R with a template, names and a model_type of its own."""
import dataclasses
from jxstilts.data.template import Template
from jxstilts.models.families.xlmr import (
    Config, Encoder, SENTENCE, heads, huggingface_keys, training_flops, HUGGINGFACE as theirs,
)
PRESETS = {"small": {"vocab_size": 50, "width": 16, "layers": 1, "heads": 2, "mlp": 32}}
HUB = {"someone/mine": "small"}
HUGGINGFACE = dataclasses.replace(theirs, model_types={"mine": ("Mine", {})}, prefix="mine.")
TEMPLATE = Template(single=("A", "sep"))
'''


def test_a_family_in_a_file_outside_the_package(tmp_path, monkeypatch):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    monkeypatch.setenv(ROOM.variable, str(file))
    assert "mine" in model.families() and model.published("someone/mine") == ("mine", "small")
    made = Model(make_config("mine", "small"), SPECS, family="mine")
    assert made.template.single == ("A", "sep")
    params = jax.jit(made.init)(jax.random.key(0))
    bundle.save(tmp_path / "bundle", made, params)
    loaded = bundle.load(tmp_path / "bundle")
    assert loaded.model == made and digests(loaded.params) == digests(params)
    export.to_huggingface(loaded, tmp_path / "out", head="t")
    again = huggingface.load(tmp_path / "out")
    assert again.model.family == "mine" and again.model.head_specs == (HeadSpec("tagging", "tagging", LABELS),)
    assert digests(again.params["encoder"]) == digests(params["encoder"])

    lacking = tmp_path / "lacking.py"
    lacking.write_text(OWN.replace("TEMPLATE =", "OTHER =").replace("HUB =", "OTHER ="))
    monkeypatch.setenv(ROOM.variable, str(lacking))
    with pytest.raises(InputError, match=r"lacking.py: a family also defines HUB, TEMPLATE"):
        make_config("lacking")


def test_a_bundle_takes_parameters_of_an_objective(tmp_path):
    shapes = (("bias", (2,)), ("dense/kernel", (3, 2)))
    made = Model(make_config("xlmr", "tiny"), SPECS, extra=(("critic", bundle.Stored(shapes)),))
    extra = {"critic": {"dense": {"kernel": np.ones((3, 2), np.float32)}, "bias": np.zeros(2, np.float32)}}
    params = {**jax.jit(made.init)(jax.random.key(0)), "extra": extra}
    digest = bundle.save(tmp_path / "bundle", made, params)
    loaded = bundle.load(tmp_path / "bundle", heads=("t",))
    assert leaves(loaded.params["extra"]).keys() == leaves(extra).keys()
    assert digests({"extra": loaded.params["extra"]}) == digests({"extra": extra})
    assert loaded.meta["sha256"] == digest and "extra/critic/bias" in loaded.meta["leaves"]
    changed = {**params, "extra": {"critic": {**extra["critic"], "bias": np.ones(2, np.float32)}}}
    assert bundle.save(tmp_path / "other", made, changed) != digest
    assert export.to_huggingface(loaded, tmp_path / "out") == ["extra/critic/bias", "extra/critic/dense/kernel"]
