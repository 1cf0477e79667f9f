"""What hidden states tell of the language: the probe and CKA, by hand and on a micro encoder's states."""

import itertools
import json
import pathlib
import types

import jax
import numpy as np
import pytest

from jxstilts import config, miniworld, runtime, study, tasks, tracking
from jxstilts.data import tokenizer as tokenizers
from jxstilts.eval import evaluator, probes
from jxstilts.models import bundle
from jxstilts.runtime import InputError
from jxstilts.train import identity, probing
from jxstilts.train.phase import Phase

MICRO = pathlib.Path(miniworld.__file__).parent / "micro"


def test_a_probe_finds_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 100)
    noise = rng.normal(size=(400, 6))
    apart = noise + 8 * np.eye(4, 6)[labels]
    one, other = np.arange(400) % 2 == 0, np.arange(400) % 2 == 1
    assert probes.linear_probe(apart[one], labels[one], apart[other], labels[other]) > 99
    assert probes.linear_probe(noise[one], labels[one], noise[other], labels[other]) < 40  # of 25 by chance
    with pytest.raises(InputError, match="two classes"):
        probes.linear_probe(noise, labels * 0, noise, labels * 0)


def test_cka_by_hand():
    """The same states turned and scaled: 1. Of one column each it is the squared correlation."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4)) + 3
    turned = 5 * x @ np.linalg.qr(rng.normal(size=(4, 4)))[0] - 1
    assert probes.linear_cka(x, turned) == pytest.approx(1)
    y = x[:, 0] + rng.normal(size=50)
    assert probes.linear_cka(x[:, :1], y[:, None]) == pytest.approx(np.corrcoef(x[:, 0], y)[0, 1] ** 2)
    assert probes.linear_cka(x, rng.normal(size=(50, 4))) < 0.3
    assert np.isnan(probes.linear_cka(x, np.ones((50, 2))))


def test_states():
    """State 0 tells nothing of the language and has translations side by side; state 1 is the language alone."""
    rng = np.random.default_rng(0)
    meaning = rng.normal(size=(40, 5))

    def embed(sentences):
        codes = [["en", "de", "sw"].index(each["text"].split()[0]) for each in sentences]
        of = meaning[[int(each["text"].split()[1]) for each in sentences]]
        return np.stack([of, np.eye(5)[codes] + 0.01 * of])

    said = lambda code: [{"id": str(i), "text": f"{code} {i}"} for i in range(40)]  # noqa: E731
    pairs = {code: {"source": said(code), "target": said("en")} for code in ("de", "sw")}
    found = probes.states(types.SimpleNamespace(embed=embed, mesh=None), pairs)
    assert found[0]["language"] == pytest.approx(100 / 3, abs=7) and found[0]["cka"] == pytest.approx(1)
    assert found[0]["retrieval"] == 100 and found[1]["language"] == 100
    pairs["sw"] = {side: sentences[:30] for side, sentences in pairs["sw"].items()}
    with pytest.raises(InputError, match="as many sentences each"):
        probes.states(types.SimpleNamespace(embed=embed, mesh=None), pairs)


# --- during a phase ---------------------------------------------------------------------------------------------------

STUDY = """
from jxstilts.config import complete
from jxstilts.study import Study


def get_config(arg):
    mnli = {"mnli": {"batch_size": 8, "max_length": 32, "buckets": 1}}
    phase = {"init": arg, "tasks": mnli, "steps": 3, "optimizer": {"learning_rate": 1e-3, "warmup": 0.0},
             "select": {"metric": ""}, "save_every": 2, "log_every": 1}
    return complete(Study, {"study": "probed", "data_dir": "", "mesh": {"data": 1}, "model": {}, "evaluations": {},
                            "phases": {"one": phase}})
"""
PROBE = ("every=2", "languages=de,tr", "limit=12")


@pytest.fixture
def plan(world, compile_cache, tmp_path):
    (tmp_path / "study.py").write_text(STUDY)

    def make(*keys):
        given = [f"--config={tmp_path}/study.py:{MICRO}", f"--config.data_dir={world}"]
        given += [f"--config.compile_cache={compile_cache}", *(f"--config.phases.one.probe.{key}" for key in keys)]
        return study.from_config(config.load(given))

    return make


def test_a_phase_with_probes_trains_as_without_and_goes_on_alike(plan, world, tmp_path, capsys):
    """Stopped at the step of a probe, which is made when the phase goes on."""
    one = jax.devices()[:1]
    study.run(plan(), tmp_path / "plain", devices=one)
    study.run(plan(*PROBE), tmp_path / "whole", devices=one)
    assert "one: step 3: probe language/3 " in capsys.readouterr().err
    with pytest.raises(runtime.Interrupted):
        study.run(plan(*PROBE), tmp_path / "broken", lambda step: step == 2, devices=one)
    study.run(plan(*PROBE), tmp_path / "broken", devices=one)
    paths = {name: tmp_path / name / "phases/one" for name in ("plain", "whole", "broken")}
    records = {name: json.loads((path / "DONE").read_text()) for name, path in paths.items()}
    assert len({record["checkpoint_sha256"] for record in records.values()}) == 1
    rows = {
        name: [row for row in tracking.read_rows(path / "metrics.jsonl") if row.pop("kind") == "probe"]
        for name, path in paths.items()
    }
    assert rows["plain"] == [] and rows["broken"] == rows["whole"]
    assert [row["step"] for row in rows["whole"]] == [2, 3]
    keys = {f"{name}/{state}" for name, state in itertools.product(("language", "cka", "tatoeba"), range(4))}
    assert all(row.keys() == {"step", *keys} for row in rows["whole"])
    assert any(rows["whole"][0][key] != rows["whole"][1][key] for key in keys)

    # What the end's probes say is what an evaluation of the end's weights says.
    own = bundle.load(paths["whole"] / "best")
    found = evaluator.Evaluator(own.model, own.params, tokenizers.load(own.tokenizer_dir))
    given = [(code, tasks.load("tatoeba", world, "test", code, limit=12)) for code in ("de", "tr")]
    curves = [each.curve for each in found.languages(tasks.get("tatoeba"), given, split="test", all_layers=True)]
    for state in range(4):
        mean = np.mean([curve[state]["accuracy"] for curve in curves])
        assert rows["whole"][1][f"tatoeba/{state}"] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["every=2"], r"one\.probe\.languages is empty"),
        (["every=2", "languages=de,xx"], r"one\.probe\.languages: unknown language of task 'tatoeba' 'xx'"),
        (["every=2", "languages=de", "limit=1"], r"one\.probe\.limit=1: a probe is fitted on some"),
        (["every=2", "languages=de", "task=mnli"], r"one\.probe\.task='mnli': .* translated sentences: tatoeba"),
        (["every=-1"], r"one\.probe\.every=-1: expected 0 or more"),
    ],
)
def test_probes_that_cannot_be_made_are_refused(plan, keys, message):
    with pytest.raises(InputError, match=message):
        plan(*keys)


def test_a_phase_without_probes_is_what_it_was():
    """Whatever the other keys say: a folder of before is recognised."""
    plain = identity.settings(Phase())
    assert "probe" not in plain and identity.settings(Phase(probe=probing.Probe(limit=5))) == plain
    assert identity.settings(Phase(probe=probing.Probe(every=5)))["probe"]["every"] == 5


def test_a_language_adapter_and_probes_of_several_languages():
    probing.check_adapters(probing.Probe(), "de", "config.phases.one.probe")
    with pytest.raises(InputError, match=r"one\.probe\.every=2: the adapters that are on are those of de"):
        probing.check_adapters(probing.Probe(every=2), "de", "config.phases.one.probe")
