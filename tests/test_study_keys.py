"""Every key of a study, on the command line and in messages."""

import dataclasses
import types
import typing

import pytest

from jxstilts import config, study
from jxstilts.runtime import InputError

BARE = """
def get_config(arg=None):
    return {"study": "s", "data_dir": "", "model": {"preset": "tiny"},
            "phases": {"own": {"init": "random", "tasks": {"mnli": {}}}},
            "evaluations": {"one": {"phase": "own", "model": "m", "intermediate": "none", "what": {"tasks": ["xnli"]}}},
            "grid": {"models": {"m": "own"}, "intermediates": ("none", "mnli"), "targets": {"xnli": {}}}}
"""
SAMPLES = {int: "3", float: "1e-5", bool: "True", str: "word", typing.Any: "3"}
ENTRIES = {"phases": "own", "evaluations": "one", "tasks": "mnli", "training": "mnli", "targets": "xnli"}


def keys(hint, where):
    """Every key below one of the schema, each with a text of its type."""
    annotated = typing.get_origin(hint) is typing.Annotated
    hints = typing.get_args(hint)[1].hints({}) if annotated else {}
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint, include_extras=True)
    for name, inner in hints.items():
        yield from keys(inner, f"{where}.{name}")
    if hints:
        return
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    kind = next(option for option in options if option is not type(None))
    if typing.get_origin(kind) is dict:
        yield from keys(typing.get_args(kind)[1], f"{where}.{ENTRIES.get(where.rpartition('.')[2], 'name')}")
    elif typing.get_origin(kind) is tuple:
        yield where, f"{SAMPLES[typing.get_args(kind)[0]]},"
    else:
        yield where, SAMPLES[kind]
        if len(options) > 1:
            yield where, "None"


def test_every_key_of_a_study_can_be_set_though_the_file_leaves_it_out(tmp_path):
    """Each key is read as its type; what the value may be is said by the dataclasses, in one line."""
    (tmp_path / "c.py").write_text(BARE)
    every = list(keys(study.Study, "config"))
    names = {key.removeprefix("config.") for key, _ in every}
    assert {
        "phases.own.tasks.mnli.max_length", "phases.own.optimizer.learning_rate", "grid.phase.select.every",
        "grid.training.mnli.tasks.mnli.batch_size", "grid.targets.xnli.options.doc_stride", "model.hidden_dropout",
        "evaluations.one.what.options.layer", "grid.what.limit", "grid.replay.amount", "mesh.name", "tokenizer.path",
    } <= names  # fmt: skip
    said = []
    for key, text in every:
        given = config.load([f"--config={tmp_path}/c.py", f"--{key}={text}"])
        try:
            config.build(study.Study, given, "config")
        except InputError as error:
            said.append(str(error))
    assert len(every) > 250
    typed = [text for text in said if "expected" in text or "unknown key" in text or "no value" in text]
    assert not typed, typed


@pytest.mark.parametrize(
    ("override", "get", "value"),
    [
        ("phases.own.optimizer.learning_rate=1e-5", lambda it: it.phases["own"].optimizer.learning_rate, 1e-5),
        ("phases.own.tasks.mnli.packed=true", lambda it: it.phases["own"].tasks["mnli"].packed, True),
        ("phases.own.freeze=embeddings", lambda it: it.phases["own"].freeze, ("embeddings",)),
        ("phases.own.tasks.qqp.limit=9", lambda it: it.phases["own"].tasks["qqp"].limit, 9),
        ("evaluations.one.what.options.layer=-1", lambda it: it.evaluations["one"].what.options.layer, -1),
        ("evaluations.one.what.languages=en,de", lambda it: it.evaluations["one"].what.languages, ("en", "de")),
        ("grid.seeds=(3,)", lambda it: it.phases["m-mnli-s3"].seed, 3),
        ("grid.seeds=0,1", lambda it: sorted(it.phases)[1:3], ["m-mnli-mnli-s1", "m-mnli-s0"]),
        ("grid.phase.select.every=7", lambda it: it.phases["m-mnli-s0"].select.every, 7),
        ("grid.training.mnli.optimizer.clip=2", lambda it: it.phases["m-mnli-s0"].optimizer.clip, 2.0),
        ("grid.targets.udpos.limit=5", lambda it: it.evaluations["m-none-udpos-s0"].what.limit, 5),
        ("grid.what.options.max_length=64", lambda it: it.evaluations["m-none-xnli-s0"].what.options.max_length, 64),
        ("model.hidden_dropout=0", lambda it: it.model["hidden_dropout"], 0.0),
        ("mesh.fsdp=2", lambda it: it.mesh, {"data": -1, "fsdp": 2, "tensor": 1}),
        ("tokenizer.languages=de", lambda it: it.tokenizer.languages, ("de",)),
    ],
)
def test_keys_that_the_file_leaves_out(tmp_path, override, get, value):
    (tmp_path / "c.py").write_text(BARE)
    more = ["--config.phases.own.epochs=1"] if "qqp" in override else []
    arguments = [f"--config={tmp_path}/c.py", f"--config.{override}", *more]
    found = get(study.from_config(config.load(arguments), to_run=False))
    assert found == value and type(found) is type(value)


def test_a_new_phase_and_its_evaluation(tmp_path):
    (tmp_path / "c.py").write_text(BARE)
    more = ["init=own", "tasks.qqp.limit=9"]
    more = [*(f"phases.new.{each}" for each in more), "evaluations.new.phase=new", "evaluations.new.model=m"]
    more += ["evaluations.new.intermediate=qqp", "evaluations.new.what.tasks=pawsx"]
    arguments = [f"--config={tmp_path}/c.py", *(f"--config.{each}" for each in more)]
    found = study.from_config(config.load(arguments), to_run=False)
    assert found.phases["new"].tasks["qqp"].limit == 9 and found.evaluations["new"].what.names() == ("pawsx",)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("grid.seeds=3", r"config.grid.seeds=3: a list is expected: \(3,\) is 3 alone, \(0,1,2\) are three"),
        ("grid.seeds=-1,", r"config.grid.seeds=\(-1,\): 0 or more"),
        ("phases.onw.epochs=2", "config.phases: unknown phase 'onw'; did you mean 'own'.*a new one needs .*onw.init"),
        ("evaluations.oen.what.limit=5", "config.evaluations: unknown evaluation 'oen'; did you mean 'one'"),
        ("phases.own.tasks.mnil.limit=5", "config.phases.own.tasks.mnil: unknown task 'mnil'; did you mean 'mnli'"),
        ("grid.training.mnil.epochs=1", "config.grid.training: unknown .* 'mnil'; did you mean 'mnli'"),
        ("grid.targets.xnil.limit=1", "unknown task 'xnil'"),
        ("mesh.dta=2", "config.mesh: unknown mesh axis 'dta'; did you mean 'data'"),
        ("model.widht=32", "config.model: unknown key 'widht'; did you mean 'width'"),
        ("evaluations.one.what.limit=-5", "config.evaluations.one.what.limit=-5: expected 0 or more"),
        ("evaluations.one.what.options.max_length=-1", "what.options.max_length=-1: expected 0 or more"),
        ("phases.own.save_every=0", "config.phases.own.save_every=0: expected 1 or more"),
        ("phases.own.log_every=0", "config.phases.own.log_every=0: expected 1 or more"),
        ("phases.own.seed=-1", "config.phases.own.seed=-1: expected 0 or more"),
        ("tokenizer.vocab_size=0", "config.tokenizer.vocab_size=0: expected 1 or more"),
        ("phases.own.tasks.mnli.doc_stride=0", "tasks.mnli.doc_stride=0: expected 1 or more"),
        ("phases.own.tasks.mnli.limit=-1", "limit"),
        ("phases.own.optimizer.clip=-1", "optimizer.clip=-1.0: expected 0 or more"),
        ("phases.own.tasks.mnli.languages=en,en", "'en' stands twice"),
    ],
)
def test_bad_values_of_a_study(tmp_path, override, text):
    (tmp_path / "c.py").write_text(BARE)
    with pytest.raises(InputError, match=text):
        study.from_config(config.load([f"--config={tmp_path}/c.py", f"--config.{override}"]), to_run=False)
