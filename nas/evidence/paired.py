"""Two arms with the same seeds: their paired differences as one effect, with every interval and test."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from nas.evidence.bootstrap import bootstrap_interval
from nas.evidence.classic import hedges_g, wilcoxon
from nas.evidence.power import smallest_visible
from nas.evidence.spread import Spread, spread_of
from nas.evidence.values import Effect, EvidenceError, Result, check_levels, pairs_of, table_of


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
