"""A data set that is ready for use: found, decoded and checked against the clip; and shares of its videos."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from trainer.config import DataConfig
from trainer.data.cache import open_frames
from trainer.data.entries import Broken, Entry, Progress, class_without_videos
from trainer.data.kinds import FlowSettings, Input
from trainer.data.layouts import DataError, Layout, find_layout
from trainer.data.partition import grouped
from trainer.data.sample import frames_at, needed_frames
from trainer.data.split import Split

if TYPE_CHECKING:
    from trainer.data.pack.read import Packed


T = TypeVar("T")
_TRAIN = "train"


def with_share(data: T, share: float, seed: int) -> T:
    """The data with a share of its training videos; its other splits stay whole.

    Args:
        data: The opened data; with a share of 1 it may be anything, and comes back as it is.
        share: Above 0, at most 1.
        seed: Of the training.
    """
    if share == 1:
        return data
    assert isinstance(data, VideoData)
    train = data.split(_TRAIN)
    rows = chosen(train.entries, share, seed)
    return replace(data, splits=MappingProxyType({**data.splits, _TRAIN: train.keep(rows)}))


def chosen(entries: Sequence[Entry], share: float, seed: int) -> NDArray[np.int64]:
    """The numbers of the videos that a share takes, ascending.

    The videos of a class stand in an order that the seed and their paths give, and the first of them are taken: the
    share of their number, rounded. The first one of every class always is. So a smaller share is part of every larger
    one, and a video is taken or not whatever the order of the list is. A video with several labels is counted with the
    first of them (those without any together), but may stand for each of its classes.

    Args:
        entries: The videos.
        share: Above 0, at most 1.
        seed: Draws the order.
    """
    keys = [hashlib.sha256(f"{seed} {entry.path}".encode()).digest() for entry in entries]
    counted: dict[int, list[int]] = {}
    first: dict[int, int] = {}
    for row in sorted(range(len(entries)), key=lambda row: (keys[row], entries[row].path)):
        entry = entries[row]
        counted.setdefault(entry.label, []).append(row)
        for label in entry.labels or (entry.label,):
            first.setdefault(label, row)
    taken = set(first.values())
    for rows in counted.values():
        taken.update(rows[: int(len(rows) * share + 0.5)])
    return np.array(sorted(taken), dtype=np.int64)


class Met:
    """Counts the clips that could not be read since a job began.

    The one thing about opened data that changes: what its epochs and evaluations came across, for the record.

    Attributes:
        num_clips: Clips replaced in training, and left out in evaluation.
        videos: The reason for each of the videos they were of, by its path.
    """

    def __init__(self) -> None:
        """Nothing is met yet."""
        self.num_clips = 0
        self.videos: dict[str, str] = {}

    def reset(self) -> None:
        """Begins anew."""
        self.num_clips = 0
        self.videos.clear()

    def summary(self) -> str | None:
        """What was met, in one line; None if nothing was."""
        if not self.videos:
            return None
        path, reason = next(iter(self.videos.items()))
        videos = "1 video" if len(self.videos) == 1 else f"{len(self.videos)} videos"
        clips = "1 clip" if self.num_clips == 1 else f"{self.num_clips} clips"
        return f"{clips} of {videos} could not be read (the first, {path}: {reason})"

    def join(self, other: Met) -> None:
        """Takes what another process has met."""
        self.num_clips += other.num_clips
        self.videos = {**other.videos, **self.videos}

    def add(self, broken: Broken) -> None:
        """Counts a clip of a video."""
        self.num_clips += 1
        self.videos.setdefault(broken.path, broken.reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoData:
    """A data set.

    Attributes:
        classes: Names of the classes; labels are indices into it.
        splits: Usable videos of each split.
        broken: Videos that were left out, with reasons.
        checksum: SHA-256 of what was decoded; the same wherever the same frames come from the same files.
        backend: What decoded them.
        multi_label: Whether a video may have several classes, or none.
        met: What could not be read since.
        layout: Where they were found, and which part of the data they are; None if that is not known.
        flow: How flow was computed, where the frames are flow.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    broken: tuple[Broken, ...]
    checksum: str
    backend: str
    multi_label: bool = False
    met: Met = field(default_factory=Met, compare=False)
    layout: Layout | None = None
    flow: FlowSettings | None = None

    def split(self, name: str) -> Split:
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
    if config.source == "pack":
        for name in ("layout", "annotations", "definition", "per_class", "exclude"):
            value = getattr(config, name)
            if value not in ("auto", "", 0):
                raise DataError(
                    f"data.{name} is settled when videos are packed, but is {value} with data.source=pack; give it to"
                    " `nas data pack`"
                )
        return _of(config, _fitting(config), None)
    layout = find_layout(config)
    kind: Input = "flow" if config.input == "flow" else "rgb"
    if kind == "flow":
        check_flow(layout)
    if config.source == "decode":
        from trainer.data.direct import open_times

        return _of(
            config,
            open_times(
                layout,
                config.cache,
                short_side=config.short_side,
                max_frames=config.max_frames,
                kind=kind,
                progress=progress,
            ),
            layout,
        )
    opened = open_frames(
        layout,
        config.cache,
        short_side=config.short_side,
        max_frames=config.max_frames,
        kind=kind,
        progress=progress,
    )
    return _of(config, opened, layout)


def check_flow(layout: Layout) -> None:
    """Raises DataError unless the videos are folders of frames, which may hold flow."""
    for videos in layout.splits.values():
        for video in videos:
            if not video.frames:
                raise DataError(
                    f"data.input flow needs flow, but {video.path} of {layout.root} is a video file; compute it once"
                    f" with `nas data flow {layout.root} -o FOLDER`, and take data.source=pack data.root=FOLDER"
                )


def _check_groups(splits: Mapping[str, Split], config: DataConfig) -> None:
    """Raises DataError where what `data.group` takes for one thing is in two splits."""
    place: dict[str, tuple[str, str]] = {}
    for split, videos in splits.items():
        for path, group in grouped([entry.path for entry in videos.entries], config.group, key="data.group").items():
            other, first = place.setdefault(group, (split, path))
            if other != split:
                raise DataError(
                    f"a group of data.group must be in one split, but {group!r} is in {other} ({first}) and {split}"
                    f" ({path}); `nas data split ROOT --group REGEX` keeps groups together"
                )


def _of(config: DataConfig, opened: Packed, layout: Layout | None) -> VideoData:
    """The data without the videos that are too short for a clip."""
    usable, short = _usable(opened.splits, config)
    if config.group:
        _check_groups(usable, config)
    return VideoData(
        classes=opened.classes,
        splits=MappingProxyType(usable),
        broken=(*opened.broken, *short),
        checksum=opened.checksum,
        backend=opened.backend,
        multi_label=opened.multi_label,
        layout=layout,
        flow=opened.flow,
    )


def _fitting(config: DataConfig) -> Packed:
    """Opens the pack that is the data's root.

    Raises:
        DataError: It is no complete pack, or was made for other clips.
    """
    from trainer.data.pack.read import open_packed

    packed = open_packed(config.root)
    if (config.input == "flow") != (packed.flow is not None):
        held, made = ("RGB", "flow") if packed.flow is None else ("flow", "pack")
        raise DataError(
            f"data.input must be what the pack holds, but is {config.input} and {packed.folder} holds {held};"
            f" `nas data {made}` makes the other one"
        )
    for name in ("short_side", "max_frames"):
        wanted, found = getattr(config, name), getattr(packed, name)
        if wanted != found:
            raise DataError(
                f"data.{name} must be that of the pack, but is {wanted} and {packed.folder} has {found};"
                f" set data.{name}={found}, or pack again"
            )
    if packed.fps > 0 and not config.fps:
        raise DataError(
            f"data.fps must be stated where a pack leaves frames out, so that other videos are seen alike, but is 0 and"
            f" {packed.folder} has {packed.fps:.12g} a second; set data.fps={packed.fps:.12g}, or pack all frames"
        )
    if config.fps > packed.fps > 0:
        raise DataError(
            f"data.fps must be at most that of the pack {packed.folder}, {packed.fps:g}, but is {config.fps:g}"
        )
    return packed


def missing_classes(config: DataConfig, data: VideoData) -> str | None:
    """Says in one line which class has no usable video, and why; None if each has one in every split."""
    for name, split in data.splits.items():
        present = set(split.labels.tolist()).union(*(entry.labels for entry in split.entries if data.multi_label))
        for label, title in enumerate(data.classes):
            if label not in present:
                mine = _paths(data, name, label)
                first = next((one for one in data.broken if one.path in mine), None)
                why = f" (the first, {first.path}: {first.reason})" if first else ""
                return class_without_videos(title, f"{name} of {config.root}", f"all are broken or short{why}")
    return None


def _paths(data: VideoData, split: str, label: int) -> set[str]:
    """Paths of the videos of a class that were found, usable or not."""
    if data.layout is None:
        return {one.path for one in data.broken}
    videos = data.layout.splits[split]
    return {video.path for video in videos if label in (video.labels or (video.label,))}


def _usable(splits: Mapping[str, Split], config: DataConfig) -> tuple[dict[str, Split], list[Broken]]:
    """Parts the videos that are long enough for a clip from those that are not."""
    needed = needed_frames(config.clip, config.sampling) if config.short == "skip" else 1
    usable: dict[str, Split] = {}
    short: list[Broken] = []
    for name, split in splits.items():
        lengths = [frames_at(entry.num_frames, entry.fps, config.fps) for entry in split.entries]
        long = [number for number, length in enumerate(lengths) if length >= needed]
        usable[name] = split if len(long) == len(lengths) else split.keep(np.array(long, dtype=np.int64))
        short += [
            Broken(path=entry.path, reason=f"short: {length} frames{_rate(config)}, needs {needed}")
            for entry, length in zip(split.entries, lengths, strict=True)
            if length < needed
        ]
    return usable, short


def _rate(config: DataConfig) -> str:
    return f" at {config.fps:g} a second" if config.fps else ""
