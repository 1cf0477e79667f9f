"""What a search ranks: a pool of texts with their ids, which may be too many to hold in memory."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, overload


class Candidates(Sequence):
    """A pool in its order; candidate i is {"id", "text"}.

    key: a digest of all ids and texts, or of the file that they are in. Equal keys are equal pools, so that vectors of
    the one are vectors of the other.
    """

    def __init__(self, rows: Iterable[dict[str, str]]):
        self._rows = list(rows)
        digest = hashlib.sha256()
        for row in self._rows:
            digest.update(f"{len(row['id'])} {row['id']}{len(row['text'])} {row['text']}".encode())
        self.key = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> dict[str, str]: ...
    @overload
    def __getitem__(self, place: slice) -> list[dict[str, str]]: ...
    def __getitem__(self, place: Any) -> Any:
        return self._rows[place]

    def ids(self) -> Sequence[str]:
        """Returns the ids of all candidates, in order."""
        return [row["id"] for row in self._rows]
