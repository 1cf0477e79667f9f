"""What the folder of a sentence-transformers model says of its vectors: modules.json and a folder for each module.

Written against the files of sentence-transformers 2 to 5: 1_Pooling/config.json, 2_Dense/config.json with its weights,
sentence_bert_config.json, config_sentence_transformers.json.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

import numpy as np

from jxstilts.models.heads.embedding import ACTIVATIONS, Recipe
from jxstilts.models.tensor_files import open_tensors, read_json
from jxstilts.runtime import InputError

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
LENGTHS = "sentence_bert_config.json"
POOLINGS = {"cls": "first", "mean": "mean"}  # their name -> ours
DENSE = {"kernel": "linear.weight", "bias": "linear.bias"}


@dataclasses.dataclass(frozen=True)
class Found:
    """A folder's recipe, and the folder of its dense layer, if it has one."""

    recipe: Recipe
    dense: pathlib.Path | None = None

    def arrays(self, width: int) -> dict[str, np.ndarray]:
        """Returns the dense layer, {"kernel" [width, outputs], "bias" [outputs]}; {} where there is none."""
        if self.dense is None:
            return {}
        tensors, outputs = open_tensors(self.dense), self.recipe.dense
        shapes = {"linear.weight": (outputs, width), "linear.bias": (outputs,)}
        given = {name: tensor.shape for name, tensor in tensors.items()}
        if given != shapes:
            raise InputError(f"{self.dense}: expected the tensors {shapes}, found {given}")
        return {own: tensors[name].read().T for own, name in DENSE.items()}


def read(folder: pathlib.Path) -> Found | None:
    """Returns how a folder's model makes vectors; None where it is no sentence-transformers folder.

    Raises InputError for a module, a pooling or a setting that is not computed here: the vectors would be others.
    """
    path = folder / MODULES
    if not path.is_file():
        return None
    modules = _list(path)
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in (
        [],
        ["Normalize"],
        ["Dense"],
        ["Dense", "Normalize"],
    ):
        raise InputError(
            f"{path}: the modules {', '.join(kinds)} are not computed here, only Transformer, Pooling and then Dense, "
            "Normalize or both; without the file the encoder alone is read"
        )
    recipe = Recipe(pooling=_pooling(_inside(folder, modules[1]) / "config.json"), normalise="Normalize" in kinds)
    recipe = dataclasses.replace(recipe, max_length=_max_length(folder), prefix=_prefix(folder / PROMPTS))
    if "Dense" not in kinds:
        return Found(recipe)
    dense = _inside(folder, modules[2])
    config = read_json(dense / "config.json")
    activation = str(config.get("activation_function", "")).rpartition(".")[2].lower()
    if activation not in ACTIVATIONS:
        raise InputError(
            f"{dense / 'config.json'}: activation_function={activation!r}: known: {', '.join(ACTIVATIONS)}"
        )
    if type(config.get("out_features")) is not int or config.get("bias") is False:
        raise InputError(f"{dense / 'config.json'}: expected out_features, a whole number, and a bias")
    return Found(dataclasses.replace(recipe, dense=config["out_features"], activation=activation), dense)


def write(folder: pathlib.Path, recipe: Recipe, dense: Mapping[str, np.ndarray]) -> None:
    """Writes a model's recipe into its folder, for sentence-transformers and for `read`."""
    from safetensors.numpy import save_file

    names = [
        "Transformer",
        "Pooling",
        *(["Dense"] if recipe.dense else []),
        *(["Normalize"] if recipe.normalise else []),
    ]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else f"{i}_{name}",
            "type": f"sentence_transformers.models.{name}",
        }
        for i, name in enumerate(names)
    ]
    width = dense["kernel"].shape[0] if recipe.dense else None
    theirs = {ours: name for name, ours in POOLINGS.items()}
    if recipe.pooling not in theirs or recipe.state != -1:
        raise InputError(f"sentence-transformers has no module for {recipe}; export the encoder alone (encoder_only)")
    _json(folder / MODULES, modules)
    pooling = {
        f"pooling_mode_{name}_token{'' if name == 'cls' else 's'}": name == theirs[recipe.pooling] for name in POOLINGS
    }
    _json(folder / "1_Pooling/config.json", pooling)
    _json(folder / LENGTHS, {"max_seq_length": recipe.max_length or None, "do_lower_case": False})
    if recipe.prefix:
        _json(folder / PROMPTS, {"prompts": {"query": recipe.prefix}, "default_prompt_name": "query"})
    if recipe.dense:
        activation = {"tanh": "torch.nn.modules.activation.Tanh", "identity": "torch.nn.modules.linear.Identity"}
        config = {"in_features": width, "out_features": recipe.dense, "bias": True}
        _json(folder / "2_Dense/config.json", config | {"activation_function": activation[recipe.activation]})
        arrays = {name: np.ascontiguousarray(np.asarray(dense[own]).T) for own, name in DENSE.items()}
        save_file(arrays, folder / "2_Dense/model.safetensors", metadata={"format": "pt"})


def _json(path: pathlib.Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _list(path: pathlib.Path) -> list[dict]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, list) or not all(isinstance(module, dict) for module in found):
        raise InputError(f"{path}: expected a list of modules")
    return found


def _inside(folder: pathlib.Path, module: dict) -> pathlib.Path:
    name = module.get("path")
    if not isinstance(name, str) or pathlib.PurePath(name).name != name:
        raise InputError(f"{folder / MODULES}: path={name!r:.60}: expected the name of a folder beside the file")
    return folder / name


def _pooling(path: pathlib.Path) -> str:
    config = read_json(path)
    asked = [
        key.removeprefix("pooling_mode_") for key, value in config.items() if value is True and "pooling_mode" in key
    ]
    asked = [name.removesuffix("_tokens").removesuffix("_token") for name in asked] or [config.get("pooling_mode")]
    if len(asked) != 1 or asked[0] not in POOLINGS or config.get("include_prompt") is False:
        raise InputError(
            f"{path}: this pooling is not computed here, only one of {', '.join(POOLINGS)} over all tokens"
        )
    return POOLINGS[asked[0]]


def _max_length(folder: pathlib.Path) -> int:
    path = next(iter(sorted(folder.glob("sentence_*_config.json"))), folder / LENGTHS)  # older ones name the type
    config = read_json(path) if path.is_file() else {}
    if config.get("do_lower_case"):
        raise InputError(f"{path}: do_lower_case: text is not lower-cased here before a tokenizer that does not")
    length = config.get("max_seq_length") or 0
    if type(length) is not int or length < 0:
        raise InputError(f"{path}: max_seq_length={length!r:.60}: expected a whole number")
    return length


def _prefix(path: pathlib.Path) -> str:
    """Returns the prompt that is put before every text where nothing is said; most folders name none."""
    config = read_json(path) if path.is_file() else {}
    name, prompts = config.get("default_prompt_name"), config.get("prompts") or {}
    if name is None:
        return ""
    if not isinstance(prompts, dict) or not isinstance(prompts.get(name), str):
        raise InputError(f"{path}: default_prompt_name={name!r:.60} is none of the prompts")
    return prompts[name]
