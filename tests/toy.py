"""A study of seconds on the miniature world, for tests of studies. Its config's argument is the compile cache."""

CONFIG = '''
"""Pre-train, MNLI, TyDiQA, zero-shot evaluation."""
from jxstilts.config import complete
from jxstilts.study import Study


def get_config(arg=None):
    fast = {"learning_rate": 3e-3}
    return complete(Study, {
        "study": "toy",
        "data_dir": "",
        "compile_cache": arg or "",
        "mesh": {"data": 1},
        "model": {"preset": "tiny", "hidden_dropout": 0.1, "attention_dropout": 0.1},
        "tokenizer": {"vocab_size": 400, "model": "bpe", "languages": ("en", "de")},
        "phases": {
            "pretrain": {
                "tasks": {"text": {
                    "objective": "mlm", "languages": ("en", "de"), "packed": True, "batch_size": 8, "max_length": 64,
                }},
                "steps": 12, "optimizer": fast, "save_every": 5, "log_every": 3,
            },
            "mnli": {
                "init": "pretrain", "tasks": {"mnli": {"batch_size": 16, "max_length": 48}}, "epochs": 2.0,
                "optimizer": fast, "select": {"metric": "accuracy", "rows": 24, "every": 4}, "log_every": 2,
            },
            "qa": {
                "init": "mnli",
                "tasks": {"tydiqa": {
                    "batch_size": 8, "max_length": 64, "doc_stride": 24, "max_query_length": 12, "holdout": 12,
                }},
                "epochs": 1.0, "optimizer": fast, "log_every": 2,
                "select": {"metric": "major", "rows": 12, "every": 3},
            },
        },
        "evaluations": {
            "xnli": {
                "phase": "mnli", "model": "tiny", "intermediate": "none", "target": "xnli",
                "what": {"tasks": ("xnli",), "languages": ("en", "de"), "options": {"max_length": 48}},
            },
            "xquad": {
                "phase": "qa", "model": "tiny", "intermediate": "mnli", "target": "tydiqa",
                "what": {"tasks": ("xquad",), "languages": ("en", "de"), "limit": 6,
                         "options": {"max_length": 64, "doc_stride": 24, "max_query_length": 12}},
            },
            "tatoeba": {
                "phase": "mnli", "model": "tiny", "intermediate": "mnli",
                "what": {"tasks": ("tatoeba",), "languages": ("de",), "options": {"max_length": 48}},
            },
        },
    })
'''
