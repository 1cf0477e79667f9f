"""What a study that starts from nothing makes first: its tokenizer and its model."""

import json
import pathlib

from jxstilts import config as configs
from jxstilts import runtime, tasks
from jxstilts.data import pipeline
from jxstilts.data import tokenizer as tokenizers
from jxstilts.models.model import Model, make_config
from jxstilts.runtime import InputError
from jxstilts.study.config import Study


def tokenizer(study: Study, workdir: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the study's tokenizer; trains it once, on a language-balanced sample of the text.

    Raises InputError when the folder's tokenizer was trained with another config.
    """
    config, folder = study.tokenizer, workdir / "tokenizer"
    if config.path:
        return pathlib.Path(config.path)
    record = folder / "trained_with.json"  # written last: a tokenizer without it is not whole
    if record.exists():
        changed = configs.differences(json.loads(record.read_text()), configs.plain(config), "config.tokenizer")
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
    tokenizers.save(tokenizers.train(sample, config.vocab_size, model=config.model, coverage=config.coverage), folder)
    runtime.atomic_write(record, json.dumps(configs.plain(config), indent=1))
    return folder


def model(study: Study, tokenizer_dir: pathlib.Path) -> Model:
    fields = {key: value for key, value in study.model.items() if value is not None}
    family, preset = fields.pop("family", "xlmr"), fields.pop("preset", None)
    vocabulary = len(tokenizers.load(tokenizer_dir))
    config = make_config(family, preset, **{**fields, "vocab_size": fields.get("vocab_size", vocabulary)})
    if config.vocab_size < vocabulary:
        raise InputError(f"config.model.vocab_size={config.vocab_size}, but the tokenizer has {vocabulary} pieces")
    return Model(config, (), study.compute, family)
