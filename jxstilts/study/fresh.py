"""What a study that starts from nothing makes first: its tokenizer and its model."""

import json
import pathlib

from jxstilts import config as configs
from jxstilts import runtime, tasks
from jxstilts.data import pipeline
from jxstilts.data import tokenizer as tokenizers
from jxstilts.models.model import Model, make_config
from jxstilts.runtime import InputError
from jxstilts.study.config import Study, TokenizerConfig


def tokenizer(study: Study, workdir: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the study's tokenizer; trains it once, on a language-balanced sample of the text.

    Raises InputError when the folder's tokenizer was trained with another config.
    """
    config, folder = study.tokenizer, workdir / "tokenizer"
    if config.path:
        return pathlib.Path(config.path)
    record = folder / "trained_with.json"  # written last: a tokenizer without it is not whole
    if record.exists():
        changed = configs.differences(json.loads(record.read_text()), _recorded(config), "config.tokenizer")
        if changed:
            raise InputError(f"{folder} was trained with another config: {'; '.join(changed)}; use another --workdir")
        return folder
    texts = {
        language: [row["text"] for row in tasks.load("text", study.data_dir, "train", language)]
        for language in config.languages
    }
    sizes = {language: sum(map(len, lines)) for language, lines in texts.items()}
    shares = pipeline.language_probabilities(sizes, config.sampling_exponent)
    sample: list[str] = []
    for language, lines in texts.items():
        budget = int(shares[language] * config.characters)
        for line in lines:
            if budget <= 0:
                break
            sample.append(line)
            budget -= len(line)
    size = sum(map(len, sample))
    print(f"training a {config.model} vocabulary of {config.vocab_size} on {size:,} characters", flush=True)
    options = {"model": config.model, "coverage": config.coverage, "sentinels": config.sentinels}
    tokenizers.save(tokenizers.train(sample, config.vocab_size, **options), folder)
    runtime.atomic_write(record, json.dumps(_recorded(config), indent=1))
    return folder


def _recorded(config: TokenizerConfig) -> dict:
    """What a tokenizer was trained with; without sentinels it is what it has always been."""
    return {key: value for key, value in configs.plain(config).items() if key != "sentinels" or value}


def model(study: Study, tokenizer_dir: pathlib.Path) -> Model:
    fields = {key: value for key, value in study.model.items() if value is not None}
    family, preset = fields.pop("family", "xlmr"), fields.pop("preset", None)
    vocabulary = len(tokenizers.load(tokenizer_dir))
    config = make_config(family, preset, **{**fields, "vocab_size": fields.get("vocab_size", vocabulary)})
    if config.vocab_size < vocabulary:
        raise InputError(f"config.model.vocab_size={config.vocab_size}, but the tokenizer has {vocabulary} pieces")
    return Model(config, (), study.compute, family)
