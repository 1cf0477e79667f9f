"""The target tasks' further forms: BUCC, and the original releases beside XTREME's copies, on hand-written lines."""

import json

import pytest
from files import squad, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jxstilts import tasks
from jxstilts.runtime import InputError
from jxstilts.tasks import retrieval

pytestmark = pytest.mark.usefixtures("no_tfds")


# --- BUCC ------------------------------------------------------------------------------------------------------------

DE = "de-1\teins\nde-2\tzwei\nde-3\teins\n"  # the same sentence under two ids
EN = "en-1\tzero\nen-2\tone\nen-3\ttwo\nen-4\t\nen-5\tthree\tfour\n"
GOLD = "de-1\ten-2\nde-2\ten-3\n"
BUCC = {
    "source": [{"id": "de-1", "text": "eins"}, {"id": "de-2", "text": "zwei"}, {"id": "de-3", "text": "eins"}],
    "target": [
        {"id": "en-1", "text": "zero"},
        {"id": "en-2", "text": "one"},
        {"id": "en-3", "text": "two"},
        {"id": "en-4", "text": ""},
        {"id": "en-5", "text": "three\tfour"},
    ],
    "gold": [("de-1", "en-2"), ("de-2", "en-3")],
}


def bucc(root, stem, foreign=DE, english=EN, gold=GOLD):
    for end, content in (("de", foreign), ("en", english), ("gold", gold)):
        if content is not None:
            write(root, f"{stem}.{end}", content)


@pytest.mark.parametrize("split, archive", [("dev", "sample"), ("test", "training")])
def test_bucc_under_all_of_its_names(tmp_path, split, archive):
    stems = (
        f"xtreme/bucc2018/de-en.{split}",
        f"xtreme/bucc2018/de-en/de-en.{archive}",
        f"bucc2018/de-en/de-en.{archive}",
    )
    for i, stem in enumerate(stems):
        bucc(tmp_path / str(i), stem)
        assert tasks.load("bucc2018", tmp_path / str(i), split, "de") == BUCC
    bucc(tmp_path / "crlf", stems[0], DE.replace("\n", "\r\n"), EN.replace("\n", "\r\n"), GOLD.replace("\n", "\r\n"))
    assert tasks.load("bucc2018", tmp_path / "crlf", split, "de") == BUCC


def test_bucc_test_without_gold_is_unlabelled_unless_the_archive_is_there(tmp_path):
    bucc(tmp_path, "xtreme/bucc2018/de-en.test", gold=None)
    assert tasks.load("bucc2018", tmp_path, "test", "de") == {side: BUCC[side] for side in ("source", "target")}
    bucc(tmp_path, "bucc2018/de-en/de-en.training")
    assert tasks.load("bucc2018", tmp_path, "test", "de") == BUCC


@pytest.mark.parametrize(
    "content, message",
    [
        ({"english": None}, r"no file .*de-en.dev.en: the English side of de-en.dev.de is expected beside it"),
        ({"foreign": None}, r"no 'dev' file for 'de' under data_dir; expected .*xtreme/bucc2018/de-en.dev.de or "),
        ({"foreign": ""}, r"de-en.dev.de: the file is empty"),
        ({"gold": ""}, r"de-en.dev.gold: the file is empty"),
        ({"foreign": DE + "de-2\tdrei\n"}, r"de-en.dev.de:4: id 'de-2' is also on line 2"),
        ({"english": EN + "en-1\tzero\n"}, r"de-en.dev.en:6: id 'en-1' is also on line 1"),
        ({"english": "en-1 zero\n"}, r"de-en.dev.en:1: expected an id, a tab and a sentence, got 'en-1 zero'"),
        ({"foreign": DE + "\n"}, r"de-en.dev.de:4: expected an id, a tab"),
        ({"foreign": "\teins\n"}, r"de-en.dev.de:1: expected an id, a tab"),
        ({"gold": GOLD + "de-3\ten-9\n"}, r"de-en.dev.gold:3: id 'en-9' is not in de-en.dev.en"),
        ({"gold": GOLD + "de-9\ten-1\n"}, r"de-en.dev.gold:3: id 'de-9' is not in de-en.dev.de"),
        ({"gold": "en-2\tde-1\n"}, r"de-en.dev.gold:1: id 'en-2' is not in de-en.dev.de"),
        ({"gold": "de-1\n"}, r"de-en.dev.gold:1: 1 columns, expected 2"),
        ({"gold": "de-1\ten-2\t0.9\n"}, r"de-en.dev.gold:1: 3 columns, expected 2"),
        ({"gold": GOLD + "de-1\ten-2\n"}, r"de-en.dev.gold:3: the pair de-1 en-2 is also on line 1"),
    ],
)
def test_damaged_bucc_says_where(tmp_path, content, message):
    (tmp_path / "xtreme/bucc2018").mkdir(parents=True)
    bucc(tmp_path, "xtreme/bucc2018/de-en.dev", **content)
    with pytest.raises(InputError, match=message):
        tasks.load("bucc2018", tmp_path, "dev", "de")


def test_bucc_in_no_other_language_and_not_from_tfds(tmp_path):
    with pytest.raises(InputError, match=r"language of task 'bucc2018' 'en'.*Known: de, fr, ru, zh"):
        tasks.load("bucc2018", tmp_path, "dev", "en")
    with pytest.raises(InputError, match=r"task 'bucc2018' has no TFDS data set; use source='files'"):
        tasks.load("bucc2018", tmp_path, "dev", "de", source="tfds")


def test_a_limit_keeps_the_partners_of_the_first_sentences(tmp_path):
    bucc(tmp_path, "xtreme/bucc2018/de-en.dev")
    part = tasks.load("bucc2018", tmp_path, "dev", "de", limit=2)
    assert part == {"source": BUCC["source"][:2], "target": BUCC["target"][1:3], "gold": BUCC["gold"]}
    part = tasks.load("bucc2018", tmp_path, "dev", "de", limit=1)
    assert part == {"source": BUCC["source"][:1], "target": [BUCC["target"][1]], "gold": BUCC["gold"][:1]}
    assert [row["id"] for row in tasks.load("bucc2018", tmp_path, "dev", "de", limit=3)["target"]] == [
        "en-1", "en-2", "en-3",
    ]  # fmt: skip
    assert tasks.load("bucc2018", tmp_path, "dev", "de", limit=9) == BUCC
    bucc(tmp_path, "xtreme/bucc2018/de-en.dev", gold="de-3\ten-4\n")
    part = tasks.load("bucc2018", tmp_path, "dev", "de", limit=2)
    assert [row["id"] for row in part["source"]] == ["de-1", "de-3"] and part["gold"] == [("de-3", "en-4")]
    assert [row["id"] for row in part["target"]] == ["en-1", "en-4"]
    bucc(tmp_path, "xtreme/bucc2018/de-en.test", gold=None)
    part = tasks.load("bucc2018", tmp_path, "test", "de", limit=2)
    assert part == {"source": BUCC["source"][:2], "target": BUCC["target"][:2]}


def side(name, count):
    return [{"id": f"{name}{i}", "text": str(i)} for i in range(count)]


@given(st.data(), st.integers(1, 8), st.integers(1, 8), st.integers(1, 12))
def test_any_part_is_whole_in_itself(data, sources, targets, limit):
    pair = st.tuples(st.integers(0, sources - 1), st.integers(0, targets - 1))
    gold = [(f"s{a}", f"t{b}") for a, b in data.draw(st.lists(pair, unique=True))]
    whole = {"source": side("s", sources), "target": side("t", targets), "gold": gold}
    part = retrieval.first(whole, limit)
    ids = {name: [row["id"] for row in part[name]] for name in ("source", "target")}
    head, source = whole["source"][:limit], part["source"]
    if gold and not any(a in {row["id"] for row in head} for a, _ in gold):  # no pair begins so early
        assert source[:-1] == head[:-1] and ids["source"][-1] == gold[0][0]
    else:
        assert source == head
    assert bool(part["gold"]) == bool(gold)
    assert part["gold"] == [pair for pair in gold if pair[0] in ids["source"]]
    partners = {b for _, b in part["gold"]}
    assert partners <= set(ids["target"]) and len(ids["target"]) == max(min(limit, targets), len(partners))
    assert part["target"] == [row for row in whole["target"] if row["id"] in ids["target"]]  # in the file's order
    unlabelled = retrieval.first({name: whole[name] for name in ("source", "target")}, limit)
    assert unlabelled == {name: whole[name][:limit] for name in ("source", "target")}


# --- XNLI ------------------------------------------------------------------------------------------------------------

# The release has further columns, as MultiNLI does; some are empty.
XNLI_HEADER = "language\tgold_label\tsentence1_parse\tsentence1\tsentence2\tpairID\n"
XNLI_ROWS = [("ar", "neutral", "a", "b"), ("en", "entailment", 'He said "no', "No"), ("ar", "entailment", "c", "d"),
             ("en", "contradiction", "e", "f")]  # fmt: skip
XNLI_EN = [
    {"id": "0", "text_a": 'He said "no', "text_b": "No", "label": 1},
    {"id": "1", "text_a": "e", "text_b": "f", "label": 0},
]


def xnli_release(end):
    if end == "tsv":
        return XNLI_HEADER + "".join(f"{code}\t{label}\t\t{a}\t{b}\t1\n" for code, label, a, b in XNLI_ROWS)
    keys = ("language", "gold_label", "sentence1", "sentence2")
    return "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in XNLI_ROWS)


@pytest.mark.parametrize("end", ["tsv", "jsonl"])
@pytest.mark.parametrize("folder", ["", "xtreme/xnli/"])
@pytest.mark.parametrize("split", ["dev", "test"])
def test_xnli_release_holds_all_languages(tmp_path, split, folder, end):
    file = write(tmp_path, f"{folder}XNLI-1.0/xnli.{split}.{end}", xnli_release(end))
    assert tasks.load("xnli", tmp_path, split) == XNLI_EN
    assert [e["label"] for e in tasks.load("xnli", tmp_path, split, "ar")] == [2, 1]
    with pytest.raises(InputError, match=rf"xnli.{split}.{end}: no row in 'sw'; languages there: ar, en"):
        tasks.load("xnli", tmp_path, split, "sw")
    write(tmp_path, file.relative_to(tmp_path), xnli_release(end).replace("contradiction", "contradictory"))
    with pytest.raises(InputError, match=rf"xnli.{split}.{end}:{5 if end == 'tsv' else 4}: unknown label"):
        tasks.load("xnli", tmp_path, split)


def test_xnli_release_and_xtreme_name_the_same_items(tmp_path):
    write(tmp_path, "XNLI-1.0/xnli.test.tsv", xnli_release("tsv"))
    write(tmp_path, "xtreme/xnli/test-en.tsv", 'He said "no\tNo\ne\tf\n')
    [files] = [path for path in tasks.get("xnli").patterns("test", "en")[-1:] if path.endswith("test-en.tsv")]
    assert files and tasks.load("xnli", tmp_path, "test") == XNLI_EN  # the labelled file of the two
    (tmp_path / "XNLI-1.0/xnli.test.tsv").unlink()
    unlabelled = tasks.load("xnli", tmp_path, "test")
    assert unlabelled == [{key: value for key, value in e.items() if key != "label"} for e in XNLI_EN]


# --- TyDiQA ----------------------------------------------------------------------------------------------------------


def test_tydiqa_release_training_file_holds_all_languages(tmp_path):
    path = "xtreme/tydiqa/tydiqa-goldp-v1.1-train.json"
    rows = {"english--1-2": ("London", 16), "finnish--1-2": ("Lontoo", 3), "english--7-0": ("Ada", 0)}
    write(tmp_path, path, squad(*((key, [answer], {}) for key, answer in rows.items())))
    assert [e["id"] for e in tasks.load("tydiqa", tmp_path, "train")] == ["english--1-2", "english--7-0"]
    with pytest.raises(InputError, match="question 'finnish--1-2': answer 'Lontoo' is not at offset 3"):
        tasks.load("tydiqa", tmp_path, "train", "fi")
    with pytest.raises(InputError, match=r"v1.1-train.json: no question in the file is of this language"):
        tasks.load("tydiqa", tmp_path, "train", "sw")
    write(tmp_path, "xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json", squad(("5", [("Ada", 0)], {})))
    assert [e["id"] for e in tasks.load("tydiqa", tmp_path, "train")] == ["5"]


def test_tydiqa_release_dev_has_the_answers_that_xtreme_takes_out(tmp_path):
    folder = "xtreme/tydiqa/tydiqa-goldp-v1.1-dev"
    write(tmp_path, f"{folder}/tydiqa.goldp.fi.dev.json", squad(("finnish--1-2", [("", 0)], {})))
    assert "answers" not in tasks.load("tydiqa", tmp_path, "dev", "fi")[0]
    write(tmp_path, f"{folder}/tydiqa-goldp-dev-finnish.json", squad(("finnish--1-2", [("London", 16)], {})))
    [example] = tasks.load("tydiqa", tmp_path, "dev", "fi")
    assert example["id"] == "finnish--1-2" and example["answers"] == [{"text": "London", "start": 16}]


# --- PAWS-X and PAN-X ------------------------------------------------------------------------------------------------


def test_labelled_test_files_come_before_xtremes_unlabelled_ones(tmp_path):
    write(tmp_path, "xtreme/pawsx/test-ko.tsv", "a\tb\n")
    write(tmp_path, "xtreme/panx/test-de.tsv", "Rom\tO\n")
    assert "label" not in tasks.load("pawsx", tmp_path, "test", "ko")[0]
    assert "tags" not in tasks.load("panx", tmp_path, "test", "de")[0]
    write(tmp_path, "xtreme/pawsx/x-final/ko/test_2k.tsv", "id\tsentence1\tsentence2\tlabel\n1\ta\tb\t1\n")
    write(tmp_path, "xtreme/panx/de/test", "de:Rom\tB-LOC\n")
    assert tasks.load("pawsx", tmp_path, "test", "ko") == [{"id": "0", "text_a": "a", "text_b": "b", "label": 1}]
    assert tasks.load("panx", tmp_path, "test", "de") == [{"id": "0", "words": ["Rom"], "tags": ["B-LOC"]}]


# --- what belongs to which -------------------------------------------------------------------------------------------


def test_training_set_of_each_target():
    trained_on = {
        "xnli": "mnli", "pawsx": "pawsx", "udpos": "udpos", "panx": "panx", "xquad": "squad_v1", "mlqa": "squad_v1",
        "tydiqa": "tydiqa", "bucc2018": None, "tatoeba": None,
    }  # fmt: skip
    assert {name: tasks.get(name).train_task for name in trained_on} == trained_on
    for name, train in trained_on.items():
        if train:  # the head of the one fits the other
            assert "en" in tasks.get(train).languages and "train" in tasks.get(train).splits
            assert tasks.get(train).labels == tasks.get(name).labels and tasks.get(train).type == tasks.get(name).type


cell = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(cell, min_size=1, max_size=6), st.lists(cell, min_size=1, max_size=6), st.data())
def test_bucc_round_trip_keeps_every_character(tmp_path, foreign, english, data):
    places = st.tuples(st.integers(0, len(foreign) - 1), st.integers(0, len(english) - 1))
    gold = [(f"de-{a}", f"en-{b}") for a, b in data.draw(st.lists(places, min_size=1, unique=True))]
    bucc(
        tmp_path,
        "xtreme/bucc2018/de-en.dev",
        "".join(f"de-{i}\t{text}\n" for i, text in enumerate(foreign)),
        "".join(f"en-{i}\t{text}\n" for i, text in enumerate(english)),
        "".join("\t".join(pair) + "\n" for pair in gold),
    )
    read = tasks.load("bucc2018", tmp_path, "dev", "de")
    assert [row["text"] for row in read["source"]] == foreign and [row["text"] for row in read["target"]] == english
    assert read["gold"] == gold
