"""The whole path learns: a tiny model fits 64 rows of the miniature world to over 0.95, which no broken label, window,
mask, decoder or metric would allow."""

import jax
import pytest

from jxstilts import config, study, tracking

OVERFIT = """
from jxstilts.config import complete
from jxstilts.study import Study

STEPS = {"mnli": 120, "tydiqa": 200}
OPTIONS = {"max_length": 64, "doc_stride": 24, "max_query_length": 12}


def get_config(task):
    return complete(Study, {
        "study": "overfit", "data_dir": "", "mesh": {"data": 1},
        "model": {"preset": "tiny", "hidden_dropout": 0.0, "attention_dropout": 0.0, "init_std": 0.18},
        "tokenizer": {"vocab_size": 400, "model": "bpe", "languages": ("en", "de")},
        "phases": {"train": {
            "tasks": {task: {**OPTIONS, "limit": 64, "batch_size": 16, "sort_window": 1, "buckets": 1}},
            "steps": STEPS[task], "optimizer": {"learning_rate": 3e-3}, "select": {"every": 10000}, "save_every": 10000,
        }},
        "evaluations": {"train": {
            "phase": "train", "model": "tiny", "intermediate": "none",
            "what": {"tasks": (task,), "split": "train", "languages": ("en",), "limit": 64, "options": OPTIONS},
        }},
    })
"""


@pytest.mark.parametrize(
    ("task", "metric"),
    [pytest.param("mnli", "accuracy", marks=pytest.mark.slow), ("tydiqa", "f1")],  # test_overfit has the real MNLI
)
def test_a_tiny_model_fits(world, tmp_path, task, metric):
    (tmp_path / "overfit.py").write_text(OVERFIT)
    plan = study.from_config(config.load([f"--config={tmp_path}/overfit.py:{task}", f"--config.data_dir={world}"]))
    study.run(plan, tmp_path / "w", devices=jax.devices()[:1])
    (value,) = (row["value"] for row in tracking.read_rows(tmp_path / "w/results.jsonl") if row["metric"] == metric)
    assert value > 95
