"""Video files to arrays, with PyAV."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from trainer.data.length import lack_of

VERSION = 2
"""Raised whenever the same file would decode to other pixels; a part of every cache key."""

# Seconds that opening or one read of a file may take.
_TIMEOUT = 60.0
_LARGEST = 8 * 2**30  # bytes of frames of one video that are still decoded at once
_BUFFER = 600  # small frames that are held in memory before a second pass over the file is the better choice
_ROOM = 128 * 2**20  # bytes that they have

# Exact rounding, the same on every processor, so that the same files give the same checksum on another machine.
INTERPOLATION = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class DecodeError(ValueError):
    """A file cannot be used; the message is the reason, without the path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """The frames of one video.

    Attributes:
        frames: RGB frames (F, H, W, 3), F at least 1.
        fps: Frames per second of what is in `frames`, in the mean; 0 if the file does not say.
        times: (F,) when each frame is shown, in seconds from the first one of the file; empty if it does not say.
        seconds: Length, to where the last frame of the file ends; 0 if it does not say.
    """

    frames: NDArray[np.uint8]
    fps: float
    times: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    seconds: float = 0.0


def backend() -> str:
    """Names the decoder and its version: other versions may give other pixels."""
    parts = (f"{name} {'.'.join(map(str, av.library_versions[name]))}" for name in ("libavcodec", "libswscale"))
    return f"pyav {av.__version__} ({', '.join(parts)})"


def decode_video(path: str | Path, *, short_side: int, max_frames: int = 0) -> Decoded:
    """Decodes the first video stream of a file, upright and in order of presentation.

    Frames are counted as they are decoded, whatever their time stamps: no frame is dropped or repeated to
    keep up a rate. One thread decodes, since callers decode many files at once.

    Args:
        path: The file.
        short_side: Short side of the result, in pixels; the other side keeps the aspect, to the nearest
            pixel.
        max_frames: If the video has more frames, this many are kept, evenly spaced; 0 keeps all.

    Returns:
        The frames.

    Raises:
        DecodeError: The file is empty, damaged, cut off, or holds no video.
    """
    path = Path(path)
    with reasons():
        return _decode(path, short_side, max_frames)


@contextmanager
def reasons() -> Iterator[None]:
    """Turns whatever goes wrong in its block into DecodeError with a reason of one line."""
    try:
        yield
    except DecodeError:
        raise
    except Exception as error:  # files have states that PyAV knows no error for, and one must not end work on all
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DecodeError(f"cannot be decoded: {' '.join(reason.split())}") from error


def open_video(path: str | Path) -> Any:
    """Opens a container, with a limit of time, so that a dead network drive does not hang.

    Raises:
        OSError: It cannot be read.
        DecodeError: It is empty, or no regular file: reading a pipe or a device may never end.
    """
    state = Path(path).stat()
    if not stat.S_ISREG(state.st_mode):
        raise DecodeError("it is no regular file")
    if state.st_size == 0:
        raise DecodeError("the file is empty")
    # FFmpeg takes what stands before a colon for a protocol, unless the path begins with a slash.
    return av.open(str(Path(path).absolute()), timeout=_TIMEOUT, metadata_errors="ignore")


def _decode(path: Path, short_side: int, max_frames: int) -> Decoded:
    limit = max(max_frames, _BUFFER) if max_frames else None
    images: list[NDArray[np.uint8]] = []
    total = 0
    shown: list[float | None] = []
    stands = 0.0
    with open_video(path) as container:
        stream = video_stream(container)
        rate = stream.average_rate or stream.guessed_rate
        scale = Scaler(short_side)
        for frame in frames_of(container, stream):
            total += 1
            shown.append(frame.time)
            stands = float((frame.duration or 0) * frame.time_base) if frame.time_base else 0.0
            if limit is None or total <= limit:
                images.append(scale(frame))
            if limit is not None and total == 1:
                limit = max(max_frames, min(_BUFFER, _ROOM // images[0].nbytes))
            if len(images) * images[0].nbytes > _LARGEST:
                less = "a smaller data.max_frames" if max_frames else "data.max_frames"
                raise DecodeError(f"too long: more than {len(images) - 1} frames of its size; give {less}")
        first, last = (shown[0], shown[-1]) if shown else (None, None)
        lack = lack_of(path, container, stream, total, first, last)
    if total == 0:
        raise DecodeError("the video stream has no frame")
    if lack:
        raise DecodeError(lack)
    fps = float(rate) if rate else 0.0
    known = [time for time in shown if time is not None]
    times = np.array(known) - known[0] if len(known) == total else np.zeros(0)
    seconds = float(times[-1]) + stands if len(times) and stands > 0 else 0.0
    if not max_frames or total <= max_frames:
        return Decoded(frames=stacked(images), fps=fps, times=times, seconds=seconds)
    keep = (2 * np.arange(max_frames) + 1) * total // (2 * max_frames)
    if limit is not None and total > limit:
        images.clear()
        images = _pick(path, short_side, {int(i) for i in keep})
    else:
        images = [images[i] for i in keep]
    times = times[keep] if len(times) else times
    return Decoded(frames=stacked(images), fps=fps * max_frames / total, times=times, seconds=seconds)


def stacked(images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Joins frames of one size into one array and empties the list on the way: both at once would be twice the memory.

    Raises:
        ValueError: They have several sizes.
    """
    if any(image.shape != images[0].shape for image in images):
        raise ValueError("its frames must have one size, but have several")
    frames = np.empty((len(images), *images[0].shape), dtype=np.uint8)
    for number in range(len(images) - 1, -1, -1):  # from the end, where the heap gives memory back
        frames[number] = images.pop()
    return frames


def _pick(path: Path, short_side: int, keep: set[int]) -> list[NDArray[np.uint8]]:
    """Decodes a file once more and returns the frames whose numbers are in `keep`."""
    with open_video(path) as container:
        scale = Scaler(short_side)
        frames = enumerate(frames_of(container, video_stream(container)))
        return [scale(frame) for number, frame in frames if number in keep]


def video_stream(container: Any) -> Any:
    """The first stream that is a video, and no cover picture of a piece of music.

    Raises:
        DecodeError: There is none, or nothing here decodes it.
    """
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise DecodeError("its codec is not known")
            stream.codec_context.thread_count = 1
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    raise DecodeError(f"there is no video stream, only {', '.join(kinds) if kinds else 'nothing'}")


def frames_of(container: Any, stream: Any) -> Iterator[av.VideoFrame]:
    """Decodes a stream from where its container stands.

    Raises:
        DecodeError: A frame in the middle is lost. Other decoders end with an error where they cannot decode one, but
            FFmpeg's for HEVC passes over it without a word, and all later frames would have the number before theirs.
    """
    if stream.codec_context.name != "hevc":
        yield from container.decode(stream)
        return
    waiting: set[int] = set()
    begun = False
    for packet in container.demux(stream):
        if packet.pts is not None and packet.size and not packet.is_discard:
            waiting.add(packet.pts)
        for frame in packet.decode():
            if frame.pts is not None:
                earlier = {time for time in waiting if time < frame.pts}
                if earlier and begun:  # what lies before the first frame needs frames that were cut away
                    raise DecodeError(f"a frame at {min(earlier) * float(stream.time_base):.2f} seconds is damaged")
                waiting -= earlier | {frame.pts}
                begun = True
            yield frame


class Scaler:
    """Turns the frames of one video into RGB arrays of one size, which the first frame decides.

    Attributes:
        size: Width and height before the frame is turned upright; None before the first frame.
    """

    def __init__(self, short_side: int, size: tuple[int, int] | None = None) -> None:
        """Begins with the first frame, or with what the first frame has decided before."""
        self._short_side = short_side
        self.size = size
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The frame as an array (H, W, 3)."""
        if self.size is None:
            ratio = self._short_side / min(frame.width, frame.height)
            self.size = max(1, round(frame.width * ratio)), max(1, round(frame.height * ratio))
        width, height = self.size
        small = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=INTERPOLATION, threads=1)
        image = np.asarray(small.to_ndarray(), dtype=np.uint8)
        # Telephones store sideways pictures with a note how to turn them, those of the front camera mirrored.
        turns = round(frame.rotation / 90) % 4
        if _mirrored(frame):
            image = image[::-1]  # upside down before it is turned: the turn is that of the upper edge
        return np.ascontiguousarray(np.rot90(image, turns))


def _mirrored(frame: av.VideoFrame) -> bool:
    """Whether the 3x3 matrix of a frame's display (ISO/IEC 14496-12, 8.3.2) has a negative determinant."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False
    a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5].tolist()
    return bool(a * d < b * c)
