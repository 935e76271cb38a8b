"""Measuring a network: the mean of its class probabilities over the clips of each video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainer.config import Balance, ConfigError, DataConfig
from trainer.data import clips as video_clips
from trainer.device import autocast
from trainer.failures import named
from trainer.metrics import Metrics, confusion_of, measure, measure_several
from trainer.processes import ALONE, WHOLE, Part, Team
from trainer.recipe import Recipe


class Batches(Protocol):
    """Where clips come from; `trainer.data.clips` is one such source."""

    def num_batches(self, data: Any, config: DataConfig, *, split: str, batch_size: int, parts: int = 1) -> int:
        """Batches of one epoch; of `train`, for each of `parts` processes."""
        ...

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
        """Clips (N, C, T, H, W) and labels (N,), or 0/1 of each class (N, K).

        A function of seed and epoch alone; the batches from `start_batch` on, and of each the process's part. `balance`
        says how often the videos of a class are drawn.
        """
        ...

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
        """Clips (N, C, T, H, W), labels (N,) or (N, K), and indices of the videos that the clips are of (N,).

        Of several processes, each gets whole batches in turn.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """What a network made of one split.

    Attributes:
        metrics: Accuracy and loss.
        videos: (V,) indices in the split of the videos that were evaluated, ascending.
        labels: (V,) true classes; of a video with several, the predicted one if it is among them, else the first.
        predictions: (V,) most probable classes.
        confusion: (K, K) counts; rows are true classes, columns predicted ones.
        probabilities: (V, K) means over the clips of each video; with several labels per video, each class for itself.
        targets: (V, K) 0 or 1 where a video has several labels, else `None`.
    """

    metrics: Metrics
    videos: Tensor
    labels: Tensor
    predictions: Tensor
    confusion: Tensor
    probabilities: Tensor
    targets: Tensor | None = None


def evaluate(
    model: nn.Module,
    data: Any,
    data_config: DataConfig,
    recipe: Recipe,
    split: str,
    device: str | torch.device = "cpu",
    *,
    batches: Batches = video_clips,
    team: Team = ALONE,
) -> Evaluation:
    """Evaluates a network in eval mode; its mode is afterwards as it was.

    Args:
        model: The network, on the device; takes (N, C, T, H, W), gives logits (N, K).
        data: The opened data.
        data_config: Says how many clips stand for a video.
        recipe: Its batch size, precision and memory order are used.
        split: Name of the split.
        device: Where to compute.
        batches: Where clips come from.
        team: The processes that evaluate together; each gives back the whole.

    Raises:
        ConfigError: The split is empty, or the network has another number of classes than the data.
        OutOfMemory, BrokenClip: As in training.
    """
    device = torch.device(device)
    num_classes = len(data.classes)
    rows: list[Tensor] = []
    truths: list[Tensor] = []
    owners: list[Tensor] = []
    was_training = model.training
    model.eval()
    try:
        with named(f"evaluation on {split}"), torch.inference_mode():
            source = batches.eval_batches(
                data, data_config, split=split, batch_size=recipe.batch_size, device=device, part=team.part
            )
            for clips, labels, videos in source:
                if recipe.channels_last:
                    clips = clips.to(memory_format=torch.channels_last_3d)
                with autocast(recipe.precision, device):
                    logits = model(clips)
                check_classes(logits, num_classes)
                # Losses of several labels per video train a sigmoid a class, or an order, which it keeps.
                rows.append((logits.float().softmax(1) if labels.ndim == 1 else logits.float().sigmoid()).cpu())
                truths.append(labels.cpu())
                owners.append(videos.cpu())
    finally:
        model.train(was_training)
    rows, truths, owners = (_joined(team.gathered(list(part))) for part in (rows, truths, owners))
    if not rows:
        raise ConfigError(f"a split to evaluate must hold a video, but {split} of {data_config.root} holds none")
    # inference tensors end here: what is returned may be used anywhere
    videos, place, num_clips = torch.unique(torch.cat(owners).clone(), return_inverse=True, return_counts=True)
    sums = torch.zeros(len(videos), num_classes).index_add_(0, place, torch.cat(rows).clone())
    given = torch.cat(truths).clone()
    truth = given.new_zeros(len(videos), *given.shape[1:]).index_copy_(0, place, given)
    means = sums / num_clips[:, None]
    predictions = means.argmax(1)
    several = truth.ndim == 2
    labels = _closest(truth, predictions) if several else truth
    return Evaluation(
        metrics=measure_several(means, truth) if several else measure(means, truth),
        videos=videos,
        labels=labels,
        predictions=predictions,
        confusion=confusion_of(predictions, labels, num_classes=num_classes),
        probabilities=means,
        targets=truth if several else None,
    )


def _joined(parts: Sequence[list[Tensor]]) -> list[Tensor]:
    """What the processes have found, in the order in which one would have: they took batches in turn."""
    rounds = max(len(part) for part in parts)
    return [part[turn] for turn in range(rounds) for part in parts if turn < len(part)]


def _closest(targets: Tensor, predictions: Tensor) -> Tensor:
    """The predicted class where it is one of the video's, else the first of them."""
    right = targets.gather(1, predictions[:, None]).squeeze(1) > 0.5
    return torch.where(right, predictions, (targets > 0.5).int().argmax(1))


def check_classes(logits: object, num_classes: int) -> None:
    """Raises ConfigError unless logits are a tensor (N, num_classes)."""
    if not isinstance(logits, Tensor):
        raise ConfigError(
            f"a network must give logits (N, {num_classes}), in training also a tuple of them, but gives "
            f"{type(logits).__name__}"
        )
    if logits.ndim != 2 or logits.shape[1] != num_classes:
        raise ConfigError(
            f"a network must give logits (N, {num_classes}) for the data's {num_classes} classes, but gives "
            f"{tuple(logits.shape)}"
        )
