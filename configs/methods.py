"""What a head reads, which weights are kept, and robust training: arms side by side on the miniature world.

    jxstilts world DIR
    jxstilts run --config=configs/methods.py --config.data_dir=DIR --workdir=W
    python -m benchmarks.methods W

Each arm trains the micro encoder in English on one task and is evaluated in eight languages (docs/selection.md,
docs/robust.md). The control also keeps its last step, an average and an oracle.

Arguments:
    task=udpos     or mnli, which is evaluated as XNLI
    arms=A+B       some of ARMS; default: all
    seeds=3        their number
    epochs=1.0
    rows=200       of each language that is evaluated; 0 = all
    encoder=PATH   a bundle in place of the micro encoder; PATH+PATH: several, each a model by its folder's name
    languages=A+B  in which they are evaluated, of LANGUAGES; default: all
"""

import itertools
import pathlib

import jxstilts
from jxstilts.config import complete, names, parse_arg
from jxstilts.models import bundle
from jxstilts.runtime import InputError
from jxstilts.study import Study
from jxstilts.study.grid import Grid, expand
from jxstilts.study.paths import model_path

MICRO = pathlib.Path(jxstilts.__file__).parent / "miniworld" / "micro"
LANGUAGES = ("en", "de", "es", "ru", "el", "hi", "ar", "tr")
CONTROL = "control"
ARMS = {
    CONTROL: {},
    "softmax": {"aggregation": "softmax"},
    "attention": {"aggregation": "attention"},
    "noise": {"objective": "robust", "options": {"mode": "noise", "radius": 0.5}},
    "adversarial": {"objective": "robust", "options": {"mode": "adversarial", "radius": 0.5}},
    "adversarial-small": {"objective": "robust", "options": {"mode": "adversarial", "radius": 0.1}},
}
TARGETS = {"udpos": "udpos", "mnli": "xnli"}


def get_config(arg: str | None = None):
    arg = parse_arg(
        arg, task="udpos", arms="+".join(ARMS), seeds=3, epochs=1.0, rows=200, encoder=str(MICRO),
        languages="+".join(LANGUAGES),
    )  # fmt: skip
    given = arg.encoder.split("+")
    encoders = {pathlib.Path(path).name: model_path(path, "encoder") for path in given}
    if len(encoders) < len(given):
        raise InputError(f"encoder={arg.encoder}: their folders' names have to differ")
    first = next(iter(encoders.values()))
    meta = bundle.read_meta(first)
    phases, evaluations = {}, {}
    for arm, (own, encoder) in itertools.product(names(arg.arms, ARMS, "arms"), encoders.items()):
        name = arm if len(encoders) == 1 else own if arm == CONTROL else f"{own} {arm}"
        made = expand(_grid(name, arm, encoder, arg))
        phases |= made[0]
        evaluations |= made[1]
    return complete(
        Study,
        {
            "study": "methods",
            "data_dir": "",
            "model": {"family": meta["family"], **meta["config"]},
            "tokenizer": {"path": str(pathlib.Path(first) / "tokenizer")},
            "phases": phases,
            "evaluations": evaluations,
        },
    )


def _grid(name: str, arm: str, encoder: str, arg) -> Grid:
    stream = {"batch_size": 32, "max_length": 32, "buckets": 1, **ARMS[arm]}
    select = {"metric": "major", "rows": 100, "every": 16, "average": 3}
    languages, beside = tuple(names(arg.languages, LANGUAGES, "languages")), name == CONTROL
    if beside:
        select |= {"oracle_task": TARGETS[arg.task], "oracle_languages": languages[1:]}
    return Grid(
        models={name: encoder},
        targets={TARGETS[arg.task]: {"languages": languages, "split": "test", "limit": arg.rows,
                                     "options": {"max_length": 64}}},
        selections=("best", "last", "average", "oracle") if beside else ("best",),
        seeds=tuple(range(arg.seeds)),
        phase={"epochs": arg.epochs, "optimizer": {"learning_rate": 1e-3, "warmup": 0.1}, "save_every": 10_000},
        training={arg.task: {"tasks": {arg.task: stream}, "select": select}},
    )  # fmt: skip
