"""Arrays on disk, by Orbax: parameters of a bundle, and the resumable checkpoints of a phase.

A phase checkpoint holds everything that the next step depends on: parameters, optimizer state, step, random key (in
`state`), the position of the data iterator and the best record so far (in `meta`, JSON).
"""

import hashlib
import json
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jxstilts.runtime import InputError


def leaves(tree: Any) -> dict[str, Any]:
    """Flattens a tree to {"encoder/layers/query/kernel": leaf}."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def digests(params: Any) -> dict[str, str]:
    """Returns {path: SHA-256 over path, shape, dtype and bytes} of every array; needs them on this host."""
    found = {}
    for path, leaf in leaves(params).items():
        array = np.ascontiguousarray(leaf)
        head = json.dumps([path, list(array.shape), str(array.dtype)]).encode()
        digest = hashlib.sha256(head)
        digest.update(array.view(np.uint8).reshape(-1).data if array.size else b"")
        found[path] = digest.hexdigest()
    return found


def combined_digest(parts: dict[str, str]) -> str:
    """One SHA-256 for a whole set of parameters, from its leaves' digests."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save_params(folder: str | pathlib.Path, params: Any) -> None:
    """Writes a tree of arrays; the folder appears only once it is complete. All processes call it together."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(pathlib.Path(folder).absolute(), params, force=True)


def stored_shapes(folder: str | pathlib.Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Returns {path: (shape, dtype)} of what `save_params` wrote. Raises InputError when it is not readable."""
    folder = pathlib.Path(folder).absolute()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(folder).item_metadata
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}: not a readable parameter folder: {_one_line(error)}") from error
    if metadata is None:
        raise InputError(f"{folder}: not a parameter folder, or an incomplete one")
    return {path: (tuple(leaf.shape), str(leaf.dtype)) for path, leaf in leaves(metadata.tree).items()}


def load_params(folder: str | pathlib.Path, abstract: Any) -> Any:
    """Reads the arrays that `abstract` names (a subtree of what was saved, others are left on disk).

    Args:
        abstract: tree of ShapeDtypeStruct; with shardings, arrays go straight to their devices.
    Raises: InputError that lists every missing or mismatched array with expected and found shape.
    """
    folder = pathlib.Path(folder).absolute()
    stored = stored_shapes(folder)
    wrong = []
    for path, leaf in leaves(abstract).items():
        if path not in stored:
            wrong.append(f"{path}: expected {tuple(leaf.shape)}, found nothing")
        elif stored[path][0] != tuple(leaf.shape):
            wrong.append(f"{path}: expected {tuple(leaf.shape)}, found {stored[path][0]}")
    if wrong:
        raise InputError(f"{folder} does not fit the model: " + "; ".join(wrong))
    asked = _without_empty(abstract)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        try:
            restored = checkpointer.restore(
                folder,
                args=ocp.args.PyTreeRestore(
                    item=asked,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(asked),
                    partial_restore=True,
                ),
            )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder}: the stored arrays cannot be read: {_one_line(error)}") from error
    found = leaves(restored)
    return jax.tree_util.tree_map_with_path(
        lambda path, _: found[jax.tree_util.keystr(path, simple=True, separator="/")], abstract
    )


class Checkpoints:
    """The resumable checkpoints of one phase folder: the newest, and one more that the caller wants kept.

    Saving is asynchronous. An older checkpoint is removed only when the next one has been committed.
    """

    def __init__(self, folder: str | pathlib.Path):
        self.folder = pathlib.Path(folder).absolute()
        options = ocp.CheckpointManagerOptions(create=True, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._needed: set[int | None] | None = None  # by the newest checkpoint; unknown until this process has saved

    def latest(self) -> int | None:
        """The newest complete step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, meta: dict, keep: int | None = None) -> None:
        """Starts saving `step`; raises what an earlier asynchronous save ran into.

        meta: a JSON value. keep: a step to keep beside the newest ones.
        """
        self.wait()  # so the save before this one is committed, and what only its predecessors needed can go
        for old in self._manager.all_steps() if self._needed else ():
            if old not in self._needed:
                self._manager.delete(old)
        self._needed = {step, keep}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._manager.save(step, args=args, force=True)

    def restore_params(self, step: int, abstract: Any) -> Any:
        """Reads only the parameters of a step."""
        return load_params(self.folder / str(step) / "state", {"params": abstract})["params"]

    def restore(self, step: int, abstract_state: Any) -> tuple[Any, dict]:
        """Reads a step onto the shardings that `abstract_state` carries, whatever mesh wrote it."""
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), meta=ocp.args.JsonRestore())
        try:
            restored = self._manager.restore(step, args=args)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{self.folder / str(step)}: this checkpoint cannot be restored: {_one_line(error)}; "
                "remove that folder to go back to the one before it"
            ) from error
        return restored["state"], restored["meta"]

    def wait(self) -> None:
        """Blocks until the last save is committed, and raises what it ran into."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

    def close(self) -> None:
        self._manager.close()


def _without_empty(tree: dict) -> dict:
    """Drops empty subtrees: Orbax takes one for a leaf, and refuses it where something was saved under that name."""
    return {
        name: _without_empty(leaf) if isinstance(leaf, dict) else leaf
        for name, leaf in tree.items()
        if jax.tree.leaves(leaf)
    }


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
