"""How alike translations are in each hidden state: the layer-wise alignment probe of 2506.15415."""

import dataclasses

import numpy as np

from jxstilts.runtime import InputError


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Mean cosines by hidden state, [L + 1]. pairs: of translations; others: of each source with all other targets."""

    pairs: np.ndarray
    others: np.ndarray

    @property
    def margin(self) -> np.ndarray:
        """How much more alike translations are than what does not belong together, which are alike, too, in a narrow
        space of vectors; [L + 1].
        """
        return self.pairs - self.others


def probe(source: np.ndarray, target: np.ndarray) -> Alignment:
    """Returns the alignment of pairs. source, target: [L + 1, N, D], row n of one the translation of row n of the other

    (`Evaluator.embed` makes them). Raises InputError for other shapes, or fewer than two pairs.
    """
    if source.shape != target.shape or source.ndim != 3 or source.shape[1] < 2:
        raise InputError(
            f"probe: {source.shape} and {target.shape}: expected twice [hidden states, 2 pairs or more, D]"
        )
    one, other = (side / np.maximum(np.linalg.norm(side, axis=-1, keepdims=True), 1e-12) for side in (source, target))
    pairs = np.einsum("lnd,lnd->ln", one, other)
    count = source.shape[1]
    every = np.einsum("ld,ld->l", one.sum(1), other.sum(1))  # of all sources with all targets
    return Alignment(pairs.mean(1), (every - pairs.sum(1)) / (count * (count - 1)))
