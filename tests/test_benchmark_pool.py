"""The benchmark of ranking a large pool, at a small size: it searches, is stopped, and goes on."""

import json

from benchmarks import pool

SMALL = ["--queries=20", "--candidates=600", "--dim=16", "--k=5", "--slab=128", "--without_faiss"]


def test_it_measures_and_goes_on(tmp_path, capsys):
    command = [*SMALL, f"--folder={tmp_path / 'f'}", f"--out={tmp_path / 'out.json'}"]
    assert pool.main([*command, "--stop_after=2"]) == 0 and "stopped after 2 slabs" in capsys.readouterr().out
    assert pool.main(command) == 0 and "went on where another was stopped" in capsys.readouterr().out
    assert pool.main(command) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["shape"] == [20, 600, 16] and not result["went_on"] and result["memory_gib"] > 0
    assert pool.main([*command, "--k=0"]) == 2
