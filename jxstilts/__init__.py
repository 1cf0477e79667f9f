"""jxstilts: English intermediate-task training for zero-shot cross-lingual transfer, in JAX/Flax."""

import sys

__version__ = "0.1.0"

if sys.version_info < (3, 11):  # noqa: UP036  an installer refuses it too, but a checkout has none
    raise ImportError(
        "jxstilts needs Python 3.11 or newer; this is {}.{}, {}".format(*sys.version_info[:2], sys.executable)
    )
