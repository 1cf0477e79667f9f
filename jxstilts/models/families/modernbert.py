"""ModernBERT (Warner et al. 2024) and mmBERT (Marone et al. 2025).

Pre-LN transformer without biases; rotary positions (Su et al. 2021) inside each segment; each `global_every`-th layer
attends to all tokens, the others to those at most `local_attention // 2` away; gated feed-forward layers (GeGLU,
Shazeer 2020); no attention norm in the first layer, which follows the norm of the embeddings. Layers but the first are
stacked.
"""

import dataclasses
from functools import partial
from typing import ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jxstilts.config import setting
from jxstilts.data.template import Template
from jxstilts.mesh import constrain_rows
from jxstilts.models.attention import SHOWN, attend, drop, show
from jxstilts.models.families.base import HuggingFace, tensors
from jxstilts.models.heads import Layout, mlm
from jxstilts.models.initial import matrix
from jxstilts.models.layers import REMAT, Compute, Dense, LayerNorm, Perceptron, gelu, perturbed
from jxstilts.runtime import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    """The architecture."""

    vocab_size: int = setting(..., "rows of the token embeddings, as many as the tokenizer has ids or more")
    width: int = setting(..., "width of a hidden state, a multiple of twice heads")
    layers: int = setting(..., "layers of the encoder")
    heads: int = setting(..., "heads of a layer's attention")
    mlp: int = setting(..., "width inside a feed-forward layer")
    max_positions: int = setting(8192, "tokens of the longest text that is taken")
    local_attention: int = setting(128, "tokens of a local layer's window")
    global_every: int = setting(3, "one layer in so many attends to all tokens, the others to their window")
    global_theta: float = setting(160000.0, "base of the rotary positions of layers that attend to all tokens")
    local_theta: float = setting(10000.0, "base of the rotary positions of local layers")
    pad_id: int = setting(0, "id of the padding token in config.json; no rule here reads it")
    norm_eps: float = setting(1e-5, "epsilon of LayerNorms")
    pooling: Literal["cls", "mean"] = setting("cls", "what a classification head reads: the first token or the mean")
    embedding_dropout: float = setting(0.0, "dropout of embeddings")
    hidden_dropout: float = setting(0.0, "dropout inside feed-forward layers")
    attention_dropout: float = setting(0.0, "dropout of attention weights")
    classifier_dropout: float = setting(0.0, "dropout before a head's last layer")
    init_std: float = setting(0.02, "standard deviation of new matrices and embeddings")
    first_position: ClassVar[int] = 0
    windowed: ClassVar[bool] = True
    biased: ClassVar[bool] = False

    def __post_init__(self):
        if self.width % (2 * self.heads):
            raise InputError(f"config.model: width={self.width} is not a multiple of twice heads={self.heads}")

    @property
    def max_length(self) -> int:
        return self.max_positions

    @property
    def local(self) -> np.ndarray:
        """Is a layer's attention local? bool [L]"""
        return np.arange(self.layers) % self.global_every > 0


MMBERT = {"vocab_size": 256000, "layers": 22, "mlp": 1152, "local_theta": 160000.0}
PRESETS = {
    "tiny": {"vocab_size": 1000, "width": 32, "layers": 4, "heads": 4, "mlp": 48, "max_positions": 128,
             "local_attention": 16},
    "mmbert-small": {**MMBERT, "width": 384, "heads": 6},
    "mmbert-base": {**MMBERT, "width": 768, "heads": 12},
}  # fmt: skip
HUB = {"jhu-clsp/mmBERT-small": "mmbert-small", "jhu-clsp/mmBERT-base": "mmbert-base"}
TEMPLATE = Template()
SENTENCE = "mean"
LAYER_TYPES = ("full_attention", "sliding_attention")


def _read(config: dict) -> dict:
    """What transformers 5 writes in other words: the kind of each layer, and the rotary base of each kind."""
    found = dict(config)
    if config.get("rope_scaling") is not None:
        raise InputError(f"rope_scaling={config['rope_scaling']!r:.60} is not supported, only null")
    rope = config.get("rope_parameters") or {}
    for kind, key in zip(LAYER_TYPES, ("global_rope_theta", "local_rope_theta"), strict=True):
        own = (rope.get(kind) or {}) if isinstance(rope, dict) else None
        if not isinstance(own, dict) or own.get("rope_type", "default") != "default":
            raise InputError(f"rope_parameters={rope!r:.200} is not supported, only rope_type='default'")
        found[key] = own.get("rope_theta", config.get(key))
    types = config.get("layer_types")
    if types is not None:
        count = len(types) if isinstance(types, list) else 0
        fitting = [n for n in range(1, count + 1) if types == [LAYER_TYPES[i % n > 0] for i in range(count)]]
        if not fitting or count != config.get("num_hidden_layers"):
            raise InputError(f"layer_types={types!r:.200} is not supported, only one full_attention in every n layers")
        found["global_attn_every_n_layers"] = fitting[0]
    return found


HUGGINGFACE = HuggingFace(
    model_types={"modernbert": ("ModernBert", {})},
    fields={
        "vocab_size": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers",
        "heads": "num_attention_heads", "mlp": "intermediate_size", "max_positions": "max_position_embeddings",
        "local_attention": "local_attention", "global_every": "global_attn_every_n_layers",
        "global_theta": "global_rope_theta", "local_theta": "local_rope_theta", "pad_id": "pad_token_id",
        "norm_eps": "norm_eps", "pooling": "classifier_pooling", "embedding_dropout": "embedding_dropout",
        "hidden_dropout": "mlp_dropout", "attention_dropout": "attention_dropout",
        "classifier_dropout": "classifier_dropout", "init_std": "initializer_range",
    },
    required=("vocab_size", "width", "layers", "heads", "mlp", "max_positions"),
    allowed={
        "hidden_activation": ("gelu",), "classifier_activation": ("gelu",), "norm_bias": (False,),
        "attention_bias": (False,), "mlp_bias": (False,), "classifier_bias": (False,), "decoder_bias": (True,),
    },
    read=_read,
    write=lambda config: {f"{role}_token_id": None for role in ("bos", "eos", "cls", "sep")},  # the tokenizer says them
    prefix="model.",
    anchor="final_norm.weight",
)  # fmt: skip


class Block(nn.Module):
    """One transformer layer on [B, T, D]. first: it has no attention norm."""

    config: Config
    compute: Compute
    train: bool
    all_hidden: bool
    first: bool = False

    @nn.compact
    def __call__(self, x, segments, turns, local):
        """turns: of `_turns`; local: bool, is the layer's attention local?"""
        config, kinds = self.config, self.compute.kinds
        rows, tokens, width = x.shape
        dense = partial(Dense, std=config.init_std, biased=False, **kinds)
        norm = partial(LayerNorm, eps=config.norm_eps, biased=False, **kinds)

        def key():
            return self.make_rng("dropout") if self.train else None

        inner = x if self.first else norm(name="attention_norm")(x)
        qkv = dense(3 * width, ("embed", "heads"), name="qkv")(inner)
        query, keys, value = jnp.moveaxis(qkv.reshape(rows, tokens, 3, config.heads, -1), 2, 0)
        cos, sin = jnp.where(local, turns[1], turns[0])
        query, keys = _turned(query, cos, sin), _turned(keys, cos, sin)
        window = jnp.where(local, config.local_attention // 2, tokens)
        show(self, query, keys, segments, window=window)
        y = attend(
            query, keys, value, segments, window=window,
            backend=self.compute.attention, dropout=config.attention_dropout, dropout_key=key(),
        )  # fmt: skip
        y = dense(width, ("heads", "embed"), name="output")(y.reshape(x.shape))
        x = x + drop(y, config.attention_dropout, key())
        y = dense(2 * config.mlp, ("embed", "mlp"), name="mlp_in")(norm(name="mlp_norm")(x))
        y = drop(gelu(y[..., : config.mlp]) * y[..., config.mlp :], config.hidden_dropout, key())
        x = constrain_rows(x + dense(width, ("mlp", "embed"), name="mlp_out")(y))
        return x, (x if self.all_hidden else None)


class Embeddings(nn.Module):
    """A batch's tokens [B, T] -> [B, T, D]."""

    config: Config
    compute: Compute
    train: bool

    @nn.compact
    def __call__(self, batch):
        config, kinds = self.config, self.compute.kinds
        init = nn.with_logical_partitioning(matrix(self, config.init_std), ("vocab", "embed"))
        words = self.param("tokens", init, (config.vocab_size, config.width), self.compute.param_dtype)
        x = LayerNorm(config.norm_eps, biased=False, name="norm", **kinds)(perturbed(words[batch["tokens"]], batch))
        key = self.make_rng("dropout") if self.train else None
        return constrain_rows(drop(x, config.embedding_dropout, key))


class Encoder(nn.Module):
    """As `base.Family` has it."""

    config: Config
    compute: Compute
    train: bool = False
    all_hidden: bool = False

    @nn.compact
    def __call__(self, batch):
        config, compute, segments = self.config, self.compute, batch["segments"]
        embedded = Embeddings(config, compute, self.train, name="embeddings")(batch)
        thetas = (config.global_theta, config.local_theta)
        turns = jnp.stack([_turns(batch["positions"], config, theta) for theta in thetas])
        block, options = Block, (config, compute, self.train, self.all_hidden)
        if compute.remat != "none":
            block = nn.remat(Block, policy=REMAT[compute.remat], prevent_cse=False)
        x, first = block(*options, first=True, name="first")(embedded, segments, turns, config.local[0])
        each = [first[None]] if self.all_hidden else []
        if config.layers > 1:
            stack = nn.scan(
                block,
                variable_axes={"params": 0, SHOWN: 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(nn.broadcast, nn.broadcast, 0),
                length=config.layers - 1,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x, others = stack(*options, name="layers")(x, segments, turns, jnp.asarray(config.local[1:]))
            each = [*each, others] if self.all_hidden else []
        last = LayerNorm(config.norm_eps, biased=False, name="final_norm", **compute.kinds)(x)
        return jnp.concatenate([embedded[None], *each]).at[-1].set(last) if self.all_hidden else last


def _turns(positions, config, theta):
    """positions [B, T] -> cosines and sines of each pair's angle, float32 [2, B, T, 1, H / 2]; H: a head's width."""
    half = config.width // config.heads // 2
    angles = positions[..., None, None].astype(jnp.float32) / theta ** (jnp.arange(half, dtype=jnp.float32) / half)
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)])


def _turned(x, cos, sin):
    """[B, T, N, H], each pair (i, i + H / 2) turned by its angle, in float32."""
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def heads(config: Config) -> dict[str, Layout]:
    std, rates = config.init_std, (0.0, config.classifier_dropout)

    def layers(outputs, kinds):
        return Perceptron(outputs, std, rates, gelu, eps=config.norm_eps, biased=False, **kinds)

    shared = tensors({"dense": "head.dense", "norm": "head.norm"}, biased=False)
    pooling = {"cls": "first", "mean": "mean"}[config.pooling]
    layout = partial(Layout, layers, pooling, names={**shared, **tensors({"out": "classifier"})})
    return {
        "classification": layout(architecture="ForSequenceClassification"),
        "choice": layout(architecture="ForMultipleChoice"),
        "tagging": layout(architecture="ForTokenClassification"),
        "span": layout(architecture="ForQuestionAnswering"),
        "mlm": Layout(
            lambda outputs, kinds: mlm.Layers(outputs, std, config.norm_eps, biased=False, **kinds),
            architecture="ForMaskedLM", names={**shared, "bias": "decoder.bias"},
            tied={"decoder.weight": "{body}embeddings.tok_embeddings.weight"},
        ),
    }  # fmt: skip


def training_flops(config: Config, length: int) -> float:
    """6 per matrix parameter of the layers, 12 D for each token that a token of a layer attends to."""
    matrices = config.layers * (4 * config.width**2 + 3 * config.width * config.mlp)
    seen = np.where(config.local, min(length, 2 * (config.local_attention // 2) + 1), length).sum()
    return 6.0 * matrices + 12.0 * config.width * float(seen)


def huggingface_keys(config: Config) -> dict[str, str]:
    own = {"qkv": "attn.Wqkv", "output": "attn.Wo", "mlp_norm": "mlp_norm", "mlp_in": "mlp.Wi", "mlp_out": "mlp.Wo"}
    modules = {
        "embeddings/norm": "embeddings.norm",
        "final_norm": "final_norm",
        **{f"first/{path}": f"layers.0.{name}" for path, name in own.items()},
        **{f"layers/{path}": "layers.{next}." + name for path, name in {**own, "attention_norm": "attn_norm"}.items()},
    }
    return {"embeddings/tokens": "embeddings.tok_embeddings.weight", **tensors(modules, biased=False)}
