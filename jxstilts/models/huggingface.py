"""Hugging Face folders: config.json and weights <-> a Model and its parameters.

A family says which tensor is which parameter (`families/base.py`); every tensor of a folder is mapped exactly once, is
listed by the family as known and not needed, or is an error.
"""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from jxstilts.checkpoint import leaves
from jxstilts.models import sentence_files
from jxstilts.models.checks import check_labels, check_values
from jxstilts.models.families.base import HuggingFace
from jxstilts.models.heads import HeadSpec, kind
from jxstilts.models.heads.embedding import EmbeddingSpec
from jxstilts.models.layers import Compute
from jxstilts.models.model import Model, Params, families, family_module, make_config
from jxstilts.models.tensor_files import (
    FLOATS,
    Tensor,
    fetch,
    file_hashes,
    find_tokenizer,
    open_tensors,
    read_json,
)
from jxstilts.runtime import InputError, suggest

PROBLEMS = (None, "single_label_classification")  # what a head here may be trained for
DENSE = "heads/embedding/dense"  # of an embedding model's recipe
NAMED = 30  # tensors that one message names


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model with its parameters. `meta` is what a bundle records of it (see `models/bundle.py`); `path`: its own."""

    model: Model
    params: Params
    tokenizer_dir: pathlib.Path | None = None
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    path: str = ""


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
    prefix = _prefix(names_of(model).anchor, tensors, folder)
    abstract, _ = model.abstract()
    arrays = {path: np.empty(leaf.shape, np.float32) for path, leaf in leaves(abstract).items()}
    tied, found = _tied(model, prefix), sentence_files.read(folder)
    for name, array in (found.arrays(model.config.width) if found else {}).items():
        if f"{DENSE}/{name}" in arrays:
            arrays[f"{DENSE}/{name}"][...] = array
    for place in places(model, prefix):
        array = tensors[_stored_name(place.name, tensors, tied)].read()
        arrays[place.path][... if place.layer is None else place.layer] = array.T if place.transposed else array
    params = jax.tree_util.tree_map_with_path(
        lambda path, _: arrays[jax.tree_util.keystr(path, simple=True, separator="/")], abstract
    )
    return Loaded(model, params, find_tokenizer(folder), meta)


def inspect(source: str | pathlib.Path) -> tuple[Model, dict]:
    """Returns (model, meta) of a Hugging Face folder or hub id without reading its arrays."""
    _, model, _, meta = _open(source)
    return model, meta


def places(model: Model, prefix: str) -> list[Place]:
    """Returns where each parameter of a model is stored; `prefix` begins the encoder's names."""
    body = family_module(model.family).huggingface_keys(model.config)
    keys = {f"encoder/{own}": prefix + name for own, name in body.items()}
    for spec in model.head_specs:
        names = model.head(spec.name).layout.names
        keys |= {f"heads/{spec.name}/{own}": _beside(name, prefix) for own, name in names.items()}
    abstract, _ = model.abstract()
    found = []
    for path, leaf in leaves(abstract).items():
        if path.startswith(f"{DENSE}/"):  # in a folder of its own, see `sentence_files`
            continue
        transposed = path.endswith("kernel")
        layered = "{layer}" in keys[path] or "{next}" in keys[path]
        shape = leaf.shape[1:] if layered else leaf.shape
        for layer in range(leaf.shape[0]) if layered else (None,):
            name = keys[path].format(layer=layer, next=layer + 1) if layered else keys[path]
            found.append(Place(path, layer, name, shape[::-1] if transposed else shape, transposed))
    return found


def read_config(config: dict, path: pathlib.Path) -> tuple[str, Any]:
    """config.json -> (family, Config), without what only the tensors show. Raises InputError for what is not computed.

    path: of config.json, for messages.
    """
    known = {key: family for family in families() for key in family_module(family).HUGGINGFACE.model_types}
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in known:
        types = ", ".join(f"{key} (family {family})" for key, family in sorted(known.items()))
        raise InputError(f"{path}: no family computes model_type={model_type!r:.60}. Those that are known: {types}")
    family = known[model_type]
    names = family_module(family).HUGGINGFACE
    try:
        config = names.read(config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    for key, allowed in {**names.allowed, "problem_type": PROBLEMS}.items():
        if key in config and config[key] not in allowed:
            raise InputError(f"{path}: {key}={config[key]!r:.60} is not supported, only {allowed[-1]!r}")
    missing = [names.fields[field] for field in names.required if config.get(names.fields[field]) is None]
    if missing:
        raise InputError(f"{path}: no value for {', '.join(missing)}")
    _, implied = names.model_types[model_type]
    values = {field: config[key] for field, key in names.fields.items() if config.get(key) is not None}
    check_values(family, values, f"{path}: ", names.fields)
    try:
        made = make_config(family, **values, **implied)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    positions = made.max_positions - made.first_position
    if positions < 1:
        given = f"{names.fields['max_positions']}={made.max_positions}"
        raise InputError(f"{path}: {given} leaves no position beside the rows up to pad_token_id")
    return family, dataclasses.replace(made, max_positions=positions)


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
        "heads": [_described(spec) for spec in model.head_specs],
    }


def _described(spec: HeadSpec) -> dict:
    """A head's entry; without an aggregation as there has always been one."""
    return {key: value for key, value in dataclasses.asdict(spec).items() if key != "aggregation" or value}


def _open(source) -> tuple[pathlib.Path, Model, dict[str, Tensor], dict]:
    """Finds the model in a folder's names and shapes, and checks every one of them."""
    folder, provenance = fetch(source)
    path = folder / "config.json"
    config_json = read_json(path)
    family, config = read_config(config_json, path)
    names = family_module(family).HUGGINGFACE
    tensors = _renamed(open_tensors(folder), names.renamed, folder)
    prefix = _prefix(names.anchor, tensors, folder)
    if config.layers > len(tensors):  # not worth a line for each that is missing
        given = f"{names.fields['layers']}={config.layers}"
        raise InputError(f"{path}: {given}, but the weights are {len(tensors)} tensors")
    shown_by = {field: prefix + begin for field, begin in names.optional.items()}
    there = {field: any(name.startswith(begin) for name in tensors) for field, begin in shown_by.items()}
    config = dataclasses.replace(config, **there, **names.shown(tensors, prefix))
    model = Model(config, _find_heads(config_json, path, (family, config), tensors, prefix), family=family)
    if found := sentence_files.read(folder):
        model = model.with_heads(*model.head_specs, EmbeddingSpec("embedding", "embedding", recipe=found.recipe))

    unused = {prefix + name for name in names.buffers} | {_beside(name, prefix) for name in names.unused}
    wrong = _misfits(model, prefix, tensors, unused)
    if wrong:
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        shown = "; ".join(wrong[:NAMED]) + more
        raise InputError(f"{folder}: the weights do not fit {path.name} in {len(wrong)} places: {shown}")
    ignored, rate = sorted(set(tensors) & unused), config_json.get("classifier_dropout")
    if "classifier_dropout" not in names.fields.values() and rate not in (None, config.hidden_dropout):
        ignored.append(f"classifier_dropout={rate} (heads use hidden_dropout)")
    return folder, model, tensors, {**describe(model), "provenance": {**provenance, "ignored": ignored}}


def _misfits(model: Model, prefix: str, tensors: dict[str, Tensor], unused: set[str]) -> list[str]:
    """Returns a line for each tensor that is not as the model has it, or that no part of the model has."""
    known, wrong, tied = set(unused), [], _tied(model, prefix)
    for place in places(model, prefix):
        name = _stored_name(place.name, tensors, tied)
        known.add(name)
        found = tensors.get(name)
        if found is None:
            wrong.append(f"{name}: expected {place.shape}, found nothing")
        elif found.shape != place.shape:
            wrong.append(f"{name}: expected {place.shape}, found {found.shape}")
        elif found.dtype not in FLOATS:
            wrong.append(f"{name}: expected a type of {', '.join(FLOATS)}, found {found.dtype}")
    for second, first in tied.items():
        if second in tensors and second not in known:
            known.add(second)
            if first in tensors and not np.array_equal(tensors[second].read(), tensors[first].read()):
                wrong.append(f"{second}: expected the values of {first} (they are tied), found others")
    return wrong + [f"{name}: not expected, found {tensors[name].shape}" for name in sorted(set(tensors) - known)]


def _find_heads(
    config_json: dict, path: pathlib.Path, encoder: tuple[str, Any], tensors: Iterable[str], prefix: str
) -> tuple[HeadSpec, ...]:
    """The head types that have a tensor in the file; `architectures` decides between types that share names.

    encoder: family and config.
    """
    family, config = encoder
    module = family_module(family)
    layouts = {type: layout for type, layout in module.heads(config).items() if layout.architecture}
    found = {
        type: {_beside(name, prefix) for name in layout.names.values()} & set(tensors)
        for type, layout in layouts.items()
    }
    architectures = config_json.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise InputError(f"{path}: architectures={architectures!r:.60}: expected a list of names")
    for name in architectures:
        if name.endswith(module.HUGGINGFACE.uncomputed) and any(found.values()):
            raise InputError(f"{path}: the head of {name} is not computed here; save its encoder alone and read that")
    specs = []
    for type, names in found.items():
        rivals = any(names & others for other, others in found.items() if other != type)
        if names and (not rivals or any(name.endswith(layouts[type].architecture) for name in architectures)):
            specs.append(HeadSpec(type, type, _labels(config_json, path) if kind(type).labelled else ()))
    return tuple(sorted(specs, key=lambda spec: spec.type))


def _labels(config_json: dict, path: pathlib.Path) -> tuple[str, ...]:
    labels = config_json.get("id2label")
    if labels is None:  # Hugging Face's own default
        return ("LABEL_0", "LABEL_1")
    if not isinstance(labels, dict) or set(labels) != {str(i) for i in range(len(labels))}:
        raise InputError(f"{path}: id2label must map 0, 1, ... to labels, found {labels!r:.200}")
    found = tuple(str(labels[str(i)]) for i in range(len(labels)))
    check_labels(found, f"{path}: id2label")
    return found


def names_of(model: Model) -> HuggingFace:
    return family_module(model.family).HUGGINGFACE


def _prefix(anchor: str, tensors: Iterable[str], folder: pathlib.Path) -> str:
    found = sorted(name.removesuffix(anchor) for name in tensors if name == anchor or name.endswith(f".{anchor}"))
    if len(found) != 1:
        what = f"encoders under {found}" if found else f"no tensor named {anchor}, with or without a prefix"
        raise InputError(f"{folder}: expected the weights of one encoder, found {what}")
    return found[0]


def _beside(name: str, prefix: str) -> str:
    """The full name of a head's tensor. Heads stand beside the encoder: that of "model.bert." under "model."."""
    inside = name.removeprefix("{body}")
    return prefix + inside if inside != name else prefix[: prefix.rstrip(".").rfind(".") + 1] + name


def _tied(model: Model, prefix: str) -> dict[str, str]:
    """{second name of a tensor: its first} of the encoder and all heads."""
    body = {prefix + second: prefix + first for second, first in names_of(model).tied.items()}
    pairs = {second: first for spec in model.head_specs for second, first in model.head(spec.name).layout.tied.items()}
    return body | {_beside(second, prefix): _beside(first, prefix) for second, first in pairs.items()}


def _stored_name(name: str, tensors: Iterable[str], tied: dict[str, str]) -> str:
    """The name under which a tensor is in the file: its own, or one that is tied to it."""
    others = [second for second, first in tied.items() if first == name and second in tensors]
    return others[0] if others and name not in tensors else name


def _renamed(tensors: dict[str, Tensor], ends: dict[str, str], folder: pathlib.Path) -> dict[str, Tensor]:
    """Gives tensors of an older version the names of today's."""
    found = {}
    for name, tensor in tensors.items():
        old = next((end for end in ends if name.endswith(end)), "")
        today = name.removesuffix(old) + ends.get(old, "")
        if today != name and today in tensors:
            raise InputError(f"{folder}: {name} and {today} are the same tensor, and both are there")
        found[today] = tensor
    return found
