"""MultiCheckList: templates filled in a language, variants by what was drawn, cases that pass as a whole."""

import itertools

import pytest
from files import write

from jxstilts import tasks
from jxstilts.eval import metrics
from jxstilts.eval.metrics.checklist import clean
from jxstilts.runtime import InputError
from jxstilts.tasks import checklist
from jxstilts.tasks.given_names import NAMES

ROWS = [
    ("Name", "A is COMP than B. Who is more / less COMP?"), ("Capability", "Vocabulary"),
    ("Context", "{first_name} is {adj[0]} than {first_name1}.", "{first_name} ist {adj[0]} als {first_name1}."),
    ("Question", "Who is less {adj[1]}?", "Wer ist weniger {adj[1]}?"), ("Answer", "{first_name1}", "{first_name1}"),
    ("adj", "older, old", "älter, alt"), ("adj", "taller, tall", "größer, groß"),
    ("Name", "Intensifiers (very, super, extremely) and reducers (somewhat, kinda, etc)?"),
    ("Context", "{first_name} is {very} {s}.",
     "{first_name} ist {very} {s}.", "open", "{first_name} hat {very} {s}.", "serious"),
    ("Question", "Who is {s}?", "Wer {s}?"), ("Answer", "{first_name}", "{first_name}"),
    ("state", "open", "offen"), ("state", "serious", "Ernst"), ("very", "very", "sehr"), ("somewhat", "a bit", "etwas"),
    ("Name", "size, shape, age, color"),
    ("Context", "{obj[1]} is {p.v1} and {p.v2}.", "{obj[1]} ist {p.v1} und {p.v2}."),
    ("Question", "What {p.p1} is it?", "Wie groß?", "size", "Welche Farbe?", "color"), ("Answer", "{p.v1}", "{p.v1}"),
    ("Question", "What {p.p2} is it?", "Wie groß?", "size", "Welche Farbe?", "color"), ("Answer", "{p.v2}", "{p.v2}"),
    ("obj", "a bed, the bed", "ein Bett, das Bett"), ("color", "red", "rot"), ("size", "big", "dick"),
    ("property", "color", "Farbe"), ("property", "size", "Größe"),
    ("Name", "Profession vs nationality"),
    ("Context", "{first_name} is {profession} and {nationality}.", "{first_name} ist {profession} und {nationality}."),
    ("Question", "Job?", "Beruf?"), ("Answer", "{profession}", "{profession}"),
    ("nationality", "Indian", "Inder", "an actor", "Inderin", "an actress"),
    ("profession", "an actor", "Schauspieler"), ("profession", "an actress", "Schauspielerin"),
    ("Name", "Animal vs Vehicle"), ("Context", "{first_name} has {animal}.", "{first_name} hat {animal}."),
    ("Question", "What?", "Was?"), ("Answer", "{animal}", "{animal}"),
    ("animal", "a dog", "einen Hund", "{first_name} has {animal}.", "ein Hund", "{animal}"),
    ("vehicle", "a car", "ein Auto"),
    ("Name", "Animal vs Vehicle v2"), ("Context", "{first_name} bought {vehicle}.", "{first_name} kaufte {vehicle}."),
    ("Question", "Who?", "Wer?"), ("Answer", "{first_name}", "{first_name}"),
]  # fmt: skip
HEADER = ("Field", "en", "de", "de-placeholders", "de", "de-placeholders")


@pytest.fixture
def templates(tmp_path):
    text = "".join("\t".join(row) + "\n" for row in (HEADER, *ROWS))
    write(tmp_path, "xtreme-r/multichecklist/checklist_templates.tsv", text)
    return tmp_path


def by_test(examples):
    return {test: list(own) for test, own in itertools.groupby(examples, lambda each: each["id"].split("/")[0])}


def test_templates_are_filled_with_the_variants_that_fit(templates):
    found = by_test(tasks.load("multichecklist", templates, "test", "de"))
    assert set(found) == set(checklist.TESTS.values())
    for each in found["comparison"]:
        first, _, form, _, other = each["context"].rstrip(".").split()
        assert {first, other} < set(NAMES["Latn"]) and first != other
        assert each["question"] == f"Wer ist weniger {'alt' if form == 'älter' else 'groß'}?"
        assert each["answers"] == [{"text": other, "start": each["context"].index(other)}]
    for each in found["intensifiers"]:
        assert (" hat " in each["context"]) == each["context"].endswith("Ernst.")
    pairs = {(each["question"], each["answers"][0]["text"]) for each in found["properties"]}
    assert pairs == {("Wie groß?", "dick"), ("Welche Farbe?", "rot")}
    assert {each["context"] for each in found["properties"]} == {
        "Das Bett ist rot und dick.",
        "Das Bett ist dick und rot.",
    }
    for each in found["profession"]:
        assert ("Schauspielerin" in each["context"]) == ("Inderin" in each["context"])
    assert {each["context"].split(" ", 1)[1] for each in found["animal"]} == {"hat einen Hund."}
    assert {each["answers"][0]["text"] for each in found["animal"]} == {"ein Hund"}
    assert tasks.load("multichecklist", templates, "test", "de") == [each for own in found.values() for each in own]
    with pytest.raises(InputError, match="no column of the language 'fr'"):
        tasks.load("multichecklist", templates, "test", "fr")


def test_a_part_has_whole_cases_of_every_test(templates):
    few = by_test(tasks.load("multichecklist", templates, "test", "en", limit=12))
    assert set(few) == set(checklist.TESTS.values()) and 6 < sum(map(len, few.values())) <= 12
    assert len(few["properties"]) % 2 == 0


def test_a_case_passes_only_if_all_its_examples_do():
    gold = {"animal/0/0": "a cow", "animal/0/1": "a car", "animal/1/0": "a cat", "comparison/0/0": "Leo"}
    examples = [{"id": name, "answers": [{"text": text, "start": 0}]} for name, text in gold.items()]
    metric = metrics.get("multichecklist", "en")
    found = metric.compute(metric.update(gold, examples))
    assert found == {"passed": 100, "error_animal": 0, "error_comparison": 0, "examples_right": 100}
    found = metric.compute(metric.update(gold | {"animal/0/1": "a cow", "animal/1/0": "cat."}, examples))
    assert found == {"passed": 75, "error_animal": 50, "error_comparison": 0, "examples_right": 75}
    del gold["comparison/0/0"]
    state = metric.update(gold, examples)
    assert metric.compute(state)["error_comparison"] == 100 and metric.interval(state)["passed"][0] >= 0


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "the cow.", "cow"), ("en", "The cow", "The cow"), ("de", "einen Hund", "Hund"), ("pl", "„kot”,", "kot"),
        ("hi", "एक गाय৷", "गाय"),
        ("zh", "一只猫", "一只猫"), ("fr", "une vache", "vache"), ("es", " la vaca, ", "vaca"),
    ],
)  # fmt: skip
def test_answers_are_cleaned(language, text, expected):
    assert clean(text, language) == expected


def test_all_languages_of_the_corpus(corpus):
    spec = tasks.get("multichecklist")
    assert len(spec.languages) == 50 and "ha" in spec.languages and "ro" not in spec.languages
    for code in ("en", "ha", "ru", "zh"):
        examples = tasks.load("multichecklist", corpus, "test", code)
        cases = {example["id"].rpartition("/")[0] for example in examples}
        assert len(cases) == 6 * checklist.CASES and all(
            "{" not in example["context"] + example["question"] for example in examples
        )
        there = [example["answers"][0]["text"].casefold() in example["context"].casefold() for example in examples]
        assert sum(there) > 0.99 * len(there)
    russian = by_test(tasks.load("multichecklist", corpus, "test", "ru"))["properties"]
    asked = {each["answers"][0]["text"] for each in russian if each["question"].startswith("Какого цвета")}
    assert "красный" in asked and not asked & {"деревянный", "большой", "новый", "круглый"}
    sofas = [each["question"] for each in russian if "диван" in each["question"] and "Насколько" in each["question"]]
    assert sofas and all("старый" in question for question in sofas)  # a note of two arguments: age, and what it is of
