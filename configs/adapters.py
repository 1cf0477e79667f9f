"""LoRA and Pfeiffer's adapters against full training on inference, parts of speech and entities, zero-shot.

    jxstilts world DIR
    jxstilts run --config=configs/adapters.py --config.data_dir=DIR --workdir=W                   # the micro encoder
    jxstilts run --config=configs/adapters.py:encoder=ENCODER,rows=1600,xnli=1e-4,udpos=5e-4,panx=2e-4,lora=2e-3 ...

Every arm trains on the same batches of English, for as many steps. Full training has a rate for each task, an adapter
one for all.
Heads of pairs read the mean of the tokens, and dropout is off.

Arguments:
    encoder=PATH   a bundle, Hugging Face folder or hub id in place of the micro encoder
    arms=A+B       some of ARMS; default: all
    tasks=A+B      some of TASKS; default: all
    seeds=3        their number
    rows=0         training rows of each task, 0 = all
    limit=0        evaluated rows of each task and language, 0 = all
    xnli=1e-3      learning rate of full training on inference; udpos=..., panx=... that on the others
    lora=4e-3      learning rate of LoRA; pfeiffer=... that of Pfeiffer's adapter
    languages=en+es+ru+tr
"""

import itertools
import pathlib

import jxstilts
from jxstilts.config import complete, names, parse_arg
from jxstilts.models import bundle
from jxstilts.models.layers import Compute
from jxstilts.study import Study
from jxstilts.study.paths import model_path

MICRO = pathlib.Path(jxstilts.__file__).parent / "miniworld" / "micro"
ARMS = {  # arm: its adapter
    "full": {},
    "lora": {"matrices": ("layers/*/kernel",), "rank": 8, "alpha": 16.0},
    "pfeiffer": {"kind": "pfeiffer", "reduction": 4},
}
TASKS = {  # target: the task that is trained, its stream, the split that is evaluated
    "xnli": ("mnli", {"max_length": 64, "pooling": "mean", "packed": False}, "dev"),
    "udpos": ("udpos", {"max_length": 96}, "test"),
    "panx": ("panx", {"max_length": 64}, "dev"),
}


def get_config(arg: str | None = None):
    arg = parse_arg(
        arg, encoder=str(MICRO), arms="+".join(ARMS), seeds=3, tasks="+".join(TASKS), rows=0, limit=0,
        languages="en+es+ru+tr", **dict.fromkeys(TASKS, 1e-3), lora=4e-3, pfeiffer=4e-3,
    )  # fmt: skip
    start = model_path(arg.encoder, "encoder")
    known = bundle.model_of(start, Compute())
    arms, targets = names(arg.arms, ARMS, "arms"), names(arg.tasks, TASKS, "tasks")
    phases, evaluations = {}, {}
    for seed, arm, target in itertools.product(range(arg.seeds), arms, targets):
        adapter, (task, stream, split) = ARMS[arm], TASKS[target]
        rate = vars(arg)[arm if adapter else target]
        name = f"{target}-{arm}-seed{seed}"
        phases[name] = {
            "init": start, "seed": seed, "epochs": 1.0, "select": {"metric": ""},
            "tasks": {task: {**stream, "batch_size": 16, "buckets": 3, "limit": arg.rows}},
            "optimizer": {"learning_rate": rate, "warmup": 0.1, "weight_decay": 0.01},
            "adapters": {"own": adapter} if adapter else {}, "dropout": 0.0,
        }  # fmt: skip
        what = {"tasks": (target,), "languages": tuple(arg.languages.split("+")), "split": split, "limit": arg.limit}
        evaluations[name] = {
            "phase": name, "model": arm, "intermediate": "none", "target": target,
            "what": {**what, "options": {"max_length": stream["max_length"]}},
        }  # fmt: skip
    return complete(
        Study,
        {
            "study": "adapters",
            "data_dir": "",
            "model": {"family": known.family},
            "phases": phases,
            "evaluations": evaluations,
        },
    )
