"""Batches of clips for training and evaluation.

What a batch holds is a pure function of (data, config, seed, epoch): each sample has random numbers of its
own, seeded by seed, epoch and number of the video. So nothing depends on the number of loader processes, on
their speed, on which epochs this process has seen before, or on where in an epoch it began.

A training clip whose video cannot be read is replaced by one of the next video, by number, of the same class (then of
any class), at random numbers that are the sample's own. In evaluation nothing stands in for a video: the clip is left
out. Both are counted in `VideoData.met`, and above `data.max_broken` they end the epoch.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainer.config import Balance, DataConfig
from trainer.data.augment import Box, eval_boxes, place, shown, train_box, turned
from trainer.data.dataset import VideoData, open_data
from trainer.data.decode import DecodeError
from trainer.data.entries import Broken, Entry
from trainer.data.layouts import DataError, DataGoneError
from trainer.data.loading import Batch, load, to
from trainer.data.sample import Indices, eval_indices, frames_at, spread, train_indices
from trainer.data.split import Split
from trainer.data.transforms import changes_pixels, transform
from trainer.processes import WHOLE, Part, share_of

__all__ = [
    "Broken",
    "DataError",
    "Split",
    "VideoData",
    "eval_batches",
    "num_batches",
    "open_data",
    "train_batches",
    "unreadable",
    "without",
]

# Streams of random numbers that must not meet.
_ORDER, _SAMPLE, _CHANGE, _DRAW = 1, 2, 4, 5  # 3 is that of trainer.order_tests
_TRAIN = "train"
_ATTEMPTS = 10  # videos in a row that cannot be read before that is no matter of single files

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def num_batches(data: VideoData, config: DataConfig, *, split: str, batch_size: int, parts: int = 1) -> int:
    """Counts the batches of one epoch of `train`, or of one evaluation of another split.

    Args:
        data: The data.
        config: Says how many clips are evaluated of each video.
        split: Name of the split.
        batch_size: Clips of a batch.
        parts: Processes that share each training batch.

    Returns:
        Number of batches.
    """
    if split == _TRAIN:
        return len(_batches(list(range(len(data.split(split)))), batch_size, parts))
    return -(-len(data.split(split)) * config.eval_clips * config.eval_crops // batch_size)


def train_batches(
    data: VideoData,
    config: DataConfig,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    device: torch.device | str = "cpu",
    start_batch: int = 0,
    part: Part = WHOLE,
    balance: Balance = "none",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields one epoch of the training split: one clip of each video, or as many clips in all, in random order.

    A last batch that is not full is kept if it has two clips or more for each process, since batch normalisation
    cannot learn from one.

    Args:
        data: The data.
        config: How clips are taken.
        batch_size: Clips of a batch, N.
        seed: Seed of the run, at least 0.
        epoch: Number of the epoch, at least 0.
        device: Where the batches are wanted.
        start_batch: Batches of the epoch to pass over, at least 0; those that follow are the same as without it.
        part: The process's number and the number of processes; the parts of all are the batch (`trainer.processes`).
        balance: How often the videos of a class are drawn; other than `none` for one label per video only.

    Yields:
        Clips (N, C, T, H, W), float32, normalised, in channels_last_3d order; and labels (N,), int64, or where the data
        is multi-label (N, num_classes), float32, of 0 and 1.

    Raises:
        DataError: The split has too few videos for a single batch, or more clips than `config.max_broken` allows cannot
            be read.
    """
    split = data.split(_TRAIN)
    batches = _batches(_order(split.labels, balance, seed=seed, epoch=epoch), batch_size, part[1])
    if not batches:
        raise DataError(f"train must have at least 2 usable videos, but has {len(split)}")
    if not 0 <= start_batch <= len(batches):
        raise DataError(f"start_batch must be from 0 to the {len(batches)} batches of an epoch, but is {start_batch}")
    target = torch.device(device)
    here = target.type != "cuda"
    mine = tuple(share_of(batch, part) for batch in batches)
    plan = _TrainClips(split=split, config=config, batches=mine[start_batch:], seed=seed, epoch=epoch, changes=here)
    count = _Count(data=data, limit=config.max_broken, total=sum(map(len, mine)), what=f"epoch {epoch}")
    for batch in load(plan, config.num_workers, target, place=config.root, preload=_preload(config)):
        count.add(batch.problems)
        pixels = batch.pixels
        if not here and changes_pixels(config):
            pixels = torch.stack([plan.changed(*pair) for pair in zip(pixels, batch.samples.tolist(), strict=True)])
        yield shown(pixels, config), to(_targets(data, split, batch.videos), target)


def eval_batches(
    data: VideoData,
    config: DataConfig,
    *,
    split: str,
    batch_size: int,
    device: torch.device | str = "cpu",
    part: Part = WHOLE,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields `config.eval_clips` clips of each video of a split, video by video; nothing in it is random.

    Of each clip there are `config.eval_crops` crops, one after the other.

    Args:
        data: The data.
        config: How clips are taken.
        split: Name of the split; `train` is allowed, and gives its videos as evaluation sees them.
        batch_size: Clips of a batch, N; the last one may have fewer.
        device: Where the batches are wanted.
        part: The process's number and the number of processes, which take batches in turn.

    Yields:
        Clips (N, C, T, H, W) as in training; labels as in training; and the number of the video (N,), int64, within
        its split. Clips that cannot be read are left out.

    Raises:
        DataError: More clips than `config.max_broken` allows cannot be read.
    """
    videos = data.split(split)
    total = len(videos) * config.eval_clips * config.eval_crops
    batches = tuple(tuple(range(start, min(start + batch_size, total))) for start in range(0, total, batch_size))
    plan = _EvalClips(split=videos, config=config, batches=batches[part[0] :: part[1]])
    target = torch.device(device)
    mine = sum(map(len, plan.batches))
    count = _Count(data=data, limit=config.max_broken, total=mine, what=f"the evaluation on {split}")
    for batch in load(plan, config.num_workers, target, place=config.root, preload=_preload(config)):
        count.add(batch.problems)
        if len(batch.videos):
            clips = shown(batch.pixels, config)
            yield clips, to(_targets(data, videos, batch.videos), target), to(batch.videos, target)


def unreadable(data: VideoData, config: DataConfig, split: str) -> tuple[Broken, ...]:
    """Reads the clips of a split once, as evaluation will, and gives the videos that cannot be read, each once.

    Frames of the cache were all decoded when it was made. For those that were damaged since no video is left out: the
    cache need only be made again.

    Args:
        data: The data.
        config: How clips are taken.
        split: Name of the split.

    Raises:
        DataGoneError: The folder of the data is away.
    """
    if config.source == "cache":
        return ()
    videos = data.split(split)
    views = config.eval_clips * config.eval_crops
    batches = tuple(tuple(range(video * views, (video + 1) * views)) for video in range(len(videos)))
    plan = _EvalClips(split=videos, config=config, batches=batches)
    found: dict[str, str] = {}
    for batch in load(plan, config.num_workers, torch.device("cpu"), place=config.root, preload=_preload(config)):
        for path, reason in batch.problems:
            found.setdefault(path, reason)
    return tuple(Broken(path=path, reason=reason) for path, reason in found.items())


def without(data: VideoData, split: str, paths: Collection[str]) -> VideoData:
    """The data without some videos of a split; its checksum, which names trainings, stays that of the whole.

    Args:
        data: The data.
        split: Name of the split.
        paths: Of the videos.
    """
    if not paths:
        return data
    videos = data.split(split)
    kept = [number for number, entry in enumerate(videos.entries) if entry.path not in paths]
    splits = {**data.splits, split: videos.keep(np.array(kept, dtype=np.int64))}
    return replace(data, splits=MappingProxyType(splits))


@dataclass(kw_only=True, slots=True)
class _Count:
    """Counts the unreadable clips of an epoch or an evaluation, and says when they are too many."""

    data: VideoData
    limit: float
    total: int
    what: str
    found: list[Broken] = field(default_factory=list)

    def add(self, problems: Sequence[tuple[str, str]]) -> None:
        """Raises DataError above the limit."""
        for path, reason in problems:
            self.found.append(Broken(path=path, reason=reason))
            self.data.met.add(self.found[-1])
        if len(self.found) > self.limit * self.total:
            first = self.found[0]
            raise DataError(
                f"at most data.max_broken = {self.limit:g} of the clips may be of unreadable videos, but"
                f" {len(self.found)} of {self.total} were in {self.what} (the first, {first.path}: {first.reason})"
            )


def _order(labels: Indices, balance: Balance, *, seed: int, epoch: int) -> list[int]:
    """The samples of a training epoch in their order, as many as there are videos.

    A sample is the number of a video; where one is drawn again, that and a multiple of the number of videos, so that
    its clip is another.
    """
    samples = np.arange(len(labels))
    if balance != "none":
        samples = _drawn(labels, balance, np.random.default_rng([_DRAW, seed, epoch]))
    order: list[int] = samples[np.random.default_rng([_ORDER, seed, epoch]).permutation(len(samples))].tolist()
    return order


def _drawn(labels: Indices, balance: Balance, rng: np.random.Generator) -> Indices:
    """Samples of each class by its share, all videos of a class equally often but for one.

    The shares of an epoch are whole numbers whose means over epochs are exact (systematic sampling).
    """
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts**0.5 if balance == "sqrt" else np.ones(len(counts))
    ends = np.floor(np.cumsum(shares) / shares.sum() * len(labels) + rng.random()).astype(np.int64)
    ends[-1] = len(labels)
    found = []
    for label, number in zip(classes, np.diff(ends, prepend=0), strict=True):
        own = np.flatnonzero(labels == label)
        turns = [rng.permutation(own) + turn * len(labels) for turn in range(-(-int(number) // len(own)))]
        found.append(np.concatenate([own[:0], *turns])[:number])
    return np.concatenate(found)


def _batches(order: Sequence[int], batch_size: int, parts: int) -> tuple[tuple[int, ...], ...]:
    """The samples of each training batch."""
    batches = [tuple(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    if batches and len(batches[-1]) < min(2 * parts, batch_size):
        batches.pop()
    return tuple(batches)


def check_place(config: DataConfig, path: str) -> None:
    """Raises DataGoneError where not the video of a path is at fault, but its folder is away or empty."""
    if config.source != "decode":
        return
    folder = (Path(config.root) / path).parent
    try:
        with os.scandir(folder) as entries:
            if next(entries, None) is not None:
                return
        reason = "it is empty"
    except OSError as error:
        reason = str(error.strerror)
    raise DataGoneError(f"the folders of data.root must stay in place, but {folder} cannot be read: {reason}")


class _Clips(Dataset[Batch]):
    """Batches of clips as uint8, not normalised yet, by their number."""

    batches: tuple[tuple[int, ...], ...]
    config: DataConfig
    split: Split

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Batch:
        clip, samples = self.config.clip, self.batches[number]
        pixels = np.empty((len(samples), clip.frames, clip.height, clip.width, self.config.planes), dtype=np.uint8)
        done: list[tuple[int, int]] = []
        problems: list[tuple[str, str]] = []
        for sample in samples:
            for attempt, video in enumerate(self.videos(sample)):
                try:
                    self.write(sample, video, pixels[len(done)])
                except DecodeError as error:
                    check_place(self.config, self.split.entry(video).path)
                    if attempt == 0:  # a clip counts once, however many videos could not stand in
                        problems.append((self.split.entry(video).path, str(error)))
                else:
                    done.append((sample, video))
                    break
        numbers = torch.tensor(done, dtype=torch.int64).reshape(-1, 2)
        return Batch(
            pixels=torch.from_numpy(pixels[: len(done)]), samples=numbers[:, 0], videos=numbers[:, 1], problems=problems
        )

    def videos(self, sample: int) -> Iterator[int]:
        """The numbers of the videos that a sample may be of, the best one first."""
        raise NotImplementedError

    def write(self, sample: int, video: int, out: Pixels) -> None:
        """Fills `out` (T, H, W, C) with one sample, of a video; raises DecodeError if that cannot be read."""
        raise NotImplementedError

    def read(self, video: int, entry: Entry, numbers: Indices, num_seen: int, box: Box, *, backwards: bool) -> Pixels:
        """The pixels of a box in the frames of a clip, whose numbers count the frames that are seen at `data.fps`."""
        numbers = spread(numbers, entry.num_frames, num_seen)
        return self.split.read(video, numbers[::-1] if backwards else numbers, box)


@dataclass(frozen=True, kw_only=True)
class _TrainClips(_Clips):
    split: Split
    config: DataConfig
    batches: tuple[tuple[int, ...], ...]
    seed: int
    epoch: int
    changes: bool

    def videos(self, sample: int) -> Iterator[int]:
        """The video itself, then those that stand in for it."""
        video = sample % len(self.split)
        yield video
        yield from islice(_standins(self.split.labels, video), _ATTEMPTS - 1)
        raise DataError(
            f"a video must be readable now and then, but {_ATTEMPTS} of train in a row were not, the first of them"
            f" {self.split.entry(video).path}; is the disk of {self.config.root} still there?"
        )

    def write(self, sample: int, video: int, out: Pixels) -> None:
        config, entry = self.config, self.split.entry(video)
        rng = np.random.default_rng([_SAMPLE, self.seed, self.epoch, sample])
        num_seen = frames_at(entry.num_frames, entry.fps, config.fps)
        numbers = train_indices(num_seen, config.clip, config.sampling, rng)
        box = train_box(entry.height, entry.width, config.box, config.crop_scale, rng, crop_ratio=config.crop_ratio)
        mirror = config.flip and bool(rng.integers(2))
        backwards = config.reversal == "always"
        place(self.read(video, entry, numbers, num_seen, box, backwards=backwards), out, mirror=mirror)
        turned(out, config, mirror=mirror, backwards=backwards)
        if self.changes and changes_pixels(config):
            out[...] = self.changed(torch.from_numpy(out), sample).numpy()

    def changed(self, pixels: Tensor, sample: int) -> Tensor:
        """A clip (T, H, W, C) as RandAugment, colour and erasing leave it."""
        return transform(pixels, self.config, np.random.default_rng([_CHANGE, self.seed, self.epoch, sample]))


@dataclass(frozen=True, kw_only=True)
class _EvalClips(_Clips):
    split: Split
    config: DataConfig
    batches: tuple[tuple[int, ...], ...]

    def videos(self, sample: int) -> Iterator[int]:
        """The video itself: nothing stands in for it."""
        yield sample // (self.config.eval_clips * self.config.eval_crops)

    def write(self, sample: int, video: int, out: Pixels) -> None:
        config, entry = self.config, self.split.entry(video)
        view = sample % (config.eval_clips * config.eval_crops)
        number, crop = divmod(view, config.eval_crops)
        num_seen = frames_at(entry.num_frames, entry.fps, config.fps)
        numbers = eval_indices(num_seen, config.clip, config.sampling, number=number, num_clips=config.eval_clips)
        box = eval_boxes(entry.height, entry.width, config.box, crops=config.eval_crops)[crop]
        backwards = config.reversal != "none"
        place(self.read(video, entry, numbers, num_seen, box, backwards=backwards), out, mirror=False)
        turned(out, config, mirror=False, backwards=backwards)


def _standins(labels: Indices, sample: int) -> Iterator[int]:
    """The other videos in the order in which they stand in for one: by number from it on, its class first."""
    numbers = (sample + 1 + np.arange(len(labels) - 1)) % len(labels)
    alike = labels[numbers] == labels[sample]
    yield from numbers[alike].tolist()
    yield from numbers[~alike].tolist()


def _preload(config: DataConfig) -> list[str]:
    """Modules that loader processes need."""
    modules = [__name__, *(["trainer.data.direct"] if config.source == "decode" else [])]
    return [*modules, *(["torchvision.transforms.v2"] if changes_pixels(config) else [])]


def _targets(data: VideoData, split: Split, videos: Tensor) -> Tensor:
    """Labels (N,), int64, or rows (N, num_classes) of 0 and 1 where the data is multi-label."""
    if not data.multi_label:
        return torch.from_numpy(split.labels[videos.numpy()])
    rows = torch.zeros(len(videos), len(data.classes))
    for row, video in zip(rows, videos.tolist(), strict=True):
        row[list(split.entry(video).labels)] = 1
    return rows
