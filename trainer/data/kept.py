"""What was made of a data set before: whether damage to it on the disk would be noticed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from trainer.config import DataConfig
from trainer.data.direct import times_folder
from trainer.data.layouts import DataError, Layout
from trainer.data.pack import Entry, open_cache
from trainer.data.packed import open_packed
from trainer.inputs import Input


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
    try:
        if config.source == "decode":
            folder = times_folder(layout, config.cache, config.short_side, config.max_frames, kind)
            return _line(folder, _entries_of(folder), "the next start makes it again")
        found = open_cache(layout, config.cache, config.short_side, config.max_frames, kind)
    except OSError:  # a video that cannot be looked at, which is told in its own place
        return None
    if found is None:
        return None
    entries = (entry for split in found.splits.values() for entry in split)
    return _line(found.folder, entries, "the next start makes it again")


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
