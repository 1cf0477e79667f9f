"""Features to batches of static shape. Pure numpy: first a plan (which features in which rows), then the arrays.

A batch is a dict of arrays; an unpacked batch is a packed one with one segment per row, so there is one code path.
Legend: B rows, T tokens of a row, S segments of a row, N features.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from jxstilts.data.features import Features, Field, Texts
from jxstilts.data.ragged import offsets_of, spread
from jxstilts.runtime import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """One batch to assemble: the features of each row, the row length T and the number of rows B (some empty).

    ids int [n]: the features, row after row; counts int [at most B]: of each row. Arrays, as an epoch has many.
    """

    ids: np.ndarray
    counts: np.ndarray
    length: int
    num_rows: int

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], length: int, num_rows: int) -> "Plan":
        """Returns the plan of a batch with these features in its rows."""
        ids = np.fromiter(itertools.chain.from_iterable(rows), np.int64)
        return cls(ids, np.fromiter(map(len, rows), np.int64, len(rows)), length, num_rows)

    @property
    def rows(self) -> tuple[tuple[int, ...], ...]:
        """The features of each row."""
        ids = iter(self.ids.tolist())
        return tuple(tuple(itertools.islice(ids, count)) for count in self.counts.tolist())

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Plan) and (self.length, self.num_rows) == (other.length, other.num_rows)
        return same and self.rows == other.rows


def groups(features: Features, fields: Sequence[Field]) -> np.ndarray:
    """Returns which features belong in one row: those of unit u are groups[u]:groups[u+1], int64 [U+1].

    A unit is a question with all its choices, else one feature. Plans are made for units: their lengths are
    np.diff(features.offsets[groups]); `expand` turns them into plans for features.
    """
    source = next((field.source for field in fields if field.kind == "group"), None)
    if source is None:
        return np.arange(len(features) + 1)
    begins = np.flatnonzero(np.diff(features.fields[source], prepend=-1))
    return np.append(begins, len(features)).astype(np.int64)


def expand(plans: Sequence[Plan], groups: np.ndarray) -> list[Plan]:
    """Returns plans made for the units of `groups` as plans for features: each unit becomes its features, in order."""
    if len(groups) == groups[-1] + 1:  # a unit is a feature
        return list(plans)
    return [_expanded(plan, groups, np.diff(groups)) for plan in plans]


def _expanded(plan: Plan, groups: np.ndarray, sizes: np.ndarray) -> Plan:
    before = offsets_of(sizes[plan.ids])  # features of the units before
    counts = np.diff(before[offsets_of(plan.counts)])
    return dataclasses.replace(plan, ids=spread(groups[plan.ids], sizes[plan.ids]), counts=counts)


def permutation(count: int, *key: int) -> np.ndarray:
    """Returns a shuffle of 0..count-1 as int64 [count], a function of the key (up to 4 integers >= 0, say seed, epoch).

    The raw stream of a numpy bit generator never changes, that of `Generator.permutation` may: data order survives
    an upgrade of numpy.
    """
    if len(key) > 4 or min(key) < 0:
        raise InputError(f"the seed and the epoch of a shuffle must be integers >= 0, not {key}")
    key = (*key, 0, 0, 0)[:4]
    bits = np.random.Philox(key=key[:2], counter=(0, 0, *key[2:]))
    return np.argsort(bits.random_raw(count), kind="stable")


def length_buckets(max_length: int, *, multiple: int = 16, count: int = 6) -> tuple[int, ...]:
    """Returns at most `count` row lengths in geometric steps, multiples of `multiple`; the last is `max_length`."""
    if max_length < 1:
        raise InputError(f"max_length must be at least 1, not {max_length}")
    buckets = []
    for step in np.geomspace(min(2 * multiple, max_length), max_length, count)[:-1].tolist():
        bucket = max(round(step / multiple) * multiple, buckets[-1] + multiple if buckets else multiple)
        if bucket < max_length:
            buckets.append(bucket)
    return (*buckets, max_length)


def plan_epoch(
    lengths: np.ndarray, *, batch_size: int, buckets: Sequence[int], seed: int, epoch: int, sort_window: int = 1
) -> list[Plan]:
    """Plans an epoch of training batches of one feature per row: every feature once, in an order set by (seed, epoch).

    The shuffled features are sorted by length inside windows of `sort_window` batches, which saves padding, and the
    batches are shuffled again; `sort_window=1` gives purely random batches. The batch that is short of features is
    filled with empty rows. `lengths` int [N]; every plan has `batch_size` rows of one of the `buckets`.
    """
    if batch_size < 1 or sort_window < 1:
        raise InputError(f"batch_size ({batch_size}) and sort_window ({sort_window}) must be at least 1")
    lengths = np.asarray(lengths)
    if lengths.max(initial=0) > buckets[-1]:
        raise InputError(f"a feature has {lengths.max()} tokens, the longest row {buckets[-1]}: raise the row length")
    order = permutation(len(lengths), seed, epoch)
    # Whole windows side by side, and the one that is not whole.
    whole = len(order) - len(order) % (batch_size * sort_window)
    windows = [order[:whole].reshape(-1, batch_size * sort_window), order[None, whole:]]
    ids = np.concatenate([_by_length(window, lengths).ravel() for window in windows])
    ends = np.minimum(np.arange(0, len(ids), batch_size) + batch_size, len(ids))
    rows = np.asarray(buckets)[np.searchsorted(buckets, lengths[ids[ends - 1]])].tolist()  # a batch's last is longest
    one = np.ones(batch_size, np.int64)
    plans = [
        Plan(ids[begin : begin + batch_size], one[: len(ids) - begin], length, batch_size)
        for begin, length in zip(range(0, len(ids), batch_size), rows, strict=True)
    ]
    return [plans[i] for i in permutation(len(plans), seed, epoch, 1).tolist()]


def _by_length(windows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.take_along_axis(windows, np.argsort(lengths[windows], axis=1, kind="stable"), 1)


def select(plans: Sequence[Plan], ids: np.ndarray) -> list[Plan]:
    """Returns plans made for `features[ids]` as plans for `features`; ids int [number of planned features]."""
    ids = np.asarray(ids)
    if np.array_equal(ids, np.arange(len(ids))):
        return list(plans)
    return [dataclasses.replace(plan, ids=ids[plan.ids]) for plan in plans]


def efficiency(plans: Sequence[Plan], lengths: np.ndarray) -> float:
    """Returns real tokens / tokens of the batches, between 0 and 1."""
    real = sum(int(np.asarray(lengths)[plan.ids].sum()) for plan in plans)
    return real / max(1, sum(plan.length * plan.num_rows for plan in plans))


def assemble(
    features: Features, rows: Sequence[Sequence[int]], *, length: int, num_rows: int, **options
) -> dict[str, np.ndarray]:
    """Builds a batch with row r holding the features rows[r]; options: fields, max_segments, pad_id."""
    return assemble_plan(features, Plan.of(rows, length, num_rows), **options)


def assemble_plan(features: Features, plan: Plan, **options) -> dict[str, np.ndarray]:
    """Builds the batch of a plan; the options are those of `assemble_plans`: fields, max_segments, pad_id."""
    return assemble_plans(features, [plan], **options)[0]


def batches(features: Features, plans: Sequence[Plan], **options) -> Iterator[dict[str, np.ndarray]]:
    """Yields the batches of a list of plans; the options are those of `assemble_plans`."""
    return (assemble_plan(features, plan, **options) for plan in plans)


def assemble_plans(
    features: Features,
    plans: Sequence[Plan],
    *,
    fields: Sequence[Field],
    max_segments: int,
    pad_id: int,
) -> list[dict[str, np.ndarray]]:
    """Builds a batch for each plan, its features one after the other in their row; missing rows are padding.

    Several small batches together take little longer than one. Those of a call are views of the same arrays.
    Returns tokens, segments (0 = padding, 1.. = place in the row), positions (from 0 in each segment) int32 [B, T];
    first (index of the segment's first token), index (feature id, -1 = none) int32 and weights (0 = none) float32
    [B, S]; and each of `fields`, int32 (see `Field`). Raises
    InputError if something does not fit, a group is not whole, or a field
    is absent.
    """
    if not plans:
        return []
    rows = [0, *itertools.accumulate(plan.num_rows for plan in plans)]
    counts = np.zeros(rows[-1], np.int64)
    for plan, begin in zip(plans, rows, strict=False):
        if len(plan.counts) > plan.num_rows or plan.counts.max(initial=0) > max_segments:
            raise InputError(
                f"{len(plan.counts)} rows of up to {plan.counts.max(initial=0)} features do not fit a batch of "
                f"{plan.num_rows} rows of {max_segments} segments"
            )
        counts[begin : begin + len(plan.counts)] = plan.counts
    ids = np.concatenate([plan.ids for plan in plans])
    begins = features.offsets[ids]
    sizes = features.offsets[ids + 1] - begins
    row = np.arange(len(counts))
    row_of = row.repeat(counts)
    ends = counts.cumsum()
    slot = np.arange(len(ids)) - (ends - counts)[row_of]
    place = row_of * max_segments + slot
    tokens = offsets_of(sizes)  # before each feature
    before = tokens[ends - counts]  # each row
    free = np.repeat([plan.length for plan in plans], [plan.num_rows for plan in plans]) - (tokens[ends] - before)
    first = tokens[:-1] - before[row_of]
    if free.min(initial=0) < 0:
        full = int(free.argmin())
        length = next(plan.length for plan, end in zip(plans, rows[1:], strict=True) if full < end)
        raise InputError(f"a row of {length - free[full]} tokens does not fit the row length {length}")

    # A row is pieces: its features, then padding, if only of 0 tokens. What is said of each is repeated for its tokens.
    piece = np.arange(len(ids)) + row_of
    lengths = np.empty(len(ids) + len(counts), np.int64)
    lengths[piece], lengths[ends + row] = sizes, free
    cells = offsets_of(lengths)
    number = np.zeros(len(lengths), np.int32)
    number[piece] = slot + 1
    source = -cells[:-1]  # of padding: any token, it is overwritten
    source[piece] += begins
    segments = number.repeat(lengths)
    positions = np.arange(cells[-1], dtype=np.int32) - cells[:-1].astype(np.int32).repeat(lengths)
    padding = segments == 0
    positions[padding] = 0
    source = source.repeat(lengths)
    source += np.arange(cells[-1])

    def per_token(values: np.ndarray, empty: int) -> np.ndarray:
        table = values.take(source, mode="clip") if len(values) else np.zeros(len(source), np.int32)
        table[padding] = empty
        return table.astype(np.int32, copy=False)

    def per_segment(value: np.ndarray | float, empty: float, dtype: type) -> np.ndarray:
        table = np.full(len(counts) * max_segments, empty, dtype)
        table[place] = value
        return table.reshape(-1, max_segments)

    tables = {
        "tokens": per_token(features.tokens, pad_id),
        "segments": segments,
        "positions": positions,
        "first": per_segment(first, 0, np.int32),
        "weights": per_segment(1, 0, np.float32),
        "index": per_segment(ids, -1, np.int32),
    }
    texts: dict[str, list[np.ndarray]] = {}
    for field in fields:
        given = {"token": features.token_fields, "target": features.texts}.get(field.kind, features.fields)
        if field.source not in given:
            what = "these examples have no gold labels" if field.gold else "these features were made for another model"
            raise InputError(f"{what} (no field {field.source!r}): they cannot be used")
        values = given[field.source]
        if field.kind == "token":
            tables[field.name] = per_token(values, field.empty)
        elif field.kind == "target":
            texts |= _beside(field.name, values, plans, pad_id)
        elif field.kind == "group":
            tables[field.name] = per_segment(_numbers(values, ids, slot), field.empty, np.int32)
        else:
            shift = first if field.kind == "index" else 0
            tables[field.name] = per_segment(values[ids] + shift, field.empty, np.int32)

    made, at = [], 0
    for plan, begin, end in zip(plans, rows, rows[1:], strict=False):
        shape, to = (plan.num_rows, plan.length), at + plan.num_rows * plan.length
        made.append(
            {key: table[at:to].reshape(shape) if table.ndim == 1 else table[begin:end] for key, table in tables.items()}
        )
        at = to
    for name, of_plan in texts.items():
        for batch, table in zip(made, of_plan, strict=True):
            batch[name] = table
    return made


def _beside(name: str, texts: Texts, plans: Sequence[Plan], pad_id: int) -> dict[str, list[np.ndarray]]:
    """Returns a further text's tokens and segments for each plan, [B, U], as those of the rows that they go beside."""
    found: dict[str, list[np.ndarray]] = {name: [], f"{name}_segments": []}
    for plan in plans:
        length = texts.beside(plan.length)
        sizes = texts.offsets[plan.ids + 1] - texts.offsets[plan.ids]
        row_of = np.arange(len(plan.counts)).repeat(plan.counts)
        before, first = offsets_of(sizes), offsets_of(plan.counts)[:-1]
        begins = before[:-1] - before[first][row_of]
        if (begins + sizes).max(initial=0) > length:
            raise InputError(f"{name} of {(begins + sizes).max()} tokens do not fit beside a row of {plan.length}")
        cells = spread(row_of * length + begins, sizes)
        tokens, segments = np.full(plan.num_rows * length, pad_id, np.int32), np.zeros(plan.num_rows * length, np.int32)
        tokens[cells] = texts.tokens[spread(texts.offsets[plan.ids], sizes)]
        segments[cells] = (np.arange(len(plan.ids)) - first[row_of] + 1).repeat(sizes)
        for key, table in ((name, tokens), (f"{name}_segments", segments)):
            found[key].append(table.reshape(plan.num_rows, length))
    return found


def _numbers(example: np.ndarray, ids: np.ndarray, slot: np.ndarray) -> np.ndarray:
    """Returns the number in its row of the question that each planned choice belongs to, int64 [planned features].

    example int32 [N]: the question of each feature; ids, slot int64 [planned features]: feature and place in the row.
    """
    # The same question may stand in a row twice (sampling with replacement): each time is a question of its own.
    begins = (slot == 0) | (ids != np.roll(ids, 1) + 1) | (example[ids] != example[np.maximum(ids - 1, 0)])
    ends = np.append(begins[1:], True)[: len(begins)]
    before, after = ids - 1, ids + 1
    inner = begins & (before >= 0) & (example[before] == example[ids])
    inner |= ends & (after < len(example)) & (example[np.minimum(after, len(example) - 1)] == example[ids])
    if inner.any():
        raise InputError(
            f"a row holds only some of the choices of question {example[ids[inner][0]]}: plan questions (groups) and "
            "expand the plans"
        )
    number = np.cumsum(begins)
    at_row = np.maximum.accumulate(np.where(slot == 0, number, 0))
    return number - at_row
