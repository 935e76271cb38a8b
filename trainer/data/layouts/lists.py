"""Layouts of one list a split: SlowFast's and PyTorchVideo's csv, TSN's and TSM's frame folders, multi-label lists."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from trainer.data.layouts.files import Listing, below
from trainer.data.layouts.names import CLASS_FILES, class_names
from trainer.data.layouts.rows import FORMS, SEVERAL, Row, read_rows, shorter
from trainer.data.layouts.values import SPLITS, DataError, Layout, LeftOut, Video, listed, sorted_videos

# Lists of mmaction2 leave the first folder of a path away.
_PREFIXES = ("", "{split}/", "videos_{split}/", "rawframes_{split}/", "videos/", "rawframes/", "frames/")
_TOLD = 20  # of the labels that no video has
_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "validation", "validate", "valid"),
    "test": ("test", "testing"),
}


def list_files(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Text files by the split that is a word of their name, such as `train.csv` or `ucf101_rgb_val_split_1.txt`.

    Files that name classes are none of them; their rows may be of any form, or of none.
    """
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    seen: set[tuple[str, Path]] = set()  # a list of test may be a link to that of val
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.suffix.lower() not in (".csv", ".txt") or path.name.startswith(".") or path.name in CLASS_FILES:
                continue
            words = re.split(r"[^a-z]+", path.stem.lower())
            splits = [split for split, names in _WORDS.items() if set(words) & set(names)]
            if len(splits) == 1 and (splits[0], path.resolve()) not in seen and path.is_file():
                seen.add((splits[0], path.resolve()))
                found[splits[0]].append(path)
    return {split: paths for split, paths in found.items() if paths}


def read_lists(listing: Listing, kind: str, *, lists: Mapping[str, Path], names: Path | None) -> Layout:
    """Reads the lists of a data set.

    Args:
        listing: Of the root, from which the paths of the lists start.
        kind: A key of `FORMS`.
        lists: List of each split.
        names: File with class names, in the order of their numbers; without one, the numbers are the names.

    Raises:
        DataError: A row is not of that kind, a label is out of range, or a video stands under two labels or in two
            splits; the message names the line.
    """
    read = {split: read_rows(path, kind) for split, path in lists.items()}
    left_out: list[LeftOut] = []
    told = any(row.labels != (0,) for row in read.get("test", [])) or all(row.labels == (0,) for row in read["train"])
    if "test" in read and not told:
        del read["test"]
        reason = "all of its labels are 0, as TSM writes them where the labels of test are not told"
        left_out.append(LeftOut(path=str(lists["test"]), split="test", kind="list", reason=reason))
    # Where labels are separated by commas, none can be meant by a number in a path.
    commas = kind in SEVERAL and any(len(row.labels) > 1 for split_rows in read.values() for row in split_rows)
    rows: dict[str, list[tuple[Row, str | None]]] = {}
    for split, split_rows in read.items():
        prefixes = [prefix.format(split=split) for prefix in _PREFIXES]
        rows[split] = [_located(listing, prefixes, kind, row, commas=commas) for row in split_rows]
    classes = _classes({split: [row for row, _ in found] for split, found in rows.items()}, names, lists)
    for located in rows.values():
        for row, _ in located:
            if kind == "frames" and row.frames == 0:
                raise DataError(f"a folder of frames must have at least 1 frame, but {row.where} says 0")
            if row.labels[-1] >= len(classes):
                if {label for found in rows.values() for one, _ in found for label in one.labels} == {
                    *range(1, len(classes) + 1)
                }:
                    raise _from_one(len(classes), lists)
                raise DataError(
                    f"a label must be in 0..{len(classes) - 1} ({names} names {len(classes)} classes), but {row.where} "
                    f"has {row.labels[-1]}"
                )
    seen: dict[str, tuple[str, Row]] = {}
    splits = {}
    for split in sorted(rows, key=SPLITS.index):
        videos: list[Video] = []
        for row, found in rows[split]:
            if found is None:
                name = below(listing.root, row.path, where=row.where)
                reason = f"{row.where} names it, but there is no such {'folder' if kind == 'frames' else 'file'}"
                reason += listing.other_form(name)
                left_out.append(LeftOut(path=name, split=split, kind="missing", reason=reason))
                continue
            before = seen.setdefault(found, (split, row))
            if before[1] is not row:
                left_out.append(_again(found, split, row, *before))
                continue
            many = row.labels if kind in SEVERAL else ()
            frames = row.frames if listing.is_folder(found) else 0
            videos.append(Video(path=found, label=row.labels[0], labels=many, frames=frames))
        splits[split] = sorted_videos(videos)
    return Layout(
        root=listing.root,
        classes=classes,
        splits=splits,
        multi_label=kind in SEVERAL,
        kind=kind,
        class_map={name: str(index) for index, name in enumerate(classes)},
        left_out=tuple(left_out),
    )


def _classes(rows: Mapping[str, Sequence[Row]], names: Path | None, lists: Mapping[str, Path]) -> tuple[str, ...]:
    if names is not None:
        return class_names(names)
    labels = sorted({label for split in rows.values() for row in split for label in row.labels})
    if labels[0] == 1 and len(labels) == labels[-1]:
        raise _from_one(labels[-1], lists)
    if len(labels) <= labels[-1]:
        present = set(labels)
        # A label may have nine digits: no more numbers are gone through than are told.
        missing = islice((str(label) for label in range(labels[-1]) if label not in present), _TOLD)
        raise DataError(
            f"labels must be numbered from 0 without gaps, but the lists go from {labels[0]} to {labels[-1]} without "
            f"{listed(list(missing))}; a file classes.txt beside them may name all classes"
        )
    return tuple(f"{label:0{len(str(labels[-1]))}d}" for label in labels)


def _from_one(last: int, lists: Mapping[str, Path]) -> DataError:
    return DataError(
        f"labels of lists must begin at 0, but those of {lists['train']} and the lists beside it go from 1 to {last}; "
        "subtract 1 from each"
    )


def _located(listing: Listing, prefixes: Sequence[str], kind: str, row: Row, *, commas: bool) -> tuple[Row, str | None]:
    """A row and the path of its video below the root; None if there is no such video.

    Raises:
        DataError: The row has more numbers behind the path of a video than its kind has.
    """
    folders, files = kind not in ("slowfast", "multi-label-videos"), kind != "frames"

    def find(path: str, *, folders: bool, files: bool) -> str | None:
        path = below(listing.root, path, where=row.where)
        for prefix in prefixes:
            if (folders and listing.is_folder(prefix + path)) or (files and listing.is_file(prefix + path)):
                return prefix + path
        return None

    found = find(row.path, folders=folders, files=files)
    if found is not None or commas:
        return row, found
    other = shorter(row, kind)
    while other is not None:
        if kind in SEVERAL:
            found = find(other.path, folders=folders, files=files)
            if found is not None:
                return other, found
        elif find(other.path, folders=True, files=True):
            raise DataError(
                f"a row must read {FORMS[kind]}, but {row.where} has more numbers behind {other.path}, which is there; "
                "data.layout=multi-label (`path frames label label ...`) and multi-label-videos (`path label label "
                "...`) read several labels"
            )
        row = other if kind == "multi-label-videos" else row  # of a missing video, all numbers are labels
        other = shorter(other, kind)
    return row, None


def _again(path: str, split: str, row: Row, before_split: str, before: Row) -> LeftOut:
    if before_split != split:
        raise DataError(f"a video must be in one split, but {path} stands in {before.where} and in {row.where}")
    if before.labels != row.labels:
        old, new = (",".join(map(str, one.labels)) for one in (before, row))
        raise DataError(f"a video must have one label, but {path} has {old} in {before.where} and {new} in {row.where}")
    return LeftOut(path=path, split=split, kind="repeated", reason=f"{row.where} names it again, after {before.where}")
