"""Intervals over videos: they cover what they say, whatever the number of videos."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from nas.evidence.interval import wilson
from nas.evidence.paired import interval_over_seeds_and_videos, interval_over_videos


@pytest.mark.parametrize(("share", "videos", "least"), [(0.5, 60, 0.93), (0.7, 200, 0.93), (0.95, 57, 0.90)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(share: float, videos: int, least: float) -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        low, high = interval_over_videos((rng.random(videos) < share).astype(float), resamples=999)
        inside += low <= share <= high
    assert inside / 400 >= least  # near 1, where nearly all are right, it is on the safe side


@given(st.integers(1, 400), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
def test_of_right_and_wrong_videos_the_interval_is_wilson_s(videos: int, data: st.DataObject, level: float) -> None:
    right = data.draw(st.integers(0, videos))
    values = np.array([1.0] * right + [0.0] * (videos - right))
    expected = stats.binomtest(right, videos).proportion_ci(level, method="wilson")
    assert interval_over_videos(values, confidence=level) == pytest.approx(tuple(expected), abs=1e-12)
    assert wilson(right / videos, videos, level) == pytest.approx(tuple(expected), abs=1e-12)
    expected = proportion_confint(right, videos, alpha=1 - level, method="wilson")
    low, high = wilson(right / videos, videos, level)
    assert (low, high) == pytest.approx(expected, abs=1e-12)
    assert 0 <= low <= right / videos <= high <= 1 and high - low > 0.5 / videos


def test_videos_that_all_earn_the_same_part_have_the_bound_of_clopper_and_pearson() -> None:
    low, high = interval_over_videos(np.full(57, 0.5))
    unseen = 1 - 0.025 ** (1 / 57)
    assert (low, high) == (pytest.approx(0.5 - unseen / 2), pytest.approx(0.5 + unseen / 2))


def test_networks_that_never_differ_may_still_differ_on_other_videos() -> None:
    low, high = interval_over_videos(np.zeros(30), least=-1.0)
    assert low == -high
    assert 0.05 < high < 0.2


def test_it_is_the_interval_of_drawing_videos_one_by_one() -> None:
    values = np.array([0.0, 0.5, 1.0, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0] * 3)
    rng = np.random.default_rng(5)
    means = values[rng.integers(0, 30, (20_000, 30))].mean(1)
    expected = np.quantile(means, (0.025, 0.975))
    assert interval_over_videos(values) == pytest.approx(tuple(expected), abs=0.02)


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=1, max_size=40), st.integers(0, 3))
def test_the_interval_holds_the_mean_and_stays_a_share(values: list[float], seed: int) -> None:
    array = np.array(values)
    low, high = interval_over_videos(array, resamples=499, seed=seed)
    assert 0 <= low <= array.mean() + 1e-12
    assert array.mean() - 1e-12 <= high <= 1
    assert (low, high) == interval_over_videos(array[::-1], resamples=499, seed=seed)  # videos have no order


def test_seeds_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    alike = (rng.random((4, 80)) < 0.7).astype(float)
    apart = (rng.random((4, 80)) < np.array([[0.5], [0.6], [0.8], [0.9]])).astype(float)
    narrow, wide = interval_over_seeds_and_videos(alike), interval_over_seeds_and_videos(apart)
    assert narrow is not None
    assert wide is not None
    assert wide[1] - wide[0] > 1.3 * (narrow[1] - narrow[0])
    assert interval_over_seeds_and_videos(np.ones((3, 20))) is None
    assert interval_over_seeds_and_videos(alike[:1]) is None


def test_where_nearly_every_video_has_its_own_value_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(5).beta(2, 3, 1500)
    low, high = interval_over_videos(values)
    half = 1.96 * values.std() / 1500**0.5
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    assert interval_over_videos(values) == (low, high)
