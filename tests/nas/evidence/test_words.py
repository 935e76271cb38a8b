"""Better, worse, equivalent, undecided: over a family, and in plain words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.evidence.paired import paired
from nas.evidence.spread import Spread
from nas.evidence.values import Effect, EvidenceError, Result, holm
from nas.evidence.words import Looks, judge, stop


def effect(difference: float, se: float, *, level: str = "3d", reference: str = "2d", pairs: int = 5) -> Effect:
    """An effect with this standard error over seeds, clips not known."""
    spread = Spread(difference=difference, seeds=se**2, df=pairs - 1)
    some = paired({0: Result(top1=0.5), 1: Result(top1=0.6)}, {0: Result(top1=0.6), 1: Result(top1=0.8)})
    low, high = spread.interval(0.95)
    return replace(
        some,
        level=level,
        reference=reference,
        pairs=pairs,
        basis="seeds and clips",
        difference=difference,
        low=low,
        high=high,
        p=spread.p(),
        spread=spread,
    )


def test_the_four_words() -> None:
    family = [effect(0.124, 0.012), effect(-0.124, 0.012), effect(0.001, 0.001), effect(0.011, 0.012)]
    judged = judge(family)
    assert [j.word for j in judged] == ["better", "worse", "equivalent", "undecided"]
    assert [j.sentence for j in judged] == [
        "3d is better than 2d by 12.4 points (95 % interval 9.1 to 15.7; 5 pairs)",
        "3d is worse than 2d by 12.4 points (95 % interval 9.1 to 15.7; 5 pairs)",
        "3d and 2d are equivalent within 1 point (difference 0.1, 95 % interval -0.2 to 0.4; 5 pairs)",
        "3d against 2d is undecided: 1.1 points (95 % interval -2.2 to 4.4; 5 pairs); "
        "with these pairs only a difference of 6.6 points would be visible",
    ]


def test_nothing_can_be_visible_beyond_all_that_there_is() -> None:
    (vague,) = judge([effect(0.1, 0.3)])
    assert vague.visible is not None and vague.visible > 1
    assert vague.sentence.endswith("; with these pairs no difference would be visible")


def test_alone_a_difference_is_visible_that_is_not_among_many() -> None:
    one = effect(0.035, 0.012)
    assert judge([one])[0].word == "better"
    several = judge([one, effect(0.0, 0.012), effect(0.0, 0.012)])[0]
    assert several.word == "undecided"
    assert "alone it would be real, but not as one of 3 comparisons" in several.sentence
    assert several.visible is not None and several.visible > judge([one])[0].visible  # type: ignore[operator]


def test_a_real_difference_that_is_smaller_than_the_margin_is_called_small() -> None:
    judged = judge([effect(0.003, 0.0005)])[0]
    assert judged.word == "better"
    assert judged.sentence.endswith("which is less than the 1 point that would matter")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-0.2, 0.2), st.floats(0.001, 0.05)), min_size=1, max_size=6))
def test_words_follow_holm_over_both_families(pairs: list[tuple[float, float]]) -> None:
    family = [effect(difference, se) for difference, se in pairs]
    judged = judge(family, margin=0.02)
    spreads = [e.spread for e in family if e.spread is not None]
    differ = holm([s.p() for s in spreads])
    equal = holm([s.p_equivalent(0.02) for s in spreads])
    for j, p, p_equivalent in zip(judged, differ, equal, strict=True):
        assert j.p_holm == pytest.approx(p)
        assert j.p_equivalent_holm == pytest.approx(p_equivalent)
        if p <= 0.05:
            assert j.word == ("better" if j.effect.difference > 0 else "worse")
        else:
            assert j.word == ("equivalent" if p_equivalent <= 0.05 else "undecided")


def test_one_pair_and_equal_differences_without_clips_stay_undecided_and_say_why() -> None:
    single = paired({0: Result(top1=0.5)}, {0: Result(top1=0.9), 1: Result(top1=0.9)}, level="3d", reference="2d")
    same = paired({0: Result(top1=0.5), 1: Result(top1=0.6)}, {0: Result(top1=0.6), 1: Result(top1=0.7)})
    judged = judge([single, same])
    assert [j.word for j in judged] == ["undecided", "undecided"]
    assert judged[0].sentence == (
        "3d against 2d is undecided: 40.0 points (no interval; 1 pair); one pair says nothing of the noise, two seeds "
        "or more are needed; 1 incomplete pair left out"
    )
    assert "equal differences with every seed say nothing of the noise while clips are not known" in judged[1].sentence


def test_what_holds_for_new_seeds_only_says_so() -> None:
    rng = np.random.default_rng(0)
    base = {seed: Result(top1=float(0.5 + rng.normal(0, 0.01))) for seed in range(5)}
    other = {seed: Result(top1=r.top1 + 0.2 + 0.01 * seed) for seed, r in base.items()}
    assert judge([paired(base, other)])[0].sentence.endswith("; of new seeds only, since clips are not known")


def test_a_family_of_none_has_no_words_and_bad_levels_are_refused() -> None:
    assert judge([]) == []
    with pytest.raises(EvidenceError, match=r"0 < alpha < 0\.5 must hold, but got alpha=5"):
        judge([effect(0.1, 0.01)], alpha=5)
    with pytest.raises(EvidenceError, match=r"0\.01 is one point"):
        judge([effect(0.1, 0.01)], margin=1)


def test_all_looks_together_spend_alpha_and_no_more() -> None:
    for plan in (Looks(seeds=(3, 5, 8)), Looks(seeds=(5,)), Looks(seeds=(2, 3, 4, 5, 6), alpha=0.1)):
        assert sum(plan.level(look) for look in range(len(plan.seeds))) == pytest.approx(plan.alpha)
    assert Looks(seeds=(3, 5, 8)).level(2) == pytest.approx(0.05 * (1 - 25 / 64))
    assert Looks(seeds=(5,)).confidence(0) == pytest.approx(0.95)


def test_looks_lie_evenly_between_the_fewest_and_the_most_seeds() -> None:
    assert Looks.between(3, 9).seeds == (3, 6, 9)
    assert Looks.between(3, 4, looks=5).seeds == (3, 4)
    assert Looks.between(5, 5).seeds == (5,)
    assert Looks.between(3, 8, looks=1).seeds == (8,)


def test_a_study_stops_when_all_is_decided_or_precise_or_spent() -> None:
    plan = Looks(seeds=(3, 5, 8), half_width=0.02)
    clear, vague, sharp = effect(0.3, 0.01), effect(0.01, 0.02), effect(0.012, 0.006)
    assert stop([clear, clear], plan, 0) == "decided"
    assert stop([clear, vague], plan, 0) is None
    assert stop([clear, vague], plan, 2) == "spent"
    assert stop([sharp], plan, 0) == "precise"
    assert stop([effect(0.012, 0.008)], plan, 0) is None  # its interval is 2.2 points either way
    assert stop([sharp], Looks(seeds=(3, 5, 8)), 0) is None
    assert stop([clear, effect(0.0005, 0.0005)], plan, 1) == "decided"  # equivalence is a decision too


def test_an_early_look_asks_for_more_than_a_single_test_would() -> None:
    plan = Looks(seeds=(3, 5, 8))
    close = effect(0.035, 0.012)
    assert judge([close])[0].word == "better"
    assert stop([close], plan, 0) is None


def test_impossible_looks_are_refused() -> None:
    with pytest.raises(EvidenceError, match="each later than the one before"):
        Looks(seeds=(5, 3))
    with pytest.raises(EvidenceError, match="2 <= least <= most"):
        Looks.between(5, 3)
    with pytest.raises(EvidenceError, match="0 <= look < 3 must hold, but got look=3"):
        stop([], Looks(seeds=(3, 5, 8)), 3)
    with pytest.raises(EvidenceError, match="half_width < 1"):
        Looks(seeds=(3,), half_width=3)
