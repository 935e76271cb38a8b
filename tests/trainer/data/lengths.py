"""Videos whose container states another length than that of their pictures, though nothing of them is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FPS = 10
COUNT = 20
SUFFIXES = ("mp4", "mov", "mkv", "webm", "avi", "ts", "flv")
_FORMATS = {"mkv": "matroska", "ts": "mpegts"}
_CODECS = {"webm": "libvpx", "avi": "mpeg4", "ts": "mpeg2video", "flv": "flv"}


def written(
    path: Path,
    *,
    count: int = COUNT,
    sound: float = 0.0,
    sound_from: float | None = None,
    first: int = 0,
    times: list[int] | None = None,
    stands: int = 0,
    form: str = "",
    size: int = 24,
    **options: str,
) -> Path:
    """Writes a video at ten frames per second.

    Args:
        path: The file; its suffix says the container.
        count: Frames, a key frame each fifth.
        sound: Seconds of sound beside it.
        sound_from: When it begins in seconds; None is with the first frame.
        first: Time of the first frame, in frames.
        times: Of each frame, in frames, instead.
        stands: Frames for which the last one stands.
        form: Container, where it is not that of the suffix.
        size: Height and width.
        options: Of the container.
    """
    rng = np.random.default_rng(0)
    suffix = path.suffix[1:]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=form or _FORMATS.get(suffix, suffix), options=options) as container:
        stream = container.add_stream(_CODECS.get(suffix, "libx264"), rate=FPS)
        stream.height = stream.width = size
        stream.pix_fmt, stream.time_base, stream.thread_count = "yuv420p", Fraction(1, FPS), 1
        stream.options = {"g": "5", "bf": "0"}
        rate = 44100 if suffix == "flv" else 48000
        codec = "libopus" if suffix == "webm" else "aac"
        other = container.add_stream(codec, rate=rate, layout="mono") if sound else None
        packets = []
        for at in times or range(first, first + count):
            image = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts = at
            packets += stream.encode(picture)
        packets += stream.encode(None)
        if stands:
            packets[-1].duration = round(stands / FPS / packets[-1].time_base)
        packets += (
            list(_silence(other, sound, rate, first / FPS if sound_from is None else sound_from)) if other else []
        )
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def _silence(stream: av.AudioStream, seconds: float, rate: int, start: float) -> Iterator[av.Packet]:
    for number in range(int(seconds * rate / 960)):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), dtype=np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, round(start * rate) + number * 960, Fraction(1, rate)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def pieces(folder: Path, suffix: str) -> list[Path]:
    """Six pieces of a recording, cut at key frames without coding it anew, as FFmpeg's `-c copy -f segment` does."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = written(folder / f"whole.{suffix}", count=6 * COUNT, sound=6 * COUNT / FPS)
    options = {"segment_time": str(COUNT / FPS)}
    with (
        av.open(str(whole)) as source,
        av.open(str(folder / f"piece%d.{suffix}"), "w", format="segment", options=options) as container,
    ):
        streams = {one.index: container.add_stream_from_template(one) for one in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                container.mux(packet)
    return sorted(folder.glob(f"piece*.{suffix}"))


def trimmed(path: Path) -> Path:
    """The last second of a recording, copied: a list of edits hides the frames since the key frame before it."""
    whole = written(path.with_stem("whole"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                late = round(1.2 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - late, packet.dts - late, stream
                container.mux(packet)
    return path


GAPS = [0, 1, 2, 3, 40, 41, 42, 90, 91, 92]
FRAGMENTS = "frag_keyframe+empty_moov"

# By name: a function of a folder that writes a file which lacks nothing, and its frames.
WHOLE: dict[str, tuple[Callable[[Path], Path], int]] = {
    **{f"sound.{s}": (lambda to, s=s: written(to / f"a.{s}", sound=8.0), COUNT) for s in SUFFIXES},
    **{f"stands.{s}": (lambda to, s=s: written(to / f"a.{s}", stands=90), COUNT) for s in SUFFIXES if s != "flv"},
    **{f"gaps.{s}": (lambda to, s=s: written(to / f"a.{s}", times=GAPS), len(GAPS)) for s in SUFFIXES},
    **{f"late.{s}": (lambda to, s=s: written(to / f"a.{s}", first=300), COUNT) for s in SUFFIXES},
    **{
        f"piece{k}.{s}": (lambda to, s=s, k=k: pieces(to, s)[k], COUNT)
        for s in ("mp4", "mov", "mkv", "webm", "ts")
        for k in (0, 1, 5)
    },
    "fragments.mp4": (lambda to: written(to / "a.mp4", movflags=FRAGMENTS), COUNT),
    "fragments, late.mp4": (lambda to: written(to / "a.mp4", first=300, movflags=FRAGMENTS), COUNT),
    "fragments, sound.mp4": (lambda to: written(to / "a.mp4", sound=8.0, movflags=FRAGMENTS), COUNT),
    "segments.mp4": (lambda to: written(to / "a.mp4", movflags="dash+global_sidx+frag_keyframe"), COUNT),
    "trimmed.mp4": (lambda to: trimmed(to / "a.mp4"), 8),
    "trimmed.mov": (lambda to: trimmed(to / "a.mov"), 8),
    "live.mkv": (lambda to: written(to / "a.mkv", live="1"), COUNT),
    "sound first.mkv": (lambda to: written(to / "a.mkv", first=600, sound=70.0, sound_from=0.0), COUNT),
}


def cut(path: Path, share: float) -> Path:
    """Leaves the beginning of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


# By name: a function of a folder that writes a file which is to be cut.
LONG: dict[str, Callable[[Path], Path]] = {
    "front.mp4": lambda to: written(to / "a.mp4", size=64, movflags="faststart"),
    "front.mov": lambda to: written(to / "a.mov", size=64, movflags="faststart"),
    "front, sound.mp4": lambda to: written(to / "a.mp4", size=64, sound=2.0, movflags="faststart"),
    "segments.mp4": lambda to: written(to / "a.mp4", size=64, movflags="dash+global_sidx+frag_keyframe"),
    "plain.mkv": lambda to: written(to / "a.mkv", size=64),
    "sound.mkv": lambda to: written(to / "a.mkv", size=64, sound=2.0),
    "piece.mkv": lambda to: pieces(to, "mkv")[3],
    "plain.webm": lambda to: written(to / "a.webm", size=64),
    "late.mkv": lambda to: written(to / "a.mkv", size=64, first=300),
    "plain.avi": lambda to: written(to / "a.avi", size=64),
}
