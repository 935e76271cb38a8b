"""Which layout a folder has, by what lies in it; never a guess between two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.data.layouts.files import CLASS_FILES, Listing
from trainer.data.layouts.folders import BASES, tables, unarranged
from trainer.data.layouts.lists import FORMS, header_of, hmdb_folder, kind_of, list_files, read_rows, ucf_folder
from trainer.data.layouts.values import DataError, LeftOut, listed

KINDS: Mapping[str, str] = {
    "folders": "folders",
    "torchvision": "folders",
    "cvdf": "cvdf",
    "cvdf-flat": "cvdf-flat",
    "mmaction2": "mmaction2",
    "slowfast": "slowfast",
    "pytorchvideo": "slowfast",
    "frames": "frames",
    "multi-label": "multi-label",
    "multi-label-videos": "multi-label-videos",
    "ucf101": "ucf101-1",
    "ucf101-1": "ucf101-1",
    "ucf101-2": "ucf101-2",
    "ucf101-3": "ucf101-3",
    "hmdb51": "hmdb51-1",
    "hmdb51-1": "hmdb51-1",
    "hmdb51-2": "hmdb51-2",
    "hmdb51-3": "hmdb51-3",
}
"""What `data.layout` may say, and the layout that is read."""

_LIKE = {"multi-label": ("frames",), "multi-label-videos": ("slowfast", "frames")}
_LISTS = ("slowfast", "frames", "multi-label")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """Where the annotations of a data set may lie.

    Attributes:
        folders: Folders with lists, the one that the user named first and alone.
        names: A file with class names, if there is one.
        given: Whether the user named them.
    """

    folders: tuple[Path, ...]
    names: Path | None
    given: bool


def sources(root: Path, annotations: str) -> Sources:
    """Finds the annotations of a data set.

    Args:
        root: The data set's root.
        annotations: `data.annotations`: a folder of lists, a file of class names, or empty.

    Raises:
        DataError: There is no such file or folder, or several files name the classes.
    """
    if annotations:
        for place in (Path(annotations), root / annotations):
            if place.is_file():
                return Sources(folders=_usual(root), names=place, given=True)
            if place.is_dir():
                return Sources(folders=(place,), names=_names((place,)), given=True)
        raise DataError(
            f"data.annotations must be a folder of lists or a file of class names, but neither {annotations} nor "
            f"{root / annotations} exists"
        )
    folders = _usual(root)
    return Sources(folders=folders, names=_names(folders), given=False)


def detected(listing: Listing, found: Sources) -> list[tuple[str, str]]:
    """Each layout that the folder may have, and what tells so.

    Raises:
        DataError: Kinetics is arranged in part, so that neither of its layouts has all videos.
    """
    by_lists = _by_lists(listing, found)
    trees = []
    for kind, base in BASES.items():
        folder = base.format(split="train")
        # The downloader makes empty folders; an empty `train` is a plain folder that lacks its classes.
        if listing.folders(folder) or (kind == "folders" and listing.is_folder(folder) and not by_lists):
            trees.append((kind, f"{folder}/<class>/"))
    kinds = dict(by_lists + trees)
    if "cvdf" in kinds:
        rest = unarranged(listing, tables(list(found.folders)))
        if rest:
            raise DataError(
                f"Kinetics must be arranged by class as a whole, but {len(rest):,} of the videos of {listing.root} lie "
                f"flat (the first is {rest[0].path}); `nas data get kinetics --root {listing.root}` goes on with it, "
                "and data.layout=cvdf takes only what is arranged"
            )
        kinds.pop("cvdf-flat", None)  # arranged by links to what lies flat: the same videos
    if "mmaction2" in kinds and "slowfast" in kinds and _below_videos(listing, Path(kinds["slowfast"])):
        del kinds["slowfast"]  # mmaction2 writes such lists of its own tree
    if found.given and by_lists and found.names is None:
        kinds = dict(by_lists)  # the user named the lists
    return list(kinds.items())


def lists_of(found: Sources, kind: str) -> tuple[dict[str, Path], list[LeftOut]]:
    """The list of each split, and files that are named as a list of test and are none.

    Raises:
        DataError: A split has several lists of that kind, or train or val has none.
    """
    by_split: dict[str, list[Path]] = {}
    left_out: list[LeftOut] = []
    for split, paths in list_files(found.folders).items():
        by_split[split] = [path for path in paths if _fits(kind_of(path), kind)]
        if by_split[split]:
            continue
        if split == "test":  # data can do without, and a `test_results.txt` may lie anywhere
            reason = f"its rows do not read {FORMS[kind]}"
            left_out += [LeftOut(path=str(path), split=split, kind="list", reason=reason) for path in paths]
        else:
            by_split[split] = paths  # reading one tells which line is not of that form
    for split, paths in by_split.items():
        if len(paths) > 1:
            raise DataError(
                f"a split must have one list, but {split} has {listed([str(path) for path in paths])}; put the wanted "
                "lists into a folder of their own and name it in data.annotations"
            )
    lists = {split: paths[0] for split, paths in by_split.items() if paths}
    for split in ("train", "val"):
        if split not in lists:
            places = ", ".join(str(folder) for folder in found.folders)
            raise DataError(
                f"layout {kind} must have a list of {split}, but there is none in {places} (names such as {split}.csv "
                f"or {split}_list.txt); data.annotations names another folder"
            )
    if "test" in lists and lists["test"].read_bytes() == lists["val"].read_bytes():
        del lists["test"]  # what SlowFast asks for where there is no test: a link to the list of val, or a copy
    return lists, left_out


def _fits(found: str | None, kind: str) -> bool:
    # A list of several labels in which no video has two, or its first has not, reads like one of single labels.
    return found == kind or found in _LIKE.get(kind, ())


def _below_videos(listing: Listing, path: Path) -> bool:
    """Whether a list of train counts its paths from `videos_train`, by its first row."""
    first = read_rows(path, "slowfast")[0].path
    return (listing.root / "videos_train" / first).is_file() and not (listing.root / first).exists()


def unreadable(found: Sources) -> Path | None:
    """A list of train by its name whose rows are of no form that is known.

    Raises:
        DataError: All that its rows have too much is a header.
    """
    for path in list_files(found.folders).get("train", []):
        header = header_of(path)
        if header is not None:
            raise DataError(f"a list must have no header, but line 1 of {path} is {header[:100]!r}; remove that line")
    return next((path for path in list_files(found.folders).get("train", []) if kind_of(path) is None), None)


def _usual(root: Path) -> tuple[Path, ...]:
    names = ("annotations", "labels", "ucfTrainTestlist", "testTrainMulti_7030_splits", "splits")
    return (root, *(root / name for name in names if (root / name).is_dir()))


def _names(folders: tuple[Path, ...]) -> Path | None:
    present = [folder / name for folder in folders for name in CLASS_FILES if (folder / name).is_file()]
    if len(present) > 1:
        raise DataError(
            f"one file must name the classes, but there are {listed([str(path) for path in present])}; name one in "
            "data.annotations"
        )
    return present[0] if present else None


def _by_lists(listing: Listing, found: Sources) -> list[tuple[str, str]]:
    kinds: list[tuple[str, str]] = []
    lists = ucf_folder(found.folders)
    if lists is not None and any(lists.glob("trainlist0[123].txt")):
        kinds.append(("ucf101-1", str(lists / "classInd.txt")))
    lists = hmdb_folder(found.folders)
    if lists is not None:
        kinds.append(("hmdb51-1", str(lists / "*_test_split1.txt")))
    annotated = tables(list(found.folders))
    if "train" in annotated and listing.videos("train", split="train")[0]:
        kinds.append(("cvdf-flat", f"train/*.mp4 and {annotated['train']}"))
    if not kinds:
        for path in list_files(found.folders).get("train", []):
            kind = kind_of(path)
            if kind in _LISTS:
                kinds.append((kind, str(path)))
    return kinds
