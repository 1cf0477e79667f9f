"""Machine-translated training data, and SQuAD's format at its edges."""

import json
import logging

import pytest
from files import squad, write

from jxstilts import tasks
from jxstilts.runtime import InputError

pytestmark = pytest.mark.usefixtures("no_tfds")


# --- translated ------------------------------------------------------------------------------------------------------


def test_mnli_of_xnli_mt(tmp_path):
    content = 'premise\thypo\tlabel\nEr geht .\tEr " steht .\tcontradictory\nJa .\tDoch .\tneutral\n'
    write(tmp_path, "XNLI-MT-1.0/multinli/multinli.train.de.tsv", content)
    assert tasks.load("mnli", tmp_path, "train", "de") == [
        {"id": "0", "text_a": "Er geht .", "text_b": 'Er " steht .', "label": 0},
        {"id": "1", "text_a": "Ja .", "text_b": "Doch .", "label": 2},
    ]


def test_five_columns_of_xtreme_give_the_translated_pair(tmp_path):
    folder = "xtreme_translations/XNLI/translate-train/en-sw-translated.tsv"
    write(tmp_path, folder, "He goes\tHe stays\tAnaenda\tAnakaa\tcontradiction\nYes\tNo\tNdiyo\tHapana\tentailment\n")
    assert tasks.load("mnli", tmp_path, "train", "sw") == [
        {"id": "0", "text_a": "Anaenda", "text_b": "Anakaa", "label": 0},
        {"id": "1", "text_a": "Ndiyo", "text_b": "Hapana", "label": 1},
    ]
    folder = "xtreme_translations/PAWSX/translate-train/en-de-translated.tsv"
    write(tmp_path, folder, "a\tb\tA\tB\t1\nc\td\tC\tD\t0\n")
    assert tasks.load("pawsx", tmp_path, "train", "de") == [
        {"id": "0", "text_a": "A", "text_b": "B", "label": 1},
        {"id": "1", "text_a": "C", "text_b": "D", "label": 0},
    ]


def test_wrong_rows_of_translated_pawsx_are_counted(tmp_path, caplog):
    rows = [f"{i}\ta\tb\t{i % 2}\n" for i in range(40)]
    rows[4] = "4\ta\tb\tNS\n"
    header = "id\tsentence1\tsentence2\tlabel\n"
    write(tmp_path, "xtreme/pawsx/x-final/fr/translated_train.tsv", header + "".join(rows))
    read = tasks.load("pawsx", tmp_path, "train", "fr")
    assert [e["id"] for e in read] == [str(i) for i in range(40) if i != 4]
    assert "left out 1 of 40 rows without a label (first: 6)" in caplog.text
    write(tmp_path, "xtreme/pawsx/x-final/fr/translated_train.tsv", header + "1\ta\tb\tc\n")
    with pytest.raises(InputError, match=r"translated_train.tsv:2: unknown label 'c'; allowed: 0, 1"):
        tasks.load("pawsx", tmp_path, "train", "fr")


PAIR = json.dumps({"gold_label": "entailment", "sentence1": "a", "sentence2": "b"}) + "\n"
HELLASWAG = json.dumps({"ctx_a": "a", "ctx_b": "b", "endings": ["c", "d"], "label": 1}) + "\n"
CHOICES = [{"label": "A", "text": "a"}, {"label": "B", "text": "b"}]
COMMONSENSE = json.dumps({"id": "x", "answerKey": "A", "question": {"stem": "s", "choices": CHOICES}}) + "\n"
ANLI = json.dumps({"uid": "u", "context": "c", "hypothesis": "h", "label": "e"}) + "\n"


@pytest.mark.parametrize(
    "name, path, content",
    [
        ("mnli", "intermediate/mnli/train.de.jsonl", PAIR),
        ("mnli", "intermediate/mnli/train.de.tsv", "sentence1\tsentence2\tgold_label\na\tb\tneutral\n"),
        ("snli", "intermediate/snli/train.de.jsonl", PAIR),
        ("anli", "intermediate/anli/R2/train.de.jsonl", ANLI),
        (
            "qqp",
            "intermediate/qqp/train.de.tsv",
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\ta\tb\t0\n",
        ),
        ("pawsx", "xtreme/pawsx/train-en.de.tsv", "a\tb\t1\n"),
        ("hellaswag", "intermediate/hellaswag/hellaswag_train.de.jsonl", HELLASWAG),
        (
            "cosmosqa",
            "intermediate/cosmosqa/train.de.csv",
            "id,context,question,answer0,answer1,answer2,answer3,label\na,b,c,d,e,f,g,0\n",
        ),
        ("commonsenseqa", "intermediate/commonsenseqa/train_rand_split.de.jsonl", COMMONSENSE),
        ("ccg", "intermediate/ccg/train.de.txt", "a|DT|NP\n"),
        ("udpos", "xtreme/udpos/train-en.de.tsv", "a\tDET\n"),
        ("panx", "xtreme/panx/train-en.de.tsv", "a\tO\n"),
        ("squad_v1", "intermediate/squad/train-v1.1.de.json", squad(("q", [("a", 0)], {}), context="a")),
        ("squad_v2", "intermediate/squad/train-v2.0.de.json", squad(("q", [("a", 0)], {}), context="a")),
        (
            "tydiqa",
            "xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.de.json",
            squad(("q", [("a", 0)], {}), context="a"),
        ),
    ],
)
def test_a_translated_file_beside_the_english_one(tmp_path, name, path, content):
    write(tmp_path, path, content)
    read = tasks.load(name, tmp_path, "train", "de")
    write(tmp_path, path.replace(".de.", "."), content)
    english = tasks.load(name, tmp_path, "train")
    assert read == english and len(read) == 1
    # English is never read in its place, and a translation is never read as English
    with pytest.raises(InputError, match=r"task '\w+' has no .*'train' file for 'fr' .*Languages .* there: en.*de"):
        tasks.load(name, tmp_path, "train", "fr", source="files")


def test_parts_are_translated_one_by_one(tmp_path):
    write(tmp_path, "intermediate/anli/R1/train.sw.jsonl", ANLI)
    write(tmp_path, "intermediate/mnli/train.sw.jsonl", PAIR)
    with pytest.raises(InputError, match=r"task 'snli' has no machine-translated 'train' file for 'sw'"):
        tasks.load("anli_plus", tmp_path, "train", "sw")
    write(tmp_path, "intermediate/snli/train.sw.jsonl", PAIR)
    assert [e["id"] for e in tasks.load("anli_plus", tmp_path, "train", "sw")] == ["anli/r1/u", "mnli/0", "snli/0"]


def test_original_data_of_a_language_comes_first(tmp_path, caplog):
    context = "Rooma on kaupunki."
    copy = "xtreme_translations/TyDiQA-GoldP/translate-train/tydiqa.translate.train.en-fi.json"
    write(tmp_path, copy, squad(("copy", [("Rooma", 0)], {}), ("copy", [("Rooma", 0)], {}), context=context))
    with caplog.at_level(logging.INFO):
        read = tasks.load("tydiqa", tmp_path, "train", "fi")
    assert [e["id"] for e in read] == ["copy", "copy#1"]
    assert "machine-translated" in caplog.text and "train.en-fi.json" in caplog.text
    original = "xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.fi.train.json"
    write(tmp_path, original, squad(("original", [("Rooma", 0)], {}), context=context))
    assert [e["id"] for e in tasks.load("tydiqa", tmp_path, "train", "fi")] == ["original"]


def test_translated_questions_that_lost_their_answer_are_counted(tmp_path, caplog):
    path = "xtreme_translations/SQuAD/translate-train/squad.translate.train.en-de.json"
    questions = [
        ("kept", [("Rom", 4)], {}),
        ("moved", [("Rom", 5)], {}),
        ("missing", [], {}),
        ("none", [], {"answers": [{"text": "Rom", "answer_start": None}]}),
        ("empty", [("", 0)], {}),
        ("negative", [("Rom", -3)], {}),
        ("one of two", [("Paris", 0), ("ist", 8)], {}),
    ]
    write(tmp_path, path, squad(*questions, context="Ja, Rom ist es."))
    read = tasks.load("squad_v1", tmp_path, "train", "de")
    assert [(e["id"], e["answers"]) for e in read[:1]] == [("kept", [{"text": "Rom", "start": 4}])]
    assert [(e["id"], e["answers"]) for e in read[1:]] == [("one of two", [{"text": "ist", "start": 8}])]
    [record] = caplog.records
    assert "left out 5 of 7 questions" in record.getMessage() and "'moved'" in record.getMessage()
    write(tmp_path, path, squad(questions[1], context="Ja, Rom ist es."))
    with pytest.raises(InputError, match="no question in the file has its answer at its offset"):
        tasks.load("squad_v1", tmp_path, "train", "de")
    # in the original release it is an error
    write(tmp_path, "intermediate/squad/train-v1.1.json", squad(questions[1], context="Ja, Rom ist es."))
    with pytest.raises(InputError, match=r"answer 'Rom' is not at offset 5"):
        tasks.load("squad_v1", tmp_path, "train")


def test_translated_squad_v2_keeps_unanswerable_questions(tmp_path):
    questions = [("no", [], {"is_impossible": True}), ("lost", [("Paris", 0)], {}), ("yes", [("Rom", 0)], {})]
    write(tmp_path, "intermediate/squad/train-v2.0.sw.json", squad(*questions, context="Rom"))
    read = tasks.load("squad_v2", tmp_path, "train", "sw")
    assert [(e["id"], len(e["answers"])) for e in read] == [("no", 0), ("yes", 1)]


def test_what_is_allowed_is_named(tmp_path):
    with pytest.raises(InputError) as error:
        tasks.load("mnli", tmp_path, "train", "de", source="files")
    for part in (
        "machine-translated",
        "multinli.train.de.tsv",
        "en-de-translated.tsv",
        "train.de.jsonl",
        "there: none",
    ):
        assert part in str(error.value)
    with pytest.raises(InputError, match=r"language of task 'mnli' 'deu'; did you mean 'eu'\? Known: af, ar"):
        tasks.load("mnli", tmp_path, "train", "deu")
    with pytest.raises(InputError, match=r"language of task 'mnli' 'de'.*Known: en$"):
        tasks.load("mnli", tmp_path, "dev", "de")  # training data only
    with pytest.raises(InputError, match=r"TFDS's glue/mnli has no 'de'; it has en"):
        tasks.load("mnli", tmp_path, "train", "de", source="tfds")
    spec = tasks.get("mnli")
    assert spec.languages == spec.loadable("dev") == ("en",) and len(spec.loadable("train")) == 50
    assert "en-de" in tasks.get("mlqa").loadable("dev") and "wo" not in tasks.get("xnli").loadable("test")


@pytest.mark.parametrize(
    "path, content, message",
    [
        (
            "XNLI-MT-1.0/multinli/multinli.train.de.tsv",
            "premise\thypo\tlabel\na\tb\tmaybe\n",
            r"multinli.train.de.tsv:2: unknown label 'maybe'; allowed: contradiction, entailment, neutral",
        ),
        (
            "XNLI-MT-1.0/multinli/multinli.train.de.tsv",
            "premise\thypo\tlabel\na\tb\n",
            r"multinli.train.de.tsv:2: 2 columns, the header has 3",
        ),
        (
            "xtreme_translations/XNLI/translate-train/en-de-translated.tsv",
            "a\tb\tA\tB\tneutral\na\tb\tA\tneutral\n",
            r"en-de-translated.tsv:2: 4 columns, line 1 has 5",
        ),
        (
            "xtreme_translations/XNLI/translate-train/en-de-translated.tsv",
            "a\tb\tneutral\n",
            r"en-de-translated.tsv:1: expected a header line",
        ),
    ],
)
def test_damaged_translation_says_where(tmp_path, path, content, message):
    write(tmp_path, path, content)
    with pytest.raises(InputError, match=message):
        tasks.load("mnli", tmp_path, "train", "de")


# --- SQuAD's format at its edges -------------------------------------------------------------------------------------


def load_squad(root, *questions, context, name="squad_v2"):
    version = {"squad_v1": "1.1", "squad_v2": "2.0"}[name]
    write(root, f"intermediate/squad/dev-v{version}.json", squad(*questions, context=context))
    return tasks.load(name, root, "dev")


def test_squad_v2_answers(tmp_path):
    plausible = {"is_impossible": True, "plausible_answers": [{"text": "Rome", "answer_start": 0}]}
    read = load_squad(
        tmp_path,
        ("several", [("Rome", 0), ("Rome", 0), ("Rome is", 0)], {"is_impossible": False}),
        ("none", [], plausible),
        context="Rome is a city.",
    )
    starts = [{"text": "Rome", "start": 0}, {"text": "Rome", "start": 0}, {"text": "Rome is", "start": 0}]
    assert [e["answers"] for e in read] == [starts, []]
    with pytest.raises(InputError, match=r"question 'b' has no answer, but 'a' has"):
        load_squad(tmp_path, ("a", [("Rome", 0)], {}), ("b", [], {"is_impossible": False}), context="Rome")


def test_empty_context(tmp_path):
    [example] = load_squad(tmp_path, ("q", [], {"is_impossible": True}), context="")
    assert example["context"] == "" and example["answers"] == []
    with pytest.raises(InputError, match=r"answer 'a' is not at offset 0, where '' stands"):
        load_squad(tmp_path, ("q", [("a", 0)], {}), context="", name="squad_v1")


@pytest.mark.parametrize(
    "context, text",
    [
        ("le cafe\u0301 noir", "cafe\u0301"),  # the accent is a character of its own
        ("हिन्दी में लिखा", "में"),  # vowel signs
        ("กรุงเทพฯ น้ำ", "น้ำ"),
        ("ولد في القاهرة عام ١٩٢٠.", "القاهرة"),  # right to left, offsets in reading order
        ("\u202bירושלים\u202c היא עיר", "ירושלים"),  # direction marks count
        ("👩‍👩‍👧 family 𝒳 here", "here"),  # joined and beyond the BMP
    ],
)
def test_offsets_count_characters_in_every_script(tmp_path, context, text):
    start = context.index(text)
    [example] = load_squad(tmp_path, ("q", [(text, start)], {}), context=context, name="squad_v1")
    assert example["answers"] == [{"text": text, "start": start}]
    with pytest.raises(InputError, match=rf"not at offset {start + 1}, .*first found at {start}"):
        load_squad(tmp_path, ("q", [(text, start + 1)], {}), context=context, name="squad_v1")


def test_composed_and_decomposed_text_differ(tmp_path):
    with pytest.raises(InputError, match="is not at offset 3"):  # nothing is normalised
        load_squad(tmp_path, ("q", [("caf\u00e9", 3)], {}), context="le cafe\u0301 noir", name="squad_v1")


ANSWERED = ("a", [("Ada", 0)], {})
UNANSWERED = {
    "marked": ("b", [], {"is_impossible": True}),
    "marked, with XTREME's placeholder": ("b", [("", 0)], {"is_impossible": True}),
    "as in the release": ("b", [], {"is_impossible": True, "plausible_answers": [{"text": "Ada", "answer_start": 0}]}),
    "plausible answers only": ("b", [], {"plausible_answers": [{"text": "Ada", "answer_start": 0}]}),
}
WITHOUT = {  # tasks in which every question has an answer: each file that they read
    ("squad_v1", "train", "en"): "intermediate/squad/train-v1.1.json",
    ("squad_v1", "dev", "en"): "intermediate/squad/dev-v1.1.json",
    ("squad_v1", "train", "de"): "intermediate/squad/train-v1.1.de.json",
    ("xquad", "test", "th"): "xtreme/xquad/xquad.th.json",
    ("mlqa", "dev", "en-de"): "xtreme/mlqa/MLQA_V1/dev/dev-context-en-question-de.json",
    ("tydiqa", "train", "en"): "xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json",
    ("tydiqa", "train", "fi"): "xtreme/tydiqa/tydiqa-goldp-v1.1-train.json",
    ("tydiqa", "dev", "fi"): "xtreme/tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.fi.dev.json",
    ("tydiqa", "train", "de"): "xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.de.json",
}  # fmt: skip


@pytest.mark.parametrize("sign", UNANSWERED)
@pytest.mark.parametrize("task, split, language", WITHOUT)
def test_unanswerable_questions_where_a_task_has_none(tmp_path, task, split, language, sign):
    """Among others or alone: training would point at <s>, and a score would count an answer that cannot be right."""
    path = WITHOUT[task, split, language]
    for questions in ([ANSWERED, UNANSWERED[sign]], [UNANSWERED[sign]]):
        write(tmp_path, path, squad(*questions))
        with pytest.raises(InputError, match=rf"{path}: question 'b' has .*read the file as task 'squad_v2'"):
            tasks.load(task, tmp_path, split, language)
    write(tmp_path, path, squad(ANSWERED))
    assert len(tasks.load(task, tmp_path, split, language)) == 1


def test_a_question_without_a_mark_and_without_an_answer(tmp_path):
    """Alone it is unlabelled; beside an answered one the message says where such questions belong."""
    path = "intermediate/squad/dev-v1.1.json"
    for empty in ([], [("", 0)]):
        for name in ("1.1", "2.0"):
            write(tmp_path, path.replace("1.1", name), squad(ANSWERED, ("b", empty, {"is_impossible": False})))
        for task in ("squad_v1", "squad_v2"):
            with pytest.raises(InputError, match=r"question 'b' has no answer, but 'a' has; only task 'squad_v2'"):
                tasks.load(task, tmp_path, "dev")
        write(tmp_path, path, squad(("b", empty, {})))
        assert "answers" not in tasks.load("squad_v1", tmp_path, "dev")[0]


@pytest.mark.parametrize("task", ["squad_v1", "xquad", "mlqa", "tydiqa"])
def test_unanswerable_questions_of_tfds(task):
    def rows(*extra):
        answers = {"text": ["Ada"], "answer_start": [0]}
        row = {"id": "english-1", "question": "?", "context": "Ada", "answers": answers}
        return [row, row | {"id": "english-2", "answers": {"text": [], "answer_start": []}} | dict(extra)]

    plausible = ("plausible_answers", {"text": ["Ada"], "answer_start": [0]})
    for extra in ([("is_impossible", True)], [("is_impossible", True), plausible], [plausible]):
        with pytest.raises(InputError, match=r"TFDS question 'english-2' has .*task 'squad_v2'"):
            tasks.get(task).tfds.convert(rows(*extra), "en")
    with pytest.raises(InputError, match=r"question 'english-2' has no answer, but 'english-1' has"):
        tasks.get(task).tfds.convert(rows(), "en")
    assert len(tasks.get("squad_v2").tfds.convert(rows(("is_impossible", True)), "en")) == 2
