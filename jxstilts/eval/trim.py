"""`jxstilts trim`: a smaller model for chosen tasks and languages, with the same ids, renumbered, and the same outputs.

Every text that the forms of these tasks read is encoded whole, and the pieces that occur stay. So the smaller model
serves any length, stride or protocol. Then both tokenizers encode every text again, and the results are compared.
"""

import dataclasses
import itertools
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from jxstilts import tasks
from jxstilts.data import tokenizer as tokenizers
from jxstilts.data import trimming
from jxstilts.data.encoders import Encoded
from jxstilts.data.features import Features
from jxstilts.eval import benchmarks
from jxstilts.eval.options import Options
from jxstilts.models import bundle
from jxstilts.models import trimming as rows
from jxstilts.models.checks import check_vocabulary
from jxstilts.models.model import Model
from jxstilts.runtime import InputError, suggest

OTHERS = 200  # examples of each task and language of other text, by which is measured how much of it changes
MEGABYTE = 2**20


@dataclasses.dataclass(frozen=True)
class Set:
    """The examples of one task, split and language."""

    task: str
    split: str
    language: str

    def __str__(self):
        return f"{self.task} {self.split} {self.language}"


class Watched(tokenizers.Tokenizer):
    """A tokenizer that shows what it is asked to encode: see(texts, spans, their pieces)."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, see: Callable[[Sequence[str], bool, Encoded], None]):
        super().__init__(tokenizer.backend_tokenizer, {role: getattr(tokenizer, role) for role in tokenizers.SPECIAL})
        self._watched, self._see = tokenizer, see

    @property
    def encoder(self):
        def encode(texts: Sequence[str], spans: bool) -> Encoded:
            found = self._watched.encoder(texts, spans)
            self._see(texts, spans, found)
            return found

        return encode


def trim(
    source: str,
    target: str,
    data_dir: str,
    names: Sequence[str],
    languages: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> str:
    """Writes the bundle `target`: the model `source` with the pieces, and their rows, that some texts need.

    Args:
        source: a bundle, a Hugging Face folder or a hub id.
        names: tasks, or one benchmark alone. languages: () = all of each task.
        say: is handed the lines of the report.
    Returns: the SHA-256 of the parameters. Raises InputError for an unknown task or language, one without text in
        `data_dir`, a tokenizer that cannot be trimmed, and a text that would be cut otherwise; then nothing is written.
    """
    names, chosen = _chosen(names, languages, data_dir)
    loaded = bundle.load(source)
    tokenizer, config = tokenizers.load(loaded.tokenizer_dir), loaded.model.config
    check_vocabulary(config, tokenizer, source)
    needed = trimming.Needed(tokenizer, rows.fixed_ids(loaded.model, len(tokenizer)))
    _read(Watched(tokenizer, lambda texts, spans, found: needed.add(texts, found)), loaded.model, chosen, data_dir)
    with tempfile.TemporaryDirectory() as folder:
        smaller, kept = trimming.write(needed, pathlib.Path(folder))
        check = Comparison(smaller, kept)
        _read(Watched(tokenizer, check), loaded.model, chosen, data_dir)
        small = rows.pick(loaded, kept)
        own = sorted({each.language for each in chosen})
        others = _changes(tokenizer, loaded.model, _others(names, own, data_dir), kept, data_dir)
        record = {
            "model": str(source), "sha256": loaded.meta["sha256"], "tokenizer": tokenizers.fingerprint(tokenizer),
            "rows": config.vocab_size, "kept": len(kept), "tasks": list(names), "languages": own,
        }  # fmt: skip
        sha = bundle.save(
            target, small.model, small.params,
            tokenizer_files=pathlib.Path(folder), provenance={**loaded.meta["provenance"], "trimmed": record},
        )  # fmt: skip
    sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(each.params)) / MEGABYTE for each in (loaded, small)]
    share = 100 * len(kept) / config.vocab_size
    say(f"{target}: {len(kept):,} of {config.vocab_size:,} rows kept ({share:.1f} %), sha256 {sha}")
    say(f"parameters: {sizes[0]:,.1f} MiB before, {sizes[1]:,.1f} MiB now")
    say(f"{check.texts:,} texts in {', '.join(own)} give the same ids, renumbered, as before")
    for line in others:
        say(line)
    return sha


def _chosen(names: Sequence[str], languages: Sequence[str], data_dir: str) -> tuple[tuple[str, ...], list[Set]]:
    """Returns the tasks, and the sets of text that are there. Raises InputError, naming the option."""
    whole = [name for name in names if name in benchmarks.BENCHMARKS]
    if whole and len(names) > 1:
        raise InputError(f"--tasks={','.join(names)}: name tasks, or one benchmark ({whole[0]}) alone")
    names = benchmarks.get(whole[0]).tasks if whole else tuple(names)
    if not names:
        raise InputError(f"--tasks is empty; known: {', '.join(tasks.names())}")
    known: set[str] = set()
    for name in names:
        try:
            spec = tasks.get(name)
        except InputError as error:
            raise InputError(f"--tasks: {error}") from error
        known.update(*map(spec.loadable, spec.splits))
    for language in languages:
        if language not in known:
            raise InputError(f"--languages: {suggest('language of these tasks', language, known)}")
    if not pathlib.Path(data_dir).expanduser().is_dir():
        raise InputError(f"--data_dir={data_dir}: no such folder")
    found = []
    for name in names:
        spec = tasks.get(name)
        for split in spec.splits:
            codes = [code for code in languages or spec.languages if code in spec.loadable(split)]
            found += [Set(name, split, code) for code in codes if tasks.available(name, data_dir, split, code)]
    bare = [] if whole else sorted(set(names) - {each.task for each in found})
    bare += [language for language in languages if language not in {each.language for each in found}]
    if bare or not found:
        what = ", ".join(bare) or f"any task of {whole[0]}"
        raise InputError(
            f"--data_dir={data_dir} has no text of {what}: leave out of --tasks and --languages what is not there"
        )
    return names, found


def _features(tokenizer, model: Model, given: Set, data_dir: str, limit: int | None = None) -> Iterator[Features]:
    """Yields the features of a set's examples, with and without the prefix of the model's own recipe."""
    form = tasks.get(given.task).form
    examples = tasks.load(given.task, data_dir, given.split, given.language, limit=limit)
    prefixes = dict.fromkeys(("", model.recipe.prefix if model.recipe else ""))
    plain = Options(max_length=model.config.max_length, long_sentences="split")
    readings = [dataclasses.replace(plain, prefix=prefix) for prefix in prefixes]
    for place, reading in enumerate(readings):
        if place and form.options(reading) == form.options(readings[0]):
            continue
        for part in form.parts(examples):
            yield form.tokenize(part, tokenizer, model.template, reading)
        yield from form.further(examples, tokenizer, model.template, reading)


def _read(tokenizer: Watched, model: Model, sets: Sequence[Set], data_dir: str) -> None:
    for each in sets:
        for _ in _features(tokenizer, model, each, data_dir):
            pass


class Comparison:
    """Holds what a smaller tokenizer makes of texts against what was made of them. texts: how many were equal."""

    def __init__(self, smaller: tokenizers.Tokenizer, kept: np.ndarray):
        self.smaller, self.kept, self.texts = smaller, kept, 0

    def __call__(self, texts: Sequence[str], spans: bool, before: Encoded) -> None:
        after = self.smaller.encoder(texts, spans)
        lengths = before.lengths != after.lengths
        wrong = np.flatnonzero(lengths)
        if not lengths.any():
            pieces = before.ids != self.kept[after.ids]
            if spans:
                pieces |= (before.start != after.start) | (before.end != after.end)
            wrong = np.searchsorted(np.cumsum(before.lengths), np.flatnonzero(pieces), side="right")
        if len(wrong):
            text = f"{texts[wrong[0]]!r:.200}"
            raise InputError(
                f"this tokenizer cannot be trimmed: without the pieces that no text needs it cuts {text} otherwise"
            )
        self.texts += len(texts)


# --- other text ------------------------------------------------------------------------------------------------------


def _others(names: Sequence[str], languages: Sequence[str], data_dir: str) -> dict[str, list[Set]]:
    """Returns sets of text that the model was not trimmed for, by kind: one split of each task and language."""
    kinds = {"other languages of these tasks": [], "other tasks in these languages": []}
    other, further = kinds.values()
    for name in tasks.names():
        spec, mine = tasks.get(name), name in names
        for code in spec.languages:
            if mine == (code in languages):
                continue
            splits = (split for split in reversed(spec.splits) if tasks.available(name, data_dir, split, code))
            (other if mine else further).extend(Set(name, split, code) for split in itertools.islice(splits, 1))
    return kinds


def _changes(tokenizer, model: Model, kinds: dict[str, list[Set]], kept: np.ndarray, data_dir: str) -> list[str]:
    """Returns lines that say how many inputs of other text hold a piece that is gone, and so are others now.

    An input that WordPiece had an unknown word in may change without: a word may be spelled now.
    """
    gone = np.ones(len(tokenizer), bool)
    gone[kept] = False
    lines = [
        f"Other text, the first {OTHERS} examples of each set: inputs that change, since a piece of theirs is gone"
    ]
    for kind, sets in kinds.items():
        counts: dict[str, np.ndarray] = {}
        for each in sets:
            key = each.language if kind.startswith("other languages") else each.task
            for features in _features(tokenizer, model, each, data_dir, OTHERS):
                changed = np.add.reduceat(gone[features.tokens], features.offsets[:-1]) > 0
                counts[key] = counts.get(key, 0) + np.array([changed.sum(), len(changed)])
        total = sum(counts.values(), np.zeros(2, int))
        shares = ", ".join(f"{key} {100 * changed / count:.1f}" for key, (changed, count) in sorted(counts.items()))
        what = f"{100 * total[0] / total[1]:.1f} % of {total[1]:,} ({shares})" if counts else "none in the data folder"
        lines.append(f"  {kind}: {what}")
    return lines
