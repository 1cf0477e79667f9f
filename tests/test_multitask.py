"""A phase of several tasks: every kind of head, MLM replay, shared heads, translated data, stop and resume."""

import dataclasses
import json
import shutil

import jax
import pytest

from jxstilts import config, runtime, study, tasks, tracking
from jxstilts.models import bundle
from jxstilts.runtime import InputError
from jxstilts.train import phase as phases

CONFIG = """
from jxstilts.config import complete, parse_arg
from jxstilts.study import Study

SMALL = {"batch_size": 8, "max_length": 32, "buckets": 1}


def get_config(arg=None):
    arg = parse_arg(arg, replay="alternate")
    text = {**SMALL, "objective": "mlm", "languages": ("en", "de"), "packed": True}
    replay = {"task": "text", **text, "mode": arg.replay, "amount": {"alternate": 0.25, "mixed": 0.5}[arg.replay]}
    tasks = {
        "mnli": {**SMALL, "batch_size": 16},
        "qqp": {**SMALL, "languages": ("en", "de"), "sampling_exponent": 0.5},
        "commonsenseqa": {**SMALL, "max_length": 16},
        "ccg": SMALL,
        "tydiqa": {**SMALL, "doc_stride": 12, "max_query_length": 12, "holdout": 12, "limit": 16},
        "mlm": replay,
    }
    return complete(Study, {
        "study": "multi", "data_dir": "", "mesh": {"data": 1},
        "model": {"preset": "tiny", "hidden_dropout": 0.1, "attention_dropout": 0.1},
        "tokenizer": {"vocab_size": 400, "model": "bpe", "languages": ("en", "de")},
        "phases": {
            "pretrain": {"tasks": {"text": text}, "steps": 2, "optimizer": {"learning_rate": 1e-3}},
            "all": {
                "init": "pretrain", "tasks": tasks, "keep_heads": ("mlm",), "steps": 24, "log_every": 4,
                "sampling": {"method": "capped", "cap": 50}, "optimizer": {"learning_rate": 1e-3}, "save_every": 5,
                "select": {"metric": "major", "rows": 8, "every": 8}, "seed": 1,
            },
        },
        "evaluations": {
            "dev": {
                "phase": "all", "model": "tiny", "intermediate": "all", "target": "dev",
                "what": {"tasks": ("mnli", "qqp", "commonsenseqa", "ccg"), "languages": ("en",),
                         "options": {"max_length": 32}},
            },
        },
    })
"""


@pytest.fixture(scope="module")
def data_dir(world, tmp_path_factory):
    """The world with a few questions of QQP in "German", too."""
    folder = shutil.copytree(world, tmp_path_factory.mktemp("data"), dirs_exist_ok=True)
    for split in ("train", "dev"):
        lines = (folder / f"intermediate/qqp/{split}.tsv").read_text().splitlines(keepends=True)
        (folder / f"intermediate/qqp/{split}.de.tsv").write_text("".join(lines[:10]))
    return folder


@pytest.fixture(scope="module")
def make(data_dir, compile_cache, tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "multi.py"
    path.write_text(CONFIG)

    def load(*overrides, replay="alternate"):
        folders = [f"--config.data_dir={data_dir}", f"--config.compile_cache={compile_cache}"]
        return study.from_config(config.load([f"--config={path}:replay={replay}", *folders, *overrides]))

    return load


@pytest.fixture(scope="module")
def unbroken(make, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    study.run(make(), workdir, devices=jax.devices()[:1])
    return workdir


def test_every_task_is_trained_and_judged(unbroken):
    rows = tracking.read_rows(unbroken / "phases/all/metrics.jsonl")
    trained = {key.split("/")[0] for row in rows if row["kind"] == "train" for key in row if key.endswith("/loss")}
    assert trained == {"mnli", "qqp", "commonsenseqa", "ccg", "tydiqa", "mlm"}
    dev = [row for row in rows if row["kind"] == "dev"]
    assert [row["step"] for row in dev] == [8, 16, 24]
    majors = {
        "mnli": lambda row: row["mnli/accuracy"],
        "qqp": lambda row: (row["qqp/accuracy"] + row["qqp/f1"]) / 2,
        "commonsenseqa": lambda row: row["commonsenseqa/accuracy"],
        "ccg": lambda row: row["ccg/accuracy"],
        "tydiqa": lambda row: (row["tydiqa/f1"] + row["tydiqa/exact_match"]) / 2,
    }
    for row in dev:
        assert row["major"] == pytest.approx(sum(value(row) for value in majors.values()) / 5)
    assert {row["task"] for row in tracking.read_rows(unbroken / "results.jsonl")} == {
        "mnli", "qqp", "commonsenseqa", "ccg",
    }  # fmt: skip


def test_heads_and_their_labels_are_in_the_bundle(unbroken, data_dir):
    meta = bundle.read_meta(unbroken / "phases/all/best")
    heads = {head["name"]: head for head in meta["heads"]}
    assert {name: head["type"] for name, head in heads.items()} == {
        "mlm": "mlm", "mnli": "classification", "qqp": "classification", "commonsenseqa": "choice", "ccg": "tagging",
        "tydiqa": "span",
    }  # fmt: skip
    trained = tasks.get("ccg").form.labels(tasks.get("ccg"), tasks.load("ccg", data_dir, "train"))
    assert heads["ccg"]["labels"] == list(trained) and len(trained) > 10  # built from the training lines, frozen here
    taken = meta["provenance"]["handover"]
    assert taken["loaded"] == ["encoder", "heads/mlm"] and "heads/ccg" in taken["new"]


@pytest.mark.parametrize("replay", ["alternate", pytest.param("mixed", marks=pytest.mark.slow)])
def test_a_stopped_run_equals_the_unbroken_one(unbroken, make, tmp_path, replay):
    def outcome(workdir):
        rows = tracking.read_rows(workdir / "phases/all/metrics.jsonl")
        record = json.loads((workdir / "phases/all/DONE").read_text())
        return record, [row for row in rows if row["kind"] == "dev"], tracking.read_rows(workdir / "results.jsonl")

    plan = make(replay=replay)
    whole = unbroken
    if replay == "mixed":
        whole = tmp_path / "whole"
        study.run(plan, whole, devices=jax.devices()[:1])
        row = next(r for r in tracking.read_rows(whole / "phases/all/metrics.jsonl") if r["kind"] == "train")
        assert "mlm/loss" in row and row["loss"] > 0.5 * row["mlm/loss"]
    for count in (3, 9, 4):
        asked = []
        with pytest.raises(runtime.Interrupted):
            stop = lambda step: asked.append(step) or len(asked) > count  # noqa: B023, E731
            study.run(plan, tmp_path / "broken", stop, devices=jax.devices()[:1])
    study.run(plan, tmp_path / "broken", devices=jax.devices()[:1])
    assert outcome(tmp_path / "broken") == outcome(whole)


def test_tasks_that_name_the_same_head_share_it(make, tmp_path):
    plan = make()
    mnli = dataclasses.replace(plan.phases["all"].tasks["mnli"], head="nli")
    phase = dataclasses.replace(
        plan.phases["all"], init="random", keep_heads=(), steps=2, select=phases.Select(),
        tasks={"one": mnli, "two": dataclasses.replace(mnli, batch_size=8)},
    )  # fmt: skip
    study.run(
        dataclasses.replace(plan, phases={"both": phase}, evaluations={}), tmp_path / "w", devices=jax.devices()[:1]
    )
    (head,) = bundle.read_meta(tmp_path / "w/phases/both/best")["heads"]
    assert (head["name"], head["type"]) == ("nli", "classification")
    plan = make("--config.phases.all.tasks.mnli.head=pair", "--config.phases.all.tasks.qqp.head=pair")
    with pytest.raises(InputError, match=r"tasks.qqp: the head 'pair' is shared by tasks of other types or labels"):
        study.run(plan, tmp_path / "refused", devices=jax.devices()[:1])


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("--config.phases.all.tasks.qqp.languages=('en','xx')", r"tasks.qqp.languages: unknown language of task 'qqp'"),
        ("--config.phases.all.tasks.mnli.batch_size=12", None),
        ("--config.phases.all.accumulation=3", r"tasks.ccg.batch_size=8 must be a multiple of accumulation=3"),
        ("--config.phases.all.sampling.method=capt", "unknown sampling method 'capt'; did you mean 'capped'"),
        ("--config.phases.all.protocol=xtreme", r"phases.all.optimizer.w\w+: give it; the tasks' recipes differ"),
        ("--config.phases.all.protocol=jiant", "unknown protocol 'jiant'"),
        ("--config.phases.all.tasks.mlm.mode=sampled", "amount=0.25 needs mode="),
    ],
)
def test_bad_input_names_the_key(make, override, text):
    if text is None:
        assert make(override).phases["all"].tasks["mnli"].batch_size == 12
        return
    with pytest.raises(InputError, match=text):
        make(override)


def test_defaults_are_the_protocols(data_dir, tmp_path):
    text = """
from jxstilts.config import complete
from jxstilts.study import Study


def get_config(protocol):
    tasks = {"mnli": {"mnli": {}}, "tydiqa": {"tydiqa": {}}, "two": {"mnli": {}, "qqp": {}}}
    if protocol == "xtreme":
        del tasks["two"]
    return complete(Study, {"study": "s", "data_dir": "", "model": {}, "evaluations": {}, "phases": {
        name: {"tasks": streams, "protocol": protocol, "epochs": 3.0 if name == "two" else 0.0}
        for name, streams in tasks.items()
    }})
"""
    (tmp_path / "c.py").write_text(text)

    def values(protocol):
        plan = study.from_config(config.load([f"--config={tmp_path}/c.py:{protocol}", f"--config.data_dir={data_dir}"]))
        return {
            name: (
                next(iter(p.tasks.values())).batch_size, next(iter(p.tasks.values())).max_length, p.epochs,
                p.optimizer.learning_rate, p.optimizer.warmup, p.optimizer.weight_decay,
                next(iter(p.tasks.values())).long_sentences,
            )
            for name, p in plan.phases.items()
        }  # fmt: skip

    assert values("authors") == {
        "mnli": (32, 256, 2.0, 1e-5, 0.1, 0.01, "truncate"),
        "tydiqa": (16, 384, 2.0, 1e-5, 0.1, 0.01, "truncate"),
        "two": (32, 256, 3.0, 1e-5, 0.1, 0.01, "truncate"),
    }
    assert values("xtreme") == {
        "mnli": (32, 128, 5.0, 2e-5, 0.0, 0.0, "split"),
        "tydiqa": (16, 384, 2.0, 3e-5, 500, 1e-4, "split"),
    }
