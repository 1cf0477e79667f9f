"""Makes the golden models of this folder with PyTorch and transformers: python tests/golden/make_golden.py

Each folder holds a tiny model as `save_pretrained` writes it, and `expected.safetensors`: inputs, every hidden state
and the output that transformers computes. The tests compare with them where torch is not installed.
"""

import pathlib

import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
SIZES = {
    "vocab_size": 48, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 26, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1,
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
}


def build(name: str, seed: int = 0, **changes) -> torch.nn.Module:
    """Returns a transformers model whose every parameter is random, biases and LayerNorms too: none can hide."""
    kind = getattr(transformers, name)
    sizes = SIZES | changes
    if name.endswith(("SequenceClassification", "TokenClassification")):
        sizes |= {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    model = kind(kind.config_class(**sizes, attn_implementation="eager")).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.15, generator=generator)
            if "LayerNorm.weight" in key or "layer_norm.weight" in key:
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


def outputs(model: torch.nn.Module, tokens: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns hidden [L + 1, B, T, D] and whatever of pooled, logits, start and end the model has."""
    with torch.no_grad():
        out = model(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
    names = {"pooler_output": "pooled", "logits": "logits", "start_logits": "start", "end_logits": "end"}
    found = {new: out[old] for old, new in names.items() if out.get(old) is not None}
    return {"hidden": torch.stack(out.hidden_states), **found}


def main():
    transformers.utils.logging.disable_progress_bar()
    for folder, name in MODELS.items():
        model, batch = build(name), inputs()
        model.save_pretrained(HERE / folder)
        expected = batch | outputs(model, **batch)
        expected = {key: value.int() if value.dtype == torch.long else value for key, value in expected.items()}
        save_file(expected, HERE / folder / "expected.safetensors")


if __name__ == "__main__":
    main()
