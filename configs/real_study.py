"""The whole study on real text with a real encoder: intermediates, targets, zero-shot in every language of the corpus.

    jxstilts run --config=configs/real_study.py:encoder=FOLDER --config.data_dir=D --workdir=W
    jxstilts run --config=configs/real_study.py:encoder=FOLDER ... --only='*-none-*,*-mnli-*'     # a part; runs add up

The encoder is a Hugging Face folder or a bundle, by default multilingual-e5-small (12 layers, width 384, XLM-R's
vocabulary). That is an embedding model, trained on pairs of texts, natural language inference among them: it is not
XLM-R, and its retrieval starts high. Its sentence vectors are means, so heads read the mean of the tokens.

Intermediates: none, MNLI, QQP, HellaSwag, Cosmos QA, CommonsenseQA, ANLI+ (as far as the corpus has its parts), all of
them together; `replay` adds MLM on the target languages' text to MNLI and to all together. Targets, trained in English:
XNLI (on MNLI), PAWS-X (on QQP, whose rows stand in for its own), POS, NER, TyDiQA (scored on XQuAD, on MLQA's diagonal
and on Korean and Swahili); Tatoeba and BUCC zh-en without training, at every hidden state. Checkpoints are those of the
last step, and recipes were chosen, on English rows alone (docs/real_study.md). Token embeddings are frozen.

Controls: the same architecture from random weights, on the targets alone (a folder is needed); configs/real_small.py
is the encoder from scratch.

Arguments:
    encoder=PATH     a folder, or a hub id
    name=e5-small    of the encoder, in the tables
    rows=1600        training rows of a task at most
    evaluated=50     rows per task and language, XNLI three times as many; 0 = all
    seeds=3          their number
    replay           with the arms that replay MLM
    smoke            a handful of steps, to check the graph
"""

import pathlib

from jxstilts.config import complete, parse_arg, plain
from jxstilts.models import bundle
from jxstilts.models.layers import Compute
from jxstilts.study import Study

MEAN = {"pooling": "mean", "packed": False}
# training task: its stream (limit = rows, never more than `rows`), epochs, learning rate
RECIPES = {
    "mnli": ({"max_length": 64, "limit": 1600, **MEAN}, 1.0, 1e-4),
    "qqp": ({"max_length": 64, "limit": 1600, **MEAN}, 1.0, 1e-4),
    "anli_plus": ({"max_length": 96, "limit": 900, **MEAN}, 1.0, 1e-4),
    "hellaswag": ({"max_length": 96, "limit": 200, **MEAN}, 1.0, 1e-4),
    "cosmosqa": ({"max_length": 128, "limit": 120, **MEAN}, 1.0, 1e-4),
    "commonsenseqa": ({"max_length": 40, "limit": 500, **MEAN}, 1.0, 1e-4),
    "udpos": ({"max_length": 96, "limit": 800}, 1.0, 5e-4),
    "panx": ({"max_length": 64, "limit": 1500}, 1.0, 2e-4),
    "tydiqa": ({"max_length": 256, "doc_stride": 128, "limit": 900, "holdout": 100}, 1.0, 5e-4),
}
INTERMEDIATES = ("mnli", "qqp", "hellaswag", "cosmosqa", "commonsenseqa", "anli_plus")
TARGETS = {
    "xnli": {"split": "dev"},
    "pawsx": {"split": "dev"},
    "udpos": {"split": "test", "options": {"max_length": 128}},  # in some scripts a word is many pieces
    "panx": {"split": "dev", "options": {"max_length": 128}},
    "xquad": {"split": "test"},
    "mlqa": {"split": "dev"},
    "tydiqa": {"split": "train", "languages": ("ko", "sw")},
    "tatoeba": {"split": "test", "all_layers": True},
    "bucc2018": {"split": "dev", "all_layers": True, "languages": ("zh",)},
}
TRAINED_ON = {"xnli": "mnli", "pawsx": "qqp", "xquad": "tydiqa", "mlqa": "tydiqa"}  # others: on their own rows
REPLAY = {"task": "text", "objective": "mlm", "packed": True, "batch_size": 8, "max_length": 128, "mode": "alternate"}


def get_config(arg: str | None = None):
    arg = parse_arg(
        arg, encoder="intfloat/multilingual-e5-small", name="e5-small", rows=1600, evaluated=50, seeds=3, replay=False,
        smoke=False,
    )  # fmt: skip
    folder = pathlib.Path(arg.encoder).expanduser()
    there = folder.is_dir()
    model = bundle.model_of(str(folder), Compute()) if there else None
    training = {task: _training({task: _stream(task, arg)}, task, arg) for task in RECIPES}
    training |= {task: training[own] for task, own in (("squad_v1", "tydiqa"), ("pawsx", "qqp"))}
    every = {task: _stream(task, arg) for task in INTERMEDIATES}
    training["all"] = {**_training(every, "mnli", arg), "epochs": 0.5}
    arms = ["none", *INTERMEDIATES, "all"]
    for name in ("mnli", "all") if arg.replay else ():
        streams = training[name]["tasks"]
        training[f"{name}_replay"] = {**training[name], "tasks": {**streams, "mlm": {**REPLAY, "amount": 0.25}}}
        arms.append(f"{name}_replay")
    seeds = tuple(range(arg.seeds))
    control = _control(training, seeds, arg) if there else {"phases": {}, "evaluations": {}}
    return complete(
        Study,
        {
            "study": "real_study",
            "data_dir": "",
            "model": {"family": model.family, **plain(model.config)} if there else {},
            "tokenizer": {"path": str(_tokenizer(folder))} if there else {},
            "compute": {},
            **control,
            "grid": {
                "models": {arg.name: arg.encoder},
                "intermediates": tuple(arms),
                "targets": {task: _what(task, arg) for task in TARGETS},
                "seeds": seeds,
                "phase": _phase(),
                "training": training,
            },
        },
    )


def _phase() -> dict:
    return {"freeze": ("embeddings",), "dropout": 0.0, "select": {"metric": ""}, "keep_heads": ()}


def _tokenizer(folder: pathlib.Path) -> pathlib.Path:
    return folder / "tokenizer" if bundle.is_bundle(folder) else folder


def _stream(task: str, arg) -> dict:
    stream = RECIPES[task][0]
    rows = 32 if arg.smoke else min(stream["limit"], arg.rows)
    more = {"holdout": 8} if arg.smoke and "holdout" in stream else {}
    return {"batch_size": 16, **stream, "limit": rows, **more}


def _training(streams: dict, recipe: str, arg) -> dict:
    _, epochs, rate = RECIPES[recipe]
    optimizer = {"learning_rate": rate, "warmup": 0.1, "weight_decay": 0.01}
    return {"tasks": streams, "epochs": epochs, "optimizer": optimizer}


def _what(task: str, arg) -> dict:
    training = TRAINED_ON.get(task, task)
    own = RECIPES[training][0] if training in RECIPES else {"max_length": 128}
    options = {key: own[key] for key in ("max_length", "doc_stride") if key in own}
    count = 3 * arg.evaluated if task == "xnli" else arg.evaluated  # its rows say the same in all languages
    rows = {} if task == "bucc2018" and not arg.smoke else {"limit": 10 if arg.smoke else count}
    return {**TARGETS[task], **rows, "options": {**options, **TARGETS[task].get("options", {})}}


def _control(training: dict, seeds: tuple[int, ...], arg) -> dict:
    """The targets from random weights: all is trained, the embeddings too."""
    phases, evaluations = {}, {}
    for seed in seeds:
        for task in TARGETS:
            own = TRAINED_ON.get(task, task)
            name = f"random-{own}-s{seed}"
            if own not in training:
                continue
            phases[name] = {**_phase(), **training[own], "init": "random", "freeze": (), "seed": seed}
            what = {"tasks": (task,), "benchmark": "xtreme", **_what(task, arg)}
            evaluations[f"random-{task}-s{seed}"] = {
                "phase": name, "model": "random", "intermediate": "none", "target": task, "what": what,
            }  # fmt: skip
    return {"phases": phases, "evaluations": evaluations}
