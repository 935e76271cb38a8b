"""What the header of a video tells, without its frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.trainer.data.conftest import pictures
from trainer.config import Clip, DataConfig
from trainer.data.check import check_data
from trainer.data.dataset import open_usable
from trainer.data.decode import decode_video
from trainer.data.headers import Needed, read_header


def test_what_is_unusual_is_used_and_counted(tmp_path):
    for turn in (90, 180, 270):
        write_odd(tmp_path / f"turned{turn}.mov", rotation=turn)
    write_odd(tmp_path / "rotated.mp4", rotation=90)
    write_odd(tmp_path / "ten.mp4", form="yuv420p10le")
    write_odd(tmp_path / "variable.mp4", times=[0, 1, 2, 3, 40, 41, 42, 90])
    write_odd(tmp_path / "long.mkv", times=[*range(0, 36_000 * 25, 100_000)])
    found = {path.stem: read_header(str(path)) for path in tmp_path.iterdir()}
    assert {name: header.remarks for name, header in found.items()} == {
        "rotated": ("rotated",),
        "turned90": ("rotated",),
        "turned180": ("rotated",),
        "turned270": ("rotated",),
        "ten": ("10-bit",),
        "variable": ("variable rate",),
        "long": ("long",),
    }
    assert not [header for header in found.values() if header.kind]
    decoded = {path.stem: read_header(str(path), decode=True) for path in tmp_path.iterdir()}
    assert decoded["long"].frames == 9
    assert decoded == found, "all can be decoded"
    for name in ("rotated", "turned90", "turned180", "turned270"):
        path = next(tmp_path.glob(f"{name}.*"))
        assert (found[name].height, found[name].width) == decode_video(path, short_side=24).frames.shape[1:3], name
    assert found["variable"].frames == 8
    assert found["long"].seconds == pytest.approx(36_000, rel=0.2)


@pytest.mark.parametrize("jump", [3, 36_000])
@pytest.mark.parametrize("live", [False, True])
def test_frames_are_counted_where_the_clock_of_a_file_jumps(tmp_path, jump, live):
    path = tmp_path / "jumps.mkv"
    write_odd(path, times=[*range(30), *range(30 + jump * 25, 700 + jump * 25)], live=live)
    header = read_header(str(path), needed=Needed(frames=16))
    assert (header.kind, header.frames) == ("", 700)
    assert ("clock jumps" in header.remarks) == (jump > 10)
    assert read_header(str(path), decode=True).frames == 700


def test_frames_that_a_list_of_edits_hides_do_not_count(tmp_path):
    """As `ffmpeg -ss 2 -c copy` leaves it: 60 frames are in the file, and the last 10 are shown."""
    path = tmp_path / "data" / "train" / "a" / "edited.mp4"
    for place, count in ((tmp_path / "whole.mp4", 60), (tmp_path / "data" / "val" / "a" / "0.mp4", 20)):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_odd(place, times=list(range(count)), group=60)
    path.parent.mkdir(parents=True)
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(tmp_path / "whole.mp4")) as whole, av.open(str(path), "w", options=options) as cut:
        stream = cut.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                late = round(2 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - late, packet.dts - late, stream
                cut.mux(packet)
    with av.open(str(path)) as opened:
        assert opened.streams.video[0].frames == 60
    for frames in (8, 10, 11, 12, 20):
        clip = Clip(frames=frames, height=16, width=16)
        c = DataConfig(
            name="mine", root=str(tmp_path / "data"), cache=str(tmp_path / "cache"), short_side=24, clip=clip
        )
        assert {one.path for one in check_data(c).broken} == {one.path for one in open_usable(c).broken}, frames
    assert read_header(str(path)).frames == len(decode_video(path, short_side=24).frames) == 10


def test_a_long_file_whose_header_tells_no_length_is_not_short(tmp_path):
    """As browsers record: neither frames nor seconds are known before the end."""
    with av.open(str(tmp_path / "live.mkv"), "w", options={"live": "1"}) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height = stream.width = 16
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), dtype=np.uint8), format="rgb24")
        for number in range(601):
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    header = read_header(str(tmp_path / "live.mkv"), needed=Needed(frames=16))
    assert (header.kind, header.seconds, header.frames) == ("", 0, 601)


def test_ten_hours_are_read_by_their_header(tmp_path):
    """A header takes no longer than that of ten seconds: 36,000 frames are not decoded."""
    path = tmp_path / "hours.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.height = stream.width = 16
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), dtype=np.uint8), format="rgb24")
        for number in range(36_000):
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    header = read_header(str(path))
    assert (header.frames, header.seconds, header.remarks) == (36_000, 36_000, ("long",))


def write_odd(
    path: Path,
    *,
    rotation: int = 0,
    form: str = "yuv420p",
    times: list[int] | None = None,
    group: int = 0,
    live: bool = False,
) -> None:
    with av.open(str(path), "w", options={"live": "1"} if live else {}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 24, 32, form
        stream.codec_context.time_base = Fraction(1, 25)
        stream.thread_count = 1
        stream.options = {"g": str(group), "bf": "0"} if group else {}
        if rotation:
            stream.set_display_rotation(rotation)
        for image, time in zip(pictures(len(times or range(8)), 24, 32), times or range(8), strict=True):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=form)
            picture.pts = time
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
