"""UCF101 and HMDB51 with their official split files; the test list of a split is `val`, as papers use it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from trainer.data.layouts.files import Listing, below
from trainer.data.layouts.names import class_names
from trainer.data.layouts.text import forms, read_lines
from trainer.data.layouts.values import DataError, Layout, LeftOut, Video, listed, sorted_videos

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
