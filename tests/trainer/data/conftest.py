from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.trainer.data.built import write_sound

CODECS = {".mp4": "libx264", ".mov": "libx264", ".avi": "mpeg4", ".mkv": "libx264", ".webm": "libvpx"}

WriteVideo = Callable[..., Path]


def pictures(count: int, height: int, width: int, *, first: int = 0) -> np.ndarray:
    """Grey frames (F, H, W, 3) whose brightness tells their number: 20, 26, 32, ... modulo 210."""
    levels = (20 + 6 * (first + np.arange(count)) % 210).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


@pytest.fixture
def write_video() -> WriteVideo:
    def write(
        path: Path,
        frames: np.ndarray | int = 12,
        *,
        height: int = 24,
        width: int = 32,
        fps: int = 10,
        options: dict[str, str] | None = None,
    ) -> Path:
        if isinstance(frames, int):
            frames = pictures(frames, height, width)
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = path.suffix.lower()
        form = {".mkv": "matroska"}.get(suffix, suffix[1:])
        with av.open(str(path), "w", format=form, options=(options or {})) as container:
            stream = container.add_stream(CODECS[suffix], rate=fps)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.time_base = Fraction(1, fps)
            stream.bit_rate = 2_000_000
            stream.thread_count = 1
            if CODECS[suffix] == "libx264":
                stream.options = {"qp": "10", "g": "1", "bf": "0"}
            for number, image in enumerate(frames):
                picture = av.VideoFrame.from_ndarray(image, format="rgb24")
                picture.pts = number
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        return path

    return write


@pytest.fixture
def write_audio() -> WriteVideo:
    return write_sound


@pytest.fixture
def root(tmp_path: Path, write_video: WriteVideo) -> Path:
    """Two classes; 5 + 5 videos of 12 frames of 24x32 in train, 2 + 2 in val. Each has brightnesses of its own."""
    root = tmp_path / "data"
    number = 0
    for split, count in (("train", 5), ("val", 2)):
        for label in ("one", "two"):
            for index in range(count):
                frames = pictures(12, 24, 32, first=number)
                write_video(root / split / label / f"{index}.mp4", frames)
                number += 2
    return root
