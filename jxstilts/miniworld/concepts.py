"""What the world speaks of: 88 concepts, each named by its English word, and the names of persons and places."""

ANIMATE = tuple("dog cat horse bird fox cow girl boy king nurse farmer baker sailor monk".split())
THINGS = tuple("cup book apple lamp chair coat boat drum rope knife shoe cake coin rose stone bell".split())
NOUNS = ANIMATE + THINGS
PLACES = tuple("garden kitchen forest market school river barn tower".split())
TIMES = tuple("dawn noon dusk night lunch supper".split())
VERBS = tuple("saw found lost sold made drew held broke hid washed bought carried".split())
COLOURS = tuple("red blue green white black brown".split())
QUALITIES = tuple("big small old new heavy cold wet soft".split())
NUMERALS = ("two", "three", "four", "five")  # of the numbers 2 to 5
COMPANIES = ("bank", "club", "guild")  # the head of an organisation's name
SITES = ("port", "mount")  # the head of a place's name
QUESTIONS = {"agent": "who", "object": "what", "place": "where", "time": "when"}
FUNCTION = {
    "the": "DET", "in": "ADP", "at": "ADP", "never": "ADV", "and": "CCONJ",
    "who": "PRON", "what": "PRON", "where": "ADV", "when": "ADV",
}  # fmt: skip

# concept -> its universal part of speech
UPOS = (
    dict.fromkeys((*NOUNS, *PLACES, *TIMES, *COMPANIES, *SITES), "NOUN")
    | dict.fromkeys(VERBS, "VERB")
    | dict.fromkeys((*COLOURS, *QUALITIES), "ADJ")
    | dict.fromkeys(NUMERALS, "NUM")
    | FUNCTION
)
CONCEPTS = tuple(UPOS)

PLURALS = {noun: noun + "s" for noun in (*NOUNS, *PLACES)} | {"fox": "foxes", "knife": "knives"}

# Given names are persons'; a place's name also serves as a surname and in an organisation's name, so that a tagger
# has to look at the words around it.
GIVEN = tuple("anna boris clara dora emil frida hugo iris jonas karl lena milo nora otto petra rosa".split())
PLACE_NAMES = tuple(
    "arden belo corva delmar egra fenlo gorda halmi irso jarna kelso lumar morva nesta orvik pelta".split()
)
