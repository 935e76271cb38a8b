"""Videos that are folders of images, as TSN and TSM keep them: `img_00001.jpg`; `flow_images` reads their flow."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.decode import Decoded, DecodeError, decode_video, stacked

_RGB = re.compile(r"(?:img_|image_|frame_?)?(\d+)\.(?:jpe?g|png)", re.IGNORECASE)


def decode_folder(folder: str | Path, *, num_frames: int, short_side: int, max_frames: int = 0) -> Decoded:
    """Reads the RGB images of a folder, in the order of their numbers.

    Args:
        folder: The folder.
        num_frames: How many images its list states; if there are more, the first so many are the video.
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
