"""What contrastive training did to words that it did not see: the two studies of configs/word_pairs.py side by side.

    python -m benchmarks.word_pairs W C DATA

W trained on translations, C (the control) on shuffled ones; DATA/word_pairs/held-out has other words. A table each:

    cosine    of a held-out word and its translation
    margin    that, less the cosine with the translations of the language's other held-out words (`eval.alignment`)
    first     per cent of held-out words whose nearest one among the English of these is their own translation
    tatoeba   accuracy in per cent, as the evaluation's `all_layers` gives it

Rows are an arm and a hidden state; values are means over languages and seeds. In brackets: Student's 95 % intervals
over seeds, of W's values less that of the encoder as it is, and less C's with the same seed.
"""

import itertools
import pathlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from jxstilts import runtime
from jxstilts.data import tokenizer
from jxstilts.eval import alignment
from jxstilts.eval.evaluator import Evaluator
from jxstilts.models import bundle
from jxstilts.report import folder as folders
from jxstilts.report import statistics
from jxstilts.runtime import InputError
from jxstilts.tasks import word_pairs

UNTRAINED = "untrained"  # the arm of configs/word_pairs.py that trains nothing
DIGITS = {"cosine": 3, "margin": 3, "first": 1, "tatoeba": 1}


def main(argv: Sequence[str]) -> int:
    """Prints the table and returns the exit code."""
    if len(argv) != 3:
        print("usage: python -m benchmarks.word_pairs WORKDIR CONTROL_WORKDIR DATA_DIR", file=sys.stderr)
        return runtime.EXIT_BAD_INPUT
    try:
        print("\n".join(table(pathlib.Path(argv[0]), pathlib.Path(argv[1]), pathlib.Path(argv[2]))))
    except InputError as error:
        print(f"benchmarks.word_pairs: error: {error}", file=sys.stderr)
        return runtime.EXIT_BAD_INPUT
    return 0


def table(workdir: pathlib.Path, control: pathlib.Path, data: pathlib.Path) -> list[str]:
    """Returns its lines. Raises InputError where the folders do not have the same runs, or there are no pairs."""
    files = sorted((data / "word_pairs/held-out").glob("*.tsv"))
    if not files:
        raise InputError(f"{data}/word_pairs/held-out has no file; `python -m benchmarks.world_files` writes them")
    pairs = {file.stem: word_pairs.read(file) for file in files}
    ours, theirs = (measured(each, pairs) for each in (workdir, control))
    if ours.keys() != theirs.keys():
        raise InputError(f"{workdir} has {', '.join(map(str, ours))}, {control} {', '.join(map(str, theirs))}")
    bases = [values for (arm, _), values in ours.items() if arm == UNTRAINED]
    if len(bases) != 1:
        raise InputError(f"{workdir} has {len(bases)} runs of the arm {UNTRAINED!r}; one is needed")
    lines = []
    for name, digits in DIGITS.items():
        head = [name, "state", "untrained", "shuffled", "translations", "less untrained", "less shuffled"]
        lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        untrained = bases[0][name]
        for arm, state in itertools.product(dict.fromkeys(arm for arm, _ in ours), range(len(untrained))):
            if arm == UNTRAINED:
                continue
            seeds = [seed for one, seed in ours if one == arm]
            values, others = ([each[arm, seed][name][state] for seed in seeds] for each in (ours, theirs))
            cells = [f"{value:.{digits}f}" for value in (untrained[state], np.mean(others), np.mean(values))]
            cells += [_shown(np.subtract(values, base), digits) for base in (untrained[state], others)]
            lines.append(f"| {' | '.join([arm, str(state), *cells])} |")
        lines.append("")
    return lines


def _shown(apart: np.ndarray, digits: int) -> str:
    seeds = statistics.over_seeds(apart.tolist())
    interval = "" if seeds.low is None else f" ({seeds.low:+.{digits}f} to {seeds.high:+.{digits}f})"
    return f"{seeds.mean:+.{digits}f}{interval}"


def measured(workdir: pathlib.Path, pairs: Mapping[str, list[dict]]) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """Returns {(arm, seed): {name in `DIGITS`: a value for each hidden state}} of a study's folder."""
    study, found = folders.load(workdir), {}
    for arm in study.arms:
        for target in study.targets:
            for run in study.of(arm, target) if target.task == "tatoeba" else ():
                phase = next(iter(next(iter(run.rows.values())).values()))["phase"]
                values = _words(workdir / "phases" / phase / "best", pairs)
                rows = [row for row in study.curves if row["phase"] == phase]
                values["tatoeba"] = np.array([
                    np.mean([row["value"] for row in rows if row["metric"] == f"accuracy@{state}"])
                    for state in range(len(values["margin"]))
                ])  # fmt: skip
                found[arm.intermediate, run.seed] = values
    if not found:
        raise InputError(f"{workdir} has no evaluation on tatoeba, by which its encoders are found")
    return found


def _words(path: pathlib.Path, pairs: Mapping[str, list[dict]]) -> dict[str, np.ndarray]:
    loaded = bundle.load(path)
    evaluator = Evaluator(loaded.model, loaded.params, tokenizer.load(loaded.tokenizer_dir))
    found: dict[str, list[np.ndarray]] = {"cosine": [], "margin": [], "first": []}
    for rows in pairs.values():
        word, english = (
            evaluator.embed([{"id": row["id"], "text": row[side]} for row in rows]) for side in ("query", "candidate")
        )
        probe = alignment.probe(word, english)
        lengths = np.maximum(np.linalg.norm(english, axis=-1), 1e-12)
        nearest = (np.einsum("lnd,lmd->lnm", word, english) / lengths[:, None]).argmax(-1)
        found["cosine"].append(probe.pairs)
        found["margin"].append(probe.margin)
        found["first"].append(100 * (nearest == np.arange(len(rows))).mean(1))
    return {name: np.mean(values, 0) for name, values in found.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
