"""Intervals over videos: what another draw of as many videos would have given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.accuracies import wilson

_FEW = 200  # different values, up to which counting them is cheaper than drawing videos
_CELLS = 4_000_000  # drawn at once: 64 MB


def interval_over_videos(
    values: NDArray[np.float64],
    *,
    least: float = 0.0,
    most: float = 1.0,
    confidence: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of a mean over videos: Wilson's where each is right or wrong, else that of a percentile bootstrap.

    (Efron 1979; Efron and Tibshirani 1993, chapter 13.) For an accuracy a video's value is 1 or 0, or its share of
    clips or seeds that are right; for a difference of two networks it is the difference of theirs, so that the interval
    is paired by video.

    Where every video has one and the same value, there is nothing to draw from, and an interval of no width would be a
    lie. Then the bound is the one that holds for what was never seen: in V videos, something that did not happen has a
    share of at most 1 - (alpha / 2)^(1 / V) (Clopper and Pearson 1934).

    Args:
        values: (V,) one a video, V at least 1.
        least: Smallest value that a video can have.
        most: Largest.
        confidence: Of the interval, in 0..1.
        resamples: Draws.
        seed: Of the draws: the same values give the same interval.

    Returns:
        Low and high.
    """
    values = np.asarray(values, dtype=np.float64)
    total, tail = len(values), (1 - confidence) / 2
    kinds, counts = np.unique(values, return_counts=True)
    if least == 0.0 and most == 1.0 and set(kinds.tolist()) <= {0.0, 1.0}:
        return wilson(float(values.mean()), total, confidence)
    if len(kinds) == 1:
        unseen = 1 - tail ** (1 / total)
        return float(kinds[0] - unseen * (kinds[0] - least)), float(kinds[0] + unseen * (most - kinds[0]))
    rng = np.random.default_rng(seed)
    if len(kinds) <= _FEW:
        # Drawing videos is drawing how many of each value: exact, and it costs nothing for many videos.
        means = rng.multinomial(total, counts / total, resamples) @ kinds / total
    else:  # as of average precisions, of which nearly every video has its own
        rows = max(1, _CELLS // total)
        parts = [min(rows, resamples - start) for start in range(0, resamples, rows)]
        means = np.concatenate([values[rng.integers(total, size=(part, total))].mean(1) for part in parts])
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def interval_over_seeds_and_videos(
    table: NDArray[np.float64], *, confidence: float = 0.95, resamples: int = 1999, seed: int = 0
) -> tuple[float, float] | None:
    """Interval of the mean over seeds and videos, both drawn anew; see `bootstrap.bootstrap_interval`.

    Args:
        table: (seeds, V) what each video earned with each seed, in shares of 1.
        confidence: Of the interval.
        resamples: Draws.
        seed: Of the draws.

    Returns:
        Low and high in 0..1; None with fewer than two seeds, or where there is no noise to draw from.
    """
    from nas.evidence.bootstrap import bootstrap_interval

    if (table == table.flat[0]).all():
        return None
    found = bootstrap_interval(table.mean(axis=1), table, confidence=confidence, resamples=resamples, seed=seed)
    return None if found is None else (max(found[0], 0.0), min(found[1], 1.0))
