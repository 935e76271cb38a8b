"""What is kept below `data.cache` of videos: packs that are made once, and never seen half made.

`CACHE/<key>.frames/` is a raw pack (`trainer.data.pack.read`) of every decoded frame, `CACHE/<key>.times/` one of the
times of frames (`trainer.data.direct`). The key is a hash of what went in: the paths below the root, sizes and times of
modification of the files, and how they were decoded; other inputs make another folder. Sizes and times are what make,
rsync and git go by: reading hundreds of gigabytes at each start only to learn that nothing changed would cost more than
it brings. A copy of the data on another disk has other times, and is decoded again; the checksum that is *recorded* is
one of the frames themselves, so it is the same there.

Each process makes a pack in a folder of its own, which appears under its key by one rename, when it is complete: so
nothing depends on locks, which many file systems of clusters lack, and a training that runs on a damaged cache goes on
while another process makes it anew. What a process that was killed has left is gone on with by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.data.digests import FRAMES
from trainer.data.entries import Progress, key_of, tasks_of
from trainer.data.kinds import Input
from trainer.data.layouts import DataError, Layout
from trainer.data.pack.append import Coded
from trainer.data.pack.read import INDEX, UNFINISHED, Packed, open_packed
from trainer.data.pack.write import ChangedError, PackTask, code_video, packing_of, write_files
from trainer.data.workers import Job
from trainer.files import content_of, make_folder

# What says that a folder or a file is not there, or is something else: all other failures may be over in a moment.
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)


def frames_folder(layout: Layout, cache: str | Path, short_side: int, max_frames: int = 0, kind: Input = "rgb") -> Path:
    """Where `open_frames` keeps what it has decoded.

    Raises:
        DataError: A video cannot be looked at.
    """
    settings = packing_of(short_side=short_side, max_frames=max_frames, coding="raw", kind=kind)
    return folder_of(layout, cache, settings, FRAMES)


def open_frames(
    layout: Layout,
    cache: str | Path,
    *,
    short_side: int,
    max_frames: int = 0,
    kind: Input = "rgb",
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Opens the decoded frames of a data set, and decodes them first where there are none or damaged ones.

    Args:
        layout: The videos.
        cache: Folder of all caches.
        short_side: Short side of the decoded frames, in pixels.
        max_frames: Largest number of frames kept of a video; 0 keeps all.
        kind: `flow` for the flow that folders of frames hold.
        num_workers: Processes that decode; `None` takes as many as there are cores, but none for small data.
        progress: Called with (videos done, videos in all) while decoding.

    Returns:
        The pack. Its checksum is of classes, paths, labels, sizes and decoded frames.

    Raises:
        DataError: As `opened`.
    """
    tasks = tasks_of(layout, short_side, max_frames, kind)
    return opened(
        layout,
        frames_folder(layout, cache, short_side, max_frames, kind),
        packing_of(short_side=short_side, max_frames=max_frames, coding="raw", kind=kind),
        [PackTask(task=task, fps=0.0, coding="raw", quality=0) for task in tasks],
        code_video,
        num_workers=num_workers,
        progress=progress,
    )


def folder_of(layout: Layout, cache: str | Path, settings: Mapping[str, Any], ending: str) -> Path:
    """The folder of a cache for some videos and what is done to them.

    Raises:
        DataError: A video cannot be looked at.
    """
    try:
        return Path(cache) / f"{key_of(layout, settings)}{ending}"
    except OSError as error:
        raise DataError(f"data.root must be readable, but reading {error.filename} failed: {error.strerror}") from error


def opened(
    layout: Layout,
    folder: Path,
    settings: Mapping[str, Any],
    tasks: Sequence[Job],
    function: Callable[[Job], Coded | str],
    *,
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Opens a folder of the cache, and makes it first where there is none, or a damaged one.

    Args:
        layout: The videos.
        folder: As `folder_of` gives it.
        settings: What is done to the videos, as JSON values.
        tasks: As in `write_files`.
        function: As there.
        num_workers: As there.
        progress: As there.

    Raises:
        DataError: The cache cannot be read or written, or the disk is full; what was made then is gone on with.
    """
    key = folder.stem
    found = _complete(folder, key)
    if found is not None:
        return found
    try:
        make_folder(folder.parent)
        for _ in range(2):
            with new_part(folder.parent, key) as part, contextlib.suppress(ChangedError):
                write_files(
                    layout, part, settings, tasks, function, num_workers=num_workers, progress=progress, cached=key
                )
                _publish(part, folder, key)
                break
            remove(part)  # what an earlier process left in it has changed since
        sweep(folder.parent)
    except OSError as error:
        place, reason = error.filename or folder.parent, error.strerror or error
        raise DataError(
            f"data.cache must be a folder that can be written, but using {place} failed: {reason}; choose another one"
        ) from error
    found = _complete(folder, key)
    if found is None:
        raise DataError(f"data.cache must keep what is written, but {folder} is damaged right after it was made")
    return found


def _complete(folder: Path, key: str) -> Packed | None:
    """The pack of a folder; None where it is absent, damaged, or made from something else.

    Raises:
        DataError: It cannot be read now, and may be whole.
    """
    try:
        found = open_packed(folder)
    except DataError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno not in _ABSENT:
            raise DataError(
                f"data.cache must be readable, but reading {cause.filename or folder} failed: {cause.strerror}"
            ) from cause
        return None
    return found if found.key == key else None


def _publish(part: Path, folder: Path, key: str) -> None:
    """Renames a complete folder to its name, unless another process has done so in the meantime."""
    if os.path.lexists(folder) and _complete(folder, key) is None:
        aside = part.with_suffix(".old.part")
        with contextlib.suppress(FileNotFoundError):
            folder.rename(aside)
        remove(aside)
    try:
        part.rename(folder)
    except OSError:
        if _complete(folder, key) is None:
            raise


@contextlib.contextmanager
def new_part(cache: Path, key: str) -> Iterator[Path]:
    """A folder to be renamed once it is complete, which no other process uses.

    It is that of a process that ended before the same pack was complete, where there is one. It stays where the block
    ends by an exception, so that the next one goes on with it.

    Args:
        cache: Where it is.
        key: Of what is made in it.

    Raises:
        OSError: It cannot be made.
    """
    part = cache / f".{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.part"
    for left in _left(cache):
        if _key_in(left) == key:
            with contextlib.suppress(OSError):  # another process was quicker
                left.rename(part)
                break
    part.mkdir(exist_ok=True)
    handle = os.open(part, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield part
        remove(part)
    finally:
        os.close(handle)


def sweep(cache: Path) -> None:
    """Removes what processes of this machine that no longer live left half made."""
    for part in _left(cache):
        remove(part)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it, as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _left(cache: Path) -> list[Path]:
    """What processes of this machine that no longer live, or this one before, left half made."""
    host = socket.gethostname()
    found = []
    for part in sorted(cache.glob(f".{host}.*.part")):
        pid = part.name.removeprefix(f".{host}.").split(".")[0]
        if not pid.isdigit():
            continue
        held = _held(part)
        # Of its own folders, a process knows by the lock alone that no other thread of it writes there.
        if held is False if int(pid) == os.getpid() else not held and not _alive(int(pid)):
            found.append(part)
    return found


def _key_in(part: Path) -> str | None:
    """What was to be made in a folder; None where it says nothing that can be gone on with."""
    try:
        note = json.loads(content_of(part / UNFINISHED))
    except (OSError, ValueError, RecursionError):
        return None
    return note.get("key") if isinstance(note, dict) and not (part / INDEX).exists() else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _held(part: Path) -> bool | None:
    """Whether a process holds a folder (the number of one in another container says nothing here); None if unknown."""
    try:
        handle = os.open(part, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    return False
