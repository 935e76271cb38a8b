"""Do shared weights order networks as training each by itself does? Kendall's tau, also given MACs. Pure.

Accuracy rises with MACs however it is estimated, so that an order by MACs alone may agree well. What shared weights
tell beyond that is the partial tau given MACs (Kendall 1942). And an order that agrees over all networks may say
nothing of the best ones, which a search looks for: hence tau within the best fifth by stand-alone training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from scipy.stats import kendalltau

from nas.evidence.interval import wilson
from nas.study.metric import accuracy_of
from nas.study.objectives import averaged

_ROUNDING = 1e-9
FEW = 5
"""Networks below which nothing is said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How well the order by shared weights agrees with that of one rung.

    Attributes:
        rung: From 0.
        epochs: That the networks were trained for by themselves.
        networks: Measured both ways.
        tau: Kendall's tau-b; None of fewer than `FEW` networks, and where one side has one value for all.
        interval: Of 95 %; None where tau is.
        best: Networks in the best fifth by stand-alone training.
        tau_best: Among those.
        tau_macs: Of MACs instead of shared weights, what an order by cost alone would reach.
        tau_given_macs: Partial tau given MACs.
    """

    rung: int
    epochs: int
    networks: int
    tau: float | None
    interval: tuple[float, float] | None
    best: int
    tau_best: float | None
    tau_macs: float | None
    tau_given_macs: float | None


def agreements(shared: Mapping[str, float], evaluations: Sequence[Mapping[str, Any]]) -> tuple[Agreement, ...]:
    """One for each rung at which networks of both kinds are, the lowest first.

    Args:
        shared: Accuracy with shared weights by digest.
        evaluations: Rows of `Store.evaluations`.
    """
    rungs: dict[int, dict[str, Mapping[str, Any]]] = {}
    for row in averaged(evaluations):
        if row["rung"] is not None and row["digest"] in shared:
            rungs.setdefault(row["rung"], {})[row["digest"]] = row
    found = []
    for rung, rows in sorted(rungs.items()):
        digests = sorted(rows)
        alone = [accuracy_of(rows[digest]) for digest in digests]
        ours, macs = [shared[digest] for digest in digests], [float(rows[digest]["macs"]) for digest in digests]
        value = tau(ours, alone)
        order = sorted(zip((-one for one in alone), macs, range(len(digests)), strict=True))
        best = [place for _, _, place in order[: math.ceil(len(order) / 5)]]
        found.append(
            Agreement(
                rung=rung,
                epochs=max(row["epochs"] for row in rows.values()),
                networks=len(digests),
                tau=value,
                interval=None if value is None else interval(value, len(digests)),
                best=len(best),
                tau_best=tau([ours[i] for i in best], [alone[i] for i in best]),
                tau_macs=tau(macs, alone),
                tau_given_macs=partial_tau(ours, alone, macs),
            )
        )
    return tuple(found)


def at_chance(shared: Sequence[float], *, videos: int, chance: float) -> bool:
    """Whether no network is clear of always naming one class, so that an order of them says nothing.

    Args:
        shared: Top-1 of networks with shared weights.
        videos: That they were measured on.
        chance: Top-1 of always naming the most frequent class.
    """
    if not shared:
        return True
    # The best of many is lucky: Bonferroni's level.
    return wilson(max(shared), videos, 1 - 0.05 / len(shared))[0] <= chance


def tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b; None of few values or where all of one side are equal."""
    if len(a) < FEW or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    return float(kendalltau(a, b).statistic)


def partial_tau(a: Sequence[float], b: Sequence[float], given: Sequence[float]) -> float | None:
    """Kendall's partial tau of a and b given a third; None where one of the three is unknown or explained by it."""
    ab, ac, bc = tau(a, b), tau(a, given), tau(b, given)
    if ab is None:
        return None
    if ac is None or bc is None:  # a third that is the same for all explains nothing
        return ab
    rest = (1 - ac**2) * (1 - bc**2)
    return None if rest < _ROUNDING else max(-1.0, min(1.0, (ab - ac * bc) / math.sqrt(rest)))


def interval(value: float, networks: int, confidence: float = 0.95) -> tuple[float, float]:
    """Fisher's interval with the variance of Fieller, Hartley and Pearson (1957, Biometrika 44).

    Args:
        value: Kendall's tau.
        networks: Behind it, `FEW` at least.
        confidence: Of the interval.
    """
    most = 1.0 - 4.0 / (networks * (networks - 1.0))  # of orders in which two neighbours are exchanged
    near = math.atanh(max(-most, min(most, value)))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(0.437 / (networks - 4))
    low, high = math.tanh(near - half), math.tanh(near + half)
    return (-1.0 if value < -most else low), (1.0 if value > most else high)
