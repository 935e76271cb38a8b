from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import Clip
from trainer.data.augment import Box, cut, eval_boxes, normalise, train_box

sides = st.integers(1, 300)
scales = st.none() | st.tuples(st.floats(0.05, 0.9), st.floats(0.9, 1.0))


def clip(height: int, width: int, frames: int = 4) -> Clip:
    return Clip(frames=frames, height=height, width=width)


@given(sides, sides, sides, sides, scales, st.integers(0, 2**32))
def test_boxes_lie_inside_and_have_the_right_size(height, width, rows, columns, scale, seed):
    wanted = clip(rows, columns)
    (centre,) = eval_boxes(height, width, wanted)
    drawn = train_box(height, width, wanted, scale, np.random.default_rng(seed))
    for box in (centre, drawn):
        assert box.top >= 0 and box.top + box.height <= height and box.height >= 1
        assert box.left >= 0 and box.left + box.width <= width and box.width >= 1
    if rows <= height and columns <= width:
        assert (centre.height, centre.width) == (rows, columns)
        assert abs(2 * centre.top + rows - height) <= 1 and abs(2 * centre.left + columns - width) <= 1
    else:  # the largest box of the aspect
        largest = min(height / rows, width / columns)
        assert (centre.height, centre.width) == (max(1, round(rows * largest)), max(1, round(columns * largest)))
    if scale is None:
        assert (drawn.height, drawn.width) == (centre.height, centre.width)
    else:
        share = drawn.height / (rows * min(height / rows, width / columns))
        slack = 1 / (rows * min(height / rows, width / columns))
        assert scale[0] - slack <= share <= scale[1] + slack


def test_random_crops_reach_every_place():
    rng = np.random.default_rng(0)
    boxes = [train_box(6, 7, clip(4, 4), None, rng) for _ in range(300)]
    assert {(box.top, box.left) for box in boxes} == {(y, x) for y in range(3) for x in range(4)}


def picture(frames: int = 5, height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (frames, height, width, 3), np.uint8)


@pytest.mark.parametrize("mirror", [False, True])
def test_cut_takes_the_same_box_of_the_chosen_frames(mirror):
    video = picture()
    out = np.zeros((4, 6, 8, 3), np.uint8)
    cut(video, np.array([4, 2, 2, 0]), Box(top=3, left=5, height=6, width=8), out, mirror=mirror)
    expected = video[[4, 2, 2, 0], 3:9, 5:13]
    np.testing.assert_array_equal(out, expected[:, :, ::-1] if mirror else expected)


def test_cut_resizes_all_frames_alike():
    ramp = np.broadcast_to((10 * np.arange(16)).astype(np.uint8)[:, None], (3, 12, 16, 3)).copy()
    out = np.zeros((2, 4, 4, 3), np.uint8)
    cut(ramp, np.array([0, 1]), Box(top=2, left=4, height=8, width=8), out, mirror=False)
    # Columns 4..11 averaged in pairs, but for the ends: 45, 65, 85, 105; nothing from outside the box.
    assert np.abs(out[:, :, :, 0].astype(int) - [45, 65, 85, 105]).max() <= 4
    assert out.min() >= 40 and out.max() <= 110
    np.testing.assert_array_equal(out[0], out[1])
    larger = np.zeros((2, 24, 32, 3), np.uint8)
    cut(ramp, np.array([0, 2]), Box(top=0, left=0, height=12, width=16), larger, mirror=True)
    assert (np.diff(larger[0, 0, :, 0].astype(int)) <= 0).all() and larger.max() == 150


def test_cut_averages_what_it_makes_smaller():
    checks = (np.indices((16, 16)).sum(0) % 4 < 2).astype(np.uint8) * 200
    video = np.repeat(checks[None, ..., None], 3, axis=-1)
    out = np.zeros((1, 4, 4, 3), np.uint8)
    cut(video, np.array([0]), Box(top=0, left=0, height=16, width=16), out, mirror=False)
    assert np.abs(out.astype(int) - 100).max() <= 30


def test_normalise():
    pixels = torch.from_numpy(np.stack([picture(), picture()[::-1]]))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    clips = normalise(pixels, mean, std)
    assert clips.shape == (2, 3, 5, 12, 16) and clips.dtype == torch.float32
    assert clips.is_contiguous(memory_format=torch.channels_last_3d)
    expected = (pixels.double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(clips.permute(0, 2, 3, 4, 1).double(), expected, rtol=0, atol=1e-5)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32))
def test_boxes_of_another_aspect_lie_in_the_frame(height, width, rows, columns, seed):
    clip, ratio = Clip(frames=1, height=rows, width=columns), (0.5, 2.0)
    rng = np.random.default_rng(seed)
    box = train_box(height, width, clip, (0.3, 1.0), rng, crop_ratio=ratio)
    assert 0 <= box.top <= height - box.height < height and 0 <= box.left <= width - box.width < width
    again = train_box(height, width, clip, (0.3, 1.0), np.random.default_rng(seed), crop_ratio=ratio)
    assert box == again


def test_aspects_are_spread_evenly_in_their_logarithm_and_areas_stay():
    clip = Clip(frames=1, height=100, width=100)
    boxes = [
        train_box(400, 400, clip, (0.5, 0.5), np.random.default_rng(seed), crop_ratio=(0.5, 2.0)) for seed in range(400)
    ]
    logs = np.log2([box.width / box.height for box in boxes])
    assert -1.02 < logs.min() < -0.9 and 0.9 < logs.max() < 1.02 and abs(logs.mean()) < 0.1
    assert all(abs(box.width * box.height / 200**2 - 1) < 0.02 for box in boxes)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.integers(1, 60))
def test_three_crops_are_the_middle_and_both_ends_of_the_longer_side(height, width, rows, columns):
    clip = Clip(frames=1, height=rows, width=columns)
    first, middle, last = eval_boxes(height, width, clip, crops=3)
    assert (middle,) == eval_boxes(height, width, clip)
    room = (height - middle.height, width - middle.width)
    if room[1] >= room[0]:
        assert (first.left, last.left) == (0, room[1]) and first.top == middle.top == last.top
    else:
        assert (first.top, last.top) == (0, room[0]) and first.left == middle.left == last.left
