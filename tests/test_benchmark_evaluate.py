"""The benchmark of a whole evaluation: what share of the rows it takes, and figures that add up."""

import itertools
import json
import math
import pathlib
import shutil

import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st

from jxstilts import miniworld, tasks
from jxstilts.eval.options import Options

torch = pytest.importorskip("torch")

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def evaluate():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        from benchmarks import evaluate

        threads = torch.get_num_threads()
        yield evaluate
        torch.set_num_threads(threads)


@given(st.integers(1, 500), st.floats(0.001, 1), st.floats(0, 1, exclude_max=True))
def test_a_share_is_runs_of_neighbours_from_all_over(evaluate, count, share, place):
    rows = list(range(count))
    found = evaluate._share(rows, share, place)
    size = math.ceil(share * count)
    assert len(found) == size and found == sorted(found)
    assert evaluate._share(rows, 1.0, place) == rows
    runs = math.ceil(size / evaluate.BATCH)
    assert sum(after - before != 1 for before, after in itertools.pairwise(found)) < runs
    for run in range(runs):  # each part of the file gives its own
        begin, end = count * run // runs, count * (run + 1) // runs
        assert any(begin <= row < end for row in found)


def test_the_figures_add_up(evaluate, world, tmp_path, capsys):
    out, data = tmp_path / "result.json", tmp_path / "data"
    shutil.copytree(world, data)
    shutil.copytree(pathlib.Path(miniworld.__path__[0]) / "micro" / "tokenizer", data / "tokenizer")
    arguments = ["--model=tiny", f"--data_dir={data}", "--tasks=xnli,tatoeba", "--share=0.1"]
    assert evaluate.main([*arguments, "--languages=de,es", "--padding=limit", "--repetitions=1", f"--out={out}"]) == 0
    result = json.loads(out.read_text())
    assert [row["task"] for row in result["tasks"]] == ["xnli", "tatoeba"]
    for key in ("inputs", "tokens", "torch", "ours", "compilations"):
        assert result["all"][key] == pytest.approx(sum(row[key] for row in result["tasks"]))
    assert result["ratio"] == pytest.approx(result["all"]["torch"] / result["all"]["ours"])
    assert all(row["tokens"] > row["inputs"] > 0 and 0 <= row["padding"] < 1 for row in result["tasks"])
    assert "10.00% of the rows" in capsys.readouterr().out


def test_the_peer_gets_the_same_tokens_however_it_pads(evaluate):
    spec = tasks.get("tatoeba")
    texts = [" ".join(samples.WORDS[: 1 + i * 7 % 11]) for i in range(70)]
    sides = {side: [{"id": str(i), "text": text} for i, text in enumerate(texts)] for side in ("source", "target")}
    given = {"data": {"de": sides}, "tokenizer": samples.word_tokenizer(), "options": Options(max_length=64)}
    made = {padding: evaluate._peer_batches(spec, padding=padding, **given) for padding in evaluate.PADDING}
    bags = {padding: sorted(tuple(row[own]) for ids, mask in batches for row, own in zip(ids, mask, strict=True))
            for padding, batches in made.items()}  # fmt: skip
    assert len(bags["longest"]) == 140 and bags["longest"] == bags["sorted"] == bags["limit"]
    widths = [ids.shape[1] for ids, _ in made["sorted"]]
    assert widths[:3] == sorted(widths[:3], reverse=True) and len(widths) == 6
    area = {padding: sum(ids.size for ids, _ in batches) for padding, batches in made.items()}
    assert area["sorted"] < area["longest"] == area["limit"]  # retrieval is never padded to the limit
    nli = {"en": [{"id": str(i), "text_a": text, "text_b": "the"} for i, text in enumerate(texts)]}
    batches = evaluate._peer_batches(tasks.get("xnli"), **(given | {"data": nli}), padding="limit")
    assert {ids.shape[1] for ids, _ in batches} == {64}


def test_what_is_not_there_is_said(evaluate, tmp_path, capsys):
    assert evaluate.main([f"--data_dir={tmp_path}", "--share=0"]) == 2
    assert "--share" in capsys.readouterr().err
    assert evaluate.main([f"--data_dir={tmp_path}"]) == 2
    assert "tokenizer" in capsys.readouterr().err
