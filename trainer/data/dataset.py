"""A data set that is ready for use: found, decoded, packed, and checked against the clip that is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.config import DataConfig
from trainer.data.layouts import DataError, Layout, find_layout
from trainer.data.pack import Broken, Entry, Pack, Progress, pack
from trainer.data.sample import needed_frames


@dataclass(frozen=True, kw_only=True)
class PackedSplit:
    """The usable videos of one split, mapped into memory when they are first read.

    Attributes:
        file: File that holds the frames.
        entries: The videos, in a fixed order; a video's index in it is its number everywhere.
    """

    file: Path
    entries: tuple[Entry, ...]

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.entries)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class index of each video."""
        return np.array([entry.label for entry in self.entries], dtype=np.int64)

    def video(self, index: int) -> NDArray[np.uint8]:
        """Frames of one video.

        Args:
            index: Number of the video.

        Returns:
            Read-only view (F, H, W, 3); nothing is read before it is indexed.
        """
        entry = self.entries[index]
        flat = self._bytes[entry.offset : entry.offset + entry.num_bytes]
        return flat.reshape(entry.num_frames, entry.height, entry.width, 3)

    @cached_property
    def _bytes(self) -> NDArray[np.uint8]:
        try:
            # The plain view is what NumPy slices fastest; it keeps the mapping alive.
            return np.memmap(self.file, dtype=np.uint8, mode="r").view(np.ndarray)
        except (OSError, ValueError) as error:
            raise DataError(f"data.cache must stay in place, but opening {self.file} failed: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the mapping behind: other processes map the file themselves instead of getting a copy."""
        return {"file": self.file, "entries": self.entries}


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoData:
    """A data set.

    Attributes:
        classes: Names of the classes; labels are indices into it.
        splits: Usable videos of each split.
        broken: Videos that were left out, with reasons.
        checksum: SHA-256 of what was decoded; the same wherever the same frames come from the same files.
        backend: What decoded them.
        layout: Where they were found, and which part of the data they are; None if that is not known.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, PackedSplit]
    broken: tuple[Broken, ...]
    checksum: str
    backend: str
    layout: Layout | None = None

    def split(self, name: str) -> PackedSplit:
        """Gives a split by name.

        Raises:
            DataError: There is no such split.
        """
        if name not in self.splits:
            raise DataError(f"split must be one of {', '.join(self.splits)}, but is {name}")
        return self.splits[name]


def open_data(config: DataConfig, *, progress: Progress | None = None) -> VideoData:
    """Opens a data set; decodes and packs it on first use.

    Videos that cannot be decoded, and with `short: skip` those with fewer frames than a clip needs, are
    left out and listed in `broken`.

    Args:
        config: Which data, and the clip that is taken from it.
        progress: Called with (videos done, videos in all) while decoding; never if the cache is there.

    Returns:
        The data.

    Raises:
        DataError: The layout is wrong, the cache cannot be used, or a class has no usable video in a split.
    """
    data = open_usable(config, progress=progress)
    problem = missing_classes(config, data)
    if problem is not None:
        raise DataError(problem)
    return data


def open_usable(config: DataConfig, *, progress: Progress | None = None) -> VideoData:
    """Opens a data set like `open_data`, but accepts classes that have no usable video."""
    layout = find_layout(config)
    packed = pack(
        layout,
        config.cache,
        short_side=config.short_side,
        max_frames=config.max_frames,
        progress=progress,
    )
    splits, short = _usable(packed, config)
    return VideoData(
        classes=packed.classes,
        splits=MappingProxyType(splits),
        broken=(*packed.broken, *short),
        checksum=packed.checksum,
        backend=packed.backend,
        layout=layout,
    )


def missing_classes(config: DataConfig, data: VideoData) -> str | None:
    """Says in one line which class has no usable video, and why; None if each has one in every split."""
    for name, split in data.splits.items():
        present = set(split.labels.tolist())
        for label, title in enumerate(data.classes):
            if label not in present:
                mine = _paths(data, name, label)
                first = next((one for one in data.broken if one.path in mine), None)
                why = f" (the first, {first.path}: {first.reason})" if first else ""
                return (
                    f"a class must have at least one usable video in every split, but all of {title} in {name} of"
                    f" {config.root} are broken or short{why}; replace them or leave the class out"
                )
    return None


def _paths(data: VideoData, split: str, label: int) -> set[str]:
    """Paths of the videos of a class that were found, usable or not."""
    if data.layout is None:
        return {one.path for one in data.broken}
    videos = data.layout.splits[split]
    return {video.path for video in videos if label in (video.labels or (video.label,))}


def _usable(packed: Pack, config: DataConfig) -> tuple[dict[str, PackedSplit], list[Broken]]:
    """Parts the videos that are long enough for a clip from those that are not."""
    needed = needed_frames(config.clip, config.sampling) if config.short == "skip" else 1
    splits: dict[str, PackedSplit] = {}
    short: list[Broken] = []
    for name, entries in packed.splits.items():
        splits[name] = PackedSplit(
            file=packed.file(name), entries=tuple(entry for entry in entries if entry.num_frames >= needed)
        )
        short += [
            Broken(path=entry.path, reason=f"short: {entry.num_frames} frames, needs {needed}")
            for entry in entries
            if entry.num_frames < needed
        ]
    return splits, short
