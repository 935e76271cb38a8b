"""How fast clips are loaded: packs against decoding by PyAV and decord2; what loaders add to a step; what they hold.

    python benchmarks/bench_loader.py                         speed, a share of a step, memory over 5,000 clips
    python benchmarks/bench_loader.py memory --clips 100000   memory alone, over so many

Sources are generated: 240x320, 30 frames per second, 3 to 10 s, H.264 with x264's usual distance of key frames. Each
contender makes the same clips (16 frames in a row from a random start, short side 128, a crop of 112x112, bytes) in one
process on one thread, and they take turns, so that a busy machine slows all alike. decord2 is measured where it is
installed (`pip install decord2`).
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import Interpolation

from trainer.config import Clip, DataConfig
from trainer.data.augment import Box, place
from trainer.data.clips import VideoData, open_data, train_batches
from trainer.data.layouts import find_videos
from trainer.data.pack.write import write_pack
from trainer.recipe import Recipe

SHORT, SIZE, FRAMES, RATE = 128, 112, 16, 30

Take = Callable[[int, int, Box], np.ndarray]


def make_sources(root: Path, count: int) -> None:
    """Writes `count` videos: a coloured texture that pans, and patches that move across it."""
    rng = np.random.default_rng(0)
    for number in range(count):
        seconds = 3 + 7 * number / max(count - 1, 1)
        # Sums of waves: as smooth, and as costly to code, as a picture of the world.
        field = rng.normal(size=(30, 40, 3))
        field = np.kron(field, np.ones((20, 20, 1)))
        for axis in (0, 1):
            field = sum(np.roll(field, shift, axis) for shift in range(-9, 10)) / 19
        field = 128 + 150 * field + rng.normal(scale=4, size=field.shape)
        image = field.clip(0, 255).astype(np.uint8)
        path = root / ("val" if number < 2 else "train") / "one" / f"{number:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=RATE)
            stream.height, stream.width, stream.pix_fmt = 240, 320, "yuv420p"
            stream.options = {"preset": "veryfast", "crf": "23"}
            for frame in range(round(seconds * RATE)):
                top, left = (frame * 2) % 300, (frame * 3) % 400
                view = np.ascontiguousarray(image[top : top + 240, left : left + 320])
                view[60 + frame % 100 : 120 + frame % 100, 40 + frame % 200 : 100 + frame % 200] = (200, 40, 60)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
            container.mux(stream.encode(None))


def pyav_take(paths: list[str], *, seek: bool) -> Take:
    """The loop one writes: open, seek to the key frame before (or not), decode up to the last frame, resize, crop."""

    def take(video: int, start: int, box: Box) -> np.ndarray:
        out = []
        with av.open(paths[video]) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            first = round(start / RATE / stream.time_base)
            if seek:
                container.seek(first, stream=stream)
            for frame in container.decode(stream):
                if frame.pts >= first:
                    small = frame.reformat(171, SHORT, "rgb24", interpolation=Interpolation.BICUBIC)
                    out.append(small.to_ndarray()[box.slices])
                    if len(out) == FRAMES:
                        break
        return np.stack(out)

    return take


def decord_take(paths: list[str]) -> Take | None:
    """The same by decord2, which resizes as it decodes; None where it is not installed."""
    try:
        import decord
    except ImportError:
        return None

    def take(video: int, start: int, box: Box) -> np.ndarray:
        reader = decord.VideoReader(paths[video], ctx=decord.cpu(0), width=171, height=SHORT, num_threads=1)
        return reader.get_batch(list(range(start, start + FRAMES))).asnumpy()[:, *box.slices]

    return take


def our_take(data: VideoData) -> Take:
    """What a loader process does for a clip."""
    split = data.split("train")
    out = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8)

    def take(video: int, start: int, box: Box) -> np.ndarray:
        place(split.read(video, np.arange(start, start + FRAMES), box), out, mirror=False)
        return out

    return take


def config_of(work: Path, source: str, **changes: object) -> DataConfig:
    place = {"cache": work / "videos", "decode": work / "videos", "jpeg": work / "jpeg", "raw": work / "raw"}[source]
    values = {"name": "bench", "cache": str(work / "cache"), "short_side": SHORT, "root": str(place)}
    values["source"] = "pack" if source in ("jpeg", "raw") else source
    return DataConfig(clip=Clip(frames=FRAMES, height=SIZE, width=SIZE), **{**values, **changes})


def speed(work: Path, rounds: int) -> None:
    """Clips per second of each contender, and their ratios to PyAV with a seek and to decord2."""
    data = {source: open_data(config_of(work, source)) for source in ("cache", "raw", "jpeg", "decode")}
    entries = data["cache"].split("train").entries
    paths = [str(work / "videos" / entry.path) for entry in entries]
    takes: dict[str, Take | None] = {
        "PyAV, from the start": pyav_take(paths, seek=False),
        "PyAV, seek": pyav_take(paths, seek=True),
        "decord2": decord_take(paths),
        **{f"ours, {source}": our_take(one) for source, one in data.items()},
    }
    contenders = {name: take for name, take in takes.items() if take is not None}
    walls: dict[str, list[float]] = {name: [] for name in contenders}
    rng = np.random.default_rng(1)
    for turn in range(rounds + 1):
        for video, entry in enumerate(entries):
            start = int(rng.integers(entry.num_frames - FRAMES + 1))
            box = Box(top=int(rng.integers(17)), left=int(rng.integers(60)), height=SIZE, width=SIZE)
            for name, take in contenders.items():
                began = time.process_time()
                take(video, start, box)
                if turn:  # the first round warms up
                    walls[name].append(time.process_time() - began)
    means = {name: statistics.fmean(times) for name, times in walls.items()}
    print(f"\n{len(entries)} videos, {rounds} clips of each; processor time of one thread")
    for name, mean in means.items():
        ratios = [f"{means['PyAV, seek'] / mean:6.1f} x PyAV, seek"]
        if "decord2" in means:
            ratios.append(f"{means['decord2'] / mean:6.1f} x decord2")
        print(f"  {name:<22} {1 / mean:8.1f} clips/s  {1e3 * mean:7.2f} ms  {'  '.join(ratios)}", flush=True)


def share(work: Path, steps: int, workers: int, batch_size: int) -> None:
    """The share of training steps of r3d_18 that is spent waiting for clips."""
    # Here, because each loader process imports what the main module imports.
    import torchvision

    from trainer.learner import Learner, Losses

    torch.set_num_threads(2)
    model = torchvision.models.video.r3d_18(num_classes=400)
    recipe = Recipe(batch_size=batch_size, ema_decay=0.0, warmup_epochs=0.0)
    learner = Learner(model.train(), recipe, torch.device("cpu"))
    for source in ("jpeg", "raw", "decode"):
        config = config_of(work, source, num_workers=workers, flip=True, crop_scale=(0.5, 1.0))
        data, losses = open_data(config), Losses(1)
        repeated = _repeated(data, (steps + 1) * batch_size)
        waited, computed = [], []
        began = time.perf_counter()
        source_of = train_batches(repeated, config, batch_size=batch_size, seed=0, epoch=0)
        for number in range(steps + 1):
            clips, labels = next(source_of)
            loaded = time.perf_counter()
            losses.add(learner.step(clips, labels, lr=1e-4, share=None, num_classes=400, done=number + 1), len(labels))
            waited.append(loaded - began)
            began = time.perf_counter()
            computed.append(began - loaded)
        total = sum(waited[1:]) + sum(computed[1:])
        print(
            f"  {source:<8} {1e3 * statistics.median(waited[1:]):6.1f} ms of {total / steps:6.2f} s a step:"
            f" {100 * sum(waited[1:]) / total:5.2f} % (the first batch, with the start of the processes:"
            f" {waited[0]:.2f} s)",
            flush=True,
        )


def memory(work: Path, clips: int, workers: int) -> None:
    """What loader processes hold after the first thousand clips and at the end, in MiB."""
    for source in ("jpeg", "raw"):
        config = config_of(work, source, num_workers=workers)
        data = _repeated(open_data(config), clips)
        seen, first = 0, ""
        began = time.perf_counter()
        for batch, _ in train_batches(data, config, batch_size=8, seed=0, epoch=0):
            seen += len(batch)
            if seen % 1000 < len(batch) or seen >= clips - 16 * workers * 8:
                now = _memory()
                first = first or now
                last = now
            if seen % 10000 < len(batch):
                print(f"  {source}: {seen} clips, {last}", flush=True)
        print(f"  {source}: {seen} clips, {seen / (time.perf_counter() - began):.0f} clips/s with {workers} processes")
        print(f"    after 1000: {first}\n    at the end: {last}", flush=True)


def _repeated(data: VideoData, clips: int) -> VideoData:
    """The data with the training videos over and over, so that one epoch is long."""
    split = data.split("train")
    again = split.keep(np.arange(clips, dtype=np.int64) % len(split))
    return dataclasses.replace(data, splits={"train": again, "val": data.split("val")})


def _memory() -> str:
    pids = sorted(child.pid for child in multiprocessing.active_children() if child.pid)
    parts = []
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
        private = sizes["Private_Clean"] + sizes["Private_Dirty"]
        parts.append(
            f"private {private:.1f}, its share of all {sizes['Pss']:.1f} (without files {sizes['Pss_Anon']:.1f}),"
            f" resident {sizes['Rss']:.0f}"
        )
    return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["speed", "share", "memory"], help="speed, share, memory")
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", default="", help="folder for sources and packs; kept. By default a temporary one.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(options.work or scratch)
        if not (work / "videos").exists():
            make_sources(work / "videos", options.videos)
        layout = find_videos(work / "videos", name="bench")
        for coding in ("jpeg", "raw"):
            write_pack(layout, work / coding, short_side=SHORT, coding=coding)
        if "speed" in options.what:
            speed(work, options.rounds)
        if "share" in options.what:
            print(f"\nr3d_18, {FRAMES}x{SIZE}x{SIZE}, batch {options.batch_size}, {options.workers} loader processes")
            share(work, options.steps, options.workers, options.batch_size)
        if "memory" in options.what:
            print(f"\nMiB of each of {options.workers} loader processes")
            memory(work, options.clips, options.workers)


if __name__ == "__main__":
    main()
