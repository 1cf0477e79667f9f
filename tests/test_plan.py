"""`jxstilts plan`: the paper's study counted by hand, and what a study folder tells of the rest."""

import dataclasses
import json

import pytest
from toy import CONFIG

from jxstilts import cli, config, study
from jxstilts.models.layers import Compute
from jxstilts.models.model import make_config
from jxstilts.study import plan

# Steps and tokens at most of each training task, by hand: epochs x batches of its official rows; a full batch.
PAIRS, QUESTIONS = 32 * 256, 16 * 384
INTERMEDIATE = {
    "anli_plus": (2 * 34_530, PAIRS),  # 1,104,934 rows in batches of 32
    "mnli": (2 * 12_272, PAIRS),  # 392,702
    "qqp": (5 * 11_371, PAIRS),  # 363,846
    "squad_v2": (2 * 8_145, QUESTIONS),  # 130,319 in batches of 16
    "squad_v1": (2 * 5_475, QUESTIONS),  # 87,599
    "hellaswag": (2 * 1_248, 4 * PAIRS),  # 39,905, of four choices
    "cosmosqa": (2 * 790, 4 * PAIRS),  # 25,262
    "commonsenseqa": (2 * 305, 5 * PAIRS),  # 9,741, of five
}
TARGETS = {
    "mnli": (2 * 12_272, PAIRS),  # XNLI
    "pawsx": (5 * 1_544, PAIRS),  # 49,401
    "udpos": (10 * 681, PAIRS),  # 21,787
    "panx": (10 * 625, PAIRS),  # 20,000
    "squad_v1": (2 * 5_475, QUESTIONS),  # XQuAD and MLQA
    "tydiqa": (2 * 231, QUESTIONS),  # 3,696
}
# at most 100,000 inputs of a task: 3,125 batches of pairs, 6,250 of questions
ALL9 = 3 * (3 * 3_125 + 6_250 + 5_475 + 1_248 + 790 + 305)


def planned(capsys, *arguments):
    assert cli.main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_paper_by_hand(capsys):
    found = planned(capsys, "--config=configs/paper.py")
    total = found["totals"]
    # Per seed: ten intermediate phases, and six target phases after each and after none; but MNLI and SQuAD after none
    # are the intermediate phases. Beside them the model as it is.
    assert total["phases"] == 1 + 3 * (10 + 6 * 11 - 2) == 223
    # Nine targets after eleven starts; retrieval (two tasks) by the model as it is has no seeds.
    assert total["evaluations"] == 3 * 9 * 11 - 2 * 2 == 293
    # Languages with a dev set, else a test set: 118 of trained tasks, 4 and 36 of retrieval.
    assert total["pairs"] == 33 * (15 + 7 + 29 + 40 + 11 + 7 + 9) + 31 * (4 + 36)
    alone = [*INTERMEDIATE.values(), *11 * list(TARGETS.values())]
    shared = [INTERMEDIATE["mnli"], INTERMEDIATE["squad_v1"]]
    steps = sum(n for n, _ in alone) - sum(n for n, _ in shared)
    assert total["steps"] == 3 * (steps + ALL9)
    phases = {row["name"]: row for row in found["phases"]}
    mixture = [phases[f"large-all9-s{seed}"] for seed in (1, 2, 3)]
    assert [row["steps"] for row in mixture] == [ALL9] * 3
    at_most = sum(n * tokens for n, tokens in alone) - sum(n * tokens for n, tokens in shared)
    assert total["at_most"] == 3 * at_most + sum(row["at_most"] for row in mixture)
    # tasks are drawn by min(n, 100,000), of which a step takes one batch
    drawn = {"anli_plus": 1e5, "mnli": 1e5, "qqp": 1e5, "squad_v2": 1e5, "squad_v1": 87_599, "hellaswag": 39_905,
             "cosmosqa": 25_262, "commonsenseqa": 9_741}  # fmt: skip
    tokens = sum(share * INTERMEDIATE[task][1] for task, share in drawn.items()) / sum(drawn.values())
    assert mixture[0]["at_most"] == round(ALL9 * tokens)
    # the size of CCGbank is not public; its phases are there and say so
    assert found["unknown_sizes"] == ["ccg"] and phases["large-ccg-s1"]["steps"] is None
    assert total["seconds_left"] is None
    assert found["models"]["large"]["parameters"] == 558_840_832


def test_the_papers_arguments(capsys):
    path = "--config=configs/paper.py:model=base,intermediate=mnli,seeds=1"
    found = planned(capsys, path)
    # the model, MNLI, five other targets after none, six after MNLI
    assert found["totals"]["phases"] == 13 and found["totals"]["evaluations"] == 18
    assert found["models"]["base"]["init"] == "FacebookAI/xlm-roberta-base"
    tokens = found["totals"]["tokens"]
    assert planned(capsys, path, "--tokens_per_second=1000")["totals"]["seconds_left"] == pytest.approx(tokens / 1000)
    replayed = planned(capsys, f"{path},mlm=true")
    phases = {row["name"]: row for row in replayed["phases"]}
    assert phases["base-mnli+mlm-s1"]["steps"] == 2 * 2 * 12_272 and "base-mnli-s1" not in phases
    assert planned(capsys, f"{path},mlm=both", "--only=*-tatoeba-*")["totals"]["evaluations"] == 3
    assert planned(capsys, "--config=configs/paper.py:intermediate=none")["totals"]["phases"] == 1 + 3 * 6


def test_the_quickstart_by_hand(capsys):
    found = planned(capsys, "--config=configs/quickstart.py:seeds=2")
    names = {phase["name"] for phase in found["phases"]}
    # The encoder; of each seed a random one with its 4 target phases, 3 intermediates, and the target phases of 4 arms
    # less the two that are the intermediates themselves. Retrieval of the encoder as it is has no seeds.
    assert len(names) == 1 + 2 * (1 + 4 + 3 + 4 * 4 - 2)
    assert {"micro-none-panx-s1", "micro-all9-squad_v1-s0", "random-none-udpos-s1"} <= names
    assert not {"micro-none-mnli-s0", "micro-none-squad_v1-s0", "random-mnli-s0"} & names
    assert found["totals"]["evaluations"] == 2 * 5 * 6 - 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--config=configs/paper.py:model=huge"], "unknown model 'huge'"),
        (["--config=configs/paper.py:intermediate=mnly"], "did you mean 'mnli'"),
        (["--config=configs/paper.py:mlm=maybe"], "mlm is true, false or both"),
        (["--config=configs/paper.py", "--only=small*"], "--only=small*: matches no phase or evaluation"),
        (["--config=configs/paper.py", "--tokens_per_second=-1"], "--tokens_per_second=-1.0: a number above 0"),
    ],
)
def test_bad_requests(capsys, arguments, text):
    assert cli.main(["plan", *arguments]) == 2
    assert text in capsys.readouterr().err


def test_a_plan_for_people(capsys):
    assert cli.main(["plan", "--config=configs/paper.py:intermediate=ccg,seeds=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:2] == ["large", "FacebookAI/xlm-roberta-large"]
    assert any(line.startswith("Not counted") and line.endswith("ccg") for line in lines)
    assert any("558.8 M parameters: 2.08 GiB weights, 4.16 GiB optimizer" in line for line in lines)


@pytest.fixture(scope="module")
def toy(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.py").write_text(CONFIG)
    return study.from_config(config.load([f"--config={folder}/toy.py", f"--config.data_dir={world}"]))


def test_rows_are_counted_where_the_data_is(toy):
    found = {row.name: row for row in plan.rows(toy)}
    assert (found["pretrain"].steps, found["pretrain"].tokens) == (12, 12 * 8 * 64)  # packed rows are full
    assert (found["mnli"].steps, found["mnli"].at_most) == (2 * 12, 24 * 16 * 48)  # 180 rows in batches of 16
    assert found["mnli"].tokens == 24 * 16 * 45
    assert found["qa"].steps == 4  # 44 questions, of which 12 are held out, in batches of 8
    assert plan.unknown_sizes(toy) == [] and all(row.state == "" for row in found.values())


def test_memory_is_that_of_the_parameters():
    found = plan.memory("xlmr", make_config("xlmr", "tiny"), Compute())
    width, mlp, layers = 32, 64, 2
    layer = 4 * (width * width + width) + 2 * width * mlp + mlp + width + 4 * width
    parameters = (1000 + 130 + 1) * width + 2 * width + layers * layer
    assert found["parameters"] == parameters and found["weights"] == 4 * parameters
    assert found["optimizer"] == 8 * parameters
    assert (
        plan.memory("xlmr", make_config("xlmr", "tiny"), Compute(param_dtype="bfloat16"))["weights"] == 2 * parameters
    )


def finished(workdir, toy, name, start, **changes):
    """Writes what a finished phase leaves, as far as a plan reads it."""
    from jxstilts.train import identity

    folder = workdir / "phases" / name
    (folder / "best").mkdir(parents=True)
    settings = identity.settings(dataclasses.replace(toy.phases[name], **changes))
    data = identity.data(toy.phases[name], toy.data_dir, workdir / "cache/digests")
    (folder / "config.json").write_text(json.dumps({"phase": settings, "start": start, "data": data}))
    (folder / "DONE").write_text(json.dumps({"steps": 12, "checkpoint_sha256": f"sha of {name}"}))
    row = {"kind": "train", "tokens": 600.0, "tokens_per_second": 100.0}
    rows = [{**row, "step": 6}, {"step": 6, "kind": "dev"}, {**row, "step": 12, "tokens_per_second": 300.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = dataclasses.asdict(make_config("xlmr", "tiny"))
    meta = {"format": 1, "family": "xlmr", "config": model, "heads": [], "provenance": {}, "sha256": "", "leaves": {},
            "tokenizer": {}}  # fmt: skip
    (folder / "best/bundle.json").write_text(json.dumps(meta))


def test_a_folder_tells_what_is_done_and_how_fast(toy, tmp_path):
    finished(tmp_path, toy, "pretrain", None)
    finished(tmp_path, toy, "mnli", "sha of pretrain")
    found = {row.name: row for row in plan.rows(toy, tmp_path)}
    assert {name: row.state for name, row in found.items()} == {"pretrain": "done", "mnli": "done", "qa": ""}
    assert (found["mnli"].steps, found["mnli"].tokens, found["mnli"].measured) == (12, 1200, True)
    assert found["mnli"].seconds == 0.0
    assert found["qa"].seconds == pytest.approx(found["qa"].tokens / 200)  # the median speed; the same architecture
    other = dataclasses.replace(toy, phases=toy.phases | {"again": dataclasses.replace(toy.phases["mnli"], seed=5)})
    again = plan.rows(other, tmp_path)[-1]
    assert (again.name, again.steps, again.tokens, again.measured) == ("again", 24, 2400, True)  # 100 tokens a step


def test_a_folder_tells_what_has_changed(toy, tmp_path):
    finished(tmp_path, toy, "pretrain", None)
    finished(tmp_path, toy, "mnli", "sha of pretrain", epochs=1.0)
    finished(tmp_path, toy, "qa", "sha of mnli")
    found = {row.name: row.state for row in plan.rows(toy, tmp_path)}
    assert found == {"pretrain": "done", "mnli": "runs again: phase.epochs: 1.0 -> 2.0", "qa": "waits for mnli"}
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed/phase-mnli.json").write_text("{}")
    (tmp_path / "phases/mnli/config.json").unlink()
    assert [row.state for row in plan.rows(toy, tmp_path)][1] == "failed"
