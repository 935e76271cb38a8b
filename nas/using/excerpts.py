"""Parts of a video file over time, read without holding a long video in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.config import DataConfig
from trainer.data.decode import DecodeError, Scaler, decode_video, open_video, reasons, video_stream
from trainer.data.layouts import DataError

MOST_FRAMES = 2000  # of a video that is decoded whole: at a short side of 128 about 130 MB
SECONDS = 10.0  # length of a Kinetics clip: what networks that sample uniformly were trained on


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a file says of itself, which may be wrong.

    Attributes:
        seconds: Length; 0 if it does not say.
        fps: Frames a second; 0 if it does not say.
    """

    seconds: float
    fps: float

    @property
    def frames(self) -> float:
        """Frames, as far as is known."""
        return self.seconds * self.fps


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A part of a video.

    Attributes:
        start: In seconds.
        end: In seconds.
    """

    start: float
    end: float


def windows_of(
    seconds: float, fps: float, config: DataConfig, *, most: int = 10, length: float | None = None
) -> tuple[Window, ...]:
    """Divides a video into equal parts for a timeline.

    A network that samples densely sees a clip of known length, so there are as many parts as clips fit, at most `most`.
    One that samples uniformly, or from frames that are thinned out, takes whatever it is given as a whole: a video of
    up to 15 seconds is one part, and a longer one has parts of about 10 seconds.

    Args:
        seconds: Length of the video, above 0.
        fps: Frames a second, above 0.
        config: Clip and sampling.
        most: Largest number of parts.
        length: Of a part in seconds, where the user says it.
    """
    if length is None:
        dense = config.sampling == "dense" and config.max_frames == 0
        length = config.clip.span / fps if dense else (seconds if seconds <= 1.5 * SECONDS else SECONDS)
    count = min(max(int(seconds / length + 1e-6), 1), most)
    edges = [seconds * k / count for k in range(count + 1)]
    return tuple(Window(start=a, end=b) for a, b in pairwise(edges))


def header_of(path: Path) -> Header:
    """Reads what a file says of its length.

    Raises:
        DataError: It is no video.
    """
    import av

    try:
        with reasons(), open_video(path) as container:
            stream = video_stream(container)
            rate = stream.average_rate or stream.guessed_rate
            if stream.duration is not None and stream.time_base is not None:
                seconds = float(stream.duration * stream.time_base)
            else:
                seconds = container.duration / av.time_base if container.duration else 0.0
            return Header(seconds=max(seconds, 0.0), fps=float(rate) if rate else 0.0)
    except DecodeError as error:
        raise DataError(f"{path} must be a video, but {error}") from error


def excerpt(path: Path, window: Window, config: DataConfig) -> tuple[NDArray[np.uint8], float]:
    """Decodes the middle of a window by seeking there: enough for one clip, or for 10 seconds of uniform sampling.

    Args:
        path: The file.
        window: Of it.
        config: Clip, sampling and short side.

    Returns:
        Frames (F, H, W, 3), thinned out to `config.max_frames` if there are more, and how many come in a second.

    Raises:
        DataError: Nothing can be decoded there.
    """
    header = header_of(path)
    dense = config.sampling == "dense" and config.max_frames == 0
    length = window.end - window.start
    wanted = min(length, (config.clip.span + 1) / header.fps if dense and header.fps else SECONDS)
    start = (window.start + window.end - wanted) / 2
    images: list[NDArray[np.uint8]] = []
    try:
        with reasons(), open_video(path) as container:
            stream, scale = video_stream(container), Scaler(config.short_side)
            begin = float((stream.start_time or 0) * stream.time_base)
            container.seek(math.floor((begin + start) / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                at = (frame.time if frame.time is not None else begin) - begin
                if at >= start - 1e-6:
                    images.append(scale(frame))
                if (at >= start + wanted and images) or len(images) >= MOST_FRAMES:
                    break
    except DecodeError as error:
        raise DataError(f"{path} at {clock(start)} {error}") from error
    if not images:
        raise DataError(f"{path} has no frame at {clock(start)}, though its header promises {clock(header.seconds)}")
    frames = np.stack(images)
    if config.max_frames and len(frames) > config.max_frames:
        keep = (2 * np.arange(config.max_frames) + 1) * len(frames) // (2 * config.max_frames)
        return frames[keep], header.fps * config.max_frames / len(frames)
    return frames, header.fps


def whole(path: Path, config: DataConfig) -> tuple[NDArray[np.uint8], float]:
    """Decodes a video that fits into memory, as the data of an evaluation is decoded.

    Returns:
        Frames (F, H, W, 3), and how many of them come in a second (25 where the file does not say).

    Raises:
        DataError: It cannot be decoded.
    """
    limit = config.max_frames or MOST_FRAMES  # of a file whose header does not say how long it is
    try:
        decoded = decode_video(path, short_side=config.short_side, max_frames=limit)
    except DecodeError as error:
        raise DataError(f"{path} must be a video, but {error}") from error
    return decoded.frames, decoded.fps or 25.0


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03.4."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    if minutes >= 60:
        return f"{minutes // 60}:{minutes % 60:02d}:{rest // 10:02d}"
    return f"{minutes}:{rest / 10:04.1f}"
