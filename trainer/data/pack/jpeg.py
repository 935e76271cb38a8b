"""Frames as JPEG, by libjpeg-turbo through simplejpeg.

Measured on one core (milliseconds per frame, decoded into an array (H, W, 3) that is there already):

| frame   | simplejpeg | torchvision.io | Pillow | PyAV mjpeg |
|---------|------------|----------------|--------|------------|
| 240x319 | 0.19       | 0.26           | 0.33   | 0.78       |
| 128x170 | 0.079      | 0.119          | 0.207  | 0.198      |
| 112x149 | 0.067      | 0.112          | 0.203  | 0.354      |
| 64x85   | 0.032      | 0.064          | 0.126  |            |

The first three give the same pixels. torchvision would also cost each loader process 160 MB by its import.
"""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from trainer.data.decode import DecodeError

QUALITY = 90
"""Usual quality: the frames of a pack differ from the decoded ones by 1 to 2 levels of 255 in the mean."""


def encode_jpeg(image: NDArray[np.uint8], quality: int = QUALITY) -> bytes:
    """Codes one frame.

    Args:
        image: (H, W, 3), or grey (H, W, 1).
        quality: 1 to 100. Colour has half the resolution, as it has in nearly all video files.
    """
    form = ("GRAY", "Gray") if image.shape[2] == 1 else ("RGB", "420")
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, *form))


def decode_jpeg(data: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Decodes one frame.

    Args:
        data: The coded bytes.
        out: Receives the frame (H, W, 3), or grey (H, W, 1).

    Raises:
        DecodeError: The bytes are no whole JPEG of that size.
    """
    try:
        form = "GRAY" if out.shape[2] == 1 else "RGB"
        shape = simplejpeg.decode_jpeg(data, form, strict=True, buffer=out).shape
    except ValueError as error:
        raise DecodeError(f"a frame is damaged: {' '.join(str(error).split())}") from error
    if shape != out.shape:
        raise DecodeError(f"a frame is {shape[0]}x{shape[1]} instead of {out.shape[0]}x{out.shape[1]}")
