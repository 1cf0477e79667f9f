"""XTREME-R: its ten tasks as data, and the whole benchmark evaluated and scored on the miniature world."""

import json

import jax
import pytest
import samples

from jxstilts import cli, tasks
from jxstilts.data import tokenizer as tokenizers
from jxstilts.eval import benchmarks
from jxstilts.models import bundle
from jxstilts.models.heads.dual import DualSpec
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.tasks import languages

XTREME_R = benchmarks.get("xtreme-r")


def test_xtreme_r_is_ten_tasks_and_fifty_languages():
    assert {entry.task: (len(entry.languages), entry.split) for entry in XTREME_R.entries} == {
        "xnli": (15, "test"), "xcopa": (11, "test"), "udpos": (38, "test"), "panx": (48, "test"),
        "xquad": (12, "test"), "mlqa": (7, "test"), "tydiqa": (9, "dev"), "tatoeba": (41, "test"),
        "mewslix": (11, "test"), "lareqa": (11, "test"),
    }  # fmt: skip
    assert {code for entry in XTREME_R.entries for code in entry.languages} == set(languages.XTREME_R)
    assert len(languages.XTREME_R) == 50
    for entry in XTREME_R.entries:
        spec = tasks.get(entry.task)
        assert len(set(entry.languages)) == len(entry.languages) and entry.split in spec.splits
        assert set(entry.languages) == set(spec.languages) | (
            set(spec.more_languages) & set(languages.XTREME_R) if entry.task in ("udpos", "panx", "tatoeba") else set()
        )


def test_groups_are_the_releases():
    """evaluate.py of the release: XCOPA counts in two groups, LAReQA in none of the five."""
    members = {group: {entry.task for entry in XTREME_R.entries if group in entry.groups} for group in XTREME_R.groups}
    assert members == {
        "classification": {"xnli", "xcopa"}, "multi_choice": {"xcopa"}, "tagging": {"udpos", "panx"},
        "question answering": {"xquad", "mlqa", "tydiqa"}, "retrieval": {"tatoeba", "mewslix"},
        "answer retrieval": {"lareqa"},
    }  # fmt: skip
    values = {
        entry.task: {code: dict.fromkeys(entry.metrics, 50.0) for code in entry.languages} for entry in XTREME_R.entries
    }
    values["xcopa"] = {code: {"accuracy": 70.0} for code in values["xcopa"]}
    values["lareqa"] = {code: {"map20": 40.0} for code in values["lareqa"]}
    found = benchmarks.score(values, XTREME_R)
    assert found.groups["classification"] == 60 and found.groups["multi_choice"] == 70
    assert found.overall == pytest.approx((8 * 50 + 70 + 40) / 10)
    del values["lareqa"]
    assert benchmarks.score(values, XTREME_R).overall is None


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model without training, with a head for each form of XTREME-R."""
    folder, words = tmp_path_factory.mktemp("model"), samples.small_tokenizer()
    tokenizers.save(words, folder / "words")
    tagged = (HeadSpec(name, "tagging", tasks.get(name).labels) for name in ("udpos", "panx"))
    specs = (
        HeadSpec("mnli", "classification", tasks.get("mnli").labels), HeadSpec("copa", "choice"), *tagged,
        HeadSpec("squad_v1", "span"), DualSpec("squad_retrieval", "dual", negatives=4),
    )  # fmt: skip
    made = Model(make_config("xlmr", "tiny", vocab_size=len(words)), specs)
    params = jax.jit(made.init)(jax.random.key(0))
    bundle.save(folder / "bundle", made, params, tokenizer_files=folder / "words", provenance={})
    return folder / "bundle"


def test_the_whole_benchmark_on_the_miniature_world(model, world, tmp_path, capsys):
    """Every task is evaluated, the files are those of a submission, and `score` gives the same numbers."""
    from jxstilts.eval import submission

    asked = ["evaluate", f"--model={model}", "--tasks=xtreme-r", f"--data_dir={world}", f"--out={tmp_path}"]
    assert cli.main([*asked, "--languages=en,tr", "--protocol=xtreme_r", "--max_length=96", "--limit=4"]) == 0
    err = capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {row["task"] for row in rows} == set(XTREME_R.tasks), err
    assert all(row["value"] is not None and 0 <= row["value"] <= 100 for row in rows)
    pools = {row["task"]: row["pool"] for row in rows if "pool" in row}
    assert pools == {"lareqa": 288, "mewslix": 40}
    values = {(row["task"], row["language"], row["metric"]): row["value"] for row in rows}
    assert {metric for task, _, metric in values if task == "lareqa"} == {"map20", "map20_cross"}
    for task, code in (("xcopa", "tr"), ("lareqa", "tr"), ("mewslix", "en")):
        split = next(row["split"] for row in rows if row["task"] == task)
        gold = tasks.load(task, world, split, code, limit=4)
        submission.write_labels(tmp_path / "labels", task, split, code, gold)
        own = submission.path("", task, split, code).name.partition("-")[0]
        score = [
            "score", f"--predictions={tmp_path / 'predictions/evaluate'}", f"--labels={tmp_path / 'labels'}",
            "--benchmark=xtreme-r", f"--tasks={task}", f"--languages={code}", f"--split={own}", "--json",
        ]  # fmt: skip
        assert cli.main(score) == 0
        found = json.loads(capsys.readouterr().out)["tasks"][task]["languages"][code]
        metric = XTREME_R.entry(task).metrics[0]
        assert found == {metric: pytest.approx(values[task, code, metric])}
