"""Words and tags in columns: CoNLL's and CoNLL-U's files as tasks of one's own, and columns between blanks refused."""

import functools
import os
import pathlib
import re

import pytest
from files import write
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from jxstilts import tasks
from jxstilts.runtime import InputError
from jxstilts.tasks.columns import read_columns, read_conllu

pytestmark = pytest.mark.usefixtures("no_tfds")
RANDOM = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FILES = {"panx": "xtreme/panx/dev-en.tsv", "udpos": "xtreme/udpos/dev-en.tsv"}
UPOS, NER = tasks.get("udpos").labels, tasks.get("panx").labels


# --- columns between blanks, in a task of tabs -----------------------------------------------------------------------

CONLL_2003 = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\nGerman JJ B-NP B-MISC\n\n"
BLANKS = {
    "word and tag": ("panx", "EU B-ORG\nrejects O\nGerman B-LOC\n\nPeter B-PER\n", 1),
    "CoNLL-2003": ("panx", CONLL_2003, 1),
    "with marks of documents": ("udpos", "-DOCSTART-\n\nEU NNP\nsays VBZ\n", 3),
    "a word that looks like a comment": ("panx", "# O\n1 O\n", 1),
    "one word": ("panx", "\nEU B-ORG\n", 2),
    "blanks to align, and behind": ("panx", "EU       B-ORG \nrejects  O     \n", 1),
    "blanks in front": ("panx", "  EU B-ORG\n  rejects O\n", 1),
    "no-break spaces": ("panx", "EU\u00a0B-ORG\nrejects\u00a0O\n", 1),
    "tags that the task lacks": ("panx", "der B-MISC\nTag I-MISC\n", 1),
    "a tag is lost": ("panx", "EU B-ORG\nrejects\nGerman B-LOC\n", 1),
    "words that hold blanks": ("panx", "Hà Nội B-LOC\nlà O\n\nthành phố O\n", 1),
    "raw PAN-X": ("panx", "en:EU B-ORG\nen:rejects O\n", 1),
    "the tag first": ("panx", "B-ORG EU\nO rejects\nO a\nO call\n", 1),
    "parts of speech": ("udpos", "I PRON\nam AUX\n\nhere ADV\n", 1),
    "other parts of speech": ("udpos", "The DT\ndog NN\nruns VBZ\n", 1),
    "in small letters": ("udpos", "the det\ndog noun\na det\ncat noun\nthe det\nman noun\na det\nboy noun\n", 1),
    "CoNLL-U": ("udpos", "# text = The dog\n1 The the DET DT _ 2 det _ _\n2 dog dog NOUN NN _ 0 root _ _\n", 2),
    "a lemma between": ("udpos", "dogs dog NOUN\nrun run VERB\n", 1),
}


@pytest.mark.parametrize("task, content, line", BLANKS.values(), ids=BLANKS)
def test_columns_between_blanks_are_no_words(tmp_path, task, content, line):
    write(tmp_path, FILES[task], content)
    found = rf"{FILES[task]}:{line}: '.*' looks like columns between blanks.*tabs.*jxstilts\.tasks\.columns"
    with pytest.raises(InputError, match=found):
        tasks.load(task, tmp_path, "dev")


@pytest.mark.parametrize(
    "content",
    [
        "Hà Nội\nlà\n\n",
        "Malcolm X\nspoke\n",
        "New York\nHà Nội\n",
        "Việt Nam\nthành phố\nủy ban\nTrả lời\n",
        "10 000\nMenschen\n",
        "#\nO\nX\nNOUN\n",
        "O\nO\n",
    ],
)
def test_words_without_tags_may_hold_blanks(tmp_path, content):
    for task, path in FILES.items():
        write(tmp_path, path, content)
        [example] = tasks.load(task, tmp_path, "dev")
        assert example == {"id": "0", "words": content.split("\n\n")[0].splitlines()}


def test_columns_between_tabs_that_a_task_does_not_have(tmp_path):
    for content, message in (
        ("1\tThe\tthe\tDET\n", r"dev-en.tsv:1: 4 columns, expected a word and its tag .*jxstilts\.tasks\.columns"),
        ("# text = The\n1\tThe\tthe\tDET\n", r"dev-en.tsv:2: 4 columns, the first line has 1; .*jxstilts\.tasks"),
        ("The\tDET\ndog NOUN\n", r"dev-en.tsv:2: 1 columns, the first line has 2"),
    ):
        write(tmp_path, FILES["udpos"], content)
        with pytest.raises(InputError, match=message):
            tasks.load("udpos", tmp_path, "dev")


LETTERS = st.characters(exclude_characters="\t\n\r \ufeff", exclude_categories=["Cs", "Zs", "Zl", "Zp", "Cc"])
fields = st.text(LETTERS, min_size=1, max_size=5)
lower = st.text("abcçdéhàộiмирはい0-.", min_size=1, max_size=5)
blanks = st.sampled_from([" ", "  ", "   ", "\u00a0"])


@RANDOM
@given(st.data(), st.sampled_from(["panx", "udpos"]), st.integers(2, 6))
def test_random_columns_between_blanks_are_refused(tmp_path, data, task, count):
    """Any number of columns, the tag in the last, any words, also such as hold blanks, in sentences of any length."""
    line = st.tuples(st.lists(fields, min_size=count - 1, max_size=count + 1), st.sampled_from(tasks.get(task).labels))
    sentences = data.draw(st.lists(st.lists(line, min_size=1, max_size=5), min_size=1, max_size=4))
    between = data.draw(blanks)
    text = "\n".join("".join(between.join([*row, tag]) + "\n" for row, tag in sentence) for sentence in sentences)
    write(tmp_path, FILES[task], text)
    with pytest.raises(InputError, match=rf"{FILES[task]}:1: .*looks like columns between blanks"):
        tasks.load(task, tmp_path, "dev")


@RANDOM
@given(st.data(), st.sampled_from(["panx", "udpos"]), st.booleans())
def test_random_words_with_blanks_are_read(tmp_path, data, task, tagged):
    """With tags behind a tab; and without any tag, as long as not every word has as many parts."""
    word = st.lists(lower, min_size=1, max_size=4).flatmap(lambda parts: blanks.map(lambda blank: blank.join(parts)))
    row = st.tuples(word, st.sampled_from(tasks.get(task).labels))
    sentences = data.draw(st.lists(st.lists(row, min_size=1, max_size=5), min_size=1, max_size=4))
    if not tagged:
        widths = {len(word.split()) for sentence in sentences for word, _ in sentence}
        assume(len(widths) > 1 or widths == {1})
    lines = [[f"{word}\t{tag}\n" if tagged else f"{word}\n" for word, tag in sentence] for sentence in sentences]
    write(tmp_path, FILES[task], "\n".join(map("".join, lines)))
    read = tasks.load(task, tmp_path, "dev")
    assert [example["words"] for example in read] == [[word for word, _ in sentence] for sentence in sentences]
    assert all(("tags" in example) == tagged for example in read)


# --- a task of one's own ---------------------------------------------------------------------------------------------


def test_the_task_of_the_documentation(tmp_path, monkeypatch):
    page = (pathlib.Path(__file__).parent.parent / "docs/data.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "conll.py").write_text(block)
    monkeypatch.setenv(tasks.OUTSIDE, os.pathsep.join([str(tmp_path / "conll.py")]))
    write(tmp_path, "conll2003/en.train", CONLL_2003 + "Peter NNP I-NP I-PER\r\n")
    read = tasks.load("conll2003", tmp_path, "train")
    assert read == [
        {"id": "0", "words": ["EU", "rejects", "German"], "tags": ["B-ORG", "O", "B-MISC"]},
        {"id": "1", "words": ["Peter"], "tags": ["I-PER"]},
    ]


@RANDOM
@given(st.data(), st.integers(1, 6), st.sampled_from([None, "\t", " ", "|"]))
def test_columns_round_trip(tmp_path, data, count, separator):
    """Random columns in random places; where tabs separate, a cell may hold blanks."""
    cell = st.lists(fields, min_size=1, max_size=3).map(" ".join) if separator == "\t" else fields
    cell = cell.filter(lambda text: "|" not in text and text != "-DOCSTART-")
    word, tag = (data.draw(st.integers(1, count)) for _ in range(2))
    row = st.lists(cell, min_size=count, max_size=count)
    sentences = data.draw(st.lists(st.lists(row, min_size=1, max_size=4), min_size=1, max_size=4))
    between = separator or data.draw(st.sampled_from([" ", "\t", " \t  "]))
    comment = data.draw(st.sampled_from(["", "-DOCSTART-\n", f"-DOCSTART-{between}O\n\n"]))
    text = "\n".join(comment + "".join(between.join(row) + "\n" for row in sentence) for sentence in sentences)
    path = write(tmp_path, "corpus", text)
    read = read_columns(path, word, tag, separator=separator)
    assert [e["words"] for e in read] == [[row[word - 1] for row in sentence] for sentence in sentences]
    assert [e["tags"] for e in read] == [[row[tag - 1] for row in sentence] for sentence in sentences]
    assert [e["id"] for e in read] == [str(number) for number in range(len(sentences))]
    without = read_columns(path, word, None, separator=separator)
    assert without == [{"id": e["id"], "words": e["words"]} for e in read]


def test_comments_take_away_whole_lines_only(tmp_path):
    path = write(tmp_path, "corpus", "# id 1 en\n#home O\nHà\u00a0Nội B-LOC\n# id 2 en\nx O\n")
    read = read_columns(path, 1, 2, comments=("#",))
    assert [e["words"] for e in read] == [["#home", "Hà\u00a0Nội"], ["x"]]  # a comment ends a sentence


CONLLU = """# sent_id = 1
# text = Vámonos al\u00a0mar
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
1\tVamos\tir\tVERB\tV\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\tP\t_\t1\tobj\t_\t_
2.1\tellos\tél\tPRON\tP\t_\t_\t_\t1:nsubj\t_
3-4\tal\t_\t_\t_\t_\t_\t_\t_\t_
3\ta\ta\tADP\tS\t_\t5\tcase\t_\t_
4\tel\tel\tDET\tD\t_\t5\tdet\t_\t_
5\tmar abierto\tmar\tNOUN\tN\t_\t1\tobl\t_\t_

# sent_id = 2
1\t_\t_\tPUNCT\tF\t_\t0\troot\t_\t_
2\t#\t#\tSYM\tF\t_\t1\tdep\t_\t_
"""


def test_conllu(tmp_path):
    path = write(tmp_path, "corpus", CONLLU)
    words = [["Vamos", "nos", "a", "el", "mar abierto"], ["_", "#"]]
    tags = [["VERB", "PRON", "ADP", "DET", "NOUN"], ["PUNCT", "SYM"]]
    assert [(e["words"], e["tags"]) for e in read_conllu(path, labels=UPOS)] == list(zip(words, tags, strict=True))
    assert [e["tags"] for e in read_conllu(path, tag=5)] == [["V", "P", "S", "D", "N"], ["F", "F"]]
    assert read_conllu(path, tag=6, labels=UPOS) == [{"id": str(i), "words": row} for i, row in enumerate(words)]


@pytest.mark.parametrize(
    "read, content, message",
    [
        ({"word": 1, "tag": 4}, "\nEU B-ORG\n", r"corpus:2: 2 columns; the word should be in 1, its tag in 4"),
        ({"word": 3, "tag": None}, "EU B-ORG\n", r"corpus:1: 2 columns; the word should be in 3"),
        ({"word": 1, "tag": 2}, "EU B-ORG\nHà Nội B-LOC\n", r"corpus:2: 3 columns, line 1 has 2"),
        ({"word": 1, "tag": 2}, "EU B-ORG\nHà\n", r"corpus:2: 1 columns, line 1 has 2"),
        ({"word": 1, "tag": 2, "labels": NER}, "EU B-ORG\nx X\n", r"corpus:2: unknown tag 'X'; allowed: O, B-LOC"),
        ({"word": 1, "tag": 2, "separator": "\t"}, "a\tO\n\tO\n", r"corpus:2: the word is empty"),
        ({"word": 1, "tag": 2, "separator": "\t"}, "a\tO\nb\t\n", r"corpus:2: the tag is empty"),
        ({"word": 1, "tag": None, "separator": "\t"}, "a\tO\n \tO\n", r"corpus:2: the word is empty"),
        ({"word": 1, "tag": 2}, "-DOCSTART- O\n\n", r"corpus: no example in the file"),
        ({"tag": 4}, CONLLU.replace("\tDET\t", "\tART\t"), r"corpus:9: unknown tag 'ART'; allowed: ADJ"),
        ({"tag": 4}, CONLLU.replace("\tDET\t", "\t_\t"), r"corpus:9: unknown tag '_'"),
        ({"tag": 4}, CONLLU.replace("\t", " "), r"corpus:3: 1 columns between tabs, CoNLL-U has 10"),
        ({"tag": 4}, CONLLU.replace("\n5\t", "\nfive\t"), r"corpus:10: id 'five'; CoNLL-U has 3, 3-4"),
        ({"tag": 4}, "# text = a\n", r"corpus: no example in the file"),
    ],
)
def test_damaged_columns_say_where(tmp_path, read, content, message):
    path = write(tmp_path, "corpus", content)
    with pytest.raises(InputError, match=message):
        read_columns(path, **read) if "word" in read else read_conllu(path, labels=UPOS, **read)


@pytest.mark.parametrize("make", [lambda p: read_columns(p, 0, 2), lambda p: read_columns(p, 1, -1),
                                  lambda p: read_conllu(p, tag=0), lambda p: read_conllu(p, tag=11)])  # fmt: skip
def test_columns_are_counted_from_one(tmp_path, make):
    with pytest.raises(ValueError, match="columns"):
        make(write(tmp_path, "corpus", CONLLU))


# --- real data -------------------------------------------------------------------------------------------------------


def test_a_real_treebank_against_xtremes_file(corpus):
    """Yoruba without contractions, which XTREME joins: one sentence is cut in two there, nine have other tags."""
    (path,) = corpus.glob("ud/UD_Yoruba-YTB/*test.conllu")
    parts, read = path.read_text().strip().split("\n\n"), read_conllu(path, labels=UPOS)
    assert len(parts) == len(read)
    xtreme = tasks.load("udpos", corpus, "test", "yo")
    plain = [e for part, e in zip(parts, read, strict=True) if not re.search(r"^\d+-\d+\t", part, re.MULTILINE)]
    same = [
        sum(any(all(e[k] == x[k] for k in keys) for x in xtreme) for e in plain)
        for keys in (["words"], ["words", "tags"])
    ]
    assert (len(plain), *same) == (284, 283, 274)


@pytest.mark.parametrize(
    "task, split, language", [("udpos", "test", "ta"), ("panx", "dev", "vi"), ("panx", "dev", "ja")]
)
def test_real_files_with_blanks_for_tabs_and_without_tags(corpus, tmp_path, task, split, language):
    examples = tasks.load(task, corpus, split, language, limit=500)
    path = tasks.get(task).patterns(split, language)[0]

    def put(form, rows):
        pairs = [zip(e["words"], e["tags"], strict=True) for e in rows]
        text = "\n".join("".join(form.format(word=word, tag=tag) + "\n" for word, tag in row) for row in pairs)
        return write(tmp_path, path, text)

    for form, tag in (("{word} {tag}", 2), ("{tag} {word}", 1), ("{word} XX _ {tag}", 4), ("{word} {tag}  _", 2)):
        for count in (500, 1):
            file = put(form, examples[:count])
            with pytest.raises(InputError, match=rf"{path}:1: .*looks like columns between blanks"):
                tasks.load(task, tmp_path, split, language)
            read = functools.partial(read_columns, word=2 if tag == 1 else 1, tag=tag, labels=tasks.get(task).labels)
            assert read(file) == examples[:count]
    put("{word}", examples)
    assert [e["words"] for e in tasks.load(task, tmp_path, split, language)] == [e["words"] for e in examples]


def test_real_words_that_hold_blanks(corpus, tmp_path):
    """Half of Vietnamese's words do."""
    read = read_conllu(corpus / "ud/UD_Vietnamese-VTB/vi_vtb-ud-test.conllu", labels=UPOS)
    words = [e["words"] for e in read]
    assert sum(" " in word for row in words for word in row) == 2079
    write(tmp_path, FILES["udpos"], "\n".join("".join(word + "\n" for word in row) for row in words))
    assert [e["words"] for e in tasks.load("udpos", tmp_path, "dev")] == words
    pairs = [zip(e["words"], e["tags"], strict=True) for e in read]
    write(tmp_path, FILES["udpos"], "\n".join("".join(f"{word}\t{tag}\n" for word, tag in row) for row in pairs))
    assert [(e["words"], e["tags"]) for e in tasks.load("udpos", tmp_path, "dev")] == [
        (e["words"], e["tags"]) for e in read
    ]
