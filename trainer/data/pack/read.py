"""A pack: a folder of few large files with the frames of all videos, made by `nas data pack` or below `data.cache`.

    index.json      what the pack is: format, key, settings, classes, checksum, broken sources; written last
    <split>.bin     64 bytes that name format and key; then the videos back to back
    <split>.npy     a table with path, classes, length, size and place of each video, for processes to map
    <split>.jsonl   the same for people and for going on after a kill, with the checksum of each video's bytes

A video is its frames one after the other: raw RGB bytes, or JPEGs, with their lengths as F 32-bit numbers before them.
Before all of it lie the digests of the frames (`trainer.data.digests`), which those that are read are held to.
A frame of flow has two planes: raw (H, W, 2), or a grey JPEG (2 H, W) of u above v.
So any frame is found with two look-ups, and a clip reads its own frames and nothing else. Everything is mapped into
memory: the loader processes of all runs on a machine share one copy of what was read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainer.data.digests import CheckedFrames, DamagedError, check_bytes, digests_before
from trainer.data.entries import Broken, Entry
from trainer.data.kinds import PLANES, FlowSettings
from trainer.data.layouts import DataError
from trainer.data.pack.jpeg import decode_jpeg
from trainer.data.split import Reader, TableSplit, VideoTable
from trainer.files import is_as_written, regular_file

if TYPE_CHECKING:
    from trainer.data.augment import Box
    from trainer.data.split import Split

FORMAT = 1
"""Raised whenever the files of a pack change their form."""

INDEX, UNFINISHED = "index.json", "packing.json"
HEADER_BYTES = 64

Coding = Literal["jpeg", "raw"]  # of frames; `trainer.data.direct` keeps their times in the same form


@dataclass(frozen=True, slots=True)
class Raw:
    """Reads frames that lie as bytes; see `trainer.data.split.Reader`.

    Attributes:
        planes: Of a frame.
        seen: Frames of the file that were held to their digests.
    """

    planes: int = 3
    seen: CheckedFrames = field(default_factory=CheckedFrames, compare=False)

    def __call__(
        self, data: NDArray[np.uint8], entry: Entry, numbers: NDArray[np.int64], box: Box
    ) -> NDArray[np.uint8]:
        """Gives a part of some frames (T, box.height, box.width, C); raises DamagedError where one is damaged."""
        rows, columns = box.slices
        shape = (entry.num_frames, entry.height, entry.width, self.planes)
        frames = data[entry.offset : entry.offset + entry.num_bytes(self.planes)].reshape(shape)
        if entry.digested:
            self.seen.check(frames, data, entry.offset, numbers)
        return np.asarray(frames[numbers, rows, columns])


@dataclass(frozen=True, slots=True)
class Jpeg:
    """Reads frames that lie as JPEGs; see `trainer.data.split.Reader`.

    Attributes:
        planes: Of a frame; other than three, its planes lie one below the other in a grey image.
    """

    planes: int = 3

    def __call__(
        self, data: NDArray[np.uint8], entry: Entry, numbers: NDArray[np.int64], box: Box
    ) -> NDArray[np.uint8]:
        """Gives a part of some frames (T, box.height, box.width, C); raises DecodeError where one is damaged."""
        (rows, columns), height, width = box.slices, entry.height, entry.width
        start = entry.offset + 4 * entry.num_frames
        edges = np.zeros(entry.num_frames + 1, dtype=np.int64)
        np.cumsum(data[entry.offset : start].view("<u4"), out=edges[1:])
        digests = digests_before(data, entry.offset, entry.num_frames) if entry.digested else None
        out = np.empty((len(numbers), box.height, box.width, self.planes), dtype=np.uint8)
        grey = self.planes != 3
        image = np.empty((self.planes * height, width, 1) if grey else (height, width, 3), dtype=np.uint8)
        frame = image.reshape(self.planes, height, width).transpose(1, 2, 0) if grey else image
        last = -1
        for place in np.argsort(numbers, kind="stable").tolist():
            number = int(numbers[place])
            if number != last:  # a looped video shows a frame more than once
                if not 0 < edges[number + 1] - edges[number] <= len(data) - start - edges[number]:
                    raise DamagedError(f"frame {number} is damaged: it has no bytes")
                coded = data[start + edges[number] : start + edges[number + 1]]
                if digests is not None:
                    check_bytes(coded, digests[number], "frame", number)
                decode_jpeg(coded, image)
                last = number
            out[place] = frame[rows, columns]
        return out


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """A complete pack.

    Attributes:
        folder: Where it is.
        key: Names the sources and settings it was made from.
        classes: Names of the classes.
        splits: Videos of each split.
        broken: Sources that were left out.
        checksum: SHA-256 over classes, paths, labels, sizes and coded frames; the same wherever the same is packed.
        short_side: Short side of the frames, in pixels.
        fps: Largest frame rate; 0 for that of the sources.
        max_frames: Largest number of frames of a video; 0 for all.
        coding: How frames are coded.
        backend: What decoded the sources.
        multi_label: Whether a video may have several classes, or none.
        definition: Which definition of the data set it is of; empty for none.
        flow: How flow was computed, where its frames are flow; None of RGB.
    """

    folder: Path
    key: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    broken: tuple[Broken, ...]
    checksum: str
    short_side: int
    fps: float
    max_frames: int
    coding: Coding
    backend: str
    multi_label: bool
    definition: str
    flow: FlowSettings | None = None


def open_packed(folder: str | Path) -> Packed:
    """Opens a pack.

    Args:
        folder: What `nas data pack` made.

    Raises:
        DataError: There is no pack, it is unfinished, of another format, or its files are not all of one pack.
    """
    folder = Path(folder)
    index = read_index(folder)
    try:
        key, settings = str(index["key"]), index["settings"]
        flow = FlowSettings(**settings["flow"]) if settings.get("flow") else None
        planes = PLANES["rgb" if flow is None else "flow"]
        raw = settings["coding"] == "raw"
        if settings["coding"] not in ("jpeg", "raw", "times") or not _are_names(index["classes"]):
            raise ValueError("its coding or its classes are not valid")
        splits: dict[str, Split] = {}
        for name, facts in index["splits"].items():
            # What is coded in another way has a reader of its own, which who wrote it knows.
            reader: Reader = Raw(planes) if raw else Jpeg(planes)
            split = TableSplit(
                file=folder / f"{name}.bin", table=VideoTable(file=folder / f"{name}.npy"), reader=reader
            )
            _check(split, key, facts)
            if raw and len(split):
                last = split.entry(len(split) - 1)
                if last.offset + last.num_bytes(planes) != facts["bytes"]:
                    raise ValueError("its frames are not raw")
            splits[str(name)] = split
        return Packed(
            folder=folder,
            key=key,
            classes=tuple(index["classes"]),
            splits=MappingProxyType(splits),
            broken=tuple(Broken(**one) for one in index["broken"]),
            checksum=str(index["checksum"]),
            short_side=int(settings["short_side"]),
            fps=float(settings["fps"]),
            max_frames=int(settings["max_frames"]),
            coding=settings["coding"],
            backend=str(settings["backend"]),
            multi_label=bool(index["multi_label"]),
            definition=str(index["definition"]),
            flow=flow,
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{folder / INDEX} must be as `nas data pack` wrote it, but is damaged; {_AGAIN}") from error


_AGAIN = "remove the folder and pack again"


def _are_names(classes: object) -> bool:
    """Whether a value of an index is a list of different names."""
    names = classes if isinstance(classes, list) else []
    return bool(names) and all(isinstance(name, str) for name in names) and len(set(names)) == len(names)


def read_index(folder: Path) -> dict[str, Any]:
    """Reads the index of a pack, and checks its format.

    Raises:
        DataError: There is no complete pack of this format.
    """
    try:
        with regular_file(folder / INDEX) as file:
            index = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        if (folder / UNFINISHED).exists():
            reason = "was not finished; run the same `nas data pack` again and it goes on from where it was"
        elif folder.is_dir():
            reason = f"has no {INDEX}; make one with `nas data pack`, or take data.source=cache or decode for videos"
        else:
            reason = "is not there; make it with `nas data pack`"
        raise DataError(f"data.root must be a pack where data.source is pack, but {folder} {reason}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{folder / INDEX} must be as `nas data pack` wrote it, but is damaged; {_AGAIN}") from error
    found = index.get("format") if isinstance(index, dict) else None
    if not isinstance(index, dict) or found != FORMAT:
        raise DataError(f"a pack must be of format {FORMAT}, but {folder} is of format {found}; {_AGAIN}")
    if not is_as_written(index):
        raise DataError(f"{folder / INDEX} must be as `nas data pack` wrote it, but was changed; {_AGAIN}")
    return index


def header(key: str) -> bytes:
    """The first bytes of a file of frames, which say whose it is."""
    return f"nas pack {FORMAT} {key}".encode().ljust(HEADER_BYTES - 1) + b"\n"


def digest_of(file: Path) -> str:
    """SHA-256 of a file."""
    with regular_file(file) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _check(split: TableSplit, key: str, facts: Mapping[str, Any]) -> None:
    """Raises DataError unless the files of a split are those that the index is of."""
    try:
        with regular_file(split.file) as handle:
            whole = handle.read(HEADER_BYTES) == header(key) and split.file.stat().st_size == facts["bytes"]
        if whole and digest_of(split.table.file) == facts["table"]:
            return
        reason, cause = "are of another pack or not whole", None
    except OSError as error:
        reason, cause = f"cannot be read ({error.filename}: {error.strerror})", error
    raise DataError(
        f"the files of a pack must belong together, but {split.file.name} and {split.table.file.name} in"
        f" {split.file.parent} {reason}; copy the whole folder again, or {_AGAIN}"
    ) from cause
