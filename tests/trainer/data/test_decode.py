from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tests.trainer.data.built import SPECIAL
from trainer.data import decode
from trainer.data.decode import DecodeError, backend, decode_video
from trainer.data.direct import scan_video
from trainer.data.entries import Task
from trainer.data.headers import read_header

REPOSITORY = Path(__file__).parents[3]


def levels(frames: np.ndarray) -> list[int]:
    """The number that each frame's brightness tells (see `pictures`)."""
    return [round((float(frame.mean()) - 20) / 6) for frame in frames]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi", ".mkv", ".webm"])
def test_containers(tmp_path, write_video, suffix):
    decoded = decode_video(write_video(tmp_path / f"a{suffix}", 12, fps=25), short_side=24)
    assert decoded.frames.dtype == np.uint8 and decoded.frames.shape == (12, 24, 32, 3)
    assert levels(decoded.frames) == list(range(12))
    assert decoded.fps == pytest.approx(25, rel=0.01)
    assert decoded.times == pytest.approx(np.arange(12) / 25, abs=1e-3)


@pytest.mark.parametrize(
    ("height", "width", "short", "shape"),
    [(24, 32, 12, (12, 16)), (32, 24, 12, (16, 12)), (24, 32, 36, (36, 48)), (24, 34, 13, (13, 18))],
)
def test_short_side_is_met_and_the_aspect_kept(tmp_path, write_video, height, width, short, shape):
    path = write_video(tmp_path / "a.mp4", 2, height=height, width=width)
    assert decode_video(path, short_side=short).frames.shape[1:3] == shape


def test_colours_and_sides_are_those_of_the_picture(tmp_path, write_video):
    image = np.zeros((3, 32, 32, 3), dtype=np.uint8)
    image[:, :16, :16] = (220, 30, 30)
    image[:, 16:, 16:] = (30, 30, 220)
    frames = decode_video(write_video(tmp_path / "a.mp4", image), short_side=32).frames.astype(int)
    assert np.abs(frames[:, 4:12, 4:12] - [220, 30, 30]).max() < 12
    assert np.abs(frames[:, 20:28, 20:28] - [30, 30, 220]).max() < 12
    assert np.abs(frames[:, 4:12, 20:28]).max() < 12


@pytest.mark.parametrize("buffer", [600, 4])
def test_max_frames_are_evenly_spaced_with_one_pass_or_two(tmp_path, write_video, monkeypatch, buffer):
    monkeypatch.setattr(decode, "_BUFFER", buffer)
    path = write_video(tmp_path / "a.mp4", 20, fps=10)
    few = decode_video(path, short_side=24, max_frames=4)
    assert levels(few.frames) == [2, 7, 12, 17]
    assert few.fps == pytest.approx(2)
    assert few.times == pytest.approx([0.2, 0.7, 1.2, 1.7])
    assert levels(decode_video(path, short_side=24, max_frames=20).frames) == list(range(20))
    assert levels(decode_video(path, short_side=24, max_frames=50).frames) == list(range(20))


def test_sideways_recordings_are_turned_upright(tmp_path, write_video):
    image = np.zeros((2, 24, 32, 3), dtype=np.uint8)
    image[:, :8] = 230
    path = write_video(tmp_path / "a.mp4", image)
    data = bytearray(path.read_bytes())
    # The track header (version 0) holds a 3x3 matrix 40 bytes behind its flags; this one turns a quarter clockwise.
    start = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    assert struct.unpack(">9i", data[start : start + 36]) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    data[start : start + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 24 << 16, 0, 1 << 30)
    path.write_bytes(data)
    frames = decode_video(path, short_side=24).frames
    assert frames.shape == (2, 32, 24, 3)
    assert frames[:, :, -6:].mean() > 200 and frames[:, :, :-10].mean() < 20


@pytest.mark.parametrize(
    ("matrix", "corner"),  # where the upper left corner of what is stored is seen
    [
        ((-1, 0, 0, 1), (0, 1)),
        ((1, 0, 0, -1), (1, 0)),
        ((-1, 0, 0, -1), (1, 1)),
        ((0, 1, -1, 0), (0, 1)),
        ((0, 1, 1, 0), (0, 0)),
        ((0, -1, -1, 0), (1, 1)),
    ],
)
def test_mirrored_recordings_are_seen_as_they_are_meant(tmp_path, write_video, matrix, corner):
    image = np.zeros((2, 24, 32, 3), dtype=np.uint8)
    image[:, :12, :16] = 230
    path = write_video(tmp_path / "a.mp4", image)
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    frame = decode_video(path, short_side=24).frames[0].mean(axis=2)
    assert frame.shape == ((32, 24) if a == 0 else (24, 32))
    rows, columns = (size // 2 for size in frame.shape)
    bright = [[frame[:rows, :columns], frame[:rows, columns:]], [frame[rows:, :columns], frame[rows:, columns:]]]
    levels = np.array([[part.mean() for part in row] for row in bright])
    assert np.argwhere(levels > 100).tolist() == [list(corner)]


def test_frames_are_not_held_twice(tmp_path, write_video):
    path = write_video(tmp_path / "a.mp4", 12)
    script = f"""
import resource
from trainer.data.decode import decode_video
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
decode_video({str(path)!r}, short_side=24)
before = peak()
frames = decode_video({str(path)!r}, short_side=2400).frames
print((peak() - before) / frames.nbytes)
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert float(process.stdout) < 1.5


def reason(path: Path) -> str:
    with pytest.raises(DecodeError) as error:
        decode_video(path, short_side=24)
    assert "\n" not in str(error.value) and str(path) not in str(error.value)
    return str(error.value)


def test_broken_files_are_refused_with_a_reason(tmp_path, write_video, write_audio):
    good = write_video(tmp_path / "good.mp4", 30).read_bytes()
    (tmp_path / "zero.mp4").touch()
    assert reason(tmp_path / "zero.mp4") == "the file is empty"
    (tmp_path / "half.mp4").write_bytes(good[: len(good) // 2])
    assert reason(tmp_path / "half.mp4").startswith("cannot be decoded: ")
    (tmp_path / "text.mp4").write_text("this is no video at all\n" * 100)
    assert reason(tmp_path / "text.mp4").startswith("cannot be decoded: ")
    assert reason(tmp_path / "missing.mp4") == "cannot be decoded: No such file or directory"
    assert reason(write_audio(tmp_path / "sound.mp4")) == "there is no video stream, only audio"
    whole = write_video(tmp_path / "codec.mp4", 4)
    whole.write_bytes(whole.read_bytes().replace(b"avc1", b"xvc1"))
    assert reason(whole) == "its codec is not known"


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_not_opened(tmp_path, kind):
    """A pipe would wait for a writer for ever, and zeros have no end."""
    path = tmp_path / "a.mp4"
    SPECIAL[kind](path)
    said = "the file is empty" if kind == "memory" else "it is no regular file"
    assert reason(path) == said
    header = read_header(str(path))
    assert (header.kind, header.reason) == (("empty", said) if kind == "memory" else ("undecodable", said))
    found = scan_video(Task(path=str(path), short_side=24))
    assert isinstance(found, str)
    assert found == said or kind == "folder"


def test_a_name_that_is_too_long_is_a_reason(tmp_path):
    path = tmp_path / ("x" * 300)
    assert reason(path) == "cannot be decoded: File name too long"
    assert read_header(str(path)).reason == "cannot be opened: File name too long"


def test_a_name_may_hold_a_colon_and_other_letters_that_mean_something_to_ffmpeg(tmp_path, write_video, monkeypatch):
    path = write_video(tmp_path / "a.mp4", 3)
    monkeypatch.chdir(tmp_path)
    for name in ("12:30.mp4", "file:x.mp4", "concat:a|b.mp4", "%03d.mp4", "[x] {y}*?.mp4"):
        shutil.copy(path, name)
        assert len(decode_video(name, short_side=24).frames) == 3
        assert read_header(name).frames == 3


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".avi", ".mp4"])
def test_a_file_that_was_cut_off_is_refused(tmp_path, write_video, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), np.uint8)
    path = write_video(tmp_path / f"a{suffix}", noise, options={"movflags": "faststart"} if suffix == ".mp4" else {})
    assert len(decode_video(path, short_side=24).frames) == 30
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 10])
    assert reason(path).startswith({".mp4": "cannot be decoded: "}.get(suffix, "cut off: "))


def test_a_file_cut_off_between_two_frames_is_refused(tmp_path, write_video):
    path = write_video(tmp_path / "a.mp4", 30, options={"movflags": "faststart"})
    with av.open(str(path)) as container:
        starts = [packet.pos for packet in container.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: starts[9]])
    assert reason(path) == "cut off: 0.9 of 3.0 seconds"


def test_a_video_stream_without_frames_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 24, 32, "yuv420p"
        sound = container.add_stream("aac", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), "fltp", "mono")
        samples.sample_rate = 8000
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    assert reason(tmp_path / "a.mkv") == "the video stream has no frame"


def test_files_are_closed_after_success_and_failure(tmp_path, write_video):
    path = write_video(tmp_path / "a.mp4", 4)
    (tmp_path / "bad.mp4").write_bytes(path.read_bytes()[:200])
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("needs /proc")

    def opened() -> list[str]:  # of these two; what other tests have left open may be closed at any moment
        links = (os.path.realpath(one) for one in descriptors.iterdir())
        return [link for link in links if link.startswith(os.path.realpath(tmp_path))]

    with path.open("rb"):
        assert opened()
    for _ in range(5):
        decode_video(path, short_side=24)
        reason(tmp_path / "bad.mp4")
    assert not opened()


def test_backend_names_versions():
    assert backend().startswith(f"pyav {av.__version__} (libavcodec ")


def test_large_frames_are_not_held_by_the_hundred_where_few_are_kept(tmp_path, write_video, monkeypatch):
    path = write_video(tmp_path / "a.mp4", 20, fps=10)
    size = decode_video(path, short_side=24, max_frames=4).frames[0].nbytes
    monkeypatch.setattr(decode, "_ROOM", 3 * size)
    monkeypatch.setattr(decode, "_LARGEST", 6 * size)
    few = decode_video(path, short_side=24, max_frames=4)  # 20 are more than may be held at once
    assert levels(few.frames) == [2, 7, 12, 17]
    with pytest.raises(DecodeError, match=r"more than 6 frames of its size; give a smaller data\.max_frames"):
        decode_video(path, short_side=24, max_frames=7)
    with pytest.raises(DecodeError, match=r"more than 6 frames of its size; give data\.max_frames"):
        decode_video(path, short_side=24)
