"""What the encoders of a study know of languages: fresh probes on their frozen states, CKA, and retrieval.

    jxstilts run --config=configs/adversarial.py --config.data_dir=DIR --workdir=W
    python -m benchmarks.languages W DIR

One row for each arm of W whose encoders were evaluated on Tatoeba (`all_layers`), at its last hidden state (`--state`:
another). NAME/accuracy is that of the phase's own discriminator NAME over the second half of the steps; language is a
fresh probe's, which tells English and all languages of Tatoeba in DIR apart (`eval.probes`). Intervals are Student's
(95 %) over seeds; with one seed there is none. `--out` writes every state of every run as JSON.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from jxstilts import runtime, tracking
from jxstilts.data import tokenizer
from jxstilts.eval import probes
from jxstilts.eval.evaluator import Evaluator
from jxstilts.models import bundle
from jxstilts.report import folder as folders
from jxstilts.report import statistics
from jxstilts.report.folder import Folder, Run
from jxstilts.runtime import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.languages", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("workdir", help="a study's folder")
    parser.add_argument("data_dir", help="with Tatoeba's sentences")
    parser.add_argument("--state", type=int, default=-1, help="hidden state, 0 = embeddings, -1 = last")
    parser.add_argument("--limit", type=int, default=200, help="sentences of each language; 0 = all")
    parser.add_argument("--out", default="", help="JSON file to write")
    options = parser.parse_args(argv)
    try:
        print(table(options))
    except InputError as error:
        print(f"benchmarks.languages: error: {error}", file=sys.stderr)
        return runtime.EXIT_BAD_INPUT
    return 0


def table(options: argparse.Namespace) -> str:
    """Returns the table. Raises InputError for a study without an evaluation on Tatoeba."""
    study = folders.load(pathlib.Path(options.workdir))
    retrieval = [target for target in study.targets if target.task == "tatoeba"]
    if not retrieval:
        raise InputError(f"{options.workdir} has no evaluation on tatoeba, by which its encoders are found")
    pairs, kept = None, []
    cells: dict[str, dict[str, list[float]]] = {}  # arm -> column -> a value for each seed
    for arm in study.arms:
        columns = cells.setdefault(arm.intermediate, {})
        for run in study.of(arm, retrieval[0]):
            pairs = pairs or probes.pairs("tatoeba", options.data_dir, run.target.split, run.rows, options.limit)
            row = next(iter(next(iter(run.rows.values())).values()))
            phase = pathlib.Path(options.workdir) / "phases" / row["phase"]
            states = _states(phase / "best", pairs)
            kept.append({"arm": arm.intermediate, "seed": run.seed, "states": states})
            probed = {name: states[options.state][name] for name in ("language", "cka")}
            values = {**_said(phase), **probed, **_beside(study, run, options.state, len(states))}
            for name, value in values.items():
                columns.setdefault(name, []).append(value)
    if options.out:
        runtime.atomic_write(pathlib.Path(options.out), json.dumps(kept, indent=1))
    names = list(dict.fromkeys(name for columns in cells.values() for name in columns))
    lines = [["arm", *names], ["---"] * (len(names) + 1)]
    for arm, columns in cells.items():
        lines.append([arm, *(_shown(columns[name]) if name in columns else "-" for name in names)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _states(path: pathlib.Path, pairs: dict[str, dict]) -> list[dict[str, float]]:
    loaded = bundle.load(path)
    return probes.states(Evaluator(loaded.model, loaded.params, tokenizer.load(loaded.tokenizer_dir)), pairs)


def _said(phase: pathlib.Path) -> dict[str, float]:
    """Returns the accuracy of the phase's discriminators, 0 to 100, over the second half of its steps."""
    names = json.loads((phase / "config.json").read_text())["phase"].get("objectives", {})
    rows = [row for row in tracking.read_rows(phase / "metrics.jsonl") if row["kind"] == "train"]
    late = [row for row in rows if 2 * row["step"] > rows[-1]["step"]]
    found = {f"{name}/accuracy": [row.get(f"{name}/accuracy") for row in late] for name in names}
    return {name: 100 * float(np.mean(values)) for name, values in found.items() if None not in values}


def _beside(study: Folder, run: Run, state: int, states: int) -> dict[str, float]:
    """Returns the run's retrieval in that state, and the accuracy of its arm and seed on XNLI, without English."""
    phase, metric = next(iter(next(iter(run.rows.values())).values()))["phase"], f"accuracy@{state % states}"
    curve = [row["value"] for row in study.curves if row["phase"] == phase and row["metric"] == metric]
    found = {"tatoeba": float(np.mean(curve))} if curve else {}
    for target in study.targets:
        for other in study.of(run.arm, target) if target.task == "xnli" else ():
            if other.seed == run.seed:
                values = {code: rows["accuracy"]["value"] for code, rows in other.rows.items()}
                found["xnli en"] = values.pop(statistics.SOURCE)
                found["xnli others"] = float(np.mean(list(values.values())))
    return found


def _shown(values: Sequence[float]) -> str:
    seeds = statistics.over_seeds(values)
    digits = 2 if max(map(abs, values)) <= 1 else 1
    interval = "" if seeds.low is None else f" ({seeds.low:.{digits}f} to {seeds.high:.{digits}f})"
    return f"{seeds.mean:.{digits}f}{interval}"


if __name__ == "__main__":
    sys.exit(main())
