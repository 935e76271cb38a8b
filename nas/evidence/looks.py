"""Looking before all seeds are trained: when a study may stop, without more false alarms than it promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nas.evidence.values import Effect, EvidenceError
from nas.evidence.words import judge

Reason = Literal["decided", "precise", "spent"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Looks:
    """When the results are looked at, and what each look may spend of the chance of a false alarm.

    The shares follow the spending function alpha * t**2 of Kim and DeMets (Biometrika 74, 1987) at t = seeds so far of
    those at most, and each look is judged at its own share. The shares add up to alpha, so false alarms over all looks
    and the whole family are at most alpha whatever the law of the statistic and however looks are correlated: it holds
    for t tests of three seeds, where boundaries made for normal statistics do not, and for Holm's correction inside a
    look. The price is small: with looks after 3, 5 and 8 seeds the last is judged at 0.030 instead of 0.05.

    Attributes:
        seeds: Numbers of seeds after which one looks, increasing; the last is the budget.
        alpha: Chance of a false alarm over all looks and effects.
        margin: The smallest difference that matters.
        half_width: Half the length of interval that is precise enough to stop at; None for never.
    """

    seeds: tuple[int, ...]
    alpha: float = 0.05
    margin: float = 0.01
    half_width: float | None = None

    def __post_init__(self) -> None:
        """Refuses looks that cannot be."""
        if not self.seeds or self.seeds[0] < 2 or any(a >= b for a, b in zip(self.seeds, self.seeds[1:], strict=False)):
            raise EvidenceError(
                f"looks must be after 2 seeds or more, each later than the one before, but got {self.seeds}"
            )
        if not 0 < self.alpha < 0.5:
            raise EvidenceError(f"0 < alpha < 0.5 must hold, but got alpha={self.alpha!r}")
        if self.half_width is not None and not 0 < self.half_width < 1:
            raise EvidenceError(f"0 < half_width < 1 must hold, but got half_width={self.half_width!r}")

    @classmethod
    def between(
        cls,
        least: int,
        most: int,
        *,
        looks: int = 3,
        alpha: float = 0.05,
        margin: float = 0.01,
        half_width: float | None = None,
    ) -> Looks:
        """Looks spread evenly from `least` to `most` seeds; fewer where there is no room for so many."""
        if not 2 <= least <= most or looks < 1:
            raise EvidenceError(
                f"2 <= least <= most and looks >= 1 must hold, but got least={least}, most={most}, looks={looks}"
            )
        first = most if looks == 1 else least
        gap = max(looks - 1, 1)
        seeds = sorted({round(first + (most - first) * look / gap) for look in range(looks)})
        return cls(seeds=tuple(seeds), alpha=alpha, margin=margin, half_width=half_width)

    def level(self, look: int) -> float:
        """The level at which look number `look` (from 0) is judged."""
        self._check(look)
        spent = [0.0, *((count / self.seeds[-1]) ** 2 for count in self.seeds)]
        return self.alpha * (spent[look + 1] - spent[look])

    def confidence(self, look: int) -> float:
        """Confidence of the interval that agrees with the words of this look, and holds at all looks together."""
        return 1 - self.level(look)

    def _check(self, look: int) -> None:
        if not 0 <= look < len(self.seeds):
            raise EvidenceError(f"0 <= look < {len(self.seeds)} must hold, but got look={look}")


def stop(effects: Sequence[Effect], plan: Looks, look: int) -> Reason | None:
    """Whether training may end after this look.

    The words are those of `judge(effects, alpha=plan.level(look), margin=plan.margin)` at the look at which it ends; an
    earlier look that did not end it leaves no word behind.

    Args:
        effects: All effects in question, of the seeds so far.
        plan: The looks, fixed before the first result.
        look: Which of them this is, from 0.

    Returns:
        "decided" if no effect is undecided, "precise" if every interval is short enough, "spent" at the last look, or
        None to go on.
    """
    level = plan.level(look)
    if effects and all(judged.word != "undecided" for judged in judge(effects, alpha=level, margin=plan.margin)):
        return "decided"
    widths = [effect.half_width for effect in effects]
    if plan.half_width is not None and widths and all(w is not None and w <= plan.half_width for w in widths):
        return "precise"
    return "spent" if look == len(plan.seeds) - 1 else None
