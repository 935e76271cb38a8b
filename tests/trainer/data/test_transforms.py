from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import RandAugment

from trainer.config import Clip, DataConfig
from trainer.data.transforms import OPERATIONS, changes_pixels, operate, transform

THEIRS = dict(
    zip(
        OPERATIONS,
        (
            *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast"),
            *("Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
        ),
        strict=True,
    )
)


def config(**changes) -> DataConfig:
    return DataConfig(name="m", root="", cache="", clip=Clip(frames=4, height=32, width=40), **changes)


def clip(frames: int = 4, *, still: bool = False) -> torch.Tensor:
    """(T, 32, 40, 3): a coloured picture for each frame, or the same for all."""
    rng = np.random.default_rng(0)
    images = rng.integers(20, 230, (1 if still else frames, 8, 10, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    return torch.from_numpy(np.broadcast_to(images, (frames, 32, 40, 3)).copy())


def changed(pixels: torch.Tensor, seed: int, **changes) -> torch.Tensor:
    return transform(pixels.clone(), config(**changes), np.random.default_rng(seed))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_an_operation_is_that_of_torchvision(name, sign, magnitude):
    frames = clip().permute(0, 3, 1, 2)
    augment = RandAugment(fill=[9.0, 8.0, 7.0])
    magnitudes, signed = augment._AUGMENTATION_SPACE[THEIRS[name]]
    values = magnitudes(31, 32, 40)
    value = 0.0 if values is None else float(values[magnitude]) * (sign if signed else 1)
    expected = augment._apply_image_or_video_transform(
        frames, THEIRS[name], value, interpolation=augment.interpolation, fill=augment._fill
    )
    found = operate(frames, name, magnitude, sign=sign, fill=[9.0, 8.0, 7.0])
    assert found.dtype == torch.uint8 and found.shape == frames.shape
    # The magnitude is computed in another precision: a few pixels are rounded the other way.
    assert (found.int() - expected.int()).abs().float().mean() < 0.05


ALL = {"randaugment": (3, 15), "colour": 0.5, "erasing": 1.0}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_all_frames_of_a_clip_change_alike(seed):
    found = changed(clip(still=True), seed, **ALL)
    assert found.dtype == torch.uint8 and found.shape == (4, 32, 40, 3)
    assert torch.equal(found, found[:1].expand_as(found))


@pytest.mark.parametrize("what", [{"randaugment": (2, 15)}, {"colour": 0.5}, {"erasing": 1.0}])
def test_what_is_drawn_is_a_function_of_the_seed(what):
    state = torch.get_rng_state()
    results = [changed(clip(), seed, **what) for seed in (1, 1, 2, 3, 4)]
    assert torch.equal(results[0], results[1])
    assert any(not torch.equal(results[0], other) for other in results[2:])
    assert torch.equal(torch.get_rng_state(), state)


def test_without_any_of_them_a_clip_stays_as_it_is():
    assert not changes_pixels(config()) and changes_pixels(config(erasing=0.1))
    assert torch.equal(changed(clip(), 0), clip())


def test_colour_stays_within_its_factors():
    grey = torch.full((2, 8, 8, 3), 100, dtype=torch.uint8)  # contrast and saturation do nothing to grey
    levels = [int(changed(grey, seed, colour=0.3)[0, 0, 0, 0]) for seed in range(60)]
    assert min(levels) in range(69, 80) and max(levels) in range(121, 132)


def test_every_operation_of_randaugment_is_drawn_in_both_directions():
    bright = [changed(clip(), seed, randaugment=(1, 30)).float().mean() for seed in range(150)]
    assert min(bright) < 30 and max(bright) > 190  # brightness times 0.1 and 1.9
    assert 5 < sum(torch.equal(changed(clip(), seed, randaugment=(1, 0)), clip()) for seed in range(20)) <= 20


def test_one_rectangle_of_mean_colour_is_erased_from_a_share_of_the_clips():
    mean = (0.4, 0.6, 0.2)
    shares, areas = [], []
    for seed in range(120):
        erased = (changed(clip(), seed, erasing=0.5, mean=mean) == torch.tensor([102, 153, 51])).all(-1)
        assert torch.equal(erased, erased[:1].expand_as(erased))
        rows, columns = erased[0].any(1).nonzero(), erased[0].any(0).nonzero()
        shares.append(len(rows) > 0)
        if len(rows):
            inside = erased[0][rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert inside.all()
            areas.append(inside.numel() / (32 * 40))
    assert 0.35 < np.mean(shares) < 0.65
    assert min(areas) > 0.015 and max(areas) < 0.36 and max(areas) > 0.2


def test_torchvision_is_not_imported_for_flips_and_crops():
    code = (
        "import sys, trainer.data.clips, trainer.data.direct, trainer.data.pack.write;"
        "sys.exit(any(name.split('.')[0] == 'torchvision' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0
