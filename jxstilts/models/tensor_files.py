"""Weight files as they are published: safetensors, torch or Flax files, whole or sharded; from a folder or from a hub.

Formats: https://huggingface.co/docs/safetensors (header of 8 bytes + JSON, then raw tensors); torch files are read with
`weights_only=True`, Flax files (flax_model.msgpack) by `flax.serialization`; both build arrays and nothing else.
"""

import dataclasses
import json
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from jxstilts.runtime import InputError, sha256_file, shown

FLOATS = ("F64", "F32", "F16", "BF16")
WEIGHTS = (  # the first that is there; torch files, which need torch, come last
    "model.safetensors", "model.safetensors.index.json", "flax_model.msgpack", "flax_model.msgpack.index.json",
    "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
FLAX = {"kernel": "weight", "scale": "weight", "embedding": "weight"}  # last part of a Flax name -> of torch's
TOKENIZERS = ("tokenizer.json", "*.bpe.model", "vocab.txt")  # any one is enough to make a tokenizer
TOKENIZER_FILES = (
    *TOKENIZERS, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a file: its shape and dtype (safetensors' name, e.g. "F32") are known, its values not yet read."""

    shape: tuple[int, ...]
    dtype: str
    file: pathlib.Path
    read: Callable[[], np.ndarray]  # -> float32


def fetch(source: str | pathlib.Path) -> tuple[pathlib.Path, dict]:
    """Returns (folder, {"source", "revision"}) of a local folder, or of a hub id `name`, `owner/name[@revision]`.

    A hub id is downloaded into the Hugging Face cache, or found there; "revision" is the commit that it resolved to.
    Raises InputError when there is neither such a folder nor such an id, or the hub cannot be reached.
    """
    path = pathlib.Path(source).expanduser()
    if path.is_dir():
        return path, {"source": str(source), "revision": None}
    name, _, revision = str(source).partition("@")
    if path.exists() or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise InputError(
            f"{source}: not a folder and not a hub id; give a bundle, a Hugging Face folder or an id (owner/name)"
        )
    from huggingface_hub import snapshot_download

    def download(*patterns):
        try:
            return pathlib.Path(snapshot_download(name, revision=revision or None, allow_patterns=list(patterns)))
        except (OSError, ValueError) as error:  # the hub's own errors, connection errors included, derive from these
            raise InputError(
                f"{source}: there is no such folder, and the hub did not give this id: {_one_line(error)}; where there "
                "is no network, download the folder elsewhere (hf download) and give its path instead"
            ) from error

    for whole, index in zip(WEIGHTS[::2], WEIGHTS[1::2], strict=True):
        stem, _, end = whole.partition(".")
        folder = download("config.json", f"{stem}*.{end}", index, *TOKENIZER_FILES)
        if (folder / whole).exists() or (folder / index).exists():
            break
    return folder, {"source": name, "revision": folder.name}


def read_json(path: pathlib.Path) -> dict:
    """Returns a JSON object. Raises InputError when the file is missing or is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {_one_line(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found a {type(content).__name__}")
    return content


def open_tensors(folder: pathlib.Path) -> dict[str, Tensor]:
    """Returns {name: Tensor} of a folder's weights; safetensors files are left on disk until a tensor is read.

    Raises: InputError for a folder without weights, a damaged file, a name that occurs twice, or an index that does
    not agree with its shards.
    """
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise InputError(f"{folder}: holds no weights; expected one of {', '.join(WEIGHTS)}")
    if weights.suffix != ".json":
        return open_file(weights)
    index = read_json(weights).get("weight_map")
    if not isinstance(index, dict) or not all(
        isinstance(file, str) and pathlib.PurePath(file).name == file for file in index.values()
    ):
        raise InputError(f"{weights}: expected a 'weight_map' of tensor names to files of the same folder")
    _check_names(weights, (*index, *index.values()))
    if weights.name.startswith("flax"):
        index = {_torch_name(name.replace("/", ".")): file for name, file in index.items()}
    found: dict[str, Tensor] = {}
    for file in sorted(set(index.values())):
        tensors = open_file(folder / file)
        twice = sorted(set(tensors) & set(found))
        if twice:
            raise InputError(
                f"{folder / file}: holds tensors of another shard as well: {shown(', '.join(twice), 2000)}"
            )
        found |= tensors
    astray = sorted(name for name, file in index.items() if name not in found or found[name].file.name != file)
    if astray:
        raise InputError(f"{weights}: not in the file that it names: {shown(', '.join(astray), 2000)}")
    return found


def file_hashes(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Returns {file name: SHA-256} of the files that the tensors come from."""
    return {file.name: sha256_file(file) for file in sorted({tensor.file for tensor in tensors.values()})}


def find_tokenizer(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns the folder when a tokenizer can be made from its files."""
    return folder if any(any(folder.glob(pattern)) for pattern in TOKENIZERS) else None


def check_tokenizer(folder: pathlib.Path) -> None:
    """Raises InputError when no tokenizer can be made from the folder's files."""
    if find_tokenizer(folder) is None:
        raise InputError(f"{folder}: holds no tokenizer; expected {' or '.join(TOKENIZERS)}")


def copy_tokenizer(source: pathlib.Path, target: pathlib.Path) -> dict[str, str]:
    """Copies the tokenizer files of a folder, and nothing else of it. Returns {file name: SHA-256}."""
    check_tokenizer(source)
    target.mkdir(exist_ok=True)
    files = {file for pattern in TOKENIZER_FILES for file in source.glob(pattern)}
    return {file.name: sha256_file(shutil.copyfile(file, target / file.name)) for file in sorted(files)}


def open_file(path: pathlib.Path) -> dict[str, Tensor]:
    """Returns {name: Tensor} of one file. Raises InputError where it is missing or damaged."""
    if not path.is_file():
        raise InputError(f"{path}: this file of the model is missing")
    openers = {".safetensors": _open_safetensors, ".msgpack": _open_flax}
    return openers.get(path.suffix, _open_torch)(path)


def _open_safetensors(path: pathlib.Path) -> dict[str, Tensor]:
    import ml_dtypes  # noqa: F401  numpy learns the name bfloat16
    from safetensors import SafetensorError, safe_open

    def reader(name):
        def read():
            try:
                return file.get_tensor(name).astype(np.float32, copy=False)
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path}: tensor {name} cannot be read: {_one_line(error)}") from error

        return read

    try:
        file = safe_open(path, framework="np")
        slices = {name: file.get_slice(name) for name in file.keys()}
        _check_names(path, slices)
        found = {
            name: Tensor(tuple(part.get_shape()), part.get_dtype(), path, reader(name)) for name, part in slices.items()
        }
        return _from_flax(found) if (file.metadata() or {}).get("format") == "flax" else found
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged, or not a safetensors file: {_one_line(error)}") from error


def _open_torch(path: pathlib.Path) -> dict[str, Tensor]:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path}: a torch file can only be read where torch is installed; pip install torch, or convert the model "
            "to model.safetensors"
        ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises no less: a damaged file is a wrong program for its own small machine
        reason = str(error).rpartition("WeightsUnpickler error: ")[2]  # before it stands advice to trust the file
        reason = shown(" ".join(reason.split()), 300)
        raise InputError(f"{path}: damaged, or holds more than tensors: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise InputError(f"{path}: expected a dictionary of tensors by name")
    _check_names(path, state)
    short = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}

    def reader(tensor):
        def read():
            try:
                return tensor.detach().to(torch.float32).numpy()
            except (RuntimeError, TypeError) as error:  # sparse, quantised or of no memory
                raise InputError(f"{path}: a tensor of {tensor.layout} cannot be read: {_one_line(error)}") from error

        return read

    return {
        name: Tensor(tuple(tensor.shape), short.get(tensor.dtype, str(tensor.dtype)), path, reader(tensor))
        for name, tensor in state.items()
    }


def _open_flax(path: pathlib.Path) -> dict[str, Tensor]:
    """Reads what transformers' Flax models save: nested dictionaries of arrays; the whole file stays in memory."""
    from flax.serialization import msgpack_restore

    try:
        state = msgpack_restore(path.read_bytes())
    except (
        ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RecursionError, TypeError, ValueError,
    ) as error:  # fmt: skip
        reason = _one_line(error) or type(error).__name__
        raise InputError(f"{path}: damaged, or not a file of transformers' Flax models: {reason}") from error
    found, waiting = {}, [("", state)]
    while waiting:
        where, node = waiting.pop()
        if not isinstance(node, dict):
            raise InputError(f"{path}: expected nested dictionaries of arrays, found a {type(node).__name__}")
        _check_names(path, node)
        for name, value in node.items():
            if isinstance(value, np.ndarray):
                found[where + name] = value
            else:
                waiting.append((f"{where}{name}.", value))
    _check_names(path, found)
    short = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    kinds = {name: array.dtype.name for name, array in found.items()}
    return _from_flax({
        name: Tensor(array.shape, short.get(kinds[name], kinds[name]), path, partial(array.astype, np.float32))
        for name, array in found.items()
    })  # fmt: skip


def _from_flax(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gives tensors of a Flax model their names and shapes in the torch model: a kernel is a weight transposed.

    As transformers' own modeling_flax_pytorch_utils (version 4).
    """
    found = {}
    for name, tensor in tensors.items():
        if name.rpartition(".")[2] == "kernel":
            tensor = dataclasses.replace(tensor, shape=tensor.shape[::-1], read=partial(_transposed, tensor))
        today = _torch_name(name)
        if today in found:
            raise InputError(f"{tensor.file}: {name} and another tensor are both {today}")
        found[today] = tensor
    return found


def _torch_name(name: str) -> str:
    begin, dot, last = name.rpartition(".")
    return begin + dot + FLAX.get(last, last)


def _transposed(tensor: Tensor) -> np.ndarray:
    return tensor.read().T


def _check_names(path: pathlib.Path, names: Iterable) -> None:
    """Raises InputError for a name that no model gives a tensor, nor a message could show."""
    for name in names:
        if not isinstance(name, str) or not name.isprintable() or len(name) > 200:
            raise InputError(f"{path}: damaged: it has a tensor, or a file, named {name!r:.60}")


def _one_line(error: BaseException) -> str:
    return shown(" ".join(str(error).split()), 300)
