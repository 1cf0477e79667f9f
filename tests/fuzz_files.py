"""Valid data files of every form that a reader takes, short, and what any reader's result must be."""

import dataclasses
import json
import pathlib

from files import lines, squad

from jxstilts import tasks

# Files of the miniature world: (task, split, language, files, the first is the one that the reader is given)
WORLD = (
    ("mnli", "dev", "en", "intermediate/mnli/dev.jsonl"),
    ("snli", "dev", "en", "intermediate/snli/dev.jsonl"),
    ("qqp", "dev", "en", "intermediate/qqp/dev.tsv"),
    ("xnli", "dev", "hi", "xtreme/xnli/dev-hi.tsv"),
    ("pawsx", "dev", "de", "xtreme/pawsx/dev-de.tsv"),
    ("udpos", "dev", "ar", "xtreme/udpos/dev-ar.tsv"),
    ("panx", "dev", "tr", "xtreme/panx/dev-tr.tsv"),
    ("hellaswag", "dev", "en", "intermediate/hellaswag/hellaswag_val.jsonl"),
    ("text", "train", "ru", "text/common_voice/ru.txt"),
    ("tatoeba", "test", "el", "xtreme/tatoeba/tatoeba.ell-eng.ell", "xtreme/tatoeba/tatoeba.ell-eng.eng"),
    ("bucc2018", "dev", "de", "xtreme/bucc2018/de-en.dev.de", "xtreme/bucc2018/de-en.dev.en"),
)
ROWS = 6


@dataclasses.dataclass(frozen=True)
class Seed:
    """One split in one language. files: path below data_dir -> content; each of them is mutated in turn."""

    task: str
    split: str
    language: str
    files: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.task} {next(iter(self.files))}"


def of_world(world: pathlib.Path) -> list[Seed]:
    """The first rows of the miniature world's own files."""
    return [
        Seed(task, split, language, {path: _first((world / path).read_text()) for path in paths})
        for task, split, language, *paths in WORLD
    ]


def _first(text: str) -> str:
    return "".join(f"{line}\n" for line in text.split("\n")[:ROWS])


PAIRS = [("Er geht.", "He goes é"), ("ग 中", 'She "stays"'), ("a b", "-"), ("x", "ẹ́")]
LABELS = ("contradiction", "entailment", "neutral", "entailment")
CHOICES = [{"label": letter, "text": f"text {letter}"} for letter in "BAC"]
COSMOS = {"id": "a", "context": "Rain.", "question": "Why?"} | {f"answer{i}": f"because {i}" for i in range(4)}
COSMOS_CSV = """id,context,question,answer0,answer1,answer2,answer3,label
a1,"Rain, again.
She said ""no"".",Why?,"one, two",two,three,"four
lines",2
b2,C,Q,1,2,3,4,0
c3,中,Ü,,"",3,4,3
"""
XNLI = [(code, *row) for code in ("en", "de") for row in zip(LABELS, *zip(*PAIRS, strict=True), strict=True)]
XNLI_KEYS = ("language", "gold_label", "sentence1", "sentence2")
HELLASWAG = {"ctx_a": "A man sits.", "ctx_b": "he", "endings": ["sings.", "sleeps.", "sits."]}
QUESTIONS = (("a", [("Ada", 0)], {}), ("b", [("London", 16), ("in London", 13)], {}), ("c", [("was", 4)], {}))
UNANSWERED = ("d", [], {"is_impossible": True, "plausible_answers": [{"text": "Ada", "answer_start": 0}]})


def table(*rows) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


def _by_hand() -> list[Seed]:
    labelled = [(*pair, label) for pair, label in zip(PAIRS, LABELS, strict=True)]
    numbered = [(str(i), *pair, str(i % 2)) for i, pair in enumerate(PAIRS)]
    anli = [{"uid": f"u{i}", "context": a, "hypothesis": b, "label": "cen"[i % 3]} for i, (a, b) in enumerate(PAIRS)]
    words = table(("Um", "O"), ("12:30", "O"), (), ("Rom", "B-LOC"), ("II", "I-LOC"))
    question = {"stem": "Where?", "question_concept": "c", "choices": CHOICES}
    commonsense = [{"id": f"q{i}", "question": question, "answerKey": letter} for i, letter in enumerate("ABC")]
    release = [dict(zip(XNLI_KEYS, row, strict=True)) | {"genre": "x"} for row in XNLI]
    languages = squad(*((f"{name}-{i}", *rest) for name in ("english", "finnish") for i, *rest in QUESTIONS))
    return [
        Seed(task, split, language, files)
        for task, split, language, *contents in (
            ("mnli", "train", "en", "intermediate/mnli/train.tsv",
             table(("index", "sentence1", "sentence2", "gold_label"), *((str(i), *r) for i, r in enumerate(labelled)))),
            ("anli", "dev", "en", "intermediate/anli/R1/dev.jsonl", lines(*anli),
             "intermediate/anli/R2/dev.jsonl", lines(*anli[:2])),
            ("xnli", "test", "de", "xtreme/xnli/XNLI-1.0/xnli.test.tsv", table(XNLI_KEYS, *XNLI)),
            ("xnli", "test", "de", "XNLI-1.0/xnli.test.jsonl", lines(*release)),
            ("xnli", "test", "de", "xtreme/xnli/test-de.tsv", table(*PAIRS)),
            ("mnli", "train", "de", "XNLI-MT-1.0/multinli/multinli.train.de.tsv",
             table(("premise", "hypo", "label"), *labelled)),
            ("mnli", "train", "sw", "xtreme_translations/XNLI/translate-train/en-sw-translated.tsv",
             table(*((*PAIRS[0], *row) for row in labelled))),
            ("pawsx", "test", "en", "xtreme/pawsx/x-final/en/test_2k.tsv",
             table(("id", "sentence1", "sentence2", "label"), *numbered)),
            ("pawsx", "test", "de", "xtreme/pawsx/test-de.tsv", table(*PAIRS)),
            ("pawsx", "train", "de", "xtreme_translations/PAWSX/translate-train/en-de-translated.tsv",
             table(*((*PAIRS[0], *row[1:]) for row in numbered))),
            ("qqp", "dev", "en", "intermediate/qqp/dev.tsv",
             table(("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
                   *((i, i, i, a, b, y) for i, a, b, y in numbered))),
            ("hellaswag", "test", "en", "intermediate/hellaswag/hellaswag_test.jsonl",
             lines(HELLASWAG, HELLASWAG | {"label": ""}, {"context": "x", "endings": ["a", "b"]})),
            ("hellaswag", "train", "en", "intermediate/hellaswag/hellaswag_train.jsonl",
             lines(HELLASWAG | {"label": 1}, HELLASWAG | {"label": "2"}, {"ctx": "x", "endings": ["a"], "label": 0})),
            ("cosmosqa", "train", "en", "intermediate/cosmosqa/train.csv", COSMOS_CSV),
            ("cosmosqa", "test", "en", "intermediate/cosmosqa/test.jsonl", lines(COSMOS, COSMOS | {"id": "b"})),
            ("commonsenseqa", "dev", "en", "intermediate/commonsenseqa/dev_rand_split.jsonl", lines(*commonsense)),
            ("panx", "train", "de", "xtreme/panx/de/train", words.replace("\n", "\nde:").replace("de:\n", "\n")[:-3]),
            ("panx", "test", "de", "xtreme/panx/test-de.tsv", words.replace("B-LOC", "O").replace("I-LOC", "O")),
            ("udpos", "test", "fi", "xtreme/udpos/test-fi.tsv", "Yksi\nkaksi\n\nkolme\n"),
            ("ccg", "dev", "en", "intermediate/ccg/dev.txt",
             "The|DT|NP/N dog|NN|N runs|VBZ|S\\NP .|.|.\na|b|NN|N\n\nx|y|z\n"),
            ("squad_v1", "dev", "en", "intermediate/squad/dev-v1.1.json", squad(*QUESTIONS)),
            ("squad_v1", "train", "de", "intermediate/squad/train-v1.1.de.json",
             squad(*QUESTIONS, ("e", [("Berlin", 3)], {}))),
            ("squad_v2", "train", "en", "intermediate/squad/train-v2.0.json", squad(*QUESTIONS, UNANSWERED)),
            ("xquad", "test", "th", "xtreme/xquad/xquad.th.json", squad(*QUESTIONS)),
            ("mlqa", "test", "en-de", "xtreme/mlqa/MLQA_V1/test/test-context-en-question-de.json", squad(*QUESTIONS)),
            ("tydiqa", "train", "fi", "xtreme/tydiqa/tydiqa-goldp-v1.1-train.json", languages),
            ("tydiqa", "train", "en", "xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json",
             squad(*QUESTIONS, QUESTIONS[0])),
            ("tydiqa", "dev", "en", "xtreme/tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.en.dev.json",
             squad(*((i, [("", 0)], {}) for i in "abc"))),
            ("bucc2018", "test", "fr", "bucc2018/fr-en/fr-en.training.fr", table(*((f"fr-{i}", "x y") for i in "123")),
             "bucc2018/fr-en/fr-en.training.en", table(*((f"en-{i}", "z") for i in "1234")),
             "bucc2018/fr-en/fr-en.training.gold", table(("fr-1", "en-2"), ("fr-3", "en-1"))),
            ("text", "train", "ht", "text/bible/ht.tsv", table(("b.GEN.1.1", "Nan konmansman"), ("b.GEN.1.2", "Tè a"))),
        )
        for files in [dict(zip(contents[::2], contents[1::2], strict=True))]
    ]  # fmt: skip


BY_HAND = _by_hand()


# --- what a reader may return ----------------------------------------------------------------------------------------


def check(task: str, split: str, examples) -> None:
    """Raises AssertionError unless these are examples of the task, as its form in `jxstilts.forms` says."""
    spec = tasks.get(task)
    CHECKS[spec.type](spec, examples)
    if spec.type not in ("retrieval", "mining"):
        assert isinstance(examples, list) and examples
        ids = [example["id"] for example in examples]
        assert len(set(ids)) == len(ids)
        for key in ("label", "tags", "answers"):
            assert len({key in example for example in examples}) == 1


def is_text(*values, empty: bool = True) -> None:
    for value in values:
        assert type(value) is str and (empty or value), repr(value)
        value.encode()  # half a surrogate pair can neither be tokenised nor written


def _only(example, needed, gold):
    assert set(example) - {gold} == set(needed), example
    is_text(example["id"])


def check_classification(spec, examples) -> None:
    for example in examples:
        _only(example, ("id", "text_a", "text_b"), "label")
        is_text(example["text_a"], example["text_b"])
        assert type(example.get("label", 0)) is int and 0 <= example.get("label", 0) < len(spec.labels)


def check_choice(spec, examples) -> None:
    for example in examples:
        _only(example, ("id", "prompt", "choices"), "label")
        is_text(example["prompt"], *example["choices"])
        assert type(example.get("label", 0)) is int and 0 <= example.get("label", 0) < len(example["choices"])


def check_tagging(spec, examples) -> None:
    for example in examples:
        _only(example, ("id", "words"), "tags")
        is_text(*example["words"], *example.get("tags", ()), empty=False)
        assert example["words"] and len(example.get("tags", example["words"])) == len(example["words"])
        assert not spec.labels or set(example.get("tags", ())) <= set(spec.labels)


def check_span(spec, examples) -> None:
    for example in examples:
        _only(example, ("id", "question", "context"), "answers")
        is_text(example["question"], example["context"])
        for answer in example.get("answers", ()):
            text, start = answer["text"], answer["start"]
            assert type(start) is int and start >= 0 and set(answer) == {"text", "start"}
            is_text(text, empty=False)
            assert example["context"][start : start + len(text)] == text


def check_retrieval(spec, examples) -> None:
    assert set(examples) - {"gold"} == {"source", "target"}
    known = []
    for side in ("source", "target"):
        for sentence in examples[side]:
            _only(sentence, ("id", "text"), "")
            is_text(sentence["text"])
        known.append({sentence["id"] for sentence in examples[side]})
        assert examples[side] and len(known[-1]) == len(examples[side])
    gold = examples.get("gold", [])
    assert len(set(gold)) == len(gold) and all(a in known[0] and b in known[1] for a, b in gold)
    if spec.name == "tatoeba":
        assert [a for a, _ in gold] == [b for _, b in gold] == [row["id"] for row in examples["source"]]


def check_text(spec, examples) -> None:
    for example in examples:
        _only(example, ("id", "text"), "")
        is_text(example["text"], empty=False)
        assert example["text"].strip()


CHECKS = {
    "classification": check_classification, "choice": check_choice, "tagging": check_tagging, "span": check_span,
    "retrieval": check_retrieval, "mining": check_retrieval, "text": check_text,
}  # fmt: skip


def is_json(path: str) -> bool:
    return path.endswith((".json", ".jsonl"))


def document(text: str) -> list:
    """Returns the questions of a SQuAD file, to be changed in place, and the whole."""
    whole = json.loads(text)
    return [whole, [qa for article in whole["data"] for part in article["paragraphs"] for qa in part["qas"]]]
