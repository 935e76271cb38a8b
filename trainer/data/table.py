"""The videos of a split as a table on the disk: loader processes map it into memory instead of getting copies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.layouts import DataGoneError
from trainer.data.pack import Entry


@dataclass(frozen=True, kw_only=True)
class Table:
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
        return tuple(self.entry(index) for index in range(len(self)))

    def column(self, name: str) -> NDArray[Any]:
        """One value of each video; the columns are the fields of `Entry`."""
        column = self._all[name]
        return np.ascontiguousarray(column if self.rows is None else column[self.rows])

    def keep(self, rows: NDArray[np.int64]) -> Table:
        """The table of some of these videos, by their numbers; a number may come more than once."""
        return Table(file=self.file, rows=rows if self.rows is None else self.rows[rows])

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
