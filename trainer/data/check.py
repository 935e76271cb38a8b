"""What `nas data check` reports: what a data set holds, what is wrong with it, and what stands in it twice."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import DataConfig
from trainer.data.cache import frames_folder
from trainer.data.direct import times_folder
from trainer.data.entries import Entry, class_without_videos
from trainer.data.headers import KINDS, Header, Needed
from trainer.data.kinds import Input
from trainer.data.layouts import DataError, Layout, find_layout
from trainer.data.layouts.folders import youtube_id
from trainer.data.pack.read import open_packed
from trainer.data.sample import needed_frames
from trainer.data.scan import Progress, files_of, same_contents, scan


def without_digests(config: DataConfig, layout: Layout | None = None) -> str | None:
    """Says in one line that a pack, or what data.cache keeps of some videos, was written before there were digests.

    Args:
        config: Which data.
        layout: The videos, of data that is no pack.

    Returns:
        The line; None where it has digests, or where there is nothing yet.
    """
    if config.source == "pack" or layout is None:
        return _line(Path(config.root), _entries_of(Path(config.root)), "run `nas data pack` again")
    kind: Input = "flow" if config.input == "flow" else "rgb"
    place = times_folder if config.source == "decode" else frames_folder
    try:
        folder = place(layout, config.cache, config.short_side, config.max_frames, kind)
    except DataError:  # a video that cannot be looked at, which is told in its own place
        return None
    return _line(folder, _entries_of(folder), "the next start makes it again")


def _entries_of(folder: Path) -> Iterable[Entry]:
    """The videos of a pack; none where there is none that can be opened."""
    try:
        return [entry for split in open_packed(folder).splits.values() for entry in split.entries]
    except DataError:
        return ()


def _line(folder: Path, entries: Iterable[Entry], again: str) -> str | None:
    if all(entry.digested for entry in entries):
        return None
    return (
        f"{folder} has no digests of its frames, so that damage to it on the disk is not noticed; to have them, remove"
        f" it, and {again}"
    )


_KINETICS = re.compile(r"[\w-]{11}_\d{6}_\d{6}", re.ASCII)
# Of equal videos in several splits, the one that is kept is that of the split which a result is reported on.
_PREFERRED = ("test", "val", "train")


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
        frames: Frames of the usable videos; None if there is none.
        height: Rows, upright, in pixels.
        width: Columns, upright, in pixels.
        fps: Frames per second, of those that say so.
        seconds: Lengths, of those that say so.
    """

    num_videos: int
    per_class: Mapping[str, int]
    num_broken: int
    frames: Range | None
    height: Range | None
    width: Range | None
    fps: Range | None
    seconds: Range | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One video, file or row that is left out.

    Attributes:
        path: Path below the data set's root.
        split: Where it would have been.
        kind: Of `Header` or of `LeftOut`.
        reason: In a few words.
    """

    path: str
    split: str
    kind: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Same:
    """Videos that are the same.

    Attributes:
        by: `content` (the same bytes) or `id` (another part of the same YouTube video, by Kinetics' names).
        paths: Which.
        splits: Of each.
        classes: Of each.
    """

    by: str
    paths: tuple[str, ...]
    splits: tuple[str, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataReport:
    """A data set.

    Attributes:
        layout: What was found, as `Layout.record` gives it.
        line: The same in one line.
        classes: Names of the classes.
        splits: Report of each split.
        broken: What is left out, with reasons.
        counts: How many of each kind are left out.
        leaks: Videos that are the same in several splits.
        duplicates: Videos that are the same within a split.
        remarks: How many videos are unusual in which way, though they can be used.
        outside: Videos whose files lie out of the root, where a link leads.
        decoded: Whether every frame was decoded.
        undigested: That data.cache keeps these videos without digests, in one line; None if it does not.
        problem: Why the data cannot be trained on, in one line; None if it can.
    """

    layout: Mapping[str, Any]
    line: str
    classes: tuple[str, ...]
    splits: Mapping[str, SplitReport]
    broken: tuple[Finding, ...]
    counts: Mapping[str, int]
    leaks: tuple[Same, ...]
    duplicates: tuple[Same, ...]
    remarks: Mapping[str, int]
    outside: tuple[str, ...]
    decoded: bool
    undigested: str | None
    problem: str | None

    @property
    def clean(self) -> bool:
        """Whether nothing is left out, and no video is in two splits."""
        return not (self.broken or self.leaks)


def check_data(
    config: DataConfig,
    *,
    decode: bool = False,
    journal: Path | None = None,
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> DataReport:
    """Reads the header of every video of a data set and reports on it.

    Args:
        config: Which data, and the clip that is to be taken from it.
        decode: Decode every frame: slower by far, and finds damage inside of files.
        journal: Keeps what was read, so that an interrupted check goes on; see `scan`.
        num_workers: Processes; None takes as many as there are cores, or none for few files.
        progress: Called with (videos done, videos in all).

    Returns:
        The report. A class without a usable video is stated in it, not raised.

    Raises:
        DataError: The layout is wrong, or the journal cannot be written.
    """
    layout = find_layout(config, complete=False)
    files = files_of(layout)
    frames = needed_frames(config.clip, config.sampling) if config.short == "skip" else 1
    needed = Needed(frames=frames, fps=config.fps, max_frames=config.max_frames)
    headers = scan(
        files, needed=needed, decode=decode, journal=journal, num_workers=num_workers, progress=progress
    ).headers
    same = [_same(layout, "content", [file.path for file in group]) for group in same_contents(files)]
    same += _same_ids(layout, same)
    broken = [Finding(path=one.path, split=one.split, kind=one.kind, reason=one.reason) for one in layout.left_out]
    broken += [
        Finding(path=video.path, split=split, kind=header.kind, reason=header.reason)
        for split, videos in layout.splits.items()
        for video in videos
        if (header := headers[video.path]).kind
    ]
    splits = {split: _report(layout, split, headers, broken) for split in layout.splits}
    return DataReport(
        layout=layout.record(),
        line=layout.line(),
        classes=layout.classes,
        splits=splits,
        broken=tuple(broken),
        counts=dict(sorted(Counter(one.kind for one in broken).items())),
        leaks=tuple(one for one in same if len(set(one.splits)) > 1),
        duplicates=tuple(one for one in same if len(set(one.splits)) == 1),
        remarks=dict(sorted(Counter(word for header in headers.values() for word in header.remarks).items())),
        outside=tuple(_outside(layout.root, [file.path for file in files])),
        decoded=decode,
        undigested=without_digests(config, layout),
        problem=_problem(layout, splits, broken),
    )


def excluded(report: DataReport) -> list[tuple[str, str]]:
    """What a study should leave out: paths below the root with reasons, for `write_exclude`.

    Broken videos; of equal ones all but the first of the split that matters most (test, then val, then train), or all
    of them where they have different classes, since no one can tell which is right.
    """
    # What the layout leaves out no study takes in any case.
    reasons = {one.path: f"{one.kind}: {one.reason}" for one in report.broken if one.kind in KINDS}
    broken = set(reasons)  # a good part of a YouTube video is not given up for one that cannot be used
    for same in (*report.leaks, *report.duplicates):
        order = sorted(
            range(len(same.paths)),
            key=lambda index: (same.paths[index] in broken, _PREFERRED.index(same.splits[index]), same.paths[index]),
        )
        if len(set(same.classes)) > 1 and same.by == "content":
            for index in order:
                reasons.setdefault(same.paths[index], f"the same bytes under {' and '.join(sorted(set(same.classes)))}")
            continue
        kept = order[0]
        for index in order[1:]:
            if same.by == "id" and same.splits[index] == same.splits[kept]:
                continue  # several parts of one video may well be in one split
            what = "the same bytes as" if same.by == "content" else "of the same YouTube video as"
            reasons.setdefault(same.paths[index], f"{what} {same.paths[kept]}")
    return sorted(reasons.items())


def _report(layout: Layout, split: str, headers: Mapping[str, Header], broken: Sequence[Finding]) -> SplitReport:
    usable = [(video, headers[video.path]) for video in layout.splits[split] if not headers[video.path].kind]
    counts = Counter(label for video, _ in usable for label in video.labels or (video.label,))
    return SplitReport(
        num_videos=len(usable),
        per_class={title: counts[label] for label, title in enumerate(layout.classes)},
        num_broken=sum(one.split == split for one in broken),
        frames=_range(header.frames for _, header in usable if header.frames),
        height=_range(header.height for _, header in usable),
        width=_range(header.width for _, header in usable),
        fps=_range(header.fps for _, header in usable if header.fps > 0),
        seconds=_range(header.seconds for _, header in usable if header.seconds > 0),
    )


def _problem(layout: Layout, splits: Mapping[str, SplitReport], broken: Sequence[Finding]) -> str | None:
    if len(layout.classes) < 2:
        names = ", ".join(layout.classes) or "none"
        return f"data must have at least 2 classes to be told apart, but has {len(layout.classes)}: {names}"
    for split, report in splits.items():
        for title, count in report.per_class.items():
            if count:
                continue
            label = layout.classes.index(title)
            mine = {video.path for video in layout.splits[split] if label in (video.labels or (video.label,))}
            first = next((one for one in broken if one.path in mine), None)
            why = f"all are broken or short (the first, {first.path}: {first.reason})" if first else "there is none"
            return class_without_videos(title, split, why)
    return None


def _same(layout: Layout, by: str, paths: Sequence[str]) -> Same:
    wanted = set(paths)
    found = [
        (video.path, split, ",".join(layout.classes[label] for label in video.labels or (video.label,)))
        for split, videos in layout.splits.items()
        for video in videos
        if video.path in wanted
    ]
    names, splits, classes = zip(*found, strict=True)
    return Same(by=by, paths=names, splits=splits, classes=classes)


def _same_ids(layout: Layout, known: Sequence[Same]) -> list[Same]:
    """Parts of one YouTube video in several splits, by Kinetics' names, that are not the same bytes."""
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for split, videos in layout.splits.items():
        for video in videos:
            if _KINETICS.fullmatch(Path(video.path).stem):
                groups[youtube_id(video.path)].append((video.path, split))
    by_content = {frozenset(one.paths) for one in known}
    return [
        _same(layout, "id", [path for path, _ in group])
        for group in groups.values()
        if len({split for _, split in group}) > 1 and frozenset(path for path, _ in group) not in by_content
    ]


def _outside(root: Path, paths: Iterable[str]) -> list[str]:
    """Paths whose files lie out of the root, by links at any place of the path."""
    real_root = os.path.realpath(root)
    folders: dict[str, str] = {}
    found = []
    for path in paths:
        parent = os.path.dirname(path)  # noqa: PTH120 - no Path for each of 100,000 files
        if parent not in folders:
            folders[parent] = os.path.realpath(root / parent)
        place = root / path
        real = os.path.realpath(place) if place.is_symlink() else folders[parent]
        if real != real_root and not real.startswith(real_root.rstrip("/") + "/"):
            found.append(path)
    return found


def _range(values: Iterable[float]) -> Range | None:
    ordered = sorted(values)
    if not ordered:
        return None
    return Range(low=ordered[0], median=ordered[len(ordered) // 2], high=ordered[-1])
