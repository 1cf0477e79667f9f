"""Study folders made by hand, for tests of the report: results, items, phases, without any model."""

import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from jxstilts.eval import items, metrics

LANGUAGES = {
    "xnli": "en de sw zh ur".split(), "udpos": "en de fi".split(), "xquad": "en de th".split(),
    "tatoeba": "de sw fi th".split(), "mnli": ["en"],
}  # fmt: skip
METRICS = {"xnli": "accuracy", "mnli": "accuracy", "tatoeba": "retrieval", "udpos": "seqeval", "xquad": "squad"}
SPLITS = {"xquad": "test", "tatoeba": "test"}


def row(**changes) -> dict:
    """A row of results.jsonl."""
    return {
        "study": "toy", "evaluation": "e", "phase": "mnli", "model": "small", "intermediate": "none", "target": "",
        "seed": 0, "checkpoint_sha256": "c0ffee", "config_fingerprint": "f00d", "task": "xnli", "language": "en",
        "split": "dev", "metric": "accuracy", "value": 50.0, "low": 45.0, "high": 55.0, "baseline": 33.3,
        "major": 50.0, "n": 100, "limit": 0, "jxstilts_version": "0", **changes,
    }  # fmt: skip


def put(folder: pathlib.Path, *rows: Mapping) -> pathlib.Path:
    """Writes results.jsonl and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return folder


def evaluation(
    folder: pathlib.Path, state: Mapping[str, Mapping[str, float]], groups: Sequence[str] | None = None, **changes
) -> list[dict]:
    """Writes the items of one language from a metric's state, and returns its rows."""
    base = row(**changes)
    base["evaluation"] = f"{base['intermediate']}-{base['task']}-{base['model']}-s{base['seed']}"
    base["checkpoint_sha256"] = f"{base['intermediate']}{base['seed']}" + "0" * 40
    metric = metrics.get(METRICS[base["task"]])
    ids = sorted(next(iter(state.values())))
    columns = {name: np.array([column[i] for i in ids]) for name, column in state.items()}
    kept = items.Kept(np.array(ids), columns, None if groups is None else np.array(groups))
    items.write(items.path(folder, base["evaluation"], base["task"], base["split"], base["language"]), kept, base)
    values = metric.compute(state)
    return [{**base, "metric": name, "value": value, "n": len(ids)} for name, value in values.items()]


def study(
    folder: pathlib.Path,
    gains: Mapping[str, float],
    tasks: Sequence[str] = ("xnli",),
    seeds: int = 3,
    n: int = 120,
    layers: int = 0,
    languages: Mapping[str, Sequence[str]] = LANGUAGES,
    model: str = "small",
) -> list[dict]:
    """Writes a study with items and returns its rows.

    gains: {intermediate: what it adds to the chance of being right, 0 to 1}. Items are right by a difficulty that all
    arms share, and by luck.
    """
    rows = []
    for task in tasks:
        split = SPLITS.get(task, "dev")
        for at, language in enumerate(languages[task]):
            hard = np.random.default_rng([at, len(task)]).uniform(0.1, 0.9, n)
            for number, (intermediate, gain) in enumerate(gains.items()):
                for seed in range(seeds):
                    rng = np.random.default_rng([at, number, seed, n])
                    chance = np.clip(0.85 - 0.5 * hard - 0.02 * at + gain + rng.normal(0, 0.005), 0, 1)
                    right = (rng.random(n) < chance).astype(float)
                    state, groups = _state(task, right)
                    found = evaluation(
                        folder, state, groups, task=task, split=split, language=language, intermediate=intermediate,
                        seed=seed, phase=f"{intermediate}-{task}-s{seed}", target=task, model=model,
                        baseline=33.3 if task in ("xnli", "mnli") else None,
                    )  # fmt: skip
                    curve = [
                        {**found[0], "metric": f"{found[0]['metric']}@{layer}", "low": None, "high": None,
                         "value": found[0]["value"] * (0.2 + 0.8 * layer / layers) if layers else 0.0}
                        for layer in range(layers + 1 if layers and task == "tatoeba" else 0)
                    ]  # fmt: skip
                    rows += [*found, *curve]
    return rows


def _state(task, right):
    ids = [str(i) for i in range(len(right))]
    state = {"accuracy": dict(zip(ids, right.tolist(), strict=True))}
    groups = None
    if task == "udpos":
        counts = {"right": 9 * right + 3, "total": 12 + 0 * right, "correct": 6 * right + 2,
                  "predicted": 9 + 0 * right, "gold": 10 + 0 * right}  # fmt: skip
        state = {name: dict(zip(ids, column.tolist(), strict=True)) for name, column in counts.items()}
    if task == "xquad":
        ids = sorted(ids)
        state = {name: dict(zip(ids, (right * share).tolist(), strict=True))
                 for name, share in (("f1", 0.9), ("exact_match", 1.0))}  # fmt: skip
        groups = [f"{int(i) // 5}" for i in ids]
    return state, groups


def phase(
    folder: pathlib.Path, name: str, task: str = "mnli", steps: int = 60, done: bool = True, seed: int = 0
) -> None:
    """Writes a phase folder: config.json, metrics.jsonl and, if done, DONE and the record of its bundle."""
    where = folder / "phases" / name
    (where / "best").mkdir(parents=True)
    select = {"metric": "major", "rows": 300, "every": 20, "patience": 30}
    stream = {"task": task, "objective": "task", "batch_size": 32, "max_length": 64, "holdout": 0}
    config = {"phase": {"init": "random", "tasks": {task: stream}, "optimizer": {"learning_rate": 1e-3},
                        "select": select, "seed": seed}, "model": {}, "start": None, "tokenizer": "t" * 64}  # fmt: skip
    (where / "config.json").write_text(json.dumps(config))
    rows = []
    for step in range(10, steps + 1, 10):
        rate = {} if step == 10 else {"tokens_per_second": 1000.0}
        rows.append({"step": step, "kind": "train", "loss": 1.1 * 0.98**step, "tokens": 36_000.0, **rate})
        if step % 20 == 0:
            rows.append({"step": step, "kind": "dev", "accuracy": 33 + step / 4, "major": 33 + step / 4})
    (where / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    if done:
        best = {"step": steps, "metric": "major", "value": 33 + steps / 4}
        record = {"steps": steps, "best": best, "checkpoint_sha256": "a" * 64, "fingerprint": "b" * 64}
        (where / "DONE").write_text(json.dumps(record))
        (where / "best/bundle.json").write_text(json.dumps({"provenance": {"versions": {"jax": "0.10.2"}}}))
