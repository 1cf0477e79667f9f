"""Facts about the languages of XTREME and XTREME-R: names, scripts, families, resources, distance from English.

Sources: classes of resources: Joshi et al. 2020, the published list; distance: URIEL through lang2vec's predictions
(Littell et al. 2017), computed; XLM-R's languages: Conneau et al. 2020; mT5's: Xue et al. 2021; families: `FAMILIES`.
"""

import dataclasses
from collections.abc import Iterable

from jxstilts.runtime import InputError, suggest


@dataclasses.dataclass(frozen=True)
class Language:
    """One language.

    code: as XTREME writes it (ISO 639-1). iso3: ISO 639-3. script: ISO 15924, of the benchmarks' text.
    joshi_class: 0 (left behind) to 5 (winners), Joshi et al. 2020.
    distance: syntactic distance from English, 1 - cosine over URIEL's 103 syntax_knn features (lang2vec).
    in_xlmr, in_mt5: whether the model's pre-training text holds it.
    ntrex: its codes in NTREX's file names; English is the source text, without its regional respellings.
    """

    code: str
    name: str
    iso3: str
    script: str
    joshi_class: int
    distance: float
    in_xlmr: bool
    in_mt5: bool
    ntrex: tuple[str, ...]

    @property
    def resource(self) -> str:
        """The stratum of the class: "high" for 4 and 5, "mid" for 3, "low" for 0 to 2."""
        return "high" if self.joshi_class >= 4 else "mid" if self.joshi_class == 3 else "low"

    @property
    def family(self) -> str:
        """The language family, or "NAME (isolate)"."""
        return next(family for family, codes in FAMILIES.items() if self.code in codes.split())

    @property
    def nearness(self) -> str:
        """The stratum of the distance: "near" below 0.2, "far" from 0.4 on, else "mid"."""
        return "near" if self.distance < NEAR else "far" if self.distance >= FAR else "mid"


# Families as XTREME-R counts them: 14, and the isolates Basque and Korean (Ruder et al. 2021, section 3).
FAMILIES = {
    "Indo-European": "af bg bn de el en es fa fr gu hi it lt mr nl pa pl pt ro ru uk ur",
    "Afro-Asiatic": "ar he",
    "Austroasiatic": "vi",
    "Austronesian": "id jv ms tl",
    "Dravidian": "ml ta te",
    "Japonic": "ja",
    "Kartvelian": "ka",
    "Kra-Dai": "th",
    "Niger-Congo": "sw wo yo",
    "Quechuan": "qu",
    "Sino-Tibetan": "my zh",
    "Turkic": "az kk tr",
    "Uralic": "et fi hu",
    "creole": "ht",
    "Basque (isolate)": "eu",
    "Korean (isolate)": "ko",
}
NEAR, FAR = 0.2, 0.4  # of the distance from English: of XTREME-R's languages 11 lie below, 16 above, 23 between

TABLE = (
    Language("af", "Afrikaans", "afr", "Latn", 3, 0.151, True, True, ("afr",)),
    Language("ar", "Arabic", "ara", "Arab", 5, 0.356, True, True, ("arb",)),
    Language("az", "Azerbaijani", "aze", "Latn", 1, 0.467, True, True, ("aze-Latn",)),
    Language("bg", "Bulgarian", "bul", "Cyrl", 3, 0.142, True, True, ("bul",)),
    Language("bn", "Bengali", "ben", "Beng", 3, 0.417, True, True, ("ben",)),
    Language("de", "German", "deu", "Latn", 5, 0.097, True, True, ("deu",)),
    Language("el", "Greek", "ell", "Grek", 3, 0.217, True, True, ("ell",)),
    Language("en", "English", "eng", "Latn", 5, 0.000, True, True, ("eng",)),
    Language("es", "Spanish", "spa", "Latn", 5, 0.178, True, True, ("spa", "spa-MX")),
    Language("et", "Estonian", "est", "Latn", 3, 0.216, True, True, ("est",)),
    Language("eu", "Basque", "eus", "Latn", 4, 0.377, True, True, ("eus",)),
    Language("fa", "Persian", "fas", "Arab", 4, 0.479, True, True, ("fas",)),
    Language("fi", "Finnish", "fin", "Latn", 4, 0.289, True, True, ("fin",)),
    Language("fr", "French", "fra", "Latn", 5, 0.188, True, True, ("fra", "fra-CA")),
    Language("gu", "Gujarati", "guj", "Gujr", 1, 0.417, True, True, ("guj",)),
    Language("he", "Hebrew", "heb", "Hebr", 3, 0.249, True, True, ("heb",)),
    Language("hi", "Hindi", "hin", "Deva", 4, 0.384, True, True, ("hin",)),
    Language("ht", "Haitian Creole", "hat", "Latn", 2, 0.270, False, True, ()),
    Language("hu", "Hungarian", "hun", "Latn", 4, 0.306, True, True, ("hun",)),
    Language("id", "Indonesian", "ind", "Latn", 3, 0.273, True, True, ("ind",)),
    Language("it", "Italian", "ita", "Latn", 4, 0.142, True, True, ("ita",)),
    Language("ja", "Japanese", "jpn", "Jpan", 5, 0.500, True, True, ("jpn",)),
    Language("jv", "Javanese", "jav", "Latn", 1, 0.399, True, True, ()),
    Language("ka", "Georgian", "kat", "Geor", 3, 0.315, True, True, ("kat",)),
    Language("kk", "Kazakh", "kaz", "Cyrl", 3, 0.552, True, True, ("kaz",)),
    Language("ko", "Korean", "kor", "Kore", 4, 0.447, True, True, ("kor",)),
    Language("lt", "Lithuanian", "lit", "Latn", 3, 0.307, True, True, ("lit",)),
    Language("ml", "Malayalam", "mal", "Mlym", 1, 0.464, True, True, ("mal",)),
    Language("mr", "Marathi", "mar", "Deva", 2, 0.435, True, True, ("mar",)),
    Language("ms", "Malay", "msa", "Latn", 3, 0.321, True, True, ("msa",)),
    Language("my", "Burmese", "mya", "Mymr", 1, 0.605, True, True, ("mya",)),
    Language("nl", "Dutch", "nld", "Latn", 4, 0.076, True, True, ("nld",)),
    Language("pa", "Punjabi", "pan", "Guru", 2, 0.387, True, True, ("pan",)),
    Language("pl", "Polish", "pol", "Latn", 4, 0.214, True, True, ("pol",)),
    Language("pt", "Portuguese", "por", "Latn", 4, 0.158, True, True, ("por", "por-BR")),
    Language("qu", "Quechua", "que", "Latn", 1, 0.528, False, False, ()),
    Language("ro", "Romanian", "ron", "Latn", 3, 0.204, True, True, ("ron",)),
    Language("ru", "Russian", "rus", "Cyrl", 4, 0.188, True, True, ("rus",)),
    Language("sw", "Swahili", "swa", "Latn", 2, 0.526, True, True, ("swa",)),
    Language("ta", "Tamil", "tam", "Taml", 3, 0.486, True, True, ("tam",)),
    Language("te", "Telugu", "tel", "Telu", 1, 0.479, True, True, ("tel",)),
    Language("th", "Thai", "tha", "Thai", 3, 0.361, True, True, ("tha",)),
    Language("tl", "Tagalog", "tgl", "Latn", 3, 0.391, True, True, ("fil",)),
    Language("tr", "Turkish", "tur", "Latn", 4, 0.493, True, True, ("tur",)),
    Language("uk", "Ukrainian", "ukr", "Cyrl", 3, 0.153, True, True, ("ukr",)),
    Language("ur", "Urdu", "urd", "Arab", 3, 0.384, True, True, ("urd",)),
    Language("vi", "Vietnamese", "vie", "Latn", 4, 0.340, True, True, ("vie",)),
    Language("wo", "Wolof", "wol", "Latn", 2, 0.361, False, False, ("wol",)),
    Language("yo", "Yoruba", "yor", "Latn", 2, 0.400, False, True, ("yor",)),
    Language("zh", "Chinese", "zho", "Hans", 5, 0.288, True, True, ("zho-CN", "zho-TW")),
)

LANGUAGES = {language.code: language for language in TABLE}
XTREME_R = tuple(LANGUAGES)
XTREME = tuple(code for code in XTREME_R if code not in "az gu ht lt pa pl qu ro uk wo".split())


def names(codes: Iterable[str]) -> str:
    """Returns the names of languages in words; a code that is not in the table stands for itself."""
    found = [LANGUAGES[code].name if code in LANGUAGES else code for code in codes]
    return " and ".join(filter(None, (", ".join(found[:-1]), *found[-1:])))


def get(code: str) -> Language:
    """Returns a language by XTREME's code. Raises InputError with the known and the nearest code."""
    if code not in LANGUAGES:
        raise InputError(suggest("language", code, LANGUAGES))
    return LANGUAGES[code]
