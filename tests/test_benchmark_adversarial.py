"""The benchmark of the adversarial step compares the same tokens; the table of a study's encoders has its columns."""

import json
import pathlib

import jax
import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.slow
def test_the_step_beside_a_plain_one(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(ROOT)
    platforms = jax.config.jax_platforms
    from benchmarks import adversarial

    small = ["--model=tiny", "--batch_size=4", "--length=16", "--turns=1"]
    assert adversarial.main([*small, "--forms=reversal,critic", f"--out={tmp_path}/out.json"]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["ratios"].keys() == {"plain", "reversal", "critic, 5 updates, clipped"}
    assert found["flops"]["plain"] < found["flops"]["reversal"]
    assert adversarial.main([*small, "--forms=revresal"]) == 2
    assert "did you mean 'reversal'" in capsys.readouterr().err
    jax.config.update("jax_platforms", platforms)
