"""CVDF's download of Kinetics as it comes: videos unpacked flat, and tables that tell their classes.

`root/{train,val,test}/<id>_<start>_<end>.mp4`, `root/annotations/{train,val,test}.csv` with the columns `label,
youtube_id, time_start, time_end, split[, is_cc]`, and `root/replacement/` with what stands in for corrupted videos
(https://github.com/cvdfoundation/kinetics-dataset). File and row meet in the 11 characters of the YouTube ID, which may
hold `_` and `-`; times are not compared unless an ID has several rows, since tables write them in several ways.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from trainer.data.layouts.files import Listing
from trainer.data.layouts.text import lookup, normal, read_table, unquoted
from trainer.data.layouts.values import SPLITS, DataError, Layout, LeftOut, Video, sorted_videos

COLUMNS = ("label", "youtube_id", "time_start", "time_end")
ID_LENGTH = 11
"""Characters of a YouTube ID, of which a file's name begins."""

_ID = re.compile(r"[\w-]{11}", re.ASCII)
_STEM = re.compile(r"[\w-]{11}_(\d{6})_(\d{6})", re.ASCII)
_REPLACEMENTS = ("replacement", "replacement/replacement_for_corrupted_k400", "replacement_for_corrupted_k400")


def youtube_id(path: str) -> str:
    """The YouTube ID that a video's name begins with, if it is named as Kinetics' are."""
    return PurePosixPath(path).stem[:ID_LENGTH]


def tables(folders: list[Path]) -> dict[str, Path]:
    """The table of each split, as `train.csv` or `kinetics-400_train.csv`, of the first folder that has any."""
    for folder in folders:
        found = {}
        for split in SPLITS:
            names = [f"{split}.csv", f"kinetics_{split}.csv", f"kinetics-400_{split}.csv", f"k400_{split}.csv"]
            names += ["validate.csv"] if split == "val" else []
            path = next((folder / name for name in names if is_table(folder / name)), None)
            if path is not None:
                found[split] = path
        if found:
            return found
    return {}


def is_table(path: Path) -> bool:
    """Whether a file is a table of annotations, by its first line."""
    try:
        if not path.is_file():  # opening a pipe would wait for a writer
            return False
        with path.open("rb") as file:
            first = file.readline(10_000)
    except OSError:
        return False
    return path.suffix.lower() == ".csv" and b"youtube_id" in first.lower()


def read_flat(listing: Listing, *, annotations: Mapping[str, Path], splits: Sequence[str] = SPLITS) -> Layout:
    """Joins flat folders of videos with their tables.

    Args:
        listing: Of the root, with the folders `train`, `val` and, where it holds videos, `test`.
        annotations: Table of each split.
        splits: Which splits to read.

    Raises:
        DataError: A table lacks a column, or a row is not of its form; `train` or `val` has no table or no folder.
    """
    rows = {split: _Rows(path) for split, path in annotations.items()}
    originals = sorted({label for table in rows.values() for label, _ in table.labels()})
    lookup(originals, where="the annotations")
    replacements = replacements_of(listing)
    left_out: list[LeftOut] = []
    labelled: dict[str, list[tuple[str, str]]] = {}
    for split in splits:
        files, unusable = listing.videos(split, split=split)
        left_out += unusable
        if not files and split == "test":
            continue
        if split not in rows or not files:
            lack = f"{listing.root / split} has no video" if not files else f"there is no table {split}.csv"
            raise DataError(f"CVDF's download must have train and val, each with videos and a table, but {lack}")
        labelled[split] = _join(split, files, rows[split], replacements, left_out)
    classes = sorted({label for videos in labelled.values() for _, label in videos})
    found = {
        split: sorted_videos([Video(path=path, label=classes.index(label)) for path, label in videos])
        for split, videos in labelled.items()
    }
    return Layout(
        root=listing.root,
        classes=tuple(classes),
        splits=found,
        kind="cvdf-flat",
        class_map={label: label for label in classes},
        left_out=tuple(left_out),
    )


def replacements_of(listing: Listing) -> dict[str, str]:
    """Paths of what stands in for corrupted videos, by YouTube ID."""
    return {youtube_id(path): path for folder in _REPLACEMENTS for path in listing.videos(folder, split="")[0]}


def replaced(paths: Sequence[str], replacements: Mapping[str, str]) -> dict[str, str]:
    """The replacement of each video that has one: the video of its name, or else the only one of its YouTube ID.

    Args:
        paths: Of the videos of a split; several may be parts of one YouTube video.
        replacements: As `replacements_of` gives them; each stands in for one video.
    """
    parts: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if youtube_id(path) in replacements:
            parts[youtube_id(path)].append(path)
    found: dict[str, str] = {}
    for video, of_id in parts.items():
        stem = PurePosixPath(replacements[video]).stem
        mine = [path for path in of_id if PurePosixPath(path).stem == stem] or (of_id if len(of_id) == 1 else [])
        if mine:
            found[mine[0]] = replacements[video]
    return found


def unarranged(listing: Listing, annotations: Mapping[str, Path]) -> list[LeftOut]:
    """Videos that lie flat and belong to a class, but not in `videos/<split>/<class>`, though others do.

    So it is where arranging was interrupted, or where more was fetched since. CVDF's own script makes links to what
    lies flat: there each name stands in both places.

    Args:
        listing: Of the root.
        annotations: Table of each split; what is in no table belongs nowhere.

    Raises:
        DataError: A row of a table that is needed is not of its form.
    """
    found: list[LeftOut] = []
    for split, table in annotations.items():
        titles = listing.folders(f"videos/{split}")
        there = {
            PurePosixPath(path).stem for one in titles for path in listing.videos(f"videos/{split}/{one}", split="")[0]
        }
        files = listing.videos(split, split=split)[0]
        # Some name what they arrange by its ID alone.
        flat = [path for path in files if not {PurePosixPath(path).stem, youtube_id(path)} & there]
        rows = _Rows(table) if flat else None
        for path in flat:
            stem = PurePosixPath(path).stem
            if rows is not None and stem[:ID_LENGTH] in rows.by_id and rows.label(stem) is not None:
                reason = f"it lies flat, not in videos/{split}"
                found.append(LeftOut(path=path, split=split, kind="unarranged", reason=reason))
    return found


class _Rows:
    """A table of annotations by ID."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.by_id: dict[str, list[tuple[str, tuple[float, float]]]] = defaultdict(list)
        for number, row in read_table(path, COLUMNS):
            where = f"line {number} of {path}"
            video, label = row["youtube_id"], unquoted(row["label"])
            if not _ID.fullmatch(video):
                raise DataError(f"a youtube_id must be 11 letters, digits, '_' or '-', but {where} has {video[:100]!r}")
            if not normal(label):
                raise DataError(f"a row must have a label, but {where} has none")
            try:
                times = float(row["time_start"]), float(row["time_end"])
                if not all(map(math.isfinite, times)):
                    raise ValueError("no number of seconds")
            except ValueError as error:
                stated = f"{row['time_start'][:100]!r} and {row['time_end'][:100]!r}"
                raise DataError(f"times must be seconds, but {where} has {stated}") from error
            self.by_id[video].append((label, times))

    def labels(self) -> list[tuple[str, tuple[float, float]]]:
        return [row for rows in self.by_id.values() for row in rows]

    def label(self, stem: str) -> str | None:
        """The label of a file; None where rows of one ID contradict each other, and its times do not decide."""
        rows = self.by_id[stem[:ID_LENGTH]]
        if len({label for label, _ in rows}) == 1:
            return rows[0][0]
        match = _STEM.fullmatch(stem)
        mine = {label for label, times in rows if match and (int(match[1]), int(match[2])) == tuple(map(int, times))}
        return mine.pop() if len(mine) == 1 else None


def _join(
    split: str, files: list[str], rows: _Rows, replacements: Mapping[str, str], left_out: list[LeftOut]
) -> list[tuple[str, str]]:
    """Path and label of each video of a split; what has no partner goes to `left_out`."""

    def leave(path: str, kind: str, reason: str) -> None:
        left_out.append(LeftOut(path=path, split=split, kind=kind, reason=reason))

    found: list[tuple[str, str]] = []
    stand_ins = replaced(files, replacements)
    stems = {PurePosixPath(path).stem for path in stand_ins}
    for path in files:
        stem = PurePosixPath(path).stem
        if stem[:ID_LENGTH] not in rows.by_id:
            leave(path, "unlisted", f"its ID is in no row of {rows.path}")
            continue
        label = rows.label(stem)
        if label is None:
            leave(path, "contradictory", f"{rows.path} has its ID under several classes, and no row has its times")
            continue
        if path not in stand_ins and stem in stems:
            leave(path, "repeated", f"{replacements[stem[:ID_LENGTH]]} stands in for the video of its name")
            continue
        found.append((stand_ins.get(path, path), label))
    present = {youtube_id(path) for path in files}
    for video, of_id in rows.by_id.items():
        if video not in present:
            leave(video, "missing", f"{rows.path} names it, but {split} has no such file")
        elif len(of_id) > len(set(of_id)):
            leave(video, "repeated", f"{rows.path} has the same row {len(of_id)} times")
    return found
