"""Layouts of lists: one a split (SlowFast's, PyTorchVideo's, TSN's, TSM's), or those of UCF101 and HMDB51."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from trainer.data.layouts.files import CLASS_FILES, Listing, below, class_names
from trainer.data.layouts.text import LONGEST_LINE, forms, read_lines, unquoted
from trainer.data.layouts.values import SPLITS, DataError, Layout, LeftOut, Video, listed, sorted_videos

SEVERAL = ("multi-label", "multi-label-videos")
"""Kinds of lists in which a video may have several labels."""

_ROW = {
    # The path may hold the separator; what follows it may not. No number has more than nine digits.
    "slowfast": r"(?P<path>\S.*?)(?P<sep>[ \t,])(?P<labels>\d{1,9})",
    "frames": r"(?P<path>\S.*?)(?P<sep>[ \t,])(?P<frames>\d{1,9})(?P=sep)(?P<labels>\d{1,9})",
    "multi-label": r"(?P<path>\S.*?)(?P<sep>[ \t])(?P<frames>\d{1,9})(?P=sep)(?P<labels>\d{1,9}(?:,\d{1,9})*)",
    "multi-label-videos": r"(?P<path>\S.*?)(?P<sep>[ \t])(?P<labels>\d{1,9}(?:,\d{1,9})*)",
}
FORMS = {
    "slowfast": "`path label`",
    "frames": "`folder frames label`",
    "multi-label": "`path frames label,label,...`",
    "multi-label-videos": "`path label label ...`",
}
"""How a row of each kind of list reads; the labels of `multi-label` may be separated by blanks as well."""


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


def kind_of(path: Path) -> str | None:
    """Which kind of list a file is, by all of its rows; None if its first row is of none."""
    lines = _lines(path)
    if not lines:
        return None
    if any(re.fullmatch(_ROW["multi-label"], line) and "," in line.rpartition(" ")[2] for line in lines):
        return "multi-label"
    return next((kind for kind in ("frames", "slowfast") if re.fullmatch(_ROW[kind], lines[0])), None)


def header_of(path: Path) -> str | None:
    """The first row of a list where it is a header, which lists do not have: words before a row that can be read."""
    lines = _lines(path)
    return _header(*lines[:2]) if len(lines) > 1 else None


def _header(first: str, second: str) -> str | None:
    words = re.fullmatch(r"[^\W\d][\w -]*(?:[ \t,]+[^\W\d][\w -]*)+", first) is not None
    known = any(re.fullmatch(form, second) and not re.fullmatch(form, first) for form in _ROW.values())
    return first if words and known else None


def _lines(path: Path) -> list[str]:
    try:
        # A file that is no list at all may be in any encoding; one that is gets its error when it is read.
        text = path.read_text("utf-8-sig", errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.split("\n") if line.strip() and len(line) <= LONGEST_LINE]


def read_rows(path: Path, kind: str) -> list[Row]:
    """Reads a list.

    Args:
        path: The list.
        kind: A key of `FORMS`.

    Raises:
        DataError: A row is not of that kind, or there is none; the message names the line.
    """
    rows: list[Row] = []
    separator = ""
    lines = read_lines(path)
    for number, line in lines:
        where = f"line {number} of {path}"
        match = re.fullmatch(_ROW[kind], line)
        if match is None:
            if len(lines) > 1 and line is lines[0][1] and _header(line, lines[1][1]):
                raise DataError(f"a list must have no header, but {where} is {line[:100]!r}; remove that line")
            raise DataError(
                f"a row must read {FORMS[kind]} with blanks, tabs{'' if kind in SEVERAL else ' or commas'} "
                f"between and numbers from 0 (of nine digits at most) at its end, but {where} is {line[:100]!r}"
            )
        if separator and match["sep"] != separator:
            raise DataError(
                f"a list must have one separator, but {where} has {match['sep']!r} after {separator!r} before"
            )
        separator = match["sep"]
        labels = tuple(sorted({int(label) for label in match["labels"].split(",")}))
        frames = int(match["frames"]) if "frames" in match.groupdict() else 0
        name = unquoted(match["path"].strip())
        rows.append(Row(where=where, path=name, frames=frames, labels=labels))
    if not rows:
        raise DataError(f"a list must have at least one row {FORMS[kind]}, but {path} is empty")
    return rows


def shorter(row: Row, kind: str) -> Row | None:
    """The same row with the number at the end of its path taken for the first behind it; None if there is none.

    A path may end in a number, and labels may be separated by blanks, as mmaction2's `build_file_list.py` writes those
    of Multi-Moments in Time: only the files that are there tell which it is.
    """
    match = re.fullmatch(r"(\S.*?)[ \t,]+(\d{1,9})", row.path)
    if match is None:
        return None
    counted = kind in ("frames", "multi-label")
    labels = {*row.labels, row.frames if counted else int(match[2])}
    return dataclasses.replace(
        row, path=unquoted(match[1]), frames=int(match[2]) if counted else 0, labels=tuple(sorted(labels))
    )


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


_UCF_FOLDERS = ("", "UCF-101/", "UCF101/", "videos/")
_HMDB_FOLDERS = ("", "hmdb51_org/", "HMDB51/", "hmdb51/", "videos/")
_USES = {"1": "train", "2": "val"}


def ucf_folder(folders: Sequence[Path]) -> Path | None:
    """The first folder with UCF101's lists."""
    return next((folder for folder in folders if (folder / "classInd.txt").is_file()), None)


def hmdb_folder(folders: Sequence[Path]) -> Path | None:
    """The first folder with HMDB51's lists."""
    return next((folder for folder in folders if any(folder.glob("*_test_split[123].txt"))), None)


def read_ucf(listing: Listing, *, lists: Path, number: int) -> Layout:
    """Reads `trainlist0N.txt` (`Class/name.avi label`), `testlist0N.txt` (`Class/name.avi`) and `classInd.txt`.

    Labels are numbered from 1 there; the class of a test video is its folder's.

    Args:
        listing: Of the root.
        lists: Folder of the lists.
        number: Of the split, 1 to 3.

    Raises:
        DataError: A list is missing, or a row names a class that does not fit.
    """
    classes = class_names(_there(lists / "classInd.txt"))
    left_out: list[LeftOut] = []
    splits: dict[str, tuple[Video, ...]] = {}
    seen: dict[str, str] = {}
    for split, stem in (("train", "trainlist"), ("val", "testlist")):
        path = _there(lists / f"{stem}0{number}.txt")
        videos: list[Video] = []
        for line, text in read_lines(path):
            where = f"line {line} of {path}"
            match = re.fullmatch(r"(\S.*?)(?:[ \t]+(\d{1,9}))?", text)
            assert match is not None  # read_lines gives no blank lines
            name = below(listing.root, match[1], where=where)
            folder = name.partition("/")[0]
            if folder not in classes or folder == name:
                like = next((words for one in classes if (words := forms(folder, one))), "")
                raise DataError(
                    f"a row must read Class/name.avi with a class of classInd.txt, but {where} is {text[:100]!r}{like}"
                )
            if split == "train" and match[2] is None:
                raise DataError(f"a row of a train list must end in its label, but {where} is {text[:100]!r}")
            if match[2] is not None and int(match[2]) != classes.index(folder) + 1:
                raise DataError(
                    f"a label must be the number of its class in classInd.txt, but {where} gives {folder} {match[2]}, "
                    f"not {classes.index(folder) + 1}"
                )
            _once(seen, name, where)
            found = _found(listing, _UCF_FOLDERS, name)
            if found is None:
                left_out.append(_missing(listing, name, split, where))
            else:
                videos.append(Video(path=found, label=classes.index(folder)))
        splits[split] = sorted_videos(videos)
    return Layout(
        root=listing.root,
        classes=classes,
        splits=splits,
        kind=f"ucf101-{number}",
        class_map={name: str(index) for index, name in enumerate(classes, 1)},
        left_out=tuple(left_out),
    )


def read_hmdb(listing: Listing, *, lists: Path, number: int) -> Layout:
    """Reads `<class>_test_splitN.txt`: `name.avi use`, where use is 1 for train, 2 for test, 0 for neither.

    Args:
        listing: Of the root.
        lists: Folder of the lists.
        number: Of the split, 1 to 3.

    Raises:
        DataError: There is no list of that split, or a row is not of that form.
    """
    ending = f"_test_split{number}.txt"
    files = {path.name.removesuffix(ending): path for path in sorted(lists.glob(f"*{ending}"))}
    if not files:
        raise DataError(f"HMDB51 must have <class>{ending} for each class, but {lists} has none")
    classes = tuple(sorted(files))
    left_out: list[LeftOut] = []
    videos: dict[str, list[Video]] = {"train": [], "val": []}
    for label, title in enumerate(classes):
        seen: dict[str, str] = {}
        for line, text in read_lines(files[title]):
            where = f"line {line} of {files[title]}"
            match = re.fullmatch(r"(\S.*?)[ \t]+([012])", text)
            if match is None:
                raise DataError(
                    f"a row must read `name.avi use` with a use of 0, 1 or 2, but {where} is {text[:100]!r}"
                )
            name = below(listing.root, f"{title}/{match[1]}", where=where)
            _once(seen, name, where)
            split = _USES.get(match[2])
            if split is None:
                continue
            found = _found(listing, _HMDB_FOLDERS, name)
            if found is None:
                left_out.append(_missing(listing, name, split, where))
            else:
                videos[split].append(Video(path=found, label=label))
    return Layout(
        root=listing.root,
        classes=classes,
        splits={split: sorted_videos(found) for split, found in videos.items()},
        kind=f"hmdb51-{number}",
        class_map={name: name for name in classes},
        left_out=tuple(left_out),
    )


def _there(path: Path) -> Path:
    if not path.is_file():
        beside = sorted(one.name for one in path.parent.glob("*.txt"))
        raise DataError(f"UCF101 must have {path.name}, but {path.parent} has {listed(beside) or 'no list'}")
    return path


def _once(seen: dict[str, str], name: str, where: str) -> None:
    if name in seen:
        raise DataError(f"a video must be in one list, once, but {name} stands in {seen[name]} and in {where}")
    seen[name] = where


def _found(listing: Listing, folders: Sequence[str], name: str) -> str | None:
    return next((folder + name for folder in folders if listing.is_file(folder + name)), None)


def _missing(listing: Listing, name: str, split: str, where: str) -> LeftOut:
    reason = f"{where} names it, but there is no such file"
    reason += next(
        (words for base in (*_UCF_FOLDERS, *_HMDB_FOLDERS) if (words := listing.other_form(base + name))), ""
    )
    return LeftOut(path=PurePosixPath(name).as_posix(), split=split, kind="missing", reason=reason)
