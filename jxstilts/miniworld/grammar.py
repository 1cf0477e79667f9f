"""From meaning to sentence: one grammar for all languages, whose derivations also give CCG's categories."""

import dataclasses
from collections.abc import Iterable, Sequence

from jxstilts.miniworld.concepts import COMPANIES, NUMERALS, QUESTIONS, SITES, UPOS
from jxstilts.miniworld.lexicon import Lexicon
from jxstilts.miniworld.scenes import Frame, Thing

S, NP, N = "S[dcl]", "NP", "N"


class Token:
    """A word in a sentence: form, upos, concept, IOB2 tag, roles such as ("place:noun", "place:in"), CCG category.

    roles: what part of the meaning it says (the same in every language); two where an affix says a second one.
    concept: "" for names and full stops. category is filled by `categories` only.
    """

    __slots__ = ("category", "concept", "form", "ner", "roles", "upos")

    def __init__(self, form: str, upos: str, roles: tuple[str, ...], concept: str = "", ner: str = "O") -> None:
        self.form, self.upos, self.roles, self.concept, self.ner = form, upos, roles, concept, ner
        self.category = ""


@dataclasses.dataclass(slots=True)
class Apply:
    """A functor beside its argument. takes: the argument's category; None: a modifier, whose result is its argument."""

    functor: "Token | Apply"
    argument: "Token | Apply"
    functor_first: bool
    takes: str | None


class Grammar:
    """Says frames in one language."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self.language = language = lexicon.language
        self._subject_first = language.word_order.startswith("S")
        self._verb_final = language.word_order.endswith("V")
        verb = language.word_order.index("V")
        # the verb takes what follows it first, then what precedes it, each time the nearer one
        after = [(argument, True) for argument in language.word_order[verb + 1 :]]
        before = [(argument, False) for argument in reversed(language.word_order[:verb])]
        self._arguments = after + before

    def statement(self, frame: Frame, *, marked: bool = False) -> list[Token]:
        """Returns the words of a statement; marked: the time stands at the other end than usual."""
        return [*flatten(self.clause(frame, marked=marked)), Token(".", "PUNCT", ("end",))]

    def question(self, frame: Frame, slot: str, *, front: bool = False, marked: bool = False) -> list[Token]:
        """Returns a question for the slot, one of `QUESTIONS`; its word stands in the slot's place, or in front."""
        tokens = list(flatten(self.clause(frame, asked=slot, marked=marked)))
        if front:
            tokens.sort(key=lambda token: not token.roles[0].endswith(":question"))
        return [*tokens, Token("?", "PUNCT", ("end",))]

    def phrase(self, frame: Frame, slot: str) -> list[Token]:
        """Returns the words of one slot as a short answer, with the adposition where there is one."""
        return [token for token in flatten(self.clause(frame)) if token.roles[0].startswith(slot)]

    def derived(self, frame: Frame, *, marked: bool = False) -> list[Token]:
        """Returns a statement whose words hold their categories."""
        tree = self.clause(frame, marked=marked)
        categories(tree, S)
        end = Token(".", "PUNCT", ("end",))
        end.category = "."
        return [*flatten(tree), end]

    def clause(self, frame: Frame, *, asked: str = "", marked: bool = False) -> Token | Apply:
        """Returns the derivation of a clause without its full stop."""
        language = self.language
        phrases = {
            "S": self._asked("agent") if asked == "agent" else self._agents(frame),
            "O": self._asked("object") if asked == "object" else self._noun_phrase(frame.object, "object"),
        }
        place = self._asked("place") if asked == "place" else frame.place and self._place(frame.place)
        time = self._asked("time") if asked == "time" else frame.time and self._time(frame.time)
        time_first = (language.time == "first") != marked
        tree = self._verb(frame)
        waiting = [] if time_first or time is None else [time]
        if place is not None:
            waiting.insert(0, place)
        for step, (argument, follows) in enumerate(self._arguments):
            tree = Apply(tree, phrases[argument], follows, NP)
            if step == 0:
                tree = self._negated(tree, frame)
            if step == (0 if self._subject_first else 1):
                for adjunct in reversed(waiting) if self._verb_final else waiting:
                    tree = Apply(adjunct, tree, self._verb_final, None)
        if time_first and time is not None:
            tree = Apply(time, tree, True, None)
        return tree

    def _verb(self, frame):
        affixed = self.language.negation in ("prefix", "suffix") and frame.negative
        roles = ("verb", "negation") if affixed else ("verb",)
        verb = Token(self.lexicon.verb(frame.verb, frame.negative), "VERB", roles, frame.verb)
        if not frame.negative or affixed:
            return verb
        if self.language.negation == "after":
            return Apply(self._never(), verb, False, None)
        return Apply(self._never(), verb, True, None) if self._verb_final else verb

    def _negated(self, tree, frame):
        """Puts a negation before the verb above the verb's first argument, as CCGbank does, where that follows it."""
        if frame.negative and self.language.negation == "before" and not self._verb_final:
            return Apply(self._never(), tree, True, None)
        return tree

    def _never(self):
        return self._word("never", "negation")

    def _asked(self, slot):
        return self._word(QUESTIONS[slot], f"{slot}:question")

    def _word(self, concept, role):
        return Token(self.lexicon.words[concept], UPOS[concept], (role,), concept)

    def _agents(self, frame):
        agent = self._noun_phrase(frame.agent, "agent")
        if frame.partner is None:
            return agent
        joined = self._word("and", "and")
        return Apply(Apply(joined, self._noun_phrase(frame.partner, "partner"), True, NP), agent, False, None)

    def _place(self, place):
        return self._adposition("in", "place", lambda ending: self._noun_phrase(place, "place", ending))

    def _time(self, time):
        def noun(ending):
            roles = ("time:noun", "time:at") if ending else ("time:noun",)
            return Token(self.lexicon.noun(time, False, ending), "NOUN", roles, time)

        return self._adposition("at", "time", noun)

    def _adposition(self, word, slot, phrase):
        kind = self.language.adposition
        if kind == "suffix":
            return phrase(word)
        return Apply(self._word(word, f"{slot}:{word}"), phrase(""), kind == "pre", NP)

    def _noun_phrase(self, thing: Thing, slot: str, ending: str = ""):
        if thing.kind != "noun":
            return self._name(thing, slot, ending)
        language, noun = self.language, thing.words[0]
        roles = (f"{slot}:noun", f"{slot}:{ending}") if ending else (f"{slot}:noun",)
        if slot == "object" and language.case == "suffix":
            ending = "object"
        tree = Token(self.lexicon.noun(noun, thing.number > 1, ending), "NOUN", roles, noun)
        first = language.adjective == "AN"
        for key, adjective in (("colour", thing.colour), ("quality", thing.quality)):
            if adjective is not None:
                tree = Apply(self._word(adjective, f"{slot}:{key}"), tree, first, None)
        if thing.number > 1:
            tree = Apply(self._word(NUMERALS[thing.number - 2], f"{slot}:number"), tree, True, None)
        if language.article == "before":
            tree = Apply(self._word("the", f"{slot}:the"), tree, True, N)
        return tree

    def _name(self, thing, slot, ending):
        """A name: a person's given name and surname; "kela bank", in the order of adjective and noun; "port kela"."""
        words = list(thing.words)
        if thing.kind == "ORG" and self.language.adjective == "NA":
            words.reverse()
        tokens = []
        for place, word in enumerate(words):
            affix = ending if place == len(words) - 1 else ""
            part = f"{slot}:name{thing.words.index(word)}"
            roles = (part, f"{slot}:{ending}") if affix else (part,)
            tag = ("I-" if place else "B-") + thing.kind
            if word in COMPANIES or word in SITES:
                tokens.append(Token(self.lexicon.noun(word, False, affix), "NOUN", roles, word, tag))
            else:
                tokens.append(Token(self.lexicon.name(word, affix), "PROPN", roles, "", tag))
        return tokens[0] if len(tokens) == 1 else Apply(tokens[0], tokens[1], True, None)


def flatten(tree: Token | Apply) -> Iterable[Token]:
    """Yields the words of a derivation in order."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Token):
            yield node
        elif node.functor_first:
            waiting += (node.argument, node.functor)
        else:
            waiting += (node.functor, node.argument)


def categories(tree: Token | Apply, category: str) -> None:
    """Writes into every word the category that its place in the derivation gives it, from the top down."""
    if isinstance(tree, Token):
        tree.category = category
        return
    argument = category if tree.takes is None else tree.takes
    result, slash = _bracketed(category), "/" if tree.functor_first else "\\"
    categories(tree.argument, argument)
    categories(tree.functor, f"{result}{slash}{_bracketed(argument)}")


def _bracketed(category):
    return f"({category})" if "/" in category or "\\" in category else category


def text(tokens: Sequence[Token]) -> str:
    """Returns the words joined by blanks."""
    return " ".join([token.form for token in tokens])


def content(tokens: Sequence[Token], slot: str) -> list[int]:
    """Returns the places of a slot's words without its article and adposition: an answer's span."""
    left_out = (f"{slot}:the", f"{slot}:in", f"{slot}:at")
    return [
        place
        for place, token in enumerate(tokens)
        if token.roles[0].startswith(slot + ":") and token.roles[0] not in left_out
    ]
