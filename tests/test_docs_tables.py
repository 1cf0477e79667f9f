"""docs/models_and_metrics.md has every family, every preset with its published weights, every metric with its tasks."""

import itertools
import pathlib
import re

import pytest

from jxstilts import tasks
from jxstilts.eval import metrics
from jxstilts.models.families import ROOM
from jxstilts.models.heads import kind
from jxstilts.models.model import make_config

PAGE = (pathlib.Path(__file__).parent.parent / "docs/models_and_metrics.md").read_text(encoding="utf-8")


def table(*columns):
    """The rows of the page's only table that begins with these columns, as lists of cells."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines()]
    (begin,) = [number for number, cells in enumerate(lines) if cells[: len(columns)] == list(columns)]
    return list(itertools.takewhile(lambda cells: len(cells) > 1, lines[begin + 2 :]))


def named(cell):
    return re.findall(r"`([^`]+)`", cell)


FAMILIES = {named(row[0])[0]: row for row in table("family", "models")}
PRESETS = {(named(row[0])[0], preset): row for row in table("family", "preset") for preset in named(row[1])}
METRICS = {named(row[0])[0]: row for row in table("metric", "tasks")}


def test_every_row_is_of_something():
    assert set(FAMILIES) == set(ROOM.names()) and set(METRICS) == set(metrics.names())
    assert set(PRESETS) == {(name, preset) for name in ROOM.names() for preset in ROOM.get(name).PRESETS}


@pytest.mark.parametrize("name", ROOM.names())
def test_family(name):
    _, _, types, shared, own = FAMILIES[name]
    module = ROOM.get(name)
    assert set(named(types)) == set(module.HUGGINGFACE.model_types)
    heads = module.heads(make_config(name, "tiny"))
    assert set(named(shared)) == {type for type, layout in heads.items() if layout.architecture}
    beside = {"dual", "embedding"}  # which no family has layers for
    assert set(named(own)) == {*heads, *beside} - set(named(shared)) and all(map(kind, beside))
    published = {preset: hub for hub, preset in module.HUB.items()}
    for preset in module.PRESETS:
        _, names, weights, shapes, vocabulary = PRESETS[name, preset]
        place, config = named(names).index(preset), make_config(name, preset)
        assert named(weights) == ([published[preset]] if preset in published else [])
        stacks = " + ".join(str(count) for count in (config.layers, getattr(config, "decoder_layers", None)) if count)
        assert shapes.split(", ")[place] == f"{stacks} x {config.width}"
        assert vocabulary.split("; ")[place] == f"{config.vocab_size:,}"


@pytest.mark.parametrize("name", metrics.names())
def test_metric(name):
    _, listed, definition, values, rule, _ = METRICS[name]
    assert definition and rule and {*metrics.get(name).headline} <= {*named(values)}
    scored = {each for each in tasks.names() if tasks.get(each).metric == name and not each.endswith(tasks.AS_TEXT)}
    assert {*listed.split(", ")} == scored or not scored
