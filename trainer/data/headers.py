"""What the header of a video file says, and whether the file can be what it says: without decoding its frames."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
from av.stream import Disposition

from trainer.data.decode import DecodeError, decode_video, open_video
from trainer.data.folders import images
from trainer.data.sample import frames_at

_NEAR = 2
"""A count of frames that is worked out from a duration may be so many off."""

KINDS = ("empty", "truncated", "no video", "undecodable", "short")
"""What can be wrong with a video that is there."""

_KEPT = 600
"""Frames in memory while a file is decoded to see whether it can be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needed:
    """What training needs of a video.

    Attributes:
        frames: Frames of a clip.
        fps: Frames a second that the clip is taken at; 0 for those of the video.
        max_frames: Frames that are kept of a longer video; 0 keeps all.
    """

    frames: int = 1
    fps: float = 0.0
    max_frames: int = 0

    def seen(self, frames: int, rate: float) -> int:
        """Of a video of so many frames at a rate, how many training sees."""
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
        fps: Frames a second; 0 if it does not say.
        height: Rows, upright.
        width: Columns, upright.
        remarks: What is unusual, though training can use it: `cut off`, `variable rate`, `rotated`, `10-bit`,
            `one frame`, `long`.
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
        size = Path(path).stat().st_size
        if size == 0:
            return Header(kind="empty", reason="the file is empty")
        return _file(path, size, needed, decode)
    except FileNotFoundError:
        return Header(kind="missing", reason="there is no such file")
    except DecodeError as error:
        return Header(kind="undecodable", reason=str(error))
    except Exception as error:  # see `trainer.data.decode.reasons`
        reason = " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
        cut = _lacks(path)
        if cut:
            return Header(kind="truncated", reason=f"{cut}: {reason}")
        return Header(kind="undecodable", reason=f"cannot be opened: {reason}")


def _file(path: str, size: int, needed: Needed, decode: bool) -> Header:
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
        seconds = container.duration / av.time_base if container.duration else 0.0
        frames = stream.frames or round(seconds * fps)
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
        counted = stream.frames > 0 and "avi" not in container.format.name
        if 0 < seconds * fps < frames - _NEAR:
            # The list of edits of an MP4 that was cut without coding it anew hides frames that its header counts.
            frames, counted = round(seconds * fps), False
    cut = _lacks(path)
    kind = reason = ""
    if cut or decode or not frames or (not counted and needed.seen(max(frames - _NEAR, 1), fps) < needed.frames):
        try:
            decoded = decode_video(path, short_side=8, max_frames=_KEPT)
            found = len(decoded.frames)
            frames = found if found < _KEPT else max(frames, found)
            remarks += ["cut off"] if cut else []
        except DecodeError as error:
            kind, reason = ("truncated", f"{cut}: {error}") if cut else ("undecodable", str(error))
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


def _lacks(path: str) -> str:
    """Says how much of a file is missing by the sizes that it states of its own parts; empty if nothing is."""
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(12)
            if head[4:8] == b"ftyp":
                end = _boxes(file, size)
            elif head[:4] == b"RIFF":
                stated = int.from_bytes(head[4:8], "little")
                end = 8 + stated if stated else size
            elif head[:4] == b"\x1aE\xdf\xa3":
                end = _segment(file, size)
            else:
                return ""
    except OSError:
        return ""
    return f"the file has {size:,} of {end:,} bytes" if end > size else ""


def _boxes(file: BinaryIO, size: int) -> int:
    """End of the last box of an MP4 (ISO/IEC 14496-12, 4.2)."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # up to the end of the file
            return size
        if length < 8:
            return size
        position += length
    return position


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


def _segment(file: BinaryIO, size: int) -> int:
    """End of the segment of a Matroska file (RFC 8794, 4 and 6): after the EBML header, unless its size is unknown."""
    file.seek(4)
    length, _ = _vint(file)
    position = file.tell() + length
    file.seek(position)
    if file.read(4) != b"\x18\x53\x80\x67":
        return size
    length, unknown = _vint(file)
    return size if unknown else file.tell() + length


def _vint(file: BinaryIO) -> tuple[int, bool]:
    """A number of variable length, and whether all its bits are set, which stands for an unknown size."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, True
    width = 9 - first[0].bit_length()
    value = first[0] & (0xFF >> width)
    value = int.from_bytes(bytes([value]) + file.read(width - 1), "big")
    return value, value == (1 << 7 * width) - 1
