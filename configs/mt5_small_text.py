"""A small mT5 from a random start: span corruption, an intermediate task, questions, then MLQA by generation.

    jxstilts world DIR
    jxstilts run --config=configs/mt5_small_text.py --config.data_dir=DIR --workdir=W

The model learns the words of eight languages by span corruption (Raffel et al. 2020) on the running text of the
miniature world; then an intermediate task in English, as text; then English questions; and is asked the questions of
MLQA in all 25 pairs of the world's languages. Text goes on beside the tasks at 1:100, without sentinels in its targets,
against answers in the wrong language (Xue et al. 2021, section 6).

Arguments:
    steps=4000          of span corruption
    intermediate=mnli   a task, or none
    rows=0              of each task that are trained on; 0 = all
    width=96
    seed=0
    smoke               a handful of steps and rows, to check the path
"""

from jxstilts.config import complete, parse_arg
from jxstilts.study import Study

LANGUAGES = ("en", "de", "es", "ru", "el", "hi", "ar", "tr")
ASKED = ("en", "de", "es", "hi", "ar")  # MLQA's
SENTINELS = 100


def get_config(arg: str | None = None):
    arg = parse_arg(arg, steps=4000, intermediate="mnli", rows=0, width=96, seed=0, smoke=False)
    width, layers = (32, 1) if arg.smoke else (arg.width, 3)
    text = {
        "objective": "span_corruption", "languages": LANGUAGES, "sampling_exponent": 0.5, "batch_size": 32,
        "max_length": 64, "limit": 200 if arg.smoke else 0,
    }  # fmt: skip
    common = {"log_every": 5 if arg.smoke else 100, "seed": arg.seed, "dropout": 0.0}
    first = {
        "init": "random", "tasks": {"text": text}, "steps": 4 if arg.smoke else arg.steps,
        "optimizer": _optimizer(1e-2, 0.05), **common,
    }  # fmt: skip
    phases, before = {"text": first}, "text"
    chosen = () if arg.intermediate == "none" else (arg.intermediate,)
    for task in (*chosen, "squad_v1"):
        rows = 32 if arg.smoke else arg.rows
        own = {"batch_size": 16, "max_length": 96, "buckets": 2, "limit": rows}
        mixed = {**text, "task": "text", "mode": "alternate", "amount": 0.01, "options": {"sentinels": False}}
        phases[task] = {
            "init": before, "tasks": {f"{task}_text": own, "text": mixed}, "optimizer": _optimizer(1e-3, 0.0),
            "select": {"metric": ""}, **({"steps": 3} if arg.smoke else {"epochs": 3.0}), **common,
        }  # fmt: skip
        before = task
    pairs = tuple(context if context == asked else f"{context}-{asked}" for context in ASKED for asked in ASKED)
    what = {
        "tasks": ("mlqa_text",), "languages": pairs, "split": "dev", "limit": 4 if arg.smoke else 0,
        "options": {"max_length": 96, "tokens_per_batch": 3072},
    }  # fmt: skip
    return complete(
        Study,
        {
            "study": "mt5_small_text",
            "data_dir": "",
            "model": {
                "family": "mt5", "preset": "tiny", "width": width, "layers": layers, "decoder_layers": layers,
                "heads": 4, "head_width": width // 4, "mlp": 2 * width, "pad_id": 1, "eos_id": 2,
            },
            "tokenizer": {
                "model": "bpe", "vocab_size": 3000 + SENTINELS, "sentinels": SENTINELS, "coverage": 1.0,
                "languages": LANGUAGES, "sampling_exponent": 1.0,
            },
            "phases": phases,
            "evaluations": {
                "mlqa": {
                    "phase": before, "model": "mt5", "intermediate": arg.intermediate, "target": "squad_v1_text",
                    "what": what,
                }
            },
        },
    )  # fmt: skip


def _optimizer(learning_rate: float, warmup: float) -> dict:
    return {
        "name": "adafactor", "schedule": "constant", "learning_rate": learning_rate, "warmup": warmup,
        "weight_decay": 0.0, "clip": 0.0,
    }  # fmt: skip
