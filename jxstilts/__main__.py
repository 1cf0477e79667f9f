"""The `jxstilts` command, also as `python -m jxstilts`."""

import sys

from jxstilts import pages


def main() -> int:
    """Runs the command line, where it computes with memory in large pages, and returns the process's exit code."""
    if sys.argv[1:2] in (["run"], ["evaluate"]):
        pages.large()
    from jxstilts import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
