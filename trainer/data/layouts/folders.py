"""Layouts of folders: one a split and in it one a class, or CVDF's download of Kinetics as it comes.

`root/{train,val,test}/<id>_<start>_<end>.mp4`, `root/annotations/{train,val,test}.csv` with the columns `label,
youtube_id, time_start, time_end, split[, is_cc]`, and `root/replacement/` with what stands in for corrupted videos
(https://github.com/cvdfoundation/kinetics-dataset). File and row meet in the 11 characters of the YouTube ID, which may
hold `_` and `-`; times are not compared unless an ID has several rows, since tables write them in several ways.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath

from trainer.data.layouts.files import Listing, class_names
from trainer.data.layouts.text import forms, lookup, normal, read_table, unknown, unquoted
from trainer.data.layouts.values import SPLITS, SUFFIXES, DataError, Layout, LeftOut, Video, listed, sorted_videos

BASES: Mapping[str, str] = {
    "folders": "{split}",
    "cvdf": "videos/{split}",
    "mmaction2": "videos_{split}",
}
"""Where the folder of a split lies below the root."""


def read_tree(listing: Listing, kind: str, *, names: Path | None, remedy: str) -> Layout:
    """Lists the videos of `root/<split's folder>/<class>/*`, whatever the case of their suffix.

    Hidden files and folders, and files that are no video by their suffix, are passed over; what may be meant as a video
    is in `left_out`.

    Args:
        listing: Of the root.
        kind: A key of `BASES`.
        names: File with the original names of the classes; None takes those of the folders.
        remedy: How the videos must lie, for messages.

    Raises:
        DataError: `train` or `val` is missing, a class has no video in a split, or the splits have different classes.
    """
    root = listing.root
    bases = {split: BASES[kind].format(split=split) for split in SPLITS}
    for split in ("train", "val"):
        if not listing.is_folder(bases[split]):
            raise DataError(f"a data set must have train and val, but {root} has no folder {bases[split]}; {remedy}")
    folders = {split: set(listing.folders(base)) for split, base in bases.items() if listing.is_folder(base)}
    if kind != "folders" and not folders.get("test", True):
        del folders["test"]  # the downloader makes it, whatever is asked for
    if not folders["train"]:
        raise DataError(f"a split must have one folder per class, but {root / bases['train']} has none; {remedy}")
    for split in folders:
        _check_same(root, split, folders["train"], folders[split])
    names_of = sorted(folders["train"], key=lambda name: unicodedata.normalize("NFC", name))
    for first, second in pairwise(names_of):
        if forms(first, second):
            raise DataError(
                f"class folders must differ in more than the form of their letters, but {root / bases['train']} has "
                f"{first!r} and {second!r}{forms(first, second)}; rename one"
            )
    titles = _titles(sorted(folders["train"]), names)
    classes = tuple(sorted(titles.values()))
    left_out: list[LeftOut] = []
    splits: dict[str, tuple[Video, ...]] = {}
    for split in folders:
        videos: list[Video] = []
        left_out += [
            LeftOut(path=path, split=split, kind="misplaced", reason="it lies in no class folder")
            for path in listing.videos(bases[split], split=split)[0]
        ]
        left_out += listing.hidden(bases[split], split=split)
        for folder in sorted(folders["train"], key=lambda folder: titles[folder]):
            found, unusable = listing.videos(f"{bases[split]}/{folder}", split=split)
            left_out += [*unusable, *listing.passed_over(f"{bases[split]}/{folder}", split=split)]
            if not found:
                raise DataError(
                    f"a class must have at least one video ({' '.join(SUFFIXES)}) in every split, but "
                    f"{root / bases[split] / folder} has none; {remedy}"
                )
            label = classes.index(titles[folder])
            videos += [Video(path=path, label=label) for path in found]
        splits[split] = tuple(videos)
    return Layout(
        root=root,
        classes=classes,
        splits=splits,
        kind=kind,
        class_map={titles[folder]: folder for folder in sorted(titles, key=lambda folder: titles[folder])},
        left_out=tuple(left_out),
    )


def _titles(folders: list[str], names: Path | None) -> dict[str, str]:
    """The class name of each folder: the folder's own, or the original one that it stands for."""
    if names is None:
        return {folder: folder for folder in folders}
    originals = class_names(names)
    known = lookup(originals, where=str(names))
    lookup(folders, where="the folders of train")
    for folder in folders:
        if normal(folder) not in known:
            raise unknown(folder, originals, where="the folders of train")
    return {folder: originals[known[normal(folder)]] for folder in folders}


def _check_same(root: Path, split: str, expected: set[str], found: set[str]) -> None:
    if expected == found:
        return
    like = next((words for one in expected - found for other in found - expected if (words := forms(one, other))), "")
    differences = [
        f"{where} alone has {listed(sorted(names))}"
        for where, names in (("train", expected - found), (split, found - expected))
        if names
    ]
    raise DataError(
        f"all splits must have the same classes, but below {root} {' and '.join(differences)}{like}; "
        "make the folders of the splits agree"
    )


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
