"""What `nas data check` reports: what a data set holds, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.config import DataConfig
from trainer.data.dataset import PackedSplit, missing_classes, open_usable
from trainer.data.pack import Broken, Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Smallest, middle and largest of some values."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitReport:
    """One split.

    Attributes:
        num_videos: Usable videos.
        per_class: Usable videos of each class, by name; zero where all are broken.
        num_broken: Videos that were left out.
        frames: Frames of the usable videos, after decoding; None if there is none.
        height: Rows after decoding, in pixels.
        width: Columns after decoding, in pixels.
        fps: Frames a second, of those that say so.
    """

    num_videos: int
    per_class: Mapping[str, int]
    num_broken: int
    frames: Range | None
    height: Range | None
    width: Range | None
    fps: Range | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DataReport:
    """A data set.

    Attributes:
        classes: Names of the classes.
        splits: Report of each split.
        broken: Videos that were left out, with reasons.
        checksum: SHA-256 of what was decoded.
        backend: What decoded it.
        problem: Why the data cannot be trained on, in one line; None if it can.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, SplitReport]
    broken: tuple[Broken, ...]
    checksum: str
    backend: str
    problem: str | None


def check_data(config: DataConfig, *, progress: Progress | None = None) -> DataReport:
    """Decodes a data set (or opens its cache) and reports on it.

    Args:
        config: Which data, and the clip that is to be taken from it.
        progress: Called with (videos done, videos in all) while decoding.

    Returns:
        The report. A class without a usable video is stated in it, not raised.

    Raises:
        DataError: The layout is wrong, or the cache cannot be used.
    """
    data = open_usable(config, progress=progress)
    return DataReport(
        classes=data.classes,
        splits={name: _report(name, split, data.classes, data.broken) for name, split in data.splits.items()},
        broken=data.broken,
        checksum=data.checksum,
        backend=data.backend,
        problem=missing_classes(config, data),
    )


def _report(name: str, split: PackedSplit, classes: Sequence[str], broken: Sequence[Broken]) -> SplitReport:
    labels = split.labels.tolist()
    return SplitReport(
        num_videos=len(split),
        per_class={title: labels.count(label) for label, title in enumerate(classes)},
        num_broken=sum(one.path.startswith(f"{name}/") for one in broken),
        frames=_range([entry.num_frames for entry in split.entries]),
        height=_range([entry.height for entry in split.entries]),
        width=_range([entry.width for entry in split.entries]),
        fps=_range([entry.fps for entry in split.entries if entry.fps > 0]),
    )


def _range(values: Sequence[float]) -> Range | None:
    if not values:
        return None
    ordered = sorted(values)
    return Range(low=ordered[0], median=ordered[len(ordered) // 2], high=ordered[-1])
