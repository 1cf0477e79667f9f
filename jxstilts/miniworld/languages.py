"""The languages as data: English and seven invented ones, every attribute of which can be varied alone."""

import dataclasses
import itertools
from collections.abc import Iterable

from jxstilts.runtime import InputError, suggest


@dataclasses.dataclass(frozen=True)
class Language:
    """One language. Its code is a label borrowed from the benchmark; it has nothing else of the real language.

    code: as XTREME writes it. iso3: in the file names of Tatoeba. ntrex: in those of NTREX.
    script: ISO 15924. word_order: of subject, verb and object. adjective: before (AN) or after (NA) its noun.
    adposition: "pre", "post" or "suffix". article: "before" the noun phrase or "none". time: where the time stands.
    case: whether a noun that is the object takes a suffix. plural: how nouns mark more than one.
    negation: a word "before" or "after" the verb, or a "prefix" or "suffix" of it.
    cognates: per cent of the content words that are English's in the language's own script. loans: per cent that are
    English's in Latin letters. switching: per cent of the content words of running text said in English.
    glosses: per cent of the single sentences of running text that are said again in English on the same line.
    corpus: lines of running text, parallel: of its text that are also there in English, at the size `small`.
    """

    code: str
    iso3: str
    ntrex: str
    script: str
    word_order: str = "SVO"
    adjective: str = "AN"
    adposition: str = "pre"
    article: str = "none"
    time: str = "last"
    case: str = "none"
    plural: str = "suffix"
    negation: str = "before"
    cognates: int = 0
    loans: int = 0
    switching: int = 0
    glosses: int = 0
    corpus: int = 0
    parallel: int = 400

    @property
    def resource(self) -> str:
        """The stratum in this world, "high" or "low", by the amount of running text."""
        return "high" if self.corpus >= HIGH_RESOURCE else "low"


HIGH_RESOURCE = 5_000  # lines

ENGLISH = Language("en", "eng", "eng", "Latn", article="before", corpus=14_400)
INVENTED = (
    Language(
        "de", "deu", "deu", "Latn", article="before", negation="after",
        cognates=45, loans=5, switching=20, glosses=40, corpus=9_600,
    ),
    Language(
        "es", "spa", "spa", "Latn", article="before", adjective="NA", time="first",
        cognates=25, loans=8, switching=20, glosses=40, corpus=9_600,
    ),
    Language(
        "ru", "rus", "rus", "Cyrl", case="suffix",
        cognates=10, loans=2, switching=20, glosses=40, corpus=9_600,
    ),
    Language(
        "el", "ell", "ell", "Grek", article="before", word_order="VSO", adjective="NA", case="suffix",
        cognates=10, loans=2, switching=20, glosses=40, corpus=3_600,
    ),
    Language(
        "hi", "hin", "hin", "Deva", word_order="SOV", adposition="post", time="first", case="suffix", plural="none",
        cognates=5, loans=5, switching=20, glosses=40, corpus=3_600,
    ),
    Language(
        "ar", "ara", "arb", "Arab", word_order="VSO", adjective="NA", plural="prefix", negation="prefix",
        cognates=5, loans=5, switching=20, glosses=40, corpus=720,
    ),
    Language(
        "tr", "tur", "tur", "Latn", word_order="SOV", adposition="suffix", case="suffix", negation="suffix",
        cognates=0, loans=2, switching=20, glosses=40, corpus=720,
    ),
)  # fmt: skip

# attribute -> its allowed values: words, or the range of a whole number
ALLOWED = {
    "script": ("Latn", "Cyrl", "Grek", "Deva", "Arab"),
    "word_order": tuple(map("".join, itertools.permutations("SVO"))),
    "adjective": ("AN", "NA"),
    "adposition": ("pre", "post", "suffix"),
    "article": ("before", "none"),
    "time": ("first", "last"),
    "case": ("none", "suffix"),
    "plural": ("none", "prefix", "suffix"),
    "negation": ("before", "after", "prefix", "suffix"),
    "cognates": range(101),
    "loans": range(101),
    "switching": range(101),
    "glosses": range(101),
    "corpus": range(2, 1_000_001),
    "parallel": range(401),
}


def vary(changes: Iterable[str]) -> tuple[Language, ...]:
    """Returns English and the invented languages with changes such as "de.word_order=SOV" or "word_order=SOV".

    Without a code a change is made to every invented language; of English only the corpus can be varied, by its code.
    Later changes win. Raises InputError.
    """
    languages = {language.code: language for language in (ENGLISH, *INVENTED)}
    for change in changes:
        target, equals, given = change.partition("=")
        code, dot, key = target.rpartition(".")
        if not equals:
            raise InputError(f"--vary {change}: give ATTRIBUTE=VALUE or LANGUAGE.ATTRIBUTE=VALUE")
        if dot and code not in languages:
            raise InputError(f"--vary {change}: {suggest('language', code, languages)}")
        if key not in ALLOWED:
            raise InputError(f"--vary {change}: {suggest('attribute', key, ALLOWED)}")
        if code == "en" and key != "corpus":
            raise InputError(f"--vary {change}: of English only the corpus can be varied")
        value = _value(change, key, given)
        for one in [code] if dot else [language.code for language in INVENTED]:
            languages[one] = dataclasses.replace(languages[one], **{key: value})
    for language in languages.values():
        if language.cognates + language.loans > 100:
            raise InputError(
                f"--vary: cognates and loans of {language.code} are {language.cognates + language.loans} per cent "
                "together; at most 100"
            )
    return tuple(languages.values())


def _value(change, key, given):
    allowed = ALLOWED[key]
    if not isinstance(allowed, range):
        if given not in allowed:
            raise InputError(f"--vary {change}: {suggest('value of ' + key, given, allowed)}")
        return given
    if not (given.isascii() and given.isdecimal() and len(given) < 10 and int(given) in allowed):
        raise InputError(f"--vary {change}: {key} is a whole number from {allowed.start} to {allowed.stop - 1}")
    return int(given)
