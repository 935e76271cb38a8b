"""Simulated studies of known truth: how often intervals cover, and how often words are false."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nas.evidence.paired import paired
from nas.evidence.spread import crossing
from nas.evidence.values import EvidenceError, Result
from nas.evidence.words import Looks, judge, stop


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """What makes results differ when nothing else does.

    A clip has a difficulty, a network has clips that suit it more or less, a seed makes a network better or worse as a
    whole, and what is left is chance: log-odds(right) = network + clip + network and clip + network and seed, each
    normal. Parameters are given in top-1 and turned into log-odds.

    Attributes:
        clips: Of the val split.
        top1: About what networks reach.
        flips: Mean over clips of p (1 - p): how much a clip's answer changes with the seed. The accuracy on fixed clips
            then has a standard deviation of sqrt(flips / clips + seeds**2) over seeds.
        seeds: Standard deviation over seeds that no number of clips would lessen, in top-1.
        suits: Standard deviation, in log-odds, of what suits one network and not the other; 0 for equal networks.
    """

    clips: int
    top1: float
    flips: float = 0.04
    seeds: float = 0.01
    suits: float = 1.0

    @property
    def sd(self) -> float:
        """Standard deviation of top-1 over seeds, on fixed clips."""
        return float(np.sqrt(self.flips / self.clips + self.seeds**2))


# As measured: on the gestures top-1 of 0.85 with a standard deviation of 0.03 over seeds, on the synthetic motion data
# 0.9 with 0.01 to 0.02. Single answers that flip explain most of the first, and half of the variance of the second.
GESTURES = Noise(clips=57, top1=0.85, seeds=0.015)
MOTION = Noise(clips=512, top1=0.9, seeds=0.012)


def simulate(
    noise: Noise, top1: Sequence[float], *, seeds: int, studies: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Studies in which each arm's true top-1, over all clips and seeds that could be, is known.

    Args:
        noise: Of seeds and clips.
        top1: True top-1 of each arm.
        seeds: Trainings of each arm.
        studies: Independent ones, each with its own clips.
        rng: For all draws.

    Returns:
        (studies, arms, seeds, clips) whether the answer is right.
    """
    difficulty = _difficulty(noise)
    slope = noise.flips  # of top-1 in log-odds is the mean of p (1 - p)
    by_seed = noise.seeds / slope
    total = float(np.sqrt(difficulty**2 + noise.suits**2 + by_seed**2))
    level = np.array([_log_odds(value, total) for value in top1])[None, :, None, None]
    arms = len(top1)
    odds = level + rng.normal(0, difficulty, (studies, 1, 1, noise.clips))
    odds = odds + rng.normal(0, 1, (studies, arms, 1, noise.clips)) * noise.suits
    odds = odds + rng.normal(0, 1, (studies, arms, seeds, 1)) * by_seed
    # A logistic variable is below x with the odds' own probability: no exponentials of a large array.
    right: NDArray[np.bool_] = rng.logistic(size=odds.shape) < odds
    return right


def results(arm: NDArray[np.bool_], *, clips: bool = True) -> dict[int, Result]:
    """One arm (seeds, clips) as results by seed; without answers by clip if `clips` is False."""
    return {
        seed: Result(top1=float(row.mean()), correct=row.astype(np.int8) if clips else None)
        for seed, row in enumerate(arm)
    }


@lru_cache(maxsize=1)
def _nodes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(151)
    return nodes, weights / weights.sum()


def _log_odds(top1: float, sd: float) -> float:
    """The centre of a logit-normal variable with mean `top1`."""
    from scipy.special import expit

    if not 0 < top1 < 1:
        raise EvidenceError(f"0 < top1 < 1 must hold for a simulated arm, but got top1={top1!r}")
    nodes, weights = _nodes()
    return crossing(lambda centre: float(weights @ expit(centre + sd * nodes)) - top1, -200.0, 200.0)


def _difficulty(noise: Noise) -> float:
    """Standard deviation of clips' log-odds that gives the wanted share of flips."""
    from scipy.special import expit

    if not 0 < noise.flips < noise.top1 * (1 - noise.top1):
        most = noise.top1 * (1 - noise.top1)
        raise EvidenceError(f"0 < flips < top1 (1 - top1) = {most:.3f} must hold, but got flips={noise.flips!r}")
    nodes, weights = _nodes()

    def excess(sd: float) -> float:
        chance = expit(_log_odds(noise.top1, sd) + sd * nodes)
        return float(weights @ (chance * (1 - chance))) - noise.flips

    return crossing(excess, 0.0, 30.0)


BLOCK = 50  # studies in memory at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Shares over simulated studies.

    Attributes:
        studies: How many.
        families: In which share some effect was called better or worse.
        covered: Share of intervals that the word rests on that hold the true difference.
        boot_covered: The same of bootstrap intervals; of those there are.
        seeds_covered: The same of t intervals over seeds alone.
        words: How often each word was said, of all effects.
        half_width: Median of the intervals'.
    """

    studies: int
    families: float
    covered: float
    boot_covered: float
    seeds_covered: float
    words: dict[str, float]
    half_width: float


def count(
    noise: Noise,
    top1: Sequence[float],
    *,
    seeds: int,
    studies: int,
    seed: int = 0,
    resamples: int = 0,
    clips: bool = True,
    margin: float = 0.01,
) -> Counts:
    """Judges simulated studies in which every arm is compared with the first.

    Args:
        noise: Of seeds and clips.
        top1: True top-1 of each arm. All equal, with `noise.suits` 0, is an A/A study.
        seeds: Trainings of each arm.
        studies: How many.
        seed: Of all draws.
        resamples: Of each bootstrap; 0 for none.
        clips: Whether answers by clip are known.
        margin: The smallest difference that matters.
    """
    rng = np.random.default_rng(seed)
    truth = [value - top1[0] for value in top1[1:]]
    words: Counter[str] = Counter()
    alarms = 0
    covered: dict[str, list[bool]] = {"clips": [], "boot": [], "seeds": []}
    widths: list[float] = []
    for start in range(0, studies, BLOCK):
        for study in simulate(noise, top1, seeds=seeds, studies=min(BLOCK, studies - start), rng=rng):
            arms = [results(arm, clips=clips) for arm in study]
            effects = [paired(arms[0], arm, resamples=resamples, margin=margin) for arm in arms[1:]]
            said = [judged.word for judged in judge(effects, margin=margin)]
            words.update(said)
            alarms += any(word in ("better", "worse") for word in said)
            for effect, true in zip(effects, truth, strict=True):
                _note(covered["clips"], effect.low, effect.high, true)
                _note(covered["boot"], effect.boot_low, effect.boot_high, true)
                _note(covered["seeds"], effect.seeds_low, effect.seeds_high, true)
                widths.append(effect.half_width if effect.half_width is not None else np.nan)
    return Counts(
        studies=studies,
        families=alarms / studies,
        covered=_share(covered["clips"]),
        boot_covered=_share(covered["boot"]),
        seeds_covered=_share(covered["seeds"]),
        words={word: number / (studies * len(truth)) for word, number in words.items()},
        half_width=float(np.nanmedian(widths)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Stops:
    """Shares over simulated studies that were looked at on the way.

    Attributes:
        families: In which share some effect was called better or worse, at the look at which the study ended.
        covered: Share of intervals at that look, of 95 %, that hold the true difference.
        together: The same of intervals of that look's confidence, which hold at all looks together.
        seeds: Mean number of seeds at the end.
        reasons: Why studies ended.
    """

    families: float
    covered: float
    together: float
    seeds: float
    reasons: dict[str, float]


def count_stops(noise: Noise, top1: Sequence[float], plan: Looks, *, studies: int, seed: int = 0) -> Stops:
    """Follows simulated studies from look to look until they stop."""
    rng = np.random.default_rng(seed)
    truth = [value - top1[0] for value in top1[1:]]
    reasons: Counter[str] = Counter()
    alarms, spent = 0, 0
    covered: list[bool] = []
    together: list[bool] = []
    for start in range(0, studies, BLOCK):
        for study in simulate(noise, top1, seeds=plan.seeds[-1], studies=min(BLOCK, studies - start), rng=rng):
            for look, seeds in enumerate(plan.seeds):
                arms = [results(arm[:seeds]) for arm in study]
                effects = [paired(arms[0], arm, resamples=0, margin=plan.margin) for arm in arms[1:]]
                reason = stop(effects, plan, look)
                if reason is None:
                    continue
                said = [judged.word for judged in judge(effects, alpha=plan.level(look), margin=plan.margin)]
                reasons[reason] += 1
                spent += seeds
                alarms += any(word in ("better", "worse") for word in said)
                for effect, true in zip(effects, truth, strict=True):
                    _note(covered, effect.low, effect.high, true)
                    if effect.spread is not None:
                        low, high = effect.spread.interval(plan.confidence(look))
                        _note(together, low, high, true)
                break
    return Stops(
        families=alarms / studies,
        covered=_share(covered),
        together=_share(together),
        seeds=spent / studies,
        reasons={reason: number / studies for reason, number in reasons.items()},
    )


def _note(covered: list[bool], low: float | None, high: float | None, true: float) -> None:
    if low is not None and high is not None:
        covered.append(low <= true <= high)


def _share(covered: list[bool]) -> float:
    return float(np.mean(covered)) if covered else float("nan")
