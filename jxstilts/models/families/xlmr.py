"""XLM-R (Conneau et al. 2020), XLM-R XL and XXL (Goyal et al. 2021), XLM-V (Liang et al. 2023): RoBERTa encoders.

Post-LN (base, large, XLM-V) or pre-LN (XL, XXL) transformer; learned positions that count from `pad_id + 1` inside each
segment; one token type; LayerNorm with epsilon 1e-5.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jxstilts.config import setting
from jxstilts.data.template import Template
from jxstilts.models.families import bert
from jxstilts.models.families.base import HuggingFace, tensors
from jxstilts.models.heads import Layout, mlm
from jxstilts.models.layers import Dense, Perceptron
from jxstilts.models.transformer import Encoder, training_flops  # noqa: F401  parts of a family
from jxstilts.runtime import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    """The architecture. Stored in bundles; two models with the same Config have the same parameter shapes."""

    vocab_size: int = setting(..., "rows of the token embeddings, as many as the tokenizer has ids or more")
    width: int = setting(..., "width of a hidden state, a multiple of heads")
    layers: int = setting(..., "layers of the encoder")
    heads: int = setting(..., "heads of a layer's attention")
    mlp: int = setting(..., "width inside a feed-forward layer")
    max_positions: int = setting(
        512, "tokens of the longest text; the table has pad_id + 1 rows more, as in the published weights"
    )
    pad_id: int = setting(1, "id of the padding token, after which positions are counted")
    norm_eps: float = setting(1e-5, "epsilon of LayerNorms")
    prenorm: bool = setting(False, "norms before the layers' parts (XL and XXL), not after them")
    pooler: bool = setting(False, "whether the encoder has a pooler: a dense layer on the first token")
    hidden_dropout: float = setting(0.1, "dropout of embeddings, of what a layer's parts add, and in heads")
    attention_dropout: float = setting(0.1, "dropout of attention weights")
    init_std: float = setting(0.02, "standard deviation of new matrices and embeddings")
    types: ClassVar[int] = 1
    windowed: ClassVar[bool] = False
    biased: ClassVar[bool] = False

    def __post_init__(self):
        if self.width % self.heads:
            raise InputError(f"config.model: width={self.width} is not a multiple of heads={self.heads}")

    @property
    def max_length(self) -> int:
        return self.max_positions

    @property
    def first_position(self) -> int:
        return self.pad_id + 1  # the rows up to pad_id stand for no position


PRESETS = {
    "tiny": {"vocab_size": 1000, "width": 32, "layers": 2, "heads": 4, "mlp": 64, "max_positions": 128},
    "mini": {"vocab_size": 16000, "width": 192, "layers": 4, "heads": 6, "mlp": 768},
    # the shape of multilingual E5 small and multilingual MiniLM, which are BERT's family by their own files
    "small": {"vocab_size": 250037, "width": 384, "layers": 12, "heads": 12, "mlp": 1536},
    "base": {"vocab_size": 250002, "width": 768, "layers": 12, "heads": 12, "mlp": 3072},
    "v-base": {"vocab_size": 901629, "width": 768, "layers": 12, "heads": 12, "mlp": 3072},
    "large": {"vocab_size": 250002, "width": 1024, "layers": 24, "heads": 16, "mlp": 4096},
    "xl": {"vocab_size": 250880, "width": 2560, "layers": 36, "heads": 32, "mlp": 10240, "prenorm": True},
    "xxl": {"vocab_size": 250880, "width": 4096, "layers": 48, "heads": 32, "mlp": 16384, "prenorm": True},
}
HUB = {
    "FacebookAI/xlm-roberta-base": "base",
    "facebook/xlm-v-base": "v-base",
    "FacebookAI/xlm-roberta-large": "large",
    "facebook/xlm-roberta-xl": "xl",
    "facebook/xlm-roberta-xxl": "xxl",
}
TEMPLATE = Template(pair=("cls", "A", "sep", "sep", "B", "sep"))
SENTENCE = "mean"
HUGGINGFACE = HuggingFace(
    model_types={
        "xlm-roberta": ("XLMRoberta", {"prenorm": False}),
        "xlm-roberta-xl": ("XLMRobertaXL", {"prenorm": True}),
        "roberta": ("Roberta", {"prenorm": False}),
    },
    fields={
        "vocab_size": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers",
        "heads": "num_attention_heads", "mlp": "intermediate_size", "max_positions": "max_position_embeddings",
        "norm_eps": "layer_norm_eps", "pad_id": "pad_token_id", "hidden_dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob", "init_std": "initializer_range",
    },
    required=("vocab_size", "width", "layers", "heads", "mlp", "max_positions", "norm_eps"),
    allowed={
        "hidden_act": ("gelu",), "position_embedding_type": ("absolute",), "type_vocab_size": (1,),
        "is_decoder": (False,), "add_cross_attention": (False,),
    },
    write=lambda config: {"bos_token_id": 0, "eos_token_id": 2},
    prefix="roberta.",
    anchor="embeddings.position_embeddings.weight",
    optional={"pooler": "pooler."},
    buffers=("embeddings.position_ids", "embeddings.token_type_ids"),
    uncomputed=("ForMultipleChoice",),
)  # fmt: skip


def heads(config: Config) -> dict[str, Layout]:
    std, rate = config.init_std, config.hidden_dropout

    def linear(rate):
        return lambda outputs, kinds: Dense(outputs, ("embed", "classes"), std, rate=rate, **kinds)

    def classifier(outputs, kinds):
        return Perceptron(outputs, std, (rate, rate), jnp.tanh, **kinds)

    def words(outputs, kinds):
        return mlm.Layers(outputs, std, config.norm_eps, **kinds)

    single, span = tensors({"": "classifier"}), tensors({"": "qa_outputs"})
    double = tensors({"dense": "classifier.dense", "out": "classifier.out_proj"})
    lm_head = {**tensors({"dense": "lm_head.dense", "norm": "lm_head.layer_norm"}), "bias": "lm_head.bias"}
    words_too = {
        "lm_head.decoder.weight": "{body}embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }
    return {
        "classification": Layout(classifier, architecture="ForSequenceClassification", names=double),
        "choice": Layout(classifier),  # Hugging Face's ForMultipleChoice is another head: linear, on the pooler
        "tagging": Layout(linear(rate), architecture="ForTokenClassification", names=single),
        "span": Layout(linear(0.0), architecture="ForQuestionAnswering", names=span),  # no dropout, as in the study
        "mlm": Layout(words, architecture="ForMaskedLM", names=lm_head, tied=words_too),
    }


def huggingface_keys(config: Config) -> dict[str, str]:
    names = bert.huggingface_keys(config)
    if config.prenorm:
        layer = "encoder.layer.{layer}."
        del names["embeddings/norm/scale"], names["embeddings/norm/bias"]
        names |= tensors({
            "layers/attention_norm": layer + "attention.self_attn_layer_norm",
            "layers/mlp_norm": layer + "LayerNorm",
            "final_norm": "encoder.LayerNorm",
        })  # fmt: skip
    return names
