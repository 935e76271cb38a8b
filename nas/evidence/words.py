"""From numbers to words: better, worse, equivalent or undecided, over a family of effects and several looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nas.evidence.interval import level
from nas.evidence.paired import visible
from nas.evidence.values import Effect, EvidenceError, holm

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
        """Looks spread evenly from `least` to `most` seeds; fewer where the range has no room for them."""
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


Word = Literal["better", "worse", "equivalent", "undecided"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What may be said of an effect, beside the others of its family.

    Attributes:
        effect: The effect.
        word: better, worse, equivalent or undecided. Of an interaction, better means that two changes together earn
            more than the sum of what each earns alone.
        p_holm: p after Holm's correction over the family; None where there is none.
        p_equivalent_holm: The same of the tests of equivalence.
        visible: The difference that these pairs would show with probability 0.8 within a family of this size.
        sentence: All of it in plain words.
    """

    effect: Effect
    word: Word
    p_holm: float | None
    p_equivalent_holm: float | None
    visible: float | None
    sentence: str


def judge(effects: Sequence[Effect], *, alpha: float = 0.05, margin: float = 0.01, early: bool = False) -> list[Judged]:
    """Judges a family of effects together.

    The differences are one family and the tests of equivalence are another, each corrected after Holm, so that with
    probability 1 - alpha no arm is called better or worse that is not. An effect without a test (one pair) counts in
    the size of both. A difference that is both real and smaller than the margin is called better or worse, and the
    sentence says that it is small.

    Args:
        effects: All that were asked in one question; leaving some out makes the correction too weak.
        alpha: Chance of a false word over the family.
        margin: The smallest difference that matters, in shares of 1.
        early: The look that this level is for is still to come, so every word is undecided: who judges after each pair
            and stops at the first word is wrong far more often than alpha.
    """
    if not 0 < alpha < 0.5:
        raise EvidenceError(f"0 < alpha < 0.5 must hold, but got alpha={alpha!r}")
    if not 0 < margin < 1:
        raise EvidenceError(f"0 < margin < 1 must hold, but got margin={margin!r}; 0.01 is one point of top-1")
    differ = holm([1.0 if effect.spread is None else effect.spread.p() for effect in effects])
    equal = holm([1.0 if effect.spread is None else effect.spread.p_equivalent(margin) for effect in effects])
    judged = []
    for effect, p, p_equivalent in zip(effects, differ, equal, strict=True):
        word: Word = "undecided"
        if early:
            word = "undecided"
        elif effect.spread is not None and p <= alpha:
            word = "better" if effect.difference > 0 else "worse"
        elif effect.spread is not None and p_equivalent <= alpha:
            word = "equivalent"
        seen = None if effect.spread is None else visible(effect.spread, alpha=alpha / len(effects))
        small = p_equivalent <= alpha
        judged.append(
            Judged(
                effect=effect,
                word=word,
                p_holm=None if effect.spread is None else p,
                p_equivalent_holm=None if effect.spread is None else p_equivalent,
                visible=seen,
                sentence=f"{_undecided(effect)}; the look at which it is judged is still to come"
                if early
                else sentence(effect, word, seen=seen, small=small, family=len(effects), alpha=alpha, margin=margin),
            )
        )
    return judged


def sentence(
    effect: Effect, word: Word, *, seen: float | None, small: bool, family: int, alpha: float, margin: float
) -> str:
    """An effect and its word as one sentence, in points of top-1."""
    if word == "undecided":
        text = f"{_undecided(effect)}; {_why(effect, seen=seen, family=family, alpha=alpha)}"
    elif word == "equivalent":
        text = _equivalent(effect, margin)
    else:
        text = f"{_claim(effect, word)} ({_evidence(effect, word)})"
        if small:
            text += f", which is less than the {_margin(margin)} that would matter"
    if effect.left_out:
        text += f"; {_count(effect.left_out, 'incomplete pair' if effect.kind == 'pair' else 'missing run')} left out"
    if effect.basis == "seeds" and effect.spread is not None:
        text += "; of new seeds only, since clips are not known"
    return text


def points(share: float) -> str:
    """A share of 1 in points: 0.124 is 12.4."""
    return f"{100 * share + 0.0:.1f}".replace("-0.0", "0.0")


def _claim(effect: Effect, word: Word) -> str:
    size = f"{points(abs(effect.difference))} points"
    if effect.kind == "interaction":
        amount = "more" if word == "better" else "less"
        return f"{effect.level} together earn {size} {amount} than the sum of both alone, against {effect.reference}"
    average = ", averaged over the other factors," if effect.kind == "main" else ""
    return f"{effect.level} is {word} than {effect.reference}{average} by {size}"


def _equivalent(effect: Effect, margin: float) -> str:
    evidence = f"difference {points(effect.difference)}, {_evidence(effect, 'equivalent')}"
    if effect.kind == "interaction":
        return f"{effect.level} add up within {_margin(margin)}, against {effect.reference} ({evidence})"
    return f"{effect.level} and {effect.reference} are equivalent within {_margin(margin)} ({evidence})"


def _undecided(effect: Effect) -> str:
    what = "beyond their sum, " if effect.kind == "interaction" else ""
    return (
        f"{effect.level} against {effect.reference} is undecided: {what}{points(effect.difference)} points "
        f"({_evidence(effect, 'undecided')})"
    )


def _why(effect: Effect, *, seen: float | None, family: int, alpha: float) -> str:
    if effect.spread is None and effect.pairs == 1:
        return "one pair says nothing of the noise, two seeds or more are needed"
    if effect.spread is None or seen is None:
        return "equal differences with every seed say nothing of the noise while clips are not known"
    these = "these pairs" if effect.kind == "pair" else "these seeds"
    text = f"with {these} only a difference of {points(seen)} points would be visible"
    if seen > 1:  # more than there is between none right and all
        text = f"with {these} no difference would be visible"
    if family > 1 and effect.p is not None and effect.p <= alpha:
        text = f"alone it would be real, but not as one of {family} comparisons; {text}"
    return text


def _evidence(effect: Effect, word: Word) -> str:
    """The interval and the pairs; of a loss the interval is turned, as its size is."""
    pairs = _count(effect.pairs, "pair" if effect.kind == "pair" else "seed")
    if effect.low is None or effect.high is None:
        return f"no interval; {pairs}"
    low, high = (-effect.high, -effect.low) if word == "worse" else (effect.low, effect.high)
    return f"{level(effect.confidence)} interval {points(low)} to {points(high)}; {pairs}"


def _margin(margin: float) -> str:
    return "1 point" if margin == 0.01 else f"{100 * margin:g} points"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
