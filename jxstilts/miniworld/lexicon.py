"""The words of a language: stems, affixes, cognates and loans, written in its script."""

import functools
import itertools

from jxstilts.miniworld.concepts import CONCEPTS, FUNCTION, GIVEN, PLACE_NAMES, PLURALS
from jxstilts.miniworld.languages import ENGLISH, INVENTED, Language
from jxstilts.miniworld.streams import Stream

# The sounds of the invented stems; every script has a letter of its own for each.
CONSONANTS, VOWELS = "pbtdkgmnlrsfzh", "aeiou"

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SCRIPTS = {
    "Latn": LETTERS,
    "Cyrl": "абцдефгхижклмнопщрстувшюйз",
    "Grek": "αβςδεφγχιξκλμνοπθρστυϝωψηζ",
    "Arab": "ابصدىفجهيژكلمنعپقرستوڤطخئز",
    "Deva": "ाबचदेफगहिजकलमनोपखरसतुवठषयझ",
}
LATIN_LAW = str.maketrans("cw", "kv")  # how cognates in Latin letters differ from English
SIGNS = dict(zip("ाेिोु", "आएइओउ", strict=True))  # Devanagari: vowel sign -> the letter where no consonant precedes


def write(word: str, script: str) -> str:
    """Returns a word of the letters a to z in another script, letter by letter."""
    if script == "Latn":
        return word
    letters = [SCRIPTS[script][LETTERS.index(letter)] for letter in word]
    for i, letter in enumerate(letters):
        if letter in SIGNS and (i == 0 or letters[i - 1] in SIGNS or letters[i - 1] in SIGNS.values()):
            letters[i] = SIGNS[letter]
    return "".join(letters)


@functools.lru_cache(maxsize=4)
def _sounds(seed: int) -> dict[str, dict[str, str]]:
    """Returns language -> concept or affix -> sounds, which no attribute of a language changes.

    Stems are consonant, vowel, consonant, vowel, each in one language only; suffixes end in a consonant and prefixes
    begin with a vowel, so that no inflected word is another's stem.
    """
    stems = map("".join, itertools.product(CONSONANTS, VOWELS, CONSONANTS, VOWELS))
    taken = {*CONCEPTS, *PLURALS.values(), *GIVEN, *PLACE_NAMES}
    supply = iter(Stream(seed, "stems").shuffled([stem for stem in stems if stem not in taken]))
    sounds = {}
    for language in INVENTED:
        stream = Stream(seed, "affixes", language.code)
        suffixes = stream.shuffled(list(map("".join, itertools.product(CONSONANTS, VOWELS, "nrsl"))))
        prefixes = stream.shuffled(list(map("".join, itertools.product(VOWELS, "nrsl"))))
        affixes = {f"-{name}": suffixes[i] for i, name in enumerate(("plural", "object", "in", "at", "never"))}
        affixes |= {f"{name}-": prefixes[i] for i, name in enumerate(("plural", "never"))}
        sounds[language.code] = {concept: next(supply) for concept in CONCEPTS} | affixes
    return sounds


class Lexicon:
    """The words of one language; forms are cached.

    words: concept -> the word, or, where the language says it with an affix or not at all, "-suffix", "prefix-", "".
    origin: concept -> "own", "cognate" or "loan"; function words are never shared.
    """

    def __init__(self, language: Language, seed: int) -> None:
        self.language = language
        self.origin = _origin(language, seed)
        self._forms: dict[tuple, str] = {}
        if language.code == ENGLISH.code:
            self.words = {concept: concept for concept in CONCEPTS}
            return
        script, sounds = language.script, _sounds(seed)[language.code]
        respelt = str.maketrans({}) if script != "Latn" else LATIN_LAW
        stems = {
            "own": lambda concept: write(sounds[concept], script),
            "cognate": lambda concept: write(concept.translate(respelt), script),
            "loan": lambda concept: concept,
        }
        self.words = {concept: stems[self.origin[concept]](concept) for concept in CONCEPTS}
        self._affixes = {name: write(sound, script) for name, sound in sounds.items() if "-" in name}
        if language.adposition == "suffix":
            self.words |= {name: "-" + self._affixes[f"-{name}"] for name in ("in", "at")}
        if language.negation in ("prefix", "suffix"):
            suffix = language.negation == "suffix"
            self.words["never"] = "-" + self._affixes["-never"] if suffix else self._affixes["never-"] + "-"
        if language.article == "none":
            self.words["the"] = ""

    def noun(self, noun: str, plural: bool = False, ending: str = "") -> str:
        """Returns a noun's form; ending: "" or "object", "in", "at" where the language marks these by a suffix."""
        key = noun, plural, ending
        if key not in self._forms:
            self._forms[key] = self._noun(*key)
        return self._forms[key]

    def _noun(self, noun, plural, ending):
        if self.language.code == ENGLISH.code:
            return PLURALS[noun] if plural else noun
        form, marking = self.words[noun], self.language.plural
        if plural and marking != "none":
            form = form + self._affixes["-plural"] if marking == "suffix" else self._affixes["plural-"] + form
        return form + self._affixes["-" + ending] if ending else form

    def name(self, name: str, ending: str = "") -> str:
        """Returns a proper name in the language's script; ending as in `noun`."""
        key = name, ending
        if key not in self._forms:
            written = write(name, self.language.script)
            self._forms[key] = written + self._affixes["-" + ending] if ending else written
        return self._forms[key]

    def verb(self, verb: str, negative: bool) -> str:
        """Returns a verb's form, which may hold the negation."""
        if not negative or self.language.negation in ("before", "after"):
            return self.words[verb]
        if self.language.negation == "suffix":
            return self.words[verb] + self._affixes["-never"]
        return self._affixes["never-"] + self.words[verb]


def _origin(language, seed):
    # Ranks do not depend on the shares: raising one only adds to it.
    order = Stream(seed, "origin", language.code).shuffled([concept for concept in CONCEPTS if concept not in FUNCTION])
    cognates = language.cognates * len(order) // 100
    loans = len(order) - language.loans * len(order) // 100
    return dict.fromkeys(FUNCTION, "own") | {
        concept: "cognate" if rank < cognates else "loan" if rank >= loans else "own"
        for rank, concept in enumerate(order)
    }
