"""The reference of a config's keys: each says what it means, the page is today's, and unknown keys have neighbours."""

import pathlib

import pytest

from jxstilts import cli
from jxstilts.models.families import ROOM
from jxstilts.study import reference
from jxstilts.train import objectives

PAGE = pathlib.Path(__file__).parents[1] / "docs/config.md"


@pytest.fixture(autouse=True)
def only_the_packages_own(monkeypatch):
    for room in (ROOM, objectives.ROOM):
        monkeypatch.delenv(room.variable, raising=False)


def test_every_key_says_what_it_means():
    """A new key is declared by `config.setting(default, meaning)`."""
    found = reference.keys()
    assert {"study", "phases.NAME.optimizer.clip", "grid.training.NAME.tasks.NAME.limit", "model.width",
            "phases.NAME.tasks.NAME.options.rate"} <= {key.path for key in found}  # fmt: skip
    dumb = sorted({f"{key.path} ({key.of})" for key in found if len(key.meaning.split()) < 2 or not key.kind})
    assert dumb == []


def test_the_page_is_todays():
    assert PAGE.read_text() == reference.markdown(), "stale: jxstilts config --markdown > docs/config.md"


@pytest.mark.parametrize(
    ("key", "shown", "not_shown"),
    [
        ("", ("model (family=bert)", "phases.NAME.optimizer: ", "learning_rate = None"), ()),
        ("phases.mnli.optimizer.learning_rate", ("phases.NAME.optimizer.learning_rate\n", "None"), ("weight_decay",)),
        ("config.phases.x.tasks.y.batch_size=3", ("whole number, 0 or more", "as in the recipe"), ()),
        ("mode", ("sampled, alternate, mixed",), ()),
        ("grid.training.mnli.epochs", ("--config.grid.training.NAME.epochs=VALUE",), ()),
        ("phases.mnli", ("phases.NAME: ", "  accumulation = 1"), ("model (",)),
        ("grid.what", ("keys of every evaluation", "  all_layers = False"), ()),
        ("model.norm_eps", ("family=bert", "1e-12", "family=xlmr", "1e-05"), ("width",)),
        ("compute.remat", ("none, full, dots",), ()),
        ("mesh", ("one of them may be -1",), ()),
    ],
)
def test_config_prints_keys(capsys, key, shown, not_shown):
    assert cli.main(["config", *filter(None, [key])]) == 0
    out = capsys.readouterr().out
    assert [text for text in shown if text not in out] == [] and not any(text in out for text in not_shown)
    assert max(map(len, out.splitlines())) <= reference.WIDTH


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("phases.x.optimizer.lerning_rate", "did you mean phases.NAME.optimizer.learning_rate?"),
        ("lerning_rate", "did you mean phases.NAME.optimizer.learning_rate"),
        ("phases.x.tasks.y.optoins.z", "did you mean phases.NAME.tasks.NAME.options"),
        ("model.widht", "did you mean model.width"),
        ("qqqq", "`jxstilts config` lists them all"),
    ],
)
def test_an_unknown_key_has_neighbours(capsys, key, near):
    assert cli.main(["config", key]) == 2
    assert f"unknown key {key!r}; {near}" in capsys.readouterr().err


def test_help_points_to_it(capsys):
    for command in ("run", "plan", "check"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        assert "jxstilts config [KEY]" in " ".join(capsys.readouterr().out.split())
