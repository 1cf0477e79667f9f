"""Packing: several examples share a row, each a segment of its own. Pure numpy.

Raw text and evaluation pack a whole stream (`plan_packed`, `plan_evaluation`). Training on tasks packs each batch for
itself (`choose`, `pack`): it holds the very examples of the unpacked one, so its loss and gradients are the same; it
only has less padding, in one of a few static shapes (rows, row length), chosen once from the lengths.
Legend: M batches, N units of a batch (a unit is what stays in one row: an example, a question with its choices).
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from jxstilts.data.batching import Plan, length_buckets, permutation
from jxstilts.runtime import InputError

SAMPLE = 2**15  # units that shapes are chosen from: 1024 batches of 32
LONGEST_ROW, ROW = 2**15 - 1, np.uint32(2**16)  # see `_fit`
ROWS = (128, 256)  # tokens of a row of an evaluation, where its features are short: scores cost the row's length
ALONE = 6  # row lengths of an evaluation whose inputs stand alone: each is compiled once
SEGMENT = 4  # tokens: a row of an evaluation has room for as many features as if each had so few


def plan_packed(
    lengths: np.ndarray, *, num_rows: int, length: int, max_segments: int, seed: int, epoch: int
) -> list[Plan]:
    """Plans an epoch of packed batches: every feature once, shuffled by (seed, epoch), several to a row.

    Best fit: each feature goes to the fullest row that still has room for it. `lengths` int [N]; a row has at most
    `length` tokens and `max_segments` features. The rows are shuffled, since those opened last are emptier.
    """
    if min(num_rows, length, max_segments) < 1:
        raise InputError(f"num_rows ({num_rows}), length ({length}), max_segments ({max_segments}) must be at least 1")
    lengths = np.asarray(lengths)
    rows = _best_fit(lengths, permutation(len(lengths), seed, epoch), length, max_segments)
    shuffled = [rows[i] for i in permutation(len(rows), seed, epoch, 1).tolist()]
    return _batches(shuffled, length, num_rows)


def plan_evaluation(
    lengths: np.ndarray, *, tokens_per_batch: int, max_length: int, multiple_of: int = 1
) -> tuple[list[Plan], int]:
    """Plans one pass over all features, each exactly once, several to a row, the longest first; in one shape.

    A row has as many tokens as the shortest of ROWS that holds every feature, at most max_length; a batch has
    `tokens_per_batch // row length` rows, rounded down to a multiple of `multiple_of` (at least that). `lengths` int
    [N]. Returns (plans, max_segments of a row).
    """
    if min(tokens_per_batch, max_length, multiple_of) < 1:
        raise InputError(
            f"tokens_per_batch ({tokens_per_batch}), max_length ({max_length}), multiple_of ({multiple_of}) must be at "
            "least 1"
        )
    lengths = np.asarray(lengths, np.int64)
    length = min(row for row in (*ROWS, max_length) if row >= min(lengths.max(initial=1), max_length))
    num_rows = max(1, tokens_per_batch // length // multiple_of) * multiple_of
    segments = max(1, length // SEGMENT)
    rows = _best_fit(lengths, np.argsort(-lengths, kind="stable"), length, segments)
    return _batches(rows, length, num_rows), segments


def plan_alone(
    lengths: np.ndarray, *, tokens_per_batch: int, max_length: int, multiple_of: int = 1
) -> tuple[list[Plan], int]:
    """As `plan_evaluation`, but one feature a row, of those of like lengths together, in a few shapes."""
    lengths = np.asarray(lengths, np.int64)
    longest = min(16 * -(-int(lengths.max(initial=1)) // 16), max_length)
    buckets = np.asarray(length_buckets(longest, count=ALONE))
    order, plans = np.argsort(-lengths, kind="stable"), []
    while len(order):
        length = int(buckets[np.searchsorted(buckets, lengths[order[0]])])
        num_rows = max(1, tokens_per_batch // length // multiple_of) * multiple_of
        plans.append(Plan.of([(i,) for i in order[:num_rows].tolist()], length, num_rows))
        order = order[num_rows:]
    return plans, 1


def _batches(rows: list[tuple[int, ...]], length: int, num_rows: int) -> list[Plan]:
    return [Plan.of(rows[begin : begin + num_rows], length, num_rows) for begin in range(0, len(rows), num_rows)]


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The shapes of a stream's batches, the cheapest first.

    sizes: (rows, row length); last_resort: as many rows as units, so it holds any batch; max_units: of one row.
    """

    sizes: tuple[tuple[int, int], ...]
    last_resort: tuple[int, int]
    max_units: int


def choose(
    lengths: np.ndarray,
    *,
    batch_size: int,
    count: int,
    cost: Callable[[int], float],
    longest: int = 0,
    multiple: int = 8,
    multiple_of: int = 1,
) -> Shapes:
    """Returns at most `count` shapes that together make random batches of `lengths` cheap, and the last resort.

    Args:
        lengths: int [units], not empty; longest: of a unit that may come up, if it is not among them.
        cost: row length -> what a token of such a row costs, in any measure.
        multiple, multiple_of: what row lengths, and numbers of rows, are multiples of.
    A function of the arguments alone, not of a run's seed: runs that differ in it share their compiled steps.
    Raises InputError for rows that are too long.
    """
    lengths = np.asarray(lengths, np.int64)
    longest = _up(max(longest, int(lengths.max())), multiple)
    if 2 * longest > LONGEST_ROW:
        raise InputError(f"inputs of {longest} tokens cannot be packed: set packed=False or lower max_length")
    most = _up(batch_size, multiple_of)
    orders = [permutation(len(lengths), 0, number) for number in range(-(-SAMPLE // len(lengths)))]
    drawn = np.resize(np.concatenate(orders), (max(SAMPLE // batch_size, 1), batch_size))
    sizes = -np.sort(-lengths[drawn], axis=1)

    row_lengths = {_up(int(length), multiple) for length in np.geomspace(longest / 4, 2 * longest, 25)} | {longest}
    needed = {length: _rows_needed(sizes, length) for length in sorted(row_lengths)}  # [M] each, 0 = too short a row
    candidates = [
        (rows, length)
        for length, found in needed.items()
        for rows in sorted({_up(int(n), multiple_of) for n in np.unique(found[found > 0])})
    ]
    prices = np.array([rows * length * cost(length) for rows, length in candidates])
    holds = np.array([(0 < needed[length]) & (needed[length] <= rows) for rows, length in candidates])
    table = np.where(holds, prices[:, None], np.inf)  # [candidates, M]
    # A batch that only the last resort holds counts a hundredfold: that one then has to be compiled, too.
    penalty = 100.0 * most * longest * cost(longest)
    chosen: list[int] = []
    for _ in range(3 * count):  # one after the other, each the best beside the others; then each is chosen anew
        others = chosen[len(chosen) == count :]
        chosen = [*others, int(np.minimum(table, table[others].min(0, initial=penalty)).sum(1).argmin())]
    chosen = sorted(set(chosen), key=prices.__getitem__)
    shapes = [candidates[i] for i in chosen]
    number, row_of = _assign(sizes, shapes, batch_size)
    used = tuple(shapes[i] for i in np.unique(number[number >= 0]))
    return Shapes(used, (most, longest), int(_counts(row_of, most).max(initial=1)))


def pack(plans: Sequence[Plan], lengths: np.ndarray, shapes: Shapes) -> list[Plan]:
    """Returns the plans with the units of each batch in shared rows, in the cheapest of the shapes that holds them.

    plans: one unit per row, as `batching.plan_epoch` makes them; lengths: int, of the units. The longest unit goes
    first, each to the fullest row that has room for it (best fit decreasing).
    """
    units = np.full((len(plans), max((len(plan.ids) for plan in plans), default=0)), -1, np.int64)
    for row, plan in zip(units, plans, strict=True):
        row[: len(plan.ids)] = plan.ids
    sizes = np.where(units >= 0, np.asarray(lengths, np.int64)[units], 0)
    order = np.argsort(-sizes, axis=1, kind="stable")
    units, sizes = np.take_along_axis(units, order, 1), np.take_along_axis(sizes, order, 1)

    number, row_of = _assign(sizes, shapes.sizes, shapes.max_units)
    counts = _counts(row_of, max(rows for rows, _ in (*shapes.sizes, shapes.last_resort)))
    by_row = np.take_along_axis(units, np.argsort(row_of, axis=1, kind="stable"), 1)
    used = (counts > 0).sum(1).tolist()
    packed = []
    for i, (plan, shape) in enumerate(zip(plans, number.tolist(), strict=True)):
        none = by_row.shape[1] - len(plan.ids)
        ids, own = (by_row[i, none:], counts[i, : used[i]]) if shape >= 0 else (plan.ids, plan.counts)
        rows, length = shapes.sizes[shape] if shape >= 0 else shapes.last_resort
        packed.append(Plan(ids, own, length, rows))
    return packed


def price(plans: Sequence[Plan], cost: Callable[[int], float]) -> float:
    """Returns what the batches cost; `cost` is that of `choose`."""
    return sum(plan.num_rows * plan.length * cost(plan.length) for plan in plans)


def _assign(sizes: np.ndarray, shapes: Sequence[tuple[int, int]], max_units: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the number of the first shape that holds each batch, int [M], and each unit's row, int16 [M, N].

    -1: no shape; no unit. sizes: as of `_fit`.
    """
    rows, lengths = np.array(shapes, np.int64).reshape(-1, 2).T
    number, row_of = np.full(len(sizes), -1), np.full(sizes.shape, -1, np.int16)
    # Most shapes are too small by their tokens alone, and the first that is not mostly holds the batch.
    left = (sizes.sum(1)[:, None] <= rows * lengths) & (sizes[:, :1] <= lengths)
    while len(batches := np.flatnonzero(left.any(1))):
        shape = left[batches].argmax(1)
        found, held = _fit(sizes[batches], rows[shape], lengths[shape], max_units)
        left[batches, shape] = False
        batches = batches[held]
        left[batches], number[batches], row_of[batches] = False, shape[held], found[held]
    return number, row_of


def _rows_needed(sizes: np.ndarray, length: int) -> np.ndarray:
    """Returns how many rows of `length` tokens each batch needs, int [M]; 0 where a unit is longer than that."""
    every = np.ones(len(sizes), np.int64)
    row_of, held = _fit(sizes, sizes.shape[1] * every, length * every, sizes.shape[1])
    return np.where(held, row_of.max(1, initial=-1) + 1, 0)


def _fit(sizes: np.ndarray, num_rows: np.ndarray, lengths: np.ndarray, max_units: int) -> tuple[np.ndarray, np.ndarray]:
    """Best fit, unit by unit, of many small batches side by side, each in rows of its own number and length.

    sizes int [M, N], descending, 0 = no unit; num_rows, lengths int [M]. Returns the row of each unit, int16 [M, N],
    -1 = none, where the rows hold the batch; and whether they do, bool [M].
    """
    row = np.arange(num_rows.max(initial=0))[:, None]
    # A cell is a row's free tokens and, in the lower half, its number: the least one is the fullest row, the first of
    # them. Unsigned: what would be left of a row that is too full wraps round to more than any row has.
    room = (np.where(row < num_rows, lengths, 0) * ROW + row).astype(np.uint32)  # [R, M]
    units = np.zeros(room.size, np.int32)
    best = np.empty((sizes.shape[1], len(sizes)), np.uint32)
    by_unit = np.ascontiguousarray(np.minimum(sizes, LONGEST_ROW).T * ROW, np.uint32)
    flat, batch, left = room.reshape(-1), np.arange(len(sizes)), np.empty_like(room)
    for size, cell in zip(by_unit, best, strict=True):
        np.subtract(room, size, out=left)
        left.min(0, out=cell)
        row = cell % ROW
        place = row * len(sizes) + batch
        count = units[place] + 1
        units[place] = count
        flat[place] = np.where(count == max_units, row, cell)  # a full row: no unit is shorter than a token
    return np.where(sizes > 0, (best % ROW).T.astype(np.int16), -1), (best // ROW <= lengths).all(0)


def _counts(row_of: np.ndarray, num_rows: int) -> np.ndarray:
    """Returns the units of each row, int [M, num_rows]; row_of int [M, N], -1 = none."""
    cells = row_of + 1 + np.arange(len(row_of))[:, None] * (num_rows + 1)
    counts = np.bincount(cells.ravel(), minlength=len(row_of) * (num_rows + 1))
    return counts.reshape(len(row_of), num_rows + 1)[:, 1:]


def _best_fit(lengths: np.ndarray, order: np.ndarray, length: int, max_segments: int) -> list[tuple[int, ...]]:
    """Best fit of one long stream: feature after feature, in this order, each to the fullest row with room for it."""
    if len(lengths) and lengths.max() > length:
        raise InputError(f"a feature has {lengths.max()} tokens, a packed row {length}: raise the row length")
    rows: list[list[int]] = []
    room: list[list[int]] = [[] for _ in range(length + 1)]  # room[r] = the open rows with r tokens free
    open_rooms = 0  # bit r is set when room[r] is not empty
    for feature, size in zip(order.tolist(), lengths[order].tolist(), strict=True):
        fits = open_rooms >> size
        if fits:
            free = size + (fits & -fits).bit_length() - 1
            row = room[free].pop()
            if not room[free]:
                open_rooms ^= 1 << free
            rows[row].append(feature)
        else:
            free, row = length, len(rows)
            rows.append([feature])
        if free > size and len(rows[row]) < max_segments:
            room[free - size].append(row)
            open_rooms |= 1 << (free - size)
    return [tuple(row) for row in rows]


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
