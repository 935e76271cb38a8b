"""Which frames of a video make a clip: pure functions of lengths and random numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.config import Clip, Sampling

Indices = NDArray[np.int64]


def needed_frames(clip: Clip, sampling: Sampling) -> int:
    """Says how many frames per video must have so that no frame of a clip repeats."""
    return clip.span if sampling == "dense" else clip.frames


def train_indices(num_frames: int, clip: Clip, sampling: Sampling, rng: np.random.Generator) -> Indices:
    """Draws the frames of a training clip.

    Args:
        num_frames: Frames of the video, at least 1. A video shorter than `needed_frames` is played in a loop.
        clip: Frames and stride of the clip.
        sampling: `dense` starts a window at a random frame; `uniform` draws one frame from each of T equal
            segments.
        rng: Source of randomness.

    Returns:
        T frame numbers, in order of time.
    """
    if sampling == "dense":
        # In a loop every frame may be the first.
        starts = num_frames - clip.span + 1 if num_frames >= clip.span else num_frames
        return _window(num_frames, clip, int(rng.integers(starts)))
    low, high = _segments(num_frames, clip)
    return np.asarray(rng.integers(low, high) % num_frames)


def eval_indices(num_frames: int, clip: Clip, sampling: Sampling, *, number: int, num_clips: int) -> Indices:
    """Gives the frames of one of several evaluation clips that are spread over the video.

    Args:
        num_frames: Frames of the video, at least 1. A video shorter than `needed_frames` is played in a loop.
        clip: Frames and stride of the clip.
        sampling: `dense` spreads windows from the first to the last possible one (a single one lies in the
            middle); `uniform` takes the frame at the share (2 number + 1) / (2 num_clips) of each of T
            equal segments, so that a single clip takes their middles.
        number: Which clip, 0 to `num_clips` - 1.
        num_clips: Clips taken of the video.

    Returns:
        T frame numbers, in order of time.
    """
    if sampling == "dense":
        last = max(num_frames - clip.span, 0)
        start = last // 2 if num_clips == 1 else (last * number + (num_clips - 1) // 2) // (num_clips - 1)
        return _window(num_frames, clip, start)
    low, high = _segments(num_frames, clip)
    return np.asarray((low + (high - low) * (2 * number + 1) // (2 * num_clips)) % num_frames)


def frames_at(num_frames: int, rate: float, fps: float) -> int:
    """Says how many frames per video has at another frame rate; at least 1.

    Args:
        num_frames: Frames of the video.
        rate: Frames per second of the video; 0 if unknown.
        fps: Frames per second that are wanted; 0 takes the video as it is, as an unknown rate does.
    """
    return max(1, round(num_frames * fps / rate)) if fps > 0 and rate > 0 else num_frames


def spread(numbers: Indices, num_frames: int, num_seen: int) -> Indices:
    """Gives the frames of a video that stand for the frames of the same video at another rate.

    Args:
        numbers: Numbers of frames at that rate, each below `num_seen`.
        num_frames: Frames of the video.
        num_seen: Frames of it at that rate: the middles of `num_seen` equal parts of the video.

    Returns:
        Numbers of frames below `num_frames`; the numbers themselves where both rates are the same.
    """
    return np.asarray((2 * numbers + 1) * num_frames // (2 * num_seen))


def _window(num_frames: int, clip: Clip, start: int) -> Indices:
    return np.asarray((start + clip.stride * np.arange(clip.frames)) % num_frames)


def _segments(num_frames: int, clip: Clip) -> tuple[Indices, Indices]:
    """First frames of T equal segments, and the frames after their last; none of them empty."""
    # A short video is repeated as a whole, until each segment has a frame. Whole numbers: nothing is left
    # to rounding.
    length = num_frames * -(-clip.frames // num_frames)
    edges = np.arange(clip.frames + 1, dtype=np.int64) * length // clip.frames
    return edges[:-1], edges[1:]
