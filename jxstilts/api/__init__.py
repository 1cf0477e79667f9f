"""jxstilts from Python: load a model, predict, embed, fine-tune on rows, evaluate, save.

    from jxstilts import api

    model = api.load("owner/name")  # a bundle, a Hugging Face folder or a hub id
    model = api.finetune(model, train=[{"text": "good", "label": "yes"}, ...], dev=[...])
    model.predict(["fine", "bad"])

What runs below is what the command line runs: the same packing, steps, phases and evaluation.
"""

from jxstilts.api.evaluation import evaluate
from jxstilts.api.ready import Ready, load
from jxstilts.api.training import finetune

__all__ = ["Ready", "evaluate", "finetune", "load"]
