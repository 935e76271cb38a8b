"""The files of one split of a pack as they grow: frames at their end, and then a line that says that they are there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from trainer.data.layouts import Video
from trainer.data.pack.read import header

# How much work a kill may cost: flushing each video would be slow.
_GROUP_BYTES, _GROUP_SECONDS = 64 * 2**20, 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Coded:
    """One video as it goes into the file: bytes, and how many frames (F, H, W, C) they are of.

    Attributes:
        data: The bytes, in one dimension.
        num_frames: Frames, F.
        height: Rows.
        width: Columns.
        fps: Frames per second; 0 if unknown.
        digests: Of the parts of `data` that are read at once; see `trainer.data.digests`.
    """

    data: bytes | NDArray[np.uint8]
    num_frames: int
    height: int
    width: int
    fps: float
    digests: bytes

    @property
    def buffer(self) -> memoryview:
        """The bytes, without a copy of them."""
        return memoryview(cast(Any, self.data))


class SplitWriter:
    """Appends the videos of one split; what it finds there of an earlier attempt, it goes on with.

    Attributes:
        lines: What is on the disk, a video each: path, class, size, place and checksum, or the reason why it is not.
        end: Bytes of the file of frames.
    """

    def __init__(self, folder: Path, name: str, key: str, videos: Sequence[Video]) -> None:
        """Opens the files of a split.

        Args:
            folder: Of the pack.
            name: Of the split.
            key: Of the pack.
            videos: Of the split, in the order in which they are added.

        Raises:
            OSError: They cannot be read or written.
        """
        # Unbuffered: after a failure nothing waits to be written that there is no room for.
        self._frames = (folder / f"{name}.bin").open("ab+", buffering=0)
        self._notes = (folder / f"{name}.jsonl").open("ab+", buffering=0)
        self.lines: list[dict[str, Any]] = []
        self._waiting: list[dict[str, Any]] = []
        self._waiting_bytes = 0
        self._flushed = time.monotonic()
        self._failed = False
        self._restore(folder / f"{name}.jsonl", key, videos)

    def _restore(self, notes: Path, key: str, videos: Sequence[Video]) -> None:
        size = self._frames.seek(0, os.SEEK_END)
        self._frames.seek(0)
        if self._frames.read(len(header(key))) != header(key):
            size = 0  # nothing, or not this pack's
        end, whole = len(header(key)), 0
        with notes.open("rb") as lines:
            for line, video in zip(lines, videos, strict=False):
                try:
                    values = json.loads(line)
                    last = end if "reason" in values else int(values["offset"] + values["bytes"])
                    follows = values["path"] == video.path
                except (ValueError, KeyError, TypeError):
                    break  # the end of a line that was being written
                if not line.endswith(b"\n") or last > size or not follows:
                    break
                self.lines.append(values)
                end, whole = last, whole + len(line)
        self._whole = whole
        self._notes.truncate(whole)
        self._frames.truncate(end if self.lines else 0)
        self.end = self._frames.seek(0, os.SEEK_END)
        if self.end == 0:
            self._append(header(key))

    def _append(self, data: bytes | memoryview) -> None:
        _write(self._frames, data)
        self.end += len(data)

    def add(self, video: Video, coded: Coded | str) -> None:
        """Appends a video, or the reason why there is none.

        Raises:
            OSError: There is no room.
        """
        line: dict[str, Any] = {"path": video.path, "label": video.label}
        if isinstance(coded, str):
            line["reason"] = coded
        else:
            if video.labels:
                line["labels"] = list(video.labels)
            line |= {"num_frames": coded.num_frames, "height": coded.height, "width": coded.width, "fps": coded.fps}
            line |= {"offset": self.end + len(coded.digests), "bytes": len(coded.data), "digested": bool(coded.digests)}
            line["sha256"] = hashlib.sha256(coded.buffer).hexdigest()
            self._append(coded.digests)
            self._append(coded.buffer)
            self._waiting_bytes += len(coded.data)
        self._waiting.append(line)
        if self._waiting_bytes >= _GROUP_BYTES or time.monotonic() - self._flushed >= _GROUP_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Puts the frames onto the disk, and then the lines that say that they are there.

        Raises:
            OSError: There is no room; none of these lines is then promised.
        """
        try:
            os.fsync(self._frames.fileno())
            text = b"".join(json.dumps(line).encode() + b"\n" for line in self._waiting)
            _write(self._notes, text)
            os.fsync(self._notes.fileno())
        except BaseException:
            self._failed = True
            raise
        self._whole += len(text)
        self.lines += self._waiting
        self._waiting, self._waiting_bytes = [], 0
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Closes the files; after a failure they hold what is promised, as far as the disk allows."""
        with contextlib.suppress(OSError):
            if self._failed:
                # A system that could not write something once may forget it, and then say that all is written.
                self._notes.truncate(self._whole)
            else:
                self._frames.truncate(self.end)  # they may end with a part of a video
                self.flush()
        for handle in (self._frames, self._notes):
            with contextlib.suppress(OSError):
                handle.close()


def _write(file: FileIO, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
