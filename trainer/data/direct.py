"""Frames straight from video files: only those that a clip needs are decoded.

A first pass over each file, without decoding, remembers when each frame is shown and where decoding can begin (below
`data.cache`, in the form of a pack). A clip then seeks to the key frame before its first frame, and every frame is
recognised by its time: so frame 17 is the very frame that is the 17th when the whole file is decoded, with B-frames
and variable frame rates too. Where the times of a file do not tell its frames apart, or a decoder does not give what
they promise, the file is decoded from its start and frames are counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from numpy.typing import NDArray

from trainer.data import decode
from trainer.data.cache import folder_of, opened
from trainer.data.decode import DecodeError, Scaler, frames_of, open_video, reasons, video_stream
from trainer.data.digests import TIMES, DamagedError, check_bytes, digests_before, digests_of
from trainer.data.entries import Entry, Progress, Task, tasks_of
from trainer.data.folders import FlowImages, scan_flow
from trainer.data.kinds import FlowSettings, Input
from trainer.data.layouts import Layout
from trainer.data.length import frames_in, lack_of
from trainer.data.pack.append import Coded
from trainer.data.pack.read import FORMAT, Packed
from trainer.data.sample import spread
from trainer.data.split import Reader, TableSplit, VideoTable

if TYPE_CHECKING:
    from trainer.data.augment import Box

# Frames that are sooner decoded than sought past: after a jump the decoder has to fill its queue again.
_NEAR = 8


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Times:
    """What is remembered of a file.

    Attributes:
        num_frames: Frames, F.
        width: Columns of a decoded frame before it is turned upright.
        height: Its rows.
        shown: (F,) when each frame is shown, ascending, in units of the stream; empty where times cannot be trusted.
        keys: (K,) when the key frames are shown, ascending.
        seeks: (K,) when their packets are to be decoded, which is no later.
    """

    num_frames: int
    width: int
    height: int
    shown: NDArray[np.int64]
    keys: NDArray[np.int64]
    seeks: NDArray[np.int64]

    def data(self, digest: bytes) -> bytes:
        """The values as bytes, behind a checksum of the file."""
        sizes = (self.num_frames, self.width, self.height, len(self.shown), len(self.keys))
        parts = (np.array(sizes, dtype="<i8"), self.shown, self.keys, self.seeks)
        return digest + b"".join(part.astype("<i8").tobytes() for part in parts)


_DIGEST_BYTES = 32


def times_of(data: NDArray[np.uint8], digest: np.uint32 | None = None) -> Times:
    """The values that `Times.data` wrote; what follows them is passed over.

    Args:
        data: The bytes.
        digest: What they are held to.

    Raises:
        DamagedError: They are not as they were written.
    """
    numbers = data[_DIGEST_BYTES : _DIGEST_BYTES + (len(data) - _DIGEST_BYTES) // 8 * 8].view("<i8")
    count, width, height, shown, keys = numbers[:5].tolist()
    if not 0 <= shown + 2 * keys <= len(numbers) - 5 or min(shown, keys) < 0:
        raise DamagedError("what is remembered of it is damaged: it has no bytes")
    edges = np.cumsum([5, shown, keys, keys])
    if digest is not None:
        check_bytes(data[: _DIGEST_BYTES + 8 * int(edges[-1])], digest, "what is remembered of it")
    parts = [numbers[low:high] for low, high in pairwise(edges.tolist())]
    return Times(num_frames=count, width=width, height=height, shown=parts[0], keys=parts[1], seeks=parts[2])


def scan_video(task: Task) -> Coded | str:
    """Looks through a file without decoding it but for its first frame; gives the reason if it cannot be used."""
    try:
        with reasons():
            if Path(task.path).is_dir():
                raise DecodeError("a folder of images is no video file; pack the data, or take data.source=cache")
            return _scan(task)
    except DecodeError as error:
        return str(error)


def _scan(task: Task) -> Coded:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    scale = Scaler(task.short_side)
    first: Any = None
    shape: tuple[int, ...] = ()
    packets: list[tuple[int | None, int | None, bool]] = []
    doubtful = False
    with open_video(task.path) as container:
        stream = video_stream(container)
        rate = stream.average_rate or stream.guessed_rate
        # The decoder of AVI gets no times to carry through the reordering of frames.
        doubtful = "avi" in container.format.name and stream.codec_context.name in ("h264", "hevc")
        for packet in container.demux(stream):
            if packet.size:
                digest.update(packet)
                held = frames_in(packet, stream.codec_context.name)
                if held:
                    packets.append((packet.pts, packet.dts, packet.is_keyframe))
                doubtful |= held > 1 or packet.is_discard or packet.is_corrupt
            if first is None:
                first = next(iter(packet.decode()), None)
                if first is not None:
                    shape = scale(first).shape
        if first is None or scale.size is None:
            raise DecodeError("the video stream has no frame")
        shown = np.array(sorted({pts for pts, _, _ in packets if pts is not None}), dtype=np.int64)
        doubtful |= len(shown) < len(packets) or not packets[0][2] or first.pts != shown[0]
        first_time, last_time = (float(shown[at] * stream.time_base) if len(shown) else None for at in (0, -1))
        lack = lack_of(task.path, container, stream, len(packets), first_time, last_time)
    total = len(packets)
    if doubtful:
        total, lack = _counted(task.path)
        shown = np.zeros(0, dtype=np.int64)
    if lack:
        raise DecodeError(lack)
    keys = sorted((pts, pts if dts is None else dts) for pts, dts, key in packets if key and pts is not None)
    places = np.array(keys if len(shown) else [], dtype=np.int64).reshape(-1, 2)
    width, height = scale.size
    times = Times(num_frames=total, width=width, height=height, shown=shown, keys=places[:, 0], seeks=places[:, 1])
    kept = min(total, task.max_frames) if task.max_frames else total
    fps = round(float(rate) * kept / total, 3) if rate else 0.0
    data = times.data(digest.digest())
    return Coded(data=data, num_frames=kept, height=shape[0], width=shape[1], fps=fps, digests=digests_of([data]))


def _counted(path: str) -> tuple[int, str]:
    """Frames of a file, and what it lacks, by decoding it."""
    first = last = None
    total = 0
    with open_video(path) as container:
        stream = video_stream(container)
        for frame in frames_of(container, stream):
            total += 1
            last = frame.time
            first = last if total == 1 else first
        return total, lack_of(path, container, stream, total, first, last)


def read_frames(path: str | Path, numbers: Sequence[int], times: Times) -> dict[int, NDArray[np.uint8]]:
    """Decodes some frames of a file.

    Args:
        path: The file.
        numbers: Numbers of the frames, ascending, each once.
        times: What is remembered of the file.

    Returns:
        The frames (H, W, 3), upright, by their numbers.

    Raises:
        DecodeError: The file is damaged, or has not the frames that `times` promises.
    """
    with reasons():
        found: dict[int, NDArray[np.uint8]] | None = None
        if len(times.shown):
            try:
                found = _sought(path, numbers, times)
            except av.FFmpegError:
                found = None  # a damaged place on the way, or a file that cannot be sought in
        return _from_start(path, numbers, times) if found is None else found


def _sought(path: str | Path, numbers: Sequence[int], times: Times) -> dict[int, NDArray[np.uint8]] | None:
    """As `read_frames`, by seeking; None where a frame does not come at its time."""
    scale = Scaler(0, (times.width, times.height))
    wanted = [int(times.shown[number]) for number in numbers]
    key_of_frame = np.searchsorted(times.keys, wanted, side="right") - 1
    found: dict[int, NDArray[np.uint8]] = {}
    with open_video(path) as container:
        stream = video_stream(container)
        while len(found) < len(numbers):
            key = int(key_of_frame[len(found)])
            if key < 0:
                return None
            # To the time of the key frame; where that leads past it (AVI counts in another way), to that of its packet,
            # which lies before: MP4 and Matroska would then begin a whole group of pictures too early.
            for place in (times.keys[key], times.seeks[key]):
                container.seek(int(place), stream=stream, backward=True)
                if _run(container, stream, scale, numbers, times, wanted, key_of_frame, found):
                    break
            else:
                return None
    return found


def _run(
    container: Any,
    stream: Any,
    scale: Scaler,
    numbers: Sequence[int],
    times: Times,
    wanted: Sequence[int],
    key_of_frame: NDArray[np.int64],
    found: dict[int, NDArray[np.uint8]],
) -> bool:
    """Decodes on from where the container stands, until all is found or a jump is shorter; False if a frame lacks."""
    last: int | None = None
    for frame in frames_of(container, stream):
        if frame.pts is None or (last is not None and frame.pts <= last):
            return False
        last = frame.pts
        target = wanted[len(found)]
        if last > target:
            return False
        if last < target:
            continue
        found[numbers[len(found)]] = scale(frame)
        if len(found) == len(numbers):
            return True
        ahead = int(times.keys[key_of_frame[len(found)]])
        if np.searchsorted(times.shown, ahead) - np.searchsorted(times.shown, last) > _NEAR:
            return True
    return False


def _from_start(path: str | Path, numbers: Sequence[int], times: Times) -> dict[int, NDArray[np.uint8]]:
    """As `read_frames`, by counting."""
    scale = Scaler(0, (times.width, times.height))
    wanted = set(numbers)
    found: dict[int, NDArray[np.uint8]] = {}
    with open_video(path) as container:
        for number, frame in enumerate(frames_of(container, video_stream(container))):
            if number in wanted:
                found[number] = scale(frame)
                if len(found) == len(wanted):
                    return found
    raise DecodeError(f"cut off: frame {max(wanted)} of {times.num_frames} is missing")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sought:
    """Decodes frames anew whenever they are read; see `trainer.data.split.Reader`.

    Attributes:
        root: Folder that all paths start from.
    """

    root: Path

    def __call__(
        self, data: NDArray[np.uint8], entry: Entry, numbers: NDArray[np.int64], box: Box
    ) -> NDArray[np.uint8]:
        """Gives a part of some frames (T, box.height, box.width, 3).

        Raises:
            DamagedError: What is remembered of it is damaged.
            DecodeError: The file is damaged or gone, or its frames have not the size or number that they had. A file in
                whose place there is another one like it is noticed at the next start only.
        """
        rows, columns = box.slices
        digest = digests_before(data, entry.offset, 1)[0] if entry.digested else None
        times = times_of(data[entry.offset :], digest)
        actual = spread(numbers, times.num_frames, entry.num_frames)  # where data.max_frames leaves some out
        frames = read_frames(self.root / entry.path, np.unique(actual).tolist(), times)
        if any(frame.shape[:2] != (entry.height, entry.width) for frame in frames.values()):
            raise DecodeError("the size of its frames is not what it was")
        return np.stack([frames[number][rows, columns] for number in actual.tolist()])


def times_folder(layout: Layout, cache: str | Path, short_side: int, max_frames: int = 0, kind: Input = "rgb") -> Path:
    """Where `open_times` keeps what it has seen.

    Raises:
        DataError: A video cannot be looked at.
    """
    return folder_of(layout, cache, _settings(short_side, max_frames, kind), TIMES)


def _settings(short_side: int, max_frames: int, kind: Input) -> dict[str, Any]:
    settings = {"short_side": short_side, "fps": 0.0, "max_frames": max_frames, "coding": "times"}
    settings |= {"backend": decode.backend(), "decode": decode.VERSION, "format": FORMAT}
    return settings | ({"input": kind} if kind != "rgb" else {})


def open_times(
    layout: Layout,
    cache: str | Path,
    *,
    short_side: int,
    max_frames: int = 0,
    kind: Input = "rgb",
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Looks through the files of a data set, or remembers having done so.

    Args:
        layout: The videos.
        cache: Folder of all caches.
        short_side: Short side of the decoded frames, in pixels.
        max_frames: Largest number of frames taken of a video, evenly spaced; 0 takes all.
        kind: `flow` for the flow that folders of frames hold.
        num_workers: Processes; `None` takes as many as there are cores, but none for small data.
        progress: Called with (videos done, videos in all).

    Returns:
        The data, in the form of a pack whose splits decode. The checksum is of the coded frames in the files.

    Raises:
        DataError: As `trainer.data.cache.opened`.
    """
    tasks, scan = tasks_of(layout, short_side, max_frames, kind), scan_flow if kind == "flow" else scan_video
    found = opened(
        layout,
        times_folder(layout, cache, short_side, max_frames, kind),
        _settings(short_side, max_frames, kind),
        tasks,
        scan,
        num_workers=num_workers,
        progress=progress,
    )
    reader: Reader = FlowImages(root=layout.root, short_side=short_side) if kind == "flow" else Sought(root=layout.root)
    splits = {
        name: TableSplit(
            file=found.folder / f"{name}.bin", table=VideoTable(file=found.folder / f"{name}.npy"), reader=reader
        )
        for name in found.splits
    }
    return replace(found, splits=splits, flow=FlowSettings(method="images") if kind == "flow" else None)
