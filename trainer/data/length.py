"""Length of a video: from the start of its stream to its end, and what a file lacks that was cut off.

The duration that a container states is no length of its pictures: Matroska counts it from time 0, so that a piece from
the middle of a recording states where it ends; it covers sound that goes on after the pictures; and a last frame may
stand for long. So a file is cut off only where bytes are missing that its own parts announce.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import av

_VOP = b"\0\0\1\xb6"  # begins a frame of MPEG-4 (ISO/IEC 14496-2, 6.2.5)
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")


def stream_seconds(container: Any, stream: Any) -> float:
    """Length of a video stream by the header of its file, in seconds; 0 if the header does not say."""
    if _is_matroska(container):
        return max(_matroska_end(container, stream) - float((stream.start_time or 0) * stream.time_base), 0.0)
    if stream.duration is not None and stream.time_base is not None:
        return max(float(stream.duration * stream.time_base), 0.0)
    return _container_seconds(container)


def lack_of(path: str | Path, container: Any, stream: Any, total: int, first: float | None, last: float | None) -> str:
    """Says what a file lacks that was cut off: its reader sees an end, but more was announced.

    Args:
        path: The file.
        container: The same, opened and read to its end.
        stream: The video stream.
        total: Frames found.
        first: Time of the first of them in seconds, if it has one.
        last: Time of the last one.

    Returns:
        The reason to refuse the file, or an empty text. A file is refused where bytes are missing and less than half of
        the stream is there: with a little less than the whole, a network can still be trained.
    """
    if "avi" in container.format.name:
        # The reader lowers the duration of a cut AVI to what is there, but not the count of frames.
        return f"cut off: {total} of {stream.frames} frames" if total * 2 < stream.frames and missing(path) else ""
    if first is None or last is None or total < 2:
        return ""
    found = (last - first) * total / (total - 1)
    if found * 2 >= _container_seconds(container):  # as nearly all: nothing more has to be read
        return ""
    if not has_sizes(path):
        found, promised = _reach(container), _container_seconds(container)
    elif not missing(path, stream):
        return ""
    elif _is_matroska(container):
        promised = _matroska_end(container, stream) - first
    else:
        promised = stream_seconds(container, stream)
    return f"cut off: {found:.1f} of {promised:.1f} seconds" if found * 2 < promised else ""


def missing(path: str | Path, stream: Any = None) -> str:
    """Says how much of a file is missing by the sizes that it states of its own parts; empty if nothing is.

    Args:
        path: The file.
        stream: Its video stream, where it could be opened: an index of frames may say more than the sizes.
    """
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            end = _end(file, size) or 0
    except OSError:
        return ""
    if stream is not None and len(stream.index_entries):
        final = stream.index_entries[-1]
        end = max(end, final.pos + final.size)
    return f"the file has {size:,} of {end:,} bytes" if end > size else ""


def frames_in(packet: Any, codec: str) -> int:
    """Frames that a packet gives to look at: one, as good as always."""
    if codec == "vp8":  # of a packet that only others refer to, one bit says so (RFC 6386, 9.1)
        return int(bytes(packet)[0] >> 4 & 1)
    if codec == "mpeg4":  # AVIs of DivX and XviD may have two in one packet and an empty one behind it
        return max(1, bytes(packet).count(_VOP))
    return 1


def has_sizes(path: str | Path) -> bool:
    """Whether a file states the sizes of its parts: MP4, MOV, AVI, Matroska and WebM do, unless written to a pipe."""
    with Path(path).open("rb") as file:
        return _end(file, os.fstat(file.fileno()).st_size) is not None


def _container_seconds(container: Any) -> float:
    return container.duration / av.time_base if container.duration else 0.0


def _is_matroska(container: Any) -> bool:
    return "matroska" in container.format.name


def _matroska_end(container: Any, stream: Any) -> float:
    """When the last frame of a stream ends: by its tag, which most writers leave, else by the container."""
    clock = _CLOCK.match(stream.metadata.get("DURATION", ""))
    end = _container_seconds(container)
    return min(int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3]), end or float("inf")) if clock else end


def _reach(container: Any) -> float:
    """When the last packet of any stream ends, in seconds from time 0."""
    reach = 0.0
    # Opened anew: in a file without an index there is no way back to its beginning.
    with contextlib.suppress(av.FFmpegError), av.open(container.name, metadata_errors="ignore") as again:
        for packet in again.demux():
            if packet.pts is not None and packet.time_base is not None:
                reach = max(reach, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    return reach


def _end(file: BinaryIO, size: int) -> int | None:
    """Where a file ends by its parts; None if they do not say."""
    head = file.read(12)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"styp"):
        return _boxes(file, size)
    if head[:4] == b"RIFF":
        return _chunks(file, size)
    if head[:4] == b"\x1aE\xdf\xa3":
        return _segment(file)
    return None


def _boxes(file: BinaryIO, size: int) -> int:
    """End of the last box of an MP4 (ISO/IEC 14496-12, 4.2), or of what an index of its segments states (8.16.3)."""
    position = end = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: up to the end of the file
            return max(end, size)
        if head[4:8] == b"sidx" and position + length <= size:
            file.seek(position + 8)
            end = max(end, position + length + _indexed(file.read(min(length - 8, 2**20))))
        position += length
    return max(end, position)


def _indexed(sidx: bytes) -> int:
    """Bytes of the segments that the content of an index box refers to."""
    wide = 8 if sidx[:1] == b"\1" else 4
    first = int.from_bytes(sidx[12 + wide : 12 + 2 * wide], "big")
    begin = 12 + 2 * wide + 4
    count = int.from_bytes(sidx[begin - 2 : begin], "big")
    sizes = (int.from_bytes(sidx[at : at + 4], "big") & 0x7FFFFFFF for at in range(begin, begin + 12 * count, 12))
    return first + sum(sizes)


def _chunks(file: BinaryIO, size: int) -> int:
    """End of the last RIFF of an AVI; one of more than a gigabyte has several (OpenDML)."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(8)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or length in (0, 2**32 - 1):  # a writer that did not come back to state it
            return size
        position += 8 + length + length % 2
    return position if position - size != 1 else size  # the last byte of padding is often left out


def _segment(file: BinaryIO) -> int | None:
    """End of the segment of a Matroska file (RFC 8794, 4 and 6): after the EBML header, unless its size is unknown."""
    file.seek(4)
    length, _ = _vint(file)
    position = file.tell() + length
    file.seek(position)
    if file.read(4) != b"\x18\x53\x80\x67":
        return None
    length, unknown = _vint(file)
    return None if unknown else file.tell() + length


def _vint(file: BinaryIO) -> tuple[int, bool]:
    """A number of variable length, and whether all its bits are set, which stands for an unknown size."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, True
    width = 9 - first[0].bit_length()
    value = first[0] & (0xFF >> width)
    value = int.from_bytes(bytes([value]) + file.read(width - 1), "big")
    return value, value == (1 << 7 * width) - 1
