"""A small mT5 from text to MLQA, and in miniature: do more intermediate tasks make its zero-shot answers more even?

    jxstilts world DIR
    jxstilts run --config=configs/mt5_small_text.py --config.data_dir=DIR --workdir=W
    jxstilts report W

One span-corruption phase on the miniature world's text; then k of the nine English intermediate tasks, as text, for a
fixed number of steps, whatever k is; then English questions; then MLQA in all 25 pairs of the world's languages. Which
tasks they are is a random order of each seed's own, of which k arms take the first k, so that arms are nested. With
k = 0 the steps go on with span corruption, so that no arm has had less training. Batches are drawn from the tasks with
equal probability.

Arguments (lists are joined by +):
    tasks=0+1+3+9       values of k
    seeds=3             their number
    text=6000           steps of span corruption
    between=300         steps of the intermediate phase
    questions=800       steps of the questions
    limit=20            questions of MLQA that are asked in each pair
    width=64
    smoke               a handful of steps and rows, to check the path
"""

import random

from jxstilts.config import complete, parse_arg
from jxstilts.runtime import InputError
from jxstilts.study import Study
from jxstilts.tasks import INTERMEDIATE

LANGUAGES = ("en", "de", "es", "ru", "el", "hi", "ar", "tr")
ASKED = ("en", "de", "es", "hi", "ar")  # MLQA's
SENTINELS = 100


def get_config(arg: str | None = None):
    arg = parse_arg(
        arg, tasks="0+1+3+9", seeds=3, text=6000, between=300, questions=800, limit=20, width=64, smoke=False
    )
    counts = [int(part) if part.isdecimal() else -1 for part in arg.tasks.split("+")]
    if not all(0 <= count <= len(INTERMEDIATE) for count in counts):
        raise InputError(f"tasks={arg.tasks}: numbers from 0 to {len(INTERMEDIATE)}, joined by +")
    steps = {"text": arg.text, "between": arg.between, "questions": arg.questions}
    steps = dict.fromkeys(steps, 3) if arg.smoke else steps
    text = {
        "task": "text", "objective": "span_corruption", "languages": LANGUAGES, "sampling_exponent": 0.5,
        "batch_size": 32, "max_length": 64, "limit": 200 if arg.smoke else 0,
    }  # fmt: skip
    beside = {**text, "batch_size": 16, "mode": "alternate", "amount": 0.01, "options": {"sentinels": False}}
    own = {"batch_size": 16, "max_length": 96, "buckets": 2, "limit": 32 if arg.smoke else 3000}
    phases = {"text": _phase("random", {"text": text}, steps["text"], 1e-2, 0)}
    evaluations = {}
    pairs = tuple(context if context == asked else f"{context}-{asked}" for context in ASKED for asked in ASKED)
    for seed in range(arg.seeds):
        order = random.Random(seed).sample(INTERMEDIATE, len(INTERMEDIATE))
        for count in counts:
            name = f"k{count}-s{seed}"
            streams = {f"{task}_text": own for task in order[:count]}
            mixed = {**streams, "text": beside} if count else {"text": text}
            phases[name] = _phase("text", mixed, steps["between"], 4e-3, seed)
            squad = {"squad_v1_text": own, "text": beside}
            phases[f"{name}-questions"] = _phase(name, squad, steps["questions"], 4e-3, seed)
            evaluations[f"{name}-mlqa"] = {
                "phase": f"{name}-questions", "model": "mt5", "intermediate": f"{count} tasks" if count else "none",
                "target": "squad_v1_text",
                "what": {
                    "tasks": ("mlqa_text",), "languages": pairs, "split": "dev", "limit": 4 if arg.smoke else arg.limit,
                    "options": {"max_length": 96, "tokens_per_batch": 3072},
                },
            }  # fmt: skip
    width, layers = (32, 1) if arg.smoke else (arg.width, 2)
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
            "evaluations": evaluations,
        },
    )  # fmt: skip


def _phase(init: str, streams: dict, steps: int, rate: float, seed: int) -> dict:
    return {
        "init": init, "tasks": streams, "steps": steps, "sampling": {"method": "uniform"}, "seed": seed,
        "dropout": 0.0, "select": {"metric": ""}, "log_every": 100,
        "optimizer": {
            "name": "adafactor", "schedule": "constant", "learning_rate": rate,
            "warmup": 0.05 if init == "random" else 0.0, "weight_decay": 0.0, "clip": 0.0,
        },
    }  # fmt: skip
