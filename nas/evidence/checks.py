"""How often intervals cover and words are false, counted over simulated studies whose truth is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.evidence.looks import Looks, stop
from nas.evidence.paired import paired
from nas.evidence.simulate import Noise, results, simulate
from nas.evidence.words import judge

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
