"""Readers on the real corpus: every language and split, exact counts, answers at their offsets."""

import collections
import os
import pathlib
import unicodedata

import pytest

from jxstilts import tasks
from jxstilts.runtime import InputError
from jxstilts.tasks import languages, qa, retrieval

DATA = pathlib.Path(os.environ.get("JXSTILTS_DATA", ""))
pytestmark = pytest.mark.skipif(
    not os.environ.get("JXSTILTS_DATA"), reason="JXSTILTS_DATA does not name the unpacked test corpus"
)


@pytest.mark.parametrize("language", tasks.get("xnli").languages)
def test_xnli_corpus(language):
    dev = tasks.load("xnli", DATA, "dev", language)
    assert len(dev) == 2490 and collections.Counter(e["label"] for e in dev) == {0: 830, 1: 830, 2: 830}
    test = tasks.load("xnli", DATA, "test", language)
    assert len(test) == 5010 and not any("label" in e for e in test)  # Greek holds U+001D, no line end
    for split, examples in (("dev", dev), ("test", test)):
        first = (DATA / f"xtreme/xnli/{split}-{language}.tsv").read_bytes().split(b"\n", 1)[0].decode().split("\t")
        assert [examples[0]["text_a"], examples[0]["text_b"]] == first[:2]  # header-less: line 1 is an example
        assert all(e["text_a"].strip() and e["text_b"].strip() for e in examples)
    english = tasks.load("xnli", DATA, "dev", "en")
    assert [(e["id"], e["label"]) for e in dev] == [(e["id"], e["label"]) for e in english]


def test_mnli_corpus():
    train, dev = tasks.load("mnli", DATA, "train"), tasks.load("mnli", DATA, "dev")
    assert (len(train), len(dev)) == (8999, 1000)
    assert collections.Counter(e["label"] for e in dev) == {0: 320, 1: 347, 2: 333}


def check_spans(examples, labelled):
    assert len({e["id"] for e in examples}) == len(examples)
    for example in examples:
        assert ("answers" in example) == labelled
        for answer in example.get("answers", ()):
            start = answer["start"]
            assert answer["text"] and example["context"][start : start + len(answer["text"])] == answer["text"]


@pytest.mark.parametrize("language", tasks.get("xquad").languages)
def test_xquad_corpus(language):
    examples = tasks.load("xquad", DATA, "test", language)
    assert len(examples) == 1190
    check_spans(examples, labelled=True)
    assert [e["id"] for e in examples] == [e["id"] for e in tasks.load("xquad", DATA, "test", "en")]


MLQA_DEV = {"en": 1148, "de": 512, "es": 500, "ar": 517, "zh": 504, "vi": 511, "hi": 507}


def test_mlqa_corpus():
    ids = {}
    for language in tasks.get("mlqa").languages + tasks.get("mlqa").more_languages:
        examples = tasks.load("mlqa", DATA, "dev", language)
        check_spans(examples, labelled=True)
        ids[language] = {e["id"] for e in examples}
    assert {language: len(ids[language]) for language in MLQA_DEV} == MLQA_DEV
    for pair in tasks.get("mlqa").more_languages:
        context, question = pair.split("-")
        assert ids[pair] == ids[context] & ids[question]  # an item is in every pair of its languages
    with pytest.raises(InputError, match=r"no 'test' file for 'hi'.*Other splits of 'hi' there: dev"):
        tasks.load("mlqa", DATA, "test", "hi", source="files")


TYDIQA_DEV = {"ar": 921, "bn": 113, "en": 440, "fi": 782, "id": 565, "ko": 276, "ru": 812, "sw": 499, "te": 669}


def test_tydiqa_corpus():
    for language, count in TYDIQA_DEV.items():
        examples = tasks.load("tydiqa", DATA, "dev", language)
        assert len(examples) == count
        check_spans(examples, labelled=False)  # the corpus holds XTREME's form, with the answers taken out
        assert all(e["id"].startswith(qa.TYDIQA_NAMES[language]) for e in examples)
    for language, count in {"en": 3696, "ko": 1625, "sw": 2755}.items():
        examples = tasks.load("tydiqa", DATA, "train", language)
        assert len(examples) == count
        check_spans(examples, labelled=True)
    with pytest.raises(InputError, match=r"Languages with this split there: en, ko, sw\. Other splits of 'fi' .*: dev"):
        tasks.load("tydiqa", DATA, "train", "fi", source="files")


TATOEBA_BELOW_1000 = """amh 168 ang 134 arq 911 arz 477 ast 127 awa 231 bos 354 ceb 600 cha 137 csb 253 cym 575 dsb 479
fao 262 fry 173 gla 829 gsw 117 hsb 483 hye 742 jv 205 ka 746 kk 575 khm 722 kur 410 ml 687 max 284 mon 440 nov 257
orv 835 pms 525 slv 823 sw 390 swg 112 ta 307 te 234 th 548 tuk 203 tzl 104 uzb 428 xho 142 yid 848""".split()


def test_tatoeba_corpus():
    below = dict(zip(TATOEBA_BELOW_1000[::2], map(int, TATOEBA_BELOW_1000[1::2]), strict=True))
    spec = tasks.get("tatoeba")
    files = set()
    for language in spec.languages + spec.more_languages:
        pairs = tasks.load("tatoeba", DATA, "test", language)
        count = below.get(language, 1000)
        assert len(pairs["source"]) == len(pairs["target"]) == len(pairs["gold"]) == count
        assert all(row["text"].strip() for side in ("source", "target") for row in pairs[side])
        files.add(spec.patterns("test", language)[0].split("/")[-1])
    assert files == {p.name for p in (DATA / "xtreme/tatoeba").iterdir() if p.suffix != ".eng"}  # all 112 pairs
    assert len(files) == 112 and set(retrieval.XTREME) <= set(languages.XTREME)


@pytest.mark.parametrize("language", tasks.get("text").languages)
def test_text_corpus(language):
    folder = DATA / "text"
    files = [folder / f"common_voice/{language}.txt", folder / f"bible/{language}.tsv"]
    for code in languages.get(language).ntrex:
        files += [folder / f"ntrex/newstest2019-{kind}.{code}.txt" for kind in ("src", "ref", "ref-2")]
    expected = sum(file.read_bytes().count(b"\n") for file in files if file.is_file())
    if not expected:
        assert language in ("ht", "jv")
        with pytest.raises(InputError, match="no 'train' file"):
            tasks.load("text", DATA, "train", language)
        return
    examples = tasks.load("text", DATA, "train", language)
    assert len(examples) == expected == len({e["id"] for e in examples})
    assert not any("\r" in e["text"] or not e["text"].strip() for e in examples)


def test_text_counts_of_some_languages():
    counts = {"en": 54779 + 1997, "es": 11601 + 3 * 1997, "et": 10000 + 9383 + 1997, "qu": 7937, "my": 9 + 1997}
    assert {code: len(tasks.load("text", DATA, "train", code)) for code in counts} == counts


SCRIPT_NAMES = {
    "Latn": ["LATIN"],
    "Arab": ["ARABIC"],
    "Cyrl": ["CYRILLIC"],
    "Beng": ["BENGALI"],
    "Grek": ["GREEK"],
    "Gujr": ["GUJARATI"],
    "Hebr": ["HEBREW"],
    "Deva": ["DEVANAGARI"],
    "Jpan": ["HIRAGANA", "KATAKANA", "CJK", "KATAKANA-HIRAGANA"],
    "Geor": ["GEORGIAN"],
    "Kore": ["HANGUL"],
    "Mlym": ["MALAYALAM"],
    "Mymr": ["MYANMAR"],
    "Guru": ["GURMUKHI"],
    "Taml": ["TAMIL"],
    "Telu": ["TELUGU"],
    "Thai": ["THAI"],
    "Hans": ["CJK"],
}


@pytest.mark.parametrize("entry", languages.TABLE, ids=lambda entry: entry.code)
def test_script_is_that_of_the_real_text(entry):
    if entry.code in ("ht", "jv"):
        pytest.skip("the corpus has no raw text of this language")
    sample = "".join(e["text"] for e in tasks.load("text", DATA, "train", entry.code, limit=300))
    found = collections.Counter(unicodedata.name(c, "?").split()[0] for c in sample if c.isalpha())
    assert sum(found[name] for name in SCRIPT_NAMES[entry.script]) > 0.8 * found.total()
