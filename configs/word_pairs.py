"""Contrastive lexical injection on the miniature world: LoRA draws words and their translations together.

    jxstilts world DIR
    python -m benchmarks.world_files DIR TRUE && python -m benchmarks.world_files DIR SHUFFLED --shuffled
    jxstilts run --config=configs/word_pairs.py --config.data_dir=TRUE --workdir=W
    jxstilts run --config=configs/word_pairs.py --config.data_dir=SHUFFLED --workdir=C       # the control
    python -m benchmarks.word_pairs W C TRUE

LoRA is on the layers below the hidden state that is read, as in docs/adapters.md. The arm `untrained` is the encoder
as it is.

Arguments:
    encoder=PATH   a bundle in place of the micro encoder
    states=2+3     hidden states that are read, one arm each
    seeds=3        their number
    steps=200
    rate=1e-3      learning rate
"""

import itertools
import pathlib

import jxstilts
from jxstilts.config import complete, names, parse_arg
from jxstilts.models import bundle
from jxstilts.study import Study
from jxstilts.study.paths import model_path

MICRO = pathlib.Path(jxstilts.__file__).parent / "miniworld" / "micro"
LANGUAGES = ("de", "es", "ru", "el", "hi", "ar", "tr")
UNTRAINED = "untrained"


def get_config(arg: str | None = None):
    arg = parse_arg(arg, encoder=str(MICRO), states="2+3", seeds=3, steps=200, rate=1e-3)
    arg.encoder = model_path(arg.encoder, "encoder")
    meta = bundle.read_meta(arg.encoder)
    phases = {UNTRAINED: {"init": arg.encoder}}
    arms = {UNTRAINED: UNTRAINED}  # phase: arm
    states = names(arg.states, map(str, range(1, meta["config"]["layers"] + 1)), "states")
    for state, seed in itertools.product(map(int, states), range(arg.seeds)):
        stream = {
            "objective": "contrastive", "languages": LANGUAGES, "batch_size": 32, "max_length": 16, "buckets": 1,
            "packed": False, "sort_window": 1, "options": {"layer": state},
        }  # fmt: skip
        phases[f"state{state}-seed{seed}"] = {
            "init": arg.encoder, "seed": seed, "steps": arg.steps, "select": {"metric": ""},
            "tasks": {"word_pairs": stream}, "optimizer": {"learning_rate": arg.rate, "warmup": 0.1},
            "adapters": {"words": {"matrices": ("layers/*/kernel",), "rank": 8, "alpha": 16.0, "layers": f":{state}"}},
        }  # fmt: skip
        arms[f"state{state}-seed{seed}"] = f"state {state}"
    what = {"tasks": ("tatoeba",), "languages": LANGUAGES, "split": "test", "all_layers": True}
    return complete(
        Study,
        {
            "study": "word_pairs",
            "data_dir": "",
            "model": {"family": meta["family"], **meta["config"]},
            "tokenizer": {"path": str(pathlib.Path(arg.encoder) / "tokenizer")},
            "phases": phases,
            "evaluations": {
                phase: {"phase": phase, "model": "micro", "intermediate": arm, "target": "", "what": what}
                for phase, arm in arms.items()
            },
        },
    )
