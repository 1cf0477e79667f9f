"""The contract of a model family, which is a module of this folder or a file named in JXSTILTS_FAMILIES."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import flax.linen as nn

from jxstilts.data.template import Template
from jxstilts.models.heads import Layout
from jxstilts.models.layers import Compute


@dataclasses.dataclass(frozen=True)
class HuggingFace:
    """A family's side of Hugging Face folders: config.json and the names of tensors.

    model_types: `model_type` -> (class prefix, fields of Config that it implies); the first that fits is written.
    fields: Config field -> key of config.json. required: fields that config.json has to give.
    allowed: key -> what the family computes, the first of it is written; any other value is refused.
    read: from a whole config.json to one with the keys of `fields`; raises InputError for what is not computed.
    write: Config -> what else config.json says, or says otherwise.
    shown: (tensors by name, prefix of the encoder's) -> fields of Config that only the tensors show.
    encoder: class suffix of the encoder alone. tied: a second name of a tensor of the encoder -> its first.
    prefix: begins the encoder's names in a model with a head.
    anchor: a tensor of every encoder that has no second name; it shows the prefix.
    optional: field of Config, true or false -> beginning of the names of tensors that are there when it is true.
    renamed: end of an older name -> of today's. buffers: of the encoder, unused: of what stands beside it, both known
        and not needed.
    uncomputed: class suffixes whose head has the tensors of a head in `heads`, but is another.
    """

    model_types: Mapping[str, tuple[str, Mapping[str, Any]]]
    fields: Mapping[str, str]
    required: tuple[str, ...]
    allowed: Mapping[str, tuple]
    prefix: str
    anchor: str
    read: Callable[[dict], dict] = dict
    write: Callable[[Any], dict] = lambda config: {}
    shown: Callable[[Mapping[str, Any], str], dict] = lambda tensors, prefix: {}
    encoder: str = "Model"
    tied: Mapping[str, str] = dataclasses.field(default_factory=dict)
    optional: Mapping[str, str] = dataclasses.field(default_factory=dict)
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    buffers: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    uncomputed: tuple[str, ...] = ()


class Family(Protocol):
    """The members of a family's module.

    Config: frozen dataclass of the architecture, stored in bundles; models with the same one have the same parameter
        shapes. Every family's has vocab_size, width, layers, heads, max_positions, pad_id, hidden_dropout,
        attention_dropout, init_std; `max_length`, the tokens of the longest segment; `windowed` and `biased`, whether
        any layer's attention has a window, or a number added to its scores, which not every backend can honour; and
        `first_position`, the row of the table of positions that a segment's first token reads (0 where there is no
        table): the table, and
        `max_position_embeddings` in config.json, has so many rows more than max_positions.
    PRESETS: name -> fields of Config. HUB: hub id of published weights -> their preset, for plans without a network.
    Encoder: Flax module, Encoder(config, compute, train, all_hidden)(batch) -> hidden [B, T, D], or all of them
        [L + 1, B, T, D] (0 = embeddings). It reads tokens, segments, positions [B, T] of the batch, and may read fields
        of its own, which are zeros where the batch has none. Its parameter embeddings/tokens [V, D] are the words. A
        batch's `perturbation` [B, T, D], where there is one, is added to its words (`layers.perturbed`).
    TEMPLATE: how texts become tokens, and which fields of its own the batch has.
    HUGGINGFACE: see there.
    SENTENCE: what stands for a sentence in a model that was not trained for it: a `Layout.pooling`, of the hidden state
        that the evaluation's protocol names.
    """

    Config: type
    PRESETS: Mapping[str, Mapping[str, Any]]
    HUB: Mapping[str, str]
    Encoder: Callable[[Any, Compute, bool, bool], nn.Module]
    TEMPLATE: Template
    HUGGINGFACE: HuggingFace
    SENTENCE: str

    def heads(self, config: Any) -> Mapping[str, Layout]:
        """Returns the head types that the family has layers for."""

    def training_flops(self, config: Any, length: int) -> float:
        """Returns floating-point operations per token of a forward and backward pass in rows of `length` tokens.

        Heads and look-ups in tables are not counted.
        """

    def huggingface_keys(self, config: Any) -> Mapping[str, str]:
        """Encoder parameter path -> Hugging Face name without prefix; `{layer}`: stacked over layers, counted from 0.

        `{next}`: stacked over layers, counted from 1.

        Paths that end in `kernel` are stored transposed there.
        """


MEMBERS = (*Family.__annotations__, *(name for name in vars(Family) if not name.startswith("_")))


def missing(module: Any) -> list[str]:
    """Returns the members that a family's module lacks."""
    return [name for name in MEMBERS if not hasattr(module, name)]


def tensors(modules: Mapping[str, str], *, biased: bool = True) -> dict[str, str]:
    """{own path of a Dense or, where it ends in `norm`, of a LayerNorm: Hugging Face's name} -> that of each tensor."""
    found = {}
    for path, name in modules.items():
        found[f"{path}/{'scale' if path.endswith('norm') else 'kernel'}".lstrip("/")] = f"{name}.weight"
        if biased:
            found[f"{path}/bias".lstrip("/")] = f"{name}.bias"
    return found
