"""What a layout is once it was read: videos with labels, classes, and what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

SPLITS = ("train", "val", "test")
SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov")
OTHERS = (".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".ts", ".mts", ".m2ts", ".vob")
"""Suffixes of videos that folders are not searched for; a list may name such a file."""

_LONGEST, _BEGINNING = 500, 320  # characters of a message, and of its beginning where it is cut
_SHOWN = 5  # names in a message or of a kind in a record
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class DataError(ValueError):
    """The data cannot be used as asked; the message is one line with rule, value, place and remedy."""

    def __init__(self, message: str) -> None:
        """Keeps the beginning and the end of a message that a strange value makes long: its rule and its remedy."""
        if len(message) > _LONGEST:
            message = f"{message[:_BEGINNING]} ... {message[_BEGINNING + 5 - _LONGEST :]}"
        super().__init__(" ".join(message.split("\n")))


class DataGoneError(DataError):
    """The data was there when it was opened and is not now: a drive that was unmounted, a folder that was moved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """One video.

    Attributes:
        path: Path below the data set's root, with forward slashes.
        label: Index of its class; of multi-label data, the first of `labels`.
        labels: Indices of all its classes, ascending; empty unless the data is multi-label.
        frames: Images of a video that is a folder of frames; 0 for a video file.
    """

    path: str
    label: int
    labels: tuple[int, ...] = ()
    frames: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A file or a row of a list that is not used, known without opening a video.

    Attributes:
        path: Path below the root, or the name that a list gives.
        split: Where it would have been.
        kind: `missing` (listed, but not there), `unlisted` (there, but in no list), `repeated` (listed again),
            `contradictory` (listed under several classes), `unarranged` (Kinetics arranged in part), `list` (named as a
            list of test, but none that can be used), `suffix` (not one of `SUFFIXES`), `misplaced` (in no class folder,
            too deep in one, or in a hidden one), `link` (leads nowhere, or to a device), `special` (a device, a pipe or
            a socket) or `name` (not UTF-8).
        reason: In a few words.
    """

    path: str
    split: str
    kind: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The files of a data set.

    Attributes:
        root: Folder that all paths start from.
        classes: Names of the classes; a label is an index into it. Sorted, unless the data numbers its classes.
        splits: Videos of each split that exists, sorted by label and path.
        definition: Which part of the data it is, in words; empty for all of it.
        multi_label: A video may have several classes.
        kind: Name of the layout that was read.
        class_map: Name of each class to what stands for it on disk: a folder's name or a number.
        left_out: What is not used.
        selection: What `definition` was made of, as plain values for the record.
    """

    root: Path
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Video, ...]]
    definition: str = ""
    multi_label: bool = False
    kind: str = "folders"
    class_map: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    left_out: tuple[LeftOut, ...] = ()
    selection: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    def line(self) -> str:
        """What was found, in one line."""
        what = f"{self.kind}{', multi-label' if self.multi_label and not self.kind.startswith('multi-label') else ''}"
        clips = ", ".join(f"{name} {len(videos):,}" for name, videos in self.splits.items())
        text = f"{self.root} is read as {what}: {len(self.classes)} classes, {clips}"
        if self.definition:
            text += f"; {self.definition}"
        counts = Counter(one.kind for one in self.left_out)
        if counts:
            text += "; left out: " + ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))
        return text

    def record(self) -> dict[str, Any]:
        """Layout, definition, class map and counts as plain JSON values, for the record of a run."""
        kinds = sorted({one.kind for one in self.left_out})
        return {
            "kind": self.kind,
            "definition": self.definition or "all classes and videos",
            "selection": dict(self.selection),
            "multi_label": self.multi_label,
            "class_map": dict(self.class_map),
            "videos": {name: len(videos) for name, videos in self.splits.items()},
            "left_out": {kind: _sample([one for one in self.left_out if one.kind == kind]) for kind in kinds},
        }


def listed(names: Sequence[str]) -> str:
    """The first few of some names, for a message."""
    return f"{', '.join(names[:_SHOWN])}{' ...' if len(names) > _SHOWN else ''}"


def sorted_videos(videos: Sequence[Video]) -> tuple[Video, ...]:
    """Videos in the one order that they have in every layout: by label, then by path."""
    return tuple(sorted(videos, key=lambda video: (video.label, video.path)))


def _sample(left_out: Sequence[LeftOut]) -> dict[str, Any]:
    return {"count": len(left_out), "first": [[one.path, one.reason] for one in left_out[:_SHOWN]]}
