"""The studies in configs/: each is whole, and the one on real text has the cells that it promises."""

import collections
import pathlib

import pytest

from jxstilts import config, miniworld, study
from jxstilts.runtime import InputError

MICRO = pathlib.Path(miniworld.__file__).parent / "micro"
CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_a_whole_study(path):
    found = study.from_config(config.load([f"--config={path}"]), to_run=False)
    assert found.study and found.phases and found.evaluations
    assert {one.phase for one in found.evaluations.values()} <= set(study.order(found))


@pytest.mark.parametrize(("more", "arms"), [("", 8), (",replay", 10)])
def test_the_study_on_real_text_has_its_cells(more, arms):
    path = CONFIGS[0].with_name("real_study.py")
    found = study.from_config(config.load([f"--config={path}:encoder={MICRO},name=micro{more}"]), to_run=False)
    cells = collections.Counter(
        (one.model, one.intermediate, one.what.tasks[0]) for one in found.evaluations.values()
    )  # fmt: skip
    assert len({cell for cell in cells if cell[0] == "micro"}) == arms * 9
    assert {cell[1:] for cell in cells if cell[0] == "random"} == {
        ("none", task) for task in ("xnli", "pawsx", "udpos", "panx", "xquad", "mlqa", "tydiqa")
    }  # retrieval has nothing to train
    # without training before it, or a seed of its own, one evaluation says it all
    assert {cells[cell] for cell in cells if cell[2] not in ("tatoeba", "bucc2018")} == {3}
    frozen = {phase.freeze for name, phase in found.phases.items() if name.startswith("micro-") and phase.tasks}
    assert frozen == {("embeddings",)} and {found.phases[f"random-udpos-s{seed}"].freeze for seed in range(3)} == {()}


def test_several_encoders_are_models_by_their_folders_names(tmp_path):
    path = CONFIGS[0].with_name("methods.py")
    (tmp_path / "other").symlink_to(MICRO)
    given = f"--config={path}:arms=control,seeds=1,languages=en+el,encoder={MICRO}+"
    found = study.from_config(config.load([f"{given}{tmp_path}/other"]), to_run=False)
    assert {(one.model, one.what.languages) for one in found.evaluations.values()} == {
        ("micro", ("en", "el")), ("other", ("en", "el"))
    }  # fmt: skip
    with pytest.raises(InputError, match="their folders' names have to differ"):
        config.load([f"{given}{MICRO}"])
