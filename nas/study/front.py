"""Comparing networks: non-dominated ranks, fronts and hypervolume. Pure; every objective is minimised."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

CORNER = 1.05
"""The reference of a hypervolume on axes that are scaled to 0..1: just beyond the worst, so that extremes count."""


def front_ranks(values: ArrayLike) -> NDArray[np.int64]:
    """Non-dominated sorting.

    Args:
        values: (points, objectives), to be minimised. Equal points share a rank.

    Returns:
        (points,) ranks from 0, the front of all; rank r is the front once the ranks below are taken away.
    """
    points = np.asarray(values, dtype=float)
    return np.asarray(moocore.pareto_rank(points), dtype=np.int64) if len(points) else np.zeros(0, dtype=np.int64)


def front(values: ArrayLike) -> list[int]:
    """Positions of the points that no other dominates, in their order."""
    points = np.asarray(values, dtype=float)
    return [] if len(points) == 0 else [int(i) for i in np.flatnonzero(front_ranks(points) == 0)]


def hypervolume(values: ArrayLike, reference: Sequence[float]) -> float:
    """Volume dominated by points, up to `reference`.

    Args:
        values: (points, objectives), to be minimised.
        reference: The corner (worst of all objectives) that bounds it; points beyond it add nothing.
    """
    points = np.asarray(values, dtype=float).reshape(-1, len(reference))
    return float(moocore.hypervolume(points, ref=np.asarray(reference, dtype=float))) if len(points) else 0.0
