"""Batches by step number, and the Grain iterator over them: the same order on every host, resumable at any step.

The order is a function of (seed, epoch, index). Every host plans whole batches and takes its own rows of each, so
a run may go on with another number of hosts and still sees the very same batches.
"""

import bisect
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from jxstilts.data import batching, packing
from jxstilts.data.batching import Plan
from jxstilts.data.features import Features, Field
from jxstilts.runtime import InputError

# What is assembled at once, at most: of batches of 32, the calls of numpy alone cost more than their work.
BLOCK_STEPS, BLOCK_TOKENS = 8, 2**17
LENGTHS = 16  # groups of like lengths that `like_lengths` tells apart


class BatchSource:
    """Random access to the batches of a run: source[step] is the global batch of that step (see `batching`).

    planner: epoch -> the plans of that epoch, a pure function. An epoch's plans are made in a thread while the epoch
    before it is read; to find a step far ahead, those of the epochs before it are made too, since their number of
    batches may differ. Small batches are assembled several at once, so their arrays are views, not to be written to.
    """

    def __init__(
        self,
        features: Features,
        planner: Callable[[int], Sequence[Plan]],
        num_steps: int,
        *,
        fields: Sequence[Field],
        pad_id: int,
        max_segments: int = 1,
    ):
        self.features = features
        self.planner = planner
        self._num_steps = num_steps
        self._options = {"fields": fields, "max_segments": max_segments, "pad_id": pad_id}
        self._ends: list[int] = []  # the first step after each epoch planned so far
        self._plans: dict[int, Sequence[Plan]] = {}
        self._ahead: dict[int, futures.Future] = {}  # the epoch after those, if its plans are being made
        self._block = 0  # steps assembled at once, decided by the first plan that is asked for
        self._blocks: dict[int, list[dict[str, np.ndarray]]] = {}
        self._lock = threading.RLock()  # Grain reads ahead in a thread

    def __len__(self) -> int:
        return self._num_steps

    def __repr__(self) -> str:
        return f"BatchSource(steps={self._num_steps}, features={len(self.features)})"

    def plan(self, step: int) -> Plan:
        """Returns the plan of a step: which features its rows hold, and its shape. Raises IndexError."""
        if not 0 <= step < self._num_steps:
            raise IndexError(f"step {step} of a run of {self._num_steps} steps")
        with self._lock:
            while not self._ends or self._ends[-1] <= step:
                plans = self._epoch(len(self._ends))
                self._ends.append((self._ends[-1] if self._ends else 0) + len(plans))
            epoch = bisect.bisect_right(self._ends, step)
            begin = self._ends[epoch - 1] if epoch else 0
            plan = self._epoch(epoch)[step - begin]
            if epoch + 1 == len(self._ends) and not self._ahead and self._ends[epoch] < self._num_steps:
                planning = futures.ThreadPoolExecutor(1, thread_name_prefix="plan-epoch")
                self._ahead = {epoch + 1: planning.submit(self.planner, epoch + 1)}
                planning.shutdown(wait=False)  # the thread ends with the plans
            return plan

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        with self._lock:
            plan = self.plan(step)
            if not self._block:
                self._block = min(max(BLOCK_TOKENS // (plan.num_rows * plan.length), 1), BLOCK_STEPS)
            number, place = divmod(step, self._block)
            if number not in self._blocks:
                steps = range(step - place, min(step - place + self._block, self._num_steps))
                batches = batching.assemble_plans(self.features, [self.plan(i) for i in steps], **self._options)
                for table in (table for batch in batches for table in batch.values()):
                    table.flags.writeable = False
                self._blocks = self._last(self._blocks, number) | {number: batches}
            return dict(self._blocks[number][place])

    def _epoch(self, epoch: int) -> Sequence[Plan]:
        if epoch not in self._plans:
            plans = self._ahead.pop(epoch).result() if epoch in self._ahead else self.planner(epoch)
            if not plans:
                raise InputError(f"epoch {epoch} has no batches: there are no features to train on")
            self._plans = self._last(self._plans, epoch) | {epoch: plans}
        return self._plans[epoch]

    @staticmethod
    def _last(made: dict[int, Any], number: int) -> dict[int, Any]:
        """What is kept beside the new one: the one before it, since a block may begin in the epoch before."""
        return {kept: old for kept, old in made.items() if kept == number - 1}


class Batches:
    """Iterator over the batches from `start_step` on, with this process's rows of each.

    source: len(source) steps; source[step] is a batch, or a dict of batches. A process has rows
    [i * B / n, (i + 1) * B / n) of a batch of B. Grain makes `prefetch` batches ahead in a thread (0: none), from the
    second on: the first is made here, and the device is at work on it while Grain is imported. get_state() is
    {"next_index": step}, the same for every process; set_state() goes to any step.
    Raises InputError for a start_step outside the run, and for batches that the processes cannot share evenly.
    """

    def __init__(self, source, start_step: int = 0, process_index: int = 0, process_count: int = 1, prefetch: int = 4):
        if not 0 <= start_step <= len(source):
            raise InputError(f"start_step {start_step} is outside a run of {len(source)} steps")
        self._source, self._prefetch = source, prefetch
        self._process = process_index, process_count
        self.set_state({"next_index": start_step})

    def get_state(self) -> dict[str, int]:
        return {"next_index": self._next}

    def set_state(self, state: Mapping[str, int]) -> None:
        self._next, self._first, self._ahead = state["next_index"], True, None

    def __iter__(self):
        return self

    def __next__(self):
        if self._next >= len(self._source):
            raise StopIteration
        if self._first:
            batch = self._source[self._next]
        else:
            self._ahead = self._ahead or self._reader()
            batch = next(self._ahead)
        self._next, self._first = self._next + 1, False
        return self._own(batch) if self._process[1] > 1 else batch

    def _reader(self):
        import grain

        # One thread: two would wait for each other, since what is done here mostly holds the interpreter's lock.
        options = grain.ReadOptions(num_threads=min(self._prefetch, 1), prefetch_buffer_size=self._prefetch)
        reader = iter(grain.MapDataset.source(self._source).to_iter_dataset(options))
        reader.set_state({**reader.get_state(), "next_index": self._next})
        return reader

    def _own(self, batch):
        if isinstance(batch, dict):
            return {name: self._own(value) for name, value in batch.items()}
        index, count = self._process
        if len(batch) % count:
            raise InputError(f"a batch of {len(batch)} rows cannot be shared by {count} processes")
        rows = len(batch) // count
        return batch[index * rows : (index + 1) * rows]


def language_probabilities(token_counts: Mapping[str, int], exponent: float) -> dict[str, float]:
    """Returns p proportional to n^exponent over the languages with text (XLM-R: 0.3; 1 = by size, 0 = all alike)."""
    present = {language: count for language, count in token_counts.items() if count > 0}
    if not present:
        raise InputError("there is no text in any language to sample from")
    weights = np.array(list(present.values()), np.float64) ** exponent
    shares = dict(zip(present, (weights / weights.sum()).tolist(), strict=True))
    return {language: shares.get(language, 0.0) for language in token_counts}


def like_lengths(
    groups: Mapping[str, np.ndarray], lengths: np.ndarray, shares: Mapping[str, float], like: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Returns (groups, shares) for `mixture_ids`, by which every language's features are about as long as `like`.

    groups, shares: of the languages, of which a share is one of the features here. like: int [M], the lengths of
    others. Each group becomes LENGTHS groups, between the quantiles of `like`, and each of these is drawn as often as
    lengths like its own are in `like`. Features that are shorter or longer than all of `like` are left out; a group
    without features leaves its share to the nearest one. Raises InputError for a language that has no such features.
    """
    lengths, like = np.asarray(lengths), np.asarray(like)
    edges = np.unique(np.quantile(like, np.linspace(0, 1, LENGTHS + 1)[1:-1], method="inverted_cdf"))
    wanted = np.bincount(np.searchsorted(edges, like), minlength=len(edges) + 1) / len(like)
    found, drawn = {}, {}
    for language, ids in groups.items():
        inside = ids[(lengths[ids] >= like.min()) & (lengths[ids] <= like.max())]
        place = np.searchsorted(edges, lengths[inside])
        present = np.unique(place)
        if not len(present):
            raise InputError(f"{language} has no text of {like.min()} to {like.max()} tokens, as long as the others'")
        nearest = present[np.abs(present[None] - np.arange(len(wanted))[:, None]).argmin(1)]
        for number in present.tolist():
            name, members = f"{language}/{number:02d}", inside[place == number]
            found[name] = members
            drawn[name] = shares[language] * wanted[nearest == number].sum() * float(lengths[members].mean())
    whole = sum(drawn.values())
    return found, {name: share / whole for name, share in drawn.items()}


def mixture_ids(
    groups: Mapping[str, np.ndarray],
    lengths: np.ndarray,
    probabilities: Mapping[str, float],
    *,
    seed: int,
    epoch: int,
    count: int | None = None,
) -> np.ndarray:
    """Returns int64 [about count] ids of the features that make up an epoch of a multilingual mixture.

    groups: language -> ids of its features; lengths int [N]; probabilities: language -> its share of the tokens;
    count: features in an epoch, by default as many as there are. Each language gives the same number in each epoch
    and is read without replacement, pass after pass, on through the epochs: a small language comes several times in
    an epoch, a large one spreads over several. A function of (seed, epoch).
    """
    names = sorted(language for language in groups if probabilities[language] > 0)
    empty = [language for language in names if not len(groups[language])]
    if empty or not names:
        raise InputError(f"no text to sample from in: {', '.join(empty) or 'any language'}")
    lengths = np.asarray(lengths)
    draws = np.array([probabilities[name] / lengths[groups[name]].mean() for name in names])
    total = sum(len(groups[name]) for name in names) if count is None else count
    quotas = np.rint(draws / draws.sum() * total).astype(np.int64)
    ids = []
    for number, (name, quota) in enumerate(zip(names, quotas.tolist(), strict=True)):
        group = np.asarray(groups[name])
        places = np.arange(epoch * quota, (epoch + 1) * quota)
        for turn in np.unique(places // len(group)).tolist():
            order = group[batching.permutation(len(group), seed, turn, 2, number)]
            ids.append(order[places[places // len(group) == turn] % len(group)])
    return np.concatenate(ids)


def plan_mixture(
    groups: Mapping[str, np.ndarray],
    lengths: np.ndarray,
    probabilities: Mapping[str, float],
    *,
    num_rows: int,
    length: int,
    max_segments: int,
    seed: int,
    epoch: int,
    count: int | None = None,
) -> list[Plan]:
    """Plans an epoch of packed batches of a multilingual mixture; see `mixture_ids` and `packing.plan_packed`."""
    ids = mixture_ids(groups, lengths, probabilities, seed=seed, epoch=epoch, count=count)
    packed = {"num_rows": num_rows, "length": length, "max_segments": max_segments}
    return batching.select(packing.plan_packed(np.asarray(lengths)[ids], seed=seed, epoch=epoch, **packed), ids)
