"""Task specs and readers: strictness on small files, exact counts and offsets on the real corpus."""

import collections
import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from files import squad, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jxstilts import tasks
from jxstilts.runtime import InputError
from jxstilts.tasks import languages, qa

pytestmark = pytest.mark.usefixtures("no_tfds")


# --- finding tasks ---------------------------------------------------------------------------------------------------


def test_every_module_level_spec_is_found():
    assert tasks.names() == sorted(
        "anli anli_plus bucc2018 ccg commonsenseqa copa cosmosqa hellaswag lareqa mewslix mlqa mnli multichecklist "
        "panx pawsx qqp siqa snli squad_retrieval squad_v1 squad_v2 tatoeba text tydiqa tydiqa_retrieval udpos "
        "wikipedia_pairs word_pairs xcopa xcopa_gmt xnli xquad".split()
    )
    assert set(tasks.INTERMEDIATE) <= set(tasks.names()) and len(tasks.INTERMEDIATE) == 9
    for name in tasks.names():
        spec = tasks.get(name)
        assert spec.name == name and spec.description and spec.url and spec.licence
        assert spec.train_task is None or "train" in tasks.get(spec.train_task).splits
        assert len(set(spec.languages + spec.more_languages)) == len(spec.languages + spec.more_languages)


def test_unknown_names_give_the_nearest_and_the_known(tmp_path):
    with pytest.raises(InputError, match=r"'xnly'; did you mean 'xnli'\? Known: anli, anli_plus, bucc2018"):
        tasks.get("xnly")
    with pytest.raises(InputError, match=r"split of task 'xnli' 'train'.*Known: dev, test"):
        tasks.load("xnli", tmp_path, "train")
    with pytest.raises(InputError, match=r"'swa'; did you mean 'sw'\? Known: ar, bg"):
        tasks.load("xnli", tmp_path, "dev", "swa")
    with pytest.raises(InputError, match=r"'tdfs'; did you mean 'tfds'"):
        tasks.load("xnli", tmp_path, "dev", source="tdfs")
    with pytest.raises(InputError, match="limit is 0"):
        tasks.load("xnli", tmp_path, "dev", limit=0)


def test_language_lists():
    assert len(tasks.get("xnli").languages) == 15
    assert len(tasks.get("xquad").languages) == 12 and len(qa.XQUAD_LANGUAGES) == 11
    assert set(tasks.get("xquad").languages) - set(qa.XQUAD_LANGUAGES) == {"ro"}
    assert len(tasks.get("mlqa").languages) == 7 and len(tasks.get("mlqa").more_languages) == 42
    assert len(tasks.get("tydiqa").languages) == 9
    assert len(tasks.get("tatoeba").languages) == 36 and len(tasks.get("tatoeba").more_languages) == 5 + 71
    assert set(tasks.get("text").languages) == set(languages.XTREME_R)
    for name in tasks.names():
        spec = tasks.get(name)
        assert spec.languages[0] == "en" or "en" not in spec.languages
        assert set(spec.languages) - {"ha"} <= set(languages.LANGUAGES)  # Hausa is MultiCheckList's alone


# --- missing and damaged files ---------------------------------------------------------------------------------------


def test_missing_file_says_path_key_and_what_is_there(tmp_path):
    write(tmp_path, "xtreme/xnli/dev-sw.tsv", "a\tb\tneutral\n")
    write(tmp_path, "xtreme/xnli/test-th.tsv", "a\tb\n")
    with pytest.raises(InputError) as error:
        tasks.load("xnli", tmp_path, "dev", "th", source="files")
    message = str(error.value)
    assert str(tmp_path / "xtreme/xnli/dev-th.tsv") in message and "data_dir" in message
    assert "Languages with this split there: sw" in message and "Other splits of 'th' there: test" in message
    with pytest.raises(InputError, match=r"no folder .*/nowhere; set data_dir"):
        tasks.load("xnli", tmp_path / "nowhere", "dev", source="files")


@pytest.mark.parametrize(
    "name, path, content, message",
    [
        ("xnli", "xtreme/xnli/dev-en.tsv", "", r"dev-en.tsv: the file is empty"),
        ("xnli", "xtreme/xnli/dev-en.tsv", "a\tb\tneutral\na\tb\n", r"dev-en.tsv:2: 2 columns, line 1 has 3"),
        ("xnli", "xtreme/xnli/dev-en.tsv", "a\tb\tneutral\n\n", r"dev-en.tsv:2: 1 columns"),
        ("xnli", "xtreme/xnli/dev-en.tsv", "a\n", r"dev-en.tsv:1: 1 columns, expected premise"),
        (
            "xnli",
            "xtreme/xnli/dev-en.tsv",
            "a\tb\tneutral\na\tb\tNeutral\n",
            r"dev-en.tsv:2: unknown label 'Neutral'; allowed: contradiction, entailment, neutral",
        ),
        ("xnli", "xtreme/xnli/dev-en.tsv", b"a\tb\tneutral\n\xff\tb\tneutral\n", r"dev-en.tsv:2: not UTF-8"),
        ("mnli", "intermediate/mnli/dev.jsonl", '{"gold_label": "neutral"\n', r"dev.jsonl:1: not JSON"),
        (
            "mnli",
            "intermediate/mnli/dev.jsonl",
            '{"gold_label": "neutral", "sentence1": "a", "sentence2": "b"}\n{"gold_label": "neutral"}\n',
            r"dev.jsonl:2: expected .*wrong: \['sentence1', 'sentence2'\]",
        ),
        (
            "mnli",
            "intermediate/mnli/dev.jsonl",
            '{"gold_label": "maybe", "sentence1": "a", "sentence2": "b"}\n',
            r"dev.jsonl:1: unknown label 'maybe'",
        ),
        (
            "mnli",
            "intermediate/mnli/dev.jsonl",
            '{"gold_label": "-", "sentence1": "a", "sentence2": "b"}\n',
            r"dev.jsonl: no row has a gold label",
        ),
        (
            "mnli",
            "intermediate/mnli/dev_matched.tsv",
            "index\tsentence1\tsentence2\n0\ta\tb\n",
            r"dev_matched.tsv:1: expected a header .*missing \['gold_label'\]",
        ),
        (
            "mnli",
            "intermediate/mnli/dev_matched.tsv",
            "index\tsentence1\tsentence2\tgold_label\n0\ta\tb\n",
            r"dev_matched.tsv:2: 3 columns, the header has 4",
        ),
        ("squad_v1", "intermediate/squad/dev-v1.1.json", '{"data":\n [}', r"dev-v1.1.json:2: not JSON"),
        ("squad_v1", "intermediate/squad/dev-v1.1.json", "[]", r"expected an object with 'data' \(list\)"),
        ("squad_v1", "intermediate/squad/dev-v1.1.json", '{"data": []}', r"no question in the file"),
        (
            "squad_v1",
            "intermediate/squad/dev-v1.1.json",
            squad(("q1", [("London", 15)], {})),
            r"dev-v1.1.json: question 'q1': answer 'London' is not at offset 15, where ' Londo' stands; .* at 16",
        ),
        (
            "squad_v1",
            "intermediate/squad/dev-v1.1.json",
            squad(("q1", [("London", 16)], {}), ("q2", [("", 0)], {})),
            r"question 'q2' has no answer, but 'q1' has",
        ),
        (
            "squad_v1",
            "intermediate/squad/dev-v1.1.json",
            squad(("q1", [("London", 16)], {}), ("q1", [("London", 16)], {})),
            r"question 'q1': this id is in the file twice",
        ),
        (
            "squad_v1",
            "intermediate/squad/dev-v1.1.json",
            squad(("q1", [("London", -7)], {})),
            r"answer 'London' is not at offset -7",
        ),
        (
            "squad_v1",
            "intermediate/squad/dev-v1.1.json",
            squad(("q1", [], {"answers": {"text": ["London"]}})),
            r"qas\[0\]|question 'q1': expected an object with 'answers' \(list\)",
        ),
    ],
)
def test_damaged_file_says_where(tmp_path, name, path, content, message):
    write(tmp_path, path, content)
    with pytest.raises(InputError, match=message):
        tasks.load(name, tmp_path, "dev")


def test_tatoeba_files_must_be_aligned(tmp_path):
    write(tmp_path, "xtreme/tatoeba/tatoeba.deu-eng.deu", "eins\nzwei\n")
    with pytest.raises(InputError, match=r"no file .*tatoeba.deu-eng.eng"):
        tasks.load("tatoeba", tmp_path, "test", "de")
    write(tmp_path, "xtreme/tatoeba/tatoeba.deu-eng.eng", "one\n")
    with pytest.raises(InputError, match=r"has 2 lines and tatoeba.deu-eng.eng 1"):
        tasks.load("tatoeba", tmp_path, "test", "de")


# --- what readers return ---------------------------------------------------------------------------------------------


def test_nli_label_order_and_ids(tmp_path):
    write(tmp_path, "xtreme/xnli/dev-sw.tsv", "p1\th1\tneutral\np2\th2\tcontradiction\np3\th3\tentailment\n")
    assert tasks.load("xnli", tmp_path, "dev", "sw") == [
        {"id": "0", "text_a": "p1", "text_b": "h1", "label": 2},
        {"id": "1", "text_a": "p2", "text_b": "h2", "label": 0},
        {"id": "2", "text_a": "p3", "text_b": "h3", "label": 1},
    ]
    assert tasks.get("xnli").labels == tasks.get("mnli").labels == ("contradiction", "entailment", "neutral")


def test_unlabelled_rows_have_no_label_key(tmp_path):
    write(tmp_path, "xtreme/xnli/test-en.tsv", "p1\th1\r\np2\th2\r\n")  # CRLF, as a csv writer leaves it
    assert tasks.load("xnli", tmp_path, "test") == [
        {"id": "0", "text_a": "p1", "text_b": "h1"},
        {"id": "1", "text_a": "p2", "text_b": "h2"},
    ]


cell = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(cell, cell, st.sampled_from(["contradiction", "entailment", "neutral"])), min_size=1))
def test_xnli_round_trip_keeps_every_character_and_row(tmp_path, rows):
    content = "".join("\t".join(row) + "\n" for row in rows)
    write(tmp_path, "xtreme/xnli/dev-en.tsv", content.encode("utf-8-sig"))
    read = tasks.load("xnli", tmp_path, "dev")
    labels = tasks.get("xnli").labels
    assert [(e["text_a"], e["text_b"], labels[e["label"]]) for e in read] == rows


def test_mnli_without_majority_is_left_out_and_counted(tmp_path, caplog):
    rows = [("entailment", "a"), ("-", "b"), ("neutral", "c")]
    lines = [json.dumps({"gold_label": g, "sentence1": s, "sentence2": s + s, "pairID": "x"}) for g, s in rows]
    write(tmp_path, "intermediate/mnli/train.jsonl", "\n".join(lines))
    expected = [
        {"id": "0", "text_a": "a", "text_b": "aa", "label": 1},
        {"id": "2", "text_a": "c", "text_b": "cc", "label": 2},
    ]
    with caplog.at_level(logging.INFO):
        assert tasks.load("mnli", tmp_path, "train") == expected
    assert "left out 1 of 3 rows" in caplog.text


def test_mnli_in_glue_columns_equals_json_lines(tmp_path):
    header = "index\tpromptID\tpairID\tgenre\tsentence1\tsentence2\tlabel1\tgold_label"
    rows = [
        '0\t1\t1n\tfiction\tHe said "no".\tNo?\tneutral\tneutral',
        '1\t2\t2e\tfiction\t"x\tx\tentailment\tentailment',
    ]
    write(tmp_path / "tsv", "intermediate/mnli/train.tsv", "\n".join([header, *rows]) + "\n")
    pairs = [("neutral", 'He said "no".', "No?"), ("entailment", '"x', "x")]
    lines = [json.dumps(dict(zip(("gold_label", "sentence1", "sentence2"), pair, strict=True))) for pair in pairs]
    write(tmp_path / "json", "intermediate/mnli/train.jsonl", "\n".join(lines) + "\n")
    assert tasks.load("mnli", tmp_path / "tsv", "train") == tasks.load("mnli", tmp_path / "json", "train")


def test_span_answers(tmp_path):
    context = "𝒳 𝒴 né à Paris, Paris"  # offsets count characters, not UTF-16 units or bytes
    path = "intermediate/squad/train-v1.1.json"
    write(tmp_path, path, squad(("a", [("Paris", 9), ("Paris", 16)], {}), context=context))
    [example] = tasks.load("squad_v1", tmp_path, "train")
    assert example == {
        "id": "a",
        "question": "q a",
        "context": context,
        "answers": [{"text": "Paris", "start": 9}, {"text": "Paris", "start": 16}],
    }
    both = squad(("a", [("London", 16)], {"is_impossible": False}), ("b", [], {"is_impossible": True}))
    write(tmp_path, path.replace("v1.1", "v2.0"), both)
    assert [len(e["answers"]) for e in tasks.load("squad_v2", tmp_path, "train")] == [1, 0]
    for placeholder in ([("", 0)], []):
        write(tmp_path, path, squad(("a", placeholder, {})))
        assert "answers" not in tasks.load("squad_v1", tmp_path, "train")[0]


def test_tydiqa_repeated_train_ids_become_unique(tmp_path):
    path = "xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json"
    write(tmp_path, path, squad(*[(i, [("London", 16)], {}) for i in ("1", "2", "1", "1")]))
    assert [e["id"] for e in tasks.load("tydiqa", tmp_path, "train")] == ["1", "2", "1#2", "1#3"]


def test_mlqa_language_names_context_then_question(tmp_path):
    folder = "xtreme/mlqa/MLQA_V1/dev/dev-context-"
    write(tmp_path, folder + "en-question-de.json", squad(("mixed", [("London", 16)], {})))
    write(tmp_path, folder + "de-question-de.json", squad(("same", [("London", 16)], {})))
    assert tasks.load("mlqa", tmp_path, "dev", "en-de")[0]["id"] == "mixed"
    assert tasks.load("mlqa", tmp_path, "dev", "de")[0]["id"] == "same"
    with pytest.raises(InputError, match="'en-en'"):
        tasks.load("mlqa", tmp_path, "dev", "en-en")


def test_tatoeba_english_is_the_query_side(tmp_path):
    write(tmp_path, "xtreme/tatoeba/tatoeba.cmn-eng.cmn", "一\n二\n三\n")
    write(tmp_path, "xtreme/tatoeba/tatoeba.cmn-eng.eng", "one\ntwo\nthree\n")
    assert tasks.load("tatoeba", tmp_path, "test", "zh", limit=2) == {
        "source": [{"id": "0", "text": "一"}, {"id": "1", "text": "二"}],
        "target": [{"id": "0", "text": "one"}, {"id": "1", "text": "two"}],
        "gold": [("0", "0"), ("1", "1")],
    }


def test_text_is_the_union_of_the_sources_of_a_language(tmp_path):
    write(tmp_path, "text/ntrex/newstest2019-ref.est.txt", "uudis\r\n\r\nteine\r\n")
    write(tmp_path, "text/common_voice/et.txt", "lause\n")
    write(tmp_path, "text/bible/et.tsv", "b.GEN.1.1\talguses\n")
    assert tasks.load("text", tmp_path, "train", "et") == [
        {"id": "ntrex/newstest2019-ref.est:0", "text": "uudis"},
        {"id": "ntrex/newstest2019-ref.est:2", "text": "teine"},
        {"id": "common_voice/et:0", "text": "lause"},
        {"id": "bible/et:0", "text": "alguses"},
    ]
    assert len(tasks.load("text", tmp_path, "train", "et", limit=3)) == 3
    write(tmp_path, "text/bible/et.tsv", "b.GEN.1.1\talguses\nverse only\n")
    with pytest.raises(InputError, match=r"et.tsv:2: 1 columns"):
        tasks.load("text", tmp_path, "train", "et")
    with pytest.raises(InputError, match=r"ht.txt"):
        tasks.load("text", tmp_path, "train", "ht")


def test_importing_tasks_loads_nothing_heavy():
    heavy = ("jax", "tensorflow", "tensorflow_datasets", "torch", "transformers", "grain")
    code = f"import sys, jxstilts.tasks as t; t.names(); sys.exit(str([m for m in {heavy} if m in sys.modules] or ''))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stderr.strip() == b""


# --- facts about languages -------------------------------------------------------------------------------------------


def test_resource_classes_and_distances():
    table = languages.TABLE
    assert len(table) == len(languages.LANGUAGES) == 50 and len(languages.XTREME) == 40
    assert len({entry.iso3 for entry in table}) == 50
    by_class = collections.defaultdict(list)
    for entry in table:
        by_class[entry.joshi_class].append(entry.distance)
    assert {k: len(v) for k, v in by_class.items()} == {5: 7, 4: 13, 3: 17, 2: 6, 1: 7}
    means = {k: round(float(np.mean(v)), 3) for k, v in by_class.items()}
    assert means == {5: 0.230, 4: 0.299, 3: 0.302, 2: 0.397, 1: 0.480}
    assert collections.Counter(entry.resource for entry in table) == {"high": 20, "mid": 17, "low": 13}
    assert {entry.code for entry in table if not entry.in_xlmr} == {"ht", "qu", "wo", "yo"}
    assert {entry.code for entry in table if not entry.in_mt5} == {"qu", "wo"}
    with pytest.raises(InputError, match="language 'xx'"):
        languages.get("xx")
