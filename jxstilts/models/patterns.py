"""Parameters by their paths or the beginning of them, in which * stands for anything (fnmatch).

The encoder's own parts need no encoder/ before them: embeddings, layers/mlp_in.
"""

import fnmatch
from collections.abc import Sequence


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Says whether a parameter's path, or its beginning, is one of the patterns."""
    return any(fnmatch.fnmatchcase(prefix, pattern) for pattern in patterns for prefix in prefixes(path))


def prefixes(path: str) -> set[str]:
    """encoder/pooler/bias -> encoder, encoder/pooler, encoder/pooler/bias, pooler, pooler/bias."""
    parts = path.split("/")
    whole = {"/".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return whole | {prefix.removeprefix("encoder/") for prefix in whole if prefix != "encoder"}
