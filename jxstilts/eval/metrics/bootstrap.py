"""The percentile bootstrap (Efron 1979): values of draws with replacement, of which a few are in memory at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

CELLS = 2_000_000  # draws x distinct items held at once: some tens of MB


def chunks(draws: int, cells: int) -> Iterator[int]:
    """Yields numbers of draws that add up to `draws`, each so that draws x `cells` is at most CELLS."""
    step = max(1, CELLS // int(cells))
    for begin in range(0, draws, step):
        yield min(step, draws - begin)


def interval(samples: np.ndarray, level: float) -> tuple[float, float]:
    """Returns (low, high) of the draws [n] in which the value is defined."""
    low, high = np.percentile(samples[np.isfinite(samples)], [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def intervals(
    names: Iterable[str],
    counts: np.ndarray,
    draw: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    cells: int,
    level: float,
    draws: int,
) -> dict[str, tuple[float, float]]:
    """Returns {value name: (low, high)} over other draws of as many items; the same for the same items.

    counts [distinct]: how often each distinct item is there, so that 100,000 right-or-wrong answers cost as much as
    two. draw: weights [draws, distinct] -> {value name: [draws]}. cells: what `draw` holds for each draw.
    """
    rng, n = np.random.default_rng(0), int(counts.sum())
    parts = [draw(rng.multinomial(n, counts / n, number).astype(np.float64)) for number in chunks(draws, cells)]
    return {name: interval(np.concatenate([part[name] for part in parts]), level) for name in names}
