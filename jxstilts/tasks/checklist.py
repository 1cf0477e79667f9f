"""MultiCheckList: small tests of what a model that answers questions understands, made from templates in 50 languages.

Six tests (Ruder et al. 2021, after Ribeiro et al. 2020). A case is one way to fill a test's templates: all its contexts
with all its questions. The templates are XTREME-R's; names and the rule for variants are this package's own: where a
language has several variants of a row, the one is taken whose note agrees with most of what was drawn (`Row.pick`).
"""

import functools
import itertools
import pathlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jxstilts.forms import texts
from jxstilts.readers import read_lines
from jxstilts.runtime import InputError
from jxstilts.tasks.given_names import NAMES
from jxstilts.tasks.languages import LANGUAGES
from jxstilts.tasks.spec import TaskSpec

TESTS = {  # name in the file -> short
    "A is COMP than B. Who is more / less COMP?": "comparison",
    "Intensifiers (very, super, extremely) and reducers (somewhat, kinda, etc)?": "intensifiers",
    "size, shape, age, color": "properties",
    "Profession vs nationality": "profession",
    "Animal vs Vehicle": "animal",
    "Animal vs Vehicle v2": "animal_v2",
}
DRAWN = {  # the arguments of a test; (argument, its name in the templates)
    "comparison": (("adj", "adj"),),
    "intensifiers": (("state", "s"), ("very", "very"), ("somewhat", "somewhat")),
    "properties": (("obj", "obj"),),
    "profession": (("nationality", "nationality"), ("profession", "profession")),
    "animal": (("animal", "animal"), ("vehicle", "vehicle")),
    "animal_v2": (("animal", "animal"), ("vehicle", "vehicle")),
}
CASES = 200  # of a test
SEPARATORS = {"my": " ", "th": " ", "ur": "،", "ar": "،", "fa": "،", "zh": "，"}  # between the forms of one value
SLOT = re.compile(r"\{(?:a:)?(\w+)(?:\.(\w+))?(?:\[(\d)\])?\}")


class Variant(NamedTuple):
    """A language's text of a row; note: values, or English sentences, for which it holds; "" = any."""

    text: str
    note: str


class Row(NamedTuple):
    """A row of the templates: its English text, and its variants in the language."""

    english: str
    variants: tuple[Variant, ...]

    def pick(self, drawn: "Drawn", sentence: str) -> str | None:
        """Returns the text for the values that were drawn, in this English sentence; None where there is none.

        A note holds where of each argument that it names a value of, it names the one that was drawn; and where it
        names sentences, this one. Of several that hold, the one that says most is taken, the first of equals.
        """
        best, most = None, -1
        for variant in self.variants:
            says = drawn.agrees(variant.note, sentence)
            if says is not None and says > most:
                best, most = variant.text, says
        return best


class Drawn(NamedTuple):
    """What was drawn of each argument, and all that might have been, by their English names as notes write them."""

    own: dict[str, frozenset[str]]
    every: dict[str, frozenset[str]]

    def without(self, slots: Sequence[str]) -> "Drawn":
        """Returns the same without some arguments."""
        return Drawn({slot: own for slot, own in self.own.items() if slot not in slots}, self.every)

    def agrees(self, note: str, sentence: str) -> int | None:
        """Returns how many things a note says that are so; None where one is not so, or nothing is understood of it."""
        parts = {part.strip() for part in re.split("[,，]", note)}
        named = [slot for slot in self.own if self.every[slot] & parts]
        if any(not self.own[slot] & parts for slot in named) or ("{" in note and sentence not in parts):
            return None
        says = len(named) + ("{" in note)
        return says if says or not note else None


class Test(NamedTuple):
    """The rows of one test: contexts, (question, answer) pairs, and the values of each argument."""

    contexts: list[Row]
    questions: list[tuple[Row, Row]]
    values: dict[str, list[Row]]


def read_checklist(path: pathlib.Path, language: str) -> list[dict]:
    """Makes the cases of all tests in a language: span examples, ids TEST/CASE/EXAMPLE, the same for the same file.

    Raises InputError for a file that is not MultiCheckList's, or has not the language.
    """
    tests, examples = _read(path, language), []
    for name, test in tests.items():
        draw = random.Random(f"{language} {name}")
        values = test.values or tests["animal"].values  # the second animal test has the first one's
        every = _domains(name, values)
        made: dict[tuple, list[dict]] = {}
        for _ in range(20 * CASES):
            if len(made) == CASES:
                break
            case = list(_case(name, test, values, every, language, draw))
            if case:
                made.setdefault(tuple((each["context"], each["question"]) for each in case), case)
        for number, case in enumerate(made.values()):
            examples += [{"id": f"{name}/{number}/{i}", **each} for i, each in enumerate(case)]
    return examples


def _domains(name: str, values: Mapping[str, list[Row]]) -> dict[str, frozenset[str]]:
    """Returns all that may be drawn for each slot of a test, by its English names."""
    found = {slot: values[argument] for argument, slot in DRAWN[name]}
    if name == "properties":
        of_all = [row for kind in values["property"] for row in values[kind.english]]
        found |= {f"p.p{number}": values["property"] for number in "12"} | {f"p.v{number}": of_all for number in "12"}
    return {slot: frozenset(form for row in rows for form in _forms(row.english)) for slot, rows in found.items()}


def _case(name: str, test: Test, values: Mapping[str, list[Row]], every, language: str, draw) -> Iterator[dict]:
    """Yields the examples of one way to fill a test's templates; nothing where the language lacks a part of it.

    every: see `_domains`.
    """
    rows: dict[str, Row] = {slot: draw.choice(values[argument]) for argument, slot in DRAWN[name]}
    if name == "properties":
        kinds = values["property"]
        for number, kind in zip("12", draw.sample(kinds, 2), strict=True):
            rows |= {f"p.p{number}": kind, f"p.v{number}": draw.choice(values[kind.english])}
    script = LANGUAGES[language].script if language in LANGUAGES else "Latn"
    people = dict(zip(("first_name", "first_name1", "first_name2"), draw.sample(NAMES[script], 3), strict=True))
    drawn = Drawn({slot: frozenset(_forms(row.english)) for slot, row in rows.items()}, every)

    def filled(row: Row) -> str | None:
        # a question about one property has nothing to do with the other
        apart = {"{p.p1}": ("p.p2", "p.v2"), "{p.p2}": ("p.p1", "p.v1")}
        others = [slot for asked, slots in apart.items() if asked in row.english for slot in slots]
        text = row.pick(drawn.without(others), row.english)
        return None if not text else _fill(text, row.english, rows, people, drawn, language)

    contexts = [text for row in test.contexts if (text := filled(row))]
    pairs = [(q, a) for question, answer in test.questions if (q := filled(question)) and (a := filled(answer))]
    for context, (question, answer) in itertools.product(contexts, pairs):
        start = context.find(answer)  # where the answer has another form than in the context, it has no place there
        yield {"question": question, "context": context, "answers": [{"text": answer, "start": max(start, 0)}]}


def _forms(english: str) -> Iterator[str]:
    """Yields the English names of a value as notes write them: each of its forms, with and without its article."""
    for part in [english, *english.split(",")]:
        part = part.strip()
        yield part
        yield re.sub(r"^(?:an?|the) ", "", part)


def _fill(text, sentence, rows, people, drawn, language) -> str | None:
    """Returns a template with its slots filled; None where a value has no text in the language, or not that form."""
    lacks = False

    def value(match: re.Match) -> str:
        nonlocal lacks
        name, part, form = match.groups()
        name = f"{name}.{part}" if part else name
        if name in people:
            return people[name]
        own = rows[name].pick(drawn, sentence) if name in rows else None
        if own and form is not None:
            forms = [each.strip() for each in own.split(SEPARATORS.get(language, ", "))]
            own = forms[int(form)] if int(form) < len(forms) else None
        lacks = lacks or not own
        return own or ""

    found = SLOT.sub(value, text).strip()
    if sentence.endswith((".", "?")):
        found = re.sub(r"(?:^|(?<=[.?!] ))\w", lambda match: _capital(match[0], language), found)
    return None if lacks else found


def _capital(letter: str, language: str) -> str:
    return "İ" if letter == "i" and language in ("az", "tr") else letter.upper()


@functools.lru_cache(maxsize=1)
def _table(path: pathlib.Path, stamp: int) -> tuple[list[str], list[tuple[int, list[str]]]]:
    lines = read_lines(path)
    header = lines[0].split("\t")
    if header[:2] != ["Field", "en"]:
        raise InputError(f"{path}:1: expected a header that begins with Field and en, as in MultiCheckList's templates")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        if len(cells) > len(header):
            raise InputError(f"{path}:{number}: {len(cells)} columns, the header has {len(header)}")
        rows.append((number, [cell.strip() for cell in cells] + [""] * (len(header) - len(cells))))
    return header, rows


def _read(path: pathlib.Path, language: str) -> dict[str, Test]:
    header, rows = _table(path, path.stat().st_mtime_ns)
    own = [place for place, name in enumerate(header) if name == language]
    if not own:
        raise InputError(f"{path}:1: no column of the language {language!r}")
    notes = {place: place + 1 for place in own if header[place + 1 : place + 2] == [f"{language}-placeholders"]}
    tests: dict[str, Test] = {}
    test, question = None, None
    for number, cells in rows:
        kind, english = cells[0], cells[1]
        found = tuple(
            Variant(cells[place], cells[notes[place]] if place in notes else "") for place in own if cells[place]
        )
        row = Row(english, found)
        if kind == "Name":
            if english not in TESTS:
                raise InputError(f"{path}:{number}: unknown test {english!r:.60}; known: {'; '.join(TESTS)}")
            test = tests[TESTS[english]] = Test([], [], {})
        elif kind in ("", "Capability"):
            continue
        elif test is None:
            raise InputError(f"{path}:{number}: a row {kind!r:.60} before any test's Name")
        elif kind == "Context":
            test.contexts.append(row)
        elif kind == "Question":
            question = row
        elif kind == "Answer" and question is not None:
            # Quechua's answers have a second form in the place of a note
            plain = tuple(Variant(variant.text, "") for variant in found)
            test.questions.append((question, Row(english, plain if language == "qu" else found)))
        elif found or kind == "property":
            test.values.setdefault(kind, []).append(row)
    if tests.keys() != set(TESTS.values()):
        raise InputError(f"{path}: expected the tests {'; '.join(TESTS)}")
    return tests


def first(examples: list[dict], limit: int) -> list[dict]:
    """Returns whole cases, of all tests in turns, of at most `limit` examples, but one case of each at least."""
    cases: dict[str, dict[str, list[dict]]] = {}
    for example in examples:
        test, case, _ = example["id"].split("/")
        cases.setdefault(test, {}).setdefault(case, []).append(example)
    found: list[dict] = []
    for turn, several in enumerate(itertools.zip_longest(*(own.values() for own in cases.values()))):
        for case in filter(None, several):
            if turn and len(found) + len(case) > limit:
                return found
            found += case
    return found


MULTICHECKLIST = TaskSpec(
    name="multichecklist",
    type="span",
    languages=(
        "en",
        *"""af ar az bg bn de el es et eu fa fi fr gu ha he hi ht hu id it ja jv ka kk ko lt ml mr ms my nl pa pl pt qu
        ru sw ta te th tl tr uk ur vi wo yo zh""".split(),
    ),
    splits={
        "test": (
            "xtreme-r/multichecklist/checklist_templates.tsv",
            "multichecklist/checklist_templates.tsv",
        )
    },
    read=read_checklist,
    multilingual=True,
    first=first,
    metric="multichecklist",
    tokens=30,
    train_task="squad_v1",
    text=texts.Answers(64, texts.MT5),
    description="Six tests of questions, from templates: comparisons, intensifiers, properties, professions, animals",
    url="https://github.com/google-research/xtreme/tree/master/multichecklist",
    licence="Apache-2.0 (the templates)",
)
