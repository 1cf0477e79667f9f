"""Examples -> features, through the on-disk cache."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from jxstilts.data import cache, tokenizer
from jxstilts.data.features import Features, concatenate
from jxstilts.data.template import Template

FORMAT = 3  # raise it when a form makes other arrays of the same input, so that old caches are not read


def features(
    form: Any,
    examples: Any,
    tokenizer_: Any,
    template: Template,
    reading: Any,
    cache_dir: str | pathlib.Path | None,
    **more: Any,
) -> Features:
    """Tokenises examples by their form, or reads what an earlier call with the same content left in `cache_dir`.

    form, reading, more: see `forms.Form.tokenize`. The key holds a hash of the examples themselves, the tokenizer, the
    template and every option (`max_length`, ...), so a changed data file is noticed. cache_dir=None: no cache.
    """

    def made(part: list[dict]) -> Features:
        make = lambda: form.tokenize(part, tokenizer_, template, reading, **more)  # noqa: E731
        if cache_dir is None:
            return make()
        digest = hashlib.sha256()
        for example in part:
            digest.update(json.dumps(example, sort_keys=True).encode())
            digest.update(b"\n")
        key = {
            "format": FORMAT,
            "form": form.name,
            "examples": digest.hexdigest(),
            "tokenizer": tokenizer.fingerprint(tokenizer_),
            "template": dataclasses.asdict(template),
            "options": {**form.options(reading), **more},
        }
        return cache.cached(pathlib.Path(cache_dir), key, make)

    found = [made(part) for part in form.parts(examples)]
    return found[0] if len(found) == 1 else concatenate(found)
