"""The whole path learns: a tiny model fits real-format training rows to over 0.95, which no broken label, window,
mask, decoder or metric would allow."""

import jax
import pytest
import world

from jxstilts import config, study, tracking

OVERFIT = """
from jxstilts.config import complete
from jxstilts.study import Study

TASKS = {"mnli": ("mnli", "dev", "epochs", 40.0), "tydiqa": ("tydiqa", "train", "steps", 400)}


def get_config(task):
    name, split, unit, amount = TASKS[task]
    return complete(Study, {
        "study": "overfit", "data_dir": "", "mesh": {"data": 1},
        "model": {"preset": "tiny", "hidden_dropout": 0.0, "attention_dropout": 0.0, "init_std": 0.18},
        "tokenizer": {"vocab_size": 120, "model": "bpe", "languages": ("en", "de")},
        "phases": {"train": {
            "tasks": {name: {
                "batch_size": 32, "max_length": 64, "doc_stride": 24, "max_query_length": 12, "sort_window": 1,
            }},
            unit: amount, "optimizer": {"learning_rate": 3e-3}, "select": {"every": 10000}, "save_every": 10000,
        }},
        "evaluations": {"train": {
            "phase": "train", "model": "tiny", "intermediate": "none",
            "what": {"tasks": (name,), "split": split, "languages": ("en",),
                     "options": {"max_length": 64, "doc_stride": 24, "max_query_length": 12}},
        }},
    })
"""


@pytest.mark.parametrize(("task", "metric"), [("mnli", "accuracy"), ("tydiqa", "f1")])
def test_a_tiny_model_fits(tmp_path, task, metric):
    data_dir = world.write(tmp_path / "data")
    (tmp_path / "overfit.py").write_text(OVERFIT)
    plan = study.from_config(config.load([f"--config={tmp_path}/overfit.py:{task}", f"--config.data_dir={data_dir}"]))
    study.run(plan, tmp_path / "w", devices=jax.devices()[:1])
    (value,) = (row["value"] for row in tracking.read_rows(tmp_path / "w/results.jsonl") if row["metric"] == metric)
    assert value > 95
