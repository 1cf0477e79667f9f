"""Examples -> features, through the on-disk cache."""

import hashlib
import json
import pathlib
from typing import Any

from jxstilts.data import cache, tokenize, tokenizer

FORMAT = 3  # raise it when `tokenize` gives other arrays for the same input, so that old caches are not read


def features(
    examples: list[dict], type: str, tokenizer_: Any, cache_dir: str | pathlib.Path | None, **options: Any
) -> tokenize.Features:
    """Tokenises examples, or reads what an earlier call with the same content left in `cache_dir`.

    The key holds a hash of the examples themselves, the tokenizer and every option (`max_length`, ...), so a changed
    data file is noticed. cache_dir=None: no cache.
    """
    if cache_dir is None:
        return tokenize.tokenize(examples, type, tokenizer_, **options)
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(example, sort_keys=True).encode())
        digest.update(b"\n")
    key = {
        "format": FORMAT,
        "type": type,
        "examples": digest.hexdigest(),
        "tokenizer": tokenizer.fingerprint(tokenizer_),
        "options": options,
    }
    make = lambda: tokenize.tokenize(examples, type, tokenizer_, **options)  # noqa: E731
    return cache.cached(pathlib.Path(cache_dir), key, make)
