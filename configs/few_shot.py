"""MNLI with a few labelled rows in other languages: beside English, and mixed with it (docs/robust.md).

    jxstilts world DIR
    python -m benchmarks.world_files DIR OUT
    jxstilts run --config=configs/few_shot.py --config.data_dir=OUT --workdir=W
    python -m benchmarks.methods W beside

Each seed trains one epoch of MNLI in English: the zero-shot result, `english`. The other arms go on from there, each
step with a batch of English and one of the few rows: `beside`, the control, has the losses of both, and `mixing` adds
the loss at the mixed states to them.

Arguments:
    encoder=PATH        a bundle in place of the micro encoder
    few=de+ru+hi+tr     languages with 100 rows each
    seeds=3             their number
    steps=60            of each arm
    rows=300            of each language that is evaluated; 0 = all
"""

import pathlib

import jxstilts
from jxstilts.config import complete, names, parse_arg
from jxstilts.models import bundle
from jxstilts.study import Study
from jxstilts.study.paths import model_path

MICRO = pathlib.Path(jxstilts.__file__).parent / "miniworld" / "micro"
LANGUAGES = ("en", "de", "es", "ru", "el", "hi", "ar", "tr")
STREAM = {"task": "mnli", "head": "nli", "batch_size": 32, "max_length": 32, "buckets": 1, "packed": False}
MIX = {"streams": ("en", "few"), "objective": "mixing", "options": {"head": "nli", "high": "en", "share": 0.5}}
ARMS = {"beside": {}, "mixing": {"mix": MIX}}  # name: further objectives


def get_config(arg: str | None = None):
    arg = parse_arg(arg, encoder=str(MICRO), few="de+ru+hi+tr", seeds=3, steps=60, rows=300)
    arg.encoder = model_path(arg.encoder, "encoder")
    meta = bundle.read_meta(arg.encoder)
    few = {
        **STREAM,
        "languages": tuple(names(arg.few, LANGUAGES[1:], "few")),
        "mode": "mixed",
        "amount": 1.0,
        "sort_window": 1,
    }
    usual = {"optimizer": {"learning_rate": 1e-3, "warmup": 0.1}, "select": {"metric": ""}}
    phases, evaluations = {}, {}
    for seed in range(arg.seeds):
        english = f"english-seed{seed}"
        phases[english] = {**usual, "init": arg.encoder, "seed": seed, "epochs": 1.0, "tasks": {"en": STREAM}}
        for arm, objectives in ARMS.items():
            phases[f"{arm}-seed{seed}"] = {
                **usual, "init": english, "seed": seed, "steps": arg.steps, "tasks": {"en": STREAM, "few": few},
                "objectives": objectives,
            }  # fmt: skip
    for name in phases:
        evaluations[name] = {
            "phase": name, "model": name.split("-")[0], "intermediate": "none", "target": "xnli",
            "what": {"tasks": ("xnli",), "languages": LANGUAGES, "split": "test", "limit": arg.rows,
                     "head": "nli", "options": {"max_length": 64}},
        }  # fmt: skip
    return complete(
        Study,
        {
            "study": "few_shot",
            "data_dir": "",
            "model": {"family": meta["family"], **meta["config"]},
            "tokenizer": {"path": str(pathlib.Path(arg.encoder) / "tokenizer")},
            "phases": phases,
            "evaluations": evaluations,
        },
    )
