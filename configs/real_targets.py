"""XTREME's nine targets on real text: a small encoder, trained in English on each, zero-shot in every language.

    jxstilts run --config=configs/real_targets.py --config.data_dir=D --workdir=W                      # 2 CPU cores
    jxstilts run --config=configs/real_targets.py:encoder=V/phases/pretrain/best ...   # an encoder that is there

The encoder is the one that configs/real_small.py pre-trains (the same phase, or the bundle `encoder=`). Trained in
English are MNLI (for XNLI), POS, NER and TyDiQA (for TyDiQA, XQuAD and MLQA). The public test corpus has no English
PAWS-X training rows: QQP stands in for them, so the PAWS-X column says nothing about PAWS-X training. BUCC and Tatoeba
need no training; every hidden state is scored. Evaluated is what the corpus has gold labels for: the dev sets, XQuAD,
POS test, Tatoeba, BUCC zh-en, and TyDiQA's labelled Korean and Swahili training files (XTREME's copy of its dev files
has no answers). A language whose file is not there is left out, and named.

Arguments:
    encoder=PATH       a bundle to start from
    rows=300           evaluated rows per task and language; 0 = all
    smoke              a handful of steps of a tiny encoder, to check the graph
    seed=0
"""

import pathlib
import runpy

from jxstilts.config import complete, parse_arg, plain
from jxstilts.study import Study

# phase: training task, epochs
PHASES = {
    "nli": ("mnli", {"max_length": 64, "batch_size": 32}, 3.0),
    "paraphrase": ("qqp", {"max_length": 64, "batch_size": 32}, 3.0),
    "pos": ("udpos", {"max_length": 96, "batch_size": 32, "limit": 5000}, 2.0),
    "ner": ("panx", {"max_length": 96, "batch_size": 32, "limit": 5000}, 2.0),
    "qa": ("tydiqa", {"max_length": 256, "batch_size": 16, "limit": 1200, "holdout": 200}, 1.0),
}
# task: the phase that is evaluated, and what
TARGETS = {
    "xnli": ("nli", {"split": "dev"}),
    "pawsx": ("paraphrase", {"split": "dev"}),
    "udpos": ("pos", {"split": "test"}),
    "panx": ("ner", {"split": "dev"}),
    "xquad": ("qa", {"split": "test"}),
    "mlqa": ("qa", {"split": "dev"}),
    "tydiqa": ("qa", {"split": "train", "languages": ("ko", "sw")}),
    "bucc2018": ("pretrain", {"split": "dev", "all_layers": True}),
    "tatoeba": ("pretrain", {"split": "test", "all_layers": True}),
}


def get_config(arg: str | None = None):
    arg = parse_arg(arg, encoder="", rows=300, smoke=False, seed=0)
    path = pathlib.Path(__file__).with_name("real_small.py")
    small = plain(runpy.run_path(str(path))["get_config"](f"scale={'smoke' if arg.smoke else 'cpu'},seed={arg.seed}"))
    phases = {"pretrain": {"init": arg.encoder} if arg.encoder else small["phases"]["pretrain"]}
    for name, (task, stream, epochs) in PHASES.items():
        limit = 64 if arg.smoke else stream.get("limit", 0)
        phases[name] = {
            "init": "pretrain",
            "tasks": {task: {**stream, "limit": limit, "buckets": 3}},
            "epochs": 1.0 if arg.smoke else epochs,
            "optimizer": {"learning_rate": 5e-4 if task == "tydiqa" else 1e-3},
            "select": {"metric": "major", "rows": 300, "every": 200},
        }
    evaluations = {}
    for task, (phase, what) in TARGETS.items():
        options = {"max_length": PHASES[phase][1]["max_length"] if phase in PHASES else 128}
        rows = {} if task == "bucc2018" and not arg.smoke else {"limit": 20 if arg.smoke else arg.rows}
        evaluations[task] = {
            "phase": phase, "model": "small", "intermediate": "none", "target": task,
            "what": {"benchmark": "xtreme", "tasks": (task,), **rows, **what, "options": options},
        }  # fmt: skip
    for phase in phases.values():
        phase["seed"] = arg.seed
    return complete(
        Study,
        {
            "study": "real_targets",
            "data_dir": "",
            "model": small["model"],
            "tokenizer": small["tokenizer"],
            "compute": small["compute"],
            "phases": phases,
            "evaluations": evaluations,
        },
    )
