"""Results of trainings, pairs of arms and effects as values; signed ranks, Hedges' g and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nas.errors import NasError
from nas.evidence.spread import Spread


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


Kind = Literal["pair", "main", "interaction"]
Basis = Literal["seeds and clips", "seeds"]
LEFT_OUT = -1


class EvidenceError(NasError):
    """Results that cannot be compared as asked."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Result:
    """One training with one seed, on the val split.

    Attributes:
        top1: Share of clips that are right, 0..1.
        correct: (clips,) 1 for a clip that is right, 0 for one that is wrong, -1 for one that was left out; None if it
            is not known which are right.
    """

    top1: float
    correct: NDArray[np.int8] | None = None

    def __post_init__(self) -> None:
        """Refuses what is no share, and no clip's answer."""
        if not 0.0 <= self.top1 <= 1.0:
            raise EvidenceError(f"0 <= top1 <= 1 must hold, but got top1={self.top1!r}; top-1 is a share of 1")
        if self.correct is not None:
            values = np.asarray(self.correct)
            if values.ndim != 1 or values.size == 0 or not np.isin(values, (0, 1, LEFT_OUT)).all():
                raise EvidenceError(
                    "correct must be one entry per clip: 1 right, 0 wrong or -1 left out, and not empty"
                )
            object.__setattr__(self, "correct", values.astype(np.int8))

    @classmethod
    def of(cls, correct: str | Sequence[bool | None] | NDArray[np.bool_], *, top1: float | None = None) -> Result:
        """From answers by clip.

        Args:
            correct: A text of 1, 0 and - (left out), as the database has it, or values that are true, false or None.
            top1: As it was measured; by default the share of right clips among those that were not left out.
        """
        if isinstance(correct, str):
            if set(correct) - set("01-"):
                raise EvidenceError(f"a text of answers may hold 0, 1 and - only, but got {correct[:40]!r}")
            marks = np.array([LEFT_OUT if mark == "-" else int(mark) for mark in correct], dtype=np.int8)
        else:
            marks = np.array([LEFT_OUT if value is None else int(value) for value in correct], dtype=np.int8)
        known = marks[marks != LEFT_OUT]
        if top1 is None and known.size == 0:
            raise EvidenceError("top-1 of no clip at all: every clip was left out")
        return cls(top1=float(known.mean()) if top1 is None else top1, correct=marks)


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """What one level earns against its reference: differences of top-1, in shares of 1, level minus reference.

    Attributes:
        factor: What was changed.
        level: To what.
        reference: From what.
        kind: A pair of arms, or a main effect or interaction of a factorial design.
        pairs: Seeds that both arms have (of a factorial design: all seeds).
        left_out: Seeds, or runs of a factorial design, that had no partner.
        clips: Clips that all runs have; None where it is not known which clips were right.
        basis: What `low` and `high` speak for: new seeds and new clips, or new seeds alone (clips not known).
        difference: Mean difference; over the clips that all runs have where they are known.
        sd: Standard deviation of the differences over seeds; None with one pair.
        effect_size: Hedges' g of the paired differences; None with one pair or with equal differences.
        confidence: Of all intervals.
        low: Lower end of the interval that the word rests on; None with one pair, or without any noise to judge by.
        high: Its upper end.
        seeds_low: Lower end of the t interval over seeds: other seeds on these same clips.
        seeds_high: Its upper end.
        boot_low: Lower end of the bootstrap interval, None where it was not asked for or cannot be had.
        boot_high: Its upper end.
        se_seeds: Standard error from the choice of seeds, on these clips.
        se_clips: Standard error from the choice of clips, with these seeds; None where clips are not known.
        df: Degrees of freedom of the t distribution that gives the same interval as `low` and `high`.
        p: That a difference like this arises between equal arms; of the same test as `low` and `high`.
        p_seeds: Of the paired t test over seeds (of a factorial design: of the linear model).
        p_wilcoxon: Of the exact signed-rank test over seeds; None for factorial designs.
        p_equivalent: Of two one-sided tests: that the difference is as large as `margin`.
        margin: The smallest difference that matters.
        visible: The difference that these pairs would show with probability 0.8 at this confidence.
        spread: The variances, for tests at other levels.
    """

    factor: str
    level: str
    reference: str
    kind: Kind
    pairs: int
    left_out: int
    clips: int | None
    basis: Basis
    difference: float
    sd: float | None
    effect_size: float | None
    confidence: float
    low: float | None
    high: float | None
    seeds_low: float | None
    seeds_high: float | None
    boot_low: float | None
    boot_high: float | None
    se_seeds: float | None
    se_clips: float | None
    df: float | None
    p: float | None
    p_seeds: float | None
    p_wilcoxon: float | None
    p_equivalent: float | None
    margin: float
    visible: float | None
    spread: Spread | None

    @property
    def half_width(self) -> float | None:
        """Half the length of the interval that the word rests on."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def table_of(results: Sequence[Result]) -> NDArray[np.float64] | None:
    """Answers of several runs on the clips that all of them have.

    Returns:
        (runs, clips) of 0 and 1; None if a run's answers are not known, or no clip is in all of them.

    Raises:
        EvidenceError: The runs were measured on different numbers of clips.
    """
    known = [result.correct for result in results if result.correct is not None]
    lengths = sorted({len(row) for row in known})
    if len(lengths) > 1:
        raise EvidenceError(
            f"runs must be measured on the same clips, but some have {lengths[0]} and some {lengths[-1]}; "
            "compare runs on equal val data"
        )
    if len(known) < len(results) or not known:
        return None
    table = np.stack(known)
    everywhere = (table != LEFT_OUT).all(axis=0)
    return table[:, everywhere].astype(np.float64) if everywhere.any() else None


def check_levels(*, confidence: float, margin: float) -> None:
    """Refuses a confidence or margin that means nothing.

    Raises:
        EvidenceError: With the rule and the value.
    """
    if not 0.5 <= confidence < 1:
        raise EvidenceError(f"0.5 <= confidence < 1 must hold, but got confidence={confidence!r}")
    if not 0 < margin < 1:
        raise EvidenceError(f"0 < margin < 1 must hold, but got margin={margin!r}; 0.01 is one point of top-1")


def pairs_of(base: Mapping[int, Result], other: Mapping[int, Result]) -> tuple[list[int], int]:
    """Seeds that both arms have, in order, and the number of those that only one has."""
    both = sorted(base.keys() & other.keys())
    return both, len(base.keys() | other.keys()) - len(both)
