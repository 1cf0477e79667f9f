"""Makes the golden models of this folder with PyTorch and transformers: python tests/golden/make_golden.py [FOLDER...]

Each folder holds a tiny model as `save_pretrained` writes it, and `expected.safetensors`: inputs, every hidden state
and the output that transformers computes. The tests compare with them where torch is not installed.
"""

import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
SIZES = {"vocab_size": 48, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
FAMILIES = {  # beginning of a class's name -> what its config says, too
    "XLMRoberta": {"max_position_embeddings": 26, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1},
    "Bert": {"max_position_embeddings": 24, "layer_norm_eps": 1e-12, "pad_token_id": 1},
    "ModernBert": {
        "num_hidden_layers": 4, "max_position_embeddings": 64, "local_attention": 8, "local_rope_theta": 100.0,
        "global_rope_theta": 1000.0, "pad_token_id": 1,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
    },
}  # fmt: skip
LABELS = ("contradiction", "entailment", "neutral")
LENGTHS = (12, 7, 3)
MODELS = {  # folder -> class
    "xlmr": "XLMRobertaModel",
    "xlmr_classification": "XLMRobertaForSequenceClassification",
    "xlmr_span": "XLMRobertaForQuestionAnswering",
    "xlmr_mlm": "XLMRobertaForMaskedLM",
    "xlmr_tagging": "XLMRobertaForTokenClassification",
    "xlmr_xl_classification": "XLMRobertaXLForSequenceClassification",
    "xlmr_xl_mlm": "XLMRobertaXLForMaskedLM",
    "bert": "BertModel",
    "bert_classification": "BertForSequenceClassification",
    "bert_choice": "BertForMultipleChoice",
    "bert_span": "BertForQuestionAnswering",
    "bert_mlm": "BertForMaskedLM",
    "bert_tagging": "BertForTokenClassification",
    "modernbert": "ModernBertModel",
    "modernbert_classification": "ModernBertForSequenceClassification",
    "modernbert_choice": "ModernBertForMultipleChoice",
    "modernbert_span": "ModernBertForQuestionAnswering",
    "modernbert_mlm": "ModernBertForMaskedLM",
    "modernbert_tagging": "ModernBertForTokenClassification",
}


def build(name: str, seed: int = 0, **changes) -> torch.nn.Module:
    """Returns a transformers model whose every parameter is random, biases and LayerNorms too: none can hide."""
    kind = getattr(transformers, name)
    sizes = SIZES | next(own for family, own in FAMILIES.items() if name.startswith(family)) | changes
    if name.endswith(("SequenceClassification", "TokenClassification")):
        sizes |= {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    model = kind(kind.config_class(**sizes, attn_implementation="eager")).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.15, generator=generator)
            if key.endswith("orm.weight"):
                parameter.add_(1.0)
    return model


def inputs(lengths=LENGTHS, vocab_size=SIZES["vocab_size"], seed=1) -> dict[str, torch.Tensor]:
    """Returns tokens and mask [B, T]: rows of these lengths, <s> ... </s>, padded with 1."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, vocab_size, (len(lengths), max(lengths)), generator=generator)
    tokens[:, 0] = 0
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    for row, length in enumerate(lengths):
        tokens[row, length - 1] = 2
    return {"tokens": torch.where(mask == 1, tokens, 1), "mask": mask}


def typed(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Adds types [B, T]: 0, and 1 in the second half of each row."""
    mask = batch["mask"]
    return batch | {"types": ((mask.cumsum(1) * 2 > mask.sum(1, keepdim=True)) & (mask == 1)).long()}


def arguments(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns a batch as transformers wants it; the rows are the choices of one question."""
    names = {"tokens": "input_ids", "mask": "attention_mask", "types": "token_type_ids"}
    found = {names[key]: value for key, value in batch.items() if key in names}
    choice = type(model).__name__.endswith("MultipleChoice")
    return {key: value[None] if choice else value for key, value in found.items()}


def outputs(model: torch.nn.Module, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns hidden [L + 1, B, T, D] and whatever of pooled, logits, start and end the model has."""
    with torch.no_grad():
        out = model(**arguments(model, batch), output_hidden_states=True)
    names = {"pooler_output": "pooled", "logits": "logits", "start_logits": "start", "end_logits": "end"}
    found = {new: out[old] for old, new in names.items() if out.get(old) is not None}
    return {"hidden": torch.stack(out.hidden_states), **found}


def main(*folders: str):
    transformers.utils.logging.disable_progress_bar()
    for folder in folders or MODELS:
        model, batch = build(MODELS[folder]), inputs()
        if MODELS[folder].startswith("Bert"):
            batch = typed(batch)
        model.save_pretrained(HERE / folder)
        expected = batch | outputs(model, **batch)
        expected = {key: value.int() if value.dtype == torch.long else value for key, value in expected.items()}
        save_file(expected, HERE / folder / "expected.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
