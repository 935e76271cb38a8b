"""Optical flow of videos, computed once with OpenCV into a pack whose frames have two planes.

The one file that imports OpenCV, an extra. Flow t is the motion from frame t to frame t + 1, in pixels of the frames as
they are scaled; the last frame has that of the one before. So flow has as many frames as the video has in a pack or a
cache of RGB, and a clip of either shows the same moments.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data import decode
from trainer.data.augment import to_bytes
from trainer.data.decode import DecodeError, Scaler, frames_of, open_video, reasons, stacked, video_stream
from trainer.data.entries import Progress, Task, tasks_of
from trainer.data.folders import decode_folder
from trainer.data.kinds import BOUND, FlowMethod, FlowSettings
from trainer.data.layouts import DataError, Layout
from trainer.data.length import lack_of
from trainer.data.pack.append import Coded
from trainer.data.pack.jpeg import QUALITY
from trainer.data.pack.read import FORMAT, Coding, Packed, open_packed
from trainer.data.pack.write import coded, write_files
from trainer.data.sample import spread

METHODS: tuple[FlowMethod, ...] = ("dis", "farneback")

_LARGEST = 8 * 2**30  # bytes of flow of one video that are held at once
_LEAST = 16
"""Rows and columns below which DIS has no pyramid to search in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowTask:
    """One video whose flow is computed.

    Attributes:
        task: Which, and how it is decoded.
        flow: How flow is computed.
        coding: How it is coded.
        quality: Of JPEGs.
    """

    task: Task
    flow: FlowSettings
    coding: Coding
    quality: int

    @property
    def path(self) -> str:
        """The file."""
        return self.task.path


def opencv() -> Any:
    """OpenCV.

    Raises:
        DataError: It is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise DataError(
            "optical flow is computed with OpenCV, which is an extra: pip install 'video-nas[flow]' (or"
            " opencv-python-headless)"
        ) from error
    cv2.setNumThreads(1)  # many videos are under way at once
    return cv2


def flow_of(frames: Iterable[NDArray[np.uint8]], settings: FlowSettings) -> Iterator[NDArray[np.uint8]]:
    """Yields the flow of frames as bytes, one for each frame; a single frame does not move.

    DIS (Kroeger et al. 2016) runs with OpenCV's preset `medium`; Farneback (2003) with the parameters of OpenCV's
    tutorial: 3 levels of half the size, windows of 15 pixels, 3 iterations, neighbourhoods of 5 pixels, sigma 1.2.

    Args:
        frames: RGB (H, W, 3), in order of time.
        settings: Method and bound.

    Yields:
        (H, W, 2): u, to the right, and v, down; see `trainer.data.augment`.

    Raises:
        DataError: OpenCV is not installed, or flow as it was given in images cannot be computed anew.
    """
    cv2 = opencv()
    if settings.method not in METHODS:
        raise DataError(
            f"flow is computed by {' or '.join(METHODS)}, but that of this network came as {settings.method}; give it"
            " folders of flow images, as docs/inputs.md says"
        )
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM) if settings.method == "dis" else None
    before: NDArray[np.uint8] | None = None
    last: NDArray[np.uint8] | None = None
    for frame in frames:
        grey = _padded(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY))
        if before is not None:
            found = (
                dis.calc(before, grey, None)
                if dis is not None
                else cv2.calcOpticalFlowFarneback(before, grey, None, 0.5, 3, 15, 3, 5, 1.2, 0)
            )
            last = to_bytes(found[: frame.shape[0], : frame.shape[1]], settings.bound)
            yield last
        else:
            first = frame
        before = grey
    if before is not None:
        yield last if last is not None else to_bytes(np.zeros((*first.shape[:2], 2), np.float32), settings.bound)


def _padded(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A tiny picture with its last rows and columns repeated, up to where there is a pyramid of it."""
    rows, columns = (max(0, _LEAST - size) for size in grey.shape)
    return np.pad(grey, ((0, rows), (0, columns)), mode="edge") if rows or columns else grey


def flow_of_video(frames: NDArray[np.uint8], settings: FlowSettings) -> NDArray[np.uint8]:
    """The flow (F, H, W, 2) of the frames (F, H, W, 3) of a video, as bytes; see `flow_of`."""
    return np.stack(list(flow_of(frames, settings)))


def code_flow(task: FlowTask) -> Coded | str:
    """Decodes a video, computes its flow and codes it; gives the reason if that fails."""
    rates: list[float] = []
    planes: list[NDArray[np.uint8]] = []
    try:
        with contextlib.closing(_frames(task.task, rates)) as frames:
            for one in flow_of(frames, task.flow):
                planes.append(one)
                if len(planes) * one.nbytes > _LARGEST:
                    return f"too long: more than {len(planes) - 1} frames; cut it into parts"
    except DecodeError as error:
        return str(error)
    flow, fps, most = stacked(planes), rates[0], task.task.max_frames
    if most and len(flow) > most:  # between neighbours of the video, whichever frames are kept
        flow, fps = flow[spread(np.arange(most), len(flow), most)], fps * most / len(flow)
    return coded(flow, fps, coding=task.coding, quality=task.quality)


def _frames(task: Task, rates: list[float]) -> Generator[NDArray[np.uint8], None, None]:
    """Yields the frames of a video as `decode_video` gives them, one at a time, and appends its rate before them."""
    if task.images:
        rates.append(0.0)
        yield from decode_folder(task.path, num_frames=task.images, short_side=task.short_side).frames
        return
    with reasons():
        first = last = None
        total = 0
        with open_video(task.path) as container:
            stream = video_stream(container)
            rate = stream.average_rate or stream.guessed_rate
            rates.append(float(rate) if rate else 0.0)
            scale = Scaler(task.short_side)
            for frame in frames_of(container, stream):
                last = frame.time
                first = last if total == 0 else first
                total += 1
                yield scale(frame)
            lack = lack_of(task.path, container, stream, total, first, last)
        if total == 0:
            raise DecodeError("the video stream has no frame")
        if lack:
            raise DecodeError(lack)


def write_flow(
    layout: Layout,
    folder: str | Path,
    *,
    short_side: int,
    max_frames: int = 0,
    method: FlowMethod = "dis",
    bound: float = BOUND,
    coding: Coding = "jpeg",
    quality: int = QUALITY,
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Makes a pack of flow, goes on with one that was begun, or opens it where it is complete.

    Args:
        layout: The videos.
        folder: Where the pack goes; made if absent.
        short_side: Short side of the frames that flow is computed on, in pixels.
        max_frames: Frames of a video at most, evenly spaced; 0 keeps all.
        method: `dis` or `farneback`.
        bound: Pixels per frame that flow is cut off at.
        coding: `jpeg`, or `raw` for exact bytes.
        quality: Of JPEGs, 1 to 100.
        num_workers: Processes; `None` takes as many as there are cores, but none for small data.
        progress: Called with (videos done, videos in all).

    Returns:
        The complete pack; sources that could not be decoded are in its `broken`.

    Raises:
        DataError: OpenCV is not installed, or as `trainer.data.pack.write.write_files`.
    """
    cv2 = opencv()
    flow = FlowSettings(method=method, bound=bound)
    settings: dict[str, Any] = {"short_side": short_side, "fps": 0.0, "max_frames": max_frames, "coding": coding}
    settings |= {"quality": quality if coding == "jpeg" else 0, "backend": decode.backend()}
    settings |= {"decode": decode.VERSION, "format": FORMAT, "flow": asdict(flow), "opencv": cv2.__version__}
    tasks = [
        FlowTask(task=task, flow=flow, coding=coding, quality=quality)
        for task in tasks_of(layout, short_side, max_frames)
    ]
    write_files(layout, folder, settings, tasks, code_flow, num_workers=num_workers, progress=progress)
    return open_packed(folder)
