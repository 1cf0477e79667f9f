"""TFDS as a source: the same examples as from the files, without tensorflow.

The real TFDS data sets need a download; here small ones with the same feature structure are prepared from corpus rows.
"""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
from tfds_sets import XNLI_LANGUAGES, features, prepare

from jxstilts import tasks
from jxstilts.runtime import InputError
from jxstilts.tasks import sources

tfds = pytest.importorskip("tensorflow_datasets")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path / "tfds"


def content(examples, *keys):
    """Examples in one order, whatever order TFDS stored them in."""
    return sorted(json.dumps([example.get(key) for key in keys], sort_keys=True) for example in examples)


def squad_rows(examples):
    return [
        {
            "id": e["id"],
            "title": "",
            "context": e["context"],
            "question": e["question"],
            "answers": {
                "text": [a["text"] for a in e.get("answers", [])],
                "answer_start": [a["start"] for a in e.get("answers", [])],
            },
        }
        for e in examples
    ]


# --- the same examples from both -------------------------------------------------------------------------------------


def test_xnli_is_the_same_from_both(root, corpus):
    count, labels = 120, tasks.get("xnli").labels
    files = {code: tasks.load("xnli", corpus, "dev", code, "files", limit=count) for code in XNLI_LANGUAGES}
    rows = [
        {
            "premise": {code: files[code][i]["text_a"] for code in XNLI_LANGUAGES},
            "hypothesis": {code: files[code][i]["text_b"] + " " for code in XNLI_LANGUAGES},
            "label": labels[files["en"][i]["label"]],
        }
        for i in range(count)
    ]
    prepare(root, "xnli", {"validation": rows, "test": rows[:3]})
    read = {code: tasks.load("xnli", corpus, "dev", code, "tfds") for code in XNLI_LANGUAGES}
    for code in XNLI_LANGUAGES:
        assert content(read[code], "text_a", "text_b", "label") == content(files[code], "text_a", "text_b", "label")
        assert len({e["id"] for e in read[code]}) == count
    # an id names the same item in every language
    english = {e["text_b"]: i for i, e in enumerate(files["en"])}
    for mine, swahili in zip(read["en"], read["sw"], strict=True):
        assert mine["id"] == swahili["id"]
        assert swahili["text_b"] == files["sw"][english[mine["text_b"]]]["text_b"]
    assert len(tasks.load("xnli", corpus, "test", "th", "tfds")) == 3


@pytest.mark.parametrize("data_set", ["glue/mnli", "multi_nli"])
def test_mnli_is_the_same_from_both(root, corpus, data_set):
    spec, with_index = tasks.get("mnli"), data_set == "glue/mnli"
    files = tasks.load("mnli", corpus, "dev", source="files", limit=200)
    rows = [
        {"premise": e["text_a"], "hypothesis": e["text_b"], "label": spec.labels[e["label"]]}
        | ({"idx": i} if with_index else {})
        for i, e in enumerate(files)
    ]
    prepare(root, data_set, {"validation_matched": rows, "train": rows})
    for split in ("train", "dev"):
        read = tasks.load("mnli", corpus, split, source="tfds")
        if with_index:
            assert read == files  # order and ids too
        else:
            assert content(read, "text_a", "text_b", "label") == content(files, "text_a", "text_b", "label")


def test_unlabelled_tfds_rows_have_no_label(root, tmp_path):
    rows = [{"premise": "p", "hypothesis": "h", "label": -1, "idx": 0}]
    prepare(root, "glue/mnli", {"validation_matched": rows})
    assert tasks.load("mnli", tmp_path, "dev") == [{"id": "0", "text_a": "p", "text_b": "h"}]


@pytest.mark.parametrize(
    "name, split, language, data_set, tfds_split",
    [
        ("xquad", "test", "zh", "xquad/zh", "test"),
        ("mlqa", "dev", "ar", "mlqa/ar", "validation"),
        ("tydiqa", "dev", "ko", "tydi_qa/goldp", "validation-ko"),  # answers taken out: unlabelled from both
    ],
)
def test_questions_are_the_same_from_both(root, corpus, name, split, language, data_set, tfds_split):
    files = tasks.load(name, corpus, split, language, "files")[:150]
    prepare(root, data_set, {tfds_split: squad_rows(files)})
    keys = ("id", "question", "context", "answers")
    assert content(tasks.load(name, corpus, split, language, "tfds"), *keys) == content(files, *keys)


def test_squad_from_tfds_when_there_is_no_file(root, corpus):
    files = tasks.load("mlqa", corpus, "dev", "en", "files", limit=100)  # real rows in SQuAD's format
    prepare(root, "squad/v1.1", {"train": squad_rows(files[:60]), "validation": squad_rows(files)})
    keys = ("id", "question", "context", "answers")
    assert content(tasks.load("squad_v1", corpus, "dev"), *keys) == content(files, *keys)  # source="auto"
    assert content(tasks.load("squad_v1", corpus, "train"), *keys) == content(files[:60], *keys)


def test_tydiqa_train_takes_the_language_by_the_id(root, corpus):
    english = tasks.load("tydiqa", corpus, "train", "en", "files")[:50]
    rows = squad_rows(english + tasks.load("tydiqa", corpus, "train", "ko", "files")[:30])
    for i, row in enumerate(rows):
        row["id"] = f"{'english-' if i < 50 else 'korean-'}-{i}-1"
    prepare(root, "tydi_qa/goldp", {"train": rows})
    keys = ("question", "context", "answers")
    assert content(tasks.load("tydiqa", corpus, "train", "en", "tfds"), *keys) == content(english, *keys)
    assert len(tasks.load("tydiqa", corpus, "train", "ko", "tfds")) == 30
    with pytest.raises(InputError, match=r"split of .*'validation-fi'.*Known: train"):
        tasks.load("tydiqa", corpus, "dev", "fi", "tfds")


def test_anli_reads_all_rounds(root, corpus):
    files = tasks.load("anli", corpus, "dev", source="files")
    names = "cen"
    rows = {number: [] for number in "123"}
    for e in files:
        number, uid = e["id"][1], e["id"].partition("/")[2]
        row = {"uid": uid, "context": e["text_a"], "hypothesis": e["text_b"], "label": names[e["label"]]}
        rows[number].append(row)
    prepare(root, "anli/r1", {"validation": rows["1"], "train": rows["1"]})
    prepare(root, "anli/r3", {"validation": rows["3"]})
    with pytest.raises(InputError, match=r"not prepared anli/r2 .*tfds.builder\('anli/r2'\)"):
        tasks.load("anli", corpus, "dev", source="tfds")
    prepare(root, "anli/r2", {"validation": rows["2"]})
    keys = ("id", "text_a", "text_b", "label")
    assert content(tasks.load("anli", corpus, "dev", source="tfds"), *keys) == content(files, *keys)
    with pytest.raises(InputError, match=r"split of .*r2.* 'train'"):
        tasks.load("anli", corpus, "train", source="tfds")


def test_snli_leaves_out_rows_without_gold(root, corpus):
    files = tasks.load("snli", corpus, "dev", source="files", limit=50)
    labels = tasks.get("snli").labels
    rows = [{"premise": e["text_a"], "hypothesis": e["text_b"], "label": labels[e["label"]]} for e in files]
    rows.insert(7, rows[0] | {"label": -1})
    prepare(root, "snli", {"validation": rows})
    keys = ("text_a", "text_b", "label")
    assert content(tasks.load("snli", corpus, "dev", source="tfds"), *keys) == content(files, *keys)


def test_qqp_is_the_same_from_both(root, corpus):
    files = tasks.load("qqp", corpus, "dev", source="files", limit=200)
    names = ("not_duplicate", "duplicate")
    rows = [
        {"question1": e["text_a"], "question2": e["text_b"], "label": names[e["label"]], "idx": int(e["id"])}
        for e in files
    ]
    prepare(root, "glue/qqp", {"validation": rows})
    assert tasks.load("qqp", corpus, "dev", source="tfds") == files  # order and ids too


def test_pawsx_is_the_same_from_both(root, corpus):
    names = ("different_meaning", "paraphrase")
    files = tasks.load("pawsx", corpus, "dev", "ko", "files", limit=100)
    rows = [{"sentence1": e["text_a"], "sentence2": e["text_b"], "label": names[e["label"]]} for e in files]
    prepare(root, "paws_x_wiki/ko", {"validation": rows})
    keys = ("text_a", "text_b", "label")
    assert content(tasks.load("pawsx", corpus, "dev", "ko", "tfds"), *keys) == content(files, *keys)


def test_choices_are_the_same_from_both(root, corpus):
    keys = ("prompt", "choices", "label")
    files = tasks.load("hellaswag", corpus, "train", source="files", limit=80)  # the corpus' train rows have no ctx_b
    row = {"activity_label": "", "split_type": "", "source_id": ""}
    rows = [row | {"context": e["prompt"], "endings": e["choices"], "label": e["label"]} for e in files]
    prepare(root, "hellaswag", {"train": rows, "test": [rows[0] | {"label": -1}]})
    assert content(tasks.load("hellaswag", corpus, "train", source="tfds"), *keys) == content(files, *keys)
    assert "label" not in tasks.load("hellaswag", corpus, "test", source="tfds")[0]

    files = tasks.load("cosmosqa", corpus, "dev", source="files", limit=80)
    rows = []
    for e in files:
        context, _, question = e["prompt"].rpartition(" ")
        answers = {f"answer{i}": choice for i, choice in enumerate(e["choices"])}
        rows.append(answers | {"id": e["id"], "context": context, "question": question, "label": str(e["label"])})
    prepare(root, "cosmos_qa", {"validation": rows, "test": [rows[0] | {"label": -1}]})
    keys = ("id", *keys)
    assert content(tasks.load("cosmosqa", corpus, "dev", source="tfds"), *keys) == content(files, *keys)
    assert "label" not in tasks.load("cosmosqa", corpus, "test", source="tfds")[0]


def test_tags_are_the_same_from_both(root, corpus):
    files = tasks.load("udpos", corpus, "test", "yo", "files", limit=60)
    rows = [{"tokens": [*e["words"], "lost"], "upos": [*e["tags"], "_"]} for e in files]
    prepare(root, "xtreme_pos/xtreme_pos_yo", {"test": rows})
    keys = ("words", "tags")
    assert content(tasks.load("udpos", corpus, "test", "yo", "tfds"), *keys) == content(files, *keys)
    with pytest.raises(InputError, match=r"has no 'ta'; it has en, af"):  # TFDS holds Tagalog there
        tasks.load("udpos", corpus, "test", "ta", "tfds")

    files = tasks.load("panx", corpus, "dev", "sw", "files", limit=60)
    rows = [
        {"tokens": e["words"], "tags": e["tags"], "langs": ["sw"] * len(e["tags"]), "spans": ["LOC: x"]} for e in files
    ]
    prepare(root, "wikiann/sw", {"validation": rows})
    assert content(tasks.load("panx", corpus, "dev", "sw", "tfds"), *keys) == content(files, *keys)


def test_squad_v2_keeps_unanswerable_questions(root, corpus):
    files = tasks.load("mlqa", corpus, "dev", "en", "files", limit=30)
    rows = [row | {"is_impossible": False, "plausible_answers": row["answers"]} for row in squad_rows(files)]
    nothing = {"text": [], "answer_start": []}
    rows[3] |= {"is_impossible": True, "answers": nothing}
    prepare(root, "squad/v2.0", {"validation": rows})
    read = {e["id"]: e["answers"] for e in tasks.load("squad_v2", corpus, "dev", source="tfds")}
    assert read.pop(files[3]["id"]) == [] and len(read) == 29 and all(read.values())


def test_parts_come_from_where_they_are(root, corpus, tmp_path):
    (tmp_path / "intermediate").mkdir()
    for part in ("anli", "mnli"):
        (tmp_path / "intermediate" / part).symlink_to(corpus / "intermediate" / part)
    rows = [{"premise": "p", "hypothesis": "h", "label": "neutral"}]
    prepare(root, "snli", {"validation": rows})
    read = tasks.load("anli_plus", tmp_path, "dev")
    assert len(read) == 640 + 1000 + 1
    (found,) = (example for example in read if example["id"].startswith("snli/"))
    assert found == {"id": "snli/0", "text_a": "p", "text_b": "h", "label": 2}


def test_tatoeba_is_the_same_from_both(root, corpus):
    files = tasks.load("tatoeba", corpus, "test", "sw", "files")
    rows = [
        {
            "source_sentence": f["text"] + "\n",  # TFDS's builder keeps the line ends
            "target_sentence": e["text"] + "\n",
            "source_language": "sw",
            "target_language": "en",
        }
        for f, e in zip(files["source"], files["target"], strict=True)
    ]
    prepare(root, "tatoeba/tatoeba_sw", {"train": rows})
    read = tasks.load("tatoeba", corpus, "test", "sw", "tfds")

    def pairs(loaded):
        sides = [{row["id"]: row["text"] for row in loaded[side]} for side in ("source", "target")]
        return sorted((sides[0][s], sides[1][t]) for s, t in loaded["gold"])

    assert pairs(read) == pairs(files) and len(read["gold"]) == 390


@pytest.mark.parametrize(
    "name, data_set",
    [
        ("xnli", "xnli"),
        ("mnli", "glue/mnli"),
        ("mnli", "multi_nli"),
        ("squad_v1", "squad/v1.1"),
        ("xquad", "xquad/th"),
        ("mlqa", "mlqa/de"),
        ("tydiqa", "tydi_qa/goldp"),
        ("tatoeba", "tatoeba/tatoeba_sw"),
        ("squad_v2", "squad/v2.0"),
        ("anli", "anli/r3"),
        ("snli", "snli"),
        ("qqp", "glue/qqp"),
        ("pawsx", "paws_x_wiki/ko"),
        ("hellaswag", "hellaswag"),
        ("cosmosqa", "cosmos_qa"),
        ("udpos", "xtreme_pos/xtreme_pos_yo"),
        ("panx", "wikiann/sw"),
    ],
)
def test_the_features_here_are_those_of_the_installed_tfds(root, name, data_set):
    importlib.import_module(tasks.get(name).tfds.module)  # what the message for an unprepared set says to import
    real = tfds.builder(data_set, data_dir=root).info.features
    assert real.to_json_content() == features(data_set).to_json_content()


# --- choosing and refusing -------------------------------------------------------------------------------------------


def test_auto_prefers_files(root, tmp_path):
    prepare(root, "glue/mnli", {"train": [{"premise": "t", "hypothesis": "t", "label": 0, "idx": 0}]})
    assert tasks.load("mnli", tmp_path, "train")[0]["text_a"] == "t"
    file = tmp_path / "intermediate/mnli/train.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text('{"gold_label": "neutral", "sentence1": "f", "sentence2": "f"}\n')
    assert tasks.load("mnli", tmp_path, "train")[0]["text_a"] == "f"
    assert tasks.load("mnli", tmp_path, "train", source="tfds")[0]["text_a"] == "t"


def test_what_is_missing_is_said(root, tmp_path):
    with pytest.raises(InputError) as error:
        tasks.load("xnli", tmp_path, "dev", "sw")
    for part in ("dev-sw.tsv", "data_dir", "TFDS_DATA_DIR", str(root), "tfds.builder('xnli').download_and_prepare"):
        assert part in str(error.value)
    with pytest.raises(InputError, match=r"not prepared xquad/th .*file_format='array_record'"):
        tasks.load("xquad", tmp_path, "test", "th", "tfds")
    with pytest.raises(InputError, match=r"xquad/\{language\} has no 'ro'; it has en, ar"):
        tasks.load("xquad", tmp_path, "test", "ro", "tfds")
    with pytest.raises(InputError, match=r"task 'text' has no TFDS data set; use source='files'"):
        tasks.load("text", tmp_path, "train", "sw", "tfds")
    with pytest.raises(InputError) as error:
        tasks.load("tatoeba", tmp_path, "test", "yue")
    assert "tatoeba.yue-eng.yue" in str(error.value) and "TFDS" not in str(error.value)


def test_other_storage_formats_are_refused(root, tmp_path):
    prepare(root, "glue/mnli", {"train": [{"premise": "", "hypothesis": "", "label": 0, "idx": 0}]})
    info = next(root.glob("glue/mnli/*/dataset_info.json"))
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(InputError, match=r"stored as tfrecord, .*file_format='array_record'"):
        tasks.load("mnli", tmp_path, "train")


def test_the_newest_version_is_read(root):
    for version in ("1.9.0", "1.10.0", "1.2.0"):
        folder = root / "xnli" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")
    [folder] = sources.find_tfds(tasks.get("xnli"), "dev", "sw")
    assert folder.name == "1.10.0"


def test_reading_never_imports_tensorflow(root, tmp_path):
    rows = [{"premise": "p", "hypothesis": "h", "label": 1, "idx": 0}]
    prepare(root, "glue/mnli", {"train": rows})
    code = (
        "import sys; from jxstilts import tasks; "
        f"print(tasks.load('mnli', {str(tmp_path)!r}, 'train', source='tfds')); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[{'id': '0', 'text_a': 'p', 'text_b': 'h', 'label': 2}]"


def test_bytes_and_numpy_become_plain():
    row = {"a": b"\xc3\xa9", "b": np.array([b"x", b"y"], object), "c": np.int32(3), "d": {"e": ["s", b"t"]}}
    plain = sources._plain(row)
    assert plain == {"a": "é", "b": ["x", "y"], "c": 3, "d": {"e": ["s", "t"]}}
    assert type(plain["c"]) is int and type(plain["b"]) is list
