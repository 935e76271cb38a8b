"""Layouts of one folder a split and in it one folder a class: the plain one, CVDF's once arranged, mmaction2's."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from trainer.data.layouts.files import Listing
from trainer.data.layouts.names import class_names
from trainer.data.layouts.text import forms, lookup, normal, unknown
from trainer.data.layouts.values import SPLITS, SUFFIXES, DataError, Layout, LeftOut, Video, listed

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
        raise DataError(f"a split must have one folder a class, but {root / bases['train']} has none; {remedy}")
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
