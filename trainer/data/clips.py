"""Batches of clips for training and evaluation.

What a batch holds is a pure function of (data, config, seed, epoch): each sample has random numbers of its
own, seeded by seed, epoch and number of the video. So nothing depends on the number of loader processes, on
their speed, or on which epochs this process has seen before.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainer.config import DataConfig
from trainer.data.augment import centre_box, cut, normalise, train_box
from trainer.data.dataset import PackedSplit, VideoData, open_data
from trainer.data.layouts import DataError
from trainer.data.pack import Broken
from trainer.data.sample import eval_indices, train_indices
from trainer.team import WHOLE, Part, part_of

__all__ = [
    "Broken",
    "DataError",
    "PackedSplit",
    "VideoData",
    "eval_batches",
    "num_batches",
    "open_data",
    "train_batches",
]

# Streams of random numbers that must not meet.
_ORDER, _SAMPLE = 1, 2
_TRAIN = "train"


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
        return len(_epoch(len(data.split(split)), batch_size, seed=0, epoch=0, parts=parts))
    return -(-len(data.split(split)) * config.eval_clips // batch_size)


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
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields one epoch of the training split: one clip of each video, in random order.

    A last batch that is not full is kept if it has two clips or more for each process, since batch normalisation
    cannot learn from one.

    Args:
        data: The data.
        config: How clips are taken.
        batch_size: Clips of a batch, N.
        seed: Seed of the run, at least 0.
        epoch: Number of the epoch, at least 0.
        device: Where the batches are wanted.
        start_batch: Batches of the epoch that are passed over, and not loaded.
        part: The process's number and the number of processes; the parts of all are the batch (`trainer.team`).

    Yields:
        Clips (N, 3, T, H, W), float32, normalised, in channels_last_3d order; and labels (N,), int64.

    Raises:
        DataError: The split has too few videos for a single batch.
    """
    split = data.split(_TRAIN)
    batches = _epoch(len(split), batch_size, seed=seed, epoch=epoch, parts=part[1])
    if not batches:
        raise DataError(f"train must have at least 2 usable videos, but has {len(split)}")
    batches = tuple(part_of(batch, part) for batch in batches[start_batch:])
    plan = _TrainClips(split=split, config=config, batches=batches, seed=seed, epoch=epoch)
    for pixels, videos in _load(plan, config.num_workers, torch.device(device)):
        yield normalise(pixels, config.mean, config.std), _to(_labels(split, videos), torch.device(device))


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

    Args:
        data: The data.
        config: How clips are taken.
        split: Name of the split; `train` is allowed, and gives its videos as evaluation sees them.
        batch_size: Clips of a batch, N; the last one may have fewer.
        device: Where the batches are wanted.
        part: The process's number and the number of processes, which take batches in turn.

    Yields:
        Clips (N, 3, T, H, W) as in training; labels (N,); and the number of the video (N,), int64, within
        its split.
    """
    videos = data.split(split)
    total = len(videos) * config.eval_clips
    batches = tuple(tuple(range(start, min(start + batch_size, total))) for start in range(0, total, batch_size))
    plan = _EvalClips(split=videos, config=config, batches=batches[part[0] :: part[1]])
    target = torch.device(device)
    for pixels, samples in _load(plan, config.num_workers, target):
        numbers = samples // config.eval_clips
        clips = normalise(pixels, config.mean, config.std)
        yield clips, _to(_labels(videos, numbers), target), _to(numbers, target)


def _epoch(num_videos: int, batch_size: int, *, seed: int, epoch: int, parts: int = 1) -> tuple[tuple[int, ...], ...]:
    """The numbers of the videos of each training batch."""
    order = np.random.default_rng([_ORDER, seed, epoch]).permutation(num_videos).tolist()
    batches = [tuple(order[start : start + batch_size]) for start in range(0, num_videos, batch_size)]
    if batches and len(batches[-1]) < min(2 * parts, batch_size):
        batches.pop()
    return tuple(batches)


class _Clips(Dataset[tuple[Tensor, Tensor]]):
    """Batches of uncooked clips: item b is (pixels (N, T, H, W, 3) uint8, numbers of the samples (N,))."""

    batches: tuple[tuple[int, ...], ...]
    config: DataConfig

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        clip, samples = self.config.clip, self.batches[number]
        pixels = np.empty((len(samples), clip.frames, clip.height, clip.width, 3), dtype=np.uint8)
        for sample, out in zip(samples, pixels, strict=True):
            self.write(sample, out)
        return torch.from_numpy(pixels), torch.tensor(samples, dtype=torch.int64)

    def write(self, sample: int, out: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
        """Fills `out` (T, H, W, 3) with one sample."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class _TrainClips(_Clips):
    split: PackedSplit
    config: DataConfig
    batches: tuple[tuple[int, ...], ...]
    seed: int
    epoch: int

    def write(self, sample: int, out: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
        config, video = self.config, self.split.video(sample)
        rng = np.random.default_rng([_SAMPLE, self.seed, self.epoch, sample])
        indices = train_indices(video.shape[0], config.clip, config.sampling, rng)
        box = train_box(video.shape[1], video.shape[2], config.clip, config.crop_scale, rng)
        mirror = config.flip and bool(rng.integers(2))
        cut(video, indices[::-1] if config.reversal == "always" else indices, box, out, mirror=mirror)


@dataclass(frozen=True, kw_only=True)
class _EvalClips(_Clips):
    split: PackedSplit
    config: DataConfig
    batches: tuple[tuple[int, ...], ...]

    def write(self, sample: int, out: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
        config = self.config
        index, number = divmod(sample, config.eval_clips)
        video = self.split.video(index)
        indices = eval_indices(video.shape[0], config.clip, config.sampling, number=number, num_clips=config.eval_clips)
        box = centre_box(video.shape[1], video.shape[2], config.clip)
        cut(video, indices if config.reversal == "none" else indices[::-1], box, out, mirror=False)


def _load(plan: _Clips, num_workers: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the items of `plan`: the pixels on `device`, the numbers on the CPU."""
    if num_workers == 0:
        for number in range(len(plan)):
            pixels, samples = plan[number]
            yield _to(pixels, device), samples
        return
    context = multiprocessing.get_context("forkserver")
    # The server imports torch once; every epoch then gets its processes by a cheap fork of it.
    context.set_forkserver_preload([__name__])
    loader = DataLoader(
        plan,
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context=context,
        pin_memory=device.type == "cuda",
        # Otherwise the loader would take a number from the global generator, and the run would depend on
        # its use.
        generator=torch.Generator(),
    )
    for pixels, samples in loader:
        yield pixels.to(device, non_blocking=True), samples


def _labels(split: PackedSplit, videos: Tensor) -> Tensor:
    return torch.from_numpy(split.labels[videos.numpy()])


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
