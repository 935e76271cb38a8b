"""Which part of a data set is meant: named definitions, lists of classes, a cap for each class, an exclude list."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from trainer.data.layouts.files import class_names
from trainer.data.layouts.folders import ID_LENGTH, youtube_id
from trainer.data.layouts.text import lookup, normal, read_lines, unknown
from trainer.data.layouts.values import SPLITS, DataError, Layout, Video, listed
from trainer.files import make_folder, write_whole

CHOICES = (
    "mini-kinetics-200[:FOLDER]",
    "mini-kinetics-ibm:FILE",
    "s3d-v3-report",
    "ids:FOLDER",
    "classes:a,b,c",
    "a file of classes",
)
"""What `data.definition` may say."""

_MINI = {"train": 80_000, "val": 5_000}
_MINI_CLASSES = 200
_FIVE = 5
_FIVE_CAPS = {"train": 400, "val": 25, "test": 25}
_PLACES = ("mini-kinetics-200", "annotations/mini-kinetics-200", "Mini-Kinetics-200")


def narrowed(
    layout: Layout, *, definition: str = "", per_class: int = 0, exclude: str = "", annotations: str = ""
) -> Layout:
    """The part of a layout that a study is about: what is excluded goes first, then the definition, then the cap.

    Args:
        layout: The whole data.
        definition: One of `CHOICES`; empty takes all.
        per_class: Most videos of each class in each split, drawn by a hash of their names, so that it is the
            same draw in every layout and on every machine; 0 takes all.
        exclude: File of paths to leave out, as `nas data check --exclude` writes it; empty for none.
        annotations: Where lists are looked up beside the root.

    Raises:
        DataError: The definition is not known or does not fit the data.
    """
    selection: dict[str, Any] = {}
    texts: list[str] = []
    if exclude:
        layout, selection["exclude"] = _excluded(layout, exclude)
        texts.append(f"{selection['exclude']['videos']:,} excluded by {Path(exclude).name}")
    if definition:
        layout, words, selection["definition"] = _defined(layout, definition, annotations)
        texts.append(words)
    if per_class:
        layout = _capped(layout, dict.fromkeys(SPLITS, per_class))
        selection["per_class"] = per_class
        texts.append(f"at most {per_class:,} of each class in each split")
    if not selection:
        return layout
    return dataclasses.replace(layout, definition="; ".join(texts), selection=selection)


_HEAD = "# Videos that a study leaves out: data.exclude names this file. One path below data.root a line."


def check_exclude(path: Path) -> None:
    """Refuses a file that `write_exclude` would destroy, before a long check.

    Raises:
        DataError: The file is there, and holds something else than a list that `write_exclude` wrote.
    """
    with contextlib.suppress(OSError):  # what cannot be read, writing tells
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file:
                if file.read(len(_HEAD)) != _HEAD.encode():
                    raise DataError(
                        f"the exclude list must be a new file or one that `nas data check --exclude` wrote, but {path} "
                        "holds something else; name another file, or remove this one"
                    )


def write_exclude(path: Path, left_out: Sequence[tuple[str, str]]) -> None:
    """Writes an exclude list: one path a line and, after a tab, why.

    Args:
        path: The file.
        left_out: Paths below the root, with reasons.
    """
    check_exclude(path)
    lines = [_HEAD]
    for name, reason in left_out:
        odd = name[:1] in ('"', "#") or name != name.strip() or any(sign in name for sign in "\t\n\r")
        lines.append(f"{json.dumps(name) if odd else name}\t{reason}")
    try:
        make_folder(path.parent)
        write_whole(path, ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise DataError(f"the exclude list must be a file that can be written, but {path}: {error.strerror}") from error


def read_exclude(path: Path) -> tuple[str, ...]:
    """The paths of an exclude list; what follows a tab, and lines that begin with `#`, are words.

    Raises:
        DataError: It cannot be read.
    """
    paths = []
    for number, line in read_lines(path):
        name = line.partition("\t")[0].rstrip()
        if name.startswith('"'):
            try:
                name = str(json.loads(name))
            except ValueError as error:
                raise DataError(f"line {number} of {path} must be a path, but is {line[:100]!r}") from error
        if not line.startswith("#"):
            paths.append(name)
    return tuple(paths)


def _excluded(layout: Layout, exclude: str) -> tuple[Layout, dict[str, Any]]:
    path = next((one for one in (Path(exclude), layout.root / exclude) if one.is_file()), None)
    if path is None:
        raise DataError(f"data.exclude must be a file, but {exclude} is none; `nas data check --exclude` writes it")
    names = set(read_exclude(path))
    found = names & {video.path for videos in layout.splits.values() for video in videos}
    if names and not found:
        raise DataError(
            f"data.exclude must name videos of the data, but none of the {len(names)} in {path} is one (the first is "
            f"{min(names)}; paths start at data.root)"
        )
    record = {"videos": len(found), "sha256": hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()}
    return _kept(layout, lambda _, video: video.path not in found), record


def _defined(layout: Layout, definition: str, annotations: str) -> tuple[Layout, str, dict[str, Any]]:
    """The part that a definition names, what it is in words, and its record."""
    name, _, place = definition.partition(":")
    record: dict[str, Any] = {"name": name}
    if name == "classes" and place:
        try:
            wanted = next(csv.reader([place], skipinitialspace=True))
        except csv.Error as error:
            raise DataError(f"data.definition must list classes with commas between, but: {error}") from error
        layout = _of_classes(layout, wanted, where="data.definition")
        return layout, f"the classes {listed(layout.classes)}", record
    if name == "s3d-v3-report":
        return _report_five(layout, record)
    if name in ("mini-kinetics-200", "ids"):
        folder = _id_folder(layout, name, place, annotations)
        layout = _of_ids(layout, name, folder, record)
        counts = ", ".join(f"{split} {len(videos):,}" for split, videos in layout.splits.items())
        return layout, f"{name} by the ID lists of {folder}, of which {counts} are there", record
    file = Path(place) if name == "mini-kinetics-ibm" and place else Path(definition)
    path = next((one for one in (file, layout.root / file, Path(annotations) / file) if one.is_file()), None)
    if path is None:
        rival = (
            "; two definitions go by that name: 400 + 25 videos of each of the 200 largest classes (Xie et al. 2018), "
            "and half of the classes with all their videos (IBM)"
            if normal(definition).replace("-", "").replace(" ", "").startswith("minikinetics")
            else ""
        )
        raise DataError(f"data.definition must be one of {', '.join(CHOICES)}, but is {definition!r}{rival}")
    names = class_names(path)
    if name == "mini-kinetics-ibm" and len(names) != _MINI_CLASSES:
        raise DataError(f"mini-kinetics-ibm must have {_MINI_CLASSES} classes, but {path} names {len(names)}")
    record |= {"name": name if name == "mini-kinetics-ibm" else "classes of a file", "sha256": _sha256(path)}
    layout = _of_classes(layout, names, where=str(path))
    return layout, f"{record['name']}: the {len(layout.classes)} classes of {path.name}", record


def _report_five(layout: Layout, record: dict[str, Any]) -> tuple[Layout, str, dict[str, Any]]:
    """Five classes, 400 train and 25 val videos of each, as in the report on S3D-v3.

    It drew its classes at random and does not say which; here they are those whose normal names have the smallest
    SHA-256, so that everybody's five are the same.
    """
    if len(layout.classes) < _FIVE:
        raise DataError(f"s3d-v3-report needs {_FIVE} classes, but the data has {len(layout.classes)}")
    drawn = sorted(layout.classes, key=lambda name: hashlib.sha256(normal(name).encode()).hexdigest())[:_FIVE]
    layout = _capped(_of_classes(layout, drawn, where="s3d-v3-report"), _FIVE_CAPS)
    record |= {"classes": list(layout.classes), "caps": _FIVE_CAPS}
    words = "s3d-v3-report: five classes by a fixed draw, since the report does not name its own; at most 400 train and"
    return layout, f"{words} 25 val videos of each", record


def _id_folder(layout: Layout, name: str, place: str, annotations: str) -> Path:
    candidates = [Path(place), layout.root / place] if place else []
    if not place and name == "mini-kinetics-200":
        bases = [layout.root, *([Path(annotations)] if annotations else [])]
        candidates = [base / folder for base in bases for folder in _PLACES]
    found = next((folder for folder in candidates if folder.is_dir()), None)
    if found is None:
        looked = ", ".join(str(folder) for folder in candidates) or "nowhere"
        raise DataError(
            f"the ID lists of {name} must be in a folder, but there is none (looked at {looked}); say {name}:FOLDER, "
            "with one list of YouTube IDs for train and one for val in it"
        )
    return found


def _of_ids(layout: Layout, name: str, folder: Path, record: dict[str, Any]) -> Layout:
    wanted: dict[str, set[str]] = {}
    record["lists"] = {}
    for split in ("train", "val"):
        files = sorted(path for path in folder.glob("*.txt") if split in path.stem.lower())
        if len(files) != 1:
            names = listed([path.name for path in files]) or "none"
            raise DataError(f"the ID lists of {name} must hold one file *{split}*.txt, but {folder} has {names}")
        lines = read_lines(files[0])
        for number, line in lines:
            if len(line) != ID_LENGTH:
                raise DataError(
                    f"an ID list must hold one YouTube ID of 11 characters per line, but line {number} of {files[0]} "
                    f"is {line[:60]!r}"
                )
        wanted[split] = {line for _, line in lines}
        if name == "mini-kinetics-200" and len(wanted[split]) != _MINI[split]:
            raise DataError(
                f"mini-kinetics-200 has {_MINI['train']:,} train and {_MINI['val']:,} val IDs, but {files[0]} holds "
                f"{len(wanted[split]):,}; say ids:{folder} to take the lists as they are"
            )
        record["lists"][split] = {"ids": len(wanted[split]), "sha256": _sha256(files[0])}
    kept = _kept(layout, lambda split, video: youtube_id(video.path) in wanted.get(split, ()))
    kept = dataclasses.replace(kept, splits={split: kept.splits[split] for split in wanted if split in kept.splits})
    for split in wanted:
        there = {youtube_id(video.path) for video in kept.splits.get(split, ())}
        record["lists"][split]["missing"] = len(wanted[split] - there)
        if not there:
            raise DataError(f"none of the {len(wanted[split]):,} {split} IDs of {folder} has a video in {layout.root}")
    labels = {label for videos in kept.splits.values() for video in videos for label in video.labels or (video.label,)}
    return _of_classes(kept, [layout.classes[label] for label in sorted(labels)], where=str(folder))


def _of_classes(layout: Layout, names: Sequence[str], *, where: str) -> Layout:
    """Those classes and their videos, with labels that are indices into them, in the order of the data."""
    known = lookup(layout.classes, where="the data")
    chosen: set[int] = set()
    for name in names:
        if normal(name) not in known:
            raise unknown(name, layout.classes, where=where)
        chosen.add(known[normal(name)])
    new = {old: index for index, old in enumerate(sorted(chosen))}
    splits: dict[str, tuple[Video, ...]] = {}
    for split, videos in layout.splits.items():
        kept: list[Video] = []
        for video in videos:
            labels = tuple(new[label] for label in video.labels or (video.label,) if label in new)
            if labels:
                many = labels if layout.multi_label else ()
                kept.append(dataclasses.replace(video, label=labels[0], labels=many))
        splits[split] = tuple(kept)
    classes = tuple(layout.classes[old] for old in sorted(chosen))
    class_map = {name: layout.class_map[name] for name in classes if name in layout.class_map}
    return dataclasses.replace(layout, classes=classes, splits=splits, class_map=class_map)


def _capped(layout: Layout, caps: Mapping[str, int]) -> Layout:
    if layout.multi_label:
        raise DataError("a cap on the videos of each class needs one class a video, but the data is multi-label")
    chosen: dict[str, set[str]] = {}
    for split, videos in layout.splits.items():
        groups: dict[int, list[Video]] = {}
        for video in videos:
            groups.setdefault(video.label, []).append(video)
        drawn = (sorted(group, key=_draw)[: caps[split]] for group in groups.values())
        chosen[split] = {video.path for group in drawn for video in group}
    return _kept(layout, lambda split, video: video.path in chosen[split])


def _draw(video: Video) -> tuple[str, str]:
    name = PurePosixPath(video.path)
    stem = name.name if video.frames else name.stem
    return hashlib.sha256(stem.encode()).hexdigest(), video.path


def _kept(layout: Layout, keep: Callable[[str, Video], bool]) -> Layout:
    splits = {split: tuple(v for v in videos if keep(split, v)) for split, videos in layout.splits.items()}
    return dataclasses.replace(layout, splits=splits)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
