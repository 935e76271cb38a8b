"""Predictions for one video file, however long: its classes, and how probable they are over time."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas.train.cutting import check_length
from nas.train.network import TrainedNetwork
from trainer.config import DataConfig
from trainer.data.decode import Decoded, DecodeError, Scaler, decode_video, open_video, reasons, video_stream
from trainer.data.direct import scan_video
from trainer.data.entries import Task
from trainer.data.layouts import DataError
from trainer.data.length import has_sizes, missing, stream_seconds

MOST_FRAMES = 2000  # of a video that is decoded whole: at a short side of 128 about 130 MB
SECONDS = 10.0  # length of a Kinetics clip: what networks that sample uniformly were trained on
_USUAL_FPS = 25.0  # of a file that does not say its rate
_INSTANT = 1e-6  # seconds: two times no farther apart are the same


@dataclass(frozen=True, kw_only=True, slots=True)
class Claims:
    """What a file says of itself, which may be wrong.

    Attributes:
        seconds: Length; 0 if it does not say.
        fps: Frames per second; 0 if it does not say.
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

    A network that samples densely sees a clip of known length, at the frame rate of its data if that has one, so there
    are as many parts as clips fit, at most `most`.
    One that samples uniformly, or from frames that are thinned out, takes whatever it is given as a whole: a video of
    up to 15 seconds is one part, and a longer one has parts of about 10 seconds.

    Args:
        seconds: Length of the video, above 0.
        fps: Frames per second, above 0.
        config: Clip and sampling.
        most: Largest number of parts.
        length: Of a part in seconds, where the user says it.
    """
    if length is None:
        usual = seconds if seconds <= 1.5 * SECONDS else SECONDS
        length = config.clip.span / (config.fps or fps) if _timed(config) else usual
    count = min(max(int(seconds / length + 1e-6), 1), most)
    edges = [seconds * k / count for k in range(count + 1)]
    return tuple(Window(start=a, end=b) for a, b in pairwise(edges))


def frames_of(window: Window, times: NDArray[np.float64], fps: float, config: DataConfig) -> slice:
    """Says which frames of a video are those of a window: all that begin in it.

    In a video of variable rate a window may hold fewer frames than a dense clip, or none; then as many as a clip needs
    are taken around its middle.

    Args:
        window: Of the video.
        times: (F,) when each frame is shown, in seconds, ascending.
        fps: Frames per second, in the mean.
        config: Clip and sampling.
    """
    first, end = np.searchsorted(times, [window.start - _INSTANT, window.end - _INSTANT]).tolist()
    least = min(_least(config, fps), len(times))
    if end - first < least:
        first = min(max((first + end - least) // 2, 0), len(times) - least)
        end = first + least
    return slice(first, end)


def length_of(times: NDArray[np.float64], header: Claims, *, stated: float = 0.0) -> float:
    """The length of a decoded video in seconds.

    Args:
        times: (F,) when each frame is shown, in seconds, ascending.
        header: Its length counts if the last frame may stand so long, being no longer than another one does.
        stated: Else what the frames themselves say; 0 if they do not.
    """
    last = float(times[-1])
    gaps = np.diff(times) if len(times) > 1 else np.array([1 / (header.fps or _USUAL_FPS)])
    if last < header.seconds <= last + gaps.max():
        return header.seconds
    return stated or last + float(np.median(gaps))


def header_of(path: Path) -> Claims:
    """Reads what a file says of its length.

    Raises:
        DataError: It is no video.
    """
    try:
        with reasons(), open_video(path) as container:
            stream = video_stream(container)
            rate = stream.average_rate or stream.guessed_rate
            return Claims(seconds=stream_seconds(container, stream), fps=float(rate) if rate else 0.0)
    except DecodeError as error:
        raise DataError(f"{path} must be a video, but {error}") from error


def check_whole(path: Path) -> None:
    """Looks for the end of a video that is not decoded whole, where it is not certain that its bytes are all there.

    Raises:
        DataError: It was cut off, as decoding would find.
    """
    if missing(path) or not has_sizes(path):
        found = scan_video(Task(path=str(path), short_side=16))
        if isinstance(found, str):
            raise DataError(f"{path} must be a video, but {found}")


def excerpt(path: Path, window: Window, config: DataConfig) -> tuple[NDArray[np.uint8], float]:
    """Decodes the middle of a window by seeking there: enough for one clip, or for 10 seconds of uniform sampling.

    Where frames are rare in a video of variable rate, it goes on until there are enough for a clip.

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
    rate, least = config.fps or header.fps, _least(config, header.fps)
    wanted = min(window.end - window.start, (config.clip.span + 1) / rate if _timed(config) and rate else SECONDS)
    start = (window.start + window.end - wanted) / 2
    images: list[NDArray[np.uint8]] = []
    try:
        with reasons(), open_video(path) as container:
            stream, scale = video_stream(container), Scaler(config.short_side)
            begin = float((stream.start_time or 0) * stream.time_base)
            container.seek(math.floor((begin + start) / stream.time_base), stream=stream)
            before: deque[Any] = deque(maxlen=least)
            for frame in container.decode(stream):
                at = (frame.time if frame.time is not None else begin) - begin
                if at >= start - _INSTANT:
                    images.append(scale(frame))
                else:
                    before.append(frame)
                if (at >= start + wanted and len(images) >= least) or len(images) >= MOST_FRAMES:
                    break
            if len(images) < least:  # the last frames may stand for long
                images = [*map(scale, before), *images][-least:]
    except DecodeError as error:
        raise DataError(f"{path} at {clock(start)} {error}") from error
    if not images:
        raise DataError(f"{path} has no frame at {clock(start)}, though its header promises {clock(header.seconds)}")
    return _thinned(np.stack(images), header.fps, config)


def _thinned(frames: NDArray[np.uint8], fps: float, config: DataConfig) -> tuple[NDArray[np.uint8], float]:
    """At most `config.max_frames` of a stretch, and how many of them come in a second."""
    if not config.max_frames or len(frames) <= config.max_frames:
        return frames, fps
    keep = (2 * np.arange(config.max_frames) + 1) * len(frames) // (2 * config.max_frames)
    return frames[keep], fps * config.max_frames / len(frames)


def whole(path: Path, config: DataConfig) -> Decoded:
    """Decodes a video that fits into memory, as the data of an evaluation is decoded.

    Returns:
        Its frames, with times that ascend: where the file has none, the mean rate gives them (25 where it has none).

    Raises:
        DataError: It cannot be decoded.
    """
    limit = config.max_frames or MOST_FRAMES  # of a file whose header does not say how long it is
    try:
        decoded = decode_video(path, short_side=config.short_side, max_frames=limit)
    except DecodeError as error:
        raise DataError(f"{path} must be a video, but {error}") from error
    times = decoded.times
    if len(times) and (np.diff(times) > 0).all():
        return decoded
    return dataclasses.replace(decoded, times=np.arange(len(decoded.frames)) / (decoded.fps or _USUAL_FPS), seconds=0.0)


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03.4."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    if minutes >= 60:
        return f"{minutes // 60}:{minutes % 60:02d}:{rest // 10:02d}"
    return f"{minutes}:{rest / 10:04.1f}"


def _timed(config: DataConfig) -> bool:
    """Whether a clip lasts a known time, whatever the video is."""
    return config.sampling == "dense" and config.max_frames == 0


def _least(config: DataConfig, fps: float) -> int:
    """Frames of a video that a clip is cut from, at least."""
    if not _timed(config):
        return 1
    return math.ceil(config.clip.span * fps / config.fps) if config.fps and fps else config.clip.span


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
def predict_video(network: TrainedNetwork, path: Path, *, most: int = 10, length: float | None = None) -> Prediction:
    """Classifies a video file of any length, as a whole and over time.

    A video of up to 2,000 frames is decoded whole and judged with the views of the network's test, so that the answer
    is that of an evaluation. Of a longer one only the windows of the timeline are decoded, and their probabilities are
    averaged. A window shows its middle clip, with the crops of the test; which frames are its own, their times say.

    Args:
        network: In eval mode.
        path: The file.
        most: Windows of the timeline, at most.
        length: Of a window in seconds; see `windows_of`.

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


@torch.inference_mode()
def stream_video(
    network: TrainedNetwork, path: Path, *, length: float | None = None, every: float | None = None
) -> Iterator[Moment]:
    """Looks at a video of any length window by window while it is decoded; of its frames, a window is in memory.

    The last window ends with the video. Each is judged by its middle clip, with the crops of the network's test.

    Args:
        network: In eval mode.
        path: The file.
        length: Of a window in seconds; that of a clip by default, or 10 where frames are sampled uniformly.
        every: Seconds from the beginning of a window to that of the next; by default they follow each other.

    Raises:
        DataError: The file cannot be decoded, or is shorter than a clip and the network's data leaves such out.
    """
    once = dataclasses.replace(network.views, clips=1)
    config, header = network.views.data(network.data), header_of(path)
    rate = header.fps or _USUAL_FPS
    length = length or (config.clip.span / (config.fps or rate) if _timed(config) else SECONDS)
    step, least = every or length, _least(config, rate)
    start, covered, last, count = 0.0, 0.0, 0.0, 0
    held: deque[tuple[float, NDArray[np.uint8]]] = deque()

    def seen(window: Window) -> Moment:
        inside = [image for at, image in held if window.start - _INSTANT <= at < window.end - _INSTANT]
        if len(inside) < least:  # the last frames may stand for long
            inside = [image for at, image in held if at < window.end - _INSTANT][-least:]
        frames, fps = _thinned(np.stack(inside), header.fps, config)
        return _moment(window, network.probabilities(frames, once, rate=fps))

    for last, image in _decoded(path, config, rate):
        while last >= start + length - _INSTANT and held:
            covered = start + length
            yield seen(Window(start=start, end=covered))
            start += step
            if held[-1][0] < start - _INSTANT:  # nothing is shown for longer than a window, which is looked at once
                start += max(0, int((last - start) / step)) * step
        held.append((last, image))
        # Frames of the next window, or of one that the video may end with.
        while len(held) > least and held[0][0] < min(start, last - length) - _INSTANT:
            held.popleft()
        count += 1
    check_length(path, count, config, header.fps)
    gap = min(1 / rate, held[-1][0] - held[-2][0]) if len(held) > 1 else 1 / rate  # that the last frame stands for
    end = header.seconds if last < header.seconds <= last + 2 * gap else last + gap
    if end > covered + _INSTANT:
        yield seen(Window(start=max(0.0, end - length), end=end))


def _decoded(path: Path, config: DataConfig, rate: float) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Frames as they are decoded, with the seconds at which they are shown, ascending."""
    at = -1 / rate
    try:
        with reasons(), open_video(path) as container:
            stream, scale = video_stream(container), Scaler(config.short_side)
            begin = float((stream.start_time or 0) * stream.time_base)
            for frame in container.decode(stream):
                shown = at + 1 / rate if frame.time is None else frame.time - begin
                at = shown if shown > at else at + 1 / rate
                yield at, scale(frame)
    except DecodeError as error:
        raise DataError(f"{path} at {clock(max(at, 0.0))} {error}") from error
    if missing(path):
        raise DataError(f"{path} was cut off: it ends at {clock(max(at, 0.0))}")


def _moment(window: Window, probabilities: torch.Tensor) -> Moment:
    return Moment(start=window.start, end=window.end, probabilities=tuple(probabilities.tolist()))
