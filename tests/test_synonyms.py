"""Copies of training rows with other words: what is drawn, how often, and what is refused."""

import collections

import pytest

from jxstilts import tasks
from jxstilts.data import synonyms
from jxstilts.runtime import InputError
from jxstilts.train import identity, inputs, mixture
from jxstilts.train.mixture import Stream
from jxstilts.train.phase import Phase

TABLE = "Dog\thound\tcur\nbig\tlarge\n"


@pytest.fixture
def path(tmp_path):
    (tmp_path / "words.tsv").write_text(TABLE)
    return str(tmp_path / "words.tsv")


def test_each_word_and_its_synonyms_are_equally_likely(path):
    rows = [{"id": str(i), "text_a": "Dog, dog's bigger big dog!", "text_b": None, "label": 1} for i in range(300)]
    found = synonyms.with_copies(rows, ("text_a", "text_b"), path, 3)
    assert len(found) == 1200 and found[::4] == rows and found[1]["id"] == "0~1" and found[1]["label"] == 1
    copies = [row for row in found if "~" in row["id"]]
    last = collections.Counter(row["text_a"].split()[-1] for row in copies)
    assert set(last) == {"dog!", "hound!", "cur!"} and all(abs(count - 300) < 5 * 14 for count in last.values())
    first = {row["text_a"].split(",")[0] for row in copies}
    assert first == {"Dog", "Hound", "Cur"}
    assert {row["text_a"].split()[2] for row in copies} == {"bigger"} and copies[0]["text_b"] is None
    pairs = {(row["text_a"].split(",")[0], row["text_a"].split()[-1]) for row in copies}
    assert len(pairs) == 9  # each place apart
    assert synonyms.with_copies(rows[7:8], ("text_a",), path, 3) == found[28:32]  # whatever stands beside it


def test_lists_of_words_keep_their_lengths(path):
    row = {"id": "x", "words": ["Dog", "bites", "dog"], "tags": ["N", "V", "N"]}
    made = synonyms.with_copies([row], tasks.get("udpos").form.replaceable, path, 5)
    assert all(len(each["words"]) == 3 and each["tags"] == row["tags"] for each in made)
    assert {each["words"][1] for each in made} == {"bites"} and len({tuple(each["words"]) for each in made}) > 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("dog\n", r"words\.tsv:1: expected word<TAB>synonym"), ("a\tb\ntwo words\tc\n", r"words\.tsv:2: expected"),
     ("a\tb\nA\tc\n", r"words\.tsv:2: the word 'a' comes again"), ("a\tb\t\n", r"words\.tsv:1: expected")],
)  # fmt: skip
def test_wrong_files(tmp_path, text, message):
    (tmp_path / "words.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        synonyms.read(str(tmp_path / "words.tsv"))


def test_a_phase_trains_on_the_copies(path, world, tmp_path):
    world_rows = inputs.training_rows(Stream(task="mnli", limit=5), str(world))
    stream = Stream(task="mnli", limit=5, synonyms=path, copies=2)
    rows = inputs.training_rows(stream, str(world))
    assert len(rows) == 15 and rows[::3] == world_rows
    phases = [Phase(tasks={"mnli": each}) for each in (Stream(task="mnli", limit=5), stream)]
    data = [identity.data(phase, str(world), tmp_path / "digests") for phase in phases]
    assert data[1].keys() - data[0].keys() == {"synonyms: words.tsv"}
    assert "synonyms" not in identity.settings(phases[0])["tasks"]["mnli"]


def test_what_does_not_fit(path):
    with pytest.raises(InputError, match=r"p\.squad_v1\.synonyms: the words of task 'squad_v1' cannot be replaced"):
        mixture.resolve({"squad_v1": Stream(synonyms=path, copies=1)}, "authors", "p")
    with pytest.raises(InputError, match="synonyms='' and copies=2 go together"):
        Stream(task="mnli", copies=2)
