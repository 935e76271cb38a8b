"""Splits: their videos as a table on the disk that loader processes map into memory, and what reads their frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.data.digests import DamagedError
from trainer.data.entries import Entry
from trainer.data.layouts import DataGoneError

if TYPE_CHECKING:
    from trainer.data.augment import Box


# Videos of a table that a process keeps as objects: to make one takes a third of the time of reading a small clip.
_MET = 50_000


@dataclass(frozen=True, kw_only=True)
class VideoTable:
    """Rows of a table of videos; a copy of it in another process is a path and, where some are left out, numbers.

    Attributes:
        file: The table, as `write_table` wrote it.
        rows: Which of its rows these are, in order; `None` for all.
    """

    file: Path
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Number of videos."""
        return len(self._all) if self.rows is None else len(self.rows)

    def entry(self, index: int) -> Entry:
        """The video of a row."""
        found = self._met.get(index)
        if found is None:
            found = self._read(index)
            if len(self._met) < _MET:
                self._met[index] = found
        return found

    def _read(self, index: int) -> Entry:
        row = self._all[index if self.rows is None else self.rows[index]]
        # At once: each look-up would cost.
        path, label, num_frames, height, width, offset, fps, labels, *digested = row.item()
        return Entry(
            path=os.fsdecode(path),
            label=label,
            num_frames=num_frames,
            height=height,
            width=width,
            offset=offset,
            fps=fps,
            labels=tuple(int(one) for one in labels.split()),
            digested=digested == [True],
        )

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """All videos."""
        return tuple(self._read(index) for index in range(len(self)))

    @cached_property
    def _met(self) -> dict[int, Entry]:
        return {}

    def column(self, name: str) -> NDArray[Any]:
        """One value of each video; the columns are the fields of `Entry`."""
        column = self._all[name]
        return np.ascontiguousarray(column if self.rows is None else column[self.rows])

    def keep(self, rows: NDArray[np.int64]) -> VideoTable:
        """The table of some of these videos, by their numbers; a number may come more than once."""
        return VideoTable(file=self.file, rows=rows if self.rows is None else self.rows[rows])

    @cached_property
    def _all(self) -> NDArray[Any]:
        try:
            return np.asarray(np.load(self.file, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            raise DataGoneError(f"an index must stay in place, but opening {self.file} failed: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the mapping behind."""
        return {"file": self.file, "rows": self.rows}


def write_table(file: Path, entries: Sequence[Entry]) -> None:
    """Writes the table of some videos, and flushes it onto the disk."""
    paths = [os.fsencode(entry.path) for entry in entries]
    labels = [" ".join(map(str, entry.labels)).encode() for entry in entries]
    form = [
        ("path", f"S{max(map(len, paths), default=1)}"),
        ("label", np.int32),
        ("num_frames", np.int64),
        ("height", np.int32),
        ("width", np.int32),
        ("offset", np.int64),
        ("fps", np.float64),
        ("labels", f"S{max(1, *map(len, labels)) if labels else 1}"),
        ("digested", np.bool_),
    ]
    rows = [
        (path, e.label, e.num_frames, e.height, e.width, e.offset, e.fps, label, e.digested)
        for path, e, label in zip(paths, entries, labels, strict=True)
    ]
    with file.open("wb") as handle:
        np.save(handle, np.array(rows, dtype=form), allow_pickle=False)
        handle.flush()
        os.fsync(handle.fileno())


Bytes = NDArray[np.uint8]


class Split(Protocol):
    """The usable videos of one split, wherever their frames come from; a video's index is its number everywhere."""

    def __len__(self) -> int:
        """Number of videos."""
        ...

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All videos."""
        ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class index of each video."""
        ...

    def entry(self, index: int) -> Entry:
        """What is known of one video."""
        ...

    def keep(self, rows: NDArray[np.int64]) -> Split:
        """The split with some of the videos alone, by their numbers."""
        ...

    def read(self, index: int, numbers: NDArray[np.int64], box: Box) -> NDArray[np.uint8]:
        """Gives a part of some frames (T, box.height, box.width, C); raises DecodeError where they are damaged."""
        ...


class Reader(Protocol):
    """How the frames of a video are got; a value that is sent to loader processes."""

    def __call__(self, data: Bytes, entry: Entry, numbers: NDArray[np.int64], box: Box) -> NDArray[np.uint8]:
        """Gives a part of some frames of a video.

        Args:
            data: The file of the split.
            entry: The video; what the file has of it begins at `entry.offset`.
            numbers: Numbers of the T frames, in the order that they are shown in; some may come more than once.
            box: What to take of each.

        Returns:
            Pixels (T, box.height, box.width, C).

        Raises:
            DamagedError: The file is damaged.
            DecodeError: They are damaged or gone elsewhere.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class TableSplit:
    """The videos of one split, their file being mapped into memory when they are first read.

    Attributes:
        file: The file.
        table: The videos.
        reader: What gets frames out of it.
    """

    file: Path
    table: VideoTable
    reader: Reader

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.table)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All videos."""
        return self.table.entries

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class index of each video."""
        return self.table.column("label").astype(np.int64)

    def entry(self, index: int) -> Entry:
        """What is known of one video."""
        return self.table.entry(index)

    def keep(self, rows: NDArray[np.int64]) -> TableSplit:
        """The split with some of the videos alone, by their numbers."""
        return TableSplit(file=self.file, table=self.table.keep(rows), reader=self.reader)

    def read(self, index: int, numbers: NDArray[np.int64], box: Box) -> NDArray[np.uint8]:
        """Gives a part of some frames of a video; see `Reader`."""
        try:
            return self.reader(self._bytes, self.table.entry(index), numbers, box)
        except DamagedError as error:
            raise error.within(self.file) from error

    @cached_property
    def _bytes(self) -> Bytes:
        try:
            # The plain view is what NumPy slices fastest; it keeps the mapping alive.
            return np.memmap(self.file, dtype=np.uint8, mode="r").view(np.ndarray)
        except (OSError, ValueError) as error:
            raise DataGoneError(
                f"a pack, or data.cache, must stay in place, but opening {self.file} failed: {error}"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the mapping behind: other processes map the file themselves instead of getting a copy."""
        return {"file": self.file, "table": self.table, "reader": self.reader}
