"""The grammar: word orders and morphology as the data says, CCG derivations that hold, alignments that are true."""

import dataclasses
import itertools
import pathlib
import re
import xml.etree.ElementTree

import pytest

from jxstilts.miniworld import concepts, languages, picture, running
from jxstilts.miniworld.grammar import Grammar, text
from jxstilts.miniworld.languages import ENGLISH, INVENTED, Language
from jxstilts.miniworld.lexicon import CONSONANTS, SCRIPTS, VOWELS, Lexicon, write
from jxstilts.miniworld.scenes import Frame, Thing, World
from jxstilts.miniworld.setting import ATTRIBUTES, changed, saying, setting
from jxstilts.miniworld.streams import Choice, Stream

FRAME = Frame(
    Thing("noun", ("dog",), quality="old"), "saw", Thing("noun", ("cup",), 2, colour="red"),
    Thing("noun", ("garden",)), "noon", negative=True,
)  # fmt: skip


def say(frame: Frame = FRAME, *, marked: bool = False, **attributes) -> str:
    """A statement in a language like English but for some attributes, with every word written as English's."""
    language = dataclasses.replace(INVENTED[0], negation="before", cognates=100, loans=0)
    lexicon = Lexicon(dataclasses.replace(language, **attributes), 0)
    lexicon.words |= {
        word: word for word in concepts.CONCEPTS if lexicon.words[word] and "-" not in lexicon.words[word]
    }
    lexicon._affixes = {name: name for name in lexicon._affixes}
    return text(Grammar(lexicon).statement(frame, marked=marked))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, "the old dog never saw the two red cup-plural in the garden at noon ."),
        ({"adjective": "NA"}, "the dog old never saw the two cup-plural red in the garden at noon ."),
        ({"article": "none", "plural": "none"}, "old dog never saw two red cup in garden at noon ."),
        ({"plural": "prefix"}, "the old dog never saw the two red plural-cup in the garden at noon ."),
        ({"case": "suffix"}, "the old dog never saw the two red cup-plural-object in the garden at noon ."),
        ({"adposition": "post"}, "the old dog never saw the two red cup-plural the garden in noon at ."),
        ({"adposition": "suffix"}, "the old dog never saw the two red cup-plural the garden-in noon-at ."),
        ({"negation": "after"}, "the old dog saw never the two red cup-plural in the garden at noon ."),
        ({"negation": "prefix"}, "the old dog never-saw the two red cup-plural in the garden at noon ."),
        ({"negation": "suffix"}, "the old dog saw-never the two red cup-plural in the garden at noon ."),
        ({"time": "first"}, "at noon the old dog never saw the two red cup-plural in the garden ."),
        ({"marked": True}, "at noon the old dog never saw the two red cup-plural in the garden ."),
        ({"word_order": "SOV"}, "the old dog in the garden at noon the two red cup-plural never saw ."),
        ({"word_order": "VSO"}, "never saw the old dog the two red cup-plural in the garden at noon ."),
        ({"word_order": "VOS"}, "never saw the two red cup-plural the old dog in the garden at noon ."),
        ({"word_order": "OVS"}, "the two red cup-plural never saw the old dog in the garden at noon ."),
        ({"word_order": "OSV"}, "in the garden at noon the two red cup-plural the old dog never saw ."),
    ],
)
def test_each_attribute_alone(attributes, expected):
    assert say(**attributes) == expected


def test_names_and_questions():
    grammar = Grammar(Lexicon(ENGLISH, 0))
    frame = Frame(Thing("ORG", ("kelso", "bank")), "sold", Thing("noun", ("rose",)), Thing("LOC", ("port", "belo")))
    tokens = grammar.statement(frame)
    assert [(token.form, token.ner) for token in tokens if token.ner != "O"] == [
        ("kelso", "B-ORG"), ("bank", "I-ORG"), ("port", "B-LOC"), ("belo", "I-LOC"),
    ]  # fmt: skip
    assert text(grammar.question(frame, "place")) == "kelso bank sold the rose where ?"
    assert text(grammar.question(frame, "object", front=True)) == "what kelso bank sold in port belo ?"
    assert text(grammar.phrase(frame, "place")) == "in port belo"
    assert say(dataclasses.replace(frame, place=None), adjective="NA") == "bank kelso sold the rose ."


def split(category: str) -> tuple[str, str, str] | None:
    """Result, slash and argument of a category, the outermost; None for an atom."""
    depth = 0
    for place in range(len(category) - 1, -1, -1):
        depth += (category[place] == ")") - (category[place] == "(")
        if depth == 0 and category[place] in "/\\":
            return strip(category[:place]), category[place], strip(category[place + 1 :])
    return None


def strip(category: str) -> str:
    return category[1:-1] if category.startswith("(") and category.endswith(")") else category


def derives(words: list[str], goal: str) -> bool:
    """Whether categories combine to the goal by forward and backward application alone (CKY)."""
    table = {(i, i + 1): {category} for i, category in enumerate(words)}
    for width in range(2, len(words) + 1):
        for i in range(len(words) - width + 1):
            cell = table.setdefault((i, i + width), set())
            for j in range(i + 1, i + width):
                for left, right in itertools.product(table[i, j], table[j, i + width]):
                    if (a := split(left)) and a[1] == "/" and a[2] == right:
                        cell.add(a[0])
                    if (b := split(right)) and b[1] == "\\" and b[2] == left:
                        cell.add(b[0])
    return goal in table[0, len(words)]


@pytest.mark.parametrize("language", [ENGLISH, *INVENTED], ids=lambda language: language.code)
def test_the_categories_derive_the_sentence(language):
    world, stream, grammar = World(0), Stream("ccg"), Grammar(Lexicon(language, 0))
    seen = set()
    for _ in range(40):
        tokens = grammar.derived(world.sentence(stream, world.all_names, named=50), marked=stream.chance(50))
        *found, end = [token.category for token in tokens]
        assert end == "." and derives(found, "S[dcl]")
        seen.update(found)
    if language is ENGLISH:
        assert {"N", "NP", "N/N", "NP/N", "(S[dcl]\\NP)/NP", "(S[dcl]\\NP)/(S[dcl]\\NP)"} <= seen
        assert {"((S[dcl]\\NP)\\(S[dcl]\\NP))/NP", "(S[dcl]/S[dcl])/NP"} <= seen
    assert not derives(["NP", "NP"], "S[dcl]")


@pytest.mark.parametrize("language", INVENTED, ids=lambda language: language.code)
def test_alignments_join_translations(language):
    given = setting(0, languages.vary(["switching=0"]), "tiny")
    files = dict(running.files(given))
    rows = [line.split("\t") for line in files["gold/lexicon.tsv"].splitlines()]
    column = rows[0].index(language.code)
    translation = {row[0]: row[column] for row in rows[1:]}
    singular = {plural: noun for noun, plural in concepts.PLURALS.items()}
    english = files["text/ntrex/newstest2019-src.eng.txt"].splitlines()
    foreign = files[f"text/ntrex/newstest2019-ref.{language.ntrex}.txt"].splitlines()
    pairs = files[f"gold/alignment.en-{language.code}.txt"].splitlines()
    assert len(english) == len(foreign) == len(pairs) == 40
    for source, target, links in zip(english, foreign, pairs, strict=True):
        source, target = source.split(), target.split()
        links = [tuple(map(int, link.split("-"))) for link in links.split()]
        for a, b in links:
            word = singular.get(source[a], source[a])
            stem = translation.get(word, word)
            assert stem.strip("-") in target[b], (word, target[b])
        # every word of the foreign sentence is said in English; in English only articles may be left over
        assert {b for _, b in links} == set(range(len(target)))
        left = {source[a] for a in range(len(source))} - {source[a] for a, _ in links}
        assert left <= ({"the"} if language.article == "none" else set())


def test_no_two_languages_share_a_stem_of_their_own():
    lexicons = [Lexicon(language, 0) for language in INVENTED]
    own = [one.words[word] for one in lexicons for word in concepts.CONCEPTS if one.origin[word] == "own"]
    own = [word for word in own if word and "-" not in word]
    assert len(set(own)) == len(own)
    assert not set(own) & {*concepts.CONCEPTS, *concepts.PLURALS.values(), *concepts.GIVEN, *concepts.PLACE_NAMES}


def test_shares_of_cognates_and_loans():
    number = len(concepts.CONCEPTS) - len(concepts.FUNCTION)
    for language in INVENTED:
        origins = list(Lexicon(language, 0).origin.values())
        assert origins.count("cognate") == language.cognates * number // 100
        assert origins.count("loan") == language.loans * number // 100


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_faithful(script):
    assert len(SCRIPTS[script]) == len(set(SCRIPTS[script])) == 26
    words = [*concepts.CONCEPTS, *concepts.GIVEN, *concepts.PLACE_NAMES]
    assert len({write(word, script) for word in words}) == len(words)
    stems = list(map("".join, itertools.product(CONSONANTS, VOWELS, CONSONANTS, VOWELS)))
    written = {write(stem, script) for stem in stems}
    assert len(written) == len(stems)
    blocks = {"Latn": "[a-z]", "Cyrl": "[а-я]", "Grek": "[α-ωϝ]", "Arab": "[\u0600-\u06ff]", "Deva": "[\u0900-\u097f]"}
    assert all(re.fullmatch(blocks[script] + "+", word) for word in written)


@pytest.mark.parametrize("changes", [(), ("plural=suffix", "case=suffix"), ("adposition=suffix", "negation=prefix")])
def test_inflected_words_are_told_apart(changes):
    for language in languages.vary(changes)[1:]:
        lexicon = Lexicon(language, 0)
        endings = ["", *(["object"] if language.case == "suffix" else [])]
        endings += ["in", "at"] if language.adposition == "suffix" else []
        forms = [
            lexicon.noun(noun, plural, ending)
            for noun in (*concepts.NOUNS, *concepts.PLACES)
            for plural in ((False, True) if language.plural != "none" else (False,))
            for ending in endings
        ]
        assert len(set(forms)) == len(forms)


def test_every_concept_keeps_its_own_company():
    for seed in range(3):
        world = World(seed)
        for table in (world.verbs, world.objects, world.places, world.times, world.colours, world.qualities):
            favourites = [tuple(choice.items[:2]) for choice in table.values()]
            assert len(set(favourites)) == len(favourites)
    assert len(concepts.CONCEPTS) == 88


def test_the_names_of_training_and_test_differ():
    world = World(0)
    train, test = ({*names.given, *names.places} for names in (world.train_names, world.test_names))
    assert not train & test and len(train) == len(test) == 16
    assert {*world.all_names.given, *world.all_names.places} == train | test


def test_changes_and_omissions():
    world, stream = World(0), Stream("changes")
    for key in ("quality", "colour", "place", "time", "number", "negative", "verb", "noun", "agent"):
        frame = dataclasses.replace(FRAME, object=dataclasses.replace(FRAME.object, quality="big"))
        other = changed(frame, key, world, stream, world.all_names)
        assert other != frame
        assert (other.core == frame.core) == (key not in ("verb", "noun", "agent"))
    bare = saying(FRAME, ())
    assert (bare.place, bare.time, bare.object.colour) == (None, None, None)
    assert saying(FRAME, ATTRIBUTES) == FRAME


def test_draws():
    # documented bits, whole numbers: the same on every machine
    assert [Stream(0, "a").below(1000) for _ in range(2)] == [Stream(0, "a").below(1000)] * 2
    stream = Stream("fair")
    counts = [0] * 3
    for _ in range(3000):
        counts[stream.below(3)] += 1
    assert min(counts) > 900
    assert sorted(stream.shuffled(range(50))) == list(range(50))
    drawn = [Choice("ab", (3, 1)).draw(stream) for _ in range(2000)]
    assert 1400 < drawn.count("a") < 1600
    assert stream.other((1, 2), 1) == 2


def test_languages_are_data():
    assert all(dataclasses.is_dataclass(one) and isinstance(one, Language) for one in languages.vary(()))
    assert {one.script for one in INVENTED} == set(languages.ALLOWED["script"])
    varied = languages.vary(["case=none", "de.case=suffix"])
    assert [one.code for one in varied] == [one.code for one in (ENGLISH, *INVENTED)]
    assert [one.code for one in varied if one.case == "suffix"] == ["de"]


def test_the_picture_in_the_docs_is_this_worlds(tmp_path, capsys):
    shown = pathlib.Path(__file__).parents[1] / "docs/miniworld_languages.svg"
    assert picture.main([str(tmp_path / "new.svg")]) == 0
    assert (tmp_path / "new.svg").read_bytes() == shown.read_bytes()
    assert xml.etree.ElementTree.parse(shown).getroot().tag.endswith("svg")
    assert picture.main([]) == 2 and "usage" in capsys.readouterr().err
