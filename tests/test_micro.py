"""The micro encoder that comes with jxstilts: what it is, and that its recipe still makes it."""

import json
import pathlib

import jax
import pytest

from jxstilts import config, miniworld, study, tracking
from jxstilts.config import differences, plain
from jxstilts.data import tokenizer
from jxstilts.miniworld import languages, running
from jxstilts.miniworld.setting import setting
from jxstilts.models import bundle
from jxstilts.runtime import Interrupted
from jxstilts.train import identity

MICRO = pathlib.Path(miniworld.__file__).parent / "micro"
RECIPE = pathlib.Path(__file__).parents[1] / "configs" / "miniworld_pretrain.py"
STEPS = 4
LOSSES = (8.462085, 8.320807, 8.325299, 8.450059)  # of the run that made it


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> pathlib.Path:
    """The running text of the world that it was trained on: the small one of seed 0."""
    folder = tmp_path_factory.mktemp("small")
    for name, content in running.files(setting(0, languages.vary(()), "small")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def recipe(data_dir) -> study.Study:
    overrides = [f"--config={RECIPE}", f"--config.data_dir={data_dir}", "--config.phases.sentences.log_every=1"]
    return study.only(study.from_config(config.load(overrides)), "sentences,documents")


def test_it_is_small_and_says_what_it_is(text):
    assert sum(path.stat().st_size for path in MICRO.rglob("*") if path.is_file()) < 3_000_000
    loaded = bundle.load(MICRO)
    count = sum(leaf.size for leaf in jax.tree.leaves(loaded.params["encoder"]))
    assert 400_000 < count < 1_000_000 and loaded.model.family == "xlmr"
    made = identity.upgraded(loaded.meta["provenance"]["identity"])["phase"]
    wanted = identity.without_added(json.loads(json.dumps(plain(recipe(text).phases["documents"]))))
    assert differences(made, wanted, "documents") == []


def test_the_first_steps_of_its_recipe_are_those_that_made_it(text, tmp_path):
    with pytest.raises(Interrupted, match="stopped at step 4 of 12000"):
        study.run(recipe(text), tmp_path, stop=lambda step: step >= STEPS, devices=jax.devices()[:1])
    rows = tracking.read_rows(tmp_path / "phases/sentences/metrics.jsonl")
    losses = {row["step"]: row["loss"] for row in rows if row["kind"] == "train"}
    assert list(losses) == list(range(1, STEPS + 1)) and list(losses.values()) == pytest.approx(LOSSES, rel=1e-4)
    again, shipped = (tokenizer.load(folder) for folder in (tmp_path / "tokenizer", MICRO / "tokenizer"))
    assert tokenizer.fingerprint(again) == tokenizer.fingerprint(shipped)
