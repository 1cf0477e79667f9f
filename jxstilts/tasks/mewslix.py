"""Mewsli-X: link a mention in a news article to one of a million entities, by their descriptions in any language.

Texts are made as XTREME-R's released code makes them (Botha et al. 2020; Ruder et al. 2021).
"""

import functools
import hashlib
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jxstilts.data.candidates import Candidates
from jxstilts.readers import checked, parse_json, read_json_lines, read_text
from jxstilts.runtime import InputError
from jxstilts.tasks.lareqa import first
from jxstilts.tasks.spec import Recipe, TaskSpec, beside

LANGUAGES = tuple("en ar de es fa ja pl ro ta tr uk".split())
BRACES = re.compile(r"\{(.*?)\}")
ENTITIES = "candidate_set_entities.jsonl"


def mention_text(mention: dict, context: dict, where: str) -> str:
    """Returns the query of a mention: its text, a colon, and its sentence with the mention between braces.

    Braces that are in the sentence become parentheses; line ends become blanks, each two blanks one (once, from the
    left). Raises InputError where the offsets are wrong, or no sentence holds the mention whole.
    """
    text = _get(context, "text", str, where)
    span = _get(mention, "mention_span", dict, where)
    begin, end = _span(span, len(text), where)
    if text[begin:end] != _get(span, "text", str, where):
        raise InputError(f"{where}: {span['text']!r:.60} is not at {begin}, where {text[begin:end]!r:.60} stands")
    for one in _get(context, "sentence_spans", list, where):
        a, b = _span(one, len(text), where)
        if a <= begin and end <= b:
            left, right = (BRACES.sub(r"(\1)", side) for side in (text[a:begin], text[end:b]))
            return _joined(f"{span['text']}: {left} {{ {span['text']} }} {right}")
    raise InputError(f"{where}: no sentence of the context holds the mention {span['text']!r:.60} at {begin}")


def entity_text(entity: dict, where: str) -> str:
    """Returns the candidate text of an entity: the sentences of its description, a blank between them."""
    text = _get(entity, "description", str, where)
    spans = [_span(one, len(text), where) for one in _get(entity, "sentence_spans", list, where)]
    return _joined(" ".join(text[begin:end] for begin, end in spans))


def _joined(text: str) -> str:
    return " ".join(text.splitlines()).replace("  ", " ").strip()


def _get(value: Any, key: str, kind: type, where: str) -> Any:
    if not isinstance(value, dict) or type(value.get(key)) is not kind:
        raise InputError(f"{where}: expected an object with {key!r} ({kind.__name__}), as in Mewsli-X's JSON lines")
    return value[key]


def _span(span: Any, length: int, where: str) -> tuple[int, int]:
    begin, end = (_get(span, key, int, where) for key in ("start", "end"))
    if not 0 <= begin < end <= length:
        raise InputError(f"{where}: the span {begin} to {end} is not in a text of {length} characters")
    return begin, end


class Entities(Candidates):
    """The entities of a JSON-lines file, read as they are asked for: only where each line begins is in memory.

    Raises InputError for an empty file.
    """

    def __init__(self, path: pathlib.Path):
        self._path, begins, digest = path, [0], hashlib.sha256()
        with path.open("rb") as file:
            for line in file:
                begins.append(begins[-1] + len(line))
                digest.update(line)
        if len(begins) == 1:
            raise InputError(f"{path}: the file is empty")
        self._begins, self.key = np.array(begins, np.int64), digest.hexdigest()

    def __len__(self) -> int:
        return len(self._begins) - 1

    def __getitem__(self, place: Any) -> Any:
        places = range(len(self))[place]
        if isinstance(place, slice):
            return [self._row(*each) for each in self._entities(places)]
        return self._row(*next(self._entities([places])))

    def ids(self) -> Sequence[str]:
        return self._ids

    @functools.cached_property
    def _ids(self) -> list[str]:
        found = [_get(entity, "entity_id", str, where) for where, entity in self._entities(range(len(self)))]
        if len(set(found)) != len(found):
            seen: set[str] = set()
            again = next(name for name in found if name in seen or seen.add(name))
            raise InputError(f"{self._path}: the entity {again!r:.60} is in the file twice")
        return found

    def _entities(self, places: Sequence[int]) -> Iterator[tuple[str, dict]]:
        with self._path.open("rb") as file:
            for place in places:
                begin, end = self._begins[place : place + 2].tolist()
                file.seek(begin)
                try:
                    line = file.read(end - begin).decode()
                except UnicodeDecodeError as error:
                    raise InputError(f"{self._path}:{place + 1}: not UTF-8 ({error.reason})") from error
                yield f"{self._path}:{place + 1}", parse_json(line, self._path, place + 1)

    @staticmethod
    def _row(where: str, entity: dict) -> dict[str, str]:
        return {"id": _get(entity, "entity_id", str, where), "text": entity_text(entity, where)}


@functools.lru_cache(maxsize=2)  # the eleven languages of a task share it
def _entities(path: str, size: int, changed: int) -> Entities:
    return Entities(pathlib.Path(path))


def companions(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the candidates of a file of mentions, and its gold where it is there; none without the candidates."""
    entities = path.parent.parent / ENTITIES
    labels = path.parent.parent / "wikinews_labels" / f"{path.stem}.json"
    return [file for file in (entities, labels) if file.is_file()] if entities.is_file() else []


def read_mentions(path: pathlib.Path) -> dict:
    """Reads wikinews_mentions/SPLIT-XX.jsonl, with the candidates and the labels that belong to it.

    Returns {"query", "candidate", "gold"} as `lareqa.read_lareqa` does. Gold is that of wikinews_labels/SPLIT-XX.json
    where the file is there, else that of the mentions; the release has it taken out of test's. Raises InputError.
    """
    entities = path.parent.parent / ENTITIES
    if not entities.is_file():
        raise InputError(f"no file {entities}: the candidates of {path.name} are expected there")
    query, gold = [], []
    for number, row in read_json_lines(path, ()):
        where = f"{path}:{number}"
        context = _get(row, "context", dict, where)
        for mention in _get(row, "mentions", list, where):
            name = _get(mention, "example_id", str, where)
            query.append({"id": name, "text": mention_text(mention, context, where)})
            if mention.get("entity_id"):
                gold.append((name, _get(mention, "entity_id", str, where)))
    checked(query, "gold", path)
    stat = entities.stat()
    candidates = _entities(str(entities), stat.st_size, stat.st_mtime_ns)
    labels = path.parent.parent / "wikinews_labels" / f"{path.stem}.json"
    if labels.is_file():
        gold = _labels(labels, {row["id"] for row in query})
    elif gold and len(gold) < len(query):
        raise InputError(f"{path}: {len(gold)} of {len(query)} mentions have an entity_id; expected all or none")
    return {"query": query, "candidate": candidates} | ({"gold": gold} if gold else {})


def _labels(path: pathlib.Path, known: set[str]) -> list[tuple[str, str]]:
    found = parse_json(read_text(path), path)
    if not isinstance(found, dict) or found.keys() != known:
        raise InputError(f"{path}: expected an object with the example ids of the mentions and their entities")
    for name, entity in found.items():
        if not isinstance(entity, list) or len(entity) != 1 or not isinstance(entity[0], str):
            raise InputError(f"{path}: {name!r:.60} has {entity!r:.60}; expected a list of one entity id")
    gold = [(name, entity[0].strip()) for name, entity in found.items()]
    blank = [name for name, entity in gold if not entity]
    if blank and len(blank) < len(gold):
        raise InputError(f"{path}: {blank[0]!r:.60} has no entity, but others have; expected all or none")
    return [] if blank else gold  # XTREME-R's preprocessing blanks those of test


def read_pairs(path: pathlib.Path) -> Any:
    """Reads wikipedia_pairs-SPLIT.jsonl: pairs to train on, or of dev a search among the split's own entities."""
    pairs, entities = [], {}
    for number, row in read_json_lines(path, ()):
        where = f"{path}:{number}"
        inside = _get(row, "contextual_mention", dict, where)
        mention = _get(inside, "mention", dict, where)
        entity = _get(row, "entity", dict, where)
        pair = {
            "id": _get(mention, "example_id", str, where),
            "query": mention_text(mention, _get(inside, "context", dict, where), where),
            "candidate": entity_text(entity, where),
        }
        pairs.append((pair, _get(entity, "entity_id", str, where)))
        entities.setdefault(pairs[-1][1], pair["candidate"])
    examples = checked([pair for pair, _ in pairs], "gold", path)
    if "train" in path.name:
        return examples
    return {
        "query": [{"id": pair["id"], "text": pair["query"]} for pair in examples],
        "candidate": Candidates({"id": name, "text": text} for name, text in entities.items()),
        "gold": [(pair["id"], name) for pair, name in pairs],
    }


def first_pairs(examples: Any, limit: int) -> Any:
    """Returns the first pairs, or of a dev set the first queries and the entities that are right for them."""
    if isinstance(examples, list):
        return examples[:limit]
    found = first(examples, limit)
    right = {name for _, name in found["gold"]}
    return found | {"candidate": Candidates(row for row in found["candidate"] if row["id"] in right)}


FOLDERS = ("xtreme-r/mewslix", "mewslix")
SOURCE = "not in the study's release; XTREME-R's Mewsli-X script, but for the rate and the warm-up"

WIKIPEDIA_PAIRS = TaskSpec(
    name="wikipedia_pairs",
    type="embedding",
    languages=("en",),
    splits={
        split: tuple(f"{folder}/wikipedia_pairs-{split}.jsonl" for folder in FOLDERS) for split in ("train", "dev")
    },
    read=read_pairs,
    first=first_pairs,
    metric="map20",
    tokens=50,
    train_task="wikipedia_pairs",
    sizes={"train": 167_719, "dev": 14_051},
    recipe=Recipe(32, 64, 2, SOURCE, query_length=64, negatives=8),
    translated={"train": beside("xtreme-r/mewslix/wikipedia_pairs-train.jsonl")},
    description="Mentions in English Wikipedia and the entities that they mean, which Mewsli-X is trained on",
    url="https://github.com/google-research/google-research/tree/master/dense_representations_for_entity_retrieval/mel",
    licence="CC BY-SA 3.0 (Wikipedia's text)",
)

MEWSLIX = TaskSpec(
    name="mewslix",
    type="embedding",
    languages=LANGUAGES,
    splits={
        split: tuple(f"{folder}/wikinews_mentions/{split}-{{language}}.jsonl" for folder in FOLDERS)
        for split in ("dev", "test")
    },
    read=read_mentions,
    one_right=True,
    companions=companions,
    first=first,
    metric="mewslix",
    train_task="wikipedia_pairs",
    description="Which of 1,003,893 entities does a mention in a WikiNews article mean?",
    url="https://github.com/google-research/google-research/tree/master/dense_representations_for_entity_retrieval/mel",
    licence="CC BY 2.5 (WikiNews' text), CC BY-SA 3.0 (Wikipedia's)",
)
