"""From numbers to words: better, worse, equivalent or undecided, over a whole family of effects at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nas.accuracies import level
from nas.evidence.classic import holm
from nas.evidence.paired import visible
from nas.evidence.values import Effect, EvidenceError

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
