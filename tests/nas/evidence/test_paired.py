"""The effect of one change: intervals, tests, and what is said when there is next to nothing to go by."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from benchmarks.simulated import GESTURES, results, simulate
from nas.evidence.paired import bootstrap_interval, paired
from nas.evidence.spread import Spread, spread_of
from nas.evidence.values import Effect, EvidenceError, Result

# Student's sleep data (1908), `datasets::sleep` in R: extra hours of sleep of ten patients under two drugs.
SLEEP = (
    (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0),
    (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4),
)


def by_seed(values: tuple[float, ...]) -> dict[int, Result]:
    return {seed: Result(top1=value) for seed, value in enumerate(values)}


def two_arms(seeds: int = 5, difference: float = -0.2) -> tuple[dict[int, Result], dict[int, Result]]:
    rng = np.random.default_rng(7)
    study = simulate(GESTURES, [0.85, 0.85 + difference], seeds=seeds, studies=1, rng=rng)[0]
    return results(study[0]), results(study[1])


def test_without_clips_it_is_the_paired_t_test_of_r() -> None:
    # R: t.test(extra ~ group, data = sleep, paired = TRUE) gives t = 4.0621, p = 0.002833, 0.7001142 to 2.4598858.
    first, second = (tuple((value + 2) / 10 for value in arm) for arm in SLEEP)
    effect = paired(by_seed(first), by_seed(second))
    assert effect.basis == "seeds"
    assert effect.p == pytest.approx(0.002833, abs=5e-7)
    assert (effect.low, effect.high) == pytest.approx((0.07001142, 0.24598858), abs=5e-9)
    assert effect.p == effect.p_seeds == pytest.approx(stats.ttest_rel(second, first).pvalue)
    assert effect.df == pytest.approx(9)
    assert effect.clips is None and effect.se_clips is None


def test_equivalence_is_two_one_sided_tests() -> None:
    first, second = (0.80, 0.82, 0.79, 0.81, 0.83, 0.80), (0.805, 0.818, 0.801, 0.812, 0.826, 0.807)
    effect = paired(by_seed(first), by_seed(second), margin=0.01)
    expected, *_ = DescrStatsW(np.subtract(second, first)).ttost_mean(-0.01, 0.01)
    assert effect.p_equivalent == pytest.approx(expected)
    wide = paired(by_seed(first), tuple_shift(second, 0.02), margin=0.01)
    assert wide.p_equivalent == pytest.approx(DescrStatsW(np.subtract(second, first) + 0.02).ttost_mean(-0.01, 0.01)[0])
    assert wide.p_equivalent is not None and wide.p_equivalent > 0.5


def tuple_shift(values: tuple[float, ...], by: float) -> dict[int, Result]:
    return by_seed(tuple(value + by for value in values))


def test_variances_are_those_of_the_two_way_table_without_repeats() -> None:
    # Mean squares by hand, as in any textbook of the analysis of variance (Montgomery, Design and Analysis, ch. 4).
    table = np.random.default_rng(0).integers(-1, 2, (4, 30)).astype(float)
    spread = spread_of(table.mean(axis=1), table, design=np.ones((4, 1)), contrast=np.ones(1))
    rows, columns = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    of_seeds = 30 * float(((rows - table.mean()) ** 2).sum()) / 3
    of_clips = 4 * float(((columns - table.mean()) ** 2).sum()) / 29
    rest = float(((table - rows - columns + table.mean()) ** 2).sum()) / (3 * 29)
    assert (spread.seeds * 120, spread.clips * 120, spread.rest * 120) == pytest.approx((of_seeds, of_clips, rest))
    assert spread.se == pytest.approx(math.sqrt(max(of_seeds + of_clips - rest, rest) / 120))


def test_noise_of_clips_widens_the_interval_that_the_word_rests_on() -> None:
    effect = paired(*two_arms())
    assert effect.basis == "seeds and clips" and effect.clips == 57
    assert None not in (effect.se_clips, effect.se_seeds, effect.half_width, effect.seeds_high, effect.df)
    assert effect.half_width > (effect.seeds_high - effect.seeds_low) / 2  # type: ignore[operator]
    assert effect.se_clips > effect.se_seeds  # type: ignore[operator]
    assert 4 < effect.df < 56  # type: ignore[operator]


def test_with_seed_noise_alone_the_interval_is_that_of_t() -> None:
    spread = Spread(difference=0.05, seeds=4e-4, df=4, clips=1e-12, clips_df=999, rest=1e-12, num_clips=1000)
    assert spread.p() == pytest.approx(2 * stats.t.sf(0.05 / 0.02, 4), rel=1e-6)
    assert spread.half_width(0.95) == pytest.approx(0.02 * stats.t.ppf(0.975, 4), rel=1e-6)
    assert spread.effective_df(0.95) == pytest.approx(4, rel=1e-4)


def test_with_clip_noise_alone_the_interval_is_that_of_t_over_clips() -> None:
    spread = Spread(difference=0.05, seeds=1e-12, df=4, clips=4e-4, clips_df=56, rest=1e-12, num_clips=57)
    assert spread.p() == pytest.approx(2 * stats.t.sf(0.05 / 0.02, 56), rel=1e-3)
    assert spread.effective_df(0.95) == pytest.approx(56, rel=1e-2)


@settings(max_examples=40, deadline=None)
@given(
    seeds=st.floats(1e-6, 1e-2),
    clips=st.floats(1e-6, 1e-2),
    df=st.integers(1, 12),
    difference=st.floats(-0.4, 0.4),
    confidence=st.sampled_from([0.9, 0.95, 0.99]),
)
def test_the_interval_holds_exactly_the_values_that_the_test_does_not_reject(
    seeds: float, clips: float, df: int, difference: float, confidence: float
) -> None:
    spread = Spread(
        difference=difference, seeds=seeds, df=df, clips=clips, clips_df=30, rest=min(seeds, clips) / 2, num_clips=57
    )
    half = spread.half_width(confidence)
    assert spread.p(difference + half) == pytest.approx(1 - confidence, rel=1e-6)
    assert spread.p(difference + 1.01 * half) < 1 - confidence < spread.p(difference + 0.99 * half)
    assert spread.p_equivalent(abs(difference) + spread.half_width(2 * confidence - 1)) == pytest.approx(1 - confidence)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_swapping_the_arms_turns_the_effect_round(seed: int, seeds: int) -> None:
    study = simulate(GESTURES, [0.85, 0.8], seeds=seeds, studies=1, rng=np.random.default_rng(seed))[0]
    there = paired(results(study[0]), results(study[1]), resamples=0)
    back = paired(results(study[1]), results(study[0]), resamples=0)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))  # type: ignore[operator]
    assert there.p == pytest.approx(back.p)
    assert there.p_wilcoxon == back.p_wilcoxon


def test_incomplete_pairs_are_left_out_and_counted() -> None:
    base, other = two_arms()
    whole = paired({0: base[0], 1: base[1], 2: base[2]}, {0: other[0], 1: other[1], 2: other[2]})
    holey = paired(
        {0: base[0], 1: base[1], 2: base[2], 3: base[3]}, {0: other[0], 1: other[1], 2: other[2], 9: other[4]}
    )
    assert (whole.pairs, whole.left_out) == (3, 0)
    assert (holey.pairs, holey.left_out) == (3, 2)
    assert (holey.difference, holey.low, holey.p) == (whole.difference, whole.low, whole.p)


def test_clips_that_one_run_left_out_are_compared_in_none() -> None:
    base = {0: Result.of("1101-1"), 1: Result.of("110011")}
    other = {0: Result.of("011010"), 1: Result.of("0-1011")}
    effect = paired(base, other)
    assert effect.clips == 4  # all but the second and the fifth
    assert effect.difference == pytest.approx((-2 / 4 + 0 / 4) / 2)


def test_one_pair_has_a_difference_and_nothing_else() -> None:
    base, other = two_arms()
    effect = paired({3: base[3]}, {3: other[3]})
    assert effect.pairs == 1
    assert effect.difference == pytest.approx(other[3].top1 - base[3].top1)
    nothing = (effect.low, effect.high, effect.p, effect.p_wilcoxon, effect.p_equivalent, effect.visible, effect.sd)
    assert nothing == (None,) * 7
    assert effect.spread is None


def test_equal_differences_of_few_seeds_claim_no_certainty() -> None:
    answers = np.zeros((3, 57), dtype=np.int8)
    base = results((answers + (np.arange(57) < 40)).astype(bool))
    other = results((answers + (np.arange(57) < 43)).astype(bool))
    effect = paired(base, other)
    assert effect.sd == 0 and effect.effect_size is None and effect.p_seeds is None
    assert effect.low is not None and effect.low < 0 < effect.difference  # three clips of 57: chance of clips remains
    without = paired(*({seed: Result(top1=r.top1) for seed, r in arm.items()} for arm in (base, other)))
    assert (without.low, without.p, without.spread) == (None, None, None)


def test_arms_that_answer_alike_on_every_clip_differ_by_at_most_what_so_many_clips_rule_out() -> None:
    base, _ = two_arms()
    effect = paired(base, base)
    assert (effect.difference, effect.p) == (0.0, 1.0)
    assert effect.high == pytest.approx(1 - 0.05 ** (1 / 57)) == pytest.approx(-effect.low)  # type: ignore[operator]
    assert effect.p_equivalent == pytest.approx(0.99**57)  # no difference in 57 clips: may well be one point
    many = {seed: Result.of(np.ones(512, dtype=bool)) for seed in range(5)}
    assert paired(many, many).p_equivalent == pytest.approx(0.99**512)  # below 0.01


def test_hardly_any_difference_is_not_taken_for_none() -> None:
    base = np.ones((5, 57), dtype=bool)
    other = base.copy()
    other[2, 11] = False
    effect = paired(results(base), results(other))
    assert effect.low is not None and effect.low < -1 / (5 * 57)
    assert effect.high is not None and effect.high > 0


def test_arms_that_differ_on_every_clip_are_not_taken_to_differ_by_all_there_is() -> None:
    wrong, right = np.zeros((5, 57), dtype=bool), np.ones((5, 57), dtype=bool)
    effect = paired(results(wrong), results(right))
    assert effect.difference == pytest.approx(1.0)
    assert effect.low is not None and effect.low < 0.995


def test_a_few_clips_that_differ_much_are_worth_fewer_degrees_of_freedom_than_many() -> None:
    even, few = np.tile([1.0, -1.0], 28), np.zeros(56)
    few[:4] = 1.0
    design, contrast = np.ones((2, 1)), np.ones(1)
    spreads = [
        spread_of(row.mean() * np.ones(2), np.stack([row, row]), design=design, contrast=contrast)
        for row in (even, few)
    ]
    assert spreads[0].clips_df == pytest.approx(55)
    kurtosis = stats.kurtosis(few)
    assert spreads[1].clips_df == pytest.approx(2 / (2 / 55 + kurtosis / 56))
    assert spreads[1].clips_df < 15


def test_the_visible_difference_is_found_in_four_of_five_studies_with_this_noise() -> None:
    base, other = by_seed((0.8, 0.82, 0.79, 0.81)), by_seed((0.83, 0.84, 0.85, 0.83))
    effect = paired(base, other)
    assert effect.sd is not None and effect.visible is not None
    shift = effect.visible / (effect.sd / 2)
    reach = stats.t.ppf(0.975, 3)
    assert stats.nct.sf(reach, 3, shift) + stats.nct.cdf(-reach, 3, shift) == pytest.approx(0.8)


def test_intervals_stay_where_differences_of_shares_are() -> None:
    effect = paired(by_seed((0.0, 0.1)), by_seed((0.9, 0.85)))
    assert effect.high == 1.0


def test_bad_input_is_refused_in_one_line() -> None:
    base, other = two_arms()
    with pytest.raises(EvidenceError, match=r"must share a seed, but have \[5\] and \[0, 1"):
        paired(base, {5: other[0]})
    with pytest.raises(EvidenceError, match="same clips, but some have 3 and some 57"):
        paired(base, {0: Result.of("101")})
    with pytest.raises(EvidenceError, match="0 <= top1 <= 1 must hold, but got top1=85"):
        Result(top1=85.0)
    with pytest.raises(EvidenceError, match="0 < margin < 1"):
        paired(base, other, margin=0.0)
    with pytest.raises(EvidenceError, match="confidence < 1"):
        paired(base, other, confidence=95)
    with pytest.raises(EvidenceError, match="0, 1 and -"):
        Result.of("10x")
    with pytest.raises(EvidenceError, match="every clip was left out"):
        Result.of("---")


def test_the_bootstrap_interval_is_the_same_each_time_and_near_the_other() -> None:
    base, other = two_arms(seeds=8)
    first, second = paired(base, other), paired(base, other)
    assert (first.boot_low, first.boot_high) == (second.boot_low, second.boot_high)
    assert half(first) == pytest.approx(first.half_width, rel=0.25)
    assert paired(base, other, resamples=0).boot_low is None


def test_the_bootstrap_is_what_a_plain_loop_over_drawn_tables_says() -> None:
    table = np.random.default_rng(1).integers(-1, 2, (4, 20)).astype(float)

    def spread(drawn: np.ndarray) -> Spread:
        return spread_of(drawn.mean(axis=1), drawn, design=np.ones((4, 1)), contrast=np.ones(1))

    rng = np.random.default_rng(0)
    seeds = rng.multinomial(4, np.full(4, 1 / 4), 99)
    clips = rng.multinomial(20, np.full(20, 1 / 20), 99)
    scores = []
    for often, how_often in zip(seeds, clips, strict=True):
        drawn = spread(table.repeat(often, axis=0).repeat(how_often, axis=1))
        scores.append(abs(drawn.difference - table.mean()) / drawn.se)
    reach = sorted(scores)[94] * spread(table).se  # the 95th of 99 is the 95 % quantile
    interval = bootstrap_interval(table.mean(axis=1), table, resamples=99)
    assert interval == pytest.approx((table.mean() - reach, table.mean() + reach))


def half(effect: Effect) -> float:
    assert effect.boot_low is not None and effect.boot_high is not None
    return (effect.boot_high - effect.boot_low) / 2


def test_a_bootstrap_over_too_few_seeds_alone_is_not_given() -> None:
    few = paired(by_seed((0.8, 0.82, 0.79, 0.81)), by_seed((0.83, 0.84, 0.85, 0.8)))
    assert few.boot_low is None
    eight = (0.80, 0.82, 0.79, 0.81, 0.80, 0.83, 0.78, 0.81)
    assert paired(by_seed(eight), by_seed(tuple(reversed(eight)))).boot_low is not None
