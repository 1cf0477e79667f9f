"""mT5 (Xue et al. 2021) and T5 v1.1 (Raffel et al. 2020; Shazeer 2020): an encoder, and a decoder as the head
`text_to_text`. T5 v1.0, which scales the decoder's states and has no gates, is not computed.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from jxstilts.config import setting
from jxstilts.data.template import Template
from jxstilts.models.families.base import HuggingFace, tensors
from jxstilts.models.heads import Layout, mlm
from jxstilts.models.layers import Dense, Perceptron
from jxstilts.models.relative import Decoder, Encoder, keep, reorder  # noqa: F401  parts of a family
from jxstilts.runtime import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    """The architecture."""

    vocab_size: int = setting(..., "rows of the token embeddings, as many as the tokenizer has ids or more")
    width: int = setting(..., "width of a hidden state")
    layers: int = setting(..., "layers of the encoder")
    heads: int = setting(..., "heads of a layer's attention")
    mlp: int = setting(..., "width inside a feed-forward layer")
    decoder_layers: int = setting(..., "layers of the decoder")
    head_width: int = setting(64, "width of a head of attention; heads * head_width need not be the width")
    relative_buckets: int = setting(32, "rows of the tables of distances, a multiple of 4")
    relative_distance: int = setting(128, "tokens from which on all distances share a row; above relative_buckets / 2")
    max_positions: int = setting(8192, "tokens of the longest input that is taken; there is no table of positions")
    pad_id: int = setting(0, "id of the padding token, which begins a target")
    eos_id: int = setting(1, "id of the token that ends an input and a target")
    norm_eps: float = setting(1e-6, "epsilon of the norms")
    hidden_dropout: float = setting(
        0.1, "dropout of embeddings, in feed-forward layers, and of what a layer's parts add"
    )
    attention_dropout: float = setting(0.1, "dropout of attention weights")
    init_std: float = setting(1.0, "a factor on T5's own standard deviations of new parameters")
    tied: bool = setting(False, "whether the decoder's words are the table that embeds them")
    first_position: ClassVar[int] = 0
    windowed: ClassVar[bool] = False
    biased: ClassVar[bool] = True

    def __post_init__(self):
        if self.relative_buckets % 4 or self.relative_distance <= self.relative_buckets // 2:
            raise InputError(
                f"config.model: relative_buckets={self.relative_buckets} is a multiple of 4, and "
                f"relative_distance={self.relative_distance} more than half of it"
            )

    @property
    def max_length(self) -> int:
        return self.max_positions


def _preset(width: int, layers: int, heads: int, mlp: int) -> dict[str, int]:
    shape = {"width": width, "layers": layers, "decoder_layers": layers, "heads": heads, "mlp": mlp}
    return {"vocab_size": 250112, **shape}


PRESETS = {
    "tiny": {**_preset(32, 2, 4, 64), "vocab_size": 1000, "head_width": 8},
    "small": _preset(512, 8, 6, 1024),
    "base": _preset(768, 12, 12, 2048),
    "large": _preset(1024, 24, 16, 2816),
    "xl": _preset(2048, 24, 32, 5120),
    "xxl": _preset(4096, 24, 64, 10240),
}
HUB = {f"google/mt5-{name}": name for name in ("small", "base", "large", "xl", "xxl")}
TEMPLATE = Template(single=("A", "eos"), pair=("A", "eos", "B", "eos"))
SENTENCE = "mean"
LM_HEAD, SHARED = "lm_head.weight", "shared.weight"


def _read(config: dict) -> dict:
    """What need not be said, and what Hugging Face's two classes differ in."""
    start, pad = config.get("decoder_start_token_id"), config.get("pad_token_id", 0)
    if start is not None and start != pad:
        raise InputError(f"decoder_start_token_id={start!r:.60} is not supported, only pad_token_id={pad!r:.60}")
    if config.get("model_type") == "t5" and config.get("tie_word_embeddings", True) is not False:
        raise InputError(
            "model_type='t5' with tied word embeddings scales the decoder's states (T5 v1.0), which is not computed; "
            "only T5 v1.1 (tie_word_embeddings=false) is"
        )
    return {"num_decoder_layers": config.get("num_layers"), **config}


def _shown(tensors: Mapping[str, Any], prefix: str) -> dict[str, bool]:
    """Whether the tables are one: where a file has both, as their values are."""
    one, other = (tensors.get(prefix + name) for name in (SHARED, LM_HEAD))
    return {"tied": other is None or (one is not None and np.array_equal(one.read(), other.read()))}


HUGGINGFACE = HuggingFace(
    model_types={"mt5": ("MT5", {}), "t5": ("T5", {})},
    fields={
        "vocab_size": "vocab_size", "width": "d_model", "layers": "num_layers", "heads": "num_heads", "mlp": "d_ff",
        "decoder_layers": "num_decoder_layers", "head_width": "d_kv",
        "relative_buckets": "relative_attention_num_buckets", "relative_distance": "relative_attention_max_distance",
        "max_positions": "max_position_embeddings", "pad_id": "pad_token_id", "eos_id": "eos_token_id",
        "norm_eps": "layer_norm_epsilon", "hidden_dropout": "dropout_rate", "attention_dropout": "dropout_rate",
        "init_std": "initializer_factor",
    },
    required=("vocab_size", "width", "layers", "heads", "mlp"),
    allowed={"feed_forward_proj": ("gated-gelu",), "is_encoder_decoder": (True, False)},
    read=_read,
    write=lambda config: {"decoder_start_token_id": config.pad_id, "tie_word_embeddings": config.tied},
    shown=_shown,
    prefix="",
    anchor="encoder.final_layer_norm.weight",
    encoder="EncoderModel",
    tied={"encoder.embed_tokens.weight": SHARED},
    unused=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),  # of zeros, in older files
    uncomputed=("ForSequenceClassification", "ForQuestionAnswering", "ForTokenClassification"),
)  # fmt: skip


def _stack(name: str, sublayers: Mapping[str, tuple[str, Mapping[str, str]]]) -> dict[str, str]:
    """Own path in a stack -> Hugging Face's name; sublayers: own name of the norm -> (name there, {own: name})."""
    modules = {"final_norm": f"{name}.final_layer_norm"}
    for number, (norm, (kind, parts)) in enumerate(sublayers.items()):
        layer = f"{name}.block.{{layer}}.layer.{number}"
        modules |= {f"layers/{norm}": f"{layer}.layer_norm"}
        modules |= {f"layers/{own}": f"{layer}.{kind}.{part}" for own, part in parts.items()}
    table = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return {**tensors(modules, biased=False), "relative": table}


OWN = {"query": "q", "key": "k", "value": "v", "output": "o"}
ATTENTION = ("SelfAttention", OWN)
CROSS = ("EncDecAttention", {f"cross_{own}": name for own, name in OWN.items()})
MLP = ("DenseReluDense", {"mlp_gate": "wi_0", "mlp_in": "wi_1", "mlp_out": "wo"})


def heads(config: Config) -> dict[str, Layout]:
    std, rate = config.init_std * config.width**-0.5, config.hidden_dropout

    def linear(outputs, kinds):
        return Dense(outputs, ("embed", "classes"), std, rate=rate, **kinds)

    def classifier(outputs, kinds):
        return Perceptron(outputs, std, (rate, rate), jnp.tanh, **kinds)

    decoder = _stack("decoder", {"attention_norm": ATTENTION, "cross_norm": CROSS, "mlp_norm": MLP})
    tied = {"decoder.embed_tokens.weight": SHARED, **({LM_HEAD: SHARED} if config.tied else {})}
    return {
        "classification": Layout(classifier, "mean"),
        "choice": Layout(classifier, "mean"),
        "tagging": Layout(linear),
        "span": Layout(linear),
        "mlm": Layout(lambda outputs, kinds: mlm.Layers(outputs, std, config.norm_eps, biased=False, **kinds)),
        "text_to_text": Layout(
            decoder=partial(Decoder, config), keep=partial(keep, config), reorder=reorder,
            architecture="ForConditionalGeneration",
            names=decoder if config.tied else {**decoder, "words": LM_HEAD}, tied=tied,
        ),
    }  # fmt: skip


def training_flops(config: Config, length: int) -> float:
    """Of the encoder: 6 per matrix parameter of its layers, 12 L N H T for the attention products."""
    inner = config.heads * config.head_width
    matrices = config.layers * (4 * config.width * inner + 3 * config.width * config.mlp)
    return 6.0 * matrices + 12.0 * config.layers * inner * length


def huggingface_keys(config: Config) -> dict[str, str]:
    return {"embeddings/tokens": SHARED, **_stack("encoder", {"attention_norm": ATTENTION, "mlp_norm": MLP})}
