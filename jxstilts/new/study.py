"""my_study: a small encoder without an intermediate task and after one, trained in English, evaluated zero-shot.

    jxstilts world data --size=tiny                            # or a folder of your own: docs/data.md
    jxstilts plan --config=my_study.py                         # what it comes to; runs nothing
    jxstilts run --config=my_study.py --workdir=runs/my_study  # stop it when you like: the same command goes on

Every key: `jxstilts config`. Any of them can be given on the command line, as --config.grid.phase.epochs=2.

Arguments, as in --config=my_study.py:seeds=3:
    encoder=PATH   a bundle, a Hugging Face folder or a hub id, in place of the micro encoder that comes with jxstilts
    seeds=1        their number
"""

import pathlib

import jxstilts
from jxstilts.config import complete, parse_arg
from jxstilts.study import Study

MICRO = pathlib.Path(jxstilts.__file__).parent / "miniworld" / "micro"
LANGUAGES = ("en", "de", "ru", "tr")  # of the evaluations; training is in English


def get_config(arg=None):
    arg = parse_arg(arg, encoder=str(MICRO), seeds=1)
    return complete(
        Study,
        {
            "study": "my_study",
            "data_dir": "data",
            "model": {},  # of a random start, of which there is none here
            "phases": {},  # phases and evaluations of your own may stand beside those that the grid makes
            "evaluations": {},
            "grid": {
                # Name in the tables -> where it starts. "random" is a model as `model` describes it.
                "models": {"encoder": arg.encoder},
                # "none", and tasks of `jxstilts tasks` that have training data.
                "intermediates": ("none", "qqp"),
                # What is evaluated; each is trained in English first. Tatoeba needs no training.
                "targets": {"xnli": {}, "tatoeba": {"languages": LANGUAGES[1:]}},
                "seeds": tuple(range(arg.seeds)),
                # Keys of every phase. The micro encoder learns at a high rate; leave it out for the tasks' own recipes.
                "phase": {"epochs": 2.0, "optimizer": {"learning_rate": 1e-3, "warmup": 0.1}},
                # Keys of one task's phases go before them. Short rows, of one length, are for the miniature world.
                "training": {
                    task: {"tasks": {task: {"batch_size": 32, "max_length": 48, "buckets": 1}}}
                    for task in ("qqp", "mnli")
                },
                # Keys of every evaluation.
                "what": {"languages": LANGUAGES, "options": {"max_length": 48}},
            },
        },
    )
