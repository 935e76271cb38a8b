"""Where the videos of a data set lie: one folder a split, in it one folder a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

SPLITS = ("train", "val", "test")
MOTION_PARTIAL = "motion.partial.json"
"""Marks a folder of generated motion clips that is not finished yet."""
SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov")

_SHOWN = 5  # class names in a message


class DataError(ValueError):
    """The data cannot be used as asked; the message is one line with rule, value, place and remedy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """One video file.

    Attributes:
        path: Path below the data set's root, with forward slashes.
        label: Index of its class.
    """

    path: str
    label: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The files of a data set.

    Attributes:
        root: Folder that all paths start from.
        classes: Names of the classes, sorted; a label is an index into it.
        splits: Videos of each split that exists, sorted by path.
    """

    root: Path
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Video, ...]]


def find_videos(root: str | Path, *, name: str) -> Layout:
    """Lists the videos of `root/{train,val[,test]}/<class>/*`, whatever the case of their suffix.

    Hidden files and folders, and files that are no video by their suffix, are passed over.

    Args:
        root: Folder of the data set.
        name: What the data set is called; `motion` can be generated, and the messages say so.

    Returns:
        The files found.

    Raises:
        DataError: The root, `train` or `val` is missing, a class has no video in a split, or the splits have
            different classes.
    """
    root = Path(root)
    remedy = _remedy(root, name)
    if not root.is_dir():
        state = "is a file" if root.exists() else "does not exist"
        raise DataError(f"data.root must be a folder, but {root} {state}; {remedy}")
    if (root / MOTION_PARTIAL).exists():
        raise DataError(
            f"data.root must hold complete data, but making the motion clips in {root} was interrupted;"
            f" finish it with `nas data make motion --root {root}`"
        )
    for split in ("train", "val"):
        if not (root / split).is_dir():
            raise DataError(f"a data set must have train and val, but {root} has no folder {split}; {remedy}")
    present = [split for split in SPLITS if (root / split).is_dir()]
    try:
        folders = {split: _folders(root / split) for split in present}
        classes = tuple(sorted(folders["train"]))
        if not classes:
            raise DataError(f"a split must have one folder a class, but {root / 'train'} has none; {remedy}")
        for split in present[1:]:
            _check_same(root, split, set(classes), folders[split])
        splits = {
            split: tuple(
                Video(path=f"{split}/{label}/{file}", label=index)
                for index, label in enumerate(classes)
                for file in _files(root / split / label, remedy)
            )
            for split in present
        }
    except OSError as error:
        place, reason = error.filename or root, error.strerror or error
        raise DataError(f"data.root must be readable, but reading {place} failed: {reason}") from error
    return Layout(root=root, classes=classes, splits=MappingProxyType(splits))


def _folders(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")}


def _files(folder: Path, remedy: str) -> list[str]:
    files = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    )
    if not files:
        raise DataError(
            f"a class must have at least one video ({' '.join(SUFFIXES)}) in every split,"
            f" but {folder} has none; {remedy}"
        )
    return files


def _check_same(root: Path, split: str, expected: set[str], found: set[str]) -> None:
    if expected == found:
        return
    differences = [
        f"{where} alone has {', '.join(sorted(names)[:_SHOWN])}{' ...' if len(names) > _SHOWN else ''}"
        for where, names in (("train", expected - found), (split, found - expected))
        if names
    ]
    raise DataError(
        f"all splits must have the same classes, but below {root} {' and '.join(differences)}; "
        "make the folders of the splits agree"
    )


def _remedy(root: Path, name: str) -> str:
    if name == "motion":
        return f"make it with `nas data make motion --root {root}`"
    return "videos must lie as ROOT/{train,val[,test]}/CLASS/NAME.mp4 (" + " ".join(SUFFIXES) + ")"
