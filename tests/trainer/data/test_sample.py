from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import Clip
from trainer.data.sample import eval_indices, frames_at, needed_frames, spread, train_indices


def clip(frames: int, stride: int = 1) -> Clip:
    return Clip(frames=frames, height=8, width=8, stride=stride)


lengths = st.integers(1, 400)
clips = st.builds(clip, st.integers(1, 32), st.integers(1, 5))
seeds = st.integers(0, 2**32)
samplings = st.sampled_from(["dense", "uniform"])


@given(lengths, clips, seeds, samplings)
def test_training_draws_valid_frames_and_repeats_itself(n, c, seed, sampling):
    one, two = (train_indices(n, c, sampling, np.random.default_rng(seed)) for _ in range(2))
    assert one.shape == (c.frames,) and one.dtype == np.int64
    assert (one == two).all()
    assert one.min() >= 0 and one.max() < n
    if n >= needed_frames(c, sampling):
        assert (np.diff(one) == c.stride).all() if sampling == "dense" else (np.diff(one) > 0).all()


@given(lengths, clips, st.integers(1, 10), samplings)
def test_evaluation_clips_are_valid_and_spread_forwards(n, c, k, sampling):
    taken = [eval_indices(n, c, sampling, number=i, num_clips=k) for i in range(k)]
    for one in taken:
        assert one.shape == (c.frames,)
        assert one.min() >= 0 and one.max() < n
        if n >= needed_frames(c, sampling):
            assert (np.diff(one) == c.stride).all() if sampling == "dense" else (np.diff(one) > 0).all()
    if n >= needed_frames(c, sampling):
        assert all((a <= b).all() for a, b in pairwise(taken))


@given(st.integers(1, 64), seeds, st.integers(1, 10))
def test_uniform_takes_every_frame_of_a_video_of_exactly_the_length(t, seed, k):
    every = np.arange(t)
    assert (train_indices(t, clip(t), "uniform", np.random.default_rng(seed)) == every).all()
    assert all((eval_indices(t, clip(t), "uniform", number=i, num_clips=k) == every).all() for i in range(k))


@given(st.integers(1, 20), st.integers(1, 20), seeds)
def test_uniform_draws_one_frame_from_each_segment(per, t, seed):
    drawn = train_indices(per * t, clip(t), "uniform", np.random.default_rng(seed))
    assert (drawn // per == np.arange(t)).all()


def test_training_reaches_every_possible_frame():
    rng = np.random.default_rng(0)
    starts = {int(train_indices(10, clip(3, 2), "dense", rng)[0]) for _ in range(300)}
    assert starts == set(range(6))
    seconds = {int(train_indices(9, clip(3), "uniform", rng)[1]) for _ in range(300)}
    assert seconds == {3, 4, 5}


@pytest.mark.parametrize(
    ("sampling", "k", "number", "expected"),
    [
        ("dense", 1, 0, [3, 5, 7]),  # 11 frames, span 5: the middle of starts 0..6
        ("dense", 3, 0, [0, 2, 4]),
        ("dense", 3, 1, [3, 5, 7]),
        ("dense", 3, 2, [6, 8, 10]),
        ("dense", 2, 1, [6, 8, 10]),
        ("uniform", 1, 0, [1, 5, 9]),  # segments 0-2, 3-6, 7-10
        ("uniform", 2, 0, [0, 4, 8]),
        ("uniform", 2, 1, [2, 6, 10]),
    ],
)
def test_evaluation_frames_of_eleven(sampling, k, number, expected):
    assert eval_indices(11, clip(3, 2), sampling, number=number, num_clips=k).tolist() == expected


def test_short_videos_are_played_in_a_loop():
    assert eval_indices(3, clip(5), "dense", number=0, num_clips=1).tolist() == [0, 1, 2, 0, 1]
    assert eval_indices(3, clip(6), "uniform", number=0, num_clips=1).tolist() == [0, 1, 2, 0, 1, 2]
    starts = {int(train_indices(3, clip(5), "dense", np.random.default_rng(i))[0]) for i in range(50)}
    assert starts == {0, 1, 2}


def test_needed_frames():
    assert needed_frames(clip(16, 2), "dense") == 31
    assert needed_frames(clip(16, 2), "uniform") == 16


@given(st.integers(1, 500), st.integers(1, 500))
def test_a_video_at_another_rate_is_spread_evenly_over_its_frames(num_frames, num_seen):
    taken = spread(np.arange(num_seen), num_frames, num_seen)
    assert taken.min() >= 0 and taken.max() < num_frames and (np.diff(taken) >= 0).all()
    counts = np.bincount(taken, minlength=num_frames)
    assert counts.max() - counts.min() <= 1
    assert num_seen != num_frames or (taken == np.arange(num_frames)).all()


@pytest.mark.parametrize(
    ("num_frames", "rate", "fps", "expected"),
    [
        (300, 30.0, 15.0, 150),
        (300, 29.97, 10.0, 100),
        (10, 30.0, 60.0, 20),
        (3, 30.0, 1.0, 1),
        (7, 0.0, 5.0, 7),
        (7, 9.0, 0.0, 7),
    ],
)
def test_frames_are_counted_at_the_rate_that_is_asked_for(num_frames, rate, fps, expected):
    assert frames_at(num_frames, rate, fps) == expected
