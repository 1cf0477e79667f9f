"""Every intermediate task on real text, each alone and all together, without and with MLM replay.

    jxstilts run --config=configs/real_intermediates.py --config.data_dir=D --workdir=W                     # 2 cores
    jxstilts run --config=configs/real_intermediates.py:encoder=V/phases/pretrain/best ...   # an encoder that is there

All start from the small encoder that configs/real_small.py pre-trains (the same phase, or the bundle `encoder=`), and
end with the English dev metrics of each task beside its baseline. The public test corpus holds no SQuAD and no
CCGbank: TyDiQA's English questions stand in for the span tasks (scored on MLQA's English dev set), Universal
Dependencies' part-of-speech tags for supertagging. Minutes of CPU training do not bring a small encoder far: the
table says which tasks it learns better than a trivial rule.

Arguments:
    encoder=PATH       a bundle to start from
    mlm=both|no|yes    which arms to run
    rows=9000          training rows of a task at most
    smoke              a handful of steps of a tiny encoder, to check the graph
    seed=0
"""

import pathlib
import runpy

from jxstilts.config import complete, parse_arg, plain
from jxstilts.runtime import InputError
from jxstilts.study import Study

# task: what it is trained on (limit = rows, never more than `rows`), epochs, and what its dev metrics are taken from
TASKS = {
    "anli_plus": ({"max_length": 64}, 1.0, ("anli_plus", "dev")),
    "mnli": ({"max_length": 64}, 3.0, ("mnli", "dev")),
    "qqp": ({"max_length": 64}, 3.0, ("qqp", "dev")),
    "tydiqa": ({"max_length": 256, "batch_size": 16, "limit": 800, "holdout": 200}, 1.0, ("mlqa", "dev")),
    "hellaswag": ({"max_length": 96, "batch_size": 16, "limit": 1500}, 1.0, ("hellaswag", "dev")),
    "udpos": ({"max_length": 96, "limit": 3000}, 2.0, ("udpos", "dev")),
    "cosmosqa": ({"max_length": 128, "batch_size": 16, "limit": 600}, 1.0, ("cosmosqa", "dev")),
    "commonsenseqa": ({"max_length": 48, "batch_size": 16, "limit": 2000}, 1.0, ("commonsenseqa", "dev")),
}
REPLAY = {"task": "text", "objective": "mlm", "packed": True, "batch_size": 16, "max_length": 128}
SHARE = 0.25  # of the steps, where MLM is replayed


def get_config(arg: str | None = None):
    arg = parse_arg(arg, encoder="", mlm="both", rows=9000, smoke=False, seed=0)
    if arg.mlm not in ("both", "no", "yes"):
        raise InputError("mlm is both, no or yes")
    path = pathlib.Path(__file__).with_name("real_small.py")
    small = plain(runpy.run_path(str(path))["get_config"](f"scale={'smoke' if arg.smoke else 'cpu'},seed={arg.seed}"))
    languages = tuple(small["tokenizer"]["languages"])
    phases = {} if arg.encoder else {"pretrain": small["phases"]["pretrain"]}
    evaluations = {}
    streams = {name: _stream(name, arg) for name in TASKS}
    for name in (*TASKS, "all"):
        for replay in {"both": (False, True), "no": (False,), "yes": (True,)}[arg.mlm]:
            own = streams if name == "all" else {name: streams[name]}
            key = f"{name}+mlm" if replay else name
            phases[key] = _phase(own, _epochs(name, arg), replay, languages, arg.encoder or "pretrain")
            evaluations |= {f"{key}-{task}": _evaluation(key, task, own[task], arg) for task in own}
    for phase in phases.values():
        phase["seed"] = arg.seed
    return complete(
        Study,
        {
            "study": "real_intermediates",
            "data_dir": "",
            "model": small["model"],
            "tokenizer": small["tokenizer"],
            "compute": small["compute"],
            "phases": phases,
            "evaluations": evaluations,
        },
    )


def _stream(name: str, arg) -> dict:
    stream = {"batch_size": 32, **TASKS[name][0], "buckets": 3}
    rows = min(arg.rows, 64) if arg.smoke else arg.rows
    return {**stream, "limit": min(stream.get("limit", rows), rows)}


def _epochs(name: str, arg) -> float:
    return 1.0 if arg.smoke or name == "all" else TASKS[name][1]


def _phase(streams: dict, epochs: float, replay: bool, languages: tuple, init: str) -> dict:
    tasks = dict(streams)
    if replay:
        tasks["mlm"] = {**REPLAY, "languages": languages, "mode": "alternate", "amount": SHARE}
    return {
        "init": init,
        "tasks": tasks,
        "keep_heads": ("mlm",) if replay else (),
        "epochs": epochs,
        # The pre-trained encoder is small and young: rates like the published 1e-5 leave it where it is.
        "sampling": {"method": "capped", "cap": 3000} if len(streams) > 1 else {},
        "optimizer": {"learning_rate": 1e-3},
        "select": {"metric": "major", "rows": 300, "every": 300},
    }


def _evaluation(phase: str, task: str, stream: dict, arg) -> dict:
    name, split = TASKS[task][2]
    return {
        "phase": phase,
        "model": "small",
        "intermediate": phase,
        "target": task,
        "what": {
            "tasks": (name,),
            "split": split,
            "languages": ("en",),
            "limit": 20 if arg.smoke else 0,
            "options": {"max_length": stream["max_length"]},
        },
    }
