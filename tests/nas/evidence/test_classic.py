"""Textbook formulas, against scipy, statsmodels and published examples."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from nas.evidence.paired import detects, pairs_needed, power_curve, smallest_visible, visible_difference
from nas.evidence.values import EvidenceError, hedges_g, holm, small_sample_factor, wilcoxon


def test_signed_ranks_are_those_of_the_depression_example() -> None:
    # Hollander and Wolfe (1973), p. 29: Hamilton depression of nine patients before and after a tranquiliser; the
    # example of R's ?wilcox.test: V = 40, p = 0.01953 with alternative "greater", twice that with two sides.
    before = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    after = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    assert wilcoxon(before - after) == pytest.approx(2 * 0.01953125)


def test_five_pairs_cannot_be_significant_by_ranks() -> None:
    assert wilcoxon(np.array([0.1, 0.2, 0.3, 0.4, 0.5])) == 0.0625
    assert wilcoxon(np.zeros(5)) == 1.0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-6, 6), min_size=2, max_size=9))
def test_ties_and_zeros_are_counted_out_over_all_signs(values: list[int]) -> None:
    differences = np.array(values) / 57
    kept = differences[differences != 0]
    if len(kept) == 0:
        assert wilcoxon(differences) == 1.0
        return
    ranks = stats.rankdata(np.abs(kept))
    signs = np.array(np.meshgrid(*[[0, 1]] * len(kept))).reshape(len(kept), -1).T
    sums = signs @ ranks
    observed = ranks[kept > 0].sum()
    expected = min(1.0, 2 * min((sums <= observed + 1e-9).mean(), (sums >= observed - 1e-9).mean()))
    assert wilcoxon(differences) == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 25), st.integers(0, 2**32 - 1))
def test_without_ties_it_is_scipys_exact_test(pairs: int, seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.5, 1, pairs)
    assert wilcoxon(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)


def test_holm_is_that_of_statsmodels() -> None:
    values = list(np.random.default_rng(0).random(12) ** 4)
    assert holm(values) == pytest.approx(list(multipletests(values, method="holm")[1]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_rejects_what_is_rejected_in_every_family_that_it_is_in(values: list[float]) -> None:
    # Marcus, Peritz and Gabriel (1976): with Bonferroni's test of each family, the closed test is Holm's.
    families = [f for size in range(1, len(values) + 1) for f in combinations(range(len(values)), size)]
    closed = [
        max(min(1.0, len(f) * min(values[i] for i in f)) for f in families if position in f)
        for position in range(len(values))
    ]
    assert holm(values) == pytest.approx(closed)


def test_holm_of_four_values_is_that_of_r() -> None:
    # R: p.adjust(c(0.04, 0.01, 0.03, 0.02), "holm").
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([]) == []


def test_hedges_correction_is_that_of_his_table() -> None:
    # Hedges (1981), table 1: c(m) for m = 2, 5, 10, 50.
    for df, factor in ((2, 0.5642), (5, 0.8408), (10, 0.9228), (50, 0.9849)):
        assert small_sample_factor(df) == pytest.approx(factor, abs=6e-5)
    assert small_sample_factor(10) == pytest.approx(1 - 3 / (4 * 10 - 1), abs=5e-4)  # his approximation


def test_the_effect_size_of_equal_or_two_differences_is_not_made_up() -> None:
    differences = np.array([0.01, 0.03, 0.02, 0.06])
    expected = differences.mean() / differences.std(ddof=1) * small_sample_factor(3)
    assert hedges_g(differences) == pytest.approx(expected)
    assert hedges_g(np.array([0.1, 0.1, 0.1])) is None
    assert hedges_g(np.array([0.1, 0.2])) is None


@pytest.mark.parametrize("pairs", [3, 5, 10, 30])
@pytest.mark.parametrize("size", [0.3, 0.8, 1.5, 4.0])
def test_power_is_that_of_statsmodels(pairs: int, size: float) -> None:
    expected = TTestPower().power(effect_size=size, nobs=pairs, alpha=0.05, alternative="two-sided")
    assert power_curve([0.02 * size], 0.02, [pairs])[0][0] == pytest.approx(expected, abs=1e-7)


def test_power_of_a_published_example() -> None:
    # R: power.t.test(n = 20, delta = 1, sd = 1, type = "one.sample"): power = 0.9886. And Cohen (1988): d = 0.5 needs
    # 34 pairs for 0.8 (G*Power's t test of the difference from constant).
    assert power_curve([1.0], 1.0, [20])[0][0] == pytest.approx(0.9886, abs=5e-4)
    assert pairs_needed(0.5, 1.0) == 34


@settings(max_examples=40, deadline=None)
@given(st.floats(0.002, 0.2), st.integers(2, 40), st.sampled_from([0.05, 0.0125]), st.sampled_from([0.5, 0.8, 0.95]))
def test_the_visible_difference_is_seen_with_just_that_power(sd: float, pairs: int, alpha: float, power: float) -> None:
    seen = visible_difference(sd, pairs, alpha=alpha, power=power)
    assert detects(seen, sd / np.sqrt(pairs), pairs - 1, alpha=alpha) == pytest.approx(power, abs=1e-6)
    needed = pairs_needed(seen, sd, alpha=alpha, power=power - 1e-6)
    assert needed == pairs


def test_more_seeds_do_not_lessen_the_noise_of_clips() -> None:
    assert visible_difference(0.03, 1000, se_clips=0.02) > 2.8 * 0.02
    of_seeds, of_clips = 0.03**2 / 5, 0.01**2
    seen = visible_difference(0.03, 5, se_clips=0.01)
    df = 4 * ((of_seeds + of_clips) / of_seeds) ** 2  # Satterthwaite, clips taken as well known
    reach, shift = stats.t.ppf(0.975, df), seen / np.sqrt(of_seeds + of_clips)
    assert stats.nct.sf(reach, df, shift) + stats.nct.cdf(-reach, df, shift) == pytest.approx(0.8)
    assert pairs_needed(0.05, 0.03, se_clips=0.02) is None
    assert pairs_needed(0.08, 0.03, se_clips=0.02) is not None
    assert smallest_visible(1.0, float("inf")) == pytest.approx(stats.norm.ppf(0.975) + stats.norm.ppf(0.8), abs=1e-5)


@pytest.mark.parametrize("pairs", [2, 3, 10, 100, 1000])
def test_a_huge_difference_is_seen_for_certain(pairs: int) -> None:
    assert power_curve([50.0], 0.02, [pairs])[0][0] == pytest.approx(1.0)


def test_bad_plans_are_refused() -> None:
    with pytest.raises(EvidenceError, match="pairs >= 2"):
        visible_difference(0.02, 1)
    with pytest.raises(EvidenceError, match="difference != 0"):
        pairs_needed(0.0, 0.02)
    with pytest.raises(EvidenceError, match="alpha < power < 1"):
        visible_difference(0.02, 5, power=1.0)
    with pytest.raises(EvidenceError, match=r"0 < alpha < 0\.5"):
        visible_difference(0.02, 5, alpha=5)
