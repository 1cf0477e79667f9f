"""The whole path of a small mT5 through the command line: text, an intermediate task, questions, MLQA's 25 pairs."""

import json

import pytest

from jxstilts import cli
from jxstilts.eval import items
from jxstilts.models import bundle


@pytest.mark.slow
def test_from_text_to_mlqa_in_all_pairs(world, tmp_path, capsys):
    arguments = [
        "--config=configs/mt5_small_text.py:smoke,tasks=1,seeds=1",
        f"--config.data_dir={world}",
        f"--workdir={tmp_path / 'w'}",
    ]
    assert cli.main(["run", *arguments]) == 0, capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "w" / "results.jsonl").read_text().splitlines()]
    asked = {row["language"] for row in rows if row["task"] == "mlqa_text" and row["metric"] == "f1"}
    assert len(asked) == 25 and "hi-en" in asked
    trained = bundle.load(tmp_path / "w" / "phases" / "k1-s0-questions" / "best")
    assert trained.model.family == "mt5" and [spec.name for spec in trained.model.head_specs] == ["text_to_text"]
    begun = bundle.load(tmp_path / "w" / "phases" / "text" / "best")
    assert trained.meta["provenance"]["handover"]["loaded"] == ["encoder", "heads/text_to_text"]
    assert trained.meta["sha256"] != begun.meta["sha256"]
    kept = items.read(items.path(tmp_path / "w", "k1-s0-mlqa", "mlqa_text", "dev", "de-en"))
    assert {"f1", "exact_match"} <= kept.columns.keys() and len(kept.ids) == 4
