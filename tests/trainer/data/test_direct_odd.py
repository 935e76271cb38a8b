"""Files as other programs write them, in which packets are not frames: what is sought is what a decoder counts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.trainer.data.test_direct import check, scanned
from trainer.data.decode import DecodeError, decode_video
from trainer.data.direct import Times, read_frames

COUNT = 40


def written(path: Path, codec: str, options: dict[str, str]) -> Path:
    """Noise that moves, so that no two frames are alike."""
    noise = np.random.default_rng(0).integers(0, 255, (48, 64 + 3 * COUNT, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt, stream.options = 48, 64, "yuv420p", options
        stream.thread_count, stream.bit_rate = 1, 800_000
        for number in range(COUNT):
            frame = av.VideoFrame.from_ndarray(noise[:, 3 * number : 3 * number + 64].copy(), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def packets(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def copied(source: Path, path: Path, rows: list[tuple[bytes, int, Any]], **options: str) -> Path:
    """A file of packets: bytes, time, and the packet of `source` whose other values they have."""
    with av.open(str(source)) as like, av.open(str(path), "w", options=options) as container:
        stream = container.add_stream_from_template(like.streams.video[0])
        for data, time, other in rows:
            packet = av.Packet(data)
            packet.pts = packet.dts = time
            packet.time_base, packet.is_keyframe, packet.stream = other.time_base, other.is_keyframe, stream
            container.mux(packet)
    return path


def hidden(folder: Path) -> Path:
    """VP8 with packets that are only referred to, as two passes of libvpx write them."""
    source = written(folder / "source.webm", "libvpx", {"g": "12", "deadline": "realtime"})
    rows = []
    for number, packet in enumerate(packets(source)):
        data = bytes(packet)
        if number in (8, 21, 33):
            rows.append((bytes([data[0] & ~16]) + data[1:], packet.pts - 20, packet))
        rows.append((data, packet.pts, packet))
    return copied(source, folder / "hidden.webm", rows)


VOP = b"\0\0\1\xb6"


def packed(folder: Path) -> Path:
    """An AVI of DivX: a frame and the B-frame before it in one packet, and an empty packet behind it."""
    source = written(folder / "source.avi", "mpeg4", {"g": "12", "bf": "1"})
    rest, rows = packets(source), []
    while rest:
        packet = rest.pop(0)
        data = bytes(packet)
        place = data.index(VOP)
        if packet.is_keyframe:
            data = data[:place] + b"\0\0\1\xb2DivX503b1393p" + data[place:]
        if rest and bytes(rest[0])[bytes(rest[0]).index(VOP) + 4] >> 6 == 2:
            other = rest.pop(0)
            rows += [(data + bytes(other), packet), (VOP + b"\x50\x00\x7f", other)]
        else:
            rows.append((data, packet))
    times = [(data, number, packet) for number, (data, packet) in enumerate(rows)]
    return copied(source, folder / "packed.avi", times)


def trimmed(folder: Path) -> Path:
    """An MP4 that was cut without coding it anew: it begins in the middle of a group of pictures."""
    source = written(folder / "source.mp4", "libx264", {"g": "40", "bf": "0"})
    rows = [(bytes(one), one.pts - int(30 / (25 * one.time_base)), one) for one in packets(source)]
    return copied(source, folder / "trimmed.mp4", rows, avoid_negative_ts="disabled")


def ended(folder: Path) -> Path:
    """An MP4 whose edit list ends before its last frames."""
    path = written(folder / "ended.mp4", "libx264", {"g": "8", "bf": "0"})
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") + 12  # behind version and number of edits: how long the first one is, in 1/1000 s
    data[place : place + 4] = (800).to_bytes(4, "big")
    path.write_bytes(data)
    return path


def hevc(folder: Path) -> Path:
    return written(folder / "hevc.mp4", "libx265", {"x265-params": "keyint=12:min-keyint=12:log-level=none"})


@pytest.mark.parametrize(
    ("build", "count"), [(hidden, COUNT), (packed, COUNT), (trimmed, 10), (ended, 20), (hevc, COUNT)]
)
def test_each_frame_is_the_one_of_its_number(tmp_path, build, count):
    path = build(tmp_path)
    assert len(decode_video(path, short_side=32).frames) == count
    check(path, [*([number] for number in range(count)), list(range(count)), list(range(1, count, 4))])


def test_where_times_go_back_on_the_way_frames_are_counted(tmp_path):
    path = packed(tmp_path)
    frames, times = decode_video(path, short_side=32).frames, scanned(path)
    with av.open(str(path)) as container:
        given = [frame.pts for frame in container.decode(video=0)]
    assert given != sorted(given)
    trusted = Times(  # as if they told the frames apart
        num_frames=COUNT,
        width=times.width,
        height=times.height,
        shown=np.array(sorted(given)),
        keys=np.array(sorted(given)[:1]),
        seeks=np.array([0]),
    )
    for number in range(4, COUNT):  # the third frame has an earlier time than the second
        for one, found in read_frames(path, [0, number], trusted).items():
            np.testing.assert_array_equal(found, frames[one], err_msg=f"{one} of 0 and {number}")


def test_hevc_that_lost_a_frame_is_refused_as_other_damaged_videos_are(tmp_path):
    path = hevc(tmp_path)
    frames, place = decode_video(path, short_side=32).frames, packets(path)[20].pos
    damaged = bytearray(path.read_bytes())
    damaged[place + 4 : place + 24] = bytes(20)
    path.write_bytes(damaged)
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == COUNT - 1  # FFmpeg says nothing
    with pytest.raises(DecodeError, match=r"^a frame at 0\.\d\d seconds is damaged$"):
        decode_video(path, short_side=32)
    times = scanned(path)
    np.testing.assert_array_equal(read_frames(path, [30], times)[30], frames[30])  # of a group that is whole
    with pytest.raises(DecodeError, match=r"^a frame at 0\.\d\d seconds is damaged$"):
        read_frames(path, list(range(12, 24)), times)
