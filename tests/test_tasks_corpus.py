"""Readers on the real corpus: every language and split, exact counts, answers at their offsets."""

import collections
import json
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


# --- choice, tagging, paraphrase, further inference data ----------------------------------------------------------


def balance(examples):
    return dict(sorted(collections.Counter(example["label"] for example in examples).items()))


def test_snli_and_anli_corpus():
    train, dev = tasks.load("snli", DATA, "train"), tasks.load("snli", DATA, "dev")
    assert balance(train) == {0: 3024, 1: 2981, 2: 2994} and balance(dev) == {0: 326, 1: 346, 2: 328}
    assert dev[0] == {
        "id": "0",
        "text_a": "a man talks to a boy.",
        "text_b": "A father converses with his son.",
        "label": 2,
    }
    train, dev = tasks.load("anli", DATA, "train"), tasks.load("anli", DATA, "dev")
    assert collections.Counter(e["id"][:3] for e in train) == {"r1/": 800, "r2/": 800, "r3/": 958}
    assert collections.Counter(e["id"][:3] for e in dev) == {"r1/": 200, "r2/": 200, "r3/": 240}
    assert balance(dev) == {0: 59 + 68 + 102, 1: 72 + 59 + 67, 2: 69 + 73 + 71}
    assert dev[0]["id"] == "r1/197fe73d-27db-4b1e-b6b8-68e029e731d8" and dev[0]["label"] == 2
    assert dev[0]["text_a"].startswith("The Magic Roundabout (released") and "roundabout is." in dev[0]["text_b"]


def test_anli_plus_corpus():
    for split, count in {"train": 2558 + 8999 + 8999, "dev": 640 + 1000 + 1000}.items():
        examples = tasks.load("anli_plus", DATA, split)
        assert len(examples) == len({e["id"] for e in examples}) == count
        assert {e["id"].split("/")[0] for e in examples} == {"anli", "mnli", "snli"}
        assert all(0.3 < count_of / count < 0.37 for count_of in balance(examples).values())


def test_qqp_corpus():
    train, dev = tasks.load("qqp", DATA, "train"), tasks.load("qqp", DATA, "dev")
    assert balance(train) == {0: 5747, 1: 3252} and balance(dev) == {0: 623, 1: 377}
    assert dev[0]["text_a"] == "Who is the stupidest character in Game of Thrones?"
    assert train[3] == {
        "id": "3",
        "text_a": "Marriage",
        "text_b": '"Marriage is an institution." What does this mean?',
        "label": 0,
    }
    assert sum('""' in e["text_a"] + e["text_b"] for e in train + dev) == 1  # it stands in the question itself


@pytest.mark.parametrize("language", tasks.get("pawsx").languages)
def test_pawsx_corpus(language):
    dev, test = tasks.load("pawsx", DATA, "dev", language), tasks.load("pawsx", DATA, "test", language)
    assert len(dev) == len(test) == 2000 and not any("label" in e for e in test)
    positives = {"en": 863, "de": 831, "es": 847, "fr": 860, "ja": 854, "ko": 840, "zh": 853}
    assert balance(dev)[1] == positives[language]
    first = (DATA / f"xtreme/pawsx/dev-{language}.tsv").read_bytes().split(b"\n", 1)[0].decode().split("\t")
    assert [dev[0]["text_a"], dev[0]["text_b"], str(dev[0]["label"])] == first
    with pytest.raises(InputError, match="x-final"):
        tasks.load("pawsx", DATA, "train", language, "files")


def test_hellaswag_corpus():
    train, dev = tasks.load("hellaswag", DATA, "train"), tasks.load("hellaswag", DATA, "dev")
    assert balance(train) == {0: 2246, 1: 2257, 2: 2318, 3: 2219} and balance(dev) == {0: 267, 1: 228, 2: 266, 3: 239}
    assert {len(e["choices"]) for e in train + dev} == {4}
    assert dev[0]["prompt"] == "Pole vault is a sport where you run with a pole and stop and swing your body."
    assert dev[0]["choices"][:2] == [
        "a few women go down a rock and stop.",
        "a few women watch from around a pole vault.",
    ]


def test_cosmosqa_corpus():
    train, dev = tasks.load("cosmosqa", DATA, "train"), tasks.load("cosmosqa", DATA, "dev")
    assert balance(train) == {0: 596, 1: 595, 2: 609, 3: 585} and balance(dev) == {0: 148, 1: 134, 2: 152, 3: 166}
    assert dev[0]["prompt"].endswith("over the phone . What may have caused you and your girlfriend to break up ?")
    assert dev[0]["choices"][3] == "None of the above choices ." and dev[0]["label"] == 0


def test_commonsenseqa_corpus(caplog):
    splits = {split: tasks.load("commonsenseqa", DATA, split) for split in ("train", "dev", "test")}
    assert {split: len(rows) for split, rows in splits.items()} == tasks.get("commonsenseqa").sizes
    assert not caplog.records  # complete
    assert balance(splits["dev"]) == {0: 239, 1: 255, 2: 241, 3: 251, 4: 235}
    assert not any("label" in e for e in splits["test"])
    first = splits["dev"][0]
    assert first["choices"] == ["bank", "library", "department store", "mall", "new york"] and first["label"] == 0
    assert first["prompt"].startswith("A revolving door is convenient")


def test_complete_files_have_the_official_sizes():
    for name, split in [("xnli", "dev"), ("xnli", "test"), ("pawsx", "dev"), ("pawsx", "test"), ("xquad", "test"),
                        ("mlqa", "dev"), ("tydiqa", "train"), ("tydiqa", "dev")]:  # fmt: skip
        assert len(tasks.load(name, DATA, split)) == tasks.get(name).sizes[split]


def test_real_questions_in_the_format_of_squad_v2(tmp_path):
    source = (DATA / "xtreme/mlqa/MLQA_V1/dev/dev-context-en-question-en.json").read_text()
    document = json.loads(source)
    questions = [q for a in document["data"] for p in a["paragraphs"] for q in p["qas"]]
    for i, question in enumerate(questions):
        question["is_impossible"] = i % 3 == 0
        question["plausible_answers"] = question["answers"] if i % 3 == 0 else []
        question["answers"] = [] if i % 3 == 0 else question["answers"]
    file = tmp_path / "intermediate/squad/dev-v2.0.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(document))
    examples = tasks.load("squad_v2", tmp_path, "dev")
    assert len(examples) == 1148 and sum(not e["answers"] for e in examples) == 383
    check_spans(examples, labelled=True)
