"""What a phase folder belongs to: the phase's config and everything it reads, by content.

The same identity: the folder's result is this phase's, and it is never run again. Another one: the folder is moved
aside, to phases/.superseded, and the phase runs anew. Names and places of the starting point do not count, only its
parameters; so a phase is also run again when the phase it starts from came out differently.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from jxstilts import runtime
from jxstilts.config import differences, fingerprint, plain
from jxstilts.data import tokenizer as tokenizers
from jxstilts.tasks.digests import digests
from jxstilts.train import selection

SUPERSEDED = ".superseded"
# Keys that a phase's config has not always had, and what a phase did without them: there they are not recorded, so
# that folders of before stay what they are.
ADDED = {"freeze": [], "skip_nonfinite": 0, "objectives": {}, "adapters": {}}
ADDED_TO_STREAM = {
    "query_length": 0,
    "lower_case": False,
    "negatives_per_step": 0,
    "options": {},
    "paired": False,
    "lengths_of": "",
    "aggregation": "",
    "synonyms": "",
    "copies": 0,
}
ADDED_TO_SELECT = {"languages": [], "also": [], "average": 5, "oracle_task": "", "oracle_languages": []}
ADDED_TO_OPTIMIZER = {"name": "adamw", "schedule": "linear"}


def identity(
    phase: Any, config: Any, start_sha256: str | None, tokenizer_dir: pathlib.Path, data: Mapping[str, str]
) -> dict:
    """Returns what a phase folder belongs to, as JSON values.

    config: the encoder's. start_sha256: of the parameters that the phase starts from; None for a random start.
    data: see `data`.
    """
    tokenizer = tokenizers.fingerprint(tokenizers.load(tokenizer_dir))
    return {
        "phase": settings(phase), "model": plain(config), "start": start_sha256, "tokenizer": tokenizer,
        "data": dict(data),
    }  # fmt: skip


def settings(phase: Any) -> dict:
    """Returns the phase's config without the name of its starting point, with the order of its tasks."""
    kept = {key: value for key, value in plain(phase).items() if key != "init"}
    kept["keep_heads"] = kept["keep_heads"] or []  # None, where the start is not known yet
    return without_added(kept) | {"order": list(phase.tasks)}


def without_added(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a phase's settings without the keys of ADDED that change nothing."""
    kept = _without(settings, ADDED)
    kept.pop("vocabulary", None)  # the result is the same
    if not kept.get("probe", {}).get("every"):  # its other keys say nothing
        kept.pop("probe", None)
    if "tasks" in kept:
        kept["tasks"] = {name: _without(stream, ADDED_TO_STREAM) for name, stream in kept["tasks"].items()}
    if "optimizer" in kept:
        kept["optimizer"] = _without(kept["optimizer"], ADDED_TO_OPTIMIZER)
    if "objectives" in kept:
        kept["objectives"] = {
            name: {**entry, "optimizer": _without(entry["optimizer"], ADDED_TO_OPTIMIZER)}
            for name, entry in kept["objectives"].items()
        }
    if "select" in kept:
        kept["select"] = _without(kept["select"], ADDED_TO_SELECT)
    return kept


def _without(settings: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in added or value != added[key]}


def data(phase: Any, data_dir: str, kept: pathlib.Path) -> dict[str, str]:
    """Returns {file: SHA-256} of the files that a phase trains on, is selected by and probes; see `tasks.digests`."""
    found: dict[str, str] = {}
    for stream in phase.tasks.values():
        wanted = [("train", language) for language in stream.languages]
        if phase.select.metric and selection.trains_task(stream) and not stream.holdout:
            wanted += [("dev", language) for language in phase.select.languages or stream.own_languages]
        if stream.synonyms:
            found[f"synonyms: {pathlib.Path(stream.synonyms).name}"] = _sha256(stream.synonyms)
        for split, language in wanted:
            found |= digests(stream.task, data_dir, split, language, stream.source, kept)
    if "oracle" in phase.select.also:
        for stream in selection.oracle(phase).tasks.values():
            for language in phase.select.oracle_languages:
                found |= digests(stream.task, data_dir, "dev", language, stream.source, kept)
    for language in phase.probe.languages if phase.probe.every else ():
        found |= digests(phase.probe.task, data_dir, phase.probe.split, language, "auto", kept)
    return dict(sorted(found.items()))


def _sha256(path: str) -> str:
    file = pathlib.Path(path).expanduser()
    return runtime.sha256_file(file) if file.is_file() else ""  # reading it says that it is not there


def done(folder: pathlib.Path) -> dict | None:
    """Returns what a finished phase recorded, or None."""
    path = folder / "DONE"
    return json.loads(path.read_text()) if path.exists() else None


def recorded(folder: pathlib.Path) -> dict | None:
    """Returns the identity of the phase that a folder belongs to, None where it belongs to none."""
    path = folder / "config.json"
    return upgraded(json.loads(path.read_text())) if path.exists() else None


def upgraded(found: dict) -> dict:
    """Returns an identity as today's are written: older ones have `pooler` in the place of a stream's `pooling`."""
    for stream in found.get("phase", {}).get("tasks", {}).values():
        if "pooler" in stream:
            stream["pooling"] = "pooler" if stream.pop("pooler") else ""
    return found


def claim(folder: pathlib.Path, wanted: Mapping) -> tuple[dict | None, str]:
    """Makes a folder the given phase's own and returns (its DONE record, None where it has not finished; a message).

    A folder of another phase is moved to .superseded beside it, whole; the message says what has changed, and where
    the folder is. It is "" where nothing was moved.
    """
    message, old = "", recorded(folder)
    changed = [] if old is None else differences(old, dict(wanted))
    if changed:
        aside = folder.parent / SUPERSEDED / f"{folder.name}-{fingerprint(old)[:12]}"
        while aside.exists():  # changed there and back
            aside = aside.with_name(f"{aside.name}+")
        aside.parent.mkdir(parents=True, exist_ok=True)
        os.rename(folder, aside)
        message = f"runs again, {'; '.join(changed)}. What was there is kept in {aside}"
    if changed or old is None:
        runtime.atomic_write(folder / "config.json", json.dumps(wanted, indent=1))
    return done(folder), message
