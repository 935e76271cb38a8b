"""The textbook parts: signed ranks, Hedges' g, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def wilcoxon(differences: NDArray[np.float64]) -> float:
    """Exact two-sided p of Wilcoxon's signed-rank test, also with ties.

    Differences of zero are dropped and ties share the mean rank, as Wilcoxon did; the law of the rank sum over all
    signs is computed for these very ranks (Hollander, Wolfe and Chicken 2014, §3.1), where tables hold without ties
    only. With n differences p is at least 2 / 2**n: 0.0625 with five, so five pairs can never be "significant" at 0.05.

    Args:
        differences: (pairs,). Those that agree to 1e-12 are ties.
    """
    kept = np.round(differences, 12)
    kept = kept[kept != 0]
    if len(kept) == 0:
        return 1.0
    _, which, counts = np.unique(np.abs(kept), return_inverse=True, return_counts=True)
    doubled = (2 * np.cumsum(counts) - counts + 1)[which]  # mean ranks are halves, so twice them are whole
    total = int(doubled.sum())
    ways = np.zeros(total + 1)
    ways[0] = 1.0
    for rank in doubled:
        ways[rank:] = ways[rank:] + ways[:-rank]
    positive = int(doubled[kept > 0].sum())
    smaller = min(positive, total - positive)
    return float(min(1.0, 2 * ways[: smaller + 1].sum() / ways.sum()))


def small_sample_factor(df: int) -> float:
    """Hedges' exact correction J(df) of a standardised mean difference (Hedges 1981, eq. 6e)."""
    if df < 2:
        return 0.0
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)


def hedges_g(differences: NDArray[np.float64]) -> float | None:
    """Mean of paired differences over their standard deviation, corrected for few pairs.

    None with fewer than three differences (the correction has no finite mean to correct), or where all are equal.
    """
    if len(differences) < 3:
        return None
    sd = float(differences.std(ddof=1))
    return None if sd < 1e-12 else small_sample_factor(len(differences) - 1) * float(differences.mean()) / sd


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values (Holm 1979): reject where at most alpha, and at most alpha families err."""
    order = sorted(range(len(values)), key=lambda position: values[position])
    adjusted = [0.0] * len(values)
    reached = 0.0
    for done, position in enumerate(order):
        reached = max(reached, min(1.0, (len(values) - done) * values[position]))
        adjusted[position] = reached
    return adjusted
