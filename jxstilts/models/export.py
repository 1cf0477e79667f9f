"""A model as a Hugging Face folder: config.json, model.safetensors, the tokenizer, and an embedding model's recipe."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np

from jxstilts.checkpoint import leaves
from jxstilts.models import sentence_files
from jxstilts.models.heads import HeadSpec
from jxstilts.models.huggingface import DENSE, Loaded, Place, names_of, places
from jxstilts.models.model import Model
from jxstilts.models.tensor_files import copy_tokenizer
from jxstilts.runtime import InputError, suggest


def to_huggingface(
    loaded: Loaded, folder: str | pathlib.Path, *, head: str | None = None, encoder_only: bool = False
) -> list:
    """Writes config.json, model.safetensors and the tokenizer's files, for `AutoModel...from_pretrained`.

    An encoder alone is for `AutoModel` (without a pooler: `add_pooling_layer=False`); with a head, for the head's
    `AutoModelFor...`, which has no pooler unless the head reads it.

    Args:
        folder: must not exist, or be empty.
        head: which head to write; needed only if there are several.
        encoder_only: write no head.
    Returns: paths of the parameters that this architecture has no place for, and that were left out.
    Raises: InputError when the choice is not clear, the head has no Hugging Face class, or the model has adapters.
    """
    folder = pathlib.Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists; export writes to a new folder")
    if loaded.model.adapters:
        named = ", ".join(name for name, _ in loaded.model.adapters)
        raise InputError(
            f"the model has adapters ({named}), for which Hugging Face's classes have no place: add LoRA to the "
            "weights (merge), or write one as PEFT's folder (adapter)"
        )
    spec = None if encoder_only else _exported_head(loaded.model, head)
    model = dataclasses.replace(loaded.model, head_specs=() if spec is None else (spec,), extra=())
    names = names_of(model)
    if spec is not None and model.head(spec.name).pooling != "pooler":
        bare = dataclasses.replace(model.config, **dict.fromkeys(names.optional, False))
        model = dataclasses.replace(model, config=bare)

    stored = {path: np.asarray(leaf) for path, leaf in leaves(loaded.params).items()}
    tensors = {}
    written = places(model, "" if spec is None else names.prefix)
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
    recipe = None if spec is not None or encoder_only else loaded.model.recipe
    if recipe is not None:
        dense = {path.removeprefix(f"{DENSE}/"): leaf for path, leaf in stored.items() if path.startswith(f"{DENSE}/")}
        sentence_files.write(partial, recipe, dense)
        written += [Place(f"{DENSE}/{name}", None, name, (), False) for name in dense]
    os.replace(partial, folder)
    return sorted(set(stored) - {place.path for place in written})


def _computed(model: Model, spec: HeadSpec) -> bool:
    """Has Hugging Face a class with this head? None reads more than the last hidden states."""
    return bool(model.head(spec.name).layout.architecture) and not spec.aggregation


def _exported_head(model: Model, name: str | None) -> HeadSpec | None:
    specs = {spec.name: spec for spec in model.head_specs if _computed(model, spec)}
    unplaced = [
        spec.name for spec in model.head_specs
        if spec.name not in specs and model.head(spec.name).layout.layers is not None
    ]  # fmt: skip
    if name is None and not specs and unplaced:
        raise InputError(
            f"no Hugging Face class of the family {model.family!r} computes the head {', '.join(unplaced)}; export the "
            "encoder alone (encoder_only)"
        )
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
    if spec is not None and (head := model.head(spec.name)).pooling != head.layout.pooling:
        what = {"pooler": "the pooler's output", "mean": "the mean of the tokens", "first": "the first token"}
        raise InputError(
            f"the head {spec.name!r} reads {what[head.pooling]}, which no Hugging Face class computes; "
            "export the encoder alone (encoder_only)"
        )
    return spec


def _config_json(model: Model, dtype: str) -> dict:
    config, names = model.config, names_of(model)
    model_type, prefix = next(
        (model_type, prefix)
        for model_type, (prefix, implied) in names.model_types.items()
        if all(getattr(config, field) == value for field, value in implied.items())
    )
    spec = model.head_specs[0] if model.head_specs else None
    values = {key: getattr(config, field) for field, key in names.fields.items()}
    values[names.fields["max_positions"]] += config.first_position
    content = {
        "architectures": [prefix + (names.encoder if spec is None else model.head(spec.name).layout.architecture)],
        "model_type": model_type,
        **values,
        **{key: allowed[0] for key, allowed in names.allowed.items()},
        "tie_word_embeddings": True,
        **names.write(config),
        "dtype": dtype,
    }
    if spec is not None and spec.labels:
        content["id2label"] = {str(i): label for i, label in enumerate(spec.labels)}
        content["label2id"] = {label: i for i, label in enumerate(spec.labels)}
    return content
