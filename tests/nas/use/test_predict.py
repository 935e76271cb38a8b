"""Video files of any kind are named, over time too: short, long, sideways; and broken ones are refused in one line."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nas
from nas.cli.features import bar
from nas.cli.main import main
from nas.study.views import Views
from nas.train.cutting import plan
from nas.train.network import TrainedNetwork
from nas.use import predict
from nas.use.predict import (
    MOST_FRAMES,
    Claims,
    Moment,
    Window,
    clock,
    excerpt,
    frames_of,
    header_of,
    length_of,
    predict_video,
    stream_video,
    windows_of,
)
from tests.nas.use.conftest import CLASSES, Place, moving, said_json
from tests.trainer.data.built import SPECIAL
from tests.trainer.data.lengths import LONG, WHOLE, cut
from trainer.config import Clip, DataConfig
from trainer.data.decode import decode_video
from trainer.data.layouts import DataError


def written(path: Path, frames: np.ndarray, *, fps: int = 8, gop: int = 12, ticks: Sequence[int] | None = None) -> Path:
    """A video with predicted frames and few key frames, as they come; frame k is shown at `ticks[k]` / fps seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"  # type: ignore[union-attr]
        stream.time_base = Fraction(1, fps)
        stream.options = {"g": str(gop), "qp": "10", "preset": "ultrafast", "x264-params": "log-level=none"}  # type: ignore[union-attr]
        for number, image in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts = number if ticks is None else ticks[number]
            container.mux(stream.encode(picture))  # type: ignore[union-attr]
        container.mux(stream.encode(None))  # type: ignore[union-attr]
    return path


@pytest.fixture(scope="module")
def network(place: Place) -> TrainedNetwork:
    return nas.load(place.folders[0])


def test_a_short_video_is_named_as_the_evaluation_names_it(place: Place, network: TrainedNetwork) -> None:
    path = place.data / "test" / "move left" / "00.mp4"
    found = predict_video(network, path)
    assert found.ranked(1)[0][0] == "move left"
    expected = network.predict(path)
    assert dict(found.ranked(3)) == pytest.approx(expected)
    assert sum(found.probabilities) == pytest.approx(1)
    assert len(found.timeline) == 1
    assert found.timeline[0].probabilities == found.probabilities


def test_the_timeline_follows_what_happens(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    parts = ["move left", "move right", "it's still", "move right"]
    path = written(tmp_path / "four.mp4", np.concatenate([moving(name, rng) for name in parts]))
    said = said_json("predict", str(place.folders[0]), str(path), "--window", "1", "--json")
    assert [round(m["start"], 3) for m in said["timeline"]] == [0, 1, 2, 3]
    named = [max(m["probabilities"], key=m["probabilities"].get) for m in said["timeline"]]
    assert named == parts
    assert said["seconds"] == pytest.approx(4)
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["predict", str(place.folders[0]), str(path), "--window", "1"]) == 0
    text = capsys.readouterr().out
    assert "0:01.0 to 0:02.0" in text
    assert "█" in text
    assert len(main_table(text)) == len(CLASSES)


def main_table(text: str) -> list[str]:
    """The classes of the first table."""
    return [line for line in text.split("most probable")[0].splitlines() if line.strip().startswith(CLASSES)]


def test_a_long_video_is_looked_at_here_and_there(place: Place, network: TrainedNetwork, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    half = (MOST_FRAMES + 400) // 2
    left = np.tile(moving("move left", rng), (half // 8, 1, 1, 1))
    right = np.tile(moving("move right", rng), (half // 8, 1, 1, 1))
    path = written(tmp_path / "long.mp4", np.concatenate([left, right]), gop=50)
    # A window of one clip may hold the end of one movement and the beginning of the next; a window's length is said.
    data = dataclasses.replace(network.data, max_frames=0)
    header = header_of(path)
    assert header.frames > MOST_FRAMES
    frames, fps = excerpt(path, Window(start=100.0, end=101.0), data)
    whole = decode_video(path, short_side=16).frames
    assert fps == 8
    assert np.array_equal(frames, whole[800 : 800 + len(frames)])
    found = predict_video(network, path, most=6, length=1.0)
    assert found.views == "the mean of 6 windows, since the video is long"
    assert found.seconds == pytest.approx(300)
    assert [moment.start for moment in found.timeline] == [0, 50, 100, 150, 200, 250]
    assert np.mean([m.probabilities for m in found.timeline], 0).tolist() == pytest.approx(list(found.probabilities))


def dense(network: TrainedNetwork, **values: object) -> DataConfig:
    """How clips of four frames, two apart, are taken for a network."""
    clip = dataclasses.replace(network.data.clip, stride=2)
    return dataclasses.replace(network.data, sampling="dense", clip=clip, **values)  # type: ignore[arg-type]


def test_an_excerpt_is_the_middle_of_its_window(network: TrainedNetwork, tmp_path: Path) -> None:
    frames = np.random.default_rng(6).integers(0, 255, (80, 16, 16, 3), dtype=np.uint8)
    path = written(tmp_path / "ten.mp4", frames)
    whole = decode_video(path, short_side=16).frames
    found, _ = excerpt(path, Window(start=0.0, end=10.0), dense(network))
    assert np.array_equal(found, whole[36 : 36 + len(found)])  # a clip and a frame last one second: 4.5 to 5.5
    assert 8 <= len(found) <= 9
    later, _ = excerpt(path, Window(start=2.0, end=6.0), dense(network))
    assert np.array_equal(later, whole[28 : 28 + len(later)])


def test_a_clip_lasts_as_long_as_the_frame_rate_of_the_data_says(place: Place, tmp_path: Path) -> None:
    network = nas.load(place.folders[0])
    network.data = config = dense(network, fps=5.0)  # seven frames at 5 a second are 1.4 seconds
    rng = np.random.default_rng(7)
    short = written(tmp_path / "short.mp4", rng.integers(0, 255, (60, 16, 16, 3), dtype=np.uint8), fps=30, gop=50)
    long = written(
        tmp_path / "long.mp4", rng.integers(0, 255, (MOST_FRAMES + 100, 16, 16, 3), dtype=np.uint8), fps=30, gop=50
    )
    assert len(windows_of(2.0, 30.0, config)) == 1
    assert len(windows_of(70.0, 30.0, config, most=100)) == 50
    frames, rate = excerpt(long, Window(start=30.0, end=37.0), config)
    assert rate == 30
    (view,) = plan(len(frames), 16, 16, config, Views(clips=1), rate=rate)
    assert set(np.diff(view.indices)) <= {12, 13}  # two frames at 5 a second
    middle, _ = excerpt(short, Window(start=0.0, end=2.0), config)
    assert np.array_equal(middle, decode_video(short, short_side=16).frames[6 : 6 + len(middle)])  # from 0.2 to 1.8 s
    assert len(middle) >= 42
    assert config.short == "skip"
    assert [len(predict_video(network, path).timeline) for path in (short, long)] == [1, 10]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_timeline_goes_by_the_times_of_frames_where_their_rate_varies(
    network: TrainedNetwork, tmp_path: Path, suffix: str
) -> None:
    rng = np.random.default_rng(8)
    left, right = moving("move left", rng, frames=8), moving("move right", rng, frames=72)
    ticks = [9 * k for k in range(8)] + [72 + k for k in range(72)]  # two seconds each
    path = written(tmp_path / f"varies{suffix}", np.concatenate([left, right]), fps=36, ticks=ticks)
    found = predict_video(network, path, length=2.0)
    assert found.seconds == pytest.approx(4, abs=0.01)
    assert [(m.start, m.end) for m in found.timeline] == [
        pytest.approx((0, 2), abs=0.01),
        pytest.approx((2, 4), abs=0.01),
    ]
    named = [found.classes[int(np.argmax(m.probabilities))] for m in found.timeline]
    assert named == ["move left", "move right"]


def test_a_window_without_enough_frames_for_a_dense_clip_is_looked_at_with_those_around_it(
    network: TrainedNetwork,
) -> None:
    times = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 30, 31, 32, 33, 34, 35, 36, 37]) / 10
    clips, gap = dense(network), Window(start=1.5, end=2.0)
    assert frames_of(gap, times, 10.0, clips) == slice(6, 13)
    assert frames_of(Window(start=0.0, end=0.3), times, 10.0, clips) == slice(0, 7)
    assert frames_of(Window(start=3.6, end=3.8), times, 10.0, clips) == slice(11, 18)
    assert frames_of(gap, times, 10.0, dataclasses.replace(clips, fps=20.0)) == slice(8, 12)
    assert frames_of(gap, times, 10.0, network.data) == slice(9, 10)  # what stands there; clips are of any length
    assert frames_of(gap, times[:3], 10.0, clips) == slice(0, 3)


def test_an_excerpt_goes_on_until_it_has_the_frames_of_a_clip_where_they_are_rare(
    network: TrainedNetwork, tmp_path: Path
) -> None:
    frames = np.random.default_rng(9).integers(0, 255, (60, 16, 16, 3), dtype=np.uint8)
    ticks = [*range(40), *range(40, 40 + 16 * 20, 16)]  # 32 frames per second, then 2
    path = written(tmp_path / "rare.mp4", frames, fps=32, ticks=ticks)
    found, _ = excerpt(path, Window(start=4.0, end=5.0), dense(network))
    assert len(found) == 7
    assert np.array_equal(found, decode_video(path, short_side=16).frames[46:53])


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 3), min_size=1, max_size=60), st.integers(1, 12), st.data())
def test_frames_are_in_the_window_that_they_begin_in(gaps: list[float], count: int, data: st.DataObject) -> None:
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    config = DataConfig(name="", root="", cache="", clip=Clip(frames=8, height=8, width=8), sampling="uniform")
    seconds = length_of(times, Claims(seconds=0.0, fps=8.0))
    assert seconds == pytest.approx(times[-1] + np.median(gaps))
    windows = windows_of(seconds, 8.0, config, most=count, length=seconds / count)
    window = data.draw(st.sampled_from(windows))
    found = np.arange(len(times))[frames_of(window, times, 8.0, config)]
    inside = np.flatnonzero((times > window.start - 1e-6) & (times < window.end - 1e-6))
    standing = np.flatnonzero(times <= window.start)[-1:]
    assert found.tolist() == (inside if len(inside) else standing).tolist()


@pytest.mark.parametrize(("said", "seconds"), [(4.0, 4.0), (3.9, 3.9), (0.0, 4.0), (1.0, 4.0), (60.0, 4.0)])
def test_a_header_says_how_long_a_video_is_only_where_its_frames_allow_it(said: float, seconds: float) -> None:
    assert length_of(np.arange(32) / 8, Claims(seconds=said, fps=8.0)) == pytest.approx(seconds)
    assert length_of(np.zeros(1), Claims(seconds=0.0, fps=8.0)) == pytest.approx(1 / 8)


def test_a_video_on_its_side_is_looked_at_upright(place: Place, network: TrainedNetwork, tmp_path: Path) -> None:
    frames = moving("move left", np.random.default_rng(5))
    turned = np.ascontiguousarray(np.rot90(frames, 1, axes=(1, 2)))
    plain, path = written(tmp_path / "plain.mp4", turned), tmp_path / "turned.mp4"
    content = bytearray(plain.read_bytes())
    # The matrix of the track's header says how players turn the picture: here by 90 degrees.
    place_ = content.index(b"tkhd") + 44
    unit = (1 << 16).to_bytes(4, "big")
    minus, zero = ((1 << 32) - (1 << 16)).to_bytes(4, "big"), bytes(4)
    for matrix in (zero + unit + zero + minus + zero + zero, zero + minus + zero + unit + zero + zero):
        content[place_ : place_ + 24] = matrix
        path.write_bytes(bytes(content))
        upright = decode_video(path, short_side=16).frames
        if np.abs(upright.astype(int) - frames).mean() < 12:
            break
    assert predict_video(network, path).ranked(1)[0][0] == "move left"
    assert predict_video(network, plain).ranked(1)[0][0] != "move left"
    seen, _ = excerpt(path, Window(start=0.0, end=1.0), network.data)
    assert np.array_equal(seen, upright[: len(seen)])


def broken(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.mp4"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no video")
    elif kind == "cut":
        whole = written(folder / "whole.mp4", moving("move left", np.random.default_rng(0), size=32))
        path.write_bytes(whole.read_bytes()[:600])
    elif kind == "sound":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))  # type: ignore[union-attr]
            container.mux(stream.encode(None))  # type: ignore[union-attr]
    elif kind == "short":
        written(path, moving("move left", np.random.default_rng(0), frames=2, size=16))
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "must be a video, but"),
        ("text", "must be a video, but"),
        ("cut", "must be a video, but"),
        ("sound", "there is no video stream, only audio"),
        ("short", "must have at least 4 frames for a clip, but has 2"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_in_one_line(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    path = broken(kind, tmp_path)
    assert main(["predict", str(place.folders[0]), str(path)]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert path.name in said
    assert "\n" not in said


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("name", [name for name in WHOLE if not name.endswith((".mov", ".ts", ".flv"))])
def test_a_file_that_the_cache_takes_is_looked_at(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, windows: bool
) -> None:
    build, count = WHOLE[name]
    path = build(tmp_path)
    if windows:  # as if it were long
        monkeypatch.setattr(predict, "MOST_FRAMES", 0)
    found = predict_video(network, path, most=3, length=0.5)
    assert sum(found.probabilities) == pytest.approx(1)
    if name.startswith(("piece", "late.mkv", "late.mp4", "sound.")):
        assert found.seconds == pytest.approx(count / 10, abs=0.2)
    if name in ("stands.mp4", "stands.mkv", "stands.webm"):
        assert found.seconds == pytest.approx((count - 1 + 90) / 10, abs=0.2)
        assert found.timeline[-1].end == found.seconds


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("name", LONG)
def test_a_file_that_was_cut_off_is_not_looked_at(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, windows: bool
) -> None:
    path = LONG[name](tmp_path)
    assert predict_video(network, path).probabilities
    cut(path, 0.3)
    if windows:
        monkeypatch.setattr(predict, "MOST_FRAMES", 0)
    with pytest.raises(DataError):
        predict_video(network, path, most=4, length=0.5)


@pytest.mark.parametrize("kind", [*SPECIAL, "long name"])
def test_what_is_no_file_is_refused_in_one_line(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = tmp_path / ("x" * 300 if kind == "long name" else "a.mp4")
    if kind in SPECIAL:
        SPECIAL[kind](path)
    assert main(["predict", str(place.folders[0]), str(path)]) == 2
    said = capsys.readouterr().err.strip()
    assert "must be a file, but" in said or "must be a video, but the file is empty" in said
    assert len(said) <= 500 and "\n" not in said


@settings(deadline=None)
@given(
    st.floats(0.05, 40_000),
    st.sampled_from([8.0, 25.0, 59.94]),
    st.sampled_from(["dense", "uniform"]),
    st.integers(1, 30),
    st.one_of(st.none(), st.floats(0.05, 100)),
)
def test_windows_follow_each_other_from_the_beginning_to_the_end(
    seconds: float, fps: float, sampling: str, most: int, length: float | None
) -> None:
    config = DataConfig(name="", root="", cache="", clip=Clip(frames=8, height=8, width=8), sampling=sampling)  # type: ignore[arg-type]
    windows = windows_of(seconds, fps, config, most=most, length=length)
    assert 1 <= len(windows) <= most
    assert windows[0].start == 0
    assert windows[-1].end == pytest.approx(seconds)
    assert all(a.end == b.start for a, b in pairwise(windows))
    assert all(w.end > w.start for w in windows)


def test_a_network_of_dense_clips_has_a_window_a_clip_and_one_of_whole_videos_has_one() -> None:
    dense = DataConfig(name="", root="", cache="", clip=Clip(frames=16, height=8, width=8, stride=2))
    assert len(windows_of(10.0, 25.0, dense)) == 8  # of 31 frames
    uniform = dataclasses.replace(dense, sampling="uniform")
    assert len(windows_of(10.0, 25.0, uniform)) == 1
    assert len(windows_of(65.0, 25.0, uniform)) == 6


def test_times_and_bars_are_read_at_a_glance() -> None:
    assert [clock(0.04), clock(59.96), clock(75.25), clock(3661.0)] == ["0:00.0", "1:00.0", "1:15.2", "1:01:01"]
    assert [bar(0.0), bar(0.5), bar(1.0)] == [" ", "▄", "█"]


def test_a_file_that_is_gone_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be a video, but cannot be decoded: No such file"):
        header_of(tmp_path / "gone.mp4")


@pytest.fixture(scope="module")
def turning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of movement to the left, then ten to the right."""
    rng = np.random.default_rng(7)
    parts = [np.tile(moving(name, rng), (10, 1, 1, 1)) for name in ("move left", "move right")]
    return written(tmp_path_factory.mktemp("stream") / "turning.mp4", np.concatenate(parts), gop=20)


def edges(moments: Iterable[Moment]) -> list[float]:
    return [edge for moment in moments for edge in (moment.start, moment.end)]


def test_a_stream_sees_what_the_timeline_sees(network: TrainedNetwork, turning: Path) -> None:
    found = list(stream_video(network, turning, length=1.0))
    whole = predict_video(network, turning, most=100, length=1.0)
    assert len(found) == 20
    assert edges(found) == pytest.approx(edges(whole.timeline))
    for one, other in zip(found, whole.timeline, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
    best = [network.class_names[int(np.argmax(m.probabilities))] for m in found]
    assert best == ["move left"] * 10 + ["move right"] * 10


@pytest.mark.parametrize(
    ("length", "every", "windows"),
    [
        (1.0, 0.5, [(k / 2, k / 2 + 1) for k in range(39)]),
        (2.0, 5.0, [(0, 2), (5, 7), (10, 12), (15, 17), (18, 20)]),  # the last one ends with the video
        (3.0, 3.0, [(3 * k, 3 * k + 3) for k in range(6)] + [(17, 20)]),
        (60.0, None, [(0, 20)]),
    ],
)
def test_windows_of_a_stream_follow_each_other_as_asked(
    network: TrainedNetwork, turning: Path, length: float, every: float | None, windows: list[tuple[float, float]]
) -> None:
    found = edges(stream_video(network, turning, length=length, every=every))
    assert found == pytest.approx([edge for window in windows for edge in window])


def test_a_dense_clip_gives_a_stream_its_windows(network: TrainedNetwork, turning: Path) -> None:
    stored = dataclasses.replace(network.stored, data=dense(network, max_frames=0))
    slow = dataclasses.replace(network.stored, data=dense(network, max_frames=0, fps=2.0))
    seconds = 7 / 8  # four frames, two apart, at eight frames per second
    own = TrainedNetwork(network.model, stored=stored).eval()
    assert [m.end - m.start for m in stream_video(own, turning)][:3] == pytest.approx([seconds] * 3)
    assert [m.end - m.start for m in stream_video(TrainedNetwork(network.model, stored=slow).eval(), turning)][:3] == [
        3.5
    ] * 3


def test_a_stream_of_the_command_line_is_csv_or_json_lines(
    place: Place, network: TrainedNetwork, turning: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(place.folders[0]), str(turning), "--window", "5"]
    assert main([*command, "--stream", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["start"], row["end"], row["class"]) for row in rows] == [
        ("0.0", "5.0", "move left"),
        ("5.0", "10.0", "move left"),
        ("10.0", "15.0", "move right"),
        ("15.0", "20.0", "move right"),
    ]
    assert main([*command, "--stream", "csv", "--top", "2"]) == 0
    assert len(list(csv.DictReader(io.StringIO(capsys.readouterr().out)))) == 8
    assert main([*command, "--stream", "jsonl", "--every", "10"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["start"], line["class"]) for line in lines] == [
        (0, "move left"),
        (10, "move right"),
        (15, "move right"),
    ]
    assert all(sum(line["probabilities"].values()) == pytest.approx(1) for line in lines)
    for wrong, message in (
        (["--every", "2"], "--every must go with --stream"),
        (["--stream", "xml"], "'xml' is not known"),
    ):
        assert main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err


def test_a_stream_of_a_video_that_was_cut_off_says_so_at_its_end(
    network: TrainedNetwork, turning: Path, tmp_path: Path
) -> None:
    part = tmp_path / "part.mp4"
    part.write_bytes(turning.read_bytes()[:-200])
    with pytest.raises(DataError) as caught:
        list(stream_video(network, part, length=1.0))
    assert "part.mp4" in str(caught.value) and "\n" not in str(caught.value)


def test_a_stream_holds_the_frames_of_a_window(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    path = written(
        tmp_path / "long.mp4", np.tile(moving("move left", rng), (100, 1, 1, 1)), gop=20
    )  # 100 s at 8 a second
    seen: list[int] = []

    class Held(predict.deque):  # type: ignore[misc, name-defined]
        def append(self, item: object) -> None:
            super().append(item)
            seen.append(len(self))

    monkeypatch.setattr(predict, "deque", Held)
    for every in (None, 1.0, 40.0):
        seen.clear()
        assert list(stream_video(network, path, length=2.0, every=every))
        assert max(seen) <= 18  # two seconds, and one more at each end


def test_a_jump_of_the_clock_is_looked_at_once(network: TrainedNetwork, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    frames = np.tile(moving("move right", rng), (2, 1, 1, 1))
    ticks = [*range(8), *range(8 * 3600, 8 * 3600 + 8)]
    found = edges(stream_video(network, written(tmp_path / "jump.mp4", frames, ticks=ticks), length=1.0))
    assert len(found) <= 2 * 4 and found[:2] == [0, 1] and found[-1] == pytest.approx(3601)


@pytest.mark.parametrize("option", [["--json"], ["--windows", "3"]])
def test_a_stream_goes_with_no_other_form(
    place: Place, turning: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(place.folders[0]), str(turning), "--stream", "csv", *option]) == 2
    assert "leave out --json and --windows" in capsys.readouterr().err


def test_json_lines_are_json_whatever_a_file_is_called(
    place: Place, turning: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a\xad\x7f\x85b.mp4"
    path.write_bytes(turning.read_bytes())
    assert main(["predict", str(place.folders[0]), str(path), "--stream", "jsonl", "--window", "20"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["video"] == str(path)
