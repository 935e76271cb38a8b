"""Variances of a mean difference from seeds and clips; its tests and intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def crossing(function: Callable[[float], float], low: float, high: float) -> float:
    """A zero of a continuous function between two points of opposite sign.

    The Illinois method (Dowell and Jarratt, BIT 11, 1971): false position, in which an end that stays too long loses
    half of its weight. About ten evaluations give ten digits.
    """
    at_low, at_high = function(low), function(high)
    side = 0
    for _ in range(100):
        if at_low == at_high or high - low <= 1e-11 * max(abs(low), abs(high)):
            break
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        at_middle = function(middle)
        if abs(at_middle) < 1e-13:
            return middle
        if (at_middle > 0) == (at_high > 0):
            high, at_high = middle, at_middle
            at_low = at_low / 2 if side == 1 else at_low
            side = 1
        else:
            low, at_low = middle, at_middle
            at_high = at_high / 2 if side == -1 else at_high
            side = -1
    return (low + high) / 2


def upper_bracket(function: Callable[[float], float], start: float) -> tuple[float, float]:
    """Doubles from `start` until a function that begins positive is so no more; the last two points."""
    low, high = 0.0, start
    while function(high) > 0:
        low, high = high, 2 * high
    return low, high


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A linear contrast of runs (its simplest case: the mean of paired differences) and its sources of noise.

    Cells are runs x clips with crossed random effects: d_sc = mean + seed_s + clip_c + rest_sc. The three variances are
    the mean squares of that layout divided by the number of cells, so that an unbiased variance of the mean is
    `seeds + clips - rest` (Cornfield and Tukey 1956; Searle, Casella and McCulloch, Variance Components, 1992, ch. 4).

    With 3 to 10 seeds the mean square of seeds is far from its expectation, and Satterthwaite's approximation is too
    short when that mean square happens to be small. So tests and intervals are generalised (fiducial) ones (Weerahandi,
    J. Am. Stat. Assoc. 88, 1993; Tsui and Weerahandi 1989): each variance is divided by a chi-square variable over its
    degrees of freedom, and the normal law is averaged over both. With seed noise alone this is exactly the t test. The
    variance never falls below `rest`: each cell's own noise cannot be less, however equal the seeds look by chance.

    Attributes:
        difference: The estimate.
        seeds: Variance of the estimate over seeds, on these clips.
        df: Degrees of freedom of `seeds`.
        clips: Variance of the estimate over clips, with these seeds; 0 where clips are not known.
        clips_df: Degrees of freedom of `clips`: fewer than clips - 1, for most clips do not differ at all and a few do.
        rest: Variance from cells, which is part of both; 0 where clips are not known.
        num_clips: Clips; 0 where they are not known.
        identical: Whether every clip had the same answer in both arms with every seed. Then no variance can be
            estimated, and what is known is that in `num_clips` clips none differed: the "rule of three".
    """

    difference: float
    seeds: float
    df: int
    clips: float = 0.0
    clips_df: float = 0.0
    rest: float = 0.0
    num_clips: int = 0
    identical: bool = False

    @property
    def se(self) -> float:
        """Standard error of the estimate, for new seeds and new clips."""
        return math.sqrt(max(self.seeds + self.clips - self.rest, self.rest))

    @property
    def known(self) -> bool:
        """Whether there is any noise to judge by."""
        return self.df >= 1 and (self.se > 0 or (self.identical and self.num_clips > 0))

    def p(self, value: float = 0.0) -> float:
        """Two-sided p of the hypothesis that the true difference is `value`."""
        if self.identical:
            return min(1.0, (1 - min(abs(value), 1.0)) ** self.num_clips) if value else 1.0
        return 2 * self.tail(abs(self.difference - value))

    def p_equivalent(self, margin: float) -> float:
        """Two one-sided tests (Schuirmann 1987): p of the hypothesis that the true difference is at least `margin`."""
        if self.identical:
            return float((1 - margin) ** self.num_clips)
        inside = margin - abs(self.difference)
        return self.tail(inside) if inside >= 0 else 1 - self.tail(-inside)

    def half_width(self, confidence: float) -> float:
        """Half the length of the interval: the values that a two-sided test at 1 - confidence does not reject."""
        return _half_width(self, 1 - confidence)

    def interval(self, confidence: float) -> tuple[float, float]:
        """The interval, within -1 and 1, where differences of shares are."""
        half = self.half_width(confidence)
        return max(self.difference - half, -1.0), min(self.difference + half, 1.0)

    def effective_df(self, confidence: float) -> float:
        """Degrees of freedom of the t distribution whose interval is as long; infinite for that of a normal."""
        from scipy.special import stdtrit

        if self.identical:
            return math.inf
        quantile, tail = self.half_width(confidence) / self.se, (1 + confidence) / 2
        if quantile >= stdtrit(self.df, tail):
            return float(self.df)
        if quantile <= stdtrit(1e6, tail):
            return math.inf
        # In 1 / df quantiles of t are nearly straight.
        return 1 / crossing(lambda inverse: float(stdtrit(1 / inverse, tail)) - quantile, 1e-6, 1 / self.df)

    def tail(self, distance: float) -> float:
        """Upper probability of a difference beyond `distance`, averaged over what the variances may be."""
        from scipy.special import ndtr, stdtr

        if not self.num_clips:
            return float(stdtr(self.df, -distance / math.sqrt(self.seeds)))
        weights, clip_weights = _seed_nodes()[1], _clip_nodes()[1]
        ratios, clip_ratios = _chi_squares(self.df, seeds=True), _chi_squares(self.clips_df, seeds=False)
        variances = np.maximum(self.seeds / ratios[:, None] + self.clips / clip_ratios - self.rest, self.rest)
        return float(weights @ ndtr(-distance / np.sqrt(variances)) @ clip_weights)


@lru_cache(maxsize=256)
def _half_width(spread: Spread, alpha: float) -> float:
    """Where the two-sided p falls to alpha; remembered, since several numbers of an effect rest on it."""
    from scipy.special import stdtrit

    if spread.identical:
        return float(1 - alpha ** (1 / spread.num_clips))
    if not spread.num_clips:
        return float(stdtrit(spread.df, 1 - alpha / 2)) * spread.se

    def excess(distance: float) -> float:
        return math.log(2 * spread.tail(distance) / alpha)

    return crossing(excess, *upper_bracket(excess, spread.se))


@lru_cache(maxsize=1)
def _seed_nodes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Quadrature over probabilities, dense near 0: with few seeds the smallest chi-squares make the tails."""
    nodes, weights = np.polynomial.legendre.leggauss(48)
    half = (nodes + 1) / 2
    return half**4, 2 * weights * half**3


@lru_cache(maxsize=1)
def _clip_nodes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Quadrature over probabilities for many degrees of freedom, by that of a normal variable."""
    from scipy.special import ndtr

    nodes, weights = np.polynomial.hermite_e.hermegauss(7)
    return ndtr(nodes), weights / weights.sum()


@lru_cache(maxsize=256)
def _chi_squares(df: float, *, seeds: bool) -> NDArray[np.float64]:
    """Quantiles of chi-square / df at the nodes."""
    from scipy.special import gammaincinv

    nodes = _seed_nodes()[0] if seeds else _clip_nodes()[0]
    values: NDArray[np.float64] = 2 * gammaincinv(df / 2, nodes) / df
    return values


def _df_of_variance(values: NDArray[np.float64]) -> float:
    """Degrees of freedom of a sample variance of values that are not normal.

    The variance of s**2 is sigma**4 * (2 / (n - 1) + kurtosis / n), with the excess kurtosis; matched with that of a
    chi-square variable (Box, Biometrika 40, 1953). Values with short tails count as normal.
    """
    count = len(values)
    centred = values - values.mean()
    second = float((centred**2).mean())
    if second < 1e-24:
        return count - 1.0
    kurtosis = max(float((centred**4).mean()) / second**2 - 3, 0.0)
    return max(2 / (2 / (count - 1) + kurtosis / count), 1.0)


def spread_of(
    values: NDArray[np.float64],
    table: NDArray[np.float64] | None,
    *,
    design: NDArray[np.float64],
    contrast: NDArray[np.float64],
) -> Spread:
    """The spread of a contrast of a linear model of runs.

    For paired differences the design is a column of ones. Each clip's answers follow the same linear model as the means
    do, so the contrast splits into one value per clip, whose variance over clips is the noise of clips.

    Args:
        values: (runs,) measured values, used where there is no table.
        table: (runs, clips) the same by clip; None where clips are not known.
        design: (runs, columns) of full column rank.
        contrast: (columns,) the sum of coefficients that is asked for.
    """
    runs, columns = design.shape
    df = runs - columns
    inverse = np.linalg.pinv(design)
    weights = contrast @ inverse  # of runs, (runs,)
    means = values if table is None else table.mean(axis=1)
    difference = float(weights @ means)
    if df < 1:
        return Spread(difference=difference, seeds=0.0, df=0)
    scale = float(weights @ weights)
    residual = means - design @ (inverse @ means)
    seeds = scale * float(residual @ residual) / df
    if seeds < 1e-24:  # equal differences, but for rounding
        seeds = 0.0
    if table is None or table.shape[1] < 2:
        return Spread(difference=difference, seeds=seeds, df=df)
    clips = table.shape[1]
    centred = table - means[:, None]
    left = centred - design @ (inverse @ centred)
    # As if two more cells had differed, one each way (Bonett and Price 2012, for paired proportions): a table in which
    # next to nothing differs says that differences are rare, not that they are impossible.
    cell = max(float((left**2).sum()) / (df * (clips - 1)), 2 / (runs * clips))
    by_clip = weights @ table
    return Spread(
        difference=difference,
        seeds=seeds,
        df=df,
        clips=float(by_clip.var(ddof=1)) / clips,
        clips_df=_df_of_variance(by_clip),
        rest=scale * cell / clips,
        num_clips=clips,
        identical=columns == 1 and not table.any(),
    )
