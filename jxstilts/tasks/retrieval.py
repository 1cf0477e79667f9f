"""Sentence retrieval: Tatoeba (a foreign sentence for each English one) and BUCC (the pairs hidden in two texts)."""

import pathlib

from jxstilts.readers import read_lines
from jxstilts.runtime import InputError, shown
from jxstilts.tasks import languages
from jxstilts.tasks.spec import TaskSpec, Tfds

XTREME = tuple(
    """af ar bg bn de el es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr nl pt ru sw ta te th tl tr ur vi
    zh""".split()
)
XTREME_R = ("az", "lt", "pl", "ro", "uk")  # what XTREME-R adds
OTHERS = tuple(
    """amh ang arq arz ast awa bel ber bos bre cat cbk ceb ces cha cor csb cym dan dsb dtp epo fao fry gla gle glg gsw
    hrv hsb hye ido ile ina isl kab khm kur kzj lat lfn lvs max mhr mkd mon nds nno nob nov oci orv pam pms slk slv sqi
    srp swe swg tat tuk tzl uig uzb war wuu xho yid yue zsm""".split()
)
INDIVIDUAL = {"fa": "pes", "sw": "swh", "zh": "cmn"}  # files named after one language of a macrolanguage


def read_pairs(path: pathlib.Path) -> dict:
    """Reads two line-aligned files, `path` and its English side (the same name, ending in .eng).

    Returns {"source": foreign sentences, "target": English sentences, "gold": [(source id, target id), ...]}, the
    sentences as {"id", "text"} in the order of the files; an id is the line's number from 0. The English sentences
    are the queries. (XTREME's submissions list them sorted by text.)
    """
    english = _beside(path, ".eng")
    sources, targets = read_lines(path), read_lines(english)
    if len(sources) != len(targets):
        raise InputError(f"{path} has {len(sources)} lines and {english.name} {len(targets)}; they must be aligned")
    return _pairs(sources, targets)


def _beside(path, suffix):
    english = path.with_suffix(suffix)
    if not english.is_file():
        raise InputError(f"no file {english}: the English side of {path.name} is expected beside it")
    return english


def companions(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the other files of a foreign side's, the English side and the gold pairs; none without the English."""
    there = [other for suffix in (".eng", ".en", ".gold") if (other := path.with_suffix(suffix)).is_file()]
    return there if any(other.suffix != ".gold" for other in there) else []


def read_mining(path: pathlib.Path) -> dict:
    """Reads one pair of BUCC: `path`, the foreign side, and the files of the same name ending in .en and .gold.

    Both sides are id TAB sentence, a line each; the sides differ in length, and a sentence may stand there under
    several ids. .gold is foreign id TAB English id; where the file is missing (XTREME deletes that of test), the
    result has no "gold". Returns the form of `read_pairs`, with the files' ids and in their order.
    """
    sides = {"source": path, "target": _beside(path, ".en")}
    examples = {side: _read_sentences(file) for side, file in sides.items()}
    gold = path.with_suffix(".gold")
    if not gold.is_file():
        return examples
    known = {side: {row["id"] for row in rows} for side, rows in examples.items()}
    pairs: dict[tuple[str, str], int] = {}
    for number, line in enumerate(read_lines(gold), start=1):
        pair = tuple(line.split("\t"))
        if len(pair) != 2:
            raise InputError(f"{gold}:{number}: {len(pair)} columns, expected 2: foreign id and English id")
        for identifier, (side, file) in zip(pair, sides.items(), strict=True):
            if identifier not in known[side]:
                raise InputError(f"{gold}:{number}: id {identifier!r:.60} is not in {file.name}")
        if pair in pairs:
            raise InputError(f"{gold}:{number}: the pair {shown(' '.join(pair), 120)} is also on line {pairs[pair]}")
        pairs[pair] = number
    return examples | {"gold": list(pairs)}


def _read_sentences(path):
    lines_of: dict[str, int] = {}
    sentences = []
    for number, line in enumerate(read_lines(path), start=1):
        identifier, tab, text = line.partition("\t")
        if not tab or not identifier:
            raise InputError(f"{path}:{number}: expected an id, a tab and a sentence, got {line!r:.60}")
        if identifier in lines_of:
            raise InputError(f"{path}:{number}: id {identifier!r:.60} is also on line {lines_of[identifier]}")
        lines_of[identifier] = number
        sentences.append({"id": identifier, "text": text})
    return sentences


def first(examples: dict, limit: int) -> dict:
    """Returns the first `limit` source sentences with their gold pairs, and as many English ones, or more.

    The English ones are the partners of those sources, and the first others as far as the limit leaves room, so that
    a part of BUCC holds pairs as densely as the whole. Of aligned files that is the first `limit` lines. Where no pair
    begins so early, the last of the sources gives way to that of the first pair, so that there is something to score.
    """
    source, pairs = examples["source"][:limit], examples.get("gold", [])
    kept = {row["id"] for row in source}
    if pairs and not any(a in kept for a, _ in pairs):
        source[-1] = next(row for row in examples["source"] if row["id"] == pairs[0][0])
        kept = {row["id"] for row in source}
    gold = [pair for pair in pairs if pair[0] in kept]
    partners = {target for _, target in gold}
    room = limit - len(partners)
    target = []
    for row in examples["target"]:
        if row["id"] not in partners:
            room -= 1
            if room < 0:
                continue
        target.append(row)
    return {"source": source, "target": target} | ({"gold": gold} if "gold" in examples else {})


def _pairs(sources, targets):
    return {
        "source": [{"id": str(i), "text": text} for i, text in enumerate(sources)],
        "target": [{"id": str(i), "text": text} for i, text in enumerate(targets)],
        "gold": [(str(i), str(i)) for i in range(len(sources))],
    }


def _from_tfds(rows, language):
    # its builder keeps the line ends
    return _pairs(*([row[side].rstrip("\r\n") for row in rows] for side in ("source_sentence", "target_sentence")))


def _fields(language):
    if language in OTHERS:
        return {"iso3": (language,)}
    return {"iso3": (INDIVIDUAL.get(language) or languages.get(language).iso3,)}


TATOEBA = TaskSpec(
    name="tatoeba",
    type="retrieval",
    languages=XTREME,
    more_languages=XTREME_R + OTHERS,
    splits={"test": ("xtreme/tatoeba/tatoeba.{iso3}-eng.{iso3}",)},
    fields=_fields,
    read=read_pairs,
    companions=companions,
    first=first,
    metric="retrieval",
    tfds=Tfds(names=("tatoeba/tatoeba_{language}",), splits={"test": "train"}, convert=_from_tfds, languages=XTREME),
    description="Find the translation of an English sentence among up to 1,000 sentences of another language",
    url="https://github.com/facebookresearch/LASER/tree/main/data/tatoeba/v1",
    licence="CC BY 2.0 FR",
)


# XTREME's names, and those of the shared task's archives: XTREME's dev is its sample set, test its training set.
BUCC_SETS = {"dev": "sample", "test": "training"}


def _bucc_files(split):
    renamed = f"xtreme/bucc2018/{{language}}-en.{split}.{{language}}"
    archive = f"bucc2018/{{language}}-en/{{language}}-en.{BUCC_SETS[split]}.{{language}}"
    archives = (f"xtreme/{archive}", archive)
    # XTREME deletes the gold pairs of test; the archive has them
    return (*archives, renamed) if split == "test" else (renamed, *archives)


BUCC = TaskSpec(
    name="bucc2018",
    type="mining",
    languages=("de", "fr", "ru", "zh"),
    splits={split: _bucc_files(split) for split in BUCC_SETS},
    read=read_mining,
    companions=companions,
    first=first,
    metric="bucc",
    description="Find the few pairs of translations in two texts, one of them English; 'dev' is the shared task's "
    "sample set and 'test' its training set",
    url="https://comparable.limsi.fr/bucc2018/bucc2018-task.html",
    licence="not stated; the text is mostly Wikipedia's (CC BY-SA)",
)
