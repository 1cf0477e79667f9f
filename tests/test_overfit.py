"""Every intermediate task learns on real rows: the tiny model fits 64 of them to over 0.95 of the task's metric.

Readers, formats, batches, heads, losses, decoding and metrics all take part; a fault in any of them shows as a metric
that stays low. Where the corpus lacks a set, its file is written from real rows of another in the set's own format.
"""

import json

import jax
import pytest

from jxstilts import config, study, tasks, tracking
from jxstilts.data import tokenizer as tokenizers

STUDY = """
from jxstilts.config import complete
from jxstilts.study import Study


def get_config(arg):
    task, metric, steps, length = arg.split(",")
    stream = {"limit": 64, "batch_size": 16, "max_length": int(length), "max_query_length": 24, "doc_stride": 64,
              "sort_window": 1, "buckets": 1}
    options = {key: stream[key] for key in ("max_length", "doc_stride", "max_query_length")}
    options["max_answer_length"] = 100  # pieces; those of a vocabulary of 2,000 are short
    return complete(Study, {
        "study": "overfit", "data_dir": "", "mesh": {"data": 1},
        "model": {"preset": "tiny", "hidden_dropout": 0.0, "attention_dropout": 0.0, "init_std": 0.18},
        "tokenizer": {"path": ""},
        "phases": {"fit": {
            "tasks": {task: stream}, "steps": int(steps), "optimizer": {"learning_rate": 3e-3}, "save_every": 10000,
        }},
        "evaluations": {"fit": {
            "phase": "fit", "model": "tiny", "intermediate": task,
            "what": {"tasks": (task,), "split": "train", "languages": ("en",), "limit": 64, "options": options},
        }},
    })
"""

# task: metric, steps, max_length
CASES = {
    "anli_plus": ("accuracy", 120, 96),
    "mnli": ("accuracy", 120, 64),
    "snli": ("accuracy", 120, 64),
    "anli": ("accuracy", 120, 96),
    "qqp": ("f1", 120, 64),
    "squad_v1": ("f1", 200, 128),
    "squad_v2": ("best_f1", 200, 128),
    "hellaswag": ("accuracy", 100, 48),
    "ccg": ("accuracy", 200, 96),
    "cosmosqa": ("accuracy", 100, 48),
    "commonsenseqa": ("accuracy", 100, 32),
}


@pytest.fixture(scope="module")
def rows(corpus, tmp_path_factory):
    """A data_dir with the corpus's intermediate sets and the two that it lacks, and a tokenizer."""
    folder = tmp_path_factory.mktemp("rows")
    (folder / "intermediate").mkdir()
    for path in (corpus / "intermediate").iterdir():
        (folder / "intermediate" / path.name).symlink_to(path)
    tydiqa = corpus / "xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json"
    articles = [a for a in json.loads(tydiqa.read_text())["data"] if len(a["paragraphs"][0]["context"]) < 300][:70]
    questions = [question for article in articles for p in article["paragraphs"] for question in p["qas"]]
    for number, question in enumerate(questions):
        question["id"] = f"q{number}"
    squad = folder / "intermediate/squad"
    squad.mkdir()
    (squad / "train-v1.1.json").write_text(json.dumps({"version": "1.1", "data": articles}))
    for number, question in enumerate(questions):  # every other question loses its answer
        question["is_impossible"] = number % 2 == 1
        if question["is_impossible"]:
            question["answers"] = []
    (squad / "train-v2.0.json").write_text(json.dumps({"version": "v2.0", "data": articles}))
    ccg = folder / "intermediate/ccg"
    ccg.mkdir()
    words = tasks.load("udpos", corpus, "train", "en", limit=80)
    lines = [" ".join(f"{w}|{t}|{t}/NP" for w, t in zip(r["words"], r["tags"], strict=True)) for r in words]
    (ccg / "train.txt").write_text("\n".join(lines) + "\n")
    texts = [row["text"] for row in tasks.load("text", corpus, "train", "en", limit=4000)]
    tokenizers.save(tokenizers.train(texts, 2000, model="bpe"), folder / "tokenizer")
    return folder


# Of a kind that another task here, or in test_multitask, is of, too.
SLOW = ("qqp", "squad_v2", "anli", "anli_plus", "snli", "squad_v1", "cosmosqa", "hellaswag", "commonsenseqa", "ccg")


@pytest.mark.parametrize("task", [pytest.param(t, marks=[pytest.mark.slow] if t in SLOW else []) for t in CASES])
def test_a_tiny_model_fits_64_real_rows(rows, tmp_path, task):
    metric, steps, length = CASES[task]
    (tmp_path / "overfit.py").write_text(STUDY)
    arguments = [
        f"--config={tmp_path}/overfit.py:{task},{metric},{steps},{length}",
        f"--config.data_dir={rows}",
        f"--config.tokenizer.path={rows / 'tokenizer'}",
    ]
    study.run(study.from_config(config.load(arguments)), tmp_path / "w", devices=jax.devices()[:1])
    found = {row["metric"]: row["value"] for row in tracking.read_rows(tmp_path / "w/results.jsonl")}
    assert found[metric] > 95, found
