"""How a phase begins and ends where its config does not say: which heads it keeps, which weights it ends with."""

import dataclasses
import pathlib

import pytest

from jxstilts import config, study, tasks
from jxstilts.models.layers import Compute
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.study import plan, starts
from jxstilts.train import keeping
from jxstilts.train.mixture import Stream
from jxstilts.train.phase import Phase, Select

MODEL = Model(make_config("xlmr", "tiny"), (), Compute(), "xlmr")
MNLI, MLM = HeadSpec("mnli", "classification", tasks.get("mnli").labels), HeadSpec("mlm", "mlm")
TEXT = Stream(objective="mlm")
CCG = HeadSpec("ccg", "tagging", ("N", "NP", "S"))


def phase(**streams):
    made = {name.rstrip("_"): dataclasses.replace(stream, task=stream.task or name) for name, stream in streams.items()}
    return Phase(tasks=made)


@pytest.mark.parametrize(
    ("start", "streams", "kept"),
    [
        ([MNLI], {"mnli": Stream()}, ("mnli",)),
        ([dataclasses.replace(MNLI, labels=MNLI.labels[::-1])], {"mnli": Stream()}, ("mnli",)),
        ([MLM], {"text": TEXT}, ("mlm",)),
        ([MNLI, MLM], {"mnli": Stream(), "text": TEXT}, ("mnli", "mlm")),
        ([HeadSpec("udpos", "tagging", tasks.get("udpos").labels)], {"udpos": Stream()}, ("udpos",)),
        ([HeadSpec("squad_v1", "span")], {"squad_v1": Stream()}, ("squad_v1",)),
        ([HeadSpec("nli", "classification", MNLI.labels)], {"mnli": Stream(head="nli")}, ("nli",)),
        ([MNLI, MLM], {"qqp": Stream()}, ()),  # another task: nothing goes on
        ([MNLI], {"mnli": Stream(head="nli")}, ()),  # another name
        ([dataclasses.replace(MNLI, labels=MNLI.labels[:2])], {"mnli": Stream()}, ()),  # fewer labels
        ([dataclasses.replace(MNLI, labels=("a", "b", "c"))], {"mnli": Stream()}, ()),  # others
        ([dataclasses.replace(MNLI, pooling="pooler")], {"mnli": Stream()}, ()),  # read off another state
        ([HeadSpec("mnli", "choice")], {"mnli": Stream()}, ()),  # another type
        ([], {"mnli": Stream()}, ()),
        ([MNLI], {}, ()),
    ],
)
def test_heads_that_are_trained_further_are_kept(start, streams, kept):
    found = keeping.keep(phase(**streams), MODEL, tuple(start), "")
    assert found.keep_heads == kept and found.tasks.keys() == streams.keys()
    for explicit in ((), ("mlm",)):  # what the config says stands
        given = dataclasses.replace(phase(**streams), keep_heads=explicit)
        assert keeping.keep(given, MODEL, tuple(start), "") is given


@pytest.mark.parametrize(("labels", "kept"), [(("N", "NP", "S"), ("ccg",)), (("N", "S"), ())])
def test_an_open_label_set_is_that_of_the_rows(tmp_path, labels, kept):
    folder = tmp_path / "intermediate/ccg"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text(" ".join(f"word|X|{label}" for label in labels) + "\n")
    assert keeping.keep(phase(ccg=Stream()), MODEL, (CCG,), str(tmp_path)).keep_heads == kept


@pytest.mark.parametrize(
    ("given", "streams", "metric"),
    [
        (None, {"mnli": Stream()}, "major"),
        (None, {"mnli": Stream(), "squad_v1": Stream()}, "major"),
        (None, {"mnli": Stream(), "text": TEXT}, "major"),
        (None, {"tydiqa": Stream(holdout=9)}, "major"),
        (None, {"text": TEXT}, ""),  # running text has no dev rows
        (None, {}, ""),
        ("", {"mnli": Stream()}, ""),
        ("accuracy", {"mnli": Stream()}, "accuracy"),
        ("major", {"text": TEXT}, "major"),
    ],
)
def test_how_a_phase_ends(given, streams, metric):
    assert Select(metric=given).resolve(phase(**streams).tasks).metric == metric


CONFIG = """
def get_config(arg=None):
    mnli = {"mnli": {"batch_size": 16, "max_length": 48}}
    text = {"text": {"objective": "mlm", "languages": ("en",), "batch_size": 8, "max_length": 64}}
    rate = {"learning_rate": 1e-3}
    return {
        "study": "s", "data_dir": "", "model": {"preset": "tiny"}, "evaluations": {},
        "phases": {
            "text": {"tasks": text, "steps": 9, "optimizer": rate},
            "more_text": {"init": "text", "tasks": text, "steps": 9, "optimizer": rate},
            "hand": {"init": "text", "tasks": mnli, "epochs": 1.0},
            "again": {"init": "hand", "tasks": mnli, "steps": 2500, "select": {"rows": 60}},
            "anew": {"init": "hand", "tasks": mnli, "epochs": 1.0, "keep_heads": (), "select": {"metric": ""}},
            "both": {"init": "again", "tasks": mnli | text, "steps": 10, "optimizer": rate},
            "hub": {"init": "FacebookAI/xlm-roberta-base", "tasks": text, "steps": 3, "optimizer": rate},
            "other": {"init": "owner/model", "tasks": mnli, "epochs": 1.0},
        },
        "grid": {"models": {"m": "text"}, "intermediates": ("none", "mnli"), "targets": {"xnli": {}},
                 "training": {"mnli": {"tasks": mnli, "epochs": 1.0}}},
    }
"""


@pytest.fixture
def made(tmp_path):
    (tmp_path / "c.py").write_text(CONFIG)
    return study.from_config(config.load([f"--config={tmp_path}/c.py"]), to_run=False)


def test_a_plan_shows_how_phases_begin_and_end(made, capsys):
    rows = {row.name: row for row in plan.rows(made)}
    assert {name: row.keeps for name, row in rows.items()} == {
        "text": (), "more_text": ("mlm",), "hand": (), "again": ("mnli",), "anew": (), "both": ("mnli",),
        "hub": ("mlm",), "other": None, "m-mnli-s0": (), "m-mnli-mnli-s0": (),
    }  # fmt: skip
    assert {name: row.ends for name, row in rows.items()} == {
        "text": "last step", "more_text": "last step", "hand": "best of 25 by major, first 500 dev rows",
        "again": "best of 3 by major, first 60 dev rows", "anew": "last step",
        "both": "best of 1 by major, first 500 dev rows", "hub": "last step",
        "other": "best of 25 by major, first 500 dev rows", "m-mnli-s0": "best of 25 by major, first 500 dev rows",
        "m-mnli-mnli-s0": "best of 25 by major, first 500 dev rows",
    }  # fmt: skip
    lines = plan.text(plan.summary(made)).splitlines()
    assert lines[0].split("  ")[0] == "phase" and "keeps" in lines[0] and "ends with" in lines[0]
    assert any(line.split()[:3] == ["other", "owner/model", "?"] for line in lines)


def test_one_rule_for_phases_by_hand_and_in_a_grid(made):
    hand, grid = made.phases["hand"], made.phases["m-mnli-s0"]
    assert grid == dataclasses.replace(hand, keep_heads=())  # a grid's heads are always new


CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configs_take_over_mlm_heads_only(path):
    """A target task begins with a new head, as in the study, also after an intermediate phase on the same data."""
    found = starts.with_kept_heads(study.from_config(config.load([f"--config={path}"]), to_run=False))
    kept = {head for phase in found.phases.values() for head in phase.keep_heads}
    # of mT5 there is one head, whatever is said; the few rows of few_shot go on with the target task that English began
    assert kept <= {"mlm", "text_to_text"} | ({"nli"} if path.stem == "few_shot" else set())
    assert all(any(stream.objective == "mlm" for stream in phase.tasks.values())
               for phase in found.phases.values() if "mlm" in phase.keep_heads)  # fmt: skip
