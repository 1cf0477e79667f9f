"""What arms of configs/methods.py score beside their control, in points, with Student's 95 % intervals over seeds.

    python -m benchmarks.methods W [CONTROL [A+B]]

A seed's value of an arm is compared with that of the control with the same seed: the same rows in the same order. The
mean over languages is without English; A+B: over these languages alone. Bundles that one phase keeps are arms of their
own, by their models' names.
"""

import sys
from collections.abc import Sequence

import numpy as np

from jxstilts import runtime
from jxstilts.report import folder as folders
from jxstilts.report import statistics
from jxstilts.report.folder import SOURCE, Arm, Folder, Target
from jxstilts.runtime import InputError, suggest


def main(argv: Sequence[str]) -> int:
    """Prints a table per target and returns the exit code."""
    if len(argv) not in (1, 2, 3):
        print("usage: python -m benchmarks.methods WORKDIR [CONTROL [LANGUAGE+LANGUAGE]]", file=sys.stderr)
        return runtime.EXIT_BAD_INPUT
    try:
        folder = folders.load(argv[0])
        for target in folder.targets:
            control, languages = argv[1] if argv[1:] else "control", argv[2].split("+") if argv[2:] else ()
            print("\n".join(table(folder, target, control, languages)))
    except InputError as error:
        print(f"benchmarks.methods: error: {error}", file=sys.stderr)
        return runtime.EXIT_BAD_INPUT
    return 0


def table(folder: Folder, target: Target, control: str, languages: Sequence[str] = ()) -> list[str]:
    """Returns the lines of a table; languages: of the mean beside English; () = all that were evaluated.

    Raises InputError where the control, or a language, was not evaluated.
    """
    arms = [arm for arm in folder.arms if folder.of(arm, target)]
    base = {arm.intermediate: arm for arm in arms if arm.model == control}
    if not base:
        models = dict.fromkeys(arm.model for arm in arms)
        raise InputError(f"{folder.path}: no model {control!r} on {target.task}; there are {', '.join(models)}")
    head = [folder.label(target), "seeds", "English", "others", "English less control", "others less control"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for arm in arms:
        ours, theirs = (_by_seed(folder, one, target, languages) for one in (arm, base[arm.intermediate]))
        seeds = sorted(ours.keys() & theirs.keys())
        apart = [[ours[seed][i] - theirs[seed][i] for seed in seeds] for i in (0, 1)]
        means = [f"{np.mean([ours[seed][i] for seed in seeds]):.1f}" for i in (0, 1)]
        differences = ["-" if arm in base.values() else _shown(values) for values in apart]
        lines.append(f"| {' | '.join([arm.model, str(len(seeds)), *means, *differences])} |")
    return [*lines, ""]


def _by_seed(folder: Folder, arm: Arm, target: Target, languages: Sequence[str]) -> dict[int, tuple[float, float]]:
    """Returns {seed: (English, mean of the languages, or of all others)}."""
    found = {}
    for run in folder.of(arm, target):
        scores = run.scores(target.metrics)
        if missing := [code for code in languages if code not in scores]:
            raise InputError(f"{folder.path}: {suggest('language', missing[0], scores)}")
        others = [value for code, value in scores.items() if (code in languages if languages else code != SOURCE)]
        found[run.seed] = scores[SOURCE], float(np.mean(others))
    return found


def _shown(values: Sequence[float]) -> str:
    seeds = statistics.over_seeds(values)
    interval = "" if seeds.low is None else f" ({seeds.low:+.1f} to {seeds.high:+.1f})"
    return f"{seeds.mean:+.1f}{interval}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
