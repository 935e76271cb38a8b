"""Frames that are sought are the frames that a decoder counts."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from trainer.data import direct
from trainer.data.augment import Box
from trainer.data.decode import DecodeError, decode_video
from trainer.data.direct import open_times, read_frames, scan_video, times_of
from trainer.data.entries import Task
from trainer.data.layouts import find_videos

X264_OPEN = "open-gop=1:bframes=3:keyint=12:min-keyint=12:scenecut=0"
KINDS = {
    "b-frames.mp4": ("libx264", {"g": "12", "bf": "3"}),
    "b-frames.mkv": ("libx264", {"g": "12", "bf": "3"}),
    "b-frames.avi": ("libx264", {"g": "12", "bf": "3"}),
    "open-gop.mp4": ("libx264", {"x264-params": X264_OPEN}),
    "open-gop.mkv": ("libx264", {"x264-params": X264_OPEN}),
    "intra-refresh.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=12"}),
    "one-key.mov": ("libx264", {"x264-params": "keyint=infinite:scenecut=0"}),
    "all-keys.mp4": ("libx264", {"g": "1"}),
    "mpeg4.avi": ("mpeg4", {"g": "12", "bf": "2"}),
    "vp8.webm": ("libvpx", {"g": "12", "deadline": "realtime"}),
    "ten-bit.mp4": ("libx264", {"g": "12"}),
    "variable.mp4": ("libx264", {"g": "12", "bf": "3"}),
    "late.mkv": ("libx264", {"g": "12", "bf": "3"}),
}


def write(path: Path, kind: str, count: int = 40) -> Path:
    codec, options = KINDS[kind]
    rng = np.random.default_rng(0)
    times = list(range(0, 40 * count, 40))
    if kind == "variable.mp4":
        times = np.cumsum(rng.integers(10, 200, count)).tolist()
    if kind == "late.mkv":
        times = [500 + time for time in times]
    with av.open(str(path), "w", format={".mkv": "matroska"}.get(path.suffix, path.suffix[1:])) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.options = 48, 64, options
        stream.pix_fmt = "yuv420p10le" if kind == "ten-bit.mp4" else "yuv420p"
        stream.thread_count = 1
        if path.suffix != ".avi":
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            image = np.full((48, 64, 3), 40 + 4 * number, np.uint8)
            image[8:40, number : number + 16] = (250, 30 * number % 250, 0)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (
                (number, Fraction(1, 25)) if path.suffix == ".avi" else (time, Fraction(1, 1000))
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def scanned(path: Path) -> direct.Times:
    found = scan_video(Task(path=str(path), short_side=32))
    assert not isinstance(found, str), found
    return times_of(np.frombuffer(found.data, np.uint8))


def check(path: Path, choices: Sequence[Sequence[int]]) -> None:
    frames, times = decode_video(path, short_side=32).frames, scanned(path)
    assert times.num_frames == len(frames)
    for numbers in choices:
        found = read_frames(path, numbers, times)
        assert sorted(found) == sorted(numbers)
        for number in numbers:
            np.testing.assert_array_equal(found[number], frames[number], err_msg=f"{path.name} {number} of {numbers}")


@pytest.mark.parametrize("kind", KINDS)
def test_each_frame_is_the_one_of_its_number(tmp_path, kind):
    rng = np.random.default_rng(1)
    some = [sorted(rng.choice(40, 5, replace=False).tolist()) for _ in range(8)]
    windows = [list(range(start, start + 16, 3)) for start in range(0, 24, 5)]
    check(write(tmp_path / kind, kind), [*([number] for number in range(0, 40)), *some, *windows, list(range(40))])


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames each reading has decoded."""
    counts: list[int] = []
    original = direct.open_video

    class Counted:
        def __init__(self, container) -> None:
            self.container = container

        def __enter__(self):
            counts.append(0)
            return self

        def __exit__(self, *_) -> None:
            self.container.close()

        def __getattr__(self, name):
            return getattr(self.container, name)

        def decode(self, stream):
            for frame in self.container.decode(stream):
                counts[-1] += 1
                yield frame

    monkeypatch.setattr(direct, "open_video", lambda path: Counted(original(path)))
    return counts


def test_only_what_a_clip_needs_is_decoded(tmp_path, monkeypatch):
    path = write(tmp_path / "all-keys.mp4", "all-keys.mp4")
    times = scanned(path)
    counts = counting(monkeypatch)
    read_frames(path, [30, 31, 32], times)
    read_frames(path, [2, 38], times)
    assert counts[0] <= 3 + 2 and counts[1] <= 2 + 4


@pytest.mark.parametrize("kind", ["b-frames.mp4", "b-frames.mkv", "mpeg4.avi"])
def test_decoding_begins_at_the_key_frame_before(tmp_path, monkeypatch, kind):
    path = write(tmp_path / kind, kind)
    times = scanned(path)
    counts = counting(monkeypatch)
    for key, number in enumerate(np.searchsorted(times.shown, times.keys).tolist()):
        counts.clear()
        read_frames(path, [number], times)
        assert sum(counts) <= (2 if path.suffix == ".avi" else 1), (key, number)  # AVI: one look at what is past it


def test_times_that_are_wrong_are_noticed_and_frames_counted(tmp_path):
    path = write(tmp_path / "b-frames.mp4", "b-frames.mp4")
    frames, times = decode_video(path, short_side=32).frames, scanned(path)
    off = direct.Times(
        num_frames=40,
        width=times.width,
        height=times.height,
        shown=times.shown + 1,
        keys=times.keys + 1,
        seeks=times.seeks,
    )
    np.testing.assert_array_equal(read_frames(path, [17], off)[17], frames[17])
    late = direct.Times(  # as if decoding could begin at the last key frame alone
        num_frames=40,
        width=times.width,
        height=times.height,
        shown=times.shown,
        keys=times.keys[:1],
        seeks=times.seeks[-1:],
    )
    np.testing.assert_array_equal(read_frames(path, [3], late)[3], frames[3])


def test_broken_files_have_the_reasons_that_decoding_gives(tmp_path, write_video, write_audio):
    good = write_video(tmp_path / "good.mp4", 30, options={"movflags": "faststart"})
    data = good.read_bytes()
    with av.open(str(good)) as container:
        starts = [packet.pos for packet in container.demux(video=0) if packet.size]
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes(data[: starts[9]])
    (tmp_path / "text.mp4").write_text("this is no video at all\n" * 100)
    (tmp_path / "codec.mp4").write_bytes(data.replace(b"avc1", b"xvc1"))
    write_audio(tmp_path / "sound.mp4")
    for name in ("zero", "cut", "text", "codec", "sound", "missing"):
        path = tmp_path / f"{name}.mp4"
        with pytest.raises(DecodeError) as error:
            decode_video(path, short_side=24)
        assert scan_video(Task(path=str(path), short_side=24)) == str(error.value)


def test_a_file_that_is_cut_off_after_it_was_looked_through(tmp_path):
    path = write(tmp_path / "b-frames.mkv", "b-frames.mkv")
    frames, times = decode_video(path, short_side=32).frames, scanned(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    np.testing.assert_array_equal(read_frames(path, [2], times)[2], frames[2])
    with pytest.raises(DecodeError, match=r"cut off: frame 39 of 40 is missing|cannot be decoded"):
        read_frames(path, [39], times)
    path.unlink()
    with pytest.raises(DecodeError, match="cannot be decoded: No such file or directory"):
        read_frames(path, [2], times)


def test_sideways_and_thinned_videos_are_as_the_cache_has_them(root, tmp_path):
    opened = open_times(find_videos(root, name="mine"), tmp_path / "cache", short_side=18, max_frames=5, num_workers=0)
    split = opened.splits["train"]
    for index, entry in enumerate(split.entries):
        video = decode_video(root / entry.path, short_side=18, max_frames=5)
        assert (entry.num_frames, entry.height, entry.width) == video.frames.shape[:3]
        assert entry.fps == pytest.approx(video.fps, abs=1e-3)
        numbers = np.array([4, 0, 0, 2])
        found = split.read(index, numbers, Box(top=1, left=2, height=9, width=10))
        np.testing.assert_array_equal(found, video.frames[numbers, 1:10, 2:12])


def test_files_are_closed_after_success_and_failure(tmp_path):
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("needs /proc")
    path = write(tmp_path / "b-frames.mp4", "b-frames.mp4")
    times = scanned(path)
    (tmp_path / "bad.mp4").write_bytes(path.read_bytes()[:200])
    before = len(list(descriptors.iterdir()))
    for _ in range(5):
        read_frames(path, [3, 30], times)
        scan_video(Task(path=str(tmp_path / "bad.mp4"), short_side=24))
    assert len(list(descriptors.iterdir())) == before
