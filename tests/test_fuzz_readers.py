"""Every reader of data files on mutated ones: refused in one line that names the file, or examples as they must be."""

import json

import fuzz
import fuzz_files
import pytest
from files import lines, squad, write

from jxstilts import tasks
from jxstilts.runtime import InputError

pytestmark = pytest.mark.usefixtures("no_tfds")


def _write(folder, seed):
    for path, content in seed.files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8", newline="")


@pytest.mark.parametrize("number", range(len(fuzz_files.WORLD) + len(fuzz_files.BY_HAND)))
@fuzz.shares(16, 1600)
def test_readers(world, tmp_path, number, count):
    seed = [*fuzz_files.of_world(world), *fuzz_files.BY_HAND][number]
    _write(tmp_path, seed)
    (tmp_path / "world.json").write_text("{}")  # no warning of the number of rows
    fuzz_files.check(seed.task, seed.split, tasks.load(seed.task, tmp_path, seed.split, seed.language))
    for path, content in seed.files.items():
        kinds = fuzz.JSON if fuzz_files.is_json(path) else fuzz.TEXT

        def attempt(plan, path=path, content=content, kinds=kinds):
            fuzz.put(tmp_path / path, fuzz.mutate(content.encode(), plan, kinds), plan)
            fuzz_files.check(seed.task, seed.split, tasks.load(seed.task, tmp_path, seed.split, seed.language))

        fuzz.run(f"{seed.task} {path}", count // len(seed.files), attempt, str(tmp_path))
        _write(tmp_path, seed)


# --- what is provably wrong ------------------------------------------------------------------------------------------


def _seed(end):
    return next(seed for seed in fuzz_files.BY_HAND if any(path.endswith(end) for path in seed.files))


def _row(change):
    """Changes the cells of one line below the first."""

    def spoil(text, a, b):
        rows = [row.split("\t") for row in text.removesuffix("\n").split("\n")]
        full = [at for at, row in enumerate(rows) if at and row != [""]]
        change(rows[full[a % len(full)]], b)
        return "".join("\t".join(row) + "\n" for row in rows)

    return spoil


def _object(change):
    """Changes one of the objects of JSON lines."""

    def spoil(text, a, b):
        rows = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
        change(rows[a % len(rows)], b)
        return lines(*rows)

    return spoil


def _question(change):
    def spoil(text, a, b):
        whole, questions = fuzz_files.document(text)
        answered = [question for question in questions if question["answers"]]
        change(answered[a % len(answered)], b, questions)
        return json.dumps(whole)

    return spoil


def _shift(question, b, questions):
    """No answer of these stands anywhere else, nor there."""
    question["answers"][0]["answer_start"] += (b % 200 + 1) * (-1) ** b


def _word(question, b, questions):
    question["answers"][0]["text"] += ("s", "Q", "\u200b", "\u0301", "x" * 100)[b % 5]


def _again(question, b, questions):
    others = [other for other in questions if other is not question]
    question["id"] = others[b % len(others)]["id"]


def _no_label(cells, b):
    cells[-1] = ("maybe", "", " ", "-1", "3", "\uff11", "1.0", "entailment ", "b-loc", "NaN", "neutral\x00")[b % 11]


def _cut(text, a, b):
    return text[: 1 + a % (len(text.rstrip()) - 2)]


def _cut_line(text, a, b):
    rows = text.removesuffix("\n").split("\n")
    at = a % len(rows)
    rows[at] = rows[at][: 1 + b % (len(rows[at]) - 1)]
    return "\n".join(rows)


def _not_utf8(text, a, b):
    return fuzz._insert(text.encode(), a, fuzz.ODD.index(b"\xff"))


TABLES = ("dev.tsv", "mnli/train.tsv", "xnli.test.tsv", "train.de.tsv", "sw-translated.tsv", "test_2k.tsv")
OBJECTS = ("R1/dev.jsonl", "xnli.test.jsonl", "hellaswag_train.jsonl", "dev_rand_split.jsonl")
QUESTIONS = ("dev-v1.1.json", "train-v2.0.json", "xquad.th.json", "question-de.json")
LABEL_KEYS = ("label", "gold_label", "answerKey")
WRONG_LABELS = ("maybe", "D", 9, -1, 1.5, True, [], {}, ["A"], float("nan"), "\uff11", "1 ", "a\x00")


def _wrong_label(row, b):
    row[next(key for key in LABEL_KEYS if key in row)] = WRONG_LABELS[b % len(WRONG_LABELS)]


WRONG = {
    "no label": (tuple(end for end in TABLES if end != "xnli.test.tsv"), _row(_no_label)),  # there: column 2
    "a cell too many": ((*TABLES, "de/train"), _row(lambda cells, b: cells.insert(b % len(cells), "x"))),
    "a cell too few": ((*TABLES, "de/train"), _row(lambda cells, b: cells.pop(b % len(cells)))),
    "no tag": (("de/train",), _row(_no_label)),
    "a label of no class": (OBJECTS, _object(_wrong_label)),
    "a line cut short": ((*OBJECTS, "cosmosqa/test.jsonl"), _cut_line),
    "cut short": (QUESTIONS, _cut),
    "another place": (QUESTIONS, _question(_shift)),
    "another text": (QUESTIONS, _question(_word)),
    "an id twice": (QUESTIONS, _question(_again)),
    "not UTF-8": ((*TABLES, *OBJECTS, *QUESTIONS, "train.csv", "dev.txt", "ht.tsv", "training.fr"), _not_utf8),
    "an id on two lines": (("training.fr",), lambda text, a, b: text + text.split("\n")[a % 3] + "\n"),
    "a pair of no sentence": (("training.gold",), _row(lambda cells, b: cells.__setitem__(b % 2, "xx-1"))),
    "a pair twice": (("training.gold",), lambda text, a, b: text + text.split("\n")[a % 2] + "\n"),
}  # fmt: skip


@pytest.mark.parametrize(("why", "end"), [(why, end) for why, (ends, _) in WRONG.items() for end in ends])
@fuzz.shares(3, 300)
def test_no_wrong_acceptance(tmp_path, why, end, count):
    seed = _seed(end)
    _write(tmp_path, seed)
    (tmp_path / "world.json").write_text("{}")
    path = next(path for path in seed.files if path.endswith(end))
    # of a release of several languages only the rows of the one that is asked for are looked at
    text = seed.files[path].replace("\nen\t", "\nde\t").replace('"language": "en"', '"language": "de"')

    def attempt(plan):
        _, a, b = plan[0]
        spoilt = WRONG[why][1](text, a, b)
        (tmp_path / path).write_bytes(spoilt if isinstance(spoilt, bytes) else spoilt.encode())
        tasks.load(seed.task, tmp_path, seed.split, seed.language)
        pytest.fail(f"taken: {spoilt!r}")

    tally = fuzz.run(f"{why}: {path}", count, attempt, str(tmp_path))
    assert tally["refused"] == tally["inputs"]


@fuzz.shares(6, 1000)
def test_sides_of_tatoeba_stay_aligned(tmp_path, count):
    sides = [tmp_path / f"xtreme/tatoeba/tatoeba.deu-eng.{end}" for end in ("deu", "eng")]
    text = "eins\nzwei\n\ndrei é\n"

    def attempt(plan):
        _, a, b = plan[0]
        for side in sides:
            write(tmp_path, str(side.relative_to(tmp_path)), text)
        rows = text.split("\n")
        rows[a % 4 : a % 4 + 1] = [] if b % 2 else ["new", "lines", "x"][: 2 + b % 3 // 2]
        sides[b // 2 % 2].write_text("\n".join(rows))
        tasks.load("tatoeba", tmp_path, "test", "de")
        pytest.fail(f"taken: {rows}")

    assert fuzz.run("sides of tatoeba", count, attempt, str(tmp_path))["refused"] >= count


# --- what the campaign has found -------------------------------------------------------------------------------------

MNLI, SQUAD = "intermediate/mnli/dev.jsonl", "intermediate/squad/dev-v1.1.json"
ROW = {"gold_label": "neutral", "sentence1": "a", "sentence2": "b"}


@pytest.mark.parametrize(
    ("task", "path", "content", "message"),
    [
        ("mnli", MNLI, lines(ROW) + '{"a": ' + "9" * 5000 + "}", r"dev.jsonl:2: a number of thousands of digits"),
        ("mnli", MNLI, lines(ROW) + "[" * 10**5, r"dev.jsonl:2: JSON values nested too deep"),
        ("mnli", MNLI, lines(ROW, ROW | {"sentence1": "a\ud800"}), r"dev.jsonl:2: '\\ud800' in a string is half a"),
        ("mnli", MNLI, lines(ROW | {"gold_label": "x" * 10**5}), r"unknown label '.{59}; allowed"),
        ("squad_v1", SQUAD, squad(("a", [("Ada", 0)], {"is_impossible": "false"})), "'is_impossible' .bool"),
        ("squad_v1", SQUAD, squad(("a", [("d", True)], {})), "'answer_start' .int"),
        ("squad_v1", SQUAD, squad(("a", [("Ada", 0)], {"is_impossible": True})), "is_impossible, but has an answer"),
        ("commonsenseqa", "intermediate/commonsenseqa/dev_rand_split.jsonl",
         lines({"id": "a", "answerKey": [], "question": {"stem": "s", "choices": fuzz_files.CHOICES}}),
         r"unknown answerKey \[\]"),
    ],
)  # fmt: skip
def test_found_in_data_files(tmp_path, task, path, content, message):
    write(tmp_path, path, content)
    with pytest.raises(InputError, match=message):
        tasks.load(task, tmp_path, "dev")


def test_verses_without_text(tmp_path):
    write(tmp_path, "text/bible/ht.tsv", "b.GEN.1.1\t\nb.GEN.1.2\t \n")
    with pytest.raises(InputError, match=r"ht.tsv: no example in the file"):
        tasks.load("text", tmp_path, "train", "ht")


def test_escaped_pairs_are_whole_characters(tmp_path):
    write(tmp_path, MNLI, lines(ROW | {"sentence1": "\U0001f600"}))  # written as two escapes
    assert tasks.load("mnli", tmp_path, "dev")[0]["text_a"] == "\U0001f600"


def test_ids_that_repeat_stay_apart(tmp_path):
    """A number after an id must not give one that is there."""
    path = "xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json"
    answer = [("Ada", 0)]
    write(tmp_path, path, squad(("a#2", answer, {}), ("a", answer, {}), ("a", answer, {})))
    ids = [example["id"] for example in tasks.load("tydiqa", tmp_path, "train", "en")]
    assert len(set(ids)) == 3
