"""A grid as phases and evaluations: what is trained once, what starts from what, and what is refused."""

import pathlib
import re

import pytest

from jxstilts import config, study
from jxstilts.runtime import InputError
from jxstilts.study import grid


def make(**fields):
    usual = {"models": {"m": "owner/name"}, "targets": {"xnli": {}}}
    return grid.expand(grid.Grid(**(usual | fields)), ("pretrain",))


def test_every_arm_is_trained_once_per_seed_and_used_by_all_targets():
    phases, evaluations = make(
        models={"m": "pretrain"}, intermediates=("none", "hellaswag"), seeds=(1, 2),
        targets={target: {} for target in ("xquad", "mlqa", "udpos", "tatoeba")},
    )  # fmt: skip
    assert {name: phase["init"] for name, phase in phases.items() if name.endswith("1")} == {
        "m-none-squad_v1-s1": "pretrain",
        "m-none-udpos-s1": "pretrain",
        "m-hellaswag-s1": "pretrain",
        "m-hellaswag-squad_v1-s1": "m-hellaswag-s1",
        "m-hellaswag-udpos-s1": "m-hellaswag-s1",
    }
    assert len(phases) == 10 and phases["m-hellaswag-udpos-s2"]["seed"] == 2
    assert phases["m-hellaswag-udpos-s2"]["init"] == "m-hellaswag-s2"
    assert {name: each["phase"] for name, each in evaluations.items() if name.endswith("1")} == {
        "m-none-xquad-s1": "m-none-squad_v1-s1",
        "m-none-mlqa-s1": "m-none-squad_v1-s1",
        "m-none-udpos-s1": "m-none-udpos-s1",
        "m-none-tatoeba-s1": "pretrain",
        "m-hellaswag-xquad-s1": "m-hellaswag-squad_v1-s1",
        "m-hellaswag-mlqa-s1": "m-hellaswag-squad_v1-s1",
        "m-hellaswag-udpos-s1": "m-hellaswag-udpos-s1",
        "m-hellaswag-tatoeba-s1": "m-hellaswag-s1",
    }
    # the model as it is has no seeds: it is searched with once
    assert len(evaluations) == 15 and "m-none-tatoeba-s2" not in evaluations
    assert evaluations["m-hellaswag-mlqa-s2"] == {
        "phase": "m-hellaswag-squad_v1-s2", "model": "m", "intermediate": "hellaswag", "target": "mlqa",
        "what": {"tasks": ["mlqa"], "benchmark": "xtreme", "options": {"protocol": "authors"}},
    }  # fmt: skip
    assert evaluations["m-hellaswag-tatoeba-s1"]["target"] == ""


def test_a_model_from_elsewhere_is_kept_as_a_phase():
    phases, evaluations = make(intermediates=("none", "mnli"), targets={"xnli": {}, "bucc2018": {}})
    # without an intermediate task, MNLI for XNLI is the intermediate phase itself
    assert {name: phase["init"] for name, phase in phases.items()} == {
        "m": "owner/name", "m-mnli-s0": "m", "m-mnli-mnli-s0": "m-mnli-s0",
    }  # fmt: skip
    assert evaluations["m-none-bucc2018-s0"]["phase"] == "m"
    assert evaluations["m-mnli-bucc2018-s0"]["phase"] == evaluations["m-none-xnli-s0"]["phase"] == "m-mnli-s0"


def test_a_random_model_is_another_one_for_each_seed():
    phases, evaluations = make(models={"r": "random"}, seeds=(1, 2), targets={"tatoeba": {}})
    assert phases["r-s2"] == {"init": "random", "seed": 2}
    assert evaluations["r-none-tatoeba-s2"]["phase"] == "r-s2"


def test_replay_and_translations():
    phases, _ = make(
        intermediates=("mnli+mlm", "qqp+translated", "all9+mlm+translated"),
        replay={"languages": ("de",), "batch_size": 8, "max_length": 64, "amount": 0.25},
        translated=("sw", "ru"),
        training={"all9": {"epochs": 3.0}, "mnli": {"tasks": {"mnli": {"limit": 9}}, "epochs": 1.0}},
        targets={},
    )
    assert phases["m-mnli+mlm-s0"]["keep_heads"] == ["mlm"]
    assert phases["m-mnli+mlm-s0"]["init"] == "owner/name"  # which has the head
    assert phases["m"] == {"init": "owner/name", "seed": 0} and phases["m-qqp+translated-s0"]["init"] == "m"
    assert phases["m-mnli+mlm-s0"]["tasks"] == {
        "mnli": {"limit": 9},
        "mlm": {"task": "text", "objective": "mlm", "packed": True, "mode": "alternate", "languages": ["de"],
                "batch_size": 8, "max_length": 64, "amount": 0.25},
    }  # fmt: skip
    assert phases["m-qqp+translated-s0"]["tasks"] == {"qqp": {"languages": ["en", "sw", "ru"]}}
    everything = phases["m-all9+mlm+translated-s0"]
    assert len(everything["tasks"]) == 10 and everything["epochs"] == 3.0
    assert everything["tasks"]["mnli"] == {"limit": 9, "languages": ["en", "sw", "ru"]}


def test_keys_go_from_the_grid_to_the_arm():
    phases, evaluations = make(
        intermediates=("mnli", "mine"), protocol="xtreme", benchmark="",
        phase={"log_every": 5, "optimizer": {"clip": 2.0}}, what={"limit": 7, "options": {"max_length": 48}},
        training={"mine": {"tasks": {"squad_v1": {}}, "optimizer": {"warmup": 0.2}, "select": {"rows": 9}}},
        targets={"xnli": {"limit": 3, "split": "dev"}},
    )  # fmt: skip
    assert phases["m-mine-s0"] == {
        "protocol": "xtreme", "keep_heads": [], "select": {"rows": 9}, "log_every": 5,
        "optimizer": {"clip": 2.0, "warmup": 0.2}, "init": "m", "tasks": {"squad_v1": {}}, "seed": 0,
    }  # fmt: skip
    assert evaluations["m-mnli-xnli-s0"]["what"] == {
        "tasks": ["xnli"], "benchmark": "", "limit": 3, "split": "dev",
        "options": {"protocol": "xtreme", "max_length": 48},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"intermediates": ("mnly",)}, "intermediates: unknown intermediate 'mnly'; did you mean 'mnli'"),
        ({"intermediates": ("mnli+mml",)}, "'mnli.mml': unknown addition 'mml'; did you mean 'mlm'"),
        ({"intermediates": ("mnli+mlm",)}, r"'mnli\+mlm' needs config.grid.replay"),
        ({"intermediates": ("mnli+translated",)}, "needs config.grid.translated"),
        ({"intermediates": ("none+mlm",)}, "nothing is trained there; leave .mlm out"),
        (
            {"intermediates": ("mnli+mlm",), "replay": {"amount": 0.5}, "models": {"r": "random"}},
            "a random start has no MLM head",
        ),
        ({"intermediates": ()}, "intermediates=.*at least one"),
        ({"seeds": (1, 1)}, "seeds=.1, 1.: at least one, and none of them twice"),
        ({"targets": {"xnly": {}}}, "unknown task 'xnly'"),
        ({"targets": {"text": {}}}, "nothing trains 'text'"),
        ({"models": {"a/b": "owner/name"}}, "'a/b' is part of folders' names"),
        ({"models": {"pretrain": "owner/name"}}, "config.phases has a phase of this name"),
    ],
)
def test_what_cannot_be_is_refused(fields, text):
    with pytest.raises(InputError, match=text):
        make(**fields)


CONFIG = """
from jxstilts.config import complete
from jxstilts.study import Study

def get_config(arg=None):
    return complete(Study, {
        "study": "s", "data_dir": "", "model": {"preset": "tiny"}, "evaluations": {},
        "phases": {"own": {"init": "random", "tasks": {"mnli": {}}}},
        "grid": {"models": {"m": "own"}, "intermediates": ("none", "mnli"), "targets": {"xnli": {"limit": 5}},
                 "training": {"mnli": {"epochs": 1.0}}},
    })
"""


def load(tmp_path, *overrides):
    (tmp_path / "c.py").write_text(CONFIG)
    return study.from_config(config.load([f"--config={tmp_path}/c.py", *overrides]), to_run=False)


def test_a_config_with_a_grid_can_be_overridden(tmp_path):
    plan = load(tmp_path, "--config.grid.targets.xnli.limit=9", "--config.grid.training.mnli.epochs=2.0")
    assert list(plan.phases) == ["own", "m-mnli-s0", "m-mnli-mnli-s0"]
    assert plan.phases["m-mnli-mnli-s0"].epochs == 2.0 and plan.phases["m-mnli-mnli-s0"].init == "m-mnli-s0"
    assert plan.phases["m-mnli-mnli-s0"].tasks["mnli"].batch_size == 32  # the recipe's
    assert plan.evaluations["m-none-xnli-s0"].what.limit == 9


def test_a_wrong_key_of_a_grid_is_named(tmp_path):
    with pytest.raises(InputError, match=r"config.grid.training.mnli: unknown key 'epoch'; did you mean 'epochs'"):
        load(tmp_path, "--config.grid.training.mnli.epoch=2.0")
    path = tmp_path / "d.py"
    path.write_text(CONFIG.replace('"epochs"', '"epoch"'))
    with pytest.raises(InputError, match=r"config.grid.training.mnli: unknown key 'epoch'; did you mean 'epochs'"):
        study.from_config(config.load([f"--config={path}"]), to_run=False)


def test_only_takes_what_matches_and_what_that_needs(tmp_path):
    plan = load(tmp_path)
    some = study.only(plan, "m-mnli-xnli-*")
    assert list(some.phases) == ["own", "m-mnli-s0", "m-mnli-mnli-s0"]
    assert list(some.evaluations) == ["m-mnli-xnli-s0"]
    some = study.only(plan, "m-mnli-s0,m-none-xnli-s0")
    assert list(some.phases) == ["own", "m-mnli-s0"] and list(some.evaluations) == ["m-none-xnli-s0"]
    assert study.only(plan, "") is plan
    with pytest.raises(InputError, match=r"--only=n-\*: matches no phase or evaluation; there are own, m-mnli-s0"):
        study.only(plan, "n-*")


def test_the_documented_grid_is_one():
    page = pathlib.Path(__file__).parent.parent / "docs/reproduce.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    phases, evaluations = make(**eval(f"{{{code}}}")["grid"])
    assert len(phases) == 1 + 3 * (3 + 2 * 4 - 1) and len(evaluations) == 3 * 3 * 4 - 2
    assert phases["small-mnli+mlm-s1"]["tasks"]["mnli"] == {"limit": 9000, "max_length": 64}
