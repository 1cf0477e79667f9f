"""Features to batches of static shape. Pure numpy: first a plan (which features in which rows), then the arrays.

A batch is a dict of arrays; an unpacked batch is a packed one with one segment per row, so there is one code path.
Legend: B rows, T tokens of a row, S segments of a row, N features.
"""

import bisect
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from jxstilts.data.features import Features
from jxstilts.data.ragged import offsets_of
from jxstilts.runtime import InputError, suggest

# What each type adds to a batch when it is labelled: batch key -> (feature field, what it is: a value or the index of
# a token, of each segment, or a value of each token).
LABELS = {
    "classification": {"labels": ("label", "value")},
    "choice": {"labels": ("label", "value")},
    "span": {"start": ("start", "index"), "end": ("end", "index")},
    "tagging": {"tags": ("tag", "token")},
    "text": {},
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """One batch to assemble: the feature ids of each row, the row length T and the number of rows B (some empty)."""

    rows: tuple[tuple[int, ...], ...]
    length: int
    num_rows: int


def groups(features: Features, type: str) -> np.ndarray:
    """Returns which features belong in one row: those of unit u are groups[u]:groups[u+1], int64 [U+1].

    A unit is a question with all its choices, else one feature. Plans are made for units: their lengths are
    np.diff(features.offsets[groups]); `expand` turns them into plans for features.
    """
    if type != "choice":
        return np.arange(len(features) + 1)
    begins = np.flatnonzero(np.diff(features.fields["example"], prepend=-1))
    return np.append(begins, len(features)).astype(np.int64)


def expand(plans: Sequence["Plan"], groups: np.ndarray) -> list["Plan"]:
    """Returns plans made for the units of `groups` as plans for features: each unit becomes its features, in order."""
    if len(groups) == groups[-1] + 1:  # a unit is a feature
        return list(plans)
    at = np.asarray(groups).tolist()
    return [
        dataclasses.replace(
            plan, rows=tuple(tuple(i for unit in row for i in range(at[unit], at[unit + 1])) for row in plan.rows)
        )
        for plan in plans
    ]


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


def _bucket(length: int, buckets: Sequence[int]) -> int:
    place = bisect.bisect_left(buckets, length)
    if place == len(buckets):
        raise InputError(f"a feature has {length} tokens, the longest row {buckets[-1]}: raise the row length")
    return buckets[place]


def _single(ids: np.ndarray, length: int, num_rows: int) -> Plan:
    return Plan(tuple((feature,) for feature in ids.tolist()), length, num_rows)


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
    order = permutation(len(lengths), seed, epoch)
    plans = []
    for begin in range(0, len(order), batch_size * sort_window):
        window = order[begin : begin + batch_size * sort_window]
        window = window[np.argsort(lengths[window], kind="stable")]
        for ids in np.split(window, range(batch_size, len(window), batch_size)):
            plans.append(_single(ids, _bucket(int(lengths[ids].max()), buckets), batch_size))
    return [plans[i] for i in permutation(len(plans), seed, epoch, 1)]


def select(plans: Sequence[Plan], ids: np.ndarray) -> list[Plan]:
    """Returns plans made for `features[ids]` as plans for `features`; ids int [number of planned features]."""
    if np.array_equal(ids, np.arange(len(ids))):
        return list(plans)
    ids = np.asarray(ids).tolist()
    return [dataclasses.replace(plan, rows=tuple(tuple(ids[i] for i in row) for row in plan.rows)) for plan in plans]


def efficiency(plans: Sequence[Plan], lengths: np.ndarray) -> float:
    """Returns real tokens / tokens of the batches, between 0 and 1."""
    ids = [feature for plan in plans for row in plan.rows for feature in row]
    return int(np.asarray(lengths)[ids].sum()) / max(1, sum(plan.length * plan.num_rows for plan in plans))


def assemble(
    features: Features,
    rows: Sequence[Sequence[int]],
    *,
    type: str,
    length: int,
    num_rows: int,
    max_segments: int,
    pad_id: int = 1,
    labelled: bool = True,
) -> dict[str, np.ndarray]:
    """Builds a batch with row r holding the features rows[r], one after the other; missing rows are padding.

    Returns tokens, segments (0 = padding, 1.. = place in the row), positions (from 0 in each segment) int32 [B, T];
    first (index of the segment's first token), index (feature id, -1 = none) int32 and weights (0 = none) float32
    [B, S]; choice: group (number of the question in its row, from 0; -1 = none) int32 [B, S]. If labelled:
    classification labels int32 [B, S]; choice labels int32 [B, S] (1 = right); span start, end int32 [B, S], token
    index in the row; tagging tags int32 [B, T] (-1 = none). Raises InputError if something does not fit, a question
    lacks some of its choices, or labels are asked for and absent.
    """
    if type not in LABELS:
        raise InputError(suggest("feature type", type, LABELS))
    counts = np.fromiter(map(len, rows), np.int64, len(rows))
    ids = np.fromiter(itertools.chain.from_iterable(rows), np.int64)
    if len(rows) > num_rows or counts.max(initial=0) > max_segments:
        raise InputError(
            f"{len(rows)} rows of up to {counts.max(initial=0)} features do not fit a batch of {num_rows} rows "
            f"of {max_segments} segments"
        )
    begins = features.offsets[ids]
    sizes = features.offsets[ids + 1] - begins
    ends = counts.cumsum()
    row_of = np.arange(len(rows)).repeat(counts)
    slot = np.arange(len(ids)) - (ends - counts).repeat(counts)
    places = offsets_of(sizes)
    held = places[ends] - places[ends - counts]  # tokens of each row
    first = places[:-1] - places[ends - counts].repeat(counts)
    if held.max(initial=0) > length:
        raise InputError(f"a row of {held.max()} tokens does not fit the row length {length}")

    # A row's tokens stand at its beginning, one after the other: a mask puts them there a row at a time.
    real = np.arange(length) < np.pad(held, (0, num_rows - len(rows)))[:, None]
    place = np.arange(places[-1], dtype=np.int32)
    source = (begins - places[:-1]).repeat(sizes) + place

    def per_token(value: np.ndarray, empty: int) -> np.ndarray:
        table = np.full((num_rows, length), empty, np.int32)
        table[real] = value
        return table

    def per_segment(value: np.ndarray | float, empty: float, dtype: type) -> np.ndarray:
        table = np.full((num_rows, max_segments), empty, dtype)
        table[row_of, slot] = value
        return table

    batch = {
        "tokens": per_token(features.tokens.take(source), pad_id),
        "segments": per_token((slot + 1).astype(np.int32).repeat(sizes), 0),
        "positions": per_token(place - places[:-1].astype(np.int32).repeat(sizes), 0),
        "first": per_segment(first, 0, np.int32),
        "weights": per_segment(1, 0, np.float32),
        "index": per_segment(ids, -1, np.int32),
    }
    if type == "choice":
        batch["group"] = per_segment(_questions(features.fields["example"], ids, slot), -1, np.int32)
    for key, (field, kind) in LABELS[type].items() if labelled else ():
        fields = features.token_fields if kind == "token" else features.fields
        if field not in fields:
            raise InputError(f"these {type} examples have no gold labels (no field {field!r}): they cannot be used")
        if kind == "token":
            batch[key] = per_token(fields[field].take(source), -1)
        else:
            batch[key] = per_segment(fields[field][ids] + (first if kind == "index" else 0), 0, np.int32)
    return batch


def _questions(example: np.ndarray, ids: np.ndarray, slot: np.ndarray) -> np.ndarray:
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


def assemble_plan(features: Features, plan: Plan, **options) -> dict[str, np.ndarray]:
    """Builds the batch of a plan; the options are those of `assemble`: type, max_segments, pad_id, labelled."""
    return assemble(features, plan.rows, length=plan.length, num_rows=plan.num_rows, **options)


def batches(features: Features, plans: Sequence[Plan], **options) -> Iterator[dict[str, np.ndarray]]:
    """Yields the batches of a list of plans; the options are those of `assemble`."""
    return (assemble_plan(features, plan, **options) for plan in plans)
