"""Does an encoder forget its languages when it is trained to? MNLI on the miniature world beside a discriminator.

    jxstilts world DIR
    jxstilts run --config=configs/adversarial.py --config.data_dir=DIR --workdir=W
    python -m benchmarks.languages W DIR          # fresh probes of the languages, with intervals over seeds

Every arm trains the micro encoder on the same batches of MNLI and of text in eight languages, whose pairs of lines are
as long as MNLI's. The text teaches nothing but the discriminator (docs/objectives.md).

Arguments:
    encoder=PATH   a bundle in place of the micro encoder
    arms=A+B       some of ARMS; default: the strengths
    seeds=3        their number
    steps=120
    rows=0         of each language in XNLI, on which the encoders are evaluated, too
    probe=0        steps between two probes of 100 sentences of each language while it trains; 0 = none
"""

import itertools
import pathlib

import jxstilts
from jxstilts.config import complete, names, parse_arg
from jxstilts.models import bundle
from jxstilts.study import Study
from jxstilts.study.paths import model_path

MICRO = pathlib.Path(jxstilts.__file__).parent / "miniworld" / "micro"
LANGUAGES = ("en", "de", "es", "ru", "el", "hi", "ar", "tr")
# linear, and of five updates a step, so that it keeps up with the encoder
CLASSES = {"languages": LANGUAGES, "depth": 0, "updates": 5}
ARMS = {
    "strength 0": {**CLASSES, "strength": 0.0},  # the control: the discriminator is a probe
    "strength 0.25": {**CLASSES, "strength": 0.25},
    "strength 0.5": {**CLASSES, "strength": 0.5},
    "strength 1": {**CLASSES, "strength": 1.0},
    "cooperative": {**CLASSES, "strength": -0.5},
    "random labels": {**CLASSES, "strength": 0.5, "labels": "random"},
    "english or not": {"depth": 0, "updates": 5, "strength": 0.5},
    "uniform": {**CLASSES, "strength": 3.0, "form": "uniform"},
    "critic": {"form": "wasserstein", "depth": 1, "width": 64, "updates": 5, "penalty": 10.0, "strength": 0.5},
}
STRENGTHS = "+".join(name for name in ARMS if name.startswith("strength"))


def get_config(arg: str | None = None):
    arg = parse_arg(arg, encoder=str(MICRO), arms=STRENGTHS, seeds=3, steps=120, rows=0, probe=0)
    arg.encoder = model_path(arg.encoder, "encoder")
    meta = bundle.read_meta(arg.encoder)
    phases, evaluations = {}, {}
    for seed, arm in itertools.product(range(arg.seeds), names(arg.arms.replace("_", " "), ARMS, "arms")):
        name = f"{arm.replace(' ', '_').replace('.', '_')}-seed{seed}"
        phases[name] = _phase(arg, ARMS[arm], seed)
        for task, what in (
            ("xnli", {"languages": LANGUAGES, "limit": arg.rows}),
            ("tatoeba", {"languages": LANGUAGES[1:], "all_layers": True}),
        ):
            if task == "tatoeba" or arg.rows:
                evaluations[f"{name}-{task}"] = {
                    "phase": name, "model": "micro", "intermediate": arm, "target": "xnli" if task == "xnli" else "",
                    "what": {"tasks": (task,), "split": "test", "options": {"max_length": 64}, **what},
                }  # fmt: skip
    return complete(
        Study,
        {
            "study": "adversarial",
            "data_dir": "",
            "model": {"family": meta["family"], **meta["config"]},
            "tokenizer": {"path": str(pathlib.Path(arg.encoder) / "tokenizer")},
            "phases": phases,
            "evaluations": evaluations,
        },
    )


def _phase(arg, options: dict, seed: int) -> dict:
    text = {
        "languages": LANGUAGES, "objective": "none", "mode": "mixed", "amount": 1.0, "batch_size": 16, "max_length": 32,
        "sampling_exponent": 0.0, "paired": True, "lengths_of": "mnli",
    }  # fmt: skip
    return {
        "init": arg.encoder,
        "tasks": {"mnli": {"batch_size": 16, "max_length": 32, "buckets": 1, "packed": False}, "text": text},
        "objectives": {
            "domain": {
                "streams": ("mnli", "text"), "objective": "adversarial", "options": options,
                "optimizer": {"learning_rate": 2e-2, "schedule": "constant", "warmup": 0.0, "weight_decay": 0.0},
            },
        },
        "steps": arg.steps,
        "optimizer": {"learning_rate": 1e-3, "warmup": 0.1},
        "select": {"metric": ""},
        "probe": {"every": arg.probe, "languages": LANGUAGES[1:], "limit": 100},
        "seed": seed,
    }  # fmt: skip
