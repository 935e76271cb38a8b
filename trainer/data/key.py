"""What names a cache or a pack: a hash of the videos as they lie on the disk and of what is done with them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.data.layouts import Layout


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
