"""Readers of choice, tagging, paraphrase and further inference data, on hand-written lines."""

import pytest
from files import lines, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jxstilts import tasks
from jxstilts.runtime import InputError

pytestmark = pytest.mark.usefixtures("no_tfds")


def labels_of(name, examples):
    return tasks.get(name).form.labels(tasks.get(name), examples)


# --- choice ----------------------------------------------------------------------------------------------------------

HELLASWAG = "intermediate/hellaswag/hellaswag_"
ENDINGS = ["sings.", "sleeps."]


def test_hellaswag_choice_is_ctx_b_and_an_ending(tmp_path):
    rows = [
        {"ctx_a": "A man sits.", "ctx_b": "he", "ctx": "A man sits. he", "endings": ENDINGS, "label": 1},
        {"ctx_a": "A man sits.", "ctx_b": "", "ctx": "A man sits.", "endings": ENDINGS, "label": "0"},
        {"ctx": "A man sits. he", "endings": ENDINGS, "label": 0},
        {"context": "A man sits. he", "ctx_b": "he", "endings": ["a", "b", "c"], "label": 2},
    ]
    write(tmp_path, HELLASWAG + "train.jsonl", lines(*rows))
    assert tasks.load("hellaswag", tmp_path, "train") == [
        {"id": "0", "prompt": "A man sits.", "choices": ["he sings.", "he sleeps."], "label": 1},
        {"id": "1", "prompt": "A man sits.", "choices": ENDINGS, "label": 0},
        {"id": "2", "prompt": "A man sits. he", "choices": ENDINGS, "label": 0},
        {"id": "3", "prompt": "A man sits. he", "choices": ["a", "b", "c"], "label": 2},
    ]
    for unlabelled in ({"label": ""}, {}):
        write(tmp_path, HELLASWAG + "test.jsonl", lines({"ctx_a": "A", "ctx_b": "", "endings": ENDINGS} | unlabelled))
        assert tasks.load("hellaswag", tmp_path, "test") == [{"id": "0", "prompt": "A", "choices": ENDINGS}]


COSMOS_HEADER = "id,context,question,answer0,answer1,answer2,answer3,label\n"


def test_cosmosqa_csv_with_quoted_commas_quotes_and_line_ends(tmp_path):
    row = 'a1,"Rain, again.\nShe said ""no"".",Why?,"one, two",two,three,"four\r\nlines",2\r\nb2,C,Q,1,2,3,4,0\r\n'
    write(tmp_path, "intermediate/cosmosqa/train.csv", COSMOS_HEADER + row)
    assert tasks.load("cosmosqa", tmp_path, "train") == [
        {
            "id": "a1",
            "prompt": 'Rain, again.\nShe said "no". Why?',
            "choices": ["one, two", "two", "three", "four\r\nlines"],
            "label": 2,
        },
        {"id": "b2", "prompt": "C Q", "choices": ["1", "2", "3", "4"], "label": 0},
    ]
    row = {"id": "a", "context": "C", "question": "Q"} | {f"answer{i}": str(i) for i in range(4)}
    write(tmp_path, "intermediate/cosmosqa/test.jsonl", lines(row))
    assert tasks.load("cosmosqa", tmp_path, "test") == [{"id": "a", "prompt": "C Q", "choices": ["0", "1", "2", "3"]}]


def commonsense(answer, letters="BA", identifier="x"):
    choices = [{"label": letter, "text": f"text {letter}"} for letter in letters]
    row = {"id": identifier, "question": {"stem": "Where?", "question_concept": "c", "choices": choices}}
    return row if answer is None else row | {"answerKey": answer}


def test_commonsenseqa_choices_stand_by_their_letters(tmp_path):
    path = "intermediate/commonsenseqa/train_rand_split.jsonl"
    expected = {"id": "x", "prompt": "Where?", "choices": ["text A", "text B"]}
    write(tmp_path, path, lines(commonsense("B")))
    assert tasks.load("commonsenseqa", tmp_path, "train") == [expected | {"label": 1}]
    for unlabelled in (None, ""):
        write(tmp_path, path, lines(commonsense(unlabelled)))
        assert tasks.load("commonsenseqa", tmp_path, "train") == [expected]


# --- tagging ---------------------------------------------------------------------------------------------------------


def test_tagged_words(tmp_path):
    content = "\n\nIch\tPRON\nbin\tAUX\n\n\nda\tADV\r\n:\tPUNCT"  # blank lines anywhere, CRLF, no line end at the end
    write(tmp_path, "xtreme/udpos/dev-de.tsv", content)
    assert tasks.load("udpos", tmp_path, "dev", "de") == [
        {"id": "0", "words": ["Ich", "bin"], "tags": ["PRON", "AUX"]},
        {"id": "1", "words": ["da", ":"], "tags": ["ADV", "PUNCT"]},
    ]
    write(tmp_path, "xtreme/udpos/test-de.tsv", "Ich\nbin\n\nda\n")
    assert tasks.load("udpos", tmp_path, "test", "de") == [
        {"id": "0", "words": ["Ich", "bin"]},
        {"id": "1", "words": ["da"]},
    ]


@pytest.mark.parametrize("name, placeholder, other", [("udpos", "X", "NOUN"), ("panx", "O", "B-LOC")])
def test_a_test_file_of_placeholders_is_unlabelled(tmp_path, name, placeholder, other):
    for split, tags, labelled in [
        ("test", (placeholder, placeholder), False),
        ("test", (placeholder, other), True),
        ("dev", (placeholder, placeholder), True),
    ]:
        write(tmp_path, f"xtreme/{name}/{split}-fi.tsv", "".join(f"w\t{tag}\n\n" for tag in tags))
        assert [("tags" in e) for e in tasks.load(name, tmp_path, split, "fi")] == [labelled] * 2


def test_raw_panx_loses_the_language_only(tmp_path):
    write(tmp_path, "xtreme/panx/de/train", "de:Um\tO\nde:12:30\tO\n\nde::\tO\nde:Rom\tB-LOC\n")
    words = [e["words"] for e in tasks.load("panx", tmp_path, "train", "de")]
    assert words == [["Um", "12:30"], [":", "Rom"]]
    # a word that looks like it, in a file without prefixes; another language's code; a prefix of no language
    for content in ("de:Um\tO\n12:30\tO\n", "fr:Um\tO\n", "ISBN:3\tO\n"):
        write(tmp_path, "xtreme/panx/train-de.tsv", content)
        read = tasks.load("panx", tmp_path, "train", "de")
        assert read[0]["words"] == [line.split("\t")[0] for line in content.splitlines()]


word = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(st.tuples(word.filter(lambda w: w.strip(" \ufeff")), st.sampled_from(["NOUN", "X"])), min_size=1),
        min_size=1,
    )
)
def test_tagged_words_round_trip(tmp_path, sentences):
    content = "\n".join("".join(f"{w}\t{tag}\n" for w, tag in sentence) for sentence in sentences)
    write(tmp_path, "xtreme/udpos/train-en.tsv", content)
    read = tasks.load("udpos", tmp_path, "train")
    assert [list(zip(e["words"], e["tags"], strict=True)) for e in read] == sentences


def test_ccg_lines(tmp_path):
    content = "Pierre|NNP|N/N Vinken|NNP|N ,|,|,\na|b|SYM|N 1\\/2|CD|(S[adj]\\NP)\\NP\n"
    write(tmp_path, "intermediate/ccg/train.txt", content)
    read = tasks.load("ccg", tmp_path, "train")
    assert read == [
        {"id": "0", "words": ["Pierre", "Vinken", ","], "tags": ["N/N", "N", ","]},
        {"id": "1", "words": ["a|b", "1\\/2"], "tags": ["N", "(S[adj]\\NP)\\NP"]},
    ]
    assert labels_of("ccg", read) == ("(S[adj]\\NP)\\NP", ",", "N", "N/N")


def test_label_sets():
    upos = labels_of("udpos", [])
    assert len(upos) == 17 and list(upos) == sorted(upos)
    assert set(labels_of("panx", [{"tags": ["new"]}])) == {
        "O", *(f"{begin}-{kind}" for begin in "BI" for kind in ("LOC", "ORG", "PER")),
    }  # fmt: skip
    assert labels_of("qqp", []) == labels_of("pawsx", []) == ("0", "1")
    assert labels_of("squad_v2", [{"answers": []}]) == ()


# --- pairs -----------------------------------------------------------------------------------------------------------

QQP_HEADER = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"


def test_qqp_cells_that_a_csv_library_has_quoted(tmp_path):
    rows = '133\t1\t2\t"What is ""x""?"\t"x" or "y"?\t0\n134\t3\t4\t"All of it"\t6"\t1\n'
    write(tmp_path, "intermediate/qqp/train.tsv", QQP_HEADER + rows)
    assert tasks.load("qqp", tmp_path, "train") == [
        {"id": "0", "text_a": 'What is "x"?', "text_b": '"x" or "y"?', "label": 0},
        {"id": "1", "text_a": '"All of it"', "text_b": '6"', "label": 1},
    ]


def test_few_torn_qqp_rows_are_left_out_and_counted(tmp_path, caplog):
    rows = [f"{i}\t1\t2\ta\tb\t1\n" for i in range(300)]
    rows[7] = "7\t1\t2\ta torn\n"
    rows[8] = " question\tb\t1\n"
    write(tmp_path, "intermediate/qqp/train.tsv", QQP_HEADER + "".join(rows))
    read = tasks.load("qqp", tmp_path, "train", limit=9)
    assert [e["id"] for e in read] == ["0", "1", "2", "3", "4", "5", "6", "9", "10"]
    assert "left out 2 of 300 lines, torn apart (first: 9)" in caplog.text


def test_pawsx_of_xtreme_and_of_the_release(tmp_path):
    expected = [
        {"id": "0", "text_a": "a", "text_b": 'b "c', "label": 1},
        {"id": "1", "text_a": "d", "text_b": "e", "label": 0},
    ]
    write(
        tmp_path, "xtreme/pawsx/x-final/ja/dev_2k.tsv", 'id\tsentence1\tsentence2\tlabel\n1\ta\tb "c\t1\n2\td\te\t0\n'
    )
    assert tasks.load("pawsx", tmp_path, "dev", "ja") == expected
    write(tmp_path, "xtreme/pawsx/train-en.tsv", 'a\tb "c\t1\nd\te\t0\n')
    assert tasks.load("pawsx", tmp_path, "train") == expected
    write(tmp_path, "xtreme/pawsx/test-ja.tsv", "a\tb\n")
    assert tasks.load("pawsx", tmp_path, "test", "ja") == [{"id": "0", "text_a": "a", "text_b": "b"}]


def anli(*rows):
    return lines(*({"uid": uid, "context": "c", "hypothesis": "h", "label": label} for uid, label in rows))


def test_anli_is_the_union_of_its_rounds(tmp_path):
    write(tmp_path, "intermediate/anli/R1/train.jsonl", anli(("u", "e"), ("v", "c")))
    write(tmp_path, "intermediate/anli/R3/train.jsonl", anli(("u", "n")))
    read = tasks.load("anli", tmp_path, "train")
    assert [(e["id"], e["label"]) for e in read] == [("r1/u", 1), ("r1/v", 0), ("r3/u", 2)]
    assert read[0] == {"id": "r1/u", "text_a": "c", "text_b": "h", "label": 1}


def test_anli_plus_is_made_of_its_parts(tmp_path):
    pair = {"gold_label": "neutral", "sentence1": "a", "sentence2": "b"}
    write(tmp_path, "intermediate/anli/R2/dev.jsonl", anli(("u", "e")))
    write(tmp_path, "intermediate/snli/snli_1.0_dev.jsonl", lines(pair | {"gold_label": "-"}, pair))
    with pytest.raises(InputError, match=r"task 'mnli' has no 'dev' file .*intermediate/mnli/dev.jsonl"):
        tasks.load("anli_plus", tmp_path, "dev", source="files")
    write(tmp_path, "intermediate/mnli/dev.jsonl", lines(pair))
    read = tasks.load("anli_plus", tmp_path, "dev")
    assert [e["id"] for e in read] == ["anli/r2/u", "mnli/0", "snli/1"]
    assert tasks.load("anli_plus", tmp_path, "dev", limit=2) == read[:2]
    spec = tasks.get("anli_plus")
    assert all(tasks.get(part).labels == spec.labels for part in spec.parts)
    for split in spec.splits:
        assert spec.sizes[split] == sum(tasks.get(part).sizes[split] for part in spec.parts)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, path, content, message",
    [
        ("hellaswag", HELLASWAG + "val.jsonl", lines({"ctx_a": "a"}), r"val.jsonl:1: expected 'endings'"),
        ("hellaswag", HELLASWAG + "val.jsonl", lines({"endings": []}), r"val.jsonl:1: expected 'endings'"),
        ("hellaswag", HELLASWAG + "val.jsonl", lines({"endings": ENDINGS}), r"val.jsonl:1: expected a string 'ctx_a'"),
        ("hellaswag", HELLASWAG + "val.jsonl", "[]\n", r"val.jsonl:1: expected a JSON object"),
        (
            "hellaswag",
            HELLASWAG + "val.jsonl",
            lines({"ctx": "a", "endings": ENDINGS, "label": 0}, {"ctx": "a", "endings": ENDINGS, "label": 2}),
            r"val.jsonl:2: unknown label 2; allowed: 0, 1",
        ),
        (
            "hellaswag",
            HELLASWAG + "val.jsonl",
            lines({"ctx": "a", "endings": ENDINGS, "label": True}),
            r"val.jsonl:1: unknown label True; allowed: 0, 1",
        ),
        (
            "hellaswag",
            HELLASWAG + "val.jsonl",
            lines({"ctx": "a", "endings": ENDINGS, "label": 0}, {"ctx": "a", "endings": ENDINGS}),
            r"val.jsonl: example '1' has no label, but '0' has",
        ),
        ("cosmosqa", "intermediate/cosmosqa/valid.csv", "id,context\n", r"valid.csv:1: expected a header .*'question'"),
        (
            "cosmosqa",
            "intermediate/cosmosqa/valid.csv",
            COSMOS_HEADER + 'a,"two\nlines",q,1,2,3,4,0\nb,c,q,1,2,3,4\n',
            r"valid.csv:4: 7 columns, the header has 8",
        ),
        (
            "cosmosqa",
            "intermediate/cosmosqa/valid.csv",
            COSMOS_HEADER + 'a,"two\nlines",q,1,2,3,4,4\n',
            r"valid.csv:2: unknown label '4'; allowed: 0, 1, 2, 3",
        ),
        (
            "cosmosqa",
            "intermediate/cosmosqa/valid.csv",
            COSMOS_HEADER + 'a,c,q,1,2,3,4,0\nb,"open,q,1,2,3,4,0\n',
            r"valid.csv:3: not CSV",
        ),
        ("cosmosqa", "intermediate/cosmosqa/valid.csv", COSMOS_HEADER, r"valid.csv: no example in the file"),
        (
            "cosmosqa",
            "intermediate/cosmosqa/valid.csv",
            COSMOS_HEADER + "a,c,q,1,2,3,4,0\n" * 2,
            r"valid.csv: id 'a' is in the file twice",
        ),
        (
            "commonsenseqa",
            "intermediate/commonsenseqa/dev_rand_split.jsonl",
            lines(commonsense("A"), commonsense("C", identifier="y")),
            r"dev_rand_split.jsonl:2: unknown answerKey 'C'; allowed: A, B",
        ),
        (
            "commonsenseqa",
            "intermediate/commonsenseqa/dev_rand_split.jsonl",
            lines(commonsense("A", letters="AA")),
            r"dev_rand_split.jsonl:1: expected choices with 'label' \(each once\)",
        ),
        (
            "commonsenseqa",
            "intermediate/commonsenseqa/dev_rand_split.jsonl",
            lines({"id": "x", "question": {"stem": "s"}}),
            r"dev_rand_split.jsonl:1: expected 'question' with 'stem' and 'choices'",
        ),
        ("udpos", "xtreme/udpos/dev-en.tsv", "a\tNOUN\nb\n", r"dev-en.tsv:2: 1 columns, the first line has 2"),
        ("udpos", "xtreme/udpos/dev-en.tsv", "a\tb\tNOUN\n", r"dev-en.tsv:1: 3 columns, expected a word and its tag"),
        ("udpos", "xtreme/udpos/dev-en.tsv", "a\tNOUN\n\tVERB\n", r"dev-en.tsv:2: the word is empty"),
        (
            "udpos",
            "xtreme/udpos/dev-en.tsv",
            "a\tNOUN\n\nb\tnoun\n",
            r"dev-en.tsv:3: unknown tag 'noun'; allowed: ADJ, ADP, .*VERB, X",
        ),
        ("panx", "xtreme/panx/dev-en.tsv", "a\tB-MISC\n", r"dev-en.tsv:1: unknown tag 'B-MISC'; allowed: O, B-LOC"),
        ("ccg", "intermediate/ccg/dev.txt", "a|DT|N b|N\n", r"dev.txt:1: expected word\|POS\|category, got 'b\|N'"),
        ("ccg", "intermediate/ccg/dev.txt", "a|DT|N\n|DT|N\n", r"dev.txt:2: expected word\|POS\|category"),
        ("qqp", "intermediate/qqp/dev.tsv", "id\tquestion1\n", r"dev.tsv:1: expected a header .*'is_duplicate'"),
        ("qqp", "intermediate/qqp/dev.tsv", QQP_HEADER + "0\t1\t2\ta\tb\t2\n", r"dev.tsv:2: unknown label '2'.*: 0, 1"),
        (
            "qqp",
            "intermediate/qqp/dev.tsv",
            QQP_HEADER + "0\t1\t2\ta\tb\t1\n0\t1\t2\ta\n",
            r"dev.tsv:3: 4 columns, the header has 6 \(1 such lines\)",
        ),
        ("pawsx", "xtreme/pawsx/dev-en.tsv", "a\tb\t1\na\tb\tNS\n", r"dev-en.tsv:2: unknown label 'NS'; allowed: 0, 1"),
        ("pawsx", "xtreme/pawsx/dev-en.tsv", "a\tb\t1\td\n", r"dev-en.tsv:1: 4 columns, expected a header"),
        ("anli", "intermediate/anli/R1/dev.jsonl", anli(("u", "x")), r"dev.jsonl:1: unknown label 'x'; .*: c, e, n"),
        (
            "anli",
            "intermediate/anli/R1/dev.jsonl",
            anli(("u", "e"), ("u", "e")),
            r"dev.jsonl: id 'r1/u' is in the file twice",
        ),
        ("snli", "intermediate/snli/dev.jsonl", lines({"gold_label": "-"}), r"dev.jsonl:1: .*'sentence1', 'sentence2'"),
    ],
)
def test_damaged_file_says_where(tmp_path, name, path, content, message):
    write(tmp_path, path, content)
    with pytest.raises(InputError, match=message):
        tasks.load(name, tmp_path, "dev")
