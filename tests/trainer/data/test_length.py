"""A video is as long as its stream: all that read a file agree on it, and only a file that lacks bytes is cut off."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from tests.trainer.data.lengths import COUNT, LONG, WHOLE, cut, written
from trainer.data.decode import DecodeError, decode_video
from trainer.data.direct import scan_video
from trainer.data.entries import Task
from trainer.data.headers import Needed, read_header
from trainer.data.length import missing, stream_seconds
from trainer.data.pack.append import Coded
from trainer.data.pack.write import PackTask, code_video
from trainer.data.workers import decode_task


def verdicts(path: Path, needed: int = 1) -> dict[str, str | int]:
    """What each reader makes of a file: its frames, or why it is refused; of a header, only whether it is enough."""
    task = Task(path=str(path), short_side=16)
    pack = code_video(PackTask(task=task, fps=0.0, coding="raw", quality=0))
    scan = scan_video(task)
    cache = decode_task(task)
    return {
        "cache": cache if isinstance(cache, str) else len(cache.frames),
        "pack": pack.num_frames if isinstance(pack, Coded) else pack,
        "direct": scan.num_frames if isinstance(scan, Coded) else scan,
        "header": read_header(str(path), needed=Needed(frames=needed)).kind,
    }


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_is_taken_by_every_reader(tmp_path, name):
    build, count = WHOLE[name]
    path = build(tmp_path)
    if name.startswith("piece"):  # the muxer of pieces may cut one frame earlier or later
        with av.open(str(path)) as container:
            count, about = len(list(container.decode(video=0))), count
        assert abs(count - about) <= 1
    assert missing(path) == ""
    assert verdicts(path, count) == {"cache": count, "pack": count, "direct": count, "header": ""}
    assert verdicts(path, count + 1)["header"] == "short"
    assert "cut off" not in read_header(str(path)).remarks
    assert read_header(str(path), decode=True).kind == ""


@pytest.mark.parametrize("name", LONG)
def test_a_file_that_was_cut_off_is_found_by_every_reader(tmp_path, name):
    path = LONG[name](tmp_path)
    assert read_header(str(path)).kind == ""
    cut(path, 0.3)
    found = verdicts(path)
    assert found.pop("header") == "truncated"
    assert "bytes" in read_header(str(path)).reason
    for reader, reason in found.items():
        assert isinstance(reason, str), reader
        assert reason.startswith(("cut off: ", "cannot be decoded: ")), reader


@pytest.mark.parametrize("name", LONG)
def test_of_a_file_that_lacks_little_what_is_there_is_used(tmp_path, name):
    path = cut(LONG[name](tmp_path), 0.8)
    try:
        count = len(decode_video(path, short_side=16).frames)
    except DecodeError as error:  # FFmpeg ends with an error where the last frame is torn
        assert not str(error).startswith("cut off")
        return
    assert COUNT / 2 < count <= COUNT
    assert verdicts(path) == {"cache": count, "pack": count, "direct": count, "header": ""}
    assert read_header(str(path)).remarks == ("cut off",)


def test_a_recording_that_was_piped_is_measured_by_its_furthest_packet(tmp_path):
    """It states a length, but no sizes: as long as its sound goes on to its end, it is whole."""
    with (tmp_path / "a.mkv").open("wb") as file:
        # FFmpeg comes back to nothing that it wrote, as in a pipe; the tag of a container's length is kept
        pipe = type("Pipe", (), {"write": lambda _, data: file.write(data)})()
        source = written(tmp_path / "source.mkv", sound=8.0)
        with av.open(str(source)) as whole, av.open(pipe, "w", format="matroska") as container:
            streams = {one.index: container.add_stream_from_template(one) for one in whole.streams}
            for packet in whole.demux():
                if packet.size:
                    packet.stream = streams[packet.stream.index]
                    container.mux(packet)
    assert verdicts(tmp_path / "a.mkv", COUNT) == {"cache": COUNT, "pack": COUNT, "direct": COUNT, "header": ""}


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "avi"])
def test_the_length_of_a_stream_is_its_own(tmp_path, suffix):
    cases = [({}, 2.0), ({"sound": 8.0}, 2.0), ({"stands": 90}, 10.9)]
    cases += [({"first": 300}, 2.0)] if suffix != "avi" else []  # an AVI begins at 0, with frames that repeat nothing
    for values, seconds in cases:
        with av.open(str(written(tmp_path / f"a.{suffix}", **values))) as container:
            found = stream_seconds(container, container.streams.video[0])
        assert found == pytest.approx(seconds, abs=0.15), values
