"""What a study of the miniature world shows: encoder against control, English against the others, high against low.

    jxstilts run --config=configs/quickstart.py:seeds=3 --config.data_dir=DIR --workdir=W
    python -m benchmarks.miniworld W
    python -m benchmarks.miniworld W VARIED         # what became of each language in a world that differs from W's

Without an intermediate task, by each task's first metric. The intervals are Student's (95 %): over seeds, which share
nothing; retrieval by the pre-trained encoder has one run, so its strata are compared over sentences, each the same in
all languages.
"""

import pathlib
import sys
from collections.abc import Callable, Sequence

import numpy as np

from jxstilts import runtime, tasks
from jxstilts.eval import items
from jxstilts.report import folder as folders
from jxstilts.report import statistics
from jxstilts.report.folder import BASELINE, SOURCE, Arm, Folder, Run, Target
from jxstilts.runtime import InputError

ENCODER, CONTROL = Arm("micro", BASELINE), Arm("random", BASELINE)


def main(argv: Sequence[str]) -> int:
    """Prints the table and returns the exit code."""
    if len(argv) not in (1, 2):
        print("usage: python -m benchmarks.miniworld WORKDIR [VARIED]", file=sys.stderr)
        return runtime.EXIT_BAD_INPUT
    try:
        studies = [_load(path) for path in argv]
        if len(studies) == 2:
            head, lines = compare(*studies)
        else:
            head = ["task", "seeds", "micro", "control", "micro less control", "English less others",
                    "high less low resource"]  # fmt: skip
            (folder,) = studies
            lines = [row(folder, target) for target in folder.targets if folder.of(ENCODER, target)]
    except InputError as error:
        print(f"benchmarks.miniworld: error: {error}", file=sys.stderr)
        return runtime.EXIT_BAD_INPUT
    print(f"| {' | '.join(head)} |")
    print("|---" * len(head) + "|")
    print("\n".join(lines))
    return 0


def _load(path: str) -> Folder:
    folder = folders.load(pathlib.Path(path))
    if not folder.strata.world:
        raise InputError(f"{path} is not a study of a miniature world")
    return folder


def compare(base: Folder, varied: Folder) -> tuple[list[str], list[str]]:
    """Returns the head and the lines of a table: what each language has more in the varied world, by task.

    In brackets Student's interval over seeds; retrieval's, where nothing is trained, over sentences, the same in both.
    """
    targets = [target for target in base.targets if base.of(ENCODER, target) and varied.of(ENCODER, target)]
    if not targets:
        raise InputError(f"{varied.path} has no result of the encoder that {base.path} has, too")
    lines = []
    for code in dict.fromkeys(code for target in targets for code in base.languages(target)):
        cells = []
        for target in targets:
            if code not in base.languages(target):
                cells.append("")
                continue
            metric = _metric(target)
            pairs = list(zip(base.of(ENCODER, target), varied.of(ENCODER, target), strict=False))
            found = [new.rows[code][metric]["value"] - old.rows[code][metric]["value"] for old, new in pairs]
            if len(found) == 1 and target.task == "tatoeba":
                old, new = (_values(folder, run, code) for folder, run in zip((base, varied), pairs[0], strict=True))
                found = (new - old).tolist()
            cells.append(_shown(found))
        lines.append(f"| {code} | {' | '.join(cells)} |")
    return ["language", *(target.task for target in targets)], lines


def _metric(target: Target) -> str:
    return "accuracy" if target.task in ("xnli", "tatoeba") else "f1"


def row(folder: Folder, target: Target) -> str:
    """Returns a line of the table. Raises InputError where the control was not evaluated."""
    ours, theirs = folder.of(ENCODER, target), folder.of(CONTROL, target)
    if not theirs:
        raise InputError(f"{folder.path} has no results of the control on {target.task}")
    metric = _metric(target)
    others = [code for code in folder.languages(target) if code != SOURCE]

    def mean(run: Run, codes: Sequence[str]) -> float:
        return float(np.mean([run.rows[code][metric]["value"] for code in codes]))

    apart = [mean(ours[min(i, len(ours) - 1)], others) - mean(run, others) for i, run in enumerate(theirs)]
    english = [mean(run, [SOURCE]) - mean(run, others) for run in ours] if SOURCE in folder.languages(target) else []
    high, low = ([code for code in folder.strata.groups[name] if code in others] for name in ("high", "low"))
    strata = []
    if high and low:
        strata = [mean(run, high) - mean(run, low) for run in ours]
        if len(ours) == 1 and not tasks.get(target.task).form.has_head:
            strata = _by_item(folder, ours[0], lambda values: np.mean([values[c] for c in high], 0)
                              - np.mean([values[c] for c in low], 0))  # fmt: skip
    cells = [target.task, f"{len(ours)}, {len(theirs)}", f"{np.mean([mean(run, others) for run in ours]):.1f}",
             f"{np.mean([mean(run, others) for run in theirs]):.1f}", _shown(apart), _shown(english),
             _shown(strata)]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _by_item(folder: Folder, run: Run, difference: Callable) -> list[float]:
    """Returns the difference of each item, in points."""
    return difference({code: _values(folder, run, code) for code in run.rows}).tolist()


def _values(folder: Folder, run: Run, code: str) -> np.ndarray:
    """Returns what each item of a language scores, in points."""
    found = next(iter(run.rows[code].values()))
    kept = items.read(items.path(folder.path, found["evaluation"], run.target.task, run.target.split, code))
    return 100 * next(iter(kept.columns.values()))


def _shown(values: Sequence[float]) -> str:
    if not values:
        return "-"
    seeds = statistics.over_seeds(values)
    interval = "" if seeds.low is None else f" ({seeds.low:+.1f} to {seeds.high:+.1f})"
    return f"{seeds.mean:+.1f}{interval}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
