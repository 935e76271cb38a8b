"""The cache: every video decoded once, as raw bytes that training processes map into memory.

`CACHE/<key>/` holds one `<split>.bin` a split, the frames of its videos (RGB, or flow) back to back, those of each
video behind their digests (`trainer.data.digests`), and `index.json`, which says where each video starts. The key is a
hash of what went in: the paths below the root, sizes and times of modification of the files, and how they were decoded;
other inputs make another folder. Sizes and times are what make, rsync and git go by: reading hundreds of gigabytes at
each start only to learn that nothing changed would cost more than it brings. A copy of the data on another disk has
other times, and is packed again; the checksum that is *recorded* is one of the frames themselves, so it is the same
there.

A folder appears under its key by one rename, when it is complete, so neither a crash nor a second process
that packs the same data can leave a half-written one behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from trainer.data import decode
from trainer.data.digests import digests_of
from trainer.data.entries import Broken, Entry, Progress, key_of, several, tasks_of
from trainer.data.kinds import PLANES, Input
from trainer.data.layouts import DataError, Layout, Video
from trainer.data.workers import Result, decode_all
from trainer.files import is_as_written, make_folder, regular_file, sealed


@contextlib.contextmanager
def new_part(folder: Path) -> Iterator[Path]:
    """Makes a folder to be renamed once it is complete; what is still there at the end of the block is removed.

    Args:
        folder: Where it is made.

    Raises:
        OSError: It cannot be made.
    """
    part = folder / f".{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.part"
    part.mkdir()
    handle = os.open(part, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        os.close(handle)


def sweep(folder: Path) -> None:
    """Removes what processes of this machine that no longer live left half written."""
    host = socket.gethostname()
    for part in folder.glob(f".{host}.*.part"):
        pid = part.name.removeprefix(f".{host}.").split(".")[0]
        if pid.isdigit() and not _alive(int(pid)) and not _held(part):
            remove(part)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it, as far as that can be done."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _held(part: Path) -> bool:
    """Whether a process holds a folder: the number of one in another container of this machine says nothing here."""
    try:
        handle = os.open(part, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


FORMAT = 1
"""Raised whenever the files of the cache change their form."""

_INDEX = "index.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """A complete cache folder.

    Attributes:
        folder: Where it is.
        classes: Names of the classes.
        splits: Decoded videos of each split, in the order of the layout.
        broken: Videos that could not be decoded.
        checksum: SHA-256 over classes, paths, labels, shapes and frames.
        backend: What decoded them.
        multi_label: Whether a video may have several classes, or none.
        kind: `flow`, or `rgb` for what shows RGB or differences of it.
    """

    folder: Path
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Entry, ...]]
    broken: tuple[Broken, ...]
    checksum: str
    backend: str
    multi_label: bool = False
    kind: Input = "rgb"

    @property
    def planes(self) -> int:
        """Planes of a frame, C."""
        return PLANES[self.kind]

    def file(self, split: str) -> Path:
        """Path of the frames of a split."""
        return self.folder / f"{split}.bin"


def pack(
    layout: Layout,
    cache: str | Path,
    *,
    short_side: int,
    max_frames: int = 0,
    kind: Input = "rgb",
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> Pack:
    """Opens the cache of a data set, and makes it first where there is none or a damaged one.

    Args:
        layout: The videos.
        cache: Folder of all caches.
        short_side: Short side of the decoded frames, in pixels.
        max_frames: Largest number of frames kept of a video; 0 keeps all.
        kind: `flow` for the flow that folders of frames hold.
        num_workers: Processes that decode; `None` takes as many as there are cores, but none for small data.
        progress: Called with (videos done, videos in all) while decoding.

    Returns:
        The opened cache.

    Raises:
        DataError: The cache cannot be read or written.
    """
    cache = Path(cache)
    settings = _settings(short_side, max_frames, kind)
    try:
        key = key_of(layout, settings)
        folder = cache / key
        found = _open(folder, key)
        if found is not None:
            return found
        make_folder(cache)
        sweep(cache)
        with new_part(cache) as part:
            results = decode_all(tasks_of(layout, short_side, max_frames, kind), num_workers=num_workers)
            _write(part, key, layout, settings, results=results, progress=progress)
            _publish(part, folder, key)
        found = _open(folder, key)
    except OSError as error:
        place, reason = error.filename or cache, error.strerror or error
        raise DataError(
            f"data.cache must be a folder that can be written and has room, but using {place} failed:"
            f" {reason}; free space or choose another data.cache"
        ) from error
    if found is None:
        raise DataError(f"data.cache must keep what is written, but {folder} is damaged right after packing")
    return found


def open_cache(
    layout: Layout, cache: str | Path, short_side: int, max_frames: int = 0, kind: Input = "rgb"
) -> Pack | None:
    """Opens the cache that `pack` made; None where there is none, or a damaged one.

    Raises:
        OSError: A video cannot be looked at.
    """
    key = key_of(layout, _settings(short_side, max_frames, kind))
    return _open(Path(cache) / key, key)


def _settings(short_side: int, max_frames: int, kind: Input) -> dict[str, Any]:
    settings = {"short_side": short_side, "max_frames": max_frames, "backend": decode.backend()}
    return settings | {"decode": decode.VERSION, "format": FORMAT} | ({"input": kind} if kind != "rgb" else {})


def _write(
    part: Path,
    key: str,
    layout: Layout,
    settings: Mapping[str, Any],
    *,
    results: Generator[Result, None, None],
    progress: Progress | None,
) -> None:
    """Writes the files of all splits, and the index last."""
    total = sum(len(videos) for videos in layout.splits.values())
    digest = hashlib.sha256(json.dumps(layout.classes).encode())
    splits: dict[str, list[dict[str, Any]]] = {}
    broken: list[Broken] = []
    done = 0
    with contextlib.closing(results):
        for split, videos in layout.splits.items():
            entries: list[Entry] = []
            with (part / f"{split}.bin").open("wb") as file:
                for video in videos:
                    result = next(results)
                    if isinstance(result, str):
                        broken.append(Broken(path=video.path, reason=result))
                    else:
                        entries.append(_append(file, video, result, digest))
                    done += 1
                    if progress is not None:
                        progress(done, total)
                _flush(file)
            splits[split] = [_plain(entry) for entry in entries]
    index = {
        "format": FORMAT,
        "key": key,
        "settings": settings,
        "classes": layout.classes,
        "checksum": digest.hexdigest(),
        "splits": splits,
        "broken": [asdict(one) for one in broken],
    }
    if layout.multi_label:
        index["multi_label"] = True
    with (part / _INDEX).open("wb") as file:
        file.write(json.dumps(sealed(index)).encode())
        _flush(file)


def _append(file: BinaryIO, video: Video, decoded: decode.Decoded, digest: Any) -> Entry:
    num_frames, height, width, _ = decoded.frames.shape
    digests = digests_of(frame.data for frame in decoded.frames)
    file.write(digests)
    entry = Entry(
        path=video.path,
        label=video.label,
        num_frames=num_frames,
        height=height,
        width=width,
        offset=file.tell(),
        fps=round(decoded.fps, 3),
        labels=video.labels,
        digested=bool(digests),
    )
    digest.update(json.dumps([video.path, video.label, num_frames, height, width, *several(video.labels)]).encode())
    digest.update(decoded.frames)
    file.write(decoded.frames.data)
    return entry


def _flush(file: BinaryIO) -> None:
    # Onto the disk, so that after a power cut the rename cannot be there without the bytes.
    file.flush()
    os.fsync(file.fileno())


def _publish(part: Path, folder: Path, key: str) -> None:
    """Renames a complete folder to its key, unless another process has done so in the meantime."""
    if folder.exists() and _open(folder, key) is None:
        aside = part.with_suffix(".old.part")
        with contextlib.suppress(FileNotFoundError):
            folder.rename(aside)
        remove(aside)
    try:
        part.rename(folder)
    except OSError:
        if _open(folder, key) is None:
            raise


def _open(folder: Path, key: str) -> Pack | None:
    """Reads the index of a cache folder; None if there is none, or it does not fit the files beside it."""
    try:
        with regular_file(folder / _INDEX) as file:
            index = json.load(file)
        if index["format"] != FORMAT or index["key"] != key or not is_as_written(index):
            return None
        splits = {split: tuple(_entry(one) for one in entries) for split, entries in index["splits"].items()}
        found = Pack(
            folder=folder,
            classes=tuple(index["classes"]),
            splits=splits,
            broken=tuple(Broken(**one) for one in index["broken"]),
            checksum=str(index["checksum"]),
            backend=str(index["settings"]["backend"]),
            multi_label=bool(index.get("multi_label", False)),
            kind=index["settings"].get("input", "rgb"),
        )
        complete = all(
            found.file(split).stat().st_size
            == sum(entry.num_bytes(found.planes) + entry.digest_bytes for entry in entries)
            for split, entries in splits.items()
        )
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found if complete else None


def _plain(entry: Entry) -> dict[str, Any]:
    values = asdict(entry)
    for name in ("labels", "digested"):
        if not values[name]:
            del values[name]
    return values


def _entry(values: Mapping[str, Any]) -> Entry:
    return Entry(**{**values, "labels": tuple(values.get("labels", ()))})
