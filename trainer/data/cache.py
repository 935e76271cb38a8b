"""The cache: every video decoded once, as a raw pack that training processes map into memory.

`CACHE/<key>.frames/` is a pack (`trainer.data.pack.read`). The key is a hash of what went in: the paths below the root,
sizes and times of modification of the files, and how they were decoded; other inputs make another folder. Sizes and
times are what make, rsync and git go by: reading hundreds of gigabytes at each start only to learn that nothing changed
would cost more than it brings. A copy of the data on another disk has other times, and is decoded again; the checksum
that is *recorded* is one of the frames themselves, so it is the same there.

A cache that is damaged is made again, one whose making was cut off goes on from there. Of processes that start on the
same data at once, one decodes while the others wait.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from trainer.data.entries import Progress, key_of, tasks_of
from trainer.data.kinds import Input
from trainer.data.layouts import DataError, Layout
from trainer.data.pack.read import Packed, open_packed
from trainer.data.pack.write import PackTask, code_video, packing_of, write_files


def frames_folder(layout: Layout, cache: str | Path, short_side: int, max_frames: int = 0, kind: Input = "rgb") -> Path:
    """Where `open_frames` keeps what it has decoded.

    Raises:
        DataError: A video cannot be looked at.
    """
    settings = packing_of(short_side=short_side, max_frames=max_frames, coding="raw", kind=kind)
    try:
        return Path(cache) / f"{key_of(layout, settings)}.frames"
    except OSError as error:
        raise DataError(f"data.root must be readable, but reading {error.filename} failed: {error.strerror}") from error


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
        DataError: A video cannot be looked at, or the cache cannot be read or written.
    """
    folder = frames_folder(layout, cache, short_side, max_frames, kind)
    with suppress(DataError):
        return open_packed(folder)
    write_files(
        layout,
        folder,
        packing_of(short_side=short_side, max_frames=max_frames, coding="raw", kind=kind),
        [
            PackTask(task=task, fps=0.0, coding="raw", quality=0)
            for task in tasks_of(layout, short_side, max_frames, kind)
        ],
        code_video,
        num_workers=num_workers,
        progress=progress,
        cache=True,
    )
    return open_packed(folder)
