"""The videos of a split as a table and a file that is mapped into memory, and what reads frames out of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.data.digests import DamagedError
from trainer.data.layouts import DataGoneError
from trainer.data.pack import Entry
from trainer.data.table import Table

if TYPE_CHECKING:
    from trainer.data.augment import Box

Bytes = NDArray[np.uint8]


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
    table: Table
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
            raise error.within(self.file, cache=self.file.parent.suffix == ".times") from error

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
