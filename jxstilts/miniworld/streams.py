"""Random numbers that are the same on any machine and with any numpy: whole numbers from Philox's raw bits."""

import hashlib
import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

BLOCK = 64


class Stream:
    """A stream of draws that is a function of its key alone, such as (0, "xnli", "test").

    What has its own key does not change when another part of the world is drawn differently.
    """

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
        words = [int.from_bytes(digest[at : at + 8], "little") for at in (0, 8)]
        bits = np.random.Philox(key=np.array(words, np.uint64))
        blocks: Iterator[list[int]] = (bits.random_raw(BLOCK).tolist() for _ in itertools.count())
        self._raw = itertools.chain.from_iterable(blocks).__next__

    def below(self, count: int) -> int:
        """Returns a number from 0 to count - 1."""
        return self._raw() * count >> 64

    def chance(self, percent: int) -> bool:
        """Returns True in `percent` of a hundred cases."""
        return self._raw() * 100 >> 64 < percent

    def pick(self, items: Sequence) -> Any:
        """Returns one item."""
        return items[self._raw() * len(items) >> 64]

    def other(self, items: Sequence, *taken: object) -> Any:
        """Returns one item that is none of those `taken`."""
        return self.pick([item for item in items if item not in taken])

    def shuffled(self, items: Sequence) -> list:
        """Returns the items in another order (Fisher and Yates)."""
        items = list(items)
        for last in range(len(items) - 1, 0, -1):
            place = self.below(last + 1)
            items[last], items[place] = items[place], items[last]
        return items


class Choice:
    """A choice among items with whole-number weights."""

    def __init__(self, items: Sequence, weights: Sequence[int]) -> None:
        self.items, self.ends = list(items), list(itertools.accumulate(weights))

    def draw(self, stream: Stream) -> Any:
        """Returns one item, drawn in proportion to its weight."""
        return self.items[bisect_right(self.ends, stream.below(self.ends[-1]))]
