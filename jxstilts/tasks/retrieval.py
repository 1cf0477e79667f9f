"""Sentence retrieval: Tatoeba, a foreign sentence for each English one."""

import pathlib

from jxstilts.runtime import InputError
from jxstilts.tasks import languages
from jxstilts.tasks.spec import TaskSpec, Tfds, read_lines

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
    english = path.with_suffix(".eng")
    if not english.is_file():
        raise InputError(f"no file {english}: the English side of {path.name} is expected beside it")
    sources, targets = read_lines(path), read_lines(english)
    if len(sources) != len(targets):
        raise InputError(f"{path} has {len(sources)} lines and {english.name} {len(targets)}; they must be aligned")
    return _pairs(sources, targets)


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
    metric="retrieval",
    tfds=Tfds(names=("tatoeba/tatoeba_{language}",), splits={"test": "train"}, convert=_from_tfds, languages=XTREME),
    description="Find the translation of an English sentence among up to 1,000 sentences of another language",
    url="https://github.com/facebookresearch/LASER/tree/main/data/tatoeba/v1",
    licence="CC BY 2.0 FR",
)
