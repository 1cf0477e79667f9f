"""BERT (Devlin et al. 2019): multilingual BERT, LaBSE (Feng et al. 2022), MiniLM, multilingual E5 (Wang et al. 2024).

Post-LN transformer; learned positions from 0 inside each segment, whatever id pads; two token types; LayerNorm with
epsilon 1e-12. The pooler is the encoder's. Where an encoder has none, a classification head has one of its own.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jxstilts.config import setting
from jxstilts.data.template import Template
from jxstilts.models.families.base import HuggingFace, tensors
from jxstilts.models.heads import Layout, mlm
from jxstilts.models.layers import Dense, Perceptron
from jxstilts.models.transformer import Encoder, training_flops  # noqa: F401  parts of a family
from jxstilts.runtime import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    """The architecture."""

    vocab_size: int = setting(..., "rows of the token embeddings, as many as the tokenizer has ids or more")
    width: int = setting(..., "width of a hidden state, a multiple of heads")
    layers: int = setting(..., "layers of the encoder")
    heads: int = setting(..., "heads of a layer's attention")
    mlp: int = setting(..., "width inside a feed-forward layer")
    max_positions: int = setting(512, "tokens of the longest text")
    types: int = setting(2, "token types: the first text of a pair, the second")
    pad_id: int = setting(0, "id of the padding token in config.json; no rule here reads it")
    norm_eps: float = setting(1e-12, "epsilon of LayerNorms")
    pooler: bool = setting(False, "whether the encoder has a pooler: a dense layer on the first token")
    hidden_dropout: float = setting(0.1, "dropout of embeddings, of what a layer's parts add, and in heads")
    attention_dropout: float = setting(0.1, "dropout of attention weights")
    init_std: float = setting(0.02, "standard deviation of new matrices and embeddings")
    prenorm: ClassVar[bool] = False
    first_position: ClassVar[int] = 0
    windowed: ClassVar[bool] = False
    biased: ClassVar[bool] = False

    def __post_init__(self):
        if self.width % self.heads:
            raise InputError(f"config.model: width={self.width} is not a multiple of heads={self.heads}")

    @property
    def max_length(self) -> int:
        return self.max_positions


PRESETS = {
    "tiny": {"vocab_size": 1000, "width": 32, "layers": 2, "heads": 4, "mlp": 64, "max_positions": 128},
    "minilm": {"vocab_size": 250037, "width": 384, "layers": 12, "heads": 12, "mlp": 1536},
    "mbert": {"vocab_size": 119547, "width": 768, "layers": 12, "heads": 12, "mlp": 3072},
    "labse": {"vocab_size": 501153, "width": 768, "layers": 12, "heads": 12, "mlp": 3072},
}
HUB = {
    "google-bert/bert-base-multilingual-cased": "mbert",
    "intfloat/multilingual-e5-small": "minilm",
    "sentence-transformers/LaBSE": "labse",
}
TEMPLATE = Template(types=True)
SENTENCE = "mean"
HUGGINGFACE = HuggingFace(
    model_types={"bert": ("Bert", {})},
    fields={
        "vocab_size": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers",
        "heads": "num_attention_heads", "mlp": "intermediate_size", "max_positions": "max_position_embeddings",
        "types": "type_vocab_size", "norm_eps": "layer_norm_eps", "pad_id": "pad_token_id",
        "hidden_dropout": "hidden_dropout_prob", "attention_dropout": "attention_probs_dropout_prob",
        "init_std": "initializer_range",
    },
    required=("vocab_size", "width", "layers", "heads", "mlp", "max_positions"),
    allowed={
        "hidden_act": ("gelu",), "position_embedding_type": ("absolute",), "is_decoder": (False,),
        "add_cross_attention": (False,),
    },
    prefix="bert.",
    anchor="embeddings.position_embeddings.weight",
    optional={"pooler": "pooler."},
    renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    buffers=("embeddings.position_ids", "embeddings.token_type_ids"),
    unused=("cls.seq_relationship.weight", "cls.seq_relationship.bias"),
)  # fmt: skip


def heads(config: Config) -> dict[str, Layout]:
    std, rate = config.init_std, config.hidden_dropout

    def linear(rate):
        return lambda outputs, kinds: Dense(outputs, ("embed", "classes"), std, rate=rate, **kinds)

    def pooled(architecture):
        names = {"": "classifier"}
        if config.pooler:
            return Layout(linear(rate), pooling="pooler", architecture=architecture, names=tensors(names))
        names = {"dense": "{body}pooler.dense", "out": "classifier"}
        return Layout(
            lambda outputs, kinds: Perceptron(outputs, std, (0.0, rate), jnp.tanh, **kinds),
            architecture=architecture, names=tensors(names),
        )  # fmt: skip

    transform = {"dense": "cls.predictions.transform.dense", "norm": "cls.predictions.transform.LayerNorm"}
    tied = {
        "cls.predictions.decoder.weight": "{body}embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    return {
        "classification": pooled("ForSequenceClassification"),
        "choice": pooled("ForMultipleChoice"),
        "tagging": Layout(
            linear(rate), architecture="ForTokenClassification", names=tensors({"": "classifier"})
        ),
        "span": Layout(linear(0.0), architecture="ForQuestionAnswering", names=tensors({"": "qa_outputs"})),
        "mlm": Layout(
            lambda outputs, kinds: mlm.Layers(outputs, std, config.norm_eps, **kinds),
            architecture="ForMaskedLM", names={**tensors(transform), "bias": "cls.predictions.bias"}, tied=tied,
        ),
    }  # fmt: skip


def huggingface_keys(config: Config) -> dict[str, str]:
    layer = "encoder.layer.{layer}."
    modules = {
        "embeddings/norm": "embeddings.LayerNorm",
        "layers/query": layer + "attention.self.query",
        "layers/key": layer + "attention.self.key",
        "layers/value": layer + "attention.self.value",
        "layers/output": layer + "attention.output.dense",
        "layers/attention_norm": layer + "attention.output.LayerNorm",
        "layers/mlp_in": layer + "intermediate.dense",
        "layers/mlp_out": layer + "output.dense",
        "layers/mlp_norm": layer + "output.LayerNorm",
    }
    if config.pooler:
        modules["pooler"] = "pooler.dense"
    return {
        "embeddings/tokens": "embeddings.word_embeddings.weight",
        "embeddings/positions": "embeddings.position_embeddings.weight",
        "embeddings/types": "embeddings.token_type_embeddings.weight",
        **tensors(modules),
    }
