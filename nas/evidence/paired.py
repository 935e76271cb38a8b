"""Two arms with the same seeds: their paired differences as one effect, with intervals and power."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nas.evidence.interval import wilson
from nas.evidence.spread import Spread, crossing, spread_of, upper_bracket
from nas.evidence.values import Effect, EvidenceError, Result, check_levels, hedges_g, pairs_of, table_of, wilcoxon

CELLS = 4_000_000  # in memory at once


def bootstrap_interval(
    differences: NDArray[np.float64],
    table: NDArray[np.float64] | None,
    *,
    confidence: float = 0.95,
    resamples: int = 1999,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Symmetric bootstrap-t interval of the mean of paired differences.

    A percentile interval over seeds covers 68 to 80 % instead of 95 %: 5 values drawn from 5 vary too little, and the
    draw says nothing of clips. Here seeds and clips are both drawn (the "pigeonhole" bootstrap: Owen, Ann. Appl. Stat.
    1, 2007), and what is bootstrapped is |t| with the standard error of the crossed layout (Hall, Ann. Stat. 16, 1988:
    symmetric intervals err least). Without clips it is the same over seeds alone, which needs five seeds or more.

    Args:
        differences: (pairs,) differences of top-1.
        table: (pairs, clips) differences by clip, or None.
        confidence: Of the interval.
        resamples: Draws.
        seed: Of the draws: the same results give the same interval.

    Returns:
        Low and high; None where too few seeds or no noise leave nothing to draw from.
    """
    pairs = len(differences)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(pairs, np.full(pairs, 1 / pairs), resamples).astype(np.float64)
    if table is None:
        if pairs < 5:
            return None
        centre = float(differences.mean())
        means = draws @ differences / pairs
        spread = np.sqrt((draws * (differences - means[:, None]) ** 2).sum(axis=1) / (pairs - 1) / pairs)
        own = float(differences.std(ddof=1)) / np.sqrt(pairs)
        if own < 1e-12:
            return None
        # A draw of one and the same seed has no spread; it counts as infinitely far.
        scores = np.divide(np.abs(means - centre), spread, out=np.full(resamples, np.inf), where=spread > 1e-12)
    else:
        if pairs < 2 or table.shape[1] < 2 or not table.any():
            return None
        centre = float(table.mean())
        once = np.ones((1, pairs)), np.ones((1, table.shape[1]))
        own = float(_crossed(table, *once)[1][0])
        means, spread = _draws(table, draws, rng)
        scores = np.abs(means - centre) / spread
    reach = float(np.sort(scores)[int(np.ceil(confidence * resamples)) - 1]) * own
    if not np.isfinite(reach):
        return None
    return max(centre - reach, -1.0), min(centre + reach, 1.0)


def _draws(
    table: NDArray[np.float64], seeds: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and standard errors (resamples,) of tables drawn by seed and clip, some at a time."""
    clips = table.shape[1]
    step = max(1, CELLS // clips)
    means, errors = [], []
    for start in range(0, len(seeds), step):
        some = seeds[start : start + step]
        drawn = rng.multinomial(clips, np.full(clips, 1 / clips), len(some)).astype(np.float64)
        mean, error = _crossed(table, some, drawn)
        means.append(mean)
        errors.append(error)
    return np.concatenate(means), np.concatenate(errors)


def _crossed(
    table: NDArray[np.float64], seeds: NDArray[np.float64], clips: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and their standard errors, where each seed and clip is taken as often as is said.

    Args:
        table: (S, N).
        seeds: (draws, S) how often each.
        clips: (draws, N) how often each.

    Returns:
        (draws,) means, and (draws,) standard errors as in `Spread.se`.
    """
    S, N = table.shape
    by_seed, by_clip = clips @ table.T / N, seeds @ table / S
    mean = (by_seed * seeds).sum(axis=1) / S
    of_seeds = N * (seeds * (by_seed - mean[:, None]) ** 2).sum(axis=1)
    of_clips = S * (clips * (by_clip - mean[:, None]) ** 2).sum(axis=1)
    in_all = ((seeds @ table**2) * clips).sum(axis=1) - S * N * mean**2
    rest = np.maximum((in_all - of_seeds - of_clips) / ((S - 1) * (N - 1)), 2 / (S * N))
    variance = np.maximum(of_seeds / (S - 1) + of_clips / (N - 1) - rest, rest) / (S * N)
    return mean, np.sqrt(variance)


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
    """Interval of the mean over seeds and videos, both drawn anew; see `bootstrap_interval`.

    Args:
        table: (seeds, V) what each video earned with each seed, in shares of 1.
        confidence: Of the interval.
        resamples: Draws.
        seed: Of the draws.

    Returns:
        Low and high in 0..1; None with fewer than two seeds, or where there is no noise to draw from.
    """
    if (table == table.flat[0]).all():
        return None
    found = bootstrap_interval(table.mean(axis=1), table, confidence=confidence, resamples=resamples, seed=seed)
    return None if found is None else (max(found[0], 0.0), min(found[1], 1.0))


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
    """The smallest difference that a number of pairs detects with probability `power`.

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


def paired(
    base: Mapping[int, Result],
    other: Mapping[int, Result],
    *,
    factor: str = "",
    level: str = "other",
    reference: str = "base",
    confidence: float = 0.95,
    margin: float = 0.01,
    resamples: int = 1999,
) -> Effect:
    """The effect of going from `base` to `other`, over the seeds that both have.

    Args:
        base: Results by seed.
        other: Results by seed. Seeds that only one arm has are left out, and counted.
        factor: What was changed, for texts.
        level: What the other arm is called.
        reference: What the base is called.
        confidence: Of all intervals.
        margin: The smallest difference that matters, in shares of 1.
        resamples: Draws of the bootstrap; 0 leaves its interval out.

    Returns:
        The effect. With one pair it has a difference and no interval, for one pair says nothing of the noise.

    Raises:
        EvidenceError: No seed is in both arms, or the arms were measured on different clips.
    """
    check_levels(confidence=confidence, margin=margin)
    seeds, left_out = pairs_of(base, other)
    if not seeds:
        raise EvidenceError(
            f"{level} and {reference} must share a seed, but have {sorted(other)} and {sorted(base)}; "
            "train both with equal seeds"
        )
    table = table_of([base[seed] for seed in seeds] + [other[seed] for seed in seeds])
    if table is None:
        cells, differences = None, np.array([other[seed].top1 - base[seed].top1 for seed in seeds])
    else:
        cells = table[len(seeds) :] - table[: len(seeds)]
        differences = cells.mean(axis=1)
    spread = spread_of(differences, cells, design=np.ones((len(seeds), 1)), contrast=np.ones(1))
    boot = bootstrap_interval(differences, cells, confidence=confidence, resamples=resamples) if resamples else None
    numbers = inference(spread, confidence=confidence, margin=margin)
    return Effect(
        factor=factor,
        level=level,
        reference=reference,
        kind="pair",
        pairs=len(seeds),
        left_out=left_out,
        clips=None if cells is None else cells.shape[1],
        basis="seeds" if cells is None else "seeds and clips",
        sd=float(differences.std(ddof=1)) if len(seeds) > 1 else None,
        effect_size=hedges_g(differences),
        boot_low=boot[0] if boot else None,
        boot_high=boot[1] if boot else None,
        p_wilcoxon=wilcoxon(differences) if len(seeds) > 1 else None,
        confidence=confidence,
        margin=margin,
        spread=spread if spread.known else None,
        difference=spread.difference,
        **numbers,
    )


def inference(spread: Spread, *, confidence: float, margin: float) -> dict[str, float | None]:
    """The fields of an effect that follow from its spread."""
    seeds_only = Spread(difference=spread.difference, seeds=spread.seeds, df=spread.df)
    over_seeds = seeds_only.interval(confidence) if seeds_only.known else (None, None)
    low, high = spread.interval(confidence) if spread.known else (None, None)
    df = spread.effective_df(confidence) if spread.known else None
    return {
        "low": low,
        "high": high,
        "seeds_low": over_seeds[0],
        "seeds_high": over_seeds[1],
        "se_seeds": math.sqrt(spread.seeds) if spread.df >= 1 else None,
        "se_clips": math.sqrt(spread.clips) if spread.num_clips else None,
        "df": df,
        "p": spread.p() if spread.known else None,
        "p_seeds": seeds_only.p() if seeds_only.known else None,
        "p_equivalent": spread.p_equivalent(margin) if spread.known else None,
        "visible": visible(spread, alpha=1 - confidence),
    }


def visible(spread: Spread, *, alpha: float) -> float | None:
    """The difference that a new study with this spread would show with probability 0.8; None if that is not known."""
    if not spread.known:
        return None
    if spread.identical:  # nothing differed: what is not seen is what the interval holds
        return spread.half_width(1 - alpha)
    return smallest_visible(spread.se, spread.effective_df(1 - alpha), alpha=alpha)
