"""Videos of a data set between its layout and their frames: entries, decoding tasks, and keys."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.data.kinds import Input
from trainer.data.layouts import Layout

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """A video that was left out.

    Attributes:
        path: Path below the data set's root.
        reason: Why, in a few words.
    """

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Where a video lies in the file of its split.

    Attributes:
        path: Path below the data set's root.
        label: Index of its class.
        num_frames: Frames, F.
        height: Rows.
        width: Columns.
        offset: First byte of what is kept of it, such as raw frames of F * height * width * C bytes.
        fps: Frames per second; 0 if unknown.
        labels: Indices of all its classes, of multi-label data alone; `label` is the first of them.
        digested: Whether digests lie before `offset`; not in what was written before there were any.
    """

    path: str
    label: int
    num_frames: int
    height: int
    width: int
    offset: int
    fps: float
    labels: tuple[int, ...] = ()
    digested: bool = False

    def num_bytes(self, planes: int = 3) -> int:
        """Bytes of the video where its frames are raw, with a number of planes."""
        return self.num_frames * self.height * self.width * planes


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One video to decode: by `decode_video`; a folder of `images` by `decode_folder` or `decode_flow`."""

    path: str
    short_side: int
    max_frames: int = 0
    images: int = 0
    flow: bool = False


def tasks_of(layout: Layout, short_side: int, max_frames: int, kind: Input = "rgb") -> list[Task]:
    """What decodes the videos of a layout, split by split."""
    return [
        Task(
            path=str(layout.root / video.path),
            short_side=short_side,
            max_frames=max_frames,
            images=video.frames,
            flow=kind == "flow",
        )
        for videos in layout.splits.values()
        for video in videos
    ]


def key_of(layout: Layout, settings: Mapping[str, Any]) -> str:
    """Names what goes into a cache or a pack: 32 letters.

    Args:
        layout: The videos; their paths below the root, labels, sizes and times of modification count. Of a folder of
            frames, how many of its images are the video, and the name, size and time of each file in it.
        settings: How they are decoded, as JSON values.

    Raises:
        OSError: A file cannot be looked at.
    """
    digest = hashlib.sha256(json.dumps([settings, layout.classes], sort_keys=True).encode())
    for split, videos in layout.splits.items():
        digest.update(f"\n{split}\n".encode())
        for video in videos:
            file = layout.root / video.path
            if video.frames:
                facts: list[Any] = [video.frames, _files(file)]
            else:
                stat = file.stat()
                facts = [stat.st_size, stat.st_mtime_ns]
            digest.update(json.dumps([video.path, video.label, *facts, *several(video.labels)]).encode())
    return digest.hexdigest()[:32]


def several(labels: tuple[int, ...]) -> list[list[int]]:
    """What is hashed of multi-label videos alone, so that the keys and checksums of others are as ever."""
    return [list(labels)] if labels else []


def _files(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of what lies in a folder of frames: its own time stays when an image is written anew."""
    found: list[tuple[str, int, int]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                stat = entry.stat()
                found.append((entry.name, stat.st_size, stat.st_mtime_ns))
            except FileNotFoundError:  # a link that leads nowhere; who reads it will say so
                found.append((entry.name, -1, -1))
    return sorted(found)


def class_without_videos(title: str, where: str, why: str) -> str:
    """The message for a class that a split has no usable video of."""
    return (
        f"a class must have at least one usable video in every split, but of {title} in {where} {why}; replace them, or"
        " leave the class out with data.definition"
    )
