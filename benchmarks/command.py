"""What every benchmark's command does: it measures, prints its table, and writes JSON where asked."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from jxstilts import pages, runtime
from jxstilts.runtime import InputError


def main(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], dict],
    table: Callable[[dict], str],
    argv: Sequence[str] | None,
) -> int:
    """Runs a benchmark, prints its table and returns the exit code; `--out` names a JSON file to write.

    The code is 1 where the result says in "failed" what it found wrong. Both sides get their memory as `jxstilts run`
    gets it.
    """
    if argv is None:
        pages.large()
    options = parser.parse_args(argv)
    try:
        result = run(options)
    except InputError as error:
        print(f"{parser.prog.removeprefix('python -m ')}: error: {error}", file=sys.stderr)
        return runtime.EXIT_BAD_INPUT
    print(table(result))
    if options.out:
        runtime.atomic_write(options.out, json.dumps(result, indent=2) + "\n")
    if result.get("failed"):
        print(f"{parser.prog.removeprefix('python -m ')}: {result['failed']}", file=sys.stderr)
    return int(bool(result.get("failed")))


def device(name: str) -> Any:
    """Returns JAX's first device of a kind, "cpu" or "gpu". Raises InputError where JAX cannot use it here."""
    import jax

    jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[name])
    try:
        found = jax.devices()[0]
    except RuntimeError as error:
        raise InputError(f"--device={name}: JAX cannot use it here: {str(error).splitlines()[0]}") from error
    if found.platform != name:
        raise InputError(f"--device={name}: this process already runs JAX on {found.platform}")
    return found
