"""Whole study on real text with a small encoder: four intermediates, six targets, three seeds, one report.

    jxstilts run --config=configs/real_study.py:encoder=V/phases/pretrain/best --config.data_dir=D --workdir=W
    jxstilts run --config=configs/real_study.py --config.data_dir=D --workdir=W           # pre-trains the encoder too

The encoder is the one that configs/real_small.py pre-trains (the same phase, or the bundle `encoder=`). Intermediates:
none, MNLI, HellaSwag, CommonsenseQA. Targets: XNLI (trained on MNLI), POS, NER, TyDiQA in English; Tatoeba and BUCC
zh-en without training. Zero-shot in every language that the data folder has gold labels for, on the first `evaluated`
rows of each: dev sets, POS test, Tatoeba, and TyDiQA's labelled Korean and Swahili training files (XTREME's copy of its
dev files has no answers). Checkpoints are chosen on English dev rows. All is capped so that 2 CPU cores do it within
two hours: it shows the machinery on real files, not what transfer XLM-R has.

Arguments:
    encoder=PATH     a bundle to start from
    rows=2000        training rows of a task at most
    evaluated=60     rows per task and language; 0 = all
    seeds=3          their number
    smoke            a handful of steps of a tiny encoder, to check the graph
"""

import pathlib
import runpy

from jxstilts import tasks
from jxstilts.config import complete, parse_arg, plain
from jxstilts.study import Study

# training task: its stream (limit = rows, never more than `rows`), epochs, learning rate
TRAINING = {
    "mnli": ({"max_length": 64, "limit": 3000}, 2.0, 1e-3),
    "hellaswag": ({"max_length": 96, "batch_size": 16, "limit": 600}, 1.0, 1e-3),
    "commonsenseqa": ({"max_length": 48, "batch_size": 16, "limit": 1500}, 1.0, 1e-3),
    "udpos": ({"max_length": 96, "limit": 2000}, 2.0, 1e-3),
    "panx": ({"max_length": 96, "limit": 3000}, 2.0, 1e-3),
    "tydiqa": ({"max_length": 256, "batch_size": 16, "limit": 500, "holdout": 100}, 1.0, 5e-4),
}
TARGETS = {
    "xnli": {"split": "dev"},
    "udpos": {"split": "test"},
    "panx": {"split": "dev"},
    "tydiqa": {"split": "train", "languages": ("ko", "sw")},
    "tatoeba": {"split": "test", "all_layers": True},
    "bucc2018": {"split": "dev", "all_layers": True, "languages": ("zh",)},
}


def get_config(arg: str | None = None):
    arg = parse_arg(arg, encoder="", rows=2000, evaluated=60, seeds=3, smoke=False)
    path = pathlib.Path(__file__).with_name("real_small.py")
    small = plain(runpy.run_path(str(path))["get_config"](f"scale={'smoke' if arg.smoke else 'cpu'}"))
    return complete(
        Study,
        {
            "study": "real_study",
            "data_dir": "",
            "model": small["model"],
            "tokenizer": small["tokenizer"],
            "compute": small["compute"],
            "phases": {} if arg.encoder else {"pretrain": small["phases"]["pretrain"]},
            "evaluations": {},
            "grid": {
                "models": {"small": arg.encoder or "pretrain"},
                "intermediates": ("none", "mnli", "hellaswag", "commonsenseqa"),
                "targets": {task: _what(task, arg) for task in TARGETS},
                "seeds": tuple(range(arg.seeds)),
                "phase": {"select": {"metric": "major", "rows": 200, "every": 100}},
                "training": {task: _training(task, arg) for task in TRAINING},
            },
        },
    )


def _training(task: str, arg) -> dict:
    stream, epochs, rate = TRAINING[task]
    rows = 64 if arg.smoke else min(stream["limit"], arg.rows)
    return {
        "tasks": {task: {"batch_size": 32, **stream, "limit": rows, "buckets": 2}},
        "epochs": 1.0 if arg.smoke else epochs,
        "optimizer": {"learning_rate": rate},
    }


def _what(task: str, arg) -> dict:
    train = tasks.get(task).train_task
    limit = {"limit": 20 if arg.smoke else arg.evaluated}
    if task == "bucc2018" and not arg.smoke:
        limit = {}  # pairs are looked for among all its sentences
    return {**TARGETS[task], **limit, "options": {"max_length": TRAINING[train][0]["max_length"] if train else 128}}
