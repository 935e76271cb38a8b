"""Digests of what caches and packs hold, so that bytes that change on the disk are told and not trained on.

Before the bytes of a video lie CRC-32s of their parts, 32 bits each: one of each frame, or where no frames are kept
(the times of `data.source=decode`) one of all. A clip is held to those of its own frames alone: a whole video would be
ten times as much to read, and loader processes begin anew with each epoch, so that it would be read as often. What was
written before there were digests has none (`trainer.data.entries.Entry.digested`), and is read as it is.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.decode import DecodeError

BYTES = 4
"""Of one digest."""

FRAMES, TIMES = ".frames", ".times"
"""Endings of the folders of `data.cache`."""


class DamagedError(DecodeError):
    """Bytes of a cache or a pack are not those that were written."""

    def within(self, file: Path) -> DecodeError:
        """The same with the file, and what helps."""
        again = "the next start makes it again" if file.parent.suffix in (FRAMES, TIMES) else "make the pack again"
        return DecodeError(f"{self} in {file}; remove its folder, and {again}")


def digests_of(parts: Iterable[bytes | memoryview]) -> bytes:
    """The digests of some parts, as they lie before them."""
    return np.array([zlib.crc32(part) for part in parts], dtype="<u4").tobytes()


def digests_before(data: NDArray[np.uint8], offset: int, count: int) -> NDArray[np.uint32]:
    """The digests of a number of parts, of which the first begins at `offset`."""
    return data[offset - BYTES * count : offset].view("<u4")


class CheckedFrames:
    """The raw frames of a file that this process has held to their digests, each when it is first read.

    To hold a raw frame to its digest takes longer than to copy a crop out of it.
    """

    def __init__(self) -> None:
        """No frame is."""
        self._frames: dict[int, NDArray[np.bool_]] = {}

    def check(
        self, frames: NDArray[np.uint8], data: NDArray[np.uint8], offset: int, numbers: NDArray[np.int64]
    ) -> None:
        """Looks at some frames of a video.

        Args:
            frames: All its frames (F, H, W, C).
            data: The file.
            offset: Where it has the first one.
            numbers: Which frames.

        Raises:
            DamagedError: One is not as it was written.
        """
        done = self._frames.get(offset)
        if done is None:
            done = self._frames[offset] = np.zeros(len(frames), dtype=np.bool_)
        digests = digests_before(data, offset, len(frames))
        for number in set(numbers[~done[numbers]].tolist()):
            check_bytes(frames[number], digests[number], "frame", number)
            done[number] = True

    def __reduce__(self) -> tuple[type[CheckedFrames], tuple[()]]:
        """Other processes begin anew."""
        return CheckedFrames, ()


def check_bytes(data: NDArray[np.uint8], digest: np.uint32, *name: object) -> None:
    """Raises DamagedError, with the name of the part, unless its bytes are those of the digest."""
    if zlib.crc32(data.data) != digest:
        raise DamagedError(f"{' '.join(map(str, name))} is damaged: it is not as it was written")
