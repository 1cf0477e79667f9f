"""Readers of XTREME-R's data: COPA and its relatives, treebanks, XQuAD-R, Mewsli-X; against the corpus where it is."""

import collections
import json

import pytest
from files import lines, write

from jxstilts import tasks
from jxstilts.runtime import InputError
from jxstilts.tasks import lareqa, mewslix, treebanks
from jxstilts.tasks.digests import digests
from jxstilts.tasks.tagging import UPOS

pytestmark = pytest.mark.usefixtures("no_tfds")
COPA = {"premise": "It rained.", "choice1": "Wet.", "choice2": "Dry.", "question": "effect", "label": 1, "idx": 7}


def test_copa_and_social_iqa_have_the_releases_prompts(tmp_path):
    write(tmp_path, "xtreme-r/copa/train.en.jsonl", lines(COPA, COPA | {"idx": 8, "question": "cause"}))
    first, second = tasks.load("copa", tmp_path, "train")
    assert first == {"id": "7", "prompt": "It rained. What was the effect?", "choices": ["Wet.", "Dry."], "label": 1}
    assert second["prompt"] == "It rained. What was the cause?"
    row = {"context": "A fell.", "question": "Why?", "answerA": "a", "answerB": "b", "answerC": "c", "correct": "C"}
    write(tmp_path, "xtreme-r/siqa/socialIQa_v1.4_trn.jsonl", lines(row))
    assert tasks.load("siqa", tmp_path, "train") == [
        {"id": "0", "prompt": "A fell. Why?", "choices": ["a", "b", "c"], "label": 2}
    ]


def test_a_blanked_test_file_is_unlabelled_and_the_original_comes_first(tmp_path):
    blank = lines(COPA | {"label": 0}, COPA | {"label": 0, "idx": 8})
    write(tmp_path, "xtreme-r/xcopa/test-qu.jsonl", blank)
    assert all("label" not in row for row in tasks.load("xcopa", tmp_path, "test", "qu"))
    write(tmp_path, "xtreme-r/xcopa/qu/test.qu.jsonl", blank)
    assert all(row["label"] == 0 for row in tasks.load("xcopa", tmp_path, "test", "qu"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": "why"}, r"train\.en\.jsonl:1: unknown question 'why'; allowed: cause, effect"),
        ({"label": 2}, r":1: unknown label 2; allowed: 0, 1"),
        ({"idx": "7"}, r":1: expected a whole number 'idx', got '7'"),
        ({"choice2": None}, r":1: expected a JSON object with strings"),
    ],
)
def test_a_wrong_row_of_copa(tmp_path, change, message):
    write(tmp_path, "xtreme-r/copa/train.en.jsonl", lines(COPA | change))
    with pytest.raises(InputError, match=message):
        tasks.load("copa", tmp_path, "train")


def test_pairs_of_languages_are_put_together_of_both(tmp_path):
    """A premise in one language, its hypothesis in the other; the same items, or an error."""
    for code, rows in (("de", "eins\tzwei\tneutral\n"), ("en", "one\ttwo\tneutral\n")):
        write(tmp_path, f"xtreme/xnli/dev-{code}.tsv", rows)
    assert len(tasks.get("xnli").languages + tasks.get("xnli").more_languages) == 225
    assert len(tasks.get("pawsx").languages + tasks.get("pawsx").more_languages) == 49
    [row] = tasks.load("xnli", tmp_path, "dev", "de-en")
    assert (row["text_a"], row["text_b"]) == ("eins", "two")
    assert tasks.available("xnli", tmp_path, "dev", "de-en") and not tasks.available("xnli", tmp_path, "dev", "de-fr")
    assert len(digests("xnli", tmp_path, "dev", "de-en", "files", tmp_path / "kept")) == 2
    write(tmp_path, "xtreme/xnli/dev-en.tsv", "one\ttwo\tentailment\n")
    with pytest.raises(InputError, match="task 'xnli', de-en: row '0' is not the same item in both languages"):
        tasks.load("xnli", tmp_path, "dev", "de-en")


# --- treebanks -------------------------------------------------------------------------------------------------------


def conllu(*sentences: str) -> str:
    """Rows as "id form tag head[,deps]"; "_" in a form is a blank."""
    texts = []
    for sentence in sentences:
        rows = [row.split() for row in sentence.split("; ")]
        cells = [
            [
                number,
                form.replace("~", " "),
                "_",
                tag,
                "_",
                "_",
                head.split(",")[0],
                "dep",
                head.partition(",")[2] or "_",
                "_",
            ]
            for number, form, tag, head in rows
        ]
        texts.append("# text\n" + "".join("\t".join(row) + "\n" for row in cells))
    return "\n".join(texts) + "\n"


def test_a_contraction_is_one_word_with_the_tag_of_its_highest(tmp_path):
    text = conllu(
        "1 geh VERB 0; 2-3 zum _ _; 2 zu ADP 4; 3 dem DET 4; 4 Haus NOUN 1",  # both as high: ADP comes before DET
        "1-2 dámelo _ _; 1 da VERB 0; 2 melo PRON 1; 2.1 x X _",  # the verb stands highest
        "1 _ X 0; 2 _ X 1; 3 a X 1",  # all but one word are empty: the sentence goes
        "1 zwei~Wörter\u200c NUM 0",
    )
    path = write(tmp_path, "ud-treebanks-v2.5/UD_X/de_x-ud-test.conllu", text)
    found = treebanks.read_treebank(path, UPOS)
    assert [(row["words"], row["tags"]) for row in found] == [
        (["geh", "zum", "Haus"], ["VERB", "ADP", "NOUN"]), (["dámelo"], ["VERB"]), (["zweiWörter"], ["NUM"]),
    ]  # fmt: skip
    assert [row["id"] for row in found] == [f"de_x-ud-test:{i}" for i in range(3)]


def test_treebanks_of_a_language_are_joined_in_order_and_tsv_comes_first(tmp_path):
    for name, folder in (("pl_pud", "UD_A"), ("pl_lfg", "UD_B"), ("lt_hse", "UD_C")):
        text = conllu(f"1 {name} NOUN 0")
        write(tmp_path, f"xtreme-r/ud-treebanks-v2.7/{folder}/{name}-ud-test.conllu", text)
    assert [row["words"] for row in tasks.load("udpos", tmp_path, "test", "pl")] == [["pl_lfg"], ["pl_pud"]]
    assert tasks.available("udpos", tmp_path, "test", "lt") and not tasks.available("udpos", tmp_path, "dev", "lt")
    write(tmp_path, "xtreme/udpos/test-pl.tsv", "a\tNOUN\n")
    assert [row["words"] for row in tasks.load("udpos", tmp_path, "test", "pl")] == [["a"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 a NOUN 0; 3 b NOUN 1", r"de_x-ud-test\.conllu:3: the word 3 comes after 1 words"),
        ("1 a NOUN 0; 2-3 b _ _", r":2: the contraction 2-3 is not of words of its sentence"),
        ("1 a WORD 0", r":2: unknown tag 'WORD'"),
        ("x a NOUN 0", r":2: id 'x'"),
    ],
)
def test_a_wrong_treebank(tmp_path, text, message):
    path = write(tmp_path, "de_x-ud-test.conllu", conllu(text))
    with pytest.raises(InputError, match=message):
        treebanks.read_treebank(path, UPOS)


def test_new_languages_from_the_treebanks_of_the_corpus(corpus):
    counts = {
        code: tuple(len(tasks.load("udpos", corpus, split, code, "files")) for split in ("dev", "test"))
        for code in treebanks.NEW_LANGUAGES
    }
    assert counts == {"lt": (672, 739), "pl": (3960, 4942), "ro": (2247, 2272), "uk": (672, 892), "wo": (449, 470)}


def test_contractions_are_those_of_xtremes_files(corpus):
    """Tamil's treebank did not change since: every sentence is there. Of German every contraction has XTREME's tag."""
    for name, language, split in (
        ("UD_Tamil-TTB/ta_ttb-ud-test", "ta", "test"),
        ("UD_German-GSD/de_gsd-ud-dev", "de", "dev"),
    ):
        path = corpus / "ud" / f"{name}.conllu"
        joined = {each.form for _, _, found in treebanks._sentences(path) for each in found}
        theirs = {tuple(row["words"]): row["tags"] for row in tasks.load("udpos", corpus, split, language)}
        own = treebanks.read_treebank(path, UPOS)
        there = [(row, theirs[tuple(row["words"])]) for row in own if tuple(row["words"]) in theirs]
        pairs = [
            (a, b)
            for row, tags in there
            for word, a, b in zip(row["words"], row["tags"], tags, strict=True)
            if word in joined
        ]
        assert len(there) >= 0.99 * len(own) and len(pairs) > 150
        assert all(a == b for a, b in pairs)


# --- answers in sentences --------------------------------------------------------------------------------------------


def xquad_r(*paragraphs: dict) -> str:
    return json.dumps({"data": [{"paragraphs": list(paragraphs)}]})


def paragraph(code: str, start: int, **more) -> dict:
    question = {"id": "q", "question": f"{code}?", "answers": [{"answer_start": start, "text": "x"}]}
    return {"context": "One is.\nTwo is.", "sentence_breaks": [[0, 7], [8, 15]], "qas": [question], **more}


def test_lareqa_has_one_pool_for_all_languages(tmp_path):
    write(tmp_path, "xtreme-r/lareqa/xquad-r/de.json", xquad_r(paragraph("de", 9)))
    assert not tasks.available("lareqa", tmp_path, "test", "de")  # one language alone is no pool
    write(tmp_path, "xtreme-r/lareqa/xquad-r/ar.json", xquad_r(paragraph("ar", 0)))
    found = tasks.load("lareqa", tmp_path, "test", "de")
    assert found["query"] == [{"id": "q", "text": "de?"}]
    assert list(found["candidate"]) == [
        {"id": "ar_1_0", "text": "One is.One is.Two is."}, {"id": "ar_1_1", "text": "Two is.One is.Two is."},
        {"id": "de_1_0", "text": "One is.One is.Two is."}, {"id": "de_1_1", "text": "Two is.One is.Two is."},
    ]  # fmt: skip
    assert found["gold"] == [("q", "ar_1_0"), ("q", "de_1_1")]
    assert tasks.load("lareqa", tmp_path, "test", "ar")["candidate"] is found["candidate"]
    write(tmp_path, "xtreme-r/lareqa/xquad-r/de.json", xquad_r(paragraph("de", 0, sentence_breaks=[[0, 99]])))
    with pytest.raises(InputError, match=r"de\.json: data\[0\].paragraphs\[0\]: sentence_breaks has \[0, 99\]"):
        tasks.load("lareqa", tmp_path, "test", "de")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("It is. He was! Why? Then 5.3 of it.", ["It is.", "He was!", "Why?", "Then 5.3 of it."]),
        ('Dr. A. Smith left. (He ran.) "Why." It ended.', ["Dr. A. Smith left.", "(He ran.)", '"Why."', "It ended."]),
        ("about 3 p.m. in May . and on", ["about 3 p.m. in May .", "and on"]),
        ("one", ["one"]),
    ],
)
def test_sentences(text, parts):
    assert [text[a:b] for a, b in lareqa.sentences_of(text)] == parts


def test_lareqa_of_the_corpus(corpus):
    counts, keys = {}, set()
    for code in lareqa.LANGUAGES:
        found = tasks.load("lareqa", corpus, "test", code, "files")
        right = collections.Counter(query for query, _ in found["gold"])
        assert set(right.values()) == {11} and len(right) == 1190
        counts[code] = len(found["query"])
        keys.add((found["candidate"].key, len(found["candidate"]), len({row["text"] for row in found["candidate"]})))
    assert sum(counts.values()) == 13_090
    assert [count for _, count, _ in keys] == [13_014]


def test_rows_of_the_other_new_tasks_in_the_corpus(corpus):
    assert len(tasks.load("siqa", corpus, "dev")) == 1954 and len(tasks.load("siqa", corpus, "test")) == 2224
    assert [len(tasks.load("copa", corpus, split)) for split in ("train", "dev", "test")] == [400, 100, 500]
    for name in ("xcopa", "xcopa_gmt"):
        for code in tasks.get(name).languages:
            rows = [tasks.load(name, corpus, split, code, "files") for split in ("dev", "test")]
            assert [len(part) for part in rows] == [100, 500] and all("label" in row for part in rows for row in part)
    assert len(tasks.load("tydiqa_retrieval", corpus, "train")) > 3_600
    dev = tasks.load("tydiqa_retrieval", corpus, "dev", limit=20)
    assert len(dev["query"]) == 20 and {name for _, name in dev["gold"]} <= set(dev["candidate"].ids())


# --- Mewsli-X --------------------------------------------------------------------------------------------------------


def mention(text: str, begin: int, name: str, spans: list, entity: str = "Q1") -> dict:
    context = {
        "document_title": "", "document_url": "", "document_id": "d", "language": "de", "text": text,
        "sentence_spans": [{"start": a, "end": b} for a, b in spans],
    }  # fmt: skip
    where = {"start": begin, "end": begin + len(name), "text": name}
    return {"context": context, "mentions": [{"example_id": f"e{begin}", "mention_span": where, "entity_id": entity}]}


def entity(name: str, description: str, *spans: tuple) -> dict:
    return {
        "entity_id": name, "title": "", "description": description, "description_language": "de",
        "description_url": "", "sentence_spans": [{"start": a, "end": b} for a, b in spans],
    }  # fmt: skip


def test_mention_and_entity_texts_are_the_releases():
    text = "Before. In {big}  Rome\nthe pope. After."
    row = mention(text, text.index("Rome"), "Rome", [(0, 7), (8, 32), (33, 39)])
    one, context = row["mentions"][0], row["context"]
    # one sentence; braces become parentheses; a line end a blank; each two blanks one, once
    assert mewslix.mention_text(one, context, "here") == "Rome: In (big)  { Rome } the pope."
    with pytest.raises(InputError, match="here: no sentence of the context holds the mention 'Rome'"):
        mewslix.mention_text(one, context | {"sentence_spans": context["sentence_spans"][:1]}, "here")
    with pytest.raises(InputError, match="here: 'Rom3' is not at 18, where 'Rome' stands"):
        mewslix.mention_text({"mention_span": one["mention_span"] | {"text": "Rom3"}}, context, "here")
    assert mewslix.entity_text(entity("Q1", "A b.\nC  d. E.", (0, 4), (5, 10)), "here") == "A b. C d."


def test_mewslix_files(tmp_path):
    folder = "xtreme-r/mewslix"
    rows = lines(mention("Rome is.", 0, "Rome", [(0, 8)], ""), mention("In Rome.", 3, "Rome", [(0, 8)], ""))
    write(tmp_path, f"{folder}/wikinews_mentions/test-de.jsonl", rows)
    assert not tasks.available("mewslix", tmp_path, "test", "de")  # without its candidates
    with pytest.raises(InputError, match=r"the candidates of test-de\.jsonl are expected there"):
        tasks.load("mewslix", tmp_path, "test", "de")
    entities = lines(entity("Q2", "ß two.", (0, 6)), entity("Q1", "One.", (0, 4)), entity("Q3", "Three.", (0, 6)))
    write(tmp_path, f"{folder}/candidate_set_entities.jsonl", entities)
    found = tasks.load("mewslix", tmp_path, "test", "de")
    assert "gold" not in found and [row["id"] for row in found["query"]] == ["e0", "e3"]
    pool = found["candidate"]
    assert len(pool) == 3 and pool[1] == {"id": "Q1", "text": "One."} and list(pool.ids()) == ["Q2", "Q1", "Q3"]
    assert pool[:2] == [{"id": "Q2", "text": "ß two."}, pool[1]] == list(pool)[:2]
    write(tmp_path, f"{folder}/wikinews_labels/test-de.json", '{"e0": ["Q1 "], "e3": ["Q3"]}')
    assert tasks.load("mewslix", tmp_path, "test", "de")["gold"] == [("e0", "Q1"), ("e3", "Q3")]
    write(tmp_path, f"{folder}/wikinews_labels/test-de.json", '{"e0": [""], "e3": [""]}')
    assert "gold" not in tasks.load("mewslix", tmp_path, "test", "de")
    write(tmp_path, f"{folder}/wikinews_labels/test-de.json", '{"e0": ["Q1"]}')
    with pytest.raises(InputError, match=r"test-de\.json: expected an object with the example ids"):
        tasks.load("mewslix", tmp_path, "test", "de")


def test_wikipedia_pairs(tmp_path):
    one = mention("In Rome.", 3, "Rome", [(0, 8)])
    row = {
        "contextual_mention": {"context": one["context"], "mention": one["mentions"][0]},
        "entity": entity("Q1", "A.", (0, 2)),
    }
    for split in ("train", "dev"):
        write(tmp_path, f"mewslix/wikipedia_pairs-{split}.jsonl", lines(row))
    pair = {"id": "e3", "query": "Rome: In { Rome } .", "candidate": "A."}
    assert tasks.load("wikipedia_pairs", tmp_path, "train") == [pair]
    dev = tasks.load("wikipedia_pairs", tmp_path, "dev", limit=1)
    assert dev["gold"] == [("e3", "Q1")] and list(dev["candidate"]) == [{"id": "Q1", "text": "A."}]
