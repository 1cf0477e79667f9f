"""Mining of sentence pairs: the few translations in two texts, by the margin of their similarity (BUCC)."""

from collections.abc import Mapping, Sequence

from jxstilts.forms import files
from jxstilts.forms.retrieval import SIDES, Retrieval
from jxstilts.runtime import InputError, atomic_write


class Mining(Retrieval):
    """Examples as those of retrieval, most sentences without a partner. Identical sentences are put together."""

    name = "mining"

    def sides(self, examples):
        """Returns the different texts only, in the order of the first."""
        return {side: [rows[0] for rows in collapse(examples[side]).values()] for side in SIDES}

    def found(self, given, vectors):
        """Returns [(source id, target id, margin), ...], the best first."""
        return expand(given.search.mine(vectors["source"], vectors["target"]), given.examples)

    def by_id(self, predictions, examples):
        return predictions  # a pair has two ids

    def baseline(self, spec, metric, examples):
        return None

    def write(self, file, spec, examples, predictions, threshold):
        """A line per pair: source id, tab, English id; of the pairs whose score reaches the threshold."""
        self._write(file, [(a, b) for a, b, score in predictions if threshold is None or score >= threshold])

    def write_labels(self, file, spec, examples):
        if "gold" not in examples:
            raise InputError(f"{file}: the examples have no gold pairs")
        self._write(file, examples["gold"])

    def _write(self, file, pairs):
        for identifier in (identifier for pair in pairs for identifier in pair):
            if not identifier or identifier != identifier.strip() or any(mark in identifier for mark in "\t\r\n"):
                raise InputError(f"{file}: the id {identifier!r} cannot stand in a line of two ids and a tab")
        atomic_write(file, "".join(f"{a}\t{b}\n" for a, b in pairs))

    def read_lines(self, file, spec):
        """Returns pairs of ids."""
        found = [tuple(line.split("\t")) for line in files.lines_of(file)]
        for number, ids in enumerate(found, start=1):
            if len(ids) != 2 or not all(ids):
                line = "\t".join(ids)
                raise InputError(f"{file}:{number}: expected source id TAB English id, got {line!r:.60}")
        return found

    def read(self, file, spec, examples):
        """Returns the pairs, without their scores."""
        return self.read_lines(file, spec)

    def compare(self, spec, predictions, labels):
        """As by the official rules only the set of pairs counts."""
        found, gold = self.read_lines(predictions, spec), self.read_lines(labels, spec)
        if not gold:
            raise InputError(f"{labels}:1: the file is empty")
        # with one score for all, every threshold below it keeps every pair
        return [(source, english, 1.0) for source, english in dict.fromkeys(found)], {"gold": gold}


def collapse(sentences: Sequence[Mapping]) -> dict[str, list]:
    """Returns {text: its sentences}, in the order of each text's first sentence."""
    found: dict[str, list] = {}
    for sentence in sentences:
        found.setdefault(sentence["text"], []).append(sentence)
    return found


def expand(pairs: Sequence[tuple[int, int, float]], examples: Mapping[str, list]) -> list[tuple[str, str, float]]:
    """Turns pairs of texts (source, target, score) into pairs of ids: every id of the one with every id of the other.

    This is the study's rule for identical sentences. The numbers count the texts as `collapse` orders them.
    """
    source, target = (list(collapse(examples[side]).values()) for side in SIDES)
    return [(s["id"], t["id"], score) for a, b, score in pairs for s in source[a] for t in target[b]]


FORM = Mining()
