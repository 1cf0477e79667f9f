"""LoRA as PEFT's folders have it: adapter_config.json and adapter_model.safetensors.

Tensors are base_model.model.MODULE.lora_A.weight [r, D] and .lora_B.weight [F, r], transposed to those here; MODULE is
Hugging Face's name of the dense layer in one layer of the model. A head that was trained beside them (modules_to_save)
has its tensors under base_model.model, too. https://huggingface.co/docs/peft/developer_guides/checkpoint
"""

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jxstilts.checkpoint import leaves, nested
from jxstilts.models import adapters, huggingface
from jxstilts.models.adapters import Adapter
from jxstilts.models.heads import HeadSpec
from jxstilts.models.huggingface import Loaded, Place, names_of, places
from jxstilts.models.model import Model, family_module, head_class
from jxstilts.models.tensor_files import Tensor, open_file, read_json
from jxstilts.runtime import InputError, suggest

CONFIG, WEIGHTS, BEGIN = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
TASKS = {"SEQ_CLS": "classification", "TOKEN_CLS": "tagging", "QUESTION_ANS": "span"}
# What changes what LoRA computes: (key, the values with which it is computed here)
PLAIN = {
    "peft_type": ("LORA",), "bias": ("none", None), "fan_in_fan_out": (False, None), "use_dora": (False, None),
    "rank_pattern": ({}, None), "alpha_pattern": ({}, None), "lora_bias": (False, None), "use_qalora": (False, None),
    "layer_replication": (None,), "alora_invocation_tokens": (None,), "trainable_token_indices": (None,),
    "target_parameters": (None,), "use_bdlora": (None, False), "arrow_config": (None,), "kasa_config": (None,),
    "velora_config": (None,),
}  # fmt: skip


def write(loaded: Loaded, folder: str | pathlib.Path, name: str, head: str | None = None) -> None:
    """Writes the LoRA of this name, for `peft.PeftModel.from_pretrained` on the model's base.

    head: a head to write with it, as modules_to_save; then for `AutoModelFor...`, else for `AutoModel`.
    Raises InputError for an adapter that is not there or no LoRA, a head that Hugging Face has no class for, and a
    folder that holds something.
    """
    folder = pathlib.Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists; export writes to a new folder")
    own = dict(loaded.model.adapters)
    if name not in own:
        raise InputError(f"adapter: {suggest('adapter', name, own)}")
    spec = own[name]
    if spec.kind != "lora":
        raise InputError(f"adapter: {name} is a {spec.kind} adapter: PEFT's folders are for LoRA")
    model = huggingface.select_heads(loaded.model, (head,) if head else (), "head")
    if head and not model.head(head).layout.architecture:
        raise InputError(f"head: no Hugging Face class computes the head {head!r}; leave it out")
    prefix = names_of(model).prefix if head else ""
    stored = {path: np.asarray(leaf) for path, leaf in leaves(loaded.params["adapters"][name]).items()}
    first, _ = spec.span(model.config.layers)
    tensors, modules = {}, []
    for module, (site, layer) in _modules(model).items():
        arrays = [stored.get(f"{site}/{half}") for half in ("a", "b")]
        if arrays[0] is not None and (layer is None or 0 <= layer - first < len(arrays[0])):
            modules.append(module)
            for half, array in zip("AB", arrays, strict=True):
                array = array if layer is None else array[layer - first]
                tensors[f"{BEGIN}{prefix}{module}.lora_{half}.weight"] = np.ascontiguousarray(array.T)
    beside = _head_places(model, prefix)
    for place in beside:
        array = np.asarray(leaves(loaded.params)[place.path])
        tensors[BEGIN + place.name] = np.ascontiguousarray(array.T if place.transposed else array)
    kinds = {kind: task for task, kind in TASKS.items()}
    content = {
        "peft_type": "LORA",
        "task_type": kinds.get(model.head_specs[0].type) if head else None,
        "base_model_name_or_path": loaded.meta.get("base", {}).get("path", loaded.path),
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": modules,
        "modules_to_save": sorted({place.name.partition(".")[0] for place in beside}) or None,
    }
    from safetensors.numpy import save_file

    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
    (partial / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder)


def read(loaded: Loaded, folder: str | pathlib.Path, name: str) -> Loaded:
    """Returns a model with the LoRA of a PEFT folder as its adapter `name`, and the head beside it, if there is one.

    The head is named after its type; its labels, which the folder does not say, are LABEL_0, LABEL_1, ...
    Raises InputError for what is not computed here, and for tensors that do not fit.
    """
    folder, model = pathlib.Path(folder), loaded.model
    path, content = folder / WEIGHTS, read_json(folder / CONFIG)
    for key, allowed in PLAIN.items():
        if content.get(key, allowed[0]) not in allowed:
            raise InputError(f"{folder / CONFIG}: {key}={content[key]!r:.60} is not computed here, only {allowed[0]!r}")
    rank, alpha = content.get("r"), content.get("lora_alpha")
    if type(rank) is not int or type(alpha) not in (int, float) or rank < 1:
        raise InputError(f"{folder / CONFIG}: r={rank!r:.60}, lora_alpha={alpha!r:.60}: expected two numbers")
    if name in dict(model.adapters):
        raise InputError(f"the model has an adapter {name!r}: take another name")
    alpha = alpha * rank**0.5 if content.get("use_rslora") else float(alpha)
    tensors = {key.removeprefix(BEGIN): tensor for key, tensor in open_file(path).items()}
    prefix = names_of(model).prefix
    prefix = prefix if any(key.startswith(prefix) for key in tensors) else ""
    known, parts, beside = _modules(model), {}, {}
    for key, tensor in tensors.items():
        module, _, half = key.removesuffix(".weight").removeprefix(prefix).rpartition(".lora_")
        if half in ("A", "B") and module in known:
            site, layer = known[module]
            parts.setdefault(f"{site}/{half.lower()}", {})[layer] = tensor
        else:
            beside[key] = tensor
    layers, matrices = _span(parts, model, path), tuple(sorted({part[:-2] for part in parts}))
    spec = Adapter("lora", matrices, rank, alpha, layers=layers)
    model = dataclasses.replace(model, adapters=(*model.adapters, (name, spec)))
    wanted = leaves(model.abstract()[0]["adapters"][name])
    made = {own: _stacked(each, wanted.get(own), f"{path}: {own}", rank) for own, each in parts.items()}
    params = {**loaded.params, "adapters": {**loaded.params.get("adapters", {}), name: nested(made)}}
    if beside:
        head = _head(model, content.get("task_type"), beside, path)
        model = model.with_heads(*(each for each in model.head_specs if each.name != head.name), head)
        own = {}
        for place in _head_places(model.with_heads(head), prefix):
            array = beside[place.name].read()
            own[place.path.removeprefix(f"heads/{head.name}/")] = jnp.asarray(array.T if place.transposed else array)
        params["heads"] = {**params["heads"], head.name: nested(own)}
    return dataclasses.replace(loaded, model=model, params=params)


def _modules(model: Model) -> dict[str, tuple[str, int | None]]:
    """Returns {Hugging Face's name of a dense layer, without prefix: (its path, its layer)}."""
    dense = adapters.sites(model.bare).dense
    found = {}
    for place in places(model.bare, ""):
        site = place.path.removeprefix("encoder/").removesuffix("/kernel")
        if site in dense and place.path.endswith("/kernel"):
            found[place.name.removesuffix(".weight")] = (site, place.layer)
    return found


def _head_places(model: Model, prefix: str) -> list[Place]:
    """Returns where the parameters of the model's heads are."""
    plain = dataclasses.replace(model, adapters=(), extra=())
    return [place for place in places(plain, prefix) if place.path.startswith("heads/")]


def _span(parts: Mapping[str, Mapping[int | None, Tensor]], model: Model, path: pathlib.Path) -> str:
    """Returns `Adapter.layers`. Raises InputError where the matrices do not have it in the same layers, in a row."""
    spans = {tuple(sorted(each)) for each in parts.values() if None not in each}
    whole, span = tuple(range(model.config.layers)), next(iter(spans), ())
    pairs = {part[:-2] for part in parts if f"{part[:-1]}a" in parts and f"{part[:-1]}b" in parts}
    in_a_row = len(spans) <= 1 and (not span or span == tuple(range(span[0], span[-1] + 1)))
    if not parts or not in_a_row or len(pairs) * 2 != len(parts):
        raise InputError(f"{path}: expected lora_A and lora_B of the same matrices in each of some layers, in a row")
    return ":" if span in ((), whole) else f"{span[0]}:{span[-1] + 1}"


def _stacked(tensors: Mapping[int | None, Tensor], wanted: Any, what: str, rank: int) -> jax.Array:
    """Returns the parameter that the tensors of its layers make."""
    shape = None if wanted is None else tuple(wanted.shape[-2:])[::-1]
    odd = [tensor.shape for tensor in tensors.values() if tensor.shape != shape]
    if odd:
        raise InputError(f"{what}: expected {shape} (r={rank}), found {odd[0]}")
    if None in tensors:
        return jnp.asarray(tensors[None].read().T)
    return jnp.stack([tensors[layer].read().T for layer in sorted(tensors)])


def _head(model: Model, task: Any, tensors: Mapping[str, Tensor], path: pathlib.Path) -> HeadSpec:
    """Returns the head that these tensors are, which the folder's task_type decides between heads of the same names."""
    layouts = family_module(model.family).heads(model.config)
    fitting = [kind for kind, layout in layouts.items() if set(layout.names.values()) == set(tensors)]
    fitting = [kind for kind in fitting if kind == TASKS.get(task)] or fitting
    if len(fitting) != 1:
        raise InputError(f"{path}: neither LoRA of this model nor one head of it: {', '.join(sorted(tensors))[:2000]}")
    names = layouts[fitting[0]].names
    count = tensors[names.get("out/kernel", names.get("kernel"))].shape[0]
    labels = tuple(f"LABEL_{i}" for i in range(count)) if head_class(fitting[0]).labelled else ()
    return HeadSpec(fitting[0], fitting[0], labels)
