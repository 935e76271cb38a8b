"""Flow in folders of frames, as TSN and TSM keep it: `flow_x_00001.jpg` and `flow_y_00001.jpg`, grey, 128 at rest.

The images are flow cut off at 20 pixels a frame (TSN's extraction; `trainer.inputs.BOUND`), scaled as pictures are and
left with their numbers. There may be one image of each axis fewer than frames, since the last frame has no next one:
the last flow then stands for it, too.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from trainer.data.appending import Coded
from trainer.data.augment import Box
from trainer.data.decode import INTERPOLATION, Decoded, DecodeError, open_video
from trainer.data.digests import check_bytes, digests_before, digests_of
from trainer.data.folders import numbered
from trainer.data.pack import Entry
from trainer.data.sample import spread
from trainer.data.workers import Task

_FLOW = {axis: re.compile(rf"flow_{axis}_(\d+)\.(?:jpe?g|png)", re.IGNORECASE) for axis in "xy"}


def decode_flow(folder: str | Path, *, num_frames: int, short_side: int = 0, max_frames: int = 0) -> Decoded:
    """Reads the flow of a folder.

    Args:
        folder: The folder.
        num_frames: Frames of the video, as its list states; if there are more images, the first so many are read.
        short_side: Short side of the result, in pixels; 0 leaves the size.
        max_frames: If the video has more frames, this many are kept, evenly spaced; 0 keeps all.

    Returns:
        Bytes (F, H, W, 2) of u and v; their rate is not known.

    Raises:
        DecodeError: An image is missing or damaged, their sizes differ, or it is a video file without flow.
    """
    kept = min(num_frames, max_frames) if max_frames else num_frames
    numbers = spread(np.arange(kept), num_frames, kept)
    return Decoded(frames=_read(Path(folder), numbers, num_frames, short_side), fps=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowImages:
    """Reads the images that a clip needs, for `data.source=decode`; see `trainer.data.split.Reader`.

    Attributes:
        root: Folder that all paths start from.
        short_side: Short side that they are scaled to, in pixels.
    """

    root: Path
    short_side: int

    def __call__(
        self, data: NDArray[np.uint8], entry: Entry, numbers: NDArray[np.int64], box: Box
    ) -> NDArray[np.uint8]:
        """Gives a part of the flow at some frames (T, box.height, box.width, 2)."""
        if entry.digested:
            known = data[entry.offset : entry.offset + _COUNT_BYTES + _NAMES_BYTES]
            check_bytes(known, digests_before(data, entry.offset, 1)[0], "what is remembered of it")
        total = int(data[entry.offset : entry.offset + _COUNT_BYTES].view("<i8")[0])
        actual = spread(numbers, total, entry.num_frames)
        each, places = np.unique(actual, return_inverse=True)
        frames = _read(self.root / entry.path, each, total, self.short_side)
        if frames.shape[1:3] != (entry.height, entry.width):
            raise DecodeError("the size of its flow images is not what it was")
        rows, columns = box.slices
        return frames[places, rows, columns]


_COUNT_BYTES, _NAMES_BYTES = 8, 32


def scan_flow(task: Task) -> Coded | str:
    """Looks whether the flow of a folder is there, by its names and its first image; gives the reason if it is not.

    Its `data` are how many frames there are, and a digest of the images' names and sizes in bytes.
    """
    try:
        paths = [path for axis in "xy" for path in _paths(Path(task.path), axis, task.images)]
        first = _read(Path(task.path), np.zeros(1, dtype=np.int64), task.images, task.short_side)
        known = "\n".join(f"{path.name} {path.stat().st_size}" for path in paths)
    except DecodeError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    kept = min(task.images, task.max_frames) if task.max_frames else task.images
    names = hashlib.blake2b(known.encode(), digest_size=_NAMES_BYTES).digest()
    data = np.array([task.images], dtype="<i8").tobytes() + names
    height, width = first.shape[1:3]
    return Coded(data=data, num_frames=kept, height=height, width=width, fps=0.0, digests=digests_of([data]))


def _paths(folder: Path, axis: str, num_frames: int) -> list[Path]:
    """The images of an axis, one a frame."""
    if not num_frames:
        raise DecodeError("a video file holds no flow; `nas data flow` computes it")
    try:
        return numbered(folder, _FLOW[axis], num_frames, f"flow_{axis}")
    except DecodeError:
        if num_frames < 2:
            raise
        try:
            paths = numbered(folder, _FLOW[axis], num_frames - 1, f"flow_{axis}")
        except DecodeError:
            paths = []
        if not paths:
            raise
        return [*paths, paths[-1]]


def _read(folder: Path, numbers: NDArray[np.int64], num_frames: int, short_side: int) -> NDArray[np.uint8]:
    planes: list[NDArray[np.uint8]] = []
    for axis in "xy":
        paths = _paths(folder, axis, num_frames)  # looks through the folder, so once for all frames
        planes.append(_grey([paths[k] for k in numbers.tolist()], short_side))
    if planes[0].shape != planes[1].shape:
        sizes = " and ".join(f"{plane.shape[2]}x{plane.shape[1]}" for plane in planes)
        raise DecodeError(f"x and y must have one size, but have {sizes}")
    return np.stack(planes, axis=-1)


def _grey(paths: list[Path], short_side: int) -> NDArray[np.uint8]:
    """Grey images (F, H, W) of one size."""
    planes: list[NDArray[np.uint8]] = []
    reformatter = VideoReformatter()
    for path in paths:
        try:
            with open_video(path) as container:
                frame = next(container.decode(video=0))
                ratio = short_side / min(frame.width, frame.height) if short_side else 1.0
                size = max(1, round(frame.width * ratio)), max(1, round(frame.height * ratio))
                grey = reformatter.reformat(frame, *size, "gray", interpolation=INTERPOLATION, threads=1)
                planes.append(np.asarray(grey.to_ndarray(), dtype=np.uint8))
        except Exception as error:  # see `trainer.data.decode.reasons`
            raise DecodeError(f"{path.name} cannot be decoded: {' '.join(str(error).split())}") from error
        if planes[-1].shape != planes[0].shape:
            raise DecodeError(f"images must have one size, but {path.name} differs from the first")
    return np.stack(planes)
