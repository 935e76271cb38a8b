"""What the header of a video file says, and whether the file can be what it says: without decoding its frames."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from trainer.data.decode import DecodeError, decode_video, open_video
from trainer.data.folders import images
from trainer.data.length import frames_in, has_sizes, missing, stream_seconds
from trainer.data.sample import frames_at

_NEAR = 2
"""Frames by which a count that was worked out from a duration may be off."""

_COUNTED = 64 * 2**20
"""Bytes of a file whose frames are counted, where its header does not: of a larger one, its length and rate will do."""

_LEAST_BYTES = 100
"""Bytes of a frame, where a larger file has fewer, its clock cannot be right: its frames are counted, too."""

_JUMP, _JUMPS = 10, 100
"""The least jump of a clock, in seconds, and in steps between frames."""

KINDS = ("empty", "truncated", "no video", "undecodable", "short")
"""What can be wrong with a video that is there."""

_KEPT = 600
"""Frames in memory while a file is decoded to see whether it can be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needed:
    """What training needs of a video.

    Attributes:
        frames: Frames of a clip.
        fps: Frames per second that the clip is taken at; 0 for those of the video.
        max_frames: Frames that are kept of a longer video; 0 keeps all.
    """

    frames: int = 1
    fps: float = 0.0
    max_frames: int = 0

    def seen(self, frames: int, rate: float) -> int:
        """Frames that training sees of a video, given its frames and their rate."""
        kept = min(frames, self.max_frames or frames)
        return frames_at(kept, round(rate * kept / frames, 3), self.fps)


ANY = Needed()
"""One frame will do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """One video, by its header.

    Attributes:
        kind: `empty`, `truncated`, `no video`, `undecodable`, `missing` or `short` where training could not use it;
            else empty.
        reason: Of that, in a few words.
        frames: Number of frames; 0 if the header does not say.
        seconds: Length; 0 if it does not say.
        fps: Frames per second; 0 if it does not say.
        height: Rows, upright.
        width: Columns, upright.
        remarks: What is unusual, though training can use it: `cut off`, `variable rate`, `rotated`, `10-bit`,
            `one frame`, `long`, `clock jumps`.
    """

    kind: str = ""
    reason: str = ""
    frames: int = 0
    seconds: float = 0.0
    fps: float = 0.0
    height: int = 0
    width: int = 0
    remarks: tuple[str, ...] = ()


def read_header(path: str, *, num_images: int = 0, needed: Needed = ANY, decode: bool = False) -> Header:
    """Reads the header of a video file, or counts the images of a folder of frames.

    Where the header promises more than the file holds, or is not sure that there are frames enough, the file is
    decoded: what is refused here is what training would refuse.

    Args:
        path: The file or folder.
        num_images: Images that the folder must hold; 0 for a file.
        needed: What a clip needs.
        decode: Decode every frame in any case.

    Returns:
        The header; never an exception for a bad file.
    """
    try:
        if num_images:
            return _folder(path, num_images, needed, decode)
        if Path(path).stat().st_size == 0 and Path(path).is_file():
            return Header(kind="empty", reason="the file is empty")
        return _file(path, needed, decode)
    except FileNotFoundError:
        return Header(kind="missing", reason="there is no such file")
    except DecodeError as error:
        return Header(kind="undecodable", reason=str(error))
    except Exception as error:  # see `trainer.data.decode.reasons`
        reason = " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
        cut = missing(path)
        if cut:
            return Header(kind="truncated", reason=f"{cut}: {reason}")
        return Header(kind="undecodable", reason=f"cannot be opened: {reason}")


def _file(path: str, needed: Needed, decode: bool) -> Header:
    with open_video(path) as container:
        stream = next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)
        if stream is None:
            kinds = sorted({one.type for one in container.streams})
            return Header(kind="no video", reason=f"there is no video stream, only {', '.join(kinds) or 'nothing'}")
        context = stream.codec_context
        if context is None:
            return Header(kind="undecodable", reason="its codec is not known")
        rate = stream.average_rate or stream.guessed_rate
        fps = float(rate) if rate else 0.0
        seconds = stream_seconds(container, stream)
        avi, cut = "avi" in container.format.name, missing(path, stream)
        # The header of an AVI counts frames that were dropped, too; its index, at the end of the file, does not.
        frames = (len(stream.index_entries) if avi and not cut else 0) or stream.frames or round(seconds * fps)
        turn = _turn(path)
        turned = turn in (90, 270)
        height, width = (context.width, context.height) if turned else (context.height, context.width)
        base = stream.base_rate or None
        remarks = [
            word
            for word, said in (
                ("variable rate", base is not None and abs(fps / float(base) - 1) > 0.02),
                ("rotated", turn != 0),
                ("10-bit", bool(context.pix_fmt) and re.search(r"p1[0-6]|p9", context.pix_fmt or "") is not None),
                ("one frame", frames == 1),
                ("long", seconds > 600),
            )
            if said
        ]
        counted = stream.frames > 0 and not avi
        if 0 < seconds * fps < frames - _NEAR:
            # The list of edits of an MP4 that was cut without coding it anew hides frames that its header counts.
            frames, counted = round(seconds * fps), False
        sure = has_sizes(path) and not cut and frames > 0
        clocked = stream.frames == 0 and not avi
        whole = clocked and Path(path).stat().st_size < max(_COUNTED, _LEAST_BYTES * frames)
        if clocked or (sure and not counted):
            there = _packets(container, stream, needed, fps, whole=whole)
            least = max(there.frames - _NEAR, 1)
            sure &= needed.seen(least, fps) >= needed.frames
            frames = there.frames if there.all else max(frames, least)
            remarks += ["clock jumps"] if there.jumps else []
    kind = reason = ""
    if decode or not sure:
        try:
            decoded = decode_video(path, short_side=8, max_frames=_KEPT)
            found = len(decoded.frames)
            frames = found if found < _KEPT else max(frames, found)
            remarks += ["cut off"] if cut else []
        except DecodeError as error:
            kind = "truncated" if cut or str(error).startswith("cut off") else "undecodable"
            reason = f"{cut}: {error}" if cut else str(error)
    if not kind:
        kind, reason = _short(frames, fps, needed)
    return Header(
        kind=kind,
        reason=reason,
        frames=frames,
        seconds=round(seconds, 3),
        fps=round(fps, 3),
        height=height,
        width=width,
        remarks=tuple(remarks),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """What was read of a stream: its frames, whether these are all, and whether their times jump."""

    frames: int
    all: bool
    jumps: bool


def _packets(container: Any, stream: Any, needed: Needed, fps: float, *, whole: bool) -> _Found:
    """Counts the frames of a stream whose header does not: all of them, or those of one clip."""
    found = 0
    times: list[int] = []
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                found += frames_in(packet, stream.codec_context.name)
                times += [packet.pts] if packet.pts is not None else []
            if not whole and found > _NEAR and needed.seen(found - _NEAR, fps) >= needed.frames:
                return _Found(frames=found, all=False, jumps=False)
    except av.FFmpegError:  # decoding will tell the reason
        return _Found(frames=found, all=False, jumps=False)
    steps = sorted(abs(after - before) for before, after in pairwise(times))
    jumps = bool(steps) and steps[-1] * (stream.time_base or 0) > _JUMP and steps[-1] > _JUMPS * steps[len(steps) // 2]
    return _Found(frames=found, all=found > 0, jumps=jumps)


def _short(frames: int, rate: float, needed: Needed) -> tuple[str, str]:
    """The kind of a video that is too short, with the reason in the words of training; else two empty texts."""
    seen = needed.seen(frames, rate)
    at = f" at {needed.fps:g} a second" if needed.fps else ""
    return ("short", f"{seen} frames{at}, needs {needed.frames}") if seen < needed.frames else ("", "")


def _folder(path: str, num_images: int, needed: Needed, decode: bool) -> Header:
    paths = images(path, num_frames=num_images)
    first = decode_video(paths[0], short_side=8).frames.shape  # that it can be decoded; of its size, only the shape
    for image in paths[1:] if decode else ():
        if decode_video(image, short_side=8).frames.shape != first:
            return Header(
                kind="undecodable", reason=f"images must have one size, but {image.name} and the first do not"
            )
    with open_video(paths[0]) as container:
        context = container.streams.video[0].codec_context
        height, width = context.height, context.width
    kind, reason = _short(num_images, 0.0, needed)
    return Header(kind=kind, reason=reason, frames=num_images, height=height, width=width)


def _turn(path: str) -> int:
    """By how many degrees an MP4 or MOV is to be turned for display: 0, 90, 180 or 270; 0 for other files.

    PyAV tells it of a decoded frame only. It is the matrix in the header of a track (ISO/IEC 14496-12, 8.3.2).
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        position = 0
        while position + 8 <= size:
            file.seek(position)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            if position == 0 and head[4:8] != b"ftyp":
                return 0
            if length == 1 and len(head) == 16:
                length = int.from_bytes(head[8:16], "big")
            if head[4:8] == b"moov":
                file.seek(position)
                return _turn_of(file.read(length or size))
            if length < 8:
                return 0
            position += length
    return 0


def _turn_of(moov: bytes) -> int:
    start = moov.find(b"tkhd")
    while start >= 0:
        matrix = start + (56 if moov[start + 4 : start + 5] == b"\1" else 44)  # times are longer in version 1
        if len(moov) >= matrix + 8:
            a, b = (int.from_bytes(moov[matrix + k : matrix + k + 4], "big", signed=True) for k in (0, 4))
            if b:
                return 90 if b > 0 else 270
            if a < 0:
                return 180
        start = moov.find(b"tkhd", start + 4)
    return 0
