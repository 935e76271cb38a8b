"""Making a pack: in parallel, to be gone on with after a kill or a full disk, and complete or not there at all.

Videos are appended to `<split>.bin` in the order of the layout, and a line each to `<split>.jsonl`; a line is written
only after its frames are on the disk. Whoever packs again reads the lines, cuts the files off behind the last whole
video, and goes on. `index.json`, without which a folder is no pack, comes last and by a rename.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from trainer.data import decode
from trainer.data.digests import digests_of
from trainer.data.entries import Broken, Entry, Progress, Task, key_of, several, tasks_of
from trainer.data.kinds import FlowSettings, Input
from trainer.data.layouts import DataError, Layout, Video
from trainer.data.pack.append import Coded, SplitWriter
from trainer.data.pack.jpeg import QUALITY, encode_jpeg
from trainer.data.pack.read import FORMAT, INDEX, UNFINISHED, Coding, Packed, digest_of, open_packed, read_index
from trainer.data.sample import frames_at, spread
from trainer.data.split import write_table
from trainer.data.workers import Job, decode_task, each
from trainer.failures import DiskFull, environment_failure
from trainer.files import content_of, make_folder, part_of, sealed, write_whole


@dataclass(frozen=True, kw_only=True, slots=True)
class PackTask:
    """One video to decode and code.

    Attributes:
        task: Which, and how it is decoded.
        fps: Largest frame rate; 0 keeps all frames.
        coding: How frames are coded.
        quality: Of JPEGs.
    """

    task: Task
    fps: float
    coding: Coding
    quality: int

    @property
    def path(self) -> str:
        """The file."""
        return self.task.path


def code_video(task: PackTask) -> Coded | str:
    """Decodes a video and codes its frames; gives the reason if that fails."""
    video = decode_task(task.task)
    if isinstance(video, str):
        return video
    frames, fps = video.frames, video.fps
    if 0 < task.fps < fps:  # frames are left out, never shown twice: that would only take room
        num_seen = frames_at(len(frames), fps, task.fps)
        frames, fps = frames[spread(np.arange(num_seen), len(frames), num_seen)], fps * num_seen / len(frames)
    return coded(frames, fps, coding=task.coding, quality=task.quality)


def coded(frames: NDArray[np.uint8], fps: float, *, coding: Coding, quality: int) -> Coded:
    """Codes frames (F, H, W, C) of three planes, or of others, which then lie one below the other in a grey image."""
    count, height, width, planes = frames.shape
    if coding == "raw":
        frames = np.ascontiguousarray(frames)
        data: bytes | NDArray[np.uint8] = frames.reshape(-1)  # no second copy of a video
        digests = digests_of(frame.data for frame in frames)
    else:
        if planes != 3:
            frames = frames.transpose(0, 3, 1, 2).reshape(count, planes * height, width, 1)
        images = [encode_jpeg(frame, quality) for frame in frames]
        data = b"".join((np.array([len(image) for image in images], dtype="<u4").tobytes(), *images))
        digests = digests_of(images)
    return Coded(data=data, num_frames=count, height=height, width=width, fps=round(fps, 3), digests=digests)


def write_pack(
    layout: Layout,
    folder: str | Path,
    *,
    short_side: int,
    fps: float = 0.0,
    max_frames: int = 0,
    coding: Coding = "jpeg",
    quality: int = QUALITY,
    kind: Input = "rgb",
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Makes a pack, goes on with one that was begun, or opens it where it is complete.

    The files do not depend on the number of processes, nor on how often packing was interrupted.

    Args:
        layout: The videos.
        folder: Where the pack goes; made if absent.
        short_side: Short side of the frames, in pixels.
        fps: Frames per second at most, evenly spaced; 0 keeps all.
        max_frames: Frames of a video at most, evenly spaced; 0 keeps all.
        coding: `jpeg`, or `raw` for exact frames in about ten times the room.
        quality: Of JPEGs, 1 to 100.
        kind: `flow` for the flow that folders of frames hold.
        num_workers: Processes that decode and code; `None` takes as many as there are cores, but none for small data.
        progress: Called with (videos done, videos in all).

    Returns:
        The complete pack; sources that could not be decoded are in its `broken`.

    Raises:
        DataError: As `write_files`.
    """
    settings = packing_of(
        short_side=short_side, fps=fps, max_frames=max_frames, coding=coding, quality=quality, kind=kind
    )
    tasks = [
        PackTask(task=task, fps=fps, coding=coding, quality=quality)
        for task in tasks_of(layout, short_side, max_frames, kind)
    ]
    write_files(layout, folder, settings, tasks, code_video, num_workers=num_workers, progress=progress)
    return open_packed(folder)


def packing_of(
    *,
    short_side: int,
    fps: float = 0.0,
    max_frames: int = 0,
    coding: Coding = "jpeg",
    quality: int = QUALITY,
    kind: Input = "rgb",
) -> dict[str, Any]:
    """What is done to videos that are packed, as JSON values; the arguments are those of `write_pack`."""
    settings: dict[str, Any] = {"short_side": short_side, "fps": fps, "max_frames": max_frames, "coding": coding}
    settings |= {"quality": quality if coding == "jpeg" else 0, "backend": decode.backend()}
    settings |= {"decode": decode.VERSION, "format": FORMAT}
    return settings | ({"flow": asdict(FlowSettings(method="images"))} if kind == "flow" else {})


def write_files(
    layout: Layout,
    folder: str | Path,
    settings: Mapping[str, Any],
    tasks: Sequence[Job],
    function: Callable[[Job], Coded | str],
    *,
    num_workers: int | None = None,
    progress: Progress | None = None,
    cached: str = "",
) -> None:
    """Makes the files of a pack, or goes on with them; does nothing where they are complete.

    Args:
        layout: The videos.
        folder: Where the files go; made if absent.
        settings: What is done to the videos, as JSON values.
        tasks: One a video, in the order of the layout.
        function: What is done with a task; importable, since other processes run it. Gives a reason where it fails.
        num_workers: As in `write_pack`.
        progress: Called with (videos done, videos in all).
        cached: The key of a pack of `data.cache`, whose folder no other process uses; of raw frames, its checksum is of
            the frames (`FramesChecksum`).

    Raises:
        ChangedError: What an earlier attempt has left in the cache is not what it has written.
        DataError: The folder holds something else, another process packs into it, or it cannot be written, or the disk
            is full; what is packed then stays, and the same call goes on from it.
    """
    folder = Path(folder)
    splits: dict[str, SplitWriter] = {}
    total = sum(len(videos) for videos in layout.splits.values())
    frames = FramesChecksum(layout) if cached and settings["coding"] == "raw" else None
    what = "data.cache" if cached else "a pack"
    try:
        key = cached or key_of(layout, settings)
        make_folder(folder)
        with contextlib.nullcontext() if cached else _locked(folder):
            if (folder / INDEX).exists():
                _check_same(folder, read_index(folder), key, settings)
                return
            _begin(folder, key, settings)
            try:
                for name, videos in layout.splits.items():
                    splits[name] = SplitWriter(folder, name, key, videos)
                rest = {name: videos[len(splits[name].lines) :] for name, videos in layout.splits.items()}
                todo: list[Job] = []
                first = 0
                for name, videos in layout.splits.items():
                    todo += tasks[first + len(splits[name].lines) : first + len(videos)]
                    first += len(videos)
                done = total - len(todo)
                with contextlib.closing(each(todo, function, num_workers=num_workers)) as results:
                    for name, videos in rest.items():
                        if frames is not None:
                            frames.add_written(folder / f"{name}.bin", splits[name].lines)
                        for video in videos:
                            result = next(results)
                            if frames is not None and not isinstance(result, str):
                                frames.add(video, result)
                            splits[name].add(video, result)
                            done += 1
                            if progress is not None:
                                progress(done, total)
                        splits[name].flush()
            finally:
                for writer in splits.values():
                    writer.close()
            _finish(folder, key, settings, layout, splits, None if frames is None else frames.text)
    except OSError as error:
        if isinstance(environment_failure(error), DiskFull):
            kept = sum(len(writer.lines) for writer in splits.values())
            other = " (or choose another data.cache)" if cached else ""
            raise DataError(
                f"{what} must have room, but {folder} is full after {kept} of {total} videos; free space{other} and run"
                " the same command again: it goes on from there"
            ) from error
        place, reason = error.filename or folder, error.strerror or error
        raise DataError(f"{what} must be a folder that can be written, but using {place} failed: {reason}") from error


class ChangedError(DataError):
    """What an earlier attempt has left of a pack is not what it has written."""


class FramesChecksum:
    """SHA-256 over classes, paths, labels, sizes and raw frames: the same wherever the same frames are decoded."""

    def __init__(self, layout: Layout) -> None:
        """No video yet."""
        self._digest = hashlib.sha256(json.dumps(layout.classes).encode())

    @property
    def text(self) -> str:
        """In hexadecimal digits."""
        return self._digest.hexdigest()

    def add(self, video: Video, coded: Coded) -> None:
        """Adds the next video."""
        self._name(video.path, video.label, coded.num_frames, coded.height, coded.width, *several(video.labels))
        self._digest.update(coded.buffer)

    def add_written(self, file: Path, lines: Sequence[Mapping[str, Any]]) -> None:
        """Adds the videos that an earlier attempt has written.

        Args:
            file: Of the frames.
            lines: Of `SplitWriter`.

        Raises:
            ChangedError: They are not what the lines say.
            OSError: The file cannot be read.
        """
        if not lines:
            return
        with file.open("rb") as data:
            for line in lines:
                if "reason" in line:
                    continue
                try:
                    sizes = (line["num_frames"], line["height"], line["width"])
                    self._name(line["path"], line["label"], *sizes, *several(tuple(line.get("labels", ()))))
                    data.seek(line["offset"])
                    left, written = line["bytes"], line["sha256"]
                except (KeyError, TypeError, ValueError) as error:
                    raise ChangedError(f"a line of {file.with_suffix('.jsonl')} is damaged") from error
                own = hashlib.sha256()
                while left and (part := data.read(min(left, 2**20))):
                    self._digest.update(part)
                    own.update(part)
                    left -= len(part)
                if left or own.hexdigest() != written:
                    raise ChangedError(f"{line['path']} in {file} is not as it was written")

    def _name(self, *facts: object) -> None:
        self._digest.update(json.dumps(facts).encode())


_LOCK = ".lock"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(f"one process must make a pack, but another one is packing into {folder}") from error
    try:
        yield
    finally:
        lock.release()


def _check_same(folder: Path, kept: dict[str, Any], key: str, settings: Mapping[str, Any]) -> None:
    """Raises DataError where what is in the folder was made from other videos or with other settings."""
    if kept.get("key") == key:
        return
    old = kept.get("settings")
    differ = [name for name in settings if isinstance(old, dict) and old.get(name) != settings[name]]
    what = ", ".join(f"{name} {old[name]} instead of {settings[name]}" for name in differ if old and name in old)
    raise DataError(
        f"a folder must hold one pack, but {folder} holds one of {what or 'other videos, or of others by now'};"
        " give another folder, or remove this one"
    )


def _begin(folder: Path, key: str, settings: Mapping[str, Any]) -> None:
    note = folder / UNFINISHED
    try:
        _check_same(folder, json.loads(content_of(note)), key, settings)
    except (FileNotFoundError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        ours = (_LOCK, UNFINISHED, part_of(note).name)  # the last one of an attempt that was killed while it began
        strange = sorted(path.name for path in folder.iterdir() if path.name not in ours)
        if strange:
            raise DataError(
                f"a pack must go into a folder of its own, but {folder} holds {', '.join(strange[:3])}; give another"
            ) from error
        write_whole(note, json.dumps({"format": FORMAT, "key": key, "settings": settings}).encode())


def _finish(
    folder: Path,
    key: str,
    settings: Mapping[str, Any],
    layout: Layout,
    splits: dict[str, SplitWriter],
    checksum: str | None,
) -> None:
    digest = hashlib.sha256(json.dumps(layout.classes).encode())
    facts: dict[str, dict[str, Any]] = {}
    broken: list[Broken] = []
    for name, writer in splits.items():
        entries: list[Entry] = []
        for line in writer.lines:
            if "reason" in line:
                broken.append(Broken(path=line["path"], reason=line["reason"]))
                continue
            values = {field: line[field] for field in ("path", "label", "num_frames", "height", "width", "fps")}
            digested = bool(line.get("digested"))  # not in the lines of an earlier version
            labels = tuple(line.get("labels", ()))
            entries.append(Entry(**values, offset=line["offset"], labels=labels, digested=digested))
            digest.update(json.dumps([*values.values(), line.get("labels"), line["sha256"]]).encode())
        table = folder / f"{name}.npy"
        write_table(table, entries)
        facts[name] = {"videos": len(entries), "bytes": writer.end, "table": digest_of(table)}
    index = {
        "format": FORMAT,
        "key": key,
        "settings": settings,
        "classes": layout.classes,
        "multi_label": layout.multi_label,
        "definition": layout.definition,
        "checksum": checksum or digest.hexdigest(),
        "splits": facts,
        "broken": [asdict(one) for one in broken],
    }
    write_whole(folder / INDEX, json.dumps(sealed(index), indent=1).encode())
    (folder / UNFINISHED).unlink(missing_ok=True)
