"""Arrays on disk, by Orbax: parameters of a bundle, and the resumable checkpoints of a phase.

A phase checkpoint holds everything that the next step depends on: parameters, optimizer state, step, random key (in
`state`), the position of the data iterator and the best record so far (in `meta`, JSON). With them stands a sum of each
array's bits, which restoring compares: a disk's wrong byte is not trained on.
"""

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Callable, Collection, Mapping
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jxstilts import processes, runtime
from jxstilts.runtime import InputError

# Each of Orbax's threads prints the traceback of an error; they reach the caller as one line (`Checkpoints.check`).
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname or record.levelno < logging.ERROR)


def _orbax():
    """Orbax, imported where arrays are first read or written: it takes a tenth of a second and more."""
    import orbax.checkpoint

    return orbax.checkpoint


def leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """Flattens a tree to {"encoder/layers/query/kernel": leaf}. is_leaf: as in `jax.tree.flatten`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tree of dicts that `leaves` flattened."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *inner, last = path.split("/")
        node = tree
        for key in inner:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree


def digests(params: Any) -> dict[str, str]:
    """Returns {path: SHA-256 over path, shape, dtype and bytes} of every array; needs them on this host."""

    def digest(item: tuple[str, Any]) -> str:
        path, leaf = item
        array = np.ascontiguousarray(leaf)
        found = hashlib.sha256(json.dumps([path, list(array.shape), str(array.dtype)]).encode())
        found.update(array.view(np.uint8).reshape(-1).data if array.size else b"")
        return found.hexdigest()

    flat = leaves(params)
    with futures.ThreadPoolExecutor(4) as pool:  # hashing leaves Python to the other threads; few arrays are copied
        return dict(zip(flat, pool.map(digest, flat.items()), strict=True))


def combined_digest(parts: dict[str, str]) -> str:
    """One SHA-256 for a whole set of parameters, from its leaves' digests."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save_params(folder: str | pathlib.Path, params: Any) -> None:
    """Writes a tree of arrays; the folder appears only once it is complete. All processes call it together.

    Not compressed: float weights would lose 8 % of their size, and take two to three times as long to read.
    """
    ocp = _orbax()
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=False)) as checkpointer:
        checkpointer.save(pathlib.Path(folder).absolute(), args=ocp.args.PyTreeSave(params), force=True)


def stored_shapes(folder: str | pathlib.Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Returns {path: (shape, dtype)} of what `save_params` wrote. Raises InputError when it is not readable."""
    folder = pathlib.Path(folder).absolute()
    try:
        with _orbax().StandardCheckpointer() as checkpointer:
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
    asked, ocp = _without_empty(abstract), _orbax()
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
        except Exception as error:  # Orbax raises no less where an array's file is damaged
            if runtime.trouble(error):
                raise
            raise InputError(f"{folder}: the stored arrays cannot be read: {_one_line(error)}") from error
    found = leaves(restored)
    return jax.tree_util.tree_map_with_path(
        lambda path, _: found[jax.tree_util.keystr(path, simple=True, separator="/")], abstract
    )


class Checkpoints:
    """The resumable checkpoints of one phase folder: the newest, and those that the caller wants kept.

    Saving is asynchronous. An older checkpoint is removed only when the next one has been committed. All processes of a
    run call every method together.
    """

    def __init__(self, folder: str | pathlib.Path):
        self.folder = pathlib.Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_unfinished()
        # Several processes open it here, together; one alone where there is something to find, or at its first save.
        self._manager = self._open() if processes.count() > 1 or any(self.folder.iterdir()) else None
        self._needed: set[int] | None = None  # by the newest checkpoint; unknown until this process has saved
        self._saving: int | None = None  # not known to be committed

    def _open(self):
        ocp = _orbax()
        options = ocp.CheckpointManagerOptions(create=True, enable_async_checkpointing=True)
        try:
            return ocp.CheckpointManager(self.folder, options=options)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            why = f"a step's _CHECKPOINT_METADATA is damaged ({_one_line(error)}); remove that step's folder"
            raise InputError(f"{self.folder}: {why}") from error

    def steps(self, wait: bool = False) -> list[int]:
        """The complete steps, the newest first. wait: for a save that is under way, which counts if it succeeds."""
        if wait:
            with contextlib.suppress(InputError):
                self.wait()
        if self._manager is None:
            return []
        return sorted((step for step in self._manager.all_steps() if step != self._saving), reverse=True)

    def save(self, step: int, state: Any, meta: dict, keep: Collection[int] = ()) -> None:
        """Starts saving `step`; raises what an earlier asynchronous save ran into.

        meta: a JSON value. keep: steps to keep beside the newest ones.
        """
        if self._manager is None:
            self._manager = self._open()
        self.wait()  # so the save before this one is committed, and what only its predecessors needed can go
        for old in self._manager.all_steps() if self._needed else ():
            if old not in self._needed:
                self._manager.delete(old)
        record = {"meta": meta, "sums": _sums(state)}
        record["sha256"] = _sha256(record)
        ocp = _orbax()
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(record))
        self._saving = step
        try:
            self._manager.save(step, args=args, force=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failed(error) from error
        self._needed = {step, *keep}

    def check(self) -> None:
        """Raises what the save that is under way has run into, if it has ended; asked at every step, it costs nothing.

        Orbax's own `check_for_errors` does not see it: the thread that ends a save has taken the error by then.
        """
        if self._saving is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Blocks until the last save is committed. Raises InputError that says what it ran into."""
        if self._saving is None:
            return
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failed(error) from error
        self._saving = None

    def resume(self, abstract_state: Any, note: Callable[[str], None]) -> tuple[int, Any, dict] | None:
        """Restores the newest step: (step, state, meta); None where there is none.

        A damaged one is set aside and the one before it taken, which `note` says. Raises InputError where none is good.
        """
        problems: dict[int, str] = {}
        for step in self.steps():
            found, problem = None, ""
            try:
                found = self.restore(step, abstract_state)
            except InputError as error:
                problem = str(error)
            problem = next(filter(None, processes.meet("a restored checkpoint", problem, failure=problem)), "")
            if not problem:
                self._set_aside(problems, step, note)
                return step, *found
            problems[step] = problem
        if problems:
            raise InputError(
                f"{next(iter(problems.values()))}; there is no good one before it: remove {self.folder} to begin the "
                "phase anew"
            )
        return None

    def _set_aside(self, problems: dict[int, str], good: int, note: Callable[[str], None]) -> None:
        """Renames damaged steps, so that they can be saved again."""
        for step, problem in problems.items():
            aside = self.folder / f"damaged-{step}"
            if processes.first():
                shutil.rmtree(aside, ignore_errors=True)
                os.rename(self.folder / str(step), aside)
            note(f"{problem}. It is kept as {aside.name}; going back to step {good}")
        if problems:
            processes.meet("damaged checkpoints")
            self._manager.reload()

    def restore(self, step: int, abstract_state: Any) -> tuple[Any, dict]:
        """Reads a step onto the shardings that `abstract_state` carries, whatever mesh wrote it.

        Raises InputError where it is damaged, or does not fit.
        """
        ocp = _orbax()
        restored = self._read(step, state=ocp.args.StandardRestore(abstract_state), meta=ocp.args.JsonRestore())
        self._compare(step, restored["meta"], restored["state"])
        return restored["state"], restored["meta"]["meta"]

    def restore_params(self, step: int, abstract: Any) -> Any:
        """Reads only the parameters of a step."""
        record = self._read(step, meta=_orbax().args.JsonRestore())["meta"]
        found = load_params(self.folder / str(step) / "state", {"params": abstract})
        self._compare(step, record, found)
        return found["params"]

    def _read(self, step: int, **items: Any) -> Any:
        try:
            return self._manager.restore(step, args=_orbax().args.Composite(**items))
        except Exception as error:  # Orbax raises no less where an array's file is damaged
            if runtime.trouble(error):
                raise
            raise InputError(f"{self._damaged(step)} {_one_line(error)}") from error

    def _compare(self, step: int, record: dict, found: Any) -> None:
        """Raises InputError where arrays, or what was saved with them, are not what was saved."""
        if not isinstance(record, dict) or record.get("sha256") != _sha256(record):
            raise InputError(f"{self._damaged(step)} its record is not the one that was saved")
        wrong = [path for path, value in _sums(found).items() if record["sums"].get(path) != value]
        if wrong:
            raise InputError(f"{self._damaged(step)} not the values that were saved: {', '.join(wrong)}")

    def _damaged(self, step: int) -> str:
        return f"{self.folder / str(step)}: this checkpoint is damaged:"

    def _failed(self, error: BaseException) -> InputError:
        """What is raised for a save that failed; nothing is left of it."""
        step, self._saving = self._saving, None
        self._manager.reload()
        self._remove_unfinished()
        if isinstance(error, OSError) and error.errno:
            error.filename = error.filename or str(self.folder)
        why = runtime.trouble(error) or _one_line(error)
        kept = self.steps()
        there = f"the one of step {kept[0]} is kept" if kept else "there is none before it"
        return InputError(f"the checkpoint of step {step} could not be saved; {there}: {why}")

    def _remove_unfinished(self) -> None:
        """Removes what saves that failed, or were killed, have left: as large as a checkpoint."""
        if processes.first():
            for path in self.folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Waits for a save that is under way; what it ran into is not raised: call `wait` first."""
        if self._manager is None:
            return
        try:
            self._manager.close()
        except (OSError, ValueError, RuntimeError) as error:
            logging.getLogger("jxstilts").warning("%s", self._failed(error))


@jax.jit
def _summed(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {path: _sum(array) for path, array in arrays.items()}


def _sum(array: jax.Array) -> jax.Array:
    """Returns a uint32: the sum of the array's words, each times an odd number that its place gives, modulo 2^32.

    One word that changes changes it, on whatever devices the array lies. An array is read once, where it lies.
    """
    kinds = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
    words = array if array.dtype == bool else jax.lax.bitcast_convert_type(array, kinds[array.dtype.itemsize])
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        place = place * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    return jnp.sum(words.astype(jnp.uint32) * (2 * place + 1), dtype=jnp.uint32)


def _sums(state: Any) -> dict[str, int]:
    """Returns {path: `_sum`} of every array."""
    return {path: int(value) for path, value in jax.device_get(_summed(leaves(state))).items()}


def _sha256(record: dict) -> str:
    return hashlib.sha256(json.dumps([record.get("meta"), record.get("sums")], sort_keys=True).encode()).hexdigest()


def _without_empty(tree: dict) -> dict:
    """Drops empty subtrees: Orbax takes one for a leaf, and refuses it where something was saved under that name."""
    return {
        name: _without_empty(leaf) if isinstance(leaf, dict) else leaf
        for name, leaf in tree.items()
        if jax.tree.leaves(leaf)
    }


def _one_line(error: BaseException) -> str:
    return " ".join(str(error.__cause__ or error).split())[:500]
