"""Packing: several examples share a row, each a segment of its own. Pure numpy.

Raw text and evaluation pack a whole stream (`plan_packed`, `plan_evaluation`). Training on tasks packs each batch for
itself (`choose`, `pack`): it holds the very examples of the unpacked one, so its loss and gradients are the same; it
only has less padding, in one of a few static shapes (rows, row length), chosen once from the lengths.
Legend: M batches, N units of a batch (a unit is what stays in one row: an example, a question with its choices).
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from jxstilts.data.batching import Plan, permutation
from jxstilts.runtime import InputError

SAMPLE = 2**15  # units that shapes are chosen from: 1024 batches of 32
LONGEST_ROW = 2**15 - 1  # see `_fit`
ROWS = (128, 256)  # tokens of a row of an evaluation, where its features are short: scores cost the row's length
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


def _batches(rows: list[tuple[int, ...]], length: int, num_rows: int) -> list[Plan]:
    return [Plan(tuple(rows[begin : begin + num_rows]), length, num_rows) for begin in range(0, len(rows), num_rows)]


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
    placed = list(_assign(sizes, shapes, batch_size))
    max_units = max(int(np.diff(_ends(row_of, shapes[number][0])).max(initial=1)) for number, _, row_of in placed)
    used = tuple(shapes[number] for number, batches, _ in placed if len(batches))
    return Shapes(used, (most, longest), max_units)


def pack(plans: Sequence[Plan], lengths: np.ndarray, shapes: Shapes) -> list[Plan]:
    """Returns the plans with the units of each batch in shared rows, in the cheapest of the shapes that holds them.

    plans: one unit per row, as `batching.plan_epoch` makes them; lengths: int, of the units. The longest unit goes
    first, each to the fullest row that has room for it (best fit decreasing).
    """
    batches = [[unit for row in plan.rows for unit in row] for plan in plans]
    units = np.full((len(plans), max(map(len, batches), default=0)), -1, np.int64)
    for row, batch in zip(units, batches, strict=True):
        row[: len(batch)] = batch
    sizes = np.where(units >= 0, np.asarray(lengths, np.int64)[units], 0)
    order = np.argsort(-sizes, axis=1, kind="stable")
    units, sizes = np.take_along_axis(units, order, 1), np.take_along_axis(sizes, order, 1)

    rows, length = shapes.last_resort
    packed = [Plan(plan.rows, length, rows) for plan in plans]
    for number, chosen, row_of in _assign(sizes, shapes.sizes, shapes.max_units):
        rows, length = shapes.sizes[number]
        by_row = np.take_along_axis(units[chosen], np.argsort(row_of, axis=1, kind="stable"), 1)
        ends = _ends(row_of, rows).tolist()
        for batch, own, cuts in zip(chosen.tolist(), by_row.tolist(), ends, strict=True):
            filled = (tuple(own[begin:end]) for begin, end in itertools.pairwise(cuts) if end > begin)
            packed[batch] = Plan(tuple(filled), length, rows)
    return packed


def price(plans: Sequence[Plan], cost: Callable[[int], float]) -> float:
    """Returns what the batches cost; `cost` is that of `choose`."""
    return sum(plan.num_rows * plan.length * cost(plan.length) for plan in plans)


def _assign(
    sizes: np.ndarray, shapes: Sequence[tuple[int, int]], max_units: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields (number of a shape, the batches that it is the first to hold, the row of each of their units [., N])."""
    left = np.arange(len(sizes))
    for number, (num_rows, length) in enumerate(shapes):
        row_of, held = _fit(sizes[left], num_rows, length, max_units)
        yield number, left[held], row_of[held]
        left = left[~held]


def _rows_needed(sizes: np.ndarray, length: int) -> np.ndarray:
    """Returns how many rows of `length` tokens each batch needs, int [M]; 0 where a unit is longer than that."""
    row_of, held = _fit(sizes, sizes.shape[1], length, sizes.shape[1])
    return np.where(held, row_of.max(1, initial=-1) + 1, 0)


def _fit(sizes: np.ndarray, num_rows: int, length: int, max_units: int) -> tuple[np.ndarray, np.ndarray]:
    """Best fit, unit by unit, of many small batches side by side, each with at most so many rows.

    sizes int [M, N], descending, 0 = no unit. Returns the row of each unit, int16 [M, N], -1 = none; and which
    batches the rows hold, bool [M].
    """
    batch = np.arange(len(sizes))
    # Unsigned: what would be left of a row that is too full wraps round to more than any row has.
    room = np.full((len(sizes), num_rows), length, np.uint16)
    units = np.zeros((len(sizes), num_rows), np.int32)
    row_of = np.full(sizes.shape, -1, np.int16)
    held = (sizes <= length).all(1)
    sizes = np.minimum(sizes, length).astype(np.uint16)
    for place in range(sizes.shape[1]):
        size = sizes[:, place]
        left = room - size[:, None]
        row = left.argmin(1)
        rest = left[batch, row]
        held &= rest <= length
        taken = (rest <= length) & (size > 0)
        row_of[taken, place] = row[taken]
        units[batch, row] += taken
        rest[units[batch, row] == max_units] = 0  # a full row: no unit is shorter than a token
        room[batch[taken], row[taken]] = rest[taken]
    return row_of, held


def _ends(row_of: np.ndarray, num_rows: int) -> np.ndarray:
    """row_of [., N] -> int [., num_rows + 1]: where row 0 begins and where each ends, of the units sorted by row."""
    cells = row_of + 1 + np.arange(len(row_of))[:, None] * (num_rows + 1)
    counts = np.bincount(cells.ravel(), minlength=len(row_of) * (num_rows + 1))
    return counts.reshape(len(row_of), num_rows + 1).cumsum(1)


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
