"""Videos that are folders of images, as TSN and TSM keep them: RGB, and flow in two images per frame.

The images of flow are cut off at 20 pixels per frame (TSN's extraction; `trainer.data.kinds.BOUND`), scaled as pictures
are and left with their numbers. There may be one image of each axis fewer than frames, since the last frame has no next
one: the last flow then stands for it, too.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from trainer.data.augment import Box
from trainer.data.decode import INTERPOLATION, Decoded, DecodeError, decode_video, open_video, stacked
from trainer.data.digests import check_bytes, digests_before, digests_of
from trainer.data.entries import Entry, Task
from trainer.data.pack.append import Coded
from trainer.data.sample import spread

_RGB = re.compile(r"(?:img_|image_|frame_?)?(\d+)\.(?:jpe?g|png)", re.IGNORECASE)


def decode_folder(folder: str | Path, *, num_frames: int, short_side: int, max_frames: int = 0) -> Decoded:
    """Reads the RGB images of a folder, in the order of their numbers.

    Args:
        folder: The folder.
        num_frames: Images that its list states; if there are more, the first of them are the video.
        short_side: Short side of the result, in pixels.
        max_frames: If the video has more frames, this many are kept, evenly spaced; 0 keeps all.

    Returns:
        The frames; their rate is not known.

    Raises:
        DecodeError: An image is missing or damaged, or their sizes differ.
    """
    paths = images(folder, num_frames=num_frames)
    if max_frames and num_frames > max_frames:
        keep = (2 * np.arange(max_frames) + 1) * num_frames // (2 * max_frames)
        paths = [paths[index] for index in keep]
    frames: list[NDArray[np.uint8]] = []
    for path in paths:
        try:
            # One scaler for videos and images: the same picture gives the same pixels.
            image = decode_video(path, short_side=short_side).frames
        except DecodeError as error:
            raise DecodeError(f"{path.name}: {error}") from error
        if frames and image[0].shape != frames[0].shape:
            size = " and ".join(f"{one.shape[1]}x{one.shape[0]}" for one in (frames[0], image[0]))
            raise DecodeError(f"images must have one size, but {path.name} and the first are {size} after scaling")
        frames.append(image[0])
    return Decoded(frames=stacked(frames), fps=0.0)


def images(folder: str | Path, *, num_frames: int) -> list[Path]:
    """The RGB images of a folder in the order of their numbers.

    Raises:
        DecodeError: There are fewer than `num_frames`, or a number is missing or there twice.
    """
    return numbered(Path(folder), _RGB, num_frames, "img")


def numbered(folder: Path, pattern: re.Pattern[str], num_frames: int, what: str) -> list[Path]:
    """The first files of a folder in the order of the number that the pattern finds in their names.

    Args:
        folder: The folder.
        pattern: Matches whole names; its first group is the number.
        num_frames: How many there must be.
        what: What messages call them.

    Raises:
        DecodeError: As `images`.
    """
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError as error:
        raise DecodeError(f"the folder cannot be read: {error.strerror}") from error
    found = sorted((int(match[1]), name) for name in names if (match := pattern.fullmatch(name)))[:num_frames]
    if len(found) < num_frames:
        raise DecodeError(f"there are {len(found)} {what} images of the {num_frames} that its list states")
    numbers = [number for number, _ in found]
    for first, second in pairwise(numbers):
        if second != first + 1:
            raise DecodeError(
                f"{what} images must be numbered one by one, but {first} is "
                f"{'there twice' if first == second else f'followed by {second}'}"
            )
    return [folder / name for _, name in found]


_FLOW = {axis: re.compile(rf"flow_{axis}_(\d+)\.(?:jpe?g|png)", re.IGNORECASE) for axis in "xy"}


def decode_flow(folder: str | Path, *, num_frames: int, short_side: int = 0, max_frames: int = 0) -> Decoded:
    """Reads the flow of a folder.

    Args:
        folder: The folder.
        num_frames: Frames of the video, as its list states; of more images, the first are read.
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
