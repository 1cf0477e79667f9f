"""Runs a study: the same as `jxstilts run`. `python launch/run.py --config=configs/X.py --workdir=W`."""

import sys

from jxstilts.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
