"""XTREME-R on real text with a real encoder: what of its ten tasks and fifty languages the corpus holds.

    jxstilts run --config=configs/real_xtreme_r.py:encoder=FOLDER --config.data_dir=D --workdir=W
    jxstilts run --config=configs/real_xtreme_r.py:encoder=FOLDER ... --only='*xcopa*'     # a part; runs add up

The encoder is a Hugging Face folder or a bundle, by default multilingual-e5-small, which is an embedding model and not
XLM-R (configs/real_study.py says more). Trained in English, token embeddings frozen: COPA (XCOPA and its
machine-translated test), TyDiQA's sentences (LAReQA, whose candidates are cut at 64 tokens, not at the release's 256;
SQuAD is not in the corpus), POS (38 languages), TyDiQA's answers (MultiCheckList, XQuAD). Without training: LAReQA and
Tatoeba. XNLI, NER, MLQA and TyDiQA are in configs/real_study.py.

Arguments:
    encoder=PATH     a folder, or a hub id
    name=e5-small    of the encoder, in the tables
    rows=0           evaluated per task and language; 0 = all, of MultiCheckList 1,800 (LAReQA: always all)
    seed=0
    smoke            a handful of steps, to check the graph
"""

import pathlib

from jxstilts.config import complete, parse_arg, plain
from jxstilts.models import bundle
from jxstilts.models.layers import Compute
from jxstilts.study import Study

MEAN = {"pooling": "mean", "packed": False}
# phase: its task, the stream, epochs, learning rate
PHASES = {
    "copa": ("copa", {"max_length": 64, **MEAN}, 5.0, 1e-4),
    "sentences": ("tydiqa_retrieval", {"limit": 900, "negatives_per_step": 4}, 1.0, 2e-5),
    "pos": ("udpos", {"max_length": 96, "limit": 800}, 1.0, 5e-4),
    "answers": ("tydiqa", {"max_length": 256, "doc_stride": 128, "limit": 900, "holdout": 100}, 1.0, 5e-4),
}
# evaluation: its phase ("": the encoder), the task, what is asked
EVALUATIONS = {
    "xcopa": ("copa", {"split": "test", "options": {"max_length": 64}}),
    "xcopa_gmt": ("copa", {"split": "test", "options": {"max_length": 64}}),
    "tatoeba": ("", {"split": "test"}),
    "udpos": ("pos", {"split": "test", "options": {"max_length": 128}}),
    "xquad": ("answers", {"split": "test", "options": {"max_length": 256, "doc_stride": 128}}),
    "multichecklist": ("answers", {"split": "test", "options": {"max_length": 128}}),
    "lareqa": ("sentences", {"split": "test", "options": {"max_length": 64}}),
    "lareqa-untrained": ("", {"split": "test", "options": {"max_length": 64}}),
}


def get_config(arg: str | None = None):
    arg = parse_arg(arg, encoder="intfloat/multilingual-e5-small", name="e5-small", rows=0, seed=0, smoke=False)
    folder = pathlib.Path(arg.encoder).expanduser()
    there = folder.is_dir()
    model = bundle.model_of(str(folder), Compute()) if there else None
    phases = {"encoder": {"init": arg.encoder}}
    for name, (task, stream, epochs, rate) in PHASES.items():
        phases[name] = {
            "init": "encoder", "protocol": "xtreme_r", "freeze": ("embeddings",), "dropout": 0.0, "seed": arg.seed,
            "select": {"metric": ""}, "epochs": epochs, "tasks": {task: _stream(stream, arg.smoke)},
            "optimizer": {"learning_rate": rate, "warmup": 0.1, "weight_decay": 0.01},
        }  # fmt: skip
    evaluations = {}
    for name, (phase, what) in EVALUATIONS.items():
        task = name.partition("-")[0]
        own = {} if task in ("xcopa_gmt", "multichecklist") else {"benchmark": "xtreme-r"}  # beside the ten tasks
        options = {"protocol": "xtreme_r", **what.get("options", {})}
        evaluations[name] = {
            "phase": phase or "encoder", "model": arg.name, "intermediate": "none", "target": task if phase else "",
            "what": {"tasks": (task,), **own, **_rows(task, arg), **what, "options": options},
        }  # fmt: skip
    tokenizer = folder / "tokenizer" if bundle.is_bundle(folder) else folder
    return complete(
        Study,
        {
            "study": "real_xtreme_r",
            "data_dir": "",
            "model": {"family": model.family, **plain(model.config)} if there else {},
            "tokenizer": {"path": str(tokenizer)} if there else {},
            "phases": phases,
            "evaluations": evaluations,
        },
    )


def _stream(stream: dict, smoke: bool) -> dict:
    smaller = {"limit": 32, **({"holdout": 8} if "holdout" in stream else {})} if smoke else {}
    return {"batch_size": 16, **stream, **smaller}


def _rows(task: str, arg) -> dict:
    if task == "lareqa" and not arg.smoke:  # its pool is one for all languages
        return {}
    few = 1800 if task == "multichecklist" else 0
    return {"limit": 10 if arg.smoke else arg.rows or few}
