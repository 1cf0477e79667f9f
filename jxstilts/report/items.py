"""What is known of each item, as sums over clusters of items, from which resampling computes values.

Rows of all languages lie in one array; `languages` and `clusters` say which language and cluster each row belongs to.
A value is computed as in the tables: a metric in each language, the mean over languages, the mean over seeds.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from jxstilts.eval.items import Kept
from jxstilts.runtime import InputError

Values = Any  # [items], [seeds, items], or {column: either}
Score = Callable[[Mapping[str, np.ndarray], np.ndarray], Any]


def rows(
    systems: Sequence[Sequence[Mapping[str, Kept]]], parallel: bool
) -> tuple[list[dict[str, np.ndarray]], np.ndarray, np.ndarray]:
    """Returns (columns {name: [seeds, items]} of each system, languages [items], clusters [items]).

    Args:
        systems: of each one, for each seed {language: its items}.
        parallel: whether an id means the same item in every language (`TaskSpec.parallel`). If not, equal ids of two
            languages are two items, as where they are row numbers of unrelated files (POS, NER, Tatoeba).
    Items that are one question's paragraph, in whichever language, are one cluster. Languages and ids are sorted.
    Columns are those that all languages have: where over-long sentences lost words, a language has more of them.
    Raises InputError for no item, and where a system or seed has other items or columns than the first.
    """
    runs = [run for seeds in systems for run in seeds]
    if not runs or not all(systems) or not runs[0]:
        raise InputError("statistics: there is no run, or no language, to take items from")
    for number, run in enumerate(runs):
        if run.keys() != runs[0].keys():
            raise InputError(
                f"statistics: run {number} (counted from 0) has other languages than the first; give the same"
            )
    order = sorted(runs[0])
    first = {language: _union([run[language] for run in runs]) for language in order}
    names = sorted(set.intersection(*(set(held.columns) for held in first.values())))
    for number, run in enumerate(runs):
        for language in order:
            held = run[language]
            same = held.sparse or np.array_equal(held.ids, first[language].ids)
            if not same or held.columns.keys() != first[language].columns.keys():
                raise InputError(
                    f"statistics: in {language!r} run {number} (counted from 0) has other items or columns than the "
                    "first; evaluate all on the same examples"
                )
    ids = np.concatenate([first[language].ids for language in order])
    if not len(ids):
        raise InputError("statistics: there is no item")
    columns = [
        {name: np.array([np.concatenate([_column(run[of], name, first[of].ids) for of in order]) for run in seeds])
         for name in names}
        for seeds in systems
    ]  # fmt: skip
    languages = np.repeat(order, [len(first[language].ids) for language in order])
    return columns, languages, _clusters(first, order, ids, languages, parallel)


def _union(held: Sequence[Kept]) -> Kept:
    if not held[0].sparse:
        return held[0]
    return dataclasses.replace(held[0], ids=np.unique(np.concatenate([one.ids for one in held])))


def _column(held: Kept, name: str, ids: np.ndarray) -> np.ndarray:
    if not held.sparse:
        return held.columns[name]
    column = np.zeros(len(ids))
    column[np.searchsorted(ids, held.ids)] = held.columns[name]
    return column


def _clusters(first, order, ids, languages, parallel) -> np.ndarray:
    """Returns what is drawn as one, for each item."""
    own = lambda values: np.char.add(np.char.add(languages, "\n"), values)  # noqa: E731  no code holds a line break
    if first[order[0]].groups is None:
        return ids if parallel else own(ids)
    groups = own(np.concatenate([first[language].groups for language in order]))
    if not parallel:
        return groups
    # a paragraph holds other questions in other languages (MLQA), so its questions link the languages' paragraphs
    _, item = np.unique(ids, return_inverse=True)
    _, group = np.unique(groups, return_inverse=True)
    size = item.max() + 1 + group.max() + 1
    links = sparse.coo_matrix((np.ones(len(ids)), (item, item.max() + 1 + group)), (size, size))
    return csgraph.connected_components(links, directed=False)[1][item]


@dataclasses.dataclass(frozen=True)
class Group:
    """Languages [l] that share clusters: counts [d] of distinct clusters, sums [d, l, k], numbers of items [d, l]."""

    languages: np.ndarray
    counts: np.ndarray
    sums: np.ndarray
    sizes: np.ndarray


class Items:
    """The items of one or two systems. Legend: L languages; K systems x seeds x columns; m draws.

    Args: as `resampling.paired_bootstrap`.
    Raises InputError for values that do not fit together, are not finite, or are none.
    """

    def __init__(self, systems: Sequence[Values], clusters: Any, languages: Any, score: Score | None):
        tables = [_table(values) for values in systems]
        self.names, first = tables[0]
        for names, table in tables[1:]:
            if names != self.names or table.shape[1] != first.shape[1]:
                raise InputError(
                    f"statistics: the systems have {first.shape[1]} and {table.shape[1]} items, columns {self.names} "
                    f"and {names}; give both the same items and columns"
                )
        if score is None and len(self.names) > 1:
            raise InputError(f"statistics: columns {self.names} need a score; without one give a single column")
        self.score, self.rows = score, first.shape[1]
        self.seeds = [len(table) for _, table in tables]
        table = np.concatenate([np.moveaxis(table, 1, 0).reshape(self.rows, -1) for _, table in tables], axis=1)
        language = self._codes("languages", languages, np.zeros(self.rows, np.int64))
        cluster = self._codes("clusters", clusters, np.arange(self.rows))
        self.languages, self.clusters = int(language.max()) + 1, int(cluster.max()) + 1
        # sums of floats depend on their order: one order for the items of a cluster, however they were given
        order = np.lexsort((*table.T, language, cluster))
        self.groups = list(_groups(table[order], language[order], cluster[order]))
        self.totals, self.sizes = self.sums([group.counts[None] for group in self.groups])  # [1, L, K], [1, L]
        self.value = float(self.mean(self.differences(self.values(self.totals, self.sizes)))[0])
        if not np.isfinite(self.value):
            raise InputError("statistics: the score of these items is not defined")

    def _codes(self, what, values, default) -> np.ndarray:
        if values is None:
            return default
        values = np.asarray(values)
        if values.shape != (self.rows,):
            raise InputError(f"statistics: {what} have the shape {values.shape}; there are {self.rows} items")
        return np.unique(values, return_inverse=True)[1]

    def sums(self, weights: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Returns (sums [m, L, K], sizes [m, L]) of clusters that count weights [m, d] times, given group by group."""
        number, width = len(weights[0]), self.groups[0].sums.shape[-1]
        sums, sizes = np.empty((number, self.languages, width)), np.empty((number, self.languages))
        for group, weight in zip(self.groups, weights, strict=True):
            weight = weight.astype(np.float64)
            sums[:, group.languages] = np.tensordot(weight, group.sums, 1)
            sizes[:, group.languages] = weight @ group.sizes
        return sums, sizes

    def values(self, sums: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
        """Returns the value [m, seeds, L] of each system; not a number where a language has no item."""
        found, begin = [], 0
        for seeds in self.seeds:
            mine = sums[..., begin : begin + seeds * len(self.names)]
            begin += seeds * len(self.names)
            mine = mine.reshape(*sums.shape[:2], seeds, len(self.names)).transpose(3, 0, 2, 1)  # [columns, m, seeds, L]
            n = np.broadcast_to(sizes[:, None], mine.shape[1:])
            with np.errstate(divide="ignore", invalid="ignore"):
                found.append(np.where(n > 0, mine[0] / n if self.score is None else self._scored(mine, n), np.nan))
        return found

    def _scored(self, columns, n):
        sums = {name: column.ravel() for name, column in zip(self.names, columns, strict=True)}
        values = np.asarray(self.score(sums, n.ravel()), np.float64)
        if values.shape != (n.size,):
            raise InputError(f"statistics: score gave the shape {values.shape} for {n.size} sums; it is elementwise")
        return values.reshape(n.shape)

    def differences(self, values, seeds=(None, None)) -> np.ndarray:
        """Returns [m, L], the first system less the second if there is one, in each language.

        seeds: of each system the shares [m, seeds], None for equal ones.
        """
        means = []
        for value, share in zip(values, seeds, strict=False):
            over = _even(value.shape[1]) if share is None else share
            means.append((value * over[:, :, None]).sum(1))
        return means[0] - means[1] if len(means) == 2 else means[0]

    def mean(self, apart: np.ndarray, shares: np.ndarray | None = None) -> np.ndarray:
        """Returns the mean [m] over languages of [m, L]; shares: theirs [m, L], None for equal ones."""
        return (apart * (_even(self.languages) if shares is None else shares)).sum(1)

    def counts(self) -> list[tuple[int, int]]:
        """Returns (items, clusters) of each language."""
        found = [(0, 0)] * self.languages
        for group in self.groups:
            for at, language in enumerate(group.languages):
                own = group.counts * (group.sizes[:, at] > 0)
                found[language] = int(group.counts @ group.sizes[:, at]), int(own.sum())
        return found


def _even(number: int) -> np.ndarray:
    return np.full((1, number), 1 / number)


def _table(values: Values) -> tuple[list[str], np.ndarray]:
    """Returns (column names, numbers [seeds, items, columns]) of one system."""
    given = values if isinstance(values, Mapping) else {"": values}
    if not given:
        raise InputError("statistics: a system has no column")
    names = sorted(given)
    columns = [np.atleast_2d(np.asarray(given[name], np.float64)) for name in names]
    shapes = sorted({column.shape for column in columns})
    if len(shapes) > 1 or columns[0].ndim > 2:
        raise InputError(f"statistics: values of the shapes {shapes}; all columns are [items] or all [seeds, items]")
    table = np.stack(columns, axis=-1)
    if not table.size:
        raise InputError("statistics: a system has no item")
    if not np.isfinite(table).all():
        raise InputError("statistics: a system has values that are not finite numbers")
    return names, table + 0.0  # -0.0 becomes 0.0, which sorts as one


def _groups(table: np.ndarray, language: np.ndarray, cluster: np.ndarray) -> Iterator[Group]:
    """Yields the groups of languages that clusters link; table [items, K] in its final order."""
    count = language.max() + 1
    size = count + cluster.max() + 1
    links = sparse.coo_matrix((np.ones(len(table)), (language, count + cluster)), (size, size))
    labels = csgraph.connected_components(links, directed=False)[1][:count]
    for label in dict.fromkeys(labels.tolist()):
        own = np.flatnonzero(labels == label)
        mine = labels[language] == label
        number, codes = np.unique(cluster[mine], return_inverse=True)
        cell = codes * len(own) + np.searchsorted(own, language[mine])
        shape = len(number), len(own)
        whole = np.empty((*shape, table.shape[1] + 1))
        for k, column in enumerate(table[mine].T):
            whole[..., k] = np.bincount(cell, column, whole[..., 0].size).reshape(shape)
        whole[..., -1] = np.bincount(cell, minlength=whole[..., 0].size).reshape(shape)
        # equal clusters are one that counts more; sorted, they have forgotten the order in which they were given
        distinct, counts = np.unique(whole.reshape(len(number), -1), axis=0, return_counts=True)
        distinct = distinct.reshape(len(counts), len(own), -1)
        yield Group(own, counts, distinct[..., :-1], distinct[..., -1])
