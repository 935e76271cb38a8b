"""Where the videos of a data set lie, and what they are: every layout that people have, read as it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType

from trainer.config import DataConfig
from trainer.data.layouts.definitions import narrowed
from trainer.data.layouts.detect import KINDS, Sources, detected, lists_of, sources, unreadable
from trainer.data.layouts.files import Listing
from trainer.data.layouts.folders import BASES, COLUMNS, read_flat, read_tree, tables, unarranged
from trainer.data.layouts.lists import FORMS, hmdb_folder, read_hmdb, read_lists, read_ucf, ucf_folder
from trainer.data.layouts.values import SPLITS, SUFFIXES, DataError, DataGoneError, Layout, LeftOut, Video

__all__ = [
    "KINDS",
    "MOTION_PARTIAL",
    "SPLITS",
    "SUFFIXES",
    "DataError",
    "DataGoneError",
    "Layout",
    "LeftOut",
    "Video",
    "find_layout",
    "find_videos",
]

MOTION_PARTIAL = "motion.partial.json"
"""Marks a folder of generated motion clips that is not finished yet."""


def find_layout(config: DataConfig, *, complete: bool = True) -> Layout:
    """Lists the videos of a data set as its config says; see `find_videos`."""
    return find_videos(
        config.root,
        name=config.name,
        layout=config.layout,
        annotations=config.annotations,
        definition=config.definition,
        per_class=config.per_class,
        exclude=config.exclude,
        complete=complete,
    )


def find_videos(
    root: str | Path,
    *,
    name: str,
    layout: str = "auto",
    annotations: str = "",
    definition: str = "",
    per_class: int = 0,
    exclude: str = "",
    complete: bool = True,
) -> Layout:
    """Lists the videos of a data set with their labels.

    Args:
        root: Folder that all videos lie below.
        name: What the data set is called; `motion` can be generated, and the messages say so.
        layout: A key of `KINDS`, or `auto`: by what lies in the folder.
        annotations: Folder of lists, or file of class names; empty looks into the root and its usual subfolders.
        definition: Which part of the data is meant; see `narrowed`.
        per_class: Largest number of videos of each class in each split; 0 takes all.
        exclude: File of paths that are left out; empty for none.
        complete: Refuse data in which a class has no video in a split.

    Returns:
        The files found; what is named or there, but cannot be used, is in `left_out`.

    Raises:
        DataError: The folder has no layout or several, a list breaks its form, or a class has no video in a split.
    """
    root = Path(root)
    remedy = _remedy(root, name)
    try:
        if not root.is_dir():
            state = "is a file" if root.exists() else "does not exist"
            raise DataError(f"data.root must be a folder, but {root} {state}; {remedy}")
        if (root / MOTION_PARTIAL).exists():
            raise DataError(
                f"data.root must hold complete data, but making the motion clips in {root} was interrupted;"
                f" finish it with `nas data make motion --root {root}`"
            )
        listing = Listing(root)
        found = sources(root, annotations)
        kind = _kind(listing, found, layout)
        whole = _read(listing, found, kind, remedy)
        part = narrowed(whole, definition=definition, per_class=per_class, exclude=exclude, annotations=annotations)
    except OSError as error:
        place, reason = error.filename or root, error.strerror or error
        raise DataError(f"data.root must be readable, but reading {place} failed: {reason}") from error
    if complete:
        _check_classes(part)
    return dataclasses.replace(part, splits=MappingProxyType(dict(part.splits)))


def _kind(listing: Listing, found: Sources, layout: str) -> str:
    if layout != "auto":
        if layout not in KINDS:
            raise DataError(f"data.layout must be one of auto, {', '.join(KINDS)}, but is {layout!r}")
        return KINDS[layout]
    kinds = detected(listing, found)
    if len(kinds) > 1:
        signs = ", ".join(f"{kind} (by {sign})" for kind, sign in kinds)
        raise DataError(
            f"data.layout must be stated where a folder can be read in several ways, but {listing.root} can be read as "
            f"{signs}; set data.layout to one of them"
        )
    odd = None if kinds else unreadable(found)
    if odd is not None:
        forms = ", ".join(f"{form} ({kind})" for kind, form in FORMS.items())
        header = ",".join(COLUMNS)
        raise DataError(
            f"a list of videos must have rows {forms} or a header `{header}` with videos in the folder train "
            f"(cvdf-flat), but {odd} has neither; data.layout says which it is meant to be"
        )
    return kinds[0][0] if kinds else "folders"


def _read(listing: Listing, found: Sources, kind: str, remedy: str) -> Layout:
    if kind in BASES:
        tree = read_tree(listing, kind, names=found.names if found.given else None, remedy=remedy)
        rest = unarranged(listing, tables(list(found.folders))) if kind == "cvdf" else []
        return dataclasses.replace(tree, left_out=(*tree.left_out, *rest))
    if kind == "cvdf-flat":
        return read_flat(listing, annotations=tables(list(found.folders)))
    number = int(kind[-1]) if kind[-1].isdigit() else 0
    if kind.startswith("ucf101"):
        return read_ucf(listing, lists=_lists(ucf_folder(found.folders), "UCF101's classInd.txt", found), number=number)
    if kind.startswith("hmdb51"):
        lists = _lists(hmdb_folder(found.folders), "HMDB51's *_test_split1.txt", found)
        return read_hmdb(listing, lists=lists, number=number)
    by_split, unused = lists_of(found, kind)
    layout = read_lists(listing, kind, lists=by_split, names=found.names)
    return dataclasses.replace(layout, left_out=(*unused, *layout.left_out))


def _lists(folder: Path | None, what: str, found: Sources) -> Path:
    if folder is None:
        places = ", ".join(str(place) for place in found.folders)
        raise DataError(f"{what} must be there, but is not in {places}; data.annotations names another folder")
    return folder


def _check_classes(layout: Layout) -> None:
    for split, videos in layout.splits.items():
        present = {label for video in videos for label in video.labels or (video.label,)}
        missing = [name for label, name in enumerate(layout.classes) if label not in present]
        if missing:
            gone = sum(one.split == split for one in layout.left_out)
            more = f" ({gone:,} of its videos are left out; `nas data check` names them)" if gone else ""
            raise DataError(
                f"a class must have at least one video in every split, but {split} of {layout.root} has none of "
                f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}{more}; data.definition can leave "
                "classes out"
            )


def _remedy(root: Path, name: str) -> str:
    if name == "motion":
        return f"make it with `nas data make motion --root {root}`"
    return (
        "videos must lie as ROOT/{train,val[,test]}/CLASS/NAME.mp4 (" + " ".join(SUFFIXES) + "), or in another layout "
        "that data.layout can name"
    )
