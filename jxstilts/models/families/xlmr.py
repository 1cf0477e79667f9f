"""XLM-R (Conneau et al. 2020), XLM-R XL and XXL (Goyal et al. 2021): a RoBERTa encoder in Flax Linen.

Post-LN (base, large) or pre-LN (XL, XXL) transformer; learned positions that count from `pad_id + 1` inside each
segment; exact (erf) GELU; LayerNorm with epsilon 1e-5. Layers are stacked: every layer parameter has a leading L.
"""

import dataclasses
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jxstilts.data.template import Template
from jxstilts.mesh import constrain_rows
from jxstilts.models.attention import attend, drop
from jxstilts.models.families.base import HuggingFace, tensors
from jxstilts.models.heads import Layout, mlm
from jxstilts.models.initial import matrix
from jxstilts.models.layers import REMAT, Compute, Dense, LayerNorm, Perceptron, gelu
from jxstilts.runtime import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    """The architecture. Stored in bundles; two models with the same Config have the same parameter shapes."""

    vocab_size: int
    width: int
    layers: int
    heads: int
    mlp: int
    max_positions: int = 512  # longest segment; the table has pad_id + 1 rows more, as in the published weights
    pad_id: int = 1
    norm_eps: float = 1e-5
    prenorm: bool = False
    pooler: bool = False
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    init_std: float = 0.02

    def __post_init__(self):
        if self.width % self.heads:
            raise InputError(f"config.model: width={self.width} is not a multiple of heads={self.heads}")

    @property
    def max_length(self) -> int:
        return self.max_positions


PRESETS = {
    "tiny": {"vocab_size": 1000, "width": 32, "layers": 2, "heads": 4, "mlp": 64, "max_positions": 128},
    "mini": {"vocab_size": 16000, "width": 192, "layers": 4, "heads": 6, "mlp": 768},
    "base": {"vocab_size": 250002, "width": 768, "layers": 12, "heads": 12, "mlp": 3072},
    "large": {"vocab_size": 250002, "width": 1024, "layers": 24, "heads": 16, "mlp": 4096},
    "xl": {"vocab_size": 250880, "width": 2560, "layers": 36, "heads": 32, "mlp": 10240, "prenorm": True},
    "xxl": {"vocab_size": 250880, "width": 4096, "layers": 48, "heads": 32, "mlp": 16384, "prenorm": True},
}
HUB = {
    "FacebookAI/xlm-roberta-base": "base",
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


class Block(nn.Module):
    """One transformer layer on [B, T, D]."""

    config: Config
    compute: Compute
    train: bool
    all_hidden: bool

    @nn.compact
    def __call__(self, x, segments):
        config, kinds = self.config, self.compute.kinds
        rows, tokens, width = x.shape
        dense = partial(Dense, std=config.init_std, **kinds)
        norm = partial(LayerNorm, eps=config.norm_eps, **kinds)
        attention_norm, mlp_norm = norm(name="attention_norm"), norm(name="mlp_norm")

        def key():
            return self.make_rng("dropout") if self.train else None

        def split(y):  # [B, T, N*H] -> [B, T, N, H]
            return y.reshape(rows, tokens, config.heads, -1)

        inner = attention_norm(x) if config.prenorm else x
        query = split(dense(width, ("embed", "heads"), name="query")(inner))
        keys = split(dense(width, ("embed", "heads"), name="key")(inner))
        value = split(dense(width, ("embed", "heads"), name="value")(inner))
        y = attend(
            query, keys, value, segments,
            backend=self.compute.attention, dropout=config.attention_dropout, dropout_key=key(),
        )  # fmt: skip
        y = dense(width, ("heads", "embed"), name="output")(y.reshape(x.shape))
        y = drop(y, config.hidden_dropout, key())
        x = x + y if config.prenorm else attention_norm(x + y)

        inner = mlp_norm(x) if config.prenorm else x
        y = gelu(dense(config.mlp, ("embed", "mlp"), name="mlp_in")(inner))
        y = drop(dense(width, ("mlp", "embed"), name="mlp_out")(y), config.hidden_dropout, key())
        x = constrain_rows(x + y if config.prenorm else mlp_norm(x + y))
        return x, (x if self.all_hidden else None)


class Embeddings(nn.Module):
    """Word + position + type embeddings, [B, T] -> [B, T, D]."""

    config: Config
    compute: Compute
    train: bool

    @nn.compact
    def __call__(self, tokens, positions):
        config, kinds = self.config, self.compute.kinds

        def table(name, rows, axis):
            init = nn.with_logical_partitioning(matrix(self, config.init_std), (axis, "embed"))
            return self.param(name, init, (rows, config.width), self.compute.param_dtype)

        offset = first_position(config)
        words = table("tokens", config.vocab_size, "vocab")[tokens]
        places = table("positions", config.max_positions + offset, "positions")[positions + offset]
        x = words + places + table("types", 1, None)[0]
        if not config.prenorm:
            x = LayerNorm(config.norm_eps, name="norm", **kinds)(x)
        key = self.make_rng("dropout") if self.train else None
        return constrain_rows(drop(x.astype(self.compute.dtype), config.hidden_dropout, key))


class Encoder(nn.Module):
    """See `base.Family`."""

    config: Config
    compute: Compute
    train: bool = False
    all_hidden: bool = False

    @nn.compact
    def __call__(self, batch):
        config, compute = self.config, self.compute
        x = Embeddings(config, compute, self.train, name="embeddings")(batch["tokens"], batch["positions"])
        block = Block
        if compute.remat != "none":
            block = nn.remat(Block, policy=REMAT[compute.remat], prevent_cse=False)
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=config.layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        last, each = stack(config, compute, self.train, self.all_hidden, name="layers")(x, batch["segments"])
        if config.prenorm:
            last = LayerNorm(config.norm_eps, name="final_norm", **compute.kinds)(last)
            if self.all_hidden:
                each = each.at[-1].set(last)
        if config.pooler:
            dense = Dense(config.width, ("embed", None), config.init_std, name="pooler", **compute.kinds)
            if self.is_initializing():
                dense(last[:, 0])  # its parameters live with the encoder; heads that pool apply them
        return jnp.concatenate([x[None], each]) if self.all_hidden else last


def first_position(config: Config) -> int:
    return config.pad_id + 1  # the rows up to pad_id stand for no position


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


def training_flops(config: Config, length: int) -> float:
    """6 per matrix parameter of the layers, 12 L D T for the attention products."""
    matrices = config.layers * (4 * config.width**2 + 2 * config.width * config.mlp)
    return 6.0 * matrices + 12.0 * config.layers * config.width * length


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
    if config.prenorm:
        del modules["embeddings/norm"]
        modules |= {
            "layers/attention_norm": layer + "attention.self_attn_layer_norm",
            "layers/mlp_norm": layer + "LayerNorm",
            "final_norm": "encoder.LayerNorm",
        }
    if config.pooler:
        modules["pooler"] = "pooler.dense"
    return {
        "embeddings/tokens": "embeddings.word_embeddings.weight",
        "embeddings/positions": "embeddings.position_embeddings.weight",
        "embeddings/types": "embeddings.token_type_embeddings.weight",
        **tensors(modules),
    }
