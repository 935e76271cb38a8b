"""The clips of a video for a test: which frames and which box of them each view takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.study.views import Views
from trainer.config import DataConfig
from trainer.data.augment import Box, cut, eval_boxes, turned
from trainer.data.clips import check_place
from trainer.data.decode import DecodeError, decode_video
from trainer.data.layouts import DataError
from trainer.data.sample import eval_indices, frames_at, needed_frames, spread
from trainer.data.split import Split

Frames = NDArray[np.uint8]


class UnreadableError(DataError):
    """A video of opened data cannot be read.

    Attributes:
        reason: Why, without its path.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What one forward pass of a network sees of a video.

    Attributes:
        indices: T frame numbers in the order in which they are shown.
        box: Part of each frame.
        height: Rows of the clip that the network sees.
        width: Columns of it.
        times: How many of the views that were asked for are this one: in a short video clips coincide, in a square one
            crops do, and what is the same is computed once.
    """

    indices: tuple[int, ...]
    box: Box
    height: int
    width: int
    times: int


def plan(
    num_frames: int, height: int, width: int, config: DataConfig, views: Views, *, rate: float = 0.0
) -> tuple[View, ...]:
    """Says which views stand for a video.

    Args:
        num_frames: Frames of the video, at least 1.
        height: Rows of its frames.
        width: Columns.
        config: Clip, sampling and order.
        views: What is asked for.
        rate: Frames per second of the video; 0 if unknown.

    Returns:
        Distinct views; their `times` add up to `views.per_video`.

    Raises:
        ConfigError: A short side is smaller than the crop.
    """
    counts: dict[tuple[tuple[int, ...], Box, int, int], int] = {}
    for side in views.sides(config):
        rows, columns = _size(height, width, config, side, full=views.full)
        for box in eval_boxes(height, width, config.box, crops=views.crops, side=side, full=views.full):
            for number in range(views.clips):
                key = (_indices(num_frames, config, number, views.clips, rate), box, rows, columns)
                counts[key] = counts.get(key, 0) + 1
    return tuple(
        View(indices=indices, box=box, height=rows, width=columns, times=times)
        for (indices, box, rows, columns), times in counts.items()
    )


def clips_of(
    frames: Frames, config: DataConfig, views: Views, *, rate: float = 0.0
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Cuts the views of a video, one at a time.

    Args:
        frames: (F, H, W, C) as they were decoded, or their flow; only what is needed is read.
        config: Clip, sampling and order.
        views: What is asked for.
        rate: Frames per second of the video; 0 if unknown.

    Yields:
        A clip (T, h, w, C), and how many of the views it stands for.
    """
    for view in plan(frames.shape[0], frames.shape[1], frames.shape[2], config, views, rate=rate):
        out = np.empty((len(view.indices), view.height, view.width, config.planes), dtype=np.uint8)
        cut(frames, np.array(view.indices, dtype=np.int64), view.box, out, mirror=False)
        turned(out, config, mirror=False, backwards=config.reversal != "none")
        yield out, view.times


def clips_in(videos: Split, number: int, config: DataConfig, views: Views) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Cuts the views of one video of a split, like `clips_of`.

    Args:
        videos: The split.
        number: Of the video.
        config: Clip, sampling and order.
        views: What is asked for.

    Raises:
        UnreadableError: The video cannot be read any more.
        DataGoneError: Its folder is away.
    """
    entry = videos.entries[number]
    for view in plan(entry.num_frames, entry.height, entry.width, config, views, rate=entry.fps):
        try:
            pixels = videos.read(number, np.array(view.indices, dtype=np.int64), view.box)
        except DecodeError as error:
            check_place(config, entry.path)
            raise UnreadableError(f"{entry.path} cannot be read: {error}", reason=str(error)) from error
        out = np.empty((len(view.indices), view.height, view.width, config.planes), dtype=np.uint8)
        inside = Box(top=0, left=0, height=view.box.height, width=view.box.width)
        cut(pixels, np.arange(len(pixels)), inside, out, mirror=False)
        turned(out, config, mirror=False, backwards=config.reversal != "none")
        yield out, view.times


def read_video(path: Path, config: DataConfig, views: Views) -> tuple[Frames, float]:
    """Decodes a file as the data of an evaluation is decoded.

    Returns:
        Frames (F, H, W, 3), and how many of them come in a second; 0 if unknown.

    Raises:
        DataError: The file cannot be decoded, or is shorter than a clip and `config.short` is `skip`.
    """
    data = views.data(config)
    try:
        decoded = decode_video(path, short_side=data.short_side, max_frames=data.max_frames)
    except DecodeError as error:
        raise DataError(f"{path} must be a video, but {error}") from error
    check_length(path, len(decoded.frames), config, decoded.fps)
    return decoded.frames, decoded.fps


def check_length(path: Path, num_frames: int, config: DataConfig, rate: float) -> None:
    """Raises DataError if a video is shorter than a clip and `config.short` is `skip`."""
    needed = needed_frames(config.clip, config.sampling)
    num_frames = frames_at(num_frames, rate, config.fps)
    if num_frames < needed and config.short == "skip":
        raise DataError(f"{path} must have at least {needed} frames for a clip, but has {num_frames}")


def _indices(num_frames: int, config: DataConfig, number: int, clips: int, rate: float) -> tuple[int, ...]:
    seen = frames_at(num_frames, rate, config.fps)
    indices = spread(eval_indices(seen, config.clip, config.sampling, number=number, num_clips=clips), num_frames, seen)
    return tuple((indices if config.reversal == "none" else indices[::-1]).tolist())


def _size(height: int, width: int, config: DataConfig, side: int, *, full: bool) -> tuple[int, int]:
    """Rows and columns of the clip that the network sees."""
    clip, box = config.clip, config.box
    if not full:
        return clip.height, clip.width
    # The largest box of the clip's aspect, once the frame is resized to the short side.
    scale = min(height / box.height, width / box.width) * side / min(height, width)
    return max(1, round(clip.height * scale)), max(1, round(clip.width * scale))
