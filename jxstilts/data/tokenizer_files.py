"""A tokenizer's folder: tokenizer.json, a SentencePiece model or BERT's vocab.txt; added tokens; tokens' roles.

Formats: those that `transformers` writes (tokenizer_config.json, special_tokens_map.json, added_tokens.json).
"""

import base64
import copy
import json
import pathlib
import re
from collections.abc import Mapping

from jxstilts.data import sentencepiece_model
from jxstilts.data.vocabulary import FIRST, MASK
from jxstilts.runtime import InputError

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
NEEDED = ("unk_token", "pad_token")
# What the tokens are called where no file says so: (bos, eos, unk, sep, pad, cls, mask) of each kind of vocabulary.
USUAL = {
    "XLMRoberta": ("<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", MASK),
    "Bert": (None, None, "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"),
    "Gemma": ("<bos>", "<eos>", "<unk>", "<eos>", "<pad>", "<bos>", MASK),
}
KINDS = {"Roberta": "XLMRoberta", "Camembert": "XLMRoberta", "DistilBert": "Bert", "Electra": "Bert"}
FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
OTHERS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def find(path: pathlib.Path) -> pathlib.Path:
    """Returns the file that holds the vocabulary: of a folder, or the file that is given. Raises InputError."""
    file = path
    if path.is_dir():
        found = (path / "tokenizer.json", *sorted(path.glob("*.bpe.model")), path / "vocab.txt")
        file = next((file for file in found if file.is_file()), None)
    if file is None or not file.is_file() or file.suffix not in (".json", ".model", ".txt"):
        raise InputError(
            f"{path}: no tokenizer here; give a folder with tokenizer.json, sentencepiece.bpe.model or vocab.txt"
        )
    return file


def parts(file: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files that decide what the tokenizer of `file` is."""
    return [file, *(other for name in OTHERS if (other := file.with_name(name)).is_file())]


def read(file: pathlib.Path):
    """Returns a `tokenizers.Tokenizer` and {role: token} of ROLES, as far as there are such tokens.

    A role's token is the one that tokenizer_config.json names; else special_tokens_map.json; else the usual one, if the
    vocabulary has exactly one of them. Raises InputError.
    """
    config, special = (_object(place) if place.is_file() else {} for place in map(file.with_name, OTHERS[:2]))
    if file.suffix == ".json":
        backend = _from_json(file)
    elif file.suffix == ".model":
        backend = finish(sentencepiece_model.read(file))
        _add(backend, file, config, special)
    else:
        backend = _from_words(file, config, special)
        _add(backend, file, config, special)
    roles = _roles(backend, file, config, special)
    if file.suffix == ".txt":
        backend.add_special_tokens([*dict.fromkeys(roles.values())])
        _set_pattern(backend, roles)
    return backend, roles


def finish(backend, sentinels: int = 0):
    """Returns a copy of a `tokenizers.Tokenizer` with XLM-R's special tokens, sequences and decoder.

    sentinels: tokens <extra_id_N> after all others, the first of them last, as T5 has them.

    Copied by way of JSON, in which a score may change in its last bit: then a saved one has the same fingerprint.
    """
    from tokenizers import AddedToken, decoders, processors

    backend.add_special_tokens([*FIRST, AddedToken(MASK, lstrip=True, normalized=False)])
    if sentinels:
        backend.add_special_tokens([f"<extra_id_{number}>" for number in reversed(range(sentinels))])
    ids = [(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ids
    )
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    return copy.deepcopy(backend)


def _roles(backend, file: pathlib.Path, config: Mapping, special: Mapping) -> dict[str, str]:
    roles = {}
    kind = str(config.get("tokenizer_class")).removesuffix("Fast").removesuffix("Tokenizer")
    kind = {".txt": "Bert", ".model": "XLMRoberta"}.get(file.suffix, KINDS.get(kind, kind))
    for place, role in enumerate(ROLES):
        token = _named(role, file, config, special)
        if token is not None:
            if backend.token_to_id(token) is None:
                raise InputError(
                    f"{file}: its vocabulary has no {role}, nor does {OTHERS[0]} name another: {token!r:.60} is named"
                )
            roles[role] = token
            continue
        usual = [USUAL[kind][place]] if kind in USUAL else [names[place] for names in USUAL.values()]
        found = sorted({token for token in usual if token is not None and backend.token_to_id(token) is not None})
        if len(found) > 1:
            raise InputError(f"{file}: its vocabulary has {' and '.join(found)}: name the {role} in {OTHERS[0]}")
        if found:
            roles[role] = found[0]
    missing = [role for role in NEEDED if role not in roles]
    if missing:
        raise InputError(f"{file}: its vocabulary has no {', '.join(missing)}, nor does {OTHERS[0]} name another")
    return roles


def _named(role: str, file: pathlib.Path, config: Mapping, special: Mapping) -> str | None:
    """Returns the token that tokenizer_config.json gives a role, else special_tokens_map.json. Raises InputError."""
    for name, found in zip(OTHERS[:2], (config, special), strict=True):
        token = found.get(role)
        if token is not None:
            token = token.get("content") if isinstance(token, dict) else token
            if not isinstance(token, str) or not token.isprintable() or not token:
                raise InputError(f"{file.with_name(name)}: {role}={token!r:.60}: expected a token")
            return token
    return None


# --- tokenizer.json --------------------------------------------------------------------------------------------------


def _from_json(file: pathlib.Path):
    import tokenizers

    stored = _object(file)
    model = stored.get("model")
    if not isinstance(model, dict) or "vocab" not in model:
        raise InputError(f"{file}: not a tokenizer: it holds no vocabulary")
    try:
        _check_characters(stored.get("normalizer"))
        backend = tokenizers.Tokenizer.from_file(str(file))
        # a character of private use: what is unknown has to have an id
        backend.encode("\ue000", add_special_tokens=False)
        pieces = model["vocab"].values() if isinstance(model["vocab"], dict) else range(len(model["vocab"]))
        last = max(*pieces, *backend.get_added_tokens_decoder())
    except Exception as error:  # the library raises no less for a damaged file
        raise InputError(f"{file}: not a tokenizer, or damaged: {error!r:.300}") from error
    count = backend.get_vocab_size(with_added_tokens=True)
    if last >= count:  # a model has as many rows as there are tokens
        raise InputError(f"{file}: damaged: it has {count} tokens, but one with the id {last}")
    return backend


def _check_characters(normalizer) -> None:
    """Raises an error for a damaged character map in the JSON of a normaliser: the libraries trust it."""
    if isinstance(normalizer, dict):
        if normalizer.get("precompiled_charsmap") is not None:
            sentencepiece_model.check_characters(base64.b64decode(normalizer["precompiled_charsmap"], validate=True))
        for step in normalizer.get("normalizers") or ():
            _check_characters(step)


def _object(file: pathlib.Path) -> dict:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a tokenizer's JSON, or damaged: {error!s:.300}") from error
    if not isinstance(found, dict):
        raise InputError(f"{file}: not a tokenizer's JSON: expected an object, found {found!r:.60}")
    return found


# --- vocab.txt -------------------------------------------------------------------------------------------------------


def _from_words(file: pathlib.Path, config: Mapping, special: Mapping):
    """Returns BERT's WordPiece tokenizer of a vocab.txt, with BertTokenizer's defaults."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    try:
        lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as lines of UTF-8: {error!s:.300}") from error
    vocabulary = {line: place for place, line in enumerate(lines)}
    if len(vocabulary) != len(lines):
        first, twice = next((place, line) for place, line in enumerate(lines) if vocabulary[line] != place)
        raise InputError(f"{file}:{first + 1}: {twice!r:.60} stands again in line {vocabulary[twice] + 1}")
    options = {}
    for key, usual in (("do_lower_case", True), ("strip_accents", None), ("tokenize_chinese_chars", True)):
        options[key] = config.get(key, usual)
        if not isinstance(options[key], bool) and (key != "strip_accents" or options[key] is not None):
            raise InputError(f"{file.with_name(OTHERS[0])}: {key}={options[key]!r:.60}: expected true or false")
    if config.get("do_basic_tokenize", True) is not True:
        raise InputError(f"{file.with_name(OTHERS[0])}: do_basic_tokenize must be true: words are cut as BERT does")
    unknown = _named("unk_token", file, config, special) or "[UNK]"
    if unknown not in vocabulary:
        raise InputError(f"{file}: its vocabulary has no unk_token {unknown!r:.60}; {OTHERS[0]} may name another")
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=options["tokenize_chinese_chars"],
        strip_accents=options["strip_accents"],
        lowercase=options["do_lower_case"],
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def _set_pattern(backend, roles: Mapping[str, str]) -> None:
    from tokenizers import processors

    if "cls_token" in roles and "sep_token" in roles:
        cls, sep = roles["cls_token"], roles["sep_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{cls}:0 $A:0 {sep}:0",
            pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
            special_tokens=[(token, backend.token_to_id(token)) for token in (cls, sep)],
        )


# --- added tokens ----------------------------------------------------------------------------------------------------


def _add(backend, file: pathlib.Path, config: Mapping, special: Mapping) -> None:
    """Adds the tokens of added_tokens_decoder (tokenizer_config.json) and of added_tokens.json, in the order of ids.

    Each id has to be the token's own in the vocabulary, or the next free one. A token of added_tokens.json alone is a
    plain one (`normalized`), as in `transformers`. Raises InputError.
    """
    added = _added(file, config)
    known = {str(token) for token in backend.get_added_tokens_decoder().values()}
    for content, (number, token, source) in sorted(added.items(), key=lambda item: item[1][0]):
        own = backend.token_to_id(content)
        expected = backend.get_vocab_size(with_added_tokens=True) if own is None else own
        if number != expected:
            raise InputError(f"{source}: {content!r:.60} has the id {number}, where {file.name} has {expected} for it")
        if own is not None and file.suffix == ".model" and content not in known:
            raise InputError(f"{source}: {content!r:.60} is a piece of {file.name}: it cannot be an added token too")
        if own is None or file.suffix == ".txt":
            backend.add_tokens([token])
    for name, found in zip(OTHERS[:2], (config, special), strict=True):
        for key in ("additional_special_tokens", "extra_special_tokens"):
            listed = found.get(key) or ()
            if not isinstance(listed, list | dict | tuple):
                raise InputError(f"{file.with_name(name)}: {key}={listed!r:.60}: expected a list")
            for token in listed.values() if isinstance(listed, dict) else listed:
                content = token.get("content") if isinstance(token, dict) else token
                if not isinstance(content, str) or backend.token_to_id(content) is None:
                    raise InputError(f"{file.with_name(name)}: {key} has {content!r:.60}, for which no file has an id")


def _added(file: pathlib.Path, config: Mapping) -> dict[str, tuple]:
    """Returns {token: (id, AddedToken, the file that says so)}."""
    from tokenizers import AddedToken

    (decoder, old), added = (file.with_name(OTHERS[0]), file.with_name(OTHERS[2])), {}
    listed = config.get("added_tokens_decoder") or {}
    if not isinstance(listed, dict):
        raise InputError(f"{decoder}: added_tokens_decoder={listed!r:.60}: expected an object")
    for number, token in listed.items():
        flags = token if isinstance(token, dict) else {}
        content = flags.get("content")
        if not re.fullmatch("[0-9]{1,9}", number) or not isinstance(content, str) or not content:
            raise InputError(f"{decoder}: added_tokens_decoder: {number!r:.30}: {token!r:.60}: expected an id, a token")
        flags = {flag: bool(flags.get(flag, flag == "normalized" and not flags.get("special"))) for flag in FLAGS}
        if added.setdefault(content, (int(number), AddedToken(content, **flags), decoder))[0] != int(number):
            raise InputError(f"{decoder}: added_tokens_decoder: {content!r:.60} stands twice")
    for content, number in (_object(old) if old.is_file() else {}).items():
        if type(number) is not int or not 0 <= number < 2**31 or not content:
            raise InputError(f"{old}: {content!r:.60}: {number!r:.30}: expected a token and its id")
        if added.setdefault(content, (number, AddedToken(content, normalized=True), old))[0] != number:
            raise InputError(f"{old}: {content!r:.60}: the id {number}, but {added[content][0]} in {OTHERS[0]}")
    return added
