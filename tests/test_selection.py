"""What a phase keeps beside its best weights, and averages: against float64, stopped and resumed, in the report."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import samples

from benchmarks import methods
from jxstilts import cli, config, runtime, study
from jxstilts.checkpoint import digests, leaves
from jxstilts.data import tokenizer as tokenizers
from jxstilts.mesh import make_mesh, param_shardings
from jxstilts.models import averaging, bundle
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.report import phases as reported
from jxstilts.runtime import InputError
from jxstilts.train import identity, selection
from jxstilts.train.mixture import Stream
from jxstilts.train.phase import Phase

CONFIG = """
from jxstilts.config import complete
from jxstilts.study import Study


def get_config(arg=None):
    noise = {"objective": "robust", "options": {"mode": "noise", "radius": 0.2}}
    mnli = {"mnli": {"batch_size": 16, "max_length": 48, "aggregation": "attention", "buckets": 1, **noise}}
    select = {"rows": 24, "every": 2, "average": 3, "oracle_task": "xnli", "oracle_languages": ("de",)}
    return complete(Study, {
        "study": "selected", "data_dir": "", "compile_cache": arg, "mesh": {"data": 1},
        "model": {"preset": "tiny", "hidden_dropout": 0.1, "attention_dropout": 0.1, "max_positions": 64},
        "tokenizer": {"vocab_size": 400, "model": "bpe", "languages": ("en", "de")},
        "phases": {}, "evaluations": {},
        "grid": {
            "models": {"random": "random"}, "targets": {"xnli": {}}, "selections": ("best", "last", "average", "oracle"),
            "phase": {"optimizer": {"learning_rate": 3e-3}, "save_every": 100, "log_every": 100},
            "training": {"mnli": {"tasks": mnli, "steps": 9, "select": select}},
            "what": {"languages": ("en", "de"), "limit": 24, "options": {"max_length": 48}},
        },
    })
"""  # noqa: E501


@pytest.fixture(scope="module")
def make(world, compile_cache, tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "selected.py"
    path.write_text(CONFIG)

    def load(*more):
        return study.from_config(config.load([f"--config={path}:{compile_cache}", f"--config.data_dir={world}", *more]))

    return load


@pytest.fixture(scope="module")
def unbroken(make, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    study.run(make(), workdir, devices=jax.devices()[:1])
    return workdir


PHASE = "phases/random-none-mnli-s0"


def test_each_bundle_is_evaluated_beside_the_others(unbroken, capsys):
    folder = unbroken / PHASE
    done = json.loads((folder / "DONE").read_text())
    assert done["also"]["average"]["average_of"] == [6, 8, 9] and done["also"]["last"]["step"] == 9
    shas = {"best": done["checkpoint_sha256"]} | {key: each["checkpoint_sha256"] for key, each in done["also"].items()}
    assert {kind: bundle.read_meta(folder / kind)["sha256"] for kind in shas} == shas
    assert not (folder / "checkpoints").exists() and (shas["last"] == shas["best"]) == (done["best"]["step"] == 9)
    dev = [row for row in map(json.loads, (folder / "metrics.jsonl").open()) if row["kind"] == "dev"]
    best = max(dev, key=lambda row: row["oracle"])
    assert done["also"]["oracle"]["oracle"] == {"step": best["step"], "metric": "oracle", "value": best["oracle"]}
    rows = [json.loads(line) for line in (unbroken / "results.jsonl").open()]
    assert {(row["model"], row.get("selection", "best"), row["checkpoint_sha256"]) for row in rows} == {
        ("random" + ("" if kind == "best" else f" [{selection.ALSO[kind]}]"), kind, sha) for kind, sha in shas.items()
    }
    assert cli.main(["report", str(unbroken), "--draws=50"]) == 0
    out = capsys.readouterr().out
    for text in ("random [last step]", "random [average of the last]", "random [oracle, chosen on target dev]"):
        assert text in out
    (phase,) = (each for each in reported.load(unbroken) if each.config["tasks"])
    assert phase.tasks == "mnli (robust)" and phase.languages == ("en",) and phase.chosen_in == ["en"]
    assert phase.chosen.endswith(
        "kept beside it to compare with: the last step; the mean of the weights at the last 3 evaluations; an oracle, "
        "best on German dev rows of xnli, by which no zero-shot study may choose"
    )
    assert methods.main([str(unbroken), "random"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in table[2:6]] == [f"| {model}" for model in sorted({row["model"] for row in rows}, key=[row["model"] for row in rows].index)]  # noqa: E501  # fmt: skip
    assert methods.main([str(unbroken), "other"]) == 2
    page = (unbroken / "report/index.html").read_text()
    assert "by which no zero-shot study may choose" in page


def test_stopped_and_resumed_is_the_same(unbroken, make, tmp_path):
    plan = make(f"--config.cache_dir={unbroken / 'cache'}", "--config.evaluations={}")
    (tmp_path / "tokenizer").symlink_to(unbroken / "tokenizer")
    for count in (3, 4):  # at step 3, after two evaluations, and in the middle of what is left
        asked = []
        with pytest.raises(runtime.Interrupted):
            study.run(plan, tmp_path, lambda step: asked.append(step) or len(asked) > count, devices=jax.devices()[:1])  # noqa: B023
    study.run(plan, tmp_path, devices=jax.devices()[:1])
    ends = [json.loads((folder / PHASE / "DONE").read_text()) for folder in (unbroken, tmp_path)]
    assert ends[0] == ends[1]


def test_the_mean_is_that_of_float64():
    rng = np.random.default_rng(0)
    trees = [{"a": {"b": rng.normal(size=(7, 3)).astype(np.float32) * 10.0**i}, "c": rng.normal(size=5)} for i in range(9)]  # noqa: E501  # fmt: skip
    trees = [jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree) for tree in trees]
    found = averaging.mean(iter(trees))
    exact = jax.tree.map(lambda *leaves: np.mean(np.array(leaves, np.float64), 0), *trees)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=1.2e-7)
    halves = [{"x": jnp.full(3, value, jnp.bfloat16)} for value in (1.0, 2.0)]
    assert averaging.mean(halves)["x"].dtype == jnp.bfloat16 and float(averaging.mean(halves)["x"][0]) == 1.5
    with pytest.raises(InputError, match="no parameters"):
        averaging.mean([])


def test_sharded_parameters_stay_where_they_are():
    made = Model(make_config("xlmr", "tiny"))
    shapes, axes = made.abstract()
    shardings, _ = param_shardings(axes, shapes, make_mesh({"fsdp": 4, "tensor": 2}))
    trees = [jax.tree.map(lambda x, k=k: np.full(x.shape, k, np.float32), shapes) for k in (1, 2)]
    found = averaging.mean(jax.device_put(tree, shardings) for tree in trees)
    for leaf, sharding in zip(jax.tree.leaves(found), jax.tree.leaves(shardings), strict=True):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim) and float(leaf.ravel()[0]) == 1.5


LABELS = ("a", "b")


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Two bundles of different values, and the like of the first with one thing changed each."""
    folder, tokenizer = tmp_path_factory.mktemp("members"), samples.small_tokenizer("bpe")
    spec = HeadSpec("nli", "classification", LABELS)
    width = {"vocab_size": len(tokenizer), "width": 16, "heads": 2, "mlp": 32}
    made = {
        "one": (spec, {}), "two": (spec, {}), "labels": (HeadSpec("nli", "classification", LABELS[::-1]), {}),
        "other": (HeadSpec("more", "classification", LABELS), {}), "deep": (spec, {"layers": 3}),
    }  # fmt: skip
    tokenizers.save(tokenizer, folder / "files")
    for number, (name, (head, more)) in enumerate(made.items()):
        model = Model(make_config("xlmr", "tiny", **width, **more), (head,))
        values = jax.tree.map(lambda x, n=number: np.full(x.shape, n, np.float32), model.abstract()[0])
        bundle.save(folder / name, model, values, tokenizer_files=folder / "files")
    return folder


def test_average_of_bundles(members, tmp_path, capsys):
    assert (
        cli.main(["average", *(str(members / name) for name in ("one", "two", "two", "one")), str(tmp_path / "b")]) == 0
    )
    loaded = bundle.load(tmp_path / "b")
    assert {float(leaf.ravel()[0]) for leaf in leaves(loaded.params).values()} == {0.5}
    assert loaded.model == bundle.load(members / "one").model and loaded.tokenizer_dir is not None
    shas = [bundle.read_meta(members / name)["sha256"] for name in ("one", "two", "two", "one")]
    assert [each["sha256"] for each in loaded.meta["provenance"]["average"]] == shas
    assert "the mean of 4 models" in capsys.readouterr().out
    assert cli.main(["average", str(members / "one"), str(members / "two"), str(tmp_path / "b")]) == 2
    assert digests(bundle.load(tmp_path / "b").params) == digests(loaded.params)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("one", "labels"), r"the head 'nli': labels \('a', 'b'\) and \('b', 'a'\)"),
        (("one", "other"), r"the head 'more' is in .*other alone; the head 'nli' is in .*one alone"),
        (("one", "deep"), "differ in layers 2 and 3"),
        (("one",), "of two models at least; got 1"),
    ],
)
def test_what_cannot_be_averaged(members, tmp_path, names, message):
    with pytest.raises(InputError, match=message):
        averaging.bundles([members / name for name in names], tmp_path / "b")
    assert not list(pathlib.Path(tmp_path).iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"also": ("lst",)}, "unknown bundle 'lst'; did you mean 'last'"),
        ({"also": ("oracle",)}, "oracle_languages"),
        ({"average": 0}, "at least 1"),
    ],
)
def test_wrong_rules(given, message):
    with pytest.raises(InputError, match=message):
        selection.Select(**given)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("oracle_languages", "xx", r"random-none-mnli-s0\.select\.oracle_languages: unknown language of the dev rows"),
        ("oracle_task", "xnly", r"select\.oracle_task: unknown task 'xnly'; did you mean 'xnli'"),
        ("oracle_task", "tatoeba", r"select\.oracle_languages: unknown language of the dev rows of task 'tatoeba'"),
    ],
)
def test_wrong_oracles(make, key, value, message):
    with pytest.raises(InputError, match=message):
        make(f"--config.grid.training.mnli.select.{key}={value}")


def test_an_evaluation_of_what_is_not_kept(make):
    given = ["phase=random-none-mnli-s0", "model=m", "intermediate=none", "what.tasks=xnli", "selection=last"]
    with pytest.raises(InputError, match=r"evaluations\.e\.selection: unknown bundle 'last'.*select\.also names"):
        make("--config.grid.selections=best", *(f"--config.evaluations.e.{each}" for each in given))


def test_phases_of_before_are_the_same():
    settings = identity.settings(Phase(tasks={"mnli": Stream(task="mnli")}))
    assert settings["select"].keys() == {"metric", "rows", "every", "patience"}
