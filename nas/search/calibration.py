"""Was it as the model expected? What it expected of networks beside what was measured at the last rung. Pure.

A model states the error at the last rung as normal in its logarithm; what is then measured has the noise of a count of
videos, too. Networks come to the last rung because their lower rungs were good, so an expectation of before is more
often too pessimistic for those than for all.

How sure a model may be is learned from how it fared, by adaptive conformal inference (Gibbs and Candès 2021, arXiv
2106.00170): each measurement outside of the interval that was told before it widens those after it, each inside narrows
them a little, so that in the long run as many lie within as should, whatever the model.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import Any

from nas.evidence.interval import wilson
from nas.study.metric import accuracy_of

CONFIDENCE = 0.9
QUANTILE = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
"""Standard deviations from the middle of a normal to either end of that interval."""

PACE = 0.15
"""Of a measurement outside, the step of the logarithm of what deviations are multiplied by; of one inside, a ninth."""
_WIDEST = math.log(4.0)  # either way: a search of a few networks cannot say more


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What a model expected of a network when one of its trainings was begun; shares of 1.

    Attributes:
        number: Of the trial.
        digest: Of the network.
        rung: To which that training led.
        accuracy: Expected at the last rung, the median.
        low: Of the 90 % interval of what is measured there.
        high: Of it.
        gain: Expected growth of the hypervolume.
        measured: At the last rung; None before that.
        widening: What the deviation that the model stated is multiplied by, for how it had fared until then.
    """

    number: int
    digest: str
    rung: int
    accuracy: float
    low: float
    high: float
    gain: float
    measured: float | None
    widening: float = 1.0

    @property
    def inside(self) -> bool:
        """Whether what was measured lies in the interval."""
        return self.measured is not None and self.low <= self.measured <= self.high


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Expectations that were followed by a measurement.

    Attributes:
        expectations: How many.
        networks: Of how many networks.
        inside: Measured within the 90 % interval.
        share: The same as a share.
        low: Of the 95 % interval of that share (Wilson's).
        high: Of it.
        ratio: Median of the measured error over the expected one; None where nothing was expected to be wrong.
        widening: What the deviation of the newest expectation was multiplied by.
    """

    expectations: int
    networks: int
    inside: int
    share: float
    low: float
    high: float
    ratio: float | None
    widening: float = 1.0


def expectations(
    jobs: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], num_rungs: int
) -> tuple[Expected, ...]:
    """One for each rung that a trial was sent to by a model, in that order.

    Args:
        jobs: Rows of `Store.jobs` in the order in which they began; of a training that was cut short, the one that took
            it up again says the same.
        evaluations: Rows of `Store.evaluations`.
        num_rungs: Of the search.
    """
    last = {row["trial_id"]: row for row in evaluations if row["rung"] == num_rungs - 1}
    ended: dict[int, tuple[str, int]] = {
        job["trial_id"]: (job["ended_at"], at)
        for at, job in enumerate(jobs)
        if job["rung"] == num_rungs - 1 and job["trial_id"] in last and job["ended_at"] is not None
    }
    videos = evaluations[-1]["num_clips"] if evaluations else 0
    found: dict[tuple[int, int], Expected] = {}
    # What will be measured and had not been when the last job began, by when it was: jobs begin in order, too.
    unknown: list[tuple[str, int, int]] = []
    log, told = 0.0, list[Expected]()
    for at, job in enumerate(jobs):
        error, spread, gain = job["expected_error"], job["expected_spread"], job["expected_gain"]
        key = job["trial_id"], job["rung"]
        if error is None or spread is None or gain is None or key in found:
            continue
        known = []
        while unknown and _before(unknown[0], at, job["started_at"]):
            known.append(heapq.heappop(unknown)[2])
        log = _adapted(log, [told[place] for place in sorted(known)])
        result = last.get(job["trial_id"])
        low, high = interval(error, spread, videos if result is None else result["num_clips"], widening=math.exp(log))
        found[key] = Expected(
            number=job["number"],
            digest=job["digest"],
            rung=job["rung"],
            accuracy=max(0.0, 1.0 - error),  # a normal logarithm knows no largest error
            low=1.0 - high,
            high=1.0 - low,
            gain=gain,
            measured=None if result is None else accuracy_of(result),
            widening=math.exp(log),
        )
        if job["trial_id"] in ended:
            heapq.heappush(unknown, (*ended[job["trial_id"]], len(told)))
        told.append(found[key])
    return tuple(found.values())


def _before(ended: tuple[str, int, int], at: int, started: str | None) -> bool:
    """Whether a job had ended when another began; times are to the second, so their order counts, too."""
    return started is not None and ended[0] <= started and ended[1] < at


def _adapted(log: float, told: Sequence[Expected]) -> float:
    for one in told:
        step = PACE * ((not one.inside) - (1.0 - CONFIDENCE))
        log = min(_WIDEST, max(-_WIDEST, log + step))
    return log


def interval(error: float, spread: float, videos: int, *, widening: float = 1.0) -> tuple[float, float]:
    """The 90 % interval of an error that is measured.

    Args:
        error: Expected, the median.
        spread: Standard deviation of its logarithm.
        videos: That it is measured on; 0 where that is not known.
        widening: What the deviation, that of the number of videos included, is multiplied by.

    Returns:
        Low and high, shares of 1. Of none or all of the videos wrong, as of half a video more or less, the ends are 0
        and 1.
    """
    noise, half = 0.0, 0.0
    if videos > 0:
        half = 0.5 / (videos + 1)
        own = min(max(error, half), 1.0)
        noise = (1.0 - own) / (own * (videos + 1))
    factor = math.exp(min(700.0, QUANTILE * widening * math.sqrt(spread * spread + noise)))
    low, high = error / factor, error * factor
    return (0.0 if low <= half else min(1.0, low)), min(1.0, max(0.0, high, half))


def calibration(found: Sequence[Expected]) -> Calibration | None:
    """How the expectations fared; None where none was followed by a measurement."""
    past = [one for one in found if one.measured is not None]
    if not past:
        return None
    inside = sum(one.inside for one in past)
    low, high = wilson(inside / len(past), len(past))
    ratios = [(1.0 - (one.measured or 0.0)) / (1.0 - one.accuracy) for one in past if one.accuracy < 1.0]
    return Calibration(
        expectations=len(past),
        networks=len({one.digest for one in past}),
        inside=inside,
        share=inside / len(past),
        low=low,
        high=high,
        ratio=median(ratios) if ratios else None,
        widening=found[-1].widening,
    )
