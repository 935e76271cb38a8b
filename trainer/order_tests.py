"""Motion tests: what a trained network makes of clips whose order of frames was changed or taken away.

`forward` shows a clip as the evaluation of training does; `reversed` shows it backwards; `shuffled` puts the frames of
each video in a random order; `frozen` repeats the clip's middle frame over the whole clip; `single` repeats one frame
over the whole clip, for each frame in turn, and averages the class probabilities. The first three show the same set of
frames, the last two no motion at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer.config import Balance, ConfigError, DataConfig
from trainer.data import clips as video_clips
from trainer.data.augment import reordered
from trainer.data.kinds import Input
from trainer.evaluate import Batches, Evaluation, evaluate
from trainer.outcomes import TESTS, MotionOutcome
from trainer.processes import WHOLE, Part
from trainer.recipe import Recipe

# A stream of random numbers of its own, apart from those of trainer.data.clips.
_SHUFFLE = 3


def orders(test: str, *, num_frames: int, videos: Sequence[int], seed: int) -> Iterator[Tensor]:
    """Says which frame stands at each place of the clips that stand for a batch of clips in a test.

    The order of a shuffled clip is drawn evenly from all orders but the original one. It is a function of the seed, the
    video and the number of frames alone: it depends neither on the batch nor on the network, and all clips of a video
    have the same one.

    Args:
        test: One of `TESTS`.
        num_frames: Frames of a clip, T, at least 2.
        videos: Number of each clip's video in its split, N of them.
        seed: Of the shuffles, at least 0.

    Yields:
        Numbers of frames (N, T), int64: once, for `single` T times.

    Raises:
        ConfigError: The test is not known, the seed is negative, or a clip has fewer than two frames.
    """
    if test not in TESTS:
        raise ConfigError(f"a motion test must be one of {', '.join(TESTS)}, but is {test}")
    if num_frames < 2:
        raise ConfigError(f"a motion test needs clips of at least 2 frames, but data.clip.frames is {num_frames}")
    if seed < 0:
        raise ConfigError(f"the seed of a motion test must be at least 0, but is {seed}")
    forward = torch.arange(num_frames).expand(len(videos), num_frames)
    if test == "forward":
        yield forward
    elif test == "reversed":
        yield forward.flip(1)
    elif test == "shuffled":
        rows = [_shuffle(num_frames, video, seed) for video in videos]
        yield torch.from_numpy(np.array(rows, dtype=np.int64).reshape(len(videos), num_frames))
    elif test == "frozen":
        yield torch.full_like(forward, num_frames // 2)
    else:
        for frame in range(num_frames):
            yield torch.full_like(forward, frame)


def reorder(clips: Tensor, test: str, *, videos: Sequence[int], seed: int, kind: Input = "rgb") -> Iterator[Tensor]:
    """Gives the clips that stand for `clips` in a test.

    Args:
        clips: (N, C, T, H, W), T at least 2; they stay as they are.
        test: One of `TESTS`.
        videos: Number of each clip's video in its split, N of them.
        seed: Of the shuffles, at least 0.
        kind: What the clips show of a video; see `trainer.data.augment.reordered`.

    Yields:
        Clips (N, C, T, H, W) on the same device in the same memory order: once, for `single` T times.

    Raises:
        ConfigError: As `orders`.
    """
    for order in orders(test, num_frames=clips.shape[2], videos=videos, seed=seed):
        if test == "forward":
            yield clips
            continue
        yield reordered(clips, order, kind, test=test)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reordered:
    """A source of batches whose evaluation clips are those of a motion test; training clips are as they were.

    Attributes:
        source: Where the clips come from.
        test: One of `TESTS`.
        seed: Of the shuffles.
    """

    source: Batches
    test: str
    seed: int

    def num_batches(self, data: Any, config: DataConfig, *, split: str, batch_size: int, parts: int = 1) -> int:
        """Batches of one epoch of training, where the split is `train`."""
        return self.source.num_batches(data, config, split=split, batch_size=batch_size, parts=parts)

    def train_batches(
        self,
        data: Any,
        config: DataConfig,
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        device: torch.device,
        start_batch: int = 0,
        part: Part = WHOLE,
        balance: Balance = "none",
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The source's own clips (N, C, T, H, W) and labels (N,)."""
        return self.source.train_batches(
            data,
            config,
            batch_size=batch_size,
            seed=seed,
            epoch=epoch,
            device=device,
            start_batch=start_batch,
            part=part,
            balance=balance,
        )

    def eval_batches(
        self,
        data: Any,
        config: DataConfig,
        *,
        split: str,
        batch_size: int,
        device: torch.device,
        part: Part = WHOLE,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Clips (N, C, T, H, W) of the test, labels (N,) and indices of the videos (N,).

        In `single`, a clip comes T times, so that an evaluation averages over its frames.

        Raises:
            ConfigError: As `orders`.
        """
        source = self.source.eval_batches(data, config, split=split, batch_size=batch_size, device=device, part=part)
        for clips, labels, videos in source:
            for changed in reorder(clips, self.test, videos=videos.tolist(), seed=self.seed, kind=config.input):
                yield changed, labels, videos


def motion_tests(
    model: nn.Module,
    data: Any,
    data_config: DataConfig,
    recipe: Recipe,
    split: str,
    device: str | torch.device = "cpu",
    *,
    seed: int = 0,
    tests: Sequence[str] = TESTS,
    batches: Batches = video_clips,
) -> dict[str, Evaluation]:
    """Evaluates a network in every motion test, by the very code that evaluates it in training.

    Costs as much as T evaluations for `single`, and one for each of the others. The network's mode is afterwards as it
    was, and no generator is used.

    Args:
        model: The network, on the device; takes (N, C, T, H, W), gives logits (N, K).
        data: The opened data.
        data_config: Says how many clips stand for a video.
        recipe: Its batch size, precision and memory order are used.
        split: Name of the split.
        device: Where to compute.
        seed: Of the shuffles, at least 0.
        tests: Which of `TESTS`, each once.
        batches: Where clips come from.

    Returns:
        The evaluation of each test, all of the same videos; `forward` is what `evaluate` gives.

    Raises:
        ConfigError: A test is not known, a clip has fewer than two frames, or as in `evaluate`.
        OutOfMemory, BrokenClip: As in training.
    """
    for test in tests:  # before anything is computed
        next(orders(test, num_frames=data_config.clip.frames, videos=(), seed=seed))
    return {
        test: evaluate(
            model,
            data,
            data_config,
            recipe,
            split,
            device,
            batches=Reordered(source=batches, test=test, seed=seed),
        )
        for test in tests
    }


def outcomes(results: Mapping[str, Evaluation]) -> tuple[MotionOutcome, ...]:
    """The plain values of motion tests, in their order."""
    return tuple(
        MotionOutcome(
            test=test,
            top1=result.metrics.top1,
            loss=result.metrics.loss,
            num_clips=result.metrics.num_clips,
            correct=correct_of(result),
        )
        for test, result in results.items()
    )


def correct_of(result: Evaluation) -> str:
    """A 0 or 1 for each video of a split in its order, - for one that was not evaluated."""
    marks = ["-"] * (int(result.videos.max()) + 1)
    for video, right in zip(result.videos.tolist(), (result.predictions == result.labels).tolist(), strict=True):
        marks[video] = "1" if right else "0"
    return "".join(marks)


def _shuffle(num_frames: int, video: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    rng = np.random.default_rng([_SHUFFLE, seed, video])
    while True:
        order = rng.permutation(num_frames)
        if (order != np.arange(num_frames)).any():
            return order
