"""Every file of XTREME in the corpus through its reader, against a count and a text taken from the file itself.

The files are found by their names on disk, so none is passed over, and read by csv, json and split only.
"""

import collections
import csv
import json
import re

import pytest

from jxstilts import tasks
from jxstilts.runtime import InputError
from jxstilts.tasks import languages


def split_lines(path):
    lines = path.read_bytes().decode("utf-8").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def cells(path):
    with path.open(encoding="utf-8", newline="\n") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def found(folder, pattern):
    """Returns {groups of the pattern: path} of the files below a folder whose relative path matches in full."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {match.groups(): path for name, path in paths.items() if (match := re.fullmatch(pattern, name))}


def missing(name, corpus, split, codes):
    for code in codes:
        with pytest.raises(InputError, match=rf"task '{name}' has no '{split}' file for '{code}' under data_dir"):
            tasks.load(name, corpus, split, code, "files")


def absent(name, files, split):
    """The languages of a task without a file among {(split, language): path}."""
    spec = tasks.get(name)
    return set(spec.languages + spec.more_languages) - {code for part, code in files if part == split}


@pytest.mark.parametrize(
    "name, rows, labels",
    [
        ("xnli", {"dev": 2490, "test": 5010}, ("contradiction", "entailment", "neutral")),
        ("pawsx", {"dev": 2000, "test": 2000}, ("0", "1")),
    ],
)
def test_pairs(corpus, name, rows, labels):
    files = found(corpus / f"xtreme/{name}", r"(dev|test|train)-(\w+)\.tsv")
    assert set(files) == {(split, code) for split in rows for code in tasks.get(name).languages}
    for (split, code), path in files.items():
        table = cells(path)
        read = tasks.load(name, corpus, split, code, "files")
        assert len(table) == len(read) == rows[split]
        assert {len(row) for row in table} == {3 if split == "dev" else 2}
        shown = [[e["text_a"], e["text_b"], *([labels[e["label"]]] if "label" in e else [])] for e in read]
        assert shown == table


TAGGED = {
    # task: split -> how many languages; the benchmark's languages without a file; some counts
    "udpos": (
        {"train": 20, "dev": 29, "test": 32},
        {"dev": {"kk", "th", "tl", "yo"}, "test": {"de"}},
        {("train", "en"): 21787, ("dev", "en"): 3974, ("test", "en"): 5440, ("dev", "de"): 19233, ("dev", "mr"): 46,
         ("test", "yo"): 318, ("test", "fi"): 6544, ("test", "tl"): 222},
    ),
    "panx": ({"train": 19, "dev": 47, "test": 0}, {"dev": {"th"}}, {("train", "en"): 20000, ("dev", "en"): 10000}),
}  # fmt: skip
FIRST = {
    "udpos": ("Al - Zaman : American", "PROPN PUNCT PROPN PUNCT ADJ"),
    "panx": ("R.H. Saunders ( St. Lawrence", "B-ORG I-ORG O B-ORG I-ORG"),
}


@pytest.mark.parametrize("name", TAGGED)
def test_words(corpus, name):
    languages_of, without, some = TAGGED[name]
    spec, counts = tasks.get(name), {}
    for (split, code), path in found(corpus / f"xtreme/{name}", r"(train|dev|test)-(\w+)\.tsv").items():
        sentences = re.sub("\n{2,}", "\n\n", path.read_text(encoding="utf-8").strip("\n")).split("\n\n")
        read = tasks.load(name, corpus, split, code, "files")
        assert ["\n".join(map("\t".join, zip(e["words"], e["tags"], strict=True))) for e in read] == sentences
        counts[split, code] = len(sentences)
        if name == "panx":
            assert {tag for e in read for tag in e["tags"]} == set(spec.labels)
        if (split, code) == ("train", "en"):
            assert (" ".join(read[0]["words"][:5]), " ".join(read[0]["tags"][:5])) == FIRST[name]
    assert {split: sum(part == split for part, _ in counts) for split in languages_of} == languages_of
    assert counts | some == counts
    assert {split: counts[split, "en"] for split in spec.sizes} == spec.sizes
    if name == "panx":
        dev = collections.Counter(count for (split, _), count in counts.items() if split == "dev")
        assert dev == {10000: 28, 1000: 13, 100: 6}
    for split, codes in without.items():
        assert absent(name, counts, split) & set(spec.languages) == codes
        missing(name, corpus, split, sorted(codes))


def questions(path):
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield paragraph["context"], question


SPANS = [
    ("xquad", r"xquad\.(?P<code>\w\w)\.json", ("test",), 12),
    ("mlqa", r"MLQA_V1/(dev|test)/\1-context-(\w\w)-question-(\w\w)\.json", ("dev",), 49),
    ("tydiqa", r"tydiqa-goldp-v1.1-(dev|train)/tydiqa\.goldp\.(\w\w)\.\1\.json", ("dev", "train"), 9 + 3),
]
DIAGONAL = {"en": 1148, "ar": 517, "vi": 511, "de": 512, "hi": 507, "es": 500, "zh": 504}


@pytest.mark.parametrize("name, pattern, splits, how_many", SPANS, ids=[case[0] for case in SPANS])
def test_questions(corpus, name, pattern, splits, how_many):
    files = {}
    for key, path in found(corpus / f"xtreme/{name}", pattern).items():
        split, *codes = key if name != "xquad" else ("test", *key)
        files[split, "-".join(dict.fromkeys(codes))] = path
    assert len(files) == how_many and {split for split, _ in files} == set(splits)
    counts = {}
    for (split, code), path in files.items():
        raw = list(questions(path))
        read = tasks.load(name, corpus, split, code, "files")
        counts[split, code] = len(raw)
        assert len(read) == len(raw)
        labelled = (name, split) != ("tydiqa", "dev")  # XTREME's copy, with empty answers
        for (context, question), example in zip(raw, read, strict=True):
            assert (example["context"], example["question"]) == (context, question["question"])
            assert example["id"].partition("#")[0] == question["id"] and ("answers" in example) == labelled
            answers = [{"text": a["text"], "start": a["answer_start"]} for a in question["answers"]]
            assert example.get("answers", [{"text": "", "start": 0}]) == answers
            for answer in example.get("answers", ()):
                end = answer["start"] + len(answer["text"])
                assert answer["text"] and context[answer["start"] : end] == answer["text"]
    if name == "xquad":
        assert set(counts.values()) == {1190}
    if name == "mlqa":
        assert {code: counts["dev", code] for code in DIAGONAL} == DIAGONAL and min(counts.values()) > 0
        missing(name, corpus, "test", ("de", "en-de"))
    if name == "tydiqa":
        assert counts["train", "en"] == 3696 and counts["dev", "en"] == 440
        missing(name, corpus, "train", sorted(absent(name, files, "train")))


def test_tatoeba(corpus):
    files = found(corpus / "xtreme/tatoeba", r"tatoeba\.(\w+)-eng\.(\w+)")
    pairs = {code for code, end in files if end != "eng"}
    assert len(pairs) == 112 and set(files) == {(code, end) for code in pairs for end in (code, "eng")}
    spec, seen = tasks.get("tatoeba"), set()
    for language in spec.languages + spec.more_languages:
        [code] = spec.fields(language)["iso3"]
        sides = [split_lines(files[code, end]) for end in (code, "eng")]
        read = tasks.load("tatoeba", corpus, "test", language, "files")
        assert [[row["text"] for row in read[side]] for side in ("source", "target")] == sides
        assert len(sides[0]) == len(read["gold"]) <= 1000
        assert read["gold"] == [(row["id"], row["id"]) for row in read["source"]]
        seen.add(code)
    assert seen == pairs
    without = set(languages.XTREME) - set(spec.languages)
    assert without == {"en", "ms", "my", "yo"}


def test_bucc(corpus):
    folder = corpus / "xtreme/bucc2018"
    files = found(folder, r"(\w\w)-en\.(dev|test)\.(\w+)")
    assert set(files) == {
        ("zh", "dev", "zh"), ("zh", "dev", "en"), ("zh", "dev", "gold"), ("fr", "dev", "fr"), ("fr", "dev", "gold"),
        ("de", "dev", "gold"), ("ru", "dev", "gold"),
    }  # fmt: skip
    read = tasks.load("bucc2018", corpus, "dev", "zh")
    for end, side in (("zh", "source"), ("en", "target")):
        assert [[row["id"], row["text"]] for row in read[side]] == cells(files["zh", "dev", end])
    assert [list(pair) for pair in read["gold"]] == cells(files["zh", "dev", "gold"])
    assert (len(read["source"]), len(read["target"]), len(read["gold"])) == (8624, 13589, 257)
    texts = {side: {row["text"] for row in read[side]} for side in ("source", "target")}
    assert (len(texts["source"]), len(texts["target"])) == (8615, 13575)  # some sentences stand under two ids
    with pytest.raises(InputError, match=r"no file .*fr-en\.dev\.en: the English side of fr-en\.dev\.fr"):
        tasks.load("bucc2018", corpus, "dev", "fr")
    missing("bucc2018", corpus, "dev", ("de", "ru"))
    missing("bucc2018", corpus, "test", ("de", "fr", "ru", "zh"))


def test_the_beginning_of_bucc_has_its_pairs(corpus):
    whole = tasks.load("bucc2018", corpus, "dev", "zh")
    part = tasks.load("bucc2018", corpus, "dev", "zh", limit=1000)
    gold = [pair for pair in whole["gold"] if pair[0] in {row["id"] for row in whole["source"][:1000]}]
    assert part["source"] == whole["source"][:1000] and part["gold"] == gold
    assert len(part["target"]) == 1000 and {b for _, b in gold} <= {row["id"] for row in part["target"]}
    assert len(gold) > 10
    assert tasks.load("bucc2018", corpus, "dev", "zh", limit=8)["gold"] == whole["gold"][:1]  # zh-000000057
