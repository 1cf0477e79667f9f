"""Runs a study: the same as `jxstilts run`. `python launch/run.py --config=configs/X.py --workdir=W`."""

import sys

from jxstilts.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "run")
    sys.exit(main())
