"""Layouts of one list a split: SlowFast's and PyTorchVideo's csv, TSN's and TSM's frame folders, multi-label lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.data.layouts.files import Listing, below
from trainer.data.layouts.text import CLASS_FILES, class_names, read_lines, unquoted
from trainer.data.layouts.values import SPLITS, DataError, Layout, LeftOut, Video, listed, sorted_videos

# Lists of mmaction2 leave the first folder of a path away.
_PREFIXES = ("", "{split}/", "videos_{split}/", "rawframes_{split}/", "videos/", "rawframes/", "frames/")
_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "validation", "validate", "valid"),
    "test": ("test", "testing"),
}
_ROW = {
    # The path may hold the separator; what follows it may not.
    "slowfast": r"(?P<path>\S.*?)(?P<sep>[ \t,])(?P<labels>\d+)",
    "frames": r"(?P<path>\S.*?)(?P<sep>[ \t,])(?P<frames>\d+)(?P=sep)(?P<labels>\d+)",
    "multi-label": r"(?P<path>\S.*?)(?P<sep>[ \t])(?P<frames>\d+)(?P=sep)(?P<labels>\d+(?:,\d+)*)",
}
FORMS = {
    "slowfast": "`path label`",
    "frames": "`folder frames label`",
    "multi-label": "`path frames label,label,...`",
}
"""How a row of each kind of list reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of a list.

    Attributes:
        where: File and line, for messages.
        path: As it stands there.
        frames: Number of images; 0 where the list has no such column.
        labels: At least one, ascending.
    """

    where: str
    path: str
    frames: int
    labels: tuple[int, ...]


def list_files(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Text files by the split that is a word of their name, such as `train.csv` or `ucf101_rgb_val_split_1.txt`.

    Files that name classes are none of them; their rows may be of any form, or of none.
    """
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    seen: set[Path] = set()
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.suffix.lower() not in (".csv", ".txt") or path.name.startswith(".") or path.name in CLASS_FILES:
                continue
            words = re.split(r"[^a-z]+", path.stem.lower())
            splits = [split for split, names in _WORDS.items() if set(words) & set(names)]
            if len(splits) == 1 and path.resolve() not in seen and path.is_file():
                seen.add(path.resolve())
                found[splits[0]].append(path)
    return {split: paths for split, paths in found.items() if paths}


def kind_of(path: Path) -> str | None:
    """Which kind of list a file is, by all of its rows; None if its first row is of none."""
    try:
        # A file that is no list at all may be in any encoding; one that is gets its error when it is read.
        lines = [line.strip() for line in path.read_text("utf-8-sig", errors="replace").split("\n") if line.strip()]
    except OSError:
        return None
    if not lines:
        return None
    if any(re.fullmatch(_ROW["multi-label"], line) and "," in line.rpartition(" ")[2] for line in lines):
        return "multi-label"
    return next((kind for kind in ("frames", "slowfast") if re.fullmatch(_ROW[kind], lines[0])), None)


def read_lists(listing: Listing, kind: str, *, lists: Mapping[str, Path], names: Path | None) -> Layout:
    """Reads the lists of a data set.

    Args:
        listing: Of the root, from which the paths of the lists start.
        kind: `slowfast`, `frames` or `multi-label`.
        lists: List of each split.
        names: File with class names, in the order of their numbers; without one, the numbers are the names.

    Raises:
        DataError: A row is not of that kind, a label is out of range, or a video stands under two labels or in two
            splits; the message names the line.
    """
    rows = {split: _rows(path, kind) for split, path in lists.items()}
    classes = _classes(rows, names)
    for split_rows in rows.values():
        for row in split_rows:
            if row.labels[-1] >= len(classes):
                raise DataError(
                    f"a label must be in 0..{len(classes) - 1} ({names} names {len(classes)} classes), but {row.where} "
                    f"has {row.labels[-1]}"
                )
    seen: dict[str, tuple[str, Row]] = {}
    left_out: list[LeftOut] = []
    splits = {}
    for split in sorted(rows, key=SPLITS.index):
        resolve = _resolver(listing, split, kind)
        videos: list[Video] = []
        for row in rows[split]:
            path = below(listing.root, row.path, where=row.where)
            found = resolve(path)
            if found is None:
                reason = f"{row.where} names it, but there is no such {'folder' if kind == 'frames' else 'file'}"
                left_out.append(LeftOut(path=path, split=split, kind="missing", reason=reason))
                continue
            before = seen.setdefault(found, (split, row))
            if before[1] is not row:
                left_out.append(_again(found, split, row, *before))
                continue
            many = row.labels if kind == "multi-label" else ()
            frames = row.frames if listing.is_folder(found) else 0
            videos.append(Video(path=found, label=row.labels[0], labels=many, frames=frames))
        splits[split] = sorted_videos(videos)
    return Layout(
        root=listing.root,
        classes=classes,
        splits=splits,
        multi_label=kind == "multi-label",
        kind=kind,
        class_map={name: str(index) for index, name in enumerate(classes)},
        left_out=tuple(left_out),
    )


def _rows(path: Path, kind: str) -> list[Row]:
    rows: list[Row] = []
    separator = ""
    for number, line in read_lines(path):
        where = f"line {number} of {path}"
        match = re.fullmatch(_ROW[kind], line)
        if match is None:
            raise DataError(
                f"a row must read {FORMS[kind]} with blanks, tabs{'' if kind == 'multi-label' else ' or commas'} "
                f"between and numbers from 0 at its end, but {where} is {line[:100]!r}"
            )
        if separator and match["sep"] != separator:
            raise DataError(
                f"a list must have one separator, but {where} has {match['sep']!r} after {separator!r} before"
            )
        separator = match["sep"]
        labels = tuple(sorted({int(label) for label in match["labels"].split(",")}))
        frames = int(match["frames"]) if kind != "slowfast" else 0
        name = unquoted(match["path"].strip())
        if kind == "frames" and frames == 0:
            raise DataError(f"a folder of frames must have at least 1 frame, but {where} says 0")
        rows.append(Row(where=where, path=name, frames=frames, labels=labels))
    if not rows:
        raise DataError(f"a list must have at least one row {FORMS[kind]}, but {path} is empty")
    return rows


def _classes(rows: Mapping[str, Sequence[Row]], names: Path | None) -> tuple[str, ...]:
    if names is not None:
        return class_names(names)
    labels = sorted({label for split in rows.values() for row in split for label in row.labels})
    expected = range(labels[-1] + 1) if labels[-1] < 1_000_000 else range(0)
    missing = [str(label) for label in expected if label not in set(labels)]
    if missing or not expected:
        raise DataError(
            f"labels must be numbered from 0 without gaps, but the lists go from {labels[0]} to {labels[-1]} without "
            f"{listed(missing) or labels[-1] - 1}; a file classes.txt beside them may name all classes"
        )
    return tuple(f"{label:0{len(str(labels[-1]))}d}" for label in labels)


def _resolver(listing: Listing, split: str, kind: str) -> Callable[[str], str | None]:
    """Looks a path up below the root, or below the folders that the lists of some tools leave away."""
    prefixes = [prefix.format(split=split) for prefix in _PREFIXES]
    wanted = (
        (listing.is_folder,)
        if kind == "frames"
        else (listing.is_file,)
        if kind == "slowfast"
        else (listing.is_folder, listing.is_file)
    )

    def resolve(path: str) -> str | None:
        for prefix in prefixes:
            if any(test(prefix + path) for test in wanted):
                return prefix + path
        return None

    return resolve


def _again(path: str, split: str, row: Row, before_split: str, before: Row) -> LeftOut:
    if before_split != split:
        raise DataError(f"a video must be in one split, but {path} stands in {before.where} and in {row.where}")
    if before.labels != row.labels:
        old, new = (",".join(map(str, one.labels)) for one in (before, row))
        raise DataError(f"a video must have one label, but {path} has {old} in {before.where} and {new} in {row.where}")
    return LeftOut(path=path, split=split, kind="repeated", reason=f"{row.where} names it again, after {before.where}")
