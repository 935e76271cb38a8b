"""Do networks keep their order from one rung to another? Rank correlations of accuracies, with intervals. Pure.

A rung that orders networks as the last one does is a cheap judge; one that does not promotes by luck. Networks that
were measured at both rungs are the better ones of the lower, whose accuracies lie closer together, so that the
correlation over all networks would be larger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.study.metric import accuracy_of
from nas.study.objectives import averaged

FEW = 5  # networks below which nothing is said


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How well two rungs agree.

    Attributes:
        low: The lower rung.
        high: The higher one.
        networks: Measured at both.
        correlation: Spearman's; None of fewer than `FEW` networks, and where one rung has the same accuracy for all.
        interval: Of 95 %.
    """

    low: int
    high: int
    networks: int
    correlation: float | None
    interval: tuple[float, float] | None

    @property
    def unknown(self) -> str:
        """Why there is no correlation."""
        return "too few" if self.networks < FEW else "all alike"

    @property
    def text(self) -> str:
        """In words: `0.83 (0.51 to 0.95, 13 networks)`."""
        count = f"{self.networks} network{'' if self.networks == 1 else 's'}"
        if self.correlation is None or self.interval is None:
            return f"{self.unknown} ({count})"
        return f"{self.correlation:.2f} ({self.interval[0]:.2f} to {self.interval[1]:.2f}, {count})"


def agreements(evaluations: Sequence[Mapping[str, Any]], num_rungs: int) -> tuple[Agreement, ...]:
    """Of each two neighbouring rungs, then of each rung with the last; none while no network is at a second rung.

    Args:
        evaluations: Rows of `Store.evaluations`.
        num_rungs: Of the search.
    """
    at: list[dict[str, float]] = [{} for _ in range(num_rungs)]
    for row in averaged(evaluations):
        if row["rung"] is not None and row["rung"] < num_rungs:
            at[row["rung"]][row["digest"]] = accuracy_of(row)
    last = num_rungs - 1
    pairs = [(rung, rung + 1) for rung in range(last)] + [(rung, last) for rung in range(last - 1)]
    found = []
    for low, high in pairs if any(at[1:]) else ():
        both = sorted(at[low].keys() & at[high].keys())
        value = spearman([at[low][key] for key in both], [at[high][key] for key in both])
        ends = None if value is None else interval(value, len(both))
        found.append(Agreement(low=low, high=high, networks=len(both), correlation=value, interval=ends))
    return tuple(found)


def spearman(a: ArrayLike, b: ArrayLike) -> float | None:
    """Spearman's rank correlation, ties with their mean rank; None of few values or where all of one side are equal.

    It is that of `scipy.stats`, whose import would take as long as all else that `nas status` does.
    """
    x, y = _ranks(a), _ranks(b)
    if len(x) < FEW or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.clip(np.corrcoef(x, y)[0, 1], -1.0, 1.0))


def interval(correlation: float, networks: int, confidence: float = 0.95) -> tuple[float, float]:
    """Fisher's interval with the variance of Bonett and Wright (2000, Psychometrika 65).

    Of two equal orders it would have no width; the end within is then that of the next smaller correlation.

    Args:
        correlation: Spearman's.
        networks: Behind it, `FEW` at least.
        confidence: Of the interval.
    """
    most = 1.0 - 12.0 / (networks * (networks**2 - 1.0))  # of orders in which two neighbours are exchanged
    near = math.atanh(max(-most, min(most, correlation)))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt((1 + correlation**2 / 2) / (networks - 3))
    low, high = math.tanh(near - half), math.tanh(near + half)
    return (-1.0 if correlation < -most else low), (1.0 if correlation > most else high)


def _ranks(values: ArrayLike) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2.0)[inverse])
