"""What a network sees: differences follow every change of the frames, and flow turns its sign with the picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.data.test_sources import EVERYTHING, batches, config, same, texture
from trainer.config import Clip, ConfigError, DataConfig
from trainer.data.augment import normalisation, reordered, shown, to_bytes, to_pixels, turned
from trainer.data.clips import eval_batches, open_data, train_batches
from trainer.data.kinds import FlowSettings
from trainer.data.layouts import DataError, find_videos
from trainer.data.optical_flow import METHODS, flow_of_video, write_flow
from trainer.order_tests import orders, reorder
from trainer.outcomes import TESTS

DIS = FlowSettings(method="dis")


def differences(clips: torch.Tensor) -> torch.Tensor:
    """Of the frames of RGB clips (N, 3, T, H, W), the last one twice."""
    found = clips[:, :, 1:] - clips[:, :, :-1]
    return torch.cat((found, found[:, :, -1:]), 2)


@pytest.fixture
def root(tmp_path: Path, write_video) -> Path:
    for split, count in (("train", 4), ("val", 2)):
        for label in ("one", "two"):
            for index in range(count):
                video = texture(14 + index, 48, 64, seed=ord(label[0]) + 10 * index)
                write_video(tmp_path / "data" / split / label / f"{index}.mp4", video)
    return tmp_path / "data"


@pytest.fixture
def flowing(root: Path, tmp_path: Path) -> DataConfig:
    """The data of a raw pack of flow."""
    packed = write_flow(find_videos(root, name="mine"), tmp_path / "flow", short_side=32, coding="raw")
    return config(packed.folder, source="pack", input="flow")


class TestDifference:
    @pytest.mark.parametrize("reversal", ["none", "eval", "always"])
    def test_is_that_of_the_frames_that_rgb_shows_after_every_augmentation(self, root: Path, reversal: str) -> None:
        changes = {**EVERYTHING, "colour": 0.4, "erasing": 0.5, "randaugment": (1, 9), "reversal": reversal}
        rgb, found = batches(config(root, **changes)), batches(config(root, input="difference", **changes))
        assert len(rgb) == len(found) > 3
        for (clips, labels, *_), (ours, same_labels, *_) in zip(rgb, found, strict=True):
            assert torch.equal(labels, same_labels)
            torch.testing.assert_close(ours, differences(clips), rtol=0, atol=1e-4)
            assert ours.abs().max() > 1
            assert ours.is_contiguous(memory_format=torch.channels_last_3d)

    def test_of_a_reversed_clip_is_negated_and_one_frame_on(self, root: Path) -> None:
        one, other = (config(root, input="difference", reversal=reversal) for reversal in ("none", "eval"))
        data = open_data(one)
        for (forward, *_), (backward, *_) in zip(
            eval_batches(data, one, split="val", batch_size=2),
            eval_batches(data, other, split="val", batch_size=2),
            strict=True,
        ):
            assert torch.equal(backward[:, :, :-1], -forward[:, :, :-1].flip(2))
            assert torch.equal(backward[:, :, -1], backward[:, :, -2])

    def test_is_that_of_normalised_frames(self, root: Path) -> None:
        usual = {"mean": (0.4, 0.3, 0.2), "std": (0.2, 0.25, 0.3)}
        rgb, found = batches(config(root, **usual)), batches(config(root, input="difference", **usual))
        for one, other in zip(rgb, found, strict=True):
            torch.testing.assert_close(other[0], differences(one[0]), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("test", TESTS)
    def test_in_a_motion_test_is_that_of_the_frames_in_their_order(self, test: str) -> None:
        clips = torch.randn(3, 3, 5, 4, 6, generator=torch.Generator().manual_seed(0))
        clips = clips.contiguous(memory_format=torch.channels_last_3d)
        usual = reorder(clips, test, videos=[4, 1, 2], seed=7)
        ours = reorder(differences(clips), test, videos=[4, 1, 2], seed=7, kind="difference")
        for frames, found in zip(usual, ours, strict=True):
            torch.testing.assert_close(found, differences(frames), rtol=0, atol=1e-5)

    def test_needs_two_frames(self, root: Path) -> None:
        with pytest.raises(ConfigError, match=r"clip\.frames must be at least 2 with data\.input difference, but is 1"):
            config(root, input="difference", clip=Clip(frames=1, height=24, width=24))


class TestBytesOfFlow:
    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(value=st.floats(-60, 60, width=32), bound=st.floats(1, 40, width=32))
    def test_give_pixels_back_within_half_a_level_and_the_bound(self, value: float, bound: float) -> None:
        level = bound / 128
        found = float(to_pixels(to_bytes(np.float32([value]), bound), bound)[0])
        assert abs(found - np.clip(value, -bound, bound - level)) <= level / 2 + 1e-4 * bound

    def test_of_no_motion_are_128_and_normalised_0(self) -> None:
        assert to_bytes(np.zeros((2, 2), np.float32)).tolist() == [[128, 128], [128, 128]]
        usual = DataConfig(name="x", root="", cache="", clip=Clip(frames=2, height=4, width=4), input="flow")
        clips = shown(torch.full((1, 2, 4, 4, 2), 128, dtype=torch.uint8), usual)
        assert clips.shape == (1, 2, 2, 4, 4)
        assert clips.abs().max() < 1e-6
        assert normalisation(usual)[1] == (pytest.approx(sum(usual.std) / 3),) * 2

    def test_turned_twice_are_themselves(self) -> None:
        usual = DataConfig(name="x", root="", cache="", clip=Clip(frames=1, height=4, width=4), input="flow")
        first = np.arange(1, 256, dtype=np.uint8).reshape(1, 5, 51, 1).repeat(2, -1)
        for mirror, backwards in ((True, False), (False, True), (True, True)):
            pixels = first.copy()
            turned(pixels, usual, mirror=mirror, backwards=backwards)
            u, v = (1 if mirror == backwards else -1), (-1 if backwards else 1)
            assert np.array_equal(to_pixels(pixels), to_pixels(first) * np.float32([u, v]))
            turned(pixels, usual, mirror=mirror, backwards=backwards)
            assert np.array_equal(pixels, first)
        pixels = np.zeros((1, 1, 1, 2), np.uint8)  # the outermost byte has no opposite, but keeps to its side
        turned(pixels, usual, mirror=True, backwards=False)
        assert pixels.tolist() == [[[[255, 0]]]]
        rgb = first.copy()
        turned(rgb, replace(usual, input="rgb"), mirror=True, backwards=True)
        assert np.array_equal(rgb, first)


def sliding(frames: int = 6, across: int = 3, down: int = 1) -> np.ndarray:
    """Soft specks that slide to the right and down by so many pixels per frame."""
    noise = np.random.default_rng(4).normal(size=(80, 120, 1))
    for axis in (0, 1):
        noise = sum(np.roll(noise, shift, axis) for shift in range(-3, 4))
    image = (128 + 60 * noise / noise.std()).clip(0, 255).astype(np.uint8).repeat(3, -1)
    return np.stack([np.roll(image, (k * down, k * across), (0, 1)) for k in range(frames)])


class TestFlow:
    @pytest.mark.parametrize("method", METHODS)
    def test_is_in_pixels_a_frame_to_the_right_and_down(self, method: str) -> None:
        flow = to_pixels(flow_of_video(sliding(), FlowSettings(method=method, bound=8.0)), 8.0)
        assert flow.shape == (6, 80, 120, 2)
        inside = flow[:, 12:-12, 16:-16]
        assert np.median(inside[..., 0]) == pytest.approx(3, abs=0.1)
        assert np.median(inside[..., 1]) == pytest.approx(1, abs=0.1)
        assert np.array_equal(flow[-1], flow[-2])

    def test_of_one_frame_is_none(self) -> None:
        assert (flow_of_video(sliding(1), DIS) == 128).all()

    def test_of_a_mirrored_clip_is_that_of_the_mirrored_video(self) -> None:
        self.holds(sliding()[:, :, ::-1], lambda flow: flow[:, :, ::-1], mirror=True, backwards=False)

    def test_of_a_reversed_clip_is_that_of_the_video_played_backwards(self) -> None:
        self.holds(sliding()[::-1], lambda flow: flow[::-1], mirror=False, backwards=True)

    def holds(self, video: np.ndarray, change, *, mirror: bool, backwards: bool) -> None:
        usual = DataConfig(name="x", root="", cache="", clip=Clip(frames=6, height=80, width=120), input="flow")
        ours = np.ascontiguousarray(change(flow_of_video(sliding(), DIS)))
        turned(ours, usual, mirror=mirror, backwards=backwards)
        truth = to_pixels(flow_of_video(np.ascontiguousarray(video), DIS))
        off = np.abs(to_pixels(ours) - truth)[:, 12:-12, 16:-16]
        assert np.median(off) <= 0.16
        assert off.mean() < 0.3

    def test_clips_of_a_flipped_batch_negate_u_alone(self, flowing: DataConfig) -> None:
        c = replace(flowing, flip=True, clip=Clip(frames=4, height=32, width=42))
        plain = replace(c, flip=False)
        data = open_data(c)
        mirrored = 0
        for epoch in range(4):
            pairs = zip(
                train_batches(data, c, batch_size=4, seed=1, epoch=epoch),
                train_batches(data, plain, batch_size=4, seed=1, epoch=epoch),
                strict=True,
            )
            for (clips, _), (before, _) in pairs:
                for one, other in zip(clips, before, strict=True):
                    if torch.equal(one, other):
                        continue
                    mirrored += 1
                    edge = other > -128  # the outermost byte has no opposite
                    turned_back = one.flip(3)
                    torch.testing.assert_close(turned_back[0][edge[0]], -other[0][edge[0]], rtol=0, atol=1e-3)
                    assert torch.equal(turned_back[1], other[1])
        assert 0 < mirrored < 32

    def test_clips_backwards_are_negated_in_the_opposite_order(self, flowing: DataConfig) -> None:
        data = open_data(flowing)
        other = replace(flowing, reversal="eval")
        for (forward, *_), (backward, *_) in zip(
            eval_batches(data, flowing, split="val", batch_size=3),
            eval_batches(data, other, split="val", batch_size=3),
            strict=True,
        ):
            torch.testing.assert_close(backward, -forward.flip(2), rtol=0, atol=1e-3)
            found = next(iter(reorder(forward, "reversed", videos=[0] * len(forward), seed=0, kind="flow")))
            torch.testing.assert_close(found, backward, rtol=0, atol=1e-3)

    def test_of_frames_that_stand_still_is_none_in_motion_tests(self) -> None:
        clips = torch.randn(2, 2, 4, 3, 3)
        for test in ("frozen", "single"):
            for order in orders(test, num_frames=4, videos=[0, 1], seed=0):
                assert not reordered(clips, order, "flow", test=test).any()

    def test_does_not_depend_on_loader_processes(self, flowing: DataConfig) -> None:
        c = replace(flowing, **EVERYTHING, erasing=0.5)
        assert same(batches(c), batches(replace(c, num_workers=2)))

    def test_erases_with_no_motion(self, flowing: DataConfig) -> None:
        c = replace(flowing, erasing=1.0)
        data = open_data(c)
        ((clips, _), *_) = train_batches(data, c, batch_size=4, seed=0, epoch=0)
        ((before, _), *_) = train_batches(data, replace(c, erasing=0.0), batch_size=4, seed=0, epoch=0)
        changed = clips != before
        assert changed.any()
        assert clips[changed].abs().max() < 1e-4

    @pytest.mark.parametrize("name", ["colour", "randaugment"])
    def test_has_no_colours_to_change(self, root: Path, name: str) -> None:
        with pytest.raises(ConfigError, match=rf"data\.{name} must be .* with data\.input flow"):
            config(root, input="flow", **{name: 0.3 if name == "colour" else (1, 9)})


def test_an_input_that_is_not_known_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.input must be one of rgb, flow, difference, but is depth"):
        config(root, input="depth")


def test_runs_of_rgb_keep_their_identity(root: Path) -> None:
    assert "input" not in config(root).identity()
    assert config(root, input="difference").identity()["input"] == "difference"


def test_videos_hold_no_flow(root: Path) -> None:
    for source in ("cache", "decode"):
        with pytest.raises(DataError, match=r"is a video file; compute it once with `nas data flow"):
            open_data(config(root, source=source, input="flow"))


def test_packs_of_flow_and_of_rgb_are_told_apart(root: Path, flowing: DataConfig, tmp_path: Path) -> None:
    from trainer.data.pack.write import write_pack

    with pytest.raises(DataError, match=r"but is rgb and .* holds flow; `nas data pack` makes the other one"):
        open_data(replace(flowing, input="rgb"))
    write_pack(find_videos(root, name="mine"), tmp_path / "rgb", short_side=32)
    with pytest.raises(DataError, match=r"but is flow and .* holds RGB; `nas data flow` makes the other one"):
        open_data(replace(flowing, root=str(tmp_path / "rgb")))
