"""The micro encoder of the miniature world: masked language modelling on its running text, from a random start.

    jxstilts world DIR
    jxstilts run --config=configs/miniworld_pretrain.py --config.data_dir=DIR --workdir=W

W/phases/documents/best is the bundle that comes with jxstilts (jxstilts/miniworld/micro). Lines cut at 30 words come
first, where words find their company; then whole documents. Each line is a text of its own: lines joined to full rows,
as in XLM-R's pre-training, distract so small a model (docs/miniworld.md).

Arguments:
    steps=12000      of the first phase
    documents=3000   steps of the second
    seed=0
"""

from jxstilts.config import complete, parse_arg
from jxstilts.study import Study

LANGUAGES = ("en", "de", "es", "ru", "el", "hi", "ar", "tr")
WIDTH = 96


def get_config(arg: str | None = None):
    arg = parse_arg(arg, steps=12000, documents=3000, seed=0)
    sentences = {"init": "random", **_phase(arg.steps, 2e-3, {"batch_size": 64, "max_length": 32}, arg.seed)}
    documents = {
        "init": "sentences", "keep_heads": ("mlm",),
        **_phase(arg.documents, 1e-3, {"batch_size": 32, "max_length": 64}, arg.seed),
    }  # fmt: skip
    retrieval = {"tasks": ("tatoeba",), "languages": LANGUAGES[1:], "all_layers": True, "options": {"max_length": 64}}
    return complete(
        Study,
        {
            "study": "miniworld_pretrain",
            "data_dir": "",
            "model": {
                "preset": "tiny", "width": WIDTH, "layers": 3, "heads": 4, "mlp": 2 * WIDTH, "max_positions": 256,
                "init_std": WIDTH**-0.5, "hidden_dropout": 0.0, "attention_dropout": 0.0,
            },
            # every letter and nearly every word of the world as a piece of its own
            "tokenizer": {
                "model": "bpe", "vocab_size": 3000, "coverage": 1.0, "languages": LANGUAGES, "sampling_exponent": 1.0,
            },
            "phases": {"sentences": sentences, "documents": documents},
            "evaluations": {
                f"retrieval-{name}": {"phase": name, "model": "micro", "intermediate": name, "what": retrieval}
                for name in ("sentences", "documents")
            },
        },
    )  # fmt: skip


def _phase(steps: int, learning_rate: float, stream: dict, seed: int) -> dict:
    text = {"objective": "mlm", "languages": LANGUAGES, "sampling_exponent": 0.5, **stream}
    return {
        "tasks": {"text": text},
        "steps": steps,
        "optimizer": {"learning_rate": learning_rate, "warmup": 0.05, "beta2": 0.98, "eps": 1e-6},
        "log_every": 100,
        "seed": seed,
    }
