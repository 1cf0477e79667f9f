"""The study of Phang et al. 2020: XLM-R, nine English intermediate tasks and all together, XTREME's nine targets.

    jxstilts plan --config=configs/paper.py                                       # what it comes to; needs no data
    jxstilts run  --config=configs/paper.py --config.data_dir=D --workdir=W       # on several machines: --shard=i/n
    jxstilts run  --config=configs/paper.py:model=base,intermediate=mnli,seeds=1 --config.data_dir=D --workdir=W

The weights are fetched from the hub. Hyper-parameters are those of the authors' released code, as far as it has them
(`jxstilts tasks` says where it has not, and whose are taken). Not in it, and chosen here: how "all9" draws its tasks
(at most 100,000 inputs of each count, 3 epochs of these) and how MLM is replayed (every other step, 256 tokens, the
languages of XTREME that have text).

Arguments:
    model=large|base
    intermediate=NAME     one of the tasks, all9 or none, with "none" as its baseline; default: all of them
    mlm=true              MLM replay beside every intermediate task, in place of none; mlm=both: with and without
    translated=de+sw      beside English, train each intermediate task on its translations into these languages
    seeds=3               their number
"""

from jxstilts import tasks
from jxstilts.config import complete, parse_arg
from jxstilts.eval import benchmarks
from jxstilts.runtime import InputError, suggest
from jxstilts.study import Study
from jxstilts.tasks.languages import XTREME

WEIGHTS = {"large": "FacebookAI/xlm-roberta-large", "base": "FacebookAI/xlm-roberta-base"}


def get_config(arg: str | None = None):
    arg = parse_arg(arg, model="large", intermediate="", mlm="false", translated="", seeds=3)
    intermediates = ("none", *tasks.INTERMEDIATE, "all9")
    if arg.model not in WEIGHTS:
        raise InputError(f"model: {suggest('model', arg.model, WEIGHTS)}")
    if arg.intermediate and arg.intermediate not in intermediates:
        raise InputError(f"intermediate: {suggest('intermediate', arg.intermediate, intermediates)}")
    if arg.mlm not in ("false", "true", "both") or arg.seeds < 1:
        raise InputError("mlm is true, false or both; seeds is 1 or more")
    if arg.intermediate:
        intermediates = tuple(dict.fromkeys(("none", arg.intermediate)))
    more = "+translated" if arg.translated else ""
    additions = {"false": (more,), "true": (f"+mlm{more}",), "both": (more, f"+mlm{more}")}[arg.mlm]
    arms = [name + addition for addition in additions for name in intermediates if name != "none"]
    return complete(
        Study,
        {
            "study": f"paper ({arg.model})",
            "data_dir": "",
            "model": {},
            "compute": {"dtype": "bfloat16"},
            "phases": {},
            "evaluations": {},
            "grid": {
                "models": {arg.model: WEIGHTS[arg.model]},
                "intermediates": ("none", *arms),
                "targets": {
                    name: {"all_layers": False} if not tasks.get(name).form.has_head else {}
                    for name in benchmarks.get("xtreme").tasks
                },
                "seeds": tuple(range(1, arg.seeds + 1)),
                "protocol": "authors",
                "training": {"all9": {"epochs": 3.0, "sampling": {"method": "capped", "cap": 100_000}}},
                "replay": {
                    "languages": tuple(language for language in XTREME if language != "jv"),  # which has no text
                    "batch_size": 8, "max_length": 256, "amount": 0.5,
                },
                "translated": tuple(filter(None, arg.translated.split("+"))),
            },
        },
    )  # fmt: skip
