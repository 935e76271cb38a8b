"""How many headers `nas data check` reads a second: 10,000 clips of 240x320, 3 to 10 s, no two of them equal.

A few clips are encoded; each is written many times over with a `free` box of its own behind it, which players ignore.
The files are in the system's cache; the journal is empty in the first run and complete in the second.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from trainer.config import Clip, DataConfig
from trainer.data.check import check_data


def _encode(path: Path, seconds: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    base = np.kron(rng.integers(0, 255, (15, 20, 3), dtype=np.uint8), np.ones((16, 16, 1), dtype=np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 240, 320, "yuv420p"
        for number in range(25 * seconds):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(base, 2 * number, 1), format="rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


def _cpu() -> float:
    """Seconds of CPU of this process and of those that it has waited for."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "data"
        clips = [_encode(Path(scratch) / "clip.mp4", seconds, seconds) for seconds in (3, 5, 7, 10)]
        for number in range(options.files):
            split = "val" if number % 10 == 0 else "train"
            folder = root / split / f"class {number // 10 % 50:02d}"
            folder.mkdir(parents=True, exist_ok=True)
            tail = number.to_bytes(8, "big")
            box = (8 + len(tail)).to_bytes(4, "big") + b"free" + tail
            (folder / f"{number:06d}.mp4").write_bytes(clips[number % len(clips)] + box)
        clip = Clip(frames=16, height=112, width=112)
        config = DataConfig(name="bench", root=str(root), cache=str(Path(scratch) / "cache"), clip=clip)
        for run in ("fresh", "again, from the journal"):
            began, busy = time.perf_counter(), _cpu()
            report = check_data(config, journal=Path(scratch) / "journal.jsonl", num_workers=options.workers)
            seconds = time.perf_counter() - began
            assert report.clean
            busy = _cpu() - busy
            print(
                f"{run}: {options.files} files in {seconds:.1f} s, {options.files / seconds:.0f} files/s "
                f"({busy:.1f} s of CPU, {options.files / busy:.0f} files per second of one core)"
            )


if __name__ == "__main__":
    main()
