"""Bundles: a folder with all one needs to use a model.

    bundle.json   format version, family, config, heads, provenance, SHA-256 of every parameter and of all together
    params/       the parameters (Orbax)
    tokenizer/    the tokenizer's files, if there is one

Parameters beside encoder and heads (params["extra"]) are read back as they are: bundle.json has their shapes, "extra".
Adapters are named and described in "adapters". Where they were trained on another model's encoder, params/ is without
it: "base" says where that model is, and "leaves" and "sha256" count its encoder, so that no other takes its place.
The Hugging Face counterpart is `models/huggingface.py`; `load` and `read_meta` take either.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jxstilts import checkpoint, processes
from jxstilts.config import build
from jxstilts.mesh import param_shardings
from jxstilts.models import huggingface
from jxstilts.models.adapters import Adapter
from jxstilts.models.checks import check_finite, check_labels, check_values
from jxstilts.models.heads import HeadSpec
from jxstilts.models.huggingface import Loaded
from jxstilts.models.layers import Compute
from jxstilts.models.model import Model, Params, head_class, make_config
from jxstilts.models.tensor_files import check_tokenizer, copy_tokenizer, read_json
from jxstilts.runtime import InputError, atomic_write, sha256_file, shown, versions

FORMAT = 1
FORMAT_APART = 2  # of a bundle with a base
META = "bundle.json"
KEYS = {
    "family": str, "config": dict, "heads": list, "provenance": dict, "sha256": str, "leaves": dict, "tokenizer": dict,
}  # fmt: skip


def save(
    folder: str | pathlib.Path,
    model: Model,
    params: Params,
    *,
    tokenizer_files: pathlib.Path | None = None,
    provenance: dict | None = None,
    base: "Base | None" = None,
) -> str:
    """Writes a bundle, in place of an older one if there is one. All processes call it together.

    Args:
        folder: appears, or changes, only when everything is written.
        params: of `model`, exactly; may be sharded.
        tokenizer_files: folder whose tokenizer is copied.
        provenance: where the parameters come from; anything that is JSON.
        base: the model whose encoder `params` have; it is not written again.
    Returns: the SHA-256 of all parameters.
    Raises: InputError when `folder` holds something else than a bundle, or `params` are not the model's.
    """
    folder = pathlib.Path(folder).absolute()
    if folder.exists() and not is_bundle(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not a bundle; it is left alone, give another folder")
    abstract, _ = model.abstract()
    expected = {path: tuple(leaf.shape) for path, leaf in checkpoint.leaves(abstract).items()}
    given = {path: tuple(leaf.shape) for path, leaf in checkpoint.leaves(params).items()}
    if expected != given:
        wrong = sorted(path for path in expected | given if expected.get(path) != given.get(path))
        lines = [f"{path}: expected {expected.get(path)}, found {given.get(path)}" for path in wrong]
        raise InputError("these parameters are not the model's: " + "; ".join(lines))

    if tokenizer_files is not None:  # checked here, because an error past a barrier leaves the other processes waiting
        check_tokenizer(tokenizer_files)

    partial, first = folder.with_name(f".{folder.name}.partial"), processes.first()
    if first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    processes.meet("a bundle's folder")
    adapters = {name: dataclasses.asdict(spec) for name, spec in model.adapters}
    own = {room: tree for room, tree in params.items() if base is None or room != "encoder"}
    parts = _digests(own) | (base.leaves if base else {})
    checkpoint.save_params(partial / "params", own)
    if first:
        meta = {
            "format": FORMAT_APART if base else FORMAT,
            **huggingface.describe(model),
            **({"adapters": adapters} if adapters else {}),
            **({"extra": _shapes(params["extra"])} if "extra" in params else {}),
            **({"base": base.described(folder)} if base else {}),
            "provenance": {**(provenance or {}), "versions": versions()},
            "sha256": checkpoint.combined_digest(parts),
            "leaves": parts,
            "tokenizer": {} if tokenizer_files is None else copy_tokenizer(tokenizer_files, partial / "tokenizer"),
        }
        atomic_write(partial / META, json.dumps(meta, indent=1, ensure_ascii=False) + "\n")
        _replace(partial, folder)
    processes.meet("a bundle")
    return checkpoint.combined_digest(parts)


def load(
    path: str | pathlib.Path,
    *,
    compute: Compute | None = None,
    heads: tuple[str, ...] | None = None,
    mesh: Mesh | None = None,
    verify: bool = True,
) -> Loaded:
    """Reads a bundle, a Hugging Face folder or a hub id.

    Args:
        compute: goes into the model; parameters are converted to its `param_dtype`. Default: float32.
        heads: names of the heads to read; None = all. Others are not read from disk.
        mesh: parameters are placed on it by `mesh.param_shardings`; None = on the first device.
        verify: compare the SHA-256 of every parameter and tokenizer file with those that the bundle records. For a
            Hugging Face folder, which records none: compute them.
    Returns: Loaded; `meta` as in bundle.json (a Hugging Face folder's has no "format").
    Raises: InputError when there is no model, it does not fit this version, or its content is not what was saved.
    """
    compute = compute or Compute()
    folder = _settled(path)
    if not is_bundle(folder):
        loaded = huggingface.load(path, compute=compute, heads=heads, hash_files=verify)
        check_finite(loaded.params, path)
        meta = loaded.meta
        if verify:
            parts = checkpoint.digests(loaded.params)
            meta = {**meta, "sha256": checkpoint.combined_digest(parts), "leaves": parts}
        _, axes = loaded.model.abstract()
        shardings = None if mesh is None else param_shardings(axes, loaded.params, mesh)[0]
        _place(loaded.params, shardings, compute.param_dtype)
        return dataclasses.replace(loaded, meta=meta, path=str(path))

    meta = read_meta(folder)
    model = huggingface.select_heads(_model(meta, folder, compute), heads, folder)
    abstract, axes = model.abstract()
    shardings = None if mesh is None else param_shardings(axes, abstract, mesh)[0]
    asked = _as_stored(abstract, checkpoint.stored_shapes(folder / "params"))
    if mesh is not None:
        asked = jax.tree.map(lambda leaf, sharding: leaf.update(sharding=sharding), asked, shardings)
    beside = {"encoder": _of_base(meta, folder, compute, mesh, verify)} if "base" in meta else {}
    params = checkpoint.load_params(folder / "params", {room: asked[room] for room in asked if room not in beside})
    tokenizer_dir = folder / "tokenizer" if meta["tokenizer"] else None
    if verify:
        _verify(params, meta, folder)
    check_finite(params, folder)
    _place(params, shardings, compute.param_dtype)
    return Loaded(model, {**beside, **params}, tokenizer_dir, meta, str(folder))


def _verify(params: Params, meta: dict, folder: pathlib.Path) -> None:
    """Raises InputError where parameters or the tokenizer's files are not those that bundle.json records."""
    wrong = [name for name, digest in _digests(params).items() if meta["leaves"].get(name) != digest]
    wrong += [
        f"tokenizer/{name}"
        for name, digest in meta["tokenizer"].items()
        if not (folder / "tokenizer" / name).is_file() or sha256_file(folder / "tokenizer" / name) != digest
    ]
    if wrong:
        raise InputError(f"{folder} is damaged: not the values that were saved: {', '.join(wrong)}")


@dataclasses.dataclass(frozen=True)
class Base:
    """The model that adapters were trained on. path: its bundle, Hugging Face folder or hub id.

    leaves: the SHA-256 of each parameter of its encoder.
    """

    path: str
    leaves: dict[str, str]

    def described(self, folder: pathlib.Path) -> dict[str, str]:
        """Returns what the bundle in `folder` says of it; "near": the path from there, so that both may be moved."""
        local = pathlib.Path(self.path).exists()
        near = os.path.relpath(pathlib.Path(self.path).absolute(), folder) if local else ""
        path = str(pathlib.Path(self.path).absolute()) if local else self.path
        return {"path": path, "near": near, "sha256": checkpoint.combined_digest(self.leaves)}


def base(loaded: Loaded) -> Base:
    """Returns the base of adapters for a model: itself, or that of its own adapters. It was loaded with `verify`."""
    path = loaded.path
    if "base" in loaded.meta:
        path = _base_path(loaded.meta, pathlib.Path(loaded.path))
    return Base(path, _encoder_leaves(loaded.meta))


def _encoder_leaves(meta: dict) -> dict[str, str]:
    return {name: digest for name, digest in meta.get("leaves", {}).items() if name.startswith("encoder/")}


def _base_path(meta: dict, folder: pathlib.Path) -> str:
    near = folder / meta["base"]["near"] if meta["base"]["near"] else None
    return os.path.normpath(near) if near is not None and near.exists() else meta["base"]["path"]


def _of_base(meta: dict, folder: pathlib.Path, compute: Compute, mesh: Mesh | None, verify: bool) -> Params:
    """Reads the encoder that a bundle's adapters were trained on. Raises InputError where it is gone, or another."""
    path = _base_path(meta, folder)
    where = f"{folder / META}: its adapters were trained on {path}, whose encoder is not stored with them"
    try:
        if "base" in read_meta(path):
            raise InputError("it has no encoder of its own either")
        loaded = load(path, compute=compute, heads=(), mesh=mesh, verify=verify)
    except InputError as error:
        raise InputError(f'{where}: {error}; bring it back, or change "path" of "base" there') from error
    found = _encoder_leaves(loaded.meta)
    if (verify or found) and found != _encoder_leaves(meta):
        sha = checkpoint.combined_digest(found)
        raise InputError(
            f"{where}: this is another encoder, of SHA-256 {sha[:12]}, theirs has {meta['base']['sha256'][:12]}; bring "
            'that back, or change "path" of "base" there'
        )
    return loaded.params["encoder"]


def read_meta(path: str | pathlib.Path) -> dict[str, Any]:
    """Returns bundle.json, checked, or its counterpart for a Hugging Face folder or hub id; reads no arrays."""
    folder = _settled(path)
    if not is_bundle(folder):
        return huggingface.inspect(path)[1]
    meta = read_json(folder / META)
    version = meta.get("format")
    if version not in (FORMAT, FORMAT_APART):
        newer = isinstance(version, int) and version > FORMAT_APART
        raise InputError(
            f"{folder / META}: bundle format {version!r:.60}, this version reads {FORMAT} and {FORMAT_APART}; "
            + ("upgrade jxstilts" if newer else "make the bundle again with this version (jxstilts import)")
        )
    for key, kind in KEYS.items():
        if not isinstance(meta.get(key), kind):
            raise InputError(f"{folder / META}: expected {key!r} to be a {kind.__name__}, found {meta.get(key)!r:.60}")
    base = meta.get("base")
    known = isinstance(base, dict) and all(isinstance(base.get(key), str) for key in ("path", "near", "sha256"))
    if ("base" in meta or version == FORMAT_APART) and not known:
        raise InputError(f"{folder / META}: base: expected path, near and sha256, found {base!r:.200}")
    _model(meta, folder, Compute())
    return meta


def is_bundle(folder: str | pathlib.Path) -> bool:
    return (pathlib.Path(folder) / META).is_file()


def model_of(path: str | pathlib.Path, compute: Compute) -> Model:
    """Returns the model, with its heads, of a bundle, a Hugging Face folder or a hub id; reads no arrays."""
    folder = _settled(path)
    if not is_bundle(folder):
        return dataclasses.replace(huggingface.inspect(path)[0], compute=compute)
    return _model(read_meta(folder), folder, compute)


def _model(meta: dict, folder: pathlib.Path, compute: Compute) -> Model:
    """Returns the model that a bundle.json describes."""
    try:
        check_values(meta["family"], meta["config"], "config: ")
        config = make_config(meta["family"], **meta["config"])
        extra = tuple(map(_branch, dict(meta.get("extra", {})).items()))
        own = tuple((name, _adapter(name, given)) for name, given in dict(meta.get("adapters", {})).items())
        return Model(config, tuple(map(_head, meta["heads"])), compute, meta["family"], extra, own)
    except (InputError, TypeError, KeyError, ValueError) as error:
        raise InputError(f"{folder / META}: {shown(str(error), 2000)}") from error


def _head(given: dict) -> HeadSpec:
    """Returns the head that an entry of a bundle.json describes."""
    kinds = {"labels": list, "name": str, "type": str, "pooler": bool, "pooling": str, "aggregation": str}
    if any(type(given[key]) is not kinds[key] for key in kinds if key in given or key in ("labels", "name", "type")):
        raise InputError(f"heads: not a head: {given!r:.200}")
    if "/" in given["name"] or not given["name"].isprintable():
        raise InputError(f"heads: not a head: {given!r:.200}")
    try:
        kind = head_class(given["type"])
        spec = kind.spec_class.read({**given, "labels": tuple(given["labels"])})
        if spec.aggregation and not hasattr(kind, "loss"):
            raise InputError(f"{spec.name!r:.60}: aggregation={spec.aggregation!r}: a head of this type is not trained")
    except InputError as error:
        raise InputError(f"heads: {error}") from error
    check_labels(spec.labels, f"heads: {spec.name!r:.60}")
    return spec


def _adapter(name: str, given: Any) -> Adapter:
    """Returns the adapter that an entry of a bundle.json's "adapters" describes."""
    if "/" in name or not name.isprintable() or not isinstance(given, dict):
        raise InputError(f"adapters: not an adapter: {name!r:.60}: {given!r:.200}")
    return build(Adapter, given, f"adapters.{name}")


@dataclasses.dataclass(frozen=True)
class Stored:
    """A branch of a bundle's parameters whose meaning the objective that made it knows: paths and shapes alone."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    def init(self, model: Model, key: jax.Array) -> Params:
        """Zeros: the values are read."""
        return checkpoint.nested({path: jnp.zeros(shape) for path, shape in self.shapes})


def _shapes(extra: Params) -> dict[str, dict[str, list[int]]]:
    return {
        name: {path: list(leaf.shape) for path, leaf in checkpoint.leaves(branch).items()}
        for name, branch in extra.items()
    }


def _branch(entry: tuple[str, Any]) -> tuple[str, Stored]:
    """Returns the branch that an entry of a bundle.json's "extra" describes."""
    name, shapes = entry
    sizes = [size for shape in shapes.values() for size in shape] if isinstance(shapes, dict) else [None]
    if not shapes or "/" in name or not all(type(size) is int and size > 0 for size in sizes):
        raise InputError(f"extra: not parameters with their shapes: {name!r:.60}: {shapes!r:.200}")
    return name, Stored(tuple((path, tuple(shape)) for path, shape in shapes.items()))


def _as_stored(abstract: Params, stored: dict[str, tuple]) -> Params:
    """The shapes that are asked for, in the dtypes on disk: digests are compared before anything is converted."""

    def one(key, leaf):
        _, dtype = stored.get(jax.tree_util.keystr(key, simple=True, separator="/"), (None, leaf.dtype))
        return jax.ShapeDtypeStruct(leaf.shape, dtype)

    return jax.tree_util.tree_map_with_path(one, abstract)


def _digests(params: Params) -> dict[str, str]:
    """Like `checkpoint.digests`, also of arrays that are spread over several hosts; gathers one of them at a time."""
    flat = checkpoint.leaves(params)
    spread = {path for path, leaf in flat.items() if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable}
    found = checkpoint.digests({path: leaf for path, leaf in flat.items() if path not in spread})
    for path in sorted(spread):
        found |= checkpoint.digests({path: multihost_utils.process_allgather(flat[path], tiled=True)})
    return found


def _place(params: Params, shardings: Any, dtype: str) -> None:
    """Converts and places arrays, one after the other and in the same tree: only one is held twice."""
    for name, leaf in params.items():
        sharding = None if shardings is None else shardings[name]
        if isinstance(leaf, dict):
            _place(leaf, sharding, dtype)
        elif isinstance(leaf, jax.Array):
            params[name] = leaf.astype(dtype)
        elif sharding is None:
            params[name] = jax.device_put(np.asarray(leaf).astype(dtype, copy=False))
        else:
            host = np.asarray(leaf).astype(dtype, copy=False)
            params[name] = jax.make_array_from_callback(host.shape, sharding, host.__getitem__)


def _replace(partial: pathlib.Path, folder: pathlib.Path) -> None:
    """Puts a finished folder in its place. The older bundle stays beside it until then (see `_settled`)."""
    older = _older(folder)
    shutil.rmtree(older, ignore_errors=True)
    if folder.exists():
        os.replace(folder, older)
    os.replace(partial, folder)
    shutil.rmtree(older, ignore_errors=True)


def _settled(path: str | pathlib.Path) -> pathlib.Path:
    """Returns the folder, after bringing back an older bundle that an interrupted `save` had moved aside."""
    folder = pathlib.Path(path).expanduser().absolute()
    if not folder.exists() and is_bundle(_older(folder)):
        with contextlib.suppress(FileNotFoundError):  # another process brought it back first
            os.replace(_older(folder), folder)
    return folder


def _older(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_name(f".{folder.name}.older")
