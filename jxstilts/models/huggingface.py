"""Hugging Face folders: config.json and weights <-> a Model and its parameters.

The family's `huggingface_keys` and the heads' say which tensor is which parameter; every tensor of a folder is mapped
exactly once, is listed here as known and not needed, or is an error.
"""

import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np

from jxstilts.checkpoint import leaves
from jxstilts.models import heads as head_types
from jxstilts.models.checks import check_labels, check_values
from jxstilts.models.layers import Compute
from jxstilts.models.model import HeadSpec, Model, Params, family_module, make_config
from jxstilts.models.tensor_files import (
    FLOATS,
    Tensor,
    copy_tokenizer,
    fetch,
    file_hashes,
    find_tokenizer,
    open_tensors,
    read_json,
)
from jxstilts.runtime import InputError, suggest

# model_type -> (family, class prefix, fields of the family's Config that it implies)
MODEL_TYPES = {
    "xlm-roberta": ("xlmr", "XLMRoberta", {"prenorm": False}),
    "xlm-roberta-xl": ("xlmr", "XLMRobertaXL", {"prenorm": True}),
    "roberta": ("xlmr", "Roberta", {"prenorm": False}),
}
FIELDS = {  # Config field -> key of config.json
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "norm_eps": "layer_norm_eps",
    "pad_id": "pad_token_id",
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "init_std": "initializer_range",
}
REQUIRED = ("vocab_size", "width", "layers", "heads", "mlp", "max_positions", "norm_eps")
ALLOWED: dict[str, tuple] = {  # what the encoder computes; a config.json that says anything else is refused
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
    "type_vocab_size": (1,),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "problem_type": (None, "single_label_classification"),
}
NAMED = 30  # tensors that one message names
LABELLED = ("classification", "tagging")  # head types with one output per label
NOT_COMPUTED = ("ForMultipleChoice",)  # classes whose head has the tensors of one listed here, but is another
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")  # constants that old versions stored
TIED = {  # a second name of the same array
    "lm_head.decoder.weight": "embeddings.word_embeddings.weight",
    "lm_head.decoder.bias": "lm_head.bias",
}
ANCHOR = "embeddings.position_embeddings.weight"  # in every encoder, under one name only: shows the prefix


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model with its parameters. `meta` is what a bundle records of it (see `models/bundle.py`)."""

    model: Model
    params: Params
    tokenizer_dir: pathlib.Path | None = None
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Place:
    """One tensor of a Hugging Face file: part `layer` (None: all) of the parameter `path`, transposed or not."""

    path: str
    layer: int | None
    name: str
    shape: tuple[int, ...]  # in the file
    transposed: bool


def load(
    source: str | pathlib.Path,
    *,
    compute: Compute | None = None,
    heads: tuple[str, ...] | None = None,
    hash_files: bool = True,
) -> Loaded:
    """Reads a Hugging Face folder or hub id (`owner/name[@revision]`): the encoder and any heads beside it.

    A head is named after its type. Parameters are host arrays in float32.

    Args:
        compute: goes into the Model.
        heads: names of the heads to read; None = all that are there.
        hash_files: record the SHA-256 of the weight files.
    Raises: InputError for a model this package does not compute, or tensors that do not fit; it names all of them.
    """
    folder, model, tensors, meta = _open(source)
    if compute is not None:
        model = dataclasses.replace(model, compute=compute)
    model = select_heads(model, heads, folder)
    if hash_files:
        meta["provenance"]["files"] = file_hashes(tensors)
    prefix = _prefix(tensors, folder)
    abstract, _ = model.abstract()
    arrays = {path: np.empty(leaf.shape, np.float32) for path, leaf in leaves(abstract).items()}
    for place in places(model, prefix, _outer(prefix)):
        array = tensors[_stored_name(place.name, tensors, prefix)].read()
        arrays[place.path][... if place.layer is None else place.layer] = array.T if place.transposed else array
    params = jax.tree_util.tree_map_with_path(
        lambda path, _: arrays[jax.tree_util.keystr(path, simple=True, separator="/")], abstract
    )
    return Loaded(model, params, find_tokenizer(folder), meta)


def inspect(source: str | pathlib.Path) -> tuple[Model, dict]:
    """Returns (model, meta) of a Hugging Face folder or hub id without reading its arrays."""
    _, model, _, meta = _open(source)
    return model, meta


def export(loaded: Loaded, folder: str | pathlib.Path, *, head: str | None = None, encoder_only: bool = False) -> list:
    """Writes config.json, model.safetensors and the tokenizer's files, for `AutoModel...from_pretrained`.

    An encoder alone is for `AutoModel` (without a pooler: `add_pooling_layer=False`); with a head, for the head's
    `AutoModelFor...`, which has no pooler.

    Args:
        folder: must not exist, or be empty.
        head: which head to write; needed only if there are several.
        encoder_only: write no head.
    Returns: paths of the parameters that this architecture has no place for, and that were left out.
    Raises: InputError when the choice is not clear, or the head has no Hugging Face class.
    """
    folder = pathlib.Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists; export writes to a new folder")
    spec = None if encoder_only else _exported_head(loaded.model, head)
    config = loaded.model.config if spec is None else dataclasses.replace(loaded.model.config, pooler=False)
    model = dataclasses.replace(loaded.model, config=config, head_specs=() if spec is None else (spec,), extra=())

    stored = {path: np.asarray(leaf) for path, leaf in leaves(loaded.params).items()}
    tensors = {}
    written = places(model, *(("", "") if spec is None else ("roberta.", "")))
    for place in written:
        array = stored[place.path] if place.layer is None else stored[place.path][place.layer]
        tensors[place.name] = np.ascontiguousarray(array.T if place.transposed else array)
    from safetensors.numpy import save_file

    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    config_json = _config_json(model, str(stored["encoder/embeddings/tokens"].dtype))
    (partial / "config.json").write_text(json.dumps(config_json, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if loaded.tokenizer_dir is not None:
        copy_tokenizer(loaded.tokenizer_dir, partial)
    os.replace(partial, folder)
    return sorted(set(stored) - {place.path for place in written})


def places(model: Model, prefix: str, outer: str) -> list[Place]:
    """Returns where each parameter of a model is stored; `prefix` and `outer` begin encoder and head names."""
    keys = {
        f"encoder/{own}": prefix + name
        for own, name in family_module(model.family).huggingface_keys(model.config).items()
    }
    for spec in model.head_specs:
        names = model.head(spec.name).huggingface_keys
        keys |= {f"heads/{spec.name}/{own}": outer + name for own, name in names.items()}
    abstract, _ = model.abstract()
    found = []
    for path, leaf in leaves(abstract).items():
        transposed = path.endswith("kernel")
        layered = "{layer}" in keys[path]
        shape = leaf.shape[1:] if layered else leaf.shape
        for layer in range(leaf.shape[0]) if layered else (None,):
            name = keys[path].format(layer=layer) if layered else keys[path]
            found.append(Place(path, layer, name, shape[::-1] if transposed else shape, transposed))
    return found


def read_config(config: dict, path: pathlib.Path) -> tuple[str, Any]:
    """config.json -> (family, Config), without the pooler. Raises InputError for what is unknown or not computed."""
    model_type = str(config.get("model_type"))[:60]
    if model_type not in MODEL_TYPES:
        raise InputError(f"{path}: {suggest('model_type', model_type, MODEL_TYPES)}")
    for key, allowed in ALLOWED.items():
        if key in config and config[key] not in allowed:
            raise InputError(f"{path}: {key}={config[key]!r:.60} is not supported, only {allowed[-1]!r}")
    missing = [FIELDS[field] for field in REQUIRED if config.get(FIELDS[field]) is None]
    if missing:
        raise InputError(f"{path}: no value for {', '.join(missing)}")
    family, _, implied = MODEL_TYPES[model_type]
    values = {field: config[key] for field, key in FIELDS.items() if config.get(key) is not None}
    check_values(family, values, f"{path}: ", FIELDS)
    values["max_positions"] -= values.get("pad_id", 1) + 1  # the table's rows up to pad_id stand for no position
    if values["max_positions"] < 1:
        given = f"{FIELDS['max_positions']}={config[FIELDS['max_positions']]}"
        raise InputError(f"{path}: {given} leaves no position beside the rows up to pad_token_id")
    try:
        return family, make_config(family, **values, **implied)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def select_heads(model: Model, names: tuple[str, ...] | None, where: object) -> Model:
    """Returns the model with these heads only, in the model's order. Raises InputError for an unknown one."""
    if names is None:
        return model
    known = [spec.name for spec in model.head_specs]
    for name in names:
        if name not in known:
            raise InputError(f"{where}: {suggest('head', name, known)}")
    return model.with_heads(*(spec for spec in model.head_specs if spec.name in names))


def describe(model: Model) -> dict:
    """The part of `meta` that says what the model is."""
    return {
        "family": model.family,
        "config": dataclasses.asdict(model.config),
        "heads": [dataclasses.asdict(spec) for spec in model.head_specs],
    }


def _open(source) -> tuple[pathlib.Path, Model, dict[str, Tensor], dict]:
    """Finds the model in a folder's names and shapes, and checks every one of them."""
    folder, provenance = fetch(source)
    path = folder / "config.json"
    config_json = read_json(path)
    family, config = read_config(config_json, path)
    tensors = open_tensors(folder)
    prefix = _prefix(tensors, folder)
    if config.layers > len(tensors):  # not worth a line for each that is missing
        raise InputError(f"{path}: {FIELDS['layers']}={config.layers}, but the weights are {len(tensors)} tensors")
    outer = _outer(prefix)
    config = dataclasses.replace(config, pooler=any(name.startswith(f"{prefix}pooler.") for name in tensors))
    model = Model(config, _find_heads(config_json, path, tensors, outer), family=family)

    known = [prefix + name for name in BUFFERS]
    wrong = []
    for place in places(model, prefix, outer):
        name = _stored_name(place.name, tensors, prefix)
        known.append(name)
        found = tensors.get(name)
        if found is None:
            wrong.append(f"{name}: expected {place.shape}, found nothing")
        elif found.shape != place.shape:
            wrong.append(f"{name}: expected {place.shape}, found {found.shape}")
        elif found.dtype not in FLOATS:
            wrong.append(f"{name}: expected a type of {', '.join(FLOATS)}, found {found.dtype}")
    if any(spec.type == "mlm" for spec in model.head_specs):
        for second, first in _tied(prefix).items():
            if second in tensors and second not in known:
                known.append(second)
                if first in tensors and not np.array_equal(tensors[second].read(), tensors[first].read()):
                    wrong.append(f"{second}: expected the values of {first} (they are tied), found others")
    wrong += [f"{name}: not expected, found {tensors[name].shape}" for name in sorted(set(tensors) - set(known))]
    if wrong:
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        shown = "; ".join(wrong[:NAMED]) + more
        raise InputError(f"{folder}: the weights do not fit {path.name} in {len(wrong)} places: {shown}")
    ignored = sorted(set(tensors) & {prefix + name for name in BUFFERS})
    if config_json.get("classifier_dropout") not in (None, config.hidden_dropout):
        ignored.append(f"classifier_dropout={config_json['classifier_dropout']} (heads use hidden_dropout)")
    return folder, model, tensors, {**describe(model), "provenance": {**provenance, "ignored": ignored}}


def _find_heads(config_json: dict, path: pathlib.Path, tensors: dict, outer: str) -> tuple[HeadSpec, ...]:
    """The head types that have a tensor in the file; `architectures` decides between types that share names."""
    kinds = {type: head_types.make(HeadSpec(type, type), None, Compute()) for type in head_types.types()}
    found = {
        type: {outer + name for name in kind.huggingface_keys.values()} & set(tensors) for type, kind in kinds.items()
    }
    architectures = config_json.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise InputError(f"{path}: architectures={architectures!r:.60}: expected a list of names")
    for name in architectures:
        if name.endswith(NOT_COMPUTED) and any(found.values()):
            raise InputError(f"{path}: the head of {name} is not computed here; save its encoder alone and read that")
    specs = []
    for type, names in found.items():
        rivals = any(names & others for other, others in found.items() if other != type)
        if names and (not rivals or any(name.endswith(kinds[type].architecture) for name in architectures)):
            specs.append(HeadSpec(type, type, _labels(config_json, path) if type in LABELLED else ()))
    return tuple(specs)


def _labels(config_json: dict, path: pathlib.Path) -> tuple[str, ...]:
    labels = config_json.get("id2label")
    if labels is None:  # Hugging Face's own default
        return ("LABEL_0", "LABEL_1")
    if not isinstance(labels, dict) or set(labels) != {str(i) for i in range(len(labels))}:
        raise InputError(f"{path}: id2label must map 0, 1, ... to labels, found {labels!r:.200}")
    found = tuple(str(labels[str(i)]) for i in range(len(labels)))
    check_labels(found, f"{path}: id2label")
    return found


def _prefix(tensors: dict, folder: pathlib.Path) -> str:
    found = sorted(name.removesuffix(ANCHOR) for name in tensors if name == ANCHOR or name.endswith(f".{ANCHOR}"))
    if len(found) != 1:
        what = f"encoders under {found}" if found else f"no tensor named {ANCHOR}, with or without a prefix"
        raise InputError(f"{folder}: expected the weights of one encoder, found {what}")
    return found[0]


def _outer(prefix: str) -> str:
    """Heads stand beside the encoder: "roberta." -> "", "model.roberta." -> "model."."""
    return prefix[: prefix.rstrip(".").rfind(".") + 1]


def _tied(prefix: str) -> dict[str, str]:
    outer = _outer(prefix)
    return {outer + a: (prefix if b.startswith("embeddings.") else outer) + b for a, b in TIED.items()}


def _stored_name(name: str, tensors: dict, prefix: str) -> str:
    """The name under which a tensor is in the file: its own, or the one that it is tied to."""
    others = [second for second, first in _tied(prefix).items() if first == name and second in tensors]
    return others[0] if others and name not in tensors else name


def _exported_head(model: Model, name: str | None) -> HeadSpec | None:
    specs = {spec.name: spec for spec in model.head_specs if model.head(spec.name).architecture}
    if name is None and len(specs) > 1:
        raise InputError(
            f"the model has several heads ({', '.join(specs)}); choose one (head), or the encoder alone (encoder_only)"
        )
    other = next((spec for spec in model.head_specs if spec.name == name), None)
    if other is not None and name not in specs:
        raise InputError(
            f"no Hugging Face class computes the head {name!r} (type {other.type}); "
            "export the encoder alone (encoder_only)"
        )
    if name is not None and name not in specs:
        raise InputError(suggest("head with a Hugging Face class", name, specs))
    spec = next(iter(specs.values()), None) if name is None else specs[name]
    if spec is not None and spec.pooler:
        raise InputError(
            f"the head {spec.name!r} reads the pooler's output, which no Hugging Face class computes; "
            "export the encoder alone (encoder_only)"
        )
    return spec


def _config_json(model: Model, dtype: str) -> dict:
    config = model.config
    fitting = [
        (name, prefix)
        for name, (family, prefix, implied) in MODEL_TYPES.items()
        if family == model.family and all(getattr(config, field) == value for field, value in implied.items())
    ]
    if not fitting:
        raise InputError(f"the family {model.family!r} has no Hugging Face class with this config")
    model_type, prefix = fitting[0]
    spec = model.head_specs[0] if model.head_specs else None
    values = {key: getattr(config, field) for field, key in FIELDS.items()}
    values["max_position_embeddings"] += config.pad_id + 1
    content = {
        "architectures": [prefix + ("Model" if spec is None else model.head(spec.name).architecture)],
        "model_type": model_type,
        **values,
        **{key: allowed[0] for key, allowed in ALLOWED.items() if allowed[0] is not None},
        "bos_token_id": 0,
        "eos_token_id": 2,
        "tie_word_embeddings": True,
        "dtype": dtype,
    }
    if spec is not None and spec.labels:
        content["id2label"] = {str(i): label for i, label in enumerate(spec.labels)}
        content["label2id"] = {label: i for i, label in enumerate(spec.labels)}
    return content
