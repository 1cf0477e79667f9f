"""The whole study in miniature: intermediate tasks, English targets, zero-shot evaluation in seven other languages.

    jxstilts world DIR
    jxstilts run --config=configs/quickstart.py --config.data_dir=DIR --workdir=W

The languages are those of the miniature world (docs/miniworld.md); the encoder is the micro encoder that comes with
jxstilts, pre-trained on the world's running text (configs/miniworld_pretrain.py). It is trained in English on no
intermediate task, on MNLI, on SQuAD, or on all nine, then in English on each target task. Retrieval needs no target
training. The control starts from random parameters, without an intermediate task. The last step is kept: no choice
among checkpoints.

Arguments:
    encoder=PATH   a bundle in place of the micro encoder
    seeds=1        their number
    rate=1e-3      learning rate of the intermediate tasks
    epochs=1.0     of the intermediate tasks
    replay=0.0     share of the intermediate tasks' steps at which masked language modelling goes on, in all languages
    questions=4000 rows of SQuAD that are trained on; 0 = all
    cap=600        inputs of each of the nine when they are trained together
    smoke          a handful of steps and rows, to check the graph
"""

import pathlib

import jxstilts
from jxstilts import tasks
from jxstilts.config import complete, parse_arg
from jxstilts.models import bundle
from jxstilts.study import Grid, Study
from jxstilts.study.grid import expand
from jxstilts.study.paths import model_path

MICRO = pathlib.Path(jxstilts.__file__).parent / "miniworld" / "micro"
LANGUAGES = ("en", "de", "es", "ru", "el", "hi", "ar", "tr")
TARGETS = ("xnli", "udpos", "panx", "xquad", "tatoeba", "bucc2018")
WINDOWS = {"doc_stride": 32, "max_query_length": 16}
# training task -> the longest of its inputs, and a little more; one row length each, so that little has to be compiled
LENGTHS = {"anli_plus": 48, "mnli": 32, "qqp": 32, "udpos": 24, "panx": 24, "ccg": 24, "commonsenseqa": 16}


def get_config(arg: str | None = None):
    arg = parse_arg(
        arg, encoder=str(MICRO), seeds=1, rate=1e-3, epochs=1.0, replay=0.0, questions=4000, cap=600, smoke=False
    )
    arg.encoder = model_path(arg.encoder, "encoder")
    meta = bundle.read_meta(arg.encoder)
    streams = {task: _stream(task, arg) for task in (*tasks.INTERMEDIATE, "udpos", "panx")}
    training = {task: {"tasks": {task: stream}} for task, stream in streams.items()}
    nine = {task: streams[task] for task in tasks.INTERMEDIATE}
    training["all9"] = {"tasks": nine, "epochs": arg.epochs, "sampling": {"method": "capped", "cap": arg.cap}}
    same = {
        "targets": {target: _what(target, arg) for target in TARGETS},
        "seeds": tuple(range(arg.seeds)),
        "phase": {
            "epochs": 1.0,
            "optimizer": {"learning_rate": 1e-3, "warmup": 0.1},
            "select": {"metric": ""},
        },
        "training": training,
    }
    phases, evaluations = expand(Grid(models={"random": "random"}, **same))
    more = "+mlm" if arg.replay else ""
    return complete(
        Study,
        {
            "study": "quickstart",
            "data_dir": "",
            "model": {"family": meta["family"], **meta["config"]},
            "tokenizer": {"path": str(pathlib.Path(arg.encoder) / "tokenizer")},
            "phases": phases,
            "evaluations": evaluations,
            "grid": {
                **same,
                "models": {"micro": arg.encoder},
                "intermediates": ("none", *(f"{name}{more}" for name in ("mnli", "squad_v1", "all9"))),
                "replay": {
                    "languages": LANGUAGES, "batch_size": 32, "max_length": 64, "sampling_exponent": 0.5,
                    "packed": False, "amount": arg.replay,
                } if arg.replay else {},
            },
        },
    )  # fmt: skip


def _stream(task: str, arg) -> dict:
    limit = 64 if arg.smoke else arg.questions if task == "squad_v1" else 0
    return {"batch_size": 32, "max_length": LENGTHS.get(task, 64), "buckets": 1, "limit": limit, **WINDOWS}


def _what(target: str, arg) -> dict:
    retrieval = {"all_layers": True} if not tasks.get(target).form.has_head else {}
    return {
        "languages": tuple(code for code in LANGUAGES if code in tasks.get(target).languages),
        "split": "test",
        "limit": 20 if arg.smoke else 0,
        "options": {"max_length": 64, **WINDOWS},
        **retrieval,
    }
