"""How large a difference some seeds can show, and how many seeds a difference needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nas.evidence.roots import crossing, upper_bracket
from nas.evidence.values import EvidenceError

POWER = 0.8


def detects(difference: float, se: float, df: float, *, alpha: float = 0.05) -> float:
    """Power of a two-sided t test: the chance that a true difference is found (Cohen 1988, §2.5).

    Args:
        difference: The true one.
        se: Standard error of its estimate.
        df: Degrees of freedom of `se`; may be infinite.
        alpha: Level of the test.
    """
    from scipy.special import nctdtr, ndtr, ndtri, stdtrit

    shift = abs(difference) / se
    if math.isinf(df) or df > 1e5:
        reach = float(ndtri(1 - alpha / 2))
        return float(ndtr(shift - reach) + ndtr(-shift - reach))
    reach = float(stdtrit(df, 1 - alpha / 2))
    # Where a tail is below 1e-20 or so, scipy's noncentral t is lost in rounding and says nan.
    missed, opposite = (0.0 if math.isnan(tail) else float(tail) for tail in nctdtr(df, shift, [reach, -reach]))
    return 1 - missed + opposite


def smallest_visible(se: float, df: float, *, alpha: float = 0.05, power: float = POWER) -> float:
    """The difference that a test with this standard error finds with probability `power`."""
    _check(alpha=alpha, power=power)
    if se == 0:
        return 0.0

    def missing(difference: float) -> float:
        return power - detects(difference, se, df, alpha=alpha)

    return crossing(missing, *upper_bracket(missing, se))


def visible_difference(
    sd: float, pairs: int, *, alpha: float = 0.05, power: float = POWER, se_clips: float = 0.0
) -> float:
    """The difference that so many pairs show with probability `power`.

    Args:
        sd: Standard deviation of paired differences over seeds.
        pairs: Seeds, at least 2.
        alpha: Level of the two-sided test.
        power: Chance of finding it.
        se_clips: Standard error from the choice of clips alone, which more seeds do not lessen.
    """
    if pairs < 2:
        raise EvidenceError(f"pairs >= 2 must hold, but got pairs={pairs}; one pair says nothing of the noise")
    se, df = _se(sd, pairs, se_clips)
    return smallest_visible(se, df, alpha=alpha, power=power)


def pairs_needed(
    difference: float,
    sd: float,
    *,
    alpha: float = 0.05,
    power: float = POWER,
    se_clips: float = 0.0,
    most: int = 1000,
) -> int | None:
    """The fewest pairs that show a difference with probability `power`.

    Returns:
        Pairs, at least 2; None if `most` are not enough. Where `se_clips` is the larger part, no number is: more clips
        are needed then, not more seeds.
    """
    if difference == 0:
        raise EvidenceError("difference != 0 must hold: no number of pairs shows a difference of nothing")

    def enough(pairs: int) -> bool:
        se, df = _se(sd, pairs, se_clips)
        return se == 0 or detects(difference, se, df, alpha=alpha) >= power

    _check(alpha=alpha, power=power)
    if not enough(most):
        return None
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def power_curve(
    differences: Sequence[float], sd: float, pairs: Sequence[int], *, alpha: float = 0.05, se_clips: float = 0.0
) -> list[list[float]]:
    """Chance of finding each difference (columns) with each number of pairs (rows)."""
    rows = [_se(sd, count, se_clips) for count in pairs]
    return [[detects(difference, se, df, alpha=alpha) for difference in differences] for se, df in rows]


def _se(sd: float, pairs: int, se_clips: float) -> tuple[float, float]:
    """Standard error and Satterthwaite's degrees of freedom; the noise of clips is taken as well known."""
    seeds = sd**2 / pairs
    total = seeds + se_clips**2
    df = (pairs - 1) * (total / seeds) ** 2 if seeds > 0 else math.inf
    return math.sqrt(total), df


def _check(*, alpha: float, power: float) -> None:
    if not 0 < alpha < 0.5:
        raise EvidenceError(f"0 < alpha < 0.5 must hold, but got alpha={alpha!r}")
    if not alpha < power < 1:
        raise EvidenceError(f"alpha < power < 1 must hold, but got power={power!r} with alpha={alpha!r}")
