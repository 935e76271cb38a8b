"""What a network says of one video file: its classes, and how probable they are over time."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nas.exported import Network
from nas.using.cutting import check_length
from nas.using.excerpts import (
    MOST_FRAMES,
    Window,
    check_whole,
    excerpt,
    frames_of,
    header_of,
    length_of,
    whole,
    windows_of,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A window of a video.

    Attributes:
        start: In seconds.
        end: In seconds.
        probabilities: Of each class, in the order of the network's outputs.
    """

    start: float
    end: float
    probabilities: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a network says of a video.

    Attributes:
        classes: Names of the network's outputs.
        probabilities: Of the whole video, in this order.
        seconds: Length of the video.
        views: What was looked at, in words.
        timeline: One or more windows over the video.
    """

    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    seconds: float
    views: str
    timeline: tuple[Moment, ...]

    def ranked(self, count: int = 5) -> list[tuple[str, float]]:
        """The most probable classes, the first ones first."""
        pairs = sorted(zip(self.classes, self.probabilities, strict=True), key=lambda pair: -pair[1])
        return pairs[:count]


@torch.inference_mode()
def predict_video(network: Network, path: Path, *, most: int = 10, length: float | None = None) -> Prediction:
    """Classifies a video file of any length, as a whole and over time.

    A video of up to 2,000 frames is decoded whole and judged with the views of the network's test, so that the answer
    is that of an evaluation. Of a longer one only the windows of the timeline are decoded, and their probabilities are
    averaged. A window shows its middle clip, with the crops of the test; which frames are its own, their times say.

    Args:
        network: In eval mode.
        path: The file.
        most: Windows of the timeline, at most.
        length: Of a window in seconds; see `excerpts.windows_of`.

    Raises:
        DataError: The file cannot be decoded, or is shorter than a clip and the network's data leaves such out.
    """
    views = network.views
    once = dataclasses.replace(views, clips=1)
    config = views.data(network.data)
    header = header_of(path)
    moments: list[Moment] = []
    if header.frames > MOST_FRAMES:
        check_whole(path)
        seconds = header.seconds
        for window in windows_of(seconds, header.fps, config, most=most, length=length):
            frames, fps = excerpt(path, window, config)
            frames = network.flowing(frames)
            moments.append(_moment(window, network.probabilities(frames, once, rate=fps)))
        total = np.array([moment.probabilities for moment in moments]).mean(0)
        return Prediction(
            classes=network.class_names,
            probabilities=tuple(total.tolist()),
            seconds=seconds,
            views=f"the mean of {len(moments)} windows, since the video is long",
            timeline=tuple(moments),
        )
    decoded = whole(path, config)
    check_length(path, len(decoded.frames), config, decoded.fps)
    frames, seconds = network.flowing(decoded.frames), length_of(decoded.times, header, stated=decoded.seconds)
    fps = decoded.fps or len(frames) / seconds
    probabilities = network.probabilities(frames, rate=decoded.fps)
    windows = windows_of(seconds, fps, config, most=most, length=length)
    for window in windows:
        part = frames[frames_of(window, decoded.times, fps, config)]
        alone = len(windows) == 1
        moments.append(_moment(window, probabilities if alone else network.probabilities(part, once, rate=decoded.fps)))
    return Prediction(
        classes=network.class_names,
        probabilities=tuple(probabilities.tolist()),
        seconds=seconds,
        views=str(views),
        timeline=tuple(moments),
    )


def _moment(window: Window, probabilities: torch.Tensor) -> Moment:
    return Moment(start=window.start, end=window.end, probabilities=tuple(probabilities.tolist()))
