"""Train, val and test of videos that nobody has split: even over classes, groups whole, drawn by a seed."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.data.layouts import DataError
from trainer.data.layouts.files import Listing, class_names
from trainer.data.layouts.values import SUFFIXES, LeftOut
from trainer.files import make_folder, write_whole

CLASSES = "classes.txt"


def videos_by_class(root: Path) -> tuple[dict[str, str], list[LeftOut]]:
    """The class of each video of `root/<class>/*`, by its path below the root, and what is left out.

    Raises:
        DataError: There are fewer than two class folders, or one has no video.
    """
    listing = Listing(root)
    folders = listing.folders("")
    if {"train", "val"} <= set(folders):
        raise DataError(f"{root} has train and val already; name the folder that holds one folder per class")
    if len(folders) < 2:
        raise DataError(f"two folders of classes at least must lie in {root}, but {len(folders)} do")
    found: dict[str, str] = {}
    left_out: list[LeftOut] = []
    for folder in folders:
        paths, unusable = listing.videos(folder, split="")
        left_out += [*unusable, *listing.passed_over(folder, split="")]
        if not paths:
            raise DataError(f"a class must have a video ({' '.join(SUFFIXES)}), but {root / folder} has none")
        found |= dict.fromkeys(paths, folder)
    return found, left_out


def grouped(paths: Sequence[str], pattern: str, *, key: str = "--group") -> dict[str, str]:
    """The group of each path: what the first group of a regular expression, or all of it, matches of it.

    Args:
        paths: Of the videos.
        pattern: Searched in each path; empty makes each video a group of its own.
        key: Where it stands, for messages.

    Raises:
        DataError: It is no regular expression, or is not found in a path.
    """
    if not pattern:
        return {path: path for path in paths}
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"{key} must be a regular expression, but {pattern!r} is none: {error}") from error
    found = {path: compiled.search(path) for path in paths}
    missing = [path for path, match in found.items() if match is None]
    if missing:
        raise DataError(
            f"{key} must be found in the path of every video, but {pattern!r} is not in {missing[0]}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        )
    return {path: (match[1] if match.re.groups else match[0]) or "" for path, match in found.items() if match}


def partition(
    classes: Mapping[str, str], groups: Mapping[str, str], shares: Mapping[str, float], *, seed: int
) -> dict[str, tuple[str, ...]]:
    """Puts every group of videos into one split.

    The largest groups go first, those of one size in an order that the seed draws, each to the split that lacks most
    videos of its classes.

    Args:
        classes: Class of each video.
        groups: Group of each video.
        shares: Of the videos, by split; they add up to 1.
        seed: Draws the order.

    Returns:
        The videos of each split, sorted.

    Raises:
        DataError: A class has too few groups for a video in every split.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for path, group in groups.items():
        members[group].append(path)
    inside = {group: Counter(classes[path] for path in paths) for group, paths in members.items()}
    totals = Counter(classes.values())
    order = sorted(members, key=lambda group: (-len(members[group]), _drawn(seed, group)))
    lacking = {split: {name: share * count for name, count in totals.items()} for split, share in shares.items()}
    place: dict[str, str] = {}
    for group in order:
        place[group] = max(shares, key=lambda split: sum(n * lacking[split][c] for c, n in inside[group].items()))
        for name, count in inside[group].items():
            lacking[place[group]][name] -= count
    _fill(place, inside, shares, reversed_order=order[::-1], classes=sorted(totals))
    splits: dict[str, list[str]] = {split: [] for split in shares}
    for group, split in place.items():
        splits[split] += members[group]
    return {split: tuple(sorted(paths)) for split, paths in splits.items()}


def _drawn(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed} {group}".encode()).hexdigest()


def _fill(
    place: dict[str, str],
    inside: Mapping[str, Counter[str]],
    shares: Mapping[str, float],
    *,
    reversed_order: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Moves small groups to where a class is missing, as long as none is missing behind them then."""
    counts = {split: Counter[str]() for split in shares}
    for group, split in place.items():
        counts[split] += inside[group]

    for name in classes:
        for split in shares:
            if counts[split][name]:
                continue
            able = (
                group
                for group in reversed_order
                if inside[group][name] and all(counts[place[group]][one] > n for one, n in inside[group].items())
            )
            moved = next(able, None)
            if moved is None:
                number = sum(1 for one in inside.values() if one[name])
                raise DataError(
                    f"each class must have a group of videos for each of {', '.join(shares)}, but {name} has "
                    f"{number}, which cannot be shared out so; leave the class or a split out, or take another --group"
                )
            counts[place[moved]] -= inside[moved]
            counts[split] += inside[moved]
            place[moved] = split


def write_lists(folder: Path, splits: Mapping[str, Sequence[str]], classes: Mapping[str, str]) -> None:
    """Writes `<split>.csv` with rows `path label`, and the names of the classes, as the layout `slowfast` reads them.

    Args:
        folder: A new or an empty one.
        splits: Videos by split.
        classes: Class of each video.

    Raises:
        DataError: The folder holds something, or a path cannot stand in a list.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"lists are written to a new folder, but {folder} holds something; name another")
    odd = next((path for path in classes if re.search(r"[\t\r\n\"]|^\s|\s$", path)), None)
    if odd is not None:
        raise DataError(f"a path in a list must have no tabs, line breaks or quotes, but one is {odd!r}; rename it")
    make_folder(folder)
    names = sorted(set(classes.values()))
    for split, paths in splits.items():
        rows = "".join(f"{path}\t{names.index(classes[path])}\n" for path in paths)
        write_whole(folder / f"{split}.csv", rows.encode())
    # With their numbers, so that names which begin or end with one are not taken to say it.
    write_whole(folder / CLASSES, "".join(f"{label} {name}\n" for label, name in enumerate(names)).encode())
    if class_names(folder / CLASSES) != tuple(names):
        raise DataError(f"the class folders have names that a list cannot hold, such as {names[0]!r}; rename them")
